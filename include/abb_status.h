/*
 * status (floor 8): how the module does, for the administrator.
 *
 * What was counted, the store and Bitbucket's condition, as a page, as lines, as
 * JSON and for Prometheus; the same in a few lines on mod_status' page. Names no
 * account, no visitor's address, no secret.
 */
#ifndef ABB_STATUS_H
#define ABB_STATUS_H

#include <httpd.h>

/* A handler: SetHandler bitbucket-status; DECLINED for any other. Who may see it the rules say. */
int abb_status_handle(request_rec *r);

/* Put a section on mod_status' page, where that is loaded. */
void abb_status_register(apr_pool_t *p);

#endif
