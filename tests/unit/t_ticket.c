/* t_ticket: a sign-in attempt opens in its own time, at its own site, unchanged. */
#include "abb_text.h"
#include "abb_ticket.h"

#include "unit.h"

#define SITE "key@wiki.example.com"
#define NOW apr_time_from_sec(1800000000)

static abb_crypto_keyring_t ring = {1, {{{42}}}};

static int begin(void **state)
{
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
}

static abb_ticket_t make_ticket(int attempt)
{
    abb_ticket_t ticket;

    assert_int_equal(abb_ticket_init(&ticket, attempt, NOW, NULL), APR_SUCCESS);
    return ticket;
}

static abb_crypto_sealer_t *sealer_of(const abb_crypto_keyring_t *keys, const char *site,
                                      apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer;

    assert_int_equal(abb_ticket_create_sealer(&sealer, keys, site, p, NULL), APR_SUCCESS);
    return sealer;
}

static const char *encode(const abb_ticket_t *ticket, apr_pool_t *p)
{
    const char *value = NULL;

    assert_int_equal(abb_ticket_encode(ticket, sealer_of(&ring, SITE, p), &value, p, NULL),
                     APR_SUCCESS);
    assert_non_null(value);
    return unit_bytes(value, strlen(value) + 1, p);
}

static void check_refused(const char *value, const abb_crypto_keyring_t *keys, const char *site,
                          apr_time_t now, apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer = sealer_of(keys, site, p);
    abb_ticket_t ticket;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_ticket_decode(value, sealer, now, &ticket, p, &err) != ABB_EATTEMPT) {
        fail_msg("'%.100s' opens", value);
    }
    assert_int_equal(err.status, ABB_EATTEMPT);
    assert_int_equal(abb_ticket_decode(value, sealer, now, &ticket, p, NULL), ABB_EATTEMPT);
}

static int opens_at(const char *value, apr_time_t now, apr_pool_t *p)
{
    abb_ticket_t ticket;

    return abb_ticket_decode(value, sealer_of(&ring, SITE, p), now, &ticket, p, NULL) ==
           APR_SUCCESS;
}

/* ---- the attempt ---------------------------------------------------------------- */

static void a_new_ticket_has_an_id_of_its_own(void **state)
{
    abb_ticket_t first = make_ticket(1);
    abb_ticket_t second = make_ticket(1);

    assert_int_equal(first.attempt, 1);
    assert_int_equal(first.issued_at, NOW);
    assert_memory_not_equal(first.id, second.id, ABB_TICKET_ID_SIZE);
    assert_memory_not_equal(first.id, second.id, ABB_TICKET_ID_SIZE / 2);
    assert_memory_not_equal(first.id + ABB_TICKET_ID_SIZE / 2, second.id + ABB_TICKET_ID_SIZE / 2,
                            ABB_TICKET_ID_SIZE / 2);
    assert_string_equal(first.workspaces, "");
    assert_non_null(abb_text_local_path(first.return_path, NULL));
}

static void tickets_are_of_one_attempt_or_not(void **state)
{
    abb_ticket_t a = make_ticket(1);
    abb_ticket_t b = a;

    b.issued_at += 5;
    b.return_path = "/other";
    b.workspaces = "other";
    assert_true(abb_ticket_is_same(&a, &b));
    b.attempt = 2;
    assert_false(abb_ticket_is_same(&a, &b));
    b.attempt = 1;
    for (int i = 0; i < ABB_TICKET_ID_SIZE; ++i) {
        for (int bit = 1; bit < 256; bit <<= 1) {
            b.id[i] ^= (unsigned char)bit;
            assert_false(abb_ticket_is_same(&a, &b));
            b.id[i] ^= (unsigned char)bit;
        }
    }
}

/* ---- state ------------------------------------------------------------------------ */

static void state_comes_back_as_the_attempt(void **state)
{
    for (int attempt = 1; attempt <= 2; ++attempt) {
        abb_ticket_t ticket = make_ticket(attempt);
        const char *text = abb_ticket_state(&ticket, *state);
        abb_ticket_t parsed;
        abb_error_t err;

        abb_error_clear(&err);
        memset(&parsed, 0x5a, sizeof(parsed));
        assert_int_equal(strlen(text), ABB_TICKET_STATE_LENGTH);
        assert_string_equal(abb_text_percent_encode(text, *state), text);
        assert_int_equal(abb_ticket_parse_state(text, &parsed, &err), APR_SUCCESS);
        assert_int_equal(err.status, APR_SUCCESS);
        assert_true(abb_ticket_is_same(&ticket, &parsed));
        assert_int_equal(parsed.issued_at, 0);
        assert_string_equal(parsed.workspaces, "");
        assert_non_null(abb_text_local_path(parsed.return_path, NULL));
    }
}

/* Neither what was asked for nor when. */
static void state_tells_nothing_but_the_id(void **state)
{
    abb_ticket_t a = make_ticket(1);
    abb_ticket_t b = a;

    b.issued_at += 5;
    b.return_path = "/secret";
    b.workspaces = "secret";
    assert_string_equal(abb_ticket_state(&a, *state), abb_ticket_state(&b, *state));
}

static void check_refused_state(const char *text)
{
    abb_ticket_t parsed;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_ticket_parse_state(text, &parsed, &err) != ABB_EATTEMPT) {
        fail_msg("'%s' is accepted", text ? text : "(null)");
    }
    assert_int_equal(err.status, ABB_EATTEMPT);
    assert_int_equal(abb_ticket_parse_state(text, &parsed, NULL), ABB_EATTEMPT);
}

static void garbage_is_no_state(void **state)
{
    static const char *const texts[] = {
        NULL,
        "",
        "x",
        "null",
        "AQ",
        "%00",
        "../../etc/passwd",
        "<script>alert(1)</script>",
        "====",
        "\xff\xfe",
        "                                            ",
        "============================================",
        "0000000000000000000000000000000000000000000000000000000000000000",
    };
    abb_ticket_t ticket = make_ticket(1);
    const char *good = abb_ticket_state(&ticket, *state);

    for (apr_size_t i = 0; i < UNIT_COUNT(texts); ++i) {
        check_refused_state(texts[i]);
    }
    for (apr_size_t length = 0; length < strlen(good); ++length) {
        const char *cut = apr_pstrmemdup(*state, good, length);

        check_refused_state(unit_bytes(cut, length + 1, *state));
        check_refused_state(good + strlen(good) - length);
    }
    for (const char *c = "A=&% \n.~"; *c; ++c) {
        check_refused_state(apr_psprintf(*state, "%s%c", good, *c));
        check_refused_state(apr_psprintf(*state, "%c%s", *c, good));
    }
    check_refused_state(apr_pstrcat(*state, good, good, NULL));
    check_refused_state(unit_repeat('A', 100000, *state));
}

static void each_character_of_state_is_checked(void **state)
{
    abb_ticket_t ticket = make_ticket(1);
    char *text = apr_pstrdup(*state, abb_ticket_state(&ticket, *state));

    for (int i = 0; i < ABB_TICKET_STATE_LENGTH; ++i) {
        char kept = text[i];

        for (const char *c = "+/=%& \n\t.\x01\x7f\xff"; *c; ++c) {
            text[i] = *c;
            check_refused_state(text);
        }
        text[i] = kept;
    }
}

static void only_two_attempts_have_a_state(void **state)
{
    for (int attempt = 0; attempt < 256; ++attempt) {
        abb_ticket_t ticket = make_ticket(1);
        abb_ticket_t parsed;
        const char *text;

        ticket.attempt = attempt;
        text = abb_ticket_state(&ticket, *state);
        if (attempt == 1 || attempt == 2) {
            assert_int_equal(abb_ticket_parse_state(text, &parsed, NULL), APR_SUCCESS);
        }
        else {
            check_refused_state(text);
        }
    }
}

/* ---- the cookie's name ---------------------------------------------------------------- */

static void the_name_is_the_same_wherever_the_attempt_is_known(void **state)
{
    abb_ticket_t ticket = make_ticket(1);
    const char *text = abb_ticket_state(&ticket, *state);
    const char *name = abb_ticket_name(&ticket, *state);
    abb_ticket_t parsed;
    abb_ticket_t opened;

    assert_int_equal(strlen(name), ABB_TICKET_NAME_LENGTH);
    assert_string_equal(abb_text_percent_encode(name, *state), name);
    assert_non_null(strstr(text, name));
    assert_int_equal(abb_ticket_parse_state(text, &parsed, NULL), APR_SUCCESS);
    assert_string_equal(abb_ticket_name(&parsed, *state), name);
    assert_int_equal(abb_ticket_decode(encode(&ticket, *state), sealer_of(&ring, SITE, *state), NOW,
                                       &opened, *state, NULL),
                     APR_SUCCESS);
    assert_string_equal(abb_ticket_name(&opened, *state), name);
}

/* All of the name comes from the id, so that attempts do not meet in one cookie. */
static void names_differ_between_attempts(void **state)
{
    char varies[ABB_TICKET_NAME_LENGTH] = {0};
    abb_ticket_t ticket = make_ticket(1);
    const char *first = abb_ticket_name(&ticket, *state);

    for (int i = 0; i < 100; ++i) {
        abb_ticket_t other = make_ticket(1 + i % 2);
        const char *name = abb_ticket_name(&other, *state);

        assert_string_not_equal(name, first);
        for (int j = 0; j < ABB_TICKET_NAME_LENGTH; ++j) {
            varies[j] |= name[j] != first[j];
        }
    }
    for (int j = 0; j < ABB_TICKET_NAME_LENGTH; ++j) {
        assert_true(varies[j]);
    }
}

/* ---- the cookie's value ------------------------------------------------------------------ */

static void check_round_trip(const char *path, const char *workspaces, int attempt, apr_pool_t *p)
{
    abb_ticket_t ticket = make_ticket(attempt);
    abb_ticket_t opened;
    abb_error_t err;
    const char *value;

    abb_error_clear(&err);
    ticket.return_path = path;
    ticket.workspaces = workspaces;
    value = encode(&ticket, p);
    assert_string_equal(abb_text_percent_encode(value, p), value);
    assert_int_equal(abb_ticket_decode(value, sealer_of(&ring, SITE, p), NOW, &opened, p, &err),
                     APR_SUCCESS);
    assert_int_equal(err.status, APR_SUCCESS);
    assert_memory_equal(opened.id, ticket.id, ABB_TICKET_ID_SIZE);
    assert_int_equal(opened.attempt, attempt);
    assert_int_equal(opened.issued_at, NOW);
    assert_string_equal(opened.return_path, path);
    assert_string_equal(opened.workspaces, workspaces);
}

static void a_ticket_comes_back_as_it_was(void **state)
{
    char *longest = unit_repeat('a', ABB_TEXT_LOCAL_PATH_MAX, *state);

    longest[0] = '/';
    check_round_trip("/", "", 1, *state);
    check_round_trip("/a?b=%0Ac&d=//x", "acme", 1, *state);
    check_round_trip("/a", "acme other 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", 2, *state);
    check_round_trip(longest, "a b c d e f g h", 2, *state);
}

static void the_value_shows_nothing(void **state)
{
    abb_ticket_t ticket = make_ticket(1);
    unsigned char *bytes;
    apr_size_t size;

    ticket.return_path = "/pearl/pearl";
    ticket.workspaces = "pearlpearl";
    assert_int_equal(abb_text_base64url_decode(encode(&ticket, *state), &bytes, &size, *state),
                     APR_SUCCESS);
    for (apr_size_t i = 0; i + 4 <= size; ++i) {
        assert_memory_not_equal(bytes + i, "pear", 4);
        assert_memory_not_equal(bytes + i, ticket.id, 4);
    }
}

static void a_ticket_lives_ten_minutes(void **state)
{
    abb_ticket_t ticket = make_ticket(1);
    const char *value = encode(&ticket, *state);

    assert_int_equal(ABB_TICKET_LIFETIME, apr_time_from_sec(600));
    assert_true(opens_at(value, NOW, *state));
    assert_true(opens_at(value, NOW + ABB_TICKET_LIFETIME, *state));
    check_refused(value, &ring, SITE, NOW + ABB_TICKET_LIFETIME + 1, *state);
    check_refused(value, &ring, SITE, NOW + apr_time_from_sec(86400), *state);
}

static void a_ticket_of_no_time_does_not_open(void **state)
{
    static const apr_time_t times[] = {APR_INT64_MIN, APR_INT64_MAX};

    for (apr_size_t i = 0; i < UNIT_COUNT(times); ++i) {
        abb_ticket_t ticket = make_ticket(1);

        ticket.issued_at = times[i];
        assert_false(opens_at(encode(&ticket, *state), NOW, *state));
    }
}

static void clocks_may_differ_by_two_minutes(void **state)
{
    abb_ticket_t ticket = make_ticket(1);
    const char *value = encode(&ticket, *state);

    assert_true(opens_at(value, NOW - 1, *state));
    assert_true(opens_at(value, NOW - apr_time_from_sec(120), *state));
    check_refused(value, &ring, SITE, NOW - apr_time_from_sec(120) - 1, *state);
    check_refused(value, &ring, SITE, 0, *state);
}

static void foreign_sites_and_keys_are_refused(void **state)
{
    static const char *const sites[] = {
        "",
        "key@wiki.example.org",
        "other@wiki.example.com",
        "key@wiki.example.co",
        "key@wiki.example.com ",
        "KEY@wiki.example.com",
        "ey@wiki.example.com",
    };
    abb_crypto_keyring_t other = {1, {{{43}}}};
    abb_crypto_keyring_t both = {2, {{{43}}, {{42}}}};
    abb_ticket_t ticket = make_ticket(1);
    const char *value = encode(&ticket, *state);
    abb_ticket_t opened;

    for (apr_size_t i = 0; i < UNIT_COUNT(sites); ++i) {
        check_refused(value, &ring, sites[i], NOW, *state);
    }
    check_refused(value, &other, SITE, NOW, *state);
    assert_int_equal(
        abb_ticket_decode(value, sealer_of(&both, SITE, *state), NOW, &opened, *state, NULL),
        APR_SUCCESS);
}

static void each_changed_character_is_noticed(void **state)
{
    abb_ticket_t ticket = make_ticket(1);
    char *value = apr_pstrdup(*state, encode(&ticket, *state));

    for (char *c = value; *c; ++c) {
        char kept = *c;

        for (const char *other = "AZaz09-_+/= \x01\xff"; *other; ++other) {
            if (*other != kept) {
                *c = *other;
                check_refused(value, &ring, SITE, NOW, *state);
            }
        }
        *c = kept;
    }
    assert_true(opens_at(value, NOW, *state));
}

static void garbage_is_no_value(void **state)
{
    static const char *const values[] = {"", "x", "====", "null", "\xff\xff", "a b", "%41", "AQ"};
    abb_ticket_t ticket = make_ticket(1);
    const char *good = encode(&ticket, *state);

    for (apr_size_t i = 0; i < UNIT_COUNT(values); ++i) {
        check_refused(values[i], &ring, SITE, NOW, *state);
    }
    for (apr_size_t length = 0; length < strlen(good); ++length) {
        const char *cut = apr_pstrmemdup(*state, good, length);

        check_refused(unit_bytes(cut, length + 1, *state), &ring, SITE, NOW, *state);
    }
    check_refused(apr_pstrcat(*state, good, "A", NULL), &ring, SITE, NOW, *state);
    check_refused(apr_pstrcat(*state, good, good, NULL), &ring, SITE, NOW, *state);
    check_refused(unit_repeat('A', 100000, *state), &ring, SITE, NOW, *state);
    check_refused(abb_ticket_state(&ticket, *state), &ring, SITE, NOW, *state);
}

/* ---- values that the key did seal, but not this room ---------------------------------------- */

/* What the room seals, found out by opening a value of its own. */
static unsigned char *sealed_text(const abb_crypto_context_t *context, apr_size_t *size,
                                  apr_pool_t *p)
{
    abb_ticket_t ticket = make_ticket(1);
    unsigned char *sealed;
    unsigned char *text;
    apr_size_t sealed_size;

    ticket.return_path = "/path";
    ticket.workspaces = "acme";
    assert_int_equal(abb_text_base64url_decode(encode(&ticket, p), &sealed, &sealed_size, p),
                     APR_SUCCESS);
    assert_int_equal(
        abb_crypto_open(&ring, context, NULL, 0, sealed, sealed_size, &text, size, p, NULL),
        APR_SUCCESS);
    return text;
}

static const char *seal(const abb_crypto_context_t *context, const void *text, apr_size_t size,
                        apr_pool_t *p)
{
    unsigned char *sealed;
    apr_size_t sealed_size;

    assert_int_equal(
        abb_crypto_seal(&ring, context, NULL, 0, text, size, &sealed, &sealed_size, p, NULL),
        APR_SUCCESS);
    return abb_text_base64url_encode(sealed, sealed_size, p);
}

static void sealed_text_of_another_form_is_refused(void **state)
{
    static const abb_crypto_context_t context = {"ticket", SITE, NULL, 0};
    apr_size_t size;
    unsigned char *text = sealed_text(&context, &size, *state);

    assert_true(opens_at(seal(&context, text, size, *state), NOW, *state));
    for (apr_size_t cut = 0; cut < size; ++cut) {
        check_refused(seal(&context, text, cut, *state), &ring, SITE, NOW, *state);
    }
    check_refused(seal(&context, unit_repeat('x', size, *state), size, *state), &ring, SITE, NOW,
                  *state);
    text[size - 1] = 'x';
    check_refused(seal(&context, text, size, *state), &ring, SITE, NOW, *state);
}

static void text_sealed_for_another_purpose_is_refused(void **state)
{
    static const abb_crypto_context_t own = {"ticket", SITE, NULL, 0};
    static const abb_crypto_context_t session = {"session", SITE, NULL, 0};
    static const abb_crypto_context_t with_secret = {"ticket", SITE, "x", 1};
    apr_size_t size;
    unsigned char *text = sealed_text(&own, &size, *state);

    check_refused(seal(&session, text, size, *state), &ring, SITE, NOW, *state);
    check_refused(seal(&with_secret, text, size, *state), &ring, SITE, NOW, *state);
}

/* ---- sign-ins completed lately ------------------------------------------- */

static int count_recent(const char *value, apr_time_t now, apr_pool_t *p)
{
    return abb_ticket_count_recent(value, sealer_of(&ring, SITE, p), now, p);
}

static const char *add_recent(const char *value, apr_time_t now, apr_pool_t *p)
{
    const char *added = NULL;

    assert_int_equal(abb_ticket_add_recent(value, sealer_of(&ring, SITE, p), now, &added, p, NULL),
                     APR_SUCCESS);
    return added;
}

static void sign_ins_are_counted_for_a_minute(void **state)
{
    const char *value = NULL;

    for (int i = 0; i < 8; ++i) {
        assert_int_equal(count_recent(value, NOW + apr_time_from_sec(i), *state),
                         i < ABB_TICKET_RECENT_MAX ? i : ABB_TICKET_RECENT_MAX);
        value = add_recent(value, NOW + apr_time_from_sec(i), *state);
    }
    /* The last five are of seconds 3 to 7. */
    assert_int_equal(count_recent(value, NOW + apr_time_from_sec(62), *state), 5);
    assert_int_equal(count_recent(value, NOW + apr_time_from_sec(64), *state), 3);
    assert_int_equal(count_recent(value, NOW + apr_time_from_sec(70), *state), 0);
}

static void a_foreign_count_is_none(void **state)
{
    abb_ticket_t ticket = make_ticket(1);
    const char *value = add_recent(NULL, NOW, *state);

    assert_int_equal(count_recent(value, NOW, *state), 1);
    assert_int_equal(abb_ticket_count_recent(value, sealer_of(&ring, "other", *state), NOW, *state),
                     0);
    assert_int_equal(count_recent("", NOW, *state), 0);
    assert_int_equal(count_recent("!", NOW, *state), 0);
    assert_int_equal(count_recent(unit_repeat('A', 400, *state), NOW, *state), 0);
    /* A ticket is no count, and a count no ticket. */
    assert_int_equal(count_recent(encode(&ticket, *state), NOW, *state), 0);
    assert_false(opens_at(value, NOW, *state));
    /* Nor does one from a clock that was put back keep anybody out for long. */
    assert_int_equal(count_recent(value, NOW - apr_time_from_sec(3600), *state), 0);
}

/* ---- where attempts led -------------------------------------------------- */

static const char *add_way(const char *value, const abb_ticket_t *ticket, apr_pool_t *p)
{
    const char *added = NULL;

    assert_int_equal(
        abb_ticket_add_way(value, sealer_of(&ring, SITE, p), ticket, NOW, &added, p, NULL),
        APR_SUCCESS);
    return unit_bytes(added, strlen(added) + 1, p);
}

static const char *find_way(const char *value, const abb_ticket_t *ticket, apr_time_t now,
                            apr_pool_t *p)
{
    return abb_ticket_find_way(value, sealer_of(&ring, SITE, p), ticket, now, p);
}

static abb_ticket_t ticket_to(const char *path)
{
    abb_ticket_t ticket = make_ticket(1);

    ticket.return_path = path;
    return ticket;
}

static void ways_are_found_for_an_hour(void **state)
{
    abb_ticket_t first = ticket_to("/first");
    abb_ticket_t second = ticket_to("/second?x=1");
    abb_ticket_t other = make_ticket(1);
    const char *value = add_way(add_way(NULL, &first, *state), &second, *state);

    assert_string_equal(find_way(value, &first, NOW, *state), "/first");
    assert_string_equal(find_way(value, &second, NOW + ABB_TICKET_MEMORY, *state), "/second?x=1");
    assert_null(find_way(value, &second, NOW + ABB_TICKET_MEMORY + 1, *state));
    assert_null(find_way(value, &other, NOW, *state));
    assert_null(find_way(NULL, &first, NOW, *state));
    assert_null(find_way("", &first, NOW, *state));
}

static void the_oldest_ways_make_room(void **state)
{
    abb_ticket_t tickets[40];
    const char *value = NULL;
    int found = 0;

    for (int i = 0; i < 40; ++i) {
        tickets[i] = ticket_to("/a/page/with/an/address/of/some/length?and=a&query=too");
        value = add_way(value, &tickets[i], *state);
        assert_true(strlen(value) < 2 * ABB_TICKET_WAYS_SIZE);
    }
    for (int i = 39; i >= 0 && find_way(value, &tickets[i], NOW, *state); --i) {
        ++found;
    }
    assert_in_range(found, 10, 30);
    for (int i = 39 - found; i >= 0; --i) {
        assert_null(find_way(value, &tickets[i], NOW, *state));
    }
}

static void a_way_too_long_is_left_out(void **state)
{
    char path[ABB_TICKET_WAYS_SIZE];
    abb_ticket_t first = ticket_to("/first");
    abb_ticket_t large;
    const char *value;

    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    large = ticket_to(path);
    value = add_way(add_way(NULL, &first, *state), &large, *state);
    assert_null(find_way(value, &large, NOW, *state));
    assert_string_equal(find_way(value, &first, NOW, *state), "/first");
    path[sizeof(path) - 17] = '\0';
    value = add_way(value, &large, *state);
    assert_string_equal(find_way(value, &large, NOW, *state), path);
    assert_null(find_way(value, &first, NOW, *state));
}

/* Text that was sealed for this purpose, but is of another form. */
static void a_cut_way_is_none(void **state)
{
    static const char label[] = "ways";
    abb_ticket_t ticket = ticket_to("/first");
    char text[64] = {0};

    memcpy(text + 8, ticket.id, 8);
    memset(text + 16, 'x', sizeof(text) - 16);
    for (apr_size_t size = 0; size <= sizeof(text); ++size) {
        unsigned char *sealed;
        apr_size_t sealed_size;

        assert_int_equal(abb_crypto_sealer_seal(sealer_of(&ring, SITE, *state), label,
                                                sizeof(label), unit_bytes(text, size, *state), size,
                                                &sealed, &sealed_size, *state, NULL),
                         APR_SUCCESS);
        assert_null(
            find_way(abb_text_base64url_encode(sealed, sealed_size, *state), &ticket, 0, *state));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(sign_ins_are_counted_for_a_minute),
        UNIT_TEST(a_foreign_count_is_none),
        UNIT_TEST(a_new_ticket_has_an_id_of_its_own),
        UNIT_TEST(tickets_are_of_one_attempt_or_not),
        UNIT_TEST(state_comes_back_as_the_attempt),
        UNIT_TEST(state_tells_nothing_but_the_id),
        UNIT_TEST(garbage_is_no_state),
        UNIT_TEST(each_character_of_state_is_checked),
        UNIT_TEST(only_two_attempts_have_a_state),
        UNIT_TEST(the_name_is_the_same_wherever_the_attempt_is_known),
        UNIT_TEST(names_differ_between_attempts),
        UNIT_TEST(a_ticket_comes_back_as_it_was),
        UNIT_TEST(the_value_shows_nothing),
        UNIT_TEST(a_ticket_lives_ten_minutes),
        UNIT_TEST(a_ticket_of_no_time_does_not_open),
        UNIT_TEST(clocks_may_differ_by_two_minutes),
        UNIT_TEST(foreign_sites_and_keys_are_refused),
        UNIT_TEST(each_changed_character_is_noticed),
        UNIT_TEST(garbage_is_no_value),
        UNIT_TEST(sealed_text_of_another_form_is_refused),
        UNIT_TEST(text_sealed_for_another_purpose_is_refused),
        UNIT_TEST(ways_are_found_for_an_hour),
        UNIT_TEST(the_oldest_ways_make_room),
        UNIT_TEST(a_way_too_long_is_left_out),
        UNIT_TEST(a_cut_way_is_none),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
