/* driver: one target under libFuzzer. Its name comes as --target=NAME, before all else. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const fuzz_target_t *target;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char option[] = "--target=";

    for (int i = 1; i < *argc; ++i) {
        if (strncmp((*argv)[i], option, sizeof(option) - 1) == 0) {
            target = fuzz_find((*argv)[i] + sizeof(option) - 1);
        }
    }
    if (!target) {
        fprintf(stderr, "Say --target=NAME, one of:\n");
        for (target = fuzz_targets; target->name; ++target) {
            fprintf(stderr, "%s %lu\n", target->name, (unsigned long)target->size_max);
        }
        exit(2);
    }
    fuzz_begin();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_run(target, data, size);
    return 0;
}
