/*
 * ticket (floor 2): one sign-in attempt as the value of a cookie.
 *
 * Before sealing:
 *
 *   0          8         9         41
 *   +----------+---------+---------+-------------------+------------------+
 *   | issued   | attempt | id      | return path, NUL  | workspaces, NUL  |
 *   +----------+---------+---------+-------------------+------------------+
 */
#include "abb_ticket.h"

#include <apr_strings.h>
#include <string.h>

#include "abb_text.h"

#define PURPOSE "ticket"
/* What keeps one kind of cookie from passing for another. */
#define ATTEMPT_LABEL ""
#define RECENT_LABEL "recent"
#define WAYS_LABEL "ways"
#define FIXED_SIZE (8 + 1 + ABB_TICKET_ID_SIZE)
/* How far two machines' clocks may differ. */
#define CLOCK_TOLERANCE apr_time_from_sec(120)

/* ---- sealed texts as values of cookies ------------------------------------ */

static apr_status_t seal_value(abb_crypto_sealer_t *sealer, const char *label, const void *text,
                               apr_size_t size, const char **value, apr_pool_t *p, abb_error_t *err)
{
    unsigned char *sealed;
    apr_size_t sealed_size;
    apr_status_t status = abb_crypto_sealer_seal(sealer, label, strlen(label), text, size, &sealed,
                                                 &sealed_size, p, err);

    if (status == APR_SUCCESS) {
        *value = abb_text_base64url_encode(sealed, sealed_size, p);
    }
    return status;
}

/* The text of a value; NULL and 0 when there is none or it does not open. */
static const unsigned char *open_value(const char *value, abb_crypto_sealer_t *sealer,
                                       const char *label, apr_size_t *size, apr_pool_t *p)
{
    unsigned char *sealed;
    unsigned char *text;
    apr_size_t sealed_size;

    if (value && abb_text_base64url_decode(value, &sealed, &sealed_size, p) == APR_SUCCESS &&
        abb_crypto_sealer_open(sealer, label, strlen(label), sealed, sealed_size, &text, size, p,
                               NULL) == APR_SUCCESS) {
        return text;
    }
    *size = 0;
    return NULL;
}

/* ---- attempts ------------------------------------------------------------ */

apr_status_t abb_ticket_init(abb_ticket_t *ticket, int attempt, apr_time_t now, abb_error_t *err)
{
    memset(ticket, 0, sizeof(*ticket));
    ticket->attempt = attempt;
    ticket->issued_at = now;
    ticket->return_path = "/";
    ticket->workspaces = "";
    return abb_crypto_random(ticket->id, sizeof(ticket->id), err);
}

const char *abb_ticket_state(const abb_ticket_t *ticket, apr_pool_t *p)
{
    unsigned char bytes[1 + ABB_TICKET_ID_SIZE];

    bytes[0] = (unsigned char)ticket->attempt;
    memcpy(bytes + 1, ticket->id, ABB_TICKET_ID_SIZE);
    return abb_text_base64url_encode(bytes, sizeof(bytes), p);
}

apr_status_t abb_ticket_parse_state(const char *state, abb_ticket_t *ticket, abb_error_t *err)
{
    unsigned char bytes[1 + ABB_TICKET_ID_SIZE];

    memset(ticket, 0, sizeof(*ticket));
    ticket->return_path = "/";
    ticket->workspaces = "";
    if (!state || abb_text_base64url_decode_exact(state, bytes, sizeof(bytes)) != APR_SUCCESS ||
        bytes[0] < 1 || bytes[0] > 2) {
        return abb_error_set(err, ABB_EATTEMPT, "the state parameter is none of this site's");
    }
    ticket->attempt = bytes[0];
    memcpy(ticket->id, bytes + 1, ABB_TICKET_ID_SIZE);
    return APR_SUCCESS;
}

const char *abb_ticket_name(const abb_ticket_t *ticket, apr_pool_t *p)
{
    /* The last characters: all of them come from the random id. */
    const char *state = abb_ticket_state(ticket, p);

    return state + ABB_TICKET_STATE_LENGTH - ABB_TICKET_NAME_LENGTH;
}

apr_status_t abb_ticket_create_sealer(abb_crypto_sealer_t **sealer,
                                      const abb_crypto_keyring_t *ring, const char *audience,
                                      apr_pool_t *p, abb_error_t *err)
{
    return abb_crypto_sealer_create(sealer, ring, PURPOSE, audience, p, err);
}

apr_status_t abb_ticket_encode(const abb_ticket_t *ticket, abb_crypto_sealer_t *sealer,
                               const char **value, apr_pool_t *p, abb_error_t *err)
{
    apr_size_t path_size = strlen(ticket->return_path) + 1;
    apr_size_t workspaces_size = strlen(ticket->workspaces) + 1;
    apr_size_t size = FIXED_SIZE + path_size + workspaces_size;
    unsigned char *text = apr_palloc(p, size);
    apr_int64_t issued_at = ticket->issued_at;

    memcpy(text, &issued_at, 8);
    text[8] = (unsigned char)ticket->attempt;
    memcpy(text + 9, ticket->id, ABB_TICKET_ID_SIZE);
    memcpy(text + FIXED_SIZE, ticket->return_path, path_size);
    memcpy(text + FIXED_SIZE + path_size, ticket->workspaces, workspaces_size);
    return seal_value(sealer, ATTEMPT_LABEL, text, size, value, p, err);
}

static int read_text(const unsigned char *text, apr_size_t size, abb_ticket_t *ticket)
{
    const char *path = (const char *)text + FIXED_SIZE;
    const char *end = (const char *)text + size;
    const char *path_end;
    apr_int64_t issued_at;

    if (size < FIXED_SIZE + 2 || end[-1] != '\0' ||
        !(path_end = memchr(path, '\0', (apr_size_t)(end - path))) || path_end + 1 >= end) {
        return 0;
    }
    memcpy(&issued_at, text, 8);
    ticket->issued_at = issued_at;
    ticket->attempt = text[8];
    memcpy(ticket->id, text + 9, ABB_TICKET_ID_SIZE);
    ticket->return_path = path;
    ticket->workspaces = path_end + 1;
    return 1;
}

apr_status_t abb_ticket_decode(const char *value, abb_crypto_sealer_t *sealer, apr_time_t now,
                               abb_ticket_t *ticket, apr_pool_t *p, abb_error_t *err)
{
    apr_size_t size;
    const unsigned char *text = open_value(value, sealer, ATTEMPT_LABEL, &size, p);

    ticket->return_path = NULL;
    if (!text || !read_text(text, size, ticket)) {
        return abb_error_set(err, ABB_EATTEMPT, "the sign-in cookie does not open");
    }
    if (ticket->issued_at < now - ABB_TICKET_LIFETIME ||
        ticket->issued_at > now + CLOCK_TOLERANCE) {
        return abb_error_set(err, ABB_EATTEMPT, "the sign-in took longer than ten minutes");
    }
    return APR_SUCCESS;
}

int abb_ticket_is_same(const abb_ticket_t *a, const abb_ticket_t *b)
{
    return abb_crypto_equal(a->id, b->id, ABB_TICKET_ID_SIZE) && a->attempt == b->attempt;
}

/* ---- sign-ins completed lately ------------------------------------------- */

/* Times that a value holds and that are recent; at most ABB_TICKET_RECENT_MAX, the latest. */
static int read_recent(const char *value, abb_crypto_sealer_t *sealer, apr_time_t now,
                       apr_int64_t *times, apr_pool_t *p)
{
    apr_size_t size;
    const unsigned char *text = open_value(value, sealer, RECENT_LABEL, &size, p);
    int count = 0;

    for (apr_size_t i = 0; i + sizeof(*times) <= size && count < ABB_TICKET_RECENT_MAX;
         i += sizeof(*times)) {
        apr_int64_t time;

        memcpy(&time, text + i, sizeof(time));
        if (time > now - ABB_TICKET_RECENT_TIME && time <= now + CLOCK_TOLERANCE) {
            times[count++] = time;
        }
    }
    return count;
}

int abb_ticket_count_recent(const char *value, abb_crypto_sealer_t *sealer, apr_time_t now,
                            apr_pool_t *p)
{
    apr_int64_t times[ABB_TICKET_RECENT_MAX];

    return read_recent(value, sealer, now, times, p);
}

apr_status_t abb_ticket_add_recent(const char *value, abb_crypto_sealer_t *sealer, apr_time_t now,
                                   const char **added, apr_pool_t *p, abb_error_t *err)
{
    apr_int64_t times[ABB_TICKET_RECENT_MAX + 1];
    int count = read_recent(value, sealer, now, times + 1, p) + 1;

    /* The newest first, so that of too many the oldest is left out. */
    times[0] = now;
    return seal_value(sealer, RECENT_LABEL, times, (apr_size_t)count * sizeof(*times), added, p,
                      err);
}

/* ---- where attempts led -------------------------------------------------- */

/* When the attempt was begun, the beginning of its id, and a path with its NUL. */
#define WAY_ID_SIZE 8
#define WAY_HEAD_SIZE (8 + WAY_ID_SIZE)

/* The size of the way that begins here; 0 when there is no whole one. */
static apr_size_t size_of_way(const char *way, apr_size_t size)
{
    const char *end =
        size > WAY_HEAD_SIZE ? memchr(way + WAY_HEAD_SIZE, '\0', size - WAY_HEAD_SIZE) : NULL;

    return end ? (apr_size_t)(end - way) + 1 : 0;
}

/* How many bytes of whole ways fit. */
static apr_size_t size_that_fits(const char *ways, apr_size_t size, apr_size_t room)
{
    apr_size_t used = 0;
    apr_size_t next;

    while ((next = size_of_way(ways + used, size - used)) && used + next <= room) {
        used += next;
    }
    return used;
}

apr_status_t abb_ticket_add_way(const char *value, abb_crypto_sealer_t *sealer,
                                const abb_ticket_t *ticket, apr_time_t now, const char **added,
                                apr_pool_t *p, abb_error_t *err)
{
    apr_size_t path_size = strlen(ticket->return_path) + 1;
    apr_size_t size = WAY_HEAD_SIZE + path_size;
    unsigned char *text = apr_palloc(p, ABB_TICKET_WAYS_SIZE);
    apr_int64_t issued_at = ticket->issued_at;
    apr_size_t old_size;
    const char *old = (const char *)open_value(value, sealer, WAYS_LABEL, &old_size, p);

    if (size > ABB_TICKET_WAYS_SIZE) {
        size = 0;
    }
    else {
        memcpy(text, &issued_at, 8);
        memcpy(text + 8, ticket->id, WAY_ID_SIZE);
        memcpy(text + WAY_HEAD_SIZE, ticket->return_path, path_size);
    }
    if (old) {
        old_size = size_that_fits(old, old_size, ABB_TICKET_WAYS_SIZE - size);
        memcpy(text + size, old, old_size);
    }
    return seal_value(sealer, WAYS_LABEL, text, size + old_size, added, p, err);
}

const char *abb_ticket_find_way(const char *value, abb_crypto_sealer_t *sealer,
                                const abb_ticket_t *ticket, apr_time_t now, apr_pool_t *p)
{
    apr_size_t size;
    const char *way = (const char *)open_value(value, sealer, WAYS_LABEL, &size, p);
    apr_size_t next;

    for (; way && (next = size_of_way(way, size)); way += next, size -= next) {
        apr_int64_t issued_at;

        memcpy(&issued_at, way, 8);
        if (memcmp(way + 8, ticket->id, WAY_ID_SIZE) == 0) {
            return issued_at >= now - ABB_TICKET_MEMORY ? way + WAY_HEAD_SIZE : NULL;
        }
    }
    return NULL;
}
