/* hub (floor 3): one callback for many sites. See abb_hub.h. */
#include "abb_hub.h"

#include <apr_strings.h>
#include <string.h>

#include "abb_text.h"
#include "abb_ticket.h"

#define PURPOSE "handover"
/* Of the audience's hash, in bytes and in base64url. */
#define MARK_SIZE 9
#define MARK_LENGTH 12
#define TIME_SIZE 8

apr_status_t abb_hub_create_sealer(abb_crypto_sealer_t **sealer, const abb_crypto_keyring_t *ring,
                                   const char *audience, apr_pool_t *p, abb_error_t *err)
{
    return abb_crypto_sealer_create(sealer, ring, PURPOSE, audience, p, err);
}

apr_status_t abb_hub_create_sealers(apr_array_header_t *sites, const abb_crypto_keyring_t *ring,
                                    apr_pool_t *p, abb_error_t *err)
{
    apr_status_t status = APR_SUCCESS;

    for (int i = 0; i < sites->nelts && status == APR_SUCCESS; ++i) {
        abb_hub_site_t *site = &APR_ARRAY_IDX(sites, i, abb_hub_site_t);

        status = abb_hub_create_sealer(&site->handovers, ring, site->audience, p, err);
    }
    return status;
}

/* ---- the mark ------------------------------------------------------------ */

const char *abb_hub_mark(const unsigned char *audience_hash, apr_pool_t *p)
{
    return abb_text_base64url_encode(audience_hash, MARK_SIZE, p);
}

int abb_hub_is_marked(const char *state)
{
    return state && strlen(state) == ABB_TICKET_STATE_LENGTH + MARK_LENGTH;
}

static int has_mark(const char *state, const char *mark)
{
    return abb_hub_is_marked(state) && strcmp(state + ABB_TICKET_STATE_LENGTH, mark) == 0;
}

const char *abb_hub_unmark(const char *state, const char *mark, apr_pool_t *p)
{
    return has_mark(state, mark) ? apr_pstrmemdup(p, state, ABB_TICKET_STATE_LENGTH) : NULL;
}

const abb_hub_site_t *abb_hub_find(const apr_array_header_t *sites, const char *state)
{
    for (int i = 0; sites && i < sites->nelts; ++i) {
        const abb_hub_site_t *site = &APR_ARRAY_IDX(sites, i, abb_hub_site_t);

        if (has_mark(state, site->mark)) {
            return site;
        }
    }
    return NULL;
}

/* ---- the handover -------------------------------------------------------- */

apr_status_t abb_hub_hand_on(const abb_hub_site_t *site, const char *query, apr_time_t now,
                             const char **handover, apr_pool_t *p, abb_error_t *err)
{
    apr_size_t length = strlen(query);
    apr_size_t size = TIME_SIZE + length;
    unsigned char *text = abb_crypto_alloc_secret(size, p);
    apr_int64_t time = now;
    unsigned char *sealed;
    apr_size_t sealed_size;
    apr_status_t status;

    if (length > ABB_HUB_QUERY_MAX) {
        return abb_error_set(err, ABB_EINPUT,
                             "the callback's query has %" APR_SIZE_T_FMT
                             " bytes; no more than %d are handed on to another site",
                             length, ABB_HUB_QUERY_MAX);
    }
    memcpy(text, &time, TIME_SIZE);
    memcpy(text + TIME_SIZE, query, length);
    status =
        abb_crypto_sealer_seal(site->handovers, NULL, 0, text, size, &sealed, &sealed_size, p, err);
    if (status == APR_SUCCESS) {
        *handover = abb_text_base64url_encode(sealed, sealed_size, p);
    }
    return status;
}

apr_status_t abb_hub_take(abb_crypto_sealer_t *handovers, const char *handover, apr_time_t now,
                          const char **query, apr_pool_t *p, abb_error_t *err)
{
    unsigned char *sealed;
    unsigned char *text;
    apr_size_t sealed_size;
    apr_size_t size;
    apr_int64_t time;

    *query = NULL;
    if (abb_text_base64url_decode(handover, &sealed, &sealed_size, p) != APR_SUCCESS ||
        abb_crypto_sealer_open(handovers, NULL, 0, sealed, sealed_size, &text, &size, p, NULL) !=
            APR_SUCCESS ||
        size < TIME_SIZE || memchr(text + TIME_SIZE, '\0', size - TIME_SIZE)) {
        return abb_error_set(err, ABB_EATTEMPT,
                             "what the site with the callback handed on does not open here");
    }
    memcpy(&time, text, TIME_SIZE);
    *query = (const char *)text + TIME_SIZE;
    if (time < now - ABB_HUB_LIFETIME || time > now + ABB_HUB_LIFETIME) {
        apr_int64_t age = (apr_int64_t)((apr_uint64_t)now - (apr_uint64_t)time);

        return abb_error_set(err, ABB_EATTEMPT,
                             "the way from the site with the callback took %ld seconds by the "
                             "servers' clocks; allowed are %ld",
                             (long)apr_time_sec(age), (long)apr_time_sec(ABB_HUB_LIFETIME));
    }
    return APR_SUCCESS;
}
