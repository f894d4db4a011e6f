/*
 * draft (floor 4): a form that one browser has posted, kept until it is sent.
 *
 * Whose form is kept must be known before anything is: a browser in which
 * somebody signed in has a badge, a sealed cookie with random bytes. Under their
 * hash the store keeps at most one form, sealed with a key that the bytes are
 * needed for; so the store alone tells nothing, and a stranger takes no place in
 * it. Knows no cookie syntax, no form, no httpd.
 * Threads: any.
 */
#ifndef ABB_DRAFT_H
#define ABB_DRAFT_H

#include "abb_session.h"

#define ABB_DRAFT_ID_SIZE 32
/* How long a form is kept: as long as a sign-in may take. */
#define ABB_DRAFT_LIFETIME apr_time_from_sec(600)
/* How long a badge is good beyond the longest session; renewed by use after half of it. */
#define ABB_DRAFT_BADGE_TIME apr_time_from_sec(30 * 86400)
/* Largest body kept, in bytes. */
#define ABB_DRAFT_BODY_MAX (64 * 1024)
/* Digits of a draft's number, with a NUL. */
#define ABB_DRAFT_NUMBER_SIZE 17

/* What a browser's badge says. Lifetime: as the pool it was read into. */
typedef struct abb_draft_badge_t {
    /* Secret. */
    unsigned char id[ABB_DRAFT_ID_SIZE];
    apr_time_t expires_at;
    /* uuid of the account that was signed in. */
    const char *account;
} abb_draft_badge_t;

/* A form as it was posted. */
typedef struct abb_draft_t {
    /* Where to: a path that abb_text_local_path accepted. */
    const char *path;
    /* Where from: such a path, or "". */
    const char *back;
    const char *content_type;
    const char *body;
    apr_size_t body_size;
    /* Out only: tells one form of a browser from another; random, not secret. */
    char number[ABB_DRAFT_NUMBER_SIZE];
} abb_draft_t;

/*
 * Read the value of a badge. Lifetime: p.
 * Errors: APR_NOTFOUND when it is NULL, does not open at this site or has expired.
 */
apr_status_t abb_draft_read_badge(const char *value, abb_crypto_sealer_t *sealer, apr_time_t now,
                                  abb_draft_badge_t *badge, apr_pool_t *p);

/*
 * A badge for the browser of a session, in place of what it has (NULL: none). One of
 * the same account keeps its id. Otherwise the id follows from the session's, so
 * that one sign-in makes one id, however often it asks, and takes one place in the
 * store. *value is NULL when what the browser has will do. Lifetime: p.
 * Errors: ABB_ECRYPTO.
 */
apr_status_t abb_draft_renew_badge(const abb_sessions_t *sessions, const abb_session_t *session,
                                   const abb_draft_badge_t *present, abb_crypto_sealer_t *sealer,
                                   apr_time_t now, const char **value, apr_pool_t *p,
                                   abb_error_t *err);

/* How long a browser is to keep its badge, in microseconds. */
apr_interval_time_t abb_draft_badge_lifetime(const abb_sessions_t *sessions);

/*
 * Keep a form for a browser, in place of the one before; sets its number.
 * Errors: ABB_ESTORE, also when the store is too small for it; ABB_ECRYPTO.
 */
apr_status_t abb_draft_put(const abb_sessions_t *sessions, const abb_draft_badge_t *badge,
                           abb_draft_t *draft, apr_time_t now, apr_pool_t *p, abb_error_t *err);

/*
 * The form that is kept for a browser. Lifetime: p.
 * Errors: APR_NOTFOUND none, or it does not open for this account; ABB_ESTORE; ABB_ECRYPTO.
 */
apr_status_t abb_draft_find(const abb_sessions_t *sessions, const abb_draft_badge_t *badge,
                            apr_time_t now, abb_draft_t *draft, apr_pool_t *p, abb_error_t *err);

/*
 * Forget the form of a browser; number: only the one with this number, NULL: any.
 * Errors: APR_NOTFOUND; ABB_ESTORE; ABB_ECRYPTO.
 */
apr_status_t abb_draft_drop(const abb_sessions_t *sessions, const abb_draft_badge_t *badge,
                            const char *number, apr_time_t now, apr_pool_t *p, abb_error_t *err);

/*
 * What only a page of ours in this browser can send: a token for the form that
 * discards. Lifetime: p. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_draft_form_token(const abb_draft_badge_t *badge, const char **token, apr_pool_t *p,
                                  abb_error_t *err);

/* Whether a token (may be NULL) is this browser's, compared in constant time. */
int abb_draft_is_form_token(const abb_draft_badge_t *badge, const char *token, apr_pool_t *p);

#endif
