/* status (floor 8): lines, JSON, and the text of Prometheus. See status_internal.h. */
#include <apr_strings.h>
#include <string.h>

#include "abb_text.h"
#include "status_internal.h"

#define PREFIX "Bitbucket"
#define METRIC "bitbucket_"

static const double shares[] = {0.5, 0.9, 0.99};
static const char *const share_words[] = {"p50", "p90", "p99"};
#define SHARES (int)(sizeof(shares) / sizeof(shares[0]))

static const abb_status_figure_t *figure_at(const abb_status_t *status, int i)
{
    return &APR_ARRAY_IDX(status->figures, i, abb_status_figure_t);
}

/* Whether a figure is the first of its metric. */
static int begins_metric(const abb_status_t *status, int i)
{
    return i == 0 || strcmp(figure_at(status, i)->metric, figure_at(status, i - 1)->metric) != 0;
}

/* ---- lines --------------------------------------------------------------- */

static const char *capital(const char *word, apr_pool_t *p)
{
    abb_status_figure_t figure = {.name = "", .label_value = word};

    return abb_status_name(&figure, p);
}

static void put_call_lines(abb_status_text_t *text, abb_call_t call,
                           const abb_call_counts_t *counts)
{
    const char *name = capital(abb_counters_call_word(call), text->pool);

    for (int i = 0; i < ABB_CALL_OUTCOMES; ++i) {
        abb_status_put(text, PREFIX "Calls%s%s: %" APR_UINT64_T_FMT "\n", name,
                       capital(abb_counters_outcome_word((abb_call_outcome_t)i), text->pool),
                       counts->outcomes[i]);
    }
    for (int i = 0; i < SHARES && abb_counters_total(&counts->times); ++i) {
        abb_status_put(
            text, PREFIX "Seconds%s%s: %s\n", name, capital(share_words[i], text->pool),
            abb_status_seconds(abb_counters_quantile(&counts->times, shares[i]), text->pool));
    }
}

const char *abb_status_lines(const abb_status_t *status, apr_pool_t *p)
{
    abb_status_text_t text = {NULL, 0, 0, p};

    for (int i = 0; i < status->figures->nelts; ++i) {
        const abb_status_figure_t *figure = figure_at(status, i);

        abb_status_put(&text, PREFIX "%s: %" APR_INT64_T_FMT "\n", abb_status_name(figure, p),
                       figure->value);
    }
    for (int i = 0; i < ABB_CALL_KINDS; ++i) {
        put_call_lines(&text, (abb_call_t)i, &status->sum.calls[i]);
    }
    if (status->sum.change_at) {
        abb_status_put(&text, PREFIX "Change: %s\n",
                       abb_text_loggable(status->sum.change, ABB_COUNTERS_TEXT_SIZE, p));
    }
    return text.bytes;
}

/* ---- JSON ---------------------------------------------------------------- */

static void put_figures_json(abb_status_text_t *text, const abb_status_t *status)
{
    for (int i = 0; i < status->figures->nelts; ++i) {
        const abb_status_figure_t *figure = figure_at(status, i);
        int is_first = begins_metric(status, i);
        int is_last = i + 1 == status->figures->nelts || begins_metric(status, i + 1);

        if (is_first) {
            abb_status_put(text, "%s\"%s\":%s", i ? "," : "", figure->metric,
                           figure->label ? "{" : "");
        }
        if (figure->label) {
            abb_status_put(text, "%s\"%s\":", is_first ? "" : ",", figure->label_value);
        }
        abb_status_put(text, "%" APR_INT64_T_FMT "%s", figure->value,
                       figure->label && is_last ? "}" : "");
    }
}

static void put_times_json(abb_status_text_t *text, const abb_call_times_t *times)
{
    apr_uint64_t count = abb_counters_total(times);

    abb_status_put(text, "\"count\":%" APR_UINT64_T_FMT, count);
    for (int i = 0; i < SHARES; ++i) {
        abb_status_put(text, ",\"%s\":%s", share_words[i],
                       count
                           ? abb_status_seconds(abb_counters_quantile(times, shares[i]), text->pool)
                           : "null");
    }
}

static void put_call_json(abb_status_text_t *text, const abb_call_counts_t *counts,
                          const abb_call_times_t *hour)
{
    for (int i = 0; i < ABB_CALL_OUTCOMES; ++i) {
        abb_status_put(text, "\"%s\":%" APR_UINT64_T_FMT ",",
                       abb_counters_outcome_word((abb_call_outcome_t)i), counts->outcomes[i]);
    }
    abb_status_put(text, "\"seconds_since_start\":{\"sum\":%s,",
                   abb_status_seconds((apr_interval_time_t)counts->duration, text->pool));
    put_times_json(text, &counts->times);
    abb_status_put(text, "},\"seconds_last_hour\":{");
    put_times_json(text, hour);
    abb_status_put(text, "}");
}

static void put_hour_json(abb_status_text_t *text, const abb_status_t *status)
{
    static const char *const names[ABB_SERIES_KINDS] = {[ABB_SERIES_SIGN_IN] = "sign_ins",
                                                        [ABB_SERIES_REQUEST] = "requests",
                                                        [ABB_SERIES_RECHECK] = "rechecks",
                                                        [ABB_SERIES_CALL] = "calls",
                                                        [ABB_SERIES_CALL_TIME] =
                                                            "call_milliseconds"};

    for (int series = 0; series < ABB_SERIES_KINDS; ++series) {
        abb_status_put(text, "%s\"%s\":[", series ? "," : "", names[series]);
        for (int i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
            abb_status_put(text, "%s%u", i ? "," : "", status->sum.hour[series][i]);
        }
        abb_status_put(text, "]");
    }
}

const char *abb_status_json(const abb_status_t *status, apr_pool_t *p)
{
    abb_status_text_t text = {NULL, 0, 0, p};

    abb_status_put(&text, "{\"time\":%" APR_INT64_T_FMT ",\"figures\":{",
                   (apr_int64_t)apr_time_sec(status->now));
    put_figures_json(&text, status);
    abb_status_put(&text, "},\"calls\":{");
    for (int i = 0; i < ABB_CALL_KINDS; ++i) {
        abb_status_put(&text, "%s\"%s\":{", i ? "," : "", abb_counters_call_word((abb_call_t)i));
        put_call_json(&text, &status->sum.calls[i], &status->sum.hour_times[i]);
        abb_status_put(&text, "}");
    }
    abb_status_put(&text, "},\"last_hour\":{");
    put_hour_json(&text, status);
    abb_status_put(&text, "},\"change\":%s}\n",
                   status->sum.change_at ? abb_text_json(status->sum.change, p) : "null");
    return text.bytes;
}

/* ---- Prometheus ---------------------------------------------------------- */

static void put_head(abb_status_text_t *text, const char *metric, const char *help,
                     const char *type)
{
    abb_status_put(text, "# HELP " METRIC "%s %s.\n# TYPE " METRIC "%s %s\n", metric, help, metric,
                   type);
}

static void put_figures(abb_status_text_t *text, const abb_status_t *status)
{
    for (int i = 0; i < status->figures->nelts; ++i) {
        const abb_status_figure_t *figure = figure_at(status, i);

        if (begins_metric(status, i)) {
            put_head(text, figure->metric, figure->help, figure->is_counter ? "counter" : "gauge");
        }
        if (figure->label) {
            abb_status_put(text, METRIC "%s{%s=\"%s\"} %" APR_INT64_T_FMT "\n", figure->metric,
                           figure->label, figure->label_value, figure->value);
        }
        else {
            abb_status_put(text, METRIC "%s %" APR_INT64_T_FMT "\n", figure->metric, figure->value);
        }
    }
}

static void put_outcomes(abb_status_text_t *text, const abb_status_t *status)
{
    put_head(text, "calls_total", "Calls to Bitbucket by what came back", "counter");
    for (int call = 0; call < ABB_CALL_KINDS; ++call) {
        for (int i = 0; i < ABB_CALL_OUTCOMES; ++i) {
            abb_status_put(text,
                           METRIC "calls_total{call=\"%s\",outcome=\"%s\"} %" APR_UINT64_T_FMT "\n",
                           abb_counters_call_word((abb_call_t)call),
                           abb_counters_outcome_word((abb_call_outcome_t)i),
                           status->sum.calls[call].outcomes[i]);
        }
    }
}

static const char *bound(int bucket, apr_pool_t *p)
{
    apr_interval_time_t time = abb_counters_bound(bucket);

    return time ? apr_psprintf(p, "%d.%03d", (int)apr_time_sec(time), (int)apr_time_msec(time))
                : "+Inf";
}

static void put_durations(abb_status_text_t *text, const char *call,
                          const abb_call_counts_t *counts)
{
    apr_uint64_t so_far = 0;

    for (int i = 0; i < ABB_COUNTERS_BUCKETS; ++i) {
        so_far += counts->times.buckets[i];
        abb_status_put(text,
                       METRIC "call_duration_seconds_bucket{call=\"%s\",le=\"%s\"} "
                              "%" APR_UINT64_T_FMT "\n",
                       call, bound(i, text->pool), so_far);
    }
    abb_status_put(text, METRIC "call_duration_seconds_sum{call=\"%s\"} %s\n", call,
                   abb_status_seconds((apr_interval_time_t)counts->duration, text->pool));
    abb_status_put(text, METRIC "call_duration_seconds_count{call=\"%s\"} %" APR_UINT64_T_FMT "\n",
                   call, so_far);
}

const char *abb_status_prometheus(const abb_status_t *status, apr_pool_t *p)
{
    abb_status_text_t text = {NULL, 0, 0, p};

    put_figures(&text, status);
    put_outcomes(&text, status);
    put_head(&text, "call_duration_seconds", "How long calls to Bitbucket took", "histogram");
    for (int i = 0; i < ABB_CALL_KINDS; ++i) {
        put_durations(&text, abb_counters_call_word((abb_call_t)i), &status->sum.calls[i]);
    }
    return text.bytes;
}
