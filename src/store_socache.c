/*
 * store_socache (floor 2): the store contract on an ap_socache provider.
 *
 * A record is one object 'r' and, once it was used, another one 'u':
 *
 *      r, sealed:  0      64        64+n        64+n+m
 *                  +------+---------+-----------+
 *                  | head | open n  | sealed m  |
 *                  +------+---------+-----------+
 *
 *      u, sealed:  birth of the record it belongs to, time of the last use
 *      l, sealed:  birth of the record it belongs to, who has the lease until when
 *
 * Neither a use nor a lease writes the record: whoever reads it, changes it and
 * writes it back may undo what another machine writes in between, a new token or a
 * sign-out. Other writers have the lease, or come once in a record's life.
 * Who still may meet another (put, lease, drop) looks again after `settle`.
 *
 * Each operation is one job (abb_offload.h) that owns all its memory, since who
 * asked may be gone when it ends.
 */
#include "abb_store_socache.h"

#include <string.h>

#include "abb_clock.h"
#include "abb_offload.h"
#include "store_socache_line.h"

#define HEAD_MAGIC 0x52424232
#define PURPOSE "session cache"
/* Objects stay a little longer than what is in them counts: clocks differ. */
#define EXPIRY_MARGIN apr_time_from_sec(60)
#define PROBE_PATIENCE apr_time_from_sec(10)
/* How often a record that comes back is removed again. */
#define DROPS_MAX 3
/* How long nobody leases what somebody may hold whose lease was written over. */
#define DOUBT apr_time_from_msec(500)

typedef struct {
    apr_uint32_t magic;
    apr_uint32_t open_size;
    apr_uint32_t sealed_size;
    apr_uint32_t reserved;
    apr_time_t expires_at;
    apr_interval_time_t idle;
    /* When it was put; later uses are in an object of their own. */
    apr_time_t last_seen;
    apr_time_t failed_at;
    /* Each replacement changes it. */
    apr_uint64_t generation;
    /* It stays for the record's life. */
    apr_uint64_t birth;
} head_t;

typedef struct {
    apr_uint64_t birth;
    apr_time_t last_seen;
} use_t;

typedef struct {
    apr_uint64_t birth;
    /* 0: nobody. */
    apr_uint64_t holder;
    apr_time_t until;
    /* Who wrote it was late: it keeps others away, and nobody holds it. */
    apr_uint64_t is_doubtful;
} lease_t;

struct abb_store_socache_t {
    abb_store_t store;
    const abb_store_socache_settings_t *settings;
    abb_crypto_sealer_t *sealer;
    lines_t lines;
    /* NULL: not started, or LOCAL. */
    abb_offload_t *offload;
};

typedef struct operation_t operation_t;
typedef apr_status_t (*perform_t)(operation_t *operation);

/* One call of the contract: what it brings, and what comes of it. */
struct operation_t {
    abb_store_socache_t *engine;
    perform_t perform;
    abb_store_key_t key;
    abb_store_record_t record;
    apr_uint64_t generation;
    apr_uint64_t holder;
    /* Drawn when they are needed first: what a first try has written is known again by them. */
    apr_uint64_t new_birth;
    apr_uint64_t new_generation;
    /* When the lease was seen to be free, by the monotonic clock, and whether after a doubt. */
    apr_time_t seen_at;
    int is_after_doubt;
    /* By that clock, when somebody began to wait for it. */
    apr_time_t asked_at;
    apr_interval_time_t duration;
    apr_time_t failed_at;
    apr_time_t now;
    apr_status_t status;
    abb_error_t err;
    /* The cache did not answer. */
    int is_trouble;
    apr_pool_t *pool;
    line_t *line;
};

/* A record as it was read. */
typedef struct {
    head_t head;
    const unsigned char *open;
    const unsigned char *sealed;
    /* The last use, of whatever machine. */
    apr_time_t last_seen;
} image_t;

/* ---- objects ------------------------------------------------------------- */

static line_id_t name_object(const operation_t *operation, char kind)
{
    line_id_t id;

    id.bytes[0] = (unsigned char)kind;
    memcpy(id.bytes + 1, operation->key.bytes, ABB_STORE_KEY_SIZE);
    return id;
}

/* The other side is to blame, not this one record. */
static apr_status_t trouble(operation_t *operation)
{
    operation->is_trouble = 1;
    return abb_error_set(&operation->err, ABB_ESTORE, "%s does not answer as it should",
                         operation->engine->settings->name);
}

/* Read and open. What does not open is not there: it is damaged, or of a key nobody has. */
static apr_status_t read_object(operation_t *operation, char kind, int must_prove,
                                unsigned char **text, apr_size_t *size)
{
    abb_store_socache_t *engine = operation->engine;
    line_id_t id = name_object(operation, kind);
    unsigned char *bytes;
    apr_size_t length;
    apr_status_t status = abb_line_read(&engine->lines, operation->line, &id, must_prove, &bytes,
                                        &length, operation->pool);

    if (status == ABB_ESTORE) {
        return trouble(operation);
    }
    if (status != APR_SUCCESS) {
        return status;
    }
    status = abb_crypto_sealer_open(engine->sealer, id.bytes, sizeof(id.bytes), bytes, length, text,
                                    size, operation->pool, NULL);
    if (status == ABB_ECRYPTO) {
        return abb_error_set(&operation->err, ABB_ESTORE, "libcrypto cannot open what %s holds",
                             engine->settings->name);
    }
    return status == APR_SUCCESS ? status : APR_NOTFOUND;
}

static apr_status_t write_object(operation_t *operation, char kind, apr_time_t until,
                                 const void *text, apr_size_t size)
{
    abb_store_socache_t *engine = operation->engine;
    line_id_t id = name_object(operation, kind);
    unsigned char *bytes;
    apr_size_t length;
    apr_status_t status;

    if (abb_crypto_sealer_seal(engine->sealer, id.bytes, sizeof(id.bytes), text, size, &bytes,
                               &length, operation->pool, &operation->err) != APR_SUCCESS) {
        return ABB_ESTORE;
    }
    status = abb_line_write(&engine->lines, operation->line, &id,
                            until - operation->now + EXPIRY_MARGIN, bytes, length, operation->pool);
    if (status == ABB_ECHANGED) {
        return abb_error_set(&operation->err, ABB_ESTORE,
                             "%s answers, but does not take a record of %" APR_SIZE_T_FMT
                             " bytes: it is full, or takes none so large",
                             engine->settings->name, length);
    }
    return status == APR_SUCCESS ? status : trouble(operation);
}

/* ---- records ------------------------------------------------------------- */

/* When a record ends if it is not used again. What was sealed may say any number. */
static apr_time_t end_of(const head_t *head, apr_time_t last_seen)
{
    apr_time_t idle_end = (apr_time_t)((apr_uint64_t)last_seen + (apr_uint64_t)head->idle);

    return head->idle && idle_end < head->expires_at ? idle_end : head->expires_at;
}

static int is_living(const head_t *head, apr_time_t last_seen, apr_time_t now)
{
    return now < end_of(head, last_seen);
}

/* The record without its uses. */
static apr_status_t read_record(operation_t *operation, image_t *image)
{
    unsigned char *text;
    apr_size_t size;
    apr_status_t status = read_object(operation, 'r', 1, &text, &size);

    if (status != APR_SUCCESS) {
        return status;
    }
    if (size < sizeof(image->head)) {
        return APR_NOTFOUND;
    }
    memcpy(&image->head, text, sizeof(image->head));
    if (image->head.magic != HEAD_MAGIC ||
        size - sizeof(image->head) !=
            (apr_uint64_t)image->head.open_size + image->head.sealed_size) {
        return APR_NOTFOUND;
    }
    image->open = text + sizeof(image->head);
    image->sealed = image->open + image->head.open_size;
    image->last_seen = image->head.last_seen;
    return APR_SUCCESS;
}

/* Without a proof: a use that cannot be found only makes the record older. */
static apr_status_t read_use(operation_t *operation, int must_prove, image_t *image)
{
    unsigned char *text;
    apr_size_t size;
    apr_status_t status = read_object(operation, 'u', must_prove, &text, &size);
    use_t use;

    if (status == APR_SUCCESS && size == sizeof(use)) {
        memcpy(&use, text, sizeof(use));
        if (use.birth == image->head.birth && use.last_seen > image->last_seen) {
            image->last_seen = use.last_seen;
        }
    }
    return status == ABB_ESTORE ? status : APR_SUCCESS;
}

/* The record if it lives. */
static apr_status_t read_living(operation_t *operation, image_t *image)
{
    apr_status_t status = read_record(operation, image);

    if (status != APR_SUCCESS) {
        return status;
    }
    status = read_use(operation, !is_living(&image->head, image->last_seen, operation->now), image);
    if (status != APR_SUCCESS) {
        return status;
    }
    return is_living(&image->head, image->last_seen, operation->now) ? APR_SUCCESS : APR_NOTFOUND;
}

static apr_status_t write_record(operation_t *operation, const head_t *head, const void *open,
                                 const void *sealed)
{
    apr_size_t size = sizeof(*head) + head->open_size + head->sealed_size;
    unsigned char *text = apr_palloc(operation->pool, size);

    memcpy(text, head, sizeof(*head));
    if (head->open_size) {
        memcpy(text + sizeof(*head), open, head->open_size);
    }
    if (head->sealed_size) {
        memcpy(text + sizeof(*head) + head->open_size, sealed, head->sealed_size);
    }
    return write_object(operation, 'r', head->expires_at, text, size);
}

/* A number that nobody else has, unless there is one already. */
static apr_status_t draw(operation_t *operation, apr_uint64_t *number)
{
    while (*number == 0) {
        if (abb_crypto_random(number, sizeof(*number), &operation->err) != APR_SUCCESS) {
            return ABB_ESTORE;
        }
    }
    return APR_SUCCESS;
}

static void settle(const operation_t *operation)
{
    if (operation->engine->settings->settle) {
        apr_sleep(operation->engine->settings->settle);
    }
}

static void take_limits(head_t *head, const abb_store_record_t *record)
{
    head->magic = HEAD_MAGIC;
    head->open_size = (apr_uint32_t)record->open_size;
    head->sealed_size = (apr_uint32_t)record->sealed_size;
    head->expires_at = record->expires_at;
    head->idle = record->idle;
}

/* ---- what each operation does -------------------------------------------- */

static apr_status_t perform_get(operation_t *operation)
{
    abb_store_record_t *record = &operation->record;
    image_t image;
    apr_status_t status = read_living(operation, &image);

    if (status == APR_SUCCESS) {
        record->open = image.open;
        record->open_size = image.head.open_size;
        record->sealed = image.sealed;
        record->sealed_size = image.head.sealed_size;
        record->expires_at = image.head.expires_at;
        record->idle = image.head.idle;
        record->last_seen = image.last_seen;
        record->generation = image.head.generation;
        record->failed_at = image.head.failed_at;
    }
    return status;
}

/* Whether this operation wrote the record: a first try may have, and not have heard so. */
static int is_own(const operation_t *operation, const image_t *image)
{
    return operation->new_generation && image->head.generation == operation->new_generation;
}

static apr_status_t write_new_record(operation_t *operation)
{
    head_t head;

    memset(&head, 0, sizeof(head));
    take_limits(&head, &operation->record);
    head.last_seen = operation->now;
    head.birth = operation->new_birth;
    head.generation = operation->new_generation;
    return write_record(operation, &head, operation->record.open, operation->record.sealed);
}

/* Whether what was written is what is there, now that others have written too. */
static apr_status_t confirm_record(operation_t *operation)
{
    image_t image;
    apr_status_t status;

    settle(operation);
    status = read_record(operation, &image);
    if (status == APR_NOTFOUND) {
        return abb_error_set(&operation->err, ABB_ESTORE, "%s did not keep a record",
                             operation->engine->settings->name);
    }
    return status != APR_SUCCESS || is_own(operation, &image) ? status : APR_EEXIST;
}

static apr_status_t perform_put(operation_t *operation)
{
    image_t image;
    apr_status_t status = read_living(operation, &image);

    if (status == APR_SUCCESS) {
        return is_own(operation, &image) ? confirm_record(operation) : APR_EEXIST;
    }
    if (status != APR_NOTFOUND ||
        (status = draw(operation, &operation->new_birth)) != APR_SUCCESS ||
        (status = draw(operation, &operation->new_generation)) != APR_SUCCESS ||
        (status = write_new_record(operation)) != APR_SUCCESS) {
        return status;
    }
    return confirm_record(operation);
}

static apr_status_t perform_replace(operation_t *operation)
{
    image_t image;
    apr_status_t status = read_living(operation, &image);

    if (status != APR_SUCCESS) {
        return status;
    }
    if (is_own(operation, &image)) {
        return APR_SUCCESS;
    }
    if (image.head.generation != operation->generation) {
        return ABB_ECHANGED;
    }
    take_limits(&image.head, &operation->record);
    image.head.last_seen = image.last_seen;
    image.head.failed_at = 0;
    status = draw(operation, &operation->new_generation);
    image.head.generation = operation->new_generation;
    return status == APR_SUCCESS ? write_record(operation, &image.head, operation->record.open,
                                                operation->record.sealed)
                                 : status;
}

static apr_status_t perform_touch(operation_t *operation)
{
    image_t image;
    apr_status_t status = read_living(operation, &image);
    use_t use;

    if (status != APR_SUCCESS || operation->now <= image.last_seen) {
        return status;
    }
    use.birth = image.head.birth;
    use.last_seen = operation->now;
    return write_object(operation, 'u', end_of(&image.head, use.last_seen), &use, sizeof(use));
}

/* One that cannot be found is free. */
static apr_status_t read_lease(operation_t *operation, apr_uint64_t birth, lease_t *lease)
{
    unsigned char *text;
    apr_size_t size;
    apr_status_t status = read_object(operation, 'l', 0, &text, &size);

    memset(lease, 0, sizeof(*lease));
    lease->birth = birth;
    if (status == APR_SUCCESS && size == sizeof(*lease)) {
        lease_t found;

        memcpy(&found, text, sizeof(found));
        if (found.birth == birth) {
            *lease = found;
        }
    }
    return status == ABB_ESTORE ? status : APR_SUCCESS;
}

static apr_status_t write_lease(operation_t *operation, const lease_t *lease)
{
    return write_object(operation, 'l', operation->now + ABB_STORE_LEASE_MAX, lease,
                        sizeof(*lease));
}

/*
 * Of two who both saw the lease free, the one who wrote last finds its own name
 * after `settle`, and the other does not: but only if both wrote within `settle`
 * of what they saw. Who was late may have written over a lease that somebody
 * already holds. It holds none, and until the doubt is over nobody gets one. In a
 * cache that is always so slow the next is believed all the same.
 */
static apr_status_t settle_lease(operation_t *operation, lease_t *lease)
{
    apr_interval_time_t settle_time = operation->engine->settings->settle;
    apr_status_t status;

    if (settle_time && !operation->is_after_doubt &&
        abb_clock_monotonic() - operation->seen_at >= settle_time) {
        lease->is_doubtful = 1;
        lease->until = operation->now + DOUBT;
        status = write_lease(operation, lease);
        return status == APR_SUCCESS ? ABB_ECHANGED : status;
    }
    settle(operation);
    if ((status = read_lease(operation, lease->birth, lease)) != APR_SUCCESS) {
        return status;
    }
    return lease->holder == operation->holder ? APR_SUCCESS : ABB_ECHANGED;
}

/* Whether the lease is to be had. Under the own name it is what a first try has written. */
static int is_free(operation_t *operation, const lease_t *lease, apr_time_t seen_at)
{
    if (lease->holder == operation->holder) {
        return !lease->is_doubtful;
    }
    if (lease->holder && abb_store_is_leased(lease->until, operation->now)) {
        return 0;
    }
    operation->seen_at = seen_at;
    operation->is_after_doubt = lease->is_doubtful != 0;
    return 1;
}

/* Whether nobody waits for it any more. */
static int is_left_alone(const operation_t *operation)
{
    const abb_store_socache_settings_t *settings = operation->engine->settings;

    return settings->kind != ABB_STORE_SOCACHE_LOCAL &&
           abb_clock_monotonic() - operation->asked_at >= settings->patience;
}

/* A lease of somebody who has left would keep everybody from asking until it runs out. */
static apr_status_t give_back(operation_t *operation, lease_t *lease)
{
    lease->holder = 0;
    lease->is_doubtful = 0;
    write_lease(operation, lease);
    return ABB_ECHANGED;
}

static apr_status_t perform_lease(operation_t *operation)
{
    image_t image;
    lease_t lease;
    apr_time_t seen_at;
    apr_status_t status = read_living(operation, &image);

    if (status != APR_SUCCESS || (status = draw(operation, &operation->holder)) != APR_SUCCESS) {
        return status;
    }
    seen_at = abb_clock_monotonic();
    if ((status = read_lease(operation, image.head.birth, &lease)) != APR_SUCCESS) {
        return status;
    }
    if (!is_free(operation, &lease, seen_at) || is_left_alone(operation)) {
        return ABB_ECHANGED;
    }
    lease.holder = operation->holder;
    lease.until = operation->now + operation->duration;
    lease.is_doubtful = 0;
    status = write_lease(operation, &lease);
    if (status == APR_SUCCESS) {
        status = settle_lease(operation, &lease);
    }
    return status == APR_SUCCESS && is_left_alone(operation) ? give_back(operation, &lease)
                                                             : status;
}

static apr_status_t perform_release(operation_t *operation)
{
    image_t image;
    lease_t lease;
    apr_status_t status = read_record(operation, &image);

    if (status != APR_SUCCESS ||
        (status = read_lease(operation, image.head.birth, &lease)) != APR_SUCCESS) {
        return status;
    }
    if (lease.holder != operation->holder) {
        return ABB_ECHANGED;
    }
    if (operation->failed_at) {
        image.head.failed_at = operation->failed_at;
        status = write_record(operation, &image.head, image.open, image.sealed);
        if (status != APR_SUCCESS) {
            return status;
        }
    }
    lease.holder = 0;
    lease.is_doubtful = 0;
    return write_lease(operation, &lease);
}

/* Another machine may just be writing back what it has read before. */
static apr_status_t perform_drop(operation_t *operation)
{
    lines_t *lines = &operation->engine->lines;
    line_id_t record = name_object(operation, 'r');
    line_id_t use = name_object(operation, 'u');
    line_id_t lease = name_object(operation, 'l');
    apr_status_t status = abb_line_remove(lines, operation->line, &record, operation->pool);
    apr_status_t again = status;

    for (int i = 0; again == APR_SUCCESS && i < DROPS_MAX; ++i) {
        settle(operation);
        again = abb_line_remove(lines, operation->line, &record, operation->pool);
    }
    if (status == ABB_ESTORE || again == ABB_ESTORE) {
        return trouble(operation);
    }
    if (status == ABB_ECHANGED || again == ABB_ECHANGED) {
        return abb_error_set(&operation->err, ABB_ESTORE, "%s answers, but removes no record",
                             operation->engine->settings->name);
    }
    abb_line_remove(lines, operation->line, &use, operation->pool);
    abb_line_remove(lines, operation->line, &lease, operation->pool);
    return status;
}

/* ---- having it done ------------------------------------------------------ */

/*
 * Do it, and where connections can be made anew, once more after a trouble: they
 * die with the cache's restart, and only the first use of each tells. What the
 * first try has written may be there.
 */
static int work(void *owner, void *job)
{
    abb_store_socache_t *engine = owner;
    operation_t *operation = job;
    int tries = engine->settings->kind == ABB_STORE_SOCACHE_RENEWABLE ? 2 : 1;

    operation->is_trouble = 1;
    while (operation->is_trouble && tries-- > 0) {
        abb_error_clear(&operation->err);
        operation->is_trouble = 0;
        operation->line = abb_line_open(&engine->lines);
        if (!operation->line) {
            operation->status = trouble(operation);
            break;
        }
        operation->status = operation->perform(operation);
        abb_line_close(&engine->lines, operation->line, operation->is_trouble);
    }
    return !operation->is_trouble;
}

/* Try whether the cache is alive, over connections of now. */
static int probe(void *owner)
{
    abb_store_socache_t *engine = owner;
    apr_pool_t *pool;
    line_t *line;
    int is_alive;

    if (abb_offload_create_pool(&pool) != APR_SUCCESS) {
        return 0;
    }
    if ((line = abb_line_open(&engine->lines))) {
        abb_line_close(&engine->lines, line, 1);
    }
    line = abb_line_open(&engine->lines);
    is_alive = line && abb_line_is_alive(&engine->lines, line, pool);
    if (line) {
        abb_line_close(&engine->lines, line, !is_alive);
    }
    apr_pool_destroy(pool);
    return is_alive;
}

static void tell(void *owner, int is_answering)
{
    const abb_store_socache_t *engine = owner;

    if (engine->settings->tell) {
        engine->settings->tell(engine->settings, is_answering);
    }
}

/* An operation with memory of its own. NULL: there is none. */
static operation_t *prepare(abb_store_socache_t *engine, perform_t perform,
                            const abb_store_key_t *key, apr_time_t now, abb_error_t *err)
{
    operation_t *operation;
    apr_pool_t *pool;

    if (abb_offload_create_pool(&pool) != APR_SUCCESS) {
        abb_error_set(err, ABB_ESTORE, "no memory to ask %s", engine->settings->name);
        return NULL;
    }
    operation = apr_pcalloc(pool, sizeof(*operation));
    operation->engine = engine;
    operation->perform = perform;
    operation->key = *key;
    operation->now = now;
    operation->pool = pool;
    return operation;
}

/* Have it done and wait. Whatever comes, *operation is to be used no more unless APR_SUCCESS. */
static apr_status_t run(operation_t *operation, abb_error_t *err)
{
    abb_store_socache_t *engine = operation->engine;
    apr_status_t status = APR_SUCCESS;

    if (engine->settings->kind == ABB_STORE_SOCACHE_LOCAL) {
        work(engine, operation);
    }
    else if (!engine->offload) {
        apr_pool_destroy(operation->pool);
        return abb_error_set(err, ABB_ESTORE, "%s is not open yet", engine->settings->name);
    }
    else {
        operation->asked_at = abb_clock_monotonic();
        status = abb_offload_run(engine->offload, work, operation, operation->pool, err);
    }
    if (status == APR_SUCCESS && (status = operation->status) != APR_SUCCESS) {
        if (operation->err.status != APR_SUCCESS) {
            abb_error_set(err, status, "%s", operation->err.text);
        }
        apr_pool_destroy(operation->pool);
    }
    return status;
}

static apr_status_t run_to_end(operation_t *operation, abb_error_t *err)
{
    apr_pool_t *pool = operation->pool;
    apr_status_t status = run(operation, err);

    if (status == APR_SUCCESS) {
        apr_pool_destroy(pool);
    }
    return status;
}

/* ---- the contract -------------------------------------------------------- */

static const void *copy_part(const void *bytes, apr_size_t size, apr_pool_t *p)
{
    void *copy = apr_palloc(p, size ? size : 1);

    if (size) {
        memcpy(copy, bytes, size);
    }
    return copy;
}

static apr_status_t socache_get(void *self, const abb_store_key_t *key, abb_store_parts_t parts,
                                apr_time_t now, abb_store_record_t *record, apr_pool_t *p,
                                abb_error_t *err)
{
    operation_t *operation = prepare(self, perform_get, key, now, err);
    apr_status_t status = operation ? run(operation, err) : ABB_ESTORE;

    if (status != APR_SUCCESS) {
        return status;
    }
    *record = operation->record;
    record->open = copy_part(record->open, record->open_size, p);
    record->sealed =
        parts == ABB_STORE_BOTH_PARTS ? copy_part(record->sealed, record->sealed_size, p) : NULL;
    apr_pool_destroy(operation->pool);
    return APR_SUCCESS;
}

/* An operation that brings a record; NULL when it is too large or there is no memory. */
static operation_t *prepare_writing(abb_store_socache_t *engine, perform_t perform,
                                    const abb_store_key_t *key, const abb_store_record_t *record,
                                    apr_time_t now, abb_error_t *err)
{
    operation_t *operation;

    if (record->open_size > ABB_STORE_RECORD_MAX ||
        record->sealed_size > ABB_STORE_RECORD_MAX - record->open_size) {
        abb_error_set(err, ABB_ESTORE,
                      "a record of %" APR_SIZE_T_FMT " bytes is too large for a session",
                      record->open_size + record->sealed_size);
        return NULL;
    }
    if ((operation = prepare(engine, perform, key, now, err))) {
        operation->record = *record;
        operation->record.open = copy_part(record->open, record->open_size, operation->pool);
        operation->record.sealed = copy_part(record->sealed, record->sealed_size, operation->pool);
    }
    return operation;
}

static apr_status_t socache_put(void *self, const abb_store_key_t *key,
                                const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    operation_t *operation = prepare_writing(self, perform_put, key, record, now, err);

    return operation ? run_to_end(operation, err) : ABB_ESTORE;
}

static apr_status_t socache_replace(void *self, const abb_store_key_t *key, apr_uint64_t generation,
                                    const abb_store_record_t *record, apr_time_t now,
                                    abb_error_t *err)
{
    operation_t *operation = prepare_writing(self, perform_replace, key, record, now, err);

    if (!operation) {
        return ABB_ESTORE;
    }
    operation->generation = generation;
    return run_to_end(operation, err);
}

static apr_status_t socache_touch(void *self, const abb_store_key_t *key, apr_time_t now,
                                  abb_error_t *err)
{
    abb_store_socache_t *engine = self;
    operation_t *operation = prepare(engine, perform_touch, key, now, err);

    if (!operation) {
        return ABB_ESTORE;
    }
    if (!engine->offload) {
        return run_to_end(operation, err);
    }
    return abb_offload_start(engine->offload, work, operation, operation->pool) == APR_SUCCESS
               ? APR_SUCCESS
               : abb_error_set(err, ABB_ESTORE, "%s is not told of a use", engine->settings->name);
}

static apr_status_t socache_lease(void *self, const abb_store_key_t *key,
                                  apr_interval_time_t duration, apr_time_t now,
                                  apr_uint64_t *holder, abb_error_t *err)
{
    operation_t *operation = prepare(self, perform_lease, key, now, err);
    apr_status_t status;

    if (!operation) {
        return ABB_ESTORE;
    }
    operation->duration = duration;
    if ((status = run(operation, err)) == APR_SUCCESS) {
        *holder = operation->holder;
        apr_pool_destroy(operation->pool);
    }
    return status;
}

static apr_status_t end_lease(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                              apr_time_t failed_at, abb_error_t *err)
{
    /* No limit is looked at, but how long the lease stays is counted from now. */
    operation_t *operation =
        prepare(self, perform_release, key, failed_at ? failed_at : apr_time_now(), err);

    if (!operation) {
        return ABB_ESTORE;
    }
    operation->holder = holder;
    operation->failed_at = failed_at;
    return run_to_end(operation, err);
}

static apr_status_t socache_release(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                                    abb_error_t *err)
{
    return end_lease(self, key, holder, 0, err);
}

static apr_status_t socache_fail(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                                 apr_time_t now, abb_error_t *err)
{
    return end_lease(self, key, holder, now, err);
}

static apr_status_t socache_drop(void *self, const abb_store_key_t *key, abb_error_t *err)
{
    operation_t *operation = prepare(self, perform_drop, key, 0, err);

    return operation ? run_to_end(operation, err) : ABB_ESTORE;
}

static void socache_figures(void *self, abb_store_figures_t *figures)
{
    static const abb_store_figures_t unknown = {-1, -1, -1, -1, -1, -1, -1, -1};

    *figures = unknown;
}

static apr_int64_t socache_take_evictions(void *self, apr_time_t now)
{
    return 0;
}

/* ---- opening ------------------------------------------------------------- */

static const abb_store_methods_t methods = {
    socache_get,
    socache_put,
    socache_replace,
    socache_touch,
    socache_lease,
    socache_release,
    socache_fail,
    socache_drop,
    socache_figures,
    socache_take_evictions,
    NULL,
    NULL,
};

apr_status_t abb_store_socache_create(abb_store_socache_t **cache,
                                      const abb_store_socache_settings_t *settings, apr_pool_t *p,
                                      abb_error_t *err)
{
    abb_store_socache_t *engine = apr_pcalloc(p, sizeof(*engine));
    apr_status_t status =
        abb_crypto_sealer_create(&engine->sealer, settings->keyring, PURPOSE, "", p, err);

    engine->settings = settings;
    engine->store.methods = &methods;
    engine->store.engine = engine;
    *cache = engine;
    return status == APR_SUCCESS ? abb_line_init(&engine->lines, settings, p, err) : status;
}

apr_status_t abb_store_socache_start(abb_store_socache_t *cache, apr_pool_t *p)
{
    const abb_store_socache_settings_t *settings = cache->settings;
    abb_offload_settings_t offload = {settings->name,
                                      settings->threads,
                                      settings->patience,
                                      settings->troubles_max,
                                      settings->probe_interval,
                                      PROBE_PATIENCE,
                                      probe,
                                      tell,
                                      cache};

    return settings->kind == ABB_STORE_SOCACHE_LOCAL
               ? APR_SUCCESS
               : abb_offload_create(&cache->offload, &offload, p);
}

const abb_store_t *abb_store_socache_store(abb_store_socache_t *cache)
{
    return &cache->store;
}
