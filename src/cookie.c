/* cookie (floor 1): the line of cookies that a browser sends. See abb_cookie.h. */
#include "abb_cookie.h"

#include <apr_strings.h>
#include <string.h>

/* A cookie where it stands in a header line. */
typedef struct {
    const char *name;
    apr_size_t name_length;
    const char *value;
    apr_size_t value_length;
    /* Behind the cookie, before its semicolon. */
    const char *end;
} cookie_place_t;

/* Step to the next cookie from `at` on. Returns 0 at the end of the line. */
static int next_cookie(const char *at, cookie_place_t *place)
{
    at += strspn(at, " ;\t");
    if (*at == '\0') {
        return 0;
    }
    place->name = at;
    place->name_length = strcspn(at, "=; ");
    place->end = at + strcspn(at, ";");
    at += place->name_length;
    place->value = *at == '=' ? at + 1 : at;
    place->value_length = *at == '=' ? strcspn(at + 1, "; ,") : 0;
    return 1;
}

static int has_name(const cookie_place_t *place, const char *name, apr_size_t length)
{
    return place->name_length == length && memcmp(place->name, name, length) == 0;
}

static int has_prefix(const cookie_place_t *place, const char *prefix, apr_size_t length)
{
    return place->name_length > length && memcmp(place->name, prefix, length) == 0;
}

/* The lengths of the names that are ours. */
typedef struct {
    const abb_cookie_settings_t *settings;
    apr_size_t name_length;
    apr_size_t prefix_length;
    apr_size_t recent_length;
    apr_size_t ways_length;
    apr_size_t badge_length;
} our_names_t;

/* What a line holds. */
typedef struct {
    int ours;
    int others;
} cookie_count_t;

static int is_session(const cookie_place_t *place, const our_names_t *names)
{
    return has_name(place, names->settings->session_name, names->name_length);
}

static int is_of_sign_in(const cookie_place_t *place, const our_names_t *names)
{
    return has_prefix(place, names->settings->ticket_prefix, names->prefix_length) ||
           has_name(place, names->settings->recent_name, names->recent_length) ||
           has_name(place, names->settings->ways_name, names->ways_length) ||
           has_name(place, names->settings->badge_name, names->badge_length);
}

/* Find the first session cookie of a line and count. */
static cookie_count_t find_session(abb_cookies_t *cookies, const our_names_t *names)
{
    cookie_count_t count = {0, 0};
    cookie_place_t place;

    for (const char *at = cookies->line; next_cookie(at, &place); at = place.end) {
        if (is_session(&place, names)) {
            if (!cookies->session) {
                cookies->session = place.value;
                cookies->session_length = place.value_length;
            }
            ++count.ours;
        }
        else {
            *(is_of_sign_in(&place, names) ? &count.ours : &count.others) += 1;
        }
    }
    return count;
}

/* The line without our cookies. Lifetime: p. */
static const char *without_ours(const char *line, const our_names_t *names, apr_pool_t *p)
{
    char *kept = apr_palloc(p, 2 * strlen(line) + 1);
    char *out = kept;
    cookie_place_t place;

    for (const char *at = line; next_cookie(at, &place); at = place.end) {
        if (is_session(&place, names) || is_of_sign_in(&place, names)) {
            continue;
        }
        if (out > kept) {
            out = apr_cpystrn(out, "; ", 3);
        }
        out = apr_cpystrn(out, place.name, (apr_size_t)(place.end - place.name) + 1);
    }
    *out = '\0';
    return kept;
}

const char *abb_cookie_take(const char *line, const abb_cookie_settings_t *settings,
                            abb_cookies_t *cookies, apr_pool_t *p)
{
    our_names_t names = {settings,
                         strlen(settings->session_name),
                         strlen(settings->ticket_prefix),
                         strlen(settings->recent_name),
                         strlen(settings->ways_name),
                         strlen(settings->badge_name)};
    cookie_count_t count;

    cookies->line = line;
    cookies->session = NULL;
    cookies->session_length = 0;
    if (!line) {
        return NULL;
    }
    count = find_session(cookies, &names);
    if (!count.ours) {
        return line;
    }
    return count.others ? without_ours(line, &names, p) : NULL;
}

const char *abb_cookie_find(const char *line, const char *name, apr_pool_t *p)
{
    apr_size_t length = strlen(name);
    cookie_place_t place;

    for (const char *at = line; at && next_cookie(at, &place); at = place.end) {
        if (has_name(&place, name, length)) {
            return apr_pstrmemdup(p, place.value, place.value_length);
        }
    }
    return NULL;
}

apr_array_header_t *abb_cookie_list(const char *line, const char *prefix, apr_pool_t *p)
{
    apr_array_header_t *list = apr_array_make(p, 4, sizeof(abb_cookie_t));
    apr_size_t length = strlen(prefix);
    cookie_place_t place;

    for (const char *at = line; at && list->nelts < ABB_COOKIE_LIST_MAX && next_cookie(at, &place);
         at = place.end) {
        if (has_prefix(&place, prefix, length)) {
            abb_cookie_t *cookie = apr_array_push(list);

            cookie->name = apr_pstrmemdup(p, place.name, place.name_length);
            cookie->value = apr_pstrmemdup(p, place.value, place.value_length);
        }
    }
    return list;
}
