/*
 * The inside of the selfcheck room: who is being looked at, and where it is
 * printed; shared by the files that look.
 */
#ifndef ABB_SELFCHECK_INTERNAL_H
#define ABB_SELFCHECK_INTERNAL_H

#include "abb_config.h"
#include "abb_selfcheck.h"

/* One look at a configuration. */
typedef struct abb_selfcheck_t {
    apr_file_t *out;
    apr_pool_t *pool;
    server_rec *main_server;
    /* The site that is being looked at, and its name for people. */
    server_rec *server;
    abb_site_t *site;
    const char *name;
    /* Checks that failed. */
    int failures;
    /* What Bitbucket was asked already; known to the file that asks. */
    apr_array_header_t *asked;
} abb_selfcheck_t;

/* Ask what the server as a whole needs, and what one site needs; each in one line. */
void abb_selfcheck_ask_for_server(abb_selfcheck_t *look);
void abb_selfcheck_ask_for_sites(abb_selfcheck_t *look, const apr_array_header_t *servers);

/* Look at the file of sessions, if they have one. */
void abb_selfcheck_verify(abb_selfcheck_t *look);

/* Look at one of the servers with a site. */
void abb_selfcheck_choose(abb_selfcheck_t *look, server_rec *s);

/* The facts of the server as a whole, and of one site. */
void abb_selfcheck_dump_server(abb_selfcheck_t *look);
void abb_selfcheck_dump_site(abb_selfcheck_t *look);

/* What should be looked at, each in one line that begins with "warning: ". */
void abb_selfcheck_warn_of_server(abb_selfcheck_t *look);
void abb_selfcheck_warn_of_site(abb_selfcheck_t *look);

/* The Require lines of this module that hold for the site, and whether AuthType Bitbucket does. */
typedef struct abb_selfcheck_rules_t {
    int count;
    int is_used;
} abb_selfcheck_rules_t;

abb_selfcheck_rules_t abb_selfcheck_rules(const abb_selfcheck_t *look);

/*
 * The address path that a directive claims, an alias, a location or what is
 * proxied; NULL: none, or one given by a pattern. Lifetime: p.
 */
const char *abb_selfcheck_claimed_path(const ap_directive_t *directive, apr_pool_t *p);

/* Whether a path is, or lies below, what is claimed. */
int abb_selfcheck_is_below(const char *path, const char *claimed);

#endif
