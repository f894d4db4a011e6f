/*
 * record (floor 2): a session as bytes.
 *
 * A record has two parts. The open part (account, grants, times) is what each
 * request needs: a flat block with offsets instead of pointers, read in place
 * without parsing. The private part (tokens, Bitbucket's own answer) is always
 * sealed, under a key that only the visitor's cookie completes.
 * Knows no store, no cookie syntax, no httpd.
 */
#ifndef ABB_RECORD_H
#define ABB_RECORD_H

#include "abb_account.h"
#include "abb_crypto.h"

/* Most grants one record holds. */
#define ABB_RECORD_GRANTS_MAX 4096
/* Largest open part, in bytes. */
#define ABB_RECORD_OPEN_MAX (1024 * 1024)
/* Longest token kept, in bytes. Source: Bitbucket's tokens passed 2,500 bytes in August 2026. */
#define ABB_RECORD_TOKEN_MAX 8192
/* Largest private part before it is packed and sealed, in bytes. */
#define ABB_RECORD_PRIVATE_MAX (64 * 1024)

/* The open part. Pointers lead into the block it was decoded from. */
typedef struct abb_record_t {
    abb_account_t account;
    abb_grant_t *grants;
    int grant_count;
    /* When the visitor signed in, and when Bitbucket last described the account. */
    apr_time_t created_at;
    apr_time_t account_checked_at;
} abb_record_t;

/* The private part. Secret. */
typedef struct abb_record_private_t {
    abb_tokens_t tokens;
    /* The body of /2.0/user, compact JSON. */
    const char *raw_user;
} abb_record_private_t;

/*
 * How old an answer of Bitbucket may be, in microseconds: up to `soft` it is as
 * good as new, up to `hard` it serves while it is asked again, beyond that no
 * longer. soft <= hard.
 */
typedef struct abb_record_ages_t {
    apr_interval_time_t soft;
    apr_interval_time_t hard;
} abb_record_ages_t;

typedef enum { ABB_RECORD_FRESH, ABB_RECORD_DUE, ABB_RECORD_OLD } abb_record_age_t;

/* Bytes with their size. */
typedef struct abb_record_bytes_t {
    const void *bytes;
    apr_size_t size;
} abb_record_bytes_t;

/*
 * Write the open part as a flat block. Lifetime: p.
 * Errors: APR_ENOSPC over ABB_RECORD_OPEN_MAX or ABB_RECORD_GRANTS_MAX.
 */
apr_status_t abb_record_encode(const abb_record_t *record, abb_record_bytes_t *open, apr_pool_t *p);

/*
 * Read an open part in place: offsets are checked against the block, strings
 * are not copied. The block must be aligned to 8 bytes and outlive the record.
 * Lifetime of the grants array: p.
 * Errors: ABB_ESEAL when the block is not one that abb_record_encode wrote.
 */
apr_status_t abb_record_decode(const void *open, apr_size_t size, abb_record_t *record,
                               apr_pool_t *p);

/*
 * Seal the private part for one cookie at one site, to stand beside this open
 * part: what both say is packed away, so they belong together and are replaced
 * together. Lifetime: p.
 * Errors: APR_ENOSPC for a token over ABB_RECORD_TOKEN_MAX or a part over
 * ABB_RECORD_PRIVATE_MAX; ABB_ESEAL when `open` is no open part; ABB_ECRYPTO.
 */
apr_status_t abb_record_seal(const abb_record_private_t *private_part,
                             const abb_record_bytes_t *open, const abb_crypto_keyring_t *ring,
                             const void *cookie, apr_size_t cookie_size, const char *audience,
                             abb_record_bytes_t *sealed, apr_pool_t *p, abb_error_t *err);

/*
 * Open the private part that stands beside this open part. Lifetime: p, wiped
 * with it. Errors: ABB_ESEAL; ABB_ECRYPTO could not look.
 */
apr_status_t abb_record_open(const abb_record_bytes_t *sealed, const abb_record_bytes_t *open,
                             const abb_crypto_keyring_t *ring, const void *cookie,
                             apr_size_t cookie_size, const char *audience,
                             abb_record_private_t *private_part, apr_pool_t *p, abb_error_t *err);

/* The grant for a workspace as a rule names it (lower case), or NULL. */
const abb_grant_t *abb_record_find_grant(const abb_record_t *record, const char *asked);

/*
 * Whether a grant (may be NULL) was checked at `oldest` or later. One dated more
 * than two minutes ahead, after a jump of the clock, is not.
 */
int abb_record_is_fresh(const abb_grant_t *grant, apr_time_t oldest, apr_time_t now);

/* The same for the time at which something was asked for. */
int abb_record_is_since(apr_time_t checked_at, apr_time_t oldest, apr_time_t now);

/*
 * The age of an answer that was asked for at a time. One dated more than two
 * minutes ahead, after a jump of the clock, is old.
 */
abb_record_age_t abb_record_age(apr_time_t checked_at, const abb_record_ages_t *ages,
                                apr_time_t now);

/*
 * The record without its old grants, for whoever shows it: the one given when none is
 * old. Lifetime: p, and as the record.
 */
const abb_record_t *abb_record_without_old(const abb_record_t *record,
                                           const abb_record_ages_t *ages, apr_time_t now,
                                           apr_pool_t *p);

/*
 * Put a grant into a record in place of the one for the same workspace, if any.
 * The array is copied, the strings are borrowed. Lifetime: p.
 * Errors: APR_ENOSPC when ABB_RECORD_GRANTS_MAX other grants are there.
 */
apr_status_t abb_record_put_grant(abb_record_t *record, const abb_grant_t *grant, apr_pool_t *p);

#endif
