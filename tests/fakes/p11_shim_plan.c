/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/p11_shim_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_ONCE = 64,
    MAX_LINE = 4096,
    NAME_WIDTH = 22, /* the longest: C_DecryptVerifyUpdate, 21 */
    COUNT_WIDTH = 12,
    ROW_WIDTH = NAME_WIDTH + 1 + COUNT_WIDTH + 1,
    ROW_FAULTS = P11_SHIM_FUNCTIONS,
    ROW_RELOADS,
    ROWS,
};

struct function_set {
    bool has[P11_SHIM_FUNCTIONS];
};

struct once {
    CK_RV rv;
    unsigned long left;
    struct function_set on;
};

struct plan {
    struct p11_shim_settings settings;
    size_t n_hidden;
    CK_MECHANISM_TYPE hidden[P11_SHIM_MAX_MECHANISMS];
    CK_RV fail[P11_SHIM_FUNCTIONS]; /* CKR_OK: no fault */
    struct once once[MAX_ONCE];
    size_t n_once;
    struct function_set hang;
    bool until_reinit;
    bool bad;
};

static const char *const row_names[ROWS] = {
#define FN(name, ...) [FN_##name] = #name,
    P11_SHIM_OWN(FN) P11_SHIM_PLAIN(FN) P11_SHIM_MECH_INIT(FN)
#undef FN
        [ROW_FAULTS] = "faults",
    [ROW_RELOADS] = "reloads",
};

/* The one global: everything that calls share, all of it guarded by `lock`. */
static struct {
    pthread_mutex_t lock;
    const char *control;    /* NULL: no control file */
    struct stat control_id; /* of the version that `plan` came from; zero: there was none */
    struct plan plan;
    atomic_bool hides;   /* plan.n_hidden is not 0 */
    unsigned long epoch; /* C_Finalize calls that succeeded */
    bool finalized;      /* since the plan was read */
    char *counters;      /* ROWS rows of ROW_WIDTH, mapped; NULL: not counted */
} shim = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- counters ------------------------------------------------------------------------------- */

static void counters_format(char *text, const char *old)
{
    char row[ROW_WIDTH + 1];

    for (size_t i = 0; i < ROWS; i++) {
        unsigned long long n = 0;

        if (old != NULL) {
            n = strtoull(old + i * ROW_WIDTH + NAME_WIDTH, NULL, 10);
        }
        (void)snprintf(row, sizeof row, "%-*s %*llu\n", NAME_WIDTH, row_names[i], COUNT_WIDTH, n);
        memcpy(text + i * ROW_WIDTH, row, ROW_WIDTH);
    }
}

static void counters_open(void)
{
    const char *path = getenv("KMSBRIDGE_SHIM_COUNTERS");
    char text[ROWS * ROW_WIDTH];
    char old[ROWS * ROW_WIDTH + 1] = "";
    struct stat st;
    void *map = MAP_FAILED;
    int fd = -1;

    if (path == NULL || *path == '\0') {
        return;
    }
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &st) != 0) {
        fprintf(stderr, "p11-shim: %s: %s\n", path, strerror(errno));
        abort();
    }
    if (st.st_size == (off_t)sizeof text && read(fd, old, sizeof text) == (ssize_t)sizeof text) {
        counters_format(text, old);
    } else {
        counters_format(text, NULL);
    }
    if (ftruncate(fd, (off_t)sizeof text) == 0 &&
        pwrite(fd, text, sizeof text, 0) == (ssize_t)sizeof text) {
        map = mmap(NULL, sizeof text, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    (void)close(fd);
    if (map == MAP_FAILED) {
        fprintf(stderr, "p11-shim: %s: %s\n", path, strerror(errno));
        abort();
    }
    shim.counters = map;
}

/* Adds one in decimal, in place. */
static void count_locked(size_t row)
{
    char *first = NULL;
    char *digit = NULL;

    if (shim.counters == NULL) {
        return;
    }
    first = shim.counters + row * ROW_WIDTH + NAME_WIDTH + 1;
    for (digit = first + COUNT_WIDTH - 1; digit >= first && *digit == '9'; digit--) {
        *digit = '0';
    }
    if (digit >= first) {
        *digit = *digit == ' ' ? '1' : (char)(*digit + 1);
    }
}

/* ---- control file --------------------------------------------------------------------------- */

static bool parse_number(const char *text, unsigned long *ret_number)
{
    char *end = NULL;
    unsigned long number = 0;

    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    number = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0') {
        return false;
    }
    *ret_number = number;
    return true;
}

static bool parse_function(const char *name, struct function_set *set)
{
    for (size_t i = 0; i < P11_SHIM_FUNCTIONS; i++) {
        if (i != FN_C_GetFunctionList && strcmp(row_names[i], name) == 0) {
            set->has[i] = true;
            return true;
        }
    }
    return false;
}

/* NULL or "": the token's calls; "*": all of them; otherwise a list of names. */
static bool parse_functions(char *text, struct function_set *ret_set)
{
    struct function_set set = {{false}};
    char *save = NULL;

    if (text == NULL || *text == '\0' || strcmp(text, "*") == 0) {
        bool all = text != NULL && *text == '*';

        for (size_t i = 0; i < P11_SHIM_FUNCTIONS; i++) {
            set.has[i] =
                i != FN_C_GetFunctionList && (all || (i != FN_C_Initialize && i != FN_C_Finalize));
        }
        *ret_set = set;
        return true;
    }
    for (char *name = strtok_r(text, ",", &save); name != NULL; name = strtok_r(NULL, ",", &save)) {
        if (!parse_function(name, &set)) {
            return false;
        }
    }
    *ret_set = set;
    return true;
}

static bool set_latency(struct plan *plan, char *value)
{
    return parse_number(value, &plan->settings.latency_us);
}

static bool set_random_latency(struct plan *plan, char *value)
{
    return parse_number(value, &plan->settings.random_latency_us);
}

static bool set_fail(struct plan *plan, char *value)
{
    struct function_set set;
    CK_RV rv = CKR_OK;
    char *rest = value;
    const char *name = strsep(&rest, ":");

    if (!p11_shim_ckr(name, &rv) || !parse_functions(rest, &set)) {
        return false;
    }
    for (size_t i = 0; i < P11_SHIM_FUNCTIONS; i++) {
        if (set.has[i]) {
            plan->fail[i] = rv;
        }
    }
    return true;
}

static bool set_fail_once(struct plan *plan, char *value)
{
    struct once once = {.left = 1};
    char *rest = value;
    const char *name = strsep(&rest, ":");
    char *functions = strsep(&rest, ":");

    if (plan->n_once == MAX_ONCE || !p11_shim_ckr(name, &once.rv) ||
        !parse_functions(functions, &once.on)) {
        return false;
    }
    if (rest != NULL && !parse_number(rest, &once.left)) {
        return false;
    }
    plan->once[plan->n_once++] = once;
    return true;
}

static bool parse_flag(const char *text, bool *ret_flag)
{
    if (strcmp(text, "1") != 0 && strcmp(text, "0") != 0) {
        return false;
    }
    *ret_flag = *text == '1';
    return true;
}

static bool set_hang(struct plan *plan, char *value)
{
    bool flag = false;
    char *rest = value;
    const char *on = strsep(&rest, ":");

    return parse_flag(on, &flag) && (!flag || parse_functions(rest, &plan->hang));
}

static bool set_until_reinit(struct plan *plan, char *value)
{
    return parse_flag(value, &plan->until_reinit);
}

static bool set_no_mech(struct plan *plan, char *value)
{
    char *save = NULL;

    for (char *name = strtok_r(value, ",", &save); name != NULL;
         name = strtok_r(NULL, ",", &save)) {
        if (plan->n_hidden == P11_SHIM_MAX_MECHANISMS ||
            !p11_shim_ckm(name, &plan->hidden[plan->n_hidden])) {
            return false;
        }
        plan->n_hidden++;
    }
    return true;
}

static bool set_own_iv(struct plan *plan, char *value)
{
    static const struct {
        const char *name;
        enum p11_shim_iv iv;
    } rows[] = {
        {"late", P11_SHIM_IV_LATE},
        {"empty", P11_SHIM_IV_EMPTY},
        {"append", P11_SHIM_IV_APPEND},
    };
    bool flag = false;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(value, rows[i].name) == 0) {
            plan->settings.own_iv = rows[i].iv;
            return true;
        }
    }
    if (!parse_flag(value, &flag)) {
        return false;
    }
    plan->settings.own_iv = flag ? P11_SHIM_IV_EARLY : P11_SHIM_IV_CALLER;
    return true;
}

static bool set_serial(struct plan *plan, char *value)
{
    size_t len = strlen(value);

    if (len > P11_SHIM_SERIAL_LEN) {
        return false;
    }
    memset(plan->settings.serial, ' ', P11_SHIM_SERIAL_LEN);
    memcpy(plan->settings.serial, value, len);
    plan->settings.has_serial = true;
    return true;
}

static bool set_final_try(struct plan *plan, char *value)
{
    return parse_flag(value, &plan->settings.final_try);
}

static bool set_keep_objects(struct plan *plan, char *value)
{
    return parse_flag(value, &plan->settings.keep_objects);
}

static bool set_logout(struct plan *plan, char *value)
{
    return parse_flag(value, &plan->settings.logged_out);
}

static bool parse_id(const char *text, unsigned char *ret_id)
{
    char *end = NULL;

    *ret_id = (unsigned char)strtoul(text, &end, 16);
    return strlen(text) == 2 && *end == '\0';
}

static bool set_swap_id(struct plan *plan, char *value)
{
    char *to = value;
    const char *from = strsep(&to, ":");

    plan->settings.swaps = true;
    return to != NULL && parse_id(from, &plan->settings.swap_from) &&
           parse_id(to, &plan->settings.swap_to);
}

static bool set_fail_id(struct plan *plan, char *value)
{
    char *id = value;
    const char *name = strsep(&id, ":");

    return id != NULL && p11_shim_ckr(name, &plan->settings.id_fault) &&
           parse_id(id, &plan->settings.id);
}

static bool set_fail_mech(struct plan *plan, char *value)
{
    char *mech = value;
    const char *name = strsep(&mech, ":");

    return mech != NULL && p11_shim_ckr(name, &plan->settings.mech_fault) &&
           p11_shim_ckm(mech, &plan->settings.mech);
}

static const struct knob {
    const char *key;
    bool (*set)(struct plan *plan, char *value);
} knobs[] = {
    {"latency_us", set_latency},  {"random_latency_us", set_random_latency},
    {"fail", set_fail},           {"fail_once", set_fail_once},
    {"hang", set_hang},           {"until_reinit", set_until_reinit},
    {"no_mech", set_no_mech},     {"own_iv", set_own_iv},
    {"serial", set_serial},       {"logout_sessions", set_logout},
    {"final_try", set_final_try}, {"keep_objects", set_keep_objects},
    {"fail_id", set_fail_id},     {"fail_mech", set_fail_mech},
    {"swap_id", set_swap_id},
};

static bool parse_line(struct plan *plan, char *line)
{
    char *value = line;
    const char *key = NULL;

    line[strcspn(line, "#\r\n")] = '\0';
    for (size_t end = strlen(line); end > 0 && (line[end - 1] == ' ' || line[end - 1] == '\t');) {
        line[--end] = '\0';
    }
    if (*line == '\0') {
        return true;
    }
    key = strsep(&value, "=");
    if (value == NULL) {
        return false;
    }
    for (size_t i = 0; i < sizeof knobs / sizeof knobs[0]; i++) {
        if (strcmp(knobs[i].key, key) == 0) {
            return knobs[i].set(plan, value);
        }
    }
    return false;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void load_locked(const struct stat *id)
{
    char line[MAX_LINE];
    FILE *file = NULL;

    memset(&shim.plan, 0, sizeof shim.plan);
    shim.control_id = *id;
    shim.finalized = false;
    count_locked(ROW_RELOADS);
    if (id->st_ino == 0) {
        return;
    }
    file = fopen(shim.control, "re");
    if (file == NULL) {
        memset(&shim.control_id, 0, sizeof shim.control_id); /* gone since the stat: look again */
        return;
    }
    for (unsigned number = 1; fgets(line, sizeof line, file) != NULL; number++) {
        if (!parse_line(&shim.plan, line)) {
            fprintf(stderr, "p11-shim: %s: line %u makes no sense\n", shim.control, number);
            shim.plan.bad = true;
        }
    }
    (void)fclose(file);
}

static void start(void)
{
    const char *control = getenv("KMSBRIDGE_SHIM_CONTROL");

    shim.control = control != NULL && *control != '\0' ? control : NULL;
    counters_open();
}

/* Which version of the control file is there now; all zero: none. Without the lock. */
static struct stat control_now(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct stat id;

    (void)pthread_once(&once, start);
    if (shim.control == NULL || stat(shim.control, &id) != 0) {
        memset(&id, 0, sizeof id);
    }
    return id;
}

/* `id` may be older than what another thread has loaded meanwhile: a change is looked at again. */
static void refresh_locked(const struct stat *id)
{
    struct stat sure;

    if (same_file(id, &shim.control_id)) {
        return;
    }
    sure = control_now();
    if (!same_file(&sure, &shim.control_id)) {
        load_locked(&sure);
    }
}

/* ---- decisions ------------------------------------------------------------------------------ */

static CK_RV fault_locked(enum p11_shim_function function)
{
    if (function == FN_C_GetFunctionList) {
        return CKR_OK;
    }
    if (shim.plan.bad) {
        return CKR_FUNCTION_REJECTED;
    }
    for (size_t i = 0; i < shim.plan.n_once; i++) {
        struct once *once = &shim.plan.once[i];

        if (once->left > 0 && once->on.has[function]) {
            once->left--;
            return once->rv;
        }
    }
    if (shim.plan.fail[function] != CKR_OK) {
        return shim.plan.fail[function];
    }
    if (shim.plan.settings.logged_out && p11_shim_needs_login(function)) {
        return CKR_USER_NOT_LOGGED_IN;
    }
    return CKR_OK;
}

/* So that one call takes the lock once; benchmarks count on a shim that costs little. */
static _Thread_local struct p11_shim_settings entered;

CK_RV p11_shim_enter(enum p11_shim_function function)
{
    const struct timespec poll = {.tv_nsec = 10 * 1000 * 1000};
    struct stat id = control_now();
    CK_RV rv = CKR_OK;
    unsigned long epoch = 0;
    bool hung = false;

    pthread_mutex_lock(&shim.lock);
    refresh_locked(&id);
    count_locked(function);
    epoch = shim.epoch;
    while (shim.plan.hang.has[function]) {
        hung = true;
        pthread_mutex_unlock(&shim.lock);
        (void)nanosleep(&poll, NULL);
        id = control_now();
        pthread_mutex_lock(&shim.lock);
        refresh_locked(&id);
    }
    if (hung && epoch != shim.epoch && function != FN_C_Initialize) {
        /* The handles of this call belong to a library that is no more. */
        rv = CKR_CRYPTOKI_NOT_INITIALIZED;
    } else {
        rv = fault_locked(function);
    }
    if (rv != CKR_OK) {
        count_locked(ROW_FAULTS);
    }
    entered = shim.plan.settings;
    atomic_store(&shim.hides, shim.plan.n_hidden > 0);
    pthread_mutex_unlock(&shim.lock);
    return rv;
}

const struct p11_shim_settings *p11_shim_settings(void)
{
    return &entered;
}

bool p11_shim_hides(CK_MECHANISM_TYPE mechanism)
{
    bool hides = false;

    if (!atomic_load(&shim.hides)) {
        return false;
    }
    pthread_mutex_lock(&shim.lock);
    for (size_t i = 0; i < shim.plan.n_hidden; i++) {
        hides = hides || shim.plan.hidden[i] == mechanism;
    }
    pthread_mutex_unlock(&shim.lock);
    return hides;
}

bool p11_shim_needs_login(enum p11_shim_function function)
{
    switch (function) {
    case FN_C_EncryptInit:
    case FN_C_Encrypt:
    case FN_C_DecryptInit:
    case FN_C_Decrypt:
    case FN_C_SignInit:
    case FN_C_Sign:
    case FN_C_VerifyInit:
    case FN_C_Verify:
    case FN_C_CreateObject:
    case FN_C_CopyObject:
    case FN_C_DestroyObject:
    case FN_C_GenerateKey:
    case FN_C_GenerateKeyPair:
    case FN_C_WrapKey:
    case FN_C_UnwrapKey:
    case FN_C_DeriveKey:
        return true;
    default:
        return false;
    }
}

void p11_shim_note_finalized(void)
{
    pthread_mutex_lock(&shim.lock);
    shim.epoch++;
    shim.finalized = true;
    pthread_mutex_unlock(&shim.lock);
}

void p11_shim_note_initialized(void)
{
    pthread_mutex_lock(&shim.lock);
    if (shim.plan.until_reinit && shim.finalized) {
        memset(shim.plan.fail, 0, sizeof shim.plan.fail);
        memset(&shim.plan.hang, 0, sizeof shim.plan.hang);
        shim.plan.n_once = 0;
        shim.plan.settings.logged_out = false;
    }
    pthread_mutex_unlock(&shim.lock);
}

void p11_shim_note_login(void)
{
    pthread_mutex_lock(&shim.lock);
    shim.plan.settings.logged_out = false;
    pthread_mutex_unlock(&shim.lock);
}
