/*
 * config (floor 4): directives, their merge, and the sites they make.
 *
 * A site is what the directives of one virtual host come to: settings structs
 * that the rooms below declare, filled. Nobody below asks this room. Knows no
 * request.
 */
#ifndef ABB_CONFIG_H
#define ABB_CONFIG_H

#include <httpd.h>

#include <http_config.h>

#include "abb_bitbucket.h"
#include "abb_gate.h"
#include "abb_hub.h"
#include "abb_identity.h"
#include "abb_request.h"
#include "abb_session.h"
#include "abb_throttle.h"
#include "abb_store_socache.h"

/* Size of the store when nothing is said, in bytes. */
#define ABB_CONFIG_STORE_SIZE (32 * 1024 * 1024)

/* A scope that something in the configuration needs. */
typedef struct abb_config_need_t {
    const char *scope;
    /* What needs it and where: "Require bitbucket-email (/etc/apache2/wiki.conf:12)". */
    const char *why;
} abb_config_need_t;

/* Where a secret comes from, for people; never the secret itself. */
typedef struct abb_config_source_t {
    const char *directive;
    /* "file conf/secret", "environment variable X", "the value in the configuration" */
    const char *text;
    /* Absolute path of the file it is read from; NULL: from none. */
    const char *file;
} abb_config_source_t;

/* Told a directive of the configuration. Secrets among its arguments are hidden. */
typedef void (*abb_config_visitor_t)(void *data, const ap_directive_t *directive);

/* One virtual host, settled. Lifetime: one generation of the configuration. */
typedef struct abb_site_t {
    abb_bitbucket_t bitbucket;
    abb_sessions_t sessions;
    abb_cookie_settings_t cookies;
    abb_identity_settings_t identity;
    /* How old what Bitbucket said may be. */
    abb_record_ages_t ages;
    /* How many requests may wait for Bitbucket; 0: a share of all. */
    int max_logins;
    /* Set when the child starts: places for those who wait, and how many. */
    abb_gate_t *gate;
    abb_gate_limits_t gate_limits;
    /* Who may try credentials how often; and, set when the child starts, what names them. */
    abb_throttle_t *throttle;
    abb_crypto_key_t throttle_key;
    abb_crypto_key_t credential_key;
    /* Set when the child starts: who asks Bitbucket while nobody waits. */
    struct abb_background_t *background;
    /* Public address: scheme, host and port, without a slash. */
    const char *origin;
    /* Sites that this one serves as a hub, abb_hub_site_t; NULL: none. Sealers: of the child. */
    apr_array_header_t *served;
    /* The callback is another site's, which hands on to here: mark of our states; else NULL. */
    const char *mark;
    /* With a mark: what opens handovers; made when the child starts. */
    abb_crypto_sealer_t *handovers;
    /* Paths of the module's own endpoints. */
    const char *callback_path;
    const char *login_path;
    const char *logout_path;
    const char *userinfo_path;
    const char *kept_form_path;
    /* Workspaces that the Require lines name, const char *, each once. */
    const apr_array_header_t *workspaces;
    /* Scopes that are needed, abb_config_need_t, each once. .htaccess files are not known. */
    const apr_array_header_t *needs;
    /* Keys of AuthBitbucketSessionKey; none: the server's own key is used. */
    abb_crypto_keyring_t keyring;
    /* What seals sign-in attempts; made when the child starts. */
    abb_crypto_sealer_t *tickets;
} abb_site_t;

/* A socache provider that AuthBitbucketSessionCache names. */
typedef struct abb_cache_provider_t {
    /* As it is written: redis:cache.example.com:6379. */
    const char *specification;
    const struct ap_socache_provider_t *provider;
    /* Created, not initialized. */
    struct ap_socache_instance_t *instance;
    /* What stands behind the provider's name; NULL: nothing. */
    const char *arguments;
    abb_store_socache_kind_t kind;
    /* The provider takes no expiry further ahead; 0: any. */
    apr_interval_time_t longest_expiry;
    /* Keys of AuthBitbucketSessionKey in the server configuration; none: the server's own. */
    abb_crypto_keyring_t keyring;
} abb_cache_provider_t;

/* What AuthBitbucketSessionCache asks for. */
typedef struct abb_cache_settings_t {
    /* Of this machine's own table, in bytes. */
    apr_size_t size;
    /* Absolute path of the file it is kept in; NULL: it is kept in memory. */
    const char *file;
    /* A socache provider for several machines; NULL: this machine's table alone. */
    const abb_cache_provider_t *shared;
    /* With a provider: how old a copy in the own table may be, and in an outage; 0: no copies. */
    apr_interval_time_t near_age;
    apr_interval_time_t outage_age;
} abb_cache_settings_t;

/* What becomes of a request that nobody is signed in for. */
typedef enum {
    /* Page loads are sent to sign in, everything else gets 401. */
    ABB_UNAUTHENTICATED_AUTO,
    /* GET and HEAD are sent to sign in, whoever asks. */
    ABB_UNAUTHENTICATED_LOGIN,
    ABB_UNAUTHENTICATED_401,
    ABB_UNAUTHENTICATED_403,
    /* It goes on without an identity, as far as the rules let it. */
    ABB_UNAUTHENTICATED_PASS
} abb_unauthenticated_t;

/* What AuthBitbucketAPIToken takes; bits. */
typedef enum {
    ABB_API_TOKEN_OFF = 0,
    /* E-mail address and API token, by Basic. */
    ABB_API_TOKEN_BASIC = 1,
    /* Access tokens, whoever they were made for. */
    ABB_API_TOKEN_BEARER = 2,
    /* The application gets Authorization, too. */
    ABB_API_TOKEN_KEEP = 4
} abb_api_token_t;

/* What the directives of one directory come to. */
typedef struct abb_place_t {
    /* Attribute for REMOTE_USER. */
    const char *remote_user;
    int is_private;
    /* Forms posted without a session are kept until the visitor has signed in. */
    int preserves_post;
    /* What applications get. */
    abb_pass_t pass;
    /* They get the access token, too. */
    int passes_access_token;
    /* What command-line clients may bring instead of a session. */
    abb_api_token_t api_token;
} abb_place_t;

/* httpd's hooks for configuration. Lifetime: the pool given. */
void *abb_config_create_server(apr_pool_t *p, server_rec *s);
void *abb_config_merge_server(apr_pool_t *p, void *base, void *overrides);
void *abb_config_create_directory(apr_pool_t *p, char *directory);
void *abb_config_merge_directory(apr_pool_t *p, void *base, void *overrides);
extern const command_rec abb_config_commands[];

/* Note workspaces that a Require line of a server's configuration names. */
void abb_config_add_workspace(server_rec *s, const char *workspace);

/*
 * Note a scope that a line of the configuration needs; not for .htaccess, whose lines
 * live no longer than a request. what: the directive, with its keyword.
 */
void abb_config_need_scope(cmd_parms *cmd, const char *scope, const char *what);

/*
 * Settle all virtual hosts: read secrets, compose addresses, find what is
 * missing. Faults are logged with what to do; runs for `httpd -t` too.
 * Returns OK or HTTP_INTERNAL_SERVER_ERROR.
 * Threads: start-up only.
 */
int abb_config_settle(apr_pool_t *p, apr_pool_t *temporary, server_rec *servers);

/* Where sessions are kept. Lifetime: one generation of the configuration. */
abb_cache_settings_t abb_config_cache(server_rec *main_server);

/* The same as it is written in the configuration: "shm:/path/file(64M)". Lifetime: p. */
const char *abb_config_cache_text(const abb_cache_settings_t *cache, apr_pool_t *p);

/* A server's site, or NULL when no directive of ours reaches it. */
abb_site_t *abb_config_site(server_rec *s);

/* How people call a server, "(no ServerName)" if it has none. Lifetime: the server's. */
const char *abb_config_server_name(const server_rec *s);

/* Whether what a site sends and gets can be read on the way: plain http, and not on one machine. */
int abb_config_is_readable_on_the_way(const abb_site_t *site);

/*
 * Visit the directives that hold for a server, in their order: those outside all
 * virtual hosts, then those of its own section, each with what stands inside of it.
 * Threads: start-up only, while the configuration is read.
 */
void abb_config_visit(const server_rec *s, abb_config_visitor_t visit, void *data);

/*
 * Where the directive stands that decides for a server, "/etc/apache2/wiki.conf:12",
 * or "default". Lifetime: p. Threads: as abb_config_visit.
 */
const char *abb_config_whence(const server_rec *s, const char *directive, apr_pool_t *p);

/*
 * Where a site's secrets come from: client secret and session keys, an array of
 * abb_config_source_t. Lifetime: p.
 */
apr_array_header_t *abb_config_sources(server_rec *s, apr_pool_t *p);

/* What AuthType says, in any case of its letters, and the auth type of a request that is somebody's. */
#define ABB_AUTH_TYPE "Bitbucket"

/* Whether AuthType Bitbucket holds for the directory of a request. */
int abb_config_is_used(request_rec *r);

/* What holds for the directory of a request. Lifetime: r->pool. */
abb_place_t abb_config_place(request_rec *r);

/*
 * What becomes of a request without a session there: the first line of
 * AuthBitbucketUnauthenticated whose condition holds. A condition that fails does
 * not hold.
 */
abb_unauthenticated_t abb_config_unauthenticated(request_rec *r);

#endif
