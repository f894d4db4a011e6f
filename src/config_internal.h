/*
 * The inside of the config room: what directives leave behind, shared by the
 * file that reads them and the file that settles sites.
 */
#ifndef ABB_CONFIG_INTERNAL_H
#define ABB_CONFIG_INTERNAL_H

#include "abb_config.h"

extern module AP_MODULE_DECLARE_DATA auth_bitbucket_module;

/* Not said. No directive accepts it as a value. */
#define UNSET (-1)

/* Directives of one server. NULL or UNSET: not said. */
typedef struct server_config_t {
    /* Some directive of ours stands in this server or one it inherits from. */
    int is_configured;
    const char *client_id;
    const char *client_secret;
    const char *callback;
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
    apr_interval_time_t idle_timeout;
    apr_interval_time_t absolute_timeout;
    /* Specifications of secrets, const char *. */
    const apr_array_header_t *session_keys;
    /* Of the main server only. */
    abb_cache_settings_t cache;
    /* Workspaces of Require lines read in this server, const char *; not inherited. */
    apr_array_header_t *workspaces;
    /* Set by abb_config_settle. */
    abb_site_t *site;
} server_config_t;

/* Directives of one directory. */
typedef struct directory_config_t {
    const char *remote_user;
    int is_private;
} directory_config_t;

server_config_t *abb_config_of(server_rec *s);

#endif
