/* f_form: bodies of forms, the pages that show what strangers wrote, and headers. */
#include <apr_strings.h>
#include <string.h>

#include "abb_form.h"
#include "abb_identity.h"
#include "abb_page.h"
#include "abb_text.h"
#include "targets.h"

/* ---- forms ---------------------------------------------------------------- */

static void check_line_ends(const char *text)
{
    for (const char *c = text; *c; ++c) {
        FUZZ_CHECK(*c != '\r' || c[1] == '\n');
        FUZZ_CHECK(*c != '\n' || (c > text && c[-1] == '\r'));
    }
}

static const char *write_urlencoded(const abb_form_t *form, apr_pool_t *p)
{
    const char *body = "";

    for (int i = 0; i < form->count; ++i) {
        body = apr_pstrcat(p, body, i ? "&" : "", abb_text_percent_encode(form->fields[i].name, p),
                           "=", abb_text_percent_encode(form->fields[i].value, p), NULL);
    }
    return body;
}

static const char *write_multipart(const abb_form_t *form, apr_pool_t *p)
{
    const char *body = "";

    for (int i = 0; i < form->count; ++i) {
        const abb_form_field_t *field = &form->fields[i];

        body = apr_pstrcat(
            p, body, "--AgAiN\r\nContent-Disposition: form-data; name=\"", field->name, "\"",
            field->is_empty_file ? "; filename=\"\"\r\nContent-Type: application/octet-stream" : "",
            "\r\n\r\n", field->value, "\r\n", NULL);
    }
    return apr_pstrcat(p, body, "--AgAiN--\r\n", NULL);
}

/* Sent once more, as a browser would, it is the same. */
static void check_again(const abb_form_t *form, apr_pool_t *p)
{
    int is_multipart = form->type == ABB_FORM_MULTIPART;
    const char *body = is_multipart ? write_multipart(form, p) : write_urlencoded(form, p);
    abb_form_t again;

    FUZZ_CHECK(abb_form_parse(is_multipart ? "multipart/form-data; boundary=AgAiN"
                                           : "application/x-www-form-urlencoded",
                              body, strlen(body), &again, p) == ABB_FORM_GOOD);
    FUZZ_CHECK(again.count == form->count);
    for (int i = 0; i < form->count; ++i) {
        FUZZ_CHECK(strcmp(again.fields[i].name, form->fields[i].name) == 0 &&
                   strcmp(again.fields[i].value, form->fields[i].value) == 0 &&
                   again.fields[i].is_empty_file == form->fields[i].is_empty_file);
    }
}

static void check_form(const abb_form_t *form, apr_size_t size, apr_pool_t *p)
{
    int has_mark = 0;

    FUZZ_CHECK(form->count >= 0 && (apr_size_t)form->count <= size);
    for (int i = 0; i < form->count; ++i) {
        const abb_form_field_t *field = &form->fields[i];

        FUZZ_CHECK(*field->name && (!field->is_empty_file || !*field->value));
        FUZZ_CHECK(abb_text_is_utf8(field->name, strlen(field->name)) &&
                   abb_text_is_utf8(field->value, strlen(field->value)));
        check_line_ends(field->name);
        check_line_ends(field->value);
        has_mark |= strstr(field->name, "AgAiN") || strstr(field->value, "AgAiN");
    }
    if (strcmp(form->charset, "utf-8") == 0 && !has_mark) {
        check_again(form, p);
    }
    else {
        FUZZ_CHECK(has_mark || strcmp(form->charset, "windows-1252") == 0);
    }
}

void fuzz_form(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    const char *type = fuzz_line(&input);
    apr_size_t body_size;
    const char *body = fuzz_rest(&input, &body_size);
    abb_form_verdict_t verdict = abb_form_check_type(type);
    abb_form_t form;

    body = fuzz_copy(body, body_size, p);
    if (verdict == ABB_FORM_GOOD) {
        verdict = abb_form_parse(type, body, body_size, &form, p);
        FUZZ_CHECK(verdict != ABB_FORM_OTHER_TYPE);
        if (verdict == ABB_FORM_GOOD) {
            check_form(&form, body_size, p);
        }
    }
    else {
        FUZZ_CHECK(abb_form_parse(type, body, body_size, &form, p) == verdict);
    }
}

/* ---- pages ---------------------------------------------------------------- */

static const char *mark_of(const char *text)
{
    return text ? "x" : NULL;
}

/* Tags, quotes and what stands in tags beside values: no text can change them. */
static apr_size_t count_markup(const char *html)
{
    apr_size_t count = 0;

    for (; *html; ++html) {
        count += strchr("<>\"", *html) != NULL;
    }
    return count;
}

static void fill_page(abb_page_t *page, const char *const *texts, const abb_page_resend_t *resend)
{
    memset(page, 0, sizeof(*page));
    page->site = texts[0];
    page->heading = texts[1] ? texts[1] : "heading";
    page->text = texts[2];
    page->advice = texts[3];
    abb_page_add_fact(page, "name", texts[4]);
    abb_page_add_link(page, "label", texts[5]);
    page->form_action = texts[6];
    page->form_label = "label";
    page->form_token = texts[7] ? texts[7] : "token";
    page->form_return = texts[8];
    page->reference = texts[9];
    page->resend = resend;
}

enum { TEXTS = 10 };

static void compare_pages(const char *const *texts, const char *const *marks,
                          const abb_page_resend_t *resend, const abb_page_resend_t *plain,
                          apr_pool_t *p)
{
    abb_page_t hostile;
    abb_page_t harmless;
    const char *html;

    fill_page(&hostile, texts, resend);
    fill_page(&harmless, marks, plain);
    html = abb_page_html(&hostile, p);
    FUZZ_CHECK(count_markup(html) == count_markup(abb_page_html(&harmless, p)));
    FUZZ_CHECK(strcmp(abb_page_policy(&hostile, p), abb_page_policy(&harmless, p)) == 0);
    if (!resend) {
        for (const char *c = html; *c; ++c) {
            FUZZ_CHECK(*c == '\n' || (*c >= 0x20 && *c < 0x7f));
        }
    }
}

void fuzz_page(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    const char *texts[TEXTS];
    const char *marks[TEXTS];
    abb_page_field_t field;
    abb_page_field_t plain_field = {"x", "x", 0};
    abb_page_resend_t resend = {"/x", "application/x-www-form-urlencoded", "utf-8", "Send", &field,
                                1};
    abb_page_resend_t plain = resend;

    for (int i = 0; i < TEXTS; ++i) {
        texts[i] = fuzz_line_or_null(&input);
        marks[i] = mark_of(texts[i]);
    }
    compare_pages(texts, marks, NULL, NULL, p);
    field.name = fuzz_line(&input);
    field.value = fuzz_line(&input);
    field.is_empty_file = 0;
    plain.fields = &plain_field;
    if (abb_text_is_utf8(field.name, strlen(field.name)) &&
        abb_text_is_utf8(field.value, strlen(field.value))) {
        compare_pages(texts, marks, &resend, &plain, p);
    }
}

/* ---- headers -------------------------------------------------------------- */

/* As an application's server may read a name. */
static int is_taken_for_ours(const char *name)
{
    static const char ours[] = "x-bitbucket-";
    apr_size_t i;

    for (i = 0; ours[i] && name[i]; ++i) {
        char c = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 32) : name[i];
        int is_alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

        if (ours[i] == '-' ? is_alnum : c != ours[i]) {
            return 0;
        }
    }
    return ours[i] == '\0';
}

static int is_not_ours(void *context, const char *name, const char *value)
{
    FUZZ_CHECK(!is_taken_for_ours(name));
    if (strcasecmp(name, "Connection") == 0) {
        char *state;

        for (char *word = apr_strtok(apr_pstrdup(context, value), ", \t", &state); word;
             word = apr_strtok(NULL, ", \t", &state)) {
            FUZZ_CHECK(!is_taken_for_ours(word));
        }
    }
    return 1;
}

static int is_fit(void *encoding, const char *name, const char *value)
{
    if (is_taken_for_ours(name)) {
        FUZZ_CHECK(*value && strlen(value) <= ABB_IDENTITY_HEADER_MAX);
        FUZZ_CHECK(fuzz_has_no_controls(value));
        FUZZ_CHECK(*(abb_header_encoding_t *)encoding == ABB_HEADERS_UTF8 ||
                   fuzz_is_printable(value));
        FUZZ_CHECK(value[0] != ' ' && value[strlen(value) - 1] != ' ');
    }
    return 1;
}

/* Five lines about somebody, then headers "Name: value" of the client. */
void fuzz_headers(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    abb_header_encoding_t encoding = (abb_header_encoding_t)(fuzz_number(&input, 1) & 1);
    apr_table_t *headers = apr_table_make(p, 8);
    abb_identity_settings_t settings;
    abb_grant_t grant = {.asked = "acme", .role = ABB_ROLE_MEMBER};
    abb_record_t record = {.grants = &grant, .grant_count = 1};

    record.account.uuid = FUZZ_USER;
    record.account.username = fuzz_line_or_null(&input);
    record.account.nickname = fuzz_line_or_null(&input);
    record.account.display_name = fuzz_line_or_null(&input);
    record.account.email = fuzz_line_or_null(&input);
    grant.slug = fuzz_line(&input);
    while (input.at < input.end) {
        char *line = apr_pstrdup(p, fuzz_line(&input));
        char *colon = strchr(line, ':');

        if (colon) {
            *colon = '\0';
            apr_table_addn(headers, line, colon + 1 + strspn(colon + 1, " "));
        }
    }
    abb_identity_settle(&settings, "X-Bitbucket-", encoding, p);
    headers = abb_identity_scrub(&settings, headers, p);
    apr_table_do(is_not_ours, p, headers, NULL);
    FUZZ_CHECK(abb_identity_scrub(&settings, headers, p) == headers);
    headers = apr_table_copy(p, headers);
    abb_identity_add_headers(headers, &settings, &record, apr_time_from_sec(60), p);
    apr_table_do(is_fit, &encoding, headers, NULL);
    abb_identity_set_variables(headers, &record, p);
}
