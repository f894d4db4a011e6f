/*
 * store_near (floor 2): a store of this machine in front of a shared one.
 *
 * A copy in the near store is a record whose open part begins with a prefix:
 *
 *      0         80
 *      +---------+---------------------------+
 *      | prefix  | open part as it was read  |
 *      +---------+---------------------------+
 *
 * It stands under the record's key with some bits flipped (SLOT_...), so that a
 * near store that was or will be a store of its own mixes nothing up: keys are
 * hashes, nobody has the flipped one. Beside it may stand, for a moment, who has
 * the lease on this machine and who puts.
 *
 * A copy must never bring back what somebody of this machine has just changed.
 * So whoever reads the far store first notes the generation of the copy, or puts
 * a mark where there is none, and afterwards replaces only that generation. Who
 * writes changes the far store first and drops the copy then, marks too.
 */
#include "abb_store_near.h"

#include <string.h>

#define PREFIX_MAGIC 0x4e425031
/* Whoever asks has an answer or has given up after so long, unless it was killed. */
#define ASKING_TIME apr_time_from_sec(1)
/* How long a mark and the note of a put stay when whoever made them was killed. */
#define MARK_TIME apr_time_from_sec(2)
/* How long this machine does not ask again for a lease that another one holds. */
#define HELD_ELSEWHERE_TIME apr_time_from_msec(100)
/* A use that the far store does not know yet is told it after so long. */
#define TELL_USE_INTERVAL apr_time_from_sec(60)

enum { SLOT_COPY = 0x55, SLOT_LEASE = 0xaa, SLOT_PUT = 0xff };

typedef struct {
    apr_uint32_t magic;
    /* Somebody asks and there is nothing yet to serve. */
    apr_uint32_t is_mark;
    apr_time_t fetched_at;
    /* When somebody last began to ask for a newer one. */
    apr_time_t asked_at;
    /* What the near store took for the last use; anything later is one. */
    apr_time_t put_at;
    /* The last use that was known when it was fetched. */
    apr_time_t seen_at;
    apr_time_t expires_at;
    apr_interval_time_t idle;
    apr_time_t failed_at;
    apr_uint64_t generation;
    apr_uint64_t sealed_size;
} prefix_t;

typedef struct {
    abb_store_t store;
    const abb_store_t *near;
    const abb_store_t *far;
    abb_store_near_settings_t settings;
} near_t;

/* A copy as it was found. */
typedef struct {
    abb_store_record_t record;
    /* NULL: there is none. */
    const prefix_t *prefix;
} copy_t;

/* What a get asks for. */
typedef struct {
    const near_t *engine;
    const abb_store_key_t *key;
    abb_store_key_t slot;
    apr_time_t now;
    apr_pool_t *pool;
} query_t;

static abb_store_key_t slot_of(const abb_store_key_t *key, unsigned char slot)
{
    abb_store_key_t other = *key;

    other.bytes[ABB_STORE_KEY_SIZE - 1] ^= slot;
    return other;
}

static void drop_slot(const near_t *engine, const abb_store_key_t *key, unsigned char slot)
{
    abb_store_key_t other = slot_of(key, slot);

    abb_store_drop(engine->near, &other, NULL);
}

/* ---- copies -------------------------------------------------------------- */

static void find_copy(const query_t *query, copy_t *copy)
{
    const prefix_t *prefix;

    copy->prefix = NULL;
    if (abb_store_get(query->engine->near, &query->slot, ABB_STORE_OPEN_PART, query->now,
                      &copy->record, query->pool, NULL) == APR_SUCCESS &&
        copy->record.open_size >= sizeof(*prefix)) {
        prefix = copy->record.open;
        copy->prefix = prefix->magic == PREFIX_MAGIC ? prefix : NULL;
    }
}

static int is_within(apr_time_t now, apr_time_t since, apr_interval_time_t duration)
{
    /* A clock that was set back makes everything old. */
    return now >= since && now - since < duration;
}

static apr_time_t last_use(const copy_t *copy)
{
    apr_time_t touched = copy->record.last_seen;

    return touched > copy->prefix->put_at && touched > copy->prefix->seen_at
               ? touched
               : copy->prefix->seen_at;
}

/* Whether a copy may be served when it is not older than this. */
static int is_servable(const copy_t *copy, apr_time_t now, apr_interval_time_t age)
{
    const prefix_t *prefix = copy->prefix;

    return prefix && !prefix->is_mark && is_within(now, prefix->fetched_at, age) &&
           now < prefix->expires_at && (!prefix->idle || now < last_use(copy) + prefix->idle);
}

/* Leave the prefix behind. */
static apr_status_t serve(const copy_t *copy, abb_store_record_t *record)
{
    const prefix_t *prefix = copy->prefix;

    record->open = prefix + 1;
    record->open_size = copy->record.open_size - sizeof(*prefix);
    record->sealed = NULL;
    record->sealed_size = (apr_size_t)prefix->sealed_size;
    record->expires_at = prefix->expires_at;
    record->idle = prefix->idle;
    record->last_seen = last_use(copy);
    record->generation = prefix->generation;
    record->failed_at = prefix->failed_at;
    return APR_SUCCESS;
}

/* A record of the near store with a prefix and an open part, for so long. */
static abb_store_record_t compose(const prefix_t *prefix, const void *open, apr_size_t open_size,
                                  apr_time_t expires_at, apr_pool_t *p)
{
    char *bytes = apr_palloc(p, sizeof(*prefix) + open_size);
    abb_store_record_t record;

    memcpy(bytes, prefix, sizeof(*prefix));
    if (open_size) {
        memcpy(bytes + sizeof(*prefix), open, open_size);
    }
    memset(&record, 0, sizeof(record));
    record.open = bytes;
    record.open_size = sizeof(*prefix) + open_size;
    record.expires_at = expires_at;
    return record;
}

/* ---- asking -------------------------------------------------------------- */

/* Say in the copy that somebody asks. ABB_ECHANGED: another was faster. */
static apr_status_t claim_copy(const query_t *query, copy_t *copy)
{
    prefix_t prefix = *copy->prefix;
    abb_store_record_t record;
    apr_status_t status;

    prefix.asked_at = query->now;
    record = compose(&prefix, copy->prefix + 1, copy->record.open_size - sizeof(prefix),
                     copy->record.expires_at, query->pool);
    status = abb_store_replace(query->engine->near, &query->slot, copy->record.generation, &record,
                               query->now, NULL);
    if (status == APR_SUCCESS) {
        find_copy(query, copy);
    }
    return status;
}

/* A mark where there is no copy. When another made one already, nothing will be kept. */
static void claim_place(const query_t *query, copy_t *copy)
{
    prefix_t prefix;
    abb_store_record_t record;

    memset(&prefix, 0, sizeof(prefix));
    prefix.magic = PREFIX_MAGIC;
    prefix.is_mark = 1;
    /* Before now, so that a use at this very moment can be told from the putting. */
    prefix.put_at = query->now - 1;
    record = compose(&prefix, NULL, 0, query->now + MARK_TIME, query->pool);
    if (abb_store_put(query->engine->near, &query->slot, &record, prefix.put_at, NULL) ==
        APR_SUCCESS) {
        find_copy(query, copy);
    }
}

/* Put what the far store said in place of what was here before it was asked. */
static void keep(const query_t *query, const copy_t *before, const abb_store_record_t *far)
{
    apr_time_t end = query->now + query->engine->settings.outage_age;
    prefix_t prefix;
    abb_store_record_t record;

    if (!before->prefix) {
        return;
    }
    memset(&prefix, 0, sizeof(prefix));
    prefix.magic = PREFIX_MAGIC;
    prefix.fetched_at = query->now;
    prefix.put_at = before->prefix->put_at;
    prefix.seen_at = far->last_seen;
    prefix.expires_at = far->expires_at;
    prefix.idle = far->idle;
    prefix.failed_at = far->failed_at;
    prefix.generation = far->generation;
    prefix.sealed_size = far->sealed_size;
    record = compose(&prefix, far->open, far->open_size,
                     end < far->expires_at ? end : far->expires_at, query->pool);
    abb_store_replace(query->engine->near, &query->slot, before->record.generation, &record,
                      query->now, NULL);
}

/* A use known here and not there, as when the far store could not be told. */
static void tell_use(const query_t *query, const copy_t *before, abb_store_record_t *far)
{
    apr_interval_time_t interval =
        far->idle && far->idle / 2 < TELL_USE_INTERVAL ? far->idle / 2 : TELL_USE_INTERVAL;
    apr_time_t used;

    if (!before->prefix || before->prefix->is_mark ||
        before->prefix->generation != far->generation) {
        return;
    }
    used = last_use(before);
    if (used - far->last_seen >= interval) {
        abb_store_touch(query->engine->far, query->key, used, NULL);
    }
    if (used > far->last_seen) {
        far->last_seen = used;
    }
}

/* Ask the far store; when it cannot be asked, a copy that is not too old does. */
static apr_status_t ask(const query_t *query, copy_t *copy, abb_store_record_t *record,
                        abb_error_t *err)
{
    const near_t *engine = query->engine;
    int may_bridge = is_servable(copy, query->now, engine->settings.outage_age);
    apr_status_t status = abb_store_get(engine->far, query->key, ABB_STORE_OPEN_PART, query->now,
                                        record, query->pool, may_bridge ? NULL : err);

    if (status == APR_SUCCESS) {
        tell_use(query, copy, record);
        keep(query, copy, record);
    }
    else if (status == APR_NOTFOUND || (copy->prefix && copy->prefix->is_mark)) {
        abb_store_drop(engine->near, &query->slot, NULL);
    }
    else if (may_bridge) {
        return serve(copy, record);
    }
    return status;
}

/* There is no copy, or one to renew. One asks; others are served meanwhile what is there. */
static apr_status_t renew(const query_t *query, copy_t *copy, abb_store_record_t *record,
                          abb_error_t *err)
{
    const near_t *engine = query->engine;

    if (!copy->prefix) {
        claim_place(query, copy);
    }
    else if (is_servable(copy, query->now, engine->settings.outage_age) &&
             (is_within(query->now, copy->prefix->asked_at, ASKING_TIME) ||
              claim_copy(query, copy) != APR_SUCCESS)) {
        return serve(copy, record);
    }
    return ask(query, copy, record, err);
}

static apr_status_t near_get(void *self, const abb_store_key_t *key, abb_store_parts_t parts,
                             apr_time_t now, abb_store_record_t *record, apr_pool_t *p,
                             abb_error_t *err)
{
    const near_t *engine = self;
    query_t query = {engine, key, slot_of(key, SLOT_COPY), now, p};
    copy_t copy;
    apr_status_t status;

    if (parts == ABB_STORE_OPEN_PART) {
        find_copy(&query, &copy);
        return is_servable(&copy, now, engine->settings.age) ? serve(&copy, record)
                                                             : renew(&query, &copy, record, err);
    }
    status = abb_store_get(engine->far, key, parts, now, record, p, err);
    if (status == APR_NOTFOUND) {
        drop_slot(engine, key, SLOT_COPY);
    }
    return status;
}

/* ---- writers: the far store first, then what is here --------------------- */

static apr_status_t near_put(void *self, const abb_store_key_t *key,
                             const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    const near_t *engine = self;
    abb_store_key_t place = slot_of(key, SLOT_PUT);
    abb_store_record_t note;
    apr_status_t status;

    memset(&note, 0, sizeof(note));
    note.expires_at = now + MARK_TIME;
    if ((status = abb_store_put(engine->near, &place, &note, now, err)) != APR_SUCCESS) {
        return status;
    }
    status = abb_store_put(engine->far, key, record, now, err);
    if (status == APR_SUCCESS) {
        drop_slot(engine, key, SLOT_COPY);
        drop_slot(engine, key, SLOT_LEASE);
    }
    abb_store_drop(engine->near, &place, NULL);
    return status;
}

static apr_status_t near_replace(void *self, const abb_store_key_t *key, apr_uint64_t generation,
                                 const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    const near_t *engine = self;
    apr_status_t status = abb_store_replace(engine->far, key, generation, record, now, err);

    if (status != ABB_ESTORE) {
        drop_slot(engine, key, SLOT_COPY);
    }
    return status;
}

static apr_status_t near_touch(void *self, const abb_store_key_t *key, apr_time_t now,
                               abb_error_t *err)
{
    const near_t *engine = self;
    abb_store_key_t place = slot_of(key, SLOT_COPY);
    apr_status_t here = abb_store_touch(engine->near, &place, now, NULL);
    apr_status_t there = abb_store_touch(engine->far, key, now, here == APR_SUCCESS ? NULL : err);

    if (there == APR_NOTFOUND) {
        abb_store_drop(engine->near, &place, NULL);
        return there;
    }
    return here == APR_SUCCESS ? here : there;
}

static apr_status_t near_drop(void *self, const abb_store_key_t *key, abb_error_t *err)
{
    const near_t *engine = self;
    apr_status_t status = abb_store_drop(engine->far, key, err);

    if (status != ABB_ESTORE) {
        drop_slot(engine, key, SLOT_COPY);
        drop_slot(engine, key, SLOT_LEASE);
    }
    return status;
}

/* ---- leases -------------------------------------------------------------- */

/* Note on this machine who has the lease; 0: somebody who still asks, or another machine. */
static apr_status_t note_lease(const near_t *engine, const abb_store_key_t *place,
                               apr_uint64_t holder, apr_time_t until, apr_time_t now,
                               abb_error_t *err)
{
    abb_store_record_t note;

    memset(&note, 0, sizeof(note));
    note.open = &holder;
    note.open_size = sizeof(holder);
    note.expires_at = until;
    return abb_store_put(engine->near, place, &note, now, err);
}

/* Take away what was noted before the clock was put back. */
static void forget_note_of_another_clock(const near_t *engine, const abb_store_key_t *place,
                                         apr_time_t now)
{
    abb_store_record_t note;
    apr_pool_t *scratch;

    apr_pool_create(&scratch, NULL);
    if (abb_store_get(engine->near, place, ABB_STORE_OPEN_PART, now, &note, scratch, NULL) ==
            APR_SUCCESS &&
        !abb_store_is_leased(note.expires_at, now)) {
        abb_store_drop(engine->near, place, NULL);
    }
    apr_pool_destroy(scratch);
}

/* Whether a record that somebody here has leased is still there at all. */
static apr_status_t refuse_lease(near_t *engine, const abb_store_key_t *key, apr_time_t now,
                                 abb_error_t *err)
{
    abb_store_record_t record;
    apr_status_t status;
    apr_pool_t *scratch;

    apr_pool_create(&scratch, NULL);
    status = near_get(engine, key, ABB_STORE_OPEN_PART, now, &record, scratch, err);
    apr_pool_destroy(scratch);
    return status == APR_SUCCESS ? ABB_ECHANGED : status;
}

static apr_status_t near_lease(void *self, const abb_store_key_t *key, apr_interval_time_t duration,
                               apr_time_t now, apr_uint64_t *holder, abb_error_t *err)
{
    near_t *engine = self;
    abb_store_key_t place = slot_of(key, SLOT_LEASE);
    apr_status_t status = note_lease(engine, &place, 0, now + duration, now, err);

    if (status == APR_EEXIST) {
        forget_note_of_another_clock(engine, &place, now);
        status = note_lease(engine, &place, 0, now + duration, now, err);
    }
    if (status == APR_EEXIST) {
        return refuse_lease(engine, key, now, err);
    }
    if (status != APR_SUCCESS) {
        return status;
    }
    status = abb_store_lease(engine->far, key, duration, now, holder, err);
    abb_store_drop(engine->near, &place, NULL);
    if (status == APR_SUCCESS) {
        note_lease(engine, &place, *holder, now + duration, now, NULL);
    }
    else if (status == ABB_ECHANGED) {
        note_lease(engine, &place, 0, now + HELD_ELSEWHERE_TIME, now, NULL);
    }
    return status;
}

static void forget_lease(const near_t *engine, const abb_store_key_t *key, apr_uint64_t holder)
{
    abb_store_key_t place = slot_of(key, SLOT_LEASE);
    abb_store_record_t note;
    apr_pool_t *scratch;

    apr_pool_create(&scratch, NULL);
    /* At the beginning of time nothing has expired. */
    if (abb_store_get(engine->near, &place, ABB_STORE_OPEN_PART, 0, &note, scratch, NULL) ==
            APR_SUCCESS &&
        note.open_size == sizeof(holder) && memcmp(note.open, &holder, sizeof(holder)) == 0) {
        abb_store_drop(engine->near, &place, NULL);
    }
    apr_pool_destroy(scratch);
}

static apr_status_t near_release(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                                 abb_error_t *err)
{
    const near_t *engine = self;
    apr_status_t status = abb_store_release(engine->far, key, holder, err);

    forget_lease(engine, key, holder);
    return status;
}

static apr_status_t near_fail(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                              apr_time_t now, abb_error_t *err)
{
    const near_t *engine = self;
    apr_status_t status = abb_store_fail(engine->far, key, holder, now, err);

    if (status == APR_SUCCESS) {
        drop_slot(engine, key, SLOT_COPY);
    }
    forget_lease(engine, key, holder);
    return status;
}

/* ---- figures ------------------------------------------------------------- */

static apr_int64_t known_or(apr_int64_t figure, apr_int64_t other)
{
    return figure >= 0 ? figure : other;
}

static void near_figures(void *self, abb_store_figures_t *figures)
{
    const near_t *engine = self;
    abb_store_figures_t here;

    abb_store_figures(engine->far, figures);
    abb_store_figures(engine->near, &here);
    figures->bytes_used = known_or(figures->bytes_used, here.bytes_used);
    figures->bytes_capacity = known_or(figures->bytes_capacity, here.bytes_capacity);
    figures->hits = known_or(figures->hits, here.hits);
    figures->misses = known_or(figures->misses, here.misses);
    figures->recoveries = known_or(figures->recoveries, here.recoveries);
}

static apr_int64_t near_take_evictions(void *self, apr_time_t now)
{
    const near_t *engine = self;

    return abb_store_take_evictions(engine->far, now);
}

/* ---- opening ------------------------------------------------------------- */

static const abb_store_methods_t methods = {
    near_get,  near_put,  near_replace, near_touch,          near_lease, near_release,
    near_fail, near_drop, near_figures, near_take_evictions, NULL,       NULL,
};

void abb_store_near_create(const abb_store_t **store, const abb_store_t *near,
                           const abb_store_t *far, const abb_store_near_settings_t *settings,
                           apr_pool_t *p)
{
    near_t *engine = apr_pcalloc(p, sizeof(*engine));

    engine->near = near;
    engine->far = far;
    engine->settings = *settings;
    engine->store.methods = &methods;
    engine->store.engine = engine;
    *store = &engine->store;
}
