/*
 * t_store: the contract of a store, and what its engine in shared memory adds.
 *
 * The tests of the contract run for each engine of a table; those of the engine
 * in shared memory know that several processes work on it and may die.
 */
#include <apr_thread_proc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "contract.h"
#include "shared.h"
#include "unit.h"

/* ThreadSanitizer sees one process only and takes a mutex shared with others for a bad one. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ONE_PROCESS_ONLY 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define ONE_PROCESS_ONLY 1
#endif
#ifndef ONE_PROCESS_ONLY
#define ONE_PROCESS_ONLY 0
#endif

static const engine_maker_t engines[] = {
    {"shm", shared_store, abb_store_shm_check, 1},
};

/* ---- the segment --------------------------------------------------------- */

typedef struct {
    void *segment;
    apr_size_t size;
    apr_global_mutex_t *lock;
    const abb_store_t *store;
} segment_t;

static segment_t create_segment(apr_size_t size, apr_pool_t *p)
{
    segment_t made;
    apr_shm_t *shm;

    memset(&made, 0, sizeof(made));
    made.size = size;
    assert_int_equal(apr_shm_create(&shm, size, NULL, p), APR_SUCCESS);
    made.segment = apr_shm_baseaddr_get(shm);
    assert_int_equal(apr_global_mutex_create(&made.lock, NULL, APR_LOCK_PROC_PTHREAD, p),
                     APR_SUCCESS);
    return made;
}

static void segments_have_limits(void **state)
{
    segment_t made = create_segment(2 * ABB_STORE_SHM_MIN, *state);

    assert_int_equal(abb_store_shm_format(made.segment, 0, 1), APR_EINVAL);
    assert_int_equal(abb_store_shm_format(made.segment, 1, 1), APR_EINVAL);
    assert_int_equal(abb_store_shm_format(made.segment, ABB_STORE_SHM_MIN - 1, 1), APR_EINVAL);
    assert_int_equal(abb_store_shm_format(made.segment, ABB_STORE_SHM_MAX + 1, 1), APR_EINVAL);
    assert_false(abb_store_shm_is_formatted(made.segment, made.size));
    for (apr_size_t size = ABB_STORE_SHM_MIN; size < ABB_STORE_SHM_MIN + 600; ++size) {
        assert_int_equal(abb_store_shm_format(made.segment, size, size), APR_SUCCESS);
        assert_true(abb_store_shm_is_formatted(made.segment, size));
        assert_int_equal(
            abb_store_shm_open(&made.store, made.segment, size, made.lock, &proof_key, *state),
            APR_SUCCESS);
        shared_check(made.store);
    }
}

static void only_a_formatted_segment_opens(void **state)
{
    segment_t made = create_segment(2 * ABB_STORE_SHM_MIN, *state);
    unsigned char *bytes = made.segment;

    assert_false(abb_store_shm_is_formatted(made.segment, made.size));
    assert_int_equal(
        abb_store_shm_open(&made.store, made.segment, made.size, made.lock, &proof_key, *state),
        APR_EINVAL);
    assert_int_equal(abb_store_shm_format(made.segment, made.size, 1), APR_SUCCESS);
    assert_true(abb_store_shm_is_formatted(made.segment, made.size));
    assert_false(abb_store_shm_is_formatted(made.segment, made.size - 1));
    assert_false(abb_store_shm_is_formatted(made.segment, ABB_STORE_SHM_MIN));
    assert_false(abb_store_shm_is_formatted(made.segment, 0));
    /* Magic, version, size: whatever differs, it is not ours. */
    for (int i = 0; i < 12; ++i) {
        bytes[i] ^= 1;
        assert_false(abb_store_shm_is_formatted(made.segment, made.size));
        bytes[i] ^= 1;
    }
    assert_true(abb_store_shm_is_formatted(made.segment, made.size));
}

/* Segment and lock outlive the handles of one generation of the server. */
static void records_outlive_a_handle(void **state)
{
    segment_t made = create_segment(ABB_STORE_SHM_MIN, *state);
    place_t place = {&engines[0], NULL, *state};
    abb_store_record_t got;
    apr_pool_t *p;

    assert_int_equal(abb_store_shm_format(made.segment, made.size, 9), APR_SUCCESS);
    apr_pool_create(&p, *state);
    assert_int_equal(
        abb_store_shm_open(&place.store, made.segment, made.size, made.lock, &proof_key, p),
        APR_SUCCESS);
    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    apr_pool_destroy(p);
    assert_int_equal(
        abb_store_shm_open(&place.store, made.segment, made.size, made.lock, &proof_key, *state),
        APR_SUCCESS);
    assert_int_equal(get_at(&place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, 100, 1);
    shared_check(place.store);
}

/* Processes may map a segment at different addresses. */
static void addresses_do_not_matter(void **state)
{
    segment_t made = create_segment(ABB_STORE_SHM_MIN, *state);
    place_t first = {&engines[0], NULL, *state};
    place_t second = {&engines[0], NULL, *state};
    apr_size_t size = ABB_STORE_SHM_MIN;
    int file = memfd_create("t_store", MFD_CLOEXEC);
    void *one = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    void *two;

    assert_int_equal(ftruncate(file, (off_t)size), 0);
    two = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    assert_true(one != MAP_FAILED && two != MAP_FAILED && one != two);
    assert_int_equal(abb_store_shm_format(one, size, 9), APR_SUCCESS);
    assert_int_equal(abb_store_shm_open(&first.store, one, size, made.lock, &proof_key, *state),
                     APR_SUCCESS);
    assert_int_equal(abb_store_shm_open(&second.store, two, size, made.lock, &proof_key, *state),
                     APR_SUCCESS);
    for (apr_uint64_t i = 0; i < 2000; ++i) {
        place_t *writer = i % 2 ? &first : &second;
        place_t *reader = i % 3 ? &first : &second;
        abb_store_record_t record = make_record(300, 300, i, *state);
        abb_store_record_t got;

        assert_int_equal(put_at(writer->store, i, &record, NOW), APR_SUCCESS);
        assert_int_equal(get_at(reader, i, NOW, &got), APR_SUCCESS);
        check_content(&got, 300, 300, i);
    }
    shared_check(first.store);
    shared_check(second.store);
    munmap(one, size);
    munmap(two, size);
    close(file);
}

/* ---- many at once -------------------------------------------------------- */

enum { CROWD_KEYS = 60 };

/* What the processes of a crowd share. */
typedef struct {
    int stop;
    int faults;
    char fault[200];
    apr_uint64_t operations;
    apr_interval_time_t longest;
    int started;
} board_t;

static board_t *create_board(apr_pool_t *p)
{
    apr_shm_t *shm;
    board_t *board;

    assert_int_equal(apr_shm_create(&shm, sizeof(*board), NULL, p), APR_SUCCESS);
    board = apr_shm_baseaddr_get(shm);
    memset(board, 0, sizeof(*board));
    return board;
}

static void note_fault(board_t *board, const char *what, apr_uint64_t number, apr_status_t status)
{
    if (__atomic_fetch_add(&board->faults, 1, __ATOMIC_SEQ_CST) == 0) {
        snprintf(board->fault, sizeof(board->fault), "%s of record %d: %s (%d)", what, (int)number,
                 abb_error_word(status), status);
    }
}

static void note_time(board_t *board, apr_time_t start)
{
    apr_interval_time_t taken = apr_time_now() - start;
    apr_interval_time_t longest = __atomic_load_n(&board->longest, __ATOMIC_RELAXED);

    __atomic_fetch_add(&board->operations, 1, __ATOMIC_RELAXED);
    while (taken > longest && !__atomic_compare_exchange_n(&board->longest, &longest, taken, 0,
                                                           __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

/* One worker: a thread or process with its own random numbers and pool. */
typedef struct {
    const abb_store_t *store;
    board_t *board;
    apr_uint64_t random;
    apr_pool_t *p;
    /* How long it works; NULL board->stop is looked at too. */
    apr_time_t until;
} worker_t;

static apr_uint64_t next_random(worker_t *worker)
{
    worker->random = mix(worker->random);
    return worker->random;
}

/* Both parts start with the salt and the number; the rest follows from them. */
static abb_store_record_t make_worker_record(worker_t *worker, apr_uint64_t number)
{
    apr_uint64_t salt = next_random(worker) * CROWD_KEYS + number;
    abb_store_record_t record;
    apr_size_t open_size = 16 + (apr_size_t)(salt >> 20) % 900;
    apr_size_t sealed_size = 16 + (apr_size_t)(salt >> 32) % (salt % 7 == 0 ? 9000 : 300);
    char *open = apr_palloc(worker->p, open_size);
    char *sealed = apr_palloc(worker->p, sealed_size);

    fill(open, open_size, salt);
    fill(sealed, sealed_size, ~salt);
    memcpy(open, &salt, 8);
    memcpy(open + 8, &number, 8);
    memcpy(sealed, &salt, 8);
    memcpy(sealed + 8, &number, 8);
    memset(&record, 0, sizeof(record));
    record.open = open;
    record.open_size = open_size;
    record.sealed = sealed;
    record.sealed_size = sealed_size;
    record.expires_at = NOW + HOURS(1);
    return record;
}

/* A part must be as make_worker_record makes it. *salt tells which record it is of. */
static int is_whole_part(const void *part, apr_size_t size, apr_uint64_t number, int is_sealed,
                         apr_uint64_t *salt)
{
    const char *bytes = part;
    apr_uint64_t words[2];

    if (size < 16) {
        return 0;
    }
    memcpy(words, bytes, 16);
    *salt = words[0];
    for (apr_size_t i = 16; i < size; ++i) {
        apr_uint64_t seed = is_sealed ? ~*salt : *salt;

        if (bytes[i] != (char)(mix(seed + i / 8) >> (i % 8 * 8))) {
            return 0;
        }
    }
    return words[1] == number &&
           size == 16 + (apr_size_t)(is_sealed ? (*salt >> 32) % (*salt % 7 == 0 ? 9000 : 300)
                                               : (*salt >> 20) % 900);
}

static int is_whole(const abb_store_record_t *record, apr_uint64_t number)
{
    apr_uint64_t open_salt;
    apr_uint64_t sealed_salt;

    if (!is_whole_part(record->open, record->open_size, number, 0, &open_salt)) {
        return 0;
    }
    return !record->sealed ||
           (is_whole_part(record->sealed, record->sealed_size, number, 1, &sealed_salt) &&
            sealed_salt == open_salt);
}

static apr_status_t worker_get(worker_t *worker, apr_uint64_t number, abb_store_parts_t parts,
                               abb_store_record_t *record)
{
    abb_store_key_t key = make_key(number);
    apr_status_t status = abb_store_get(worker->store, &key, parts, NOW, record, worker->p, NULL);

    if (status != APR_SUCCESS && status != APR_NOTFOUND) {
        note_fault(worker->board, "get", number, status);
    }
    else if (status == APR_SUCCESS && !is_whole(record, number)) {
        note_fault(worker->board, "torn content", number, status);
    }
    return status;
}

static void worker_write(worker_t *worker, apr_uint64_t number, apr_uint64_t choice)
{
    abb_store_key_t key = make_key(number);
    abb_store_record_t record = make_worker_record(worker, number);
    abb_store_record_t got;
    apr_status_t status = APR_SUCCESS;
    apr_uint64_t holder;

    switch (choice % 8) {
    case 0:
    case 1:
        status = abb_store_put(worker->store, &key, &record, NOW, NULL);
        break;
    case 2:
    case 3:
    case 4:
        if (worker_get(worker, number, ABB_STORE_BOTH_PARTS, &got) == APR_SUCCESS) {
            status = abb_store_replace(worker->store, &key, got.generation, &record, NOW, NULL);
        }
        break;
    case 5:
        status = abb_store_touch(worker->store, &key, NOW + (apr_time_t)(choice >> 40), NULL);
        break;
    case 6:
        status = abb_store_lease(worker->store, &key, 1, NOW, &holder, NULL);
        if (status == APR_SUCCESS) {
            abb_store_release(worker->store, &key, holder, NULL);
        }
        break;
    default:
        status = abb_store_drop(worker->store, &key, NULL);
    }
    if (status != APR_SUCCESS && status != APR_EEXIST && status != APR_NOTFOUND &&
        status != ABB_ECHANGED) {
        note_fault(worker->board, "write", number, status);
    }
}

/* Work until it is over; every fourth step writes. */
static void work(worker_t *worker)
{
    while (!__atomic_load_n(&worker->board->stop, __ATOMIC_RELAXED) &&
           apr_time_now() < worker->until) {
        apr_uint64_t choice = next_random(worker);
        apr_uint64_t number = choice / 64 % CROWD_KEYS;
        apr_time_t start = apr_time_now();
        abb_store_record_t record;

        if (choice % 4 == 0) {
            worker_write(worker, number, choice >> 32);
        }
        else {
            worker_get(worker, number, choice % 8 < 4 ? ABB_STORE_OPEN_PART : ABB_STORE_BOTH_PARTS,
                       &record);
        }
        note_time(worker->board, start);
        apr_pool_clear(worker->p);
    }
}

static void *run_worker(void *data)
{
    work(data);
    return NULL;
}

static void begin_worker(worker_t *worker, const abb_store_t *store, board_t *board,
                         apr_uint64_t random, apr_interval_time_t duration)
{
    worker->store = store;
    worker->board = board;
    worker->random = random;
    worker->until = apr_time_now() + duration;
    apr_pool_create(&worker->p, NULL);
}

enum { CROWD_THREADS = 3 };

static void work_in_threads(const abb_store_t *store, board_t *board, apr_uint64_t random,
                            apr_interval_time_t duration)
{
    worker_t workers[CROWD_THREADS];
    pthread_t threads[CROWD_THREADS];

    for (int i = 0; i < CROWD_THREADS; ++i) {
        begin_worker(&workers[i], store, board, mix(random + (apr_uint64_t)i), duration);
        if (pthread_create(&threads[i], NULL, run_worker, &workers[i]) != 0) {
            note_fault(board, "thread", 0, APR_EGENERAL);
            threads[i] = pthread_self();
        }
    }
    for (int i = 0; i < CROWD_THREADS; ++i) {
        if (!pthread_equal(threads[i], pthread_self())) {
            pthread_join(threads[i], NULL);
        }
        apr_pool_destroy(workers[i].p);
    }
}

static void check_board(const board_t *board)
{
    if (board->faults) {
        fail_msg("%d faults, first: %s", board->faults, board->fault);
    }
    assert_true(board->operations > 1000);
}

static void threads_read_whole_records(void **state)
{
    const abb_store_t *store = shared_store(ABB_STORE_SHM_MIN, *state);
    board_t *board = create_board(*state);

    work_in_threads(store, board, 1, SECONDS(1));
    check_board(board);
    shared_check(store);
    assert_int_equal(figures_of(store).recoveries, 0);
}

static void processes_read_whole_records(void **state)
{
    enum { CHILDREN = 4 };
    /* Room for half of the records: they also throw each other out. */
    const abb_store_t *store = shared_store(ABB_STORE_SHM_MIN, *state);
    board_t *board = create_board(*state);
    pid_t children[CHILDREN];

    if (ONE_PROCESS_ONLY) {
        skip();
    }
    for (int i = 0; i < CHILDREN; ++i) {
        children[i] = fork();
        if (children[i] == 0) {
            work_in_threads(store, board, (apr_uint64_t)i * 1000, SECONDS(2));
            _exit(0);
        }
        assert_true(children[i] > 0);
    }
    for (int i = 0; i < CHILDREN; ++i) {
        unit_await_child(children[i]);
    }
    check_board(board);
    shared_check(store);
    assert_int_equal(figures_of(store).recoveries, 0);
}

/* ---- death --------------------------------------------------------------- */

static pid_t start_survivor(const abb_store_t *store, board_t *board, apr_uint64_t random)
{
    pid_t child = fork();

    if (child == 0) {
        worker_t worker;

        begin_worker(&worker, store, board, random, SECONDS(60));
        work(&worker);
        _exit(0);
    }
    assert_true(child > 0);
    return child;
}

/* Put, replace, touch or drop a record that is ready: most of the time the lock is held. */
static void victim_write(worker_t *worker, const abb_store_record_t *record, apr_uint64_t number,
                         apr_uint64_t choice)
{
    abb_store_key_t key = make_key(number);
    abb_store_record_t got;
    apr_uint64_t holder;

    switch (choice % 4) {
    case 0:
        abb_store_drop(worker->store, &key, NULL);
        break;
    case 1:
        if (abb_store_lease(worker->store, &key, 1, NOW, &holder, NULL) == APR_SUCCESS) {
            abb_store_fail(worker->store, &key, holder, NOW, NULL);
        }
        break;
    case 2:
        abb_store_touch(worker->store, &key, NOW + (apr_time_t)(choice >> 40), NULL);
        break;
    default:
        if (abb_store_put(worker->store, &key, record, NOW, NULL) == APR_EEXIST &&
            abb_store_get(worker->store, &key, ABB_STORE_OPEN_PART, NOW, &got, worker->p, NULL) ==
                APR_SUCCESS) {
            abb_store_replace(worker->store, &key, got.generation, record, NOW, NULL);
        }
    }
}

/* A child that does nothing but write until it is killed. */
static pid_t start_victim(const abb_store_t *store, board_t *board, apr_uint64_t random)
{
    pid_t child = fork();

    if (child == 0) {
        worker_t worker;
        abb_store_record_t records[CROWD_KEYS];

        begin_worker(&worker, store, board, random, SECONDS(60));
        for (apr_uint64_t i = 0; i < CROWD_KEYS; ++i) {
            records[i] = make_worker_record(&worker, i);
        }
        apr_pool_create(&worker.p, NULL);
        __atomic_fetch_add(&board->started, 1, __ATOMIC_SEQ_CST);
        for (;;) {
            apr_uint64_t choice = next_random(&worker);

            victim_write(&worker, &records[choice % CROWD_KEYS], choice % CROWD_KEYS, choice >> 32);
            apr_pool_clear(worker.p);
        }
    }
    assert_true(child > 0);
    return child;
}

static void wait_for_start(board_t *board, int started)
{
    for (int i = 0; i < 2000 && __atomic_load_n(&board->started, __ATOMIC_SEQ_CST) < started; ++i) {
        apr_sleep(1000);
    }
    assert_true(__atomic_load_n(&board->started, __ATOMIC_SEQ_CST) >= started);
}

enum { SURVIVORS = 2, VICTIMS = 2, KILLS = 3000, KILLS_MIN = 200 };

/*
 * How long the longest operation takes in the same crowd while nobody dies. The
 * lock is not fair and the machine may be busy: only what comes on top counts.
 */
static apr_interval_time_t longest_in_peace(apr_pool_t *p)
{
    const abb_store_t *store = shared_store(ABB_STORE_SHM_MIN, p);
    board_t *board = create_board(p);
    pid_t crowd[SURVIVORS + VICTIMS];

    for (int i = 0; i < SURVIVORS + VICTIMS; ++i) {
        crowd[i] = i < SURVIVORS ? start_survivor(store, board, (apr_uint64_t)i + 50)
                                 : start_victim(store, board, (apr_uint64_t)i + 100);
    }
    apr_sleep(SECONDS(2));
    __atomic_store_n(&board->stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < SURVIVORS; ++i) {
        unit_await_child(crowd[i]);
    }
    for (int i = SURVIVORS; i < SURVIVORS + VICTIMS; ++i) {
        unit_kill_child(crowd[i]);
    }
    return board->longest;
}

static void writers_may_die_at_any_moment(void **state)
{
    apr_interval_time_t peace;
    const abb_store_t *store = shared_store(ABB_STORE_SHM_MIN, *state);
    board_t *board = create_board(*state);
    apr_time_t until;
    pid_t survivors[SURVIVORS];
    pid_t victims[VICTIMS];
    apr_uint64_t random = 4711;
    int kills = 0;

    if (ONE_PROCESS_ONLY) {
        skip();
    }
    peace = longest_in_peace(*state);
    until = apr_time_now() + SECONDS(15);
    for (int i = 0; i < SURVIVORS; ++i) {
        survivors[i] = start_survivor(store, board, (apr_uint64_t)i + 50);
    }
    for (int i = 0; i < VICTIMS; ++i) {
        victims[i] = start_victim(store, board, (apr_uint64_t)i + 100);
    }
    /* On a machine that has other things to do, until there are enough. */
    while (kills < KILLS && (kills < KILLS_MIN || apr_time_now() < until)) {
        pid_t *victim = &victims[kills % VICTIMS];

        wait_for_start(board, kills + VICTIMS);
        random = mix(random);
        apr_sleep((apr_interval_time_t)(random % 1500));
        unit_kill_child(*victim);
        ++kills;
        *victim = start_victim(store, board, random);
    }
    for (int i = 0; i < VICTIMS; ++i) {
        unit_kill_child(victims[i]);
    }
    __atomic_store_n(&board->stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < SURVIVORS; ++i) {
        unit_await_child(survivors[i]);
    }
    check_board(board);
    shared_check(store);
    print_message("# %d writers killed, %d recoveries, longest operation %d ms, in peace %d ms\n",
                  kills, (int)figures_of(store).recoveries, (int)apr_time_as_msec(board->longest),
                  (int)apr_time_as_msec(peace));
    assert_true(figures_of(store).recoveries > kills / 20);
    assert_true(figures_of(store).recoveries <= kills + VICTIMS);
    assert_true(board->longest < SECONDS(1) + 5 * peace);
}

/* ---- death at each instruction ------------------------------------------- */

/*
 * A child does one operation, instruction by instruction. After each that changed
 * the segment, a copy of it is what the child's death would have left: another
 * process must be able to go on with it.
 */
enum { BYSTANDERS = 6, SUBJECT = 100, LARGE_SIZE = 1500 };

/*
 * After so long, as under a sanitizer, only one in so many instructions is looked
 * at, and after so much longer the rest goes unseen.
 */
#define WALK_PATIENCE apr_time_from_msec(1500)
#define WALK_STRIDE 41
#define WALK_REST apr_time_from_msec(1000)

/* After so many changes of the segment a replacement is under way, its links half made. */
#define TORN_AFTER 260

typedef struct {
    const char *name;
    /* What is there before; the bystanders are. */
    void (*prepare)(place_t *place);
    void (*operate)(place_t *place);
    /* Whether the subject may be absent, as before, or new afterwards. */
    int may_be_absent;
    int may_be_old;
    int may_be_new;
    /* Whether bystanders may be gone: the store is full. */
    int may_evict;
} death_t;

static abb_store_record_t old_subject;
static abb_store_record_t new_subject;
static apr_uint64_t subject_generation;
static apr_uint64_t subject_holder;
static const segment_t *live_segment;

static void prepare_nothing(place_t *place)
{
}

static void prepare_subject(place_t *place)
{
    abb_store_record_t got;

    assert_int_equal(put_at(place->store, SUBJECT, &old_subject, NOW), APR_SUCCESS);
    assert_int_equal(get_at(place, SUBJECT, NOW, &got), APR_SUCCESS);
    subject_generation = got.generation;
}

/* The new one will stand before the old one in the segment. */
static void prepare_subject_behind_free_blocks(place_t *place)
{
    abb_store_record_t filler = make_record(100, 3000, 1, place->p);

    assert_int_equal(put_at(place->store, 300, &filler, NOW), APR_SUCCESS);
    prepare_subject(place);
    assert_int_equal(drop_at(place, 300), APR_SUCCESS);
}

static void prepare_lease(place_t *place)
{
    prepare_subject(place);
    assert_int_equal(lease_at(place, SUBJECT, SECONDS(10), NOW, &subject_holder), APR_SUCCESS);
}

static void prepare_expired(place_t *place)
{
    abb_store_record_t record = make_record(50, 700, 1, place->p);

    record.expires_at = NOW;
    assert_int_equal(put_at(place->store, SUBJECT, &record, NOW - 1), APR_SUCCESS);
    for (apr_uint64_t i = 0; i < 3; ++i) {
        assert_int_equal(put_at(place->store, 200 + i, &record, NOW - 1), APR_SUCCESS);
    }
}

static void fill_up(place_t *place)
{
    abb_store_record_t record = make_record(100, 1000, 1, place->p);

    for (apr_uint64_t i = 1000; figures_of(place->store).evictions == 0; ++i) {
        assert_int_equal(put_at(place->store, i, &record, NOW), APR_SUCCESS);
    }
}

static void prepare_full(place_t *place)
{
    fill_up(place);
    prepare_subject(place);
}

static void operate_put(place_t *place)
{
    put_at(place->store, SUBJECT, &new_subject, NOW);
}

static void operate_replace(place_t *place)
{
    replace_at(place, SUBJECT, subject_generation, &new_subject, NOW);
}

static void operate_touch(place_t *place)
{
    touch_at(place, SUBJECT, NOW + 5);
}

static void operate_drop(place_t *place)
{
    drop_at(place, SUBJECT);
}

static void operate_lease(place_t *place)
{
    apr_uint64_t holder;

    lease_at(place, SUBJECT, SECONDS(10), NOW, &holder);
}

static void operate_release(place_t *place)
{
    release_at(place, SUBJECT, subject_holder);
}

static void operate_fail(place_t *place)
{
    abb_store_key_t key = make_key(SUBJECT);

    abb_store_fail(place->store, &key, subject_holder, NOW, NULL);
}

/* Whoever takes the lock first after a death. */
static void operate_next(place_t *place)
{
    drop_at(place, SUBJECT + 1);
}

static pid_t start_traced(place_t *place, void (*operate)(place_t *));
static int step_child(pid_t *child);
static void end_child(pid_t child);

/* A writer has died in the middle of a replacement. */
static void prepare_torn(place_t *place)
{
    apr_size_t size = live_segment->size;
    char *last = apr_palloc(place->p, size);
    pid_t child;
    int changes = 0;

    prepare_subject(place);
    memcpy(last, live_segment->segment, size);
    child = start_traced(place, operate_replace);
    while (child && changes < TORN_AFTER && step_child(&child)) {
        if (memcmp(last, live_segment->segment, size) != 0) {
            memcpy(last, live_segment->segment, size);
            ++changes;
        }
    }
    end_child(child);
}

static const death_t deaths[] = {
    {"put", prepare_nothing, operate_put, 1, 0, 1, 0},
    {"put into a full store", fill_up, operate_put, 1, 0, 1, 1},
    {"put over an expired one", prepare_expired, operate_put, 1, 0, 1, 0},
    {"replace", prepare_subject, operate_replace, 0, 1, 1, 0},
    {"replace further in front", prepare_subject_behind_free_blocks, operate_replace, 0, 1, 1, 0},
    {"replace in a full store", prepare_full, operate_replace, 0, 1, 1, 1},
    {"touch", prepare_subject, operate_touch, 0, 1, 0, 0},
    {"drop", prepare_subject, operate_drop, 1, 1, 0, 0},
    {"lease", prepare_subject, operate_lease, 0, 1, 0, 0},
    {"release", prepare_lease, operate_release, 0, 1, 0, 0},
    {"fail", prepare_lease, operate_fail, 0, 1, 0, 0},
    {"recovery", prepare_torn, operate_next, 0, 1, 0, 0},
};

static const char *judge_bystanders(place_t *place, const death_t *death)
{
    for (apr_uint64_t i = 0; i < BYSTANDERS; ++i) {
        abb_store_record_t got;
        apr_status_t status = get_at(place, i, NOW, &got);

        if (status != APR_SUCCESS && !(death->may_evict && status == APR_NOTFOUND)) {
            return "a bystander is gone";
        }
        if (status == APR_SUCCESS &&
            (got.open_size != 100 || got.sealed_size != 400 || !is_filled(got.open, 100, i) ||
             !is_filled(got.sealed, 400, ~i))) {
            return "a bystander is changed";
        }
    }
    return NULL;
}

static int is_same(const abb_store_record_t *got, const abb_store_record_t *expected)
{
    return got->open_size == expected->open_size && got->sealed_size == expected->sealed_size &&
           memcmp(got->open, expected->open, got->open_size) == 0 &&
           memcmp(got->sealed, expected->sealed, got->sealed_size) == 0;
}

static const char *judge_subject(place_t *place, const death_t *death)
{
    abb_store_record_t seen;
    abb_store_record_t kept;
    apr_status_t status = get_at(place, SUBJECT, NOW, &seen);
    const char *fault = abb_store_shm_check(place->store);

    /* What a reader saw before anybody took the lock and repaired must stay true. */
    if (fault || get_at(place, SUBJECT, NOW, &kept) != status) {
        return fault ? fault : "a record that was there is gone, or the other way round";
    }
    if (status == APR_NOTFOUND) {
        return death->may_be_absent ? NULL : "the record is gone";
    }
    if (status != APR_SUCCESS) {
        return "the record cannot be read";
    }
    if (!is_same(&seen, &kept)) {
        return "another record is there after the repair";
    }
    if ((death->may_be_old && is_same(&seen, &old_subject)) ||
        (death->may_be_new && is_same(&seen, &new_subject))) {
        return NULL;
    }
    return "the record is neither the old nor the new one";
}

/* What the survivors find, and that they can go on: NULL, or what is wrong. */
static const char *judge_death(place_t *place, const death_t *death)
{
    abb_store_record_t more = make_record(200, 3000, 9, place->p);
    const char *fault = judge_subject(place, death);
    abb_store_record_t got;

    if (fault || (fault = judge_bystanders(place, death))) {
        return fault;
    }
    if (put_at(place->store, 500, &more, NOW) != APR_SUCCESS ||
        get_at(place, 500, NOW, &got) != APR_SUCCESS || !is_same(&got, &more)) {
        return "nothing can be put any more";
    }
    drop_at(place, SUBJECT);
    if (status_at(place, SUBJECT, NOW) != APR_NOTFOUND) {
        return "a dropped record comes back";
    }
    return abb_store_shm_check(place->store);
}

/* Stop at the next instruction. Returns 0, and so does *child, when it has ended. */
static int step_child(pid_t *child)
{
    int how = 0;

    if (ptrace(PTRACE_SINGLESTEP, *child, NULL, NULL) != 0) {
        return 0;
    }
    if (waitpid(*child, &how, 0) != *child || !WIFSTOPPED(how)) {
        *child = 0;
        return 0;
    }
    return 1;
}

static void end_child(pid_t child)
{
    if (child) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
}

/* A child that stops before its operation; 0 when it cannot be traced. */
static pid_t start_traced(place_t *place, void (*operate)(place_t *))
{
    int how = 0;
    pid_t child = fork();

    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(1);
        }
        raise(SIGSTOP);
        operate(place);
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &how, 0), child);
    return WIFSTOPPED(how) ? child : 0;
}

/* Each state of the segment while one operation runs; returns how many there were. */
static int walk(place_t *place, const death_t *death, const segment_t *live, const segment_t *copy,
                void *last)
{
    pid_t child = start_traced(place, death->operate);
    apr_time_t patience = apr_time_now() + WALK_PATIENCE;
    int repairs = 0;
    int states = 0;
    int steps = 0;

    if (!child) {
        return 0;
    }
    memset(last, 0, live->size);
    do {
        place_t survivor = {place->engine, copy->store, NULL};
        const char *fault;

        if ((++steps % WALK_STRIDE && apr_time_now() > patience) ||
            memcmp(last, live->segment, live->size) == 0) {
            continue;
        }
        memcpy(last, live->segment, live->size);
        memcpy(copy->segment, live->segment, live->size);
        apr_pool_create(&survivor.p, place->p);
        fault = judge_death(&survivor, death);
        apr_pool_destroy(survivor.p);
        repairs += figures_of(copy->store).recoveries > figures_of(live->store).recoveries;
        ++states;
        if (fault) {
            end_child(child);
            fail_msg("%s, state %d: %s", death->name, states, fault);
        }
    } while (apr_time_now() < patience + WALK_REST && step_child(&child));
    end_child(child);
    assert_true(repairs > 0);
    return states;
}

static void check_death(const death_t *death, apr_pool_t *p)
{
    segment_t live = create_segment(ABB_STORE_SHM_MIN, p);
    segment_t copy = create_segment(ABB_STORE_SHM_MIN, p);
    place_t place = {&engines[0], NULL, p};
    int states;

    old_subject = make_record(600, 300, 21, p);
    new_subject = make_record(100, LARGE_SIZE, 22, p);
    assert_int_equal(abb_store_shm_format(live.segment, live.size, 1), APR_SUCCESS);
    assert_int_equal(abb_store_shm_format(copy.segment, copy.size, 1), APR_SUCCESS);
    assert_int_equal(
        abb_store_shm_open(&live.store, live.segment, live.size, live.lock, &proof_key, p),
        APR_SUCCESS);
    assert_int_equal(
        abb_store_shm_open(&copy.store, copy.segment, copy.size, copy.lock, &proof_key, p),
        APR_SUCCESS);
    place.store = live.store;
    for (apr_uint64_t i = 0; i < BYSTANDERS; ++i) {
        abb_store_record_t record = make_record(100, 400, i, p);

        assert_int_equal(put_at(place.store, i, &record, NOW), APR_SUCCESS);
    }
    live_segment = &live;
    death->prepare(&place);
    states = walk(&place, death, &live, &copy, apr_palloc(p, live.size));
    if (states == 0) {
        print_message("# no child can be traced here\n");
        skip();
    }
    assert_true(states > 2);
}

static void a_writer_may_die_at_each_instruction(void **state)
{
    if (ONE_PROCESS_ONLY) {
        skip();
    }
    for (apr_size_t i = 0; i < UNIT_COUNT(deaths); ++i) {
        apr_pool_t *p;

        apr_pool_create(&p, *state);
        check_death(&deaths[i], p);
        apr_pool_destroy(p);
    }
}
/* ---- all of them --------------------------------------------------------- */

int main(void)
{
    static const struct CMUnitTest own[] = {
        UNIT_TEST(segments_have_limits),          UNIT_TEST(only_a_formatted_segment_opens),
        UNIT_TEST(records_outlive_a_handle),      UNIT_TEST(addresses_do_not_matter),
        UNIT_TEST(threads_read_whole_records),    UNIT_TEST(processes_read_whole_records),
        UNIT_TEST(writers_may_die_at_any_moment), UNIT_TEST(a_writer_may_die_at_each_instruction),
    };

    return contract_run(engines, UNIT_COUNT(engines), own, UNIT_COUNT(own));
}
