/* f_store: bytes of earlier segments, of the key's file, and of a shared cache. */
#include <apr_strings.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/store_shm_segment.h"
#include "abb_store_file.h"
#include "abb_store_socache.h"
#include "fake_cache.h"
#include "targets.h"

/* ---- segments ------------------------------------------------------------- */

static const abb_store_shm_proof_key_t proof_key = {"proof of fuzzing"};

enum { RECORDS = 8 };

static abb_store_key_t key_of(int i)
{
    abb_store_key_t key;

    memset(key.bytes, 0, sizeof(key.bytes));
    key.bytes[0] = (unsigned char)i;
    key.bytes[31] = 'k';
    return key;
}

static apr_size_t size_of(int i)
{
    return (apr_size_t)i * 70;
}

/* A store's segment with some records in it, as a start finds it in a file. */
static unsigned char *genuine_image(apr_pool_t *p)
{
    static apr_uint64_t image[ABB_STORE_SHM_MIN / 8];
    static int is_made;
    char bytes[RECORDS * 70];

    if (!is_made) {
        const abb_store_t *store = fuzz_store(p);

        for (int i = 0; i < RECORDS; ++i) {
            abb_store_key_t key = key_of(i);
            abb_store_record_t record = {.open = bytes,
                                         .open_size = size_of(i),
                                         .sealed = "sealed",
                                         .sealed_size = 6,
                                         .expires_at = FUZZ_NOW + apr_time_from_sec(60)};

            memset(bytes, 'a' + i, sizeof(bytes));
            FUZZ_CHECK(abb_store_put(store, &key, &record, FUZZ_NOW, NULL) == APR_SUCCESS);
        }
        memcpy(image, ((const abb_segment_t *)store->engine)->header, sizeof(image));
        is_made = 1;
    }
    return fuzz_copy(image, sizeof(image), p);
}

/* Changes where something is: in the header, and in the first blocks. */
static void spoil(unsigned char *image, fuzz_input_t *input)
{
    header_t plan;

    abb_segment_plan(&plan, ABB_STORE_SHM_MIN);
    while (input->at < input->end) {
        apr_uint64_t what = fuzz_number(input, 2);
        apr_size_t place =
            what & 0x8000 ? (what & 0x7f) : plan.block_offset + (what & 0x7fff) % (64 * BLOCK_SIZE);
        int length = 1 + (int)(fuzz_number(input, 1) & 7);

        for (int i = 0; i < length; ++i) {
            image[place + (apr_size_t)i] = (unsigned char)fuzz_number(input, 1);
        }
    }
}

static int is_genuine(const abb_store_key_t *key, const abb_store_record_t *record)
{
    abb_store_key_t expected = key_of(key->bytes[0]);
    const unsigned char *open = record->open;

    if (key->bytes[0] >= RECORDS || memcmp(key, &expected, sizeof(*key)) != 0 ||
        record->open_size != size_of(key->bytes[0])) {
        return 0;
    }
    for (apr_size_t i = 0; i < record->open_size; ++i) {
        if (open[i] != 'a' + key->bytes[0]) {
            return 0;
        }
    }
    return 1;
}

static void look_at_genuine(void *context, const abb_store_key_t *key,
                            const abb_store_record_t *record)
{
    FUZZ_CHECK(is_genuine(key, record));
    ++*(apr_uint64_t *)context;
}

static void look_at_any(void *context, const abb_store_key_t *key, const abb_store_record_t *record)
{
    FUZZ_CHECK(record->open_size <= ABB_STORE_RECORD_MAX);
    FUZZ_CHECK(record->expires_at > FUZZ_NOW);
    ++*(apr_uint64_t *)context;
}

static void import(const unsigned char *image, apr_size_t size, abb_store_look_t look,
                   apr_pool_t *p)
{
    const abb_store_t *store = fuzz_store(p);
    abb_store_shm_import_t result;
    abb_store_shm_import_t survey;
    apr_uint64_t seen = 0;

    FUZZ_CHECK(abb_store_shm_survey(image, size, &proof_key, 1, FUZZ_NOW, &survey) == APR_SUCCESS);
    FUZZ_CHECK(abb_store_shm_import(store, image, size, &proof_key, 1, FUZZ_NOW, &result, NULL) ==
               APR_SUCCESS);
    FUZZ_CHECK(abb_store_shm_check(store) == NULL);
    FUZZ_CHECK(result.image == survey.image && result.kept <= survey.kept);
    FUZZ_CHECK(result.kept + result.expired + result.damaged <= size / BLOCK_SIZE);
    FUZZ_CHECK(abb_store_walk(store, FUZZ_NOW, look, &seen, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(seen == result.kept);
}

/* A segment that somebody without the key has cut and changed: it costs records, no more. */
void fuzz_segment(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    apr_size_t kept = ABB_STORE_SHM_MIN - (apr_size_t)fuzz_number(&input, 3) % ABB_STORE_SHM_MIN;
    unsigned char *image = genuine_image(p);

    spoil(image, &input);
    import(fuzz_copy(image, kept, p), kept, look_at_genuine, p);
    import(bytes, size, look_at_genuine, p);
}

/* Prove a record as it stands there, whatever its chain is like. */
static void prove(unsigned char *image, const header_t *plan, record_block_t *record,
                  const proof_keys_t *keys, apr_pool_t *p)
{
    apr_size_t open_room = round_up(record->open_size, 8);
    apr_size_t left = open_room + round_up(record->sealed_size, 8);
    char *bytes;
    char *out;
    apr_uint32_t next = record->head.next;
    content_sums_t sums;

    if (record->open_size > 16384 || record->sealed_size > 16384) {
        return;
    }
    bytes = out = apr_pcalloc(p, left + 1);
    while (left > 0 && next >= 1 && next <= plan->block_count) {
        const bytes_block_t *block =
            (const bytes_block_t *)(const void *)(image + plan->block_offset +
                                                  (apr_size_t)(next - 1) * BLOCK_SIZE);
        apr_size_t length = left < sizeof(block->words) ? left : sizeof(block->words);

        memcpy(out, block->words, length);
        out += length;
        left -= length;
        next = block->head.next;
    }
    sums = abb_segment_sum(keys, bytes, record->open_size, bytes + open_room, record->sealed_size);
    record->proof = abb_segment_prove(keys, record, &sums);
}

/* The same by somebody who has the key: even then the store stays whole. */
void fuzz_segment_proved(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    unsigned char *image = genuine_image(p);
    proof_keys_t keys;
    header_t plan;

    spoil(image, &input);
    abb_segment_plan(&plan, ABB_STORE_SHM_MIN);
    abb_segment_derive_keys(&keys, &proof_key);
    for (apr_size_t i = 0; i < 65; ++i) {
        record_block_t *record =
            (record_block_t *)(void *)(image + plan.block_offset + i * BLOCK_SIZE);

        if (record->head.kind == BLOCK_RECORD) {
            prove(image, &plan, record, &keys, p);
        }
    }
    import(image, ABB_STORE_SHM_MIN, look_at_any, p);
}

/* ---- the key's file ------------------------------------------------------- */

static char directory[] = "/tmp/fuzz-XXXXXX";

static void remove_directory(void)
{
    const char *names[] = {"/sessions.key", "/sessions.key.new"};

    for (int i = 0; i < 2; ++i) {
        char path[sizeof(directory) + 32];

        apr_snprintf(path, sizeof(path), "%s%s", directory, names[i]);
        unlink(path);
    }
    rmdir(directory);
}

static const char *own_directory(void)
{
    static int is_made;

    if (!is_made) {
        FUZZ_CHECK(mkdtemp(directory) != NULL);
        atexit(remove_directory);
        is_made = 1;
    }
    return directory;
}

static void write_file(const char *path, const void *bytes, apr_size_t size)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    FUZZ_CHECK(file >= 0 && write(file, bytes, size) == (ssize_t)size);
    close(file);
}

/* What is read as keys is what would be written for them, to the letter. */
static void check_keys(const char *path, const void *bytes, apr_size_t size,
                       const abb_crypto_keyring_t *ring)
{
    char text[1024];
    ssize_t length;
    int file = open(path, O_RDONLY);

    length = read(file, text, sizeof(text));
    close(file);
    FUZZ_CHECK(ring->count >= 1 && ring->count <= ABB_CRYPTO_KEYS_MAX);
    FUZZ_CHECK(length == (ssize_t)size && memcmp(text, bytes, size) == 0);
}

void fuzz_key_file(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_store_file_t file = {.path = apr_pstrcat(p, own_directory(), "/sessions", NULL)};
    const char *path = apr_pstrcat(p, file.path, ".key", NULL);
    abb_crypto_keyring_t ring;
    apr_status_t status;
    abb_error_t err;

    abb_error_clear(&err);
    write_file(path, bytes, size);
    status = abb_store_file_read_keys(&file, &ring, p, &err);
    if (status == APR_SUCCESS) {
        FUZZ_CHECK(abb_store_file_write_keys(&file, &ring, p, NULL) == APR_SUCCESS);
        check_keys(path, bytes, size, &ring);
    }
    else {
        FUZZ_CHECK(status == ABB_ESTORE && ring.count == 0 && strstr(err.text, "damaged"));
    }
}

/* ---- a shared cache ------------------------------------------------------- */

static const abb_store_t *cache_store(abb_store_socache_settings_t *settings, apr_pool_t *p)
{
    static struct ap_socache_instance_t *instance;
    abb_store_socache_t *cache;

    instance = instance ? instance : fake_instance();
    memset(settings, 0, sizeof(*settings));
    settings->name = "the session cache fake";
    settings->kind = ABB_STORE_SOCACHE_LOCAL;
    settings->provider = &fake_provider;
    settings->instance = instance;
    settings->arguments = "";
    settings->keyring = &fuzz_ring;
    FUZZ_CHECK(abb_store_socache_create(&cache, settings, p, NULL) == APR_SUCCESS);
    return abb_store_socache_store(cache);
}

/* An object that this server has sealed, whatever is in it. */
static void put_sealed(int number, const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_crypto_sealer_t *sealer;
    unsigned char *name;
    unsigned char *sealed;
    size_t room;
    apr_size_t sealed_size;
    unsigned char *object = fake_object(number, &room, &name);
    apr_size_t inside = room - ABB_CRYPTO_SEAL_OVERHEAD;

    FUZZ_CHECK(abb_crypto_sealer_create(&sealer, &fuzz_ring, "session cache", "", p, NULL) ==
               APR_SUCCESS);
    FUZZ_CHECK(abb_crypto_sealer_seal(sealer, name, 1 + ABB_STORE_KEY_SIZE, bytes,
                                      size < inside ? size : inside, &sealed, &sealed_size, p,
                                      NULL) == APR_SUCCESS);
    memcpy(object, sealed, sealed_size);
    fake_cut(number, sealed_size);
}

static void check_found(const abb_store_record_t *record, apr_size_t size)
{
    FUZZ_CHECK(record->open_size <= size && record->sealed_size <= size);
    FUZZ_CHECK(record->open_size + record->sealed_size <= size);
    FUZZ_CHECK(record->expires_at > FUZZ_NOW);
}

/*
 * One record in the cache. By the first byte: its object is changed by somebody without
 * the key, and is no record then; or it is anything behind a genuine seal.
 */
void fuzz_cache_object(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    static char open_part[1024];
    fuzz_input_t input = fuzz_input(bytes, size, p);
    int is_sealed = (int)(fuzz_number(&input, 1) & 1);
    abb_store_key_t key = key_of(1);
    abb_store_record_t record = {.open = open_part,
                                 .open_size = is_sealed ? sizeof(open_part) : 64,
                                 .sealed = "sealed",
                                 .sealed_size = 6,
                                 .expires_at = FUZZ_NOW + apr_time_from_sec(60)};
    abb_store_socache_settings_t settings;
    const abb_store_t *store;
    abb_store_record_t found;
    apr_status_t status;
    int is_changed = 0;
    int number = 0;

    fake_reset();
    store = cache_store(&settings, p);
    FUZZ_CHECK(abb_store_put(store, &key, &record, FUZZ_NOW, NULL) == APR_SUCCESS);
    for (;; ++number) {
        unsigned char *name;
        size_t room;

        FUZZ_CHECK(number < 16);
        if (fake_object(number, &room, &name) && name[0] == 'r') {
            break;
        }
    }
    if (is_sealed) {
        put_sealed(number, input.at, (apr_size_t)(input.end - input.at), p);
    }
    else {
        unsigned char *name;
        size_t room;
        unsigned char *object = fake_object(number, &room, &name);
        apr_size_t forged_size;
        unsigned char *forged = fuzz_forge(object, room, &input, &forged_size, &is_changed);

        memcpy(object, forged, forged_size);
        fake_cut(number, forged_size);
    }
    status = abb_store_get(store, &key, ABB_STORE_BOTH_PARTS, FUZZ_NOW, &found, p, NULL);
    FUZZ_CHECK(status == APR_SUCCESS || status == APR_NOTFOUND);
    FUZZ_CHECK(is_sealed || (status == APR_SUCCESS) == !is_changed);
    if (status == APR_SUCCESS) {
        check_found(&found, is_sealed ? size : 64 + 6);
    }
}
