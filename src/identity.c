/* identity (floor 3): who it is, told to applications. See abb_identity.h. */
#include "abb_identity.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

/* ---- the table ----------------------------------------------------------- */

#define ACCOUNT_FIELD(member) offsetof(abb_account_t, member)
#define NO_FIELD ((apr_size_t)-1)
#define VARIABLE_PREFIX "BITBUCKET_"
#define WORD_OF(variable) ((variable) + sizeof(VARIABLE_PREFIX) - 1)

/* Places in the table that are no field of the account. */
enum { FIRST_NAME = 8, LAST_NAME, EMAIL_VERIFIED, WORKSPACES, STALE };

/* Where a value that is too long for a header is cut. */
typedef enum {
    /* Nowhere: part of a key would be another's key. */
    WHOLE,
    CHARACTERS,
    WORDS
} cut_t;

/* What applications are told. */
static const struct {
    const char *variable;
    /* Name for AuthBitbucketRemoteUser, NULL where it may not be REMOTE_USER. */
    const char *attribute;
    apr_size_t field;
    cut_t cut;
} table[ABB_IDENTITY_VALUES] = {
    {"BITBUCKET_UUID", "uuid", ACCOUNT_FIELD(uuid), WHOLE},
    {"BITBUCKET_ACCOUNT_ID", "account_id", ACCOUNT_FIELD(account_id), WHOLE},
    {"BITBUCKET_USERNAME", "username", ACCOUNT_FIELD(username), WHOLE},
    {"BITBUCKET_NICKNAME", "nickname", ACCOUNT_FIELD(nickname), WHOLE},
    {"BITBUCKET_DISPLAY_NAME", NULL, ACCOUNT_FIELD(display_name), CHARACTERS},
    {"BITBUCKET_EMAIL", "email", ACCOUNT_FIELD(email), WHOLE},
    {"BITBUCKET_AVATAR_URL", NULL, ACCOUNT_FIELD(avatar_url), WHOLE},
    {"BITBUCKET_PROFILE_URL", NULL, ACCOUNT_FIELD(profile_url), WHOLE},
    [FIRST_NAME] = {"BITBUCKET_FIRST_NAME", NULL, NO_FIELD, CHARACTERS},
    [LAST_NAME] = {"BITBUCKET_LAST_NAME", NULL, NO_FIELD, CHARACTERS},
    [EMAIL_VERIFIED] = {"BITBUCKET_EMAIL_VERIFIED", NULL, NO_FIELD, WHOLE},
    [WORKSPACES] = {"BITBUCKET_WORKSPACES", NULL, NO_FIELD, WORDS},
    [STALE] = {"BITBUCKET_STALE", NULL, NO_FIELD, WHOLE},
};

static const char *field_of(const abb_account_t *account, apr_size_t i)
{
    return *(const char *const *)(const void *)((const char *)account + table[i].field);
}

static const char *stale_text(apr_interval_time_t age, apr_pool_t *p)
{
    return apr_psprintf(p, "%" APR_TIME_T_FMT, apr_time_sec(age));
}

/* All values in the table's order, NULL where there is none. */
static void gather(const char **values, const abb_record_t *record, apr_interval_time_t stale,
                   apr_pool_t *p)
{
    const abb_account_t *account = &record->account;

    for (apr_size_t i = 0; i < FIRST_NAME; ++i) {
        values[i] = field_of(account, i);
    }
    abb_account_split_name(account->display_name, &values[FIRST_NAME], &values[LAST_NAME], p);
    values[EMAIL_VERIFIED] = account->email ? "1" : NULL;
    values[WORKSPACES] = abb_identity_workspaces(record, p);
    values[STALE] = stale ? stale_text(stale, p) : NULL;
}

const char *abb_identity_attribute(const abb_account_t *account, const char *name)
{
    for (apr_size_t i = 0; i < FIRST_NAME; ++i) {
        if (table[i].attribute && strcmp(table[i].attribute, name) == 0) {
            return field_of(account, i);
        }
    }
    return NULL;
}

int abb_identity_is_attribute(const char *name)
{
    for (apr_size_t i = 0; i < FIRST_NAME; ++i) {
        if (table[i].attribute && strcmp(table[i].attribute, name) == 0) {
            return 1;
        }
    }
    return 0;
}

/* ---- workspaces ---------------------------------------------------------- */

static const char digits[] = "0123456789ABCDEF";

static char *put_percent(char *out, unsigned char c)
{
    *out++ = '%';
    *out++ = digits[c >> 4];
    *out++ = digits[c & 15];
    return out;
}

/* What would make the list ambiguous within a slug. */
static int is_odd(unsigned char c)
{
    return c <= ' ' || c == ':' || c == '%' || c == 0x7f;
}

static apr_size_t encoded_length(const char *slug)
{
    apr_size_t length = 0;

    for (; *slug; ++slug) {
        length += is_odd((unsigned char)*slug) ? 3 : 1;
    }
    return length;
}

static char *put_slug(char *out, const char *slug)
{
    for (; *slug; ++slug) {
        if (is_odd((unsigned char)*slug)) {
            out = put_percent(out, (unsigned char)*slug);
        }
        else {
            *out++ = *slug;
        }
    }
    return out;
}

static int is_role_in_workspace(const abb_grant_t *grant)
{
    return grant->role > ABB_ROLE_NONE && grant->role <= ABB_ROLE_OWNER;
}

/* With the character behind it. */
static apr_size_t item_length(const abb_grant_t *grant)
{
    return encoded_length(grant->slug) + strlen(abb_account_role_word(grant->role)) + 2;
}

const char *abb_identity_workspaces(const abb_record_t *record, apr_pool_t *p)
{
    apr_size_t size = 0;
    int count = 0;
    char *list;
    char *out;

    for (; count < record->grant_count; ++count) {
        const abb_grant_t *grant = &record->grants[count];
        apr_size_t length = is_role_in_workspace(grant) ? item_length(grant) : 0;

        if (size + length > ABB_IDENTITY_WORKSPACES_MAX) {
            break;
        }
        size += length;
    }
    if (size == 0) {
        return NULL;
    }
    list = out = apr_palloc(p, size);
    for (int i = 0; i < count; ++i) {
        const abb_grant_t *grant = &record->grants[i];

        if (is_role_in_workspace(grant)) {
            const char *role = abb_account_role_word(grant->role);
            apr_size_t length = strlen(role);

            out = put_slug(out, grant->slug);
            *out++ = ':';
            memcpy(out, role, length);
            out[length] = ' ';
            out += length + 1;
        }
    }
    out[-1] = '\0';
    return list;
}

/* ---- variables ----------------------------------------------------------- */

/* How a variable gets into a table: apr_table_setn or, where none is in its way, _addn. */
typedef void put_t(apr_table_t *table, const char *name, const char *value);

/*
 * To replace is to compare with every variable there is, and ours all begin
 * alike; so it is done only where there is something to replace.
 */
static put_t *choose_put(const apr_table_t *variables)
{
    const apr_array_header_t *all = apr_table_elts(variables);

    for (int i = 0; i < all->nelts; ++i) {
        const char *name = APR_ARRAY_IDX(all, i, apr_table_entry_t).key;

        if (strncasecmp(name, VARIABLE_PREFIX, sizeof(VARIABLE_PREFIX) - 1) == 0) {
            return apr_table_setn;
        }
    }
    return apr_table_addn;
}

void abb_identity_set_variables(apr_table_t *variables, const abb_record_t *record, apr_pool_t *p)
{
    put_t *put = choose_put(variables);
    const char *values[ABB_IDENTITY_VALUES];

    gather(values, record, 0, p);
    for (apr_size_t i = 0; i < ABB_IDENTITY_VALUES; ++i) {
        if (values[i] && *values[i]) {
            put(variables, table[i].variable, values[i]);
        }
        else if (put == apr_table_setn) {
            apr_table_unset(variables, table[i].variable);
        }
    }
}

void abb_identity_set_stale(apr_table_t *variables, apr_interval_time_t age, apr_pool_t *p)
{
    apr_table_setn(variables, table[STALE].variable, stale_text(age, p));
}

/* ---- names of headers ---------------------------------------------------- */

/* As applications see names of headers: letters in one case, '_' for all that is odd. */
static char fold(char c)
{
    if (c >= 'a' && c <= 'z') {
        return (char)(c - 'a' + 'A');
    }
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '\0' ? c : '_';
}

static char *folded(const char *text, apr_pool_t *p)
{
    char *copy = apr_pstrdup(p, text);

    for (char *c = copy; *c; ++c) {
        *c = fold(*c);
    }
    return copy;
}

static int begins_with(const char *name, const char *start)
{
    while (*start && fold(*start) == fold(*name)) {
        ++start;
        ++name;
    }
    return *start == '\0';
}

/* Whether headers of HTTP itself, of WebDAV and of browsers would go with a prefix. */
static int is_taken(const char *prefix)
{
    static const char *const families[] = {"Accept-", "Access-Control-", "Content-", "If-", "Sec-"};
    static const char *const names[] = {"Access-Control-Request-Method",
                                        "Alt-Used",
                                        "Cache-Control",
                                        "CDN-Loop",
                                        "Client-Cert-Chain",
                                        "Device-Memory",
                                        "Early-Data",
                                        "HTTP2-Settings",
                                        "Idempotency-Key",
                                        "Keep-Alive",
                                        "Last-Event-ID",
                                        "Lock-Token",
                                        "Max-Forwards",
                                        "Proxy-Authorization",
                                        "Repr-Digest",
                                        "Save-Data",
                                        "Schedule-Reply",
                                        "Service-Worker-Navigation-Preload",
                                        "Signature-Input",
                                        "Transfer-Encoding",
                                        "Upgrade-Insecure-Requests",
                                        "User-Agent",
                                        "Viewport-Width",
                                        "Want-Content-Digest",
                                        "Want-Repr-Digest",
                                        "X-Forwarded-For",
                                        "X-HTTP-Method-Override",
                                        "X-Real-IP",
                                        "X-Requested-With"};
    int is_taken = 0;

    for (apr_size_t i = 0; i < sizeof(families) / sizeof(families[0]); ++i) {
        is_taken |= begins_with(prefix, families[i]);
    }
    for (apr_size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
        is_taken |= begins_with(names[i], prefix);
    }
    return is_taken;
}

const char *abb_identity_check_prefix(const char *prefix)
{
    apr_size_t length = strlen(prefix);
    int is_good = length > 1 && length <= ABB_IDENTITY_PREFIX_MAX && apr_isalpha(*prefix) &&
                  prefix[length - 1] == '-' && strcasecmp(prefix, "X-") != 0;

    for (const char *c = prefix; *c; ++c) {
        /* The dash needs no escape: it separates nothing in Connection. */
        is_good &= (unsigned char)*c < 0x80 && (apr_isalnum(*c) || *c == '-' || *c == '_');
    }
    if (!is_good) {
        return "is no prefix for names of headers: letters, digits, '-' and '_', at most 64, a "
               "letter first and '-' last, and more than X-, as in X-Bitbucket-";
    }
    return is_taken(prefix) ? "is how headers of HTTP itself begin, which would be taken out of "
                              "requests: choose another, as X-Bitbucket-"
                            : NULL;
}

/* X-Bitbucket-Display-Name of BITBUCKET_DISPLAY_NAME. */
static const char *header_name(const char *prefix, const char *variable, apr_pool_t *p)
{
    char *name = apr_pstrcat(p, prefix, WORD_OF(variable), NULL);
    char *c = name + strlen(prefix);

    for (int is_first = 1; *c; ++c) {
        if (*c == '_') {
            *c = '-';
            is_first = 1;
        }
        else {
            *c = is_first ? *c : (char)apr_tolower(*c);
            is_first = 0;
        }
    }
    return name;
}

void abb_identity_settle(abb_identity_settings_t *settings, const char *prefix,
                         abb_header_encoding_t encoding, apr_pool_t *p)
{
    settings->folded = folded(prefix, p);
    settings->prefix_length = strlen(prefix);
    settings->encoding = encoding;
    for (apr_size_t i = 0; i < ABB_IDENTITY_VALUES; ++i) {
        settings->headers[i] = header_name(prefix, table[i].variable, p);
    }
    settings->token_header = header_name(prefix, ABB_IDENTITY_TOKEN_VARIABLE, p);
    settings->token_header_variable =
        apr_pstrcat(p, "HTTP_", folded(settings->token_header, p), NULL);
}

/* ---- what clients send --------------------------------------------------- */

static int begins_as_ours(const abb_identity_settings_t *settings, const char *name)
{
    apr_size_t i = 0;

    while (i < settings->prefix_length && fold(name[i]) == settings->folded[i]) {
        ++i;
    }
    return i == settings->prefix_length;
}

/* Between names in Connection; no prefix has one of these. */
static int is_between(char c)
{
    return (unsigned char)c <= ',' || c == ';';
}

/* Step to the next name from *at on. Returns 0 at the end; *end is behind the name. */
static int next_name(const char **at, const char **end)
{
    while (**at && is_between(**at)) {
        ++*at;
    }
    for (*end = *at; !is_between(**end);) {
        ++*end;
    }
    return **at != '\0';
}

static int is_connection(const char *name)
{
    return (*name == 'C' || *name == 'c') && strcasecmp(name, "Connection") == 0;
}

static int names_ours(const abb_identity_settings_t *settings, const char *value)
{
    const char *end;

    for (const char *at = value; next_name(&at, &end); at = end) {
        if (begins_as_ours(settings, at)) {
            return 1;
        }
    }
    return 0;
}

static const char *without_ours(const abb_identity_settings_t *settings, const char *value,
                                apr_pool_t *p)
{
    char *kept = apr_palloc(p, 2 * strlen(value) + 3);
    char *out = kept;
    const char *end;

    for (const char *at = value; next_name(&at, &end); at = end) {
        if (!begins_as_ours(settings, at)) {
            apr_size_t length = (apr_size_t)(end - at);

            memcpy(out, at, length);
            memcpy(out + length, ", ", 2);
            out += length + 2;
        }
    }
    if (out == kept) {
        return NULL;
    }
    out[-2] = '\0';
    return kept;
}

static int is_unwanted(const abb_identity_settings_t *settings, const apr_table_entry_t *header)
{
    return begins_as_ours(settings, header->key) ||
           (is_connection(header->key) && names_ours(settings, header->val));
}

/* One pass, however many there are: to unset them one by one is to look through all each time. */
static apr_table_t *wanted(const abb_identity_settings_t *settings, const apr_table_t *headers,
                           apr_pool_t *p)
{
    const apr_array_header_t *all = apr_table_elts(headers);
    apr_table_t *kept = apr_table_make(p, all->nelts + ABB_IDENTITY_VALUES);

    for (int i = 0; i < all->nelts; ++i) {
        const apr_table_entry_t *header = &APR_ARRAY_IDX(all, i, apr_table_entry_t);
        const char *value = header->val;

        if (begins_as_ours(settings, header->key)) {
            continue;
        }
        if (is_connection(header->key) && !(value = without_ours(settings, value, p))) {
            continue;
        }
        apr_table_addn(kept, header->key, value);
    }
    return kept;
}

apr_table_t *abb_identity_scrub(const abb_identity_settings_t *settings, apr_table_t *headers,
                                apr_pool_t *p)
{
    const apr_array_header_t *all = apr_table_elts(headers);
    const apr_table_entry_t *entries = (const void *)all->elts;

    for (int i = 0; i < all->nelts; ++i) {
        if (is_unwanted(settings, &entries[i])) {
            return wanted(settings, headers, p);
        }
    }
    return headers;
}

/* ---- headers ------------------------------------------------------------- */

/* Bytes of the character that begins here. One that is cut takes no other with it, no control. */
static apr_size_t character_length(const char *at)
{
    unsigned char first = (unsigned char)*at;
    apr_size_t most = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    apr_size_t length = 1;

    while (length < most && ((unsigned char)at[length] & 0xc0) == 0x80) {
        ++length;
    }
    return length;
}

/* C0, DEL and C1. */
static int is_control(const char *at, apr_size_t length)
{
    unsigned char first = (unsigned char)*at;

    return first < 0x20 || first == 0x7f ||
           (length == 2 && first == 0xc2 && (unsigned char)at[1] < 0xa0);
}

static char *put_encoded(char *out, const char *at, apr_size_t length, int is_at_end)
{
    unsigned char first = (unsigned char)*at;

    if (length == 1 && first >= 0x20 && first < 0x7f && first != '%' && !is_at_end) {
        *out++ = *at;
        return out;
    }
    for (apr_size_t i = 0; i < length; ++i) {
        out = put_percent(out, (unsigned char)at[i]);
    }
    return out;
}

static char *put_plain(char *out, const char *at, apr_size_t length)
{
    if (is_control(at, length)) {
        return out;
    }
    memcpy(out, at, length);
    return out + length;
}

/* Most values are sent as they are. */
static int is_plain(const char *value)
{
    const char *c = value;

    while (*c >= 0x20 && *c < 0x7f && *c != '%') {
        ++c;
    }
    return *c == '\0' && *value != ' ' && c > value && c[-1] != ' ' &&
           c - value <= ABB_IDENTITY_HEADER_MAX;
}

/* The part of a value that a header has room for, encoded into `header`. Returns its end. */
static char *put_value(char *header, const char *value, abb_header_encoding_t encoding, cut_t cut)
{
    const char *first = value + strspn(value, " ");
    const char *last = value + strlen(value);
    char *good = header;
    char *out = header;
    apr_size_t length;

    while (last > first && last[-1] == ' ') {
        --last;
    }
    for (const char *at = value; *at; at += length) {
        if (cut == CHARACTERS || (cut == WORDS && *at == ' ')) {
            good = out;
        }
        length = character_length(at);
        out = encoding == ABB_HEADERS_UTF8 ? put_plain(out, at, length)
                                           : put_encoded(out, at, length, at < first || at >= last);
        if (out - header > ABB_IDENTITY_HEADER_MAX) {
            return good;
        }
    }
    return out;
}

/* The value as a header has it, NULL when it comes to nothing or is too long. */
static const char *encode(const char *value, abb_header_encoding_t encoding, cut_t cut,
                          apr_pool_t *p)
{
    char *header;
    char *end;

    if (is_plain(value)) {
        return value;
    }
    header = apr_palloc(p, ABB_IDENTITY_HEADER_MAX + 3 * 4 + 1);
    end = put_value(header, value, encoding, cut);
    /* A reader drops spaces at the ends. */
    while (end > header && end[-1] == ' ') {
        --end;
    }
    *end = '\0';
    header += strspn(header, " ");
    return *header ? header : NULL;
}

void abb_identity_add_headers(apr_table_t *headers, const abb_identity_settings_t *settings,
                              const abb_record_t *record, apr_interval_time_t stale, apr_pool_t *p)
{
    const char *values[ABB_IDENTITY_VALUES];

    gather(values, record, stale, p);
    for (apr_size_t i = 0; i < ABB_IDENTITY_VALUES; ++i) {
        const char *value =
            values[i] ? encode(values[i], settings->encoding, table[i].cut, p) : NULL;

        if (value) {
            apr_table_addn(headers, settings->headers[i], value);
        }
    }
}
