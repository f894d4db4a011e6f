/*
 * crypto (floor 1): random bytes, hashes, derived keys, sealed text.
 *
 * The only user of libcrypto. Knows no cookie, no session, no file.
 * Threads: all functions may be called from any thread.
 */
#ifndef ABB_CRYPTO_H
#define ABB_CRYPTO_H

#include <apr_pools.h>

#include "abb_error.h"

/* Size of a key, a hash and an authentication code, in bytes. */
#define ABB_CRYPTO_KEY_SIZE 32
/* What sealing adds to a text, in bytes: format 1, key id 4, nonce 24, tag 16. */
#define ABB_CRYPTO_SEAL_OVERHEAD 45
/* How many session keys may be named for rollover. */
#define ABB_CRYPTO_KEYS_MAX 8
/* Shortest passphrase accepted as a session key, in characters. */
#define ABB_CRYPTO_PASSPHRASE_MIN 32

typedef struct abb_crypto_key_t {
    unsigned char bytes[ABB_CRYPTO_KEY_SIZE];
} abb_crypto_key_t;

/* Keys for rollover: the first seals, all open. Lifetime: the owner's. */
typedef struct abb_crypto_keyring_t {
    int count;
    abb_crypto_key_t keys[ABB_CRYPTO_KEYS_MAX];
} abb_crypto_keyring_t;

/*
 * What a sealed text is for. It opens only under the same purpose, realm and
 * secret. purpose names the kind ("ticket"); realm the site (client id and
 * public host); secret is mixed into the key, NULL for none. Borrowed.
 */
typedef struct abb_crypto_context_t {
    const char *purpose;
    const char *realm;
    const void *secret;
    apr_size_t secret_size;
} abb_crypto_context_t;

/*
 * Load the algorithms once per process, so that no request pays for it.
 * Errors: ABB_ECRYPTO. Threads: before others call into this room.
 */
apr_status_t abb_crypto_init(abb_error_t *err);

/*
 * Free what the room keeps for later calls, before the code is unloaded; only
 * abb_crypto_init brings it back. Threads: when no other calls into this room.
 */
void abb_crypto_release(void);

/*
 * Fill with random bytes of the operating system's own generator, so that a
 * forked process never repeats its parent's. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_crypto_random(void *bytes, apr_size_t size, abb_error_t *err);

/*
 * SHA-256 of two texts one after the other (the second may be empty).
 * Errors: ABB_ECRYPTO. Source: FIPS 180-4.
 */
apr_status_t abb_crypto_hash(const void *first, apr_size_t first_size, const void *second,
                             apr_size_t second_size, unsigned char hash[ABB_CRYPTO_KEY_SIZE],
                             abb_error_t *err);

/*
 * HMAC-SHA-256 of a text under a key. Errors: ABB_ECRYPTO. Source: RFC 2104.
 */
apr_status_t abb_crypto_authenticate(const abb_crypto_key_t *key, const void *text, apr_size_t size,
                                     unsigned char code[ABB_CRYPTO_KEY_SIZE], abb_error_t *err);

/*
 * Stretch a passphrase into a key (PBKDF2-HMAC-SHA-256, 100,000 rounds: some
 * tens of milliseconds; at start-up only).
 * Errors: ABB_EINPUT shorter than ABB_CRYPTO_PASSPHRASE_MIN; ABB_ECRYPTO.
 */
apr_status_t abb_crypto_stretch(const char *passphrase, abb_crypto_key_t *key, abb_error_t *err);

/* Memory for a secret: wiped before p is cleared. Lifetime: p. */
unsigned char *abb_crypto_alloc_secret(apr_size_t size, apr_pool_t *p);

/*
 * Seal a text under the ring's first key: AES-256-GCM with a key derived by
 * HKDF-SHA-256 from ring key, purpose, realm, secret and half of a fresh random
 * 192-bit nonce; the other half is the cipher's nonce. So the number of texts
 * sealed under one session key needs no bound (NIST SP 800-38D section 8.3).
 * The text opens only with the same label, other bytes it belongs to; NULL and 0
 * for none.
 * *sealed has ABB_CRYPTO_SEAL_OVERHEAD bytes more than the text. Lifetime: p.
 * Errors: ABB_ECRYPTO.
 */
apr_status_t abb_crypto_seal(const abb_crypto_keyring_t *ring, const abb_crypto_context_t *context,
                             const void *label, apr_size_t label_size, const void *text,
                             apr_size_t size, unsigned char **sealed, apr_size_t *sealed_size,
                             apr_pool_t *p, abb_error_t *err);

/*
 * Open a sealed text with whichever key of the ring sealed it. The text gets a
 * NUL behind it, not counted. Lifetime: p; wiped when p is cleared.
 * Errors: ABB_ESEAL it does not open, whatever the cause, so that nobody learns from it;
 * ABB_ECRYPTO libcrypto has no memory, so that nobody knows.
 */
apr_status_t abb_crypto_open(const abb_crypto_keyring_t *ring, const abb_crypto_context_t *context,
                             const void *label, apr_size_t label_size, const void *sealed,
                             apr_size_t sealed_size, unsigned char **text, apr_size_t *size,
                             apr_pool_t *p, abb_error_t *err);

/*
 * Seals and opens many texts of one purpose at one realm, without a secret. The
 * texts have the form of abb_crypto_seal's, but derived keys are kept ready: a
 * short text takes some 4,000 instructions instead of 66,000. A key seals about
 * a million texts, then a new salt is drawn; each text has a random nonce. May
 * be made before a fork and used by parent and children (crypto.c says why).
 */
typedef struct abb_crypto_sealer_t abb_crypto_sealer_t;

/*
 * Make a sealer. The ring is copied, purpose and realm as in
 * abb_crypto_context_t. Lifetime: p; keys are wiped with it. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_crypto_sealer_create(abb_crypto_sealer_t **sealer,
                                      const abb_crypto_keyring_t *ring, const char *purpose,
                                      const char *realm, apr_pool_t *p, abb_error_t *err);

/*
 * Seal a text under the ring's first key. It opens only with the same label,
 * which names the one text (a record's key) and costs no derived key of its
 * own; NULL and 0 for none. Otherwise as abb_crypto_seal. Lifetime: p.
 * Errors: ABB_ECRYPTO.
 */
apr_status_t abb_crypto_sealer_seal(abb_crypto_sealer_t *sealer, const void *label,
                                    apr_size_t label_size, const void *text, apr_size_t size,
                                    unsigned char **sealed, apr_size_t *sealed_size, apr_pool_t *p,
                                    abb_error_t *err);

/* Open a text sealed with this label, as abb_crypto_open does. */
apr_status_t abb_crypto_sealer_open(abb_crypto_sealer_t *sealer, const void *label,
                                    apr_size_t label_size, const void *sealed,
                                    apr_size_t sealed_size, unsigned char **text, apr_size_t *size,
                                    apr_pool_t *p, abb_error_t *err);

/* Whether two secrets of one length are equal, in a time that tells nothing. */
int abb_crypto_equal(const void *a, const void *b, apr_size_t size);

/* Overwrite a secret; not optimised away. */
void abb_crypto_wipe(void *bytes, apr_size_t size);

#endif
