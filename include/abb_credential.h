/*
 * credential (floor 2): what a request says in Authorization.
 *
 * Two schemes: Basic with an Atlassian account's e-mail address and an API token,
 * and Bearer with an access token. One credential has one spelling, so that what is
 * remembered of it is found again. Knows no httpd, no store, no Bitbucket.
 * Threads: any.
 */
#ifndef ABB_CREDENTIAL_H
#define ABB_CREDENTIAL_H

#include "abb_crypto.h"

/* Longest credential, in bytes behind the scheme. Tokens of Bitbucket passed 2,500 in 2026. */
#define ABB_CREDENTIAL_MAX 8000

/* Secret but for the scheme. Lifetime: the pool's it was read into. */
typedef struct abb_credential_t {
    int is_basic;
    /* What stands behind the scheme. */
    const char *value;
    /* The e-mail address in lower case; NULL for Bearer. Not proved by anything. */
    const char *email;
} abb_credential_t;

/*
 * Whether a value of Authorization (may be NULL) is of one of the two schemes, well
 * formed or not; others are somebody else's business.
 */
int abb_credential_is_ours(const char *authorization);

/*
 * Read a value of Authorization. Lifetime: p; what is decoded is wiped with it.
 * Errors: ABB_EINPUT it cannot be a credential of Bitbucket; the sentence says why
 * and quotes nothing.
 * Source: RFC 7617 section 2; RFC 6750 section 2.1; RFC 9110 section 11.4; "Using API
 * tokens", support.atlassian.com, 2026-11-20.
 */
apr_status_t abb_credential_read(const char *authorization, abb_credential_t *credential,
                                 apr_pool_t *p, abb_error_t *err);

/*
 * A key for names at one site, or, with audience "", for all sites that share the
 * ring: it follows from the ring's first key. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_credential_derive_key(const abb_crypto_keyring_t *ring, const char *audience,
                                       abb_crypto_key_t *key, abb_error_t *err);

/*
 * What a credential is called where it is remembered: nobody finds the way back
 * without the key. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_credential_name(const abb_credential_t *credential, const abb_crypto_key_t *key,
                                 unsigned char name[ABB_CRYPTO_KEY_SIZE], apr_pool_t *p,
                                 abb_error_t *err);

#endif
