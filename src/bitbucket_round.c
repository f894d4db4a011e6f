/*
 * bitbucket (floor 3): rounds of exchanges. Whether Bitbucket is asked at all,
 * and once more, and what the answers say of its condition.
 */
#include <string.h>

#include "abb_clock.h"
#include "bitbucket_internal.h"

/* So many microseconds at most are added to the pause before a second try. */
#define RETRY_JITTER apr_time_from_msec(300)
/* The most exchanges of one round: account, addresses, workspaces. */
#define EXCHANGES_MAX (2 + ABB_BITBUCKET_WORKSPACES_MAX)

abb_bitbucket_round_t abb_bitbucket_begin_round(const abb_bitbucket_t *bitbucket, const char *uuid)
{
    abb_bitbucket_round_t round = {bitbucket, uuid,
                                   abb_clock_monotonic() + bitbucket->http_settings.total_timeout};

    return round;
}

static apr_interval_time_t time_left(const abb_bitbucket_round_t *round)
{
    return round->deadline - abb_clock_monotonic();
}

/* Nobody answered, or what answered was no API: an error page, a proxy. */
static int is_silent(const abb_http_answer_t *answer)
{
    return answer->error.status != APR_SUCCESS || answer->status >= 500 ||
           (answer->status == 200 && !abb_bitbucket_is_json(answer->content_type));
}

static void fail_all(abb_http_answer_t *answers, int count, const abb_error_t *err)
{
    for (int i = 0; i < count; ++i) {
        memset(&answers[i], 0, sizeof(answers[i]));
        answers[i].body = "";
        answers[i].error = *err;
    }
}

static void tell_of_calls(const abb_bitbucket_t *bitbucket, const abb_http_request_t *requests,
                          const abb_http_answer_t *answers, int count, apr_pool_t *p)
{
    for (int i = 0; bitbucket->listen && i < count; ++i) {
        bitbucket->listen(bitbucket->listener, &requests[i], &answers[i], p);
    }
}

/* Each exchange for itself, also one that is a second try. */
static void count_calls(const abb_bitbucket_round_t *round, const abb_http_request_t *requests,
                        const abb_http_answer_t *answers, int count)
{
    abb_counters_t *counters = round->bitbucket->counters;
    apr_time_t now = apr_time_now();

    /* What was given up here says nothing of Bitbucket. */
    if (abb_http_is_stopped(round->bitbucket->http)) {
        return;
    }
    for (int i = 0; i < count; ++i) {
        abb_counters_call(counters, (abb_call_t)requests[i].kind, answers[i].status,
                          answers[i].duration, now);
        abb_counters_rate_limit(counters, answers[i].rate_limit_remaining, now);
    }
}

static void perform_in_time(const abb_bitbucket_round_t *round, const abb_http_request_t *requests,
                            abb_http_answer_t *answers, int count, apr_pool_t *p)
{
    abb_http_settings_t settings = round->bitbucket->http_settings;
    apr_interval_time_t left = time_left(round);

    if (left < apr_time_from_msec(1)) {
        abb_error_t err;

        abb_error_clear(&err);
        abb_error_set(&err, ABB_EUPSTREAM, "Bitbucket took too long to answer");
        fail_all(answers, count, &err);
        return;
    }
    settings.total_timeout = left;
    if (settings.connect_timeout > left) {
        settings.connect_timeout = left;
    }
    abb_http_perform(round->bitbucket->http, &settings, requests, answers, count, p);
    count_calls(round, requests, answers, count);
    tell_of_calls(round->bitbucket, requests, answers, count, p);
}

/* Not all at once when many have failed together. */
static apr_interval_time_t retry_pause(const abb_bitbucket_t *bitbucket)
{
    return bitbucket->retry_pause + apr_time_now() % RETRY_JITTER;
}

/* Questions that got no answer are sent once more; codes and tokens never. */
static void perform_again(const abb_bitbucket_round_t *round, const abb_http_request_t *requests,
                          abb_http_answer_t *answers, int count, apr_pool_t *p)
{
    apr_interval_time_t pause = retry_pause(round->bitbucket);
    abb_http_request_t again[EXCHANGES_MAX];
    abb_http_answer_t second[EXCHANGES_MAX];
    int places[EXCHANGES_MAX];
    int again_count = 0;

    for (int i = 0; i < count; ++i) {
        if (is_silent(&answers[i]) && !requests[i].form) {
            places[again_count] = i;
            again[again_count] = requests[i];
            /* Kept connections that turn out dead libcurl has tried already, one after the other. */
            again[again_count++].is_fresh = 1;
        }
    }
    if (again_count == 0 || time_left(round) < 2 * pause ||
        abb_http_is_stopped(round->bitbucket->http)) {
        return;
    }
    apr_sleep(pause);
    perform_in_time(round, again, second, again_count, p);
    for (int i = 0; i < again_count; ++i) {
        answers[places[i]] = second[i];
    }
}

/* One answer proves that Bitbucket can be asked, whatever became of the others. */
static abb_traffic_outcome_t outcome_of(const abb_http_answer_t *answers, int count)
{
    for (int i = 0; i < count; ++i) {
        if (!is_silent(&answers[i])) {
            return ABB_TRAFFIC_ANSWERED;
        }
    }
    return ABB_TRAFFIC_SILENT;
}

static void note_pauses(const abb_bitbucket_round_t *round, const abb_http_answer_t *answers,
                        int count)
{
    apr_interval_time_t longest = 0;

    for (int i = 0; i < count; ++i) {
        if (answers[i].error.status == APR_SUCCESS && answers[i].status == 429) {
            apr_interval_time_t pause = abb_bitbucket_retry_after(&answers[i]);

            longest = pause > longest ? pause : longest;
        }
    }
    if (longest) {
        abb_traffic_pause(round->bitbucket->traffic, round->uuid, longest, apr_time_now());
    }
}

void abb_bitbucket_perform(const abb_bitbucket_round_t *round, const abb_http_request_t *requests,
                           abb_http_answer_t *answers, int count, apr_pool_t *p)
{
    const abb_bitbucket_t *bitbucket = round->bitbucket;
    abb_traffic_call_t call = {0};
    abb_error_t err;

    abb_error_clear(&err);
    if (bitbucket->traffic &&
        abb_traffic_begin(bitbucket->traffic, round->uuid, bitbucket->http_settings.total_timeout,
                          apr_time_now(), &call, &err) != APR_SUCCESS) {
        fail_all(answers, count, &err);
        tell_of_calls(bitbucket, requests, answers, count, p);
        return;
    }
    perform_in_time(round, requests, answers, count, p);
    /* A probe that fails says enough. */
    if (bitbucket->retry_pause && !call.probe_until) {
        perform_again(round, requests, answers, count, p);
    }
    if (bitbucket->traffic) {
        note_pauses(round, answers, count);
        abb_traffic_end(bitbucket->traffic, &call,
                        abb_http_is_stopped(bitbucket->http) ? ABB_TRAFFIC_ABANDONED
                                                             : outcome_of(answers, count),
                        apr_time_now());
    }
}
