/* t_draft: one form for each browser, which nobody else can read, for ten minutes. */
#include "abb_draft.h"

#include "abb_text.h"
#include "abb_ticket.h"
#include "shared.h"
#include "unit.h"

#define NOW apr_time_from_sec(1800000000)
#define SECONDS(n) apr_time_from_sec(n)
#define DAYS(n) apr_time_from_sec((n)*86400)
#define ADA "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645"
#define BOB "470c176d-3574-44ea-bb41-89e8638bcca4"

typedef struct {
    apr_pool_t *p;
    const abb_store_t *store;
    abb_crypto_keyring_t ring;
    abb_sessions_t sessions;
    abb_crypto_sealer_t *sealer;
} place_t;

static int begin(void **state)
{
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
}

static void settle(place_t *place, const char *origin)
{
    assert_int_equal(abb_session_set_audience(&place->sessions, "key", origin, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(abb_ticket_create_sealer(&place->sealer, &place->ring,
                                              place->sessions.audience, place->p, NULL),
                     APR_SUCCESS);
}

static int create(void **state)
{
    place_t *place;
    void *p;

    if (unit_create_pool(&p) != 0) {
        return -1;
    }
    place = apr_pcalloc(p, sizeof(*place));
    place->p = p;
    place->ring.count = 1;
    memset(place->ring.keys[0].bytes, 7, ABB_CRYPTO_KEY_SIZE);
    place->store = shared_store(1024 * 1024, p);
    place->sessions.store = place->store;
    place->sessions.keyring = &place->ring;
    place->sessions.idle_timeout = SECONDS(3600);
    place->sessions.absolute_timeout = DAYS(7);
    settle(place, "https://wiki.example.com");
    *state = place;
    return 0;
}

static int destroy(void **state)
{
    place_t *place = *state;
    const char *fault = abb_store_shm_check(place->store);

    apr_pool_destroy(place->p);
    return fault ? -1 : 0;
}

static abb_session_t session_of(const char *account, unsigned char id)
{
    abb_session_t session;

    memset(&session, 0, sizeof(session));
    memset(session.id, id, sizeof(session.id));
    session.record.account.uuid = account;
    return session;
}

/* What a browser is given; NULL when it keeps what it has. */
static const char *renew(place_t *place, const abb_session_t *session,
                         const abb_draft_badge_t *present, apr_time_t now)
{
    const char *value = "not set";

    assert_int_equal(abb_draft_renew_badge(&place->sessions, session, present, place->sealer, now,
                                           &value, place->p, NULL),
                     APR_SUCCESS);
    return value;
}

static apr_status_t read_badge(place_t *place, const char *value, apr_time_t now,
                               abb_draft_badge_t *badge)
{
    return abb_draft_read_badge(value, place->sealer, now, badge, place->p);
}

static abb_draft_badge_t badge_of(place_t *place, const char *account, unsigned char id)
{
    abb_session_t session = session_of(account, id);
    abb_draft_badge_t badge;

    assert_int_equal(read_badge(place, renew(place, &session, NULL, NOW), NOW, &badge),
                     APR_SUCCESS);
    return badge;
}

static abb_draft_t draft_of(const char *body)
{
    abb_draft_t draft = {"/save?a=1", "/edit", "text/x", body, strlen(body), ""};

    return draft;
}

static void put(place_t *place, const abb_draft_badge_t *badge, const char *body, apr_time_t now)
{
    abb_draft_t draft = draft_of(body);

    assert_int_equal(abb_draft_put(&place->sessions, badge, &draft, now, place->p, NULL),
                     APR_SUCCESS);
}

static apr_status_t find(place_t *place, const abb_draft_badge_t *badge, apr_time_t now,
                         abb_draft_t *draft)
{
    return abb_draft_find(&place->sessions, badge, now, draft, place->p, NULL);
}

static apr_int64_t records(const place_t *place)
{
    abb_store_figures_t figures;

    abb_store_figures(place->sessions.store, &figures);
    return figures.records;
}

/* ---- badges --------------------------------------------------------------- */

static void a_badge_comes_back(void **state)
{
    place_t *place = *state;
    abb_draft_badge_t badge = badge_of(place, ADA, 1);

    assert_string_equal(badge.account, ADA);
    assert_true(badge.expires_at == NOW + DAYS(37));
    assert_true(abb_draft_badge_lifetime(&place->sessions) == DAYS(37));
}

static void a_badge_has_its_time(void **state)
{
    place_t *place = *state;
    abb_session_t session = session_of(ADA, 1);
    const char *value = renew(place, &session, NULL, NOW);
    abb_draft_badge_t badge;

    assert_int_equal(read_badge(place, value, NOW + DAYS(37) - 1, &badge), APR_SUCCESS);
    assert_int_equal(read_badge(place, value, NOW + DAYS(37), &badge), APR_NOTFOUND);
}

static void what_is_no_badge_is_none(void **state)
{
    place_t *place = *state;
    abb_session_t session = session_of(ADA, 1);
    char *value = apr_pstrdup(place->p, renew(place, &session, NULL, NOW));
    abb_draft_badge_t badge;
    const char *recent;

    assert_int_equal(read_badge(place, NULL, NOW, &badge), APR_NOTFOUND);
    assert_int_equal(read_badge(place, "", NOW, &badge), APR_NOTFOUND);
    assert_int_equal(read_badge(place, "AAAA", NOW, &badge), APR_NOTFOUND);
    /* Another cookie of ours, sealed by the same sealer. */
    assert_int_equal(abb_ticket_add_recent(NULL, place->sealer, NOW, &recent, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(read_badge(place, recent, NOW, &badge), APR_NOTFOUND);
    for (char *c = value; *c; ++c) {
        char before = *c;

        *c = before == 'A' ? 'B' : 'A';
        assert_int_equal(read_badge(place, value, NOW, &badge), APR_NOTFOUND);
        *c = before;
    }
    assert_int_equal(read_badge(place, value, NOW, &badge), APR_SUCCESS);
    settle(place, "https://other.example.com");
    assert_int_equal(read_badge(place, value, NOW, &badge), APR_NOTFOUND);
}

static void a_badge_is_renewed_when_it_has_grown_old(void **state)
{
    place_t *place = *state;
    abb_session_t session = session_of(ADA, 2);
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_badge_t renewed;
    const char *value;

    assert_null(renew(place, &session, &badge, NOW));
    assert_null(renew(place, &session, &badge, NOW + DAYS(15) - 1));
    value = renew(place, &session, &badge, NOW + DAYS(15));
    assert_int_equal(read_badge(place, value, NOW + DAYS(15), &renewed), APR_SUCCESS);
    assert_memory_equal(renewed.id, badge.id, sizeof(badge.id));
    assert_true(renewed.expires_at == NOW + DAYS(15 + 37));
}

static void another_account_gets_another_badge(void **state)
{
    place_t *place = *state;
    abb_session_t session = session_of(BOB, 2);
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_badge_t other;

    assert_int_equal(read_badge(place, renew(place, &session, &badge, NOW), NOW, &other),
                     APR_SUCCESS);
    assert_string_equal(other.account, BOB);
    assert_memory_not_equal(other.id, badge.id, sizeof(badge.id));
}

/* So nobody takes more places than sign-ins. */
static void one_session_makes_one_badge(void **state)
{
    place_t *place = *state;
    abb_draft_badge_t first = badge_of(place, ADA, 1);
    abb_draft_badge_t second = badge_of(place, ADA, 1);
    abb_draft_badge_t other = badge_of(place, ADA, 2);
    abb_session_t session = session_of(ADA, 1);

    assert_memory_equal(first.id, second.id, sizeof(first.id));
    assert_memory_not_equal(first.id, other.id, sizeof(first.id));
    assert_memory_not_equal(first.id, session.id, sizeof(first.id));
}

/* ---- drafts -------------------------------------------------------------- */

static void a_draft_comes_back(void **state)
{
    place_t *place = *state;
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_t draft = draft_of("");
    abb_draft_t found;

    draft.body = "a\0b\xff";
    draft.body_size = 4;
    assert_int_equal(find(place, &badge, NOW, &found), APR_NOTFOUND);
    assert_int_equal(abb_draft_put(&place->sessions, &badge, &draft, NOW, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(find(place, &badge, NOW, &found), APR_SUCCESS);
    assert_string_equal(found.path, "/save?a=1");
    assert_string_equal(found.back, "/edit");
    assert_string_equal(found.content_type, "text/x");
    assert_int_equal(found.body_size, 4);
    assert_memory_equal(found.body, "a\0b\xff", 4);
    assert_string_equal(found.number, draft.number);
    assert_int_equal(strlen(found.number), ABB_DRAFT_NUMBER_SIZE - 1);
}

static void the_newer_replaces_the_older(void **state)
{
    place_t *place = *state;
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_t first;
    abb_draft_t second;

    put(place, &badge, "first", NOW);
    assert_int_equal(find(place, &badge, NOW, &first), APR_SUCCESS);
    put(place, &badge, "second", NOW);
    assert_int_equal(find(place, &badge, NOW, &second), APR_SUCCESS);
    assert_memory_equal(second.body, "second", 6);
    assert_string_not_equal(first.number, second.number);
    assert_int_equal(records(place), 1);
}

static void a_draft_has_ten_minutes(void **state)
{
    place_t *place = *state;
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_t found;

    put(place, &badge, "text", NOW);
    assert_int_equal(find(place, &badge, NOW + SECONDS(599), &found), APR_SUCCESS);
    assert_int_equal(find(place, &badge, NOW + SECONDS(600), &found), APR_NOTFOUND);
}

static void nobody_else_finds_it(void **state)
{
    place_t *place = *state;
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_badge_t other = badge_of(place, ADA, 2);
    abb_draft_badge_t stolen = badge;
    abb_draft_t found;

    put(place, &badge, "text", NOW);
    assert_int_equal(find(place, &other, NOW, &found), APR_NOTFOUND);
    /* The right browser, another account. */
    stolen.account = BOB;
    assert_int_equal(find(place, &stolen, NOW, &found), APR_NOTFOUND);
    /* The server's keys alone, which have changed. */
    place->ring.keys[0].bytes[0] ^= 1;
    assert_int_equal(find(place, &badge, NOW, &found), APR_NOTFOUND);
    place->ring.keys[0].bytes[0] ^= 1;
    assert_int_equal(find(place, &badge, NOW, &found), APR_SUCCESS);
    settle(place, "https://other.example.com");
    assert_int_equal(find(place, &badge, NOW, &found), APR_NOTFOUND);
}

static void dropping(void **state)
{
    place_t *place = *state;
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_t found;

    assert_int_equal(abb_draft_drop(&place->sessions, &badge, NULL, NOW, place->p, NULL),
                     APR_NOTFOUND);
    put(place, &badge, "text", NOW);
    assert_int_equal(
        abb_draft_drop(&place->sessions, &badge, "0123456789abcdef", NOW, place->p, NULL),
        APR_NOTFOUND);
    assert_int_equal(abb_draft_drop(&place->sessions, &badge, "", NOW, place->p, NULL),
                     APR_NOTFOUND);
    assert_int_equal(find(place, &badge, NOW, &found), APR_SUCCESS);
    assert_int_equal(abb_draft_drop(&place->sessions, &badge, found.number, NOW, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(records(place), 0);
    put(place, &badge, "text", NOW);
    assert_int_equal(abb_draft_drop(&place->sessions, &badge, NULL, NOW, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(records(place), 0);
}

static void a_store_that_is_too_small(void **state)
{
    place_t *place = *state;
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_t draft = draft_of("");
    abb_error_t err;

    place->sessions.store = shared_store(256 * 1024, place->p);
    draft.body = unit_repeat('x', ABB_DRAFT_BODY_MAX, place->p);
    draft.body_size = ABB_DRAFT_BODY_MAX;
    abb_error_clear(&err);
    assert_int_equal(abb_draft_put(&place->sessions, &badge, &draft, NOW, place->p, &err),
                     ABB_ESTORE);
    assert_true(strlen(err.text) > 0);
    assert_int_equal(records(place), 0);
}

/* What is in the store under a draft's key, by an engine that hands out what it likes. */
typedef struct {
    abb_store_t store;
    abb_store_record_t record;
} forger_t;

static apr_status_t forge(void *engine, const abb_store_key_t *key, abb_store_parts_t parts,
                          apr_time_t now, abb_store_record_t *record, apr_pool_t *p,
                          abb_error_t *err)
{
    *record = ((forger_t *)engine)->record;
    return APR_SUCCESS;
}

static void what_the_store_makes_up_is_no_draft(void **state)
{
    static const abb_store_methods_t methods = {.get = forge};
    place_t *place = *state;
    forger_t forger = {{&methods, NULL}, {0}};
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_t found;
    const char *const opens[] = {"", "0123456789abcdef", "0123456789abcde\r", "0123456789ABCDEF"};

    forger.store.engine = &forger;
    place->sessions.store = &forger.store;
    assert_int_equal(find(place, &badge, NOW, &found), APR_NOTFOUND);
    for (apr_size_t i = 0; i < UNIT_COUNT(opens); ++i) {
        forger.record.open_size = strlen(opens[i]) + 1;
        forger.record.open = unit_bytes(opens[i], forger.record.open_size, place->p);
        forger.record.sealed = unit_repeat('x', 200, place->p);
        for (apr_size_t size = 0; size <= 200; ++size) {
            forger.record.sealed_size = size;
            assert_int_equal(find(place, &badge, NOW, &found), APR_NOTFOUND);
        }
    }
}

/* ---- tokens -------------------------------------------------------------- */

static void a_token_is_of_one_browser(void **state)
{
    place_t *place = *state;
    abb_draft_badge_t badge = badge_of(place, ADA, 1);
    abb_draft_badge_t other = badge_of(place, ADA, 2);
    const char *token = NULL;

    assert_int_equal(abb_draft_form_token(&badge, &token, place->p, NULL), APR_SUCCESS);
    assert_true(abb_draft_is_form_token(&badge, token, place->p));
    assert_false(abb_draft_is_form_token(&other, token, place->p));
    assert_false(abb_draft_is_form_token(&badge, NULL, place->p));
    assert_false(abb_draft_is_form_token(&badge, "", place->p));
    assert_false(
        abb_draft_is_form_token(&badge, apr_pstrcat(place->p, token, "A", NULL), place->p));
    assert_false(abb_draft_is_form_token(&badge, token + 1, place->p));
}

#define DRAFT_TEST(function) cmocka_unit_test_setup_teardown(function, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DRAFT_TEST(a_badge_comes_back),
        DRAFT_TEST(a_badge_has_its_time),
        DRAFT_TEST(what_is_no_badge_is_none),
        DRAFT_TEST(a_badge_is_renewed_when_it_has_grown_old),
        DRAFT_TEST(another_account_gets_another_badge),
        DRAFT_TEST(one_session_makes_one_badge),
        DRAFT_TEST(a_draft_comes_back),
        DRAFT_TEST(the_newer_replaces_the_older),
        DRAFT_TEST(a_draft_has_ten_minutes),
        DRAFT_TEST(nobody_else_finds_it),
        DRAFT_TEST(dropping),
        DRAFT_TEST(a_store_that_is_too_small),
        DRAFT_TEST(what_the_store_makes_up_is_no_draft),
        DRAFT_TEST(a_token_is_of_one_browser),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
