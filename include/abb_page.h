/*
 * page (floor 2): the module's own HTML pages.
 *
 * Plain pages without scripts, readable on a phone, light and dark. Every text
 * is escaped here and nowhere else; the result is ASCII, so it reads the same
 * under any charset, but for a form to send again: its fields must come out as
 * they are, so such a page is UTF-8. Knows no httpd, no reason codes.
 */
#ifndef ABB_PAGE_H
#define ABB_PAGE_H

#include <apr_pools.h>

#define ABB_PAGE_LINKS_MAX 4
#define ABB_PAGE_FACTS_MAX 4

/* A link shown as a button; the first is the one recommended. */
typedef struct abb_page_link_t {
    const char *label;
    const char *href;
} abb_page_link_t;

/* A line "name: value". */
typedef struct abb_page_fact_t {
    const char *name;
    const char *value;
} abb_page_fact_t;

/* A field of a form to send again. UTF-8 without NUL; line ends are CR LF. */
typedef struct abb_page_field_t {
    const char *name;
    const char *value;
    /* A choice of a file in which none was chosen. */
    int is_empty_file;
} abb_page_field_t;

/* A form of the site's own, to be sent again as it is by one click. Borrowed. */
typedef struct abb_page_resend_t {
    const char *action;
    /* "multipart/form-data" or "application/x-www-form-urlencoded". */
    const char *type;
    /* The encoding that the browser sends it in. */
    const char *charset;
    const char *label;
    const abb_page_field_t *fields;
    int count;
} abb_page_resend_t;

/* What a page says. UTF-8, not escaped; borrowed. NULL: left out. */
typedef struct abb_page_t {
    /* Name of the site (AuthName), above the heading. */
    const char *site;
    const char *heading;
    const char *text;
    /* What the visitor can do about it. */
    const char *advice;
    abb_page_fact_t facts[ABB_PAGE_FACTS_MAX];
    int fact_count;
    /* Markup behind the facts, a table or forms: the caller has escaped what it holds. */
    const char *markup;
    abb_page_link_t links[ABB_PAGE_LINKS_MAX];
    int link_count;
    /* A form with one button, sent by POST, with hidden `token` and `return`. */
    const char *form_action;
    const char *form_label;
    const char *form_token;
    const char *form_return;
    /* The form is not what is recommended: it comes after the links. */
    int form_is_second;
    /* A form to send again; it is what is recommended. */
    const abb_page_resend_t *resend;
    /* Reference that the log has too. */
    const char *reference;
    /* Links open in a new tab (for a page shown in a frame). */
    int opens_new_tab;
} abb_page_t;

/* Add a link or a fact; beyond the maximum or with a NULL nothing happens. */
void abb_page_add_link(abb_page_t *page, const char *label, const char *href);
void abb_page_add_fact(abb_page_t *page, const char *name, const char *value);

/* The whole page as HTML. Lifetime: p. */
const char *abb_page_html(const abb_page_t *page, apr_pool_t *p);

/*
 * The Content-Security-Policy that a page works under: no script, the one style
 * sheet by its hash; shown in no frame, except one whose links open new tabs, which
 * is made for frames. Lifetime: p. Source: CSP Level 3 section 8.4.
 */
const char *abb_page_policy(const abb_page_t *page, apr_pool_t *p);

#endif
