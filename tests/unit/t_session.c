/* t_session: a cookie finds its own record at its own site, and only while it lives. */
#include "abb_session.h"

#include <pthread.h>

#include "abb_text.h"
#include "shared.h"
#include "unit.h"

#define NOW apr_time_from_sec(1800000000)
#define SECONDS(n) apr_time_from_sec(n)
#define HOURS(n) apr_time_from_sec((n)*3600)
#define UUID "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645"

/* ---- a store that counts, and fails on demand ---------------------------- */

typedef struct {
    abb_store_t store;
    const abb_store_t *inner;
    int gets;
    int puts;
    int replaces;
    int touches;
    int drops;
    /* What the next calls answer instead of asking; APR_SUCCESS to ask. */
    apr_status_t answer;
    apr_status_t touch_answer;
    /* Which parts the last get asked for. */
    abb_store_parts_t parts;
    /* What a get hands out in place of the open part. */
    const void *open;
    apr_size_t open_size;
    abb_store_key_t key;
    /* What the last expectation said, and how many there were. */
    int expects;
    abb_store_key_t expected;
    apr_uint32_t expected_place;
} probe_t;

static apr_status_t probe_get(void *engine, const abb_store_key_t *key, abb_store_parts_t parts,
                              apr_time_t now, abb_store_record_t *record, apr_pool_t *p,
                              abb_error_t *err)
{
    probe_t *probe = engine;
    apr_status_t status;

    ++probe->gets;
    probe->parts = parts;
    probe->key = *key;
    if (probe->answer != APR_SUCCESS) {
        return abb_error_set(err, probe->answer, "the probe fails");
    }
    status = abb_store_get(probe->inner, key, parts, now, record, p, err);
    if (status == APR_SUCCESS && probe->open) {
        record->open = probe->open;
        record->open_size = probe->open_size;
    }
    return status;
}

static apr_status_t probe_put(void *engine, const abb_store_key_t *key,
                              const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    probe_t *probe = engine;

    ++probe->puts;
    probe->key = *key;
    if (probe->answer == APR_EEXIST) {
        return APR_EEXIST;
    }
    return probe->answer != APR_SUCCESS ? abb_error_set(err, probe->answer, "the probe fails")
                                        : abb_store_put(probe->inner, key, record, now, err);
}

static apr_status_t probe_replace(void *engine, const abb_store_key_t *key, apr_uint64_t generation,
                                  const abb_store_record_t *record, apr_time_t now,
                                  abb_error_t *err)
{
    probe_t *probe = engine;

    ++probe->replaces;
    return probe->answer != APR_SUCCESS
               ? abb_error_set(err, probe->answer, "the probe fails")
               : abb_store_replace(probe->inner, key, generation, record, now, err);
}

static apr_status_t probe_touch(void *engine, const abb_store_key_t *key, apr_time_t now,
                                abb_error_t *err)
{
    probe_t *probe = engine;

    ++probe->touches;
    return probe->touch_answer != APR_SUCCESS
               ? abb_error_set(err, probe->touch_answer, "the probe fails")
               : abb_store_touch(probe->inner, key, now, err);
}

static apr_status_t probe_lease(void *engine, const abb_store_key_t *key,
                                apr_interval_time_t duration, apr_time_t now, apr_uint64_t *holder,
                                abb_error_t *err)
{
    return abb_store_lease(((probe_t *)engine)->inner, key, duration, now, holder, err);
}

static apr_status_t probe_release(void *engine, const abb_store_key_t *key, apr_uint64_t holder,
                                  abb_error_t *err)
{
    return abb_store_release(((probe_t *)engine)->inner, key, holder, err);
}

static apr_status_t probe_fail(void *engine, const abb_store_key_t *key, apr_uint64_t holder,
                               apr_time_t now, abb_error_t *err)
{
    return abb_store_fail(((probe_t *)engine)->inner, key, holder, now, err);
}

static apr_status_t probe_drop(void *engine, const abb_store_key_t *key, abb_error_t *err)
{
    probe_t *probe = engine;

    ++probe->drops;
    return probe->answer != APR_SUCCESS ? abb_error_set(err, probe->answer, "the probe fails")
                                        : abb_store_drop(probe->inner, key, err);
}

static void probe_figures(void *engine, abb_store_figures_t *figures)
{
    abb_store_figures(((probe_t *)engine)->inner, figures);
}

static apr_int64_t probe_take_evictions(void *engine, apr_time_t now)
{
    return abb_store_take_evictions(((probe_t *)engine)->inner, now);
}

static void probe_expect(void *engine, const abb_store_key_t *key, apr_uint32_t at)
{
    probe_t *probe = engine;

    ++probe->expects;
    probe->expected = *key;
    probe->expected_place = at;
    abb_store_expect(probe->inner, key, at);
}

static const abb_store_methods_t probe_methods = {
    probe_get,  probe_put,  probe_replace, probe_touch,          probe_lease,  probe_release,
    probe_fail, probe_drop, probe_figures, probe_take_evictions, probe_expect, NULL};

/* ---- a site -------------------------------------------------------------- */

typedef struct {
    apr_pool_t *p;
    probe_t probe;
    abb_crypto_keyring_t ring;
    abb_sessions_t sessions;
} place_t;

static int begin(void **state)
{
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
}

static void set_audience(abb_sessions_t *sessions, const char *client_id, const char *origin,
                         apr_pool_t *p)
{
    assert_int_equal(abb_session_set_audience(sessions, client_id, origin, p, NULL), APR_SUCCESS);
}

static int create_place(void **state)
{
    place_t *place;
    void *p;

    if (unit_create_pool(&p) != 0) {
        return -1;
    }
    place = apr_pcalloc(p, sizeof(*place));
    place->p = p;
    place->probe.inner = shared_store(512 * 1024, p);
    place->probe.store.methods = &probe_methods;
    place->probe.store.engine = &place->probe;
    place->ring.count = 1;
    memset(place->ring.keys[0].bytes, 7, ABB_CRYPTO_KEY_SIZE);
    place->sessions.store = &place->probe.store;
    place->sessions.keyring = &place->ring;
    place->sessions.idle_timeout = HOURS(12);
    place->sessions.absolute_timeout = HOURS(24 * 7);
    set_audience(&place->sessions, "key", "https://wiki.example.com", p);
    *state = place;
    return 0;
}

static int destroy_place(void **state)
{
    place_t *place = *state;
    const char *fault = abb_store_shm_check(place->probe.inner);

    apr_pool_destroy(place->p);
    return fault ? -1 : 0;
}

#define PLACE_TEST(function) cmocka_unit_test_setup_teardown(function, create_place, destroy_place)

static abb_grant_t grants[] = {
    {"acme", "acme", "470c176d-3574-44ea-bb41-89e8638bcca4", ABB_ROLE_OWNER, NOW},
    {"beta", NULL, NULL, ABB_ROLE_NONE, NOW},
};

static abb_record_t make_record(void)
{
    abb_record_t record;

    memset(&record, 0, sizeof(record));
    record.account.uuid = UUID;
    record.account.username = "ada";
    record.account.display_name = "Ada L\xc3\xb6wen";
    record.grants = grants;
    record.grant_count = 2;
    record.created_at = NOW;
    record.account_checked_at = NOW;
    return record;
}

static abb_record_private_t make_private(void)
{
    abb_record_private_t part = {{"access", "refresh", "account email", NOW + SECONDS(7200), 0, 0},
                                 "{\"type\":\"user\"}"};

    return part;
}

static const char *create(place_t *place, abb_session_t **session)
{
    abb_record_t record = make_record();
    abb_record_private_t part = make_private();
    abb_session_t *created = NULL;
    const char *cookie = NULL;
    abb_error_t err;

    abb_error_clear(&err);
    assert_int_equal(abb_session_create(&place->sessions, &record, &part, NOW, &cookie, &created,
                                        place->p, &err),
                     APR_SUCCESS);
    assert_int_equal(err.status, APR_SUCCESS);
    assert_non_null(cookie);
    assert_non_null(created);
    if (session) {
        *session = created;
    }
    return cookie;
}

static abb_session_t *find(place_t *place, const char *cookie, apr_time_t now)
{
    abb_session_t *session = NULL;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_session_find(&place->sessions, cookie, now, &session, place->p, &err) != APR_SUCCESS) {
        fail_msg("not found: %s", err.text);
    }
    assert_non_null(session);
    return session;
}

static apr_status_t try_find(place_t *place, const char *cookie, apr_time_t now)
{
    abb_session_t *session;

    return abb_session_find(&place->sessions, cookie, now, &session, place->p, NULL);
}

/* ---- beginning and finding ----------------------------------------------- */

static void a_session_is_found_by_its_cookie(void **state)
{
    place_t *place = *state;
    abb_session_t *created;
    const char *cookie = create(place, &created);
    abb_session_t *found = find(place, cookie, NOW + SECONDS(1));

    assert_string_equal(found->record.account.uuid, UUID);
    assert_string_equal(found->record.account.username, "ada");
    assert_string_equal(found->record.account.display_name, "Ada L\xc3\xb6wen");
    assert_null(found->record.account.email);
    assert_int_equal(found->record.grant_count, 2);
    assert_int_equal(abb_record_find_grant(&found->record, "acme")->role, ABB_ROLE_OWNER);
    assert_true(found->record.created_at == NOW);
    assert_memory_equal(found->id, created->id, ABB_SESSION_ID_SIZE);
    assert_memory_equal(&found->key, &created->key, sizeof(found->key));
    assert_string_equal(found->tag, created->tag);
    assert_true(found->absolute_end == NOW + HOURS(24 * 7));
    assert_true(found->expires_at == NOW + HOURS(12));
    assert_true(created->absolute_end == found->absolute_end);
    assert_true(created->expires_at == found->expires_at);
}

/* Named by the bytes of something else; a cookie of the same bytes is another's. */
static void a_named_session_is_found_by_its_name_only(void **state)
{
    place_t *place = *state;
    unsigned char id[ABB_SESSION_ID_SIZE] = "the code of a credential";
    unsigned char other[ABB_SESSION_ID_SIZE] = "the code of another one";
    abb_record_t record = make_record();
    abb_record_private_t part = make_private();
    abb_session_t *created = NULL;
    abb_session_t *found = NULL;

    assert_int_equal(abb_session_find_named(&place->sessions, id, NOW, &found, place->p, NULL),
                     APR_NOTFOUND);
    assert_int_equal(abb_session_create_named(&place->sessions, id, &record, &part, NOW, &created,
                                              place->p, NULL),
                     APR_SUCCESS);
    /* Another was quicker: its session is the one. */
    record.account.username = "second";
    assert_int_equal(abb_session_create_named(&place->sessions, id, &record, &part, NOW, &created,
                                              place->p, NULL),
                     APR_SUCCESS);
    assert_string_equal(created->record.account.username, "ada");
    assert_int_equal(abb_session_find_named(&place->sessions, id, NOW, &found, place->p, NULL),
                     APR_SUCCESS);
    assert_string_equal(found->record.account.uuid, UUID);
    memset(&part, 0, sizeof(part));
    assert_int_equal(abb_session_reload(&place->sessions, found, NOW, &part, place->p, NULL),
                     APR_SUCCESS);
    assert_string_equal(part.tokens.access_token, "access");
    assert_int_equal(abb_session_find_named(&place->sessions, other, NOW, &found, place->p, NULL),
                     APR_NOTFOUND);
    assert_int_equal(try_find(place, abb_text_base64url_encode(id, sizeof(id), place->p), NOW),
                     APR_NOTFOUND);
}

static void a_created_session_can_be_used_at_once(void **state)
{
    place_t *place = *state;
    abb_session_t *created;

    create(place, &created);
    assert_string_equal(created->record.account.uuid, UUID);
    assert_int_equal(strlen(created->tag), 8);
    assert_int_equal(strspn(created->tag, "0123456789abcdef"), 8);
    assert_int_equal(strncmp(created->tag, abb_text_hex(created->key.bytes, 4, place->p), 8), 0);
}

/* ---- names that came lately ---------------------------------------------- */

/* Whether names are used shows when the site's audience changes: they do not. */
static void a_name_that_came_lately_is_not_made_anew(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    const char *later = create(place, NULL);

    place->sessions.names = abb_session_names_create(1, place->p);
    find(place, cookie, NOW);
    place->sessions.audience_hash[0] ^= 1;
    find(place, cookie, NOW);
    assert_int_equal(try_find(place, later, NOW), APR_NOTFOUND);
    place->sessions.names = NULL;
    assert_int_equal(try_find(place, cookie, NOW), APR_NOTFOUND);
}

static void a_known_name_is_looked_up_each_time(void **state)
{
    place_t *place = *state;
    abb_session_t *session;
    const char *cookie = create(place, &session);

    place->sessions.names = abb_session_names_create(1, place->p);
    find(place, cookie, NOW);
    place->probe.gets = 0;
    find(place, cookie, NOW);
    assert_int_equal(place->probe.gets, 1);
    assert_int_equal(try_find(place, cookie, NOW + HOURS(12)), APR_NOTFOUND);
    assert_int_equal(abb_session_drop(&place->sessions, session, NULL), APR_SUCCESS);
    assert_int_equal(try_find(place, cookie, NOW), APR_NOTFOUND);
}

/* All sites of a child share its names. */
static void a_name_is_known_at_its_own_site_only(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    abb_sessions_t other;
    abb_session_t *session;

    place->sessions.names = abb_session_names_create(1, place->p);
    other = place->sessions;
    set_audience(&other, "key", "https://other.example.com", place->p);
    for (int i = 0; i < 3; ++i) {
        find(place, cookie, NOW);
        assert_int_equal(abb_session_find(&other, cookie, NOW, &session, place->p, NULL),
                         APR_NOTFOUND);
    }
}

/* All begin alike and so share a place; each character counts, and the length. */
static void names_that_share_a_place_are_told_apart(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    char *other = apr_pstrdup(place->p, cookie);

    place->sessions.names = abb_session_names_create(1, place->p);
    for (int i = 4; i < ABB_SESSION_COOKIE_LENGTH; ++i) {
        find(place, cookie, NOW);
        other[i] = other[i] == 'A' ? 'B' : 'A';
        assert_int_equal(try_find(place, other, NOW), APR_NOTFOUND);
        other[i] = cookie[i];
        find(place, other, NOW);
    }
    for (apr_size_t length = 0; length < ABB_SESSION_COOKIE_LENGTH; ++length) {
        const char *cut = apr_pstrmemdup(place->p, cookie, length);

        assert_int_equal(try_find(place, unit_bytes(cut, length + 1, place->p), NOW), APR_NOTFOUND);
    }
    assert_int_equal(try_find(place, apr_pstrcat(place->p, cookie, "A", NULL), NOW), APR_NOTFOUND);
}

/* Returns how often the store was told to expect something. */
static int expect(place_t *place, const abb_sessions_t *sessions, const char *cookie)
{
    place->probe.expects = 0;
    abb_session_announce(sessions, cookie);
    abb_session_expect(sessions, cookie);
    return place->probe.expects;
}

static void a_session_that_came_lately_can_be_expected(void **state)
{
    place_t *place = *state;
    abb_record_private_t part = make_private();
    abb_session_t *session;
    const char *cookie = create(place, &session);
    apr_uint32_t first;

    assert_int_equal(expect(place, &place->sessions, cookie), 0);
    place->sessions.names = abb_session_names_create(1, place->p);
    assert_int_equal(expect(place, &place->sessions, cookie), 0);
    find(place, cookie, NOW);
    assert_int_equal(expect(place, &place->sessions, cookie), 1);
    assert_memory_equal(&place->probe.expected, &session->key, sizeof(session->key));
    assert_int_not_equal(place->probe.expected_place, 0);
    /* A record that is replaced is elsewhere, and found there from the next look on. */
    first = place->probe.expected_place;
    session = find(place, cookie, NOW);
    assert_int_equal(abb_session_replace(&place->sessions, session, &part, NOW, place->p, NULL),
                     APR_SUCCESS);
    find(place, cookie, NOW);
    assert_int_equal(expect(place, &place->sessions, cookie), 1);
    assert_int_not_equal(place->probe.expected_place, first);
    find(place, cookie, NOW);
}

static void a_session_is_expected_at_its_own_site_only(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    abb_sessions_t other;

    place->sessions.names = abb_session_names_create(1, place->p);
    other = place->sessions;
    find(place, cookie, NOW);
    assert_int_equal(expect(place, &other, cookie), 0);
    assert_int_equal(expect(place, &place->sessions, cookie), 1);
}

#define FINDERS 8
#define FINDER_ROUNDS 2000

typedef struct {
    const abb_sessions_t *sessions;
    const char *const *cookies;
    int count;
    apr_pool_t *p;
    int wrong;
} finder_t;

static void *find_all(void *data)
{
    finder_t *finder = data;

    for (int i = 0; i < FINDER_ROUNDS; ++i) {
        const char *cookie = finder->cookies[i % finder->count];
        abb_session_t *session = NULL;

        abb_session_announce(finder->sessions, cookie);
        abb_session_expect(finder->sessions, cookie);
        finder->wrong +=
            abb_session_find(finder->sessions, cookie, NOW, &session, finder->p, NULL) !=
                APR_SUCCESS ||
            strcmp(abb_text_base64url_encode(session->id, ABB_SESSION_ID_SIZE, finder->p),
                   cookie) != 0;
        apr_pool_clear(finder->p);
    }
    return NULL;
}

static void threads_share_the_names(void **state)
{
    place_t *place = *state;
    const char *cookies[50];
    finder_t finders[FINDERS];
    pthread_t threads[FINDERS];

    for (apr_size_t i = 0; i < UNIT_COUNT(cookies); ++i) {
        cookies[i] = create(place, NULL);
    }
    place->sessions.names = abb_session_names_create(1, place->p);
    /* The probe counts without a lock. */
    place->sessions.store = place->probe.inner;
    for (int i = 0; i < FINDERS; ++i) {
        finders[i] = (finder_t){&place->sessions, cookies, (int)UNIT_COUNT(cookies) - i, NULL, 0};
        assert_int_equal(apr_pool_create_unmanaged_ex(&finders[i].p, NULL, NULL), APR_SUCCESS);
        assert_int_equal(pthread_create(&threads[i], NULL, find_all, &finders[i]), 0);
    }
    for (int i = 0; i < FINDERS; ++i) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(finders[i].wrong, 0);
        apr_pool_destroy(finders[i].p);
    }
}

static void finding_opens_nothing(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);

    place->ring.count = 0;
    find(place, cookie, NOW);
    assert_int_equal(place->probe.parts, ABB_STORE_OPEN_PART);
    assert_int_equal(place->probe.gets, 1);
}

static void each_session_has_an_id_of_its_own(void **state)
{
    place_t *place = *state;
    abb_session_t *first;
    abb_session_t *second;
    const char *a = create(place, &first);
    const char *b = create(place, &second);

    assert_string_not_equal(a, b);
    assert_int_equal(strlen(a), 43);
    assert_memory_not_equal(first->id, second->id, ABB_SESSION_ID_SIZE / 2);
    assert_memory_not_equal(first->id + ABB_SESSION_ID_SIZE / 2,
                            second->id + ABB_SESSION_ID_SIZE / 2, ABB_SESSION_ID_SIZE / 2);
    assert_string_equal(abb_text_base64url_encode(first->id, ABB_SESSION_ID_SIZE, place->p), a);
}

/* The store learns neither the cookie nor a plain hash of it. */
static void the_key_is_no_way_to_the_cookie(void **state)
{
    place_t *place = *state;
    unsigned char hash[ABB_CRYPTO_KEY_SIZE];
    abb_session_t *session;

    create(place, &session);
    assert_memory_not_equal(session->key.bytes, session->id, ABB_STORE_KEY_SIZE);
    assert_int_equal(abb_crypto_hash(session->id, sizeof(session->id), "", 0, hash, NULL),
                     APR_SUCCESS);
    assert_memory_not_equal(session->key.bytes, hash, ABB_STORE_KEY_SIZE);
}

static void garbage_is_no_cookie(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    const char *const garbage[] = {
        "",
        "x",
        apr_pstrcat(place->p, cookie, "=", NULL),
        apr_pstrcat(place->p, cookie, "A", NULL),
        apr_pstrcat(place->p, " ", cookie, NULL),
        apr_pstrcat(place->p, cookie, cookie, NULL),
        apr_pstrmemdup(place->p, cookie, 42),
        unit_repeat('A', 43, place->p),
        unit_repeat('_', 43, place->p),
        unit_repeat('/', 43, place->p),
        unit_repeat('+', 43, place->p),
        unit_repeat('\xff', 43, place->p),
        unit_repeat('A', 100000, place->p),
        "'; DROP TABLE sessions; --",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(garbage); ++i) {
        abb_session_t *session;
        abb_error_t err;

        abb_error_clear(&err);
        assert_int_equal(
            abb_session_find(&place->sessions, garbage[i], NOW, &session, place->p, &err),
            APR_NOTFOUND);
    }
}

/* No two cookies name one session, so that nobody can tell copies apart. */
static void each_changed_character_finds_nothing(void **state)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    place_t *place = *state;
    const char *cookie = create(place, NULL);

    for (int i = 0; i < 43; ++i) {
        for (const char *c = digits; *c; ++c) {
            char *changed = apr_pstrdup(place->p, cookie);

            changed[i] = *c;
            if (*c != cookie[i]) {
                assert_int_equal(try_find(place, changed, NOW), APR_NOTFOUND);
            }
        }
    }
    find(place, cookie, NOW);
}

/* ---- foreign sites, stores and keys -------------------------------------- */

static void a_cookie_is_good_at_its_own_site_only(void **state)
{
    static const struct {
        const char *client_id;
        const char *origin;
    } sites[] = {
        {"key2", "https://wiki.example.com"}, {"key", "https://wiki.example.org"},
        {"key", "http://wiki.example.com"},   {"key", "https://wiki.example.com:8443"},
        {"ke", "y:https://wiki.example.com"}, {"key:https", "//wiki.example.com"},
        {"", "https://wiki.example.com"},     {"key", ""},
    };
    place_t *place = *state;
    const char *cookie = create(place, NULL);

    for (apr_size_t i = 0; i < UNIT_COUNT(sites); ++i) {
        set_audience(&place->sessions, sites[i].client_id, sites[i].origin, place->p);
        assert_int_equal(try_find(place, cookie, NOW), APR_NOTFOUND);
    }
    set_audience(&place->sessions, "key", "https://wiki.example.com", place->p);
    find(place, cookie, NOW);
}

static void a_foreign_store_has_nothing(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);

    place->sessions.store = shared_store(ABB_STORE_SHM_MIN, place->p);
    assert_int_equal(try_find(place, cookie, NOW), APR_NOTFOUND);
}

/* What is sealed opens for its own cookie and site only, even in the wrong record. */
static void the_private_part_is_bound_to_cookie_and_site(void **state)
{
    place_t *place = *state;
    abb_record_private_t part;
    abb_session_t *first;
    abb_session_t *second;

    create(place, &first);
    create(place, &second);
    memcpy(first->id, second->id, sizeof(first->id));
    assert_int_equal(abb_session_reload(&place->sessions, first, NOW, &part, place->p, NULL),
                     ABB_ESEAL);
    set_audience(&place->sessions, "key", "https://evil.example.com", place->p);
    assert_int_equal(abb_session_reload(&place->sessions, second, NOW, &part, place->p, NULL),
                     ABB_ESEAL);
}

static void check_private(const abb_record_private_t *part)
{
    assert_string_equal(part->tokens.access_token, "access");
    assert_string_equal(part->tokens.refresh_token, "refresh");
    assert_string_equal(part->tokens.scope, "account email");
    assert_true(part->tokens.expires_at == NOW + SECONDS(7200));
    assert_string_equal(part->raw_user, "{\"type\":\"user\"}");
}

static void the_private_part_opens_with_an_older_key(void **state)
{
    place_t *place = *state;
    abb_crypto_keyring_t old = place->ring;
    abb_record_private_t part;
    abb_session_t *session;
    const char *cookie = create(place, &session);

    memset(place->ring.keys[0].bytes, 8, ABB_CRYPTO_KEY_SIZE);
    session = find(place, cookie, NOW);
    assert_int_equal(abb_session_reload(&place->sessions, session, NOW, &part, place->p, NULL),
                     ABB_ESEAL);
    place->ring.keys[1] = old.keys[0];
    place->ring.count = 2;
    session = find(place, cookie, NOW);
    memset(&part, 0, sizeof(part));
    assert_int_equal(abb_session_reload(&place->sessions, session, NOW, &part, place->p, NULL),
                     APR_SUCCESS);
    check_private(&part);
    /* What is written now is sealed with the newer key. */
    assert_int_equal(abb_session_replace(&place->sessions, session, &part, NOW, place->p, NULL),
                     APR_SUCCESS);
    place->ring.count = 1;
    assert_int_equal(abb_session_reload(&place->sessions, session, NOW, &part, place->p, NULL),
                     APR_SUCCESS);
    check_private(&part);
}

/* ---- times --------------------------------------------------------------- */

static void a_session_ends_when_it_is_not_used(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);

    find(place, cookie, NOW + HOURS(12) - 1);
    find(place, cookie, NOW + HOURS(24) - 2);
    assert_int_equal(try_find(place, cookie, NOW + HOURS(36)), APR_NOTFOUND);
}

static void a_session_ends_in_any_case(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    apr_time_t end = NOW + HOURS(24 * 7);

    for (apr_time_t now = NOW; now < end; now += HOURS(6)) {
        abb_session_t *session = find(place, cookie, now);

        assert_true(session->absolute_end == end);
        assert_true(session->expires_at == (now + HOURS(12) < end ? now + HOURS(12) : end));
    }
    find(place, cookie, end - 1);
    assert_int_equal(try_find(place, cookie, end), APR_NOTFOUND);
}

static apr_status_t take_ended(place_t *place, const char *cookie, apr_time_t now, const char **why)
{
    abb_session_t *session = NULL;
    apr_status_t status =
        abb_session_take_ended(&place->sessions, cookie, now, &session, why, place->p, NULL);

    if (status == APR_SUCCESS) {
        assert_string_equal(session->record.account.uuid, UUID);
        assert_int_equal(strlen(session->tag), ABB_SESSION_TAG_SIZE - 1);
    }
    return status;
}

static void what_is_left_of_a_session_is_taken_once(void **state)
{
    place_t *place = *state;
    const char *unused = create(place, NULL);
    const char *old = create(place, NULL);
    const char *why = NULL;

    place->sessions.store = place->probe.inner;
    assert_int_equal(take_ended(place, unused, NOW + HOURS(12) - 1, &why), APR_NOTFOUND);
    for (int hour = 0; hour < 24 * 7; hour += 6) {
        find(place, old, NOW + HOURS(hour));
    }
    assert_int_equal(take_ended(place, old, NOW + HOURS(24 * 7) - 1, &why), APR_NOTFOUND);
    find(place, old, NOW + HOURS(24 * 7) - 1);
    assert_int_equal(take_ended(place, unused, NOW + HOURS(12), &why), APR_SUCCESS);
    assert_non_null(strstr(why, "unused for 12h"));
    assert_int_equal(take_ended(place, old, NOW + HOURS(24 * 7), &why), APR_SUCCESS);
    assert_non_null(strstr(why, "it began 7d ago"));
    assert_int_equal(take_ended(place, unused, NOW + HOURS(12), &why), APR_NOTFOUND);
    assert_int_equal(take_ended(place, old, NOW + HOURS(24 * 7), &why), APR_NOTFOUND);
}

static void nothing_is_left_of_what_never_was(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    const char *why = NULL;

    /* A store that others share is not asked a second time. */
    place->probe.gets = 0;
    assert_int_equal(take_ended(place, cookie, NOW + HOURS(12), &why), APR_NOTFOUND);
    assert_int_equal(place->probe.gets, 0);
    place->sessions.store = place->probe.inner;
    assert_int_equal(take_ended(place, "", NOW, &why), APR_NOTFOUND);
    assert_int_equal(take_ended(place, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", NOW, &why),
                     APR_NOTFOUND);
    set_audience(&place->sessions, "key", "https://other.example.com", place->p);
    assert_int_equal(take_ended(place, cookie, NOW + HOURS(12), &why), APR_NOTFOUND);
}

static void uses_are_noted_once_a_minute(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);

    for (int second = 0; second < 60; ++second) {
        find(place, cookie, NOW + SECONDS(second));
    }
    assert_int_equal(place->probe.touches, 0);
    for (int second = 60; second < 660; ++second) {
        find(place, cookie, NOW + SECONDS(second));
    }
    assert_int_equal(place->probe.touches, 10);
}

/* A limit shorter than the throttle does not end a session in use. */
static void a_short_idle_limit_is_kept_alive(void **state)
{
    place_t *place = *state;
    const char *cookie;

    place->sessions.idle_timeout = SECONDS(30);
    cookie = create(place, NULL);
    for (int second = 0; second < 600; second += 10) {
        find(place, cookie, NOW + SECONDS(second));
    }
    assert_int_equal(try_find(place, cookie, NOW + SECONDS(590 + 30)), APR_NOTFOUND);
}

static void a_touch_that_fails_costs_nothing(void **state)
{
    static const apr_status_t answers[] = {ABB_ESTORE, ABB_ECHANGED, APR_NOTFOUND};
    place_t *place = *state;
    const char *cookie = create(place, NULL);

    for (apr_size_t i = 0; i < UNIT_COUNT(answers); ++i) {
        abb_session_t *session;

        place->probe.touch_answer = answers[i];
        session = find(place, cookie, NOW + HOURS(1));
        assert_true(session->expires_at == NOW + HOURS(12));
    }
    assert_int_equal(place->probe.touches, 3);
}

/* ---- the store fails ----------------------------------------------------- */

static void a_store_that_fails_is_not_an_absent_session(void **state)
{
    place_t *place = *state;
    abb_record_t record = make_record();
    abb_record_private_t part = make_private();
    abb_session_t *created;
    const char *cookie = create(place, &created);
    abb_session_t *session;
    const char *text;
    abb_error_t err;

    place->probe.answer = ABB_ESTORE;
    abb_error_clear(&err);
    assert_int_equal(abb_session_find(&place->sessions, cookie, NOW, &session, place->p, &err),
                     ABB_ESTORE);
    assert_int_equal(err.status, ABB_ESTORE);
    assert_int_equal(
        abb_session_create(&place->sessions, &record, &part, NOW, &text, &session, place->p, NULL),
        ABB_ESTORE);
    assert_int_equal(abb_session_reload(&place->sessions, created, NOW, &part, place->p, NULL),
                     ABB_ESTORE);
    assert_int_equal(abb_session_replace(&place->sessions, created, &part, NOW, place->p, NULL),
                     ABB_ESTORE);
    assert_int_equal(abb_session_drop(&place->sessions, created, NULL), ABB_ESTORE);
    assert_int_equal(
        abb_session_spend_attempt(&place->sessions, "id", 2, "/", SECONDS(600), NOW, NULL),
        ABB_ESTORE);
    assert_int_equal(
        abb_session_find_attempt(&place->sessions, "id", 2, NOW, &text, place->p, NULL),
        ABB_ESTORE);
}

static void a_damaged_record_is_not_an_absent_session(void **state)
{
    static const apr_uint64_t zeros[64];
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    abb_session_t *session;
    abb_error_t err;

    place->probe.open = zeros;
    for (apr_size_t size = 0; size <= sizeof(zeros); size += 64) {
        place->probe.open_size = size;
        abb_error_clear(&err);
        assert_int_equal(abb_session_find(&place->sessions, cookie, NOW, &session, place->p, &err),
                         ABB_ESTORE);
        assert_non_null(strstr(err.text, "damaged"));
        assert_null(strstr(err.text, cookie));
    }
}

/* ---- replacing and ending ------------------------------------------------ */

static void both_parts_are_read_again(void **state)
{
    place_t *place = *state;
    abb_record_private_t part;
    abb_session_t *session;

    create(place, &session);
    memset(&part, 0, sizeof(part));
    assert_int_equal(
        abb_session_reload(&place->sessions, session, NOW + SECONDS(1), &part, place->p, NULL),
        APR_SUCCESS);
    check_private(&part);
    assert_string_equal(session->record.account.uuid, UUID);
    assert_int_equal(place->probe.parts, ABB_STORE_BOTH_PARTS);
}

static void the_open_part_is_looked_at_again(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    abb_session_t *early = find(place, cookie, NOW);
    abb_session_t *session = find(place, cookie, NOW);
    abb_record_private_t part = make_private();
    abb_grant_t grant = {"gamma", "gamma", UUID, ABB_ROLE_MEMBER, NOW + SECONDS(5)};
    apr_uint64_t holder;

    assert_true(early->failed_at == 0);
    assert_int_equal(abb_record_put_grant(&session->record, &grant, place->p), APR_SUCCESS);
    assert_int_equal(abb_session_replace(&place->sessions, session, &part, NOW, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(
        abb_store_lease(place->sessions.store, &session->key, SECONDS(30), NOW, &holder, NULL),
        APR_SUCCESS);
    assert_int_equal(
        abb_store_fail(place->sessions.store, &session->key, holder, NOW + SECONDS(3), NULL),
        APR_SUCCESS);
    place->ring.count = 0;
    assert_int_equal(abb_session_look(&place->sessions, early, NOW, place->p, NULL), APR_SUCCESS);
    assert_int_equal(place->probe.parts, ABB_STORE_OPEN_PART);
    assert_int_equal(early->record.grant_count, 3);
    assert_true(early->generation != session->generation);
    assert_true(early->failed_at == NOW + SECONDS(3));
    assert_int_equal(abb_session_drop(&place->sessions, session, NULL), APR_SUCCESS);
    assert_int_equal(abb_session_look(&place->sessions, early, NOW, place->p, NULL), APR_NOTFOUND);
    place->probe.answer = ABB_ESTORE;
    assert_int_equal(abb_session_look(&place->sessions, early, NOW, place->p, NULL), ABB_ESTORE);
}

/* It cannot be, and if it were, somebody has to be told something. */
static void an_id_that_is_there_already_has_a_sentence(void **state)
{
    place_t *place = *state;
    abb_record_t record = make_record();
    abb_record_private_t part = make_private();
    abb_session_t *session;
    const char *cookie;
    abb_error_t err;

    place->probe.answer = APR_EEXIST;
    abb_error_clear(&err);
    assert_int_equal(abb_session_create(&place->sessions, &record, &part, NOW, &cookie, &session,
                                        place->p, &err),
                     ABB_ESTORE);
    assert_string_equal(err.text, "the store has a session already under an id just drawn");
}

static void a_record_is_replaced(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    abb_session_t *session = find(place, cookie, NOW);
    abb_record_private_t part = make_private();
    abb_grant_t grant = {"gamma", "gamma", UUID, ABB_ROLE_MEMBER, NOW + SECONDS(5)};

    part.tokens.access_token = "newer";
    assert_int_equal(abb_record_put_grant(&session->record, &grant, place->p), APR_SUCCESS);
    assert_int_equal(
        abb_session_replace(&place->sessions, session, &part, NOW + SECONDS(5), place->p, NULL),
        APR_SUCCESS);
    session = find(place, cookie, NOW + SECONDS(6));
    assert_int_equal(session->record.grant_count, 3);
    assert_int_equal(abb_record_find_grant(&session->record, "gamma")->role, ABB_ROLE_MEMBER);
    assert_int_equal(
        abb_session_reload(&place->sessions, session, NOW + SECONDS(6), &part, place->p, NULL),
        APR_SUCCESS);
    assert_string_equal(part.tokens.access_token, "newer");
}

static void of_two_replacements_one_wins(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    abb_session_t *first = find(place, cookie, NOW);
    abb_session_t *second = find(place, cookie, NOW);
    abb_record_private_t part = make_private();

    assert_int_equal(abb_session_replace(&place->sessions, first, &part, NOW, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(abb_session_replace(&place->sessions, second, &part, NOW, place->p, NULL),
                     ABB_ECHANGED);
    assert_int_equal(abb_session_reload(&place->sessions, second, NOW, &part, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(abb_session_replace(&place->sessions, second, &part, NOW, place->p, NULL),
                     APR_SUCCESS);
}

/* Neither a re-check nor a longer setting lengthens a session. */
static void a_replacement_keeps_the_end(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    abb_session_t *session = find(place, cookie, NOW + HOURS(1));
    abb_record_private_t part = make_private();
    apr_time_t end = session->absolute_end;

    place->sessions.absolute_timeout = HOURS(24 * 365);
    assert_int_equal(
        abb_session_replace(&place->sessions, session, &part, NOW + HOURS(11), place->p, NULL),
        APR_SUCCESS);
    session = find(place, cookie, NOW + HOURS(11));
    assert_true(session->absolute_end == end);
    place->probe.touch_answer = ABB_ECHANGED;
    /* It was used at 1 h and at 11 h; the replacement in between is no use. */
    find(place, cookie, NOW + HOURS(23) - 1);
    assert_int_equal(try_find(place, cookie, NOW + HOURS(23)), APR_NOTFOUND);
}

static void a_replacement_is_no_use(void **state)
{
    place_t *place = *state;
    const char *cookie = create(place, NULL);
    abb_session_t *session = find(place, cookie, NOW);
    abb_record_private_t part = make_private();

    assert_int_equal(
        abb_session_replace(&place->sessions, session, &part, NOW + HOURS(11), place->p, NULL),
        APR_SUCCESS);
    assert_int_equal(try_find(place, cookie, NOW + HOURS(12)), APR_NOTFOUND);
}

static void an_ended_session_is_gone(void **state)
{
    place_t *place = *state;
    abb_session_t *session;
    const char *cookie = create(place, &session);
    const char *other = create(place, NULL);
    abb_record_private_t part = make_private();

    assert_int_equal(abb_session_drop(&place->sessions, session, NULL), APR_SUCCESS);
    assert_int_equal(abb_session_drop(&place->sessions, session, NULL), APR_NOTFOUND);
    assert_int_equal(try_find(place, cookie, NOW), APR_NOTFOUND);
    assert_int_equal(abb_session_replace(&place->sessions, session, &part, NOW, place->p, NULL),
                     APR_NOTFOUND);
    assert_int_equal(abb_session_reload(&place->sessions, session, NOW, &part, place->p, NULL),
                     APR_NOTFOUND);
    find(place, other, NOW);
}

static void what_is_too_long_is_refused(void **state)
{
    place_t *place = *state;
    abb_record_t record = make_record();
    abb_record_private_t part = make_private();
    abb_session_t *session;
    const char *cookie;
    abb_error_t err;

    part.tokens.access_token = unit_repeat('a', ABB_RECORD_TOKEN_MAX + 1, place->p);
    abb_error_clear(&err);
    assert_int_equal(abb_session_create(&place->sessions, &record, &part, NOW, &cookie, &session,
                                        place->p, &err),
                     APR_ENOSPC);
    assert_int_equal(err.status, APR_ENOSPC);
    assert_int_equal(place->probe.puts, 0);
}

/* ---- forms --------------------------------------------------------------- */

static void a_form_proves_its_session(void **state)
{
    place_t *place = *state;
    abb_session_t *first;
    abb_session_t *second;
    const char *cookie = create(place, &first);
    const char *token;
    const char *other;

    create(place, &second);
    assert_int_equal(abb_session_form_token(first, &token, place->p, NULL), APR_SUCCESS);
    assert_int_equal(abb_session_form_token(second, &other, place->p, NULL), APR_SUCCESS);
    assert_string_not_equal(token, other);
    assert_string_not_equal(token, cookie);
    assert_true(abb_session_is_form_token(first, token, place->p));
    assert_true(abb_session_is_form_token(find(place, cookie, NOW), token, place->p));
    assert_false(abb_session_is_form_token(second, token, place->p));
    assert_false(abb_session_is_form_token(first, other, place->p));
    assert_false(abb_session_is_form_token(first, cookie, place->p));
    assert_false(abb_session_is_form_token(first, NULL, place->p));
    assert_false(abb_session_is_form_token(first, "", place->p));
    assert_false(
        abb_session_is_form_token(first, apr_pstrcat(place->p, token, "A", NULL), place->p));
    for (int i = 0; i < 43; ++i) {
        char *changed = apr_pstrdup(place->p, token);

        assert_false(abb_session_is_form_token(
            first, apr_pstrmemdup(place->p, token, (apr_size_t)i), place->p));
        changed[i] = changed[i] == 'x' ? 'y' : 'x';
        assert_false(abb_session_is_form_token(first, changed, place->p));
    }
}

/* ---- attempts ------------------------------------------------------------ */

static apr_status_t spend(place_t *place, const char *id, const char *path, apr_time_t now)
{
    return abb_session_spend_attempt(&place->sessions, id, strlen(id), path, SECONDS(600), now,
                                     NULL);
}

static apr_status_t find_attempt(place_t *place, const char *id, apr_time_t now, const char **path)
{
    return abb_session_find_attempt(&place->sessions, id, strlen(id), now, path, place->p, NULL);
}

static void an_attempt_is_spent_once(void **state)
{
    place_t *place = *state;
    const char *path = NULL;

    assert_int_equal(find_attempt(place, "one", NOW, &path), APR_NOTFOUND);
    assert_int_equal(spend(place, "one", "/wiki?a=b", NOW), APR_SUCCESS);
    assert_int_equal(spend(place, "one", "/other", NOW + SECONDS(1)), APR_EEXIST);
    assert_int_equal(find_attempt(place, "one", NOW + SECONDS(2), &path), APR_SUCCESS);
    assert_string_equal(path, "/wiki?a=b");
    assert_int_equal(find_attempt(place, "two", NOW, &path), APR_NOTFOUND);
    assert_int_equal(spend(place, "two", "/", NOW), APR_SUCCESS);
    assert_int_equal(find_attempt(place, "two", NOW, &path), APR_SUCCESS);
    assert_string_equal(path, "/");
}

static void an_attempt_is_remembered_for_its_lifetime(void **state)
{
    place_t *place = *state;
    const char *path = NULL;

    assert_int_equal(spend(place, "one", "/", NOW), APR_SUCCESS);
    assert_int_equal(find_attempt(place, "one", NOW + SECONDS(600) - 1, &path), APR_SUCCESS);
    assert_int_equal(spend(place, "one", "/", NOW + SECONDS(600) - 1), APR_EEXIST);
    assert_int_equal(find_attempt(place, "one", NOW + SECONDS(600), &path), APR_NOTFOUND);
}

static void attempts_are_their_sites_own(void **state)
{
    place_t *place = *state;
    const char *path;

    assert_int_equal(spend(place, "one", "/", NOW), APR_SUCCESS);
    set_audience(&place->sessions, "key", "https://evil.example.com", place->p);
    assert_int_equal(find_attempt(place, "one", NOW, &path), APR_NOTFOUND);
    assert_int_equal(spend(place, "one", "/", NOW), APR_SUCCESS);
}

/* The id of an attempt is no cookie, and a cookie no attempt. */
static void attempts_and_sessions_are_apart(void **state)
{
    place_t *place = *state;
    unsigned char id[ABB_SESSION_ID_SIZE];
    abb_session_t *session;
    const char *path;

    memset(id, 5, sizeof(id));
    assert_int_equal(
        abb_session_spend_attempt(&place->sessions, id, sizeof(id), "/", SECONDS(600), NOW, NULL),
        APR_SUCCESS);
    assert_int_equal(try_find(place, abb_text_base64url_encode(id, sizeof(id), place->p), NOW),
                     APR_NOTFOUND);
    create(place, &session);
    assert_int_equal(abb_session_find_attempt(&place->sessions, session->id, sizeof(session->id),
                                              NOW, &path, place->p, NULL),
                     APR_NOTFOUND);
}

/* ---- slugs and their uuids ------------------------------------------------ */

#define OTHER "0b01f37b-b1b2-40c5-8c5e-1a39f4b5e645"
#define DAYS(n) SECONDS((n)*86400LL)

static apr_status_t pin(place_t *place, const char *slug, const char *uuid, apr_time_t now)
{
    const char *pinned = NULL;
    apr_status_t status =
        abb_session_pin(&place->sessions, slug, uuid, now, &pinned, place->p, NULL);

    assert_true(status != APR_SUCCESS || strcmp(pinned, uuid) == 0);
    return status;
}

static void a_slug_stays_with_its_first_uuid(void **state)
{
    place_t *place = *state;

    assert_int_equal(pin(place, "acme", UUID, NOW), APR_SUCCESS);
    assert_int_equal(pin(place, "acme", UUID, NOW + DAYS(1)), APR_SUCCESS);
    assert_int_equal(pin(place, "acme", OTHER, NOW + DAYS(2)), ABB_EIDENTITY);
    assert_int_equal(pin(place, "acme", UUID, NOW + DAYS(3)), APR_SUCCESS);
    assert_int_equal(pin(place, "beta", OTHER, NOW), APR_SUCCESS);
}

static void a_slug_in_use_is_held_for_ever(void **state)
{
    place_t *place = *state;

    for (int day = 0; day <= 2100; day += 300) {
        assert_int_equal(pin(place, "acme", UUID, NOW + DAYS(day)), APR_SUCCESS);
    }
    /* Only the last use can have held it so long: the one before was too early. */
    assert_int_equal(pin(place, "acme", OTHER, NOW + DAYS(2300)), ABB_EIDENTITY);
    assert_int_equal(pin(place, "acme", OTHER, NOW + DAYS(2300) + ABB_SESSION_PIN_LIFETIME * 2),
                     APR_SUCCESS);
}

static void slugs_are_held_for_their_own_site(void **state)
{
    place_t *place = *state;

    assert_int_equal(pin(place, "acme", UUID, NOW), APR_SUCCESS);
    place->sessions.audience_hash[0] ^= 1;
    assert_int_equal(pin(place, "acme", OTHER, NOW), APR_SUCCESS);
}

static void rows_of_another_lose_their_role(void **state)
{
    place_t *place = *state;
    abb_grant_t rows[] = {
        {"acme", "acme", OTHER, ABB_ROLE_OWNER, NOW},
        {"Acme/Site", "acme/site", OTHER, ABB_ROLE_ADMIN, NOW},
        {"beta", "beta", UUID, ABB_ROLE_MEMBER, NOW},
        {OTHER, "acme", OTHER, ABB_ROLE_OWNER, NOW},
        {"acme/" OTHER, "acme/site", OTHER, ABB_ROLE_READ, NOW},
        {"gone", NULL, NULL, ABB_ROLE_NONE, NOW},
    };
    const char *alarm = NULL;

    assert_int_equal(pin(place, "acme", UUID, NOW), APR_SUCCESS);
    assert_int_equal(pin(place, "acme/site", UUID, NOW), APR_SUCCESS);
    assert_int_equal(abb_session_pin_grants(&place->sessions, rows, 6, NOW, &alarm, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(rows[0].role, ABB_ROLE_NONE);
    assert_int_equal(rows[1].role, ABB_ROLE_NONE);
    assert_int_equal(rows[2].role, ABB_ROLE_MEMBER);
    assert_int_equal(rows[3].role, ABB_ROLE_OWNER);
    assert_int_equal(rows[4].role, ABB_ROLE_READ);
    assert_non_null(strstr(alarm, UUID));
    assert_non_null(strstr(alarm, OTHER));
}

static void without_a_store_nobody_knows_whose_a_slug_is(void **state)
{
    place_t *place = *state;
    abb_grant_t grant = {"acme", "acme", UUID, ABB_ROLE_OWNER, NOW};
    const char *alarm = NULL;

    place->probe.answer = ABB_ESTORE;
    assert_int_equal(
        abb_session_pin_grants(&place->sessions, &grant, 1, NOW, &alarm, place->p, NULL),
        ABB_ESTORE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(a_session_is_found_by_its_cookie),
        PLACE_TEST(a_named_session_is_found_by_its_name_only),
        PLACE_TEST(a_created_session_can_be_used_at_once),
        PLACE_TEST(a_name_that_came_lately_is_not_made_anew),
        PLACE_TEST(a_known_name_is_looked_up_each_time),
        PLACE_TEST(a_name_is_known_at_its_own_site_only),
        PLACE_TEST(names_that_share_a_place_are_told_apart),
        PLACE_TEST(a_session_that_came_lately_can_be_expected),
        PLACE_TEST(a_session_is_expected_at_its_own_site_only),
        PLACE_TEST(threads_share_the_names),
        PLACE_TEST(finding_opens_nothing),
        PLACE_TEST(each_session_has_an_id_of_its_own),
        PLACE_TEST(the_key_is_no_way_to_the_cookie),
        PLACE_TEST(garbage_is_no_cookie),
        PLACE_TEST(each_changed_character_finds_nothing),
        PLACE_TEST(a_cookie_is_good_at_its_own_site_only),
        PLACE_TEST(a_foreign_store_has_nothing),
        PLACE_TEST(the_private_part_is_bound_to_cookie_and_site),
        PLACE_TEST(the_private_part_opens_with_an_older_key),
        PLACE_TEST(a_session_ends_when_it_is_not_used),
        PLACE_TEST(a_session_ends_in_any_case),
        PLACE_TEST(what_is_left_of_a_session_is_taken_once),
        PLACE_TEST(nothing_is_left_of_what_never_was),
        PLACE_TEST(uses_are_noted_once_a_minute),
        PLACE_TEST(a_short_idle_limit_is_kept_alive),
        PLACE_TEST(a_touch_that_fails_costs_nothing),
        PLACE_TEST(a_store_that_fails_is_not_an_absent_session),
        PLACE_TEST(a_damaged_record_is_not_an_absent_session),
        PLACE_TEST(both_parts_are_read_again),
        PLACE_TEST(the_open_part_is_looked_at_again),
        PLACE_TEST(an_id_that_is_there_already_has_a_sentence),
        PLACE_TEST(a_record_is_replaced),
        PLACE_TEST(of_two_replacements_one_wins),
        PLACE_TEST(a_replacement_keeps_the_end),
        PLACE_TEST(a_replacement_is_no_use),
        PLACE_TEST(an_ended_session_is_gone),
        PLACE_TEST(what_is_too_long_is_refused),
        PLACE_TEST(a_form_proves_its_session),
        PLACE_TEST(an_attempt_is_spent_once),
        PLACE_TEST(an_attempt_is_remembered_for_its_lifetime),
        PLACE_TEST(attempts_are_their_sites_own),
        PLACE_TEST(attempts_and_sessions_are_apart),
        PLACE_TEST(without_a_store_nobody_knows_whose_a_slug_is),
        PLACE_TEST(rows_of_another_lose_their_role),
        PLACE_TEST(slugs_are_held_for_their_own_site),
        PLACE_TEST(a_slug_in_use_is_held_for_ever),
        PLACE_TEST(a_slug_stays_with_its_first_uuid),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
