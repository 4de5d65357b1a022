/* SPDX-License-Identifier: Apache-2.0 */
/* `kmsbridged --private`: a user's own agent, from a configuration without kms: and agent:. */
#include "config.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/daemon/fixture.h"
#include "tests/daemon/frames.h"
#include "tests/unit/unit.h"

#define NAME "test_agent_private"

static struct fixture fx;
static char agent_socket[128];
static char log_file[160];

static void configure(const char *more)
{
    char text[2048];

    (void)snprintf(text, sizeof(text),
                   "version: 1\n"
                   "backends:\n"
                   "  - name: hsm\n"
                   "    type: hsm\n"
                   "    hsm:\n"
                   "      module: %s/tests/fakes/.libs/p11-shim.so\n"
                   "      token: " FIXTURE_TOKEN "\n"
                   "      pin: file:%s\n"
                   "%s",
                   fx.build, fx.pin_file, more);
    fixture_write(fx.config, text);
}

/* As the module starts it: nothing of ours behind it. */
static pid_t start_private(uid_t uid)
{
    char program[PATH_MAX];
    char words[3][16] = {"--private", "--config", "--socket"};
    char *argv[] = {program, words[0], words[1], fx.config, words[2], agent_socket, NULL};
    pid_t pid = 0;

    (void)snprintf(program, sizeof(program), "%s/kmsbridge/kmsbridged", fx.build);
    pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(null, 0);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        if (uid != 0 && setresuid(uid, uid, uid) != 0) {
            _exit(126);
        }
        execv(program, argv);
        _exit(127);
    }
    return pid;
}

struct child {
    pid_t pid;
    int status;
};

static bool has_ended(void *ctx)
{
    struct child *child = ctx;

    return waitpid(child->pid, &child->status, WNOHANG) == child->pid;
}

/* Its exit code; -1 when it does not leave in time. */
static int wait_end(pid_t pid, uint64_t ns)
{
    struct child child = {.pid = pid};

    if (!fixture_until(has_ended, &child, ns)) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return -1;
    }
    return WIFEXITED(child.status) ? WEXITSTATUS(child.status) : -1;
}

static bool can_connect(void *ctx)
{
    struct frames frames;
    bool can = frames_open(&frames, agent_socket) == KMS_OK;

    (void)ctx;
    frames_close(&frames);
    return can;
}

static bool log_has(const char *text)
{
    static char content[65536];
    FILE *file = fopen(log_file, "re");
    size_t len = file == NULL ? 0 : fread(content, 1, sizeof(content) - 1, file);

    content[len] = '\0';
    if (file != NULL) {
        (void)fclose(file);
    }
    return strstr(content, text) != NULL;
}

static bool has_warned(void *ctx)
{
    (void)ctx;
    return log_has("backend hsm has changed and needs a restart");
}

static bool has_reloaded(void *ctx)
{
    (void)ctx;
    return log_has("reload: done");
}

static int as_stranger(void *ctx)
{
    struct frames frames;
    enum kms_status status = frames_open(&frames, agent_socket);

    (void)ctx;
    frames_close(&frames);
    return status == KMS_OK ? 1 : 0;
}

static void serves_and_leaves(void)
{
    struct frames frames;
    char ref[FRAMES_REF];
    struct stat st;
    pid_t pid = 0;

    configure("agent: {idle_exit: 1s}\n");
    pid = start_private(0);
    CU_ASSERT_TRUE_FATAL(fixture_until(can_connect, NULL, SEC(10)));
    CU_ASSERT_EQUAL(stat(agent_socket, &st), 0);
    CU_ASSERT_EQUAL(st.st_mode & 0777, 0600);
    CU_ASSERT_EQUAL(frames_open(&frames, agent_socket), KMS_OK);
    sleep(2); /* somebody is connected */
    CU_ASSERT_TRUE(frames_find(&frames, FIXTURE_LABEL, ref));
    CU_ASSERT_EQUAL(frames_encrypt(&frames, ref, "x"), KMS_OK);
    if (geteuid() == 0) { /* the socket's mode keeps them out */
        CU_ASSERT_EQUAL(frames_as(4242, 4242, as_stranger, NULL), 0);
    }
    frames_close(&frames);
    CU_ASSERT_EQUAL(wait_end(pid, SEC(8)), 0);
    CU_ASSERT_NOT_EQUAL(stat(agent_socket, &st), 0);
    CU_ASSERT_TRUE(log_has("agent: serving 1 token(s)"));
    CU_ASSERT_TRUE(log_has("nobody has been connected"));
}

static void one_is_enough(void)
{
    pid_t first = 0;
    pid_t second = 0;

    configure("");
    first = start_private(0);
    CU_ASSERT_TRUE_FATAL(fixture_until(can_connect, NULL, SEC(10)));
    second = start_private(0);
    CU_ASSERT_EQUAL(wait_end(second, SEC(8)), 1);
    CU_ASSERT_TRUE(log_has("another kmsbridged serves this socket"));
    CU_ASSERT_TRUE(can_connect(NULL));
    (void)kill(first, SIGTERM);
    CU_ASSERT_EQUAL(wait_end(first, SEC(8)), 0);
}

static void says_what_is_wrong(void)
{
    configure("agent: {idle_exit: soon}\n");
    CU_ASSERT_EQUAL(wait_end(start_private(0), SEC(8)), 3);
    CU_ASSERT_TRUE(log_has("agent.idle_exit: \"soon\" is not a duration"));
    configure("");
    CU_ASSERT_EQUAL(chmod(fx.config, 0666), 0);
    CU_ASSERT_EQUAL(wait_end(start_private(0), SEC(8)), 3);
    CU_ASSERT_TRUE(log_has(fx.config));
}

/* kms: and monitor: are the system's, whose file this may be as well. */
static void passes_over_kms(void)
{
    pid_t pid = 0;
    struct stat st;

    fixture_configure(&fx, NULL, NULL);
    pid = start_private(0);
    CU_ASSERT_TRUE_FATAL(fixture_until(can_connect, NULL, SEC(10)));
    CU_ASSERT_NOT_EQUAL(stat(fx.socket, &st), 0);
    CU_ASSERT_NOT_EQUAL(stat(fx.monitor, &st), 0);
    (void)kill(pid, SIGHUP);
    sleep(1);
    CU_ASSERT_TRUE(log_has("reload: done"));
    CU_ASSERT_TRUE(can_connect(NULL));
    (void)kill(pid, SIGTERM);
    CU_ASSERT_EQUAL(wait_end(pid, SEC(8)), 0);
}

/* A key service of the agent's own stays as it was opened, and that is said. */
static void warns_of_a_changed_backend(void)
{
    pid_t pid = 0;

    (void)unlink(log_file);
    configure("");
    pid = start_private(0);
    CU_ASSERT_TRUE_FATAL(fixture_until(can_connect, NULL, SEC(10)));
    (void)kill(pid, SIGHUP);
    CU_ASSERT_TRUE(fixture_until(has_reloaded, NULL, SEC(10)));
    CU_ASSERT_FALSE(has_warned(NULL));
    configure("      sessions: 7\n");
    (void)kill(pid, SIGHUP);
    CU_ASSERT_TRUE(fixture_until(has_warned, NULL, SEC(10)));
    (void)kill(pid, SIGTERM);
    CU_ASSERT_EQUAL(wait_end(pid, SEC(8)), 0);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"it serves, and leaves when idle", serves_and_leaves},
        {"one is enough", one_is_enough},
        {"it says what is wrong", says_what_is_wrong},
        {"kms and monitor are not its business", passes_over_kms},
        {"it warns of a changed backend", warns_of_a_changed_backend},
    };

    fixture_init(&fx, NAME);
    (void)chmod(fx.dir, 0711);
    (void)snprintf(agent_socket, sizeof(agent_socket), "%s/agent.sock", fx.dir);
    (void)snprintf(log_file, sizeof(log_file), "%s.log", agent_socket);
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
