/*
 * index (floor 4): which sessions an account has, for those who look after a site.
 *
 * A session is found by its cookie alone. Where the store can be walked, an account's
 * sessions are found by looking at all there are. Where it cannot, or where an account
 * may have so many only, each new session is also noted in one record of the account,
 * which has a keyed hash of the uuid for a name and room for
 * ABB_SESSION_PER_ACCOUNT_MAX of them; before one more, the oldest ends:
 *
 *      uuid ---HMAC(session key)---> key of a session, its begin, its end; the next; ...
 *
 * The cookie is nowhere in it, so sealed parts stay sealed. What is noted may have ended
 * long ago; that is seen when somebody looks.
 */
#ifndef ABB_INDEX_H
#define ABB_INDEX_H

#include <apr_tables.h>

#include "abb_session.h"

/* A session as others than its owner see it. */
typedef struct abb_index_session_t {
    abb_store_key_t key;
    char tag[ABB_SESSION_TAG_SIZE];
    apr_time_t created_at;
    /* When it was last used, give or take ABB_SESSION_TOUCH_INTERVAL. */
    apr_time_t last_seen;
    /* When it ends if it is not used again. */
    apr_time_t ends_at;
} abb_index_session_t;

/*
 * Note a session just made if it has to be. With more of ABB_SESSION_KIND than
 * sessions->max_per_account, those that began first end: *ended is how many. Sessions
 * that began before anybody noted them count for nothing. One that cannot be noted ends:
 * nobody could find it later. Waits while others are at the same list, 5 seconds in all,
 * and for the store: at most one answer for each session noted and each that ends, and all
 * of them again when that took more than 2 seconds and another wrote the list meanwhile.
 * Errors: ABB_ESTORE; ABB_ECRYPTO. Lifetime of temporary memory: p. Threads: any, like
 * all functions here.
 */
apr_status_t abb_index_add(const abb_sessions_t *sessions, const abb_session_t *session,
                           apr_time_t now, int *ended, apr_pool_t *p, abb_error_t *err);

/*
 * Note a living session anew when the list does not have it any more: a cache forgets
 * what is not used, and a list is used less often than a session. Ends no session: in a
 * list that is full nothing is noted. session->record must be as the store has it. Costs
 * a look into the store; when there is something to note it may wait as abb_index_add.
 * Errors: as those of abb_index_add, and nothing has become worse.
 */
apr_status_t abb_index_keep(const abb_sessions_t *sessions, const abb_session_t *session,
                            apr_time_t now, apr_pool_t *p, abb_error_t *err);

/*
 * Add an account's living sessions, in no order, to a list of abb_index_session_t: those of
 * all sites of the store where it can be walked, else those of this site. uuid as in
 * abb_account_t.
 * Lifetime: the list's pool. Errors: ABB_ESTORE; ABB_ECRYPTO.
 */
apr_status_t abb_index_list(const abb_sessions_t *sessions, const char *uuid, apr_time_t now,
                            apr_array_header_t *list, abb_error_t *err);

/* End these sessions. *ended: how many there were. Errors: ABB_ESTORE. */
apr_status_t abb_index_end(const abb_sessions_t *sessions, const apr_array_header_t *list,
                           int *ended, abb_error_t *err);

/*
 * End every session of the store, of every site. *ended: how many there were.
 * Errors: APR_ENOTIMPL the store cannot be walked; ABB_ESTORE.
 */
apr_status_t abb_index_end_all(const abb_sessions_t *sessions, apr_time_t now, int *ended,
                               apr_pool_t *p, abb_error_t *err);

#endif
