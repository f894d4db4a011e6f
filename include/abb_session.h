/*
 * session (floor 3): a cookie and its record in the store.
 *
 * Knows the store's contract, not its engine; knows no cookie syntax, no rules,
 * no Bitbucket.
 */
#ifndef ABB_SESSION_H
#define ABB_SESSION_H

#include "abb_crypto.h"
#include "abb_record.h"
#include "abb_store.h"

/* Random bytes of a session's id. Source: OWASP ASVS 7.2.3. */
#define ABB_SESSION_ID_SIZE 32
/* Length of a cookie's value without its NUL: the id in base64url. */
#define ABB_SESSION_COOKIE_LENGTH 43
/* First digits of a session's key, with a NUL. */
#define ABB_SESSION_TAG_SIZE 9
/* How long a slug is held to its uuid without being used. */
#define ABB_SESSION_PIN_LIFETIME apr_time_from_sec(366 * 86400LL)
/* The largest limit that an account's sessions may have, and the one where none is set. */
#define ABB_SESSION_PER_ACCOUNT_MAX 1000
/* A record is touched at most once in this time. */
#define ABB_SESSION_TOUCH_INTERVAL apr_time_from_sec(60)

/*
 * What the cookies that came lately come to. Most of what finding a session costs
 * is to hash its cookie, and browsers send the same one with each request.
 */
typedef struct abb_session_names_t abb_session_names_t;

/* Settings of one site. Lifetime: the configuration's. */
typedef struct abb_sessions_t {
    /* Set when the store is open. */
    const abb_store_t *store;
    /* Of the child, for all its sites; NULL: each cookie is hashed each time. */
    abb_session_names_t *names;
    const abb_crypto_keyring_t *keyring;
    /* Client id and public host: a cookie is good only here. */
    const char *audience;
    unsigned char audience_hash[ABB_CRYPTO_KEY_SIZE];
    apr_interval_time_t idle_timeout;
    apr_interval_time_t absolute_timeout;
    /* How many sessions an account may have; 0: any number. See abb_index.h. */
    int max_per_account;
} abb_sessions_t;

/* What a record of the store is: the first byte of what its key is the hash of. */
typedef enum {
    ABB_SESSION_KIND = 'S',
    /* A session that no cookie names, see abb_session_find_named. */
    ABB_SESSION_KIND_NAMED = 'T',
    /* A completed sign-in, see abb_session_spend_attempt. */
    ABB_SESSION_KIND_ATTEMPT = 'A',
    /* A slug's uuid, see abb_session_pin. */
    ABB_SESSION_KIND_PIN = 'P',
    /* A form, see abb_draft.h. */
    ABB_SESSION_KIND_FORM = 'F',
    /* Which sessions an account has, see abb_index.h. */
    ABB_SESSION_KIND_INDEX = 'I',
} abb_session_kind_t;

/* A session as a request sees it. Lifetime: the pool it was found in. */
typedef struct abb_session_t {
    abb_record_t record;
    /* ABB_SESSION_KIND or _NAMED. */
    abb_session_kind_t kind;
    /* The cookie's bytes. Secret. */
    unsigned char id[ABB_SESSION_ID_SIZE];
    abb_store_key_t key;
    apr_uint64_t generation;
    /* When the session ends if it is not used again. */
    apr_time_t expires_at;
    /* When it ends in any case. */
    apr_time_t absolute_end;
    /* When somebody last asked in vain for it, as in abb_store_record_t. */
    apr_time_t failed_at;
    /* First digits of the key: names the session in logs, tells nothing. */
    char tag[ABB_SESSION_TAG_SIZE];
} abb_session_t;

/*
 * Settle a site's audience ("client id", "https://wiki.example.com").
 * Lifetime: p. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_session_set_audience(abb_sessions_t *sessions, const char *client_id,
                                      const char *origin, apr_pool_t *p, abb_error_t *err);

/*
 * Make the names of a child of so many threads. What they hold depends on cookie and site alone; whether
 * there is such a session is for the store to say, each time. NULL when there is
 * no memory. Lifetime: p, given back to the system with it. Threads: all of the
 * child use it; none waits for another.
 */
abb_session_names_t *abb_session_names_create(int threads, apr_pool_t *p);

/*
 * Say that the session of a cookie's value, of the right length at least, will
 * probably be looked for, so that what is known of it comes near the processor in
 * time: first what the child remembers of the cookie, then the record. Both may
 * be left out. Threads: any; wait for nothing.
 */
void abb_session_announce(const abb_sessions_t *sessions, const char *cookie);
void abb_session_expect(const abb_sessions_t *sessions, const char *cookie);

/*
 * Find the session a cookie's value names, copying its open part into p, and
 * note that it was used (at most once a minute). Asks nobody, decrypts nothing.
 * Errors: APR_NOTFOUND malformed, absent or ended: all the same to strangers;
 * ABB_ESTORE could not look.
 * Threads: any; waits for no lock.
 */
apr_status_t abb_session_find(const abb_sessions_t *sessions, const char *cookie, apr_time_t now,
                              abb_session_t **session, apr_pool_t *p, abb_error_t *err);

/*
 * Take out of the store what is left of a session that has run out, found by its cookie:
 * of all who ask one gets it. *why: which limit it was, for the log. Only where the store
 * is this machine's own, and only until the room is needed. Waits for the store's lock,
 * if there is something. Lifetime: p.
 * Errors: APR_NOTFOUND nothing is left, or it lives; ABB_ESTORE; ABB_ECRYPTO.
 */
apr_status_t abb_session_take_ended(const abb_sessions_t *sessions, const char *cookie,
                                    apr_time_t now, abb_session_t **session, const char **why,
                                    apr_pool_t *p, abb_error_t *err);

/*
 * Begin a session with a new id. *cookie is the value to hand to the browser.
 * Lifetime: p. Errors: ABB_ESTORE; ABB_ECRYPTO; APR_ENOSPC as abb_record_seal.
 */
apr_status_t abb_session_create(const abb_sessions_t *sessions, const abb_record_t *record,
                                const abb_record_private_t *private_part, apr_time_t now,
                                const char **cookie, abb_session_t **session, apr_pool_t *p,
                                abb_error_t *err);

/*
 * Sessions that no cookie names, but ABB_SESSION_ID_SIZE secret bytes of another
 * origin, an authentication code of a credential. Whoever has the bytes has the
 * session; a cookie of the same bytes has not. create is content when it is there
 * already. Otherwise as abb_session_find and abb_session_create.
 */
apr_status_t abb_session_find_named(const abb_sessions_t *sessions, const unsigned char *id,
                                    apr_time_t now, abb_session_t **session, apr_pool_t *p,
                                    abb_error_t *err);
apr_status_t abb_session_create_named(const abb_sessions_t *sessions, const unsigned char *id,
                                      const abb_record_t *record,
                                      const abb_record_private_t *private_part, apr_time_t now,
                                      abb_session_t **session, apr_pool_t *p, abb_error_t *err);

/*
 * Read the open part of a session again, as it is in the store now.
 * Lifetime of what session->record holds: p. Errors: APR_NOTFOUND; ABB_ESTORE.
 */
apr_status_t abb_session_look(const abb_sessions_t *sessions, abb_session_t *session,
                              apr_time_t now, apr_pool_t *p, abb_error_t *err);

/*
 * Read a session again, both parts, as it is in the store now.
 * Errors: APR_NOTFOUND ended meanwhile; ABB_ESEAL the private part does not
 * open with any key there is; ABB_ESTORE, ABB_ECRYPTO could not look.
 */
apr_status_t abb_session_reload(const abb_sessions_t *sessions, abb_session_t *session,
                                apr_time_t now, abb_record_private_t *private_part, apr_pool_t *p,
                                abb_error_t *err);

/*
 * Put session->record and the private part in place of what the store has, if
 * nobody did so since the session was read. Its end does not change.
 * Errors: APR_NOTFOUND ended meanwhile; ABB_ECHANGED; ABB_ESTORE; ABB_ECRYPTO.
 */
apr_status_t abb_session_replace(const abb_sessions_t *sessions, abb_session_t *session,
                                 const abb_record_private_t *private_part, apr_time_t now,
                                 apr_pool_t *p, abb_error_t *err);

/* End a session. Errors: APR_NOTFOUND; ABB_ESTORE. */
apr_status_t abb_session_drop(const abb_sessions_t *sessions, const abb_session_t *session,
                              abb_error_t *err);

/*
 * The store's key of a record of this kind at this site: a hash of its id, no way back.
 * Errors: ABB_ECRYPTO.
 */
apr_status_t abb_session_find_key(const abb_sessions_t *sessions, abb_session_kind_t kind,
                                  const void *id, apr_size_t id_size, abb_store_key_t *key,
                                  abb_error_t *err);

/* The name of the session with this key in logs. */
void abb_session_tag_of(const abb_store_key_t *key, char tag[ABB_SESSION_TAG_SIZE]);

/*
 * A proof that a form came from a page shown to this session: only who knows
 * the cookie can make it. base64url. Lifetime: p. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_session_form_token(const abb_session_t *session, const char **token, apr_pool_t *p,
                                    abb_error_t *err);

/* Whether a form brought the session's proof; constant time. */
int abb_session_is_form_token(const abb_session_t *session, const char *token, apr_pool_t *p);

/*
 * Remember for as long as a ticket lives that the sign-in attempt with this id
 * is done and where it led. Only completed sign-ins call this, so strangers
 * take no place in the store.
 * Errors: APR_EEXIST it was done before; ABB_ESTORE; ABB_ECRYPTO.
 */
apr_status_t abb_session_spend_attempt(const abb_sessions_t *sessions, const void *id,
                                       apr_size_t id_size, const char *return_path,
                                       apr_interval_time_t lifetime, apr_time_t now,
                                       abb_error_t *err);

/*
 * Hold a slug to the uuid that it had when it first let somebody in at this site.
 * A freed slug can be registered by anybody; whoever does so lets nobody in here.
 * What is held is a record of the store: it goes with the store, or after
 * ABB_SESSION_PIN_LIFETIME without use.
 * Errors: ABB_EIDENTITY it is another now, *pinned is the first; ABB_ESTORE;
 * ABB_ECRYPTO. Lifetime of *pinned: p.
 */
apr_status_t abb_session_pin(const abb_sessions_t *sessions, const char *slug, const char *uuid,
                             apr_time_t now, const char **pinned, apr_pool_t *p, abb_error_t *err);

/*
 * Hold all rows of a record that have a role, but those named by uuid. One whose
 * slug is another's now loses its role, and *alarm becomes a sentence about it.
 * Errors: ABB_ESTORE; ABB_ECRYPTO. Lifetime: p.
 */
apr_status_t abb_session_pin_grants(const abb_sessions_t *sessions, abb_grant_t *grants, int count,
                                    apr_time_t now, const char **alarm, apr_pool_t *p,
                                    abb_error_t *err);

/*
 * Where a completed attempt led. Lifetime: p.
 * Errors: APR_NOTFOUND not known or long ago; ABB_ESTORE; ABB_ECRYPTO.
 */
apr_status_t abb_session_find_attempt(const abb_sessions_t *sessions, const void *id,
                                      apr_size_t id_size, apr_time_t now, const char **return_path,
                                      apr_pool_t *p, abb_error_t *err);

#endif
