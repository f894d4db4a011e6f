/*
 * hub (floor 3): one callback for many sites.
 *
 * A Bitbucket OAuth client has one callback URL. A site whose callback is another
 * site's puts a mark behind the states of its attempts: the beginning of its
 * audience's hash, a name and no secret.
 * The site with the callback, the hub, knows the mark and hands the query that
 * Bitbucket sent on to the one that began, sealed for it alone; everything else,
 * the exchange of the code too, happens there. So the hub keeps nothing, and what
 * it hands on is of use only in the browser that has the attempt's cookie, once.
 * Knows no cookie, no code, no httpd.
 */
#ifndef ABB_HUB_H
#define ABB_HUB_H

#include <apr_tables.h>

#include "abb_crypto.h"

/* How long the way from the hub to the site may take, in microseconds. */
#define ABB_HUB_LIFETIME apr_time_from_sec(30)
/* Longest query that is handed on, in bytes; Bitbucket's have about 150. */
#define ABB_HUB_QUERY_MAX 2048
/* The parameter in which a site is handed one. */
#define ABB_HUB_PARAMETER "handover"

/* A site that a hub serves. Lifetime: the configuration's; the sealer's: the child's. */
typedef struct abb_hub_site_t {
    /* "https://wiki.example.com" */
    const char *origin;
    /* As in abb_sessions_t. */
    const char *audience;
    const char *mark;
    abb_crypto_sealer_t *handovers;
} abb_hub_site_t;

/*
 * What seals handovers for one audience, and opens them there. The ring is copied.
 * Lifetime: p. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_hub_create_sealer(abb_crypto_sealer_t **sealer, const abb_crypto_keyring_t *ring,
                                   const char *audience, apr_pool_t *p, abb_error_t *err);

/* The same for each site that a hub serves (abb_hub_site_t). */
apr_status_t abb_hub_create_sealers(apr_array_header_t *sites, const abb_crypto_keyring_t *ring,
                                    apr_pool_t *p, abb_error_t *err);

/* What a site with this hash of its audience puts behind its states. Lifetime: p. */
const char *abb_hub_mark(const unsigned char *audience_hash, apr_pool_t *p);

/* Whether a state (may be NULL) has the form of a marked one. Whose it is remains open. */
int abb_hub_is_marked(const char *state);

/* The state without this mark; NULL when it has another or none. Lifetime: p. */
const char *abb_hub_unmark(const char *state, const char *mark, apr_pool_t *p);

/* Of the sites that a hub serves (abb_hub_site_t) the one that began; NULL: none of them. */
const abb_hub_site_t *abb_hub_find(const apr_array_header_t *sites, const char *state);

/*
 * Seal a query for a site, as a parameter's value. Lifetime: p.
 * Errors: ABB_EINPUT longer than ABB_HUB_QUERY_MAX; ABB_ECRYPTO.
 */
apr_status_t abb_hub_hand_on(const abb_hub_site_t *site, const char *query, apr_time_t now,
                             const char **handover, apr_pool_t *p, abb_error_t *err);

/*
 * Open a query that was handed on. Lifetime: p; wiped with it.
 * Errors: ABB_EATTEMPT: it does not open here, *query is NULL; or it is older than
 * ABB_HUB_LIFETIME or dated as much ahead, then *query says which attempt it was.
 */
apr_status_t abb_hub_take(abb_crypto_sealer_t *handovers, const char *handover, apr_time_t now,
                          const char **query, apr_pool_t *p, abb_error_t *err);

#endif
