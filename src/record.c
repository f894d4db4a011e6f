/*
 * record (floor 2): a session as bytes.
 *
 * Both parts before sealing have one form: a fixed head, then an array of grants
 * (open part only), then NUL-terminated strings. Offsets count from the start of
 * the block; 0 stands for NULL.
 *
 *   +------+--------------------------+---------+--------------------+
 *   | head | offsets of the strings   | grants  | strings with NULs  |
 *   +------+--------------------------+---------+--------------------+
 */
#include "abb_record.h"

#include <stddef.h>
#include <string.h>

/* "ABB" and a version; another byte order reads as another magic. */
#define OPEN_MAGIC 0x41424201u
#define PRIVATE_MAGIC 0x41425001u

#define PURPOSE "session"

/* How far ahead of our clock a row may be dated. */
#define CLOCK_TOLERANCE apr_time_from_sec(120)

/* Which strings an account has, in the order of open_head_t.strings. */
static const apr_size_t account_strings[] = {
    offsetof(abb_account_t, uuid),         offsetof(abb_account_t, account_id),
    offsetof(abb_account_t, username),     offsetof(abb_account_t, nickname),
    offsetof(abb_account_t, display_name), offsetof(abb_account_t, email),
    offsetof(abb_account_t, avatar_url),   offsetof(abb_account_t, profile_url),
};
#define ACCOUNT_STRINGS (sizeof(account_strings) / sizeof(account_strings[0]))

typedef struct {
    apr_uint32_t magic;
    apr_uint32_t size;
    apr_int64_t created_at;
    apr_int64_t account_checked_at;
    apr_uint32_t strings[ACCOUNT_STRINGS];
    apr_uint32_t grant_count;
    apr_uint32_t reserved;
} open_head_t;

typedef struct {
    apr_int64_t checked_at;
    apr_uint32_t asked;
    apr_uint32_t slug;
    apr_uint32_t uuid;
    apr_uint32_t role;
} open_grant_t;

typedef struct {
    apr_uint32_t magic;
    apr_uint32_t size;
    apr_int64_t expires_at;
    apr_uint32_t access_token;
    apr_uint32_t refresh_token;
    apr_uint32_t scope;
    apr_uint32_t raw_user;
} private_head_t;

static const char **account_string(abb_account_t *account, apr_size_t i)
{
    return (const char **)(void *)((char *)account + account_strings[i]);
}

static const char *account_string_const(const abb_account_t *account, apr_size_t i)
{
    return *(const char *const *)(const void *)((const char *)account + account_strings[i]);
}

static apr_size_t string_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

/* Put a string at *end of the block and move *end behind it. Returns its offset. */
static apr_uint32_t put_string(char *block, apr_size_t *end, const char *text)
{
    apr_size_t offset = *end;
    apr_size_t size = string_size(text);

    if (size == 0) {
        return 0;
    }
    memcpy(block + offset, text, size);
    *end += size;
    return (apr_uint32_t)offset;
}

/*
 * The string at an offset. The last byte of a checked block is NUL, so a string
 * that starts inside ends inside.
 */
static int get_string(const char *block, apr_size_t head, apr_size_t size, apr_uint32_t offset,
                      const char **text)
{
    *text = offset ? block + offset : NULL;
    return offset == 0 || (offset >= head && offset < size);
}

/* ---- open part ----------------------------------------------------------- */

static apr_size_t open_size(const abb_record_t *record)
{
    apr_size_t size = sizeof(open_head_t) + (apr_size_t)record->grant_count * sizeof(open_grant_t);

    for (apr_size_t i = 0; i < ACCOUNT_STRINGS; ++i) {
        size += string_size(account_string_const(&record->account, i));
    }
    for (int i = 0; i < record->grant_count; ++i) {
        const abb_grant_t *grant = &record->grants[i];

        size += string_size(grant->asked) + string_size(grant->slug) + string_size(grant->uuid);
    }
    return size + 1;
}

apr_status_t abb_record_encode(const abb_record_t *record, abb_record_bytes_t *open, apr_pool_t *p)
{
    apr_size_t size = open_size(record);
    apr_size_t end = sizeof(open_head_t) + (apr_size_t)record->grant_count * sizeof(open_grant_t);
    char *block;
    open_head_t *head;
    open_grant_t *rows;

    if (record->grant_count > ABB_RECORD_GRANTS_MAX || size > ABB_RECORD_OPEN_MAX) {
        return APR_ENOSPC;
    }
    block = apr_pcalloc(p, size);
    head = (open_head_t *)(void *)block;
    rows = (open_grant_t *)(head + 1);
    head->magic = OPEN_MAGIC;
    head->size = (apr_uint32_t)size;
    head->created_at = record->created_at;
    head->account_checked_at = record->account_checked_at;
    head->grant_count = (apr_uint32_t)record->grant_count;
    for (apr_size_t i = 0; i < ACCOUNT_STRINGS; ++i) {
        head->strings[i] = put_string(block, &end, account_string_const(&record->account, i));
    }
    for (int i = 0; i < record->grant_count; ++i) {
        const abb_grant_t *grant = &record->grants[i];

        rows[i].checked_at = grant->checked_at;
        rows[i].asked = put_string(block, &end, grant->asked);
        rows[i].slug = put_string(block, &end, grant->slug);
        rows[i].uuid = put_string(block, &end, grant->uuid);
        rows[i].role = grant->role;
    }
    open->bytes = block;
    open->size = size;
    return APR_SUCCESS;
}

static int decode_grant(const char *block, apr_size_t head, apr_size_t size,
                        const open_grant_t *row, abb_grant_t *grant)
{
    grant->checked_at = row->checked_at;
    grant->role = (abb_role_t)row->role;
    return row->role <= ABB_ROLE_OWNER && row->asked != 0 &&
           get_string(block, head, size, row->asked, &grant->asked) &&
           get_string(block, head, size, row->slug, &grant->slug) &&
           get_string(block, head, size, row->uuid, &grant->uuid);
}

static int is_open_block(const open_head_t *head, apr_size_t size)
{
    return size > sizeof(*head) && size <= ABB_RECORD_OPEN_MAX && head->magic == OPEN_MAGIC &&
           head->size == size && ((const char *)head)[size - 1] == '\0' &&
           head->grant_count <= ABB_RECORD_GRANTS_MAX &&
           head->grant_count <= (size - sizeof(*head)) / sizeof(open_grant_t);
}

apr_status_t abb_record_decode(const void *open, apr_size_t size, abb_record_t *record,
                               apr_pool_t *p)
{
    const open_head_t *head = open;
    const open_grant_t *rows = (const open_grant_t *)(head + 1);
    apr_size_t strings;

    if (!is_open_block(head, size)) {
        return ABB_ESEAL;
    }
    strings = sizeof(*head) + head->grant_count * sizeof(*rows);
    record->created_at = head->created_at;
    record->account_checked_at = head->account_checked_at;
    record->grant_count = (int)head->grant_count;
    record->grants = apr_palloc(p, (head->grant_count + 1) * sizeof(*record->grants));
    for (apr_size_t i = 0; i < ACCOUNT_STRINGS; ++i) {
        if (!get_string(open, strings, size, head->strings[i],
                        account_string(&record->account, i))) {
            return ABB_ESEAL;
        }
    }
    for (int i = 0; i < record->grant_count; ++i) {
        if (!decode_grant(open, strings, size, &rows[i], &record->grants[i])) {
            return ABB_ESEAL;
        }
    }
    return record->account.uuid ? APR_SUCCESS : ABB_ESEAL;
}

/* ---- private part -------------------------------------------------------- */

static abb_crypto_context_t seal_context(const void *cookie, apr_size_t cookie_size,
                                         const char *audience)
{
    abb_crypto_context_t context = {PURPOSE, audience, cookie, cookie_size};

    return context;
}

static apr_status_t private_size(const abb_record_private_t *part, apr_size_t *size)
{
    apr_size_t access = string_size(part->tokens.access_token);
    apr_size_t refresh = string_size(part->tokens.refresh_token);

    *size = sizeof(private_head_t) + access + refresh + string_size(part->tokens.scope) +
            string_size(part->raw_user) + 1;
    return access > ABB_RECORD_TOKEN_MAX + 1 || refresh > ABB_RECORD_TOKEN_MAX + 1 ||
                   *size > ABB_RECORD_PRIVATE_MAX
               ? APR_ENOSPC
               : APR_SUCCESS;
}

apr_status_t abb_record_seal(const abb_record_private_t *part, const abb_crypto_keyring_t *ring,
                             const void *cookie, apr_size_t cookie_size, const char *audience,
                             abb_record_bytes_t *sealed, apr_pool_t *p, abb_error_t *err)
{
    abb_crypto_context_t context = seal_context(cookie, cookie_size, audience);
    apr_size_t end = sizeof(private_head_t);
    apr_size_t size;
    private_head_t *head;
    unsigned char *bytes;
    char *block;
    apr_status_t status = private_size(part, &size);

    if (status != APR_SUCCESS) {
        return abb_error_set(
            err, status,
            "what Bitbucket told is too long to be kept (a token over %d bytes, or "
            "over %d in all)",
            ABB_RECORD_TOKEN_MAX, ABB_RECORD_PRIVATE_MAX);
    }
    block = apr_pcalloc(p, size);
    head = (private_head_t *)(void *)block;
    head->magic = PRIVATE_MAGIC;
    head->size = (apr_uint32_t)size;
    head->expires_at = part->tokens.expires_at;
    head->access_token = put_string(block, &end, part->tokens.access_token);
    head->refresh_token = put_string(block, &end, part->tokens.refresh_token);
    head->scope = put_string(block, &end, part->tokens.scope);
    head->raw_user = put_string(block, &end, part->raw_user);
    status = abb_crypto_seal(ring, &context, block, size, &bytes, &sealed->size, p, err);
    abb_crypto_wipe(block, size);
    sealed->bytes = bytes;
    return status;
}

apr_status_t abb_record_open(const abb_record_bytes_t *sealed, const abb_crypto_keyring_t *ring,
                             const void *cookie, apr_size_t cookie_size, const char *audience,
                             abb_record_private_t *part, apr_pool_t *p, abb_error_t *err)
{
    abb_crypto_context_t context = seal_context(cookie, cookie_size, audience);
    const private_head_t *head;
    const char *block;
    unsigned char *text;
    apr_size_t size;
    apr_status_t status =
        abb_crypto_open(ring, &context, sealed->bytes, sealed->size, &text, &size, p, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    block = (const char *)text;
    head = (const private_head_t *)(const void *)text;
    if (size <= sizeof(*head) || head->magic != PRIVATE_MAGIC || head->size != size ||
        block[size - 1] != '\0' ||
        !get_string(block, sizeof(*head), size, head->access_token, &part->tokens.access_token) ||
        !get_string(block, sizeof(*head), size, head->refresh_token, &part->tokens.refresh_token) ||
        !get_string(block, sizeof(*head), size, head->scope, &part->tokens.scope) ||
        !get_string(block, sizeof(*head), size, head->raw_user, &part->raw_user)) {
        return abb_error_set(err, ABB_ESEAL, "the sealed part of a session has another form");
    }
    part->tokens.expires_at = head->expires_at;
    return APR_SUCCESS;
}

/* ---- grants -------------------------------------------------------------- */

const abb_grant_t *abb_record_find_grant(const abb_record_t *record, const char *asked)
{
    for (int i = 0; i < record->grant_count; ++i) {
        if (strcmp(record->grants[i].asked, asked) == 0) {
            return &record->grants[i];
        }
    }
    return NULL;
}

int abb_record_is_fresh(const abb_grant_t *grant, apr_time_t oldest, apr_time_t now)
{
    return grant && grant->checked_at >= oldest && grant->checked_at <= now + CLOCK_TOLERANCE;
}

apr_status_t abb_record_put_grant(abb_record_t *record, const abb_grant_t *grant, apr_pool_t *p)
{
    const abb_grant_t *known = abb_record_find_grant(record, grant->asked);
    apr_size_t count = (apr_size_t)record->grant_count;
    apr_size_t place = known ? (apr_size_t)(known - record->grants) : count;
    abb_grant_t *grants = apr_palloc(p, (count + 1) * sizeof(*grants));

    if (place >= ABB_RECORD_GRANTS_MAX) {
        return APR_ENOSPC;
    }
    if (count > 0) {
        memcpy(grants, record->grants, count * sizeof(*grants));
    }
    grants[place] = *grant;
    record->grants = grants;
    record->grant_count += known ? 0 : 1;
    return APR_SUCCESS;
}
