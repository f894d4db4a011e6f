/*
 * population: stores full of sessions as they are in real life, for measuring.
 *
 * A few dozen sessions are made by the session room itself; their bytes are then
 * put under as many keys as wanted, since sealing a million would measure the
 * cipher. The id of session number i follows from i, so that another program,
 * or another run, can make its cookie. Faults end the program.
 */
#ifndef POPULATION_H
#define POPULATION_H

#include <apr_global_mutex.h>

#include "abb_session.h"
#include "abb_store_shm.h"

/* Length of a session's cookie, with its NUL. */
#define COOKIE_SIZE 44
/* When everything here happens. */
#define BENCH_NOW apr_time_from_sec(1800000000)

/* What the visitors of a store have in common. */
typedef struct {
    int token_length;
    int workspaces;
} visitor_kind_t;

extern const visitor_kind_t bench_short_tokens;
extern const visitor_kind_t bench_long_tokens;
extern const visitor_kind_t bench_many_workspaces;

/* A store in a segment, and the site whose sessions it keeps. */
typedef struct {
    apr_pool_t *p;
    void *segment;
    apr_size_t size;
    apr_global_mutex_t *lock;
    abb_store_shm_proof_key_t proof_key;
    const abb_store_t *store;
    abb_crypto_keyring_t ring;
    abb_sessions_t sessions;
    apr_time_t now;
} bench_store_t;

/* Who may read the sessions: as in the configuration of httpd. */
typedef struct {
    const char *client_id;
    const char *origin;
    /* The session key in base64url; NULL: any will do. */
    const char *session_key;
} bench_site_t;

extern const bench_site_t bench_any_site;

/* The bytes of sessions, to be put under any key. */
typedef struct {
    int count;
    abb_store_record_t *records;
    /* When the sessions began. */
    apr_time_t now;
} bench_template_t;

/* End the program unless status is APR_SUCCESS. */
void bench_must(apr_status_t status, const char *what);

/* An empty store; in a file when one is named, else in anonymous shared memory. Lifetime: p. */
bench_store_t *bench_create_store(apr_size_t size, const char *file, const bench_site_t *site,
                                  apr_time_t now, apr_pool_t *p);

/* A store that is in a file. Lifetime: p. */
bench_store_t *bench_open_store(const char *file, const bench_site_t *site, apr_time_t now,
                                apr_pool_t *p);

/* Give the segment back. */
void bench_destroy_store(bench_store_t *store);

/* One session of this kind, with an account of its own, as a sign-in makes it. Lifetime: p. */
abb_session_t *bench_sign_in(bench_store_t *store, const visitor_kind_t *kind, apr_uint64_t number,
                             apr_pool_t *p);

/* Sessions of a kind as bytes. Lifetime: p. */
bench_template_t *bench_create_template(const visitor_kind_t *kind, const bench_site_t *site,
                                        apr_time_t now, apr_pool_t *p);

/* Put session number i. Returns what the store does. */
apr_status_t bench_put(bench_store_t *store, const bench_template_t *template, apr_uint64_t i);

/* The key and the cookie of session number i. */
void bench_find_key(const bench_store_t *store, apr_uint64_t i, abb_store_key_t *key);
void bench_find_cookie(apr_uint64_t i, char cookie[COOKIE_SIZE]);

/* How large a segment must be for so many sessions, in bytes. */
apr_size_t bench_size_for(const bench_template_t *template, apr_uint64_t sessions, apr_pool_t *p);

/* A store with the sessions 0 to `sessions` - 1, every one of them living. Lifetime: p. */
bench_store_t *bench_populate(const bench_template_t *template, apr_uint64_t sessions,
                              const char *file, const bench_site_t *site, apr_pool_t *p);

/* Numbers that look like chance and are the same in each run. */
apr_uint64_t bench_random(apr_uint64_t *state);

#endif
