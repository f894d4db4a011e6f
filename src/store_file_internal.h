/*
 * The inside of the store_file room: opening what may be trusted, and sentences;
 * shared by the file that has the segment and the file that has the keys.
 */
#ifndef ABB_STORE_FILE_INTERNAL_H
#define ABB_STORE_FILE_INTERNAL_H

#include <sys/stat.h>

#include "abb_store_file.h"

/* FILE with an ending. Lifetime: p. */
const char *abb_store_file_beside(const abb_store_file_t *file, const char *ending, apr_pool_t *p);

/* "WHAT PATH: reason of the system: REMEDY", as ABB_ESTORE. code: an errno. */
apr_status_t abb_store_file_fault(abb_error_t *err, const char *what, const char *path, int code,
                                  const char *remedy);

/*
 * Why a file may not be trusted: it is no regular file, another user owns it, or
 * others may read or write it. NULL: it may. *can_be_ours is 0 for what this room
 * never makes. Lifetime: p.
 */
const char *abb_store_file_distrust(const struct stat *info, int *can_be_ours, apr_pool_t *p);

/*
 * Open a file of ours that is there for reading. *complaint says why it may not
 * be trusted; *descriptor is -1 then.
 * Errors: APR_NOTFOUND; ABB_ESTORE it cannot be opened.
 */
apr_status_t abb_store_file_open_trusted(const char *path, int *descriptor, struct stat *info,
                                         const char **complaint, int *can_be_ours, apr_pool_t *p,
                                         abb_error_t *err);

/* Make a new file of mode 0600, in place of what an earlier start left. Errors: ABB_ESTORE. */
apr_status_t abb_store_file_make(const char *path, int *descriptor, abb_error_t *err);

/* Give a file its final name, and wait until the disk knows it. Errors: ABB_ESTORE. */
apr_status_t abb_store_file_rename(const char *from, const char *to, apr_pool_t *p,
                                   abb_error_t *err);

/* Write all bytes. Returns 0 or an errno. */
int abb_store_file_write_all(int descriptor, const void *bytes, apr_size_t size);

#endif
