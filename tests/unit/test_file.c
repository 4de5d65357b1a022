/* SPDX-License-Identifier: Apache-2.0 */
#include "common/file.h"

#include <grp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/secure.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

static void release(enum kms_file_care care, char *content)
{
    if (care == KMS_FILE_SECRET) {
        kms_secure_free(content);
    } else {
        free(content);
    }
}

static void read_judges_the_mode(void)
{
    static const struct {
        const char *name;
        mode_t mode;
        enum kms_file_care care;
        enum kms_status status;
        const char *advice;
    } rows[] = {
        {"config, others read", 0644, KMS_FILE_CONFIG, KMS_OK, ""},
        {"config, own group writes", 0664, KMS_FILE_CONFIG, KMS_OK, ""},
        {"config, others write", 0646, KMS_FILE_CONFIG, KMS_E_DENIED, "run chmod o-w "},
        {"secret, owner only", 0600, KMS_FILE_SECRET, KMS_OK, ""},
        {"secret, group reads", 0640, KMS_FILE_SECRET, KMS_OK, ""},
        {"secret, read-only", 0400, KMS_FILE_SECRET, KMS_OK, ""},
        {"secret, own group writes", 0660, KMS_FILE_SECRET, KMS_OK, ""},
        {"secret, others read", 0644, KMS_FILE_SECRET, KMS_E_DENIED, "run chmod 0640 "},
        {"secret, others write", 0602, KMS_FILE_SECRET, KMS_E_DENIED, "run chmod o-w "},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const char *path = scratch_file("file", rows[i].mode, "content", 7);
        struct kms_error error = KMS_ERROR_INIT;
        char *content = NULL;
        size_t len = 0;

        UNIT_CHECK(rows[i].name, kms_file_check(path, rows[i].care, &error) == rows[i].status);
        UNIT_CHECK(rows[i].name, strstr(error.text, rows[i].advice) != NULL);
        kms_error_clear(&error);
        UNIT_CHECK(rows[i].name,
                   kms_file_read(path, rows[i].care, 7, &content, &len, &error) == rows[i].status);
        UNIT_CHECK(rows[i].name, strstr(error.text, rows[i].advice) != NULL);
        if (rows[i].status == KMS_OK) {
            UNIT_CHECK(rows[i].name, len == 7 && strcmp(content, "content") == 0);
            release(rows[i].care, content);
        } else {
            UNIT_CHECK(rows[i].name, content == NULL && strstr(error.text, path) != NULL);
        }
        (void)unlink(path);
    }
}

/* Only root can give a file to a group that is not its own. */
static void read_refuses_a_foreign_groups_pen(void)
{
    const char *path = scratch_file("file", 0660, "x", 1);
    const gid_t foreign = 54321;
    struct kms_error error = KMS_ERROR_INIT;
    char *content = NULL;
    size_t len = 0;
    bool given = chown(path, (uid_t)-1, foreign) == 0;

    CU_ASSERT_EQUAL(given, geteuid() == 0);
    CU_ASSERT_EQUAL(kms_file_read(path, KMS_FILE_CONFIG, 9, &content, &len, &error),
                    given ? KMS_E_DENIED : KMS_OK);
    CU_ASSERT_TRUE(!given || strstr(error.text, "chmod g-w") != NULL);
    free(content);
    (void)unlink(path);
}

/* Only root can give a file away. */
static void read_refuses_a_foreign_owner(void)
{
    static const struct {
        const char *name;
        uid_t owner;
        uid_t reader;
        enum kms_status status;
    } rows[] = {
        {"root's, root reads", 0, 0, KMS_OK},
        {"root's, another reads", 0, 54321, KMS_OK},
        {"own", 54321, 54321, KMS_OK},
        {"another's, root reads", 54321, 0, KMS_E_DENIED},
        {"another's, a third reads", 54321, 54322, KMS_E_DENIED},
    };

    if (geteuid() != 0) {
        return;
    }
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        int fd = memfd_create("file", MFD_CLOEXEC); /* by descriptor: no folder is in the way */
        struct kms_error error = KMS_ERROR_INIT;
        char path[32];
        char *content = NULL;
        size_t len = 0;

        (void)snprintf(path, sizeof(path), "/dev/fd/%d", fd);
        UNIT_CHECK(rows[i].name, write(fd, "x", 1) == 1 && fchmod(fd, 0644) == 0);
        UNIT_CHECK(rows[i].name, fchown(fd, rows[i].owner, 0) == 0 && seteuid(rows[i].reader) == 0);
        UNIT_CHECK(rows[i].name, kms_file_read(path, KMS_FILE_CONFIG, 9, &content, &len, &error) ==
                                     rows[i].status);
        UNIT_CHECK(rows[i].name, seteuid(0) == 0);
        if (rows[i].status != KMS_OK) {
            char text[96];

            (void)snprintf(text, sizeof(text), "owned by uid %u: only root and uid %u may own it",
                           (unsigned)rows[i].owner, (unsigned)rows[i].reader);
            UNIT_CHECK(rows[i].name, strstr(error.text, text) != NULL);
        }
        free(content);
        (void)close(fd);
    }
}

static void read_keeps_to_the_ceiling(void)
{
    static const struct {
        const char *name;
        size_t len;
        size_t max;
        enum kms_status status;
    } rows[] = {
        {"empty", 0, 0, KMS_OK},
        {"just fits", 10, 10, KMS_OK},
        {"one over", 11, 10, KMS_E_TOO_LARGE},
        {"one over nothing", 1, 0, KMS_E_TOO_LARGE},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const char *path = scratch_file("file", 0600, "0123456789ABCDEF", rows[i].len);
        struct kms_error error = KMS_ERROR_INIT;
        char *content = NULL;
        size_t len = 99;

        UNIT_CHECK(rows[i].name, kms_file_read(path, KMS_FILE_SECRET, rows[i].max, &content, &len,
                                               &error) == rows[i].status);
        if (rows[i].status == KMS_OK) {
            UNIT_CHECK(rows[i].name, len == rows[i].len && content[len] == '\0');
        } else {
            UNIT_CHECK(rows[i].name, len == 99 && content == NULL);
        }
        kms_secure_free(content);
        (void)unlink(path);
    }
}

/* /proc says that its files have no bytes, and then gives some. */
static void read_measures_what_it_reads(void)
{
    char *content = NULL;
    size_t len = 0;

    CU_ASSERT_EQUAL(kms_file_read("/proc/self/status", KMS_FILE_CONFIG, 10, &content, &len, NULL),
                    KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(
        kms_file_read("/proc/self/status", KMS_FILE_CONFIG, 65536, &content, &len, NULL), KMS_OK);
    CU_ASSERT_TRUE(len > 10);
    free(content);
}

static void read_refuses_what_is_no_file(void)
{
    const char *fifo = scratch_path("fifo");
    const char *loop = scratch_path("loop");
    const char *file = scratch_file("file", 0600, "x", 1);
    char below[PATH_MAX];
    char longest[PATH_MAX + 100];
    const struct {
        const char *name;
        const char *path;
        enum kms_status status;
    } rows[] = {
        {"not there", scratch_path("nothing"), KMS_E_NOT_FOUND},
        {"below a file", below, KMS_E_NOT_FOUND},
        {"directory", "/tmp", KMS_E_INVALID},
        {"device", "/dev/null", KMS_E_INVALID},
        {"fifo without a writer", fifo, KMS_E_INVALID},
        {"link to itself", loop, KMS_E_INVALID},
        {"name too long", longest, KMS_E_INVALID},
        {"empty name", "", KMS_E_NOT_FOUND},
    };

    (void)snprintf(below, sizeof(below), "%s/x", file);
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    CU_ASSERT_EQUAL(mkfifo(fifo, 0600), 0);
    CU_ASSERT_EQUAL(symlink(loop, loop), 0);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_error error = KMS_ERROR_INIT;
        char *content = NULL;
        size_t len = 0;

        UNIT_CHECK(rows[i].name, kms_file_read(rows[i].path, KMS_FILE_CONFIG, 9, &content, &len,
                                               &error) == rows[i].status);
        UNIT_CHECK(rows[i].name, content == NULL && error.text[0] != '\0');
    }
    (void)unlink(fifo);
    (void)unlink(loop);
    (void)unlink(file);
}

/* Kubernetes mounts Secrets as links; the target is what counts. */
static void read_follows_links_and_judges_the_target(void)
{
    const char *file = scratch_file("file", 0604, "x", 1);
    const char *link_path = scratch_path("link");
    char *content = NULL;
    size_t len = 0;

    CU_ASSERT_EQUAL(symlink("file", link_path), 0);
    CU_ASSERT_EQUAL(kms_file_read(link_path, KMS_FILE_SECRET, 9, &content, &len, NULL),
                    KMS_E_DENIED);
    CU_ASSERT_EQUAL(chmod(file, 0600), 0);
    CU_ASSERT_EQUAL(kms_file_read(link_path, KMS_FILE_SECRET, 9, &content, &len, NULL), KMS_OK);
    kms_secure_free(content);
    (void)unlink(link_path);
    (void)unlink(file);
}

/* Root may read everything: the question is asked as somebody else. */
static void read_says_what_may_not_be_read(void)
{
    const char *path = scratch_file("file", 0000, "x", 1);
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        char *content = NULL;
        size_t len = 0;

        if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setuid(65534) != 0)) {
            _exit(99);
        }
        _exit((int)kms_file_read(path, KMS_FILE_CONFIG, 9, &content, &len, NULL));
    }
    CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
    CU_ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == KMS_E_DENIED);
    (void)unlink(path);
}

static void create_makes_the_whole_file(void)
{
    const char *path = scratch_path("made");
    struct stat st;
    char *content = NULL;
    size_t len = 0;
    mode_t old = umask(0077);

    CU_ASSERT_EQUAL(kms_file_create(path, 0640, "version: 1\n", 11, NULL), KMS_OK);
    (void)umask(old);
    CU_ASSERT_EQUAL(stat(path, &st), 0);
    CU_ASSERT_EQUAL(st.st_mode & 07777u, 0640); /* whatever the umask says */
    CU_ASSERT_EQUAL(kms_file_read(path, KMS_FILE_SECRET, 99, &content, &len, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(content, "version: 1\n");
    CU_ASSERT_EQUAL(scratch_count(), 1); /* no temporary file is left */
    kms_secure_free(content);
    (void)unlink(path);
}

static void create_never_overwrites(void)
{
    const char *path = scratch_file("made", 0600, "old", 3);
    const char *dangling = scratch_path("dangling");
    struct kms_error error = KMS_ERROR_INIT;
    char *content = NULL;
    size_t len = 0;

    CU_ASSERT_EQUAL(kms_file_create(path, 0600, "new", 3, &error), KMS_E_EXISTS);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, path));
    CU_ASSERT_EQUAL(kms_file_read(path, KMS_FILE_SECRET, 9, &content, &len, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(content, "old");
    kms_secure_free(content);
    CU_ASSERT_EQUAL(symlink("nowhere", dangling), 0);
    CU_ASSERT_EQUAL(kms_file_create(dangling, 0600, "new", 3, NULL), KMS_E_EXISTS);
    CU_ASSERT_EQUAL(scratch_count(), 2);
    (void)unlink(dangling);
    (void)unlink(path);
}

/* As on a full disk. */
static void create_leaves_no_half_file(void)
{
    struct kms_error error = KMS_ERROR_INIT;

    scratch_limit(10);
    CU_ASSERT_EQUAL(kms_file_create(scratch_path("made"), 0600, "0123456789ABCDEF", 16, &error),
                    KMS_E_UNAVAILABLE);
    scratch_limit(0);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "cannot create "));
    CU_ASSERT_EQUAL(scratch_count(), 0);
}

static void create_says_why_it_cannot(void)
{
    char longest[PATH_MAX + 100];

    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    CU_ASSERT_EQUAL(kms_file_create(longest, 0600, "x", 1, NULL), KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_file_create(scratch_path("no/dir"), 0600, "x", 1, NULL), KMS_E_NOT_FOUND);
    CU_ASSERT_EQUAL(scratch_count(), 0);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"read judges the mode", read_judges_the_mode},
        {"read refuses a foreign group's pen", read_refuses_a_foreign_groups_pen},
        {"read refuses a foreign owner", read_refuses_a_foreign_owner},
        {"read keeps to the ceiling", read_keeps_to_the_ceiling},
        {"read measures what it reads", read_measures_what_it_reads},
        {"read refuses what is no file", read_refuses_what_is_no_file},
        {"read follows links and judges the target", read_follows_links_and_judges_the_target},
        {"read says what may not be read", read_says_what_may_not_be_read},
        {"create makes the whole file", create_makes_the_whole_file},
        {"create never overwrites", create_never_overwrites},
        {"create leaves no half file", create_leaves_no_half_file},
        {"create says why it cannot", create_says_why_it_cannot},
    };
    int result;

    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    scratch_init();
    result = unit_main("test_file", tests, UNIT_COUNT(tests));
    scratch_done();
    return result;
}
