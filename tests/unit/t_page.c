/* t_page: nothing a page shows can become markup, and its policy fits it. */
#include "abb_page.h"

#include <apr_base64.h>

#include "abb_crypto.h"
#include "unit.h"

/* Breaks out of text, of attributes and of the style sheet, where it can. */
#define HOSTILE "\"'><script>alert(1)</script><b x=\"&amp;</style></title></h1>"
#define ESCAPED                                                                       \
    "&#34;&#39;&#62;&#60;script&#62;alert(1)&#60;/script&#62;&#60;b x=&#34;&#38;amp;" \
    "&#60;/style&#62;&#60;/title&#62;&#60;/h1&#62;"

static int begin(void **state)
{
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
}

static abb_page_t plain_page(void)
{
    abb_page_t page;

    memset(&page, 0, sizeof(page));
    page.heading = "Sign in";
    return page;
}

static int count_of(const char *text, const char *part)
{
    int count = 0;

    while ((text = strstr(text, part))) {
        ++count;
        text += strlen(part);
    }
    return count;
}

static void check_holds(const char *html, const char *part)
{
    if (!strstr(html, part)) {
        fail_msg("no '%s' in %s", part, html);
    }
}

static void check_lacks(const char *html, const char *part)
{
    if (strstr(html, part)) {
        fail_msg("'%s' in %s", part, html);
    }
}

/* Every '<' of the page; text can add none when this stays what it is without. */
static int markup_of(const char *html)
{
    return count_of(html, "<") * 10000 + count_of(html, ">") * 100 + count_of(html, "\"") % 100;
}

/* ---- escaping ------------------------------------------------------------ */

/* A page with one text in every field, the fields with a default shape. */
static abb_page_t full_page(const char *text)
{
    abb_page_t page = plain_page();

    page.site = text;
    page.heading = text;
    page.text = text;
    page.advice = text;
    for (int i = 0; i < ABB_PAGE_FACTS_MAX; ++i) {
        abb_page_add_fact(&page, text, text);
    }
    for (int i = 0; i < ABB_PAGE_LINKS_MAX; ++i) {
        abb_page_add_link(&page, text, text);
    }
    page.form_action = text;
    page.form_label = text;
    page.form_token = text;
    page.form_return = text;
    page.reference = text;
    return page;
}

static void no_field_becomes_markup(void **state)
{
    abb_page_t harmless = full_page("x");
    abb_page_t hostile = full_page(HOSTILE);
    const char *html = abb_page_html(&hostile, *state);

    assert_int_equal(markup_of(html), markup_of(abb_page_html(&harmless, *state)));
    check_lacks(html, "<script");
    check_lacks(html, "<b x");
    check_lacks(html, HOSTILE);
    /* Title and heading, site, text, advice, facts, links, form, reference. */
    assert_int_equal(count_of(html, ESCAPED),
                     2 + 3 + 2 * ABB_PAGE_FACTS_MAX + 2 * ABB_PAGE_LINKS_MAX + 4 + 1);
}

/* Each field alone, so that none hides behind another. */
static void check_field(size_t offset, apr_pool_t *p)
{
    abb_page_t page = full_page("x");

    memcpy((char *)&page + offset, &(const char *){HOSTILE}, sizeof(const char *));
    check_holds(abb_page_html(&page, p), ESCAPED);
    check_lacks(abb_page_html(&page, p), "<script");
}

static void each_field_is_escaped(void **state)
{
    static const size_t offsets[] = {
        offsetof(abb_page_t, site),           offsetof(abb_page_t, heading),
        offsetof(abb_page_t, text),           offsetof(abb_page_t, advice),
        offsetof(abb_page_t, facts[0].name),  offsetof(abb_page_t, facts[3].value),
        offsetof(abb_page_t, links[0].label), offsetof(abb_page_t, links[3].href),
        offsetof(abb_page_t, form_action),    offsetof(abb_page_t, form_label),
        offsetof(abb_page_t, form_token),     offsetof(abb_page_t, form_return),
        offsetof(abb_page_t, reference),
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(offsets); ++i) {
        check_field(offsets[i], *state);
    }
}

static void pages_are_ascii(void **state)
{
    static const char *const texts[] = {"Z\xc3\xbcrich \xe2\x80\x99 \xf0\x9f\x98\x80",
                                        "\xff\xfe broken \xc3", "\x01\x02\x7f\t\n"};

    for (apr_size_t i = 0; i < UNIT_COUNT(texts); ++i) {
        abb_page_t page = full_page(texts[i]);
        const char *html = abb_page_html(&page, *state);

        for (const char *c = html; *c; ++c) {
            if (*c != '\n' && (*c < 0x20 || *c > 0x7e)) {
                fail_msg("byte 0x%02x", (unsigned char)*c);
            }
        }
    }
}

static void other_characters_are_shown(void **state)
{
    abb_page_t page = plain_page();

    page.text = "Z\xc3\xbcrich \xe2\x82\xac";
    check_holds(abb_page_html(&page, *state), "<p>Z&#252;rich &#8364;</p>");
}

/* ---- what stands where --------------------------------------------------- */

static void what_is_not_given_is_left_out(void **state)
{
    abb_page_t page = plain_page();
    const char *html = abb_page_html(&page, *state);

    check_holds(html, "<title>Sign in</title>");
    check_holds(html, "<h1>Sign in</h1>");
    check_lacks(html, "<p");
    check_lacks(html, "<dl");
    check_lacks(html, "<a");
    check_lacks(html, "<form");
    check_lacks(html, "<input");
    check_lacks(html, "Reference");
    check_lacks(html, "(null)");
}

/* "NULL: left out." */
static void a_page_of_nothing_is_a_page(void **state)
{
    abb_page_t page;
    const char *html;

    memset(&page, 0, sizeof(page));
    html = abb_page_html(&page, *state);
    check_holds(html, "</html>");
    check_lacks(html, "<h1");
    page.form_action = "/x";
    html = abb_page_html(&page, *state);
    check_holds(html, "</html>");
    check_lacks(html, "(null)");
}

static void parts_stand_where_they_belong(void **state)
{
    abb_page_t page = plain_page();
    const char *html;

    page.site = "Wiki";
    page.text = "Some text";
    page.advice = "Some advice";
    page.reference = "a1b2c3";
    abb_page_add_fact(&page, "Signed in as", "ada");
    abb_page_add_link(&page, "Try again", "/again?a=b&c=d");
    abb_page_add_link(&page, "Home", "/");
    html = abb_page_html(&page, *state);
    check_holds(html, ">Wiki</p>");
    check_holds(html, "<p>Some text</p>");
    check_holds(html, "<p>Some advice</p>");
    check_holds(html, "<dt>Signed in as</dt><dd>ada</dd>");
    check_holds(html, "<a class=\"main\" href=\"/again?a=b&#38;c=d\">Try again</a>");
    check_holds(html, "<a href=\"/\">Home</a>");
    check_holds(html, "<code>a1b2c3</code>");
    check_lacks(html, "target=");
    assert_int_equal(strncmp(html, "<!DOCTYPE html>\n", 16), 0);
    assert_int_equal(count_of(html, "<main>"), 1);
    assert_int_equal(count_of(html, "</main>"), 1);
}

static void a_form_posts_its_hidden_fields(void **state)
{
    abb_page_t page = plain_page();
    const char *html;

    page.form_action = "/bitbucket/logout";
    page.form_label = "Sign out";
    page.form_token = "token-1";
    page.form_return = "/wiki?a=1";
    abb_page_add_link(&page, "Stay", "/");
    html = abb_page_html(&page, *state);
    check_holds(html, "<form method=\"post\" action=\"/bitbucket/logout\">");
    check_holds(html, "<input type=\"hidden\" name=\"token\" value=\"token-1\">");
    check_holds(html, "<input type=\"hidden\" name=\"return\" value=\"/wiki?a=1\">");
    check_holds(html, "<button class=\"main\">Sign out</button></form>");
    check_holds(html, "<a href=\"/\">Stay</a>");
    assert_int_equal(count_of(html, "class=\"main\""), 1);
}

static void hidden_fields_may_be_missing(void **state)
{
    abb_page_t page = plain_page();
    const char *html;

    page.form_action = "/x";
    page.form_label = "Go";
    html = abb_page_html(&page, *state);
    check_holds(html, "<form");
    check_lacks(html, "<input");
}

static void a_new_tab_gets_no_opener(void **state)
{
    abb_page_t page = plain_page();
    const char *html;

    page.opens_new_tab = 1;
    abb_page_add_link(&page, "Open", "/");
    html = abb_page_html(&page, *state);
    check_holds(html, " target=\"_blank\"");
    check_holds(html, "rel=\"noopener");
}

static void beyond_the_maximum_nothing_happens(void **state)
{
    struct {
        abb_page_t page;
        char behind[64];
    } kept;

    memset(&kept, 0x5a, sizeof(kept));
    kept.page = plain_page();
    for (int i = 0; i < 2 * ABB_PAGE_LINKS_MAX; ++i) {
        abb_page_add_link(&kept.page, apr_psprintf(*state, "label-%d.", i), "/");
        abb_page_add_fact(&kept.page, apr_psprintf(*state, "name-%d.", i), "value");
    }
    assert_int_equal(kept.page.link_count, ABB_PAGE_LINKS_MAX);
    assert_int_equal(kept.page.fact_count, ABB_PAGE_FACTS_MAX);
    assert_null(kept.page.form_action);
    assert_null(kept.page.reference);
    check_holds(abb_page_html(&kept.page, *state), "label-3.");
    check_holds(abb_page_html(&kept.page, *state), "name-3.");
    check_lacks(abb_page_html(&kept.page, *state), "label-4.");
    check_lacks(abb_page_html(&kept.page, *state), "name-4.");
}

static void what_lacks_a_half_is_left_out(void **state)
{
    abb_page_t page = plain_page();

    abb_page_add_fact(&page, "E-mail", NULL);
    abb_page_add_fact(&page, NULL, "ada@example.com");
    abb_page_add_link(&page, "Home", NULL);
    abb_page_add_link(&page, NULL, "/");
    assert_int_equal(page.fact_count, 0);
    assert_int_equal(page.link_count, 0);
}

/* ---- a form to send again ------------------------------------------------ */

static abb_page_resend_t resend_of(const abb_page_field_t *fields, int count)
{
    abb_page_resend_t resend = {
        "/save?a=\"1\"", "multipart/form-data", "utf-8", "Send it now", fields, count};

    return resend;
}

static void a_form_to_send_again_is_the_first_thing_to_do(void **state)
{
    static const abb_page_field_t fields[] = {{"b", "1", 0}, {"a", "", 0}, {"b", "2", 0}};
    abb_page_resend_t resend = resend_of(fields, 3);
    abb_page_t page = plain_page();
    const char *html;

    page.resend = &resend;
    page.form_action = "/discard";
    page.form_label = "Discard it";
    page.form_token = "token-1";
    page.form_is_second = 1;
    abb_page_add_link(&page, "Home", "/");
    html = abb_page_html(&page, *state);
    check_holds(html, "<form method=\"post\" autocomplete=\"off\" action=\"/save?a=&#34;1&#34;\" "
                      "enctype=\"multipart/form-data\" accept-charset=\"utf-8\">\n"
                      "<input type=\"hidden\" name=\"b\" value=\"1\">\n"
                      "<input type=\"hidden\" name=\"a\" value=\"\">\n"
                      "<input type=\"hidden\" name=\"b\" value=\"2\">\n"
                      "<button class=\"main\">Send it now</button></form>"
                      "<a href=\"/\">Home</a><form method=\"post\" action=\"/discard\">");
    check_holds(html, "<button>Discard it</button>");
    assert_int_equal(count_of(html, "class=\"main\""), 1);
}

/* As a browser reads them back: raw but for what ends a value or would change. */
static void fields_are_written_exactly(void **state)
{
    static const abb_page_field_t fields[] = {
        {HOSTILE, "&amp;\r\n\t\x01\x7f'", 0},
        {"Z\xc3\xbc\xc2\x85", "\xf0\x9f\x98\x80\xef\xbf\xbe", 0}};
    abb_page_resend_t resend = resend_of(fields, 2);
    abb_page_t page = plain_page();
    const char *html;

    page.resend = &resend;
    html = abb_page_html(&page, *state);
    check_holds(html, "name=\"&#34;&#39;&#62;&#60;script&#62;alert(1)&#60;/script&#62;&#60;b "
                      "x=&#34;&#38;amp;&#60;/style&#62;&#60;/title&#62;&#60;/h1&#62;\" "
                      "value=\"&#38;amp;&#13;&#10;&#9;\x01\x7f&#39;\">");
    check_holds(html, "name=\"Z\xc3\xbc\xc2\x85\" value=\"\xf0\x9f\x98\x80\xef\xbf\xbe\">");
    check_lacks(html, "<script");
}

/* What browsers treat in their own way must not look like it. */
static void fields_with_a_meaning_of_their_own(void **state)
{
    static const abb_page_field_t fields[] = {
        {"_Charset_", "\r\n</textarea>", 0}, {"_charset_x", "1", 0}, {"f", "", 1}};
    abb_page_resend_t resend = resend_of(fields, 3);
    abb_page_t page = plain_page();
    const char *html;

    page.resend = &resend;
    html = abb_page_html(&page, *state);
    check_holds(html, "<textarea hidden name=\"_Charset_\">\n&#13;&#10;&#60;/textarea&#62;"
                      "</textarea>\n<input type=\"hidden\" name=\"_charset_x\" value=\"1\">\n"
                      "<input type=\"file\" hidden name=\"f\">\n<button");
}

/* They fit the memory that was reckoned for them. Two more are of <meta>. */
static void many_and_long_fields(void **state)
{
    abb_page_field_t *fields = apr_palloc(*state, 30000 * sizeof(*fields));
    abb_page_resend_t resend = resend_of(fields, 30000);
    abb_page_t page = plain_page();

    for (int i = 0; i < 30000; ++i) {
        fields[i].name = i % 2 ? "_charset_" : "\"";
        fields[i].value = i % 3 ? "" : "&'";
        fields[i].is_empty_file = i % 5 == 0;
    }
    fields[7].value = unit_repeat('"', 64 * 1024, *state);
    page.resend = &resend;
    assert_int_equal(count_of(abb_page_html(&page, *state), " name=\""), 30000 + 2);
}

/* ---- the policy ---------------------------------------------------------- */

static const char *hash_of_style(const char *html, apr_pool_t *p)
{
    const char *start = strstr(html, "<style>");
    const char *end = strstr(html, "</style>");
    unsigned char hash[ABB_CRYPTO_KEY_SIZE];
    char *encoded = apr_pcalloc(p, 2 * ABB_CRYPTO_KEY_SIZE);

    assert_non_null(start);
    assert_non_null(end);
    start += strlen("<style>");
    assert_true(end > start);
    assert_int_equal(abb_crypto_hash(start, (apr_size_t)(end - start), "", 0, hash, NULL),
                     APR_SUCCESS);
    apr_base64_encode_binary(encoded, hash, sizeof(hash));
    return encoded;
}

static void the_policy_names_exactly_this_style(void **state)
{
    abb_page_t page = full_page("x");
    const char *html = abb_page_html(&page, *state);
    const char *policy = abb_page_policy(&page, *state);
    const char *source =
        apr_pstrcat(*state, "style-src 'sha256-", hash_of_style(html, *state), "';", NULL);

    check_holds(policy, source);
    assert_int_equal(count_of(html, "<style"), 1);
    assert_int_equal(count_of(policy, "sha256-"), 1);
}

static void only_a_page_for_frames_is_shown_in_one(void **state)
{
    abb_page_t page = full_page("x");

    page.opens_new_tab = 1;
    check_lacks(abb_page_policy(&page, *state), "frame-ancestors");
    check_holds(abb_page_policy(&page, *state), "default-src 'none'");
}

static void the_policy_allows_nothing_else(void **state)
{
    abb_page_t page = full_page("x");
    const char *policy = abb_page_policy(&page, *state);

    check_holds(policy, "default-src 'none'");
    check_holds(policy, "frame-ancestors 'none'");
    check_holds(policy, "base-uri 'none'");
    check_holds(policy, "form-action 'self'");
    check_lacks(policy, "unsafe");
    check_lacks(policy, "script-src");
    check_lacks(policy, "*");
    check_lacks(policy, "\n");
}

/* Nothing the policy would have to allow. */
static void pages_load_and_run_nothing(void **state)
{
    static const char *const parts[] = {"<script",     "<img",       "<link", "<iframe", "<object",
                                        " style=",     " on",        "url(",  "@import", "<base",
                                        "javascript:", "http-equiv", "src="};
    abb_page_t page = full_page("x");
    const char *html;

    page.opens_new_tab = 1;
    html = abb_page_html(&page, *state);
    for (apr_size_t i = 0; i < UNIT_COUNT(parts); ++i) {
        check_lacks(html, parts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(no_field_becomes_markup),
        UNIT_TEST(each_field_is_escaped),
        UNIT_TEST(pages_are_ascii),
        UNIT_TEST(other_characters_are_shown),
        UNIT_TEST(what_is_not_given_is_left_out),
        UNIT_TEST(parts_stand_where_they_belong),
        UNIT_TEST(a_form_posts_its_hidden_fields),
        UNIT_TEST(hidden_fields_may_be_missing),
        UNIT_TEST(a_new_tab_gets_no_opener),
        UNIT_TEST(beyond_the_maximum_nothing_happens),
        UNIT_TEST(what_lacks_a_half_is_left_out),
        UNIT_TEST(the_policy_names_exactly_this_style),
        UNIT_TEST(the_policy_allows_nothing_else),
        UNIT_TEST(only_a_page_for_frames_is_shown_in_one),
        UNIT_TEST(pages_load_and_run_nothing),
        UNIT_TEST(a_page_of_nothing_is_a_page),
        UNIT_TEST(a_form_to_send_again_is_the_first_thing_to_do),
        UNIT_TEST(fields_are_written_exactly),
        UNIT_TEST(fields_with_a_meaning_of_their_own),
        UNIT_TEST(many_and_long_fields),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
