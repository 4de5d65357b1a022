/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The private agent, seen from the host that starts it and from itself: this program, executed
 * again as `... --private --config PATH --socket PATH`, is the agent. PATH says how it behaves: its
 * last word is "good", "slow" or "exit".
 */
#include "backend/agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/agent_parts.h"
#include "common/clock.h"
#include "tests/fakes/fake_agent.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

/* ---- the agent ------------------------------------------------------------------------------- */

/* Descriptors above 2 but for the one that lists them. */
static unsigned inherited(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    unsigned count = 0;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        long fd = strtol(entry->d_name, NULL, 10);

        count += fd > 2 && fd != dirfd(dir) ? 1 : 0;
    }
    (void)closedir(dir);
    return count;
}

static unsigned ignored_signals(void)
{
    unsigned count = 0;
    struct sigaction action;
    sigset_t mask;

    for (int i = 1; i < NSIG; i++) {
        count += sigaction(i, NULL, &action) == 0 && action.sa_handler == SIG_IGN ? 1 : 0;
    }
    (void)sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int i = 1; i < NSIG; i++) {
        count += sigismember(&mask, i) == 1 ? 1 : 0;
    }
    return count;
}

/* One line for each start, into a file beside the configuration. */
static void leave_note(const char *config)
{
    char path[PATH_MAX + 8];
    char cwd[PATH_MAX] = "?";
    struct stat null;
    bool quiet = true;
    FILE *note;

    for (int fd = 0; fd <= 2; fd++) {
        quiet = quiet && fstat(fd, &null) == 0 && S_ISCHR(null.st_mode);
    }
    (void)snprintf(path, sizeof(path), "%s.note", config);
    note = fopen(path, "ae");
    if (note != NULL) {
        const char *env = getenv("KMS_TEST_ENVIRONMENT");

        fprintf(note, "%ld %u %u %d %d %s %s\n", (long)getpid(), inherited() - 1, ignored_signals(),
                quiet, getpid() == getsid(0), getcwd(cwd, sizeof(cwd)) == NULL ? "?" : cwd,
                env == NULL ? "-" : env);
        (void)fclose(note);
    }
}

static int be_the_agent(int argc, char **argv)
{
    struct fake_agent *fake;
    const char *word;

    if (argc != 6 || strcmp(argv[2], "--config") != 0 || strcmp(argv[4], "--socket") != 0) {
        return 2;
    }
    leave_note(argv[3]);
    word = strrchr(argv[3], '-');
    if (word == NULL || strcmp(word, "-exit") == 0) {
        return 1;
    }
    (void)poll(NULL, 0, strcmp(word, "-slow") == 0 ? 200 : 10);
    fake = fake_agent_start(argv[5]);
    (void)poll(NULL, 0, 1500);
    fake_agent_stop(fake);
    return 0;
}

/* ---- the host -------------------------------------------------------------------------------- */

static char self[PATH_MAX];
static char config[PATH_MAX];
static char private_socket[PATH_MAX];
static volatile sig_atomic_t children_died;

static void child_died(int number)
{
    (void)number;
    children_died++;
}

static bool count_token(void *ctx, const struct kms_agent_token *token)
{
    (void)token;
    (*(unsigned *)ctx)++;
    return true;
}

static struct kms_agent *host(const char *word, const char *daemon)
{
    const char *nowhere = scratch_path("no-system-agent");
    struct kms_agent_conf conf = {
        .socket = nowhere, .private_config = config, .daemon = daemon == NULL ? self : daemon};
    struct kms_agent *agent = NULL;

    (void)snprintf(config, sizeof(config), "%s", scratch_path(word));
    if (kms_agent_new(&conf, &agent, NULL) != KMS_OK) {
        exit(EXIT_FAILURE);
    }
    return agent;
}

static enum kms_status list(struct kms_agent *agent, unsigned ms, struct kms_error *ret_error)
{
    struct kms_call call = {.deadline_ns = kms_deadline_in(ms * KMS_NS_PER_MS)};
    unsigned count = 0;
    enum kms_status status = kms_agent_list_tokens(agent, &call, count_token, &count);

    if (ret_error != NULL) {
        *ret_error = call.error;
    }
    return status == KMS_OK && count != 1 ? KMS_E_INTERNAL : status;
}

/* What the agents that were started left: how many, and of the last one its numbers. */
struct note {
    unsigned starts;
    long pid;
    unsigned descriptors;
    unsigned signals;
    int quiet;
    int session;
    char cwd[64];
    char env[64];
};

static struct note read_note(void)
{
    struct note note = {.starts = 0};
    char path[PATH_MAX + 8];
    char line[256];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s.note", config);
    file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "%ld %u %u %d %d %63s %63s", &note.pid, &note.descriptors, &note.signals,
                   &note.quiet, &note.session, note.cwd, note.env) == 7) {
            note.starts++;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    (void)unlink(path);
    return note;
}

static void clean_up(void)
{
    (void)unlink(private_socket);
    (void)unlink(scratch_path("kmsbridge/agent.lock"));
    (void)rmdir(scratch_path("kmsbridge"));
}

static void started(void)
{
    struct kms_agent *agent = host("a-slow", NULL);
    int descriptor = open("/dev/null", O_RDONLY); /* not close-on-exec */
    struct sigaction action = {.sa_handler = child_died};
    struct sigaction before;
    struct note note;
    sigset_t blocked;
    sigset_t mask;

    children_died = 0;
    (void)sigaction(SIGCHLD, &action, &before);
    (void)signal(SIGUSR1, SIG_IGN);
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGUSR2);
    (void)sigprocmask(SIG_BLOCK, &blocked, &mask);
    (void)setenv("KMS_TEST_ENVIRONMENT", "passed-on", 1);
    CU_ASSERT_EQUAL(list(agent, 5000, NULL), KMS_OK);
    CU_ASSERT_EQUAL(list(agent, 5000, NULL), KMS_OK);
    note = read_note();
    CU_ASSERT_EQUAL(note.starts, 1);
    CU_ASSERT_EQUAL(note.descriptors, 0);
    CU_ASSERT_EQUAL(note.signals, 0);
    CU_ASSERT_EQUAL(note.quiet, 1);
    CU_ASSERT_EQUAL(note.session, 0); /* of a session of its own, but not its leader: no terminal */
    CU_ASSERT_STRING_EQUAL(note.cwd, "/");
    CU_ASSERT_STRING_EQUAL(note.env, "passed-on");
    CU_ASSERT_TRUE(getsid((pid_t)note.pid) != getsid(0));
    /* the host has no child, and heard of none */
    CU_ASSERT_TRUE(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    CU_ASSERT_TRUE(waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD);
    CU_ASSERT_EQUAL(children_died, 0);
    (void)kill((pid_t)note.pid, SIGKILL);
    (void)poll(NULL, 0, 50);
    CU_ASSERT_EQUAL(children_died, 0);
    /* gone: the next call brings another one */
    CU_ASSERT_EQUAL(list(agent, 5000, NULL), KMS_OK);
    note = read_note();
    CU_ASSERT_EQUAL(note.starts, 1);
    (void)kill((pid_t)note.pid, SIGKILL);
    (void)sigprocmask(SIG_SETMASK, &mask, NULL);
    (void)sigaction(SIGCHLD, &before, NULL);
    (void)signal(SIGUSR1, SIG_DFL);
    (void)close(descriptor);
    kms_agent_unref(agent);
    clean_up();
}

static void started_once_for_many(void)
{
    struct note note;
    pid_t pids[4];

    (void)snprintf(config, sizeof(config), "%s", scratch_path("b-slow"));
    for (size_t i = 0; i < UNIT_COUNT(pids); i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            alarm(20);
            _exit(list(host("b-slow", NULL), 5000, NULL) == KMS_OK ? 0 : 1);
        }
    }
    for (size_t i = 0; i < UNIT_COUNT(pids); i++) {
        int status = 1;

        CU_ASSERT_EQUAL(waitpid(pids[i], &status, 0), pids[i]);
        CU_ASSERT_EQUAL(status, 0);
    }
    note = read_note();
    CU_ASSERT_EQUAL(note.starts, 1);
    (void)kill((pid_t)note.pid, SIGKILL);
    clean_up();
}

static void not_started(void)
{
    static const struct {
        const char *name;
        const char *word;
        const char *daemon;
        const char *text;
    } rows[] = {
        {"it ends at once", "c-exit", NULL, "ended at once"},
        {"no such program", "c-good", "/nonexistent/kmsbridged", "No such file"},
        {"no program", "c-good", "/etc/passwd", "ermission denied"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_agent *agent = host(rows[i].word, rows[i].daemon);
        struct kms_error error = KMS_ERROR_INIT;
        uint64_t start = kms_now_ns();

        UNIT_CHECK(rows[i].name, list(agent, 4000, &error) == KMS_E_UNAVAILABLE);
        UNIT_CHECK(rows[i].name, strstr(error.text, rows[i].text) != NULL);
        UNIT_CHECK(rows[i].name, list(agent, 4000, &error) == KMS_E_UNAVAILABLE);
        UNIT_CHECK(rows[i].name, kms_now_ns() - start < 3 * KMS_NS_PER_S);
        UNIT_CHECK(rows[i].name, read_note().starts <= 1);
        UNIT_CHECK(rows[i].name, waitpid(-1, NULL, WNOHANG | __WALL) == -1);
        kms_agent_unref(agent);
        clean_up();
    }
}

/* Who has spoken to the system's agent waits for that to come back. */
static void not_instead_of_the_system(void)
{
    struct kms_agent *agent = host("e-good", NULL);
    struct fake_agent *fake = fake_agent_start(scratch_path("no-system-agent"));

    CU_ASSERT_EQUAL(list(agent, 2000, NULL), KMS_OK);
    fake_agent_stop(fake);
    CU_ASSERT_EQUAL(list(agent, 200, NULL), KMS_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(read_note().starts, 0);
    kms_agent_unref(agent);
    clean_up();
}

static void bad_directories(void)
{
    struct kms_error error = KMS_ERROR_INIT;
    const char *path = scratch_path("kmsbridge");

    for (unsigned i = 0; i < 3; i++) {
        struct kms_agent *agent = host("d-good", NULL);
        char row[16];

        (void)snprintf(row, sizeof(row), "way %u", i);
        if (i == 0) {
            UNIT_CHECK(row, mkdir(path, 0700) == 0 && chmod(path, 0750) == 0);
        } else if (i == 1) {
            UNIT_CHECK(row, symlink("/", path) == 0);
        } else {
            (void)scratch_file("kmsbridge", 0600, "", 0);
        }
        /* below a file, connect() says ENOTDIR */
        UNIT_CHECK(row, list(agent, 1000, &error) == (i == 2 ? KMS_E_UNAVAILABLE : KMS_E_DENIED));
        UNIT_CHECK(row, read_note().starts == 0);
        kms_agent_unref(agent);
        (void)unlink(path);
        clean_up();
    }
}

static void without_runtime_directory(void)
{
    char path[KMS_AGENT_PATH_MAX] = "";
    char expected[64];
    static char much[200];

    (void)snprintf(expected, sizeof(expected), "/tmp/kmsbridge-%lu/agent.sock",
                   (unsigned long)geteuid());
    (void)unsetenv("XDG_RUNTIME_DIR");
    CU_ASSERT_EQUAL(kms_agent_private_path(path, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(path, expected);
    (void)setenv("XDG_RUNTIME_DIR", "relative", 1);
    CU_ASSERT_EQUAL(kms_agent_private_path(path, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(path, expected);
    (void)setenv("XDG_RUNTIME_DIR", "/tmp", 1); /* others may write it */
    CU_ASSERT_EQUAL(kms_agent_private_path(path, NULL), KMS_OK);
    CU_ASSERT_STRING_EQUAL(path, expected);
    (void)snprintf(much, sizeof(much), "%s/%0100d", scratch_path("x"), 0);
    (void)mkdir(scratch_path("x"), 0700);
    (void)mkdir(much, 0700);
    (void)setenv("XDG_RUNTIME_DIR", much, 1);
    CU_ASSERT_EQUAL(kms_agent_private_path(path, NULL), KMS_E_INVALID);
    CU_ASSERT_STRING_EQUAL(path, "");
    (void)rmdir(much);
    (void)rmdir(scratch_path("x"));
}

int main(int argc, char **argv)
{
    static const struct unit_test tests[] = {
        {"started", started},
        {"started once for many", started_once_for_many},
        {"not started", not_started},
        {"not instead of the system", not_instead_of_the_system},
        {"bad directories", bad_directories},
        {"without runtime directory", without_runtime_directory},
    };
    int result;
    ssize_t len;

    if (argc > 1 && strcmp(argv[1], "--private") == 0) {
        return be_the_agent(argc, argv);
    }
    len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (len <= 0) {
        return EXIT_FAILURE;
    }
    scratch_init();
    (void)setenv("XDG_RUNTIME_DIR", scratch_path("."), 1);
    (void)snprintf(private_socket, sizeof(private_socket), "%s",
                   scratch_path("kmsbridge/agent.sock"));
    result = unit_main("test_agent_spawn", tests, UNIT_COUNT(tests));
    scratch_done();
    return result;
}
