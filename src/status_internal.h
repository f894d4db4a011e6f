/*
 * The inside of the status room: what is known, once, for all forms it is told in.
 *
 *   status.c           who asks, and for which form
 *   status_figures.c   gathers
 *   status_text.c      lines, JSON, Prometheus
 *   status_page.c      HTML
 */
#ifndef ABB_STATUS_INTERNAL_H
#define ABB_STATUS_INTERNAL_H

#include <httpd.h>

#include "abb_counters.h"

/* A figure; those of one metric stand together. All strings are static words. */
typedef struct abb_status_figure_t {
    /* Heading on the page. */
    const char *group;
    /* For lines, without the prefix: "SignIns". */
    const char *name;
    /* For Prometheus and JSON, without the prefix: "sign_ins_total". */
    const char *metric;
    /* In plain words. */
    const char *help;
    /* "reason" and its value; NULL: it has none. */
    const char *label;
    const char *label_value;
    apr_int64_t value;
    int is_counter;
} abb_status_figure_t;

/* All that is told. */
typedef struct abb_status_t {
    apr_time_t now;
    abb_counters_sum_t sum;
    /* abb_status_figure_t; what cannot be known is left out. */
    apr_array_header_t *figures;
} abb_status_t;

/* A text that grows. */
typedef struct abb_status_text_t {
    char *bytes;
    apr_size_t size;
    apr_size_t capacity;
    apr_pool_t *pool;
} abb_status_text_t;

void abb_status_put(abb_status_text_t *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Gather. Returns NULL when no site of the server counts. Lifetime: p. */
const abb_status_t *abb_status_gather(server_rec *servers, apr_pool_t *p);

/* "SignInsFailed" and "rate-limit": "SignInsFailedRateLimit". Lifetime: p. */
const char *abb_status_name(const abb_status_figure_t *figure, apr_pool_t *p);

/* Microseconds as "0.123456". Lifetime: p. */
const char *abb_status_seconds(apr_interval_time_t time, apr_pool_t *p);

/* The forms. Lifetime: p. */
const char *abb_status_lines(const abb_status_t *status, apr_pool_t *p);
const char *abb_status_json(const abb_status_t *status, apr_pool_t *p);
const char *abb_status_prometheus(const abb_status_t *status, apr_pool_t *p);
const char *abb_status_page(const abb_status_t *status, apr_pool_t *p);

/* The Content-Security-Policy of the page. Lifetime: p. */
const char *abb_status_policy(apr_pool_t *p);

#endif
