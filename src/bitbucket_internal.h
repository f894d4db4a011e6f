/*
 * The inside of the bitbucket room: what an answer means, shared by the files
 * that ask.
 */
#ifndef ABB_BITBUCKET_INTERNAL_H
#define ABB_BITBUCKET_INTERNAL_H

#include "abb_bitbucket.h"

/* What was asked. Bits, so that a row of the table may stand for several. */
enum {
    ABB_ASKED_CODE = 1,
    ABB_ASKED_REFRESH = 2,
    ABB_ASKED_USER = 4,
    ABB_ASKED_EMAILS = 8,
    ABB_ASKED_PERMISSION = 16,
    ABB_ASKED_MEMBER = 32
};

/*
 * What an answer means: APR_SUCCESS the body is to be read, APR_NOTFOUND a
 * definite no, else a reason. `what` names the endpoint in a sentence. p is for
 * temporary memory.
 */
apr_status_t abb_bitbucket_meaning(int asked, const char *what, const abb_http_answer_t *answer,
                                   apr_pool_t *p, abb_error_t *err);

#endif
