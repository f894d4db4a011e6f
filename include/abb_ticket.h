/*
 * ticket (floor 2): one sign-in attempt as the value of a cookie.
 *
 * An anonymous visitor takes no place in any store: what the callback must know
 * travels sealed in that browser's own cookie, and `state` is only its id.
 * Knows no cookie syntax, no Bitbucket, no httpd.
 */
#ifndef ABB_TICKET_H
#define ABB_TICKET_H

#include "abb_crypto.h"

/* Random bytes of an attempt's id. Source: RFC 9700 section 4.7. */
#define ABB_TICKET_ID_SIZE 32
/* How long an attempt may take, in microseconds. */
#define ABB_TICKET_LIFETIME apr_time_from_sec(600)
/* How long a browser remembers where an attempt led, so that a late one still ends there. */
#define ABB_TICKET_MEMORY apr_time_from_sec(3600)
/* Length of `state` without its NUL: attempt number and id in base64url. */
#define ABB_TICKET_STATE_LENGTH 44
/* Length of the part of `state` that names the attempt's cookie. */
#define ABB_TICKET_NAME_LENGTH 8

/* One sign-in attempt. */
typedef struct abb_ticket_t {
    unsigned char id[ABB_TICKET_ID_SIZE];
    /* 1, or 2 when the module started once more by itself. */
    int attempt;
    apr_time_t issued_at;
    /* Where the visitor wanted to go: a path that abb_text_local_path accepted. */
    const char *return_path;
    /* Workspaces that the requested place asks about, separated by spaces; may be "". */
    const char *workspaces;
} abb_ticket_t;

/* Give a ticket a fresh id. Errors: ABB_ECRYPTO. */
apr_status_t abb_ticket_init(abb_ticket_t *ticket, int attempt, apr_time_t now, abb_error_t *err);

/* The `state` parameter of an attempt. Lifetime: p. */
const char *abb_ticket_state(const abb_ticket_t *ticket, apr_pool_t *p);

/*
 * Read a `state` parameter that came back into id and attempt; the other
 * members become harmless ("/" and ""). Errors: ABB_EATTEMPT when it has not our form.
 */
apr_status_t abb_ticket_parse_state(const char *state, abb_ticket_t *ticket, abb_error_t *err);

/*
 * The part of an attempt's state that the name of its cookie ends in; not
 * secret. Lifetime: p.
 */
const char *abb_ticket_name(const abb_ticket_t *ticket, apr_pool_t *p);

/*
 * What seals the tickets of one site. The ring is copied. Lifetime: p. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_ticket_create_sealer(abb_crypto_sealer_t **sealer,
                                      const abb_crypto_keyring_t *ring, const char *audience,
                                      apr_pool_t *p, abb_error_t *err);

/*
 * The cookie's value: the ticket sealed for one site. Lifetime: p.
 * Errors: ABB_ECRYPTO.
 */
apr_status_t abb_ticket_encode(const abb_ticket_t *ticket, abb_crypto_sealer_t *sealer,
                               const char **value, apr_pool_t *p, abb_error_t *err);

/*
 * Open a cookie's value. Lifetime: p.
 * Errors: ABB_EATTEMPT when it does not open at this site, then return_path is NULL;
 * or when it is older than ABB_TICKET_LIFETIME or dated more than two minutes ahead.
 */
apr_status_t abb_ticket_decode(const char *value, abb_crypto_sealer_t *sealer, apr_time_t now,
                               abb_ticket_t *ticket, apr_pool_t *p, abb_error_t *err);

/*
 * Sign-ins that a browser has completed lately, as the value of a cookie of their
 * own: so a browser that comes back without a session again and again can be
 * stopped, and no store is asked for that. Source: OWASP ASVS 16.5.2.
 */
#define ABB_TICKET_RECENT_MAX 5
#define ABB_TICKET_RECENT_TIME apr_time_from_sec(60)

/*
 * How many were completed within ABB_TICKET_RECENT_TIME. A value (may be NULL) that
 * does not open counts for none.
 */
int abb_ticket_count_recent(const char *value, abb_crypto_sealer_t *sealer, apr_time_t now,
                            apr_pool_t *p);

/* The value with one more, of now. Lifetime: p. Errors: ABB_ECRYPTO. */
apr_status_t abb_ticket_add_recent(const char *value, abb_crypto_sealer_t *sealer, apr_time_t now,
                                   const char **added, apr_pool_t *p, abb_error_t *err);

/*
 * Where attempts led whose cookies had to make room for newer ones, as the value of
 * a cookie of their own: their sign-ins cannot be finished any more, but begin once
 * more with the page that was wanted. The newest, as many as fit.
 */
#define ABB_TICKET_WAYS_SIZE 1200

/*
 * The value (may be NULL: none yet) with one more. A path that alone is too long is
 * left out. Lifetime: p. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_ticket_add_way(const char *value, abb_crypto_sealer_t *sealer,
                                const abb_ticket_t *ticket, apr_time_t now, const char **added,
                                apr_pool_t *p, abb_error_t *err);

/*
 * Where the attempt with a ticket's id led, within ABB_TICKET_MEMORY; NULL when the
 * value (may be NULL) does not say. Lifetime: p.
 */
const char *abb_ticket_find_way(const char *value, abb_crypto_sealer_t *sealer,
                                const abb_ticket_t *ticket, apr_time_t now, apr_pool_t *p);

/* Whether two tickets are of one attempt, compared in constant time. */
int abb_ticket_is_same(const abb_ticket_t *a, const abb_ticket_t *b);

#endif
