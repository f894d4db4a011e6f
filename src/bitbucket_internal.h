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
    ABB_ASKED_MEMBER = 32,
    ABB_ASKED_REPOSITORY = 64
};

/*
 * What an answer means: APR_SUCCESS the body is to be read, APR_NOTFOUND a
 * definite no, else a reason. `what` names the endpoint in a sentence. p is for
 * temporary memory.
 */
apr_status_t abb_bitbucket_meaning(int asked, const char *what, const abb_http_answer_t *answer,
                                   apr_pool_t *p, abb_error_t *err);

/* A set of questions under way: who asks about whom, and until when. */
typedef struct abb_bitbucket_round_t {
    const abb_bitbucket_t *bitbucket;
    /* NULL: not known yet. */
    const char *uuid;
    /* Of the monotonic clock. */
    apr_time_t deadline;
} abb_bitbucket_round_t;

abb_bitbucket_round_t abb_bitbucket_begin_round(const abb_bitbucket_t *bitbucket, const char *uuid);

/*
 * Do exchanges at the same time, as abb_http_perform, unless Bitbucket is to be
 * left alone: then each answer's error says so. Questions without a usable answer
 * are sent once more. Lifetime of answers: p.
 */
void abb_bitbucket_perform(const abb_bitbucket_round_t *round, const abb_http_request_t *requests,
                           abb_http_answer_t *answers, int count, apr_pool_t *p);

/* The Authorization header of the OAuth client itself. Secret. Lifetime: p. */
const char *abb_bitbucket_client_authorization(const abb_bitbucket_t *bitbucket, apr_pool_t *p);

/* Where to ask for the role in a workspace or repository as rules name it. Lifetime: p. */
const char *abb_bitbucket_grant_url(const abb_bitbucket_t *bitbucket, const char *asked,
                                    apr_pool_t *p);

/*
 * Whether the address of a list's next page, as Bitbucket gave it, may be asked. It is
 * opaque, but it gets the token: same origin and API only, and no path that climbs, raw
 * or encoded, for it could leave the API.
 */
int abb_bitbucket_is_page(const char *api_url, const char *url);

/* Whether a Content-Type (may be NULL) is that of JSON. */
int abb_bitbucket_is_json(const char *content_type);

/* How long an answer of 429 asks to pause. */
apr_interval_time_t abb_bitbucket_retry_after(const abb_http_answer_t *answer);

#endif
