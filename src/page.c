/* page (floor 2): the module's own HTML pages. See abb_page.h. */
#include "abb_page.h"

#include <apr_base64.h>
#include <apr_strings.h>
#include <string.h>

#include "abb_crypto.h"
#include "abb_text.h"

/* clang-format off */
static const char style[] =
    ":root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--paper:#f4f6f9;--card:#fff;"
    "--line:#d9dfe7;--accent:#1558bc;--on-accent:#fff}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa6b5;--paper:#12161c;"
    "--card:#1b212a;--line:#303946;--accent:#7db1ff;--on-accent:#0d1520}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;display:flex;align-items:center;justify-content:center;"
    "padding:1.25rem;background:var(--paper);color:var(--ink);"
    "font:1rem/1.55 system-ui,-apple-system,\"Segoe UI\",Roboto,Ubuntu,sans-serif}"
    "main{width:100%;max-width:32rem;background:var(--card);border:1px solid var(--line);"
    "border-radius:12px;padding:2rem 1.75rem}"
    ".site{margin:0 0 .5rem;color:var(--soft);font-size:.875rem}"
    "h1{margin:0 0 .75rem;font-size:1.5rem;line-height:1.25}"
    "p{margin:0 0 1rem;overflow-wrap:anywhere}"
    "dl{margin:0 0 1rem;display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem}"
    "dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}"
    ".do{display:flex;flex-wrap:wrap;gap:.625rem;margin:1.5rem 0 0}"
    ".do a,.do button{font:inherit;display:inline-block;padding:.55rem 1rem;border-radius:8px;"
    "border:1px solid var(--line);background:none;color:var(--accent);text-decoration:none;"
    "cursor:pointer}"
    ".do form{margin:0}"
    ".do .main{background:var(--accent);border-color:var(--accent);color:var(--on-accent)}"
    ".do a:focus-visible,.do button:focus-visible{outline:3px solid var(--accent);"
    "outline-offset:2px}"
    ".reference{margin:1.5rem 0 0;padding-top:1rem;border-top:1px solid var(--line);"
    "color:var(--soft);font-size:.875rem}"
    ".wide{overflow-x:auto}"
    "table{width:100%;border-collapse:collapse;font-size:.875rem;white-space:nowrap}"
    "th{font-weight:400;color:var(--soft)}"
    "th,td{padding:.375rem .75rem .375rem 0;border-top:1px solid var(--line);text-align:left}"
    "thead th{border:0}td form{margin:0}td:last-child{padding-right:0;text-align:right}"
    "td button{font:inherit;padding:.2rem .6rem;border-radius:6px;border:1px solid var(--line);"
    "background:none;color:var(--accent);cursor:pointer}"
    ".ask{display:flex;flex-wrap:wrap;gap:.5rem;margin:0 0 1.25rem}"
    ".ask label{flex-basis:100%;color:var(--soft);font-size:.875rem}"
    ".ask input{font:inherit;flex:1 1 14rem;min-width:0;padding:.5rem .6rem;border-radius:8px;"
    "border:1px solid var(--line);background:var(--paper);color:var(--ink)}"
    ".ask button,details button{font:inherit;padding:.5rem 1rem;border-radius:8px;"
    "border:1px solid var(--line);background:none;color:var(--accent);cursor:pointer}"
    "summary{cursor:pointer;color:var(--soft)}details p{margin:.5rem 0 .75rem}"
    "code{font:.9375em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}";
/* clang-format on */

/* Text escaped; nothing for NULL. */
static const char *escaped(const char *text, apr_pool_t *p)
{
    return text ? abb_text_html(text, p) : "";
}

void abb_page_add_link(abb_page_t *page, const char *label, const char *href)
{
    if (page->link_count < ABB_PAGE_LINKS_MAX && label && href) {
        page->links[page->link_count].label = label;
        page->links[page->link_count++].href = href;
    }
}

void abb_page_add_fact(abb_page_t *page, const char *name, const char *value)
{
    if (page->fact_count < ABB_PAGE_FACTS_MAX && name && value) {
        page->facts[page->fact_count].name = name;
        page->facts[page->fact_count++].value = value;
    }
}

static const char *element(const char *open, const char *text, const char *close, apr_pool_t *p)
{
    return text ? apr_pstrcat(p, open, abb_text_html(text, p), close, NULL) : "";
}

static const char *facts_html(const abb_page_t *page, apr_pool_t *p)
{
    const char *html = "";

    for (int i = 0; i < page->fact_count; ++i) {
        html = apr_pstrcat(p, html, element("<dt>", page->facts[i].name, "</dt>", p),
                           element("<dd>", page->facts[i].value, "</dd>", p), NULL);
    }
    return *html ? apr_pstrcat(p, "<dl>", html, "</dl>\n", NULL) : "";
}

static const char *hidden(const char *name, const char *value, apr_pool_t *p)
{
    return value ? apr_pstrcat(p, "<input type=\"hidden\" name=\"", name, "\" value=\"",
                               abb_text_html(value, p), "\">", NULL)
                 : "";
}

static const char *form_html(const abb_page_t *page, int is_main, apr_pool_t *p)
{
    return apr_pstrcat(p, "<form method=\"post\" action=\"", abb_text_html(page->form_action, p),
                       "\">", hidden("token", page->form_token, p),
                       hidden("return", page->form_return, p),
                       is_main ? "<button class=\"main\">" : "<button>",
                       escaped(page->form_label, p), "</button></form>", NULL);
}

/* ---- a form to send again ------------------------------------------------ */

/* Longest reference that put_exactly writes: "&#39;". */
#define REFERENCE_MAX 5

/*
 * Text for a quoted attribute that a browser reads back as it was. Line ends are
 * references, as a raw CR would become LF; other characters must be raw, as for
 * a reference to U+0080 to U+009F a browser takes another character.
 */
static char *put_exactly(char *out, const char *text)
{
    for (; *text; ++text) {
        if (strchr("&<>\"'\t\r\n", *text)) {
            out += apr_snprintf(out, REFERENCE_MAX + 1, "&#%d;", *text);
        }
        else {
            *out++ = *text;
        }
    }
    return out;
}

static char *put(char *out, const char *markup)
{
    apr_size_t length = strlen(markup);

    memcpy(out, markup, length);
    return out + length;
}

/* Browsers put a hidden input's own name of an encoding into a field with this name. */
static int is_name_of_charset(const char *name)
{
    return strcasecmp(name, "_charset_") == 0;
}

/* A text area is sent like a hidden input, but drops a line end at its beginning. */
#define FIELD_MARKUP_MAX 64
static char *put_field(char *out, const abb_page_field_t *field)
{
    int is_area = is_name_of_charset(field->name);

    out = put(out, is_area                ? "<textarea hidden name=\""
                   : field->is_empty_file ? "<input type=\"file\" hidden name=\""
                                          : "<input type=\"hidden\" name=\"");
    out = put_exactly(out, field->name);
    if (field->is_empty_file) {
        return put(out, "\">\n");
    }
    out = put(out, is_area ? "\">\n" : "\" value=\"");
    out = put_exactly(out, field->value);
    return put(out, is_area ? "</textarea>\n" : "\">\n");
}

/* All fields in one piece of memory, since there may be thousands. */
static const char *fields_html(const abb_page_resend_t *resend, apr_pool_t *p)
{
    apr_size_t size = 1;
    char *html;
    char *out;

    for (int i = 0; i < resend->count; ++i) {
        size += FIELD_MARKUP_MAX +
                REFERENCE_MAX * (strlen(resend->fields[i].name) + strlen(resend->fields[i].value));
    }
    html = out = apr_palloc(p, size);
    for (int i = 0; i < resend->count; ++i) {
        out = put_field(out, &resend->fields[i]);
    }
    *out = '\0';
    return html;
}

/* Without autocomplete="off" some browsers fill in what they saw at this address before. */
static const char *resend_html(const abb_page_resend_t *resend, apr_pool_t *p)
{
    return apr_pstrcat(p, "<form method=\"post\" autocomplete=\"off\" action=\"",
                       abb_text_html(resend->action, p), "\" enctype=\"", resend->type,
                       "\" accept-charset=\"", resend->charset, "\">\n", fields_html(resend, p),
                       "<button class=\"main\">", escaped(resend->label, p), "</button></form>",
                       NULL);
}

/* ---- the whole ----------------------------------------------------------- */

static const char *links_html(const abb_page_t *page, int is_first_main, apr_pool_t *p)
{
    const char *html = "";
    const char *target = page->opens_new_tab ? " target=\"_blank\" rel=\"noopener\"" : "";

    for (int i = 0; i < page->link_count; ++i) {
        const char *kind = i == 0 && is_first_main ? " class=\"main\"" : "";

        html = apr_pstrcat(p, html, "<a", kind, target, " href=\"", escaped(page->links[i].href, p),
                           "\">", escaped(page->links[i].label, p), "</a>", NULL);
    }
    return html;
}

static const char *actions_html(const abb_page_t *page, apr_pool_t *p)
{
    int is_form_first = page->form_action && !page->form_is_second;
    const char *html =
        apr_pstrcat(p, page->resend ? resend_html(page->resend, p) : "",
                    is_form_first ? form_html(page, !page->resend, p) : "",
                    links_html(page, !page->resend && !is_form_first, p),
                    page->form_action && page->form_is_second ? form_html(page, 0, p) : "", NULL);

    return *html ? apr_pstrcat(p, "<div class=\"do\">", html, "</div>\n", NULL) : "";
}

const char *abb_page_html(const abb_page_t *page, apr_pool_t *p)
{
    return apr_pstrcat(
        p,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=\"robots\" content=\"noindex\">\n<title>",
        escaped(page->heading, p), "</title>\n<style>", style,
        "</style>\n</head>\n<body>\n<main>\n",
        element("<p class=\"site\">", page->site, "</p>\n", p),
        element("<h1>", page->heading, "</h1>\n", p), element("<p>", page->text, "</p>\n", p),
        element("<p>", page->advice, "</p>\n", p), facts_html(page, p),
        page->markup ? page->markup : "", actions_html(page, p),
        element("<p class=\"reference\">Reference <code>", page->reference, "</code></p>\n", p),
        "</main>\n</body>\n</html>\n", NULL);
}

/* Who may show it in a frame: anybody a page that is made for frames, nobody any other. */
static const char *ancestors(const abb_page_t *page)
{
    return page->opens_new_tab ? "" : "; frame-ancestors 'none'";
}

const char *abb_page_policy(const abb_page_t *page, apr_pool_t *p)
{
    unsigned char hash[ABB_CRYPTO_KEY_SIZE];
    char encoded[ABB_CRYPTO_KEY_SIZE * 2];

    if (abb_crypto_hash(style, sizeof(style) - 1, "", 0, hash, NULL) != APR_SUCCESS) {
        return apr_pstrcat(p, "default-src 'none'", ancestors(page), NULL);
    }
    apr_base64_encode_binary(encoded, hash, sizeof(hash));
    return apr_pstrcat(p, "default-src 'none'; style-src 'sha256-", encoded,
                       "'; form-action 'self'; base-uri 'none'", ancestors(page), NULL);
}
