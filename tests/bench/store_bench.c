/*
 * store_bench: what the session store costs.
 *
 * Each part prints lines of JSON, one figure or a few each, that run.py collects.
 * Times of one process are its own CPU time, so that the neighbours on the machine
 * count little; times in which somebody waits are by the clock on the wall.
 *
 *   store_bench lookup|apart|processes|full|memory|import|recovery [quick]
 *   store_bench fill FILE SESSIONS CLIENT_ID ORIGIN SESSION_KEY    a store for httpd
 *   store_bench cookies SESSIONS COUNT                            some of its cookies
 *   store_bench prepare FILE SESSIONS                             a store for count
 *   store_bench count FILE SESSIONS LOOKUPS                       what callgrind is to count
 */
#include <apr_general.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "population.h"

#define NOINLINE __attribute__((noinline))
#define MEGABYTE ((apr_size_t)1024 * 1024)
#define TABLES_MAX 4

static int quick;

/* ---- clocks and ranks ---------------------------------------------------- */

static double seconds_of(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

static double wall_seconds(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static void sort(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(*values), compare);
}

/* The value that a share of all sorted values does not exceed. */
static double quantile(const double *values, int count, double share)
{
    int at = (int)(share * count);

    return values[at < count ? at : count - 1];
}

/* Sorts. */
static double median(double *values, int count)
{
    sort(values, count);
    return quantile(values, count, 0.5);
}

/* ---- lookups ------------------------------------------------------------- */

/* Sessions in random order, chosen before the clock runs. */
typedef struct {
    int count;
    abb_store_key_t *keys;
    char (*cookies)[COOKIE_SIZE];
} choice_t;

static choice_t *create_choice(int count, apr_pool_t *p)
{
    choice_t *choice = apr_palloc(p, sizeof(*choice));

    choice->count = count;
    choice->keys = apr_palloc(p, sizeof(*choice->keys) * (apr_size_t)count);
    choice->cookies = apr_palloc(p, sizeof(*choice->cookies) * (apr_size_t)count);
    return choice;
}

static void choose(choice_t *choice, const bench_store_t *store, apr_uint64_t sessions,
                   apr_uint64_t *state)
{
    for (int i = 0; i < choice->count; ++i) {
        apr_uint64_t number = bench_random(state) % sessions;

        bench_find_key(store, number, &choice->keys[i]);
        bench_find_cookie(number, choice->cookies[i]);
    }
}

/* The next two are the functions that callgrind counts. */
NOINLINE void bench_get_all(const bench_store_t *store, const choice_t *choice, apr_pool_t *p);
NOINLINE void bench_find_all(const bench_store_t *store, const choice_t *choice, apr_pool_t *p);

void bench_get_all(const bench_store_t *store, const choice_t *choice, apr_pool_t *p)
{
    abb_store_record_t record;

    for (int i = 0; i < choice->count; ++i) {
        bench_must(abb_store_get(store->store, &choice->keys[i], ABB_STORE_OPEN_PART, store->now,
                                 &record, p, NULL),
                   "a lookup");
        apr_pool_clear(p);
    }
}

void bench_find_all(const bench_store_t *store, const choice_t *choice, apr_pool_t *p)
{
    abb_session_t *session;

    for (int i = 0; i < choice->count; ++i) {
        bench_must(
            abb_session_find(&store->sessions, choice->cookies[i], store->now, &session, p, NULL),
            "a session");
        apr_pool_clear(p);
    }
}

typedef void lookup_t(const bench_store_t *store, const choice_t *choice, apr_pool_t *p);

/* Nanoseconds for one lookup. */
static double time_lookups(lookup_t *lookup, const bench_store_t *store, const choice_t *choice,
                           apr_pool_t *p)
{
    double started = cpu_seconds();

    lookup(store, choice, p);
    return (cpu_seconds() - started) * 1e9 / choice->count;
}

/*
 * Nanoseconds for one read of the table's memory at a place of chance, each waiting for the one
 * before: what the machine takes for a step of any lookup.
 */
static double time_reads(const bench_store_t *store, int count, apr_uint64_t *state)
{
    const volatile apr_uint64_t *words = store->segment;
    double started = cpu_seconds();

    for (int i = 0; i < count; ++i) {
        *state ^= words[bench_random(state) % (store->size / sizeof(*words))];
    }
    return (cpu_seconds() - started) * 1e9 / count;
}

/* One size of the table, and what each round measured. */
typedef struct {
    apr_uint64_t sessions;
    bench_store_t *store;
    double *get;
    double *find;
    double *read;
} table_t;

static int create_tables(table_t *tables, int rounds, apr_pool_t *p)
{
    bench_template_t *template =
        bench_create_template(&bench_short_tokens, &bench_any_site, BENCH_NOW, p);
    int count = quick ? TABLES_MAX - 1 : TABLES_MAX;
    apr_uint64_t sessions = 1000;

    for (int i = 0; i < count; ++i, sessions *= 10) {
        tables[i].sessions = sessions;
        tables[i].store = bench_populate(template, sessions, NULL, &bench_any_site, p);
        tables[i].get = apr_pcalloc(p, sizeof(double) * (apr_size_t)rounds);
        tables[i].find = apr_pcalloc(p, sizeof(double) * (apr_size_t)rounds);
        tables[i].read = apr_pcalloc(p, sizeof(double) * (apr_size_t)rounds);
    }
    return count;
}

/* Ratio to the smallest table, round by round, so that a change of the machine's pace counts little. */
static double ratio_of(const double *values, const double *base, int rounds, apr_pool_t *p)
{
    double *ratios = apr_palloc(p, sizeof(double) * (apr_size_t)rounds);

    for (int i = 0; i < rounds; ++i) {
        ratios[i] = values[i] / base[i];
    }
    return median(ratios, rounds);
}

static void print_table(const table_t *table, const table_t *smallest, int rounds, apr_pool_t *p)
{
    double get_ratio = ratio_of(table->get, smallest->get, rounds, p);
    double find_ratio = ratio_of(table->find, smallest->find, rounds, p);

    /* The medians sort, and the smallest table comes last. */
    printf("{\"measure\":\"lookup\",\"sessions\":%" APR_UINT64_T_FMT
           ",\"get_ns\":%.1f,\"find_ns\":%.1f,\"get_ratio\":%.3f,\"find_ratio\":%.3f,"
           "\"read_ns\":%.1f,\"segment_bytes\":%" APR_SIZE_T_FMT "}\n",
           table->sessions, median(table->get, rounds), median(table->find, rounds), get_ratio,
           find_ratio, median(table->read, rounds), table->store->size);
}

static void measure_lookup(apr_pool_t *p)
{
    table_t tables[TABLES_MAX];
    int rounds = quick ? 5 : 15;
    int count = create_tables(tables, rounds, p);
    choice_t *choice = create_choice(quick ? 20000 : 200000, p);
    apr_uint64_t state = 1;
    apr_pool_t *temporary;

    apr_pool_create(&temporary, p);
    for (int round = 0; round < rounds; ++round) {
        for (int i = 0; i < count; ++i) {
            choose(choice, tables[i].store, tables[i].sessions, &state);
            tables[i].get[round] = time_lookups(bench_get_all, tables[i].store, choice, temporary);
            tables[i].find[round] =
                time_lookups(bench_find_all, tables[i].store, choice, temporary);
            tables[i].read[round] = time_reads(tables[i].store, choice->count, &state);
        }
    }
    for (int i = count - 1; i >= 0; --i) {
        print_table(&tables[i], &tables[0], rounds, p);
    }
}

/* ---- lookups with other work between them --------------------------------- */

#define REST_SIZE MEGABYTE
#define CACHE_LINE 64

/* What all else in a request does to the processor's caches. */
static void do_the_rest(const volatile char *memory)
{
    for (apr_size_t i = 0; i < REST_SIZE; i += CACHE_LINE) {
        (void)memory[i];
    }
    getppid();
}

static void pass(double seconds)
{
    double end = wall_seconds() + seconds;

    while (wall_seconds() < end) {
    }
}

/* As a request does it, with as much time as there is at least. */
static void expect(const bench_store_t *store, const char *cookie)
{
    abb_session_announce(&store->sessions, cookie);
    pass(0.5e-6);
    abb_session_expect(&store->sessions, cookie);
    pass(2e-6);
}

/* Nanoseconds from cookie to account, each lookup by itself. */
typedef struct {
    double p50;
    double p99;
    double mean;
} apart_t;

static apart_t sum_up_times(double *times, int count)
{
    apart_t apart = {0, 0, 0};

    for (int i = 0; i < count; ++i) {
        apart.mean += times[i] / count;
    }
    sort(times, count);
    apart.p50 = quantile(times, count, 0.5);
    apart.p99 = quantile(times, count, 0.99);
    return apart;
}

static apart_t time_apart(const bench_store_t *store, const choice_t *choice, int is_expected,
                          apr_pool_t *p)
{
    double *times = apr_palloc(p, sizeof(*times) * (apr_size_t)choice->count);
    char *memory = memset(apr_palloc(p, REST_SIZE), 1, REST_SIZE);
    abb_session_t *session;
    apr_pool_t *temporary;

    apr_pool_create(&temporary, p);
    for (int i = 0; i < choice->count; ++i) {
        double started;

        do_the_rest(memory);
        if (is_expected) {
            expect(store, choice->cookies[i]);
        }
        started = wall_seconds();
        bench_must(abb_session_find(&store->sessions, choice->cookies[i], store->now, &session,
                                    temporary, NULL),
                   "a session");
        times[i] = (wall_seconds() - started) * 1e9;
        apr_pool_clear(temporary);
    }
    return sum_up_times(times, choice->count);
}

static void measure_apart_in(bench_store_t *store, apr_uint64_t sessions, choice_t *choice,
                             apr_pool_t *p)
{
    apr_uint64_t state = 1;
    double hashed;
    double known;
    apart_t expected;

    choose(choice, store, sessions, &state);
    time_apart(store, choice, 0, p);
    hashed = time_apart(store, choice, 0, p).p50;
    store->sessions.names = abb_session_names_create(32, p);
    time_apart(store, choice, 0, p);
    known = time_apart(store, choice, 0, p).p50;
    expected = time_apart(store, choice, 1, p);
    printf("{\"measure\":\"apart\",\"sessions\":%" APR_UINT64_T_FMT
           ",\"hashed_ns\":%.1f,\"known_ns\":%.1f,\"expected_ns\":%.1f,"
           "\"expected_p99_ns\":%.1f,\"expected_mean_ns\":%.1f}\n",
           sessions, hashed, known, expected.p50, expected.p99, expected.mean);
}

static void measure_apart(apr_pool_t *p)
{
    table_t tables[TABLES_MAX];
    int count = create_tables(tables, 1, p);
    choice_t *choice = create_choice(quick ? 2000 : 20000, p);

    for (int i = 0; i < count; ++i) {
        measure_apart_in(tables[i].store, tables[i].sessions, choice, p);
    }
}

/* ---- several processes --------------------------------------------------- */

#define READERS_MAX 2

/* In memory that all processes share. */
typedef struct {
    atomic_int ready;
    atomic_int started;
    atomic_int stopped;
    atomic_llong operations;
    double wall[READERS_MAX];
    double cpu[READERS_MAX];
} meeting_t;

static meeting_t *create_meeting(void)
{
    void *memory =
        mmap(NULL, sizeof(meeting_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    bench_must(memory == MAP_FAILED ? APR_ENOMEM : APR_SUCCESS, "memory to meet in");
    return memory;
}

/* A child ends with its parent, whatever ends that. */
static pid_t fork_or_end(void)
{
    pid_t parent = getpid();
    pid_t child;

    fflush(stdout);
    if ((child = fork()) < 0) {
        bench_must(APR_FROM_OS_ERROR(errno), "fork");
    }
    if (child == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)) {
        _exit(1);
    }
    return child;
}

static void await_end(pid_t child, int wanted_signal)
{
    int status;

    if (waitpid(child, &status, 0) != child ||
        (wanted_signal ? !WIFSIGNALED(status) : !WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        fprintf(stderr, "a process ended with status %d\n", status);
        exit(1);
    }
}

static void read_in_child(const bench_store_t *store, const choice_t *choice, meeting_t *meeting,
                          int number, apr_pool_t *p)
{
    double wall;
    double cpu;

    bench_get_all(store, choice, p);
    atomic_fetch_add(&meeting->ready, 1);
    while (!atomic_load(&meeting->started)) {
    }
    wall = wall_seconds();
    cpu = cpu_seconds();
    bench_get_all(store, choice, p);
    meeting->cpu[number] = cpu_seconds() - cpu;
    meeting->wall[number] = wall_seconds() - wall;
    _exit(0);
}

/* Keys beyond those of the readers come and go for as long as the others read. */
static void write_in_child(bench_store_t *store, const bench_template_t *template,
                           apr_uint64_t sessions, meeting_t *meeting)
{
    atomic_fetch_add(&meeting->ready, 1);
    for (apr_uint64_t i = 0; !atomic_load(&meeting->stopped); i = (i + 1) % 1000) {
        abb_store_key_t key;

        bench_must(bench_put(store, template, sessions + i), "a put");
        bench_find_key(store, sessions + i, &key);
        bench_must(abb_store_drop(store->store, &key, NULL), "a drop");
        atomic_fetch_add(&meeting->operations, 2);
    }
    _exit(0);
}

/* What some readers did at the same time. */
typedef struct {
    double lookups_per_second;
    double cpu_ns;
    double writes_per_second;
} outcome_t;

/* What the readers share: a table and its choices, one for each. */
typedef struct {
    bench_store_t *store;
    bench_template_t *template;
    apr_uint64_t sessions;
    choice_t *choices[READERS_MAX];
    apr_pool_t *p;
} crowd_t;

static pid_t start_writer(crowd_t *crowd, meeting_t *meeting)
{
    pid_t writer = fork_or_end();

    if (writer == 0) {
        write_in_child(crowd->store, crowd->template, crowd->sessions, meeting);
    }
    return writer;
}

static outcome_t sum_up(const meeting_t *meeting, const crowd_t *crowd, int readers)
{
    outcome_t outcome = {0};
    double longest = 0;
    double cpu = 0;

    for (int i = 0; i < readers; ++i) {
        longest = meeting->wall[i] > longest ? meeting->wall[i] : longest;
        cpu += meeting->cpu[i];
    }
    outcome.lookups_per_second = readers * (double)crowd->choices[0]->count / longest;
    outcome.cpu_ns = cpu * 1e9 / (readers * (double)crowd->choices[0]->count);
    outcome.writes_per_second = (double)meeting->operations / longest;
    return outcome;
}

static outcome_t read_together(crowd_t *crowd, int readers, int with_writer)
{
    meeting_t *meeting = create_meeting();
    pid_t children[READERS_MAX];
    pid_t writer = with_writer ? start_writer(crowd, meeting) : 0;
    outcome_t outcome;

    for (int i = 0; i < readers; ++i) {
        if ((children[i] = fork_or_end()) == 0) {
            read_in_child(crowd->store, crowd->choices[i], meeting, i, crowd->p);
        }
    }
    while (atomic_load(&meeting->ready) < readers + with_writer) {
        usleep(100);
    }
    atomic_store(&meeting->operations, 0);
    atomic_store(&meeting->started, 1);
    for (int i = 0; i < readers; ++i) {
        await_end(children[i], 0);
    }
    outcome = sum_up(meeting, crowd, readers);
    atomic_store(&meeting->stopped, 1);
    if (writer) {
        await_end(writer, 0);
    }
    munmap(meeting, sizeof(*meeting));
    return outcome;
}

static crowd_t *create_crowd(apr_pool_t *p)
{
    crowd_t *crowd = apr_palloc(p, sizeof(*crowd));
    apr_uint64_t state = 2;

    crowd->sessions = quick ? 10000 : 1000000;
    crowd->template = bench_create_template(&bench_short_tokens, &bench_any_site, BENCH_NOW, p);
    crowd->store = bench_create_store(bench_size_for(crowd->template, crowd->sessions + 2000, p),
                                      NULL, &bench_any_site, BENCH_NOW, p);
    for (apr_uint64_t i = 0; i < crowd->sessions; ++i) {
        bench_must(bench_put(crowd->store, crowd->template, i), "a put");
    }
    for (int i = 0; i < READERS_MAX; ++i) {
        crowd->choices[i] = create_choice(quick ? 50000 : 500000, p);
        choose(crowd->choices[i], crowd->store, crowd->sessions, &state);
    }
    apr_pool_create(&crowd->p, p);
    return crowd;
}

#define ROUNDS_MAX 15

static void measure_processes(apr_pool_t *p)
{
    crowd_t *crowd = create_crowd(p);
    int rounds = quick ? 3 : ROUNDS_MAX;
    double one[ROUNDS_MAX];
    double two[ROUNDS_MAX];
    double ratio[ROUNDS_MAX];
    double cpu_ratio[ROUNDS_MAX];
    double disturbed[ROUNDS_MAX];
    double writes[ROUNDS_MAX];

    for (int i = 0; i < rounds; ++i) {
        outcome_t alone = read_together(crowd, 1, 0);
        outcome_t both = read_together(crowd, 2, 0);
        outcome_t written = read_together(crowd, 1, 1);

        one[i] = alone.lookups_per_second;
        two[i] = both.lookups_per_second;
        ratio[i] = two[i] / one[i];
        cpu_ratio[i] = 2 * alone.cpu_ns / both.cpu_ns;
        disturbed[i] = written.cpu_ns / alone.cpu_ns;
        writes[i] = written.writes_per_second;
    }
    printf("{\"measure\":\"processes\",\"sessions\":%" APR_UINT64_T_FMT
           ",\"one_per_second\":%.0f,\"two_per_second\":%.0f,\"ratio\":%.3f,\"cpu_ratio\":%.3f,"
           "\"cost_while_writing\":%.3f,\"writes_per_second\":%.0f}\n",
           crowd->sessions, median(one, rounds), median(two, rounds), median(ratio, rounds),
           median(cpu_ratio, rounds), median(disturbed, rounds), median(writes, rounds));
}

/* ---- a full store -------------------------------------------------------- */

typedef struct {
    bench_store_t *store;
    bench_template_t *template;
    /* Session numbers from `first` to before `next` may be in the store. */
    apr_uint64_t first;
    apr_uint64_t next;
    double *seconds;
    int count;
    apr_uint64_t state;
} full_t;

static void print_latency(const full_t *full, const char *operation, const char *state)
{
    double *seconds = full->seconds;
    int count = full->count;

    sort(seconds, count);
    printf("{\"measure\":\"full\",\"operation\":\"%s\",\"state\":\"%s\",\"segment_bytes\":"
           "%" APR_SIZE_T_FMT ",\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f,"
           "\"count\":%d}\n",
           operation, state, full->store->size, quantile(seconds, count, 0.5) * 1e6,
           quantile(seconds, count, 0.99) * 1e6, quantile(seconds, count, 0.999) * 1e6,
           seconds[count - 1] * 1e6, count);
}

static void time_puts(full_t *full, const char *state)
{
    for (int i = 0; i < full->count; ++i) {
        abb_store_record_t record =
            full->template->records[full->next % (apr_uint64_t)full->template->count];
        abb_store_key_t key;
        double started;

        bench_find_key(full->store, full->next++, &key);
        started = wall_seconds();
        bench_must(abb_store_put(full->store->store, &key, &record, full->store->now, NULL),
                   "a put into a full store");
        full->seconds[i] = wall_seconds() - started;
    }
    print_latency(full, "put", state);
}

/* One of the newest sessions: surely there, as long as no more than `spread` have gone. */
static void choose_living(full_t *full, abb_store_key_t *key)
{
    apr_uint64_t spread = (apr_uint64_t)full->count;

    bench_find_key(full->store, full->next - 1 - bench_random(&full->state) % spread, key);
}

static void time_touches(full_t *full)
{
    for (int i = 0; i < full->count; ++i) {
        abb_store_key_t key;
        double started;

        choose_living(full, &key);
        started = wall_seconds();
        bench_must(abb_store_touch(full->store->store, &key, full->store->now, NULL), "a touch");
        full->seconds[i] = wall_seconds() - started;
    }
    print_latency(full, "touch", "living");
}

static void time_replaces(full_t *full, apr_pool_t *p)
{
    for (int i = 0; i < full->count; ++i) {
        abb_store_record_t old;
        abb_store_record_t record = full->template->records[i % full->template->count];
        abb_store_key_t key;
        double started;

        choose_living(full, &key);
        bench_must(abb_store_get(full->store->store, &key, ABB_STORE_OPEN_PART, full->store->now,
                                 &old, p, NULL),
                   "a lookup in a full store");
        started = wall_seconds();
        bench_must(abb_store_replace(full->store->store, &key, old.generation, &record,
                                     full->store->now, NULL),
                   "a replace in a full store");
        full->seconds[i] = wall_seconds() - started;
        apr_pool_clear(p);
    }
    print_latency(full, "replace", "living");
}

static void time_drops(full_t *full)
{
    for (int i = 0; i < full->count; ++i) {
        abb_store_key_t key;
        double started;

        bench_find_key(full->store, full->next - 1 - (apr_uint64_t)i, &key);
        started = wall_seconds();
        bench_must(abb_store_drop(full->store->store, &key, NULL), "a drop");
        full->seconds[i] = wall_seconds() - started;
    }
    print_latency(full, "drop", "living");
}

/* Until a living session must go. */
static void fill_up(full_t *full)
{
    abb_store_figures_t before;
    abb_store_figures_t figures;

    abb_store_figures(full->store->store, &before);
    do {
        bench_must(bench_put(full->store, full->template, full->next++), "a put");
        abb_store_figures(full->store->store, &figures);
    } while (figures.evictions == before.evictions);
}

/* Every eighth visitor has long tokens, so that one put may need the room of several. */
static bench_template_t *create_mixture(apr_pool_t *p)
{
    bench_template_t *mixture =
        bench_create_template(&bench_short_tokens, &bench_any_site, BENCH_NOW, p);
    bench_template_t *large =
        bench_create_template(&bench_long_tokens, &bench_any_site, BENCH_NOW, p);

    for (int i = 0; i < mixture->count; i += 8) {
        mixture->records[i] = large->records[i];
    }
    return mixture;
}

static void measure_full_of(apr_size_t size, bench_template_t *template, apr_pool_t *p)
{
    full_t full = {.template = template, .count = quick ? 2000 : 20000, .state = 3};
    abb_store_figures_t figures;
    apr_pool_t *temporary;

    apr_pool_create(&temporary, p);
    full.seconds = apr_palloc(p, sizeof(double) * (apr_size_t)full.count);
    full.store = bench_create_store(size, NULL, &bench_any_site, BENCH_NOW, p);
    fill_up(&full);
    time_puts(&full, "living");
    abb_store_figures(full.store->store, &figures);
    if (full.count > figures.records / 4) {
        full.count = (int)(figures.records / 4);
    }
    time_touches(&full);
    time_replaces(&full, temporary);
    time_drops(&full);
    fill_up(&full);
    full.store->now += apr_time_from_sec(13 * 3600);
    time_puts(&full, "expired");
    bench_destroy_store(full.store);
}

static void measure_full(apr_pool_t *p)
{
    bench_template_t *mixture = create_mixture(p);

    measure_full_of(32 * MEGABYTE, mixture, p);
    if (!quick) {
        measure_full_of(1024 * MEGABYTE, mixture, p);
    }
}

/* ---- memory -------------------------------------------------------------- */

static void measure_memory_of(const char *name, const visitor_kind_t *kind, apr_size_t size,
                              apr_pool_t *parent)
{
    abb_store_figures_t figures = {0};
    abb_store_figures_t before = {0};
    abb_store_record_t parts;
    bench_store_t *store;
    apr_pool_t *p;
    apr_pool_t *each;

    apr_pool_create(&p, parent);
    apr_pool_create(&each, p);
    store = bench_create_store(size, NULL, &bench_any_site, BENCH_NOW, p);
    for (apr_uint64_t i = 0; figures.evictions <= 0; ++i) {
        abb_session_t *session = bench_sign_in(store, kind, i, each);

        before = figures;
        bench_must(abb_store_get(store->store, &session->key, ABB_STORE_BOTH_PARTS, store->now,
                                 &parts, each, NULL),
                   "a session just put");
        apr_pool_clear(each);
        abb_store_figures(store->store, &figures);
    }
    printf("{\"measure\":\"memory\",\"kind\":\"%s\",\"token_length\":%d,\"workspaces\":%d,"
           "\"open_bytes\":%" APR_SIZE_T_FMT ",\"sealed_bytes\":%" APR_SIZE_T_FMT ","
           "\"used_per_session\":%.1f,\"whole_per_session\":%.1f,\"sessions\":%" APR_INT64_T_FMT
           ",\"segment_bytes\":%" APR_SIZE_T_FMT "}\n",
           name, kind->token_length, kind->workspaces, parts.open_size, parts.sealed_size,
           (double)before.bytes_used / (double)before.records,
           (double)size / (double)before.records, before.records, size);
    bench_destroy_store(store);
    apr_pool_destroy(p);
}

static void measure_memory(apr_pool_t *p)
{
    apr_size_t size = (quick ? 4 : 32) * MEGABYTE;

    measure_memory_of("short", &bench_short_tokens, size, p);
    measure_memory_of("long", &bench_long_tokens, size, p);
    measure_memory_of("workspaces", &bench_many_workspaces, size, p);
}

/* ---- a start's import ---------------------------------------------------- */

static void measure_import(apr_pool_t *p)
{
    apr_uint64_t sessions = quick ? 100000 : 1000000;
    bench_template_t *template =
        bench_create_template(&bench_short_tokens, &bench_any_site, BENCH_NOW, p);
    bench_store_t *old = bench_populate(template, sessions, NULL, &bench_any_site, p);
    bench_store_t *new = bench_create_store(old->size, NULL, &bench_any_site, BENCH_NOW, p);
    abb_store_shm_import_t result = {0};
    double wall = wall_seconds();
    double cpu = cpu_seconds();

    bench_must(abb_store_shm_import(new->store, old->segment, old->size, &old->proof_key, 1,
                                    BENCH_NOW, &result, NULL),
               "import");
    cpu = cpu_seconds() - cpu;
    wall = wall_seconds() - wall;
    if (result.kept != sessions) {
        fprintf(stderr, "import kept %" APR_UINT64_T_FMT " of %" APR_UINT64_T_FMT "\n", result.kept,
                sessions);
        exit(1);
    }
    printf("{\"measure\":\"import\",\"sessions\":%" APR_UINT64_T_FMT
           ",\"seconds\":%.3f,\"cpu_seconds\":%.3f}\n",
           sessions, wall, cpu);
}

/* ---- a killed writer ----------------------------------------------------- */

static void write_for_ever(bench_store_t *store, const bench_template_t *template,
                           apr_uint64_t sessions, meeting_t *meeting)
{
    for (apr_uint64_t i = 0;; i = (i + 1) % 1000) {
        abb_store_key_t key;

        bench_find_key(store, sessions + i, &key);
        abb_store_drop(store->store, &key, NULL);
        bench_must(bench_put(store, template, sessions + i), "a put");
        atomic_store(&meeting->started, 1);
    }
}

/* Kill a writer at a moment of chance. Returns how long the next one waits, in seconds. */
static double kill_once(crowd_t *crowd, meeting_t *meeting, apr_uint64_t *state)
{
    double started;
    pid_t writer;

    atomic_store(&meeting->started, 0);
    if ((writer = fork_or_end()) == 0) {
        write_for_ever(crowd->store, crowd->template, crowd->sessions, meeting);
    }
    while (!atomic_load(&meeting->started)) {
    }
    started = wall_seconds() + (double)(bench_random(state) % 1000) / 1e6;
    while (wall_seconds() < started) {
    }
    kill(writer, SIGKILL);
    await_end(writer, SIGKILL);
    started = wall_seconds();
    if (bench_put(crowd->store, crowd->template, crowd->sessions + 1500) == APR_EEXIST) {
        bench_must(APR_EEXIST, "a put after a death");
    }
    return wall_seconds() - started;
}

static void drop_own(crowd_t *crowd)
{
    abb_store_key_t key;

    bench_find_key(crowd->store, crowd->sessions + 1500, &key);
    bench_must(abb_store_drop(crowd->store->store, &key, NULL), "a drop after a death");
}

static void measure_recovery(apr_pool_t *p)
{
    crowd_t *crowd = create_crowd(p);
    meeting_t *meeting = create_meeting();
    int wanted = quick ? 10 : 200;
    double *seconds = apr_palloc(p, sizeof(double) * (apr_size_t)wanted);
    double limit = wall_seconds() + (quick ? 10 : 120);
    apr_uint64_t state = 4;
    int recovered = 0;
    int kills = 0;

    while (recovered < wanted && wall_seconds() < limit) {
        abb_store_figures_t before;
        abb_store_figures_t after;
        double waited;

        abb_store_figures(crowd->store->store, &before);
        waited = kill_once(crowd, meeting, &state);
        abb_store_figures(crowd->store->store, &after);
        drop_own(crowd);
        ++kills;
        if (after.recoveries > before.recoveries) {
            seconds[recovered++] = waited;
        }
    }
    bench_must(recovered ? APR_SUCCESS : APR_EGENERAL, "no writer died at work");
    sort(seconds, recovered);
    printf("{\"measure\":\"recovery\",\"sessions\":%" APR_UINT64_T_FMT
           ",\"kills\":%d,\"recoveries\":%d,\"p50_ms\":%.3f,\"max_ms\":%.3f,\"whole\":%s}\n",
           crowd->sessions, kills, recovered, quantile(seconds, recovered, 0.5) * 1e3,
           seconds[recovered - 1] * 1e3,
           abb_store_shm_check(crowd->store->store) ? "false" : "true");
}

/* ---- for others ---------------------------------------------------------- */

static int fill(char **words, apr_pool_t *p)
{
    bench_site_t site = {words[2], words[3], words[4]};
    apr_time_t now = apr_time_now();
    bench_template_t *template = bench_create_template(&bench_short_tokens, &site, now, p);
    bench_store_t *store =
        bench_populate(template, strtoull(words[1], NULL, 10), words[0], &site, p);

    printf("{\"measure\":\"fill\",\"segment_bytes\":%" APR_SIZE_T_FMT "}\n", store->size);
    return 0;
}

static int prepare(char **words, apr_pool_t *p)
{
    bench_template_t *template =
        bench_create_template(&bench_short_tokens, &bench_any_site, BENCH_NOW, p);

    bench_populate(template, strtoull(words[1], NULL, 10), words[0], &bench_any_site, p);
    return 0;
}

static int print_cookies(char **words, apr_pool_t *p)
{
    apr_uint64_t sessions = strtoull(words[0], NULL, 10);
    apr_uint64_t state = 5;

    for (int left = atoi(words[1]); left > 0; --left) {
        char cookie[COOKIE_SIZE];

        bench_find_cookie(bench_random(&state) % sessions, cookie);
        puts(cookie);
    }
    return 0;
}

static int count(char **words, apr_pool_t *p)
{
    bench_store_t *store = bench_open_store(words[0], &bench_any_site, BENCH_NOW, p);
    choice_t *choice = create_choice(atoi(words[2]), p);
    apr_uint64_t state = 6;
    apr_pool_t *temporary;

    choose(choice, store, strtoull(words[1], NULL, 10), &state);
    apr_pool_create(&temporary, p);
    bench_get_all(store, choice, temporary);
    bench_find_all(store, choice, temporary);
    return 0;
}

typedef struct {
    const char *name;
    void (*measure)(apr_pool_t *p);
    int (*run)(char **words, apr_pool_t *p);
    int words;
} command_t;

static const command_t commands[] = {
    {"lookup", measure_lookup, NULL, 0},
    {"apart", measure_apart, NULL, 0},
    {"processes", measure_processes, NULL, 0},
    {"full", measure_full, NULL, 0},
    {"memory", measure_memory, NULL, 0},
    {"import", measure_import, NULL, 0},
    {"recovery", measure_recovery, NULL, 0},
    {"fill", NULL, fill, 5},
    {"cookies", NULL, print_cookies, 2},
    {"prepare", NULL, prepare, 2},
    {"count", NULL, count, 3},
};

int main(int argc, char **argv)
{
    apr_pool_t *p;

    bench_must(apr_initialize(), "APR");
    bench_must(apr_pool_create(&p, NULL), "memory");
    bench_must(abb_crypto_init(NULL), "libcrypto");
    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); ++i) {
        if (strcmp(argv[1], commands[i].name) != 0 || argc - 2 < commands[i].words) {
            continue;
        }
        if (commands[i].run) {
            return commands[i].run(argv + 2, p);
        }
        quick = argc > 2 && strcmp(argv[2], "quick") == 0;
        commands[i].measure(p);
        return 0;
    }
    fprintf(stderr, "store_bench: see the top of store_bench.c for how to call it\n");
    return 2;
}
