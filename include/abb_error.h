/*
 * error (floor 0): a reason and a sentence.
 *
 * Every function of the module that can fail returns an apr_status_t and, for
 * the people who have to mend it, fills an abb_error_t. This room knows neither
 * httpd nor Bitbucket; what a reason means to a browser is decided in refusal.
 */
#ifndef ABB_ERROR_H
#define ABB_ERROR_H

#include <apr_errno.h>
#include <apr_time.h>

/* Longest sentence kept, in bytes with its NUL; longer ones are cut. */
#define ABB_ERROR_TEXT_SIZE 320

/* Reasons of our own. They stand beside APR's codes in an apr_status_t. */
#define ABB_ERROR_BASE (APR_OS_START_USERERR + 52000)

/* Input from outside (a directive, a query) does not have the form it must have. */
#define ABB_EINPUT (ABB_ERROR_BASE + 1)
/* Sealed text does not open: changed, another site's, another key's or too old. */
#define ABB_ESEAL (ABB_ERROR_BASE + 2)
/* No random bytes, or a cipher failed. */
#define ABB_ECRYPTO (ABB_ERROR_BASE + 3)
/* The session store could not be asked; never the same as "no such session". */
#define ABB_ESTORE (ABB_ERROR_BASE + 4)
/* Bitbucket could not be asked: unreachable, 5xx, timeout, unusable answer. */
#define ABB_EUPSTREAM (ABB_ERROR_BASE + 5)
/* Bitbucket's rate limit is reached (429). */
#define ABB_ELIMIT (ABB_ERROR_BASE + 6)
/* Bitbucket does not accept this OAuth client: the operator must act. */
#define ABB_ECLIENT (ABB_ERROR_BASE + 7)
/* The OAuth client lacks a scope that is needed: the operator must act. */
#define ABB_ESCOPE (ABB_ERROR_BASE + 8)
/* Bitbucket does not accept this authorization code or refresh token. */
#define ABB_EGRANT (ABB_ERROR_BASE + 9)
/* Bitbucket does not accept this access token (401). */
#define ABB_ETOKEN (ABB_ERROR_BASE + 10)
/* Bitbucket has withdrawn this endpoint (410, "no API hosted"). */
#define ABB_EGONE (ABB_ERROR_BASE + 11)
/* The visitor declined at Bitbucket (access_denied). */
#define ABB_ECANCELLED (ABB_ERROR_BASE + 12)
/* The account cannot be used here: a bot, inactive, or without a needed attribute. */
#define ABB_EACCOUNT (ABB_ERROR_BASE + 13)
/* The sign-in attempt is unknown in this browser, too old or already used. */
#define ABB_EATTEMPT (ABB_ERROR_BASE + 14)
/* Somebody else holds the lease, or replaced the record in the meantime. */
#define ABB_ECHANGED (ABB_ERROR_BASE + 15)

/* Too many wait for Bitbucket already; asking was not tried. */
#define ABB_EBUSY (ABB_ERROR_BASE + 16)

/* Tokens are of another account than they were: nothing about them counts any more. */
#define ABB_EIDENTITY (ABB_ERROR_BASE + 17)

/* A browser completes one sign-in after another and stays without a session. */
#define ABB_ELOOP (ABB_ERROR_BASE + 18)

/* A command-line client's credential is malformed, or Bitbucket does not accept it. */
#define ABB_ECREDENTIAL (ABB_ERROR_BASE + 19)

/* So many credentials were wrong that no more are looked at for a while. */
#define ABB_ETHROTTLED (ABB_ERROR_BASE + 20)

/* A command-line client's credential lacks a scope: its owner must act. */
#define ABB_EPRIVILEGE (ABB_ERROR_BASE + 21)

/* So many codes of one address were wrong that no more of it are sent for a while. */
#define ABB_ECODES (ABB_ERROR_BASE + 22)

/* What went wrong. Lifetime: the caller's; holds no pointers. */
typedef struct abb_error_t {
    /* APR_SUCCESS while nothing went wrong, else an APR code or a reason above. */
    apr_status_t status;
    /* Microseconds after which asking again makes sense; 0 when nobody told. */
    apr_interval_time_t retry_after;
    /* The sentence holds words of the request, so no page may show it. */
    int quotes_request;
    /* One plain sentence without a full stop; never holds a secret. */
    char text[ABB_ERROR_TEXT_SIZE];
} abb_error_t;

/*
 * Make an error empty.
 * Threads: any; the struct is the caller's own.
 */
void abb_error_clear(abb_error_t *err);

/*
 * Note a reason and its sentence; the first reason wins, later calls change
 * nothing. Returns `status`, so that a failing function can end with
 * `return abb_error_set(err, ABB_EUPSTREAM, "token endpoint answered %d", n);`.
 * err may be NULL. Bytes outside printable ASCII are replaced by '?', since
 * part of the text may come from Bitbucket and all of it goes into logs.
 * Threads: any.
 */
apr_status_t abb_error_set(abb_error_t *err, apr_status_t status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * A stable short word for a reason ("upstream", "store"), for logs and for
 * BITBUCKET_ERROR; "error" for codes that are not ours. Static string.
 */
const char *abb_error_word(apr_status_t status);

#endif
