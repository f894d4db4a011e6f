/*
 * contract: what every store must do, run against each engine.
 *
 * A test program names its engines; contract_run makes one test of each engine
 * and each sentence of the contract. What an engine cannot do by its nature (one
 * without a size of its own has no eviction) is said in engine_maker_t.
 */
#ifndef CONTRACT_H
#define CONTRACT_H

#include "abb_store.h"
#include "unit.h"

#define NOW apr_time_from_sec(1800000000)
#define SECONDS(n) apr_time_from_sec(n)
#define HOURS(n) apr_time_from_sec((n)*3600)
#define KIB 1024

/* The size of the stores that most tests use; the smallest that there is. */
#define CONTRACT_STORE_SIZE (256 * KIB)

typedef struct {
    const char *name;
    /* An empty store of about this size. Lifetime: p. */
    const abb_store_t *(*create)(apr_size_t size, apr_pool_t *p);
    /* NULL when the store is whole, else what is wrong. May be NULL itself. */
    const char *(*check)(const abb_store_t *store);
    /* It has a size of its own, so that it gets full, and knows its figures. */
    int is_sized;
} engine_maker_t;

/* What a test of the contract has. */
typedef struct {
    const engine_maker_t *engine;
    const abb_store_t *store;
    apr_pool_t *p;
} place_t;

/* ---- records that describe themselves ------------------------------------ */

/* A number that looks random. */
apr_uint64_t mix(apr_uint64_t x);
/* The key of a record with a number. */
abb_store_key_t make_key(apr_uint64_t number);
/* Bytes that follow from a salt and a size alone. */
void fill(char *bytes, apr_size_t size, apr_uint64_t salt);
int is_filled(const char *bytes, apr_size_t size, apr_uint64_t salt);
/* A record whose parts end exactly where they end. Lifetime: p. */
abb_store_record_t make_record(apr_size_t open_size, apr_size_t sealed_size, apr_uint64_t salt,
                               apr_pool_t *p);

/* ---- steps of a test: the function of the contract on a numbered record ----- */

apr_status_t put_at(const abb_store_t *store, apr_uint64_t number, const abb_store_record_t *record,
                    apr_time_t now);
/* Put a record of some hundred bytes. */
apr_status_t put_small(place_t *place, apr_uint64_t number);
/* Both parts. */
apr_status_t get_at(place_t *place, apr_uint64_t number, apr_time_t now,
                    abb_store_record_t *record);
apr_status_t status_at(place_t *place, apr_uint64_t number, apr_time_t now);
/* Fail unless a record is the one make_record made with this salt. */
void check_content(const abb_store_record_t *record, apr_size_t open_size, apr_size_t sealed_size,
                   apr_uint64_t salt);
apr_status_t replace_at(place_t *place, apr_uint64_t number, apr_uint64_t generation,
                        const abb_store_record_t *record, apr_time_t now);
apr_status_t touch_at(place_t *place, apr_uint64_t number, apr_time_t now);
apr_status_t lease_at(place_t *place, apr_uint64_t number, apr_interval_time_t duration,
                      apr_time_t now, apr_uint64_t *holder);
apr_status_t release_at(place_t *place, apr_uint64_t number, apr_uint64_t holder);
apr_status_t drop_at(place_t *place, apr_uint64_t number);
abb_store_figures_t figures_of(const abb_store_t *store);
apr_status_t fail_at(place_t *place, apr_uint64_t number, apr_uint64_t holder, apr_time_t now);

/* Fail unless the store is whole. */
void check_whole(const place_t *place, const abb_store_t *store);

/*
 * Run the contract for each engine, and a program's own tests behind it. What
 * main returns.
 */
int contract_run(const engine_maker_t *engines, size_t engine_count, const struct CMUnitTest *own,
                 size_t own_count);

#endif
