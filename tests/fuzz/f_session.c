/* f_session: what cookies and stores hand to sessions and drafts. */
#include <apr_strings.h>
#include <string.h>

#include "abb_draft.h"
#include "abb_session.h"
#include "abb_text.h"
#include "targets.h"

static void begin(abb_sessions_t *sessions, apr_pool_t *p)
{
    memset(sessions, 0, sizeof(*sessions));
    sessions->store = fuzz_store(p);
    sessions->keyring = &fuzz_ring;
    sessions->idle_timeout = apr_time_from_sec(3600);
    sessions->absolute_timeout = apr_time_from_sec(86400);
    FUZZ_CHECK(abb_session_set_audience(sessions, "client", FUZZ_ORIGIN, p, NULL) == APR_SUCCESS);
}

static void put(const abb_sessions_t *sessions, const abb_store_key_t *key, const void *open,
                apr_size_t open_size, const void *sealed, apr_size_t sealed_size)
{
    abb_store_record_t record = {.open = open,
                                 .open_size = open_size,
                                 .sealed = sealed,
                                 .sealed_size = sealed_size,
                                 .expires_at = FUZZ_NOW + apr_time_from_sec(600)};

    FUZZ_CHECK(abb_store_put(sessions->store, key, &record, FUZZ_NOW, NULL) == APR_SUCCESS);
}

/* ---- sessions ------------------------------------------------------------- */

/* A cookie that nobody was given; and a store that holds anything under one that is. */
void fuzz_session(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    static const unsigned char id[ABB_SESSION_ID_SIZE] = "id of a session";
    const char *cookie = abb_text_base64url_encode(id, sizeof(id), p);
    abb_record_private_t part;
    abb_session_t *session;
    abb_sessions_t sessions;
    abb_store_key_t key;
    apr_status_t status;

    begin(&sessions, p);
    FUZZ_CHECK(abb_session_find(&sessions, fuzz_text(bytes, size, p), FUZZ_NOW, &session, p,
                                NULL) == APR_NOTFOUND);
    FUZZ_CHECK(abb_session_find_key(&sessions, ABB_SESSION_KIND, id, sizeof(id), &key, NULL) ==
               APR_SUCCESS);
    put(&sessions, &key, bytes, size, bytes, size);
    status = abb_session_find(&sessions, cookie, FUZZ_NOW, &session, p, NULL);
    FUZZ_CHECK(status == APR_SUCCESS || status == APR_NOTFOUND || status == ABB_ESTORE);
    if (status == APR_SUCCESS) {
        FUZZ_CHECK(session->record.account.uuid != NULL);
        FUZZ_CHECK(abb_session_reload(&sessions, session, FUZZ_NOW, &part, p, NULL) == ABB_ESEAL);
    }
}

/* ---- badges --------------------------------------------------------------- */

static abb_crypto_sealer_t *badge_sealer(apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer = NULL;

    FUZZ_CHECK(abb_crypto_sealer_create(&sealer, &fuzz_ring, "ticket", FUZZ_AUDIENCE, p, NULL) ==
               APR_SUCCESS);
    return sealer;
}

/* A badge that was made up, and bytes behind a genuine seal. */
void fuzz_badge(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    static const char label[] = "badge";
    abb_crypto_sealer_t *sealer = badge_sealer(p);
    abb_draft_badge_t badge;
    unsigned char *sealed;
    apr_size_t sealed_size;
    const char *token;

    FUZZ_CHECK(abb_draft_read_badge(fuzz_text(bytes, size, p), sealer, FUZZ_NOW, &badge, p) ==
               APR_NOTFOUND);
    FUZZ_CHECK(abb_crypto_sealer_seal(sealer, label, sizeof(label), bytes, size, &sealed,
                                      &sealed_size, p, NULL) == APR_SUCCESS);
    if (abb_draft_read_badge(abb_text_base64url_encode(sealed, sealed_size, p), sealer, FUZZ_NOW,
                             &badge, p) == APR_SUCCESS) {
        FUZZ_CHECK(badge.expires_at > FUZZ_NOW);
        FUZZ_CHECK(strlen(badge.account) < size);
        FUZZ_CHECK(abb_draft_form_token(&badge, &token, p, NULL) == APR_SUCCESS);
        FUZZ_CHECK(abb_draft_is_form_token(&badge, token, p));
        FUZZ_CHECK(!abb_draft_is_form_token(&badge, fuzz_text(bytes, size, p), p));
    }
}

/* ---- drafts --------------------------------------------------------------- */

static abb_draft_badge_t make_badge(void)
{
    abb_draft_badge_t badge = {.id = "id of a browser",
                               .expires_at = FUZZ_NOW + apr_time_from_sec(3600),
                               .account = FUZZ_USER};

    return badge;
}

static void check_inside(const abb_draft_t *draft, const void *bytes, apr_size_t size,
                         apr_pool_t *p)
{
    FUZZ_CHECK(strlen(draft->path) + strlen(draft->back) + strlen(draft->content_type) + 3 +
                   draft->body_size ==
               size);
    FUZZ_CHECK(strlen(draft->number) == ABB_DRAFT_NUMBER_SIZE - 1);
    FUZZ_CHECK(
        draft->body_size == 0 ||
        memcmp(draft->body, (const char *)bytes + size - draft->body_size, draft->body_size) == 0);
}

static void try_inside(const abb_draft_badge_t *badge, const void *bytes, apr_size_t size,
                       apr_pool_t *p)
{
    abb_crypto_context_t context = {"draft", NULL, badge->id, sizeof(badge->id)};
    abb_sessions_t sessions;
    abb_store_key_t key;
    unsigned char *sealed;
    apr_size_t sealed_size;
    abb_draft_t draft;
    apr_status_t status;

    begin(&sessions, p);
    context.realm = sessions.audience;
    FUZZ_CHECK(abb_crypto_seal(&fuzz_ring, &context, badge->account, strlen(badge->account), bytes,
                               size, &sealed, &sealed_size, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_session_find_key(&sessions, ABB_SESSION_KIND_FORM, badge->id, sizeof(badge->id),
                                    &key, NULL) == APR_SUCCESS);
    put(&sessions, &key, "0123456789abcdef", ABB_DRAFT_NUMBER_SIZE, sealed, sealed_size);
    status = abb_draft_find(&sessions, badge, FUZZ_NOW, &draft, p, NULL);
    FUZZ_CHECK(status == APR_SUCCESS || status == APR_NOTFOUND);
    if (status == APR_SUCCESS) {
        check_inside(&draft, bytes, size, p);
    }
}

/* A draft in the store: anything, anything behind a genuine seal, and one of lines as it was put. */
void fuzz_draft(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    abb_draft_badge_t badge = make_badge();
    abb_draft_t draft = {.path = fuzz_line(&input)};
    abb_sessions_t sessions;
    abb_draft_t found;

    try_inside(&badge, bytes, size, p);
    begin(&sessions, p);
    draft.back = fuzz_line(&input);
    draft.content_type = fuzz_line(&input);
    draft.body = fuzz_rest(&input, &draft.body_size);
    FUZZ_CHECK(abb_draft_put(&sessions, &badge, &draft, FUZZ_NOW, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_draft_find(&sessions, &badge, FUZZ_NOW, &found, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(strcmp(found.path, draft.path) == 0 && strcmp(found.back, draft.back) == 0 &&
               strcmp(found.content_type, draft.content_type) == 0 &&
               found.body_size == draft.body_size &&
               memcmp(found.body, draft.body, draft.body_size) == 0 &&
               strcmp(found.number, draft.number) == 0);
}
