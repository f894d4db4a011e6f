/* rules (floor 7): the Require lines of this module. See abb_rules.h. */
#include "abb_rules.h"

#include <ap_expr.h>
#include <ap_provider.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_request.h>
#include <mod_auth.h>

#include "abb_ask.h"
#include "abb_authz.h"
#include "abb_log.h"
#include "abb_text.h"

APLOG_USE_MODULE(auth_bitbucket);

/* Most characters of a rule, and of what is known about it, that a line of the log has. */
#define TOLD_MAX 300

/* What one keyword is. */
typedef struct {
    const char *keyword;
    /* Compile arguments; a sentence's end about what is wrong, or NULL. */
    const char *(*parse)(const apr_array_header_t *words, const void **compiled, apr_pool_t *p);
    /* Compare the signed-in account with compiled arguments. */
    authz_status (*check)(abb_visit_t *visit, request_rec *r, const void *compiled);
    /* The rows that will be looked at, or NULL: none. */
    const abb_authz_rows_t *(*rows)(const void *compiled);
    /* The scope that answers need beside account's, or NULL: none. */
    const char *scope;
    /* Whom it lets in it names. */
    int names_accounts;
} kind_t;

/* A line as it was read. */
typedef struct {
    /* NULL: there are expressions to evaluate first. */
    const void *compiled;
    /* The arguments, and for each its expression or NULL. */
    const apr_array_header_t *words;
    const ap_expr_info_t **expressions;
    /* Under `not` or <RequireNone>, or perhaps so: what it denies lets in. */
    int is_negated;
    /* It lives as long as the configuration, not only as a request. */
    int is_lasting;
} line_t;

/* ---- reading a line ------------------------------------------------------ */

static int is_negated(const cmd_parms *cmd)
{
    const char *arguments = cmd->directive->args;

    if (strcasecmp(ap_getword_conf(cmd->temp_pool, &arguments), "not") == 0) {
        return 1;
    }
    for (const ap_directive_t *node = cmd->directive; node; node = node->parent) {
        /* An alias is read once; it may stand under `not` wherever it is used. */
        if (strcasecmp(node->directive, "<RequireNone") == 0 ||
            strcasecmp(node->directive, "<AuthzProviderAlias") == 0) {
            return 1;
        }
    }
    return 0;
}

/* Compile the expressions among the arguments. *count: how many there are. */
static const char *parse_expressions(cmd_parms *cmd, line_t *line, int *count)
{
    const apr_array_header_t *words = line->words;

    *count = 0;
    line->expressions =
        apr_pcalloc(cmd->pool, (apr_size_t)(words->nelts + 1) * sizeof(*line->expressions));
    for (int i = 0; i < words->nelts; ++i) {
        const char *word = APR_ARRAY_IDX(words, i, const char *);
        const char *why = NULL;

        if (!strstr(word, "%{")) {
            continue;
        }
        line->expressions[i] = ap_expr_parse_cmd(cmd, word, AP_EXPR_FLAG_STRING_RESULT, &why, NULL);
        if (why) {
            return apr_psprintf(cmd->pool, "'%s' is no expression: %s", word, why);
        }
        ++*count;
    }
    return NULL;
}

/* A line in .htaccess belongs to one request; what it names is asked on first need. */
static void announce_rows(cmd_parms *cmd, const kind_t *kind, const line_t *line)
{
    const abb_authz_rows_t *rows = kind->rows ? kind->rows(line->compiled) : NULL;

    for (int i = 0; rows && line->is_lasting && i < rows->count; ++i) {
        abb_config_add_workspace(cmd->server, rows->rules[i].asked);
    }
}

static const char *parse_line(cmd_parms *cmd, const kind_t *kind, const char *arguments,
                              const void **parsed)
{
    line_t *line = apr_pcalloc(cmd->pool, sizeof(*line));
    const char *fault;
    int expressions;

    line->words = abb_authz_split(arguments, cmd->pool);
    line->is_negated = is_negated(cmd);
    line->is_lasting = ap_check_cmd_context(cmd, NOT_IN_HTACCESS) == NULL;
    fault = parse_expressions(cmd, line, &expressions);
    if (!fault && !expressions) {
        fault = kind->parse(line->words, &line->compiled, cmd->pool);
    }
    if (fault) {
        return apr_pstrcat(cmd->pool, "Require ", kind->keyword, ": ", fault, NULL);
    }
    if (line->compiled) {
        announce_rows(cmd, kind, line);
    }
    if (kind->scope && line->is_lasting) {
        abb_config_need_scope(cmd, kind->scope,
                              apr_pstrcat(cmd->pool, "Require ", kind->keyword, NULL));
    }
    *parsed = line;
    return NULL;
}

/* ---- expressions --------------------------------------------------------- */

/* The arguments as they are for this request; NULL when one fails or comes to nothing. */
static const apr_array_header_t *evaluate(request_rec *r, const line_t *line, apr_pool_t *p)
{
    apr_array_header_t *words = apr_array_copy(p, line->words);

    for (int i = 0; i < words->nelts; ++i) {
        const char *why = NULL;
        const char *value;

        if (!line->expressions[i]) {
            continue;
        }
        value = ap_expr_str_exec(r, line->expressions[i], &why);
        if (why || !value || !*value) {
            ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                          ABB_LOGNO(0108) "Require: %s comes to nothing here%s%s, so it lets "
                                          "nobody in",
                          APR_ARRAY_IDX(line->words, i, const char *), why ? ": " : "",
                          why ? why : "");
            return NULL;
        }
        APR_ARRAY_IDX(words, i, const char *) = apr_pstrdup(p, value);
    }
    return words;
}

/* The arguments compiled for this request; NULL when they cannot be. */
static const void *compile(request_rec *r, const kind_t *kind, const line_t *line, apr_pool_t *p)
{
    const apr_array_header_t *words;
    const void *compiled = NULL;
    const char *fault;

    if (line->compiled) {
        return line->compiled;
    }
    if (!(words = evaluate(r, line, p))) {
        return NULL;
    }
    fault = kind->parse(words, &compiled, p);
    if (fault) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      ABB_LOGNO(0109) "Require %s lets nobody in here: %s", kind->keyword,
                      abb_text_loggable(fault, 200, r->pool));
    }
    return fault ? NULL : compiled;
}

static void want_rows(abb_visit_t *visit, const kind_t *kind, const void *compiled)
{
    const abb_authz_rows_t *rows = compiled && kind->rows ? kind->rows(compiled) : NULL;

    for (int i = 0; rows && i < rows->count; ++i) {
        abb_visit_want_workspace(visit, rows->rules[i].asked);
    }
}

/* Before anybody is known: note what this place will ask about. */
static authz_status ask_for_user(request_rec *r, const kind_t *kind, const line_t *line)
{
    /* Also where the AuthType is another's: nobody is sent to sign in from there. */
    abb_visit_t *visit = kind->rows ? abb_visit_of(r) : NULL;

    if (visit) {
        want_rows(visit, kind, compile(r, kind, line, visit->pool));
    }
    return AUTHZ_DENIED_NO_USER;
}

/* What cannot be decided lets nobody in; under `not` a plain no would. */
static authz_status undecidable(abb_visit_t *visit, const line_t *line)
{
    visit->refused_by = "what this page's address asks for";
    if (line->is_negated) {
        visit->is_undecidable = 1;
        return AUTHZ_GENERAL_ERROR;
    }
    return AUTHZ_DENIED;
}

/* Who may pass without a name is nobody whom a line could be about, if there is such a line. */
static authz_status check_stranger(abb_visit_t *visit, request_rec *r, const kind_t *kind,
                                   const line_t *line)
{
    const void *compiled = compile(r, kind, line, visit->pool);

    if (!compiled) {
        return undecidable(visit, line);
    }
    want_rows(visit, kind, compiled);
    return AUTHZ_DENIED_NO_USER;
}

/* What is known of each row that a line is about: "acme=member/12s". */
static const char *known_words(const abb_visit_t *visit, const kind_t *kind, const void *compiled,
                               apr_pool_t *p)
{
    const abb_authz_rows_t *rows = kind->rows ? kind->rows(compiled) : NULL;
    const char *words = "";

    for (int i = 0; rows && i < rows->count; ++i) {
        const char *asked = rows->rules[i].asked;
        const abb_grant_t *row = abb_record_find_grant(&visit->session->record, asked);

        words = apr_psprintf(p, "%s%s%s=%s/%" APR_TIME_T_FMT "s", words, *words ? " " : "", asked,
                             row ? abb_account_role_word(row->role) : "unknown",
                             row ? apr_time_sec(visit->now - row->checked_at) : 0);
    }
    return abb_text_quotable(words, TOLD_MAX, p);
}

static void tell_rule(const abb_visit_t *visit, request_rec *r, const kind_t *kind,
                      const line_t *line, const void *compiled, authz_status status)
{
    const char *words = apr_array_pstrcat(r->pool, line->words, ' ');

    ap_log_rerror(APLOG_MARK, APLOG_TRACE2, 0, r,
                  ABB_LOGNO(0112) "rule; require=\"%s %s\" outcome=%s session=%s known=\"%s\"",
                  kind->keyword, abb_text_quotable(words, TOLD_MAX, r->pool),
                  status == AUTHZ_GRANTED         ? "yes"
                  : status == AUTHZ_GENERAL_ERROR ? "undecided"
                                                  : "no",
                  visit->session->tag, known_words(visit, kind, compiled, r->pool));
}

static authz_status check_account(abb_visit_t *visit, request_rec *r, const kind_t *kind,
                                  const line_t *line, const void *compiled)
{
    authz_status status = kind->check(visit, r, compiled);

    if (APLOG_R_IS_LEVEL(r, APLOG_TRACE2)) {
        tell_rule(visit, r, kind, line, compiled, status);
    }

    if (status == AUTHZ_GRANTED && kind->names_accounts && !line->is_negated) {
        visit->is_account_named = 1;
    }
    return status;
}

static authz_status check_line(request_rec *r, const kind_t *kind, const line_t *line)
{
    const void *compiled;
    abb_visit_t *visit;

    if (!r->user) {
        return ask_for_user(r, kind, line);
    }
    visit = abb_visit_find(r);
    /* Whoever was a stranger at the place before a redirect need not be one here. */
    if (visit && visit->is_stranger && !*r->user) {
        return check_stranger(visit, r, kind, line);
    }
    if (!visit || !visit->session) {
        return AUTHZ_DENIED;
    }
    compiled = compile(r, kind, line, visit->pool);
    return compiled ? check_account(visit, r, kind, line, compiled) : undecidable(visit, line);
}

/* ---- rows: bitbucket-workspace, bitbucket-repository --------------------- */

static const abb_authz_rows_t *rows_of(const void *compiled)
{
    return compiled;
}

/* All that this line and its neighbours are going to want, so that they wait once. */
static apr_status_t ask_about_rows(abb_visit_t *visit, request_rec *r, const abb_authz_rows_t *rows)
{
    const char **names =
        apr_palloc(visit->pool, (apr_size_t)(rows->count + visit->wanted_count) * sizeof(*names));
    abb_recheck_question_t question = {.workspaces = names,
                                       .since = abb_authz_since(&visit->site->ages, 0, visit->now)};

    for (int i = 0; i < rows->count; ++i) {
        names[question.workspace_count++] = rows->rules[i].asked;
    }
    for (int i = 0; i < visit->wanted_count; ++i) {
        names[question.workspace_count++] = visit->wanted[i];
    }
    abb_error_clear(&visit->trouble);
    return abb_ask_bitbucket(visit, r, &question, &visit->trouble);
}

static authz_status grant(abb_visit_t *visit, const abb_grant_t *row)
{
    abb_visit_rest_on(visit, row->asked, row->checked_at);
    return AUTHZ_GRANTED;
}

static authz_status deny(abb_visit_t *visit, const abb_authz_rows_t *rows)
{
    for (int i = 0; i < rows->count; ++i) {
        const abb_grant_t *row =
            abb_record_find_grant(&visit->session->record, rows->rules[i].asked);

        if (row) {
            abb_visit_rest_on(visit, row->asked, row->checked_at);
        }
    }
    visit->refused_by = abb_authz_describe_rows(rows, visit->pool);
    return AUTHZ_DENIED;
}

static authz_status check_rows(abb_visit_t *visit, request_rec *r, const void *compiled)
{
    const abb_authz_rows_t *rows = compiled;
    apr_status_t asked = APR_SUCCESS;
    const abb_grant_t *row;

    /* Each round settles some rows, so it ends; one more to read the last answers. */
    for (int i = 0; i <= rows->count; ++i) {
        abb_authz_verdict_t verdict = abb_authz_check_rows(rows, &visit->session->record,
                                                           &visit->site->ages, visit->now, &row);

        /* What could not be asked about need not matter. */
        if (verdict != ABB_AUTHZ_ASK && asked != APR_NOTFOUND) {
            abb_error_clear(&visit->trouble);
            return verdict == ABB_AUTHZ_GRANTED ? grant(visit, row) : deny(visit, rows);
        }
        if (asked != APR_SUCCESS) {
            return AUTHZ_GENERAL_ERROR;
        }
        asked = ask_about_rows(visit, r, rows);
    }
    abb_error_set(&visit->trouble, ABB_EUPSTREAM, "Bitbucket's answers grow old while being read");
    return AUTHZ_GENERAL_ERROR;
}

static const char *compile_workspaces(const apr_array_header_t *words, const void **compiled,
                                      apr_pool_t *p)
{
    const abb_authz_rows_t *rows = NULL;
    const char *fault = abb_authz_parse_workspaces(words, &rows, p);

    *compiled = rows;
    return fault;
}

static const char *compile_repositories(const apr_array_header_t *words, const void **compiled,
                                        apr_pool_t *p)
{
    const abb_authz_rows_t *rows = NULL;
    const char *fault = abb_authz_parse_repositories(words, &rows, p);

    *compiled = rows;
    return fault;
}

static const kind_t workspace_kind = {
    "bitbucket-workspace", compile_workspaces, check_rows, rows_of, NULL, 0};
static const kind_t repository_kind = {
    "bitbucket-repository", compile_repositories, check_rows, rows_of, "repository", 0};

/* ---- the account: bitbucket-user, bitbucket-email ------------------------ */

static const char *compile_users(const apr_array_header_t *words, const void **compiled,
                                 apr_pool_t *p)
{
    const abb_authz_users_t *users = NULL;
    const char *fault = abb_authz_parse_users(words, &users, p);

    *compiled = users;
    return fault;
}

static authz_status check_users(abb_visit_t *visit, request_rec *r, const void *compiled)
{
    /* Under `not` a yes refuses. */
    visit->basis.names |= abb_authz_needs_names(compiled);
    if (abb_authz_check_users(compiled, &visit->session->record) == ABB_AUTHZ_GRANTED) {
        return AUTHZ_GRANTED;
    }
    visit->refused_by = "one of the accounts named for this page";
    return AUTHZ_DENIED;
}

static const char *compile_emails(const apr_array_header_t *words, const void **compiled,
                                  apr_pool_t *p)
{
    const abb_authz_emails_t *emails = NULL;
    const char *fault = abb_authz_parse_emails(words, &emails, p);

    *compiled = emails;
    return fault;
}

static authz_status check_emails(abb_visit_t *visit, request_rec *r, const void *compiled)
{
    visit->basis.names = 1;
    if (abb_authz_check_emails(compiled, &visit->session->record) == ABB_AUTHZ_GRANTED) {
        return AUTHZ_GRANTED;
    }
    visit->refused_by = "a confirmed e-mail address that this page is for";
    return AUTHZ_DENIED;
}

static const kind_t user_kind = {"bitbucket-user", compile_users, check_users, NULL, NULL, 1};
static const kind_t email_kind = {
    "bitbucket-email", compile_emails, check_emails, NULL, "email", 0};

/* ---- httpd's providers --------------------------------------------------- */

static authz_status check_workspace_line(request_rec *r, const char *text, const void *parsed)
{
    return check_line(r, &workspace_kind, parsed);
}

static const char *parse_workspace_line(cmd_parms *cmd, const char *text, const void **parsed)
{
    return parse_line(cmd, &workspace_kind, text, parsed);
}

static authz_status check_repository_line(request_rec *r, const char *text, const void *parsed)
{
    return check_line(r, &repository_kind, parsed);
}

static const char *parse_repository_line(cmd_parms *cmd, const char *text, const void **parsed)
{
    return parse_line(cmd, &repository_kind, text, parsed);
}

static authz_status check_user_line(request_rec *r, const char *text, const void *parsed)
{
    return check_line(r, &user_kind, parsed);
}

static const char *parse_user_line(cmd_parms *cmd, const char *text, const void **parsed)
{
    return parse_line(cmd, &user_kind, text, parsed);
}

static authz_status check_email_line(request_rec *r, const char *text, const void *parsed)
{
    return check_line(r, &email_kind, parsed);
}

static const char *parse_email_line(cmd_parms *cmd, const char *text, const void **parsed)
{
    return parse_line(cmd, &email_kind, text, parsed);
}

void abb_rules_register(apr_pool_t *p)
{
    static const struct {
        const kind_t *kind;
        authz_provider provider;
    } rules[] = {
        {&workspace_kind, {check_workspace_line, parse_workspace_line}},
        {&repository_kind, {check_repository_line, parse_repository_line}},
        {&user_kind, {check_user_line, parse_user_line}},
        {&email_kind, {check_email_line, parse_email_line}},
    };

    for (apr_size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); ++i) {
        ap_register_auth_provider(p, AUTHZ_PROVIDER_GROUP, rules[i].kind->keyword,
                                  AUTHZ_PROVIDER_VERSION, &rules[i].provider,
                                  AP_AUTH_INTERNAL_PER_CONF);
    }
}
