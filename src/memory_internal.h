/*
 * The inside of the memory room: where sessions are, shared by the file that
 * finds a place for them and the file that writes them to the disk.
 */
#ifndef ABB_MEMORY_INTERNAL_H
#define ABB_MEMORY_INTERNAL_H

#include <apr_shm.h>

#include "abb_memory.h"
#include "abb_store_file.h"

/*
 * A place for sessions: anonymous memory or a file. Plain data and objects of the
 * process pool: it outlives the module, which is unloaded at each restart.
 */
typedef struct abb_memory_segment_t {
    void *bytes;
    apr_size_t size;
    apr_shm_t *anonymous;
    /* path is NULL when the memory is anonymous. */
    abb_store_file_t file;
    /* For a file: what its children share about writing it to the disk. */
    apr_shm_t *flush;
    /* The server's own: the first proves records here, and seals where no other is configured. */
    abb_crypto_keyring_t keys;
} abb_memory_segment_t;

/* Memory for abb_memory_segment_t.flush. Errors: those of APR. */
apr_status_t abb_memory_create_flush(apr_shm_t **flush, apr_pool_t *p);

/*
 * See to it that a file's changes are on the disk after a second, until pconf is
 * cleared, and then once more. Threads: start-up only.
 */
void abb_memory_start_flush(server_rec *s, const abb_memory_segment_t *segment,
                            const abb_store_t *store, apr_pool_t *pconf);

#endif
