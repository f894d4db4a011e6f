/*
 * site: a site that signs in at a scripted Bitbucket, for the unit tests.
 *
 * The server answers as token endpoint (/token) and API (/2.0); the answers are
 * those of one visitor, Ada, unless a test adds rules before them.
 */
#ifndef SITE_H
#define SITE_H

#include "abb_bitbucket.h"
#include "abb_reply.h"
#include "abb_session.h"
#include "server.h"
#include "shared.h"
#include "unit.h"

#define SITE_USER "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645"
#define SITE_WORKSPACE "470c176d-3574-44ea-bb41-89e8638bcca4"
#define SITE_ORIGIN "https://wiki.example.com"

#define SITE_GET_USER "GET /2.0/user"
#define SITE_GET_EMAILS "GET /2.0/user/emails?pagelen=100"
#define SITE_POST_TOKEN "POST /token"

#define SITE_USER_BODY                                                      \
    "{\"type\":\"user\",\"uuid\":\"{" SITE_USER "}\",\"username\":\"ada\"," \
    "\"display_name\":\"Ada\",\"account_status\":\"active\"}"
#define SITE_EMAILS_BODY \
    "{\"values\":[{\"email\":\"ada@example.com\",\"is_primary\":true,\"is_confirmed\":true}]}"

typedef struct {
    apr_pool_t *p;
    server_t *server;
    const abb_store_t *store;
    abb_crypto_keyring_t ring;
    abb_sessions_t sessions;
    abb_bitbucket_t bitbucket;
} site_t;

static inline int site_begin(void **state)
{
    abb_reply_init();
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
}

static inline void site_set_bitbucket(site_t *site)
{
    abb_bitbucket_t *bitbucket = &site->bitbucket;

    bitbucket->authorize_url = "https://bitbucket.org/site/oauth2/authorize";
    bitbucket->token_url = server_url(site->server, "/token", site->p);
    bitbucket->api_url = server_url(site->server, "/2.0", site->p);
    bitbucket->client_id = "key";
    bitbucket->client_secret = "secret";
    bitbucket->redirect_uri = SITE_ORIGIN "/bitbucket/callback";
    bitbucket->http_settings.connect_timeout = apr_time_from_sec(5);
    bitbucket->http_settings.total_timeout = apr_time_from_sec(10);
    bitbucket->http_settings.user_agent = "unit-test/1";
    abb_bitbucket_settle(bitbucket, site->p);
}

static inline int site_create(void **state)
{
    site_t *site;
    void *p;

    if (unit_create_pool(&p) != 0) {
        return -1;
    }
    site = apr_pcalloc(p, sizeof(*site));
    site->p = p;
    site->server = server_start(p);
    site->store = shared_store(1024 * 1024, p);
    site->ring.count = 1;
    memset(site->ring.keys[0].bytes, 7, ABB_CRYPTO_KEY_SIZE);
    site->sessions.store = site->store;
    site->sessions.keyring = &site->ring;
    site->sessions.idle_timeout = apr_time_from_sec(12 * 3600);
    site->sessions.absolute_timeout = apr_time_from_sec(7 * 24 * 3600);
    site_set_bitbucket(site);
    *state = site;
    return abb_session_set_audience(&site->sessions, "key", SITE_ORIGIN, p, NULL) == APR_SUCCESS &&
                   abb_http_create(&site->bitbucket.http, p) == APR_SUCCESS
               ? 0
               : -1;
}

static inline int site_destroy(void **state)
{
    site_t *site = *state;
    const char *fault = abb_store_shm_check(site->store);

    apr_pool_destroy(site->p);
    return fault ? -1 : 0;
}

#define SITE_TEST(function) cmocka_unit_test_setup_teardown(function, site_create, site_destroy)

/* ---- what Bitbucket says ------------------------------------------------- */

/* The body of a token answer. Lifetime: p. */
static inline const char *site_tokens_body(const char *access, const char *refresh, int expires_in,
                                           apr_pool_t *p)
{
    return apr_psprintf(p,
                        "{\"access_token\":\"%s\",\"token_type\":\"bearer\",\"expires_in\":%d,"
                        "\"refresh_token\":\"%s\",\"scope\":\"account email\"}",
                        access, expires_in, refresh);
}

/* The body of a membership. Lifetime: p. */
static inline const char *site_membership_body(const char *slug, const char *permission,
                                               apr_pool_t *p)
{
    return apr_psprintf(p,
                        "{\"type\":\"workspace_membership\",\"permission\":\"%s\","
                        "\"user\":{\"uuid\":\"{" SITE_USER "}\"},\"workspace\":{\"slug\":\"%s\","
                        "\"uuid\":\"{" SITE_WORKSPACE "}\"}}",
                        permission, slug);
}

/* Method and target of the question about a role. Lifetime: p. */
static inline const char *site_permission(const char *workspace, apr_pool_t *p)
{
    return apr_pstrcat(p, "GET /2.0/user/workspaces/", workspace, "/permission", NULL);
}

static inline void site_add_membership(site_t *site, const char *slug, const char *permission)
{
    server_add_json(site->server, site_permission(slug, site->p), 200,
                    site_membership_body(slug, permission, site->p));
}

/* Ada's good answers: tokens, account, address, owner of acme. */
static inline void site_add_ada(site_t *site)
{
    server_add_json(site->server, SITE_POST_TOKEN, 200,
                    site_tokens_body("access-1", "refresh-1", 7200, site->p));
    server_add_json(site->server, SITE_GET_USER, 200, SITE_USER_BODY);
    server_add_json(site->server, SITE_GET_EMAILS, 200, SITE_EMAILS_BODY);
    site_add_membership(site, "acme", "owner");
}

#endif
