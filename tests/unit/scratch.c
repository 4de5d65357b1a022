/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[PATH_MAX / 2];

static void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

void scratch_init(void)
{
    const char *parent = getenv("TMPDIR");

    (void)snprintf(directory, sizeof(directory), "%s/kmsbridge-test.XXXXXX",
                   parent == NULL ? "/tmp" : parent);
    if (mkdtemp(directory) == NULL) {
        die("mkdtemp");
    }
}

const char *scratch_path(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, PATH_MAX, "%s/%s", directory, name);
    return path;
}

const char *scratch_file(const char *name, mode_t mode, const char *content, size_t len)
{
    const char *path = scratch_path(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, content, len) != (ssize_t)len || fchmod(fd, mode) != 0) {
        die(path);
    }
    (void)close(fd);
    return path;
}

void scratch_limit(size_t bytes)
{
    struct rlimit limit;

    (void)signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0) {
        die("getrlimit");
    }
    limit.rlim_cur = bytes > 0 ? (rlim_t)bytes : limit.rlim_max;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        die("setrlimit");
    }
}

/* Calls unlink() when asked to; the names but "." and ".." either way. */
static size_t each_name(int remove_them)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    size_t count = 0;

    if (dir == NULL) {
        die(directory);
    }
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            count++;
            if (remove_them) {
                (void)unlinkat(dirfd(dir), entry->d_name, 0);
            }
        }
    }
    (void)closedir(dir);
    return count;
}

size_t scratch_count(void)
{
    return each_name(0);
}

void scratch_done(void)
{
    (void)each_name(1);
    if (rmdir(directory) != 0) {
        die(directory);
    }
}
