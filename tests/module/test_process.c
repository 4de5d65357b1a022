/* SPDX-License-Identifier: Apache-2.0 */
/* A module in somebody else's process: fork, threads, exit, unloading, descriptors, signals. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/module/module.h"

/* In children checks are exit codes: which step failed. */
#define STEP(n, condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            return (n);                                                                            \
        }                                                                                          \
    } while (0)

/* A signature with the token's key, from a library that is initialised. */
static int sign_on(CK_SLOT_ID slot)
{
    CK_MECHANISM mechanism = {CKM_SHA256_RSA_PKCS, NULL, 0};
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE tmpl[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_ID, bytes_of("rsa"), 3}};
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE key = 0;
    CK_BYTE signature[512];
    CK_ULONG n = sizeof(signature);
    CK_RV rv = CKR_OK;

    STEP(11, m.f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s) == CKR_OK);
    rv = m.f->C_Login(s, CKU_USER, bytes_of(m.pin), strlen(m.pin));
    STEP(12, rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN);
    STEP(13, m.f->C_FindObjectsInit(s, tmpl, 2) == CKR_OK);
    STEP(14, m.f->C_FindObjects(s, &key, 1, &n) == CKR_OK && n == 1);
    STEP(15, m.f->C_FindObjectsFinal(s) == CKR_OK);
    STEP(16, m.f->C_SignInit(s, &mechanism, key) == CKR_OK);
    n = sizeof(signature);
    STEP(17, m.f->C_Sign(s, bytes_of("x"), 1, signature, &n) == CKR_OK && n == 256);
    STEP(18, m.f->C_CloseSession(s) == CKR_OK);
    return 0;
}

static int sign_once(void)
{
    return sign_on(module_slot());
}

/* ---- fork ------------------------------------------------------------------------------------ */

static int straight(void *ctx) /* p11-kit, libp11 */
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};

    (void)ctx;
    STEP(1, m.f->C_Initialize(&args) == CKR_OK);
    STEP(2, sign_once() == 0);
    STEP(3, m.f->C_Finalize(NULL) == CKR_OK);
    return 0;
}

static int finalize_first(void *ctx) /* pkcs11-provider */
{
    (void)m.f->C_Finalize(NULL);
    return straight(ctx);
}

static int nothing(void *ctx) /* nginx with an old engine */
{
    const CK_SESSION_HANDLE *s = ctx;
    CK_SESSION_INFO info;
    CK_ULONG n = 0;

    STEP(1, m.f->C_GetSessionInfo(*s, &info) == CKR_CRYPTOKI_NOT_INITIALIZED);
    STEP(2, m.f->C_GetSlotList(CK_TRUE, NULL, &n) == CKR_CRYPTOKI_NOT_INITIALIZED);
    STEP(3, m.f->C_CloseSession(*s) == CKR_CRYPTOKI_NOT_INITIALIZED);
    STEP(4, m.f->C_Finalize(NULL) == CKR_CRYPTOKI_NOT_INITIALIZED);
    return 0;
}

static int grandchild(void *ctx)
{
    STEP(1, straight(ctx) == 0);
    STEP(2, module_in_child(straight, ctx) == 0);
    STEP(3, m.f->C_Initialize(NULL) == CKR_OK);
    STEP(4, module_in_child(finalize_first, ctx) == 0);
    STEP(5, sign_once() == 0);
    return 0;
}

static void forked(int (*fn)(void *ctx))
{
    CK_SESSION_HANDLE s = 0;
    CK_SESSION_INFO info;

    module_start();
    (void)UNIT_CHECK("before", sign_once() == 0);
    s = module_open_logged_in(0);
    (void)CHILD(fn, &s);
    (void)CHILD(fn, &s);
    OK(m.f->C_GetSessionInfo(s, &info));
    (void)UNIT_CHECK("the login stays", info.state == CKS_RO_USER_FUNCTIONS);
    (void)UNIT_CHECK("after", sign_once() == 0);
    module_stop();
}

static void fork_straight(void)
{
    forked(straight);
}

static void fork_finalize(void)
{
    forked(finalize_first);
}

static void fork_nothing(void)
{
    forked(nothing);
}

static void fork_twice(void)
{
    forked(grandchild);
}

static void fork_before(void)
{
    (void)CHILD(straight, NULL);
}

/* clone(), as nothing of libc's: no atfork handler runs. */
static void fork_raw(void)
{
    CK_SESSION_HANDLE s = 0;
    siginfo_t info = {.si_status = 99};
    pid_t child = 0;

    module_start();
    s = module_open(0);
    child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        _exit(nothing(&s));
    }
    (void)UNIT_CHECK("waited", waitid(P_PID, (id_t)child, &info, WEXITED) == 0);
    (void)UNIT_CHECK("child", info.si_status == 0);
    module_stop();
}

/* ---- threads --------------------------------------------------------------------------------- */

static atomic_bool stop;
static atomic_uint rounds;
static atomic_uint faults;

static void *work(void *arg)
{
    (void)arg;
    for (int i = 0; i < 40; i++) {
        if (sign_once() != 0) {
            atomic_fetch_add(&faults, 1);
        }
        atomic_fetch_add(&rounds, 1);
    }
    return NULL;
}

static void threads(void)
{
    enum { THREADS = 6 };
    pthread_t thread[THREADS];
    CK_SESSION_HANDLE s = 0;

    atomic_store(&faults, 0);
    module_start();
    s = module_open_logged_in(0); /* keeps the login while others come and go */
    for (size_t i = 0; i < THREADS; i++) {
        (void)UNIT_CHECK("started", pthread_create(&thread[i], NULL, work, NULL) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        (void)pthread_join(thread[i], NULL);
    }
    (void)UNIT_CHECK("faults", atomic_load(&faults) == 0);
    OK(m.f->C_CloseSession(s));
    module_stop();
}

/* One session in many threads: each call does its work or says that another is inside. */
static void *share(void *arg)
{
    const CK_SESSION_HANDLE s = *(CK_SESSION_HANDLE *)arg;

    for (int i = 0; i < 2000; i++) {
        CK_MECHANISM sha = {CKM_SHA256, NULL, 0};
        CK_BYTE out[32];
        CK_ULONG n = sizeof(out);
        CK_OBJECT_HANDLE object = 0;
        CK_RV rv[] = {
            m.f->C_DigestInit(s, &sha),         m.f->C_Digest(s, bytes_of("abc"), 3, out, &n),
            m.f->C_FindObjectsInit(s, NULL, 0), m.f->C_FindObjects(s, &object, 1, &n),
            m.f->C_FindObjectsFinal(s),
        };

        for (size_t k = 0; k < UNIT_COUNT(rv); k++) {
            if (rv[k] != CKR_OK && rv[k] != CKR_OPERATION_ACTIVE &&
                rv[k] != CKR_OPERATION_NOT_INITIALIZED) {
                atomic_fetch_add(&faults, 1);
            }
        }
    }
    return NULL;
}

static void shared_session(void)
{
    pthread_t thread[4];
    CK_SESSION_HANDLE s = 0;

    atomic_store(&faults, 0);
    module_start();
    s = module_open_logged_in(0);
    for (size_t i = 0; i < 4; i++) {
        (void)pthread_create(&thread[i], NULL, share, &s);
    }
    for (size_t i = 0; i < 4; i++) {
        (void)pthread_join(thread[i], NULL);
    }
    (void)UNIT_CHECK("faults", atomic_load(&faults) == 0);
    module_stop();
}

/* Closing a session, and the library, that others are inside with. */
static void *churn(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        CK_SESSION_HANDLE s = 0;
        CK_BYTE bytes[16];
        CK_OBJECT_HANDLE object = 0;
        CK_ULONG n = 0;

        if (m.f->C_OpenSession(0, CKF_SERIAL_SESSION, NULL, NULL, &s) == CKR_OK) {
            (void)m.f->C_FindObjectsInit(s, NULL, 0);
            (void)m.f->C_FindObjects(s, &object, 1, &n);
            (void)m.f->C_GenerateRandom(s, BYTES(bytes));
            (void)m.f->C_CloseSession(s);
        }
        atomic_fetch_add(&rounds, 1);
    }
    return NULL;
}

static void finalize_with_threads_inside(void)
{
    pthread_t thread[4];
    const struct timespec nap = {.tv_nsec = 20 * 1000 * 1000};

    atomic_store(&stop, false);
    for (size_t i = 0; i < 4; i++) {
        (void)pthread_create(&thread[i], NULL, churn, NULL);
    }
    for (int i = 0; i < 25; i++) {
        OK(m.f->C_Initialize(NULL));
        (void)module_slot();
        (void)nanosleep(&nap, NULL);
        if (i % 2 == 0) {
            OK(m.f->C_CloseAllSessions(module_slot()));
        }
        OK(m.f->C_Finalize(NULL));
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 4; i++) {
        (void)pthread_join(thread[i], NULL);
    }
    module_start();
    (void)UNIT_CHECK("still good", sign_once() == 0);
    module_stop();
}

static void *cancelled(void *arg)
{
    (void)arg;
    for (;;) {
        (void)sign_once();
        pthread_testcancel();
    }
    return NULL;
}

/* A thread is cancelled between our calls, never inside one. */
static void cancellation(void)
{
    const struct timespec nap = {.tv_nsec = 10 * 1000 * 1000};

    module_start();
    for (int i = 0; i < 10; i++) {
        pthread_t thread;

        (void)pthread_create(&thread, NULL, cancelled, NULL);
        (void)nanosleep(&nap, NULL);
        (void)pthread_cancel(thread);
        (void)pthread_join(thread, NULL);
    }
    (void)UNIT_CHECK("still good", sign_once() == 0);
    module_stop();
}

/* ---- exit and unloading ---------------------------------------------------------------------- */

/* libcrypto's own end, whatever the order: before, between and after ours. */
static void cleanup_libcrypto(void)
{
    void (*cleanup)(void) = NULL;
    void *handle = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_NOLOAD);

    if (handle != NULL) {
        *(void **)&cleanup = dlsym(handle, "OPENSSL_cleanup");
        cleanup();
    }
}

static CK_SESSION_HANDLE left_open;

/* A session with operations, a search and keys in it. */
static int leave_open(void)
{
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0};

    STEP(21, m.f->C_Initialize(NULL) == CKR_OK);
    STEP(22, sign_once() == 0);
    left_open = module_open_logged_in(0);
    STEP(23, module_session_aes(left_open) != 0);
    STEP(24, m.f->C_DigestInit(left_open, &sha) == CKR_OK);
    STEP(25, m.f->C_FindObjectsInit(module_open(0), NULL, 0) == CKR_OK);
    return 0;
}

static int cleanup_then_finalize(void *ctx)
{
    (void)ctx;
    STEP(1, leave_open() == 0);
    cleanup_libcrypto();
    STEP(2, m.f->C_CloseSession(left_open) == CKR_OK);
    STEP(3, m.f->C_Finalize(NULL) == CKR_OK);
    STEP(4, m.f->C_Finalize(NULL) == CKR_CRYPTOKI_NOT_INITIALIZED);
    return 0;
}

static int use_after_cleanup(void *ctx)
{
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0};

    (void)ctx;
    STEP(1, leave_open() == 0);
    cleanup_libcrypto();
    (void)m.f->C_DigestUpdate(left_open, bytes_of("x"), 1);
    (void)m.f->C_DigestInit(module_open(0), &sha);
    (void)m.f->C_CloseAllSessions(module_slot());
    STEP(2, m.f->C_Finalize(NULL) == CKR_OK);
    return 0;
}

static void finalize_at_exit(void)
{
    if (m.f->C_Finalize(NULL) != CKR_OK) {
        _exit(77);
    }
}

static int finalize_in_atexit(void *ctx)
{
    (void)ctx;
    STEP(1, atexit(finalize_at_exit) == 0); /* before libcrypto's: so it runs after */
    STEP(2, leave_open() == 0);
    exit(0);
}

static int exit_without_finalize(void *ctx)
{
    (void)ctx;
    STEP(1, leave_open() == 0);
    exit(0);
}

/* Nothing is asserted here: it goes on after C_Finalize and in exit(). */
static void *sign_for_ever(void *arg)
{
    const CK_SLOT_ID *slot = arg;

    for (;;) {
        (void)sign_on(*slot);
    }
    return arg;
}

static int exit_with_thread_inside(void *ctx)
{
    static CK_SLOT_ID slot;
    const struct timespec nap = {.tv_nsec = 30 * 1000 * 1000};
    pthread_t thread;

    STEP(1, leave_open() == 0);
    slot = module_slot();
    for (int i = 0; i < 3; i++) {
        STEP(2, pthread_create(&thread, NULL, sign_for_ever, &slot) == 0);
    }
    (void)nanosleep(&nap, NULL);
    if (ctx != NULL) {
        STEP(3, m.f->C_Finalize(NULL) == CKR_OK);
    }
    exit(0);
}

static void exits(void)
{
    int yes = 1;

    (void)CHILD(cleanup_then_finalize, NULL);
    (void)CHILD(use_after_cleanup, NULL);
    (void)CHILD(finalize_in_atexit, NULL);
    (void)CHILD(exit_without_finalize, NULL);
    (void)CHILD(exit_with_thread_inside, NULL);
    (void)CHILD(exit_with_thread_inside, &yes);
}

static int unload(void *ctx)
{
    (void)ctx;
    for (int i = 0; i < 3; i++) {
        STEP(1, m.f->C_Initialize(NULL) == CKR_OK);
        STEP(2, sign_once() == 0);
        if (i != 1) { /* some hosts forget */
            STEP(3, m.f->C_Finalize(NULL) == CKR_OK);
        }
        STEP(4, dlclose(m.handle) == 0);
        STEP(5, module_load());
        (void)m.f->C_Finalize(NULL);
    }
    STEP(6, module_in_child(straight, NULL) == 0);
    return 0;
}

static void reload(void)
{
    (void)CHILD(unload, NULL);
}

/* ---- descriptors, signals, errno ------------------------------------------------------------- */

static int close_descriptors(void *ctx)
{
    (void)ctx;
    STEP(1, m.f->C_Initialize(NULL) == CKR_OK);
    STEP(2, sign_once() == 0);
    for (int fd = 0; fd < 1024; fd++) {
        (void)close(fd);
    }
    STEP(3, sign_once() == 0);
    return 0;
}

/* The host's own files get the numbers: nothing may be written into them, or closed. */
static int reuse_descriptors(void *ctx)
{
    char path[] = "/tmp/kmsbridge-module-XXXXXX";
    int mine[64];
    int file = 0;

    (void)ctx;
    STEP(1, m.f->C_Initialize(NULL) == CKR_OK);
    STEP(2, sign_once() == 0);
    for (int fd = 3; fd < 1024; fd++) {
        (void)close(fd);
    }
    file = mkstemp(path);
    STEP(3, file >= 0);
    (void)unlink(path);
    for (size_t i = 0; i < UNIT_COUNT(mine); i++) {
        mine[i] = dup(file);
        STEP(4, mine[i] >= 0);
    }
    STEP(5, sign_once() == 0);
    STEP(6, m.f->C_Finalize(NULL) == CKR_OK);
    STEP(7, lseek(file, 0, SEEK_END) == 0);
    for (size_t i = 0; i < UNIT_COUNT(mine); i++) {
        STEP(8, fcntl(mine[i], F_GETFD) >= 0);
    }
    return 0;
}

static void descriptors(void)
{
    (void)CHILD(close_descriptors, NULL);
    (void)CHILD(reuse_descriptors, NULL);
}

static void keeps_errno(void)
{
    CK_SESSION_HANDLE s = 0;
    CK_SESSION_INFO info;
    CK_BYTE bytes[8];
    CK_ULONG n = 0;

    module_start();
    s = module_open_logged_in(0);
    errno = 4242;
    (void)m.f->C_GetSlotList(CK_TRUE, NULL, &n);
    (void)m.f->C_GetSessionInfo(s, &info);
    (void)m.f->C_GetSessionInfo(0, &info);
    (void)m.f->C_FindObjectsInit(s, NULL, 0);
    (void)m.f->C_GenerateRandom(s, BYTES(bytes));
    (void)UNIT_CHECK("kept", errno == 4242);
    module_stop();
    (void)UNIT_CHECK("kept by C_Finalize", errno == 4242);
    module_start();
    (void)UNIT_CHECK("kept by C_Initialize", errno == 4242);
    module_stop();
}

static size_t thread_count(void)
{
    char line[256];
    size_t count = 0;
    FILE *status = fopen("/proc/self/status", "re");

    while (status != NULL && fgets(line, sizeof(line), status) != NULL) {
        (void)sscanf(line, "Threads: %zu", &count);
    }
    if (status != NULL) {
        (void)fclose(status);
    }
    return count;
}

static void leaves_no_trace(void)
{
    struct sigaction pipe_before;
    struct sigaction pipe_after;
    sigset_t mask_before;
    sigset_t mask_after;
    const size_t threads_before = thread_count();

    (void)sigaction(SIGPIPE, NULL, &pipe_before);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
    module_start();
    (void)UNIT_CHECK("used", sign_once() == 0);
    (void)UNIT_CHECK("no thread", thread_count() == threads_before);
    module_stop();
    (void)sigaction(SIGPIPE, NULL, &pipe_after);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    (void)UNIT_CHECK("SIGPIPE", pipe_before.sa_handler == pipe_after.sa_handler);
    for (int i = 1; i < SIGRTMAX; i++) {
        (void)UNIT_CHECK("mask", sigismember(&mask_before, i) == sigismember(&mask_after, i));
    }
}

const struct module_test module_process_tests[] = {
    {"fork-straight", fork_straight, "a child is initialised as its parent was: 2.6.1 refuses"},
    {"fork-finalize", fork_finalize, NULL},
    {"fork-nothing", fork_nothing, "a child goes on with its parent's sessions"},
    {"fork-twice", fork_twice, "see fork-straight"},
    {"fork-before", fork_before, NULL},
    {"fork-raw", fork_raw, "see fork-nothing"},
    {"threads", threads, NULL},
    {"shared-session", shared_session, "two threads in one session crash it"},
    {"finalize-with-threads", finalize_with_threads_inside,
     "it crashes, used while it is finalised"},
    {"cancellation", cancellation, "a cancelled thread leaves its locks held"},
    {"exits", exits, "it crashes with a thread inside, and when used after libcrypto's cleanup"},
    {"reload", reload, NULL},
    {"descriptors", descriptors, NULL},
    {"errno", keeps_errno, "it does not keep it"},
    {"no-trace", leaves_no_trace, NULL},
    {NULL, NULL, NULL},
};
