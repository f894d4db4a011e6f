/*
 * t_store_file: the file in which sessions outlast the server, as file systems,
 * users and deaths may leave it.
 */
#include "abb_store_file.h"

#include <apr_file_info.h>
#include <apr_file_io.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared.h"

#define NOW ((apr_time_t)1700000000 * APR_USEC_PER_SEC)
#define SIZE ((apr_size_t)256 * 1024)
#define NOBODY 65534

enum { RECORDS = 60 };

/* A directory of the test's own with a path for the file. */
typedef struct {
    apr_pool_t *p;
    char *directory;
    const char *path;
} place_t;

static int create_place(void **state)
{
    place_t *place;
    const char *temporary;
    void *p;

    if (unit_create_pool(&p) != 0) {
        return -1;
    }
    place = apr_pcalloc(p, sizeof(*place));
    place->p = p;
    *state = place;
    if (apr_temp_dir_get(&temporary, p) != APR_SUCCESS ||
        !mkdtemp(place->directory = apr_pstrcat(p, temporary, "/file-XXXXXX", NULL))) {
        return -1;
    }
    place->path = apr_pstrcat(p, place->directory, "/sessions", NULL);
    return 0;
}

static void remove_entries(const place_t *place)
{
    apr_dir_t *entries;
    apr_finfo_t entry;

    assert_int_equal(apr_dir_open(&entries, place->directory, place->p), APR_SUCCESS);
    while (apr_dir_read(&entry, APR_FINFO_NAME, entries) == APR_SUCCESS) {
        if (strcmp(entry.name, ".") != 0 && strcmp(entry.name, "..") != 0) {
            remove(apr_pstrcat(place->p, place->directory, "/", entry.name, NULL));
        }
    }
    apr_dir_close(entries);
}

static int remove_place(void **state)
{
    place_t *place = *state;

    chmod(place->directory, 0700);
    remove_entries(place);
    rmdir(place->directory);
    apr_pool_destroy(place->p);
    return 0;
}

#define PLACE_TEST(function) cmocka_unit_test_setup_teardown(function, create_place, remove_place)

static const char *beside(const place_t *place, const char *ending)
{
    return apr_pstrcat(place->p, place->path, ending, NULL);
}

static int is_there(const char *path)
{
    struct stat info;

    return lstat(path, &info) == 0;
}

static void put_bytes(const char *path, const void *bytes, apr_size_t size, mode_t mode)
{
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, bytes, size), size);
    assert_int_equal(fchmod(descriptor, mode), 0);
    close(descriptor);
}

static char *get_bytes(const char *path, apr_size_t *size, apr_pool_t *p)
{
    int descriptor = open(path, O_RDONLY);
    struct stat info;
    char *bytes;

    assert_true(descriptor >= 0);
    fstat(descriptor, &info);
    *size = (apr_size_t)info.st_size;
    bytes = apr_palloc(p, *size + 1);
    assert_int_equal(read(descriptor, bytes, *size), *size);
    bytes[*size] = '\0';
    close(descriptor);
    return bytes;
}

static void check_sentence(const abb_error_t *err, const char *part)
{
    assert_int_equal(err->status, ABB_ESTORE);
    if (!strstr(err->text, part)) {
        fail_msg("'%s' does not hold '%s'", err->text, part);
    }
}

/* ---- records --------------------------------------------------------------- */

static abb_store_key_t make_key(int number)
{
    abb_store_key_t key;

    memset(key.bytes, 0, sizeof(key.bytes));
    memcpy(key.bytes, &number, sizeof(number));
    return key;
}

static abb_store_record_t make_record(int number, apr_pool_t *p)
{
    abb_store_record_t record = {.open_size = (apr_size_t)(100 + number),
                                 .sealed_size = (apr_size_t)(400 + 9 * number),
                                 .expires_at = NOW + apr_time_from_sec(86400)};
    char *open = apr_palloc(p, record.open_size);
    char *sealed = apr_palloc(p, record.sealed_size);

    memset(open, number, record.open_size);
    memset(sealed, ~number, record.sealed_size);
    record.open = open;
    record.sealed = sealed;
    return record;
}

static void fill(const abb_store_t *store, apr_pool_t *p)
{
    for (int i = 0; i < RECORDS; ++i) {
        abb_store_key_t key = make_key(i);
        abb_store_record_t record = make_record(i, p);

        assert_int_equal(abb_store_put(store, &key, &record, NOW + i, NULL), APR_SUCCESS);
    }
}

/* How many of the records are there; each must be what was put. */
static int count_whole(const abb_store_t *store, apr_pool_t *p)
{
    int count = 0;

    for (int i = 0; i < RECORDS; ++i) {
        abb_store_key_t key = make_key(i);
        abb_store_record_t expected = make_record(i, p);
        abb_store_record_t got;

        if (abb_store_get(store, &key, ABB_STORE_BOTH_PARTS, NOW + 1000, &got, p, NULL) ==
            APR_SUCCESS) {
            assert_int_equal(got.open_size, expected.open_size);
            assert_int_equal(got.sealed_size, expected.sealed_size);
            assert_memory_equal(got.open, expected.open, got.open_size);
            assert_memory_equal(got.sealed, expected.sealed, got.sealed_size);
            ++count;
        }
    }
    return count;
}

/* ---- a server's start ------------------------------------------------------ */

/* What a start leads to. */
typedef struct {
    abb_store_file_t file;
    const abb_store_t *store;
    abb_store_file_report_t report;
    abb_error_t err;
} server_t;

static apr_status_t lay_out(server_t *server, const abb_store_shm_proof_key_t *key, apr_pool_t *p)
{
    apr_global_mutex_t *lock;

    assert_int_equal(apr_global_mutex_create(&lock, NULL, APR_LOCK_PROC_PTHREAD, p), APR_SUCCESS);
    assert_int_equal(abb_store_shm_format(server->file.segment, server->file.size, SHARED_SEED),
                     APR_SUCCESS);
    return abb_store_shm_open(&server->store, server->file.segment, server->file.size, lock, key,
                              p);
}

static apr_status_t start_under(server_t *server, const place_t *place,
                                const abb_store_shm_proof_key_t *key, apr_pool_t *p)
{
    apr_status_t status;

    memset(server, 0, sizeof(*server));
    if ((status = abb_store_file_lock(&server->file, place->path, 0, p, &server->err)) ==
            APR_SUCCESS &&
        (status = abb_store_file_begin(&server->file, SIZE, p, &server->err)) == APR_SUCCESS) {
        assert_int_equal(lay_out(server, key, p), APR_SUCCESS);
        status = abb_store_file_import(&server->file, server->store, key, 1, NOW + 1000,
                                       &server->report, p, &server->err);
        if (status == APR_SUCCESS) {
            status = abb_store_file_commit(&server->file, p, &server->err);
        }
    }
    if (status != APR_SUCCESS) {
        abb_store_file_abandon(&server->file, p);
        abb_store_file_unlock(&server->file, p);
    }
    return status;
}

static apr_status_t start(server_t *server, const place_t *place)
{
    return start_under(server, place, &proof_key, place->p);
}

static void stop(server_t *server, const place_t *place)
{
    abb_store_file_unmap(&server->file);
    abb_store_file_unlock(&server->file, place->p);
}

static void start_well(server_t *server, const place_t *place)
{
    if (start(server, place) != APR_SUCCESS) {
        fail_msg("%s", server->err.text);
    }
}

/* A file with all records in it, of a server that has stopped. */
static void leave_file(const place_t *place)
{
    server_t server;

    start_well(&server, place);
    fill(server.store, place->p);
    stop(&server, place);
}

static void check_starts_with(const place_t *place, int count)
{
    server_t server;

    start_well(&server, place);
    assert_int_equal(count_whole(server.store, place->p), count);
    shared_check(server.store);
    stop(&server, place);
}

static void check_refused(const place_t *place, const char *sentence)
{
    server_t server;

    assert_int_equal(start(&server, place), ABB_ESTORE);
    check_sentence(&server.err, sentence);
    assert_false(is_there(beside(place, ".new")));
}

/* ---- stop and start -------------------------------------------------------- */

static void records_outlast_a_stop(void **state)
{
    const place_t *place = *state;
    struct stat info;
    server_t server;

    start_well(&server, place);
    assert_false(server.report.was_there);
    assert_true(abb_store_file_is_in_place(&server.file));
    fill(server.store, place->p);
    assert_int_equal(abb_store_file_sync(&server.file, NULL), APR_SUCCESS);
    stop(&server, place);
    for (int i = 0; i < 3; ++i) {
        start_well(&server, place);
        assert_true(server.report.was_there);
        assert_null(server.report.refused);
        assert_int_equal(server.report.records.kept, RECORDS);
        assert_int_equal(server.report.records.damaged, 0);
        assert_int_equal(count_whole(server.store, place->p), RECORDS);
        stop(&server, place);
    }
    assert_int_equal(stat(place->path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(info.st_size, SIZE);
    assert_true((apr_size_t)info.st_blocks * 512 >= SIZE);
    assert_false(is_there(beside(place, ".new")));
    assert_false(is_there(beside(place, ".refused")));
}

static void any_size_follows_any_other(void **state)
{
    static const apr_size_t sizes[] = {4 * SIZE, SIZE, SIZE + 4096, 2 * SIZE + 12345};
    const place_t *place = *state;
    server_t server;

    leave_file(place);
    for (apr_size_t i = 0; i < UNIT_COUNT(sizes); ++i) {
        memset(&server, 0, sizeof(server));
        assert_int_equal(abb_store_file_lock(&server.file, place->path, 0, place->p, NULL),
                         APR_SUCCESS);
        assert_int_equal(abb_store_file_begin(&server.file, sizes[i], place->p, NULL), APR_SUCCESS);
        assert_int_equal(lay_out(&server, &proof_key, place->p), APR_SUCCESS);
        assert_int_equal(abb_store_file_import(&server.file, server.store, &proof_key, 1,
                                               NOW + 1000, &server.report, place->p, NULL),
                         APR_SUCCESS);
        assert_int_equal(abb_store_file_commit(&server.file, place->p, NULL), APR_SUCCESS);
        assert_int_equal(count_whole(server.store, place->p), RECORDS);
        stop(&server, place);
    }
}

static void what_is_taken_away_is_noticed(void **state)
{
    const place_t *place = *state;
    server_t server;

    start_well(&server, place);
    assert_int_equal(rename(place->path, beside(place, ".away")), 0);
    assert_false(abb_store_file_is_in_place(&server.file));
    put_bytes(place->path, "x", 1, 0600);
    assert_false(abb_store_file_is_in_place(&server.file));
    assert_int_equal(rename(beside(place, ".away"), place->path), 0);
    assert_true(abb_store_file_is_in_place(&server.file));
    assert_int_equal(truncate(place->path, SIZE + 1), 0);
    assert_false(abb_store_file_is_in_place(&server.file));
    stop(&server, place);
}

static void a_file_is_removed_with_its_key(void **state)
{
    const place_t *place = *state;
    abb_crypto_keyring_t ring = {.count = 1};
    server_t server;

    start_well(&server, place);
    assert_int_equal(abb_store_file_write_keys(&server.file, &ring, place->p, NULL), APR_SUCCESS);
    abb_store_file_unmap(&server.file);
    abb_store_file_remove(&server.file, place->p);
    assert_int_equal(rmdir(place->directory), 0);
    assert_int_equal(mkdir(place->directory, 0700), 0);
}

/* ---- the lock -------------------------------------------------------------- */

static void await(pid_t child, int expected)
{
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), expected);
}

static void one_file_has_one_server(void **state)
{
    const place_t *place = *state;
    server_t server;
    pid_t child;

    start_well(&server, place);
    child = fork();
    if (child == 0) {
        server_t other;
        const char *wanted =
            apr_psprintf(place->p, "in use by another httpd (process %ld ", (long)getppid());

        _exit(start(&other, place) == ABB_ESTORE && strstr(other.err.text, wanted) ? 0 : 1);
    }
    await(child, 0);
    assert_true(abb_store_file_is_in_place(&server.file));
    stop(&server, place);
    check_starts_with(place, 0);
}

/* The first process of a server that is killed leaves children that still write. */
static void children_keep_the_lock(void **state)
{
    const place_t *place = *state;
    server_t server;
    server_t other;
    int ends[2];
    char byte;
    pid_t child;

    start_well(&server, place);
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        close(ends[1]);
        _exit(read(ends[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(ends[0]);
    stop(&server, place);
    assert_int_equal(start(&other, place), ABB_ESTORE);
    check_sentence(&other.err, "children of its that are left");
    close(ends[1]);
    await(child, 0);
    check_starts_with(place, 0);
}

static void a_start_waits_for_children_that_end(void **state)
{
    const place_t *place = *state;
    abb_store_file_t file;
    server_t server;
    apr_time_t began;
    pid_t child;

    start_well(&server, place);
    child = fork();
    if (child == 0) {
        apr_sleep(apr_time_from_msec(400));
        _exit(0);
    }
    stop(&server, place);
    began = apr_time_now();
    assert_int_equal(abb_store_file_lock(&file, place->path, apr_time_from_sec(20), place->p, NULL),
                     APR_SUCCESS);
    assert_true(apr_time_now() - began > apr_time_from_msec(200));
    assert_true(file.is_known);
    abb_store_file_unlock(&file, place->p);
    await(child, 0);
}

static void programs_do_not_inherit_it(void **state)
{
    const place_t *place = *state;
    server_t server;

    start_well(&server, place);
    assert_true(fcntl(server.file.lock, F_GETFD) & FD_CLOEXEC);
    stop(&server, place);
}

/* A start that fails leaves no lock behind where there was no session file. */
static void a_lock_is_removed_if_there_is_nothing_to_lock(void **state)
{
    const place_t *place = *state;
    abb_store_file_t file;

    assert_int_equal(abb_store_file_lock(&file, place->path, 0, place->p, NULL), APR_SUCCESS);
    assert_false(file.is_known);
    assert_true(is_there(beside(place, ".lock")));
    abb_store_file_unlock(&file, place->p);
    assert_false(is_there(beside(place, ".lock")));
    leave_file(place);
    assert_true(is_there(beside(place, ".lock")));
}

static void a_planted_lock_is_refused(void **state)
{
    const place_t *place = *state;
    const char *lock = beside(place, ".lock");
    const char *elsewhere = beside(place, ".elsewhere");

    put_bytes(elsewhere, "precious", 8, 0600);
    assert_int_equal(symlink(elsewhere, lock), 0);
    check_refused(place, "the lock of the session file cannot be opened");
    unlink(lock);
    assert_int_equal(mkfifo(lock, 0600), 0);
    check_refused(place, "is no regular file");
    unlink(lock);
    put_bytes(lock, "", 0, 0666);
    check_refused(place, "may be used by others");
    unlink(lock);
    assert_int_equal(mkdir(lock, 0700), 0);
    check_refused(place, "the lock of the session file cannot be opened");
    rmdir(lock);
    check_starts_with(place, 0);
}

/* ---- the directory --------------------------------------------------------- */

static void the_directory_must_be_safe(void **state)
{
    place_t place = *(place_t *)*state;
    const char *good = place.path;

    place.path = apr_pstrcat(place.p, place.directory, "/missing/sessions", NULL);
    check_refused(&place, "make it, owned by the user httpd starts as");
    put_bytes(beside((place_t *)*state, ""), "x", 1, 0600);
    place.path = apr_pstrcat(place.p, good, "/sessions", NULL);
    check_refused(&place, "is no directory");
    unlink(good);
    place.path = good;
    chmod(place.directory, 0770);
    check_refused(&place, "may make files");
    chmod(place.directory, 01777);
    check_refused(&place, "may make files");
    chmod(place.directory, 0755);
    check_starts_with(&place, 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(place.directory, NOBODY, NOBODY), 0);
        check_refused(&place, "may make files");
        assert_int_equal(chown(place.directory, 0, 0), 0);
    }
    check_starts_with(&place, 0);
}

/* As another user, whom the directory of root does not let in. */
static void a_directory_that_cannot_be_written(void **state)
{
    const place_t *place = *state;
    pid_t child;

    if (geteuid() != 0) {
        chmod(place->directory, 0500);
        check_refused(place, "Permission denied");
        return;
    }
    chmod(place->directory, 0755);
    child = fork();
    if (child == 0) {
        server_t server;

        _exit(setuid(NOBODY) == 0 && start(&server, place) == ABB_ESTORE &&
                      strstr(server.err.text, "Permission denied")
                  ? 0
                  : 1);
    }
    await(child, 0);
}

/* ---- what stands at the path ----------------------------------------------- */

static void make_link(const char *path)
{
    assert_int_equal(symlink("elsewhere", path), 0);
}

static void make_directory(const char *path)
{
    assert_int_equal(mkdir(path, 0700), 0);
}

static void make_fifo(const char *path)
{
    assert_int_equal(mkfifo(path, 0600), 0);
}

static void make_text(const char *path)
{
    put_bytes(path, "somebody's letters\n", 19, 0600);
}

static void make_image(const char *path)
{
    static char bytes[100000];

    bytes[sizeof(bytes) - 1] = 1;
    put_bytes(path, bytes, sizeof(bytes), 0600);
}

static void make_readable(const char *path)
{
    put_bytes(path, "root:x:0:0\n", 11, 0644);
}

static void make_writable(const char *path)
{
    put_bytes(path, "", 0, 0620);
}

static void make_foreign(const char *path)
{
    put_bytes(path, "", 0, 0600);
    if (geteuid() != 0 || chown(path, NOBODY, NOBODY) != 0) {
        chmod(path, 0640);
    }
}

static const struct {
    void (*make)(const char *path);
    const char *sentence;
    /* Where sessions have been kept before, it is kept and not in the way. */
    int is_set_aside;
} obstacles[] = {
    {make_link, "is a symbolic link", 0},        {make_directory, "is no regular file", 0},
    {make_fifo, "is no regular file", 0},        {make_text, "holds no sessions", 1},
    {make_image, "holds no sessions", 1},        {make_readable, "may be used by others", 1},
    {make_writable, "may be used by others", 1}, {make_foreign, "", 1},
};

static void others_files_are_not_touched(void **state)
{
    const place_t *place = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(obstacles); ++i) {
        struct stat before;
        struct stat after;

        obstacles[i].make(place->path);
        assert_int_equal(lstat(place->path, &before), 0);
        check_refused(place, obstacles[i].sentence);
        check_refused(place, "nothing shows that it is a session file");
        assert_int_equal(lstat(place->path, &after), 0);
        assert_true(before.st_ino == after.st_ino && before.st_mode == after.st_mode &&
                    before.st_size == after.st_size && before.st_uid == after.st_uid);
        assert_false(is_there(beside(place, ".refused")));
        remove(place->path);
    }
    check_starts_with(place, 0);
}

static void what_was_ours_is_set_aside(void **state)
{
    const place_t *place = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(obstacles); ++i) {
        server_t server;
        struct stat before;
        struct stat after;

        leave_file(place);
        remove(place->path);
        obstacles[i].make(place->path);
        assert_int_equal(lstat(place->path, &before), 0);
        if (!obstacles[i].is_set_aside) {
            check_refused(place, obstacles[i].sentence);
            remove(place->path);
            continue;
        }
        start_well(&server, place);
        assert_non_null(server.report.refused);
        assert_non_null(strstr(server.report.refused, obstacles[i].sentence));
        assert_non_null(server.report.remedy);
        assert_int_equal(count_whole(server.store, place->p), 0);
        assert_int_equal(lstat(beside(place, ".refused"), &after), 0);
        assert_true(before.st_ino == after.st_ino && before.st_size == after.st_size);
        stop(&server, place);
        remove(place->path);
    }
}

static void another_version_or_key_is_set_aside(void **state)
{
    static const abb_store_shm_proof_key_t other = {"another key"};
    const place_t *place = *state;
    server_t server;
    apr_size_t size;
    char *bytes;

    leave_file(place);
    assert_int_equal(start_under(&server, place, &other, place->p), APR_SUCCESS);
    assert_non_null(server.report.refused);
    assert_non_null(strstr(server.report.refused, "another key"));
    assert_int_equal(count_whole(server.store, place->p), 0);
    stop(&server, place);
    /* Also where FILE.lock does not say that sessions were kept: it was moved here. */
    assert_int_equal(rename(beside(place, ".refused"), place->path), 0);
    unlink(beside(place, ".lock"));
    check_starts_with(place, RECORDS);
    bytes = get_bytes(place->path, &size, place->p);
    bytes[8] ^= 0x40;
    put_bytes(place->path, bytes, size, 0600);
    /* The records in it still prove themselves, so a flip there costs nothing. */
    check_starts_with(place, RECORDS);
    memset(bytes + 4096, 0, size - 4096);
    put_bytes(place->path, bytes, size, 0600);
    start_well(&server, place);
    assert_non_null(server.report.refused);
    assert_non_null(strstr(server.report.refused, "another version"));
    stop(&server, place);
}

static void an_empty_file_is_none(void **state)
{
    const place_t *place = *state;
    server_t server;
    char *zeros = apr_pcalloc(place->p, 3 * SIZE);

    put_bytes(place->path, "", 0, 0600);
    start_well(&server, place);
    assert_false(server.report.was_there);
    stop(&server, place);
    put_bytes(place->path, zeros, 3 * SIZE, 0600);
    start_well(&server, place);
    assert_false(server.report.was_there);
    assert_null(server.report.refused);
    stop(&server, place);
}

static void what_an_earlier_start_left(void **state)
{
    const place_t *place = *state;
    const char *left = beside(place, ".new");
    const char *elsewhere = beside(place, ".elsewhere");
    apr_size_t size;

    leave_file(place);
    put_bytes(left, "half of it", 10, 0600);
    check_starts_with(place, RECORDS);
    put_bytes(elsewhere, "precious", 8, 0600);
    assert_int_equal(symlink(elsewhere, left), 0);
    check_starts_with(place, RECORDS);
    assert_string_equal(get_bytes(elsewhere, &size, place->p), "precious");
    assert_int_equal(mkdir(left, 0700), 0);
    {
        server_t server;

        assert_int_equal(start(&server, place), ABB_ESTORE);
        check_sentence(&server.err, "this cannot be made");
    }
    rmdir(left);
    check_starts_with(place, RECORDS);
}

/* ---- no room --------------------------------------------------------------- */

/* A limit on the size of files is a full disk for one process. */
static void no_room_is_told_and_costs_nothing(void **state)
{
    const place_t *place = *state;
    pid_t child;

    leave_file(place);
    child = fork();
    if (child == 0) {
        struct rlimit limit = {SIZE / 2, SIZE / 2};
        server_t server;

        _exit(setrlimit(RLIMIT_FSIZE, &limit) == 0 && start(&server, place) == ABB_ESTORE &&
                      strstr(server.err.text, "no room for the session file") &&
                      strstr(server.err.text, "write a smaller size")
                  ? 0
                  : 1);
    }
    await(child, 0);
    assert_false(is_there(beside(place, ".new")));
    check_starts_with(place, RECORDS);
}

/* ---- keys ------------------------------------------------------------------ */

static void make_ring(abb_crypto_keyring_t *ring, int count)
{
    memset(ring, 0, sizeof(*ring));
    ring->count = count;
    for (int i = 0; i < count; ++i) {
        memset(ring->keys[i].bytes, 17 * i + 3, ABB_CRYPTO_KEY_SIZE);
    }
}

static void take_lock(const place_t *place, abb_store_file_t *file)
{
    assert_int_equal(abb_store_file_lock(file, place->path, 0, place->p, NULL), APR_SUCCESS);
}

static void check_keys_refused(const place_t *place, const abb_store_file_t *file,
                               const char *sentence)
{
    abb_crypto_keyring_t ring;
    abb_error_t err;

    abb_error_clear(&err);
    assert_int_equal(abb_store_file_read_keys(file, &ring, place->p, &err), ABB_ESTORE);
    assert_int_equal(ring.count, 0);
    check_sentence(&err, sentence);
}

static void keys_are_kept(void **state)
{
    const place_t *place = *state;
    abb_store_file_t file;
    struct stat info;

    take_lock(place, &file);
    for (int count = 0; count <= ABB_CRYPTO_KEYS_MAX; ++count) {
        abb_crypto_keyring_t written;
        abb_crypto_keyring_t read_again;

        make_ring(&written, count);
        if (count > 0) {
            put_bytes(beside(place, ".key.new"), "left", 4, 0644);
            assert_int_equal(abb_store_file_write_keys(&file, &written, place->p, NULL),
                             APR_SUCCESS);
            assert_int_equal(stat(beside(place, ".key"), &info), 0);
            assert_int_equal(info.st_mode & 07777, 0600);
        }
        assert_int_equal(abb_store_file_read_keys(&file, &read_again, place->p, NULL), APR_SUCCESS);
        assert_int_equal(read_again.count, count);
        assert_memory_equal(&written.keys, &read_again.keys,
                            (apr_size_t)count * sizeof(written.keys[0]));
        assert_false(is_there(beside(place, ".key.new")));
    }
    abb_store_file_unlock(&file, place->p);
}

/* Each byte changed, each length cut: none is taken for another key. */
static void a_damaged_key_is_told(void **state)
{
    const place_t *place = *state;
    const char *path = beside(place, ".key");
    abb_crypto_keyring_t ring;
    abb_store_file_t file;
    apr_size_t size;
    char *bytes;

    take_lock(place, &file);
    make_ring(&ring, 1);
    assert_int_equal(abb_store_file_write_keys(&file, &ring, place->p, NULL), APR_SUCCESS);
    bytes = get_bytes(path, &size, place->p);
    for (apr_size_t i = 0; i < size; ++i) {
        put_bytes(path, bytes, i, 0600);
        check_keys_refused(place, &file, "is damaged: put a backup in its place, or remove it");
        for (int bit = 0; bit < 8; ++bit) {
            bytes[i] = (char)(bytes[i] ^ 1 << bit);
            put_bytes(path, bytes, size, 0600);
            check_keys_refused(place, &file, "is damaged");
            bytes[i] = (char)(bytes[i] ^ 1 << bit);
        }
    }
    put_bytes(path, apr_pstrcat(place->p, bytes, "x", NULL), size + 1, 0600);
    check_keys_refused(place, &file, "is damaged");
    put_bytes(
        path,
        apr_pstrcat(place->p, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, NULL),
        9 * size, 0600);
    check_keys_refused(place, &file, "is damaged");
    abb_store_file_unlock(&file, place->p);
}

static void a_key_that_others_may_know_is_refused(void **state)
{
    const place_t *place = *state;
    const char *path = beside(place, ".key");
    abb_crypto_keyring_t ring;
    abb_store_file_t file;

    take_lock(place, &file);
    make_ring(&ring, 1);
    assert_int_equal(abb_store_file_write_keys(&file, &ring, place->p, NULL), APR_SUCCESS);
    for (mode_t bit = 1; bit < 0100; bit <<= 1) {
        chmod(path, 0600 | bit);
        check_keys_refused(place, &file, "may be used by others");
    }
    chmod(path, 0600);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, NOBODY, 0), 0);
        check_keys_refused(place, &file, "belongs to user id 65534");
        assert_int_equal(chown(path, 0, 0), 0);
    }
    assert_int_equal(abb_store_file_read_keys(&file, &ring, place->p, NULL), APR_SUCCESS);
    assert_int_equal(rename(path, beside(place, ".key.away")), 0);
    assert_int_equal(symlink(beside(place, ".key.away"), path), 0);
    check_keys_refused(place, &file, "is a symbolic link");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    check_keys_refused(place, &file, "is no regular file");
    abb_store_file_unlock(&file, place->p);
}

static void proofs_follow_from_keys(void **state)
{
    abb_crypto_keyring_t ring;
    abb_store_shm_proof_key_t proofs[3];

    make_ring(&ring, 2);
    assert_int_equal(abb_store_file_proof_key(&ring.keys[0], &proofs[0], NULL), APR_SUCCESS);
    assert_int_equal(abb_store_file_proof_key(&ring.keys[1], &proofs[1], NULL), APR_SUCCESS);
    assert_int_equal(abb_store_file_proof_key(&ring.keys[0], &proofs[2], NULL), APR_SUCCESS);
    assert_memory_equal(&proofs[0], &proofs[2], sizeof(proofs[0]));
    assert_memory_not_equal(&proofs[0], &proofs[1], sizeof(proofs[0]));
    assert_memory_not_equal(&proofs[0], &ring.keys[0], sizeof(proofs[0]));
}

/* ---- looking ---------------------------------------------------------------- */

/* A file of all records with its key beside it, of a server that has stopped. */
static void leave_file_with_key(const place_t *place)
{
    abb_store_file_t file = {.path = place->path};
    abb_store_shm_proof_key_t key;
    abb_crypto_keyring_t ring;
    server_t server;

    make_ring(&ring, 1);
    assert_int_equal(abb_store_file_write_keys(&file, &ring, place->p, NULL), APR_SUCCESS);
    assert_int_equal(abb_store_file_proof_keys(&ring, &key, NULL), APR_SUCCESS);
    assert_int_equal(start_under(&server, place, &key, place->p), APR_SUCCESS);
    fill(server.store, place->p);
    stop(&server, place);
}

static abb_store_file_report_t survey(const place_t *place)
{
    abb_store_file_report_t report;

    assert_int_equal(abb_store_file_survey(place->path, NOW + 1000, &report, place->p, NULL),
                     APR_SUCCESS);
    return report;
}

static void a_look_says_what_a_start_would_find(void **state)
{
    const place_t *place = *state;
    abb_store_file_report_t report = survey(place);
    apr_size_t size;
    char *bytes;

    assert_false(report.was_there);
    leave_file_with_key(place);
    report = survey(place);
    assert_true(report.was_there);
    assert_null(report.refused);
    assert_int_equal(report.records.kept, RECORDS);
    bytes = get_bytes(place->path, &size, place->p);
    put_bytes(place->path, bytes, size / 2, 0600);
    assert_null(survey(place).refused);
    memset(bytes, 0, 8192);
    memset(bytes + 8192, 'x', size - 8192);
    put_bytes(place->path, bytes, size, 0600);
    unit_equal(survey(place).refused, "holds no sessions", "zeros, and something behind them");
    put_bytes(place->path, "", 0, 0600);
    report = survey(place);
    assert_false(report.was_there);
    assert_null(report.refused);
}

static void a_look_says_why_a_start_would_refuse(void **state)
{
    const place_t *place = *state;
    abb_store_file_report_t report;
    abb_error_t err;

    leave_file_with_key(place);
    chmod(place->path, 0644);
    report = survey(place);
    assert_true(report.was_there);
    assert_non_null(strstr(report.refused, "may be used by others"));
    chmod(place->path, 0600);
    unlink(beside(place, ".key"));
    unit_equal(survey(place).refused, "was written under another key", "no key");
    put_bytes(beside(place, ".key"), "x", 1, 0600);
    abb_error_clear(&err);
    assert_int_equal(abb_store_file_survey(place->path, NOW + 1000, &report, place->p, &err),
                     ABB_ESTORE);
    check_sentence(&err, "is damaged");
    put_bytes(place->path, "text", 4, 0600);
    unlink(beside(place, ".key"));
    unit_equal(survey(place).refused, "holds no sessions", "a text");
    abb_error_clear(&err);
    assert_int_equal(abb_store_file_survey(beside(place, "/x"), NOW, &report, place->p, &err),
                     ABB_ESTORE);
    check_sentence(&err, "cannot be looked at");
}

/* ---- disks that fail -------------------------------------------------------- */

/* What the system says: as it is, or as a test has it. The linker sets them between. */
int __real_posix_fallocate(int descriptor, off_t at, off_t size);
int __wrap_posix_fallocate(int descriptor, off_t at, off_t size);
ssize_t __real_pread(int descriptor, void *bytes, size_t size, off_t at);
ssize_t __wrap_pread(int descriptor, void *bytes, size_t size, off_t at);
void *__real_mmap(void *at, size_t size, int protection, int flags, int descriptor, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int descriptor, off_t offset);
int __real_fsync(int descriptor);
int __wrap_fsync(int descriptor);
int __real_msync(void *at, size_t size, int flags);
int __wrap_msync(void *at, size_t size, int flags);

static struct {
    int reserves_nothing;
    /* A page that cannot be read; 0: all can. */
    off_t bad_page;
    int maps_no_file;
    int has_no_memory;
    int syncs_nothing;
} fault;

int __wrap_posix_fallocate(int descriptor, off_t at, off_t size)
{
    return fault.reserves_nothing ? EOPNOTSUPP : __real_posix_fallocate(descriptor, at, size);
}

ssize_t __wrap_pread(int descriptor, void *bytes, size_t size, off_t at)
{
    if (fault.bad_page && at < fault.bad_page + 4096 && at + (off_t)size > fault.bad_page) {
        errno = EIO;
        return -1;
    }
    return __real_pread(descriptor, bytes, size, at);
}

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int descriptor, off_t offset)
{
    if (descriptor >= 0 ? fault.maps_no_file : fault.has_no_memory) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return __real_mmap(at, size, protection, flags, descriptor, offset);
}

int __wrap_fsync(int descriptor)
{
    errno = EIO;
    return fault.syncs_nothing ? -1 : __real_fsync(descriptor);
}

int __wrap_msync(void *at, size_t size, int flags)
{
    errno = EIO;
    return fault.syncs_nothing ? -1 : __real_msync(at, size, flags);
}

static void check_start_fails(const place_t *place, const char *sentence)
{
    server_t server;

    assert_int_equal(start(&server, place), ABB_ESTORE);
    check_sentence(&server.err, sentence);
    memset(&fault, 0, sizeof(fault));
    assert_false(is_there(beside(place, ".new")));
    check_starts_with(place, RECORDS);
}

static void a_file_system_that_reserves_nothing(void **state)
{
    const place_t *place = *state;

    fault.reserves_nothing = 1;
    leave_file(place);
    check_starts_with(place, RECORDS);
    fault.reserves_nothing = 0;
}

static void a_page_that_cannot_be_read_costs_its_records(void **state)
{
    const place_t *place = *state;
    server_t server;
    int count;

    leave_file(place);
    fault.bad_page = SIZE - 16 * 4096;
    start_well(&server, place);
    fault.bad_page = 0;
    count = count_whole(server.store, place->p);
    assert_int_equal(server.report.unreadable, 4096);
    assert_int_equal(server.report.records.kept, count);
    assert_true(count > RECORDS / 2);
    assert_null(server.report.refused);
    stop(&server, place);
}

static void what_cannot_be_mapped_or_written_is_told(void **state)
{
    const place_t *place = *state;

    leave_file(place);
    fault.maps_no_file = 1;
    check_start_fails(place, "the session file cannot be mapped");
    fault.has_no_memory = 1;
    check_start_fails(place, "no memory to read the session file");
    fault.syncs_nothing = 1;
    check_start_fails(place, "cannot be written to the disk");
}

/* ---- damage ---------------------------------------------------------------- */

static apr_uint64_t next_random(apr_uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

/* Damage some bytes of a file, of those that matter. */
static void damage(int descriptor, const char *good, apr_size_t size, apr_uint64_t *random,
                   int round)
{
    int flips = 1 << (round % 10);

    for (int i = 0; i < flips; ++i) {
        apr_size_t at = next_random(random) % (round % 3 ? size : 40000);
        unsigned char byte =
            (unsigned char)(round % 2 ? next_random(random)
                                      : (unsigned char)good[at] ^ 1u << next_random(random) % 8);

        assert_int_equal(pwrite(descriptor, &byte, 1, (off_t)at), 1);
    }
    if (round % 7 == 0) {
        assert_int_equal(ftruncate(descriptor, (off_t)(next_random(random) % size)), 0);
    }
}

static void ten_thousand_damaged_files(void **state)
{
    enum { ROUNDS = 10000 };
    const place_t *place = *state;
    apr_uint64_t random = 88172645463325252ULL;
    apr_uint64_t refused = 0;
    apr_uint64_t lost = 0;
    apr_uint64_t kept = 0;
    abb_store_file_t file;
    server_t into;
    apr_size_t size;
    char *good;
    int descriptor;

    leave_file(place);
    good = get_bytes(place->path, &size, place->p);
    take_lock(place, &file);
    descriptor = open(place->path, O_RDWR);
    memset(&into, 0, sizeof(into));
    into.file.segment = apr_palloc(place->p, SIZE);
    into.file.size = SIZE;
    for (int round = 0; round < ROUNDS; ++round) {
        apr_pool_t *p;

        apr_pool_create(&p, place->p);
        assert_int_equal(pwrite(descriptor, good, size, 0), size);
        damage(descriptor, good, size, &random, round);
        assert_int_equal(lay_out(&into, &proof_key, p), APR_SUCCESS);
        assert_int_equal(abb_store_file_import(&file, into.store, &proof_key, 1, NOW + 1000,
                                               &into.report, p, NULL),
                         APR_SUCCESS);
        assert_int_equal(count_whole(into.store, p), into.report.records.kept);
        if (round % 100 == 0) {
            shared_check(into.store);
        }
        refused += into.report.refused != NULL;
        kept += into.report.records.kept;
        lost += RECORDS - into.report.records.kept;
        apr_pool_destroy(p);
    }
    assert_true(refused > 0 && refused < ROUNDS / 10);
    assert_true(lost > ROUNDS && kept > 10 * ROUNDS);
    close(descriptor);
    abb_store_file_unlock(&file, place->p);
}

/* ---- deaths ---------------------------------------------------------------- */

/* A child that starts again and again, until it is killed. */
static void start_for_ever(const place_t *place)
{
    for (;;) {
        server_t server;
        apr_pool_t *p;

        apr_pool_create(&p, NULL);
        if (start_under(&server, place, &proof_key, p) != APR_SUCCESS ||
            abb_store_file_write_keys(&server.file, &(abb_crypto_keyring_t){.count = 1}, p, NULL) !=
                APR_SUCCESS) {
            _exit(1);
        }
        stop(&server, place);
        apr_pool_destroy(p);
    }
}

static void a_start_may_be_killed_at_any_time(void **state)
{
    enum { KILLS = 300 };
    const place_t *place = *state;
    apr_uint64_t random = 4711;
    int left_behind = 0;

    leave_file(place);
    for (int i = 0; i < KILLS; ++i) {
        abb_crypto_keyring_t ring;
        abb_store_file_t file;
        pid_t child = fork();
        int status;

        if (child == 0) {
            start_for_ever(place);
        }
        apr_sleep((apr_interval_time_t)(next_random(&random) % 12000));
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        left_behind += is_there(beside(place, ".new"));
        take_lock(place, &file);
        assert_int_equal(abb_store_file_read_keys(&file, &ring, place->p, NULL), APR_SUCCESS);
        abb_store_file_unlock(&file, place->p);
        check_starts_with(place, RECORDS);
        assert_false(is_there(beside(place, ".refused")));
    }
    assert_true(left_behind > KILLS / 20);
}

/* A server killed at work: what it has put is there. */
static void a_server_may_be_killed_at_any_time(void **state)
{
    enum { KILLS = 100 };
    const place_t *place = *state;

    for (int i = 0; i < KILLS; ++i) {
        int ends[2];
        int last = -1;
        pid_t child;
        server_t server;

        remove_entries(place);
        assert_int_equal(pipe(ends), 0);
        child = fork();
        if (child == 0) {
            start_well(&server, place);
            for (int number = 0;; ++number) {
                abb_store_key_t key = make_key(number % RECORDS);
                abb_store_record_t record = make_record(number % RECORDS, place->p);

                abb_store_drop(server.store, &key, NULL);
                if (abb_store_put(server.store, &key, &record, NOW + 500, NULL) != APR_SUCCESS ||
                    write(ends[1], &number, sizeof(number)) != sizeof(number)) {
                    _exit(1);
                }
            }
        }
        close(ends[1]);
        while (last < RECORDS + i && read(ends[0], &last, sizeof(last)) == sizeof(last)) {
        }
        unit_kill_child(child);
        close(ends[0]);
        start_well(&server, place);
        assert_int_equal(server.report.records.damaged, 0);
        /* All but the one that was being put again. */
        assert_true(count_whole(server.store, place->p) >= RECORDS - 1);
        stop(&server, place);
    }
}

static int begin(void **state)
{
    return unit_begin(state) == 0 && abb_crypto_init(NULL) == APR_SUCCESS ? 0 : -1;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        PLACE_TEST(records_outlast_a_stop),
        PLACE_TEST(any_size_follows_any_other),
        PLACE_TEST(what_is_taken_away_is_noticed),
        PLACE_TEST(a_file_is_removed_with_its_key),
        PLACE_TEST(one_file_has_one_server),
        PLACE_TEST(children_keep_the_lock),
        PLACE_TEST(a_start_waits_for_children_that_end),
        PLACE_TEST(programs_do_not_inherit_it),
        PLACE_TEST(a_lock_is_removed_if_there_is_nothing_to_lock),
        PLACE_TEST(a_planted_lock_is_refused),
        PLACE_TEST(the_directory_must_be_safe),
        PLACE_TEST(a_directory_that_cannot_be_written),
        PLACE_TEST(others_files_are_not_touched),
        PLACE_TEST(what_was_ours_is_set_aside),
        PLACE_TEST(another_version_or_key_is_set_aside),
        PLACE_TEST(an_empty_file_is_none),
        PLACE_TEST(what_an_earlier_start_left),
        PLACE_TEST(no_room_is_told_and_costs_nothing),
        PLACE_TEST(keys_are_kept),
        PLACE_TEST(a_damaged_key_is_told),
        PLACE_TEST(a_key_that_others_may_know_is_refused),
        PLACE_TEST(proofs_follow_from_keys),
        PLACE_TEST(a_look_says_what_a_start_would_find),
        PLACE_TEST(a_look_says_why_a_start_would_refuse),
        PLACE_TEST(a_file_system_that_reserves_nothing),
        PLACE_TEST(a_page_that_cannot_be_read_costs_its_records),
        PLACE_TEST(what_cannot_be_mapped_or_written_is_told),
        PLACE_TEST(ten_thousand_damaged_files),
        PLACE_TEST(a_start_may_be_killed_at_any_time),
        PLACE_TEST(a_server_may_be_killed_at_any_time),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
