/*
 * endpoints (floor 8): login, logout, userinfo, and the turns of callback and kept form.
 *
 * Answered before rewriting, proxying or content can get at them, and before
 * any access rule: each does its own checks.
 */
#ifndef ABB_ENDPOINTS_H
#define ABB_ENDPOINTS_H

#include <httpd.h>

/* quick_handler: DECLINED for all other addresses. */
int abb_endpoints_handle(request_rec *r, int lookup);

#endif
