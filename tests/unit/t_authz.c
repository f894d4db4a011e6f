/* t_authz: lines are compiled or refused with a reason, and compared with rows. */
#include "abb_authz.h"

#include "unit.h"

#define NOW apr_time_from_sec(1800000000)
#define UUID "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645"
#define OTHER_UUID "11111111-2222-3333-4444-555555555555"
#define SECONDS(n) apr_time_from_sec(n)
#define MINUTES(n) apr_time_from_sec((n)*60)

static const abb_authz_rows_t *parse(const char *line, apr_pool_t *p)
{
    const abb_authz_rows_t *workspaces = NULL;
    const char *fault = abb_authz_parse_workspaces(abb_authz_split(line, p), &workspaces, p);

    if (fault) {
        fail_msg("'%s': %s", line, fault);
    }
    assert_non_null(workspaces);
    return workspaces;
}

static const abb_authz_users_t *parse_users(const char *line, apr_pool_t *p)
{
    const abb_authz_users_t *users = NULL;
    const char *fault = abb_authz_parse_users(abb_authz_split(line, p), &users, p);

    if (fault) {
        fail_msg("'%s': %s", line, fault);
    }
    assert_non_null(users);
    return users;
}

static void check_rule(const abb_authz_rows_t *workspaces, int i, const char *asked,
                       abb_role_t role)
{
    assert_true(i < workspaces->count);
    assert_string_equal(workspaces->rules[i].asked, asked);
    assert_int_equal(workspaces->rules[i].role, role);
}

/* ---- bitbucket-workspace: the grammar ------------------------------------ */

static void a_plain_name_means_a_member(void **state)
{
    const abb_authz_rows_t *workspaces = parse("acme", *state);

    assert_int_equal(workspaces->count, 1);
    check_rule(workspaces, 0, "acme", ABB_ROLE_MEMBER);
}

static void a_line_names_any_of_several(void **state)
{
    const abb_authz_rows_t *workspaces =
        parse("acme:owner  beta:create-project gamma:member\tdelta:collaborator eps", *state);

    assert_int_equal(workspaces->count, 5);
    check_rule(workspaces, 0, "acme", ABB_ROLE_OWNER);
    check_rule(workspaces, 1, "beta", ABB_ROLE_CREATE_PROJECT);
    check_rule(workspaces, 2, "gamma", ABB_ROLE_MEMBER);
    check_rule(workspaces, 3, "delta", ABB_ROLE_COLLABORATOR);
    check_rule(workspaces, 4, "eps", ABB_ROLE_MEMBER);
}

static void uuids_lose_braces_and_capitals(void **state)
{
    const abb_authz_rows_t *workspaces = parse(
        "{" UUID "} {9A01F37B-B1B2-40C5-8C5E-1A39F4B5E645}:owner " UUID " " UUID ":collaborator",
        *state);

    assert_int_equal(workspaces->count, 4);
    check_rule(workspaces, 0, UUID, ABB_ROLE_MEMBER);
    check_rule(workspaces, 1, UUID, ABB_ROLE_OWNER);
    check_rule(workspaces, 2, UUID, ABB_ROLE_MEMBER);
    check_rule(workspaces, 3, UUID, ABB_ROLE_COLLABORATOR);
}

static void slugs_lose_capitals_and_quotes(void **state)
{
    const abb_authz_rows_t *workspaces = parse("ThiagoCodecov \"Acme_1.x-y:owner\" 'Beta'", *state);

    assert_int_equal(workspaces->count, 3);
    check_rule(workspaces, 0, "thiagocodecov", ABB_ROLE_MEMBER);
    check_rule(workspaces, 1, "acme_1.x-y", ABB_ROLE_OWNER);
    check_rule(workspaces, 2, "beta", ABB_ROLE_MEMBER);
}

static void names_have_a_longest_length(void **state)
{
    const abb_authz_rows_t *workspaces;

    assert_int_equal(parse(unit_repeat('a', 128, *state), *state)->count, 1);
    assert_non_null(abb_authz_parse_workspaces(
        abb_authz_split(unit_repeat('a', 129, *state), *state), &workspaces, *state));
}

/* A refusal says what was read. */
static void check_refused(const char *line, const char *word, apr_pool_t *p)
{
    const abb_authz_rows_t *workspaces;
    const char *fault = abb_authz_parse_workspaces(abb_authz_split(line, p), &workspaces, p);

    if (!fault) {
        fail_msg("'%s' is accepted", line);
    }
    if (!strstr(fault, apr_pstrcat(p, "'", word, "'", NULL))) {
        fail_msg("'%s': %s", line, fault);
    }
}

static void malformed_names_are_refused(void **state)
{
    static const char *const words[] = {
        ":member",
        "acme/site",
        "acme,beta",
        "acme:owner:member",
        "ac%6de",
        "acme?",
        "acme#",
        "acme@",
        "*",
        "{acme}",
        "{" UUID,
        UUID "}",
        "{" UUID "}x",
        "{" UUID "}x:member",
        "{}",
        "{",
        "}",
        "{" UUID "1}",
        "Z\xc3\xbcrich",
        "a\x7f",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(words); ++i) {
        check_refused(words[i], words[i], *state);
        check_refused(apr_pstrcat(*state, "acme ", words[i], " beta", NULL), words[i], *state);
    }
}

/* In a path of the API they would lead elsewhere. */
static void dots_alone_are_no_name(void **state)
{
    check_refused(".", ".", *state);
    check_refused("..", "..", *state);
    check_refused("..:owner", "..:owner", *state);
}

static void unknown_roles_are_refused(void **state)
{
    static const char *const roles[] = {"",        "admin",          "Owner",  "OWNER", "none",
                                        "members", "create_project", "owner ", "read"};

    for (apr_size_t i = 0; i < UNIT_COUNT(roles); ++i) {
        const char *word = apr_pstrcat(*state, "acme:", roles[i], NULL);
        const char *line = apr_pstrcat(*state, "\"", word, "\"", NULL);
        const abb_authz_rows_t *workspaces;
        const char *fault =
            abb_authz_parse_workspaces(abb_authz_split(line, *state), &workspaces, *state);

        check_refused(line, word, *state);
        assert_non_null(strstr(fault, "create-project"));
        check_refused(apr_pstrcat(*state, "\"{" UUID "}:", roles[i], "\"", NULL),
                      apr_pstrcat(*state, "{" UUID "}:", roles[i], NULL), *state);
    }
}

static void a_line_must_name_something(void **state)
{
    static const char *const lines[] = {"", " ", "\t  "};
    const abb_authz_rows_t *workspaces;
    const abb_authz_users_t *users;

    for (apr_size_t i = 0; i < UNIT_COUNT(lines); ++i) {
        assert_non_null(
            abb_authz_parse_workspaces(abb_authz_split(lines[i], *state), &workspaces, *state));
        assert_non_null(abb_authz_parse_users(abb_authz_split(lines[i], *state), &users, *state));
    }
}

static void an_empty_word_is_refused(void **state)
{
    check_refused("\"\"", "", *state);
    check_refused("acme \"\"", "", *state);
}

/* ---- bitbucket-workspace: the verdict ------------------------------------ */

typedef struct {
    abb_record_t record;
    abb_grant_t grants[4];
} rows_t;

static void add_row(rows_t *rows, const char *asked, abb_role_t role, apr_interval_time_t age)
{
    abb_grant_t *grant = &rows->grants[rows->record.grant_count++];

    grant->asked = asked;
    grant->slug = role ? asked : NULL;
    grant->uuid = role ? UUID : NULL;
    grant->role = role;
    grant->checked_at = NOW - age;
    rows->record.grants = rows->grants;
}

/* *row: the row that lets in; NULL when the verdict is another. */
static abb_authz_verdict_t check(const char *line, const rows_t *rows, const abb_grant_t **row,
                                 apr_pool_t *p)
{
    static const abb_record_ages_t ages = {MINUTES(5), MINUTES(60)};
    abb_authz_verdict_t verdict =
        abb_authz_check_rows(parse(line, p), &rows->record, &ages, NOW, row);

    assert_int_equal(*row != NULL, verdict == ABB_AUTHZ_GRANTED);
    return verdict;
}

static void check_age(abb_role_t role, apr_interval_time_t age, abb_authz_verdict_t expected,
                      apr_pool_t *p)
{
    rows_t rows;
    const abb_grant_t *row;
    abb_authz_verdict_t verdict;

    memset(&rows, 0, sizeof(rows));
    add_row(&rows, "acme", role, age);
    verdict = check("acme", &rows, &row, p);
    if (verdict != expected) {
        fail_msg("%s, %ld s old: verdict %d", abb_account_role_word(role), (long)apr_time_sec(age),
                 verdict);
    }
}

static void a_grant_counts_for_an_hour(void **state)
{
    check_age(ABB_ROLE_MEMBER, 0, ABB_AUTHZ_GRANTED, *state);
    check_age(ABB_ROLE_MEMBER, SECONDS(14), ABB_AUTHZ_GRANTED, *state);
    check_age(ABB_ROLE_MEMBER, SECONDS(16), ABB_AUTHZ_GRANTED, *state);
    check_age(ABB_ROLE_MEMBER, MINUTES(59), ABB_AUTHZ_GRANTED, *state);
    check_age(ABB_ROLE_MEMBER, MINUTES(60), ABB_AUTHZ_GRANTED, *state);
    check_age(ABB_ROLE_MEMBER, MINUTES(60) + 1, ABB_AUTHZ_ASK, *state);
    check_age(ABB_ROLE_MEMBER, MINUTES(61), ABB_AUTHZ_ASK, *state);
    check_age(ABB_ROLE_OWNER, MINUTES(61), ABB_AUTHZ_ASK, *state);
    check_age(ABB_ROLE_OWNER, NOW, ABB_AUTHZ_ASK, *state);
}

/* Under `not` it is what lets in, so it counts for as long as the other answer. */
static void a_definite_no_counts_for_an_hour_too(void **state)
{
    static const abb_role_t roles[] = {ABB_ROLE_NONE, ABB_ROLE_COLLABORATOR};

    for (apr_size_t i = 0; i < UNIT_COUNT(roles); ++i) {
        check_age(roles[i], 0, ABB_AUTHZ_DENIED, *state);
        check_age(roles[i], SECONDS(14), ABB_AUTHZ_DENIED, *state);
        check_age(roles[i], SECONDS(16), ABB_AUTHZ_DENIED, *state);
        check_age(roles[i], MINUTES(60), ABB_AUTHZ_DENIED, *state);
        check_age(roles[i], MINUTES(60) + 1, ABB_AUTHZ_ASK, *state);
        check_age(roles[i], MINUTES(61), ABB_AUTHZ_ASK, *state);
    }
}

static void rows_of_the_future_count_for_nothing(void **state)
{
    check_age(ABB_ROLE_OWNER, -SECONDS(119), ABB_AUTHZ_GRANTED, *state);
    check_age(ABB_ROLE_OWNER, -SECONDS(121), ABB_AUTHZ_ASK, *state);
    check_age(ABB_ROLE_OWNER, -MINUTES(600), ABB_AUTHZ_ASK, *state);
    check_age(ABB_ROLE_NONE, -SECONDS(119), ABB_AUTHZ_DENIED, *state);
    check_age(ABB_ROLE_NONE, -SECONDS(121), ABB_AUTHZ_ASK, *state);
}

static void a_role_grants_itself_and_what_is_below(void **state)
{
    static const char *const words[] = {"collaborator", "member", "create-project", "owner"};

    for (int role = ABB_ROLE_NONE; role <= ABB_ROLE_OWNER; ++role) {
        for (int wanted = 0; wanted < 4; ++wanted) {
            const char *line = apr_pstrcat(*state, "acme:", words[wanted], NULL);
            const abb_grant_t *row;
            rows_t rows;

            memset(&rows, 0, sizeof(rows));
            add_row(&rows, "acme", (abb_role_t)role, 0);
            assert_int_equal(check(line, &rows, &row, *state),
                             role >= wanted + 1 ? ABB_AUTHZ_GRANTED : ABB_AUTHZ_DENIED);
        }
    }
}

static void without_a_row_bitbucket_is_asked(void **state)
{
    rows_t rows;
    const abb_grant_t *row;

    memset(&rows, 0, sizeof(rows));
    assert_int_equal(check("acme beta", &rows, &row, *state), ABB_AUTHZ_ASK);
    add_row(&rows, "other", ABB_ROLE_OWNER, 0);
    assert_int_equal(check("acme beta", &rows, &row, *state), ABB_AUTHZ_ASK);
}

/* Only fresh answers about all of them refuse; one good answer grants. */
static void any_of_several_grants_and_all_refuse(void **state)
{
    rows_t rows;
    const abb_grant_t *row;

    memset(&rows, 0, sizeof(rows));
    add_row(&rows, "acme", ABB_ROLE_MEMBER, SECONDS(5));
    assert_int_equal(check("acme:owner beta", &rows, &row, *state), ABB_AUTHZ_ASK);
    add_row(&rows, "beta", ABB_ROLE_NONE, SECONDS(5));
    assert_int_equal(check("acme:owner beta", &rows, &row, *state), ABB_AUTHZ_DENIED);
    assert_int_equal(check("acme:owner acme:member beta", &rows, &row, *state), ABB_AUTHZ_GRANTED);
    assert_int_equal(check("beta acme", &rows, &row, *state), ABB_AUTHZ_GRANTED);
    rows.grants[0].checked_at = NOW - MINUTES(61);
    assert_int_equal(check("acme:owner beta", &rows, &row, *state), ABB_AUTHZ_ASK);
    rows.grants[0].checked_at = NOW;
    rows.grants[1].checked_at = NOW - MINUTES(61);
    assert_int_equal(check("beta acme:owner", &rows, &row, *state), ABB_AUTHZ_ASK);
}

/* An old good answer of one does not hide behind a fresh refusal of another. */
static void a_good_row_grants_behind_an_old_one(void **state)
{
    rows_t rows;
    const abb_grant_t *row;

    memset(&rows, 0, sizeof(rows));
    add_row(&rows, "acme", ABB_ROLE_OWNER, MINUTES(61));
    add_row(&rows, "beta", ABB_ROLE_MEMBER, MINUTES(59));
    assert_int_equal(check("acme beta", &rows, &row, *state), ABB_AUTHZ_GRANTED);
    rows.grants[1].checked_at = NOW - MINUTES(61);
    assert_int_equal(check("acme beta", &rows, &row, *state), ABB_AUTHZ_ASK);
}

/* So that fewer questions are due. */
static void the_youngest_row_lets_in(void **state)
{
    const abb_grant_t *row;
    rows_t rows;

    memset(&rows, 0, sizeof(rows));
    add_row(&rows, "acme", ABB_ROLE_OWNER, MINUTES(20));
    add_row(&rows, "beta", ABB_ROLE_OWNER, MINUTES(2));
    add_row(&rows, "gamma", ABB_ROLE_NONE, MINUTES(1));
    assert_int_equal(check("acme beta gamma", &rows, &row, *state), ABB_AUTHZ_GRANTED);
    assert_string_equal(row->asked, "beta");
}

static void refusals_rest_on_the_stricter_age(void **state)
{
    static const struct {
        int hard, since_refusal, since;
    } cases[] = {{3600, 15, 3600}, {15, 15, 15}, {10, 10, 10}, {0, 0, 0}};

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        abb_record_ages_t ages = {0, SECONDS(cases[i].hard)};

        assert_true(abb_authz_since(&ages, 1, NOW) == NOW - SECONDS(cases[i].since_refusal));
        assert_true(abb_authz_since(&ages, 0, NOW) == NOW - SECONDS(cases[i].since));
    }
}

static void only_usernames_may_change(void **state)
{
    assert_false(abb_authz_needs_names(parse_users("{" UUID "} 557058:" UUID, *state)));
    assert_true(abb_authz_needs_names(parse_users("{" UUID "} ada", *state)));
}

static void a_uuid_and_a_slug_are_different_rows(void **state)
{
    rows_t rows;
    const abb_grant_t *row;

    memset(&rows, 0, sizeof(rows));
    add_row(&rows, "acme", ABB_ROLE_OWNER, 0);
    assert_int_equal(check("{" UUID "}", &rows, &row, *state), ABB_AUTHZ_ASK);
    add_row(&rows, UUID, ABB_ROLE_MEMBER, 0);
    assert_int_equal(check("{" UUID "}", &rows, &row, *state), ABB_AUTHZ_GRANTED);
    assert_int_equal(check("{" UUID "}:owner", &rows, &row, *state), ABB_AUTHZ_DENIED);
}

/* ---- bitbucket-user ------------------------------------------------------ */

static void users_are_told_apart_by_their_form(void **state)
{
    const abb_authz_users_t *users =
        parse_users("{" UUID "} 5bce04c759d0e84f8c7555e9 557058:" UUID
                    " ThiagoCodecov 9A01F37B-B1B2-40C5-8C5E-1A39F4B5E645 712020:" UUID,
                    *state);

    assert_int_equal(users->count, 6);
    assert_string_equal(users->rules[0].uuid, UUID);
    assert_string_equal(users->rules[1].account_id, "5bce04c759d0e84f8c7555e9");
    assert_string_equal(users->rules[2].account_id, "557058:" UUID);
    assert_string_equal(users->rules[3].username, "ThiagoCodecov");
    assert_string_equal(users->rules[4].uuid, UUID);
    assert_string_equal(users->rules[5].account_id, "712020:" UUID);
    for (int i = 0; i < users->count; ++i) {
        const abb_authz_user_t *rule = &users->rules[i];

        assert_int_equal(
            (rule->uuid != NULL) + (rule->account_id != NULL) + (rule->username != NULL), 1);
    }
}

static void what_only_looks_like_an_id_is_a_name(void **state)
{
    static const char *const words[] = {"5bce04c759d0e84f8c7555e", "5bce04c759d0e84f8c7555e90",
                                        "5bce04c759d0e84f8c7555e9x", "5bce04c759d0e84f8c7555eg",
                                        "557058"};

    for (apr_size_t i = 0; i < UNIT_COUNT(words); ++i) {
        const abb_authz_users_t *users = parse_users(words[i], *state);

        assert_null(users->rules[0].account_id);
        assert_string_equal(users->rules[0].username, words[i]);
    }
}

static void malformed_users_are_refused(void **state)
{
    static const char *const words[] = {"ada@example.com", "ada:x",    "{ada}",    ":" UUID,
                                        "x:" UUID,         "1:2",      "a/b",      "a%20b",
                                        "{" UUID,          "\xc3\xa4", "712020:{", "*"};

    for (apr_size_t i = 0; i < UNIT_COUNT(words); ++i) {
        const abb_authz_users_t *users;
        const char *fault = abb_authz_parse_users(
            abb_authz_split(apr_pstrcat(*state, "ada ", words[i], NULL), *state), &users, *state);

        if (!fault || !strstr(fault, apr_pstrcat(*state, "'", words[i], "'", NULL))) {
            fail_msg("'%s': %s", words[i], fault ? fault : "accepted");
        }
    }
}

static abb_authz_verdict_t check_users(const char *line, const char *uuid, const char *account_id,
                                       const char *username, apr_pool_t *p)
{
    abb_record_t record;

    memset(&record, 0, sizeof(record));
    record.account.uuid = uuid;
    record.account.account_id = account_id;
    record.account.username = username;
    record.account.nickname = "nick";
    record.account.display_name = "nick";
    record.account.email = "nick";
    return abb_authz_check_users(parse_users(line, p), &record);
}

static void users_match_by_their_own_attribute(void **state)
{
    static const char id[] = "5bce04c759d0e84f8c7555e9";

    assert_int_equal(check_users("{" UUID "}", UUID, id, "ada", *state), ABB_AUTHZ_GRANTED);
    assert_int_equal(check_users(id, UUID, id, "ada", *state), ABB_AUTHZ_GRANTED);
    assert_int_equal(check_users("ada", UUID, id, "ada", *state), ABB_AUTHZ_GRANTED);
    assert_int_equal(check_users("bob ada", UUID, id, "ada", *state), ABB_AUTHZ_GRANTED);
    assert_int_equal(check_users("bob", UUID, id, "ada", *state), ABB_AUTHZ_DENIED);
    assert_int_equal(check_users("{" OTHER_UUID "}", UUID, id, "ada", *state), ABB_AUTHZ_DENIED);
    assert_int_equal(check_users("ada", UUID, id, "adalbert", *state), ABB_AUTHZ_DENIED);
    assert_int_equal(check_users("adalbert", UUID, id, "ada", *state), ABB_AUTHZ_DENIED);
    assert_int_equal(check_users("Ada", UUID, id, "ada", *state), ABB_AUTHZ_DENIED);
}

/* Whoever takes somebody's uuid or id for a name gains nothing. */
static void attributes_do_not_stand_for_each_other(void **state)
{
    static const char id[] = "5bce04c759d0e84f8c7555e9";

    assert_int_equal(check_users("{" UUID "}", OTHER_UUID, UUID, UUID, *state), ABB_AUTHZ_DENIED);
    assert_int_equal(check_users(id, UUID, NULL, id, *state), ABB_AUTHZ_DENIED);
    assert_int_equal(check_users("nick", UUID, id, "ada", *state), ABB_AUTHZ_DENIED);
    assert_int_equal(check_users("ada", UUID, NULL, NULL, *state), ABB_AUTHZ_DENIED);
}

/* ---- in plain words ------------------------------------------------------ */

static void a_line_is_described(void **state)
{
    const char *text =
        abb_authz_describe_rows(parse("Acme:owner {" UUID "} x:collaborator", *state), *state);

    assert_string_equal(text, "owner of acme or member of " UUID " or collaborator of x");
}

/* ---- bitbucket-repository ------------------------------------------------ */

static const abb_authz_rows_t *parse_repositories(const char *line, apr_pool_t *p)
{
    const abb_authz_rows_t *rows = NULL;
    const char *fault = abb_authz_parse_repositories(abb_authz_split(line, p), &rows, p);

    if (fault) {
        fail_msg("'%s': %s", line, fault);
    }
    return rows;
}

static void repositories_have_permissions(void **state)
{
    const abb_authz_rows_t *rows = parse_repositories(
        "acme/site Acme/Site:write x/{" UUID "}:admin {" UUID "}/{" OTHER_UUID "} a/b:read",
        *state);

    assert_int_equal(rows->count, 5);
    check_rule(rows, 0, "acme/site", ABB_ROLE_READ);
    /* As it is written: that is what Bitbucket is asked. */
    check_rule(rows, 1, "Acme/Site", ABB_ROLE_WRITE);
    check_rule(rows, 2, "x/" UUID, ABB_ROLE_ADMIN);
    check_rule(rows, 3, UUID "/" OTHER_UUID, ABB_ROLE_READ);
    check_rule(rows, 4, "a/b", ABB_ROLE_READ);
}

static void malformed_repositories_are_refused(void **state)
{
    static const char *const words[] = {
        "",
        "acme",
        "acme/",
        "/site",
        "acme/site/x",
        "a b/c\"",
        "acme/site:",
        "acme/s:rw",
        "acme/s:owner",
        "../acme/site",
        "acme/..",
        "acme/.",
        "acme/a%2fb",
        "a\"b/c",
        "{" UUID "}/site",
        "acme/site:read:write",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(words); ++i) {
        apr_array_header_t *one = apr_array_make(*state, 1, sizeof(const char *));
        const abb_authz_rows_t *rows;

        APR_ARRAY_PUSH(one, const char *) = words[i];
        if (!abb_authz_parse_repositories(one, &rows, *state)) {
            fail_msg("'%s' is accepted", words[i]);
        }
    }
}

/* A role in the workspace is no permission on its repositories, nor the other way round. */
static void rows_of_two_kinds_are_apart(void **state)
{
    static const abb_record_ages_t ages = {MINUTES(5), MINUTES(60)};
    const abb_grant_t *row;
    rows_t rows;

    memset(&rows, 0, sizeof(rows));
    add_row(&rows, "acme", ABB_ROLE_OWNER, 0);
    assert_int_equal(abb_authz_check_rows(parse_repositories("acme/site", *state), &rows.record,
                                          &ages, NOW, &row),
                     ABB_AUTHZ_ASK);
    add_row(&rows, "acme/site", ABB_ROLE_WRITE, 0);
    assert_int_equal(abb_authz_check_rows(parse_repositories("acme/site:write", *state),
                                          &rows.record, &ages, NOW, &row),
                     ABB_AUTHZ_GRANTED);
    assert_int_equal(abb_authz_check_rows(parse_repositories("acme/site:admin", *state),
                                          &rows.record, &ages, NOW, &row),
                     ABB_AUTHZ_DENIED);
}

/* ---- bitbucket-email ----------------------------------------------------- */

static void addresses_and_domains_match(void **state)
{
    static const struct {
        const char *line, *email, *emails;
        abb_authz_verdict_t expected;
    } cases[] = {
        {"ada@example.com", "ada@example.com", NULL, ABB_AUTHZ_GRANTED},
        {"Ada@EXAMPLE.com", "aDA@example.COM", NULL, ABB_AUTHZ_GRANTED},
        {"@example.com", "ada@example.com", NULL, ABB_AUTHZ_GRANTED},
        {"@Example.COM", "ada@eXample.com", NULL, ABB_AUTHZ_GRANTED},
        {"bob@example.com @example.com", "ada@example.com", NULL, ABB_AUTHZ_GRANTED},
        {"@work.example", "ada@home.example", "ada@home.example ada@work.example",
         ABB_AUTHZ_GRANTED},
        {"ada@work.example", "ada@home.example", "ada@home.example ada@work.example x@y.z",
         ABB_AUTHZ_GRANTED},
        {"@work.example", "ada@work.example", "ada@home.example", ABB_AUTHZ_GRANTED},
        {"ada@example.com", "bob@example.com", NULL, ABB_AUTHZ_DENIED},
        {"ada@example.com", "xada@example.com", NULL, ABB_AUTHZ_DENIED},
        {"ada@example.com", "ada@example.com.evil", NULL, ABB_AUTHZ_DENIED},
        {"@example.com", "ada@sub.example.com", NULL, ABB_AUTHZ_DENIED},
        {"@example.com", "ada@badexample.com", NULL, ABB_AUTHZ_DENIED},
        {"@example.com", "@example.com", NULL, ABB_AUTHZ_DENIED},
        {"@example.com", NULL, NULL, ABB_AUTHZ_DENIED},
        {"@example.com", "a@b.c", "a@b.c d@e.f", ABB_AUTHZ_DENIED},
        {"@example.com", "a@b.c", "a@b.c x@example.com.evil ", ABB_AUTHZ_DENIED},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        const abb_authz_emails_t *emails = NULL;
        abb_record_t record;

        memset(&record, 0, sizeof(record));
        record.account.email = cases[i].email;
        record.account.emails = cases[i].emails;
        assert_null(
            abb_authz_parse_emails(abb_authz_split(cases[i].line, *state), &emails, *state));
        if (abb_authz_check_emails(emails, &record) != cases[i].expected) {
            fail_msg("%s and %s", cases[i].line, cases[i].email);
        }
    }
}

static void malformed_addresses_are_refused(void **state)
{
    static const char *const words[] = {
        "",      "example.com",     "ada@",          "@",         "a@b@c",  "ada @example.com",
        "ada@.", "ada@exam_ple",    "ada@ex ample",  "*@a.b",     "@*.a.b", "a,b@c.d",
        "@a/b",  "ada@\xc3\xa4.de", "\xc3\xa4@a.de", "ada@a.b:c", "@.a.b",  "%{env:x}",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(words); ++i) {
        apr_array_header_t *one = apr_array_make(*state, 1, sizeof(const char *));
        const abb_authz_emails_t *emails;

        APR_ARRAY_PUSH(one, const char *) = words[i];
        if (strcmp(words[i], "*@a.b") != 0 && !abb_authz_parse_emails(one, &emails, *state)) {
            fail_msg("'%s' is accepted", words[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(malformed_addresses_are_refused),
        UNIT_TEST(addresses_and_domains_match),
        UNIT_TEST(rows_of_two_kinds_are_apart),
        UNIT_TEST(malformed_repositories_are_refused),
        UNIT_TEST(repositories_have_permissions),
        UNIT_TEST(a_plain_name_means_a_member),
        UNIT_TEST(a_line_names_any_of_several),
        UNIT_TEST(uuids_lose_braces_and_capitals),
        UNIT_TEST(slugs_lose_capitals_and_quotes),
        UNIT_TEST(names_have_a_longest_length),
        UNIT_TEST(malformed_names_are_refused),
        UNIT_TEST(dots_alone_are_no_name),
        UNIT_TEST(unknown_roles_are_refused),
        UNIT_TEST(a_line_must_name_something),
        UNIT_TEST(an_empty_word_is_refused),
        UNIT_TEST(a_grant_counts_for_an_hour),
        UNIT_TEST(a_definite_no_counts_for_an_hour_too),
        UNIT_TEST(rows_of_the_future_count_for_nothing),
        UNIT_TEST(a_role_grants_itself_and_what_is_below),
        UNIT_TEST(without_a_row_bitbucket_is_asked),
        UNIT_TEST(any_of_several_grants_and_all_refuse),
        UNIT_TEST(a_good_row_grants_behind_an_old_one),
        UNIT_TEST(a_uuid_and_a_slug_are_different_rows),
        UNIT_TEST(the_youngest_row_lets_in),
        UNIT_TEST(refusals_rest_on_the_stricter_age),
        UNIT_TEST(only_usernames_may_change),
        UNIT_TEST(users_are_told_apart_by_their_form),
        UNIT_TEST(what_only_looks_like_an_id_is_a_name),
        UNIT_TEST(malformed_users_are_refused),
        UNIT_TEST(users_match_by_their_own_attribute),
        UNIT_TEST(attributes_do_not_stand_for_each_other),
        UNIT_TEST(a_line_is_described),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
