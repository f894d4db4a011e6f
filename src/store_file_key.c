/* store_file (floor 3): files that may be trusted, and the keys. See abb_store_file.h. */
#include "store_file_internal.h"

#include <apr_strings.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "abb_text.h"

/* A line of FILE.key: this word, the key, and the beginning of its hash, both as base64url. */
#define KEY_WORD "bitbucket-session-key-1"
#define KEY_SIZE 43
#define CHECK_SIZE 8
#define CHECK_BYTES 6
#define KEY_LINE_SIZE (sizeof(KEY_WORD) + KEY_SIZE + 1 + CHECK_SIZE + 1)
#define PROOF_PURPOSE "store proof"

/* ---- files that may be trusted ------------------------------------------- */

const char *abb_store_file_beside(const abb_store_file_t *file, const char *ending, apr_pool_t *p)
{
    return apr_pstrcat(p, file->path, ending, NULL);
}

apr_status_t abb_store_file_fault(abb_error_t *err, const char *what, const char *path, int code,
                                  const char *remedy)
{
    char reason[60];

    return abb_error_set(err, ABB_ESTORE, "%s %.*s: %s: %s", what, ABB_STORE_FILE_PATH_MAX, path,
                         apr_strerror(APR_FROM_OS_ERROR(code), reason, sizeof(reason)), remedy);
}

const char *abb_store_file_distrust(const struct stat *info, int *can_be_ours, apr_pool_t *p)
{
    *can_be_ours = S_ISREG(info->st_mode);
    if (S_ISLNK(info->st_mode)) {
        return "is a symbolic link";
    }
    if (!S_ISREG(info->st_mode)) {
        return "is no regular file";
    }
    if (info->st_uid != geteuid()) {
        return apr_psprintf(p, "belongs to user id %ld, not to %ld with whom httpd starts",
                            (long)info->st_uid, (long)geteuid());
    }
    if (info->st_mode & (S_IRWXG | S_IRWXO)) {
        return apr_psprintf(p, "may be used by others (mode %04o, not 0600)",
                            (unsigned)info->st_mode & 07777);
    }
    return NULL;
}

apr_status_t abb_store_file_open_trusted(const char *path, int *descriptor, struct stat *info,
                                         const char **complaint, int *can_be_ours, apr_pool_t *p,
                                         abb_error_t *err)
{
    *descriptor = -1;
    /* Looked at before it is opened, since to open a device may do something. */
    if (lstat(path, info) != 0) {
        return errno == ENOENT ? APR_NOTFOUND
                               : abb_store_file_fault(err, "this cannot be looked at:", path, errno,
                                                      "name another file");
    }
    if ((*complaint = abb_store_file_distrust(info, can_be_ours, p)) != NULL) {
        return APR_SUCCESS;
    }
    *descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (*descriptor < 0 || fstat(*descriptor, info) != 0) {
        return abb_store_file_fault(err, "this cannot be read:", path, errno, "look at the disk");
    }
    return APR_SUCCESS;
}

apr_status_t abb_store_file_make(const char *path, int *descriptor, abb_error_t *err)
{
    unlink(path);
    *descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    return *descriptor >= 0
               ? APR_SUCCESS
               : abb_store_file_fault(err, "this cannot be made:", path, errno,
                                      "let the user httpd starts as write there, or name another "
                                      "session file");
}

static int sync_directory(const char *path, apr_pool_t *p)
{
    const char *directory = apr_pstrndup(p, path, (apr_size_t)(strrchr(path, '/') - path));
    int descriptor = open(*directory ? directory : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = descriptor < 0 || fsync(descriptor) != 0 ? errno : 0;

    if (descriptor >= 0) {
        close(descriptor);
    }
    /* Some file systems have no such thing. */
    return code == EINVAL ? 0 : code;
}

apr_status_t abb_store_file_rename(const char *from, const char *to, apr_pool_t *p,
                                   abb_error_t *err)
{
    int code = rename(from, to) != 0 ? errno : sync_directory(to, p);

    return code == 0 ? APR_SUCCESS
                     : abb_store_file_fault(err, "this cannot take its place:", to, code,
                                            "look at the directory and the disk");
}

int abb_store_file_write_all(int descriptor, const void *bytes, apr_size_t size)
{
    const char *rest = bytes;

    while (size > 0) {
        ssize_t written = write(descriptor, rest, size);

        if (written < 0 && errno != EINTR) {
            return errno;
        }
        if (written > 0) {
            rest += written;
            size -= (apr_size_t)written;
        }
    }
    return 0;
}

/* ---- keys ---------------------------------------------------------------- */

static apr_status_t key_line(const abb_crypto_key_t *key, const char **line, apr_pool_t *p,
                             abb_error_t *err)
{
    unsigned char hash[ABB_CRYPTO_KEY_SIZE];
    apr_status_t status =
        abb_crypto_hash(key->bytes, sizeof(key->bytes), KEY_WORD, strlen(KEY_WORD), hash, err);

    *line =
        apr_pstrcat(p, KEY_WORD " ", abb_text_base64url_encode(key->bytes, sizeof(key->bytes), p),
                    " ", abb_text_base64url_encode(hash, CHECK_BYTES, p), "\n", NULL);
    return status;
}

/* Whether a line is what this room writes, to the letter. */
static int parse_line(const char *text, abb_crypto_key_t *key, apr_pool_t *p)
{
    const char *encoded = apr_pstrmemdup(p, text + sizeof(KEY_WORD), KEY_SIZE);
    const char *line;

    return abb_text_base64url_decode_exact(encoded, key->bytes, sizeof(key->bytes)) ==
               APR_SUCCESS &&
           key_line(key, &line, p, NULL) == APR_SUCCESS && memcmp(text, line, KEY_LINE_SIZE) == 0;
}

static int parse_keys(const char *text, apr_size_t size, abb_crypto_keyring_t *ring, apr_pool_t *p)
{
    if (size == 0 || size % KEY_LINE_SIZE != 0 || size / KEY_LINE_SIZE > ABB_CRYPTO_KEYS_MAX) {
        return 0;
    }
    for (apr_size_t at = 0; at < size; at += KEY_LINE_SIZE) {
        if (!parse_line(text + at, &ring->keys[ring->count], p)) {
            return 0;
        }
        ++ring->count;
    }
    return 1;
}

static apr_status_t read_keys(int descriptor, const char *path, abb_crypto_keyring_t *ring,
                              apr_pool_t *p, abb_error_t *err)
{
    char text[ABB_CRYPTO_KEYS_MAX * KEY_LINE_SIZE + 1];
    ssize_t size = read(descriptor, text, sizeof(text));

    if (size < 0) {
        return abb_store_file_fault(err, "this cannot be read:", path, errno, "look at the disk");
    }
    if (!parse_keys(text, (apr_size_t)size, ring, p)) {
        ring->count = 0;
        return abb_error_set(err, ABB_ESTORE,
                             "%.*s is damaged: put a backup in its place, or remove it, which "
                             "signs everybody out",
                             ABB_STORE_FILE_PATH_MAX, path);
    }
    return APR_SUCCESS;
}

apr_status_t abb_store_file_read_keys(const abb_store_file_t *file, abb_crypto_keyring_t *ring,
                                      apr_pool_t *p, abb_error_t *err)
{
    const char *path = abb_store_file_beside(file, ".key", p);
    const char *complaint;
    struct stat info;
    int can_be_ours;
    int descriptor;
    apr_status_t status =
        abb_store_file_open_trusted(path, &descriptor, &info, &complaint, &can_be_ours, p, err);

    memset(ring, 0, sizeof(*ring));
    if (status != APR_SUCCESS) {
        return status == APR_NOTFOUND ? APR_SUCCESS : status;
    }
    if (complaint) {
        return abb_error_set(err, ABB_ESTORE,
                             "%.*s %s: give it to that user with mode 0600, or, if others can have "
                             "read it, remove it, which signs everybody out",
                             ABB_STORE_FILE_PATH_MAX, path, complaint);
    }
    status = read_keys(descriptor, path, ring, p, err);
    close(descriptor);
    return status;
}

static apr_status_t key_lines(const abb_crypto_keyring_t *ring, const char **lines, apr_pool_t *p,
                              abb_error_t *err)
{
    apr_status_t status = APR_SUCCESS;

    *lines = "";
    for (int i = 0; i < ring->count && status == APR_SUCCESS; ++i) {
        const char *line;

        status = key_line(&ring->keys[i], &line, p, err);
        *lines = apr_pstrcat(p, *lines, line, NULL);
    }
    return status;
}

apr_status_t abb_store_file_write_keys(const abb_store_file_t *file,
                                       const abb_crypto_keyring_t *ring, apr_pool_t *p,
                                       abb_error_t *err)
{
    const char *path = abb_store_file_beside(file, ".key", p);
    const char *path_new = abb_store_file_beside(file, ".key.new", p);
    const char *text;
    int descriptor;
    int code;
    apr_status_t status = key_lines(ring, &text, p, err);

    if (status != APR_SUCCESS ||
        (status = abb_store_file_make(path_new, &descriptor, err)) != APR_SUCCESS) {
        return status;
    }
    code = abb_store_file_write_all(descriptor, text, strlen(text));
    code = code == 0 && fsync(descriptor) != 0 ? errno : code;
    close(descriptor);
    if (code) {
        unlink(path_new);
        return abb_store_file_fault(err, "the key of the session file cannot be written:", path,
                                    code, "make room on the disk, or look at it");
    }
    return abb_store_file_rename(path_new, path, p, err);
}

apr_status_t abb_store_file_proof_key(const abb_crypto_key_t *key, abb_store_shm_proof_key_t *proof,
                                      abb_error_t *err)
{
    unsigned char code[ABB_CRYPTO_KEY_SIZE];
    apr_status_t status =
        abb_crypto_authenticate(key, PROOF_PURPOSE, sizeof(PROOF_PURPOSE) - 1, code, err);

    memcpy(proof->bytes, code, sizeof(proof->bytes));
    abb_crypto_wipe(code, sizeof(code));
    return status;
}

apr_status_t abb_store_file_proof_keys(const abb_crypto_keyring_t *ring,
                                       abb_store_shm_proof_key_t *proofs, abb_error_t *err)
{
    apr_status_t status = APR_SUCCESS;

    for (int i = 0; i < ring->count && status == APR_SUCCESS; ++i) {
        status = abb_store_file_proof_key(&ring->keys[i], &proofs[i], err);
    }
    return status;
}
