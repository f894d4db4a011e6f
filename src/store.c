/* store (floor 2): the contract of a place that keeps records. */
#include "abb_store.h"

apr_status_t abb_store_get(const abb_store_t *store, const abb_store_key_t *key,
                           abb_store_parts_t parts, apr_time_t now, abb_store_record_t *record,
                           apr_pool_t *p, abb_error_t *err)
{
    record->place = 0;
    return store->methods->get(store->engine, key, parts, now, record, p, err);
}

void abb_store_expect(const abb_store_t *store, const abb_store_key_t *key, apr_uint32_t place)
{
    if (store->methods->expect) {
        store->methods->expect(store->engine, key, place);
    }
}

apr_status_t abb_store_put(const abb_store_t *store, const abb_store_key_t *key,
                           const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    return store->methods->put(store->engine, key, record, now, err);
}

apr_status_t abb_store_replace(const abb_store_t *store, const abb_store_key_t *key,
                               apr_uint64_t generation, const abb_store_record_t *record,
                               apr_time_t now, abb_error_t *err)
{
    return store->methods->replace(store->engine, key, generation, record, now, err);
}

apr_status_t abb_store_touch(const abb_store_t *store, const abb_store_key_t *key, apr_time_t now,
                             abb_error_t *err)
{
    return store->methods->touch(store->engine, key, now, err);
}

apr_status_t abb_store_lease(const abb_store_t *store, const abb_store_key_t *key,
                             apr_interval_time_t duration, apr_time_t now, apr_uint64_t *holder,
                             abb_error_t *err)
{
    return store->methods->lease(store->engine, key, duration, now, holder, err);
}

int abb_store_is_leased(apr_time_t until, apr_time_t now)
{
    return now < until && until - now <= ABB_STORE_LEASE_MAX;
}

apr_status_t abb_store_release(const abb_store_t *store, const abb_store_key_t *key,
                               apr_uint64_t holder, abb_error_t *err)
{
    return store->methods->release(store->engine, key, holder, err);
}

apr_status_t abb_store_fail(const abb_store_t *store, const abb_store_key_t *key,
                            apr_uint64_t holder, apr_time_t now, abb_error_t *err)
{
    return store->methods->fail(store->engine, key, holder, now, err);
}

apr_status_t abb_store_drop(const abb_store_t *store, const abb_store_key_t *key, abb_error_t *err)
{
    return store->methods->drop(store->engine, key, err);
}

int abb_store_can_walk(const abb_store_t *store)
{
    return store->methods->walk != NULL;
}

apr_status_t abb_store_walk(const abb_store_t *store, apr_time_t now, abb_store_look_t look,
                            void *context, apr_pool_t *p, abb_error_t *err)
{
    return store->methods->walk
               ? store->methods->walk(store->engine, now, look, context, p, err)
               : abb_error_set(err, APR_ENOTIMPL, "what the session cache holds cannot be listed");
}

void abb_store_figures(const abb_store_t *store, abb_store_figures_t *figures)
{
    store->methods->figures(store->engine, figures);
}

apr_int64_t abb_store_take_evictions(const abb_store_t *store, apr_time_t now)
{
    return store->methods->take_evictions(store->engine, now);
}
