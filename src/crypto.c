/*
 * crypto (floor 1): random bytes, hashes, derived keys, sealed text.
 *
 * Sealed text:
 *
 *   0        1          5         17        29                29+n        45+n
 *   +--------+----------+---------+---------+-----------------+-----------+
 *   | format | key id   | salt    | nonce   | ciphertext      | GCM tag   |
 *   +--------+----------+---------+---------+-----------------+-----------+
 *                        to HKDF   to AES-GCM
 *
 * Format, key id, context and label are authenticated as associated data.
 *
 * Why no nonce is used twice under one key. Salt and nonce are random bytes of
 * the operating system, drawn anew for each text, so nothing has to be counted,
 * shared or kept apart between threads and processes, and a copy of a process
 * (fork) draws others than its origin. abb_crypto_seal derives a key for each
 * text. A sealer keeps a key for SEALER_TEXTS_MAX texts and then draws another
 * salt: with 2^20 texts the chance of two equal nonces under one key is below
 * 2^-57, and with a thousand children that all inherited it from one parent it
 * stays within the 2^32 texts of NIST SP 800-38D section 8.3.
 */
#include "abb_crypto.h"

#include <apr_strings.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <string.h>
#include <unistd.h>

#define SEAL_FORMAT 1
#define KEY_ID_SIZE 4
#define SALT_SIZE 12
#define NONCE_SIZE 12
#define TAG_SIZE 16
/* What stands before the salt. */
#define NAME_SIZE (1 + KEY_ID_SIZE)
#define HEADER_SIZE (NAME_SIZE + SALT_SIZE + NONCE_SIZE)
#define STRETCH_ROUNDS 100000

/* Two texts that come to no more than this are hashed as one. */
#define JOINED_MAX 64

/* How many texts a sealer seals under one salt. */
#define SEALER_TEXTS_MAX (1 << 20)
/* How many ciphers and digests are kept ready; more threads at once make their own. */
#define READY_MAX 16
/* Most bytes that getentropy gives at once. */
#define ENTROPY_MAX 256

/* Fetched once: a fetch by name costs more than the hash of a cookie. */
static EVP_MD *sha256;
static EVP_CIPHER *aes_256_gcm;
static EVP_KDF *hkdf;
static EVP_MAC *hmac;

/* A SHA-256 of nothing yet: to copy it costs less than to begin one. */
static EVP_MD_CTX *sha256_start;

/* Digests that no thread uses just now. */
static EVP_MD_CTX *idle_digests[READY_MAX];

apr_status_t abb_crypto_init(abb_error_t *err)
{
    if (!sha256) {
        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
        aes_256_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
        hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
        hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    }
    if (sha256 && !sha256_start) {
        sha256_start = EVP_MD_CTX_new();
    }
    if (!sha256 || !aes_256_gcm || !hkdf || !hmac || !sha256_start ||
        !EVP_DigestInit_ex2(sha256_start, sha256, NULL)) {
        return abb_error_set(err, ABB_ECRYPTO,
                             "libcrypto offers no SHA-256, AES-256-GCM, HKDF or HMAC");
    }
    return APR_SUCCESS;
}

static void release_algorithms(void)
{
    EVP_MD_free(sha256);
    EVP_CIPHER_free(aes_256_gcm);
    EVP_KDF_free(hkdf);
    EVP_MAC_free(hmac);
    sha256 = NULL;
    aes_256_gcm = NULL;
    hkdf = NULL;
    hmac = NULL;
}

void abb_crypto_release(void)
{
    EVP_MD_CTX_free(sha256_start);
    sha256_start = NULL;
    for (int i = 0; i < READY_MAX; ++i) {
        EVP_MD_CTX_free(__atomic_exchange_n(&idle_digests[i], NULL, __ATOMIC_ACQUIRE));
    }
    release_algorithms();
}

apr_status_t abb_crypto_random(void *bytes, apr_size_t size, abb_error_t *err)
{
    unsigned char *out = bytes;

    while (size > 0) {
        apr_size_t part = size < ENTROPY_MAX ? size : ENTROPY_MAX;

        if (getentropy(out, part) != 0) {
            return abb_error_set(err, ABB_ECRYPTO, "the operating system has no random bytes");
        }
        out += part;
        size -= part;
    }
    return APR_SUCCESS;
}

static EVP_MD_CTX *take_digest(void)
{
    for (int i = 0; i < READY_MAX; ++i) {
        EVP_MD_CTX *digest = __atomic_exchange_n(&idle_digests[i], NULL, __ATOMIC_ACQUIRE);

        if (digest) {
            return digest;
        }
    }
    return EVP_MD_CTX_new();
}

static void give_digest(EVP_MD_CTX *digest)
{
    for (int i = 0; i < READY_MAX; ++i) {
        EVP_MD_CTX *none = NULL;

        if (__atomic_compare_exchange_n(&idle_digests[i], &none, digest, 0, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
            return;
        }
    }
    EVP_MD_CTX_free(digest);
}

apr_status_t abb_crypto_hash(const void *first, apr_size_t first_size, const void *second,
                             apr_size_t second_size, unsigned char hash[ABB_CRYPTO_KEY_SIZE],
                             abb_error_t *err)
{
    EVP_MD_CTX *digest = take_digest();
    unsigned char joined[JOINED_MAX];

    /* A short text in one piece costs less than in two. */
    if (first_size > 0 && second_size > 0 && second_size <= sizeof(joined) &&
        first_size <= sizeof(joined) - second_size) {
        memcpy(joined, first, first_size);
        memcpy(joined + first_size, second, second_size);
        first = joined;
        first_size += second_size;
        second_size = 0;
    }
    if (!digest || !EVP_MD_CTX_copy_ex(digest, sha256_start) ||
        !EVP_DigestUpdate(digest, first, first_size) ||
        !EVP_DigestUpdate(digest, second, second_size) || !EVP_DigestFinal_ex(digest, hash, NULL)) {
        EVP_MD_CTX_free(digest);
        return abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot hash");
    }
    give_digest(digest);
    return APR_SUCCESS;
}

apr_status_t abb_crypto_authenticate(const abb_crypto_key_t *key, const void *text, apr_size_t size,
                                     unsigned char code[ABB_CRYPTO_KEY_SIZE], abb_error_t *err)
{
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end()};
    EVP_MAC_CTX *context = EVP_MAC_CTX_new(hmac);
    int done = context && EVP_MAC_init(context, key->bytes, sizeof(key->bytes), parameters) &&
               EVP_MAC_update(context, text, size) &&
               EVP_MAC_final(context, code, NULL, ABB_CRYPTO_KEY_SIZE);

    EVP_MAC_CTX_free(context);
    return done ? APR_SUCCESS : abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot authenticate");
}

apr_status_t abb_crypto_stretch(const char *passphrase, abb_crypto_key_t *key, abb_error_t *err)
{
    static const unsigned char salt[] = "mod_auth_bitbucket session key 1";
    apr_size_t length = strlen(passphrase);

    if (length < ABB_CRYPTO_PASSPHRASE_MIN) {
        return abb_error_set(err, ABB_EINPUT, "has %d characters, but needs at least %d",
                             (int)length, ABB_CRYPTO_PASSPHRASE_MIN);
    }
    if (!PKCS5_PBKDF2_HMAC(passphrase, (int)length, salt, sizeof(salt) - 1, STRETCH_ROUNDS, sha256,
                           sizeof(key->bytes), key->bytes)) {
        return abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot stretch a passphrase");
    }
    return APR_SUCCESS;
}

/* ---- sealing ------------------------------------------------------------- */

/* What is bound to a text beside its key. */
typedef struct {
    /* Purpose and realm. */
    const char *info;
    const void *label;
    apr_size_t label_size;
} bound_t;

static apr_status_t cannot_encrypt(abb_error_t *err)
{
    return abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot encrypt");
}

static apr_status_t does_not_open(apr_status_t status, abb_error_t *err)
{
    return status == ABB_ESEAL ? abb_error_set(err, ABB_ESEAL, "sealed text does not open")
                               : abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot decrypt");
}

/* A name for a key that tells nothing about it. */
static apr_status_t key_id(const abb_crypto_key_t *key, unsigned char id[KEY_ID_SIZE],
                           abb_error_t *err)
{
    unsigned char code[ABB_CRYPTO_KEY_SIZE];
    apr_status_t status = abb_crypto_authenticate(key, "key id", 6, code, err);

    memcpy(id, code, KEY_ID_SIZE);
    return status;
}

/* Purpose and realm as one text in which neither can pass for part of the other. */
static const char *context_text(const char *purpose, const char *realm, apr_pool_t *p)
{
    return apr_psprintf(p, "%" APR_SIZE_T_FMT ":%s:%s", strlen(purpose), purpose, realm);
}

/* HKDF of a ring's key and a secret (may be NULL). */
static apr_status_t derive_key(const abb_crypto_key_t *key, const void *secret,
                               apr_size_t secret_size, const char *info, const unsigned char *salt,
                               abb_crypto_key_t *derived, abb_error_t *err)
{
    apr_size_t material_size = sizeof(key->bytes) + secret_size;
    unsigned char *material = OPENSSL_malloc(material_size);
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, material, material_size),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, SALT_SIZE),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, strlen(info)),
        OSSL_PARAM_construct_end()};
    EVP_KDF_CTX *kdf = EVP_KDF_CTX_new(hkdf);
    int done = 0;

    if (material && kdf) {
        memcpy(material, key->bytes, sizeof(key->bytes));
        if (secret_size) {
            memcpy(material + sizeof(key->bytes), secret, secret_size);
        }
        done = EVP_KDF_derive(kdf, derived->bytes, sizeof(derived->bytes), parameters) > 0;
    }
    EVP_KDF_CTX_free(kdf);
    OPENSSL_clear_free(material, material_size);
    return done ? APR_SUCCESS : abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot derive a key");
}

/* Seal with a cipher that has its key; name, salt and nonce are in `sealed`. */
static int encrypt(EVP_CIPHER_CTX *cipher, const bound_t *bound, const void *text, int size,
                   unsigned char *sealed)
{
    unsigned char *out = sealed + HEADER_SIZE;
    int length;

    return EVP_EncryptInit_ex2(cipher, NULL, NULL, sealed + NAME_SIZE + SALT_SIZE, NULL) &&
           EVP_EncryptUpdate(cipher, NULL, &length, sealed, NAME_SIZE) &&
           EVP_EncryptUpdate(cipher, NULL, &length, (const unsigned char *)bound->info,
                             (int)strlen(bound->info)) &&
           (!bound->label_size ||
            EVP_EncryptUpdate(cipher, NULL, &length, bound->label, (int)bound->label_size)) &&
           EVP_EncryptUpdate(cipher, out, &length, text, size) &&
           EVP_EncryptFinal_ex(cipher, out + length, &length) &&
           EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, out + size);
}

/* ABB_ESEAL: the text is not what was sealed with this; ABB_ECRYPTO: that cannot be seen. */
static apr_status_t decrypt(EVP_CIPHER_CTX *cipher, const bound_t *bound,
                            const unsigned char *sealed, unsigned char *text, int size)
{
    const unsigned char *in = sealed + HEADER_SIZE;
    int length;

    if (!EVP_DecryptInit_ex2(cipher, NULL, NULL, sealed + NAME_SIZE + SALT_SIZE, NULL) ||
        !EVP_DecryptUpdate(cipher, NULL, &length, sealed, NAME_SIZE) ||
        !EVP_DecryptUpdate(cipher, NULL, &length, (const unsigned char *)bound->info,
                           (int)strlen(bound->info)) ||
        (bound->label_size &&
         !EVP_DecryptUpdate(cipher, NULL, &length, bound->label, (int)bound->label_size)) ||
        !EVP_DecryptUpdate(cipher, text, &length, in, size) ||
        !EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, (void *)(in + size))) {
        return ABB_ECRYPTO;
    }
    return EVP_DecryptFinal_ex(cipher, text + length, &length) ? APR_SUCCESS : ABB_ESEAL;
}

/* A cipher with a derived key in it, or NULL. */
static EVP_CIPHER_CTX *make_cipher(const abb_crypto_key_t *key, int seals)
{
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();

    if (!cipher || !EVP_CipherInit_ex2(cipher, aes_256_gcm, key->bytes, NULL, seals, NULL)) {
        EVP_CIPHER_CTX_free(cipher);
        return NULL;
    }
    return cipher;
}

/* Whether some bytes can be a sealed text at all. */
static int has_form(const unsigned char *sealed, apr_size_t size)
{
    return size >= ABB_CRYPTO_SEAL_OVERHEAD && size <= APR_INT32_MAX && sealed[0] == SEAL_FORMAT;
}

typedef struct {
    unsigned char *bytes;
    apr_size_t size;
} wiped_text_t;

static apr_status_t wipe_text(void *data)
{
    wiped_text_t *text = data;

    abb_crypto_wipe(text->bytes, text->size);
    return APR_SUCCESS;
}

unsigned char *abb_crypto_alloc_secret(apr_size_t size, apr_pool_t *p)
{
    wiped_text_t *text = apr_palloc(p, sizeof(*text));

    text->bytes = apr_palloc(p, size);
    text->size = size;
    apr_pool_cleanup_register(p, text, wipe_text, apr_pool_cleanup_null);
    return text->bytes;
}

/* ---- sealing with a key for each text ------------------------------------ */

apr_status_t abb_crypto_seal(const abb_crypto_keyring_t *ring, const abb_crypto_context_t *context,
                             const void *label, apr_size_t label_size, const void *text,
                             apr_size_t size, unsigned char **sealed, apr_size_t *sealed_size,
                             apr_pool_t *p, abb_error_t *err)
{
    bound_t bound = {context_text(context->purpose, context->realm, p), label, label_size};
    unsigned char *out = apr_palloc(p, size + ABB_CRYPTO_SEAL_OVERHEAD);
    abb_crypto_key_t key;
    EVP_CIPHER_CTX *cipher;
    apr_status_t status;
    int done;

    out[0] = SEAL_FORMAT;
    if ((status = key_id(&ring->keys[0], out + 1, err)) != APR_SUCCESS ||
        (status = abb_crypto_random(out + NAME_SIZE, SALT_SIZE + NONCE_SIZE, err)) != APR_SUCCESS ||
        (status = derive_key(&ring->keys[0], context->secret, context->secret_size, bound.info,
                             out + NAME_SIZE, &key, err)) != APR_SUCCESS) {
        return status;
    }
    cipher = make_cipher(&key, 1);
    done = cipher && encrypt(cipher, &bound, text, (int)size, out);
    EVP_CIPHER_CTX_free(cipher);
    abb_crypto_wipe(&key, sizeof(key));
    *sealed = out;
    *sealed_size = size + ABB_CRYPTO_SEAL_OVERHEAD;
    return done ? APR_SUCCESS : cannot_encrypt(err);
}

/* Errors: ABB_ESEAL none of the ring; ABB_ECRYPTO. */
static apr_status_t find_key(const abb_crypto_keyring_t *ring, const unsigned char *id,
                             const abb_crypto_key_t **key)
{
    for (int i = 0; i < ring->count; ++i) {
        unsigned char known[KEY_ID_SIZE];

        if (key_id(&ring->keys[i], known, NULL) != APR_SUCCESS) {
            return ABB_ECRYPTO;
        }
        if (memcmp(known, id, KEY_ID_SIZE) == 0) {
            *key = &ring->keys[i];
            return APR_SUCCESS;
        }
    }
    return ABB_ESEAL;
}

/* The cipher that opens a text, or NULL and why: ABB_ESEAL or ABB_ECRYPTO. */
static EVP_CIPHER_CTX *make_opening(const abb_crypto_keyring_t *ring,
                                    const abb_crypto_context_t *context, const char *info,
                                    const unsigned char *sealed, apr_status_t *status)
{
    const abb_crypto_key_t *ring_key;
    EVP_CIPHER_CTX *cipher = NULL;
    abb_crypto_key_t key;

    if ((*status = find_key(ring, sealed + 1, &ring_key)) != APR_SUCCESS ||
        (*status = derive_key(ring_key, context->secret, context->secret_size, info,
                              sealed + NAME_SIZE, &key, NULL)) != APR_SUCCESS) {
        return NULL;
    }
    if (!(cipher = make_cipher(&key, 0))) {
        *status = ABB_ECRYPTO;
    }
    abb_crypto_wipe(&key, sizeof(key));
    return cipher;
}

apr_status_t abb_crypto_open(const abb_crypto_keyring_t *ring, const abb_crypto_context_t *context,
                             const void *label, apr_size_t label_size, const void *sealed,
                             apr_size_t sealed_size, unsigned char **text, apr_size_t *size,
                             apr_pool_t *p, abb_error_t *err)
{
    const unsigned char *in = sealed;
    bound_t bound = {context_text(context->purpose, context->realm, p), label, label_size};
    apr_status_t status = ABB_ESEAL;
    EVP_CIPHER_CTX *cipher =
        has_form(in, sealed_size) ? make_opening(ring, context, bound.info, in, &status) : NULL;

    if (!cipher) {
        return does_not_open(status, err);
    }
    *size = sealed_size - ABB_CRYPTO_SEAL_OVERHEAD;
    *text = abb_crypto_alloc_secret(*size + 1, p);
    status = decrypt(cipher, &bound, in, *text, (int)*size);
    EVP_CIPHER_CTX_free(cipher);
    if (status != APR_SUCCESS) {
        abb_crypto_wipe(*text, *size);
        return does_not_open(status, err);
    }
    (*text)[*size] = '\0';
    return APR_SUCCESS;
}

/* ---- sealing with keys kept ready ---------------------------------------- */

/* A cipher whose key is derived; one thread at a time uses it. */
typedef struct {
    EVP_CIPHER_CTX *cipher;
    /* What the key was derived from. */
    unsigned char name[NAME_SIZE];
    unsigned char salt[SALT_SIZE];
    int texts;
} ready_t;

struct abb_crypto_sealer_t {
    abb_crypto_keyring_t ring;
    /* Format and id of each key of the ring. */
    unsigned char names[ABB_CRYPTO_KEYS_MAX][NAME_SIZE];
    const char *info;
    /* Those that no thread uses just now; for opening, each in the place of its salt. */
    ready_t *sealing[READY_MAX];
    ready_t *opening[READY_MAX];
};

static void free_ready(ready_t *ready)
{
    if (ready) {
        EVP_CIPHER_CTX_free(ready->cipher);
        OPENSSL_free(ready);
    }
}

static ready_t *take_ready(ready_t **place)
{
    return __atomic_exchange_n(place, NULL, __ATOMIC_ACQUIRE);
}

/* Returns whether the place was free. */
static int give_ready(ready_t **place, ready_t *ready)
{
    ready_t *none = NULL;

    return __atomic_compare_exchange_n(place, &none, ready, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

static ready_t *make_ready(const abb_crypto_sealer_t *sealer, int number, const unsigned char *salt,
                           int seals)
{
    ready_t *ready = OPENSSL_zalloc(sizeof(*ready));
    abb_crypto_key_t key;

    if (!ready) {
        return NULL;
    }
    memcpy(ready->name, sealer->names[number], NAME_SIZE);
    memcpy(ready->salt, salt, SALT_SIZE);
    if (derive_key(&sealer->ring.keys[number], NULL, 0, sealer->info, salt, &key, NULL) ==
        APR_SUCCESS) {
        ready->cipher = make_cipher(&key, seals);
    }
    abb_crypto_wipe(&key, sizeof(key));
    if (!ready->cipher) {
        free_ready(ready);
        return NULL;
    }
    return ready;
}

static apr_status_t destroy_sealer(void *data)
{
    abb_crypto_sealer_t *sealer = data;

    for (int i = 0; i < READY_MAX; ++i) {
        free_ready(take_ready(&sealer->sealing[i]));
        free_ready(take_ready(&sealer->opening[i]));
    }
    abb_crypto_wipe(&sealer->ring, sizeof(sealer->ring));
    return APR_SUCCESS;
}

apr_status_t abb_crypto_sealer_create(abb_crypto_sealer_t **sealer,
                                      const abb_crypto_keyring_t *ring, const char *purpose,
                                      const char *realm, apr_pool_t *p, abb_error_t *err)
{
    abb_crypto_sealer_t *created = apr_pcalloc(p, sizeof(*created));

    for (int i = 0; i < ring->count; ++i) {
        apr_status_t status = key_id(&ring->keys[i], created->names[i] + 1, err);

        if (status != APR_SUCCESS) {
            return status;
        }
        created->names[i][0] = SEAL_FORMAT;
    }
    created->ring = *ring;
    created->info = context_text(purpose, realm, p);
    apr_pool_cleanup_register(p, created, destroy_sealer, apr_pool_cleanup_null);
    *sealer = created;
    return APR_SUCCESS;
}

static ready_t *find_sealing(abb_crypto_sealer_t *sealer, abb_error_t *err)
{
    unsigned char salt[SALT_SIZE];
    ready_t *ready;

    for (int i = 0; i < READY_MAX; ++i) {
        if ((ready = take_ready(&sealer->sealing[i]))) {
            return ready;
        }
    }
    if (abb_crypto_random(salt, sizeof(salt), err) != APR_SUCCESS) {
        return NULL;
    }
    ready = make_ready(sealer, 0, salt, 1);
    if (!ready) {
        cannot_encrypt(err);
    }
    return ready;
}

static void keep_sealing(abb_crypto_sealer_t *sealer, ready_t *ready)
{
    if (++ready->texts < SEALER_TEXTS_MAX) {
        for (int i = 0; i < READY_MAX; ++i) {
            if (give_ready(&sealer->sealing[i], ready)) {
                return;
            }
        }
    }
    free_ready(ready);
}

apr_status_t abb_crypto_sealer_seal(abb_crypto_sealer_t *sealer, const void *label,
                                    apr_size_t label_size, const void *text, apr_size_t size,
                                    unsigned char **sealed, apr_size_t *sealed_size, apr_pool_t *p,
                                    abb_error_t *err)
{
    bound_t bound = {sealer->info, label, label_size};
    unsigned char *out = apr_palloc(p, size + ABB_CRYPTO_SEAL_OVERHEAD);
    ready_t *ready;
    apr_status_t status = abb_crypto_random(out + NAME_SIZE + SALT_SIZE, NONCE_SIZE, err);

    if (status != APR_SUCCESS || !(ready = find_sealing(sealer, err))) {
        return ABB_ECRYPTO;
    }
    memcpy(out, ready->name, NAME_SIZE);
    memcpy(out + NAME_SIZE, ready->salt, SALT_SIZE);
    if (!encrypt(ready->cipher, &bound, text, (int)size, out)) {
        free_ready(ready);
        return cannot_encrypt(err);
    }
    keep_sealing(sealer, ready);
    *sealed = out;
    *sealed_size = size + ABB_CRYPTO_SEAL_OVERHEAD;
    return APR_SUCCESS;
}

static ready_t **opening_place(abb_crypto_sealer_t *sealer, const unsigned char *salt)
{
    return &sealer->opening[salt[0] % READY_MAX];
}

/* The cipher that opens what was sealed under this name and salt, or NULL and why. */
static ready_t *find_opening(abb_crypto_sealer_t *sealer, const unsigned char *name,
                             apr_status_t *status)
{
    const unsigned char *salt = name + NAME_SIZE;
    ready_t **place = opening_place(sealer, salt);
    ready_t *ready = take_ready(place);

    if (ready && memcmp(ready->name, name, NAME_SIZE) == 0 &&
        memcmp(ready->salt, salt, SALT_SIZE) == 0) {
        return ready;
    }
    if (ready && !give_ready(place, ready)) {
        free_ready(ready);
    }
    for (int i = 0; i < sealer->ring.count; ++i) {
        if (memcmp(sealer->names[i], name, NAME_SIZE) == 0) {
            *status = ABB_ECRYPTO;
            return make_ready(sealer, i, salt, 0);
        }
    }
    *status = ABB_ESEAL;
    return NULL;
}

/* The newest takes the place of an older one. */
static void keep_opening(abb_crypto_sealer_t *sealer, ready_t *ready)
{
    free_ready(__atomic_exchange_n(opening_place(sealer, ready->salt), ready, __ATOMIC_ACQ_REL));
}

apr_status_t abb_crypto_sealer_open(abb_crypto_sealer_t *sealer, const void *label,
                                    apr_size_t label_size, const void *sealed,
                                    apr_size_t sealed_size, unsigned char **text, apr_size_t *size,
                                    apr_pool_t *p, abb_error_t *err)
{
    bound_t bound = {sealer->info, label, label_size};
    const unsigned char *in = sealed;
    apr_status_t status = ABB_ESEAL;
    ready_t *ready = has_form(in, sealed_size) ? find_opening(sealer, in, &status) : NULL;

    if (!ready) {
        return does_not_open(status, err);
    }
    *size = sealed_size - ABB_CRYPTO_SEAL_OVERHEAD;
    *text = abb_crypto_alloc_secret(*size + 1, p);
    status = decrypt(ready->cipher, &bound, in, *text, (int)*size);
    if (status != APR_SUCCESS) {
        /* A salt that somebody made up is not worth a place. */
        free_ready(ready);
        abb_crypto_wipe(*text, *size);
        return does_not_open(status, err);
    }
    keep_opening(sealer, ready);
    (*text)[*size] = '\0';
    return APR_SUCCESS;
}

int abb_crypto_equal(const void *a, const void *b, apr_size_t size)
{
    return CRYPTO_memcmp(a, b, size) == 0;
}

void abb_crypto_wipe(void *bytes, apr_size_t size)
{
    OPENSSL_cleanse(bytes, size);
}
