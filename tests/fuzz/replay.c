/*
 * replay: every target with what is kept for it, and with what becomes of that by small
 * changes: cut at many places, one bit another at many places. The same each time.
 *
 * What is kept: the files of CORPUS/TARGET, and for reply_KIND also input.json of
 * REPLIES/valid/KIND-* and REPLIES/invalid/KIND-*. A file's name as an argument: that
 * file alone, for the target named before it.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

/* Changes of each kind for one file. */
#define CHANGES 48
#define FILE_MAX (256 * 1024)

static unsigned char bytes[FILE_MAX];
static unsigned char changed[FILE_MAX];

typedef struct {
    const fuzz_target_t *target;
    int files;
    long runs;
} replay_t;

static void run(replay_t *replay, const unsigned char *input, size_t size)
{
    fuzz_run(replay->target, input, size);
    ++replay->runs;
}

static void run_changed(replay_t *replay, size_t size)
{
    size_t step = size / CHANGES + 1;

    for (size_t i = 0; i < size; i += step) {
        run(replay, bytes, i);
        memcpy(changed, bytes, size);
        changed[i] ^= (unsigned char)(1 << (i / step % 8));
        run(replay, changed, size);
    }
}

/* Returns whether the file is there. */
static int read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");

    if (!file) {
        return 0;
    }
    *size = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    return 1;
}

static void run_file(replay_t *replay, const char *path)
{
    size_t size;

    if (read_file(path, &size)) {
        ++replay->files;
        run(replay, bytes, size);
        run_changed(replay, size);
    }
}

/* Each entry of a directory whose name begins so, with an ending behind its path. */
static void run_directory(replay_t *replay, const char *directory, const char *beginning,
                          const char *ending)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, alphasort);

    for (int i = 0; i < count; ++i) {
        if (entries[i]->d_name[0] != '.' &&
            strncmp(entries[i]->d_name, beginning, strlen(beginning)) == 0) {
            char path[4096];

            snprintf(path, sizeof(path), "%s/%s%s", directory, entries[i]->d_name, ending);
            run_file(replay, path);
        }
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
}

static void run_replies(replay_t *replay)
{
    static const char reply[] = "reply_";
    char kind[64];

    if (strncmp(replay->target->name, reply, sizeof(reply) - 1) == 0) {
        snprintf(kind, sizeof(kind), "%s-", replay->target->name + sizeof(reply) - 1);
        run_directory(replay, REPLIES "/valid", kind, "/input.json");
        run_directory(replay, REPLIES "/invalid", kind, "/input.json");
    }
}

static int run_target(const fuzz_target_t *target, int number)
{
    replay_t replay = {target, 0, 0};
    char directory[4096];

    snprintf(directory, sizeof(directory), "%s/%s", CORPUS, target->name);
    run(&replay, bytes, 0);
    run_directory(&replay, directory, "", "");
    run_replies(&replay);
    printf("%s %d - %s: %d files, %ld runs\n", replay.files ? "ok" : "not ok", number, target->name,
           replay.files, replay.runs);
    fflush(stdout);
    return replay.files > 0;
}

static int run_one(const char *name, const char *path)
{
    replay_t replay = {fuzz_find(name), 0, 0};

    if (!replay.target) {
        fprintf(stderr, "there is no target %s\n", name);
        return 2;
    }
    run_file(&replay, path);
    return replay.files ? 0 : 2;
}

int main(int argc, char **argv)
{
    int number = 0;
    int bad = 0;

    fuzz_begin();
    if (argc == 3) {
        return run_one(argv[1], argv[2]);
    }
    for (const fuzz_target_t *target = fuzz_targets; target->name; ++target) {
        bad += !run_target(target, ++number);
    }
    printf("1..%d\n", number);
    return bad ? 1 : 0;
}
