/*
 * news (floor 4): what the log hears of Bitbucket's condition.
 *
 * Many requests and processes notice the same thing; the log gets it once in a
 * while, with how often it happened. Knows no request.
 * Threads: any.
 */
#ifndef ABB_NEWS_H
#define ABB_NEWS_H

#include <httpd.h>

#include "abb_traffic.h"

/* An abb_traffic_tell_t; its owner is the server_rec. */
void abb_news_traffic(void *server, abb_traffic_event_t event, apr_interval_time_t duration);

/* Bitbucket has withdrawn an endpoint, and there was a second way: once an hour. NULL: nothing. */
void abb_news_change(server_rec *s, abb_traffic_t *traffic, const char *change);

/* An answer about an account was odd but usable: once a minute. NULL: nothing. */
void abb_news_odd(server_rec *s, abb_traffic_t *traffic, const char *account, const char *doubt);

/* A slug is another's now: once a minute. NULL: nothing. */
void abb_news_alarm(server_rec *s, abb_traffic_t *traffic, const char *alarm);

/*
 * Somebody signed in without scopes that the configuration needs: once an hour. missing:
 * "'email', which Require bitbucket-email (...) needs"; labels: "'Account: Email'", what is to
 * be ticked for them. Several are joined by ", nor " and " and ". NULL: nothing.
 */
void abb_news_scopes(server_rec *s, abb_traffic_t *traffic, const char *missing,
                     const char *labels);

/* Somebody was not let wait for Bitbucket: once a minute. */
void abb_news_crowd(server_rec *s, abb_traffic_t *traffic, int limit);

/* A question that nobody waited for was not answered: once a minute. */
void abb_news_failure(server_rec *s, abb_traffic_t *traffic, const abb_error_t *err);

#endif
