/* t_hub: a query is handed on to one site, for half a minute, unchanged. */
#include "abb_hub.h"
#include "abb_text.h"
#include "abb_ticket.h"

#include "unit.h"

#define NOW apr_time_from_sec(1800000000)
#define WIKI "key@wiki.example.com"
#define SHOP "key@shop.example.com"
#define QUERY "state=abc&code=x"

static abb_crypto_keyring_t ring = {1, {{{42}}}};
static abb_crypto_keyring_t rolled = {2, {{{43}}, {{42}}}};
static abb_crypto_keyring_t other_ring = {1, {{{44}}}};

static int begin(void **state)
{
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
}

static const char *mark_of(unsigned char first, apr_pool_t *p)
{
    unsigned char hash[ABB_CRYPTO_KEY_SIZE] = {first};

    return abb_hub_mark(hash, p);
}

static const char *state_of(const char *mark, apr_pool_t *p)
{
    char *state = apr_pcalloc(p, ABB_TICKET_STATE_LENGTH + 1);

    memset(state, 'A', ABB_TICKET_STATE_LENGTH);
    return apr_pstrcat(p, state, mark, NULL);
}

static abb_hub_site_t make_site(const abb_crypto_keyring_t *keys, const char *audience,
                                unsigned char first, apr_pool_t *p)
{
    abb_hub_site_t site = {"https://wiki.example.com", audience, mark_of(first, p), NULL};

    assert_int_equal(abb_hub_create_sealer(&site.handovers, keys, audience, p, NULL), APR_SUCCESS);
    return site;
}

static const char *hand_on(const char *query, apr_pool_t *p)
{
    abb_hub_site_t site = make_site(&ring, WIKI, 1, p);
    const char *handover = NULL;

    assert_int_equal(abb_hub_hand_on(&site, query, NOW, &handover, p, NULL), APR_SUCCESS);
    return unit_bytes(handover, strlen(handover) + 1, p);
}

static apr_status_t take(const char *handover, const abb_crypto_keyring_t *keys,
                         const char *audience, apr_time_t now, const char **query, apr_pool_t *p)
{
    abb_hub_site_t site = make_site(keys, audience, 1, p);
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_hub_take(site.handovers, handover, now, query, p, &err);
    assert_int_equal(err.status, status);
    return status;
}

static void a_state_names_its_site(void **state)
{
    apr_pool_t *p = *state;
    apr_array_header_t *sites = apr_array_make(p, 2, sizeof(abb_hub_site_t));
    const char *marked = state_of(mark_of(2, p), p);

    APR_ARRAY_PUSH(sites, abb_hub_site_t) = make_site(&ring, WIKI, 1, p);
    APR_ARRAY_PUSH(sites, abb_hub_site_t) = make_site(&ring, SHOP, 2, p);
    assert_string_equal(abb_hub_find(sites, marked)->audience, SHOP);
    assert_null(abb_hub_find(sites, state_of(mark_of(3, p), p)));
    assert_null(abb_hub_find(NULL, marked));
    assert_string_equal(abb_hub_unmark(marked, mark_of(2, p), p), state_of("", p));
    assert_null(abb_hub_unmark(marked, mark_of(1, p), p));
    assert_null(abb_hub_unmark(state_of("", p), mark_of(1, p), p));
    assert_null(abb_hub_unmark(NULL, mark_of(1, p), p));
    assert_false(abb_hub_is_marked(NULL));
    assert_false(abb_hub_is_marked(""));
    assert_false(abb_hub_is_marked(state_of("", p)));
    assert_false(abb_hub_is_marked(apr_pstrcat(p, marked, "A", NULL)));
    assert_true(abb_hub_is_marked(marked));
}

static void a_query_arrives_as_it_was(void **state)
{
    static const char *const queries[] = {"", QUERY, "state=%00&code=%c3%a9&x"};
    apr_pool_t *p = *state;

    for (apr_size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); ++i) {
        const char *query;

        assert_int_equal(take(hand_on(queries[i], p), &ring, WIKI, NOW, &query, p), APR_SUCCESS);
        assert_string_equal(query, queries[i]);
    }
}

static void it_opens_at_its_site_only(void **state)
{
    apr_pool_t *p = *state;
    const char *handover = hand_on(QUERY, p);
    const char *query;

    assert_int_equal(take(handover, &rolled, WIKI, NOW, &query, p), APR_SUCCESS);
    assert_int_equal(take(handover, &ring, SHOP, NOW, &query, p), ABB_EATTEMPT);
    assert_null(query);
    assert_int_equal(take(handover, &other_ring, WIKI, NOW, &query, p), ABB_EATTEMPT);
    assert_null(query);
}

static void it_is_good_for_half_a_minute(void **state)
{
    static const struct {
        int seconds;
        int is_good;
    } rows[] = {{0, 1}, {30, 1}, {31, 0}, {-30, 1}, {-31, 0}, {86400, 0}, {-86400, 0}};
    apr_pool_t *p = *state;
    const char *handover = hand_on(QUERY, p);

    for (apr_size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i) {
        const char *query;

        assert_int_equal(
            take(handover, &ring, WIKI, NOW + apr_time_from_sec(rows[i].seconds), &query, p),
            rows[i].is_good ? APR_SUCCESS : ABB_EATTEMPT);
        assert_string_equal(query, QUERY);
    }
}

static void each_changed_character_is_noticed(void **state)
{
    apr_pool_t *p = *state;
    const char *handover = hand_on(QUERY, p);

    for (apr_size_t i = 0; handover[i]; ++i) {
        char *changed = apr_pstrdup(p, handover);
        const char *query;

        changed[i] = changed[i] == 'A' ? 'B' : 'A';
        assert_int_equal(take(changed, &ring, WIKI, NOW, &query, p), ABB_EATTEMPT);
        assert_null(query);
        changed[i] = '\0';
        assert_int_equal(take(unit_bytes(changed, i + 1, p), &ring, WIKI, NOW, &query, p),
                         ABB_EATTEMPT);
    }
}

/* Something of the same keys and audience, but of another purpose or form. */
static void text_of_another_purpose_or_form_is_refused(void **state)
{
    static const struct {
        const char *text;
        apr_size_t size;
    } rows[] = {{"", 0}, {"1234567", 7}, {"12345678a\0b", 11}};
    apr_pool_t *p = *state;
    abb_hub_site_t site = make_site(&ring, WIKI, 1, p);
    abb_crypto_sealer_t *tickets;
    const char *query;
    unsigned char *sealed;
    apr_size_t size;

    assert_int_equal(abb_ticket_create_sealer(&tickets, &ring, WIKI, p, NULL), APR_SUCCESS);
    abb_crypto_sealer_seal(tickets, NULL, 0, "12345678" QUERY, 24, &sealed, &size, p, NULL);
    assert_int_equal(take(abb_text_base64url_encode(sealed, size, p), &ring, WIKI, NOW, &query, p),
                     ABB_EATTEMPT);
    for (apr_size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i) {
        abb_crypto_sealer_seal(site.handovers, NULL, 0, rows[i].text, rows[i].size, &sealed, &size,
                               p, NULL);
        assert_int_equal(
            take(abb_text_base64url_encode(sealed, size, p), &ring, WIKI, NOW, &query, p),
            ABB_EATTEMPT);
        assert_null(query);
    }
}

static void a_long_query_is_refused(void **state)
{
    apr_pool_t *p = *state;
    abb_hub_site_t site = make_site(&ring, WIKI, 1, p);
    char *query = apr_pcalloc(p, ABB_HUB_QUERY_MAX + 2);
    const char *handover;

    memset(query, 'x', ABB_HUB_QUERY_MAX);
    assert_int_equal(abb_hub_hand_on(&site, query, NOW, &handover, p, NULL), APR_SUCCESS);
    query[ABB_HUB_QUERY_MAX] = 'x';
    assert_int_equal(abb_hub_hand_on(&site, query, NOW, &handover, p, NULL), ABB_EINPUT);
}

static void each_site_of_a_hub_has_a_sealer(void **state)
{
    apr_array_header_t *sites = apr_array_make(*state, 2, sizeof(abb_hub_site_t));
    const char *query;
    const char *handover;

    for (int i = 0; i < 2; ++i) {
        abb_hub_site_t site = {"https://x.example.com", i ? SHOP : WIKI, mark_of(1, *state), NULL};

        APR_ARRAY_PUSH(sites, abb_hub_site_t) = site;
    }
    assert_int_equal(abb_hub_create_sealers(sites, &ring, *state, NULL), APR_SUCCESS);
    assert_int_equal(abb_hub_hand_on(&APR_ARRAY_IDX(sites, 1, abb_hub_site_t), QUERY, NOW,
                                     &handover, *state, NULL),
                     APR_SUCCESS);
    assert_int_equal(take(handover, &ring, SHOP, NOW, &query, *state), APR_SUCCESS);
    unit_equal(query, QUERY, "the query");
    assert_int_equal(take(handover, &ring, WIKI, NOW, &query, *state), ABB_EATTEMPT);
}

static void a_way_of_no_time_is_too_long(void **state)
{
    static const apr_int64_t times[] = {APR_INT64_MIN, APR_INT64_MAX};

    for (apr_size_t i = 0; i < UNIT_COUNT(times); ++i) {
        abb_hub_site_t site = make_site(&ring, WIKI, 1, *state);
        unsigned char *sealed;
        apr_size_t size;
        const char *query;

        assert_int_equal(abb_crypto_sealer_seal(site.handovers, NULL, 0, &times[i],
                                                sizeof(times[i]), &sealed, &size, *state, NULL),
                         APR_SUCCESS);
        assert_int_equal(abb_hub_take(site.handovers,
                                      abb_text_base64url_encode(sealed, size, *state), NOW, &query,
                                      *state, NULL),
                         ABB_EATTEMPT);
        unit_equal(query, "", "the query");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(each_site_of_a_hub_has_a_sealer),
        UNIT_TEST(a_way_of_no_time_is_too_long),
        UNIT_TEST(a_state_names_its_site),
        UNIT_TEST(a_query_arrives_as_it_was),
        UNIT_TEST(it_opens_at_its_site_only),
        UNIT_TEST(it_is_good_for_half_a_minute),
        UNIT_TEST(each_changed_character_is_noticed),
        UNIT_TEST(text_of_another_purpose_or_form_is_refused),
        UNIT_TEST(a_long_query_is_refused),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
