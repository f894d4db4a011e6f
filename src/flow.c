/* flow (floor 4): what the log hears of one visitor. See abb_flow.h. */
#include "abb_flow.h"

#include <apr_strings.h>
#include <http_log.h>
#include <string.h>

#include "abb_log.h"
#include "abb_text.h"

APLOG_USE_MODULE(auth_bitbucket);

/* Longest path of a call that is told. */
#define PATH_MAX_TOLD 300

/* ---- lines --------------------------------------------------------------- */

static int is_heard(const abb_flow_t *flow, int level)
{
    return flow->r ? APLOG_R_IS_LEVEL(flow->r, level) : APLOG_IS_LEVEL(flow->s, level);
}

static void tell(const abb_flow_t *flow, int level, const char *tagged)
{
    if (flow->r) {
        ap_log_rerror(APLOG_MARK, level, 0, flow->r, "%s", tagged);
    }
    else {
        ap_log_error(APLOG_MARK, level, 0, flow->s, "%s", tagged);
    }
}

/* ---- calls --------------------------------------------------------------- */

typedef struct {
    abb_flow_t flow;
    abb_bitbucket_t bitbucket;
} watch_t;

/* What stands behind the host, up to the query. */
static const char *path_of(const char *url, apr_pool_t *p)
{
    const char *host = strstr(url, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;

    return path ? abb_text_quotable(apr_pstrmemdup(p, path, strcspn(path, "?#")), PATH_MAX_TOLD, p)
                : "/";
}

static void tell_call(void *listener, const abb_http_request_t *request,
                      const abb_http_answer_t *answer, apr_pool_t *p)
{
    const watch_t *watch = listener;
    int has_failed = answer->error.status != APR_SUCCESS;

    tell(&watch->flow, APLOG_DEBUG,
         apr_psprintf(p,
                      ABB_LOGNO(0140) "Bitbucket; method=%s path=\"%s\" status=%d "
                                      "ms=%" APR_TIME_T_FMT "%s%s",
                      request->form ? "POST" : "GET", path_of(request->url, p), answer->status,
                      apr_time_as_msec(answer->duration), has_failed ? ": " : "",
                      has_failed ? answer->error.text : ""));
}

const abb_bitbucket_t *abb_flow_watch(const abb_flow_t *flow, const abb_bitbucket_t *bitbucket,
                                      apr_pool_t *p)
{
    watch_t *watch;

    if (!is_heard(flow, APLOG_DEBUG)) {
        return bitbucket;
    }
    watch = apr_palloc(p, sizeof(*watch));
    watch->flow = *flow;
    watch->bitbucket = *bitbucket;
    watch->bitbucket.listen = tell_call;
    watch->bitbucket.listener = watch;
    return &watch->bitbucket;
}

/* ---- sessions ------------------------------------------------------------ */

/* The longest line: a sentence of abb_error_t, and what stands before it. */
#define LINE_SIZE (ABB_ERROR_TEXT_SIZE + 200)

void abb_flow_recheck(const abb_flow_t *flow, const abb_session_t *session, int has_asked,
                      const char *outcome)
{
    char line[LINE_SIZE];

    if (is_heard(flow, APLOG_DEBUG)) {
        apr_snprintf(line, sizeof(line), ABB_LOGNO(0106) "re-check; session=%s asked=%s outcome=%s",
                     session->tag, has_asked ? "yes" : "no", outcome);
        tell(flow, APLOG_DEBUG, line);
    }
}

void abb_flow_end(const abb_flow_t *flow, const abb_session_t *session, const char *account,
                  const char *why)
{
    char line[LINE_SIZE];

    apr_snprintf(line, sizeof(line), ABB_LOGNO(0105) "session ended; account=%s session=%s: %s",
                 account, session->tag, why);
    tell(flow, APLOG_INFO, line);
}
