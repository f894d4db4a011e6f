/* Preloaded into httpd: the name server does not answer about lost.example.com, for twenty
 * seconds. In a process that ends meanwhile the answer comes when exit() has unloaded what
 * it unloads, the worst moment for a thread that was left behind. Each question is a line
 * in the file that ABB_TEST_NAMES names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int notes = -1;
static int waiting;
static int is_over;

__attribute__((constructor)) static void attach(void)
{
    const char *name = getenv("ABB_TEST_NAMES");

    notes = name ? open(name, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
}

__attribute__((destructor)) static void answer_at_last(void)
{
    if (__atomic_load_n(&waiting, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&is_over, 1, __ATOMIC_SEQ_CST);
        usleep(300000);
    }
}

int getaddrinfo(const char *restrict name, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(
            RTLD_NEXT, "getaddrinfo");

    if (!name || strcmp(name, "lost.example.com") != 0) {
        return real(name, service, hints, found);
    }
    if (notes >= 0 && write(notes, "?\n", 2) != 2) {
        abort();
    }
    __atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 2000 && !__atomic_load_n(&is_over, __ATOMIC_SEQ_CST); ++i) {
        usleep(10000);
    }
    __atomic_sub_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
    return EAI_AGAIN;
}
