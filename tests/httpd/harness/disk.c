/* Preloaded into httpd: notes each msync() of a whole file in the file that ABB_TEST_DISK
 * names, as a line with time, process and result; fails with EIO while a file of this
 * name with .broken behind it is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int notes = -1;
static char broken[4096];

__attribute__((constructor)) static void attach(void)
{
    const char *name = getenv("ABB_TEST_DISK");

    if (name) {
        notes = open(name, O_WRONLY | O_APPEND | O_CLOEXEC);
        snprintf(broken, sizeof(broken), "%s.broken", name);
    }
}

int msync(void *place, size_t size, int flags)
{
    int (*real)(void *, size_t, int) = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    int result = access(broken, F_OK) == 0 ? -1 : real(place, size, flags);
    int code = result ? EIO : 0;
    struct timespec now;
    char line[100];

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (notes >= 0) {
        int length = snprintf(line, sizeof(line), "%ld.%03ld %ld %d\n", (long)now.tv_sec,
                              now.tv_nsec / 1000000, (long)getpid(), result);

        if (write(notes, line, (size_t)length) != length) {
            abort();
        }
    }
    errno = code;
    return result;
}
