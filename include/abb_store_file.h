/*
 * store_file (floor 3): the file in which sessions outlast the server.
 *
 * FILE holds one segment of store_shm, mapped by all processes; what one of them
 * writes is in the system's page cache at once, so that killing them loses
 * nothing. Beside it stand
 *
 *   FILE.key      the server's own keys; the first proves records
 *   FILE.lock     locked by the server that uses FILE; names its process
 *   FILE.new      a file on its way to become FILE
 *   FILE.refused  the last file that was found at FILE and not used
 *
 * A start never writes to the file that it finds: it makes a new one, takes over
 * the records that prove themselves, and renames. So whoever dies in between
 * leaves the old one as it was. Knows no httpd and logs nothing.
 *
 * Faults come as ABB_ESTORE with a sentence that says what to do.
 * Threads: start-up only, except abb_store_file_sync.
 */
#ifndef ABB_STORE_FILE_H
#define ABB_STORE_FILE_H

#include "abb_crypto.h"
#include "abb_store_shm.h"

/* Longest path of a session file, in bytes: sentences must have room for it. */
#define ABB_STORE_FILE_PATH_MAX 200

/*
 * A file in use. Holds no pointer into code, so that it can outlive a module
 * that is unloaded. Lifetime: as long as the owner says, at most the pool's that
 * abb_store_file_lock was given.
 */
typedef struct abb_store_file_t {
    const char *path;
    /* The descriptor that holds the lock, inherited by children, not by programs. */
    int lock;
    /* Sessions have been kept at this path before, so what stands there is ours. */
    int is_known;
    /* What stands at the path is to be kept as FILE.refused. */
    int is_set_aside;
    /* FILE.new until it takes its place, else -1. */
    int descriptor;
    void *segment;
    apr_size_t size;
    /* Of the mapped file. */
    apr_uint64_t device;
    apr_uint64_t inode;
} abb_store_file_t;

/* What was found at the path, and what became of it. */
typedef struct abb_store_file_report_t {
    /* There was a file with something in it. */
    int was_there;
    /* Why it is not used and is kept as FILE.refused, and what to do; NULL: it was used. */
    const char *refused;
    const char *remedy;
    /* Bytes that the disk did not give. */
    apr_uint64_t unreadable;
    abb_store_shm_import_t records;
} abb_store_file_report_t;

/*
 * Look at the directory and take the lock at a path, waiting for at most
 * `patience`: children of a server that was killed may take a moment to end. The
 * path is absolute. Lifetime of what *file points to: p.
 * Errors: ABB_ESTORE another process holds it; the directory is missing, or
 * others may write in it.
 */
apr_status_t abb_store_file_lock(abb_store_file_t *file, const char *path,
                                 apr_interval_time_t patience, apr_pool_t *p, abb_error_t *err);

/*
 * The same with a lock at this path that the process holds already.
 * Lifetime of what *file points to: p.
 */
void abb_store_file_adopt(abb_store_file_t *file, const char *path, int lock, apr_pool_t *p);

/*
 * Read FILE.key. No such file: ring->count is 0.
 * Errors: ABB_ESTORE it is not of the form it was written in, or others may have
 * read or changed it.
 */
apr_status_t abb_store_file_read_keys(const abb_store_file_t *file, abb_crypto_keyring_t *ring,
                                      apr_pool_t *p, abb_error_t *err);

/* Write FILE.key, whole or not at all. Errors: ABB_ESTORE. */
apr_status_t abb_store_file_write_keys(const abb_store_file_t *file,
                                       const abb_crypto_keyring_t *ring, apr_pool_t *p,
                                       abb_error_t *err);

/*
 * The key that proves records of a store whose server has this key.
 * Errors: ABB_ECRYPTO.
 */
apr_status_t abb_store_file_proof_key(const abb_crypto_key_t *key, abb_store_shm_proof_key_t *proof,
                                      abb_error_t *err);
/* The same for each key of a ring. */
apr_status_t abb_store_file_proof_keys(const abb_crypto_keyring_t *ring,
                                       abb_store_shm_proof_key_t *proofs, abb_error_t *err);

/*
 * Make FILE.new of this size and map it. Its room on the disk is taken, so that
 * no later write to the mapping can fail for lack of it. The caller formats it.
 * Errors: ABB_ESTORE.
 */
apr_status_t abb_store_file_begin(abb_store_file_t *file, apr_size_t size, apr_pool_t *p,
                                  abb_error_t *err);

/*
 * Take the records of what stands at the path over into a store. A file that
 * cannot be used is to be kept as FILE.refused and *report says why; it is no
 * error, unless nothing shows that it is ours.
 * Lifetime of the texts: p. Errors: ABB_ESTORE also that it is not ours.
 */
apr_status_t abb_store_file_import(abb_store_file_t *file, const abb_store_t *store,
                                   const abb_store_shm_proof_key_t *keys, int key_count,
                                   apr_time_t now, abb_store_file_report_t *report, apr_pool_t *p,
                                   abb_error_t *err);

/*
 * See what a start would find at an absolute path, with the key beside it; changes
 * nothing and takes no lock. report->refused says why a start would not use it.
 * Lifetime of the texts: p. Errors: ABB_ESTORE it cannot be read.
 */
apr_status_t abb_store_file_survey(const char *path, apr_time_t now,
                                   abb_store_file_report_t *report, apr_pool_t *p,
                                   abb_error_t *err);

/*
 * Write FILE.new to the disk and let it take the place of FILE.
 * Errors: ABB_ESTORE.
 */
apr_status_t abb_store_file_commit(abb_store_file_t *file, apr_pool_t *p, abb_error_t *err);

/* Unmap and remove FILE.new. */
void abb_store_file_abandon(abb_store_file_t *file, apr_pool_t *p);

/* Whether what stands at the path is still the file that is mapped. */
int abb_store_file_is_in_place(const abb_store_file_t *file);

/*
 * Write what has changed in the mapping to the disk, and wait for it.
 * Errors: ABB_ESTORE. Threads: any, of any process that has the mapping.
 */
apr_status_t abb_store_file_sync(const abb_store_file_t *file, abb_error_t *err);

/* Unmap the segment; the lock stays. */
void abb_store_file_unmap(abb_store_file_t *file);

/* Give the lock back; FILE.lock is removed if no sessions were ever kept here. */
void abb_store_file_unlock(abb_store_file_t *file, apr_pool_t *p);

/* Remove FILE and FILE.key, whose sessions live elsewhere now, and give the lock back. */
void abb_store_file_remove(abb_store_file_t *file, apr_pool_t *p);

#endif
