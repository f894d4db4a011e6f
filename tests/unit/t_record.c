/* t_record: a session as bytes, also when the bytes are not what was written. */
#include "abb_record.h"

#include "abb_pack.h"
#include "unit.h"

#define UUID "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
#define SITE "key@wiki.example.com"
#define COOKIE "0123456789abcdef0123456789abcdef"
#define NOW apr_time_from_sec(1800000000)

static const abb_crypto_keyring_t ring = {1, {{{42}}}};

static int begin(void **state)
{
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
}

static abb_grant_t full_grants[] = {
    {"acme", "acme", "11111111-2222-3333-4444-555555555555", ABB_ROLE_OWNER, NOW - 1},
    {"other", NULL, NULL, ABB_ROLE_NONE, NOW - 2},
    {UUID, "third-slug", UUID, ABB_ROLE_COLLABORATOR, 0},
};

static abb_record_t full_record(void)
{
    abb_record_t record = {
        .account = {UUID, "557058:abc", "ada", "Ada <3", "Ada L\xc3\xb6velace", "ada@example.com",
                    "https://avatar.example/a?b=c", "https://bitbucket.org/%7Bx%7D/",
                    "ada@example.com ada@home.example", "workspace_access_token"},
        .grants = full_grants,
        .grant_count = UNIT_COUNT(full_grants),
        .created_at = NOW - 100,
        .account_checked_at = NOW - 50,
    };

    return record;
}

static abb_record_t smallest_record(void)
{
    abb_record_t record = {.account = {.uuid = UUID}};

    return record;
}

static abb_record_bytes_t encode(const abb_record_t *record, apr_pool_t *p)
{
    abb_record_bytes_t open = {NULL, 0};

    assert_int_equal(abb_record_encode(record, &open, p), APR_SUCCESS);
    open.bytes = unit_bytes(open.bytes, open.size, p);
    return open;
}

static void check_equal_grants(const abb_grant_t *a, const abb_grant_t *b)
{
    unit_equal(a->asked, b->asked, "asked");
    unit_equal(a->slug, b->slug, "slug");
    unit_equal(a->uuid, b->uuid, "uuid of a grant");
    assert_int_equal(a->role, b->role);
    assert_int_equal(a->checked_at, b->checked_at);
}

static void check_equal(const abb_record_t *a, const abb_record_t *b)
{
    unit_equal(a->account.uuid, b->account.uuid, "uuid");
    unit_equal(a->account.account_id, b->account.account_id, "account_id");
    unit_equal(a->account.username, b->account.username, "username");
    unit_equal(a->account.nickname, b->account.nickname, "nickname");
    unit_equal(a->account.display_name, b->account.display_name, "display_name");
    unit_equal(a->account.email, b->account.email, "email");
    unit_equal(a->account.avatar_url, b->account.avatar_url, "avatar_url");
    unit_equal(a->account.profile_url, b->account.profile_url, "profile_url");
    unit_equal(a->account.emails, b->account.emails, "emails");
    unit_equal(a->account.app_kind, b->account.app_kind, "kind of bot");
    assert_int_equal(a->created_at, b->created_at);
    assert_int_equal(a->account_checked_at, b->account_checked_at);
    assert_int_equal(a->grant_count, b->grant_count);
    for (int i = 0; i < a->grant_count; ++i) {
        check_equal_grants(&a->grants[i], &b->grants[i]);
    }
}

static void check_round_trip(const abb_record_t *record, apr_pool_t *p)
{
    abb_record_bytes_t open = encode(record, p);
    abb_record_t decoded;

    memset(&decoded, 0x5a, sizeof(decoded));
    assert_int_equal(abb_record_decode(open.bytes, open.size, &decoded, p), APR_SUCCESS);
    check_equal(&decoded, record);
}

/* ---- the open part comes back --------------------------------------------------- */

static void a_full_record_comes_back(void **state)
{
    abb_record_t record = full_record();

    check_round_trip(&record, *state);
}

static void a_record_of_a_uuid_comes_back(void **state)
{
    abb_record_t record = smallest_record();

    check_round_trip(&record, *state);
}

/* Each optional string absent while all the others are there. */
static void absent_strings_stay_absent(void **state)
{
    for (int i = 0; i < 11; ++i) {
        abb_record_t record = full_record();
        const char **strings[] = {
            &record.account.account_id,   &record.account.username, &record.account.nickname,
            &record.account.display_name, &record.account.email,    &record.account.avatar_url,
            &record.account.profile_url,  &record.account.emails,   &record.account.app_kind,
        };
        abb_grant_t grant = full_grants[0];

        record.grants = &grant;
        record.grant_count = 1;
        if (i < 9) {
            *strings[i] = NULL;
        }
        else {
            *(i == 9 ? &grant.slug : &grant.uuid) = NULL;
        }
        check_round_trip(&record, *state);
    }
}

static void all_roles_and_times_come_back(void **state)
{
    static const apr_time_t times[] = {0, 1, -1, NOW, INT64_MAX, INT64_MIN};

    for (int role = ABB_ROLE_NONE; role <= ABB_ROLE_ADMIN; ++role) {
        for (apr_size_t i = 0; i < UNIT_COUNT(times); ++i) {
            abb_grant_t grant = {"acme", "acme", UUID, (abb_role_t)role, times[i]};
            abb_record_t record = full_record();

            record.grants = &grant;
            record.grant_count = 1;
            record.created_at = times[i];
            record.account_checked_at = times[UNIT_COUNT(times) - 1 - i];
            check_round_trip(&record, *state);
        }
    }
}

static void fill_grants(abb_record_t *record, int count, apr_pool_t *p)
{
    record->grants = apr_pcalloc(p, (apr_size_t)count * sizeof(*record->grants));
    record->grant_count = count;
    for (int i = 0; i < count; ++i) {
        abb_grant_t *grant = &record->grants[i];

        grant->asked = apr_psprintf(p, "workspace-%d", i);
        grant->slug = i % 3 ? apr_psprintf(p, "slug-%d", i) : NULL;
        grant->uuid = i % 2 ? UUID : NULL;
        grant->role = (abb_role_t)(i % (ABB_ROLE_ADMIN + 1));
        grant->checked_at = NOW + i;
    }
}

static void many_grants_come_back(void **state)
{
    static const int counts[] = {1, 2, 1000, ABB_RECORD_GRANTS_MAX};

    for (apr_size_t i = 0; i < UNIT_COUNT(counts); ++i) {
        abb_record_t record = full_record();

        fill_grants(&record, counts[i], *state);
        check_round_trip(&record, *state);
    }
}

static void too_many_grants_are_refused(void **state)
{
    abb_record_t record = full_record();
    abb_record_bytes_t open;

    fill_grants(&record, ABB_RECORD_GRANTS_MAX + 1, *state);
    assert_int_equal(abb_record_encode(&record, &open, *state), APR_ENOSPC);
}

/* The name grows until the block has its largest size, and then by one byte. */
static void too_large_a_record_is_refused(void **state)
{
    abb_record_t record = smallest_record();
    abb_record_bytes_t open;
    apr_size_t room = 100000;

    record.account.display_name = unit_repeat('n', room, *state);
    room += ABB_RECORD_OPEN_MAX - encode(&record, *state).size;
    record.account.display_name = unit_repeat('n', room, *state);
    check_round_trip(&record, *state);
    assert_int_equal(encode(&record, *state).size, ABB_RECORD_OPEN_MAX);
    record.account.display_name = unit_repeat('n', room + 1, *state);
    assert_int_equal(abb_record_encode(&record, &open, *state), APR_ENOSPC);
    record.account.display_name = unit_repeat('n', 8 * ABB_RECORD_OPEN_MAX, *state);
    assert_int_equal(abb_record_encode(&record, &open, *state), APR_ENOSPC);
}

static void a_block_is_read_in_place(void **state)
{
    abb_record_t record = full_record();
    abb_record_bytes_t open = encode(&record, *state);
    const char *block = open.bytes;
    abb_record_t decoded;

    assert_int_equal(abb_record_decode(block, open.size, &decoded, *state), APR_SUCCESS);
    assert_true(decoded.account.uuid > block && decoded.account.uuid < block + open.size);
    assert_true(decoded.grants[2].uuid > block && decoded.grants[2].uuid < block + open.size);
}

/* The same record is the same bytes: nothing of the memory it stood in gets out. */
static void equal_records_are_equal_bytes(void **state)
{
    abb_record_t record = full_record();
    abb_record_bytes_t first = encode(&record, *state);
    abb_record_bytes_t second;
    apr_pool_t *dirty;
    void *dirt;

    assert_int_equal(apr_pool_create(&dirty, *state), APR_SUCCESS);
    dirt = apr_palloc(dirty, 4000);
    memset(dirt, 0xa5, 4000);
    apr_pool_clear(dirty);
    second = encode(&record, dirty);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.bytes, second.bytes, first.size);
}

/* ---- the open part is something else ---------------------------------------------- */

static void check_inside(const char *text, const char *block, apr_size_t size)
{
    if (text) {
        assert_true(text >= block && text < block + size);
        assert_true(text + strlen(text) < block + size);
    }
}

/* Read all that a decoded record offers. AddressSanitizer watches the block's ends. */
static void check_record_inside(const abb_record_t *record, const char *block, apr_size_t size)
{
    const abb_account_t *account = &record->account;
    const char *const strings[] = {
        account->uuid,  account->account_id, account->username,    account->nickname,
        account->email, account->avatar_url, account->profile_url, account->display_name,
    };

    assert_non_null(account->uuid);
    for (apr_size_t i = 0; i < UNIT_COUNT(strings); ++i) {
        check_inside(strings[i], block, size);
    }
    assert_true(record->grant_count >= 0 && record->grant_count <= ABB_RECORD_GRANTS_MAX);
    for (int i = 0; i < record->grant_count; ++i) {
        const abb_grant_t *grant = &record->grants[i];

        assert_non_null(grant->asked);
        check_inside(grant->asked, block, size);
        check_inside(grant->slug, block, size);
        check_inside(grant->uuid, block, size);
        assert_true((int)grant->role >= ABB_ROLE_NONE && (int)grant->role <= ABB_ROLE_ADMIN);
    }
}

/* Decodes to what lies within the block, or is refused. Returns whether it decodes. */
static int check_safe(const void *block, apr_size_t size, apr_pool_t *p)
{
    abb_record_t record;
    apr_status_t status;
    apr_pool_t *scratch;

    assert_int_equal(apr_pool_create(&scratch, p), APR_SUCCESS);
    memset(&record, 0x5a, sizeof(record));
    status = abb_record_decode(block, size, &record, scratch);
    if (status == APR_SUCCESS) {
        check_record_inside(&record, block, size);
    }
    else {
        assert_int_equal(status, ABB_ESEAL);
    }
    apr_pool_destroy(scratch);
    return status == APR_SUCCESS;
}

/* A copy of a full record's block that may be changed. */
static unsigned char *full_block(apr_size_t *size, apr_pool_t *p)
{
    abb_record_t record = full_record();
    abb_record_bytes_t open = encode(&record, p);

    *size = open.size;
    return unit_bytes(open.bytes, open.size, p);
}

static void each_changed_byte_is_harmless(void **state)
{
    apr_size_t size;
    unsigned char *block = full_block(&size, *state);
    int refused = 0;

    for (apr_size_t i = 0; i < size; ++i) {
        for (int change = 1; change < 256; ++change) {
            block[i] ^= (unsigned char)change;
            refused += !check_safe(block, size, *state);
            block[i] ^= (unsigned char)change;
        }
    }
    assert_true(refused > 1000);
    assert_true(check_safe(block, size, *state));
}

static apr_uint32_t get_word(const unsigned char *block, apr_size_t at)
{
    apr_uint32_t word;

    memcpy(&word, block + at, sizeof(word));
    return word;
}

static void put_word(unsigned char *block, apr_size_t at, apr_uint32_t word)
{
    memcpy(block + at, &word, sizeof(word));
}

/* Numbers of a block under 64 KiB have two bytes. */
static apr_uint16_t get_number(const unsigned char *block, apr_size_t at)
{
    apr_uint16_t number;

    memcpy(&number, block + at, sizeof(number));
    return number;
}

static void put_number(unsigned char *block, apr_size_t at, apr_uint32_t number)
{
    apr_uint16_t narrow = (apr_uint16_t)number;

    assert_true(number <= 0xffff);
    memcpy(block + at, &narrow, sizeof(narrow));
}

/* Where the numbers begin. */
#define NUMBERS_AT 8

static apr_size_t find_number(const unsigned char *block, apr_size_t size, apr_uint32_t number)
{
    apr_size_t at = NUMBERS_AT;

    while (at + 2 <= size && get_number(block, at) != number) {
        at += 2;
    }
    assert_true(at + 2 <= size);
    return at;
}

/* Where a word stands first. */
static apr_size_t find_word(const unsigned char *block, apr_size_t size, apr_uint32_t word)
{
    apr_size_t at = 0;

    while (at + 4 <= size && get_word(block, at) != word) {
        at += 4;
    }
    assert_true(at + 4 <= size);
    return at;
}

/* Each word of the block in turn, and each pair of neighbours, hold what hurts most. */
static void each_changed_word_is_harmless(void **state)
{
    apr_size_t size;
    unsigned char *block = full_block(&size, *state);
    const apr_uint32_t hostile[] = {
        0,
        1,
        3,
        4,
        8,
        63,
        64,
        65,
        (apr_uint32_t)size - 2,
        (apr_uint32_t)size - 1,
        (apr_uint32_t)size,
        (apr_uint32_t)size + 1,
        0xffff,
        0x10000,
        ABB_RECORD_GRANTS_MAX,
        ABB_RECORD_GRANTS_MAX + 1,
        0x0aaaaaab,
        0x15555556,
        0x7fffffff,
        0x80000000,
        0xaaaaaaab,
        0xfffffffe,
        0xffffffff,
    };

    for (apr_size_t at = 0; at + 8 <= size; at += 4) {
        apr_uint32_t first = get_word(block, at);
        apr_uint32_t second = get_word(block, at + 4);

        for (apr_size_t i = 0; i < UNIT_COUNT(hostile); ++i) {
            put_word(block, at, hostile[i]);
            check_safe(block, size, *state);
            for (apr_size_t j = 0; j < UNIT_COUNT(hostile); ++j) {
                put_word(block, at + 4, hostile[j]);
                check_safe(block, size, *state);
            }
            put_word(block, at + 4, second);
        }
        put_word(block, at, first);
    }
}

/* The first word says which kind and version of block this is. */
static void a_block_of_another_kind_is_refused(void **state)
{
    apr_size_t size;
    unsigned char *block = full_block(&size, *state);

    for (int i = 0; i < 4; ++i) {
        for (int change = 1; change < 256; ++change) {
            block[i] ^= (unsigned char)change;
            assert_false(check_safe(block, size, *state));
            block[i] ^= (unsigned char)change;
        }
    }
}

/* In the smallest block there is, each two words hold what hurts most. */
static void each_two_changed_words_are_harmless(void **state)
{
    abb_record_t record = smallest_record();
    abb_record_bytes_t open;
    unsigned char *block;

    record.account.uuid = "u";
    open = encode(&record, *state);
    block = unit_bytes(open.bytes, open.size, *state);
    for (apr_size_t a = 0; a + 4 <= open.size; a += 4) {
        for (apr_size_t b = a + 4; b + 4 <= open.size; b += 4) {
            const apr_uint32_t hostile[] = {0,
                                            1,
                                            64,
                                            (apr_uint32_t)open.size - 1,
                                            (apr_uint32_t)open.size,
                                            ABB_RECORD_GRANTS_MAX,
                                            0x0aaaaaab,
                                            0x80000000,
                                            0xffffffff};
            apr_uint32_t first = get_word(block, a);
            apr_uint32_t second = get_word(block, b);

            for (apr_size_t i = 0; i < UNIT_COUNT(hostile) * UNIT_COUNT(hostile); ++i) {
                put_word(block, a, hostile[i % UNIT_COUNT(hostile)]);
                put_word(block, b, hostile[i / UNIT_COUNT(hostile)]);
                check_safe(block, open.size, *state);
            }
            put_word(block, a, first);
            put_word(block, b, second);
        }
    }
    assert_true(check_safe(block, open.size, *state));
}

static void each_cut_block_is_refused(void **state)
{
    apr_size_t size;
    unsigned char *block = full_block(&size, *state);

    for (apr_size_t cut = 0; cut < size; ++cut) {
        assert_false(check_safe(unit_bytes(block, cut, *state), cut, *state));
    }
}

/* Cut, but with a size that fits and an end that looks like one. */
static void each_cut_block_with_its_size_mended_is_harmless(void **state)
{
    apr_size_t size;
    unsigned char *block = full_block(&size, *state);
    apr_size_t size_at = find_word(block, size, (apr_uint32_t)size);

    for (apr_size_t cut = size_at + 4; cut < size; ++cut) {
        unsigned char *shorter = unit_bytes(block, cut, *state);

        put_word(shorter, size_at, (apr_uint32_t)cut);
        check_safe(shorter, cut, *state);
        shorter[cut - 1] = '\0';
        check_safe(shorter, cut, *state);
    }
}

static void a_lengthened_block_is_refused(void **state)
{
    apr_size_t size;
    unsigned char *block = full_block(&size, *state);
    unsigned char *longer = apr_pcalloc(*state, size + 64);

    memcpy(longer, block, size);
    for (apr_size_t more = 1; more <= 64; ++more) {
        assert_false(check_safe(longer, size + more, *state));
    }
}

static void other_bytes_are_no_block(void **state)
{
    for (int byte = 0; byte < 256; ++byte) {
        for (apr_size_t size = 0; size < 300; size += 7) {
            const char *bytes = unit_repeat((char)byte, size, *state);

            assert_false(check_safe(unit_bytes(bytes, size, *state), size, *state));
        }
    }
}

/* Where the block holds the offset of one of its strings. */
static apr_size_t find_offset(const unsigned char *block, apr_size_t size, const char *text)
{
    apr_uint32_t offset = (apr_uint32_t)((const unsigned char *)text - block);

    assert_true(offset < size);
    return find_number(block, offset, offset);
}

/* Neither behind the block nor into what is no string of it. */
static void offsets_out_of_range_are_refused(void **state)
{
    apr_size_t size;
    unsigned char *block = full_block(&size, *state);
    abb_record_t record;
    const char *strings[9];

    assert_int_equal(abb_record_decode(block, size, &record, *state), APR_SUCCESS);
    strings[0] = record.account.uuid;
    strings[1] = record.account.account_id;
    strings[2] = record.account.username;
    strings[3] = record.account.display_name;
    strings[4] = record.account.email;
    strings[5] = record.account.profile_url;
    strings[6] = record.grants[0].asked;
    strings[7] = record.grants[0].slug;
    strings[8] = record.grants[2].uuid;
    for (apr_size_t i = 0; i < UNIT_COUNT(strings); ++i) {
        apr_size_t at = find_offset(block, size, strings[i]);
        apr_uint32_t kept = get_number(block, at);
        const apr_uint32_t outside[] = {
            1,
            4,
            (apr_uint32_t)at,
            (apr_uint32_t)at + 4,
            (apr_uint32_t)size,
            (apr_uint32_t)size + 1,
            (apr_uint32_t)size + kept,
            0x7fff,
            0x8000,
            0x8000 + kept,
            0xffff,
        };

        for (apr_size_t j = 0; j < UNIT_COUNT(outside); ++j) {
            put_number(block, at, outside[j]);
            if (check_safe(block, size, *state)) {
                fail_msg("string %d at %u", (int)i, outside[j]);
            }
        }
        put_number(block, at, kept);
    }
    assert_true(check_safe(block, size, *state));
}

static void required_strings_must_be_there(void **state)
{
    apr_size_t size;
    unsigned char *block = full_block(&size, *state);
    abb_record_t record;
    const char *required[3];

    assert_int_equal(abb_record_decode(block, size, &record, *state), APR_SUCCESS);
    required[0] = record.account.uuid;
    required[1] = record.grants[0].asked;
    required[2] = record.grants[2].asked;
    for (apr_size_t i = 0; i < UNIT_COUNT(required); ++i) {
        apr_size_t at = find_offset(block, size, required[i]);
        apr_uint32_t kept = get_number(block, at);

        put_number(block, at, 0);
        assert_false(check_safe(block, size, *state));
        put_number(block, at, kept);
    }
}

/* The number in which two blocks that differ in one number differ. */
static apr_size_t find_difference(const abb_record_bytes_t *a, const abb_record_bytes_t *b)
{
    apr_size_t at = NUMBERS_AT;

    assert_int_equal(a->size, b->size);
    while (at + 2 <= a->size && get_number(a->bytes, at) == get_number(b->bytes, at)) {
        at += 2;
    }
    assert_true(at + 2 <= a->size);
    return at;
}

/* The place of a time is within the list of times. */
static void times_out_of_range_are_refused(void **state)
{
    abb_record_t record = full_record();
    abb_record_bytes_t first;
    abb_record_bytes_t second;
    unsigned char *block;
    apr_size_t at;

    record.account_checked_at = record.created_at - 1;
    record.grant_count = 0;
    first = encode(&record, *state);
    record.account_checked_at = record.created_at;
    second = encode(&record, *state);
    assert_int_equal(first.size, second.size + 8);
    at = find_number(first.bytes, first.size, 2);
    assert_int_equal(at, NUMBERS_AT + 2);
    block = unit_bytes(first.bytes, first.size, *state);
    assert_int_equal(get_number(block, at + 2), 0);
    assert_int_equal(get_number(block, at + 4), 1);
    for (apr_uint32_t place = 0; place <= 0xffff; ++place) {
        put_number(block, at + 4, place);
        assert_int_equal(check_safe(block, first.size, *state), place < 2);
    }
}

static void unknown_roles_are_refused(void **state)
{
    static const apr_uint32_t unknown[] = {
        ABB_ROLE_ADMIN + 1, 16, 255, 256, 0x7fff, 0x8000, 0x8004, 0xffff,
    };
    abb_grant_t grant = {"acme", "acme", UUID, ABB_ROLE_OWNER, NOW};
    abb_record_t record = smallest_record();
    abb_record_bytes_t owner;
    abb_record_bytes_t member;
    unsigned char *block;
    apr_size_t at;

    record.grants = &grant;
    record.grant_count = 1;
    owner = encode(&record, *state);
    grant.role = ABB_ROLE_MEMBER;
    member = encode(&record, *state);
    at = find_difference(&owner, &member);
    block = unit_bytes(owner.bytes, owner.size, *state);
    assert_int_equal(get_number(block, at), ABB_ROLE_OWNER);
    for (apr_size_t i = 0; i < UNIT_COUNT(unknown); ++i) {
        put_number(block, at, unknown[i]);
        assert_false(check_safe(block, owner.size, *state));
    }
}

/* More grants, or more times, than there are; with narrow numbers and with wide ones. */
static void more_than_there_are_bytes_is_refused(void **state)
{
    static const apr_uint32_t counts[] = {
        0xffff,
        ABB_RECORD_GRANTS_MAX,
        ABB_RECORD_GRANTS_MAX + 1,
        0x7fff,
        0x8000,
        /* In wide numbers only. */
        0x0aaaaaab,
        0x15555556,
        0x7fffffff,
        0x80000000,
        0xaaaaaaab,
        0xffffffff,
    };

    for (int wide = 0; wide < 2; ++wide) {
        abb_record_t record = smallest_record();
        abb_record_bytes_t open;

        fill_grants(&record, 77, *state);
        record.account.display_name = wide ? unit_repeat('n', 70000, *state) : NULL;
        open = encode(&record, *state);
        for (apr_size_t i = 0; i < (wide ? UNIT_COUNT(counts) : 5); ++i) {
            for (apr_size_t number = 0; number < 2; ++number) {
                unsigned char *block = unit_bytes(open.bytes, open.size, *state);

                if (wide) {
                    put_word(block, NUMBERS_AT + 4 * number, counts[i]);
                }
                else {
                    put_number(block, NUMBERS_AT + 2 * number, counts[i]);
                }
                assert_false(check_safe(block, open.size, *state));
            }
        }
    }
}

/* The one time of a block in which all are equal stands before the strings. */
#define ONE_TIME 8

/* A block of one grant, and how long one grant is in it. */
typedef struct {
    abb_record_bytes_t open;
    apr_size_t row_size;
    apr_uint32_t first_string;
} one_grant_t;

static one_grant_t encode_one_grant(apr_pool_t *p)
{
    abb_grant_t grants[] = {{"acme", NULL, NULL, ABB_ROLE_OWNER, 0},
                            {"acme", NULL, NULL, ABB_ROLE_OWNER, 0}};
    abb_record_t record = smallest_record();
    abb_record_t decoded;
    one_grant_t one;

    record.grants = grants;
    record.grant_count = 2;
    one.row_size = encode(&record, p).size - sizeof("acme");
    record.grant_count = 1;
    one.open = encode(&record, p);
    one.row_size -= one.open.size;
    assert_int_equal(abb_record_decode(one.open.bytes, one.open.size, &decoded, p), APR_SUCCESS);
    one.first_string = (apr_uint32_t)(decoded.account.uuid - (const char *)one.open.bytes);
    return one;
}

/* The same block with its only grant many times: whole but for the number of grants. */
static unsigned char *repeat_grant(const one_grant_t *one, apr_uint32_t count, apr_size_t *size,
                                   apr_pool_t *p)
{
    const unsigned char *block = one->open.bytes;
    apr_size_t row_at = one->first_string - ONE_TIME - one->row_size;
    apr_uint32_t shift = (count - 1) * (apr_uint32_t)one->row_size;
    apr_uint32_t asked = one->first_string + sizeof(UUID);
    unsigned char *head = unit_bytes(block, one->first_string, p);
    unsigned char *out;

    *size = one->open.size + shift;
    put_number(head, find_number(head, row_at, 1), count);
    put_word(head, find_word(head, row_at, (apr_uint32_t)one->open.size), (apr_uint32_t)*size);
    put_number(head, find_number(head, row_at, one->first_string), one->first_string + shift);
    put_number(head, find_number(head, one->first_string, asked), asked + shift);
    out = unit_bytes(unit_repeat('\0', *size, p), *size, p);
    memcpy(out, head, row_at);
    for (apr_size_t i = 0; i < count; ++i) {
        memcpy(out + row_at + i * one->row_size, head + row_at, one->row_size);
    }
    memcpy(out + row_at + count * one->row_size, block + one->first_string - ONE_TIME,
           one->open.size - one->first_string + ONE_TIME);
    return out;
}

static void more_grants_than_allowed_are_refused(void **state)
{
    one_grant_t one = encode_one_grant(*state);
    apr_size_t size;
    unsigned char *block = repeat_grant(&one, ABB_RECORD_GRANTS_MAX, &size, *state);

    assert_true(check_safe(block, size, *state));
    block = repeat_grant(&one, ABB_RECORD_GRANTS_MAX + 1, &size, *state);
    assert_false(check_safe(block, size, *state));
}

/* ---- the private part ------------------------------------------------------------------ */

static const abb_record_private_t full_private = {
    {"access-token", "refresh-token", "account email", NOW, 0, 0}, "{\"uuid\":\"{x}\"}"};

/* The open part beside it. */
static abb_record_bytes_t full_open(apr_pool_t *p)
{
    abb_record_t record = full_record();

    return encode(&record, p);
}

static abb_record_bytes_t seal_beside(const abb_record_private_t *part,
                                      const abb_record_bytes_t *open, apr_pool_t *p)
{
    abb_record_bytes_t sealed = {NULL, 0};

    assert_int_equal(abb_record_seal(part, open, &ring, COOKIE, 32, SITE, &sealed, p, NULL),
                     APR_SUCCESS);
    sealed.bytes = unit_bytes(sealed.bytes, sealed.size, p);
    return sealed;
}

static abb_record_bytes_t seal(const abb_record_private_t *part, apr_pool_t *p)
{
    abb_record_bytes_t open = full_open(p);

    return seal_beside(part, &open, p);
}

static void check_private_round_trip_beside(const abb_record_private_t *part,
                                            const abb_record_bytes_t *open, apr_pool_t *p)
{
    abb_record_bytes_t sealed = seal_beside(part, open, p);
    abb_record_private_t opened;
    abb_error_t err;

    abb_error_clear(&err);
    memset(&opened, 0x5a, sizeof(opened));
    assert_int_equal(abb_record_open(&sealed, open, &ring, COOKIE, 32, SITE, &opened, p, &err),
                     APR_SUCCESS);
    assert_int_equal(err.status, APR_SUCCESS);
    unit_equal(opened.tokens.access_token, part->tokens.access_token, "access token");
    unit_equal(opened.tokens.refresh_token, part->tokens.refresh_token, "refresh token");
    unit_equal(opened.tokens.scope, part->tokens.scope, "scope");
    unit_equal(opened.raw_user, part->raw_user, "user");
    assert_int_equal(opened.tokens.expires_at, part->tokens.expires_at);
    assert_int_equal(opened.tokens.is_unproved, part->tokens.is_unproved);
    assert_int_equal(opened.tokens.is_basic, part->tokens.is_basic);
}

static void check_private_round_trip(const abb_record_private_t *part, apr_pool_t *p)
{
    abb_record_bytes_t open = full_open(p);

    check_private_round_trip_beside(part, &open, p);
}

static void a_private_part_comes_back(void **state)
{
    static const abb_record_private_t nothing = {{NULL, NULL, NULL, 0, 0, 0}, NULL};
    static const abb_record_private_t access_only = {{"access", NULL, NULL, INT64_MAX, 1, 0}, NULL};
    static const abb_record_private_t user_only = {{NULL, NULL, NULL, -1, 0, 1}, "{}"};

    check_private_round_trip(&full_private, *state);
    check_private_round_trip(&nothing, *state);
    check_private_round_trip(&access_only, *state);
    check_private_round_trip(&user_only, *state);
}

static void tokens_of_the_longest_size_are_kept(void **state)
{
    abb_record_private_t part = full_private;

    part.tokens.access_token = unit_repeat('a', ABB_RECORD_TOKEN_MAX - 1, *state);
    part.tokens.refresh_token = unit_repeat('r', ABB_RECORD_TOKEN_MAX - 1, *state);
    check_private_round_trip(&part, *state);
    part.tokens.access_token = unit_repeat('a', ABB_RECORD_TOKEN_MAX, *state);
    part.tokens.refresh_token = unit_repeat('r', ABB_RECORD_TOKEN_MAX, *state);
    check_private_round_trip(&part, *state);
}

static void check_too_large(const abb_record_private_t *part, apr_pool_t *p)
{
    abb_record_bytes_t open = full_open(p);
    abb_record_bytes_t sealed;
    abb_error_t err;

    abb_error_clear(&err);
    assert_int_equal(abb_record_seal(part, &open, &ring, COOKIE, 32, SITE, &sealed, p, &err),
                     APR_ENOSPC);
    assert_int_equal(err.status, APR_ENOSPC);
    assert_null(strstr(err.text, "aaaa"));
}

static void longer_tokens_are_refused(void **state)
{
    abb_record_private_t part = full_private;

    part.tokens.access_token = unit_repeat('a', ABB_RECORD_TOKEN_MAX + 1, *state);
    check_too_large(&part, *state);
    part = full_private;
    part.tokens.refresh_token = unit_repeat('a', ABB_RECORD_TOKEN_MAX + 1, *state);
    check_too_large(&part, *state);
}

static void too_large_a_private_part_is_refused(void **state)
{
    abb_record_private_t part = full_private;
    /* Form, time and the strings with their NULs. */
    apr_size_t room = ABB_RECORD_PRIVATE_MAX - 1 - 8 - sizeof("access-token") -
                      sizeof("refresh-token") - sizeof("account email") - 1;

    part.raw_user = unit_repeat('a', room, *state);
    check_private_round_trip(&part, *state);
    part.raw_user = unit_repeat('a', room + 1, *state);
    check_too_large(&part, *state);
    part = full_private;
    part.tokens.scope = unit_repeat('a', 10 * ABB_RECORD_PRIVATE_MAX, *state);
    check_too_large(&part, *state);
}

static void a_private_part_shows_nothing(void **state)
{
    static const char *const hidden[] = {"access-token", "refresh-token", "account email", "uuid"};
    abb_record_bytes_t sealed = seal(&full_private, *state);
    const char *bytes = sealed.bytes;

    for (apr_size_t i = 0; i < UNIT_COUNT(hidden); ++i) {
        for (apr_size_t at = 0; at + 4 <= sealed.size; ++at) {
            assert_memory_not_equal(bytes + at, hidden[i], 4);
        }
    }
}

static void check_closed(const void *bytes, apr_size_t size, const abb_crypto_keyring_t *keys,
                         const char *cookie, apr_size_t cookie_size, const char *site,
                         apr_pool_t *p)
{
    abb_record_bytes_t sealed = {unit_bytes(bytes, size, p), size};
    abb_record_bytes_t open = full_open(p);
    abb_record_private_t opened;
    abb_error_t err;

    abb_error_clear(&err);
    assert_int_equal(
        abb_record_open(&sealed, &open, keys, cookie, cookie_size, site, &opened, p, &err),
        ABB_ESEAL);
    assert_int_equal(err.status, ABB_ESEAL);
}

static void each_bit_of_the_cookie_counts(void **state)
{
    abb_record_bytes_t sealed = seal(&full_private, *state);
    char cookie[] = COOKIE;

    for (int i = 0; i < 32; ++i) {
        for (int bit = 1; bit < 256; bit <<= 1) {
            cookie[i] = (char)(cookie[i] ^ bit);
            check_closed(sealed.bytes, sealed.size, &ring, cookie, 32, SITE, *state);
            cookie[i] = (char)(cookie[i] ^ bit);
        }
    }
    check_closed(sealed.bytes, sealed.size, &ring, cookie, 31, SITE, *state);
    check_closed(sealed.bytes, sealed.size, &ring, cookie, 33, SITE, *state);
    check_closed(sealed.bytes, sealed.size, &ring, NULL, 0, SITE, *state);
}

static void other_sites_and_keys_open_nothing(void **state)
{
    static const char *const sites[] = {"", "key@wiki.example.org", "other@wiki.example.com",
                                        "key@wiki.example.co", "key@wiki.example.com "};
    static const abb_crypto_keyring_t other = {1, {{{43}}}};
    abb_record_bytes_t sealed = seal(&full_private, *state);

    for (apr_size_t i = 0; i < UNIT_COUNT(sites); ++i) {
        check_closed(sealed.bytes, sealed.size, &ring, COOKIE, 32, sites[i], *state);
    }
    check_closed(sealed.bytes, sealed.size, &other, COOKIE, 32, SITE, *state);
}

static void changed_and_cut_private_parts_do_not_open(void **state)
{
    abb_record_bytes_t sealed = seal(&full_private, *state);
    unsigned char *bytes = unit_bytes(sealed.bytes, sealed.size, *state);

    for (apr_size_t i = 0; i < sealed.size; ++i) {
        check_closed(bytes, i, &ring, COOKIE, 32, SITE, *state);
        bytes[i] ^= 0x10;
        check_closed(bytes, sealed.size, &ring, COOKIE, 32, SITE, *state);
        bytes[i] ^= 0x10;
    }
}

static const abb_crypto_context_t session = {"session", SITE, COOKIE, 32};

/* The strings of an open part: they begin with the uuid. */
static abb_record_bytes_t strings_of(const abb_record_bytes_t *open, apr_pool_t *p)
{
    abb_record_bytes_t strings;
    abb_record_t record;

    assert_int_equal(abb_record_decode(open->bytes, open->size, &record, p), APR_SUCCESS);
    strings.bytes = record.account.uuid;
    strings.size = open->size - (apr_size_t)(record.account.uuid - (const char *)open->bytes);
    return strings;
}

/* What is sealed, found out by opening a part of the room's own. */
static unsigned char *private_block(apr_size_t *size, apr_pool_t *p)
{
    abb_record_bytes_t sealed = seal(&full_private, p);
    abb_record_bytes_t open = full_open(p);
    abb_record_bytes_t label = strings_of(&open, p);
    unsigned char *block;

    assert_int_equal(abb_crypto_open(&ring, &session, label.bytes, label.size, sealed.bytes,
                                     sealed.size, &block, size, p, NULL),
                     APR_SUCCESS);
    return block;
}

/* Sealed by the right key: opens to what lies within, or is refused. */
static int check_private_safe(const void *block, apr_size_t size, apr_pool_t *p)
{
    abb_record_bytes_t sealed;
    abb_record_bytes_t open;
    abb_record_bytes_t label;
    abb_record_private_t opened;
    unsigned char *bytes;
    apr_status_t status;
    apr_pool_t *scratch;

    assert_int_equal(apr_pool_create(&scratch, p), APR_SUCCESS);
    open = full_open(scratch);
    label = strings_of(&open, scratch);
    assert_int_equal(abb_crypto_seal(&ring, &session, label.bytes, label.size, block, size, &bytes,
                                     &sealed.size, scratch, NULL),
                     APR_SUCCESS);
    sealed.bytes = bytes;
    status = abb_record_open(&sealed, &open, &ring, COOKIE, 32, SITE, &opened, scratch, NULL);
    if (status == APR_SUCCESS) {
        const char *const strings[] = {opened.tokens.access_token, opened.tokens.refresh_token,
                                       opened.tokens.scope, opened.raw_user};

        for (apr_size_t i = 0; i < UNIT_COUNT(strings); ++i) {
            assert_true(!strings[i] || strlen(strings[i]) < ABB_RECORD_PRIVATE_MAX);
        }
    }
    else {
        assert_int_equal(status, ABB_ESEAL);
    }
    apr_pool_destroy(scratch);
    return status == APR_SUCCESS;
}

static void sealed_blocks_of_another_form_are_refused(void **state)
{
    apr_size_t size;
    unsigned char *block = private_block(&size, *state);
    unsigned char *longer = apr_pcalloc(*state, size + 1);

    assert_true(check_private_safe(block, size, *state));
    for (apr_size_t cut = 0; cut < size; ++cut) {
        assert_false(check_private_safe(block, cut, *state));
    }
    memcpy(longer, block, size);
    assert_false(check_private_safe(longer, size + 1, *state));
    assert_false(check_private_safe(unit_repeat('x', size, *state), size, *state));
}

/* Packed and sealed by the test, without any reference to what is known. */
static int opens_when_packed(const void *text, apr_size_t size, apr_pool_t *p)
{
    unsigned char *packed = apr_palloc(p, size + ABB_PACK_OVERHEAD_MAX);

    return check_private_safe(packed, abb_pack_encode(text, 0, size, packed, p), p);
}

static void nothing_may_follow_the_strings_of_a_private_part(void **state)
{
    /* A form with an access token alone, when it ends, the token with its NUL. */
    static const char whole[] = "\x11"
                                "........"
                                "token";
    static const char with_rest[] = "\x11"
                                    "........"
                                    "token\0"
                                    "x";

    assert_true(opens_when_packed(whole, sizeof(whole), *state));
    assert_false(opens_when_packed(whole, sizeof(whole) - 1, *state));
    assert_false(opens_when_packed(with_rest, sizeof(with_rest) - 1, *state));
    assert_false(opens_when_packed(with_rest, sizeof(with_rest), *state));
}

static void an_open_part_is_no_private_part(void **state)
{
    apr_size_t size;
    unsigned char *block = full_block(&size, *state);

    assert_false(check_private_safe(block, size, *state));
    block = private_block(&size, *state);
    assert_false(check_safe(block, size, *state));
}

static void changed_bytes_in_a_sealed_block_are_harmless(void **state)
{
    apr_size_t size;
    unsigned char *block = private_block(&size, *state);
    int refused = 0;

    for (apr_size_t at = 0; at < size; ++at) {
        for (int change = 1; change < 256; ++change) {
            block[at] ^= (unsigned char)change;
            refused += !check_private_safe(block, size, *state);
            block[at] ^= (unsigned char)change;
        }
    }
    /* The size at least admits of one value only. */
    assert_true(refused >= 255);
}

/* Both parts are of one record: beside other strings the private one stays shut. */
static void a_private_part_opens_beside_its_own_open_part_only(void **state)
{
    abb_record_bytes_t sealed = seal(&full_private, *state);
    abb_record_bytes_t none = {"", 0};
    abb_record_t record = full_record();
    abb_record_private_t opened;
    abb_record_bytes_t open;

    record.account.display_name = "Ada L\xc3\xb6velacf";
    open = encode(&record, *state);
    assert_int_equal(
        abb_record_open(&sealed, &open, &ring, COOKIE, 32, SITE, &opened, *state, NULL), ABB_ESEAL);
    assert_int_equal(
        abb_record_open(&sealed, &none, &ring, COOKIE, 32, SITE, &opened, *state, NULL), ABB_ESEAL);
    assert_int_equal(
        abb_record_seal(&full_private, &none, &ring, COOKIE, 32, SITE, &sealed, *state, NULL),
        ABB_ESEAL);
}

/* ---- sizes ------------------------------------------------------------------------------ */

#define USER_UUID "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645"
#define USER_KEY "%7B" USER_UUID "%7D"
#define API "https://api.bitbucket.org/2.0/"
#define AVATAR                                                               \
    "https://secure.gravatar.com/avatar/3e1f0b7a0d1c2b3a4f5e6d7c8b9a0f1e"    \
    "?d=https%3A%2F%2Favatar-management--avatars.us-west-2.prod.public.atl-" \
    "paas.net%2Finitials%2FTR-0.png"

/* As Bitbucket sends it. */
static const char usual_user[] =
    "{\"display_name\":\"Thiago Ramos\","
    "\"links\":{\"self\":{\"href\":\"" API "users/" USER_KEY "\"},"
    "\"avatar\":{\"href\":\"" AVATAR "\"},"
    "\"repositories\":{\"href\":\"" API "repositories/" USER_KEY "\"},"
    "\"snippets\":{\"href\":\"" API "snippets/" USER_KEY "\"},"
    "\"html\":{\"href\":\"https://bitbucket.org/" USER_KEY "/\"},"
    "\"hooks\":{\"href\":\"" API "workspaces/" USER_KEY "/hooks\"}},"
    "\"created_on\":\"2018-11-06T12:12:59.588751+00:00\",\"type\":\"user\","
    "\"uuid\":\"{" USER_UUID "}\",\"has_2fa_enabled\":null,\"username\":\"ThiagoCodecov\","
    "\"is_staff\":false,\"account_id\":\"557058:0e5c6000-c6e5-4f4d-a936-be1a54e66454\","
    "\"nickname\":\"thiago\",\"account_status\":\"active\",\"location\":null}";

static abb_grant_t usual_grants[] = {
    {"acme", "acme", "470c176d-3574-44ea-bb41-89e8638bcca4", ABB_ROLE_MEMBER, NOW},
};

static abb_record_t usual_record(void)
{
    abb_record_t record = {
        .account = {USER_UUID, "557058:0e5c6000-c6e5-4f4d-a936-be1a54e66454", "ThiagoCodecov",
                    "thiago", "Thiago Ramos", "thiago@acme.example", AVATAR,
                    "https://bitbucket.org/" USER_KEY "/"},
        .grants = usual_grants,
        .grant_count = UNIT_COUNT(usual_grants),
        .created_at = NOW,
        .account_checked_at = NOW,
    };

    return record;
}

/* A token in which nothing repeats. */
static char *make_token(apr_size_t length, apr_uint32_t seed, apr_pool_t *p)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char *token = unit_repeat(' ', length, p);

    for (apr_size_t i = 0; i < length; ++i) {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        token[i] = alphabet[seed % 64];
    }
    return token;
}

/* What the store has to keep of a usual session, each part in whole words. */
static apr_size_t usual_size(apr_size_t token_length, apr_pool_t *p)
{
    abb_record_t record = usual_record();
    abb_record_bytes_t open = encode(&record, p);
    abb_record_private_t part = {{make_token(token_length, 1, p), make_token(token_length, 2, p),
                                  "account email", NOW + apr_time_from_sec(7200), 0, 0},
                                 usual_user};
    abb_record_bytes_t sealed = seal_beside(&part, &open, p);

    check_round_trip(&record, p);
    check_private_round_trip_beside(&part, &open, p);
    print_message("# tokens of %d: open %d, sealed %d\n", (int)token_length, (int)open.size,
                  (int)sealed.size);
    return (open.size + 7) / 8 * 8 + (sealed.size + 7) / 8 * 8;
}

/* In blocks of 128 bytes with 120 to use and one more for the head: 896 bytes, and 5,376. */
static void a_usual_session_is_small(void **state)
{
    assert_true(usual_size(43, *state) <= 6 * 120);
    assert_true(usual_size(2600, *state) <= 41 * 120);
}

static void equal_strings_are_kept_once(void **state)
{
    abb_record_t record = usual_record();
    abb_grant_t grant = usual_grants[0];
    apr_size_t size = encode(&record, *state).size;

    record.grants = &grant;
    grant.slug = "acmf";
    assert_int_equal(encode(&record, *state).size, size + sizeof("acmf"));
    check_round_trip(&record, *state);
    grant.slug = "acme";
    record.account.nickname = "ThiagoCodecov";
    assert_int_equal(encode(&record, *state).size, size - sizeof("thiago"));
    check_round_trip(&record, *state);
}

/* Rows that were checked at one time share it. */
static void many_rows_take_little_more_than_their_strings(void **state)
{
    abb_record_t record = usual_record();
    apr_size_t strings = 0;
    apr_size_t before = encode(&record, *state).size;

    fill_grants(&record, 1000, *state);
    for (int i = 0; i < 1000; ++i) {
        abb_grant_t *grant = &record.grants[i];

        grant->checked_at = NOW;
        grant->slug = i % 3 ? grant->asked : NULL;
        strings += strlen(grant->asked) + 1 + (grant->uuid ? sizeof(UUID) : 0);
    }
    check_round_trip(&record, *state);
    assert_true(encode(&record, *state).size <= before + strings + 1000 * 10);
}

/* Numbers grow to four bytes where two no longer do. */
static void blocks_of_any_size_come_back(void **state)
{
    abb_record_t record = usual_record();
    apr_size_t size = encode(&record, *state).size - sizeof("Thiago Ramos") + 1;

    for (apr_size_t length = 65535 - size - 20; length < 65535 - size + 80; ++length) {
        record.account.display_name = unit_repeat('n', length, *state);
        check_round_trip(&record, *state);
        assert_int_equal(encode(&record, *state).size,
                         size + length + (size + length > 65535 ? 2 * (14 + 5) : 0));
    }
}

/* The part that helps to pack is bounded, so open parts of any size have a private part. */
static void a_private_part_stands_beside_open_parts_of_any_size(void **state)
{
    static const apr_size_t lengths[] = {1, 3000, 4096, 5000, 65000, 70000, 1000000};

    for (apr_size_t i = 0; i < UNIT_COUNT(lengths); ++i) {
        abb_record_t record = usual_record();
        abb_record_private_t part = full_private;
        abb_record_bytes_t open;

        record.account.display_name = unit_repeat('n', lengths[i], *state);
        open = encode(&record, *state);
        part.raw_user = usual_user;
        check_private_round_trip_beside(&part, &open, *state);
    }
}

/* ---- grants ----------------------------------------------------------------------------- */

static void grants_are_found_by_what_was_asked(void **state)
{
    abb_record_t record = full_record();
    abb_record_t empty = smallest_record();

    assert_ptr_equal(abb_record_find_grant(&record, "acme"), &full_grants[0]);
    assert_ptr_equal(abb_record_find_grant(&record, "other"), &full_grants[1]);
    assert_ptr_equal(abb_record_find_grant(&record, UUID), &full_grants[2]);
    assert_null(abb_record_find_grant(&record, "third-slug"));
    assert_null(abb_record_find_grant(&record, "acm"));
    assert_null(abb_record_find_grant(&record, "acme2"));
    assert_null(abb_record_find_grant(&record, ""));
    assert_null(abb_record_find_grant(&empty, "acme"));
}

static void a_grant_is_appended(void **state)
{
    abb_grant_t grant = {"new", "new", UUID, ABB_ROLE_MEMBER, NOW};
    abb_record_t record = smallest_record();

    assert_int_equal(abb_record_put_grant(&record, &grant, *state), APR_SUCCESS);
    assert_int_equal(record.grant_count, 1);
    record = full_record();
    assert_int_equal(abb_record_put_grant(&record, &grant, *state), APR_SUCCESS);
    assert_int_equal(record.grant_count, 4);
    for (int i = 0; i < 3; ++i) {
        check_equal_grants(&record.grants[i], &full_grants[i]);
    }
    check_equal_grants(&record.grants[3], &grant);
    check_round_trip(&record, *state);
}

/* In its place, with the others and the caller's own array as they were. */
static void a_grant_is_replaced(void **state)
{
    abb_grant_t before[UNIT_COUNT(full_grants)];

    memcpy(before, full_grants, sizeof(before));
    for (int i = 0; i < (int)UNIT_COUNT(full_grants); ++i) {
        abb_grant_t grant = {apr_pstrdup(*state, full_grants[i].asked), NULL, NULL, ABB_ROLE_NONE,
                             NOW + 7};
        abb_record_t record = full_record();

        assert_int_equal(abb_record_put_grant(&record, &grant, *state), APR_SUCCESS);
        assert_int_equal(record.grant_count, UNIT_COUNT(full_grants));
        for (int j = 0; j < record.grant_count; ++j) {
            check_equal_grants(&record.grants[j], j == i ? &grant : &before[j]);
            check_equal_grants(&full_grants[j], &before[j]);
        }
    }
}

static void a_full_record_takes_only_replacements(void **state)
{
    abb_grant_t grant = {"new", NULL, NULL, ABB_ROLE_NONE, NOW};
    abb_grant_t last = {"workspace-4095", "last", UUID, ABB_ROLE_OWNER, NOW};
    abb_record_t record = full_record();
    abb_grant_t *grants;

    fill_grants(&record, ABB_RECORD_GRANTS_MAX - 1, *state);
    assert_int_equal(abb_record_put_grant(&record, &last, *state), APR_SUCCESS);
    grants = record.grants;
    assert_int_equal(abb_record_put_grant(&record, &grant, *state), APR_ENOSPC);
    assert_int_equal(record.grant_count, ABB_RECORD_GRANTS_MAX);
    assert_ptr_equal(record.grants, grants);
    last.role = ABB_ROLE_MEMBER;
    assert_int_equal(abb_record_put_grant(&record, &last, *state), APR_SUCCESS);
    assert_int_equal(record.grant_count, ABB_RECORD_GRANTS_MAX);
    assert_int_equal(abb_record_find_grant(&record, "workspace-4095")->role, ABB_ROLE_MEMBER);
}

/* ---- ages ---------------------------------------------------------------- */

static void answers_grow_old(void **state)
{
    static const struct {
        int soft, hard, age;
        abb_record_age_t expected;
    } cases[] = {
        {300, 3600, 0, ABB_RECORD_FRESH},  {300, 3600, 300, ABB_RECORD_FRESH},
        {300, 3600, 301, ABB_RECORD_DUE},  {300, 3600, 3600, ABB_RECORD_DUE},
        {300, 3600, 3601, ABB_RECORD_OLD}, {300, 3600, -119, ABB_RECORD_FRESH},
        {300, 3600, -121, ABB_RECORD_OLD}, {60, 60, 60, ABB_RECORD_FRESH},
        {60, 60, 61, ABB_RECORD_OLD},      {0, 0, 0, ABB_RECORD_FRESH},
        {0, 0, -1, ABB_RECORD_FRESH},      {0, 0, 1, ABB_RECORD_OLD},
        {0, 3600, 1, ABB_RECORD_DUE},      {300, 3600, 1800000000, ABB_RECORD_OLD},
    };
    apr_time_t now = apr_time_from_sec(1800000000);

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        abb_record_ages_t ages = {apr_time_from_sec(cases[i].soft),
                                  apr_time_from_sec(cases[i].hard)};

        if (abb_record_age(now - apr_time_from_sec(cases[i].age), &ages, now) !=
            cases[i].expected) {
            fail_msg("%d s at %d to %d", cases[i].age, cases[i].soft, cases[i].hard);
        }
    }
}

static void answers_of_no_time_are_old(void **state)
{
    static const abb_record_ages_t ages = {apr_time_from_sec(300), apr_time_from_sec(3600)};
    apr_time_t now = apr_time_from_sec(1800000000);

    assert_int_equal(abb_record_age(APR_INT64_MIN, &ages, now), ABB_RECORD_OLD);
    assert_int_equal(abb_record_age(APR_INT64_MAX, &ages, now), ABB_RECORD_OLD);
}

static void old_grants_are_left_out(void **state)
{
    static const abb_record_ages_t ages = {apr_time_from_sec(300), apr_time_from_sec(3600)};
    apr_time_t now = apr_time_from_sec(1800000000);
    abb_grant_t grants[] = {
        {"old", "old", NULL, ABB_ROLE_OWNER, now - apr_time_from_sec(3601)},
        {"due", "due", NULL, ABB_ROLE_OWNER, now - apr_time_from_sec(3600)},
        {"early", "early", NULL, ABB_ROLE_OWNER, now + apr_time_from_sec(121)},
        {"fresh", "fresh", NULL, ABB_ROLE_MEMBER, now},
    };
    abb_record_t record = {.account = {.uuid = "a9225a7d-3e21-431d-a4d3-921a724a67f6"},
                           .grants = grants,
                           .grant_count = UNIT_COUNT(grants)};
    const abb_record_t *current = abb_record_without_old(&record, &ages, now, *state);

    assert_int_equal(current->grant_count, 2);
    assert_string_equal(current->grants[0].asked, "due");
    assert_string_equal(current->grants[1].asked, "fresh");
    assert_ptr_equal(current->account.uuid, record.account.uuid);
    assert_int_equal(record.grant_count, UNIT_COUNT(grants));
    assert_ptr_equal(abb_record_without_old(current, &ages, now, *state), current);
    record.grant_count = 1;
    assert_int_equal(abb_record_without_old(&record, &ages, now, *state)->grant_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(old_grants_are_left_out),
        UNIT_TEST(answers_grow_old),
        UNIT_TEST(answers_of_no_time_are_old),
        UNIT_TEST(a_full_record_comes_back),
        UNIT_TEST(a_record_of_a_uuid_comes_back),
        UNIT_TEST(absent_strings_stay_absent),
        UNIT_TEST(all_roles_and_times_come_back),
        UNIT_TEST(many_grants_come_back),
        UNIT_TEST(too_many_grants_are_refused),
        UNIT_TEST(too_large_a_record_is_refused),
        UNIT_TEST(a_block_is_read_in_place),
        UNIT_TEST(equal_records_are_equal_bytes),
        UNIT_TEST(each_changed_byte_is_harmless),
        UNIT_TEST(each_changed_word_is_harmless),
        UNIT_TEST(a_block_of_another_kind_is_refused),
        UNIT_TEST(each_two_changed_words_are_harmless),
        UNIT_TEST(each_cut_block_is_refused),
        UNIT_TEST(each_cut_block_with_its_size_mended_is_harmless),
        UNIT_TEST(a_lengthened_block_is_refused),
        UNIT_TEST(other_bytes_are_no_block),
        UNIT_TEST(offsets_out_of_range_are_refused),
        UNIT_TEST(required_strings_must_be_there),
        UNIT_TEST(unknown_roles_are_refused),
        UNIT_TEST(more_than_there_are_bytes_is_refused),
        UNIT_TEST(times_out_of_range_are_refused),
        UNIT_TEST(more_grants_than_allowed_are_refused),
        UNIT_TEST(a_private_part_comes_back),
        UNIT_TEST(tokens_of_the_longest_size_are_kept),
        UNIT_TEST(longer_tokens_are_refused),
        UNIT_TEST(too_large_a_private_part_is_refused),
        UNIT_TEST(a_private_part_shows_nothing),
        UNIT_TEST(each_bit_of_the_cookie_counts),
        UNIT_TEST(other_sites_and_keys_open_nothing),
        UNIT_TEST(changed_and_cut_private_parts_do_not_open),
        UNIT_TEST(sealed_blocks_of_another_form_are_refused),
        UNIT_TEST(nothing_may_follow_the_strings_of_a_private_part),
        UNIT_TEST(an_open_part_is_no_private_part),
        UNIT_TEST(changed_bytes_in_a_sealed_block_are_harmless),
        UNIT_TEST(a_private_part_opens_beside_its_own_open_part_only),
        UNIT_TEST(a_usual_session_is_small),
        UNIT_TEST(equal_strings_are_kept_once),
        UNIT_TEST(many_rows_take_little_more_than_their_strings),
        UNIT_TEST(blocks_of_any_size_come_back),
        UNIT_TEST(a_private_part_stands_beside_open_parts_of_any_size),
        UNIT_TEST(grants_are_found_by_what_was_asked),
        UNIT_TEST(a_grant_is_appended),
        UNIT_TEST(a_grant_is_replaced),
        UNIT_TEST(a_full_record_takes_only_replacements),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
