/*
 * store_near (floor 2): a store of this machine in front of one that several
 * machines share.
 *
 * Copies of open parts stand in the near store and are served for a while
 * without asking anybody. Everything that must be right for all machines is done
 * by the far store; the near one remembers, and sees to it that of the threads
 * and processes of this machine one asks at a time. Knows neither engine.
 */
#ifndef ABB_STORE_NEAR_H
#define ABB_STORE_NEAR_H

#include "abb_store.h"

typedef struct abb_store_near_settings_t {
    /* How long a copy is served before the far store is asked again. */
    apr_interval_time_t age;
    /*
     * How long after it was read a copy is served when the far store cannot be
     * asked; at least `age`.
     */
    apr_interval_time_t outage_age;
} abb_store_near_settings_t;

/*
 * Open a store over two. What the contract says holds, but for this:
 * - get of the open part may be as old as `age` (and the time of one question),
 *   or `outage_age` while the far store gives ABB_ESTORE; what this machine
 *   changed itself is seen at once. Both parts are always read from the far one.
 * - put refuses APR_EEXIST also while another thread of this machine puts the
 *   same key.
 * - a lease is exact on this machine, and between machines as the far store's.
 * - touch is as the far store's, but its ABB_ESTORE is none while a copy is here.
 * Figures: those of the far store; what it does not know of itself, but records
 * and what became of them, is told of the near one.
 * The settings are copied. Lifetime: p, within that of both stores.
 */
void abb_store_near_create(const abb_store_t **store, const abb_store_t *near,
                           const abb_store_t *far, const abb_store_near_settings_t *settings,
                           apr_pool_t *p);

#endif
