/*
 * form (floor 2): the body of a posted form, read so that a page can send it again.
 *
 * A browser that is handed the fields in hidden inputs sends the same data once
 * more: same names and values, byte for byte, in the same order. What cannot come
 * out the same is not read half, but refused. Knows no request, no store, no HTML.
 * All functions are pure; threads: any.
 */
#ifndef ABB_FORM_H
#define ABB_FORM_H

#include <apr_pools.h>

/* What a form is sent as. */
typedef enum { ABB_FORM_URLENCODED, ABB_FORM_MULTIPART } abb_form_type_t;

/* Why a form can be sent again, or cannot. */
typedef enum {
    ABB_FORM_GOOD,
    /* Another type than the two of forms, or one with parameters that browsers do not send. */
    ABB_FORM_OTHER_TYPE,
    /* A file is in it. */
    ABB_FORM_FILE,
    /* No browser writes it like this: cut, nested, or with headers of its own. */
    ABB_FORM_BROKEN,
    /* A browser would send it another way: a NUL, half a line end, a field without a name. */
    ABB_FORM_NOT_REPEATABLE
} abb_form_verdict_t;

/* One field. UTF-8 without NUL; line ends are CR LF. */
typedef struct abb_form_field_t {
    const char *name;
    const char *value;
    /* A choice of a file in which none was chosen; the value is "". */
    int is_empty_file;
} abb_form_field_t;

typedef struct abb_form_t {
    abb_form_type_t type;
    /*
     * The encoding to send it in, "utf-8" or "windows-1252". The second has a
     * character for each byte, so it stands for bytes of any encoding.
     */
    const char *charset;
    const abb_form_field_t *fields;
    int count;
} abb_form_t;

/*
 * Whether a Content-Type is one of a form that can be read: the two types, with
 * a boundary where one belongs, urlencoded also with charset=utf-8; NULL for none.
 * Returns ABB_FORM_GOOD, ABB_FORM_OTHER_TYPE or ABB_FORM_BROKEN.
 */
abb_form_verdict_t abb_form_check_type(const char *content_type);

/*
 * Read a body. Unless ABB_FORM_GOOD is returned *form is undefined. Time and
 * memory are linear in the size. Lifetime: p.
 * Source: "URL", application/x-www-form-urlencoded, and "HTML", section 4.10.21
 * (form submission) of the WHATWG, 2026-11-20; RFC 7578.
 */
abb_form_verdict_t abb_form_parse(const char *content_type, const char *body, apr_size_t size,
                                  abb_form_t *form, apr_pool_t *p);

#endif
