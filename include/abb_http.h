/*
 * http (floor 2): bounded HTTPS exchanges, several at once.
 *
 * The only user of libcurl. Knows no Bitbucket, no JSON, no httpd. Every
 * exchange has a time limit and a size limit; redirects are never followed,
 * no content coding is accepted, certificates are always checked.
 */
#ifndef ABB_HTTP_H
#define ABB_HTTP_H

#include <apr_pools.h>
#include <apr_time.h>

#include "abb_error.h"

/* Largest total of an answer's header lines, in bytes. */
#define ABB_HTTP_HEADERS_MAX (64 * 1024)

/* Settings of one site. Lifetime: the configuration's. */
typedef struct abb_http_settings_t {
    /* Microseconds to connect, TLS included, and for a whole exchange. */
    apr_interval_time_t connect_timeout;
    apr_interval_time_t total_timeout;
    /* PEM file of certificate authorities, or NULL for the system's. */
    const char *ca_file;
    /* URL of a proxy, or NULL for none; the environment is not asked. */
    const char *proxy;
    const char *user_agent;
} abb_http_settings_t;

typedef struct abb_http_request_t {
    const char *url;
    /* Value of the Authorization header, or NULL. Secret. */
    const char *authorization;
    /* Form body: makes it a POST, sent at most once. NULL: a GET. Secret. */
    const char *form;
    /* Largest answer body accepted, in bytes. */
    apr_size_t answer_max;
    /* Over a connection of its own; a form always is. */
    int is_fresh;
    /* What its maker calls it; nobody looks at it here. */
    int kind;
} abb_http_request_t;

typedef struct abb_http_answer_t {
    /* The answer's status code, 0 when there is no whole answer. */
    int status;
    /* Body with a NUL behind it that is not counted; never NULL. */
    const char *body;
    apr_size_t body_size;
    /* Values of header fields, or NULL; of the answer itself, not of a proxy's to CONNECT. */
    const char *content_type;
    const char *retry_after;
    const char *date;
    const char *rate_limit_remaining;
    /* How long it took, in microseconds, answered or not. */
    apr_interval_time_t duration;
    /* Why there is no whole answer; status APR_SUCCESS when there is one. */
    abb_error_t error;
} abb_http_answer_t;

/* Connections of one child process, kept alive between exchanges. */
typedef struct abb_http_t abb_http_t;

/*
 * Create the connections' keeper. Lifetime: p; its cleanup closes everything, but a
 * thread of libcurl that waits for a name server may outlive it.
 * Errors: APR_ENOMEM, ABB_EUPSTREAM when libcurl cannot start.
 * Threads: once per process, before its threads start.
 */
apr_status_t abb_http_create(abb_http_t **http, apr_pool_t *p);

/*
 * Do exchanges at the same time and wait for all of them, no longer than the
 * site's total time-out, nor for a name server longer than connecting may take (with
 * libcurl before 7.87: as long as the system's resolver waits). Requests to one host
 * share a connection where it speaks HTTP/2; else each uses a connection kept alive. A
 * form goes over a fresh connection, since libcurl would send it again when a kept one
 * turns out dead, and an authorization code or refresh token must not be sent twice.
 * answers[i] belongs to requests[i]. Lifetime of answers: p.
 * Threads: any.
 */
void abb_http_perform(abb_http_t *http, const abb_http_settings_t *settings,
                      const abb_http_request_t *requests, abb_http_answer_t *answers, int count,
                      apr_pool_t *p);

/*
 * End all exchanges that are under way, and each that is begun later: at once,
 * without an answer. For a process that ends. Threads: any.
 */
void abb_http_stop(abb_http_t *http);

/* Whether exchanges were ended by abb_http_stop. Threads: any. */
int abb_http_is_stopped(const abb_http_t *http);

/*
 * Whether a URL may be talked to: https, or http to a loopback host
 * (127.0.0.0/8, [::1], localhost). Userinfo, control characters and fragments
 * are refused. Returns NULL when it may, else a static sentence.
 */
const char *abb_http_check_url(const char *url);

#endif
