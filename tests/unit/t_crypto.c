/* t_crypto: published vectors, and what must not open. */
#include "abb_crypto.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

#define TEXT "attack at dawn"

static int begin(void **state)
{
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
}

static unsigned char *from_hex(const char *hex, apr_pool_t *p)
{
    apr_size_t size = strlen(hex) / 2;
    unsigned char *bytes = apr_palloc(p, size + 1);

    for (apr_size_t i = 0; i < size; ++i) {
        bytes[i] = (unsigned char)strtol(apr_pstrmemdup(p, hex + 2 * i, 2), NULL, 16);
    }
    return bytes;
}

static abb_crypto_keyring_t make_ring(int count, int first)
{
    abb_crypto_keyring_t ring;

    memset(&ring, 0, sizeof(ring));
    ring.count = count;
    for (int i = 0; i < count; ++i) {
        memset(ring.keys[i].bytes, first + i, ABB_CRYPTO_KEY_SIZE);
    }
    return ring;
}

/* Stands before the C library's: gives real bytes, but none when a test says so. */
static int entropy_is_out;

int getentropy(void *bytes, size_t size)
{
    if (entropy_is_out || size > 256) {
        errno = EIO;
        return -1;
    }
    return getrandom(bytes, size, 0) == (ssize_t)size ? 0 : -1;
}

/* libcrypto gets so much memory more; -1: as much as it likes. */
static int allocations_left = -1;
static int was_refused;

static int is_refused(void)
{
    if (allocations_left == 0) {
        was_refused = 1;
        return 1;
    }
    allocations_left -= allocations_left > 0;
    return 0;
}

static void *allocate(size_t size, const char *file, int line)
{
    return is_refused() ? NULL : malloc(size);
}

static void *reallocate(void *bytes, size_t size, const char *file, int line)
{
    return is_refused() ? NULL : realloc(bytes, size);
}

static void release(void *bytes, const char *file, int line)
{
    free(bytes);
}

/* ---- random bytes, hashes, keys --------------------------------------------- */

static void algorithms_load_more_than_once(void **state)
{
    abb_error_t err;

    abb_error_clear(&err);
    assert_int_equal(abb_crypto_init(&err), APR_SUCCESS);
    assert_int_equal(abb_crypto_init(&err), APR_SUCCESS);
    assert_int_equal(err.status, APR_SUCCESS);
}

/* In 64 draws each bit is sometimes set and sometimes not, up to the last byte. */
static void random_bytes_vary_in_each_bit(void **state)
{
    static const unsigned char blank[45] = {0};
    unsigned char ones[45] = {0};
    unsigned char zeros[45] = {0};

    for (int draw = 0; draw < 64; ++draw) {
        unsigned char *bytes = unit_bytes(blank, sizeof(blank), *state);

        assert_int_equal(abb_crypto_random(bytes, sizeof(zeros), NULL), APR_SUCCESS);
        for (apr_size_t i = 0; i < sizeof(zeros); ++i) {
            ones[i] |= bytes[i];
            zeros[i] |= (unsigned char)~bytes[i];
        }
    }
    for (apr_size_t i = 0; i < sizeof(zeros); ++i) {
        assert_int_equal(ones[i], 0xff);
        assert_int_equal(zeros[i], 0xff);
    }
}

static void large_wishes_for_random_bytes_are_met(void **state)
{
    static const unsigned char blank[1000] = {0};

    for (apr_size_t size = 250; size <= 1000; size += 5) {
        unsigned char *bytes = unit_bytes(blank, size, *state);

        assert_int_equal(abb_crypto_random(bytes, size, NULL), APR_SUCCESS);
        for (apr_size_t i = 0; i + 8 <= size; ++i) {
            assert_memory_not_equal(bytes + i, blank, 8);
        }
    }
}

static void no_random_bytes_are_an_error(void **state)
{
    unsigned char bytes[32];
    abb_error_t err;

    abb_error_clear(&err);
    entropy_is_out = 1;
    assert_int_equal(abb_crypto_random(bytes, sizeof(bytes), &err), ABB_ECRYPTO);
    entropy_is_out = 0;
    assert_int_equal(err.status, ABB_ECRYPTO);
    assert_int_equal(abb_crypto_random(bytes, sizeof(bytes), NULL), APR_SUCCESS);
}

/* FIPS 180-4's examples (NIST, "Cryptographic Standards and Guidelines: Example Values"). */
static const struct {
    const char *text;
    const char *hash;
} sha256_vectors[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqr"
     "lmnopqrsmnopqrstnopqrstu",
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};

static void hashes_are_sha_256_of_both_texts(void **state)
{
    for (apr_size_t i = 0; i < UNIT_COUNT(sha256_vectors); ++i) {
        const char *text = sha256_vectors[i].text;
        apr_size_t size = strlen(text);
        unsigned char *expected = from_hex(sha256_vectors[i].hash, *state);

        for (apr_size_t split = 0; split <= size; ++split) {
            unsigned char hash[ABB_CRYPTO_KEY_SIZE];

            assert_int_equal(abb_crypto_hash(unit_bytes(text, split, *state), split,
                                             unit_bytes(text + split, size - split, *state),
                                             size - split, hash, NULL),
                             APR_SUCCESS);
            assert_memory_equal(hash, expected, sizeof(hash));
        }
    }
}

static void a_million_bytes_are_hashed(void **state)
{
    unsigned char hash[ABB_CRYPTO_KEY_SIZE];
    char *text = unit_repeat('a', 1000000, *state);

    assert_int_equal(abb_crypto_hash(text, 1000000, NULL, 0, hash, NULL), APR_SUCCESS);
    assert_memory_equal(
        hash, from_hex("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", *state),
        sizeof(hash));
}

/* What one call leaves behind is not in the way of the next, nor after a release. */
static void hashes_are_alike_however_often(void **state)
{
    unsigned char *expected = from_hex(sha256_vectors[1].hash, *state);
    unsigned char hash[ABB_CRYPTO_KEY_SIZE];

    for (int i = 0; i < 100; ++i) {
        assert_int_equal(abb_crypto_hash("ab", 2, "c", 1, hash, NULL), APR_SUCCESS);
        assert_memory_equal(hash, expected, sizeof(hash));
        if (i % 10 == 0) {
            abb_crypto_release();
            assert_int_equal(abb_crypto_init(NULL), APR_SUCCESS);
        }
    }
}

static void absent_texts_hash_like_empty_ones(void **state)
{
    unsigned char hash[ABB_CRYPTO_KEY_SIZE];

    assert_int_equal(abb_crypto_hash(NULL, 0, NULL, 0, hash, NULL), APR_SUCCESS);
    assert_memory_equal(hash, from_hex(sha256_vectors[0].hash, *state), sizeof(hash));
}

/*
 * RFC 4231. HMAC pads a short key with zeros and hashes a long one, so that keys
 * of other sizes can be given as keys of 32 bytes.
 */
static const struct {
    const char *key;
    const char *text;
    const char *code;
} hmac_vectors[] = {
    {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
    {"4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
     "dddddddd",
     "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
    {"0102030405060708090a0b0c0d0e0f10111213141516171819",
     "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
     "cdcdcdcd",
     "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
};

static void check_code(const abb_crypto_key_t *key, const void *text, apr_size_t size,
                       const char *expected, apr_pool_t *p)
{
    unsigned char code[ABB_CRYPTO_KEY_SIZE];

    assert_int_equal(abb_crypto_authenticate(key, text, size, code, NULL), APR_SUCCESS);
    assert_memory_equal(code, from_hex(expected, p), sizeof(code));
}

static void codes_are_hmac_sha_256(void **state)
{
    for (apr_size_t i = 0; i < UNIT_COUNT(hmac_vectors); ++i) {
        abb_crypto_key_t key = {{0}};

        memcpy(key.bytes, from_hex(hmac_vectors[i].key, *state), strlen(hmac_vectors[i].key) / 2);
        check_code(&key, from_hex(hmac_vectors[i].text, *state), strlen(hmac_vectors[i].text) / 2,
                   hmac_vectors[i].code, *state);
    }
}

/* RFC 4231 cases 6 and 7: 131 bytes of key, that is the hash of them. */
static void codes_under_long_keys_are_hmac_sha_256(void **state)
{
    static const char text6[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    static const char text7[] = "This is a test using a larger than block-size key and a larger "
                                "than block-size data. The key needs to be hashed before being "
                                "used by the HMAC algorithm.";
    abb_crypto_key_t key;

    assert_int_equal(
        abb_crypto_hash(unit_repeat('\xaa', 131, *state), 131, NULL, 0, key.bytes, NULL),
        APR_SUCCESS);
    check_code(&key, text6, strlen(text6),
               "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54", *state);
    check_code(&key, text7, strlen(text7),
               "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2", *state);
}

/*
 * Computed by Python's hashlib.pbkdf2_hmac. Another result would be another key
 * after an upgrade, and end all sessions.
 */
static void passphrases_stretch_to_the_same_key_for_ever(void **state)
{
    abb_crypto_key_t key;

    assert_int_equal(abb_crypto_stretch("correct horse battery staple 1234", &key, NULL),
                     APR_SUCCESS);
    assert_memory_equal(
        key.bytes,
        from_hex("289d39264d057b5ca56dea47600bc535bc1892e5493fa508c23dd9baf4136b10", *state),
        sizeof(key.bytes));
}

static void short_passphrases_are_refused(void **state)
{
    for (apr_size_t length = 0; length < ABB_CRYPTO_PASSPHRASE_MIN; ++length) {
        abb_crypto_key_t key;
        abb_error_t err;

        abb_error_clear(&err);
        assert_int_equal(abb_crypto_stretch(unit_repeat('q', length, *state), &key, &err),
                         ABB_EINPUT);
        assert_int_equal(err.status, ABB_EINPUT);
        assert_null(strstr(err.text, "qq"));
    }
}

static void long_passphrases_differ_up_to_their_end(void **state)
{
    char *text = unit_repeat('q', 4096, *state);
    abb_crypto_key_t keys[3];

    assert_int_equal(
        abb_crypto_stretch(unit_repeat('q', ABB_CRYPTO_PASSPHRASE_MIN, *state), &keys[0], NULL),
        APR_SUCCESS);
    assert_int_equal(abb_crypto_stretch(text, &keys[1], NULL), APR_SUCCESS);
    text[4095] = 'r';
    assert_int_equal(abb_crypto_stretch(text, &keys[2], NULL), APR_SUCCESS);
    assert_memory_not_equal(&keys[0], &keys[1], sizeof(keys[0]));
    assert_memory_not_equal(&keys[1], &keys[2], sizeof(keys[0]));
}

static void secrets_compare_by_all_their_bytes(void **state)
{
    unsigned char a[32];
    unsigned char b[32];

    memset(a, 7, sizeof(a));
    memset(b, 7, sizeof(b));
    assert_true(abb_crypto_equal(a, b, sizeof(a)));
    assert_true(abb_crypto_equal(a, b, 0));
    for (apr_size_t i = 0; i < sizeof(a); ++i) {
        for (int bit = 1; bit < 256; bit <<= 1) {
            b[i] ^= (unsigned char)bit;
            assert_false(abb_crypto_equal(a, b, sizeof(a)));
            assert_true(abb_crypto_equal(a, b, i));
            b[i] ^= (unsigned char)bit;
        }
    }
}

static void a_wiped_secret_is_gone_and_no_more(void **state)
{
    char text[] = "before SECRET after";

    abb_crypto_wipe(text + 7, 6);
    assert_memory_equal(text, "before \0\0\0\0\0\0 after", sizeof(text));
    abb_crypto_wipe(text, 0);
    assert_int_equal(text[0], 'b');
}

/* ---- sealed text ----------------------------------------------------------------- */

static const abb_crypto_context_t plain = {"unit", "key@wiki.example.com", NULL, 0};

typedef struct {
    unsigned char *bytes;
    apr_size_t size;
} sealed_t;

static sealed_t seal(const abb_crypto_keyring_t *ring, const abb_crypto_context_t *context,
                     const void *text, apr_size_t size, apr_pool_t *p)
{
    sealed_t sealed;
    unsigned char *bytes;

    assert_int_equal(
        abb_crypto_seal(ring, context, NULL, 0, text, size, &bytes, &sealed.size, p, NULL),
        APR_SUCCESS);
    assert_int_equal(sealed.size, size + ABB_CRYPTO_SEAL_OVERHEAD);
    sealed.bytes = unit_bytes(bytes, sealed.size, p);
    return sealed;
}

static void check_opens(const abb_crypto_keyring_t *ring, const abb_crypto_context_t *context,
                        const sealed_t *sealed, const void *text, apr_size_t size, apr_pool_t *p)
{
    unsigned char *opened;
    apr_size_t opened_size;
    abb_error_t err;

    abb_error_clear(&err);
    assert_int_equal(abb_crypto_open(ring, context, NULL, 0, sealed->bytes, sealed->size, &opened,
                                     &opened_size, p, &err),
                     APR_SUCCESS);
    assert_int_equal(err.status, APR_SUCCESS);
    assert_int_equal(opened_size, size);
    assert_memory_equal(opened, text, size);
    assert_int_equal(opened[size], '\0');
}

/* Does not open, and says the same whatever the cause. */
static void check_refused(const abb_crypto_keyring_t *ring, const abb_crypto_context_t *context,
                          const void *bytes, apr_size_t size, const char *what, apr_pool_t *p)
{
    static char said[ABB_ERROR_TEXT_SIZE];
    unsigned char *opened;
    apr_size_t opened_size;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_crypto_open(ring, context, NULL, 0, bytes, size, &opened, &opened_size, p, &err) !=
        ABB_ESEAL) {
        fail_msg("%s: it opens", what);
    }
    assert_int_equal(err.status, ABB_ESEAL);
    if (!said[0]) {
        apr_cpystrn(said, err.text, sizeof(said));
    }
    assert_string_equal(err.text, said);
    assert_int_equal(
        abb_crypto_open(ring, context, NULL, 0, bytes, size, &opened, &opened_size, p, NULL),
        ABB_ESEAL);
}

static void sealed_text_opens_in_any_size(void **state)
{
    static const apr_size_t sizes[] = {0, 1, 15, 16, 17, 31, 32, 33, 1000, 65536, 1048576};
    abb_crypto_keyring_t ring = make_ring(1, 1);

    for (apr_size_t i = 0; i < UNIT_COUNT(sizes); ++i) {
        char *text = unit_bytes(unit_repeat('t', sizes[i], *state), sizes[i], *state);
        sealed_t sealed = seal(&ring, &plain, text, sizes[i], *state);

        check_opens(&ring, &plain, &sealed, text, sizes[i], *state);
    }
}

static void sealed_text_may_hold_any_byte(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    unsigned char text[256];
    sealed_t sealed;

    for (int i = 0; i < 256; ++i) {
        text[i] = (unsigned char)i;
    }
    sealed = seal(&ring, &plain, text, sizeof(text), *state);
    check_opens(&ring, &plain, &sealed, text, sizeof(text), *state);
}

/*
 * Sealed by Python's cryptography (HKDF, AESGCM) and hmac after the description
 * in the header: records outlive an upgrade.
 */
static void text_sealed_by_another_implementation_opens(void **state)
{
    static const abb_crypto_context_t context = {"unit", "key@wiki.example.com", "cookie", 6};
    abb_crypto_keyring_t ring = make_ring(1, 0);
    sealed_t sealed;

    for (int i = 0; i < ABB_CRYPTO_KEY_SIZE; ++i) {
        ring.keys[0].bytes[i] = (unsigned char)i;
    }
    sealed.size = ABB_CRYPTO_SEAL_OVERHEAD + 16;
    sealed.bytes = from_hex("0186517456404142434445464748494a4b4c4d4e4f505152535455565769b25caff8bd"
                            "f2ae7f6d104f5b29529148631afeb7167ec1e7d37701ffeffe98",
                            *state);
    check_opens(&ring, &context, &sealed, "sealed elsewhere", 16, *state);
}

static void sealed_text_does_not_show_the_text(void **state)
{
    static const abb_crypto_context_t context = {"purposepurpose", "realmrealm", "cookiecookie",
                                                 12};
    abb_crypto_keyring_t ring = make_ring(1, 'K');
    sealed_t sealed = seal(&ring, &context, "textmatter", 10, *state);

    for (apr_size_t i = 0; i + 4 <= sealed.size; ++i) {
        assert_memory_not_equal(sealed.bytes + i, "text", 4);
        assert_memory_not_equal(sealed.bytes + i, "real", 4);
        assert_memory_not_equal(sealed.bytes + i, "cook", 4);
        assert_memory_not_equal(sealed.bytes + i, "KKKK", 4);
    }
}

/* Nonce, ciphertext and tag all differ; what is equal is format and key id. */
static void one_text_is_never_sealed_alike(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    sealed_t seals[20];

    for (int i = 0; i < 20; ++i) {
        seals[i] = seal(&ring, &plain, TEXT, sizeof(TEXT), *state);
        for (int j = 0; j < i; ++j) {
            assert_memory_equal(seals[i].bytes, seals[j].bytes, 5);
            assert_memory_not_equal(seals[i].bytes + 5, seals[j].bytes + 5, 12);
            assert_memory_not_equal(seals[i].bytes + 17, seals[j].bytes + 17, 12);
            assert_memory_not_equal(seals[i].bytes + 29, seals[j].bytes + 29, sizeof(TEXT));
            assert_memory_not_equal(seals[i].bytes + 29 + sizeof(TEXT),
                                    seals[j].bytes + 29 + sizeof(TEXT), 16);
        }
    }
}

static void each_changed_bit_is_noticed(void **state)
{
    abb_crypto_keyring_t ring = make_ring(2, 1);
    sealed_t sealed = seal(&ring, &plain, TEXT, sizeof(TEXT), *state);

    for (apr_size_t i = 0; i < sealed.size; ++i) {
        for (int bit = 1; bit < 256; bit <<= 1) {
            sealed.bytes[i] ^= (unsigned char)bit;
            check_refused(&ring, &plain, sealed.bytes, sealed.size,
                          apr_psprintf(*state, "byte %d, bit %02x", (int)i, bit), *state);
            sealed.bytes[i] ^= (unsigned char)bit;
        }
    }
    check_opens(&ring, &plain, &sealed, TEXT, sizeof(TEXT), *state);
}

static void cut_and_lengthened_text_is_refused(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    sealed_t sealed = seal(&ring, &plain, TEXT, sizeof(TEXT), *state);
    unsigned char *longer = apr_pcalloc(*state, sealed.size + 1);

    for (apr_size_t size = 0; size < sealed.size; ++size) {
        check_refused(&ring, &plain, unit_bytes(sealed.bytes, size, *state), size, "cut", *state);
        check_refused(&ring, &plain, unit_bytes(sealed.bytes + sealed.size - size, size, *state),
                      size, "cut at its start", *state);
    }
    memcpy(longer, sealed.bytes, sealed.size);
    check_refused(&ring, &plain, longer, sealed.size + 1, "lengthened", *state);
    memcpy(longer + 1, sealed.bytes, sealed.size);
    check_refused(&ring, &plain, longer, sealed.size + 1, "lengthened at its start", *state);
}

static void an_empty_seal_is_refused_when_changed(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    sealed_t sealed = seal(&ring, &plain, "", 0, *state);

    for (apr_size_t i = 0; i < sealed.size; ++i) {
        sealed.bytes[i] ^= 1;
        check_refused(&ring, &plain, sealed.bytes, sealed.size, "empty text", *state);
        sealed.bytes[i] ^= 1;
    }
}

static void parts_of_two_seals_do_not_make_a_third(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    sealed_t a = seal(&ring, &plain, TEXT, sizeof(TEXT), *state);
    sealed_t b = seal(&ring, &plain, TEXT, sizeof(TEXT), *state);
    static const apr_size_t cuts[] = {17, 29, 29 + sizeof(TEXT)};

    for (apr_size_t i = 0; i < UNIT_COUNT(cuts); ++i) {
        unsigned char *mixed = unit_bytes(a.bytes, a.size, *state);

        memcpy(mixed + cuts[i], b.bytes + cuts[i], b.size - cuts[i]);
        check_refused(&ring, &plain, mixed, a.size, "mixed", *state);
    }
}

/* Pairs whose members would be one when merely written one after the other. */
static const abb_crypto_context_t contexts[] = {
    {"unit", "key@wiki.example.com", NULL, 0},
    {"unit", "key@wiki.example.org", NULL, 0},
    {"unit", "Key@wiki.example.com", NULL, 0},
    {"unit", "key@wiki.example.com", "", 1},
    {"unit", "key@wiki.example.com", "a", 1},
    {"unit", "key@wiki.example.com", "a", 2},
    {"unit", "key@wiki.example.com", "ab", 2},
    {"unit", "key@wiki.example.coma", NULL, 0},
    {"unit", "", NULL, 0},
    {"unitkey", "@wiki.example.com", NULL, 0},
    {"unitk", "ey@wiki.example.com", NULL, 0},
    {"unitkey@wiki.example.com", "", NULL, 0},
    {"", "unitkey@wiki.example.com", NULL, 0},
    {"unit:key", "@wiki.example.com", NULL, 0},
    {"unit", "key:@wiki.example.com", NULL, 0},
    {"unit:key:", "@wiki.example.com", NULL, 0},
    {"a", "b:c", NULL, 0},
    {"a:b", "c", NULL, 0},
    {"a:b:c", "", NULL, 0},
    {"", "a:b:c", NULL, 0},
    {"1:a", "b:c", NULL, 0},
    {"1", "1:a:b:c", NULL, 0},
    {"", "1:a:b:c", NULL, 0},
    {"a\n", "b", NULL, 0},
    {"a", "\nb", NULL, 0},
};

static void text_opens_in_its_own_context_only(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);

    for (apr_size_t i = 0; i < UNIT_COUNT(contexts); ++i) {
        sealed_t sealed = seal(&ring, &contexts[i], TEXT, sizeof(TEXT), *state);

        for (apr_size_t j = 0; j < UNIT_COUNT(contexts); ++j) {
            if (i == j) {
                check_opens(&ring, &contexts[j], &sealed, TEXT, sizeof(TEXT), *state);
            }
            else {
                check_refused(&ring, &contexts[j], sealed.bytes, sealed.size,
                              apr_psprintf(*state, "context %d in %d", (int)i, (int)j), *state);
            }
        }
    }
}

static void each_byte_of_key_and_secret_counts(void **state)
{
    unsigned char secret[32];
    abb_crypto_context_t context = {"unit", "realm", secret, sizeof(secret)};
    abb_crypto_keyring_t ring = make_ring(1, 1);
    sealed_t sealed;

    memset(secret, 's', sizeof(secret));
    sealed = seal(&ring, &context, TEXT, sizeof(TEXT), *state);
    for (int i = 0; i < 32; ++i) {
        secret[i] ^= 1;
        check_refused(&ring, &context, sealed.bytes, sealed.size, "other secret", *state);
        secret[i] ^= 1;
        ring.keys[0].bytes[i] ^= 1;
        check_refused(&ring, &context, sealed.bytes, sealed.size, "other key", *state);
        ring.keys[0].bytes[i] ^= 1;
    }
    context.secret_size = 31;
    check_refused(&ring, &context, sealed.bytes, sealed.size, "cut secret", *state);
    context.secret_size = 32;
    check_opens(&ring, &context, &sealed, TEXT, sizeof(TEXT), *state);
}

/* The id in the head names a key, but only the key itself opens. */
static void a_borrowed_key_id_opens_nothing(void **state)
{
    abb_crypto_keyring_t ours = make_ring(1, 1);
    abb_crypto_keyring_t theirs = make_ring(1, 2);
    sealed_t known = seal(&ours, &plain, TEXT, sizeof(TEXT), *state);
    sealed_t forged = seal(&theirs, &plain, TEXT, sizeof(TEXT), *state);

    assert_memory_not_equal(known.bytes + 1, forged.bytes + 1, 4);
    memcpy(forged.bytes + 1, known.bytes + 1, 4);
    check_refused(&ours, &plain, forged.bytes, forged.size, "borrowed key id", *state);
    check_refused(&theirs, &plain, forged.bytes, forged.size, "foreign key id", *state);
}

static void all_keys_open_but_the_first_seals(void **state)
{
    abb_crypto_keyring_t all = make_ring(ABB_CRYPTO_KEYS_MAX, 1);

    for (int i = 0; i < ABB_CRYPTO_KEYS_MAX; ++i) {
        abb_crypto_keyring_t one = make_ring(1, 1 + i);
        sealed_t by_one = seal(&one, &plain, TEXT, sizeof(TEXT), *state);
        sealed_t by_all = seal(&all, &plain, TEXT, sizeof(TEXT), *state);

        check_opens(&all, &plain, &by_one, TEXT, sizeof(TEXT), *state);
        if (i == 0) {
            check_opens(&one, &plain, &by_all, TEXT, sizeof(TEXT), *state);
        }
        else {
            check_refused(&one, &plain, by_all.bytes, by_all.size, "not the first key", *state);
        }
    }
}

static void a_key_taken_from_the_ring_opens_no_more(void **state)
{
    abb_crypto_keyring_t before = make_ring(2, 1);
    abb_crypto_keyring_t after = make_ring(2, 2);
    sealed_t sealed = seal(&before, &plain, TEXT, sizeof(TEXT), *state);

    check_refused(&after, &plain, sealed.bytes, sealed.size, "dropped key", *state);
    before.count = 1;
    check_opens(&before, &plain, &sealed, TEXT, sizeof(TEXT), *state);
    before.count = 0;
    check_refused(&before, &plain, sealed.bytes, sealed.size, "no keys", *state);
}

typedef struct {
    unsigned char *text;
    apr_size_t size;
    int left;
} wiped_t;

/* Registered before the text was opened, so it runs after the room's own cleanup. */
static apr_status_t count_left(void *data)
{
    wiped_t *wiped = data;

    for (apr_size_t i = 0; i < wiped->size; ++i) {
        wiped->left += wiped->text[i] == (unsigned char)TEXT[i];
    }
    return APR_SUCCESS;
}

static void opened_text_is_wiped_with_its_pool(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    sealed_t sealed = seal(&ring, &plain, TEXT, strlen(TEXT), *state);
    wiped_t wiped = {NULL, 0, 0};
    apr_pool_t *p;

    assert_int_equal(apr_pool_create(&p, *state), APR_SUCCESS);
    apr_pool_cleanup_register(p, &wiped, count_left, apr_pool_cleanup_null);
    assert_int_equal(abb_crypto_open(&ring, &plain, NULL, 0, sealed.bytes, sealed.size, &wiped.text,
                                     &wiped.size, p, NULL),
                     APR_SUCCESS);
    assert_memory_equal(wiped.text, TEXT, strlen(TEXT));
    apr_pool_destroy(p);
    assert_int_equal(wiped.size, strlen(TEXT));
    assert_int_equal(wiped.left, 0);
}

/* ---- sealers --------------------------------------------------------------------- */

/* More than are ever kept ready, so that some threads find none. */
#define THREADS 24
#define TEXTS_PER_THREAD 500
#define NONCE_AT 5
#define NONCE_LENGTH 24

static abb_crypto_sealer_t *make_sealer(const abb_crypto_keyring_t *ring, apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer;

    assert_int_equal(abb_crypto_sealer_create(&sealer, ring, plain.purpose, plain.realm, p, NULL),
                     APR_SUCCESS);
    return sealer;
}

static sealed_t seal_labelled(abb_crypto_sealer_t *sealer, const char *label, const void *text,
                              apr_size_t size, apr_pool_t *p)
{
    apr_size_t label_size = label ? strlen(label) : 0;
    sealed_t sealed;
    unsigned char *bytes;

    assert_int_equal(abb_crypto_sealer_seal(sealer, label, label_size, text, size, &bytes,
                                            &sealed.size, p, NULL),
                     APR_SUCCESS);
    assert_int_equal(sealed.size, size + ABB_CRYPTO_SEAL_OVERHEAD);
    sealed.bytes = unit_bytes(bytes, sealed.size, p);
    return sealed;
}

static void check_sealer_opens(abb_crypto_sealer_t *sealer, const char *label,
                               const sealed_t *sealed, const void *text, apr_size_t size,
                               apr_pool_t *p)
{
    unsigned char *opened;
    apr_size_t opened_size;

    assert_int_equal(abb_crypto_sealer_open(sealer, label, label ? strlen(label) : 0, sealed->bytes,
                                            sealed->size, &opened, &opened_size, p, NULL),
                     APR_SUCCESS);
    assert_int_equal(opened_size, size);
    assert_memory_equal(opened, text, size);
    assert_int_equal(opened[size], '\0');
}

static void check_sealer_refuses(abb_crypto_sealer_t *sealer, const char *label, const void *bytes,
                                 apr_size_t size, const char *what, apr_pool_t *p)
{
    apr_size_t label_size = label ? strlen(label) : 0;
    unsigned char *opened;
    apr_size_t opened_size;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_crypto_sealer_open(sealer, label, label_size, bytes, size, &opened, &opened_size, p,
                               &err) != ABB_ESEAL) {
        fail_msg("%s: it opens", what);
    }
    assert_int_equal(err.status, ABB_ESEAL);
    assert_string_equal(err.text, "sealed text does not open");
}

/* Sealed and opened with or without a sealer, it is the same. */
static void a_sealer_keeps_to_the_one_form(void **state)
{
    static const apr_size_t sizes[] = {0, 1, 16, 33, 65536};
    abb_crypto_keyring_t ring = make_ring(2, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);

    for (apr_size_t i = 0; i < UNIT_COUNT(sizes); ++i) {
        char *text = unit_bytes(unit_repeat('t', sizes[i], *state), sizes[i], *state);
        sealed_t by_sealer = seal_labelled(sealer, NULL, text, sizes[i], *state);
        sealed_t by_hand = seal(&ring, &plain, text, sizes[i], *state);

        check_opens(&ring, &plain, &by_sealer, text, sizes[i], *state);
        check_sealer_opens(sealer, NULL, &by_sealer, text, sizes[i], *state);
        check_sealer_opens(sealer, NULL, &by_hand, text, sizes[i], *state);
        check_sealer_opens(make_sealer(&ring, *state), NULL, &by_sealer, text, sizes[i], *state);
    }
}

/* The salt may stay, the nonce never does. */
static void a_sealer_never_seals_alike(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);
    sealed_t seals[100];

    for (int i = 0; i < 100; ++i) {
        seals[i] = seal_labelled(sealer, NULL, TEXT, sizeof(TEXT), *state);
        for (int j = 0; j < i; ++j) {
            assert_memory_equal(seals[i].bytes, seals[j].bytes, 17);
            assert_memory_not_equal(seals[i].bytes + 17, seals[j].bytes + 17, 12);
            assert_memory_not_equal(seals[i].bytes + 29, seals[j].bytes + 29, sizeof(TEXT));
        }
    }
}

static void a_sealer_draws_a_salt_of_its_own(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    sealed_t one = seal_labelled(make_sealer(&ring, *state), NULL, TEXT, sizeof(TEXT), *state);
    sealed_t other = seal_labelled(make_sealer(&ring, *state), NULL, TEXT, sizeof(TEXT), *state);

    assert_memory_equal(one.bytes, other.bytes, 5);
    assert_memory_not_equal(one.bytes + 5, other.bytes + 5, 12);
}

/* A million texts, then another salt. */
static void a_sealer_changes_its_salt_in_time(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);
    sealed_t first = seal_labelled(sealer, NULL, "x", 1, *state);
    apr_pool_t *p;

    assert_int_equal(apr_pool_create(&p, *state), APR_SUCCESS);
    for (int i = 1; i <= 1 << 20; ++i) {
        unsigned char *sealed;
        apr_size_t size;

        assert_int_equal(abb_crypto_sealer_seal(sealer, NULL, 0, "x", 1, &sealed, &size, p, NULL),
                         APR_SUCCESS);
        assert_int_equal(memcmp(sealed + NONCE_AT, first.bytes + NONCE_AT, 12) == 0, i < 1 << 20);
        if (i % 1000 == 0) {
            apr_pool_clear(p);
        }
    }
    check_sealer_opens(sealer, NULL, &first, "x", 1, *state);
}

static void a_text_opens_with_its_own_label_only(void **state)
{
    static const char *const labels[] = {NULL, "a", "ab", "b", "slot-1", "slot-2", "slot-1 "};
    abb_crypto_keyring_t ring = make_ring(1, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);

    for (apr_size_t i = 0; i < UNIT_COUNT(labels); ++i) {
        sealed_t sealed = seal_labelled(sealer, labels[i], TEXT, sizeof(TEXT), *state);

        for (apr_size_t j = 0; j < UNIT_COUNT(labels); ++j) {
            if (i == j) {
                check_sealer_opens(sealer, labels[j], &sealed, TEXT, sizeof(TEXT), *state);
            }
            else {
                check_sealer_refuses(sealer, labels[j], sealed.bytes, sealed.size, "other label",
                                     *state);
            }
        }
        if (labels[i]) {
            check_refused(&ring, &plain, sealed.bytes, sealed.size, "a label left out", *state);
        }
    }
}

/* A label cannot pass for part of the realm: the realm is in the key. */
static void a_label_is_no_part_of_the_realm(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);
    abb_crypto_sealer_t *longer;
    sealed_t sealed = seal_labelled(sealer, ".org", TEXT, sizeof(TEXT), *state);

    assert_int_equal(abb_crypto_sealer_create(&longer, &ring, plain.purpose,
                                              apr_pstrcat(*state, plain.realm, ".org", NULL),
                                              *state, NULL),
                     APR_SUCCESS);
    check_sealer_refuses(longer, NULL, sealed.bytes, sealed.size, "label as realm", *state);
}

static void a_sealer_notices_each_changed_bit(void **state)
{
    abb_crypto_keyring_t ring = make_ring(2, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);
    sealed_t sealed = seal_labelled(sealer, "slot", TEXT, sizeof(TEXT), *state);

    for (apr_size_t i = 0; i < sealed.size; ++i) {
        for (int bit = 1; bit < 256; bit <<= 1) {
            sealed.bytes[i] ^= (unsigned char)bit;
            check_sealer_refuses(sealer, "slot", sealed.bytes, sealed.size, "changed bit", *state);
            sealed.bytes[i] ^= (unsigned char)bit;
            check_sealer_opens(sealer, "slot", &sealed, TEXT, sizeof(TEXT), *state);
        }
    }
    for (apr_size_t size = 0; size < sealed.size; ++size) {
        check_sealer_refuses(sealer, "slot", unit_bytes(sealed.bytes, size, *state), size, "cut",
                             *state);
    }
}

static void a_sealer_opens_with_all_its_keys(void **state)
{
    abb_crypto_keyring_t all = make_ring(ABB_CRYPTO_KEYS_MAX, 1);
    abb_crypto_keyring_t none = make_ring(0, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&all, *state);

    for (int i = 0; i < ABB_CRYPTO_KEYS_MAX; ++i) {
        abb_crypto_keyring_t one = make_ring(1, 1 + i);
        sealed_t by_one = seal_labelled(make_sealer(&one, *state), NULL, TEXT, 4, *state);

        check_sealer_opens(sealer, NULL, &by_one, TEXT, 4, *state);
        check_sealer_refuses(make_sealer(&none, *state), NULL, by_one.bytes, by_one.size, "no keys",
                             *state);
    }
    check_opens(&all, &plain, (sealed_t[]){seal_labelled(sealer, NULL, TEXT, 4, *state)}, TEXT, 4,
                *state);
}

/* More salts than are kept ready: each text still opens, in any order. */
static void texts_of_many_sealers_open(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);
    sealed_t seals[100];

    for (int i = 0; i < 100; ++i) {
        seals[i] = seal_labelled(make_sealer(&ring, *state), NULL, &i, sizeof(i), *state);
    }
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 100; ++i) {
            check_sealer_opens(sealer, NULL, &seals[i], &i, sizeof(i), *state);
        }
    }
}

static void a_sealer_without_random_bytes_seals_nothing(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);

    for (int i = 0; i < 2; ++i) {
        unsigned char *sealed;
        apr_size_t size;
        abb_error_t err;

        abb_error_clear(&err);
        entropy_is_out = 1;
        assert_int_equal(
            abb_crypto_sealer_seal(sealer, NULL, 0, TEXT, 4, &sealed, &size, *state, &err),
            ABB_ECRYPTO);
        entropy_is_out = 0;
        assert_int_equal(err.status, ABB_ECRYPTO);
        /* The second time there is a key ready. */
        seal_labelled(sealer, NULL, TEXT, 4, *state);
    }
}

typedef struct {
    abb_crypto_sealer_t *sealer;
    apr_pool_t *p;
    unsigned char nonces[TEXTS_PER_THREAD][NONCE_LENGTH];
    int failures;
} worker_t;

static void *seal_and_open(void *data)
{
    worker_t *worker = data;

    for (int i = 0; i < TEXTS_PER_THREAD; ++i) {
        unsigned char *sealed;
        unsigned char *text;
        apr_size_t sealed_size;
        apr_size_t size;

        if (abb_crypto_sealer_seal(worker->sealer, &i, sizeof(i), TEXT, sizeof(TEXT), &sealed,
                                   &sealed_size, worker->p, NULL) != APR_SUCCESS ||
            abb_crypto_sealer_open(worker->sealer, &i, sizeof(i), sealed, sealed_size, &text, &size,
                                   worker->p, NULL) != APR_SUCCESS ||
            size != sizeof(TEXT) || memcmp(text, TEXT, size) != 0) {
            ++worker->failures;
            continue;
        }
        memcpy(worker->nonces[i], sealed + NONCE_AT, NONCE_LENGTH);
    }
    return NULL;
}

static int compare_nonces(const void *a, const void *b)
{
    return memcmp(a, b, NONCE_LENGTH);
}

static void check_all_differ(unsigned char (*nonces)[NONCE_LENGTH], apr_size_t count)
{
    qsort(nonces, count, NONCE_LENGTH, compare_nonces);
    for (apr_size_t i = 1; i < count; ++i) {
        assert_memory_not_equal(nonces[i - 1], nonces[i], NONCE_LENGTH);
    }
}

static void threads_share_a_sealer(void **state)
{
    static unsigned char nonces[THREADS * TEXTS_PER_THREAD][NONCE_LENGTH];
    abb_crypto_keyring_t ring = make_ring(1, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);
    worker_t *workers = apr_pcalloc(*state, THREADS * sizeof(*workers));
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; ++i) {
        workers[i].sealer = sealer;
        assert_int_equal(apr_pool_create_unmanaged_ex(&workers[i].p, NULL, NULL), APR_SUCCESS);
        assert_int_equal(pthread_create(&threads[i], NULL, seal_and_open, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; ++i) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].failures, 0);
        memcpy(nonces[i * TEXTS_PER_THREAD], workers[i].nonces, sizeof(workers[i].nonces));
        apr_pool_destroy(workers[i].p);
    }
    check_all_differ(nonces, THREADS * TEXTS_PER_THREAD);
}

/* A child inherits the derived key, and still seals nothing as its parent or sister does. */
static void children_share_no_nonce_with_their_parent(void **state)
{
    abb_crypto_keyring_t ring = make_ring(1, 1);
    abb_crypto_sealer_t *sealer = make_sealer(&ring, *state);
    unsigned char nonces[3 * 100][NONCE_LENGTH];
    int ends[2];

    seal_labelled(sealer, NULL, TEXT, 4, *state);
    assert_int_equal(pipe(ends), 0);
    for (int child = 0; child < 2; ++child) {
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
            for (int i = 0; i < 100; ++i) {
                sealed_t sealed = seal_labelled(sealer, NULL, TEXT, 4, *state);

                if (write(ends[1], sealed.bytes + NONCE_AT, NONCE_LENGTH) != NONCE_LENGTH) {
                    _exit(1);
                }
            }
            _exit(0);
        }
        for (int i = 0; i < 100; ++i) {
            assert_int_equal(read(ends[0], nonces[child * 100 + i], NONCE_LENGTH), NONCE_LENGTH);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    for (int i = 0; i < 100; ++i) {
        memcpy(nonces[200 + i], seal_labelled(sealer, NULL, TEXT, 4, *state).bytes + NONCE_AT,
               NONCE_LENGTH);
    }
    close(ends[0]);
    close(ends[1]);
    check_all_differ(nonces, 300);
}

/* So many allocations are granted and then none. Returns whether one was refused. */
static int open_with(int allocations, const abb_crypto_keyring_t *ring, const sealed_t *sealed,
                     int by_sealer, apr_pool_t *p)
{
    abb_crypto_context_t context = {"test", "realm", "cookie", 6};
    abb_crypto_sealer_t *sealer = make_sealer(ring, p);
    apr_status_t status;
    unsigned char *text;
    apr_size_t size;
    abb_error_t err;

    abb_error_clear(&err);
    was_refused = 0;
    allocations_left = allocations;
    status = by_sealer ? abb_crypto_sealer_open(sealer, NULL, 0, sealed->bytes, sealed->size, &text,
                                                &size, p, &err)
                       : abb_crypto_open(ring, &context, NULL, 0, sealed->bytes, sealed->size,
                                         &text, &size, p, &err);
    allocations_left = -1;
    assert_true(status == APR_SUCCESS || (was_refused && status == ABB_ECRYPTO));
    assert_int_equal(err.status, status);
    return was_refused;
}

/* Somebody's session would end for it. */
static void no_memory_is_not_taken_for_a_wrong_key(void **state)
{
    abb_crypto_context_t context = {"test", "realm", "cookie", 6};
    abb_crypto_keyring_t ring = make_ring(2, 1);
    sealed_t sealed[2] = {
        seal(&ring, &context, TEXT, sizeof(TEXT), *state),
        seal_labelled(make_sealer(&ring, *state), NULL, TEXT, sizeof(TEXT), *state)};

    for (int by_sealer = 0; by_sealer < 2; ++by_sealer) {
        int allocations = 0;

        while (open_with(allocations, &ring, &sealed[by_sealer], by_sealer, *state)) {
            ++allocations;
        }
        assert_true(allocations > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(algorithms_load_more_than_once),
        UNIT_TEST(random_bytes_vary_in_each_bit),
        UNIT_TEST(large_wishes_for_random_bytes_are_met),
        UNIT_TEST(no_random_bytes_are_an_error),
        UNIT_TEST(hashes_are_sha_256_of_both_texts),
        UNIT_TEST(hashes_are_alike_however_often),
        UNIT_TEST(a_million_bytes_are_hashed),
        UNIT_TEST(absent_texts_hash_like_empty_ones),
        UNIT_TEST(codes_are_hmac_sha_256),
        UNIT_TEST(codes_under_long_keys_are_hmac_sha_256),
        UNIT_TEST(passphrases_stretch_to_the_same_key_for_ever),
        UNIT_TEST(short_passphrases_are_refused),
        UNIT_TEST(long_passphrases_differ_up_to_their_end),
        UNIT_TEST(secrets_compare_by_all_their_bytes),
        UNIT_TEST(a_wiped_secret_is_gone_and_no_more),
        UNIT_TEST(sealed_text_opens_in_any_size),
        UNIT_TEST(sealed_text_may_hold_any_byte),
        UNIT_TEST(text_sealed_by_another_implementation_opens),
        UNIT_TEST(sealed_text_does_not_show_the_text),
        UNIT_TEST(one_text_is_never_sealed_alike),
        UNIT_TEST(each_changed_bit_is_noticed),
        UNIT_TEST(cut_and_lengthened_text_is_refused),
        UNIT_TEST(an_empty_seal_is_refused_when_changed),
        UNIT_TEST(parts_of_two_seals_do_not_make_a_third),
        UNIT_TEST(text_opens_in_its_own_context_only),
        UNIT_TEST(each_byte_of_key_and_secret_counts),
        UNIT_TEST(a_borrowed_key_id_opens_nothing),
        UNIT_TEST(all_keys_open_but_the_first_seals),
        UNIT_TEST(a_key_taken_from_the_ring_opens_no_more),
        UNIT_TEST(opened_text_is_wiped_with_its_pool),
        UNIT_TEST(a_sealer_keeps_to_the_one_form),
        UNIT_TEST(a_sealer_never_seals_alike),
        UNIT_TEST(a_sealer_draws_a_salt_of_its_own),
        UNIT_TEST(a_sealer_changes_its_salt_in_time),
        UNIT_TEST(a_text_opens_with_its_own_label_only),
        UNIT_TEST(a_label_is_no_part_of_the_realm),
        UNIT_TEST(a_sealer_notices_each_changed_bit),
        UNIT_TEST(a_sealer_opens_with_all_its_keys),
        UNIT_TEST(texts_of_many_sealers_open),
        UNIT_TEST(a_sealer_without_random_bytes_seals_nothing),
        UNIT_TEST(no_memory_is_not_taken_for_a_wrong_key),
        UNIT_TEST(threads_share_a_sealer),
        UNIT_TEST(children_share_no_nonce_with_their_parent),
    };

    /* libcrypto takes them before it has taken any memory, or not at all. */
    if (!CRYPTO_set_mem_functions(allocate, reallocate, release)) {
        return 1;
    }
    return cmocka_run_group_tests(tests, begin, unit_end);
}
