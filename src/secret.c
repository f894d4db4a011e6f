/* secret (floor 2): where a secret of the configuration comes from. */
#include "abb_secret.h"

#include <apr_env.h>
#include <apr_file_io.h>
#include <apr_strings.h>
#include <apr_thread_proc.h>
#include <string.h>

#define EXEC_SECONDS 10
#define EXEC_POLL apr_time_from_msec(5)

static const char *after_prefix(const char *text, const char *prefix)
{
    apr_size_t length = strlen(prefix);

    return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

static const char *absolute_path(const char *path, const char *root, apr_pool_t *p)
{
    char *merged;

    if (root && apr_filepath_merge(&merged, root, path, APR_FILEPATH_TRUENAME, p) == APR_SUCCESS) {
        return merged;
    }
    return path;
}

/* A first line as it is read piece by piece; the rest is read and forgotten. */
typedef struct {
    char bytes[ABB_SECRET_MAX + 2];
    apr_size_t size;
} beginning_t;

static void keep_beginning(beginning_t *beginning, const char *bytes, apr_size_t size)
{
    apr_size_t room = sizeof(beginning->bytes) - 1 - beginning->size;

    memcpy(beginning->bytes + beginning->size, bytes, size < room ? size : room);
    beginning->size += size < room ? size : room;
}

/*
 * End the text at its first line end. A NUL within the line becomes a control
 * character that is refused later, else it would cut the secret unseen.
 */
static const char *first_line(beginning_t *beginning, apr_pool_t *p)
{
    char *line = beginning->bytes;
    apr_size_t length = 0;

    while (length < beginning->size && line[length] != '\n' && line[length] != '\r') {
        if (line[length] == '\0') {
            line[length] = 1;
        }
        ++length;
    }
    return apr_pstrmemdup(p, line, length);
}

static apr_status_t read_first_line(apr_file_t *file, const char **line, apr_pool_t *p)
{
    beginning_t *beginning = apr_pcalloc(p, sizeof(*beginning));
    apr_status_t status =
        apr_file_read_full(file, beginning->bytes, sizeof(beginning->bytes) - 1, &beginning->size);

    *line = first_line(beginning, p);
    return APR_STATUS_IS_EOF(status) ? APR_SUCCESS : status;
}

static apr_status_t read_file(const char *path, const char *root, const char **secret,
                              apr_pool_t *p, abb_error_t *err)
{
    const char *full = absolute_path(path, root, p);
    apr_file_t *file;
    char reason[120];
    apr_status_t status =
        apr_file_open(&file, full, APR_FOPEN_READ | APR_FOPEN_NOCLEANUP, APR_FPROT_OS_DEFAULT, p);

    if (status == APR_SUCCESS) {
        status = read_first_line(file, secret, p);
        apr_file_close(file);
    }
    if (status != APR_SUCCESS) {
        return abb_error_set(err, ABB_EINPUT, "file '%.160s' cannot be read: %s", full,
                             apr_strerror(status, reason, sizeof(reason)));
    }
    return APR_SUCCESS;
}

static apr_status_t start_program(const char *command, const char *root, apr_proc_t *process,
                                  apr_pool_t *p)
{
    apr_procattr_t *attributes;
    char **arguments;
    const char *program;
    apr_status_t status;

    if ((status = apr_tokenize_to_argv(command, &arguments, p)) != APR_SUCCESS) {
        return status;
    }
    if (!arguments[0]) {
        return APR_EINVAL;
    }
    program = absolute_path(arguments[0], root, p);
    if ((status = apr_procattr_create(&attributes, p)) != APR_SUCCESS ||
        (status = apr_procattr_io_set(attributes, APR_NO_PIPE, APR_FULL_BLOCK, APR_NO_PIPE)) !=
            APR_SUCCESS ||
        (status = apr_procattr_cmdtype_set(attributes, APR_PROGRAM_ENV)) != APR_SUCCESS ||
        (status = apr_procattr_error_check_set(attributes, 1)) != APR_SUCCESS ||
        (root && (status = apr_procattr_dir_set(attributes, root)) != APR_SUCCESS)) {
        return status;
    }
    return apr_proc_create(process, program, (const char *const *)arguments, NULL, attributes, p);
}

/* Read all that a program prints until it closes its output or the time is up. */
static apr_status_t drain_program(apr_proc_t *process, beginning_t *beginning, apr_time_t deadline)
{
    for (;;) {
        char bytes[1024];
        apr_size_t size = sizeof(bytes);
        apr_interval_time_t left = deadline - apr_time_now();
        apr_status_t status;

        if (left <= 0) {
            return APR_TIMEUP;
        }
        apr_file_pipe_timeout_set(process->out, left);
        status = apr_file_read(process->out, bytes, &size);
        if (status != APR_SUCCESS) {
            return APR_STATUS_IS_EOF(status) ? APR_SUCCESS : status;
        }
        keep_beginning(beginning, bytes, size);
    }
}

/* Wait for a program's end; kill it when the time is up. */
static apr_status_t await_program(apr_proc_t *process, apr_time_t deadline, int *is_good)
{
    apr_exit_why_e why;
    int code = 0;

    while (apr_proc_wait(process, &code, &why, APR_NOWAIT) != APR_CHILD_DONE) {
        if (apr_time_now() >= deadline) {
            apr_proc_kill(process, APR_KILL_ALWAYS);
            apr_proc_wait(process, &code, &why, APR_WAIT);
            return APR_TIMEUP;
        }
        apr_sleep(EXEC_POLL);
    }
    *is_good = APR_PROC_CHECK_EXIT(why) && code == 0;
    return APR_SUCCESS;
}

static apr_status_t read_program(const char *command, const char *root, const char **secret,
                                 apr_pool_t *p, abb_error_t *err)
{
    apr_time_t deadline = apr_time_now() + apr_time_from_sec(EXEC_SECONDS);
    beginning_t *beginning = apr_pcalloc(p, sizeof(*beginning));
    apr_proc_t process;
    char reason[120];
    int is_good = 0;
    apr_status_t status = start_program(command, root, &process, p);

    if (status != APR_SUCCESS) {
        return abb_error_set(err, ABB_EINPUT, "program '%.160s' cannot be started: %s", command,
                             apr_strerror(status, reason, sizeof(reason)));
    }
    status = drain_program(&process, beginning, deadline);
    apr_file_close(process.out);
    if (await_program(&process, status == APR_SUCCESS ? deadline : 0, &is_good) != APR_SUCCESS) {
        return abb_error_set(err, ABB_EINPUT, "program '%.160s' did not end within %d seconds",
                             command, EXEC_SECONDS);
    }
    if (!is_good) {
        return abb_error_set(err, ABB_EINPUT, "program '%.160s' failed", command);
    }
    *secret = first_line(beginning, p);
    return APR_SUCCESS;
}

static apr_status_t read_environment(const char *name, const char **secret, apr_pool_t *p,
                                     abb_error_t *err)
{
    char *value;

    if (apr_env_get(&value, name, p) != APR_SUCCESS) {
        return abb_error_set(err, ABB_EINPUT, "environment variable %.100s is not set", name);
    }
    *secret = value;
    return APR_SUCCESS;
}

static apr_status_t check_form(const char *secret, const char *source, abb_error_t *err)
{
    apr_size_t length = strlen(secret);

    if (length == 0) {
        return abb_error_set(err, ABB_EINPUT, "%.200s is empty", source);
    }
    if (length > ABB_SECRET_MAX) {
        return abb_error_set(err, ABB_EINPUT, "%.200s holds more than %d bytes", source,
                             ABB_SECRET_MAX);
    }
    for (const char *c = secret; *c; ++c) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            return abb_error_set(err, ABB_EINPUT, "%.200s holds control characters", source);
        }
    }
    return APR_SUCCESS;
}

apr_status_t abb_secret_read(const char *specification, const char *root, const char **secret,
                             apr_pool_t *p, abb_error_t *err)
{
    const char *rest;
    apr_status_t status = APR_SUCCESS;

    if ((rest = after_prefix(specification, "file:"))) {
        status = read_file(rest, root, secret, p, err);
    }
    else if ((rest = after_prefix(specification, "env:"))) {
        status = read_environment(rest, secret, p, err);
    }
    else if ((rest = after_prefix(specification, "exec:"))) {
        status = read_program(rest, root, secret, p, err);
    }
    else {
        *secret = specification;
    }
    if (status == APR_SUCCESS) {
        status = check_form(*secret, abb_secret_source(specification, p), err);
    }
    return status;
}

const char *abb_secret_source(const char *specification, apr_pool_t *p)
{
    const char *rest;

    if ((rest = after_prefix(specification, "file:"))) {
        return apr_pstrcat(p, "file ", rest, NULL);
    }
    if ((rest = after_prefix(specification, "env:"))) {
        return apr_pstrcat(p, "environment variable ", rest, NULL);
    }
    if ((rest = after_prefix(specification, "exec:"))) {
        return apr_pstrcat(p, "program ", rest, NULL);
    }
    return "the value in the configuration";
}
