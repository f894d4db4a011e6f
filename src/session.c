/* session (floor 3): a cookie and its record in the store. See abb_session.h. */
#include "abb_session.h"

#include <apr_strings.h>
#include <string.h>
#include <sys/mman.h>

#include "abb_text.h"

/* Bytes of the audience's hash that go into a key; with an id they fill one SHA-256 block. */
#define AUDIENCE_PART 16

apr_status_t abb_session_set_audience(abb_sessions_t *sessions, const char *client_id,
                                      const char *origin, apr_pool_t *p, abb_error_t *err)
{
    sessions->audience =
        apr_psprintf(p, "%" APR_SIZE_T_FMT ":%s:%s", strlen(client_id), client_id, origin);
    return abb_crypto_hash(sessions->audience, strlen(sessions->audience), "", 0,
                           sessions->audience_hash, err);
}

/* ---- keys ---------------------------------------------------------------- */

apr_status_t abb_session_find_key(const abb_sessions_t *sessions, abb_session_kind_t kind,
                                  const void *id, apr_size_t id_size, abb_store_key_t *key,
                                  abb_error_t *err)
{
    unsigned char realm[1 + AUDIENCE_PART];

    realm[0] = (unsigned char)kind;
    memcpy(realm + 1, sessions->audience_hash, AUDIENCE_PART);
    return abb_crypto_hash(realm, sizeof(realm), id, id_size, key->bytes, err);
}

/* What a session's cookie comes to at a site. */
typedef struct {
    unsigned char id[ABB_SESSION_ID_SIZE];
    abb_store_key_t key;
    /* Where its record was last found. */
    apr_uint32_t place;
    /* Without its NUL. */
    char tag[ABB_SESSION_TAG_SIZE - 1];
} name_t;

void abb_session_tag_of(const abb_store_key_t *key, char tag[ABB_SESSION_TAG_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < ABB_SESSION_TAG_SIZE / 2; ++i) {
        tag[2 * i] = digits[key->bytes[i] >> 4];
        tag[2 * i + 1] = digits[key->bytes[i] & 0xf];
    }
    tag[ABB_SESSION_TAG_SIZE - 1] = '\0';
}

/* Fill in what follows from the id. */
static apr_status_t complete_name(const abb_sessions_t *sessions, abb_session_kind_t kind,
                                  name_t *name, abb_error_t *err)
{
    char tag[ABB_SESSION_TAG_SIZE];
    apr_status_t status =
        abb_session_find_key(sessions, kind, name->id, sizeof(name->id), &name->key, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    abb_session_tag_of(&name->key, tag);
    memcpy(name->tag, tag, sizeof(name->tag));
    name->place = 0;
    return APR_SUCCESS;
}

static void set_name(abb_session_t *session, abb_session_kind_t kind, const name_t *name)
{
    session->kind = kind;
    memcpy(session->id, name->id, sizeof(session->id));
    session->key = name->key;
    memcpy(session->tag, name->tag, sizeof(name->tag));
    session->tag[sizeof(name->tag)] = '\0';
}

/* ---- names that came lately ---------------------------------------------- */

/* How many a child remembers, in bits: half a MiB for one thread, 8 MiB for 32 and more. */
#define NAME_BITS_MIN 12
#define NAME_BITS_MAX 16
/* A child of many threads sees many visitors; there are few such children. */
#define NAMES_PER_THREAD 2048
#define CACHE_LINE 64

/* Two lines of the processor's cache, and no byte more. */
typedef struct {
    /* The site, NULL for an empty place. */
    const abb_sessions_t *sessions;
    name_t name;
    char cookie[ABB_SESSION_COOKIE_LENGTH];
    /* Somebody reads or writes here just now. */
    unsigned char is_taken;
} known_name_t;

struct abb_session_names_t {
    int bits;
    known_name_t *places;
    apr_size_t size;
};

_Static_assert(sizeof(known_name_t) == 2 * CACHE_LINE || sizeof(void *) != 8,
               "a name takes two lines of the cache");

/* The system wipes what it takes back. To do it here would first take all of the memory. */
static apr_status_t end_names(void *data)
{
    abb_session_names_t *names = data;

    munmap(names->places, names->size);
    return APR_SUCCESS;
}

static int bits_for(int threads)
{
    int bits = NAME_BITS_MIN;

    while (bits < NAME_BITS_MAX && (1 << bits) < threads * NAMES_PER_THREAD) {
        ++bits;
    }
    return bits;
}

/* Memory of its own, since the system gives each page of it only when it is used. */
abb_session_names_t *abb_session_names_create(int threads, apr_pool_t *p)
{
    abb_session_names_t *names = apr_pcalloc(p, sizeof(*names));

    names->bits = bits_for(threads);
    names->size = sizeof(known_name_t) << names->bits;
    names->places =
        mmap(NULL, names->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (names->places == MAP_FAILED) {
        return NULL;
    }
    apr_pool_cleanup_register(p, names, end_names, apr_pool_cleanup_null);
    return names;
}

/* The one place where a cookie's name may stand. */
static known_name_t *place_of(abb_session_names_t *names, const char *cookie)
{
    apr_uint32_t word;

    memcpy(&word, cookie, sizeof(word));
    return &names->places[word * 2654435761u >> (32 - names->bits)];
}

/* Whoever finds a place taken goes without, so nobody ever waits. */
static int take_place(known_name_t *place)
{
    return __atomic_exchange_n(&place->is_taken, 1, __ATOMIC_ACQUIRE) == 0;
}

/* A place of nobody's is only read: cookies that nobody was given change nothing here. */
static int take_place_of(known_name_t *place, const abb_sessions_t *sessions)
{
    return __atomic_load_n(&place->sessions, __ATOMIC_RELAXED) == sessions && take_place(place);
}

static void give_place(known_name_t *place)
{
    __atomic_store_n(&place->is_taken, 0, __ATOMIC_RELEASE);
}

static int recall(known_name_t *place, const abb_sessions_t *sessions, const char *cookie,
                  name_t *name)
{
    int is_known = 0;

    if (take_place_of(place, sessions)) {
        is_known = place->sessions == sessions &&
                   abb_crypto_equal(place->cookie, cookie, sizeof(place->cookie));
        if (is_known) {
            *name = place->name;
        }
        give_place(place);
    }
    return is_known;
}

static void remember(known_name_t *place, const abb_sessions_t *sessions, const char *cookie,
                     const name_t *name)
{
    if (take_place(place)) {
        __atomic_store_n(&place->sessions, sessions, __ATOMIC_RELAXED);
        memcpy(place->cookie, cookie, sizeof(place->cookie));
        place->name = *name;
        give_place(place);
    }
}

/* ---- ahead of time ------------------------------------------------------- */

void abb_session_announce(const abb_sessions_t *sessions, const char *cookie)
{
    if (sessions->names) {
        const char *place = (const char *)place_of(sessions->names, cookie);

        __builtin_prefetch(place, 1);
        __builtin_prefetch(place + CACHE_LINE, 1);
    }
}

/* Whose cookie stands there does not matter here, so it is not compared. */
static int peek(known_name_t *place, const abb_sessions_t *sessions, name_t *name)
{
    int is_known = 0;

    if (take_place_of(place, sessions)) {
        is_known = place->sessions == sessions;
        name->key = place->name.key;
        name->place = place->name.place;
        give_place(place);
    }
    return is_known;
}

void abb_session_expect(const abb_sessions_t *sessions, const char *cookie)
{
    name_t name;

    if (sessions->names && peek(place_of(sessions->names, cookie), sessions, &name)) {
        abb_store_expect(sessions->store, &name.key, name.place);
    }
}

/* ---- cookies ------------------------------------------------------------- */

/* What a cookie comes to. *is_new tells whether that had to be computed. */
static apr_status_t read_cookie(const abb_sessions_t *sessions, const char *cookie, name_t *name,
                                int *is_new, abb_error_t *err)
{
    *is_new = 1;
    if (strnlen(cookie, ABB_SESSION_COOKIE_LENGTH + 1) != ABB_SESSION_COOKIE_LENGTH) {
        return APR_NOTFOUND;
    }
    if (sessions->names && recall(place_of(sessions->names, cookie), sessions, cookie, name)) {
        *is_new = 0;
        return APR_SUCCESS;
    }
    return abb_text_base64url_decode_exact(cookie, name->id, sizeof(name->id)) == APR_SUCCESS
               ? complete_name(sessions, ABB_SESSION_KIND, name, err)
               : APR_NOTFOUND;
}

/* ---- finding ------------------------------------------------------------- */

static apr_time_t earlier(apr_time_t a, apr_time_t b)
{
    return a < b ? a : b;
}

static apr_status_t take_record(abb_session_t *session, const abb_store_record_t *stored,
                                apr_pool_t *p, abb_error_t *err)
{
    apr_status_t status = abb_record_decode(stored->open, stored->open_size, &session->record, p);

    if (status != APR_SUCCESS) {
        return abb_error_set(err, ABB_ESTORE, "the record of session %s is damaged", session->tag);
    }
    session->generation = stored->generation;
    session->failed_at = stored->failed_at;
    session->absolute_end = stored->expires_at;
    session->expires_at = stored->idle
                              ? earlier(stored->expires_at, stored->last_seen + stored->idle)
                              : stored->expires_at;
    return APR_SUCCESS;
}

/* A session in use is touched in time even where the idle limit is short. */
static apr_interval_time_t touch_interval(const abb_store_record_t *stored)
{
    return stored->idle ? earlier(ABB_SESSION_TOUCH_INTERVAL, stored->idle / 2)
                        : ABB_SESSION_TOUCH_INTERVAL;
}

static void touch(const abb_sessions_t *sessions, abb_session_t *session,
                  const abb_store_record_t *stored, apr_time_t now)
{
    if (now - stored->last_seen >= touch_interval(stored) &&
        abb_store_touch(sessions->store, &session->key, now, NULL) == APR_SUCCESS && stored->idle) {
        session->expires_at = earlier(stored->expires_at, now + stored->idle);
    }
}

static apr_status_t take_session(const abb_sessions_t *sessions, abb_session_kind_t kind,
                                 const name_t *name, const abb_store_record_t *stored,
                                 apr_time_t now, abb_session_t **session, apr_pool_t *p,
                                 abb_error_t *err)
{
    abb_session_t *found = apr_palloc(p, sizeof(*found));
    apr_status_t status;

    set_name(found, kind, name);
    status = take_record(found, stored, p, err);
    if (status == APR_SUCCESS) {
        touch(sessions, found, stored, now);
        *session = found;
    }
    return status;
}

apr_status_t abb_session_find(const abb_sessions_t *sessions, const char *cookie, apr_time_t now,
                              abb_session_t **session, apr_pool_t *p, abb_error_t *err)
{
    abb_store_record_t stored;
    name_t name;
    int is_new;
    apr_status_t status;

    if ((status = read_cookie(sessions, cookie, &name, &is_new, err)) != APR_SUCCESS ||
        (status = abb_store_get(sessions->store, &name.key, ABB_STORE_OPEN_PART, now, &stored, p,
                                err)) != APR_SUCCESS) {
        return status;
    }
    /* Only what is there takes a place, so strangers with cookies of their own take none. */
    if (sessions->names && (is_new || name.place != stored.place)) {
        name.place = stored.place;
        remember(place_of(sessions->names, cookie), sessions, cookie, &name);
    }
    return take_session(sessions, ABB_SESSION_KIND, &name, &stored, now, session, p, err);
}

apr_status_t abb_session_find_named(const abb_sessions_t *sessions, const unsigned char *id,
                                    apr_time_t now, abb_session_t **session, apr_pool_t *p,
                                    abb_error_t *err)
{
    abb_store_record_t stored;
    name_t name;
    apr_status_t status;

    memcpy(name.id, id, sizeof(name.id));
    if ((status = complete_name(sessions, ABB_SESSION_KIND_NAMED, &name, err)) != APR_SUCCESS ||
        (status = abb_store_get(sessions->store, &name.key, ABB_STORE_OPEN_PART, now, &stored, p,
                                err)) != APR_SUCCESS) {
        return status;
    }
    return take_session(sessions, ABB_SESSION_KIND_NAMED, &name, &stored, now, session, p, err);
}

/* ---- what has run out ---------------------------------------------------- */

/* At the beginning of time nothing had expired, so what is still there is found. */
static apr_status_t find_rest(const abb_sessions_t *sessions, const name_t *name,
                              abb_session_t *session, abb_store_record_t *stored, apr_pool_t *p,
                              abb_error_t *err)
{
    apr_status_t status =
        abb_store_get(sessions->store, &name->key, ABB_STORE_OPEN_PART, 0, stored, p, err);

    set_name(session, ABB_SESSION_KIND, name);
    return status == APR_SUCCESS ? take_record(session, stored, p, err) : status;
}

static const char *limit_of(const abb_session_t *session, const abb_store_record_t *stored,
                            apr_pool_t *p)
{
    return session->expires_at < session->absolute_end
               ? apr_psprintf(p, "unused for %s, see AuthBitbucketSessionTimeout",
                              abb_text_duration(stored->idle, p))
               : apr_psprintf(
                     p, "it began %s ago, see AuthBitbucketSessionTimeout",
                     abb_text_duration(session->absolute_end - session->record.created_at, p));
}

apr_status_t abb_session_take_ended(const abb_sessions_t *sessions, const char *cookie,
                                    apr_time_t now, abb_session_t **session, const char **why,
                                    apr_pool_t *p, abb_error_t *err)
{
    abb_session_t *found = apr_palloc(p, sizeof(*found));
    abb_store_record_t stored;
    name_t name;
    int is_new;
    apr_status_t status;

    if (!abb_store_can_walk(sessions->store)) {
        return APR_NOTFOUND;
    }
    if ((status = read_cookie(sessions, cookie, &name, &is_new, err)) != APR_SUCCESS ||
        (status = find_rest(sessions, &name, found, &stored, p, err)) != APR_SUCCESS) {
        return status;
    }
    if (now < found->expires_at) {
        return APR_NOTFOUND;
    }
    *session = found;
    *why = limit_of(found, &stored, p);
    /* Of several who found it the store lets one have it. */
    return abb_session_drop(sessions, found, err);
}

/* ---- writing ------------------------------------------------------------- */

/* Both parts of a session as the store takes them. */
static apr_status_t pack(const abb_sessions_t *sessions, const abb_session_t *session,
                         const abb_record_private_t *private_part, abb_store_record_t *stored,
                         apr_pool_t *p, abb_error_t *err)
{
    abb_record_bytes_t open;
    abb_record_bytes_t sealed;
    apr_status_t status = abb_record_encode(&session->record, &open, p);

    if (status != APR_SUCCESS) {
        return abb_error_set(err, status, "the record of session %s is too large", session->tag);
    }
    status = abb_record_seal(private_part, &open, sessions->keyring, session->id,
                             sizeof(session->id), sessions->audience, &sealed, p, err);
    if (status != APR_SUCCESS) {
        return status;
    }
    memset(stored, 0, sizeof(*stored));
    stored->open = open.bytes;
    stored->open_size = open.size;
    stored->sealed = sealed.bytes;
    stored->sealed_size = sealed.size;
    stored->expires_at = session->absolute_end;
    stored->idle = sessions->idle_timeout;
    return APR_SUCCESS;
}

static apr_status_t put_session(const abb_sessions_t *sessions, abb_session_kind_t kind,
                                const name_t *name, const abb_record_t *record,
                                const abb_record_private_t *private_part, apr_time_t now,
                                abb_session_t **session, apr_pool_t *p, abb_error_t *err)
{
    abb_session_t *created = apr_pcalloc(p, sizeof(*created));
    abb_store_record_t stored;
    apr_status_t status;

    set_name(created, kind, name);
    created->record = *record;
    created->absolute_end = now + sessions->absolute_timeout;
    created->expires_at = earlier(created->absolute_end, now + sessions->idle_timeout);
    if ((status = pack(sessions, created, private_part, &stored, p, err)) != APR_SUCCESS ||
        (status = abb_store_put(sessions->store, &created->key, &stored, now, err)) !=
            APR_SUCCESS) {
        return status;
    }
    *session = created;
    return APR_SUCCESS;
}

apr_status_t abb_session_create(const abb_sessions_t *sessions, const abb_record_t *record,
                                const abb_record_private_t *private_part, apr_time_t now,
                                const char **cookie, abb_session_t **session, apr_pool_t *p,
                                abb_error_t *err)
{
    name_t name;
    apr_status_t status;

    if ((status = abb_crypto_random(name.id, sizeof(name.id), err)) != APR_SUCCESS ||
        (status = complete_name(sessions, ABB_SESSION_KIND, &name, err)) != APR_SUCCESS ||
        (status = put_session(sessions, ABB_SESSION_KIND, &name, record, private_part, now, session,
                              p, err)) != APR_SUCCESS) {
        return status == APR_EEXIST
                   ? abb_error_set(err, ABB_ESTORE,
                                   "the store has a session already under an id just drawn")
                   : status;
    }
    *cookie = abb_text_base64url_encode((*session)->id, sizeof((*session)->id), p);
    return APR_SUCCESS;
}

apr_status_t abb_session_create_named(const abb_sessions_t *sessions, const unsigned char *id,
                                      const abb_record_t *record,
                                      const abb_record_private_t *private_part, apr_time_t now,
                                      abb_session_t **session, apr_pool_t *p, abb_error_t *err)
{
    name_t name;
    apr_status_t status;

    memcpy(name.id, id, sizeof(name.id));
    if ((status = complete_name(sessions, ABB_SESSION_KIND_NAMED, &name, err)) != APR_SUCCESS) {
        return status;
    }
    status = put_session(sessions, ABB_SESSION_KIND_NAMED, &name, record, private_part, now,
                         session, p, err);
    return status == APR_EEXIST ? abb_session_find_named(sessions, id, now, session, p, err)
                                : status;
}

apr_status_t abb_session_look(const abb_sessions_t *sessions, abb_session_t *session,
                              apr_time_t now, apr_pool_t *p, abb_error_t *err)
{
    abb_store_record_t stored;
    apr_status_t status =
        abb_store_get(sessions->store, &session->key, ABB_STORE_OPEN_PART, now, &stored, p, err);

    return status == APR_SUCCESS ? take_record(session, &stored, p, err) : status;
}

apr_status_t abb_session_reload(const abb_sessions_t *sessions, abb_session_t *session,
                                apr_time_t now, abb_record_private_t *private_part, apr_pool_t *p,
                                abb_error_t *err)
{
    abb_store_record_t stored;
    abb_record_bytes_t open;
    abb_record_bytes_t sealed;
    apr_status_t status =
        abb_store_get(sessions->store, &session->key, ABB_STORE_BOTH_PARTS, now, &stored, p, err);

    if (status != APR_SUCCESS || (status = take_record(session, &stored, p, err)) != APR_SUCCESS) {
        return status;
    }
    open.bytes = stored.open;
    open.size = stored.open_size;
    sealed.bytes = stored.sealed;
    sealed.size = stored.sealed_size;
    return abb_record_open(&sealed, &open, sessions->keyring, session->id, sizeof(session->id),
                           sessions->audience, private_part, p, err);
}

apr_status_t abb_session_replace(const abb_sessions_t *sessions, abb_session_t *session,
                                 const abb_record_private_t *private_part, apr_time_t now,
                                 apr_pool_t *p, abb_error_t *err)
{
    abb_store_record_t stored;
    apr_status_t status = pack(sessions, session, private_part, &stored, p, err);

    return status == APR_SUCCESS ? abb_store_replace(sessions->store, &session->key,
                                                     session->generation, &stored, now, err)
                                 : status;
}

apr_status_t abb_session_drop(const abb_sessions_t *sessions, const abb_session_t *session,
                              abb_error_t *err)
{
    return abb_store_drop(sessions->store, &session->key, err);
}

/* ---- forms --------------------------------------------------------------- */

apr_status_t abb_session_form_token(const abb_session_t *session, const char **token, apr_pool_t *p,
                                    abb_error_t *err)
{
    static const char purpose[] = "form";
    abb_crypto_key_t key;
    unsigned char code[ABB_CRYPTO_KEY_SIZE];
    apr_status_t status;

    memcpy(key.bytes, session->id, sizeof(key.bytes));
    status = abb_crypto_authenticate(&key, purpose, sizeof(purpose) - 1, code, err);
    abb_crypto_wipe(&key, sizeof(key));
    *token = abb_text_base64url_encode(code, sizeof(code), p);
    return status;
}

int abb_session_is_form_token(const abb_session_t *session, const char *token, apr_pool_t *p)
{
    const char *expected;

    return token && abb_session_form_token(session, &expected, p, NULL) == APR_SUCCESS &&
           strlen(token) == strlen(expected) && abb_crypto_equal(token, expected, strlen(expected));
}

/* ---- attempts that are done ---------------------------------------------- */

apr_status_t abb_session_spend_attempt(const abb_sessions_t *sessions, const void *id,
                                       apr_size_t id_size, const char *return_path,
                                       apr_interval_time_t lifetime, apr_time_t now,
                                       abb_error_t *err)
{
    abb_store_key_t key;
    abb_store_record_t stored;
    apr_status_t status =
        abb_session_find_key(sessions, ABB_SESSION_KIND_ATTEMPT, id, id_size, &key, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    memset(&stored, 0, sizeof(stored));
    stored.open = return_path;
    stored.open_size = strlen(return_path) + 1;
    stored.expires_at = now + lifetime;
    return abb_store_put(sessions->store, &key, &stored, now, err);
}

apr_status_t abb_session_find_attempt(const abb_sessions_t *sessions, const void *id,
                                      apr_size_t id_size, apr_time_t now, const char **return_path,
                                      apr_pool_t *p, abb_error_t *err)
{
    abb_store_key_t key;
    abb_store_record_t stored;
    apr_status_t status =
        abb_session_find_key(sessions, ABB_SESSION_KIND_ATTEMPT, id, id_size, &key, err);

    if (status == APR_SUCCESS) {
        status = abb_store_get(sessions->store, &key, ABB_STORE_OPEN_PART, now, &stored, p, err);
    }
    if (status == APR_SUCCESS) {
        *return_path = apr_pstrmemdup(p, stored.open, strnlen(stored.open, stored.open_size));
    }
    return status;
}

/* ---- slugs and their uuids ------------------------------------------------ */

static apr_status_t put_pin(const abb_sessions_t *sessions, const abb_store_key_t *key,
                            const char *uuid, apr_time_t now, abb_error_t *err)
{
    abb_store_record_t stored;

    memset(&stored, 0, sizeof(stored));
    stored.open = uuid;
    stored.open_size = strlen(uuid) + 1;
    stored.expires_at = now + ABB_SESSION_PIN_LIFETIME;
    return abb_store_put(sessions->store, key, &stored, now, err);
}

/* One that is used is not among the first to go when the store is full, and does not run out. */
static void keep_pin(const abb_sessions_t *sessions, const abb_store_key_t *key,
                     const abb_store_record_t *stored, apr_time_t now)
{
    abb_store_record_t renewed = *stored;

    renewed.sealed = NULL;
    renewed.sealed_size = 0;
    renewed.expires_at = now + ABB_SESSION_PIN_LIFETIME;
    if (stored->expires_at - now < ABB_SESSION_PIN_LIFETIME / 2) {
        abb_store_replace(sessions->store, key, stored->generation, &renewed, now, NULL);
    }
    else if (now - stored->last_seen >= ABB_SESSION_TOUCH_INTERVAL) {
        abb_store_touch(sessions->store, key, now, NULL);
    }
}

static apr_status_t find_pin(const abb_sessions_t *sessions, const abb_store_key_t *key,
                             apr_time_t now, const char **pinned, apr_pool_t *p, abb_error_t *err)
{
    abb_store_record_t stored;
    apr_status_t status =
        abb_store_get(sessions->store, key, ABB_STORE_OPEN_PART, now, &stored, p, err);

    if (status == APR_SUCCESS) {
        *pinned = apr_pstrmemdup(p, stored.open, strnlen(stored.open, stored.open_size));
        keep_pin(sessions, key, &stored, now);
    }
    return status;
}

apr_status_t abb_session_pin(const abb_sessions_t *sessions, const char *slug, const char *uuid,
                             apr_time_t now, const char **pinned, apr_pool_t *p, abb_error_t *err)
{
    abb_store_key_t key;
    apr_status_t status =
        abb_session_find_key(sessions, ABB_SESSION_KIND_PIN, slug, strlen(slug), &key, err);

    if (status == APR_SUCCESS) {
        status = find_pin(sessions, &key, now, pinned, p, err);
    }
    if (status == APR_NOTFOUND) {
        *pinned = uuid;
        status = put_pin(sessions, &key, uuid, now, err);
    }
    if (status == APR_EEXIST) {
        /* Another was quicker. */
        status = find_pin(sessions, &key, now, pinned, p, err);
    }
    if (status == APR_SUCCESS && strcmp(*pinned, uuid) != 0) {
        return ABB_EIDENTITY;
    }
    return status == APR_NOTFOUND ? abb_error_set(err, ABB_ESTORE, "the store forgets at once")
                                  : status;
}

/* A row named by uuid cannot become another's. */
static int is_named_by_uuid(const abb_grant_t *grant, apr_pool_t *p)
{
    const char *slash = strrchr(grant->asked, '/');

    return abb_account_parse_uuid(slash ? slash + 1 : grant->asked, p) != NULL;
}

apr_status_t abb_session_pin_grants(const abb_sessions_t *sessions, abb_grant_t *grants, int count,
                                    apr_time_t now, const char **alarm, apr_pool_t *p,
                                    abb_error_t *err)
{
    for (int i = 0; i < count; ++i) {
        abb_grant_t *grant = &grants[i];
        const char *pinned = NULL;
        apr_status_t status;

        if (grant->role == ABB_ROLE_NONE || is_named_by_uuid(grant, p)) {
            continue;
        }
        status = abb_session_pin(sessions, abb_text_lower(grant->asked, p), grant->uuid, now,
                                 &pinned, p, err);
        if (status == ABB_EIDENTITY) {
            grant->role = ABB_ROLE_NONE;
            *alarm =
                apr_psprintf(p, "%s was {%s} at Bitbucket and is {%s} now, so it lets nobody in",
                             grant->asked, pinned, grant->uuid);
        }
        else if (status != APR_SUCCESS) {
            return status;
        }
    }
    return APR_SUCCESS;
}
