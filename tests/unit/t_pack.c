/* t_pack: what was packed comes back; what was not packed does no harm. */
#include "abb_pack.h"

#include <stdlib.h>

#include "unit.h"

#define KNOWN "{\"type\":\"user\",\"uuid\":\"{0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0}\",\"links\":{}}"

/* A generator of our own, so that a failure can be repeated. */
static apr_uint32_t seed;

static apr_uint32_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed >> 3;
}

typedef struct {
    unsigned char *bytes;
    apr_size_t size;
} bytes_t;

/* Known bytes and a text behind them, in memory that ends with them. */
static bytes_t make_window(const void *known, apr_size_t known_size, const void *text,
                           apr_size_t text_size, apr_pool_t *p)
{
    bytes_t both = {apr_palloc(p, known_size + text_size + 1), known_size + text_size};

    if (known_size) {
        memcpy(both.bytes, known, known_size);
    }
    if (text_size) {
        memcpy(both.bytes + known_size, text, text_size);
    }
    both.bytes = unit_bytes(both.bytes, both.size, p);
    return both;
}

static bytes_t pack(const bytes_t *window, apr_size_t known, apr_pool_t *p)
{
    apr_size_t room = window->size - known + ABB_PACK_OVERHEAD_MAX;
    unsigned char *out = unit_bytes(unit_repeat('\x5a', room, p), room, p);
    bytes_t packed = {out, abb_pack_encode(window->bytes, known, window->size, out, p)};

    assert_true(packed.size <= room);
    packed.bytes = unit_bytes(out, packed.size, p);
    return packed;
}

/* Pack and unpack. Returns the packed size. */
static apr_size_t check_round_trip(const void *known, apr_size_t known_size, const void *text,
                                   apr_size_t text_size, apr_pool_t *parent)
{
    apr_pool_t *p;
    bytes_t window;
    bytes_t packed;
    bytes_t again;
    apr_size_t size;

    assert_int_equal(apr_pool_create(&p, parent), APR_SUCCESS);
    window = make_window(known, known_size, text, text_size, p);
    packed = pack(&window, known_size, p);
    assert_int_equal(abb_pack_read_size(packed.bytes, packed.size, &size), APR_SUCCESS);
    assert_int_equal(size, text_size);
    again = make_window(known, known_size, unit_repeat('\x5a', text_size, p), text_size, p);
    assert_int_equal(
        abb_pack_decode(packed.bytes, packed.size, again.bytes, known_size, again.size),
        APR_SUCCESS);
    assert_memory_equal(again.bytes, window.bytes, window.size);
    size = packed.size;
    apr_pool_destroy(p);
    return size;
}

/* ---- round trips --------------------------------------------------------- */

static void small_texts_come_back(void **state)
{
    const char text[] = "aaaaaaaaaaaaaaaa=bbbbbbbbbbbbbbbbbbbb=aaaaaaaaaaaaaaaaaaa!";

    for (apr_size_t known = 0; known <= sizeof(KNOWN); known += 7) {
        for (apr_size_t size = 0; size <= sizeof(text); ++size) {
            check_round_trip(KNOWN, known, text, size, *state);
        }
    }
}

static void what_is_known_costs_little(void **state)
{
    apr_size_t size = check_round_trip(KNOWN, sizeof(KNOWN) - 1, KNOWN, sizeof(KNOWN) - 1, *state);

    assert_true(size <= 1 + 3);
    assert_true(check_round_trip("", 0, KNOWN, sizeof(KNOWN) - 1, *state) > 60);
}

static void repetition_costs_little(void **state)
{
    static const apr_size_t sizes[] = {100, 1000, 65535, 65536, 65537, 300000, ABB_PACK_TEXT_MAX};

    for (apr_size_t i = 0; i < UNIT_COUNT(sizes); ++i) {
        apr_size_t size =
            check_round_trip("", 0, unit_repeat('=', sizes[i], *state), sizes[i], *state);

        assert_true(size <= 10 + sizes[i] / 40);
    }
}

/* Six bits for each character, whatever their number. */
static void tokens_take_three_quarters(void **state)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    static const apr_size_t sizes[] = {43, 64, 252, 256, 260, 2600, 8192, 270000};

    seed = 11;
    for (apr_size_t i = 0; i < UNIT_COUNT(sizes); ++i) {
        char *token = unit_repeat(' ', sizes[i], *state);

        for (apr_size_t j = 0; j < sizes[i]; ++j) {
            token[j] = alphabet[next_random() % 64];
        }
        assert_true(check_round_trip("", 0, token, sizes[i], *state) <= sizes[i] * 3 / 4 + 16);
    }
}

static void each_character_of_a_token_comes_back(void **state)
{
    for (int c = 0; c < 256; ++c) {
        char token[] = "AZaz09-_AZaz09-_AZaz09-_AZaz09-_";

        for (apr_size_t i = 0; i < sizeof(token); ++i) {
            char kept = token[i];

            token[i] = (char)c;
            check_round_trip("", 0, token, sizeof(token), *state);
            token[i] = kept;
        }
    }
}

/* Nothing in common with anything: the size and a few bytes more. */
static void random_bytes_cost_hardly_more(void **state)
{
    static const apr_size_t sizes[] = {
        1, 63, 64, 65, 1000, 65599, 65600, 200000, ABB_PACK_TEXT_MAX};

    seed = 5;
    for (apr_size_t i = 0; i < UNIT_COUNT(sizes); ++i) {
        char *text = unit_repeat(' ', sizes[i], *state);
        apr_size_t size;

        for (apr_size_t j = 0; j < sizes[i]; ++j) {
            text[j] = (char)next_random();
        }
        size = check_round_trip(KNOWN, sizeof(KNOWN), text, sizes[i], *state);
        assert_true(size <= sizes[i] + 6 + 3 * (sizes[i] / 65599));
    }
}

/* Bytes of few kinds, pieces of themselves and of what is known, in any mixture. */
static void mixtures_come_back(void **state)
{
    static const apr_uint32_t kinds[] = {2, 3, 16, 64, 256};

    for (apr_uint32_t round = 0; round < 2000; ++round) {
        apr_uint32_t kind = kinds[round % UNIT_COUNT(kinds)];
        unsigned char text[1500];
        apr_size_t size = 0;

        seed = 1 + round * 7919;
        while (size < sizeof(text) - 200 && next_random() % 40) {
            apr_size_t length = next_random() % 150;
            apr_size_t from = next_random() % (size + sizeof(KNOWN));

            for (apr_size_t i = 0; i < length; ++i, ++from) {
                text[size + i] = round % 3 == 0 ? (unsigned char)('A' + next_random() % kind)
                                 : from < sizeof(KNOWN) ? (unsigned char)KNOWN[from]
                                                        : text[from - sizeof(KNOWN)];
            }
            size += length;
        }
        check_round_trip(KNOWN, round % 2 ? sizeof(KNOWN) : 0, text, size, *state);
    }
}

/* Matches reach 64 KiB back and no further. */
static void far_repetitions_come_back(void **state)
{
    static const apr_size_t gaps[] = {65000, 65500, 65525, 65535, 65536, 65537, 65600, 70000};
    static const char piece[] = "a piece that comes once more";

    for (apr_size_t i = 0; i < UNIT_COUNT(gaps); ++i) {
        apr_size_t size = gaps[i] + 2 * sizeof(piece);
        char *text = unit_repeat(' ', size, *state);

        seed = 3;
        for (apr_size_t j = 0; j < size; ++j) {
            text[j] = (char)next_random();
        }
        memcpy(text, piece, sizeof(piece));
        memcpy(text + gaps[i], piece, sizeof(piece));
        check_round_trip(text, sizeof(piece), text + sizeof(piece), size - sizeof(piece), *state);
        check_round_trip("", 0, text, size, *state);
    }
}

/* ---- what was not packed here -------------------------------------------- */

/* Unpacks into the room there is, or says no. AddressSanitizer watches the ends. */
static int check_safe(const void *packed, apr_size_t packed_size, apr_size_t known, apr_size_t size,
                      apr_pool_t *parent)
{
    apr_status_t status;
    unsigned char *in;
    bytes_t window;
    apr_pool_t *p;

    assert_int_equal(apr_pool_create(&p, parent), APR_SUCCESS);
    in = unit_bytes(packed, packed_size, p);
    window = make_window(KNOWN, known, unit_repeat('\x5a', size, p), size, p);
    status = abb_pack_decode(in, packed_size, window.bytes, known, window.size);
    assert_true(status == APR_SUCCESS || status == APR_EINVAL);
    assert_memory_equal(window.bytes, KNOWN, known);
    apr_pool_destroy(p);
    return status == APR_SUCCESS;
}

static bytes_t pack_sample(apr_pool_t *p)
{
    static const char text[] = "\"uuid\":\"{0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0}\" plain text "
                               "tokenTOKENtokenTOKEN0123456789-_x plain text again";
    bytes_t window = make_window(KNOWN, sizeof(KNOWN), text, sizeof(text), p);
    bytes_t packed = pack(&window, sizeof(KNOWN), p);

    assert_true(packed.size < sizeof(text));
    assert_true(check_safe(packed.bytes, packed.size, sizeof(KNOWN), sizeof(text), p));
    return packed;
}

static apr_size_t sample_size(const bytes_t *packed)
{
    apr_size_t size;

    assert_int_equal(abb_pack_read_size(packed->bytes, packed->size, &size), APR_SUCCESS);
    return size;
}

static void each_cut_is_refused(void **state)
{
    bytes_t packed = pack_sample(*state);
    apr_size_t size = sample_size(&packed);
    unsigned char *longer = apr_pcalloc(*state, packed.size + 64);

    for (apr_size_t cut = 0; cut < packed.size; ++cut) {
        assert_false(check_safe(packed.bytes, cut, sizeof(KNOWN), size, *state));
    }
    memcpy(longer, packed.bytes, packed.size);
    for (apr_size_t more = 1; more < 64; ++more) {
        assert_false(check_safe(longer, packed.size + more, sizeof(KNOWN), size, *state));
    }
}

static void other_rooms_are_refused(void **state)
{
    bytes_t packed = pack_sample(*state);
    apr_size_t size = sample_size(&packed);

    for (apr_size_t other = 0; other < 2 * size; ++other) {
        assert_int_equal(check_safe(packed.bytes, packed.size, sizeof(KNOWN), other, *state),
                         other == size);
    }
}

static void each_changed_byte_is_harmless(void **state)
{
    bytes_t packed = pack_sample(*state);
    apr_size_t size = sample_size(&packed);

    for (apr_size_t at = 0; at < packed.size; ++at) {
        for (int change = 1; change < 256; ++change) {
            packed.bytes[at] ^= (unsigned char)change;
            check_safe(packed.bytes, packed.size, sizeof(KNOWN), size, *state);
            check_safe(packed.bytes, packed.size, 0, size, *state);
            packed.bytes[at] ^= (unsigned char)change;
        }
    }
}

static void random_bytes_are_harmless(void **state)
{
    for (apr_uint32_t round = 0; round < 20000; ++round) {
        unsigned char packed[40];
        apr_size_t packed_size;
        apr_size_t size = 0;

        seed = 1 + round * 31;
        packed_size = next_random() % sizeof(packed);
        for (apr_size_t i = 0; i < packed_size; ++i) {
            packed[i] = (unsigned char)next_random();
        }
        if (packed_size > 0) {
            packed[0] &= 0x7f;
        }
        if (abb_pack_read_size(packed, packed_size, &size) == APR_SUCCESS) {
            check_safe(packed, packed_size, round % sizeof(KNOWN), size, *state);
        }
    }
}

static void sizes_beyond_all_bounds_are_refused(void **state)
{
    static const unsigned char sizes[][6] = {
        {0x80},
        {0x80, 0x80},
        {0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0x81, 0x80, 0x40},
        {0xff, 0xff, 0x7f},
        {0x80, 0x80, 0x80, 0x80, 0x80, 0x01},
    };
    static const apr_size_t lengths[] = {1, 2, 6, 3, 3, 6};
    static const unsigned char most[] = {0x80, 0x80, 0x40};
    apr_size_t size;

    assert_int_equal(abb_pack_read_size(sizes[0], 0, &size), APR_EINVAL);
    for (apr_size_t i = 0; i < UNIT_COUNT(sizes); ++i) {
        const unsigned char *bytes = unit_bytes(sizes[i], lengths[i], *state);

        assert_int_equal(abb_pack_read_size(bytes, lengths[i], &size), APR_EINVAL);
    }
    assert_int_equal(abb_pack_read_size(most, sizeof(most), &size), APR_SUCCESS);
    assert_int_equal(size, ABB_PACK_TEXT_MAX);
}

/* Another known text is another text, or none, but never more than the room. */
static void another_known_text_is_harmless(void **state)
{
    bytes_t packed = pack_sample(*state);
    apr_size_t size = sample_size(&packed);

    for (apr_size_t known = 0; known < sizeof(KNOWN); ++known) {
        check_safe(packed.bytes, packed.size, known, size, *state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(small_texts_come_back),
        UNIT_TEST(what_is_known_costs_little),
        UNIT_TEST(repetition_costs_little),
        UNIT_TEST(tokens_take_three_quarters),
        UNIT_TEST(each_character_of_a_token_comes_back),
        UNIT_TEST(random_bytes_cost_hardly_more),
        UNIT_TEST(mixtures_come_back),
        UNIT_TEST(far_repetitions_come_back),
        UNIT_TEST(each_cut_is_refused),
        UNIT_TEST(other_rooms_are_refused),
        UNIT_TEST(each_changed_byte_is_harmless),
        UNIT_TEST(random_bytes_are_harmless),
        UNIT_TEST(sizes_beyond_all_bounds_are_refused),
        UNIT_TEST(another_known_text_is_harmless),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
