/* f_ticket: the query of a callback, tickets and their neighbours, handovers. */
#include <apr_strings.h>
#include <string.h>

#include "abb_hub.h"
#include "abb_text.h"
#include "abb_ticket.h"
#include "targets.h"

/* As in the rooms: what they say first is that a genuine one opens. */
static const char *const labels[] = {"", "recent", "ways"};

static abb_crypto_sealer_t *ticket_sealer(apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer = NULL;

    FUZZ_CHECK(abb_ticket_create_sealer(&sealer, &fuzz_ring, FUZZ_AUDIENCE, p, NULL) ==
               APR_SUCCESS);
    return sealer;
}

static abb_crypto_sealer_t *hub_sealer(apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer = NULL;

    FUZZ_CHECK(abb_hub_create_sealer(&sealer, &fuzz_ring, FUZZ_AUDIENCE, p, NULL) == APR_SUCCESS);
    return sealer;
}

static const char *seal(abb_crypto_sealer_t *sealer, const char *label, const void *bytes,
                        apr_size_t size, apr_pool_t *p)
{
    unsigned char *sealed;
    apr_size_t sealed_size;

    FUZZ_CHECK(abb_crypto_sealer_seal(sealer, label, label ? strlen(label) : 0, bytes, size,
                                      &sealed, &sealed_size, p, NULL) == APR_SUCCESS);
    return abb_text_base64url_encode(sealed, sealed_size, p);
}

/* ---- the callback --------------------------------------------------------- */

static void check_state(const char *state, apr_pool_t *p)
{
    abb_ticket_t ticket;

    if (abb_ticket_parse_state(state, &ticket, NULL) != APR_SUCCESS) {
        FUZZ_CHECK(strcmp(ticket.return_path, "/") == 0 && strcmp(ticket.workspaces, "") == 0);
        return;
    }
    FUZZ_CHECK(ticket.attempt == 1 || ticket.attempt == 2);
    FUZZ_CHECK(strcmp(abb_ticket_state(&ticket, p), state) == 0);
    FUZZ_CHECK(strlen(abb_ticket_name(&ticket, p)) == ABB_TICKET_NAME_LENGTH);
    FUZZ_CHECK(abb_ticket_is_same(&ticket, &ticket));
}

static void check_mark(const char *state, apr_pool_t *p)
{
    static const unsigned char hash[ABB_CRYPTO_KEY_SIZE] = "hash of an audience";
    abb_hub_site_t site = {FUZZ_ORIGIN, FUZZ_AUDIENCE, abb_hub_mark(hash, p), NULL};
    apr_array_header_t *sites = apr_array_make(p, 1, sizeof(site));
    const char *plain = abb_hub_unmark(state, site.mark, p);

    APR_ARRAY_PUSH(sites, abb_hub_site_t) = site;
    FUZZ_CHECK((abb_hub_find(sites, state) != NULL) == (plain != NULL));
    FUZZ_CHECK(!plain || (abb_hub_is_marked(state) && strlen(plain) == ABB_TICKET_STATE_LENGTH));
    FUZZ_CHECK(abb_hub_find(NULL, state) == NULL);
    check_state(plain, p);
}

void fuzz_callback(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    const char *handover;
    const char *query;
    apr_table_t *values;

    if (abb_text_query_parse(fuzz_text(bytes, size, p), &values, p, NULL) != APR_SUCCESS) {
        return;
    }
    check_state(apr_table_get(values, "state"), p);
    check_mark(apr_table_get(values, "state"), p);
    if ((handover = apr_table_get(values, ABB_HUB_PARAMETER))) {
        FUZZ_CHECK(abb_hub_take(hub_sealer(p), handover, FUZZ_NOW, &query, p, NULL) ==
                   ABB_EATTEMPT);
        FUZZ_CHECK(query == NULL);
    }
}

/* ---- handovers ------------------------------------------------------------ */

/* Bytes that a hub has sealed, or one that was changed on the way. */
void fuzz_handover(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_hub_site_t site = {FUZZ_ORIGIN, FUZZ_AUDIENCE, "mark", hub_sealer(p)};
    const char *handover;
    const char *query;
    apr_status_t status = abb_hub_take(site.handovers, seal(site.handovers, NULL, bytes, size, p),
                                       FUZZ_NOW, &query, p, NULL);

    FUZZ_CHECK(status == APR_SUCCESS || status == ABB_EATTEMPT);
    FUZZ_CHECK(status != APR_SUCCESS || query);
    query = fuzz_text(bytes, size, p);
    status = abb_hub_hand_on(&site, query, FUZZ_NOW, &handover, p, NULL);
    FUZZ_CHECK((status == APR_SUCCESS) == (strlen(query) <= ABB_HUB_QUERY_MAX));
    if (status == APR_SUCCESS) {
        const char *taken;

        FUZZ_CHECK(abb_hub_take(site.handovers, handover, FUZZ_NOW + 1, &taken, p, NULL) ==
                   APR_SUCCESS);
        FUZZ_CHECK(strcmp(taken, query) == 0);
    }
}

/* ---- tickets -------------------------------------------------------------- */

/* What a stranger makes up never opens. */
void fuzz_ticket(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer = ticket_sealer(p);
    const char *value = fuzz_text(bytes, size, p);
    abb_ticket_t ticket;
    abb_ticket_t state;
    const char *added;

    FUZZ_CHECK(abb_ticket_decode(value, sealer, FUZZ_NOW, &ticket, p, NULL) == ABB_EATTEMPT);
    FUZZ_CHECK(ticket.return_path == NULL);
    FUZZ_CHECK(abb_ticket_count_recent(value, sealer, FUZZ_NOW, p) == 0);
    FUZZ_CHECK(abb_ticket_add_recent(value, sealer, FUZZ_NOW, &added, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_ticket_count_recent(added, sealer, FUZZ_NOW, p) == 1);
    abb_ticket_parse_state(NULL, &state, NULL);
    FUZZ_CHECK(abb_ticket_find_way(value, sealer, &state, FUZZ_NOW, p) == NULL);
}

static void check_ticket(const char *value, abb_crypto_sealer_t *sealer, apr_pool_t *p)
{
    abb_ticket_t ticket;
    abb_ticket_t again;

    if (abb_ticket_decode(value, sealer, FUZZ_NOW, &ticket, p, NULL) != APR_SUCCESS) {
        return;
    }
    FUZZ_CHECK(ticket.issued_at > FUZZ_NOW - apr_time_from_sec(3600));
    FUZZ_CHECK(abb_ticket_encode(&ticket, sealer, &value, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_ticket_decode(value, sealer, FUZZ_NOW, &again, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_ticket_is_same(&ticket, &again));
    FUZZ_CHECK(again.issued_at == ticket.issued_at);
    FUZZ_CHECK(strcmp(again.return_path, ticket.return_path) == 0);
    FUZZ_CHECK(strcmp(again.workspaces, ticket.workspaces) == 0);
}

static void check_ways(const char *value, abb_crypto_sealer_t *sealer, const char *path,
                       apr_pool_t *p)
{
    abb_ticket_t ticket = {.id = "an attempt", .attempt = 1, .issued_at = FUZZ_NOW};
    const char *added;
    const char *found;

    ticket.return_path = path;
    (void)abb_ticket_find_way(value, sealer, &ticket, FUZZ_NOW, p);
    FUZZ_CHECK(abb_ticket_add_way(value, sealer, &ticket, FUZZ_NOW, &added, p, NULL) ==
               APR_SUCCESS);
    FUZZ_CHECK(strlen(added) <= (ABB_TICKET_WAYS_SIZE + ABB_CRYPTO_SEAL_OVERHEAD) * 4 / 3 + 4);
    found = abb_ticket_find_way(added, sealer, &ticket, FUZZ_NOW, p);
    FUZZ_CHECK(strlen(path) > 1000 || fuzz_is_same(found, path));
}

/* Bytes that this site has sealed; the first says as what. */
void fuzz_ticket_inside(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer = ticket_sealer(p);
    fuzz_input_t input = fuzz_input(bytes, size, p);
    int kind = (int)(fuzz_number(&input, 1) % 3);
    apr_size_t rest_size;
    const char *rest = fuzz_rest(&input, &rest_size);
    const char *value = seal(sealer, labels[kind], rest, rest_size, p);
    const char *added;
    int count;

    check_ticket(value, sealer, p);
    count = abb_ticket_count_recent(value, sealer, FUZZ_NOW, p);
    FUZZ_CHECK(count >= 0 && count <= ABB_TICKET_RECENT_MAX);
    FUZZ_CHECK(abb_ticket_add_recent(value, sealer, FUZZ_NOW, &added, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_ticket_count_recent(added, sealer, FUZZ_NOW, p) ==
               (count < ABB_TICKET_RECENT_MAX ? count + 1 : ABB_TICKET_RECENT_MAX));
    check_ways(value, sealer, fuzz_text(rest, rest_size, p), p);
}

/* A genuine value that somebody has changed never opens, nor does one of another kind. */
void fuzz_ticket_forged(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer = ticket_sealer(p);
    fuzz_input_t input = fuzz_input(bytes, size, p);
    abb_ticket_t ticket = {.attempt = 1, .issued_at = FUZZ_NOW, .workspaces = "acme"};
    const char *genuine;
    const char *forged;
    apr_size_t forged_size;
    abb_ticket_t opened;
    int is_changed;

    ticket.return_path = "/wiki/page?x=1";
    FUZZ_CHECK(abb_ticket_encode(&ticket, sealer, &genuine, p, NULL) == APR_SUCCESS);
    forged = (char *)fuzz_forge(genuine, strlen(genuine), &input, &forged_size, &is_changed);
    forged = fuzz_text(forged, forged_size, p);
    FUZZ_CHECK((abb_ticket_decode(forged, sealer, FUZZ_NOW, &opened, p, NULL) == APR_SUCCESS) ==
               !is_changed);
    FUZZ_CHECK(abb_ticket_count_recent(forged, sealer, FUZZ_NOW, p) == 0);
    FUZZ_CHECK(abb_ticket_find_way(forged, sealer, &ticket, FUZZ_NOW, p) == NULL);
}
