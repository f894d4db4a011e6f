/*
 * record (floor 2): a session as bytes.
 *
 * The open part:
 *
 *   0       4       8
 *   +-------+-------+---------------------+-----------+---------------------+
 *   | magic | size  | numbers             | times     | strings with NULs   |
 *   +-------+-------+---------------------+-----------+---------------------+
 *
 * Numbers have two bytes each when the block is smaller than 64 KiB, else four;
 * the magic says which. They are: how many grants, how many times; the places of
 * two times and ten strings; then for each grant the places of a time and three
 * strings, and the role. The place of a time is its number in the list, that of
 * a string its offset from the block's start, 0 for NULL. What is equal stands
 * there once: most grants are asked for by their slug, many checked at one time.
 *
 * The private part, before it is packed and sealed:
 *
 *   0         1             9
 *   +---------+-------------+-----------------------------------------------+
 *   | form    | expires at  | access token, refresh token, scope, user      |
 *   +---------+-------------+-----------------------------------------------+
 *
 * The lower half of the form says which of the strings are there, two bits of the
 * upper one whether it is proved whose the tokens are, and their scheme. It is packed
 * against a text that is the same for all and the first strings of the open part,
 * since Bitbucket's answer consists of them; so both parts are only ever written
 * together, and the strings are the label of the seal. What the sealed part's
 * size tells is how usual one's own answer is: nobody else's text is in it.
 */
#include "abb_record.h"

#include <apr_strings.h>
#include <stddef.h>
#include <string.h>

#include "abb_pack.h"

/* "AB" and a version; another byte order reads as another magic. */
#define MAGIC_NARROW 0x41420205u
#define MAGIC_WIDE 0x41420206u
#define HEAD_SIZE 8
#define NARROW_SIZE_MAX 0xffff

#define PRIVATE_FORM 0x10
#define PRIVATE_FORM_MASK 0x90
#define PRIVATE_UNPROVED 0x20
#define PRIVATE_BASIC 0x40
#define PRIVATE_HEAD_SIZE 9
#define PRIVATE_STRINGS 4

#define PURPOSE "session"

/* How much of the open part's strings helps to pack the private part: the account's, as a rule. */
#define KNOWN_STRINGS_MAX 4096

/* How far ahead of our clock a row may be dated. */
#define CLOCK_TOLERANCE apr_time_from_sec(120)

/* Which strings an account has, in the order of their numbers. */
static const apr_size_t account_strings[] = {
    offsetof(abb_account_t, uuid),         offsetof(abb_account_t, account_id),
    offsetof(abb_account_t, username),     offsetof(abb_account_t, nickname),
    offsetof(abb_account_t, display_name), offsetof(abb_account_t, email),
    offsetof(abb_account_t, avatar_url),   offsetof(abb_account_t, profile_url),
    offsetof(abb_account_t, emails),       offsetof(abb_account_t, app_kind),
};
#define ACCOUNT_STRINGS (sizeof(account_strings) / sizeof(account_strings[0]))

/* The numbers of a block, and those of one grant. */
enum {
    NUMBER_GRANTS,
    NUMBER_TIMES,
    NUMBER_CREATED,
    NUMBER_CHECKED,
    NUMBER_STRINGS,
    NUMBER_ROWS = NUMBER_STRINGS + ACCOUNT_STRINGS
};
enum { ROW_CHECKED, ROW_ASKED, ROW_SLUG, ROW_UUID, ROW_ROLE, ROW_NUMBERS };

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

/* ---- writing the open part ----------------------------------------------- */

/* Marks a number of a draft that is the distance of a string from the first one. */
#define IS_STRING 0x80000000u
/* How many earlier times are compared with a new one. */
#define KNOWN_TIMES_MAX 8
/* How many earlier strings: all of an account's, or of a grant's. */
#define KNOWN_MAX ACCOUNT_STRINGS
_Static_assert(ACCOUNT_STRINGS >= ROW_NUMBERS, "a grant's strings have room too");

/* A block in the making: all but where its strings begin. */
typedef struct {
    apr_uint32_t *numbers;
    apr_size_t number_count;
    apr_int64_t *times;
    apr_size_t time_count;
    const char **strings;
    apr_size_t string_count;
    apr_size_t strings_size;
    /* Strings that the next one may be equal to, and their numbers. */
    const char *known[KNOWN_MAX];
    apr_uint32_t known_numbers[KNOWN_MAX];
    int known_count;
} draft_t;

static void add_number(draft_t *draft, apr_uint32_t number)
{
    draft->numbers[draft->number_count++] = number;
}

static void add_time(draft_t *draft, apr_int64_t time)
{
    apr_size_t first =
        draft->time_count > KNOWN_TIMES_MAX ? draft->time_count - KNOWN_TIMES_MAX : 0;

    for (apr_size_t i = first; i < draft->time_count; ++i) {
        if (draft->times[i] == time) {
            add_number(draft, (apr_uint32_t)i);
            return;
        }
    }
    draft->times[draft->time_count] = time;
    add_number(draft, (apr_uint32_t)draft->time_count++);
}

static void add_string(draft_t *draft, const char *text)
{
    apr_uint32_t number = IS_STRING | (apr_uint32_t)draft->strings_size;

    if (!text) {
        add_number(draft, 0);
        return;
    }
    for (int i = 0; i < draft->known_count; ++i) {
        if (strcmp(draft->known[i], text) == 0) {
            add_number(draft, draft->known_numbers[i]);
            return;
        }
    }
    draft->known[draft->known_count] = text;
    draft->known_numbers[draft->known_count++] = number;
    draft->strings[draft->string_count++] = text;
    draft->strings_size += string_size(text);
    add_number(draft, number);
}

static void add_grant(draft_t *draft, const abb_grant_t *grant)
{
    draft->known_count = 0;
    add_time(draft, grant->checked_at);
    add_string(draft, grant->asked);
    add_string(draft, grant->slug);
    add_string(draft, grant->uuid);
    add_number(draft, grant->role);
}

static void make_draft(draft_t *draft, const abb_record_t *record, apr_pool_t *p)
{
    apr_size_t grants = (apr_size_t)record->grant_count;

    memset(draft, 0, sizeof(*draft));
    draft->numbers = apr_palloc(p, (NUMBER_ROWS + grants * ROW_NUMBERS) * sizeof(*draft->numbers));
    draft->times = apr_palloc(p, (2 + grants) * sizeof(*draft->times));
    draft->strings = apr_palloc(p, (ACCOUNT_STRINGS + 3 * grants) * sizeof(*draft->strings));
    add_number(draft, (apr_uint32_t)grants);
    add_number(draft, 0);
    add_time(draft, record->created_at);
    add_time(draft, record->account_checked_at);
    for (apr_size_t i = 0; i < ACCOUNT_STRINGS; ++i) {
        add_string(draft, account_string_const(&record->account, i));
    }
    /* More would be too large in any case, and the numbers could not tell. */
    for (apr_size_t i = 0; i < grants && draft->strings_size <= ABB_RECORD_OPEN_MAX; ++i) {
        add_grant(draft, &record->grants[i]);
    }
    draft->numbers[NUMBER_TIMES] = (apr_uint32_t)draft->time_count;
}

/* Where the strings begin in a block with numbers of this many bytes. */
static apr_size_t strings_at(apr_size_t numbers, apr_size_t width, apr_size_t times)
{
    return HEAD_SIZE + numbers * width + times * sizeof(apr_int64_t);
}

static void write_numbers(const draft_t *draft, char *at, apr_size_t width, apr_size_t strings)
{
    for (apr_size_t i = 0; i < draft->number_count; ++i, at += width) {
        apr_uint32_t number = draft->numbers[i];
        apr_uint32_t wide =
            number & IS_STRING ? (apr_uint32_t)strings + (number & ~IS_STRING) : number;
        apr_uint16_t narrow = (apr_uint16_t)wide;

        memcpy(at, width == sizeof(narrow) ? (void *)&narrow : (void *)&wide, width);
    }
}

static void write_block(const draft_t *draft, char *block, apr_size_t size, apr_size_t width)
{
    apr_uint32_t head[] = {width == sizeof(apr_uint16_t) ? MAGIC_NARROW : MAGIC_WIDE,
                           (apr_uint32_t)size};
    apr_size_t strings = strings_at(draft->number_count, width, draft->time_count);
    char *at = block + strings;

    memcpy(block, head, HEAD_SIZE);
    write_numbers(draft, block + HEAD_SIZE, width, strings);
    memcpy(block + strings - draft->time_count * sizeof(*draft->times), draft->times,
           draft->time_count * sizeof(*draft->times));
    for (apr_size_t i = 0; i < draft->string_count; ++i) {
        apr_size_t length = string_size(draft->strings[i]);

        memcpy(at, draft->strings[i], length);
        at += length;
    }
}

apr_status_t abb_record_encode(const abb_record_t *record, abb_record_bytes_t *open, apr_pool_t *p)
{
    apr_size_t width = sizeof(apr_uint16_t);
    apr_size_t size;
    char *block;
    draft_t draft;

    if (record->grant_count > ABB_RECORD_GRANTS_MAX) {
        return APR_ENOSPC;
    }
    make_draft(&draft, record, p);
    size = strings_at(draft.number_count, width, draft.time_count) + draft.strings_size;
    if (size > NARROW_SIZE_MAX) {
        width = sizeof(apr_uint32_t);
        size = strings_at(draft.number_count, width, draft.time_count) + draft.strings_size;
    }
    if (size > ABB_RECORD_OPEN_MAX) {
        return APR_ENOSPC;
    }
    block = apr_palloc(p, size);
    write_block(&draft, block, size, width);
    open->bytes = block;
    open->size = size;
    return APR_SUCCESS;
}

/* ---- reading the open part ----------------------------------------------- */

/* A block while it is read. */
typedef struct {
    const char *block;
    apr_size_t size;
    /* One of them is NULL. */
    const apr_uint16_t *narrow;
    const apr_uint32_t *wide;
    const char *times;
    apr_size_t time_count;
    apr_size_t grant_count;
    apr_size_t strings;
    /* Cleared when something does not lie within the block. */
    int is_good;
} reader_t;

static inline apr_uint32_t number_at(const reader_t *reader, apr_size_t i)
{
    return reader->narrow ? reader->narrow[i] : reader->wide[i];
}

static inline apr_time_t time_at(reader_t *reader, apr_size_t i)
{
    apr_uint32_t place = number_at(reader, i);
    apr_int64_t time = 0;

    if (place < reader->time_count) {
        memcpy(&time, reader->times + place * sizeof(time), sizeof(time));
    }
    else {
        reader->is_good = 0;
    }
    return time;
}

/* The last byte of a checked block is NUL, so a string that starts inside ends inside. */
static inline const char *string_at(reader_t *reader, apr_size_t i)
{
    apr_uint32_t offset = number_at(reader, i);

    if (offset >= reader->strings && offset < reader->size) {
        return reader->block + offset;
    }
    reader->is_good &= offset == 0;
    return NULL;
}

/* Begin to read: all but the numbers themselves is checked. Returns 0 for no block of ours. */
static int begin_reading(reader_t *reader, const void *block, apr_size_t size)
{
    const apr_uint32_t *head = block;
    apr_size_t width;
    apr_size_t numbers;

    if (size < HEAD_SIZE + NUMBER_ROWS * sizeof(apr_uint16_t) || head[1] != size ||
        size > ABB_RECORD_OPEN_MAX || ((const char *)block)[size - 1] != '\0') {
        return 0;
    }
    reader->block = block;
    reader->size = size;
    reader->is_good = 1;
    reader->narrow = head[0] == MAGIC_NARROW ? (const void *)(head + 2) : NULL;
    reader->wide = head[0] == MAGIC_WIDE ? head + 2 : NULL;
    width = reader->narrow ? sizeof(*reader->narrow) : sizeof(*reader->wide);
    if ((!reader->narrow && !reader->wide) || size < HEAD_SIZE + NUMBER_ROWS * width) {
        return 0;
    }
    reader->grant_count = number_at(reader, NUMBER_GRANTS);
    reader->time_count = number_at(reader, NUMBER_TIMES);
    if (reader->grant_count > ABB_RECORD_GRANTS_MAX ||
        reader->time_count > 2 + ABB_RECORD_GRANTS_MAX) {
        return 0;
    }
    numbers = NUMBER_ROWS + reader->grant_count * ROW_NUMBERS;
    reader->times = reader->block + strings_at(numbers, width, 0);
    reader->strings = strings_at(numbers, width, reader->time_count);
    return reader->strings < size;
}

static void read_grant(reader_t *reader, apr_size_t first, abb_grant_t *grant)
{
    apr_uint32_t role = number_at(reader, first + ROW_ROLE);

    grant->checked_at = time_at(reader, first + ROW_CHECKED);
    grant->asked = string_at(reader, first + ROW_ASKED);
    grant->slug = string_at(reader, first + ROW_SLUG);
    grant->uuid = string_at(reader, first + ROW_UUID);
    grant->role = (abb_role_t)role;
    reader->is_good &= role <= ABB_ROLE_ADMIN && grant->asked != NULL;
}

apr_status_t abb_record_decode(const void *open, apr_size_t size, abb_record_t *record,
                               apr_pool_t *p)
{
    reader_t reader;

    if (!begin_reading(&reader, open, size)) {
        return ABB_ESEAL;
    }
    record->created_at = time_at(&reader, NUMBER_CREATED);
    record->account_checked_at = time_at(&reader, NUMBER_CHECKED);
    for (apr_size_t i = 0; i < ACCOUNT_STRINGS; ++i) {
        *account_string(&record->account, i) = string_at(&reader, NUMBER_STRINGS + i);
    }
    record->grant_count = (int)reader.grant_count;
    record->grants = apr_palloc(p, (reader.grant_count + 1) * sizeof(*record->grants));
    for (apr_size_t i = 0; i < reader.grant_count && reader.is_good; ++i) {
        read_grant(&reader, NUMBER_ROWS + i * ROW_NUMBERS, &record->grants[i]);
    }
    return reader.is_good && record->account.uuid ? APR_SUCCESS : ABB_ESEAL;
}

/* ---- what the private part is packed against ----------------------------- */

/*
 * What every private part is likely to hold: scopes, and the answer of /2.0/user
 * in the order Bitbucket sends it in and in that of its manual. To change a byte
 * of it is to change the form of private parts.
 */
static const char usual_text[] =
    "snippet wiki issue webhook project pullrequest repository:write repository "
    "account:write account email team\0"
    "{\"type\":\"user\",\"uuid\":\"{}\",\"account_id\":\"557058:\",\"username\":\"\",\"nickname\":"
    "\""
    "\",\"display_name\":\"\",\"account_status\":\"active\",\"created_on\":\"20"
    "+00:00\",\"has_2fa_enabled\":true,\"is_staff\":false,\"location\":null,\"links\":{\"self\":"
    "{\"href\":\"https://bitbucket.org/!api/2.0/users/%7B%7D\"},\"avatar\":{\"href\":\"http://\"},"
    "\"html\":{\"href\":\"%7D/\"},\"repositories\":{\"href\":\"/2.0/repositories/%7B%7D\"},"
    "\"snippets\":{\"href\":\"/!api/2.0/snippets/%7B%7D\"},"
    "\"hooks\":{\"href\":\"/!api/2.0/workspaces/%7B%7D/hooks\"}}}"
    "{\"display_name\":\"\",\"links\":{\"self\":{\"href\":\"https://api.bitbucket.org/2.0/users/%7B"
    "%7D\"},\"avatar\":{\"href\":\"https://secure.gravatar.com/avatar/"
    "\"},\"repositories\":{\"href\":"
    "\"https://api.bitbucket.org/2.0/repositories/%7B%7D\"},\"snippets\":{\"href\":"
    "\"https://api.bitbucket.org/2.0/snippets/%7B%7D\"},\"html\":{\"href\":"
    "\"https://bitbucket.org/%7B%7D/\"},\"hooks\":{\"href\":"
    "\"https://api.bitbucket.org/2.0/workspaces/%7B%7D/hooks\"}},\"created_on\":\"20"
    "+00:00\",\"type\":\"user\",\"uuid\":\"{}\",\"has_2fa_enabled\":null,\"username\":\"\","
    "\"is_staff\":false,\"account_id\":\"712020:\",\"nickname\":\"\","
    "\"account_status\":\"active\",\"location\":null}";
#define USUAL_SIZE (sizeof(usual_text) - 1)

/* The strings of the open part that count as known, if it is one. */
static int find_known_strings(const abb_record_bytes_t *open, abb_record_bytes_t *strings)
{
    reader_t reader;

    if (!begin_reading(&reader, open->bytes, open->size)) {
        return 0;
    }
    strings->bytes = reader.block + reader.strings;
    strings->size = open->size - reader.strings < KNOWN_STRINGS_MAX ? open->size - reader.strings
                                                                    : KNOWN_STRINGS_MAX;
    return 1;
}

/* Secret memory for a private part behind what is known; *known is its distance from the start. */
static unsigned char *make_window(const abb_record_bytes_t *strings, apr_size_t size,
                                  apr_size_t *known, apr_pool_t *p)
{
    unsigned char *window = abb_crypto_alloc_secret(USUAL_SIZE + strings->size + size, p);

    memcpy(window, usual_text, USUAL_SIZE);
    memcpy(window + USUAL_SIZE, strings->bytes, strings->size);
    *known = USUAL_SIZE + strings->size;
    return window;
}

/* ---- the private part ---------------------------------------------------- */

static abb_crypto_context_t seal_context(const void *cookie, apr_size_t cookie_size,
                                         const char *audience)
{
    abb_crypto_context_t context = {PURPOSE, audience, cookie, cookie_size};

    return context;
}

static void list_strings(const abb_record_private_t *part, const char *strings[PRIVATE_STRINGS])
{
    strings[0] = part->tokens.access_token;
    strings[1] = part->tokens.refresh_token;
    strings[2] = part->tokens.scope;
    strings[3] = part->raw_user;
}

/* The size of a private part before it is packed, 0 when it is too large. */
static apr_size_t private_size(const abb_record_private_t *part)
{
    const char *strings[PRIVATE_STRINGS];
    apr_size_t size = PRIVATE_HEAD_SIZE;

    list_strings(part, strings);
    for (int i = 0; i < PRIVATE_STRINGS; ++i) {
        size += string_size(strings[i]);
    }
    return string_size(part->tokens.access_token) > ABB_RECORD_TOKEN_MAX + 1 ||
                   string_size(part->tokens.refresh_token) > ABB_RECORD_TOKEN_MAX + 1 ||
                   size > ABB_RECORD_PRIVATE_MAX
               ? 0
               : size;
}

static void write_private(const abb_record_private_t *part, unsigned char *out)
{
    apr_int64_t expires_at = part->tokens.expires_at;
    const char *strings[PRIVATE_STRINGS];
    unsigned char *at = out + PRIVATE_HEAD_SIZE;

    list_strings(part, strings);
    out[0] = (unsigned char)(PRIVATE_FORM | (part->tokens.is_unproved ? PRIVATE_UNPROVED : 0) |
                             (part->tokens.is_basic ? PRIVATE_BASIC : 0));
    memcpy(out + 1, &expires_at, sizeof(expires_at));
    for (int i = 0; i < PRIVATE_STRINGS; ++i) {
        if (strings[i]) {
            apr_size_t size = string_size(strings[i]);

            out[0] |= (unsigned char)(1 << i);
            memcpy(at, strings[i], size);
            at += size;
        }
    }
}

apr_status_t abb_record_seal(const abb_record_private_t *part, const abb_record_bytes_t *open,
                             const abb_crypto_keyring_t *ring, const void *cookie,
                             apr_size_t cookie_size, const char *audience,
                             abb_record_bytes_t *sealed, apr_pool_t *p, abb_error_t *err)
{
    abb_crypto_context_t context = seal_context(cookie, cookie_size, audience);
    apr_size_t size = private_size(part);
    abb_record_bytes_t strings;
    apr_size_t known;
    unsigned char *window;
    unsigned char *packed;
    unsigned char *bytes;
    apr_status_t status;

    if (size == 0) {
        return abb_error_set(
            err, APR_ENOSPC,
            "what Bitbucket told is too long to be kept (a token over %d bytes, or "
            "over %d in all)",
            ABB_RECORD_TOKEN_MAX, ABB_RECORD_PRIVATE_MAX);
    }
    if (!find_known_strings(open, &strings)) {
        return abb_error_set(err, ABB_ESEAL, "the open part of a session has another form");
    }
    window = make_window(&strings, size, &known, p);
    write_private(part, window + known);
    packed = abb_crypto_alloc_secret(size + ABB_PACK_OVERHEAD_MAX, p);
    size = abb_pack_encode(window, known, known + size, packed, p);
    status = abb_crypto_seal(ring, &context, strings.bytes, strings.size, packed, size, &bytes,
                             &sealed->size, p, err);
    sealed->bytes = bytes;
    return status;
}

/* Read what write_private wrote; anything else is refused. */
static int read_private(const char *text, apr_size_t size, abb_record_private_t *part)
{
    const char *strings[PRIVATE_STRINGS] = {NULL, NULL, NULL, NULL};
    const char *end = text + size;
    const char *at = text + PRIVATE_HEAD_SIZE;
    apr_int64_t expires_at;

    if (size < PRIVATE_HEAD_SIZE || (text[0] & PRIVATE_FORM_MASK) != PRIVATE_FORM) {
        return 0;
    }
    for (int i = 0; i < PRIVATE_STRINGS; ++i) {
        if (text[0] & 1 << i) {
            const char *nul = memchr(at, '\0', (apr_size_t)(end - at));

            if (!nul) {
                return 0;
            }
            strings[i] = at;
            at = nul + 1;
        }
    }
    memcpy(&expires_at, text + 1, sizeof(expires_at));
    part->tokens.access_token = strings[0];
    part->tokens.refresh_token = strings[1];
    part->tokens.scope = strings[2];
    part->tokens.expires_at = expires_at;
    part->tokens.is_unproved = (text[0] & PRIVATE_UNPROVED) != 0;
    part->tokens.is_basic = (text[0] & PRIVATE_BASIC) != 0;
    part->raw_user = strings[3];
    return at == end;
}

static int unpack_private(const unsigned char *packed, apr_size_t packed_size,
                          const abb_record_bytes_t *strings, abb_record_private_t *part,
                          apr_pool_t *p)
{
    unsigned char *window;
    apr_size_t known;
    apr_size_t size;

    if (abb_pack_read_size(packed, packed_size, &size) != APR_SUCCESS ||
        size > ABB_RECORD_PRIVATE_MAX) {
        return 0;
    }
    window = make_window(strings, size, &known, p);
    return abb_pack_decode(packed, packed_size, window, known, known + size) == APR_SUCCESS &&
           read_private((const char *)window + known, size, part);
}

apr_status_t abb_record_open(const abb_record_bytes_t *sealed, const abb_record_bytes_t *open,
                             const abb_crypto_keyring_t *ring, const void *cookie,
                             apr_size_t cookie_size, const char *audience,
                             abb_record_private_t *part, apr_pool_t *p, abb_error_t *err)
{
    abb_crypto_context_t context = seal_context(cookie, cookie_size, audience);
    abb_record_bytes_t strings;
    unsigned char *packed;
    apr_size_t size;
    apr_status_t status;

    if (!find_known_strings(open, &strings)) {
        return abb_error_set(err, ABB_ESEAL, "the open part of a session has another form");
    }
    status = abb_crypto_open(ring, &context, strings.bytes, strings.size, sealed->bytes,
                             sealed->size, &packed, &size, p, err);
    if (status == APR_SUCCESS && !unpack_private(packed, size, &strings, part, p)) {
        status = abb_error_set(err, ABB_ESEAL, "the sealed part of a session has another form");
    }
    return status;
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
    return grant && abb_record_is_since(grant->checked_at, oldest, now);
}

int abb_record_is_since(apr_time_t checked_at, apr_time_t oldest, apr_time_t now)
{
    return checked_at >= oldest && checked_at <= now + CLOCK_TOLERANCE;
}

abb_record_age_t abb_record_age(apr_time_t checked_at, const abb_record_ages_t *ages,
                                apr_time_t now)
{
    if (checked_at < now - ages->hard || checked_at > now + CLOCK_TOLERANCE) {
        return ABB_RECORD_OLD;
    }
    return checked_at < now - ages->soft ? ABB_RECORD_DUE : ABB_RECORD_FRESH;
}

/* How many grants are not old; to is NULL or gets them. */
static int take_current(const abb_record_t *record, const abb_record_ages_t *ages, apr_time_t now,
                        abb_grant_t *to)
{
    int count = 0;

    for (int i = 0; i < record->grant_count; ++i) {
        const abb_grant_t *grant = &record->grants[i];

        if (abb_record_age(grant->checked_at, ages, now) == ABB_RECORD_OLD) {
            continue;
        }
        if (to) {
            to[count] = *grant;
        }
        ++count;
    }
    return count;
}

const abb_record_t *abb_record_without_old(const abb_record_t *record,
                                           const abb_record_ages_t *ages, apr_time_t now,
                                           apr_pool_t *p)
{
    int count = take_current(record, ages, now, NULL);
    abb_record_t *current;

    if (count == record->grant_count) {
        return record;
    }
    current = apr_pmemdup(p, record, sizeof(*record));
    current->grants = apr_palloc(p, (apr_size_t)count * sizeof(*current->grants));
    current->grant_count = take_current(record, ages, now, current->grants);
    return current;
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
