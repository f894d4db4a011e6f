/* t_index: an account's sessions are found, counted and ended, however the store is made. */
#include "abb_index.h"

#include <unistd.h>

#include "shared.h"
#include "unit.h"

#define NOW apr_time_from_sec(1800000000)
#define SECONDS(n) apr_time_from_sec(n)
#define ADA "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645"
#define BOB "470c176d-3574-44ea-bb41-89e8638bcca4"

typedef struct {
    apr_pool_t *p;
    /* The same store, as it is and as one that cannot be walked. */
    const abb_store_t *store;
    abb_store_t blind;
    abb_store_methods_t blind_methods;
    abb_crypto_keyring_t ring;
    abb_sessions_t sessions;
} place_t;

static int begin(void **state)
{
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
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
    place->store = shared_store(4 * 1024 * 1024, p);
    place->blind_methods = *place->store->methods;
    place->blind_methods.walk = NULL;
    place->blind.methods = &place->blind_methods;
    place->blind.engine = place->store->engine;
    place->sessions.store = place->store;
    place->sessions.keyring = &place->ring;
    place->sessions.idle_timeout = SECONDS(3600);
    place->sessions.absolute_timeout = SECONDS(7 * 86400);
    assert_int_equal(
        abb_session_set_audience(&place->sessions, "key", "https://wiki.example.com", p, NULL),
        APR_SUCCESS);
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

static void make_blind(place_t *place)
{
    place->sessions.store = &place->blind;
}

/* A new session, noted; NULL when that fails. *ended is how many ended for it. */
static abb_session_t *try_sign_in(place_t *place, const char *account, apr_time_t now, int *ended)
{
    abb_record_private_t private_part = {.tokens = {.access_token = "token"}, .raw_user = "{}"};
    abb_record_t record;
    abb_session_t *session = NULL;
    const char *cookie;

    memset(&record, 0, sizeof(record));
    record.account.uuid = account;
    record.created_at = now;
    if (abb_session_create(&place->sessions, &record, &private_part, now, &cookie, &session,
                           place->p, NULL) != APR_SUCCESS ||
        abb_index_add(&place->sessions, session, now, ended, place->p, NULL) != APR_SUCCESS) {
        return NULL;
    }
    return session;
}

static abb_session_t *sign_in(place_t *place, const char *account, apr_time_t now, int *ended)
{
    abb_session_t *session = try_sign_in(place, account, now, ended);

    assert_non_null(session);
    return session;
}

static apr_array_header_t *list(place_t *place, const char *account, apr_time_t now)
{
    apr_array_header_t *found = apr_array_make(place->p, 4, sizeof(abb_index_session_t));

    assert_int_equal(abb_index_list(&place->sessions, account, now, found, NULL), APR_SUCCESS);
    return found;
}

static int is_living(place_t *place, const abb_session_t *session, apr_time_t now)
{
    abb_session_t copy = *session;

    return abb_session_look(&place->sessions, &copy, now, place->p, NULL) == APR_SUCCESS;
}

static void find_and_end(place_t *place)
{
    int ended;
    abb_session_t *first = sign_in(place, ADA, NOW, &ended);
    abb_session_t *other = sign_in(place, BOB, NOW + SECONDS(1), &ended);
    abb_session_t *second = sign_in(place, ADA, NOW + SECONDS(2), &ended);
    apr_array_header_t *found = list(place, ADA, NOW + SECONDS(3));
    const abb_index_session_t *seen;

    assert_int_equal(found->nelts, 2);
    seen = &APR_ARRAY_IDX(found, 0, abb_index_session_t);
    if (strcmp(seen->tag, first->tag) != 0) {
        seen = &APR_ARRAY_IDX(found, 1, abb_index_session_t);
    }
    assert_string_equal(seen->tag, first->tag);
    assert_int_equal(seen->created_at, NOW);
    assert_int_equal(seen->last_seen, NOW);
    assert_int_equal(seen->ends_at, NOW + SECONDS(3600));
    assert_int_equal(abb_index_end(&place->sessions, found, &ended, NULL), APR_SUCCESS);
    assert_int_equal(ended, 2);
    assert_false(is_living(place, first, NOW + SECONDS(3)));
    assert_false(is_living(place, second, NOW + SECONDS(3)));
    assert_true(is_living(place, other, NOW + SECONDS(3)));
    assert_int_equal(list(place, ADA, NOW + SECONDS(3))->nelts, 0);
    assert_int_equal(abb_index_end(&place->sessions, found, &ended, NULL), APR_SUCCESS);
    assert_int_equal(ended, 0);
    assert_int_equal(list(place, BOB, NOW + SECONDS(3))->nelts, 1);
    assert_int_equal(list(place, BOB, NOW + SECONDS(3700))->nelts, 0);
}

static void an_accounts_sessions_are_found_and_ended(void **state)
{
    find_and_end(*state);
}

static void also_where_the_store_cannot_be_walked(void **state)
{
    make_blind(*state);
    find_and_end(*state);
}

/* Forms, pins, completed attempts are no sessions, whatever they hold. */
static void nothing_else_is_taken_for_a_session(void **state)
{
    place_t *place = *state;
    const char *pinned;
    int ended;

    assert_int_equal(abb_session_pin(&place->sessions, "acme", ADA, NOW, &pinned, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(
        abb_session_spend_attempt(&place->sessions, "id", 2, "/" ADA, SECONDS(600), NOW, NULL),
        APR_SUCCESS);
    assert_int_equal(list(place, ADA, NOW)->nelts, 0);
    sign_in(place, ADA, NOW, &ended);
    assert_int_equal(abb_index_end_all(&place->sessions, NOW, &ended, place->p, NULL), APR_SUCCESS);
    assert_int_equal(ended, 1);
    assert_int_equal(abb_session_pin(&place->sessions, "acme", BOB, NOW, &pinned, place->p, NULL),
                     ABB_EIDENTITY);
    assert_int_equal(
        abb_session_spend_attempt(&place->sessions, "id", 2, "/", SECONDS(600), NOW, NULL),
        APR_EEXIST);
}

static void all_end_only_where_all_can_be_seen(void **state)
{
    place_t *place = *state;
    int ended;

    for (int i = 0; i < 500; ++i) {
        sign_in(place, i % 2 ? ADA : BOB, NOW, &ended);
    }
    make_blind(place);
    assert_int_equal(abb_index_end_all(&place->sessions, NOW, &ended, place->p, NULL),
                     APR_ENOTIMPL);
    assert_int_equal(ended, 0);
    place->sessions.store = place->store;
    assert_int_equal(abb_index_end_all(&place->sessions, NOW, &ended, place->p, NULL), APR_SUCCESS);
    assert_int_equal(ended, 500);
    assert_int_equal(list(place, ADA, NOW)->nelts, 0);
}

static void keep_a_limit(place_t *place)
{
    abb_session_t *sessions[5];
    int ended;

    place->sessions.max_per_account = 3;
    sign_in(place, BOB, NOW, &ended);
    for (int i = 0; i < 5; ++i) {
        sessions[i] = sign_in(place, ADA, NOW + SECONDS(i), &ended);
        assert_int_equal(ended, i >= 3);
    }
    for (int i = 0; i < 5; ++i) {
        assert_int_equal(is_living(place, sessions[i], NOW + SECONDS(5)), i >= 2);
    }
    assert_int_equal(list(place, BOB, NOW + SECONDS(5))->nelts, 1);
    /* One that has ended makes room. */
    assert_int_equal(abb_session_drop(&place->sessions, sessions[4], NULL), APR_SUCCESS);
    sign_in(place, ADA, NOW + SECONDS(6), &ended);
    assert_int_equal(ended, 0);
    assert_true(is_living(place, sessions[2], NOW + SECONDS(6)));
    /* A smaller one reaches back. */
    place->sessions.max_per_account = 1;
    sign_in(place, ADA, NOW + SECONDS(7), &ended);
    assert_int_equal(ended, 3);
    assert_int_equal(list(place, ADA, NOW + SECONDS(7))->nelts, 1);
}

static void the_oldest_ends_for_one_too_many(void **state)
{
    keep_a_limit(*state);
}

static void also_without_a_walk(void **state)
{
    make_blind(*state);
    keep_a_limit(*state);
}

static void sessions_of_credentials_count_for_no_limit(void **state)
{
    abb_record_private_t private_part = {.tokens = {.access_token = "token"}, .raw_user = "{}"};
    unsigned char id[ABB_SESSION_ID_SIZE];
    place_t *place = *state;
    abb_session_t *session;
    abb_record_t record;
    int ended;

    memset(&record, 0, sizeof(record));
    record.account.uuid = ADA;
    place->sessions.max_per_account = 1;
    make_blind(place);
    sign_in(place, ADA, NOW, &ended);
    for (int i = 0; i < 3; ++i) {
        memset(id, i, sizeof(id));
        assert_int_equal(abb_session_create_named(&place->sessions, id, &record, &private_part, NOW,
                                                  &session, place->p, NULL),
                         APR_SUCCESS);
        assert_int_equal(abb_index_add(&place->sessions, session, NOW, &ended, place->p, NULL),
                         APR_SUCCESS);
        assert_int_equal(ended, 0);
    }
    assert_int_equal(list(place, ADA, NOW)->nelts, 4);
    sign_in(place, ADA, NOW + SECONDS(1), &ended);
    assert_int_equal(ended, 1);
    assert_int_equal(list(place, ADA, NOW + SECONDS(1))->nelts, 4);
}

/* Where nothing asks for it, nothing is kept: a session has 1 KiB for everything. */
static void without_a_limit_a_walk_is_enough(void **state)
{
    place_t *place = *state;
    abb_store_figures_t figures;
    int ended;

    sign_in(place, ADA, NOW, &ended);
    abb_store_figures(place->store, &figures);
    assert_int_equal(figures.records, 1);
    place->sessions.max_per_account = 5;
    sign_in(place, ADA, NOW, &ended);
    abb_store_figures(place->store, &figures);
    assert_int_equal(figures.records, 3);
}

static void a_new_session_key_hides_none(void **state)
{
    place_t *place = *state;
    int ended;

    make_blind(place);
    sign_in(place, ADA, NOW, &ended);
    place->ring.keys[1] = place->ring.keys[0];
    memset(place->ring.keys[0].bytes, 8, ABB_CRYPTO_KEY_SIZE);
    place->ring.count = 2;
    sign_in(place, ADA, NOW, &ended);
    assert_int_equal(list(place, ADA, NOW)->nelts, 2);
}

static void a_site_has_lists_of_its_own(void **state)
{
    place_t *place = *state;
    abb_sessions_t other = place->sessions;
    apr_array_header_t *found = apr_array_make(place->p, 1, sizeof(abb_index_session_t));
    int ended;

    make_blind(place);
    other.store = &place->blind;
    assert_int_equal(
        abb_session_set_audience(&other, "key", "https://other.example.com", place->p, NULL),
        APR_SUCCESS);
    sign_in(place, ADA, NOW, &ended);
    assert_int_equal(abb_index_list(&other, ADA, NOW, found, NULL), APR_SUCCESS);
    assert_int_equal(found->nelts, 0);
}

/* Where no limit is set either, a list does not grow for ever. */
static void a_list_has_an_end(void **state)
{
    place_t *place = *state;
    int total = 0;

    make_blind(place);
    for (int i = 0; i < ABB_SESSION_PER_ACCOUNT_MAX + 5; ++i) {
        int ended;

        sign_in(place, ADA, NOW + i, &ended);
        total += ended;
    }
    assert_int_equal(total, 5);
    assert_int_equal(list(place, ADA, NOW + SECONDS(1))->nelts, ABB_SESSION_PER_ACCOUNT_MAX);
}

/* The name of ADA's list. */
static abb_store_key_t key_of_list(place_t *place)
{
    abb_store_key_t key;
    unsigned char code[ABB_CRYPTO_KEY_SIZE];

    assert_int_equal(abb_crypto_authenticate(&place->ring.keys[0], "account index:" ADA,
                                             strlen("account index:" ADA), code, NULL),
                     APR_SUCCESS);
    assert_int_equal(abb_session_find_key(&place->sessions, ABB_SESSION_KIND_INDEX, code,
                                          sizeof(code), &key, NULL),
                     APR_SUCCESS);
    return key;
}

/* Its process died while it wrote the list. */
static void a_dead_writer_is_waited_for_and_no_longer(void **state)
{
    place_t *place = *state;
    abb_store_key_t key = key_of_list(place);
    apr_uint64_t holder;
    apr_time_t began;
    int ended;

    place->sessions.max_per_account = 2;
    sign_in(place, ADA, NOW, &ended);
    assert_int_equal(abb_store_lease(place->store, &key, SECONDS(2), NOW, &holder, NULL),
                     APR_SUCCESS);
    began = apr_time_now();
    sign_in(place, ADA, NOW, &ended);
    assert_in_range(apr_time_now() - began, apr_time_from_msec(1500), SECONDS(4));
    assert_int_equal(list(place, ADA, NOW)->nelts, 2);
}

/* Before so many of the next replacements another one has the list, writes it, and goes. */
static struct {
    const abb_store_t *store;
    int times;
} rival;

static apr_status_t replace_after_rival(void *engine, const abb_store_key_t *key,
                                        apr_uint64_t generation, const abb_store_record_t *record,
                                        apr_time_t now, abb_error_t *err)
{
    if (rival.times > 0) {
        abb_store_record_t stored;
        apr_uint64_t holder;
        apr_pool_t *p;

        --rival.times;
        apr_pool_create(&p, NULL);
        assert_int_equal(
            abb_store_lease(rival.store, key, SECONDS(2), NOW + SECONDS(60), &holder, NULL),
            APR_SUCCESS);
        assert_int_equal(
            abb_store_get(rival.store, key, ABB_STORE_BOTH_PARTS, NOW, &stored, p, NULL),
            APR_SUCCESS);
        assert_int_equal(abb_store_replace(rival.store, key, stored.generation, &stored, NOW, NULL),
                         APR_SUCCESS);
        assert_int_equal(abb_store_release(rival.store, key, holder, NULL), APR_SUCCESS);
        apr_pool_destroy(p);
    }
    return abb_store_replace(rival.store, key, generation, record, now, err);
}

/* In a slow cache the work takes longer than the lease, and another comes in between. */
static void who_lost_the_lease_begins_again(void **state)
{
    place_t *place = *state;
    abb_session_t *sessions[3];
    int ended;

    make_blind(place);
    place->blind_methods.replace = replace_after_rival;
    rival.store = place->store;
    rival.times = 0;
    place->sessions.max_per_account = 2;
    sessions[0] = sign_in(place, ADA, NOW, &ended);
    rival.times = 1;
    sessions[1] = sign_in(place, ADA, NOW + SECONDS(1), &ended);
    assert_int_equal(ended, 0);
    rival.times = 3;
    sessions[2] = sign_in(place, ADA, NOW + SECONDS(2), &ended);
    assert_int_equal(ended, 1);
    assert_int_equal(rival.times, 0);
    for (int i = 0; i < 3; ++i) {
        assert_int_equal(is_living(place, sessions[i], NOW + SECONDS(3)), i > 0);
    }
    assert_int_equal(list(place, ADA, NOW + SECONDS(3))->nelts, 2);
}

/* What nobody can end later does not begin. */
static void one_that_cannot_be_noted_ends(void **state)
{
    abb_record_private_t private_part = {.tokens = {.access_token = "token"}, .raw_user = "{}"};
    place_t *place = *state;
    abb_store_key_t key = key_of_list(place);
    abb_session_t *session;
    abb_record_t record;
    apr_uint64_t holder;
    const char *cookie;
    int ended;

    place->sessions.max_per_account = 2;
    sign_in(place, ADA, NOW, &ended);
    assert_int_equal(abb_store_lease(place->store, &key, SECONDS(60), NOW, &holder, NULL),
                     APR_SUCCESS);
    memset(&record, 0, sizeof(record));
    record.account.uuid = ADA;
    assert_int_equal(abb_session_create(&place->sessions, &record, &private_part, NOW, &cookie,
                                        &session, place->p, NULL),
                     APR_SUCCESS);
    assert_int_equal(abb_index_add(&place->sessions, session, NOW, &ended, place->p, NULL),
                     ABB_ESTORE);
    assert_false(is_living(place, session, NOW));
}

/* A cache has forgotten the list. */
static void lose_list(place_t *place)
{
    abb_store_key_t key = key_of_list(place);

    assert_int_equal(abb_store_drop(place->store, &key, NULL), APR_SUCCESS);
}

static apr_uint64_t generation_of_list(place_t *place)
{
    abb_store_key_t key = key_of_list(place);
    abb_store_record_t stored;

    assert_int_equal(
        abb_store_get(place->store, &key, ABB_STORE_BOTH_PARTS, NOW, &stored, place->p, NULL),
        APR_SUCCESS);
    return stored.generation;
}

static void keep(place_t *place, const abb_session_t *session, apr_time_t now)
{
    assert_int_equal(abb_index_keep(&place->sessions, session, now, place->p, NULL), APR_SUCCESS);
}

/* Those that go on to be used are found again. */
static void a_lost_list_comes_back(void **state)
{
    place_t *place = *state;
    abb_session_t *first, *second;
    int ended;

    make_blind(place);
    first = sign_in(place, ADA, NOW, &ended);
    second = sign_in(place, ADA, NOW + SECONDS(1), &ended);
    lose_list(place);
    assert_int_equal(list(place, ADA, NOW)->nelts, 0);
    keep(place, first, NOW + SECONDS(2));
    assert_int_equal(list(place, ADA, NOW)->nelts, 1);
    keep(place, second, NOW + SECONDS(2));
    keep(place, first, NOW + SECONDS(2));
    assert_int_equal(list(place, ADA, NOW)->nelts, 2);
}

static void what_is_noted_is_not_written_again(void **state)
{
    place_t *place = *state;
    abb_session_t *session;
    apr_uint64_t generation;
    int ended;

    make_blind(place);
    session = sign_in(place, ADA, NOW, &ended);
    generation = generation_of_list(place);
    keep(place, session, NOW + SECONDS(1));
    assert_true(generation_of_list(place) == generation);
    /* Under an older key it is found as well. */
    place->ring.keys[1] = place->ring.keys[0];
    memset(place->ring.keys[0].bytes, 8, ABB_CRYPTO_KEY_SIZE);
    place->ring.count = 2;
    keep(place, session, NOW + SECONDS(1));
    assert_int_equal(list(place, ADA, NOW)->nelts, 1);
    place->ring.count = 1;
    assert_int_equal(list(place, ADA, NOW)->nelts, 0);
}

/* It began when it did, so the limit goes on to end the oldest. */
static void what_comes_back_keeps_its_age(void **state)
{
    place_t *place = *state;
    abb_session_t *oldest, *next, *newer;
    int ended;

    make_blind(place);
    place->sessions.max_per_account = 2;
    oldest = sign_in(place, ADA, NOW, &ended);
    lose_list(place);
    next = sign_in(place, ADA, NOW + SECONDS(10), &ended);
    keep(place, oldest, NOW + SECONDS(20));
    sign_in(place, ADA, NOW + SECONDS(30), &ended);
    assert_int_equal(ended, 1);
    assert_false(is_living(place, oldest, NOW + SECONDS(31)));
    assert_true(is_living(place, next, NOW + SECONDS(31)));
    /* In a full list nobody ends for one that comes back. */
    lose_list(place);
    newer = sign_in(place, ADA, NOW + SECONDS(40), &ended);
    sign_in(place, ADA, NOW + SECONDS(50), &ended);
    keep(place, next, NOW + SECONDS(60));
    assert_int_equal(list(place, ADA, NOW + SECONDS(60))->nelts, 2);
    assert_true(is_living(place, newer, NOW + SECONDS(61)));
    assert_true(is_living(place, next, NOW + SECONDS(61)));
}

static void without_a_list_none_is_begun(void **state)
{
    place_t *place = *state;
    int ended;

    keep(place, sign_in(place, ADA, NOW, &ended), NOW);
    make_blind(place);
    assert_int_equal(list(place, ADA, NOW)->nelts, 0);
}

/* A record of the list that is not one of ours, as long as can be. */
static void a_damaged_list_is_an_empty_one(void **state)
{
    place_t *place = *state;
    abb_store_record_t stored;
    abb_store_key_t key = key_of_list(place);
    int ended;

    memset(&stored, 0, sizeof(stored));
    stored.open = unit_repeat('x', 100001, place->p);
    stored.open_size = 100001;
    stored.expires_at = NOW + SECONDS(60);
    assert_int_equal(abb_store_put(place->store, &key, &stored, NOW, NULL), APR_SUCCESS);
    make_blind(place);
    assert_int_equal(list(place, ADA, NOW)->nelts, 0);
    place->sessions.max_per_account = 2;
    sign_in(place, ADA, NOW, &ended);
    assert_int_equal(list(place, ADA, NOW)->nelts, 1);
}

enum { CROWD = 6, EACH = 20 };

/* As many processes as sign in at once, with one account. */
static void those_at_once_keep_the_limit(void **state)
{
    place_t *place = *state;
    pid_t crowd[CROWD];

    place->sessions.max_per_account = 4;
    for (int i = 0; i < CROWD; ++i) {
        if ((crowd[i] = fork()) == 0) {
            int ended;

            for (int j = 0; j < EACH; ++j) {
                if (!try_sign_in(place, ADA, NOW + i * EACH + j, &ended)) {
                    _exit(1);
                }
            }
            _exit(0);
        }
    }
    for (int i = 0; i < CROWD; ++i) {
        unit_await_child(crowd[i]);
    }
    assert_in_range(list(place, ADA, NOW + SECONDS(1))->nelts, 1, 4);
}

/* While others come and go, a walk sees all that stay. */
static void a_walk_sees_all_that_stay(void **state)
{
    place_t *place = *state;
    int ended;
    pid_t other;

    for (int i = 0; i < 200; ++i) {
        sign_in(place, ADA, NOW, &ended);
    }
    if ((other = fork()) == 0) {
        for (int i = 0; i < 5000; ++i) {
            abb_session_t *session = try_sign_in(place, BOB, NOW, &ended);

            if (!session || abb_session_drop(&place->sessions, session, NULL) != APR_SUCCESS) {
                _exit(1);
            }
        }
        _exit(0);
    }
    for (int i = 0; i < 50; ++i) {
        assert_int_equal(list(place, ADA, NOW)->nelts, 200);
    }
    unit_await_child(other);
}

#define PLACE_TEST(function) cmocka_unit_test_setup_teardown(function, create, destroy)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        PLACE_TEST(an_accounts_sessions_are_found_and_ended),
        PLACE_TEST(also_where_the_store_cannot_be_walked),
        PLACE_TEST(nothing_else_is_taken_for_a_session),
        PLACE_TEST(all_end_only_where_all_can_be_seen),
        PLACE_TEST(the_oldest_ends_for_one_too_many),
        PLACE_TEST(also_without_a_walk),
        PLACE_TEST(sessions_of_credentials_count_for_no_limit),
        PLACE_TEST(without_a_limit_a_walk_is_enough),
        PLACE_TEST(a_new_session_key_hides_none),
        PLACE_TEST(a_site_has_lists_of_its_own),
        PLACE_TEST(a_list_has_an_end),
        PLACE_TEST(a_dead_writer_is_waited_for_and_no_longer),
        PLACE_TEST(one_that_cannot_be_noted_ends),
        PLACE_TEST(who_lost_the_lease_begins_again),
        PLACE_TEST(a_lost_list_comes_back),
        PLACE_TEST(what_is_noted_is_not_written_again),
        PLACE_TEST(what_comes_back_keeps_its_age),
        PLACE_TEST(without_a_list_none_is_begun),
        PLACE_TEST(a_damaged_list_is_an_empty_one),
        PLACE_TEST(those_at_once_keep_the_limit),
        PLACE_TEST(a_walk_sees_all_that_stay),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
