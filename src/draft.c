/*
 * draft (floor 4): a form kept for one browser. See abb_draft.h.
 *
 * A badge before sealing:             A draft in the store:
 *
 *   0          32           40        open part: the number, NUL
 *   +----------+------------+---      sealed part: path, NUL, back, NUL,
 *   | id       | expires at | account              content type, NUL, body
 *   +----------+------------+---
 */
#include "abb_draft.h"

#include <apr_strings.h>
#include <string.h>

#include "abb_text.h"

#define PURPOSE "draft"
#define BADGE_FIXED_SIZE (ABB_DRAFT_ID_SIZE + 8)
#define NUMBER_BYTES ((ABB_DRAFT_NUMBER_SIZE - 1) / 2)
/* Somebody else who puts at the same time may be in the way, but not for ever. */
#define PUT_TRIES 3

static const char badge_label[] = "badge";

/* ---- badges --------------------------------------------------------------- */

apr_status_t abb_draft_read_badge(const char *value, abb_crypto_sealer_t *sealer, apr_time_t now,
                                  abb_draft_badge_t *badge, apr_pool_t *p)
{
    unsigned char *sealed;
    unsigned char *text;
    apr_size_t sealed_size;
    apr_size_t size;
    apr_int64_t expires_at;

    if (!value || abb_text_base64url_decode(value, &sealed, &sealed_size, p) != APR_SUCCESS ||
        abb_crypto_sealer_open(sealer, badge_label, sizeof(badge_label), sealed, sealed_size, &text,
                               &size, p, NULL) != APR_SUCCESS ||
        size <= BADGE_FIXED_SIZE) {
        return APR_NOTFOUND;
    }
    memcpy(badge->id, text, sizeof(badge->id));
    memcpy(&expires_at, text + ABB_DRAFT_ID_SIZE, sizeof(expires_at));
    badge->expires_at = expires_at;
    badge->account = (const char *)text + BADGE_FIXED_SIZE;
    return badge->expires_at > now ? APR_SUCCESS : APR_NOTFOUND;
}

static apr_status_t encode_badge(const abb_draft_badge_t *badge, abb_crypto_sealer_t *sealer,
                                 const char **value, apr_pool_t *p, abb_error_t *err)
{
    apr_size_t account_size = strlen(badge->account);
    apr_size_t size = BADGE_FIXED_SIZE + account_size;
    unsigned char *text = abb_crypto_alloc_secret(size, p);
    apr_int64_t expires_at = badge->expires_at;
    unsigned char *sealed;
    apr_size_t sealed_size;
    apr_status_t status;

    memcpy(text, badge->id, sizeof(badge->id));
    memcpy(text + ABB_DRAFT_ID_SIZE, &expires_at, sizeof(expires_at));
    memcpy(text + BADGE_FIXED_SIZE, badge->account, account_size);
    status = abb_crypto_sealer_seal(sealer, badge_label, sizeof(badge_label), text, size, &sealed,
                                    &sealed_size, p, err);
    if (status == APR_SUCCESS) {
        *value = abb_text_base64url_encode(sealed, sealed_size, p);
    }
    return status;
}

apr_interval_time_t abb_draft_badge_lifetime(const abb_sessions_t *sessions)
{
    return sessions->absolute_timeout + ABB_DRAFT_BADGE_TIME;
}

/* What follows from 32 secret bytes for one purpose. */
static apr_status_t derive(const unsigned char *secret, const char *purpose, unsigned char *code,
                           abb_error_t *err)
{
    abb_crypto_key_t key;
    apr_status_t status;

    memcpy(key.bytes, secret, sizeof(key.bytes));
    status = abb_crypto_authenticate(&key, purpose, strlen(purpose), code, err);
    abb_crypto_wipe(&key, sizeof(key));
    return status;
}

apr_status_t abb_draft_renew_badge(const abb_sessions_t *sessions, const abb_session_t *session,
                                   const abb_draft_badge_t *present, abb_crypto_sealer_t *sealer,
                                   apr_time_t now, const char **value, apr_pool_t *p,
                                   abb_error_t *err)
{
    const char *account = session->record.account.uuid;
    abb_draft_badge_t badge;
    apr_status_t status;

    *value = NULL;
    if (present && strcmp(present->account, account) == 0) {
        if (present->expires_at - now > sessions->absolute_timeout + ABB_DRAFT_BADGE_TIME / 2) {
            return APR_SUCCESS;
        }
        memcpy(badge.id, present->id, sizeof(badge.id));
    }
    else if ((status = derive(session->id, "draft badge", badge.id, err)) != APR_SUCCESS) {
        return status;
    }
    badge.expires_at = now + abb_draft_badge_lifetime(sessions);
    badge.account = account;
    return encode_badge(&badge, sealer, value, p, err);
}

/* ---- tokens -------------------------------------------------------------- */

apr_status_t abb_draft_form_token(const abb_draft_badge_t *badge, const char **token, apr_pool_t *p,
                                  abb_error_t *err)
{
    unsigned char code[ABB_CRYPTO_KEY_SIZE];
    apr_status_t status = derive(badge->id, "discard", code, err);

    *token = abb_text_base64url_encode(code, sizeof(code), p);
    return status;
}

int abb_draft_is_form_token(const abb_draft_badge_t *badge, const char *token, apr_pool_t *p)
{
    const char *expected;

    return token && abb_draft_form_token(badge, &expected, p, NULL) == APR_SUCCESS &&
           strlen(token) == strlen(expected) && abb_crypto_equal(token, expected, strlen(expected));
}

/* ---- in the store -------------------------------------------------------- */

static apr_status_t find_key(const abb_sessions_t *sessions, const abb_draft_badge_t *badge,
                             abb_store_key_t *key, abb_error_t *err)
{
    return abb_session_find_key(sessions, ABB_SESSION_KIND_FORM, badge->id, sizeof(badge->id), key,
                                err);
}

static abb_crypto_context_t context_of(const abb_sessions_t *sessions,
                                       const abb_draft_badge_t *badge)
{
    abb_crypto_context_t context = {PURPOSE, sessions->audience, badge->id, sizeof(badge->id)};

    return context;
}

static apr_status_t choose_number(abb_draft_t *draft, apr_pool_t *p, abb_error_t *err)
{
    unsigned char bytes[NUMBER_BYTES];
    apr_status_t status = abb_crypto_random(bytes, sizeof(bytes), err);

    if (status == APR_SUCCESS) {
        apr_cpystrn(draft->number, abb_text_hex(bytes, sizeof(bytes), p), sizeof(draft->number));
    }
    return status;
}

/* Path, back and type with their NULs, and the body, sealed for the account of the badge. */
static apr_status_t seal(const abb_sessions_t *sessions, const abb_draft_badge_t *badge,
                         const abb_draft_t *draft, abb_store_record_t *stored, apr_pool_t *p,
                         abb_error_t *err)
{
    const char *const texts[] = {draft->path, draft->back, draft->content_type};
    abb_crypto_context_t context = context_of(sessions, badge);
    apr_size_t size = draft->body_size;
    unsigned char *plain;
    unsigned char *out;
    unsigned char *sealed;
    apr_status_t status;

    for (int i = 0; i < 3; ++i) {
        size += strlen(texts[i]) + 1;
    }
    plain = out = abb_crypto_alloc_secret(size, p);
    for (int i = 0; i < 3; ++i) {
        apr_size_t length = strlen(texts[i]) + 1;

        memcpy(out, texts[i], length);
        out += length;
    }
    memcpy(out, draft->body, draft->body_size);
    status = abb_crypto_seal(sessions->keyring, &context, badge->account, strlen(badge->account),
                             plain, size, &sealed, &stored->sealed_size, p, err);
    stored->sealed = sealed;
    return status;
}

apr_status_t abb_draft_put(const abb_sessions_t *sessions, const abb_draft_badge_t *badge,
                           abb_draft_t *draft, apr_time_t now, apr_pool_t *p, abb_error_t *err)
{
    abb_store_record_t stored;
    abb_store_key_t key;
    apr_status_t status;

    memset(&stored, 0, sizeof(stored));
    if ((status = find_key(sessions, badge, &key, err)) != APR_SUCCESS ||
        (status = choose_number(draft, p, err)) != APR_SUCCESS ||
        (status = seal(sessions, badge, draft, &stored, p, err)) != APR_SUCCESS) {
        return status;
    }
    stored.open = draft->number;
    stored.open_size = sizeof(draft->number);
    stored.expires_at = now + ABB_DRAFT_LIFETIME;
    for (int i = 0; i < PUT_TRIES; ++i) {
        status = abb_store_drop(sessions->store, &key, err);
        if (status == APR_SUCCESS || status == APR_NOTFOUND) {
            status = abb_store_put(sessions->store, &key, &stored, now, err);
        }
        if (status != APR_EEXIST) {
            return status;
        }
    }
    return abb_error_set(err, ABB_ESTORE, "this browser sends more than one form at a time");
}

/* The next text of a draft, or NULL when it does not end in time. */
static const char *next_text(const unsigned char **at, const unsigned char *end)
{
    const char *text = (const char *)*at;
    const unsigned char *nul = memchr(*at, '\0', (apr_size_t)(end - *at));

    *at = nul ? nul + 1 : end;
    return nul ? text : NULL;
}

static int read_plain(const unsigned char *plain, apr_size_t size, abb_draft_t *draft)
{
    const unsigned char *at = plain;
    const unsigned char *end = plain + size;

    if (!(draft->path = next_text(&at, end)) || !(draft->back = next_text(&at, end)) ||
        !(draft->content_type = next_text(&at, end))) {
        return 0;
    }
    draft->body = (const char *)at;
    draft->body_size = (apr_size_t)(end - at);
    return 1;
}

static int is_number(const abb_store_record_t *stored)
{
    return stored->open_size == ABB_DRAFT_NUMBER_SIZE &&
           ((const char *)stored->open)[ABB_DRAFT_NUMBER_SIZE - 1] == '\0' &&
           strspn(stored->open, "0123456789abcdef") == ABB_DRAFT_NUMBER_SIZE - 1;
}

/* Both parts, as copies of the open part alone may be older than what another machine kept. */
static apr_status_t get(const abb_sessions_t *sessions, const abb_store_key_t *key, apr_time_t now,
                        abb_store_record_t *stored, apr_pool_t *p, abb_error_t *err)
{
    apr_status_t status =
        abb_store_get(sessions->store, key, ABB_STORE_BOTH_PARTS, now, stored, p, err);

    return status == APR_SUCCESS && !is_number(stored) ? APR_NOTFOUND : status;
}

apr_status_t abb_draft_find(const abb_sessions_t *sessions, const abb_draft_badge_t *badge,
                            apr_time_t now, abb_draft_t *draft, apr_pool_t *p, abb_error_t *err)
{
    abb_crypto_context_t context = context_of(sessions, badge);
    abb_store_record_t stored;
    abb_store_key_t key;
    unsigned char *plain;
    apr_size_t size;
    apr_status_t status;

    if ((status = find_key(sessions, badge, &key, err)) != APR_SUCCESS ||
        (status = get(sessions, &key, now, &stored, p, err)) != APR_SUCCESS) {
        return status;
    }
    status = abb_crypto_open(sessions->keyring, &context, badge->account, strlen(badge->account),
                             stored.sealed, stored.sealed_size, &plain, &size, p, NULL);
    if (status == ABB_ECRYPTO) {
        return abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot open the form that is kept");
    }
    if (status != APR_SUCCESS || !read_plain(plain, size, draft)) {
        return APR_NOTFOUND;
    }
    apr_cpystrn(draft->number, stored.open, sizeof(draft->number));
    return APR_SUCCESS;
}

apr_status_t abb_draft_drop(const abb_sessions_t *sessions, const abb_draft_badge_t *badge,
                            const char *number, apr_time_t now, apr_pool_t *p, abb_error_t *err)
{
    abb_store_record_t stored;
    abb_store_key_t key;
    apr_status_t status = find_key(sessions, badge, &key, err);

    if (status == APR_SUCCESS && number) {
        status = get(sessions, &key, now, &stored, p, err);
        if (status == APR_SUCCESS && strcmp(stored.open, number) != 0) {
            return APR_NOTFOUND;
        }
    }
    return status == APR_SUCCESS ? abb_store_drop(sessions->store, &key, err) : status;
}
