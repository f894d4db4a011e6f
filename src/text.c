/* text (floor 1): encodings and grammars of bytes that come from outside. */
#include "abb_text.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <stdlib.h>
#include <string.h>

#define QUERY_PAIRS_MAX 32
#define REPLACEMENT_CHARACTER 0xfffd

/* ---- base64url ----------------------------------------------------------- */

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

char *abb_text_base64url_encode(const void *bytes, apr_size_t size, apr_pool_t *p)
{
    const unsigned char *in = bytes;
    const unsigned char *end = in + size;
    char *text = apr_palloc(p, (size + 2) / 3 * 4 + 1);
    char *out = text;

    for (; end - in >= 3; in += 3) {
        *out++ = base64url[in[0] >> 2];
        *out++ = base64url[(in[0] & 0x03) << 4 | in[1] >> 4];
        *out++ = base64url[(in[1] & 0x0f) << 2 | in[2] >> 6];
        *out++ = base64url[in[2] & 0x3f];
    }
    if (in < end) {
        *out++ = base64url[in[0] >> 2];
        *out++ = base64url[(in[0] & 0x03) << 4 | (in + 1 < end ? in[1] >> 4 : 0)];
    }
    if (in + 1 < end) {
        *out++ = base64url[(in[1] & 0x0f) << 2];
    }
    *out = '\0';
    return text;
}

/* What each character stands for; 0x80 for none. */
#define NONE 0x80
#define NONE_8 NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE
#define NONE_64 NONE_8, NONE_8, NONE_8, NONE_8, NONE_8, NONE_8, NONE_8, NONE_8
static const unsigned char base64url_values[256] = {
    NONE_8,  NONE_8,  NONE_8, NONE_8, NONE_8,                   /* to "'" */
    NONE,    NONE,    NONE,   NONE,   NONE,   62,   NONE, NONE, /* '-' */
    52,      53,      54,     55,     56,     57,   58,   59,
    60,      61,      NONE,   NONE,   NONE,   NONE, NONE, NONE, /* '0' */
    NONE,    0,       1,      2,      3,      4,    5,    6,
    7,       8,       9,      10,     11,     12,   13,   14, /* 'A' */
    15,      16,      17,     18,     19,     20,   21,   22,
    23,      24,      25,     NONE,   NONE,   NONE, NONE, 63, /* 'P', '_' */
    NONE,    26,      27,     28,     29,     30,   31,   32,
    33,      34,      35,     36,     37,     38,   39,   40, /* 'a' */
    41,      42,      43,     44,     45,     46,   47,   48,
    49,      50,      51,     NONE,   NONE,   NONE, NONE, NONE, /* 'p' */
    NONE_64, NONE_64,
};

static apr_status_t base64url_decode_into(const char *text, apr_size_t length, unsigned char *out)
{
    const unsigned char *in = (const unsigned char *)text;
    apr_uint32_t foreign = 0;
    apr_uint32_t bits = 0;

    for (; length >= 4; length -= 4, in += 4) {
        apr_uint32_t a = base64url_values[in[0]];
        apr_uint32_t b = base64url_values[in[1]];
        apr_uint32_t c = base64url_values[in[2]];
        apr_uint32_t d = base64url_values[in[3]];

        foreign |= a | b | c | d;
        *out++ = (unsigned char)(a << 2 | b >> 4);
        *out++ = (unsigned char)(b << 4 | c >> 2);
        *out++ = (unsigned char)(c << 6 | d);
    }
    for (apr_size_t i = 0; i < 3; ++i) {
        apr_uint32_t value = i < length ? base64url_values[in[i]] : 0;

        foreign |= value;
        bits = bits << 6 | (value & 0x3f);
    }
    for (; length > 1; --length) {
        *out++ = (unsigned char)(bits >> 10);
        bits = bits << 8 & 0x3ffff;
    }
    return foreign & NONE || bits ? APR_EINVAL : APR_SUCCESS;
}

/* How many bytes `length` characters stand for. A rest of one character stands for nothing. */
static apr_status_t base64url_decoded_size(apr_size_t length, apr_size_t *size)
{
    *size = length / 4 * 3 + (length % 4 ? length % 4 - 1 : 0);
    return length % 4 == 1 ? APR_EINVAL : APR_SUCCESS;
}

apr_status_t abb_text_base64url_decode_exact(const char *text, void *bytes, apr_size_t size)
{
    apr_size_t length = strnlen(text, (size + 2) / 3 * 4 + 1);
    apr_size_t decoded;

    if (base64url_decoded_size(length, &decoded) != APR_SUCCESS || decoded != size) {
        return APR_EINVAL;
    }
    return base64url_decode_into(text, length, bytes);
}

apr_status_t abb_text_base64url_decode(const char *text, unsigned char **bytes, apr_size_t *size,
                                       apr_pool_t *p)
{
    apr_size_t length = strlen(text);
    apr_status_t status = base64url_decoded_size(length, size);

    if (status != APR_SUCCESS) {
        return status;
    }
    *bytes = apr_palloc(p, *size + 1);
    return base64url_decode_into(text, length, *bytes);
}

char *abb_text_hex(const void *bytes, apr_size_t size, apr_pool_t *p)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *in = bytes;
    char *text = apr_palloc(p, 2 * size + 1);

    for (apr_size_t i = 0; i < size; ++i) {
        text[2 * i] = digits[in[i] >> 4];
        text[2 * i + 1] = digits[in[i] & 0xf];
    }
    text[2 * size] = '\0';
    return text;
}

/* ---- percent encoding and queries ---------------------------------------- */

char *abb_text_percent_encode(const char *text, apr_pool_t *p)
{
    static const char digits[] = "0123456789ABCDEF";
    char *encoded = apr_palloc(p, 3 * strlen(text) + 1);
    char *out = encoded;

    for (; *text; ++text) {
        unsigned char c = (unsigned char)*text;

        if (apr_isalnum(c) || strchr("-._~", c)) {
            *out++ = (char)c;
        }
        else {
            *out++ = '%';
            *out++ = digits[c >> 4];
            *out++ = digits[c & 0xf];
        }
    }
    *out = '\0';
    return encoded;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "%XX" at `text` stands for, or -1. Reads no further than a NUL. */
static int percent_value(const char *text)
{
    int high = text[0] == '%' ? hex_value(text[1]) : -1;
    int low = high >= 0 ? hex_value(text[2]) : -1;

    return low >= 0 ? high << 4 | low : -1;
}

apr_ssize_t abb_text_form_decode(char *text, apr_size_t size)
{
    apr_size_t out = 0;

    for (apr_size_t in = 0; in < size; ++in, ++out) {
        if (text[in] == '%') {
            int value = in + 2 < size ? percent_value(text + in) : -1;

            if (value < 0) {
                return -1;
            }
            text[out] = (char)value;
            in += 2;
        }
        else {
            text[out] = text[in] == '+' ? ' ' : text[in];
        }
    }
    text[out] = '\0';
    return (apr_ssize_t)out;
}

/* A name or value of a query; NULL for an encoding that is cut or decodes to NUL. */
static char *query_decode(const char *text, apr_size_t length, apr_pool_t *p)
{
    char *decoded = apr_pstrmemdup(p, text, length);
    apr_ssize_t size = abb_text_form_decode(decoded, length);

    return size >= 0 && strlen(decoded) == (apr_size_t)size ? decoded : NULL;
}

static apr_status_t query_add_pair(apr_table_t *values, const char *pair, apr_size_t length,
                                   apr_pool_t *p, abb_error_t *err)
{
    const char *equals = memchr(pair, '=', length);
    apr_size_t name_length = equals ? (apr_size_t)(equals - pair) : length;
    const char *name = query_decode(pair, name_length, p);
    const char *value = equals ? query_decode(equals + 1, length - name_length - 1, p) : "";

    if (!name || !value) {
        return abb_error_set(err, ABB_EINPUT, "the query holds a broken percent encoding");
    }
    if (apr_table_get(values, name)) {
        return abb_error_set(err, ABB_EINPUT, "the query names '%.40s' more than once", name);
    }
    if (apr_table_elts(values)->nelts >= QUERY_PAIRS_MAX) {
        return abb_error_set(err, ABB_EINPUT, "the query has more than %d parameters",
                             QUERY_PAIRS_MAX);
    }
    apr_table_setn(values, name, value);
    return APR_SUCCESS;
}

apr_status_t abb_text_query_parse(const char *query, apr_table_t **values, apr_pool_t *p,
                                  abb_error_t *err)
{
    *values = apr_table_make(p, 8);
    while (query && *query) {
        apr_size_t length = strcspn(query, "&");

        if (length > 0) {
            apr_status_t status = query_add_pair(*values, query, length, p, err);

            if (status != APR_SUCCESS) {
                return status;
            }
        }
        query += length;
        query += *query == '&';
    }
    return APR_SUCCESS;
}

/* ---- return addresses ---------------------------------------------------- */

static int is_address_character(char c)
{
    return c > 0x20 && c < 0x7f && !strchr("\\\"<>^`{|}#", c);
}

/* One character of a path, decoded once; *next is what follows. -1: broken or unfit. */
static int path_character(const char *at, const char **next)
{
    int value = *at == '%' ? percent_value(at) : (unsigned char)*at;

    *next = at + (*at == '%' ? 3 : 1);
    return value < 0x20 || value == 0x7f || value == '\\' ? -1 : value;
}

/* Whether the segment that starts here is "." or "..", also encoded. */
static int is_dot_segment(const char *segment)
{
    int dots = 0;

    while (*segment && *segment != '?') {
        int c = path_character(segment, &segment);

        if (c == '/') {
            break;
        }
        if (c != '.') {
            return 0;
        }
        ++dots;
    }
    return dots == 1 || dots == 2;
}

/* A slash counts the same raw and encoded: what stands behind may decode it. */
static int is_path(const char *path)
{
    const char *at = path;

    if (*path != '/') {
        return 0;
    }
    while (*at && *at != '?') {
        int is_first = at == path;
        int c = path_character(at, &at);
        const char *next;

        if (c < 0 || (c == '/' && is_dot_segment(at))) {
            return 0;
        }
        if (is_first && *at && *at != '?' && path_character(at, &next) == '/') {
            return 0;
        }
    }
    return 1;
}

const char *abb_text_origin_host(const char *origin, apr_size_t *length)
{
    const char *host = strstr(origin, "://") + 3;

    *length = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    return host;
}

const char *abb_text_public_url(const char *url, apr_pool_t *p)
{
    const char *scheme_end = url + strcspn(url, ":/?#@");
    const char *start = strncmp(scheme_end, "://", 3) == 0 ? scheme_end + 3 : url;
    const char *at = strrchr(start, '@');
    const char *rest = at ? at : start;

    return apr_pstrcat(p, apr_pstrmemdup(p, url, (apr_size_t)(start - url)),
                       at ? "(not shown)" : "", apr_pstrmemdup(p, rest, strcspn(rest, "?#")), NULL);
}

const char *abb_text_local_path(const char *text, const char *origin)
{
    apr_size_t length;

    if (!text) {
        return NULL;
    }
    if (origin && strncmp(text, origin, strlen(origin)) == 0) {
        text += strlen(origin);
        if (*text == '\0') {
            return "/";
        }
    }
    length = strnlen(text, ABB_TEXT_LOCAL_PATH_MAX + 1);
    if (length > ABB_TEXT_LOCAL_PATH_MAX) {
        return NULL;
    }
    for (const char *c = text; *c; ++c) {
        if (!is_address_character(*c)) {
            return NULL;
        }
    }
    return is_path(text) ? text : NULL;
}

/* ---- UTF-8 --------------------------------------------------------------- */

/*
 * Take one character from [at, end). Returns its length and sets *character, or
 * returns 0 when the bytes there are no well-formed UTF-8 (RFC 3629 section 4).
 */
static apr_size_t utf8_take(const unsigned char *at, const unsigned char *end,
                            apr_uint32_t *character)
{
    static const apr_uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    apr_size_t length = at[0] < 0x80 ? 1 : at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;

    if (length == 1) {
        *character = at[0];
        return 1;
    }
    if (at[0] < 0xc2 || at[0] > 0xf4 || (apr_size_t)(end - at) < length) {
        return 0;
    }
    *character = at[0] & (0x7fu >> length);
    for (apr_size_t i = 1; i < length; ++i) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        *character = *character << 6 | (at[i] & 0x3f);
    }
    if (*character < smallest[length] || *character > 0x10ffff ||
        (*character >= 0xd800 && *character <= 0xdfff)) {
        return 0;
    }
    return length;
}

int abb_text_is_utf8(const char *bytes, apr_size_t size)
{
    const unsigned char *at = (const unsigned char *)bytes;
    const unsigned char *end = at + size;

    while (at < end) {
        apr_uint32_t character;
        apr_size_t length = utf8_take(at, end, &character);

        if (length == 0 || character == 0) {
            return 0;
        }
        at += length;
    }
    return 1;
}

/* Take one character as utf8_take does; a bad byte counts as one U+FFFD. */
static apr_uint32_t utf8_next(const unsigned char **at, const unsigned char *end)
{
    apr_uint32_t character;
    apr_size_t length = utf8_take(*at, end, &character);

    *at += length ? length : 1;
    return length ? character : REPLACEMENT_CHARACTER;
}

/* Longest reference: "&#1114111;" with its NUL. */
#define HTML_CHARACTER_MAX 11

static apr_size_t html_put(char *out, apr_uint32_t c)
{
    if (c < 0x20 || (c >= 0x7f && c < 0xa0)) {
        *out = ' ';
        return 1;
    }
    if (c > 0x7f || strchr("&<>\"'", (int)c)) {
        return (apr_size_t)apr_snprintf(out, HTML_CHARACTER_MAX, "&#%u;", c);
    }
    *out = (char)c;
    return 1;
}

char *abb_text_html(const char *utf8, apr_pool_t *p)
{
    const unsigned char *at = (const unsigned char *)utf8;
    const unsigned char *end = at + strlen(utf8);
    char *html = apr_palloc(p, (apr_size_t)(end - at) * HTML_CHARACTER_MAX + 1);
    char *out = html;

    while (at < end) {
        out += html_put(out, utf8_next(&at, end));
    }
    *out = '\0';
    return html;
}

/* Longest escape: a surrogate pair with its NUL. */
#define JSON_CHARACTER_MAX 13

static apr_size_t json_put(char *out, apr_uint32_t c)
{
    if (c > 0xffff) {
        c -= 0x10000;
        return (apr_size_t)apr_snprintf(out, JSON_CHARACTER_MAX, "\\u%04x\\u%04x",
                                        0xd800 + (c >> 10), 0xdc00 + (c & 0x3ff));
    }
    if (c < 0x20 || c > 0x7e || strchr("\"\\<>&", (int)c)) {
        return (apr_size_t)apr_snprintf(out, JSON_CHARACTER_MAX, "\\u%04x", c);
    }
    *out = (char)c;
    return 1;
}

char *abb_text_json(const char *utf8, apr_pool_t *p)
{
    const unsigned char *at = (const unsigned char *)utf8;
    const unsigned char *end;
    char *json;
    char *out;

    if (!utf8) {
        return apr_pstrdup(p, "null");
    }
    end = at + strlen(utf8);
    json = out = apr_palloc(p, (apr_size_t)(end - at) * JSON_CHARACTER_MAX + 3);
    *out++ = '"';
    while (at < end) {
        out += json_put(out, utf8_next(&at, end));
    }
    *out++ = '"';
    *out = '\0';
    return json;
}

char *abb_text_lower(const char *text, apr_pool_t *p)
{
    char *copy = apr_pstrdup(p, text);

    for (char *c = copy; *c; ++c) {
        *c = apr_tolower(*c);
    }
    return copy;
}

char *abb_text_loggable(const char *text, apr_size_t max, apr_pool_t *p)
{
    char *loggable = apr_pstrmemdup(p, text, strnlen(text, max));

    for (char *c = loggable; *c; ++c) {
        if (*c < 0x20 || *c > 0x7e) {
            *c = '?';
        }
    }
    return loggable;
}

char *abb_text_quotable(const char *text, apr_size_t max, apr_pool_t *p)
{
    char *copy = abb_text_loggable(text ? text : "", max, p);

    for (char *quote = copy; (quote = strchr(quote, '"')) != NULL;) {
        *quote = '\'';
    }
    return copy;
}

/* ---- durations ----------------------------------------------------------- */

const char *abb_text_duration(apr_interval_time_t duration, apr_pool_t *p)
{
    static const struct {
        apr_int64_t seconds;
        char unit;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}};
    apr_int64_t seconds = apr_time_sec(duration);

    for (apr_size_t i = 0; seconds && i < sizeof(units) / sizeof(units[0]); ++i) {
        if (seconds % units[i].seconds == 0) {
            return apr_psprintf(p, "%" APR_INT64_T_FMT "%c", seconds / units[i].seconds,
                                units[i].unit);
        }
    }
    return apr_psprintf(p, "%" APR_INT64_T_FMT "s", seconds);
}

apr_status_t abb_text_duration_parse(const char *text, apr_interval_time_t *duration)
{
    static const apr_int64_t ten_years = 10 * 366 * 86400LL;
    apr_int64_t number;
    apr_int64_t seconds = 1;
    char *end;

    if (!apr_isdigit(*text)) {
        return APR_EINVAL;
    }
    number = apr_strtoi64(text, &end, 10);
    switch (*end) {
    case 'd':
        seconds = 86400;
        break;
    case 'h':
        seconds = 3600;
        break;
    case 'm':
        seconds = 60;
        break;
    case 's':
    case '\0':
        break;
    default:
        return APR_EINVAL;
    }
    if ((*end && end[1]) || number > ten_years / seconds) {
        return APR_EINVAL;
    }
    *duration = apr_time_from_sec(number * seconds);
    return APR_SUCCESS;
}
