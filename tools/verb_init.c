/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init: token, PIN files, configuration and KEK for a first run.
 *
 * A table of steps, each with what undoes it. Until the token is initialised a failure takes
 * everything back; from then on nothing is taken back, because the files hold the PINs of a token
 * that exists: the error then says what is done and how to go on.
 */
#include "tools/verbs.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/p11/init_token.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/secure.h"
#include "tools/context.h"
#include "tools/init_files.h"

#define PIN_ROOM 256u

struct plan {
    bool private_softhsm;
    const char *module, *token, *key, *socket, *monitor;
    char dir[PATH_MAX];
    char conf_path[PATH_MAX + 32], pin_path[PATH_MAX + 32], so_pin_path[PATH_MAX + 32];
    char softhsm_path[PATH_MAX + 32], tokens_path[PATH_MAX + 32];
    char *yaml;
    struct kms_buf user_pin, so_pin; /* secure memory */
    struct kms_p11_init *p11;
    struct kms_p11_slot slot;
    struct kms_key_info made;
    bool dir_made;
};

/* ---- the plan -------------------------------------------------------------------------------- */

/* Where distributions put SoftHSM. */
static const char *const softhsm_places[] = {
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
};

static const char *default_module(void)
{
    size_t i;

    for (i = 0; i < sizeof(softhsm_places) / sizeof(softhsm_places[0]); i++) {
        if (access(softhsm_places[i], R_OK) == 0) {
            return softhsm_places[i];
        }
    }
    return softhsm_places[0];
}

/* Absolute, so that the configuration does not depend on where the daemon starts. */
static enum kms_status plan_paths(struct plan *plan, const char *dir, struct kms_error *err)
{
    const struct {
        char *path;
        const char *name;
    } files[] = {
        {plan->conf_path, "kmsbridge.yaml"}, {plan->pin_path, "pin"},
        {plan->so_pin_path, "so-pin"},       {plan->softhsm_path, "softhsm2.conf"},
        {plan->tokens_path, "tokens"},
    };
    char cwd[PATH_MAX];
    int len;
    size_t i;

    if (dir[0] != '/' && getcwd(cwd, sizeof(cwd)) == NULL) {
        return kms_error_set(err, KMS_E_NOT_FOUND, "getcwd: %s", strerror(errno));
    }
    len = snprintf(plan->dir, sizeof(plan->dir), "%s%s%s", dir[0] == '/' ? "" : cwd,
                   dir[0] == '/' ? "" : "/", dir);
    while (len > 1 && len < PATH_MAX && plan->dir[len - 1] == '/') {
        plan->dir[--len] = '\0';
    }
    if (len <= 0 || len >= PATH_MAX || dir[0] == '\0' || strpbrk(plan->dir, "\n\r") != NULL) {
        return kms_error_set(err, KMS_E_INVALID, "--dir: this is no folder's name");
    }
    for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(files[i].path, PATH_MAX + 32, "%s/%s", plan->dir, files[i].name);
    }
    return KMS_OK;
}

/* Writes the configuration in memory and reads it as the daemon will: wrong options show here. */
static enum kms_status plan_yaml(struct plan *plan, struct kms_error *err)
{
    const struct kms_init_names names = {plan->module, plan->token,  plan->pin_path,
                                         plan->key,    plan->socket, plan->monitor};
    struct kms_conf *conf = NULL;
    enum kms_status status = kms_init_yaml(&names, &plan->yaml, err);

    if (status == KMS_OK) {
        status = kms_conf_read_text(plan->conf_path, plan->yaml, strlen(plan->yaml), &conf, err);
    }
    kms_conf_done(conf);
    return status;
}

static enum kms_exit make_plan(const struct kms_options *options, struct plan *plan,
                               struct kms_failure *failure)
{
    plan->private_softhsm = kms_option_given(options, KMS_OPT_PRIVATE_SOFTHSM);
    plan->module = kms_option_or(options, KMS_OPT_MODULE, default_module());
    plan->token = kms_option_or(options, KMS_OPT_TOKEN, "kmsbridge");
    plan->key = kms_option_or(options, KMS_OPT_KEY, "kmsbridge-kek");
    plan->socket = kms_option_or(options, KMS_OPT_SOCKET, "/run/kmsbridge/kms.sock");
    plan->monitor = options->value[KMS_OPT_MONITOR];
    plan->user_pin = kms_buf_over(kms_secure_new(PIN_ROOM), PIN_ROOM);
    plan->so_pin = kms_buf_over(kms_secure_new(PIN_ROOM), PIN_ROOM);
    if (plan->user_pin.data == NULL || plan->so_pin.data == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_NOMEM, "no memory");
        return KMS_EXIT_FAILED;
    }
    if (plan->private_softhsm && strstr(plan->module, "softhsm") == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID,
                            "--private-softhsm: the module %s is not SoftHSM", plan->module);
        return kms_fail(failure, KMS_EXIT_USAGE, "leave it out, or leave --module out");
    }
    if (plan_paths(plan, kms_option_or(options, KMS_OPT_DIR, "/etc/kmsbridge"), &failure->error) !=
            KMS_OK ||
        plan_yaml(plan, &failure->error) != KMS_OK) {
        return kms_fail(failure, KMS_EXIT_USAGE, "correct the option; nothing was changed");
    }
    return KMS_EXIT_OK;
}

/* Refuses while anything that would be written is there, before anything is done. */
static enum kms_exit refuse_existing(const struct plan *plan, struct kms_failure *failure)
{
    const char *const paths[] = {plan->conf_path, plan->pin_path, plan->so_pin_path,
                                 plan->softhsm_path, plan->tokens_path};
    size_t count = plan->private_softhsm ? 5 : 3;
    struct stat info;
    size_t i;

    for (i = 0; i < count; i++) {
        if (lstat(paths[i], &info) == 0) {
            (void)kms_error_set(&failure->error, KMS_E_EXISTS, "%s exists already", paths[i]);
            return kms_fail(failure, KMS_EXIT_EXISTS,
                            "nothing was changed: init never overwrites. Give another --dir, or go "
                            "on with what is there: kmsbridgectl config check, keys list, keys "
                            "create");
        }
    }
    return KMS_EXIT_OK;
}

/* ---- the steps ------------------------------------------------------------------------------- */

/* The folders above @dir, as mkdir -p does; what fails here shows when @dir is made. */
static void make_parents(const char *dir)
{
    char *path = strdup(dir);

    for (char *slash = path != NULL ? strchr(path + 1, '/') : NULL; slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0755);
        *slash = '/';
    }
    free(path);
}

static enum kms_status make_dir(struct plan *plan, struct kms_error *err)
{
    make_parents(plan->dir);
    if (mkdir(plan->dir, 0750) == 0) {
        plan->dir_made = true;
        return KMS_OK;
    }
    return errno == EEXIST
               ? KMS_OK
               : kms_error_set(err, errno == EACCES ? KMS_E_DENIED : KMS_E_UNAVAILABLE,
                               "cannot make the folder %s: %s", plan->dir, strerror(errno));
}

static void undo_dir(struct plan *plan)
{
    if (plan->dir_made) {
        (void)rmdir(plan->dir);
    }
}

static enum kms_status make_tokens(struct plan *plan, struct kms_error *err)
{
    char *text = NULL;
    enum kms_status status;

    if (!plan->private_softhsm) {
        return KMS_OK;
    }
    if (mkdir(plan->tokens_path, 0700) != 0) {
        return kms_error_set(err, errno == EACCES ? KMS_E_DENIED : KMS_E_UNAVAILABLE,
                             "cannot make the folder %s: %s", plan->tokens_path, strerror(errno));
    }
    status = kms_init_softhsm_conf(plan->tokens_path, &text, err);
    if (status == KMS_OK) {
        status = kms_file_create(plan->softhsm_path, 0640, text, strlen(text), err);
    }
    if (status == KMS_OK && setenv("SOFTHSM2_CONF", plan->softhsm_path, 1) != 0) {
        (void)unlink(plan->softhsm_path);
        status = kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    if (status != KMS_OK) {
        (void)rmdir(plan->tokens_path);
    }
    free(text);
    return status;
}

static void undo_tokens(struct plan *plan)
{
    if (plan->private_softhsm) {
        (void)unlink(plan->softhsm_path);
        (void)rmdir(plan->tokens_path);
    }
}

static enum kms_status find_slot(struct plan *plan, struct kms_error *err)
{
    enum kms_status status = kms_p11_init_open(plan->module, &plan->p11, err);

    if (status == KMS_OK) {
        status = kms_p11_init_find(plan->p11, plan->token, &plan->slot, err);
    }
    if (status == KMS_OK) {
        status = kms_init_pin(plan->slot.pin_min, plan->slot.pin_max, &plan->so_pin, err);
    }
    if (status == KMS_OK) {
        status = kms_init_pin(plan->slot.pin_min, plan->slot.pin_max, &plan->user_pin, err);
    }
    return status;
}

static enum kms_status write_pins(struct plan *plan, struct kms_error *err)
{
    enum kms_status status = kms_file_create(
        plan->so_pin_path, 0600, (const char *)plan->so_pin.data, plan->so_pin.len, err);

    if (status != KMS_OK) {
        return status;
    }
    status = kms_file_create(plan->pin_path, 0600, (const char *)plan->user_pin.data,
                             plan->user_pin.len, err);
    if (status != KMS_OK) {
        (void)unlink(plan->so_pin_path);
    }
    return status;
}

static void undo_pins(struct plan *plan)
{
    (void)unlink(plan->pin_path);
    (void)unlink(plan->so_pin_path);
}

static enum kms_status init_token(struct plan *plan, struct kms_error *err)
{
    return kms_p11_init_token(plan->p11, &plan->slot, plan->token, kms_buf_span(&plan->so_pin),
                              err);
}

/* The module may have said no after it had done it; then the PIN files must stay. */
static bool token_is_there(struct plan *plan)
{
    struct kms_p11_slot slot;

    return kms_p11_init_find(plan->p11, plan->token, &slot, NULL) == KMS_E_EXISTS;
}

static enum kms_status init_pin(struct plan *plan, struct kms_error *err)
{
    enum kms_status status = kms_p11_init_pin(plan->p11, &plan->slot, kms_buf_span(&plan->so_pin),
                                              kms_buf_span(&plan->user_pin), err);

    kms_p11_init_close(plan->p11); /* from here on the module is the waist's */
    plan->p11 = NULL;
    return status;
}

static enum kms_status write_conf(struct plan *plan, struct kms_error *err)
{
    return kms_file_create(plan->conf_path, 0640, plan->yaml, strlen(plan->yaml), err);
}

static enum kms_status make_key(struct plan *plan, struct kms_error *err)
{
    const struct kms_key_template tmpl = {.type = KMS_KEY_AES, .bits = 256, .label = plan->key};
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_HSM_CALL_S * KMS_NS_PER_S)};
    struct kms_conf *conf = NULL;
    struct kms_waist *waist = NULL;
    enum kms_status status = kms_conf_read(plan->conf_path, &conf, err);

    if (status != KMS_OK) {
        return status;
    }
    status = kms_waist_open(kms_conf_backend(conf, conf->kms.backend), NULL, NULL, &waist, err);
    if (status == KMS_OK) {
        status = kms_waist_generate(waist, &call, &tmpl, &plan->made);
        if (status != KMS_OK) {
            *err = call.error;
        }
    }
    kms_waist_close(waist);
    kms_conf_done(conf);
    return status;
}

static const struct step {
    enum kms_status (*run)(struct plan *plan, struct kms_error *err);
    void (*undo)(struct plan *plan); /* NULL: nothing to take back, or not to be taken back */
    const char *done;                /* for "done so far"; NULL: not worth a word */
    const char *go_on;               /* how to finish when this step is the one that failed */
} steps[] = {
    {make_dir, undo_dir, NULL, NULL},
    {make_tokens, undo_tokens, NULL, NULL},
    {find_slot, NULL, NULL, NULL},
    {write_pins, undo_pins, "the PIN files", NULL},
    {init_token, NULL, "the token",
     "the token exists and so-pin holds its security officer's PIN: set the user PIN with the "
     "HSM's own tool, or delete the token and the files and run init again"},
    {init_pin, NULL, "its user PIN",
     "set the user PIN with the HSM's own tool (so-pin holds the security officer's), or delete "
     "the token and the files and run init again"},
    {write_conf, NULL, "the configuration",
     "write kmsbridge.yaml by hand as kmsbridge.yaml(5) shows, then run kmsbridgectl keys create"},
    {make_key, NULL, NULL, "correct the cause and run kmsbridgectl keys create with --config"},
};
#define STEP_COUNT (sizeof(steps) / sizeof(steps[0]))
#define STEP_TOKEN 4u /* from here on nothing is taken back */

/* ---- failing --------------------------------------------------------------------------------- */

static void undo(struct plan *plan, size_t failed)
{
    while (failed-- > 0) {
        if (steps[failed].undo != NULL) {
            steps[failed].undo(plan);
        }
    }
}

/* What stood in the way, where nothing is changed. */
static const struct advice_row {
    enum kms_status status;
    const char *next;
} advice_rows[] = {
    {KMS_E_EXISTS, "nothing was changed: give another --token, or use the token that is there"},
    {KMS_E_NOT_FOUND, "nothing was changed: see --module, and that the HSM has a free slot"},
    {KMS_E_DENIED, "nothing was changed: run as the daemon's user or as root, or give another "
                   "--dir"},
    {KMS_E_UNAVAILABLE, "nothing was changed: see that the module works for this user; "
                        "--private-softhsm keeps SoftHSM's tokens in DIR"},
};

static enum kms_exit step_failed(struct plan *plan, size_t failed, struct kms_failure *failure)
{
    enum kms_exit code = kms_exit_of(failure->error.status);
    char done[128] = "";
    size_t i, len = 0;

    if (failed < STEP_TOKEN || (failed == STEP_TOKEN && !token_is_there(plan))) {
        undo(plan, failed);
        for (i = 0; i < sizeof(advice_rows) / sizeof(advice_rows[0]); i++) {
            if (advice_rows[i].status == failure->error.status) {
                return kms_fail(failure, code, "%s", advice_rows[i].next);
            }
        }
        return kms_fail(failure, code, "nothing was changed");
    }
    for (i = 0; i < failed && len < sizeof(done); i++) {
        if (steps[i].done != NULL) {
            len += (size_t)snprintf(done + len, sizeof(done) - len, "%s%s", len > 0 ? ", " : "",
                                    steps[i].done);
        }
    }
    return kms_fail(failure, KMS_EXIT_FAILED, "done so far in %.160s: %s. To go on: %s", plan->dir,
                    done, steps[failed].go_on);
}

static enum kms_exit run_steps(struct plan *plan, struct kms_failure *failure)
{
    size_t i;

    for (i = 0; i < STEP_COUNT; i++) {
        if (steps[i].run(plan, &failure->error) != KMS_OK) {
            return step_failed(plan, i, failure);
        }
    }
    return KMS_EXIT_OK;
}

/* ---- the verb -------------------------------------------------------------------------------- */

static enum kms_status print_made(const struct kms_options *options, const struct plan *plan,
                                  struct kms_error *err)
{
    static const struct kms_column columns[] = {
        {"config", "configuration", KMS_CELL_TEXT},
        {"token", "token", KMS_CELL_TEXT},
        {"pin", "PIN file", KMS_CELL_TEXT},
        {"so_pin", "SO PIN file", KMS_CELL_TEXT},
        {"key", "KEK label", KMS_CELL_TEXT},
        {"key_id", "key_id", KMS_CELL_TEXT},
        {"socket", "socket", KMS_CELL_TEXT},
        {"softhsm2_conf", "SOFTHSM2_CONF", KMS_CELL_TEXT},
    };
    const char *cells[] = {plan->conf_path, plan->token,
                           plan->pin_path,  plan->so_pin_path,
                           plan->key,       plan->made.id,
                           plan->socket,    plan->private_softhsm ? plan->softhsm_path : ""};
    bool json = kms_option_given(options, KMS_OPT_JSON);
    enum kms_status status =
        kms_output_record(stdout, json, columns, cells, sizeof(cells) / sizeof(cells[0]), err);

    if (status != KMS_OK || json) {
        return status;
    }
    printf("\nNext:\n");
    if (plan->private_softhsm) {
        printf("  export SOFTHSM2_CONF=%s\n", plan->softhsm_path);
    }
    printf("  kmsbridged --check --config %s\n"
           "  kmsbridged --config %s\n"
           "  kmsbridgectl encryption-config --config %s\n"
           "Keep %s somewhere else: the daemon does not need it.\n",
           plan->conf_path, plan->conf_path, plan->conf_path, plan->so_pin_path);
    return KMS_OK;
}

/* An interrupt between two steps would leave things half done. */
static void block_signals(sigset_t *ret_before)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &set, ret_before);
}

enum kms_exit kms_verb_init(const struct kms_options *options, struct kms_failure *failure)
{
    static struct plan plan; /* too large for a stack; the verb runs once */
    sigset_t before;
    enum kms_exit code = make_plan(options, &plan, failure);

    if (code == KMS_EXIT_OK) {
        code = refuse_existing(&plan, failure);
    }
    if (code == KMS_EXIT_OK) {
        block_signals(&before);
        code = run_steps(&plan, failure);
        (void)sigprocmask(SIG_SETMASK, &before, NULL);
    }
    if (code == KMS_EXIT_OK && print_made(options, &plan, &failure->error) != KMS_OK) {
        code = kms_fail(failure, KMS_EXIT_FAILED, "everything is made all the same");
    }
    kms_p11_init_close(plan.p11);
    kms_secure_free(plan.user_pin.data);
    kms_secure_free(plan.so_pin.data);
    free(plan.yaml);
    return code;
}
