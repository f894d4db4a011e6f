/*
 * t_reply: Bitbucket's JSON is read strictly.
 *
 * Each directory in fixtures/reply/valid and /invalid is a case. Its name starts
 * with the question it answers; input.json is the answer. A valid case has all
 * that must be read from it in `expected`, an invalid one the reason's word and
 * a part of the sentence in `error`. `asked` names the workspace or the repository,
 * else it is acme.
 */
#include "abb_reply.h"

#include <apr_file_info.h>
#include <apr_file_io.h>
#include <jansson.h>
#include <malloc.h>
#include <sys/resource.h>

#include "unit.h"

#define NOW apr_time_from_sec(1800000000)
#define USER "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645"

static int begin(void **state)
{
    abb_reply_init();
    return unit_begin(state);
}

/* ---- files --------------------------------------------------------------- */

/* A file's bytes, ending exactly where it ends; NULL when there is none. */
static const char *read_file(const char *path, apr_size_t *size, apr_pool_t *p)
{
    apr_file_t *file;
    apr_finfo_t info;
    char *bytes;

    if (apr_file_open(&file, path, APR_FOPEN_READ, APR_OS_DEFAULT, p) != APR_SUCCESS) {
        return NULL;
    }
    assert_int_equal(apr_file_info_get(&info, APR_FINFO_SIZE, file), APR_SUCCESS);
    *size = (apr_size_t)info.size;
    bytes = unit_bytes(unit_repeat('x', *size, p), *size, p);
    if (*size) {
        assert_int_equal(apr_file_read_full(file, bytes, *size, NULL), APR_SUCCESS);
    }
    apr_file_close(file);
    return bytes;
}

static const char *read_text(const char *path, apr_pool_t *p)
{
    apr_size_t size;
    const char *bytes = read_file(path, &size, p);

    return bytes ? apr_pstrmemdup(p, bytes, size) : NULL;
}

/* ---- what a case says ---------------------------------------------------- */

/* What came of a case: its reason, or all that was read, a line each. */
typedef struct {
    apr_status_t status;
    abb_error_t err;
    const char *text;
} outcome_t;

static void add_line(outcome_t *outcome, const char *name, const char *value, apr_pool_t *p)
{
    if (value) {
        outcome->text = apr_pstrcat(p, outcome->text, name, ": ", value, "\n", NULL);
    }
}

static void run_tokens(const char *body, apr_size_t size, outcome_t *outcome, apr_pool_t *p)
{
    abb_tokens_t tokens;

    outcome->status = abb_reply_tokens(body, size, NOW, &tokens, p, &outcome->err);
    if (outcome->status == APR_SUCCESS) {
        add_line(outcome, "access_token", tokens.access_token, p);
        add_line(outcome, "refresh_token", tokens.refresh_token, p);
        add_line(outcome, "scope", tokens.scope, p);
        add_line(outcome, "expires_in",
                 apr_psprintf(p, "%" APR_TIME_T_FMT, apr_time_sec(tokens.expires_at - NOW)), p);
    }
}

static void run_user(const char *body, apr_size_t size, outcome_t *outcome, apr_pool_t *p)
{
    abb_account_t account;
    const char *raw = NULL;

    outcome->status = abb_reply_user(body, size, &account, &raw, p, &outcome->err);
    if (outcome->status == APR_SUCCESS) {
        add_line(outcome, "uuid", account.uuid, p);
        add_line(outcome, "account_id", account.account_id, p);
        add_line(outcome, "username", account.username, p);
        add_line(outcome, "nickname", account.nickname, p);
        add_line(outcome, "display_name", account.display_name, p);
        add_line(outcome, "email", account.email, p);
        add_line(outcome, "avatar_url", account.avatar_url, p);
        add_line(outcome, "profile_url", account.profile_url, p);
        add_line(outcome, "app_kind", account.app_kind, p);
        add_line(outcome, "raw", raw, p);
    }
}

static void run_emails(const char *body, apr_size_t size, outcome_t *outcome, apr_pool_t *p)
{
    abb_reply_emails_t emails;

    outcome->status = abb_reply_emails(body, size, &emails, p, &outcome->err);
    if (outcome->status == APR_SUCCESS) {
        add_line(outcome, "primary", emails.primary, p);
        add_line(outcome, "first_confirmed", emails.first_confirmed, p);
        add_line(outcome, "next", emails.next, p);
    }
}

static void add_grant(outcome_t *outcome, const abb_grant_t *grant, apr_pool_t *p)
{
    add_line(outcome, "slug", grant->slug, p);
    add_line(outcome, "uuid", grant->uuid, p);
    add_line(outcome, "role", abb_account_role_word(grant->role), p);
}

static abb_grant_t grant_for(const char *asked)
{
    abb_grant_t grant;

    memset(&grant, 0, sizeof(grant));
    grant.asked = asked;
    grant.role = ABB_ROLE_OWNER;
    grant.slug = grant.uuid = "left over";
    grant.checked_at = NOW;
    return grant;
}

static void run_permission(const char *body, apr_size_t size, const char *asked, outcome_t *outcome,
                           apr_pool_t *p)
{
    abb_grant_t grant = grant_for(asked);
    const char *doubt = "left over";

    outcome->status = abb_reply_permission(body, size, USER, &grant, &doubt, p, &outcome->err);
    assert_string_equal(grant.asked, asked);
    assert_int_equal(grant.checked_at, NOW);
    if (outcome->status == APR_SUCCESS) {
        add_grant(outcome, &grant, p);
        add_line(outcome, "doubt", doubt, p);
    }
    else {
        assert_int_equal(grant.role, ABB_ROLE_NONE);
        assert_null(doubt);
    }
}

static void run_member(const char *body, apr_size_t size, const char *asked, outcome_t *outcome,
                       apr_pool_t *p)
{
    abb_grant_t grant = grant_for(asked);

    outcome->status = abb_reply_member(body, size, USER, &grant, p, &outcome->err);
    if (outcome->status == APR_SUCCESS) {
        add_grant(outcome, &grant, p);
    }
    else {
        assert_int_equal(grant.role, ABB_ROLE_NONE);
    }
}

static void run_repository(const char *body, apr_size_t size, const char *asked, outcome_t *outcome,
                           apr_pool_t *p)
{
    abb_grant_t grant = grant_for(asked);
    const char *doubt = "left over";

    outcome->status = abb_reply_repository(body, size, USER, &grant, &doubt, p, &outcome->err);
    if (outcome->status == APR_SUCCESS) {
        add_grant(outcome, &grant, p);
        add_line(outcome, "doubt", doubt, p);
    }
    else {
        assert_int_equal(grant.role, ABB_ROLE_NONE);
        assert_null(doubt);
    }
}

static void run_error(const char *body, apr_size_t size, outcome_t *outcome, apr_pool_t *p)
{
    abb_reply_error_t error;

    memset(&error, 0x5a, sizeof(error));
    abb_reply_error(body, size, &error, p);
    outcome->status = APR_SUCCESS;
    add_line(outcome, "code", error.code, p);
    add_line(outcome, "message", error.message, p);
    add_line(outcome, "required", error.required, p);
    add_line(outcome, "granted", error.granted, p);
    add_line(outcome, "announcement_url", error.announcement_url, p);
}

static int is_about(const char *name, const char *question)
{
    apr_size_t length = strlen(question);

    return strncmp(name, question, length) == 0 && name[length] == '-';
}

static void run(const char *name, const char *body, apr_size_t size, const char *asked,
                outcome_t *outcome, apr_pool_t *p)
{
    memset(outcome, 0, sizeof(*outcome));
    abb_error_clear(&outcome->err);
    outcome->text = "";
    if (is_about(name, "tokens")) {
        run_tokens(body, size, outcome, p);
    }
    else if (is_about(name, "user")) {
        run_user(body, size, outcome, p);
    }
    else if (is_about(name, "emails")) {
        run_emails(body, size, outcome, p);
    }
    else if (is_about(name, "permission")) {
        run_permission(body, size, asked, outcome, p);
    }
    else if (is_about(name, "member")) {
        run_member(body, size, asked, outcome, p);
    }
    else if (is_about(name, "repository")) {
        run_repository(body, size, asked, outcome, p);
    }
    else {
        assert_true(is_about(name, "error"));
        run_error(body, size, outcome, p);
    }
}

/* ---- all cases of a kind ------------------------------------------------- */

/* Returns NULL when a case comes out as it must, else what is wrong. */
typedef const char *(*judge_t)(const char *directory, const outcome_t *outcome, apr_pool_t *p);

static const char *judge_valid(const char *directory, const outcome_t *outcome, apr_pool_t *p)
{
    const char *expected = read_text(apr_pstrcat(p, directory, "/expected", NULL), p);

    if (outcome->status != APR_SUCCESS || outcome->err.status != APR_SUCCESS) {
        return apr_psprintf(p, "refused: %s", outcome->err.text);
    }
    return expected && strcmp(outcome->text, expected) == 0
               ? NULL
               : apr_psprintf(p, "read as\n%.600s", outcome->text);
}

static const char *judge_invalid(const char *directory, const outcome_t *outcome, apr_pool_t *p)
{
    char *word = apr_pstrdup(p, read_text(apr_pstrcat(p, directory, "/error", NULL), p));
    char *sentence = strstr(word, ": ");

    *sentence = '\0';
    sentence += 2;
    sentence[strcspn(sentence, "\n")] = '\0';
    if (outcome->status == APR_SUCCESS) {
        return apr_psprintf(p, "accepted as\n%.600s", outcome->text);
    }
    return outcome->err.status == outcome->status &&
                   strcmp(abb_error_word(outcome->status), word) == 0 &&
                   strstr(outcome->err.text, sentence)
               ? NULL
               : apr_psprintf(p, "%s: %s", abb_error_word(outcome->status), outcome->err.text);
}

static const char *run_case(const char *directory, const char *name, judge_t judge, apr_pool_t *p)
{
    const char *path = apr_pstrcat(p, directory, "/", name, NULL);
    const char *asked = read_text(apr_pstrcat(p, path, "/asked", NULL), p);
    apr_size_t size;
    const char *body = read_file(apr_pstrcat(p, path, "/input.json", NULL), &size, p);
    outcome_t outcome;

    if (!body) {
        return "has no input.json";
    }
    run(name, body, size, asked ? apr_pstrmemdup(p, asked, strcspn(asked, "\n")) : "acme", &outcome,
        p);
    return judge(path, &outcome, p);
}

static void check_cases(const char *kind, judge_t judge, int least, apr_pool_t *p)
{
    const char *directory = apr_pstrcat(p, FIXTURES, "/reply/", kind, NULL);
    int cases = 0;
    int failures = 0;
    apr_dir_t *entries;
    apr_finfo_t entry;

    assert_int_equal(apr_dir_open(&entries, directory, p), APR_SUCCESS);
    while (apr_dir_read(&entry, APR_FINFO_NAME, entries) == APR_SUCCESS) {
        const char *fault = *entry.name == '.' ? NULL : run_case(directory, entry.name, judge, p);

        if (fault) {
            print_error("%s/%s: %s\n", kind, entry.name, fault);
            ++failures;
        }
        cases += *entry.name != '.';
    }
    apr_dir_close(entries);
    assert_int_equal(failures, 0);
    assert_true(cases >= least);
}

static void valid_answers_are_read(void **state)
{
    check_cases("valid", judge_valid, 50, *state);
}

static void invalid_answers_are_refused(void **state)
{
    check_cases("invalid", judge_invalid, 100, *state);
}

/* ---- cases too large for a file ------------------------------------------ */

/* Runs a body that ends exactly where it ends. */
static outcome_t run_text(const char *name, const char *body, apr_pool_t *p)
{
    outcome_t outcome;

    run(name, unit_bytes(body, strlen(body), p), strlen(body), "acme", &outcome, p);
    return outcome;
}

static apr_status_t try_token(apr_size_t access, apr_size_t refresh, apr_pool_t *p)
{
    outcome_t outcome =
        run_text("tokens-",
                 apr_pstrcat(p, "{\"access_token\":\"", unit_repeat('a', access, p),
                             "\",\"refresh_token\":\"", unit_repeat('r', refresh, p), "\"}", NULL),
                 p);

    return outcome.status;
}

static void tokens_have_a_longest_size(void **state)
{
    assert_int_equal(try_token(ABB_REPLY_TOKEN_MAX, ABB_REPLY_TOKEN_MAX, *state), APR_SUCCESS);
    assert_int_equal(try_token(ABB_REPLY_TOKEN_MAX + 1, 10, *state), ABB_EUPSTREAM);
    assert_int_equal(try_token(10, ABB_REPLY_TOKEN_MAX + 1, *state), ABB_EUPSTREAM);
    assert_int_equal(try_token(1000000, 10, *state), ABB_EUPSTREAM);
}

static void names_have_a_longest_size(void **state)
{
    static const char form[] = "{\"type\":\"user\",\"uuid\":\"" USER "\",\"nickname\":\"%s\"}";
    apr_pool_t *p = *state;

    assert_int_equal(
        run_text("user-", apr_psprintf(p, form, unit_repeat('n', ABB_REPLY_TEXT_MAX, p)), p).status,
        APR_SUCCESS);
    assert_int_equal(
        run_text("user-", apr_psprintf(p, form, unit_repeat('n', ABB_REPLY_TEXT_MAX + 1, p)), p)
            .status,
        ABB_EUPSTREAM);
}

/* An answer with unknown members nested so deep in all. */
static apr_status_t try_depth(int depth, char open, apr_pool_t *p)
{
    const char *nest = "1";

    for (int i = 1; i < depth; ++i) {
        nest = open == '[' ? apr_pstrcat(p, "[", nest, "]", NULL)
                           : apr_pstrcat(p, "{\"x\":", nest, "}", NULL);
    }
    return run_text("tokens-", apr_pstrcat(p, "{\"access_token\":\"a\",\"x\":", nest, "}", NULL), p)
        .status;
}

static void nesting_has_a_greatest_depth(void **state)
{
    for (int i = 0; i < 2; ++i) {
        assert_int_equal(try_depth(1, "[{"[i], *state), APR_SUCCESS);
        assert_int_equal(try_depth(ABB_REPLY_DEPTH_MAX, "[{"[i], *state), APR_SUCCESS);
        assert_int_equal(try_depth(ABB_REPLY_DEPTH_MAX + 1, "[{"[i], *state), ABB_EUPSTREAM);
        assert_int_equal(try_depth(1000, "[{"[i], *state), ABB_EUPSTREAM);
    }
}

static void brackets_in_texts_are_no_nesting(void **state)
{
    const char *brackets = unit_repeat('[', 1000, *state);

    assert_int_equal(
        run_text("tokens-",
                 apr_pstrcat(*state, "{\"access_token\":\"a\",\"x\":\"\\\"", brackets,
                             "\\\\\",\"y\":\"", unit_repeat('{', 1000, *state), "\"}", NULL),
                 *state)
            .status,
        APR_SUCCESS);
}

static void a_flood_of_brackets_is_refused_quickly(void **state)
{
    apr_size_t size = 10 * 1024 * 1024;
    outcome_t outcome;

    run("tokens-", unit_repeat('[', size, *state), size, "acme", &outcome, *state);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    run("error-", unit_repeat('{', size, *state), size, "acme", &outcome, *state);
    assert_string_equal(outcome.text, "");
}

static void ten_megabytes_are_read(void **state)
{
    char *filler = unit_repeat('x', 10 * 1024 * 1024, *state);
    const char *body = apr_pstrcat(*state, "{\"access_token\":\"a\",\"x\":\"", filler, "\"}", NULL);
    outcome_t outcome = run_text("tokens-", body, *state);

    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_string_equal(outcome.text, "access_token: a\nexpires_in: 3600\n");
    body = apr_pstrcat(*state, "{\"access_token\":\"a\",\"scope\":\"", filler, "\"}", NULL);
    assert_string_equal(run_text("tokens-", body, *state).text,
                        "access_token: a\nexpires_in: 3600\n");
}

static outcome_t run_lifetime(const char *number, apr_pool_t *p)
{
    return run_text(
        "tokens-", apr_pstrcat(p, "{\"access_token\":\"a\",\"expires_in\":", number, "}", NULL), p);
}

/* Whatever it is, the token ends in a bounded time and not before now. */
static void huge_lifetimes_are_bounded(void **state)
{
    static const char *const numbers[] = {
        "9223372036854775807",
        "-9223372036854775808",
        "1e18",
        "1e300",
        "-1e300",
        "9.3e18",
        "\"9223372036854775807\"",
        "\"99999999999999999999999\"",
        "2592001",
        "1e-300",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(numbers); ++i) {
        outcome_t outcome = run_lifetime(numbers[i], *state);
        const char *seconds;

        assert_int_equal(outcome.status, APR_SUCCESS);
        seconds = strstr(outcome.text, "expires_in: ");
        assert_non_null(seconds);
        if (atoll(seconds + 12) < 1 || atoll(seconds + 12) > 30 * 86400) {
            fail_msg("%s: %s", numbers[i], seconds);
        }
    }
}

static const char *many_emails(int count, apr_pool_t *p)
{
    static const char entry[] = "{\"email\":\"a@example.com\",\"is_confirmed\":true},";
    apr_size_t length = sizeof(entry) - 1;
    char *list = apr_palloc(p, (apr_size_t)count * length + 1);

    for (int i = 0; i < count; ++i) {
        memcpy(list + (apr_size_t)i * length, entry, length + 1);
    }
    list[(apr_size_t)count * length - 1] = '\0';
    return apr_pstrcat(p, "{\"values\":[", list, "]}", NULL);
}

static void a_page_has_a_greatest_number_of_addresses(void **state)
{
    assert_int_equal(run_text("emails-", many_emails(ABB_REPLY_EMAILS_MAX, *state), *state).status,
                     APR_SUCCESS);
    assert_int_equal(
        run_text("emails-", many_emails(ABB_REPLY_EMAILS_MAX + 1, *state), *state).status,
        ABB_EUPSTREAM);
}

/* The most memory that this program has had so far, in KiB. */
static long most_memory(void)
{
    struct rusage usage;

    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

/* As many different addresses of 254 bytes as a page may hold. */
static const char *long_emails(apr_pool_t *p)
{
    const char *name = unit_repeat('n', 254 - 4 - strlen("@example.com"), p);
    struct iovec parts[ABB_REPLY_EMAILS_MAX];

    for (int i = 0; i < ABB_REPLY_EMAILS_MAX; ++i) {
        parts[i].iov_base = apr_psprintf(
            p, "%s{\"email\":\"%s%04d@example.com\",\"is_confirmed\":true,\"is_primary\":%s}",
            i ? "," : "", name, i, i == 1999 ? "true" : "false");
        parts[i].iov_len = strlen(parts[i].iov_base);
    }
    return apr_pstrcat(p, "{\"values\":[", apr_pstrcatv(p, parts, ABB_REPLY_EMAILS_MAX, NULL), "]}",
                       NULL);
}

/* What is kept of a page has a largest size, and so has what is needed to read it. */
static void a_list_of_addresses_has_a_largest_size(void **state)
{
    const char *body = long_emails(*state);
    long before = most_memory();
    abb_reply_emails_t emails;

    assert_int_equal(abb_reply_emails(body, strlen(body), &emails, *state, NULL), APR_SUCCESS);
    assert_in_range(strlen(emails.confirmed), ABB_REPLY_CONFIRMED_MAX - 254,
                    ABB_REPLY_CONFIRMED_MAX);
    assert_string_equal(strrchr(emails.confirmed, '@'), "@example.com");
    assert_non_null(strstr(emails.first_confirmed, "0000@"));
    assert_non_null(strstr(emails.primary, "1999@"));
    assert_true(most_memory() - before < 64 * 1024);
}

/* An answer with so many values in a list nobody asked for. */
static const char *many_values(int count, const char *value, apr_pool_t *p)
{
    apr_size_t length = strlen(value);
    char *list = apr_palloc(p, (apr_size_t)count * length + 1);

    for (int i = 0; i < count; ++i) {
        memcpy(list + (apr_size_t)i * length, value, length + 1);
    }
    list[(apr_size_t)count * length - 1] = '\0';
    return apr_pstrcat(p, "{\"access_token\":\"a\",\"type\":\"user\",\"uuid\":\"{" USER "}\",",
                       "\"values\":[", list, "]}", NULL);
}

/* The object, its list, three commas before it and those between the values. */
static void an_answer_has_a_greatest_number_of_values(void **state)
{
    const char *body = many_values(ABB_REPLY_VALUES_MAX - 4, "1,", *state);
    outcome_t outcome;

    assert_int_equal(run_text("tokens-", body, *state).status, APR_SUCCESS);
    body = many_values(ABB_REPLY_VALUES_MAX - 3, "1,", *state);
    outcome = run_text("tokens-", body, *state);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    assert_non_null(strstr(outcome.err.text, "it holds more than 20000 values"));
    /* In texts nothing counts. */
    body = apr_pstrcat(*state, "{\"access_token\":\"a\",\"x\":\"\\\"",
                       unit_repeat(',', ABB_REPLY_VALUES_MAX + 1, *state), "\"}", NULL);
    assert_int_equal(run_text("tokens-", body, *state).status, APR_SUCCESS);
}

/* What jansson has at this moment, and the most that it had, in bytes. */
static size_t json_memory;
static size_t most_json_memory;

static void *allocate_json(size_t size)
{
    void *bytes = malloc(size);

    json_memory += malloc_usable_size(bytes);
    if (json_memory > most_json_memory) {
        most_json_memory = json_memory;
    }
    return bytes;
}

static void free_json(void *bytes)
{
    json_memory -= malloc_usable_size(bytes);
    free(bytes);
}

/* A request may need twenty answers. */
static void reading_takes_little_memory_and_keeps_none(void **state)
{
    static const char *const about[] = {"tokens-",     "user-",   "emails-",    "error-",
                                        "permission-", "member-", "repository-"};
    const char *many = many_values(ABB_REPLY_VALUES_MAX / 2 - 10, "{},", *state);
    const char *megabyte = many_values(340000, "{},", *state);

    json_set_alloc_funcs(allocate_json, free_json);
    for (apr_size_t i = 0; i < 2 * UNIT_COUNT(about); ++i) {
        const char *body = i < UNIT_COUNT(about) ? megabyte : many;
        outcome_t outcome;

        run(about[i % UNIT_COUNT(about)], body, strlen(body), "acme", &outcome, *state);
        assert_int_equal(json_memory, 0);
    }
    json_set_alloc_funcs(malloc, free);
    assert_in_range(most_json_memory, 1024 * 1024, 16 * 1024 * 1024);
}

/* ---- whatever comes ------------------------------------------------------ */

static const char *const questions[] = {"tokens-",     "user-",   "emails-",
                                        "permission-", "member-", "error-"};

/* Each beginning of a good answer, and each with a byte changed: no crash, no access. */
static void spoilt_answers_do_no_harm(void **state)
{
    static const char good[] =
        "{\"type\":\"user\",\"uuid\":\"{" USER
        "}\",\"access_token\":\"a\",\"permission\":\"owner\","
        "\"user\":{\"uuid\":\"{" USER "}\"},\"values\":[],\"error\":{\"message\":\"\\u00e4\"},"
        "\"workspace\":{\"slug\":\"acme\",\"uuid\":\"{" USER "}\"}}";
    apr_pool_t *p;

    for (apr_size_t q = 0; q < UNIT_COUNT(questions); ++q) {
        assert_int_equal(run_text(questions[q], good, *state).status, APR_SUCCESS);
        for (apr_size_t i = 0; i < sizeof(good) - 1; ++i) {
            static const char others[] = {'\0', '"', '\\', '{', '}', '[', ']', ',', '\xff', '\n'};
            outcome_t outcome;

            apr_pool_create(&p, *state);
            run(questions[q], unit_bytes(good, i, p), i, "acme", &outcome, p);
            assert_int_equal(outcome.status,
                             is_about(questions[q], "error") ? APR_SUCCESS : ABB_EUPSTREAM);
            for (apr_size_t j = 0; j < sizeof(others); ++j) {
                char *body = unit_bytes(good, sizeof(good) - 1, p);

                body[i] = others[j];
                run(questions[q], body, sizeof(good) - 1, "acme", &outcome, p);
            }
            apr_pool_destroy(p);
        }
    }
}

static void the_error_may_be_left_out(void **state)
{
    abb_tokens_t tokens;
    abb_account_t account;
    abb_reply_emails_t emails;
    abb_grant_t grant = grant_for("acme");
    const char *text;

    assert_int_equal(abb_reply_tokens("x", 1, NOW, &tokens, *state, NULL), ABB_EUPSTREAM);
    assert_int_equal(abb_reply_user("x", 1, &account, &text, *state, NULL), ABB_EUPSTREAM);
    assert_int_equal(abb_reply_emails("x", 1, &emails, *state, NULL), ABB_EUPSTREAM);
    assert_int_equal(abb_reply_permission("x", 1, USER, &grant, &text, *state, NULL),
                     ABB_EUPSTREAM);
    assert_int_equal(abb_reply_member("x", 1, USER, &grant, *state, NULL), ABB_EUPSTREAM);
}

/* Everything returned lives in the pool, whatever becomes of the body. */
static void answers_are_copied(void **state)
{
    static const char text[] = "{\"access_token\":\"aaa\",\"refresh_token\":\"rrr\","
                               "\"scope\":\"account\"}";
    char *body = apr_pstrdup(*state, text);
    abb_tokens_t tokens;

    assert_int_equal(abb_reply_tokens(body, strlen(body), NOW, &tokens, *state, NULL), APR_SUCCESS);
    memset(body, 'x', strlen(body));
    assert_string_equal(tokens.access_token, "aaa");
    assert_string_equal(tokens.refresh_token, "rrr");
    assert_string_equal(tokens.scope, "account");
    assert_true(tokens.expires_at == NOW + apr_time_from_sec(3600));
}

/* The raw answer is the same object in the same order, compact. */
static void the_raw_answer_is_compact(void **state)
{
    const char *body = "{ \"type\" : \"user\" , \"uuid\": \"{" USER "}\",\n\"x\": [1, 2.5, null, "
                       "\"\\u00e4\\\"\", {}], \"a\" : 1 }";
    abb_account_t account;
    const char *raw;

    assert_int_equal(abb_reply_user(body, strlen(body), &account, &raw, *state, NULL), APR_SUCCESS);
    assert_string_equal(raw, "{\"type\":\"user\",\"uuid\":\"{" USER "}\","
                             "\"x\":[1,2.5,null,\"\xc3\xa4\\\"\",{}],\"a\":1}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(valid_answers_are_read),
        UNIT_TEST(invalid_answers_are_refused),
        UNIT_TEST(tokens_have_a_longest_size),
        UNIT_TEST(names_have_a_longest_size),
        UNIT_TEST(nesting_has_a_greatest_depth),
        UNIT_TEST(brackets_in_texts_are_no_nesting),
        UNIT_TEST(a_flood_of_brackets_is_refused_quickly),
        UNIT_TEST(ten_megabytes_are_read),
        UNIT_TEST(huge_lifetimes_are_bounded),
        UNIT_TEST(a_page_has_a_greatest_number_of_addresses),
        UNIT_TEST(a_list_of_addresses_has_a_largest_size),
        UNIT_TEST(an_answer_has_a_greatest_number_of_values),
        UNIT_TEST(reading_takes_little_memory_and_keeps_none),
        UNIT_TEST(spoilt_answers_do_no_harm),
        UNIT_TEST(the_error_may_be_left_out),
        UNIT_TEST(answers_are_copied),
        UNIT_TEST(the_raw_answer_is_compact),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
