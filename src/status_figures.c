/* status (floor 8): what there is to tell. See status_internal.h. */
#include <apr_lib.h>
#include <apr_strings.h>
#include <stdarg.h>
#include <string.h>

#include "abb_config.h"
#include "abb_gate.h"
#include "abb_traffic.h"
#include "status_internal.h"

static const char visitors[] = "Visitors";
static const char failed[] = "Sign-ins that failed, by reason";
static const char upstream[] = "Bitbucket";
static const char kept[] = "Session store";
static const char server[] = "Server";

/* ---- text ---------------------------------------------------------------- */

void abb_status_put(abb_status_text_t *text, const char *format, ...)
{
    va_list arguments;
    const char *more;
    apr_size_t size;

    va_start(arguments, format);
    more = apr_pvsprintf(text->pool, format, arguments);
    va_end(arguments);
    size = strlen(more);
    if (text->size + size + 1 > text->capacity) {
        char *larger;

        text->capacity = 2 * (text->size + size + 1);
        larger = apr_palloc(text->pool, text->capacity);
        memcpy(larger, text->bytes ? text->bytes : "", text->size);
        text->bytes = larger;
    }
    memcpy(text->bytes + text->size, more, size + 1);
    text->size += size;
}

const char *abb_status_name(const abb_status_figure_t *figure, apr_pool_t *p)
{
    char *name;
    char *out;
    int begins_word = 1;

    if (!figure->label_value) {
        return figure->name;
    }
    name = apr_pstrcat(p, figure->name, figure->label_value, NULL);
    out = name + strlen(figure->name);
    for (const char *c = figure->label_value; *c; ++c) {
        if (*c != '-') {
            *out++ = begins_word ? (char)apr_toupper(*c) : *c;
        }
        begins_word = *c == '-';
    }
    *out = '\0';
    return name;
}

const char *abb_status_seconds(apr_interval_time_t time, apr_pool_t *p)
{
    return apr_psprintf(p, "%" APR_INT64_T_FMT ".%06d", (apr_int64_t)apr_time_sec(time),
                        (int)apr_time_usec(time));
}

/* ---- figures ------------------------------------------------------------- */

static void add(abb_status_t *status, abb_status_figure_t figure)
{
    /* -1: nobody knows. */
    if (figure.value >= 0) {
        APR_ARRAY_PUSH(status->figures, abb_status_figure_t) = figure;
    }
}

static void add_count(abb_status_t *status, const char *group, const char *name, const char *metric,
                      const char *help, abb_count_t what)
{
    abb_status_figure_t figure = {
        group, name, metric, help, NULL, NULL, (apr_int64_t)status->sum.counts[what], 1};

    add(status, figure);
}

static void add_outcome(abb_status_t *status, const char *group, const char *name,
                        const char *metric, const char *help, const char *outcome, abb_count_t what)
{
    abb_status_figure_t figure = {
        group, name, metric, help, "outcome", outcome, (apr_int64_t)status->sum.counts[what], 1};

    add(status, figure);
}

static void add_total(abb_status_t *status, const char *group, const char *name, const char *metric,
                      const char *help, apr_int64_t value)
{
    abb_status_figure_t figure = {group, name, metric, help, NULL, NULL, value, 1};

    add(status, figure);
}

static void add_gauge(abb_status_t *status, const char *group, const char *name, const char *metric,
                      const char *help, apr_int64_t value)
{
    abb_status_figure_t figure = {group, name, metric, help, NULL, NULL, value, 0};

    add(status, figure);
}

static void add_visitors(abb_status_t *status)
{
    add_count(status, visitors, "Requests", "requests_total",
              "Requests with a session or with credentials", ABB_COUNT_REQUEST);
    add_count(status, visitors, "SignIns", "sign_ins_total", "Sign-ins completed",
              ABB_COUNT_SIGN_IN);
    add_count(status, visitors, "SignOuts", "sign_outs_total", "Sign-outs", ABB_COUNT_SIGN_OUT);
    add_count(status, visitors, "Refusals", "refusals_total", "Requests that the rules refused",
              ABB_COUNT_REFUSAL);
    add_count(status, visitors, "Undecided", "undecided_total",
              "Requests that could not be decided (503, 500)", ABB_COUNT_UNDECIDED);
    add_outcome(status, visitors, "Credentials", "credentials_total",
                "API and access tokens not known yet", "accepted", ABB_COUNT_CREDENTIAL_ACCEPTED);
    add_outcome(status, visitors, "Credentials", "credentials_total",
                "API and access tokens not known yet", "refused", ABB_COUNT_CREDENTIAL_REFUSED);
    add_outcome(status, visitors, "Credentials", "credentials_total",
                "API and access tokens not known yet", "throttled", ABB_COUNT_CREDENTIAL_THROTTLED);
}

/* Those without a reason of ours come last, as "error". */
static void add_failures(abb_status_t *status)
{
    for (int i = 1; i <= ABB_COUNTERS_REASONS; ++i) {
        int place = i % ABB_COUNTERS_REASONS;
        const char *word = abb_error_word(ABB_ERROR_BASE + place);
        abb_status_figure_t figure = {failed,
                                      "SignInsFailed",
                                      "sign_ins_failed_total",
                                      "Sign-ins that failed",
                                      "reason",
                                      word,
                                      (apr_int64_t)status->sum.failures[place],
                                      1};

        if (place == 0 || strcmp(word, "error") != 0) {
            add(status, figure);
        }
    }
}

/* Of all sites' clients the one that does worst. */
static abb_traffic_condition_t worst_condition(server_rec *s, apr_time_t now)
{
    static const int badness[] = {
        [ABB_TRAFFIC_CLOSED] = 0, [ABB_TRAFFIC_HALF_OPEN] = 1, [ABB_TRAFFIC_OPEN] = 2};
    abb_traffic_condition_t worst = {ABB_TRAFFIC_CLOSED, 0, 0};

    for (; s; s = s->next) {
        const abb_site_t *site = abb_config_site(s);
        abb_traffic_condition_t here;

        if (!site || !site->bitbucket.traffic) {
            continue;
        }
        abb_traffic_look(site->bitbucket.traffic, now, &here);
        if (badness[here.state] > badness[worst.state] ||
            (here.state == worst.state && here.since > worst.since)) {
            worst.state = here.state;
            worst.since = here.since;
        }
        worst.pause = here.pause > worst.pause ? here.pause : worst.pause;
    }
    return worst;
}

static apr_int64_t seconds_or_unknown(apr_time_t time)
{
    return time ? (apr_int64_t)apr_time_sec(time) : -1;
}

static void add_upstream(abb_status_t *status, server_rec *servers, const abb_site_t *site)
{
    const abb_counters_sum_t *sum = &status->sum;
    abb_traffic_condition_t condition = worst_condition(servers, status->now);

    add_gauge(status, upstream, "CircuitOpen", "circuit_open",
              "1 while the circuit breaker is open: Bitbucket did not answer, so nobody asks",
              condition.state != ABB_TRAFFIC_CLOSED);
    add_gauge(status, upstream, "CircuitChanged", "circuit_changed_timestamp_seconds",
              "When that last changed",
              seconds_or_unknown(condition.since ? condition.since : sum->started_at));
    add_gauge(status, upstream, "Pause", "pause_seconds",
              "How long all calls still pause because Bitbucket asked for it",
              apr_time_sec(condition.pause));
    add_gauge(status, upstream, "Waiting", "waiting", "Requests that wait for Bitbucket now",
              abb_gate_count(site->gate, status->now));
    add_outcome(status, upstream, "Rechecks", "rechecks_total",
                "Questions about sessions that exist", "done", ABB_COUNT_RECHECK_DONE);
    add_outcome(status, upstream, "Rechecks", "rechecks_total",
                "Questions about sessions that exist", "failed", ABB_COUNT_RECHECK_FAILED);
    add_count(status, upstream, "RechecksWaited", "rechecks_waited_total",
              "Times a visitor waited for such an answer", ABB_COUNT_RECHECK_WAITED);
    add_count(status, upstream, "SessionsEnded", "sessions_ended_total",
              "Sessions ended for what Bitbucket said", ABB_COUNT_ENDED);
    add_gauge(status, upstream, "RateLimitRemaining", "rate_limit_remaining",
              "Calls left, as Bitbucket told last", sum->rate_limit_remaining);
    add_gauge(status, upstream, "RateLimitTold", "rate_limit_timestamp_seconds", "When it told so",
              seconds_or_unknown(sum->rate_limit_at));
    add_gauge(status, upstream, "ChangeSeen", "change_timestamp_seconds",
              "When Bitbucket last said that it has withdrawn an endpoint",
              seconds_or_unknown(sum->change_at));
}

static void add_store(abb_status_t *status, const abb_site_t *site)
{
    abb_store_figures_t figures;

    abb_store_figures(site->sessions.store, &figures);
    add_gauge(status, kept, "Records", "store_records", "Sessions and kept forms", figures.records);
    add_gauge(status, kept, "Used", "store_used_bytes", "Bytes in use", figures.bytes_used);
    add_gauge(status, kept, "Capacity", "store_capacity_bytes", "Bytes there are",
              figures.bytes_capacity);
    add_total(status, kept, "Evictions", "store_evictions_total",
              "Sessions that ended early for lack of room", figures.evictions);
    add_total(status, kept, "Expired", "store_expired_total", "Sessions whose time was over",
              figures.expired);
    add_total(status, kept, "Hits", "store_hits_total", "Look-ups that found one", figures.hits);
    add_total(status, kept, "Misses", "store_misses_total", "Look-ups that found none",
              figures.misses);
    add_total(status, kept, "Recoveries", "store_recoveries_total",
              "Times a process died while it wrote, and the next put it right", figures.recoveries);
}

static void add_server(abb_status_t *status)
{
    add_gauge(status, server, "Started", "start_time_seconds", "When counting began",
              (apr_int64_t)apr_time_sec(status->sum.started_at));
    add_total(status, server, "GracefulRestarts", "graceful_restarts_total",
              "Graceful restarts since then", (apr_int64_t)status->sum.restarts);
}

/* All sites share counters, gate and store. */
static const abb_site_t *first_site(server_rec *s)
{
    for (; s; s = s->next) {
        const abb_site_t *site = abb_config_site(s);

        if (site && site->bitbucket.counters && site->sessions.store) {
            return site;
        }
    }
    return NULL;
}

const abb_status_t *abb_status_gather(server_rec *servers, apr_pool_t *p)
{
    const abb_site_t *site = first_site(servers);
    abb_status_t *status;

    if (!site) {
        return NULL;
    }
    status = apr_palloc(p, sizeof(*status));
    status->now = apr_time_now();
    status->figures = apr_array_make(p, 64, sizeof(abb_status_figure_t));
    abb_counters_read(site->bitbucket.counters, status->now, &status->sum);
    add_visitors(status);
    add_failures(status);
    add_upstream(status, servers, site);
    add_store(status, site);
    add_server(status);
    return status;
}
