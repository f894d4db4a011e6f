/* population: stores full of sessions as they are in real life. See population.h. */
#include "population.h"

#include <apr_general.h>
#include <apr_strings.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "abb_text.h"

#define SEED 0x6d6f645f61757468ULL
#define TEMPLATE_COUNT 64
/* What a store for trying sizes has. */
#define TRIAL_SIZE ((apr_size_t)8 * 1024 * 1024)

const visitor_kind_t bench_short_tokens = {43, 1};
const visitor_kind_t bench_long_tokens = {2600, 1};
const visitor_kind_t bench_many_workspaces = {43, 1000};
const bench_site_t bench_any_site = {"measured-consumer", "https://wiki.example.com", NULL};

void bench_must(apr_status_t status, const char *what)
{
    char reason[200];

    if (status != APR_SUCCESS) {
        fprintf(stderr, "%s: %s (%d)\n", what, apr_strerror(status, reason, sizeof(reason)),
                status);
        exit(1);
    }
}

/* splitmix64. Source: Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014. */
apr_uint64_t bench_random(apr_uint64_t *state)
{
    apr_uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* ---- stores -------------------------------------------------------------- */

static void set_keys(bench_store_t *store, const bench_site_t *site)
{
    static const char purpose[] = "store proof";
    abb_crypto_key_t *key = &store->ring.keys[0];
    unsigned char code[ABB_CRYPTO_KEY_SIZE];

    if (site->session_key) {
        bench_must(
            abb_text_base64url_decode_exact(site->session_key, key->bytes, sizeof(key->bytes)),
            "session key");
    }
    store->ring.count = 1;
    bench_must(abb_crypto_authenticate(key, purpose, sizeof(purpose) - 1, code, NULL), "proof key");
    memcpy(store->proof_key.bytes, code, sizeof(store->proof_key.bytes));
}

static void *map(apr_size_t size, const char *file, int flags)
{
    int descriptor = file ? open(file, O_RDWR | flags, 0600) : -1;
    void *segment;

    if (file && (descriptor < 0 || (flags && posix_fallocate(descriptor, 0, (off_t)size) != 0))) {
        bench_must(APR_FROM_OS_ERROR(errno), file);
    }
    segment = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | (file ? 0 : MAP_ANONYMOUS),
                   descriptor, 0);
    if (descriptor >= 0) {
        close(descriptor);
    }
    bench_must(segment == MAP_FAILED ? APR_ENOMEM : APR_SUCCESS, "memory for the segment");
    return segment;
}

static bench_store_t *attach(void *segment, apr_size_t size, int is_new, const bench_site_t *site,
                             apr_time_t now, apr_pool_t *p)
{
    bench_store_t *store = apr_pcalloc(p, sizeof(*store));

    store->p = p;
    store->segment = segment;
    store->size = size;
    store->now = now;
    set_keys(store, site);
    bench_must(apr_global_mutex_create(&store->lock, NULL, APR_LOCK_PROC_PTHREAD, p), "lock");
    if (is_new) {
        bench_must(abb_store_shm_format(segment, size, SEED), "format");
    }
    bench_must(abb_store_shm_open(&store->store, segment, size, store->lock, &store->proof_key, p),
               "open");
    store->sessions.store = store->store;
    store->sessions.keyring = &store->ring;
    store->sessions.idle_timeout = apr_time_from_sec(12 * 3600);
    store->sessions.absolute_timeout = apr_time_from_sec(7 * 24 * 3600);
    bench_must(abb_session_set_audience(&store->sessions, site->client_id, site->origin, p, NULL),
               "audience");
    return store;
}

bench_store_t *bench_create_store(apr_size_t size, const char *file, const bench_site_t *site,
                                  apr_time_t now, apr_pool_t *p)
{
    return attach(map(size, file, O_CREAT | O_TRUNC), size, 1, site, now, p);
}

bench_store_t *bench_open_store(const char *file, const bench_site_t *site, apr_time_t now,
                                apr_pool_t *p)
{
    struct stat facts;

    bench_must(stat(file, &facts) == 0 ? APR_SUCCESS : APR_FROM_OS_ERROR(errno), file);
    return attach(map((apr_size_t)facts.st_size, file, 0), (apr_size_t)facts.st_size, 0, site, now,
                  p);
}

void bench_destroy_store(bench_store_t *store)
{
    munmap(store->segment, store->size);
}

/* ---- visitors ------------------------------------------------------------ */

static const char *random_text(apr_uint64_t *state, int length, const char *letters, apr_pool_t *p)
{
    char *text = apr_palloc(p, (apr_size_t)length + 1);
    apr_size_t count = strlen(letters);

    for (int i = 0; i < length; ++i) {
        text[i] = letters[bench_random(state) % count];
    }
    text[length] = '\0';
    return text;
}

static const char *random_hex(apr_uint64_t *state, int length, apr_pool_t *p)
{
    return random_text(state, length, "0123456789abcdef", p);
}

static const char *random_token(apr_uint64_t *state, int length, apr_pool_t *p)
{
    return random_text(state, length,
                       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", p);
}

static const char *random_uuid(apr_uint64_t *state, apr_pool_t *p)
{
    const char *hex = random_hex(state, 32, p);

    return apr_psprintf(p, "%.8s-%.4s-4%.3s-8%.3s-%.12s", hex, hex + 8, hex + 13, hex + 17,
                        hex + 20);
}

static const char *pick(apr_uint64_t *state, const char *const *words, int count)
{
    return words[bench_random(state) % (apr_uint64_t)count];
}

static void invent_account(abb_account_t *account, apr_uint64_t *state, apr_pool_t *p)
{
    static const char *const first[] = {"Olivia", "Mark", "Priya", "Carla",
                                        "Oscar",  "Gwen", "Zoe",   "Aleksander"};
    static const char *const last[] = {"Owens", "Miller", "Patel",     "Conti",
                                       "Lange", "Nowak",  "Fernandez", "Schmidt-Brandt"};
    const char *one = pick(state, first, 8);
    const char *two = pick(state, last, 8);

    account->uuid = random_uuid(state, p);
    account->account_id = apr_pstrcat(p, "557058:", random_uuid(state, p), NULL);
    account->username = apr_pstrcat(p, abb_text_lower(one, p), "_", random_hex(state, 4, p), NULL);
    account->nickname = apr_pstrcat(p, one, " ", two, NULL);
    account->display_name = account->nickname;
    account->email = apr_pstrcat(p, account->username, "@acme.example", NULL);
    account->avatar_url =
        apr_pstrcat(p, "https://secure.gravatar.com/avatar/", random_hex(state, 32, p),
                    "?d=https%3A%2F%2Favatar-management--avatars.us-west-2.prod.public.atl-paas.net"
                    "%2Finitials%2FMM-3.png",
                    NULL);
    account->profile_url = apr_pstrcat(p, "https://bitbucket.org/%7B", account->uuid, "%7D/", NULL);
}

/* The answer of /2.0/user as Bitbucket gives it, with its links. Source: tests/simulator. */
static const char *user_json(const abb_account_t *account, apr_pool_t *p)
{
    const char *key = apr_pstrcat(p, "%7B", account->uuid, "%7D", NULL);

    return apr_pstrcat(
        p, "{\"type\":\"user\",\"uuid\":\"{", account->uuid, "}\",\"account_id\":\"",
        account->account_id, "\",\"username\":\"", account->username, "\",\"nickname\":\"",
        account->nickname, "\",\"display_name\":\"", account->display_name,
        "\",\"account_status\":\"active\",\"created_on\":\"2019-02-14T08:30:00.000000+00:00\","
        "\"has_2fa_enabled\":null,\"is_staff\":false,\"location\":null,"
        "\"links\":{\"self\":{\"href\":\"https://api.bitbucket.org/2.0/users/",
        key, "\"},\"avatar\":{\"href\":\"", account->avatar_url, "\"},\"html\":{\"href\":\"",
        account->profile_url, "\"},\"repositories\":{\"href\":\"",
        "https://api.bitbucket.org/2.0/repositories/", key, "\"},\"snippets\":{\"href\":\"",
        "https://bitbucket.org/!api/2.0/snippets/", key, "\"},\"hooks\":{\"href\":\"",
        "https://bitbucket.org/!api/2.0/workspaces/", key, "/hooks\"}}}", NULL);
}

static void invent_grants(abb_record_t *record, int count, apr_uint64_t *state, apr_time_t now,
                          apr_pool_t *p)
{
    record->grants = apr_pcalloc(p, sizeof(*record->grants) * (apr_size_t)count);
    record->grant_count = count;
    for (int i = 0; i < count; ++i) {
        abb_grant_t *grant = &record->grants[i];

        grant->asked = i == 0 ? "acme" : apr_psprintf(p, "workspace-%d", i);
        grant->slug = grant->asked;
        grant->uuid = random_uuid(state, p);
        grant->role = ABB_ROLE_MEMBER;
        grant->checked_at = now;
    }
}

abb_session_t *bench_sign_in(bench_store_t *store, const visitor_kind_t *kind, apr_uint64_t number,
                             apr_pool_t *p)
{
    apr_uint64_t state = SEED + number;
    abb_record_t record = {.created_at = store->now, .account_checked_at = store->now};
    abb_record_private_t private_part = {{NULL, NULL, "account email", 0, 0, 0}, NULL};
    const char *cookie;
    abb_session_t *session;
    abb_error_t err;

    abb_error_clear(&err);
    invent_account(&record.account, &state, p);
    invent_grants(&record, kind->workspaces, &state, store->now, p);
    private_part.tokens.access_token = random_token(&state, kind->token_length, p);
    private_part.tokens.refresh_token = random_token(&state, kind->token_length, p);
    private_part.tokens.expires_at = store->now + apr_time_from_sec(7200);
    private_part.raw_user = user_json(&record.account, p);
    bench_must(abb_session_create(&store->sessions, &record, &private_part, store->now, &cookie,
                                  &session, p, &err),
               "a sign-in");
    return session;
}

/* ---- many of them -------------------------------------------------------- */

bench_template_t *bench_create_template(const visitor_kind_t *kind, const bench_site_t *site,
                                        apr_time_t now, apr_pool_t *p)
{
    bench_store_t *trial = bench_create_store(2 * TRIAL_SIZE, NULL, site, now, p);
    bench_template_t *template = apr_palloc(p, sizeof(*template));

    template->count = TEMPLATE_COUNT;
    template->now = now;
    template->records = apr_pcalloc(p, sizeof(*template->records) * TEMPLATE_COUNT);
    for (int i = 0; i < TEMPLATE_COUNT; ++i) {
        abb_session_t *session = bench_sign_in(trial, kind, (apr_uint64_t)i, p);

        bench_must(abb_store_get(trial->store, &session->key, ABB_STORE_BOTH_PARTS, now,
                                 &template->records[i], p, NULL),
                   "reading a session");
    }
    bench_destroy_store(trial);
    return template;
}

static void find_id(apr_uint64_t i, unsigned char id[ABB_SESSION_ID_SIZE])
{
    apr_uint64_t state = i ^ SEED;

    for (int at = 0; at < ABB_SESSION_ID_SIZE; at += 8) {
        apr_uint64_t word = bench_random(&state);

        memcpy(id + at, &word, 8);
    }
}

void bench_find_cookie(apr_uint64_t i, char cookie[COOKIE_SIZE])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char id[ABB_SESSION_ID_SIZE + 1] = {0};

    find_id(i, id);
    for (int at = 0; at < COOKIE_SIZE - 1; ++at) {
        int bit = at * 6;
        int word = id[bit / 8] << 8 | id[bit / 8 + 1];

        cookie[at] = digits[(word >> (10 - bit % 8)) & 63];
    }
    cookie[COOKIE_SIZE - 1] = '\0';
}

/* As the session room makes it; bench_populate checks that it still does. */
void bench_find_key(const bench_store_t *store, apr_uint64_t i, abb_store_key_t *key)
{
    unsigned char realm[17] = "S";
    unsigned char id[ABB_SESSION_ID_SIZE];

    memcpy(realm + 1, store->sessions.audience_hash, 16);
    find_id(i, id);
    bench_must(abb_crypto_hash(realm, sizeof(realm), id, sizeof(id), key->bytes, NULL), "hash");
}

apr_status_t bench_put(bench_store_t *store, const bench_template_t *template, apr_uint64_t i)
{
    abb_store_record_t record = template->records[i % (apr_uint64_t) template->count];
    abb_store_key_t key;

    bench_find_key(store, i, &key);
    return abb_store_put(store->store, &key, &record, store->now, NULL);
}

apr_size_t bench_size_for(const bench_template_t *template, apr_uint64_t sessions, apr_pool_t *p)
{
    bench_store_t *trial = bench_create_store(TRIAL_SIZE, NULL, &bench_any_site, template->now, p);
    abb_store_figures_t figures = {0};
    apr_size_t each;

    for (apr_uint64_t i = 0; figures.evictions <= 0; ++i) {
        bench_must(bench_put(trial, template, i), "a trial");
        abb_store_figures(trial->store, &figures);
    }
    each = TRIAL_SIZE / (apr_size_t)figures.records;
    bench_destroy_store(trial);
    return (each + each / 50 + 1) * sessions + ABB_STORE_SHM_MIN;
}

static void check_population(const bench_store_t *store, apr_uint64_t sessions)
{
    abb_store_figures_t figures;
    abb_session_t *session;
    char cookie[COOKIE_SIZE];

    abb_store_figures(store->store, &figures);
    if (figures.records != (apr_int64_t)sessions || figures.evictions > 0) {
        fprintf(stderr, "%" APR_INT64_T_FMT " sessions instead of %" APR_UINT64_T_FMT "\n",
                figures.records, sessions);
        exit(1);
    }
    bench_find_cookie(sessions / 2, cookie);
    bench_must(abb_session_find(&store->sessions, cookie, store->now, &session, store->p, NULL),
               "a session's key is made in another way now: see bench_find_key");
}

bench_store_t *bench_populate(const bench_template_t *template, apr_uint64_t sessions,
                              const char *file, const bench_site_t *site, apr_pool_t *p)
{
    bench_store_t *store =
        bench_create_store(bench_size_for(template, sessions, p), file, site, template->now, p);

    for (apr_uint64_t i = 0; i < sessions; ++i) {
        bench_must(bench_put(store, template, i), "a put");
    }
    check_population(store, sessions);
    return store;
}
