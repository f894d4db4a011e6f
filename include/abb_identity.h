/*
 * identity (floor 3): who it is, told to applications.
 *
 * What an account is called there, in the variables of a request. Knows no session
 * store, no rule, and not how it came to be known.
 * Threads: all functions work on a request of the calling thread.
 */
#ifndef ABB_IDENTITY_H
#define ABB_IDENTITY_H

#include <httpd.h>

#include "abb_record.h"

/*
 * Set the variables of a signed-in visitor for CGI and the like: BITBUCKET_UUID
 * and the others of docs/directives.md. Absent values are not set. Bytes below
 * 0x20 never get through (the reply room replaces them).
 */
void abb_identity_set_variables(request_rec *r, const abb_record_t *record);

/*
 * Tell the application that what Bitbucket said is so old, since it cannot be
 * asked: BITBUCKET_STALE, in seconds.
 */
void abb_identity_set_stale(request_rec *r, apr_interval_time_t age);

/*
 * The attribute of an account by its lower-case name ("username", "email",
 * "uuid", "account_id", "nickname"), NULL when the account has none.
 * abb_identity_is_attribute tells whether a name is one of them.
 */
const char *abb_identity_attribute(const abb_account_t *account, const char *name);
int abb_identity_is_attribute(const char *name);

/* "slug:role" of every row with a role, separated by spaces; NULL for none. */
const char *abb_identity_workspaces(const abb_record_t *record, apr_pool_t *p);

#endif
