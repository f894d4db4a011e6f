/*
 * The inside of the config room: what directives leave behind, shared by the
 * files that read them and those that settle sites.
 */
#ifndef ABB_CONFIG_INTERNAL_H
#define ABB_CONFIG_INTERNAL_H

#include <ap_expr.h>

#include "abb_config.h"

extern module AP_MODULE_DECLARE_DATA auth_bitbucket_module;

/* Where key and secret are looked for when no directive says them. */
#define ABB_CONFIG_ID_VARIABLE "BITBUCKET_CLIENT_ID"
#define ABB_CONFIG_SECRET_VARIABLE "BITBUCKET_CLIENT_SECRET"

/* How old copies of a shared cache's sessions may be unless said, and in an outage of it. */
#define ABB_CONFIG_NEAR_AGE apr_time_from_sec(10)
#define ABB_CONFIG_OUTAGE_AGE apr_time_from_sec(60)

/* Not said. No directive accepts it as a value. */
#define UNSET (-1)

/* Directives of one server. NULL or UNSET: not said. */
typedef struct server_config_t {
    /* Some directive of ours stands in this server or one it inherits from. */
    int is_configured;
    const char *client_id;
    const char *client_secret;
    const char *callback;
    /* The site's own address, when it is said because the callback is another's; else NULL. */
    const char *origin;
    /* Origins of AuthBitbucketCallbackFor, const char *; NULL: none. */
    apr_array_header_t *callback_for;
    const char *scope;
    const char *authorize_url;
    const char *token_url;
    const char *api_url;
    apr_interval_time_t connect_timeout;
    apr_interval_time_t total_timeout;
    const char *ca_file;
    const char *proxy;
    const char *cookie_name;
    const char *cookie_domain;
    const char *cookie_same_site;
    const char *header_prefix;
    /* An abb_header_encoding_t. */
    int header_encoding;
    apr_interval_time_t idle_timeout;
    apr_interval_time_t absolute_timeout;
    apr_interval_time_t soft_age;
    apr_interval_time_t hard_age;
    int max_logins;
    int max_sessions;
    /* Specifications of secrets, const char *. */
    const apr_array_header_t *session_keys;
    /* Of the main server only. */
    abb_cache_settings_t cache;
    /* The same provider as in cache, to be completed; NULL: none. */
    abb_cache_provider_t *cache_provider;
    /* Workspaces of Require lines read in this server, const char *; not inherited. */
    apr_array_header_t *workspaces;
    /* Scopes that lines read in this server need, abb_config_need_t; not inherited. */
    apr_array_header_t *needs;
    /* Set by abb_config_settle. */
    abb_site_t *site;
} server_config_t;

/* One line of AuthBitbucketUnauthenticated. */
typedef struct unauthenticated_line_t {
    abb_unauthenticated_t action;
    /* NULL: always. */
    const ap_expr_info_t *condition;
} unauthenticated_line_t;

/* Directives of one directory. */
typedef struct directory_config_t {
    const char *remote_user;
    int is_private;
    int preserves_post;
    /* An abb_pass_t. */
    int pass;
    int passes_access_token;
    /* An abb_api_token_t. */
    int api_token;
    /* Lines of AuthBitbucketUnauthenticated, unauthenticated_line_t; NULL: none. */
    apr_array_header_t *unauthenticated;
} directory_config_t;

/* What the directives of a server left behind; NULL while none of ours stood there. */
server_config_t *abb_config_of(server_rec *s);

/* Log that a setting of a server cannot be used. Returns HTTP_INTERNAL_SERVER_ERROR. */
int abb_config_bad_setting(const server_rec *s, const char *directive, const char *sentence);

/*
 * The first directive with this first word in the configuration of one virtual
 * host, or for s NULL outside all virtual hosts. NULL when there is none. p is for
 * temporary memory.
 */
const ap_directive_t *abb_config_find_directive(const server_rec *s, const char *directive,
                                                const char *word, apr_pool_t *p);

/* Whether AuthType Bitbucket stands in a virtual host's own section. p is for temporary memory. */
int abb_config_is_used_in(const server_rec *main_server, const server_rec *s, apr_pool_t *p);

/*
 * Scheme, host and port of an absolute URL that apr_uri_parse takes, in lower case
 * and without a default port, and its path (may be NULL). Lifetime: p.
 */
const char *abb_config_origin_of_url(const char *url, const char **path, apr_pool_t *p);

/*
 * Whether a callback URL belongs to another virtual host: its host is a name of
 * another and none of this one's.
 */
int abb_config_is_of_another(server_rec *main_server, const server_rec *s, const char *callback,
                             apr_pool_t *temporary);

/*
 * Settle which sites a server's callback serves. Lifetime: p. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_config_settle_served(const server_config_t *conf, abb_site_t *site, apr_pool_t *p,
                                      abb_error_t *err);

/*
 * When all sites are settled: whether those whose callback is another's fit that
 * one. Faults are logged. Returns OK or HTTP_INTERNAL_SERVER_ERROR.
 */
int abb_config_check_hubs(server_rec *main_server, apr_pool_t *temporary);

/*
 * Take a socache provider (name:arguments) for the session cache. NULL, or a
 * sentence's end about what is wrong with the value.
 */
const char *abb_config_set_cache_provider(server_config_t *conf, const char *value, apr_pool_t *p,
                                          apr_pool_t *temporary);

/*
 * Read the values of AuthBitbucketSessionKey and make keys of them. Threads: start-up only.
 * Errors: those of abb_secret_read and abb_crypto_stretch.
 */
apr_status_t abb_config_read_keys(const apr_array_header_t *specifications,
                                  abb_crypto_keyring_t *ring, apr_pool_t *p, abb_error_t *err);

/*
 * Find the keys under which records leave for a provider. Faults are logged.
 * Returns OK or HTTP_INTERNAL_SERVER_ERROR.
 */
int abb_config_settle_cache(server_rec *servers, apr_pool_t *temporary);

#endif
