/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz harness over the files of the directories named on the command line, for builds
 * without libFuzzer. Options (-runs=0) are libFuzzer's, and skipped. Fails when there was no file.
 */
#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The storage is exactly as long as the input, so that a sanitizer sees a read behind it. */
static bool replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    bool done = false;
    struct stat st;

    if (file == NULL || fstat(fileno(file), &st) != 0) {
        goto out;
    }
    data = malloc(st.st_size > 0 ? (size_t)st.st_size : 1);
    if (data == NULL || fread(data, 1, (size_t)st.st_size, file) != (size_t)st.st_size) {
        goto out;
    }
    (void)LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    done = true;
out:
    if (!done) {
        perror(path);
    }
    free(data);
    if (file != NULL) {
        (void)fclose(file);
    }
    return done;
}

/* Adds to *count; false when a file cannot be read. */
static bool replay_directory(const char *directory, size_t *count)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    char path[PATH_MAX];
    bool good = dir != NULL;

    if (dir == NULL) {
        perror(directory);
        return false;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            (void)snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
            good = replay_file(path) && good;
            (*count)++;
        }
    }
    (void)closedir(dir);
    return good;
}

int main(int argc, char **argv)
{
    size_t count = 0;
    bool good = true;

    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            good = replay_directory(argv[i], &count) && good;
        }
    }
    printf("%s: replayed %zu inputs\n", argv[0], count);
    return good && count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
