/* store_file (floor 3): lock, creation and take-over. See abb_store_file.h. */
#include "store_file_internal.h"

#include <apr_strings.h>
#include <apr_time.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOCK_POLL apr_time_from_msec(50)
/* Stands in FILE.lock from the first time on that FILE has taken its place. */
#define KNOWN_MARK "sessions are kept here"
#define PIECE_SIZE (1024 * 1024)

/* ---- the lock ------------------------------------------------------------ */

static apr_status_t check_directory(const char *path, apr_pool_t *p, abb_error_t *err)
{
    const char *directory = apr_pstrndup(p, path, (apr_size_t)(strrchr(path, '/') - path));
    struct stat info;

    directory = *directory ? directory : "/";
    if (stat(directory, &info) != 0) {
        return abb_store_file_fault(err,
                                    "the directory of the session file cannot be used:", directory,
                                    errno, "make it, owned by the user httpd starts as, mode 0700");
    }
    if (!S_ISDIR(info.st_mode)) {
        return abb_error_set(err, ABB_ESTORE, "%.200s is no directory: name another session file",
                             directory);
    }
    if ((info.st_uid != geteuid() && info.st_uid != 0) || (info.st_mode & (S_IWGRP | S_IWOTH))) {
        return abb_error_set(err, ABB_ESTORE,
                             "in %.200s others than the user httpd starts as may make files: "
                             "keep sessions in a directory of that user with mode 0700",
                             directory);
    }
    return APR_SUCCESS;
}

/* Whether a descriptor is of the file that has the name now. */
static int is_named(int descriptor, const char *path)
{
    struct stat opened;
    struct stat named;

    return fstat(descriptor, &opened) == 0 && lstat(path, &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

static apr_status_t open_lock(const char *path, int *descriptor, apr_pool_t *p, abb_error_t *err)
{
    struct stat info;
    const char *complaint;
    int can_be_ours;

    *descriptor =
        open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (*descriptor < 0) {
        return abb_store_file_fault(err, "the lock of the session file cannot be opened:", path,
                                    errno, "let httpd's user write there, or name another file");
    }
    complaint = fstat(*descriptor, &info) == 0 ? abb_store_file_distrust(&info, &can_be_ours, p)
                                               : "cannot be looked at";
    if (complaint) {
        close(*descriptor);
        return abb_error_set(err, ABB_ESTORE, "%.220s %s: remove it", path, complaint);
    }
    return APR_SUCCESS;
}

/* One try. APR_EBUSY: another process holds the lock. */
static apr_status_t try_lock(const char *path, int *descriptor, apr_pool_t *p, abb_error_t *err)
{
    apr_status_t status = open_lock(path, descriptor, p, err);
    int code;

    if (status != APR_SUCCESS) {
        return status;
    }
    if (flock(*descriptor, LOCK_EX | LOCK_NB) == 0) {
        /* Who held it before may have removed the file. */
        if (is_named(*descriptor, path)) {
            return APR_SUCCESS;
        }
        close(*descriptor);
        return APR_EBUSY;
    }
    code = errno;
    close(*descriptor);
    return code == EWOULDBLOCK || code == EINTR
               ? APR_EBUSY
               : abb_store_file_fault(err, "no lock can be had on", path, code,
                                      "keep sessions on a local file system");
}

static const char *read_lock(int descriptor, apr_pool_t *p)
{
    char text[200];
    ssize_t size = pread(descriptor, text, sizeof(text), 0);

    return apr_pstrmemdup(p, text, size > 0 ? (apr_size_t)size : 0);
}

static apr_status_t in_use(const char *path, const char *lock_path, apr_pool_t *p, abb_error_t *err)
{
    int descriptor = open(lock_path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    long process = 0;

    if (descriptor >= 0) {
        sscanf(read_lock(descriptor, p), "process %ld", &process);
        close(descriptor);
    }
    return abb_error_set(err, ABB_ESTORE,
                         "%.200s is in use by another httpd (process %ld or children of its that "
                         "are left): end it, or give each httpd a file of its own",
                         path, process);
}

/* Note who holds the lock. Returns whether it could be; without it a start is as good. */
static int sign_lock(const abb_store_file_t *file, apr_pool_t *p)
{
    const char *text =
        apr_psprintf(p, "process %ld\n%s", (long)getpid(), file->is_known ? KNOWN_MARK "\n" : "");

    return lseek(file->lock, 0, SEEK_SET) == 0 &&
           abb_store_file_write_all(file->lock, text, strlen(text)) == 0 &&
           ftruncate(file->lock, (off_t)strlen(text)) == 0;
}

apr_status_t abb_store_file_lock(abb_store_file_t *file, const char *path,
                                 apr_interval_time_t patience, apr_pool_t *p, abb_error_t *err)
{
    apr_time_t deadline = apr_time_now() + patience;
    const char *lock_path = apr_pstrcat(p, path, ".lock", NULL);
    apr_status_t status;

    memset(file, 0, sizeof(*file));
    file->lock = file->descriptor = -1;
    if ((status = check_directory(path, p, err)) != APR_SUCCESS) {
        return status;
    }
    while ((status = try_lock(lock_path, &file->lock, p, err)) == APR_EBUSY) {
        if (apr_time_now() >= deadline) {
            file->lock = -1;
            return in_use(path, lock_path, p, err);
        }
        apr_sleep(LOCK_POLL);
    }
    if (status != APR_SUCCESS) {
        file->lock = -1;
        return status;
    }
    abb_store_file_adopt(file, path, file->lock, p);
    return APR_SUCCESS;
}

void abb_store_file_adopt(abb_store_file_t *file, const char *path, int lock, apr_pool_t *p)
{
    memset(file, 0, sizeof(*file));
    file->path = apr_pstrdup(p, path);
    file->lock = lock;
    file->descriptor = -1;
    file->is_known = strstr(read_lock(lock, p), KNOWN_MARK) != NULL;
    sign_lock(file, p);
}

void abb_store_file_unlock(abb_store_file_t *file, apr_pool_t *p)
{
    if (file->lock >= 0) {
        if (!file->is_known) {
            unlink(abb_store_file_beside(file, ".lock", p));
        }
        close(file->lock);
        file->lock = -1;
    }
}

/* ---- a new file ---------------------------------------------------------- */

/* For file systems that cannot reserve. Returns 0 or an errno. */
static int write_zeros(int descriptor, apr_size_t size)
{
    static const char zeros[64 * 1024];

    for (apr_size_t at = 0; at < size;) {
        apr_size_t piece = size - at < sizeof(zeros) ? size - at : sizeof(zeros);
        int code = abb_store_file_write_all(descriptor, zeros, piece);

        if (code) {
            return code;
        }
        at += piece;
    }
    return 0;
}

/* Take room on the disk. Returns 0 or an errno. */
static int reserve(int descriptor, apr_size_t size)
{
    struct sigaction ignore;
    struct sigaction before;
    int code;

    /* A limit on the size of files would end the process without a word. */
    memset(&ignore, 0, sizeof(ignore));
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &ignore, &before);
    do {
        code = posix_fallocate(descriptor, 0, (off_t)size);
    } while (code == EINTR);
    if (code == EOPNOTSUPP || code == EINVAL || code == ENOSYS) {
        code = write_zeros(descriptor, size);
    }
    sigaction(SIGXFSZ, &before, NULL);
    return code;
}

static int map(abb_store_file_t *file)
{
    struct stat info;
    void *segment;

    if (fstat(file->descriptor, &info) != 0) {
        return errno;
    }
    segment = mmap(NULL, file->size, PROT_READ | PROT_WRITE, MAP_SHARED, file->descriptor, 0);
    if (segment == MAP_FAILED) {
        return errno;
    }
    file->segment = segment;
    file->device = (apr_uint64_t)info.st_dev;
    file->inode = (apr_uint64_t)info.st_ino;
    return 0;
}

apr_status_t abb_store_file_begin(abb_store_file_t *file, apr_size_t size, apr_pool_t *p,
                                  abb_error_t *err)
{
    const char *path = abb_store_file_beside(file, ".new", p);
    apr_status_t status = abb_store_file_make(path, &file->descriptor, err);
    int code;

    if (status != APR_SUCCESS) {
        file->descriptor = -1;
        return status;
    }
    file->size = size;
    if ((code = reserve(file->descriptor, size)) != 0) {
        abb_store_file_fault(err, "no room for the session file:", path, code,
                             "make room on the disk or write a smaller size; each start needs it "
                             "twice for a moment");
    }
    else if ((code = map(file)) != 0) {
        abb_store_file_fault(err, "the session file cannot be mapped:", path, code,
                             "keep it on a local file system or write a smaller size");
    }
    if (code) {
        abb_store_file_abandon(file, p);
        return ABB_ESTORE;
    }
    return APR_SUCCESS;
}

void abb_store_file_unmap(abb_store_file_t *file)
{
    if (file->segment) {
        munmap(file->segment, file->size);
        file->segment = NULL;
    }
}

void abb_store_file_abandon(abb_store_file_t *file, apr_pool_t *p)
{
    abb_store_file_unmap(file);
    if (file->descriptor >= 0) {
        unlink(abb_store_file_beside(file, ".new", p));
        close(file->descriptor);
        file->descriptor = -1;
    }
}

static apr_status_t set_aside(const abb_store_file_t *file, apr_pool_t *p, abb_error_t *err)
{
    const char *refused = abb_store_file_beside(file, ".refused", p);

    return rename(file->path, refused) == 0 || errno == ENOENT
               ? APR_SUCCESS
               : abb_store_file_fault(err, "a session file that cannot be used cannot be kept as",
                                      refused, errno, "move it away");
}

apr_status_t abb_store_file_commit(abb_store_file_t *file, apr_pool_t *p, abb_error_t *err)
{
    const char *path = abb_store_file_beside(file, ".new", p);
    apr_status_t status = abb_store_file_sync(file, err);

    if (status == APR_SUCCESS && fsync(file->descriptor) != 0) {
        status = abb_store_file_fault(err, "the session file cannot be written:", path, errno,
                                      "look at the disk");
    }
    if (status == APR_SUCCESS && file->is_set_aside) {
        status = set_aside(file, p, err);
    }
    if (status == APR_SUCCESS) {
        status = abb_store_file_rename(path, file->path, p, err);
    }
    if (status == APR_SUCCESS) {
        close(file->descriptor);
        file->descriptor = -1;
        file->is_set_aside = 0;
        file->is_known = 1;
        sign_lock(file, p);
    }
    return status;
}

/* ---- taking over --------------------------------------------------------- */

/* The bytes of a file in memory of their own, since a mapping dies with a bad or cut disk. */
typedef struct {
    void *bytes;
    apr_size_t size;
    apr_uint64_t unreadable;
    int is_blank;
} image_t;

/* Returns how many bytes are there, or 0 at the end; what the disk does not give is left out. */
static apr_size_t read_piece(int descriptor, char *piece, apr_size_t size, apr_size_t at,
                             image_t *image)
{
    ssize_t got;

    do {
        got = pread(descriptor, piece, size, (off_t)at);
    } while (got < 0 && errno == EINTR);
    if (got >= 0) {
        return (apr_size_t)got;
    }
    memset(piece, 0, size);
    image->unreadable += size;
    return size;
}

static int is_zero(const char *bytes, apr_size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static void read_image(int descriptor, image_t *image, apr_pool_t *p)
{
    /* Large pieces for speed; a bad sector then costs only a page. */
    char *piece = apr_palloc(p, PIECE_SIZE);
    apr_size_t at = 0;

    while (at < image->size) {
        apr_size_t wanted = image->size - at < PIECE_SIZE ? image->size - at : PIECE_SIZE;
        ssize_t got = pread(descriptor, piece, wanted, (off_t)at);
        apr_size_t size =
            got > 0 ? (apr_size_t)got
                    : read_piece(descriptor, piece, wanted < 4096 ? wanted : 4096, at, image);

        if (size == 0) {
            break;
        }
        /* Memory is taken only for what is there. */
        if (!is_zero(piece, size)) {
            image->is_blank = 0;
            memcpy((char *)image->bytes + at, piece, size);
        }
        at += size;
    }
}

static apr_status_t load_image(const abb_store_file_t *file, int descriptor, apr_size_t size,
                               image_t *image, apr_pool_t *p, abb_error_t *err)
{
    memset(image, 0, sizeof(*image));
    image->size = size;
    image->is_blank = 1;
    if (size == 0) {
        return APR_SUCCESS;
    }
    image->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (image->bytes == MAP_FAILED) {
        return abb_store_file_fault(err, "no memory to read the session file", file->path, errno,
                                    "give the machine more, or move the file away");
    }
    read_image(descriptor, image, p);
    return APR_SUCCESS;
}

/* What an image is that gives no records, and what to do; NULL: a good one. */
static const char *explain_image(abb_store_shm_image_t image, const char **remedy)
{
    switch (image) {
    case ABB_STORE_SHM_OTHER_VERSION:
        *remedy = "none is needed unless you go back to the module that wrote it";
        return "was written by another version of the module";
    case ABB_STORE_SHM_OTHER_KEY:
        *remedy = "stop httpd, put the .key file that belongs to it and the file itself back, and "
                  "start";
        return "was written under another key";
    case ABB_STORE_SHM_NO_STORE:
        *remedy = "look for what has damaged it, and put a backup in its place if you have one";
        return "holds no sessions";
    default:
        return NULL;
    }
}

static const char untrusted_remedy[] =
    "stop httpd, give the file that is kept to the user httpd starts as, mode 0600, put it back if "
    "nobody else can have changed it, and start";

/* Keep what stands at the path, or refuse to start if nothing shows that it is ours. */
static apr_status_t refuse(abb_store_file_t *file, const char *complaint, const char *remedy,
                           int is_ours, abb_store_file_report_t *report, abb_error_t *err)
{
    if (!is_ours) {
        return abb_error_set(err, ABB_ESTORE,
                             "%.200s %s, and nothing shows that it is a session file: name another "
                             "file, or move this one away",
                             file->path, complaint);
    }
    file->is_set_aside = 1;
    report->refused = complaint;
    report->remedy = remedy;
    return APR_SUCCESS;
}

/* Zeros where the header would be, and something behind them. */
static void judge_blank(const image_t *image, abb_store_file_report_t *report)
{
    report->unreadable = image->unreadable;
    if (report->records.image == ABB_STORE_SHM_BLANK && !image->is_blank) {
        report->records.image = ABB_STORE_SHM_NO_STORE;
    }
}

static apr_status_t import_image(abb_store_file_t *file, const image_t *image,
                                 const abb_store_t *store, const abb_store_shm_proof_key_t *keys,
                                 int key_count, apr_time_t now, abb_store_file_report_t *report,
                                 abb_error_t *err)
{
    const char *remedy = NULL;
    const char *complaint;
    apr_status_t status = abb_store_shm_import(store, image->bytes, image->size, keys, key_count,
                                               now, &report->records, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    judge_blank(image, report);
    complaint = explain_image(report->records.image, &remedy);
    return complaint ? refuse(file, complaint, remedy,
                              file->is_known || report->records.image != ABB_STORE_SHM_NO_STORE,
                              report, err)
                     : APR_SUCCESS;
}

apr_status_t abb_store_file_import(abb_store_file_t *file, const abb_store_t *store,
                                   const abb_store_shm_proof_key_t *keys, int key_count,
                                   apr_time_t now, abb_store_file_report_t *report, apr_pool_t *p,
                                   abb_error_t *err)
{
    const char *complaint;
    struct stat info;
    image_t image;
    int can_be_ours;
    int descriptor;
    apr_status_t status;

    memset(report, 0, sizeof(*report));
    status = abb_store_file_open_trusted(file->path, &descriptor, &info, &complaint, &can_be_ours,
                                         p, err);
    if (status != APR_SUCCESS) {
        return status == APR_NOTFOUND ? APR_SUCCESS : status;
    }
    report->was_there = 1;
    if (complaint) {
        return refuse(file, complaint, untrusted_remedy, can_be_ours && file->is_known, report,
                      err);
    }
    status = load_image(file, descriptor, (apr_size_t)info.st_size, &image, p, err);
    if (status == APR_SUCCESS && image.size > 0) {
        status = import_image(file, &image, store, keys, key_count, now, report, err);
        munmap(image.bytes, image.size);
    }
    report->was_there = image.size > 0 && !image.is_blank;
    close(descriptor);
    return status;
}

/* ---- looking ------------------------------------------------------------- */

static apr_status_t survey_image(const abb_store_file_t *file, int descriptor, apr_size_t size,
                                 apr_time_t now, abb_store_file_report_t *report, apr_pool_t *p,
                                 abb_error_t *err)
{
    abb_store_shm_proof_key_t keys[ABB_CRYPTO_KEYS_MAX];
    abb_crypto_keyring_t ring;
    image_t image;
    apr_status_t status;

    if ((status = abb_store_file_read_keys(file, &ring, p, err)) != APR_SUCCESS ||
        (status = abb_store_file_proof_keys(&ring, keys, err)) != APR_SUCCESS ||
        (status = load_image(file, descriptor, size, &image, p, err)) != APR_SUCCESS) {
        return status;
    }
    if (image.size > 0) {
        status =
            abb_store_shm_survey(image.bytes, image.size, keys, ring.count, now, &report->records);
        munmap(image.bytes, image.size);
    }
    if (status != APR_SUCCESS) {
        return abb_error_set(err, ABB_ESTORE, "there is no memory to read %.200s", file->path);
    }
    judge_blank(&image, report);
    report->was_there = image.size > 0 && !image.is_blank;
    if (report->was_there) {
        report->refused = explain_image(report->records.image, &report->remedy);
    }
    return APR_SUCCESS;
}

apr_status_t abb_store_file_survey(const char *path, apr_time_t now,
                                   abb_store_file_report_t *report, apr_pool_t *p, abb_error_t *err)
{
    abb_store_file_t file = {.path = path};
    const char *complaint;
    struct stat info;
    int can_be_ours;
    int descriptor;
    apr_status_t status;

    memset(report, 0, sizeof(*report));
    status =
        abb_store_file_open_trusted(path, &descriptor, &info, &complaint, &can_be_ours, p, err);
    if (status != APR_SUCCESS) {
        return status == APR_NOTFOUND ? APR_SUCCESS : status;
    }
    if (complaint) {
        report->was_there = 1;
        report->refused = complaint;
        report->remedy = untrusted_remedy;
        return APR_SUCCESS;
    }
    status = survey_image(&file, descriptor, (apr_size_t)info.st_size, now, report, p, err);
    close(descriptor);
    return status;
}

/* ---- in use -------------------------------------------------------------- */

int abb_store_file_is_in_place(const abb_store_file_t *file)
{
    struct stat info;

    return lstat(file->path, &info) == 0 && (apr_uint64_t)info.st_dev == file->device &&
           (apr_uint64_t)info.st_ino == file->inode && (apr_uint64_t)info.st_size == file->size;
}

apr_status_t abb_store_file_sync(const abb_store_file_t *file, abb_error_t *err)
{
    return msync(file->segment, file->size, MS_SYNC) == 0
               ? APR_SUCCESS
               : abb_store_file_fault(err,
                                      "the session file cannot be written to the disk:", file->path,
                                      errno, "look at the disk");
}

void abb_store_file_remove(abb_store_file_t *file, apr_pool_t *p)
{
    unlink(file->path);
    unlink(abb_store_file_beside(file, ".key", p));
    file->is_known = 0;
    abb_store_file_unlock(file, p);
}
