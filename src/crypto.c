/*
 * crypto (floor 1): random bytes, hashes, derived keys, sealed text.
 *
 * Sealed text:
 *
 *   0        1          5                 29                29+n        45+n
 *   +--------+----------+-----------------+-----------------+-----------+
 *   | format | key id   | nonce           | ciphertext      | GCM tag   |
 *   +--------+----------+-----------------+-----------------+-----------+
 *                        12 to HKDF, 12 to AES-GCM
 *
 * Format, key id and context are authenticated as associated data.
 */
#include "abb_crypto.h"

#include <apr_strings.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <string.h>

#define SEAL_FORMAT 1
#define KEY_ID_SIZE 4
#define NONCE_SIZE 24
#define NONCE_KEY_PART 12
#define CIPHER_NONCE_SIZE 12
#define TAG_SIZE 16
#define HEADER_SIZE (1 + KEY_ID_SIZE + NONCE_SIZE)
#define STRETCH_ROUNDS 100000

/* Fetched once: a fetch by name costs more than the hash of a cookie. */
static EVP_MD *sha256;
static EVP_CIPHER *aes_256_gcm;
static EVP_KDF *hkdf;
static EVP_MAC *hmac;

apr_status_t abb_crypto_init(abb_error_t *err)
{
    if (!sha256) {
        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
        aes_256_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
        hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
        hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    }
    if (!sha256 || !aes_256_gcm || !hkdf || !hmac) {
        return abb_error_set(err, ABB_ECRYPTO,
                             "libcrypto offers no SHA-256, AES-256-GCM, HKDF or HMAC");
    }
    return APR_SUCCESS;
}

apr_status_t abb_crypto_random(void *bytes, apr_size_t size, abb_error_t *err)
{
    if (RAND_bytes(bytes, (int)size) != 1) {
        return abb_error_set(err, ABB_ECRYPTO, "libcrypto has no random bytes");
    }
    return APR_SUCCESS;
}

apr_status_t abb_crypto_hash(const void *first, apr_size_t first_size, const void *second,
                             apr_size_t second_size, unsigned char hash[ABB_CRYPTO_KEY_SIZE],
                             abb_error_t *err)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int done = context && EVP_DigestInit_ex2(context, sha256, NULL) &&
               EVP_DigestUpdate(context, first, first_size) &&
               EVP_DigestUpdate(context, second, second_size) &&
               EVP_DigestFinal_ex(context, hash, NULL);

    EVP_MD_CTX_free(context);
    return done ? APR_SUCCESS : abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot hash");
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
static const char *context_text(const abb_crypto_context_t *context, apr_pool_t *p)
{
    return apr_psprintf(p, "%" APR_SIZE_T_FMT ":%s:%s", strlen(context->purpose), context->purpose,
                        context->realm);
}

static apr_status_t derive_key(const abb_crypto_key_t *key, const abb_crypto_context_t *context,
                               const char *info, const unsigned char *nonce,
                               abb_crypto_key_t *derived, apr_pool_t *p, abb_error_t *err)
{
    apr_size_t material_size = sizeof(key->bytes) + context->secret_size;
    unsigned char *material = apr_palloc(p, material_size);
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, material, material_size),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)nonce, NONCE_KEY_PART),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, strlen(info)),
        OSSL_PARAM_construct_end()};
    EVP_KDF_CTX *kdf = EVP_KDF_CTX_new(hkdf);
    int done;

    memcpy(material, key->bytes, sizeof(key->bytes));
    if (context->secret_size) {
        memcpy(material + sizeof(key->bytes), context->secret, context->secret_size);
    }
    done = kdf && EVP_KDF_derive(kdf, derived->bytes, sizeof(derived->bytes), parameters) > 0;
    EVP_KDF_CTX_free(kdf);
    abb_crypto_wipe(material, material_size);
    return done ? APR_SUCCESS : abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot derive a key");
}

static int encrypt(EVP_CIPHER_CTX *cipher, const abb_crypto_key_t *key, unsigned char *sealed,
                   const char *info, const void *text, int size)
{
    unsigned char *out = sealed + HEADER_SIZE;
    int length;

    return cipher &&
           EVP_EncryptInit_ex2(cipher, aes_256_gcm, key->bytes,
                               sealed + HEADER_SIZE - CIPHER_NONCE_SIZE, NULL) &&
           EVP_EncryptUpdate(cipher, NULL, &length, sealed, 1 + KEY_ID_SIZE) &&
           EVP_EncryptUpdate(cipher, NULL, &length, (const unsigned char *)info,
                             (int)strlen(info)) &&
           EVP_EncryptUpdate(cipher, out, &length, text, size) &&
           EVP_EncryptFinal_ex(cipher, out + length, &length) &&
           EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, out + size);
}

apr_status_t abb_crypto_seal(const abb_crypto_keyring_t *ring, const abb_crypto_context_t *context,
                             const void *text, apr_size_t size, unsigned char **sealed,
                             apr_size_t *sealed_size, apr_pool_t *p, abb_error_t *err)
{
    const char *info = context_text(context, p);
    unsigned char *out = apr_palloc(p, size + ABB_CRYPTO_SEAL_OVERHEAD);
    abb_crypto_key_t key;
    EVP_CIPHER_CTX *cipher;
    apr_status_t status;
    int done;

    out[0] = SEAL_FORMAT;
    if ((status = key_id(&ring->keys[0], out + 1, err)) != APR_SUCCESS ||
        (status = abb_crypto_random(out + 1 + KEY_ID_SIZE, NONCE_SIZE, err)) != APR_SUCCESS ||
        (status = derive_key(&ring->keys[0], context, info, out + 1 + KEY_ID_SIZE, &key, p, err)) !=
            APR_SUCCESS) {
        return status;
    }
    cipher = EVP_CIPHER_CTX_new();
    done = encrypt(cipher, &key, out, info, text, (int)size);
    EVP_CIPHER_CTX_free(cipher);
    abb_crypto_wipe(&key, sizeof(key));
    if (!done) {
        return abb_error_set(err, ABB_ECRYPTO, "libcrypto cannot encrypt");
    }
    *sealed = out;
    *sealed_size = size + ABB_CRYPTO_SEAL_OVERHEAD;
    return APR_SUCCESS;
}

static int decrypt(EVP_CIPHER_CTX *cipher, const abb_crypto_key_t *key, const unsigned char *sealed,
                   const char *info, unsigned char *text, int size)
{
    const unsigned char *in = sealed + HEADER_SIZE;
    int length;

    return cipher &&
           EVP_DecryptInit_ex2(cipher, aes_256_gcm, key->bytes,
                               sealed + HEADER_SIZE - CIPHER_NONCE_SIZE, NULL) &&
           EVP_DecryptUpdate(cipher, NULL, &length, sealed, 1 + KEY_ID_SIZE) &&
           EVP_DecryptUpdate(cipher, NULL, &length, (const unsigned char *)info,
                             (int)strlen(info)) &&
           EVP_DecryptUpdate(cipher, text, &length, in, size) &&
           EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, (void *)(in + size)) &&
           EVP_DecryptFinal_ex(cipher, text + length, &length);
}

static const abb_crypto_key_t *find_key(const abb_crypto_keyring_t *ring, const unsigned char *id)
{
    for (int i = 0; i < ring->count; ++i) {
        unsigned char known[KEY_ID_SIZE];

        if (key_id(&ring->keys[i], known, NULL) == APR_SUCCESS &&
            memcmp(known, id, KEY_ID_SIZE) == 0) {
            return &ring->keys[i];
        }
    }
    return NULL;
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

static unsigned char *wiped_alloc(apr_size_t size, apr_pool_t *p)
{
    wiped_text_t *text = apr_palloc(p, sizeof(*text));

    text->bytes = apr_palloc(p, size);
    text->size = size;
    apr_pool_cleanup_register(p, text, wipe_text, apr_pool_cleanup_null);
    return text->bytes;
}

apr_status_t abb_crypto_open(const abb_crypto_keyring_t *ring, const abb_crypto_context_t *context,
                             const void *sealed, apr_size_t sealed_size, unsigned char **text,
                             apr_size_t *size, apr_pool_t *p, abb_error_t *err)
{
    const unsigned char *in = sealed;
    const char *info = context_text(context, p);
    const abb_crypto_key_t *ring_key;
    abb_crypto_key_t key;
    EVP_CIPHER_CTX *cipher;
    int done;

    if (sealed_size < ABB_CRYPTO_SEAL_OVERHEAD || sealed_size > APR_INT32_MAX ||
        in[0] != SEAL_FORMAT || !(ring_key = find_key(ring, in + 1)) ||
        derive_key(ring_key, context, info, in + 1 + KEY_ID_SIZE, &key, p, err) != APR_SUCCESS) {
        return abb_error_set(err, ABB_ESEAL, "sealed text does not open");
    }
    *size = sealed_size - ABB_CRYPTO_SEAL_OVERHEAD;
    *text = wiped_alloc(*size + 1, p);
    cipher = EVP_CIPHER_CTX_new();
    done = decrypt(cipher, &key, in, info, *text, (int)*size);
    EVP_CIPHER_CTX_free(cipher);
    abb_crypto_wipe(&key, sizeof(key));
    if (!done) {
        abb_crypto_wipe(*text, *size);
        return abb_error_set(err, ABB_ESEAL, "sealed text does not open");
    }
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
