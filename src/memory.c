/* memory (floor 5): what outlives a restart of the server. See abb_memory.h. */
#include "memory_internal.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <http_main.h>
#include <string.h>
#include <util_mutex.h>

#include "abb_config.h"
#include "abb_log.h"
#include "memory_condition.h"
#include "memory_remote.h"

APLOG_USE_MODULE(auth_bitbucket);

#define RETAINED_KEY "mod_auth_bitbucket:2"
#define MUTEX_TYPE "auth-bitbucket-sessions"
/* How long children of a server that was killed may take to end. */
#define LOCK_PATIENCE apr_time_from_sec(5)

/*
 * The lock of a file, apart and under a name that stays: after an upgrade another
 * version of this module runs in a process that holds it already.
 */
#define HELD_LOCK_KEY "mod_auth_bitbucket:held lock"
typedef struct {
    char path[256];
    int descriptor;
} held_lock_t;

/* What outlives a restart. No pointer into this module: it is unloaded in between. */
typedef struct {
    apr_global_mutex_t *lock;
    const char *lock_file;
    abb_memory_segment_t segment;
} retained_t;

static retained_t *retained;

static int fail_start(const char *what, apr_status_t status, const char *remedy)
{
    ap_log_error(APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, status, NULL, ABB_LOGNO(0010) "%s: %s",
                 what, remedy);
    return HTTP_INTERNAL_SERVER_ERROR;
}

apr_status_t abb_memory_register(apr_pool_t *pconf)
{
    apr_int32_t mechanism = APR_LOCK_DEFAULT;

#if APR_HAS_PROC_PTHREAD_SERIALIZE
    /* Survives the death of its holder, and does not collapse under contention. */
    mechanism = APR_LOCK_PROC_PTHREAD;
#endif
    if (abb_memory_remote_register(pconf, mechanism) != APR_SUCCESS) {
        return APR_EGENERAL;
    }
    return ap_mutex_register(pconf, MUTEX_TYPE, NULL, (apr_lockmech_e)mechanism, 0);
}

static void *find_retained(const char *key, apr_size_t size)
{
    void *data = ap_retained_data_get(key);

    return data ? data : ap_retained_data_create(key, size);
}

static int open_lock(server_rec *s)
{
    apr_status_t status;

    if (retained->lock) {
        return OK;
    }
    status = ap_global_mutex_create(&retained->lock, &retained->lock_file, MUTEX_TYPE, NULL, s,
                                    s->process->pool, 0);
    return status == APR_SUCCESS ? OK
                                 : fail_start("the lock of the session store cannot be made",
                                              status, "see the Mutex directive for " MUTEX_TYPE);
}

/* ---- keys ---------------------------------------------------------------- */

/* Add keys that a ring does not have, as far as there is room. */
static void add_keys(abb_crypto_keyring_t *ring, const abb_crypto_keyring_t *more)
{
    for (int i = 0; i < more->count && ring->count < ABB_CRYPTO_KEYS_MAX; ++i) {
        int is_known = 0;

        for (int j = 0; j < ring->count; ++j) {
            is_known |= abb_crypto_equal(&ring->keys[j], &more->keys[i], sizeof(more->keys[i]));
        }
        if (!is_known) {
            ring->keys[ring->count++] = more->keys[i];
        }
    }
}

/* The keys there are so far, or a new one. */
static apr_status_t settle_keys(abb_crypto_keyring_t *ring, abb_error_t *err)
{
    apr_status_t status = APR_SUCCESS;

    add_keys(ring, &retained->segment.keys);
    if (ring->count == 0) {
        status = abb_crypto_random(ring->keys[0].bytes, ABB_CRYPTO_KEY_SIZE, err);
        ring->count = status == APR_SUCCESS;
    }
    return status;
}

/* A file has its keys beside it; what memory has sealed before opens too. */
static apr_status_t settle_file_keys(abb_memory_segment_t *next, apr_pool_t *p, abb_error_t *err)
{
    apr_status_t status = abb_store_file_read_keys(&next->file, &next->keys, p, err);
    int count = next->keys.count;

    if (status == APR_SUCCESS) {
        status = settle_keys(&next->keys, err);
    }
    return status != APR_SUCCESS || next->keys.count == count
               ? status
               : abb_store_file_write_keys(&next->file, &next->keys, p, err);
}

/* ---- a place for sessions ------------------------------------------------ */

static apr_status_t begin_anonymous(server_rec *s, abb_memory_segment_t *next, abb_error_t *err)
{
    char reason[80];
    apr_status_t status = apr_shm_create(&next->anonymous, next->size, NULL, s->process->pool);

    if (status != APR_SUCCESS) {
        next->anonymous = NULL;
        return abb_error_set(err, ABB_ESTORE,
                             "shared memory for sessions cannot be had: %s: write a smaller size "
                             "with AuthBitbucketSessionCache shm(SIZE)",
                             apr_strerror(status, reason, sizeof(reason)));
    }
    next->bytes = apr_shm_baseaddr_get(next->anonymous);
    return settle_keys(&next->keys, err);
}

/* The file that is in use, in another size, or because somebody has taken it away. */
static void begin_same_file(abb_memory_segment_t *next)
{
    const abb_memory_segment_t *old = &retained->segment;

    next->file = old->file;
    next->file.segment = NULL;
    next->file.is_set_aside = !abb_store_file_is_in_place(&old->file);
    next->keys = old->keys;
}

static int has_file(const abb_memory_segment_t *segment, const char *path)
{
    return path && segment->file.path && strcmp(segment->file.path, path) == 0;
}

static apr_status_t lock_file(abb_memory_segment_t *next, const char *path, apr_pool_t *p,
                              abb_error_t *err)
{
    const held_lock_t *held = find_retained(HELD_LOCK_KEY, sizeof(*held));

    if (strcmp(held->path, path) == 0) {
        abb_store_file_adopt(&next->file, path, held->descriptor, p);
        return APR_SUCCESS;
    }
    return abb_store_file_lock(&next->file, path, LOCK_PATIENCE, p, err);
}

static void note_held_lock(const abb_store_file_t *file)
{
    held_lock_t *held = find_retained(HELD_LOCK_KEY, sizeof(*held));

    apr_cpystrn(held->path, file->path ? file->path : "", sizeof(held->path));
    held->descriptor = file->lock;
}

static apr_status_t begin_file(server_rec *s, abb_memory_segment_t *next, const char *path,
                               apr_pool_t *p, abb_error_t *err)
{
    apr_status_t status = APR_SUCCESS;

    if (has_file(&retained->segment, path)) {
        begin_same_file(next);
    }
    else {
        status = lock_file(next, path, s->process->pool, err);
    }
    if (status == APR_SUCCESS && next->keys.count == 0) {
        status = settle_file_keys(next, p, err);
    }
    if (status == APR_SUCCESS) {
        status = abb_store_file_begin(&next->file, next->size, p, err);
    }
    if (status == APR_SUCCESS &&
        (status = abb_memory_create_flush(&next->flush, s->process->pool)) != APR_SUCCESS) {
        abb_error_set(err, status, "shared memory cannot be had");
    }
    next->bytes = next->file.segment;
    return status;
}

/* Give up a place that has not become the one in use. */
static void abandon(abb_memory_segment_t *next, apr_pool_t *p)
{
    if (next->anonymous) {
        apr_shm_destroy(next->anonymous);
    }
    if (next->flush) {
        apr_shm_destroy(next->flush);
    }
    if (next->file.path) {
        abb_store_file_abandon(&next->file, p);
    }
    if (next->file.path && !has_file(&retained->segment, next->file.path)) {
        abb_store_file_unlock(&next->file, p);
    }
}

/* Old children go on with what they have mapped until they end. */
static void leave(abb_memory_segment_t *old, const abb_memory_segment_t *next, apr_pool_t *p)
{
    if (old->anonymous) {
        apr_shm_destroy(old->anonymous);
    }
    if (old->flush) {
        apr_shm_destroy(old->flush);
    }
    if (!old->file.path) {
        return;
    }
    abb_store_file_unmap(&old->file);
    if (!has_file(next, old->file.path)) {
        /* A copy left behind would bring sessions back that end from now on. */
        abb_store_file_remove(&old->file, p);
    }
}

static apr_status_t open_store(const abb_memory_segment_t *segment, const abb_store_t **store,
                               apr_pool_t *p, abb_error_t *err)
{
    abb_store_shm_proof_key_t proof;
    apr_status_t status = abb_store_file_proof_key(&segment->keys.keys[0], &proof, err);

    if (status == APR_SUCCESS &&
        (status = abb_store_shm_open(store, segment->bytes, segment->size, retained->lock, &proof,
                                     p)) != APR_SUCCESS) {
        abb_error_set(err, status, "the session store cannot be opened: stop and start httpd");
    }
    return status;
}

static apr_status_t lay_out(const abb_memory_segment_t *next, const abb_store_t **store,
                            apr_pool_t *p, abb_error_t *err)
{
    apr_uint64_t seed;
    apr_status_t status = abb_crypto_random(&seed, sizeof(seed), err);

    if (status == APR_SUCCESS &&
        (status = abb_store_shm_format(next->bytes, next->size, seed)) != APR_SUCCESS) {
        abb_error_set(err, status,
                      "the session store cannot be laid out: write another size with "
                      "AuthBitbucketSessionCache");
    }
    return status == APR_SUCCESS ? open_store(next, store, p, err) : status;
}

/* ---- sessions move in ---------------------------------------------------- */

static void tell_moved(server_rec *s, const abb_store_shm_import_t *records)
{
    int is_whole = records->damaged == 0 && records->left_out == 0;

    ap_log_error(APLOG_MARK, is_whole ? APLOG_NOTICE : APLOG_WARNING, 0, s,
                 ABB_LOGNO(0011) "AuthBitbucketSessionCache changed: %" APR_UINT64_T_FMT
                                 " records moved, %" APR_UINT64_T_FMT
                                 " had ended, %" APR_UINT64_T_FMT
                                 " were damaged, %" APR_UINT64_T_FMT " found no room",
                 records->kept, records->expired, records->damaged, records->left_out);
}

static void tell_found(server_rec *s, const abb_store_file_t *file,
                       const abb_store_file_report_t *report)
{
    const abb_store_shm_import_t *records = &report->records;
    int is_whole = records->damaged == 0 && records->left_out == 0 && report->unreadable == 0;

    if (!report->was_there) {
        return;
    }
    if (report->refused) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                     ABB_LOGNO(0016) "%s %s: it is kept as %s.refused and sessions start anew; %s",
                     file->path, report->refused, file->path, report->remedy);
        return;
    }
    ap_log_error(APLOG_MARK, is_whole ? APLOG_NOTICE : APLOG_WARNING, 0, s,
                 ABB_LOGNO(0015) "%s: %" APR_UINT64_T_FMT " records taken over, %" APR_UINT64_T_FMT
                                 " had ended, %" APR_UINT64_T_FMT
                                 " were damaged, %" APR_UINT64_T_FMT
                                 " found no room, %" APR_UINT64_T_FMT " bytes could not be read",
                 file->path, records->kept, records->expired, records->damaged, records->left_out,
                 report->unreadable);
}

/* Take over what is in use, then what stands at the path of a file that was not in use. */
static apr_status_t take_over(server_rec *s, abb_memory_segment_t *next, const abb_store_t *store,
                              apr_pool_t *p, abb_error_t *err)
{
    const abb_memory_segment_t *old = &retained->segment;
    abb_store_shm_proof_key_t proofs[ABB_CRYPTO_KEYS_MAX];
    abb_store_shm_import_t moved;
    abb_store_file_report_t found;
    int count = next->keys.count;
    apr_status_t status = abb_store_file_proof_keys(&next->keys, proofs, err);

    if (status == APR_SUCCESS && old->bytes &&
        (status = abb_store_shm_import(store, old->bytes, old->size, proofs, count, apr_time_now(),
                                       &moved, err)) == APR_SUCCESS) {
        tell_moved(s, &moved);
    }
    if (status == APR_SUCCESS && next->file.path && !has_file(old, next->file.path) &&
        (status = abb_store_file_import(&next->file, store, proofs, count, apr_time_now(), &found,
                                        p, err)) == APR_SUCCESS) {
        tell_found(s, &next->file, &found);
    }
    abb_crypto_wipe(proofs, sizeof(proofs));
    return status;
}

static apr_status_t move_in(server_rec *s, const abb_cache_settings_t *settings, apr_pool_t *p,
                            abb_error_t *err)
{
    abb_memory_segment_t next = {.size = settings->size};
    const abb_store_t *store;
    apr_status_t status = settings->file ? begin_file(s, &next, settings->file, p, err)
                                         : begin_anonymous(s, &next, err);

    if (status == APR_SUCCESS) {
        status = lay_out(&next, &store, p, err);
    }
    if (status == APR_SUCCESS) {
        status = take_over(s, &next, store, p, err);
    }
    if (status == APR_SUCCESS && next.file.path) {
        status = abb_store_file_commit(&next.file, p, err);
    }
    if (status != APR_SUCCESS) {
        abandon(&next, p);
        return status;
    }
    leave(&retained->segment, &next, p);
    retained->segment = next;
    note_held_lock(&next.file);
    return APR_SUCCESS;
}

static int suits(const abb_memory_segment_t *segment, const abb_cache_settings_t *settings)
{
    return segment->bytes && segment->size == settings->size &&
           abb_store_shm_is_formatted(segment->bytes, segment->size) &&
           (settings->file
                ? has_file(segment, settings->file) && abb_store_file_is_in_place(&segment->file)
                : !segment->file.path);
}

static int find_place(server_rec *s, apr_pool_t *pconf)
{
    abb_cache_settings_t settings = abb_config_cache(s);
    abb_error_t err;

    abb_error_clear(&err);
    if (suits(&retained->segment, &settings) || move_in(s, &settings, pconf, &err) == APR_SUCCESS) {
        return OK;
    }
    if (!retained->segment.bytes ||
        !abb_store_shm_is_formatted(retained->segment.bytes, retained->segment.size)) {
        return fail_start("no place for sessions", 0, err.text);
    }
    /* A server that runs is not ended by a reload. */
    ap_log_error(APLOG_MARK, APLOG_CRIT, 0, s,
                 ABB_LOGNO(0017) "AuthBitbucketSessionCache changed, but sessions stay where they "
                                 "are: %s",
                 err.text);
    return OK;
}

/* ---- opening ------------------------------------------------------------- */

/* A site's own keys come first; what the server's own have sealed before opens too. */
static void give_store(server_rec *s, const abb_store_t *store)
{
    for (; s; s = s->next) {
        abb_site_t *site = abb_config_site(s);

        if (site) {
            add_keys(&site->keyring, &retained->segment.keys);
            site->sessions.keyring = &site->keyring;
            site->sessions.store = store;
        }
    }
}

int abb_memory_open(server_rec *s, apr_pool_t *pconf)
{
    const abb_memory_segment_t *segment;
    const abb_store_t *store;
    abb_error_t err;
    int status;

    retained = find_retained(RETAINED_KEY, sizeof(*retained));
    segment = &retained->segment;
    if ((status = open_lock(s)) != OK || (status = find_place(s, pconf)) != OK) {
        return status;
    }
    abb_error_clear(&err);
    if (open_store(segment, &store, pconf, &err) != APR_SUCCESS) {
        return fail_start("no place for sessions", 0, err.text);
    }
    if ((status = abb_memory_remote_open(s, &segment->keys, &store, pconf)) != OK) {
        return status;
    }
    give_store(s, store);
    if (!abb_memory_condition_open(s, pconf)) {
        return fail_start("no shared memory for the state of Bitbucket", 0,
                          "see the limits of the system");
    }
    if (segment->file.path) {
        abb_memory_start_flush(s, segment, store, pconf);
    }
    ap_log_error(APLOG_MARK, APLOG_INFO, 0, s,
                 ABB_LOGNO(0012) "mod_auth_bitbucket " ABB_VERSION
                                 " ready; sessions in %s%" APR_SIZE_T_FMT " bytes of %s",
                 abb_memory_remote_name(s, pconf), segment->size,
                 segment->file.path ? segment->file.path : "shared memory");
    return OK;
}

apr_status_t abb_memory_start_child(apr_pool_t *pchild)
{
    apr_status_t status = apr_global_mutex_child_init(&retained->lock, retained->lock_file, pchild);

    return status == APR_SUCCESS ? abb_memory_remote_start_child(pchild) : status;
}
