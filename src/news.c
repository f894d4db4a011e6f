/* news (floor 4): what the log hears of Bitbucket's condition. See abb_news.h. */
#include "abb_news.h"

#include <http_log.h>

#include "abb_log.h"

APLOG_USE_MODULE(auth_bitbucket);

#define CHANGE_INTERVAL apr_time_from_sec(3600)
#define INTERVAL apr_time_from_sec(60)

static int whole_seconds(apr_interval_time_t time)
{
    return (int)apr_time_sec(time + apr_time_from_sec(1) - 1);
}

void abb_news_traffic(void *server, abb_traffic_event_t event, apr_interval_time_t duration)
{
    server_rec *s = server;

    switch (event) {
    case ABB_TRAFFIC_BROKEN:
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                     ABB_LOGNO(0301) "Bitbucket does not answer: nobody asks it for %d s; what it "
                                     "said before serves up to the hard age of "
                                     "AuthBitbucketMembershipMaxAge, other requests get 503",
                     whole_seconds(duration));
        break;
    case ABB_TRAFFIC_MENDED:
        ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, s, ABB_LOGNO(0302) "Bitbucket answers again");
        break;
    case ABB_TRAFFIC_PAUSED:
        ap_log_error(
            APLOG_MARK, APLOG_WARNING, 0, s,
            ABB_LOGNO(0303) "Bitbucket asked for a pause about %d accounts: nobody asks it "
                            "for %d s; see docs/freshness.md on its limits",
            ABB_TRAFFIC_ACCOUNTS_MAX, whole_seconds(duration));
        break;
    }
}

void abb_news_change(server_rec *s, abb_traffic_t *traffic, const char *change)
{
    if (change &&
        abb_traffic_may_tell(traffic, ABB_TRAFFIC_TOLD_CHANGE, CHANGE_INTERVAL, apr_time_now())) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s,
                     ABB_LOGNO(0304) "%s; plain membership is still found another way, roles above "
                                     "it are not: look for a newer mod_auth_bitbucket",
                     change);
    }
}

void abb_news_odd(server_rec *s, abb_traffic_t *traffic, const char *account, const char *doubt)
{
    unsigned count =
        doubt ? abb_traffic_may_tell(traffic, ABB_TRAFFIC_TOLD_ODD, INTERVAL, apr_time_now()) : 0;

    if (count) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                     ABB_LOGNO(0107) "Bitbucket's answer about account %s is odd: %s (%u such "
                                     "answers)",
                     account, doubt, count);
    }
}

void abb_news_alarm(server_rec *s, abb_traffic_t *traffic, const char *alarm)
{
    if (alarm && abb_traffic_may_tell(traffic, ABB_TRAFFIC_TOLD_ALARM, INTERVAL, apr_time_now())) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s,
                     ABB_LOGNO(0308) "%s; if it is the right one, write its {uuid} in the Require "
                                     "line instead of the name",
                     alarm);
    }
}

void abb_news_scopes(server_rec *s, abb_traffic_t *traffic, const char *missing, const char *labels)
{
    if (missing &&
        abb_traffic_may_tell(traffic, ABB_TRAFFIC_TOLD_SCOPE, CHANGE_INTERVAL, apr_time_now())) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s,
                     ABB_LOGNO(0309) "Bitbucket does not grant the scope %s: tick %s in the OAuth "
                                     "client at Bitbucket; who is signed in must sign in again "
                                     "then",
                     missing, labels);
    }
}

void abb_news_crowd(server_rec *s, abb_traffic_t *traffic, int limit)
{
    unsigned count =
        abb_traffic_may_tell(traffic, ABB_TRAFFIC_TOLD_CROWD, INTERVAL, apr_time_now());

    if (count) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                     ABB_LOGNO(0305) "%u requests got 503 because %d others (or their process's "
                                     "share) wait for Bitbucket already: when it is not slow, "
                                     "raise AuthBitbucketMaxLogins",
                     count, limit);
    }
}

static int needs_operator(apr_status_t reason)
{
    return reason == ABB_ESCOPE || reason == ABB_ECLIENT || reason == ABB_EGONE;
}

void abb_news_failure(server_rec *s, abb_traffic_t *traffic, const abb_error_t *err)
{
    int is_operators = needs_operator(err->status);
    unsigned count = abb_traffic_may_tell(
        traffic, is_operators ? ABB_TRAFFIC_TOLD_OPERATOR : ABB_TRAFFIC_TOLD_SILENCE, INTERVAL,
        apr_time_now());

    if (count) {
        ap_log_error(APLOG_MARK, is_operators ? APLOG_ERR : APLOG_WARNING, 0, s,
                     ABB_LOGNO(0306) "%u re-checks of sessions failed, the last: %s; reason=%s. "
                                     "Sessions go on with what Bitbucket said before, up to the "
                                     "hard age of AuthBitbucketMembershipMaxAge",
                     count, err->text, abb_error_word(err->status));
    }
}
