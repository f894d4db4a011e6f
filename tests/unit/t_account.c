/* t_account: what is unknown grants nothing, and only a uuid passes for a uuid. */
#include "abb_account.h"

#include "unit.h"

#define UUID "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"

static const struct {
    const char *word;
    abb_role_t role;
} roles[] = {
    {"collaborator", ABB_ROLE_COLLABORATOR},
    {"member", ABB_ROLE_MEMBER},
    {"create-project", ABB_ROLE_CREATE_PROJECT},
    {"owner", ABB_ROLE_OWNER},
};

static void roles_are_read_and_written(void **state)
{
    for (apr_size_t i = 0; i < UNIT_COUNT(roles); ++i) {
        assert_int_equal(abb_account_parse_role(roles[i].word), roles[i].role);
        assert_string_equal(abb_account_role_word(roles[i].role), roles[i].word);
    }
    assert_string_equal(abb_account_role_word(ABB_ROLE_NONE), "none");
}

static void roles_compare_by_strength(void **state)
{
    assert_int_equal(ABB_ROLE_NONE, 0);
    assert_true(ABB_ROLE_COLLABORATOR > ABB_ROLE_NONE);
    assert_true(ABB_ROLE_MEMBER > ABB_ROLE_COLLABORATOR);
    assert_true(ABB_ROLE_CREATE_PROJECT > ABB_ROLE_MEMBER);
    assert_true(ABB_ROLE_OWNER > ABB_ROLE_CREATE_PROJECT);
}

static void an_unknown_role_grants_nothing(void **state)
{
    static const char *const words[] = {
        "",       "none",    "Owner",        "OWNER",          "own",           "owner ",
        " owner", "owner\n", "owners",       "admin",          "write",         "create_project",
        "create", "*",       "member,owner", "member\xc2\xa0", "m\xc3\xa9mber", "4",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(words); ++i) {
        if (abb_account_parse_role(words[i]) != ABB_ROLE_NONE) {
            fail_msg("'%s' passes for a role", words[i]);
        }
    }
}

static void uuids_are_folded_to_one_form(void **state)
{
    static const char *const forms[] = {
        UUID,
        "{" UUID "}",
        "0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0",
        "{0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0}",
        "0f1E2d3C-4b5A-6978-8796-a5B4c3D2e1F0",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(forms); ++i) {
        unit_equal(abb_account_parse_uuid(forms[i], *state), UUID, forms[i]);
    }
    assert_int_equal(strlen(UUID), ABB_UUID_LENGTH);
}

static void other_texts_are_no_uuid(void **state)
{
    static const char *const texts[] = {
        "",
        "{}",
        "{",
        "acme",
        "{" UUID,
        "{" UUID " ",
        "{" UUID "]",
        "[" UUID "}",
        UUID "}",
        "}" UUID "{",
        "{{" UUID "}}",
        "(" UUID ")",
        " " UUID,
        UUID " ",
        UUID "\n",
        "{ " UUID "}",
        "urn:uuid:" UUID,
        UUID "0",
        "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f",
        "{0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f}",
        "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "0f1e2d3c04b5a-6978-8796-a5b4c3d2e1f0",
        "0f1e2d3-c4b5a-6978-8796-a5b4c3d2e1f0",
        "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1g0",
        "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1 0",
        "0f1e2d3c-4b5a-6978-8796--5b4c3d2e1f0",
        "------------------------------------",
        "0f1e2d3c_4b5a_6978_8796_a5b4c3d2e1f0",
        "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e\xd9\xa1\x30",
        "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1\xff\xfe",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(texts); ++i) {
        if (abb_account_parse_uuid(texts[i], *state)) {
            fail_msg("'%s' passes for a uuid", texts[i]);
        }
    }
}

/* Each place takes hexadecimal digits, or a dash, and nothing else. */
static void each_place_of_a_uuid_is_checked(void **state)
{
    for (apr_size_t i = 0; i < ABB_UUID_LENGTH; ++i) {
        for (int byte = 1; byte < 256; ++byte) {
            char *text = apr_pstrdup(*state, UUID);
            const char *allowed = UUID[i] == '-' ? "-" : "0123456789abcdefABCDEF";
            int fits = strchr(allowed, byte) != NULL;

            text[i] = (char)byte;
            if ((abb_account_parse_uuid(text, *state) != NULL) != fits) {
                fail_msg("byte %02x at %d", byte, (int)i);
            }
        }
    }
}

static void a_uuid_is_a_copy(void **state)
{
    char text[] = "{0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0}";
    const char *uuid = abb_account_parse_uuid(text, *state);

    assert_string_equal(text, "{0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0}");
    memset(text, 'x', sizeof(text) - 1);
    assert_string_equal(uuid, UUID);
}

static void names_split_at_the_first_space(void **state)
{
    static const struct {
        const char *name;
        const char *first;
        const char *last;
    } names[] = {
        {NULL, NULL, NULL},
        {"Ada", "Ada", NULL},
        {"Ada Lovelace", "Ada", "Lovelace"},
        {"Ada King Lovelace", "Ada", "King Lovelace"},
        {"Ada-King Lovelace", "Ada-King", "Lovelace"},
        {"Ada ", "Ada", NULL},
        {"J\xc3\xb6rg M\xc3\xbcller", "J\xc3\xb6rg", "M\xc3\xbcller"},
        {"Ada\tLovelace", "Ada\tLovelace", NULL},
        {"Ada\xc2\xa0Lovelace", "Ada\xc2\xa0Lovelace", NULL},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(names); ++i) {
        const char *first = "unset";
        const char *last = "unset";

        abb_account_split_name(names[i].name, &first, &last, *state);
        unit_equal(first, names[i].first, "first name");
        unit_equal(last, names[i].last, "last name");
    }
}

/* What is not told is NULL, never "". */
static void no_part_of_a_name_is_empty(void **state)
{
    static const char *const names[] = {" ", "  ", " Ada", "Ada  ", "Ada  Lovelace", "  Ada  L "};

    for (apr_size_t i = 0; i < UNIT_COUNT(names); ++i) {
        const char *first;
        const char *last;

        abb_account_split_name(names[i], &first, &last, *state);
        if ((first && !*first) || (last && !*last)) {
            fail_msg("'%s' has an empty part", names[i]);
        }
    }
}

/* ---- scopes -------------------------------------------------------------- */

static void scopes_include_others(void **state)
{
    static const struct {
        const char *granted;
        const char *scope;
        int is_there;
    } rows[] = {
        {"account email", "account", 1},
        {"account email", "email", 1},
        {"account,email", "email", 1},
        {"account email", "repository", 0},
        {"", "account", 0},
        {"account:write", "account", 1},
        {"repository:write", "repository", 1},
        {"pullrequest", "repository", 1},
        {"repository:admin", "repository", 0},
        {"repository:delete", "repository", 0},
        {"repositoryx", "repository", 0},
        {"email", "account", 0},
        {"  account  ", "account", 1},
        {"webhook", "webhook", 1},
        {"account", "accoun", 0},
        {"team", "account", 0},
    };

    for (apr_size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i) {
        if (abb_account_has_scope(rows[i].granted, rows[i].scope) != rows[i].is_there) {
            fail_msg("'%s' and '%s'", rows[i].granted, rows[i].scope);
        }
    }
}

static void scopes_have_names_in_the_form(void **state)
{
    assert_string_equal(abb_account_scope_label("repository"), "Repositories: Read");
    assert_string_equal(abb_account_scope_label("email"), "Account: Email");
    assert_string_equal(abb_account_scope_label("webhook"), "webhook");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(roles_are_read_and_written),
        UNIT_TEST(roles_compare_by_strength),
        UNIT_TEST(an_unknown_role_grants_nothing),
        UNIT_TEST(uuids_are_folded_to_one_form),
        UNIT_TEST(other_texts_are_no_uuid),
        UNIT_TEST(each_place_of_a_uuid_is_checked),
        UNIT_TEST(a_uuid_is_a_copy),
        UNIT_TEST(names_split_at_the_first_space),
        UNIT_TEST(no_part_of_a_name_is_empty),
        UNIT_TEST(scopes_include_others),
        UNIT_TEST(scopes_have_names_in_the_form),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
