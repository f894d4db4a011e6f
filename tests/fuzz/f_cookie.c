/* f_cookie: the line of cookies. */
#include <apr_strings.h>
#include <string.h>

#include "abb_cookie.h"
#include "targets.h"

static const abb_cookie_settings_t settings = {.session_name = "session",
                                               .ticket_prefix = "session_try_",
                                               .recent_name = "session_recent",
                                               .ways_name = "session_ways",
                                               .badge_name = "session_badge"};

static void check_value(const char *line, const abb_cookies_t *cookies)
{
    const char *end = line + strlen(line);

    FUZZ_CHECK(cookies->session >= line && cookies->session <= end);
    FUZZ_CHECK(cookies->session_length <= (apr_size_t)(end - cookies->session));
    FUZZ_CHECK(strcspn(cookies->session, "; ,") >= cookies->session_length);
    /* It is the whole name, not the beginning or the end of another. */
    if (cookies->session_length > 0) {
        FUZZ_CHECK(cookies->session - line >= 8 &&
                   memcmp(cookies->session - 8, "session=", 8) == 0);
        FUZZ_CHECK(cookies->session - line == 8 || strchr(" ;\t", cookies->session[-9]));
    }
}

static void check_list(const char *line, apr_pool_t *p)
{
    const apr_array_header_t *list = abb_cookie_list(line, settings.ticket_prefix, p);

    FUZZ_CHECK(list->nelts <= ABB_COOKIE_LIST_MAX);
    for (int i = 0; i < list->nelts; ++i) {
        const abb_cookie_t *cookie = &APR_ARRAY_IDX(list, i, abb_cookie_t);

        FUZZ_CHECK(strncmp(cookie->name, settings.ticket_prefix, strlen(settings.ticket_prefix)) ==
                   0);
        FUZZ_CHECK(strpbrk(cookie->name, "=; ") == NULL && strpbrk(cookie->value, "; ,") == NULL);
        FUZZ_CHECK(abb_cookie_find(line, cookie->name, p) != NULL);
    }
}

/* Nothing of ours is left, and what is left is left again. */
static void check_rest(const char *line, const char *rest, apr_pool_t *p)
{
    static const char *const ours[] = {"session", "session_recent", "session_ways",
                                       "session_badge"};
    abb_cookies_t cookies;

    FUZZ_CHECK(strlen(rest) <= 2 * strlen(line));
    FUZZ_CHECK(abb_cookie_take(rest, &settings, &cookies, p) == rest);
    FUZZ_CHECK(cookies.session == NULL);
    for (int i = 0; i < 4; ++i) {
        FUZZ_CHECK(abb_cookie_find(rest, ours[i], p) == NULL);
    }
    FUZZ_CHECK(abb_cookie_list(rest, settings.ticket_prefix, p)->nelts == 0);
    FUZZ_CHECK(fuzz_is_same(abb_cookie_find(line, "a", p), abb_cookie_find(rest, "a", p)));
}

void fuzz_cookie(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    const char *line = fuzz_text(bytes, size, p);
    abb_cookies_t cookies;
    const char *rest = abb_cookie_take(line, &settings, &cookies, p);
    const char *found = abb_cookie_find(line, settings.session_name, p);

    FUZZ_CHECK((found != NULL) == (cookies.session != NULL));
    if (found) {
        check_value(line, &cookies);
        FUZZ_CHECK(strcmp(found, apr_pstrmemdup(p, cookies.session, cookies.session_length)) == 0);
    }
    check_list(line, p);
    if (rest) {
        check_rest(line, rest, p);
    }
}
