/* authorities (floor 1): which list of certificate authorities to read. See abb_authorities.h. */
#include "abb_authorities.h"

#include <apr_file_info.h>
#include <apr_file_io.h>
#include <apr_lib.h>
#include <string.h>

#define HASH_LENGTH 8
/* A line longer than this is none that a certificate begins with. */
#define LINE_SIZE 256

static int is_lower_hex(char c)
{
    return apr_isdigit(c) || (c >= 'a' && c <= 'f');
}

/* HHHHHHHH.D, as OpenSSL's X509_LOOKUP_hash_dir(3ssl) wants it; with ".r" it would be a list of revoked ones. */
static int is_hashed_name(const char *name)
{
    for (int i = 0; i < HASH_LENGTH; ++i) {
        if (!is_lower_hex(name[i])) {
            return 0;
        }
    }
    name += HASH_LENGTH;
    return name[0] == '.' && name[1] != '\0' && strspn(name + 1, "0123456789") == strlen(name + 1);
}

static apr_size_t count_hashed_names(const char *path, apr_pool_t *p)
{
    apr_size_t count = 0;
    apr_finfo_t entry;
    apr_dir_t *directory;

    if (apr_dir_open(&directory, path, p) != APR_SUCCESS) {
        return 0;
    }
    while (apr_dir_read(&entry, APR_FINFO_NAME, directory) == APR_SUCCESS) {
        count += is_hashed_name(entry.name);
    }
    apr_dir_close(directory);
    return count;
}

/* OpenSSL takes "TRUSTED CERTIFICATE" and the old "X509 CERTIFICATE" too. */
static int begins_certificate(const char *line)
{
    return strncmp(line, "-----BEGIN ", 11) == 0 && strstr(line, "CERTIFICATE-----");
}

static apr_size_t count_certificates(const char *path, apr_pool_t *p)
{
    apr_size_t count = 0;
    char line[LINE_SIZE];
    apr_file_t *file;

    if (apr_file_open(&file, path, APR_FOPEN_READ | APR_FOPEN_BUFFERED, 0, p) != APR_SUCCESS) {
        return 0;
    }
    while (apr_file_gets(line, sizeof(line), file) == APR_SUCCESS) {
        count += begins_certificate(line);
    }
    apr_file_close(file);
    return count;
}

int abb_authorities_are_hashed(const char *directory, const char *file, apr_pool_t *p)
{
    apr_size_t needed = directory && file ? count_certificates(file, p) : 0;

    return needed > 0 && count_hashed_names(directory, p) >= needed;
}
