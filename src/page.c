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

static const char *form_html(const abb_page_t *page, apr_pool_t *p)
{
    if (!page->form_action) {
        return "";
    }
    return apr_pstrcat(p, "<form method=\"post\" action=\"", abb_text_html(page->form_action, p),
                       "\">", hidden("token", page->form_token, p),
                       hidden("return", page->form_return, p), "<button class=\"main\">",
                       escaped(page->form_label, p), "</button></form>", NULL);
}

static const char *actions_html(const abb_page_t *page, apr_pool_t *p)
{
    const char *html = form_html(page, p);
    const char *target = page->opens_new_tab ? " target=\"_blank\" rel=\"noopener\"" : "";

    for (int i = 0; i < page->link_count; ++i) {
        const char *kind = i == 0 && !page->form_action ? " class=\"main\"" : "";

        html = apr_pstrcat(p, html, "<a", kind, target, " href=\"", escaped(page->links[i].href, p),
                           "\">", escaped(page->links[i].label, p), "</a>", NULL);
    }
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
        element("<p>", page->advice, "</p>\n", p), facts_html(page, p), actions_html(page, p),
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
