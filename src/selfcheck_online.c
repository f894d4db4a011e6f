/* selfcheck (floor 6): whether Bitbucket and the cache can be worked with. See selfcheck_internal.h. */
#include <httpd.h>

#include <apr_strings.h>
#include <http_config.h>

#include "abb_memory.h"
#include "abb_reply.h"
#include "selfcheck_internal.h"

/* Clocks further apart make sign-ins and time-outs go wrong, in seconds. */
#define CLOCK_TOLERANCE 60

/* ---- lines --------------------------------------------------------------- */

static void print_good(const abb_selfcheck_t *look, const char *what)
{
    apr_file_printf(look->out, "ok      %s\n", what);
}

static void print_doubt(const abb_selfcheck_t *look, const char *what, const char *remedy)
{
    apr_file_printf(look->out, "warning %s: %s\n", what, remedy);
}

static void print_failure(abb_selfcheck_t *look, const char *what, const abb_error_t *err,
                          const char *remedy)
{
    ++look->failures;
    apr_file_printf(look->out, "FAILED  %s: %s: %s\n", what, err->text, remedy);
}

static const char *remedy_of(apr_status_t status)
{
    switch (status) {
    case ABB_ECLIENT:
        return "copy key and secret again from the OAuth client's page at Bitbucket, and see that "
               "a Callback URL stands there";
    case ABB_ELIMIT:
        return "wait a minute and check again";
    case ABB_EGONE:
        return "look for a newer version of this module";
    default:
        return "see whether this machine gets there: name server, firewall, AuthBitbucketProxy, "
               "AuthBitbucketCAFile, and status.atlassian.com";
    }
}

/* ---- the session cache --------------------------------------------------- */

void abb_selfcheck_ask_for_server(abb_selfcheck_t *look)
{
    abb_error_t err;
    const char *what;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_memory_probe(look->main_server, look->pool, &err);
    if (status == APR_NOTFOUND) {
        return;
    }
    what = apr_pstrcat(look->pool, "session cache ",
                       abb_config_cache(look->main_server).shared->specification, NULL);
    if (status == APR_SUCCESS) {
        print_good(look, what);
        return;
    }
    print_failure(look, what, &err, "see whether it runs and can be reached from here");
}

/* ---- what was asked ------------------------------------------------------ */

/*
 * One question to Bitbucket, asked once however many sites it is about: who has no
 * token may ask seldom.
 */
typedef struct {
    const abb_bitbucket_t *bitbucket;
    const char *what;
    /* The client's, when it is about a client; else NULL. Secret. */
    const char *secret;
    /* What the client was granted; NULL: not known. */
    const char *scope;
} asked_t;

static int is_same_text(const char *one, const char *other)
{
    return one == other || (one && other && strcmp(one, other) == 0);
}

static int is_same_way(const abb_bitbucket_t *one, const abb_bitbucket_t *other)
{
    return is_same_text(one->token_url, other->token_url) &&
           is_same_text(one->api_url, other->api_url) &&
           is_same_text(one->http_settings.proxy, other->http_settings.proxy) &&
           is_same_text(one->http_settings.ca_file, other->http_settings.ca_file);
}

/* The question, and whether it was asked before. */
static asked_t *find_asked(abb_selfcheck_t *look, const char *what, const char *secret, int *before)
{
    const abb_bitbucket_t *bitbucket = &look->site->bitbucket;
    asked_t *asked;

    for (int i = 0; i < look->asked->nelts; ++i) {
        asked = &APR_ARRAY_IDX(look->asked, i, asked_t);
        if (is_same_text(asked->what, what) && is_same_text(asked->secret, secret) &&
            is_same_way(asked->bitbucket, bitbucket)) {
            *before = 1;
            apr_file_printf(look->out, "above   %s\n", what);
            return asked;
        }
    }
    asked = apr_array_push(look->asked);
    *asked = (asked_t){bitbucket, what, secret, NULL};
    *before = 0;
    return asked;
}

/* ---- an OAuth client ----------------------------------------------------- */

static void ask_about_client(abb_selfcheck_t *look, const char *what, abb_bitbucket_heard_t *heard)
{
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_bitbucket_probe_client(&look->site->bitbucket, heard, look->pool, &err) ==
        APR_SUCCESS) {
        print_good(look, what);
        return;
    }
    print_failure(look, err.status == ABB_ECLIENT ? what : "token endpoint", &err,
                  remedy_of(err.status));
}

/* Returns what the client was granted; NULL: not known. */
static const char *check_client(abb_selfcheck_t *look, abb_bitbucket_heard_t *heard)
{
    const abb_bitbucket_t *bitbucket = &look->site->bitbucket;
    const char *what = apr_pstrcat(look->pool, "key and secret of ", bitbucket->client_id, NULL);
    int before;
    asked_t *asked = find_asked(look, what, bitbucket->client_secret, &before);

    if (!before) {
        ask_about_client(look, what, heard);
        asked->scope = heard->scope;
    }
    return asked->scope;
}

/*
 * That what a client gets for itself is all that is ticked is seen, not written:
 * so no more than a doubt.
 */
static void check_permissions(const abb_selfcheck_t *look, const char *granted)
{
    const apr_array_header_t *needs = look->site->needs;

    for (int i = 0; granted && i < needs->nelts; ++i) {
        const abb_config_need_t *need = &APR_ARRAY_IDX(needs, i, abb_config_need_t);

        if (!abb_account_has_scope(granted, need->scope)) {
            print_doubt(
                look,
                apr_pstrcat(look->pool, "permission ", abb_account_scope_label(need->scope), NULL),
                apr_psprintf(look->pool, "%s needs it; tick it on the OAuth client", need->why));
        }
    }
}

/*
 * Without a colon a scope is for reading, but for two. Source: developer.atlassian.com,
 * Bitbucket Cloud REST API, its OpenAPI file, scopes of oauth2, 2026-11.
 */
static int changes_things(const char *scope)
{
    return strchr(scope, ':') || strcmp(scope, "webhook") == 0 || strcmp(scope, "wiki") == 0;
}

/*
 * A visitor's token has what is ticked, unless the site asks for less. What no rule can
 * need is only of use to applications that are given the token, or to a thief.
 */
static void check_excess(const abb_selfcheck_t *look, const char *granted)
{
    const char *excess = "";
    char *words = apr_pstrdup(look->pool, granted ? granted : "");
    char *rest;

    for (char *word = apr_strtok(words, " ,", &rest); word; word = apr_strtok(NULL, " ,", &rest)) {
        if (changes_things(word)) {
            excess = apr_pstrcat(look->pool, excess, " ", word, NULL);
        }
    }
    if (*excess && !look->site->bitbucket.scope) {
        print_doubt(look, apr_pstrcat(look->pool, "permissions to change things:", excess, NULL),
                    "no rule needs them; untick them on the OAuth client, unless applications "
                    "are given the token and need them");
    }
}

/* ---- the API ------------------------------------------------------------- */

static void check_part(abb_selfcheck_t *look, const char *what, abb_bitbucket_part_t part,
                       const char *asked, abb_bitbucket_heard_t *heard)
{
    abb_error_t err;
    int before;

    find_asked(look, what, NULL, &before);
    if (before) {
        return;
    }
    abb_error_clear(&err);
    if (abb_bitbucket_probe_api(&look->site->bitbucket, part, asked, heard, look->pool, &err) ==
        APR_SUCCESS) {
        print_good(look, what);
        return;
    }
    print_failure(look, what, &err, remedy_of(err.status));
}

/* The first workspace, or repository, that the rules name; NULL: none. */
static const char *first_name(const abb_selfcheck_t *look, int is_repository)
{
    const apr_array_header_t *names = look->site->workspaces;

    for (int i = 0; i < names->nelts; ++i) {
        const char *name = APR_ARRAY_IDX(names, i, const char *);

        if (abb_account_is_repository(name) == is_repository) {
            return name;
        }
    }
    return NULL;
}

static int needs_scope(const abb_selfcheck_t *look, const char *scope)
{
    const apr_array_header_t *needs = look->site->needs;

    for (int i = 0; i < needs->nelts; ++i) {
        if (strcmp(APR_ARRAY_IDX(needs, i, abb_config_need_t).scope, scope) == 0) {
            return 1;
        }
    }
    return 0;
}

static void check_api(abb_selfcheck_t *look, abb_bitbucket_heard_t *heard)
{
    const char *workspace = first_name(look, 0);
    const char *repository = first_name(look, 1);

    check_part(look, "API: account", ABB_BITBUCKET_USER, NULL, heard);
    if (needs_scope(look, "email")) {
        check_part(look, "API: e-mail addresses", ABB_BITBUCKET_EMAILS, NULL, heard);
    }
    if (workspace) {
        check_part(look, "API: roles in workspaces", ABB_BITBUCKET_GRANT, workspace, heard);
    }
    if (repository) {
        check_part(look, "API: permissions on repositories", ABB_BITBUCKET_GRANT, repository,
                   heard);
    }
}

/* ---- clocks -------------------------------------------------------------- */

static void check_clock(const abb_selfcheck_t *look, const abb_bitbucket_heard_t *heard)
{
    apr_int64_t ahead = apr_time_sec(heard->heard_at - heard->date);
    apr_int64_t apart = ahead < 0 ? -ahead : ahead;

    if (!heard->date) {
        return;
    }
    if (apart <= CLOCK_TOLERANCE) {
        print_good(look, "clock");
        return;
    }
    print_doubt(look, "clock",
                apr_psprintf(look->pool,
                             "this machine's is %" APR_INT64_T_FMT " s %s Bitbucket's; set it",
                             apart, ahead > 0 ? "ahead of" : "behind"));
}

/* ---- all ----------------------------------------------------------------- */

static void check_site(abb_selfcheck_t *look)
{
    abb_bitbucket_heard_t heard = {0};
    const char *granted = check_client(look, &heard);

    check_permissions(look, granted);
    check_excess(look, granted);
    check_api(look, &heard);
    check_clock(look, &heard);
}

void abb_selfcheck_ask_for_sites(abb_selfcheck_t *look, const apr_array_header_t *servers)
{
    abb_http_t *http;
    abb_error_t err;

    abb_error_clear(&err);
    abb_reply_init();
    look->asked = apr_array_make(look->pool, 8, sizeof(asked_t));
    if (abb_http_create(&http, look->pool) != APR_SUCCESS) {
        abb_error_set(&err, ABB_EUPSTREAM, "it cannot start");
        print_failure(look, "libcurl", &err, "install it");
        return;
    }
    for (int i = 0; i < servers->nelts; ++i) {
        abb_selfcheck_choose(look, APR_ARRAY_IDX(servers, i, server_rec *));
        look->site->bitbucket.http = http;
        apr_file_printf(look->out, "\nSite %s\n", look->name);
        check_site(look);
    }
}
