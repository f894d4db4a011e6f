/*
 * request (floor 3): one HTTP request and its answer, as httpd has them.
 *
 * Headers, redirects, pages. httpd starts here. Knows no session
 * store, no Bitbucket, no rule.
 * Threads: all functions work on a request of the calling thread.
 */
#ifndef ABB_REQUEST_H
#define ABB_REQUEST_H

#include <httpd.h>

#include "abb_cookie.h"
#include "abb_page.h"

/* Most sign-in attempts one browser keeps cookies of, and their total size in bytes. */
#define ABB_REQUEST_TICKETS_MAX 4
#define ABB_REQUEST_TICKETS_SIZE_MAX 4096

/*
 * Where httpd has not yet looked which places a request belongs to: have the LogLevel of its
 * <Location> and <If> hold for what is written about it, and nothing else of them.
 * Threads: the one that serves the request.
 */
void abb_request_take_log_level(request_rec *r);

/*
 * Take this module's cookies out of the request, so that no application behind
 * sees them. Lifetime of what cookies points to: r->pool.
 */
void abb_request_take_cookies(request_rec *r, const abb_cookie_settings_t *settings,
                              abb_cookies_t *cookies);

/* Give the browser a cookie until it is closed, or for max_age seconds (if > 0). */
void abb_request_set_cookie(request_rec *r, const abb_cookie_settings_t *settings, const char *name,
                            const char *value, int max_age);

/* Take a cookie from the browser, with the attributes it was set with. */
void abb_request_delete_cookie(request_rec *r, const abb_cookie_settings_t *settings,
                               const char *name);

/* What kind of answer an unauthenticated visitor can do something with. */
typedef enum {
    /* A page load in a window of its own: may be sent to sign in. */
    ABB_REQUEST_NAVIGATION,
    /* A page load in a frame, where Bitbucket does not show itself. */
    ABB_REQUEST_FRAME,
    /* A program that asks for JSON. */
    ABB_REQUEST_JSON,
    /* Anything else: scripts, images, forms, prefetches, other methods. */
    ABB_REQUEST_OTHER
} abb_request_kind_t;

/*
 * Tell the kind by Fetch Metadata, else by method, Accept and X-Requested-With.
 * Source: W3C Fetch Metadata Request Headers, section 2.
 */
abb_request_kind_t abb_request_kind(request_rec *r);

/*
 * Whether a request says itself that it is no page load: it is a prefetch, or the fetch of
 * a script, an image or the like. One that says nothing, as of curl and of old browsers, may
 * be one. Source: as above; "Fetch" of the WHATWG for Sec-Purpose.
 */
int abb_request_denies_navigation(request_rec *r);

/*
 * The kind of a form that is posted: by a page in a window, by one in a frame, or
 * not by a page (ABB_REQUEST_OTHER). Source: as above; without Fetch Metadata also
 * by the two Content-Types of forms.
 */
abb_request_kind_t abb_request_form_kind(request_rec *r);

/*
 * Whether a request was made by a page of this site: Sec-Fetch-Site says so, or
 * where it is missing, Origin. A request with neither was not. origin is the site's,
 * "https://wiki.example.com". Source: W3C Fetch Metadata Request Headers, section
 * 2.5; RFC 6454 section 7.3.
 */
int abb_request_is_same_origin(request_rec *r, const char *origin);

/*
 * The address the visitor asked for, before internal redirects, if a browser
 * may be sent back to it, else "/". origin as in abb_text_local_path.
 */
const char *abb_request_return_path(request_rec *r, const char *origin);

/*
 * Whether a request names the host of an origin, whatever its port; one that names
 * none is taken for it. What is named decides about nothing but a detour.
 */
int abb_request_is_for(request_rec *r, const char *origin);

/*
 * Send the browser elsewhere with 302 or 303. Returns the status to return from
 * the hook. Nothing keeps the answer. It has a Content-Security-Policy, in a frame one
 * without frame-ancestors, unless the administrator has an ErrorDocument for it.
 */
int abb_request_redirect(request_rec *r, int status, const char *location);

/*
 * Answer with a page of ours. An error status is returned for httpd to finish,
 * so that the administrator's ErrorDocument wins where there is one; a page with
 * status 200 is sent and DONE returned, or an error of HTTP when the body of the request
 * cannot be read. Nothing follows it in any case.
 */
int abb_request_send_page(request_rec *r, int status, const abb_page_t *page);

/*
 * Answer that an address takes GET (and so HEAD) and perhaps one other method
 * (may be NULL). Returns the status to return from the hook.
 */
int abb_request_only_get(request_rec *r, const char *also);

/* Whether a page is asked for by name, as browsers do and other clients do not. */
int abb_request_wants_page(request_rec *r);

/*
 * Whether anything says that a browser sent a request: Fetch Metadata, Origin,
 * X-Requested-With, or a User-Agent that begins as all browsers' do.
 */
int abb_request_is_of_browser(request_rec *r);

/* Answer with a line of text. Returns the status to return from the hook, as send_page. */
int abb_request_send_text(request_rec *r, int status, const char *text);

/*
 * Answer 200 with a whole body of ours, under a Content-Security-Policy. Nothing keeps
 * it. Returns the status to return from the hook.
 */
int abb_request_send_body(request_rec *r, const char *type, const char *policy, const char *body);

/*
 * Answer with JSON of ours, also with an error status. Returns the status to return from
 * the hook: DONE, or an error of HTTP when the body of the request cannot be read.
 */
int abb_request_send_json(request_rec *r, int status, const char *json);

/*
 * Make an answer private to its reader: drop `public` and `s-maxage` from
 * Cache-Control, add `private` unless it is there (`no-store` alone is not enough where
 * mod_cache has CacheStoreNoStore); and drop the fields by which some shared caches go
 * instead: all that end in `-Cache-Control`, Surrogate-Control, Edge-Control,
 * X-Accel-Expires.
 * Source: RFC 9111 section 5.2.2; RFC 9213; W3C Edge Architecture Specification 1.0;
 * the manuals of Akamai and nginx.
 */
void abb_request_make_private(request_rec *r);

/*
 * Read the body of a request, of at most `max` bytes. Returns NULL when it is longer
 * (*is_too_long) or cut. A body that says itself that it is longer is not read.
 * Lifetime: r->pool.
 */
const char *abb_request_read_body(request_rec *r, apr_size_t max, apr_size_t *size,
                                  int *is_too_long);

/*
 * Read a form of at most `max` bytes sent with the request. Returns NULL when it
 * is no application/x-www-form-urlencoded, too long or cut. Lifetime: r->pool.
 */
const char *abb_request_read_form(request_rec *r, apr_size_t max);

#endif
