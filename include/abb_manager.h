/*
 * manager (floor 8): sessions in the hands of an administrator.
 *
 * How many there are, those of one account, and ending one, those of an account, or
 * all; as a page and as JSON. Whoever uses it must have a name, whatever the rules say,
 * and the log keeps it. Shows no cookie, no token, and nothing of an account but what
 * it was asked for.
 */
#ifndef ABB_MANAGER_H
#define ABB_MANAGER_H

#include <httpd.h>

/* A handler: SetHandler bitbucket-sessions; DECLINED for any other. */
int abb_manager_handle(request_rec *r);

#endif
