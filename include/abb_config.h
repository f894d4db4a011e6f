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
#include "abb_request.h"
#include "abb_session.h"

/* Size of the store when nothing is said, in bytes. */
#define ABB_CONFIG_STORE_SIZE (32 * 1024 * 1024)

/* One virtual host, settled. Lifetime: one generation of the configuration. */
typedef struct abb_site_t {
    abb_bitbucket_t bitbucket;
    abb_sessions_t sessions;
    abb_cookie_settings_t cookies;
    /* Public address: scheme, host and port, without a slash. */
    const char *origin;
    /* Paths of the module's own endpoints. */
    const char *callback_path;
    const char *login_path;
    const char *logout_path;
    const char *userinfo_path;
    /* Workspaces that the Require lines name, const char *, each once. */
    const apr_array_header_t *workspaces;
    /* Keys of AuthBitbucketSessionKey; none: the server's own key is used. */
    abb_crypto_keyring_t keyring;
    /* What seals sign-in attempts; made when the child starts. */
    abb_crypto_sealer_t *tickets;
} abb_site_t;

/* What AuthBitbucketSessionCache asks for. */
typedef struct abb_cache_settings_t {
    /* Of this machine's own table, in bytes. */
    apr_size_t size;
    /* Absolute path of the file it is kept in; NULL: it is kept in memory. */
    const char *file;
} abb_cache_settings_t;

/* What the directives of one directory come to. */
typedef struct abb_place_t {
    /* Attribute for REMOTE_USER. */
    const char *remote_user;
    int is_private;
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

/* What holds for the directory of a request. Lifetime: r->pool. */
abb_place_t abb_config_place(request_rec *r);

#endif
