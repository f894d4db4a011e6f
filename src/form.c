/*
 * form (floor 2): the body of a posted form. See abb_form.h.
 *
 * What browsers do when they send a form, and so what can come out the same:
 *
 *   - line ends in names and values become CR LF, so a CR or LF alone would change;
 *   - fields without a name are left out;
 *   - in multipart, '"' in a name is written %22 and '%' as it is, so a name is
 *     taken as it stands and comes out as it stood.
 */
#include "abb_form.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <apr_tables.h>
#include <string.h>

#include "abb_text.h"

#define URLENCODED "application/x-www-form-urlencoded"
#define MULTIPART "multipart/form-data"
/* Source: RFC 2046 section 5.1.1. */
#define BOUNDARY_MAX 70
#define DELIMITER_MAX (4 + BOUNDARY_MAX)

/* What a Content-Type says. */
typedef struct {
    abb_form_type_t type;
    /* What stands before each part but the first: CR LF, two dashes, the boundary. */
    char delimiter[DELIMITER_MAX + 1];
    apr_size_t delimiter_length;
} form_type_t;

/* What is left to read. */
typedef struct {
    const char *at;
    const char *end;
} rest_t;

/* ---- the type ------------------------------------------------------------ */

static const char *skip_space(const char *text)
{
    return text + strspn(text, " \t");
}

/* The parameters behind a type's name, "" for none; NULL when the name is another. */
static const char *find_parameters(const char *content_type, const char *name)
{
    apr_size_t length = strlen(name);
    const char *rest;

    if (strncasecmp(content_type, name, length) != 0) {
        return NULL;
    }
    rest = skip_space(content_type + length);
    if (*rest == ';') {
        return skip_space(rest + 1);
    }
    return *rest == '\0' ? rest : NULL;
}

static int is_boundary_character(char c)
{
    return apr_isalnum(c) || (c != '\0' && strchr("'()+_,-./:=?", c) != NULL);
}

/* Read the one parameter of multipart. */
static abb_form_verdict_t read_boundary(const char *parameters, form_type_t *type)
{
    static const char name[] = "boundary=";
    const char *boundary = parameters + sizeof(name) - 1;
    apr_size_t length = 0;
    int is_quoted;

    if (strncasecmp(parameters, name, sizeof(name) - 1) != 0) {
        return ABB_FORM_BROKEN;
    }
    is_quoted = *boundary == '"';
    boundary += is_quoted;
    while (is_boundary_character(boundary[length])) {
        ++length;
    }
    if (length == 0 || length > BOUNDARY_MAX || (is_quoted && boundary[length] != '"') ||
        *skip_space(boundary + length + is_quoted) != '\0') {
        return ABB_FORM_BROKEN;
    }
    memcpy(type->delimiter, "\r\n--", 4);
    memcpy(type->delimiter + 4, boundary, length);
    type->delimiter_length = 4 + length;
    return ABB_FORM_GOOD;
}

static abb_form_verdict_t read_type(const char *content_type, form_type_t *type)
{
    const char *parameters = content_type ? find_parameters(content_type, URLENCODED) : NULL;

    if (parameters) {
        type->type = ABB_FORM_URLENCODED;
        return *parameters == '\0' || strcasecmp(parameters, "charset=utf-8") == 0
                   ? ABB_FORM_GOOD
                   : ABB_FORM_OTHER_TYPE;
    }
    parameters = content_type ? find_parameters(content_type, MULTIPART) : NULL;
    type->type = ABB_FORM_MULTIPART;
    return parameters ? read_boundary(parameters, type) : ABB_FORM_OTHER_TYPE;
}

abb_form_verdict_t abb_form_check_type(const char *content_type)
{
    form_type_t type;

    return read_type(content_type, &type);
}

/* ---- fields -------------------------------------------------------------- */

/* Whether a browser that is given a text sends the same one. */
static int is_repeatable(const char *text, apr_size_t size)
{
    for (apr_size_t i = 0; i < size; ++i) {
        if (text[i] == '\0' || (text[i] == '\n' && (i == 0 || text[i - 1] != '\r')) ||
            (text[i] == '\r' && (i + 1 == size || text[i + 1] != '\n'))) {
            return 0;
        }
    }
    return 1;
}

/* Add a field with texts that stay where they are, followed by a NUL each. */
static abb_form_verdict_t add_field(apr_array_header_t *fields, const char *name,
                                    apr_size_t name_size, const char *value, apr_size_t value_size)
{
    abb_form_field_t *field;

    if (name_size == 0 || !is_repeatable(name, name_size) || !is_repeatable(value, value_size)) {
        return ABB_FORM_NOT_REPEATABLE;
    }
    field = apr_array_push(fields);
    field->name = name;
    field->value = value;
    field->is_empty_file = 0;
    return ABB_FORM_GOOD;
}

/* ---- urlencoded ---------------------------------------------------------- */

/* One "name=value"; what stands behind it may be overwritten. */
static abb_form_verdict_t read_pair(char *pair, apr_size_t size, apr_array_header_t *fields)
{
    char *equals = memchr(pair, '=', size);
    apr_ssize_t name_size;
    apr_ssize_t value_size;

    if (!equals) {
        return ABB_FORM_NOT_REPEATABLE;
    }
    value_size = abb_text_form_decode(equals + 1, (apr_size_t)(pair + size - (equals + 1)));
    name_size = abb_text_form_decode(pair, (apr_size_t)(equals - pair));
    if (name_size < 0 || value_size < 0) {
        return ABB_FORM_BROKEN;
    }
    return add_field(fields, pair, (apr_size_t)name_size, equals + 1, (apr_size_t)value_size);
}

static abb_form_verdict_t read_urlencoded(const char *body, apr_size_t size,
                                          apr_array_header_t *fields, apr_pool_t *p)
{
    char *text = apr_pstrmemdup(p, body, size);
    char *end = text + size;
    abb_form_verdict_t verdict = ABB_FORM_GOOD;

    while (size > 0 && verdict == ABB_FORM_GOOD) {
        char *pair_end = memchr(text, '&', (apr_size_t)(end - text));
        int is_last = pair_end == NULL;

        pair_end = is_last ? end : pair_end;
        verdict = read_pair(text, (apr_size_t)(pair_end - text), fields);
        if (is_last) {
            break;
        }
        text = pair_end + 1;
    }
    return verdict;
}

/* ---- multipart ----------------------------------------------------------- */

/* Step over a text if it is next. */
static int take(rest_t *rest, const char *text)
{
    apr_size_t length = strlen(text);

    if ((apr_size_t)(rest->end - rest->at) < length || memcmp(rest->at, text, length) != 0) {
        return 0;
    }
    rest->at += length;
    return 1;
}

static int take_in_any_case(rest_t *rest, const char *text)
{
    apr_size_t length = strlen(text);

    if ((apr_size_t)(rest->end - rest->at) < length || strncasecmp(rest->at, text, length) != 0) {
        return 0;
    }
    rest->at += length;
    return 1;
}

/* Take everything up to a text, and the text. */
static int take_until(rest_t *rest, const char *text, apr_size_t length, rest_t *taken)
{
    const char *found = memmem(rest->at, (apr_size_t)(rest->end - rest->at), text, length);

    if (!found) {
        return 0;
    }
    taken->at = rest->at;
    taken->end = found;
    rest->at = found + length;
    return 1;
}

/* The headers of one part. */
typedef struct {
    rest_t name;
    int has_disposition;
    int has_file_name;
    /* It is "", as browsers say that no file was chosen. */
    int has_empty_file_name;
    int has_file_type;
    int has_other;
} part_t;

static int is_at_end(const rest_t *rest)
{
    return rest->at == rest->end;
}

/* What follows `Content-Disposition:`. Without an escape: a quote ends the name. */
static int read_disposition(rest_t *line, part_t *part)
{
    if (part->has_disposition || !take_in_any_case(line, " form-data; name=\"") ||
        !take_until(line, "\"", 1, &part->name)) {
        return 0;
    }
    part->has_disposition = 1;
    if (is_at_end(line)) {
        return 1;
    }
    part->has_file_name = take_in_any_case(line, "; filename");
    part->has_empty_file_name = take(line, "=\"\"") && is_at_end(line);
    return part->has_file_name;
}

static abb_form_verdict_t read_header(rest_t *line, part_t *part)
{
    if (line->at < line->end && (*line->at == ' ' || *line->at == '\t')) {
        return ABB_FORM_BROKEN;
    }
    if (take_in_any_case(line, "Content-Disposition:")) {
        return read_disposition(line, part) ? ABB_FORM_GOOD : ABB_FORM_BROKEN;
    }
    if (!part->has_file_type && take_in_any_case(line, "Content-Type: application/octet-stream") &&
        is_at_end(line)) {
        part->has_file_type = 1;
        return ABB_FORM_GOOD;
    }
    part->has_other = 1;
    return ABB_FORM_GOOD;
}

static abb_form_verdict_t read_headers(rest_t *rest, part_t *part)
{
    abb_form_verdict_t verdict = ABB_FORM_GOOD;

    while (verdict == ABB_FORM_GOOD && !take(rest, "\r\n")) {
        rest_t line;

        verdict = take_until(rest, "\r\n", 2, &line) ? read_header(&line, part) : ABB_FORM_BROKEN;
    }
    return verdict == ABB_FORM_GOOD && !part->has_disposition ? ABB_FORM_BROKEN : verdict;
}

static abb_form_verdict_t judge_part(const part_t *part, const rest_t *value)
{
    int is_empty_file = part->has_empty_file_name && part->has_file_type && is_at_end(value);

    if (part->has_file_name && !is_empty_file) {
        return ABB_FORM_FILE;
    }
    return part->has_other || (part->has_file_type && !is_empty_file) ? ABB_FORM_NOT_REPEATABLE
                                                                      : ABB_FORM_GOOD;
}

/* One part and the delimiter behind it. */
static abb_form_verdict_t read_part(rest_t *rest, const form_type_t *type,
                                    apr_array_header_t *fields, apr_pool_t *p)
{
    part_t part;
    rest_t value;
    abb_form_verdict_t verdict;
    apr_size_t name_size;
    apr_size_t value_size;

    memset(&part, 0, sizeof(part));
    if ((verdict = read_headers(rest, &part)) != ABB_FORM_GOOD) {
        return verdict;
    }
    if (!take_until(rest, type->delimiter, type->delimiter_length, &value)) {
        return ABB_FORM_BROKEN;
    }
    if ((verdict = judge_part(&part, &value)) != ABB_FORM_GOOD) {
        return verdict;
    }
    name_size = (apr_size_t)(part.name.end - part.name.at);
    value_size = (apr_size_t)(value.end - value.at);
    verdict = add_field(fields, apr_pstrmemdup(p, part.name.at, name_size), name_size,
                        apr_pstrmemdup(p, value.at, value_size), value_size);
    if (verdict == ABB_FORM_GOOD) {
        APR_ARRAY_IDX(fields, fields->nelts - 1, abb_form_field_t).is_empty_file =
            part.has_file_name;
    }
    return verdict;
}

static abb_form_verdict_t read_multipart(const char *body, apr_size_t size, const form_type_t *type,
                                         apr_array_header_t *fields, apr_pool_t *p)
{
    rest_t rest = {body, body + size};
    abb_form_verdict_t verdict = ABB_FORM_GOOD;
    /* The first delimiter lacks the CR LF in front. */
    char first[DELIMITER_MAX + 1];

    memcpy(first, type->delimiter + 2, type->delimiter_length - 2);
    first[type->delimiter_length - 2] = '\0';
    if (!take(&rest, first)) {
        return ABB_FORM_BROKEN;
    }
    while (verdict == ABB_FORM_GOOD && take(&rest, "\r\n")) {
        verdict = read_part(&rest, type, fields, p);
    }
    if (verdict != ABB_FORM_GOOD) {
        return verdict;
    }
    return take(&rest, "--") && (is_at_end(&rest) || (take(&rest, "\r\n") && is_at_end(&rest)))
               ? ABB_FORM_GOOD
               : ABB_FORM_BROKEN;
}

/* ---- encodings ----------------------------------------------------------- */

static int are_utf8(const apr_array_header_t *fields)
{
    for (int i = 0; i < fields->nelts; ++i) {
        const abb_form_field_t *field = &APR_ARRAY_IDX(fields, i, abb_form_field_t);

        if (!abb_text_is_utf8(field->name, strlen(field->name)) ||
            !abb_text_is_utf8(field->value, strlen(field->value))) {
            return 0;
        }
    }
    return 1;
}

/* What the bytes 0x80 to 0x9f are. Source: "Encoding", index windows-1252 (WHATWG). */
static const apr_uint16_t windows_1252[] = {
    0x20ac, 0x0081, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
    0x2039, 0x0152, 0x008d, 0x017d, 0x008f, 0x0090, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x009d, 0x017e, 0x0178,
};

static char *put_character(char *out, apr_uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    }
    else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    else {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* Each byte as the character that windows-1252 has for it, in UTF-8. */
static const char *from_windows_1252(const char *bytes, apr_pool_t *p)
{
    char *text = apr_palloc(p, 3 * strlen(bytes) + 1);
    char *out = text;

    for (const unsigned char *in = (const unsigned char *)bytes; *in; ++in) {
        out = put_character(out, *in >= 0x80 && *in < 0xa0 ? windows_1252[*in - 0x80] : *in);
    }
    *out = '\0';
    return text;
}

static void convert(const apr_array_header_t *fields, apr_pool_t *p)
{
    for (int i = 0; i < fields->nelts; ++i) {
        abb_form_field_t *field = &APR_ARRAY_IDX(fields, i, abb_form_field_t);

        field->name = from_windows_1252(field->name, p);
        field->value = from_windows_1252(field->value, p);
    }
}

/* ---- the whole ----------------------------------------------------------- */

abb_form_verdict_t abb_form_parse(const char *content_type, const char *body, apr_size_t size,
                                  abb_form_t *form, apr_pool_t *p)
{
    apr_array_header_t *fields = apr_array_make(p, 16, sizeof(abb_form_field_t));
    form_type_t type;
    abb_form_verdict_t verdict = read_type(content_type, &type);

    if (verdict == ABB_FORM_GOOD) {
        verdict = type.type == ABB_FORM_URLENCODED ? read_urlencoded(body, size, fields, p)
                                                   : read_multipart(body, size, &type, fields, p);
    }
    if (verdict != ABB_FORM_GOOD) {
        return verdict;
    }
    form->type = type.type;
    form->charset = "utf-8";
    if (!are_utf8(fields)) {
        form->charset = "windows-1252";
        convert(fields, p);
    }
    form->fields = (const abb_form_field_t *)fields->elts;
    form->count = fields->nelts;
    return ABB_FORM_GOOD;
}
