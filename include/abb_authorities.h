/*
 * authorities (floor 1): which form of the system's list of certificate
 * authorities may be read.
 *
 * Debian and others keep the list twice: as one file, and as a directory in
 * which each certificate has a name made of its subject's hash (c_rehash(1ssl)).
 * Of the file OpenSSL reads all: 35 ms of computing for 144 certificates, for each
 * connection anew where libcurl has a directory, too, since it keeps what was read
 * only when there is none. In the directory OpenSSL opens the one it needs.
 */
#ifndef ABB_AUTHORITIES_H
#define ABB_AUTHORITIES_H

#include <apr_pools.h>

/*
 * Whether a directory can stand for a file: it has at least as many certificates
 * under hashed names as the file holds. So one that somebody only appended to the
 * file goes on to count. Not when either of them cannot be read. Both names may
 * be NULL. Reads both from their beginning to their end: for the start of a process.
 * Lifetime of temporary memory: p. Threads: any.
 */
int abb_authorities_are_hashed(const char *directory, const char *file, apr_pool_t *p);

#endif
