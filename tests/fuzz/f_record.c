/* f_record: both parts of a record, and packed texts. */
#include <apr_strings.h>
#include <string.h>

#include "abb_pack.h"
#include "abb_record.h"
#include "targets.h"

static const unsigned char cookie[32] = "the bytes of a cookie";

/* ---- the open part -------------------------------------------------------- */

/* A string of a record is NULL, or ends inside the block. */
static void check_string(const char *text, const char *block, apr_size_t size)
{
    if (text) {
        FUZZ_CHECK(text > block && text < block + size);
        FUZZ_CHECK(strnlen(text, (apr_size_t)(block + size - text)) <
                   (apr_size_t)(block + size - text));
    }
}

static void check_strings(const abb_record_t *record, const char *block, apr_size_t size)
{
    const abb_account_t *account = &record->account;
    const char *strings[] = {account->uuid,       account->account_id,  account->username,
                             account->nickname,   account->email,       account->display_name,
                             account->avatar_url, account->profile_url, account->emails,
                             account->app_kind};

    for (apr_size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); ++i) {
        check_string(strings[i], block, size);
    }
    for (int i = 0; i < record->grant_count; ++i) {
        check_string(record->grants[i].asked, block, size);
        check_string(record->grants[i].slug, block, size);
        check_string(record->grants[i].uuid, block, size);
    }
}

static void check_same_account(const abb_account_t *a, const abb_account_t *b)
{
    FUZZ_CHECK(fuzz_is_same(a->uuid, b->uuid) && fuzz_is_same(a->account_id, b->account_id) &&
               fuzz_is_same(a->username, b->username) && fuzz_is_same(a->nickname, b->nickname) &&
               fuzz_is_same(a->display_name, b->display_name) && fuzz_is_same(a->email, b->email) &&
               fuzz_is_same(a->avatar_url, b->avatar_url) &&
               fuzz_is_same(a->profile_url, b->profile_url) && fuzz_is_same(a->emails, b->emails) &&
               fuzz_is_same(a->app_kind, b->app_kind));
}

static void check_same(const abb_record_t *a, const abb_record_t *b)
{
    check_same_account(&a->account, &b->account);
    FUZZ_CHECK(a->created_at == b->created_at && a->account_checked_at == b->account_checked_at);
    FUZZ_CHECK(a->grant_count == b->grant_count);
    for (int i = 0; i < a->grant_count; ++i) {
        const abb_grant_t *one = &a->grants[i];
        const abb_grant_t *other = &b->grants[i];

        FUZZ_CHECK(fuzz_is_same(one->asked, other->asked) && fuzz_is_same(one->slug, other->slug) &&
                   fuzz_is_same(one->uuid, other->uuid) && one->role == other->role &&
                   one->checked_at == other->checked_at);
    }
}

/* What a record says, written and read again, is the same. */
static void check_again(const abb_record_t *record, apr_pool_t *p)
{
    abb_record_bytes_t block;
    abb_record_t again;
    const void *copy;

    FUZZ_CHECK(abb_record_encode(record, &block, p) == APR_SUCCESS);
    FUZZ_CHECK(block.size <= ABB_RECORD_OPEN_MAX);
    copy = fuzz_copy(block.bytes, block.size, p);
    FUZZ_CHECK(abb_record_decode(copy, block.size, &again, p) == APR_SUCCESS);
    check_strings(&again, copy, block.size);
    check_same(record, &again);
}

void fuzz_record(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    static const abb_record_ages_t ages = {apr_time_from_sec(300), apr_time_from_sec(3600)};
    abb_record_t record;

    if (abb_record_decode(bytes, size, &record, p) != APR_SUCCESS) {
        return;
    }
    FUZZ_CHECK(record.account.uuid != NULL);
    FUZZ_CHECK(record.grant_count >= 0 && record.grant_count <= ABB_RECORD_GRANTS_MAX);
    check_strings(&record, (const char *)bytes, size);
    for (int i = 0; i < record.grant_count; ++i) {
        FUZZ_CHECK(record.grants[i].asked != NULL);
        FUZZ_CHECK(abb_record_find_grant(&record, record.grants[i].asked) != NULL);
        FUZZ_CHECK(record.grants[i].role <= ABB_ROLE_ADMIN);
        FUZZ_CHECK(abb_record_age(record.grants[i].checked_at, &ages, FUZZ_NOW) == ABB_RECORD_OLD ||
                   abb_record_is_fresh(&record.grants[i], FUZZ_NOW - ages.hard, FUZZ_NOW));
    }
    check_again(&record, p);
}

static void read_account(fuzz_input_t *input, abb_account_t *account)
{
    memset(account, 0, sizeof(*account));
    account->uuid = fuzz_line(input);
    account->account_id = fuzz_line_or_null(input);
    account->username = fuzz_line_or_null(input);
    account->nickname = fuzz_line_or_null(input);
    account->display_name = fuzz_line_or_null(input);
    account->email = fuzz_line_or_null(input);
    account->avatar_url = fuzz_line_or_null(input);
    account->profile_url = fuzz_line_or_null(input);
    account->emails = fuzz_line_or_null(input);
    account->app_kind = fuzz_line_or_null(input);
}

/* A record of lines: times, account, then three for each grant. */
void fuzz_record_fields(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    abb_record_t record;

    memset(&record, 0, sizeof(record));
    record.created_at = (apr_time_t)fuzz_number(&input, 8);
    record.account_checked_at = (apr_time_t)fuzz_number(&input, 8);
    read_account(&input, &record.account);
    while (input.at < input.end) {
        abb_grant_t grant;

        grant.role = (abb_role_t)(fuzz_number(&input, 1) % (ABB_ROLE_ADMIN + 1));
        grant.checked_at = (apr_time_t)fuzz_number(&input, 8);
        grant.asked = fuzz_line(&input);
        grant.slug = fuzz_line_or_null(&input);
        grant.uuid = fuzz_line_or_null(&input);
        FUZZ_CHECK(abb_record_put_grant(&record, &grant, p) == APR_SUCCESS);
        FUZZ_CHECK(abb_record_find_grant(&record, grant.asked)->role == grant.role);
    }
    check_again(&record, p);
}

/* ---- the private part ----------------------------------------------------- */

static void make_open(abb_record_bytes_t *open, abb_record_t *record, apr_pool_t *p)
{
    memset(record, 0, sizeof(*record));
    record->account.uuid = FUZZ_USER;
    record->account.display_name = "Ada";
    FUZZ_CHECK(abb_record_encode(record, open, p) == APR_SUCCESS);
    FUZZ_CHECK(abb_record_decode(open->bytes, open->size, record, p) == APR_SUCCESS);
}

static apr_status_t open_part(const abb_record_bytes_t *sealed, const abb_record_bytes_t *open,
                              abb_record_private_t *part, apr_pool_t *p)
{
    return abb_record_open(sealed, open, &fuzz_ring, cookie, sizeof(cookie), FUZZ_AUDIENCE, part, p,
                           NULL);
}

static void seal_part(const abb_record_private_t *part, const abb_record_bytes_t *open,
                      abb_record_bytes_t *sealed, apr_pool_t *p)
{
    FUZZ_CHECK(abb_record_seal(part, open, &fuzz_ring, cookie, sizeof(cookie), FUZZ_AUDIENCE,
                               sealed, p, NULL) == APR_SUCCESS);
}

/* Sealed as the room does it: the label is the strings of the open part. */
static void seal_bytes(const void *bytes, apr_size_t size, const abb_record_bytes_t *open,
                       const abb_record_t *record, abb_record_bytes_t *sealed, apr_pool_t *p)
{
    const abb_crypto_context_t context = {"session", FUZZ_AUDIENCE, cookie, sizeof(cookie)};
    const char *label = record->account.uuid;
    apr_size_t label_size = open->size - (apr_size_t)(label - (const char *)open->bytes);
    unsigned char *text;

    FUZZ_CHECK(abb_crypto_seal(&fuzz_ring, &context, label, label_size, bytes, size, &text,
                               &sealed->size, p, NULL) == APR_SUCCESS);
    sealed->bytes = text;
}

static void check_part(const abb_record_private_t *part, const abb_record_bytes_t *open,
                       apr_pool_t *p)
{
    abb_record_private_t again;
    abb_record_bytes_t sealed;

    seal_part(part, open, &sealed, p);
    FUZZ_CHECK(open_part(&sealed, open, &again, p) == APR_SUCCESS);
    FUZZ_CHECK(fuzz_is_same(again.tokens.access_token, part->tokens.access_token) &&
               fuzz_is_same(again.tokens.refresh_token, part->tokens.refresh_token) &&
               fuzz_is_same(again.tokens.scope, part->tokens.scope) &&
               fuzz_is_same(again.raw_user, part->raw_user) &&
               again.tokens.expires_at == part->tokens.expires_at &&
               !again.tokens.is_basic == !part->tokens.is_basic &&
               !again.tokens.is_unproved == !part->tokens.is_unproved);
}

/*
 * Bytes behind a seal that opens: as a packed text, and as what is packed. The first
 * thing to see is that the seal here is the room's.
 */
void fuzz_record_sealed(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    unsigned char *packed = apr_palloc(p, size + ABB_PACK_OVERHEAD_MAX);
    apr_size_t packed_size = abb_pack_encode(bytes, 0, size, packed, p);
    abb_record_bytes_t open;
    abb_record_bytes_t sealed;
    abb_record_private_t part;
    abb_record_t record;

    make_open(&open, &record, p);
    seal_bytes("\x09\x08\x10\0\0\0\0\0\0\0\0", 11, &open, &record, &sealed, p);
    FUZZ_CHECK(open_part(&sealed, &open, &part, p) == APR_SUCCESS);
    seal_bytes(bytes, size, &open, &record, &sealed, p);
    if (open_part(&sealed, &open, &part, p) == APR_SUCCESS) {
        check_part(&part, &open, p);
    }
    seal_bytes(packed, packed_size, &open, &record, &sealed, p);
    if (open_part(&sealed, &open, &part, p) == APR_SUCCESS) {
        check_part(&part, &open, p);
    }
}

/* Genuine parts that somebody has changed: sealed bytes never open, strings never differ. */
void fuzz_record_forged(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    int which = (int)(fuzz_number(&input, 1) & 1);
    abb_record_private_t part = {{.access_token = "token", .refresh_token = "other"}, "{}"};
    abb_record_bytes_t open;
    abb_record_bytes_t sealed;
    abb_record_bytes_t *forged = which ? &open : &sealed;
    abb_record_private_t opened;
    abb_record_t record;
    abb_record_t reread;
    apr_status_t status;
    int is_changed;

    make_open(&open, &record, p);
    seal_part(&part, &open, &sealed, p);
    forged->bytes = fuzz_forge(forged->bytes, forged->size, &input, &forged->size, &is_changed);
    status = open_part(&sealed, &open, &opened, p);
    if (!is_changed) {
        FUZZ_CHECK(status == APR_SUCCESS);
    }
    if (is_changed && !which) {
        FUZZ_CHECK(status == ABB_ESEAL);
    }
    if (status == APR_SUCCESS) {
        FUZZ_CHECK(strcmp(opened.tokens.access_token, "token") == 0);
    }
    if (which && abb_record_decode(open.bytes, open.size, &reread, p) == APR_SUCCESS) {
        check_strings(&reread, open.bytes, open.size);
    }
}

/* ---- packed texts --------------------------------------------------------- */

static void check_packing(const unsigned char *bytes, apr_size_t size, apr_size_t known,
                          apr_pool_t *p)
{
    unsigned char *packed = apr_palloc(p, size + ABB_PACK_OVERHEAD_MAX);
    apr_size_t packed_size = abb_pack_encode(bytes, known, size, packed, p);
    unsigned char *window = fuzz_copy(bytes, size, p);
    apr_size_t text_size;

    FUZZ_CHECK(packed_size <= size - known + ABB_PACK_OVERHEAD_MAX);
    packed = fuzz_copy(packed, packed_size, p);
    FUZZ_CHECK(abb_pack_read_size(packed, packed_size, &text_size) == APR_SUCCESS);
    FUZZ_CHECK(text_size == size - known);
    memset(window + known, 0, size - known);
    FUZZ_CHECK(abb_pack_decode(packed, packed_size, window, known, size) == APR_SUCCESS);
    FUZZ_CHECK(memcmp(window, bytes, size) == 0);
}

/* The first two bytes say how much is known before; the rest is a packed text, or one to pack. */
void fuzz_pack(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    apr_size_t known = (apr_size_t)fuzz_number(&input, 2) % 2048;
    apr_size_t rest_size;
    const unsigned char *rest = (const unsigned char *)fuzz_rest(&input, &rest_size);
    unsigned char *window;
    apr_size_t text_size;

    rest = fuzz_copy(rest, rest_size, p);
    check_packing(rest, rest_size, known < rest_size ? known : rest_size, p);
    if (abb_pack_read_size(rest, rest_size, &text_size) == APR_SUCCESS && text_size < 65536) {
        FUZZ_CHECK(text_size <= ABB_PACK_TEXT_MAX);
        window = fuzz_copy(memset(apr_palloc(p, known + text_size + 1), 'k', known + text_size + 1),
                           known + text_size, p);
        if (abb_pack_decode(rest, rest_size, window, known, known + text_size) == APR_SUCCESS) {
            check_packing(window, known + text_size, known, p);
        }
    }
}
