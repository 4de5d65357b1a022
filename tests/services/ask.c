/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A waist that a shell can talk to. `ask FILE` opens the backend that FILE describes (one entry of
 * `backends:`), reads commands from standard input, and answers each with one line that begins with
 * "ok" or the class of the error:
 *
 *   list [LABEL]     ok COUNT, then LABEL/VERSION=ID for each, with * on the latest and + on what
 * can encrypt seal LABEL       encrypts 32 bytes under the latest version: ok ID open decrypts what
 * was sealed last: ok ID make LABEL TYPE [BITS], destroy LABEL forget           the keys that were
 * looked up sign LABEL       a digest, by ECDSA: ok health           ok ready=0|1 reconnects=N, and
 * why not deadline MS      of the commands that follow storm N LABEL    N calls of seal from 8
 * threads: ok DONE, or the last error and how many did
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend_conf_schema.h"
#include "backend/waist.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"

#define MANY 8

static const cyaml_schema_value_t entry_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct kms_backend_conf, kms_backend_conf_fields),
};

struct sealed {
    uint8_t plain[32];
    uint8_t iv[KMS_IV_MAX];
    uint8_t ciphertext[2048];
    struct kms_sealed sealed;
};

static struct kms_waist *waist;
static struct sealed last;
static uint64_t deadline_ns = 3 * KMS_NS_PER_S;

static struct kms_call new_call(void)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(deadline_ns)};
}

static void answer(enum kms_status status, const struct kms_call *call, const char *ok)
{
    if (status == KMS_OK) {
        printf("ok %s\n", ok);
    } else {
        printf("%s %s\n", kms_status_name(status), call->error.text);
    }
}

/* ---- keys --------------------------------------------------------------------------------- */

struct found {
    struct kms_key_info info;
    unsigned count;
    char text[8192];
};

static bool note(void *ctx, const struct kms_key_info *info)
{
    struct found *found = ctx;
    size_t len = strlen(found->text);

    found->count++;
    (void)snprintf(found->text + len, sizeof(found->text) - len, " %s/%s=%s%s%s", info->label,
                   info->version, info->id, info->latest ? "*" : "",
                   (info->uses & KMS_USE_ENCRYPT) != 0 ? "+" : "");
    if (found->count == 1 || kms_key_age_compare(&found->info, info) < 0) {
        found->info = *info;
    }
    return true;
}

static enum kms_status find(struct kms_call *call, const char *label, struct found *found)
{
    const struct kms_key_filter filter = {.label = label};
    enum kms_status status = KMS_OK;

    memset(found, 0, sizeof(*found));
    status = kms_waist_list_keys(waist, call, &filter, note, found);
    if (status == KMS_OK && label != NULL && found->count == 0) {
        status = kms_error_set(&call->error, KMS_E_NOT_FOUND, "no key is named %s", label);
    }
    return status;
}

static void do_list(char **words)
{
    struct kms_call call = new_call();
    struct found found;
    enum kms_status status = find(&call, words[1], &found);
    char text[sizeof(found.text) + 16];

    (void)snprintf(text, sizeof(text), "%u%s", found.count, found.text);
    answer(status, &call, text);
}

static void do_make(char **words)
{
    static const struct {
        const char *word;
        enum kms_key_type type;
    } types[] = {{"aes", KMS_KEY_AES}, {"ec", KMS_KEY_EC}, {"rsa", KMS_KEY_RSA}};
    struct kms_key_template tmpl = {.label = words[1]};
    struct kms_call call = new_call();
    struct kms_key_info info = {.id = ""};

    for (size_t i = 0; words[2] != NULL && i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].word, words[2]) == 0) {
            tmpl.type = types[i].type;
        }
    }
    tmpl.bits = words[2] != NULL && words[3] != NULL ? (unsigned)strtoul(words[3], NULL, 10) : 0;
    answer(kms_waist_generate(waist, &call, &tmpl, &info), &call, info.id);
}

static void do_destroy(char **words)
{
    struct kms_call call = new_call();
    struct found found;
    enum kms_status status = find(&call, words[1], &found);

    answer(status == KMS_OK ? kms_waist_destroy(waist, &call, found.info.ref) : status, &call, "");
}

/* ---- use ---------------------------------------------------------------------------------- */

static enum kms_status seal(struct kms_call *call, const char *ref, struct sealed *ret)
{
    const struct kms_params params = {.alg = KMS_ALG_BEST, .aad = kms_span_str("the aad")};

    ret->sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(ret->iv),
                                      .ciphertext = KMS_BUF_OVER(ret->ciphertext)};
    if (kms_random(ret->plain, sizeof(ret->plain)) != KMS_OK) {
        return KMS_E_INTERNAL;
    }
    return kms_waist_encrypt(waist, call, ref, &params, kms_span_of(ret->plain, sizeof(ret->plain)),
                             &ret->sealed);
}

/* The key is looked up once for a label, as a front does. */
static char known_label[KMS_LABEL_MAX];
static char known_ref[KMS_KEY_REF_MAX];

static enum kms_status ref_of(struct kms_call *call, const char *label)
{
    struct found found;
    enum kms_status status = KMS_OK;

    if (strcmp(known_label, label) != 0) {
        status = find(call, label, &found);
        if (status == KMS_OK) {
            (void)snprintf(known_label, sizeof(known_label), "%s", label);
            (void)snprintf(known_ref, sizeof(known_ref), "%s", found.info.ref);
        }
    }
    return status;
}

static void do_seal(char **words)
{
    static struct sealed fresh;
    struct kms_call call = new_call();
    enum kms_status status = ref_of(&call, words[1]);

    if (status == KMS_OK) {
        status = seal(&call, known_ref, &fresh);
    }
    if (status == KMS_OK) { /* what could not be sealed leaves the last one that could */
        last = fresh;
        last.sealed.iv.data = last.iv;
        last.sealed.ciphertext.data = last.ciphertext;
    }
    answer(status, &call, last.sealed.key_id);
}

static void do_forget(char **words)
{
    (void)words;
    known_label[0] = '\0';
    printf("ok\n");
}

static void do_open(char **words)
{
    const struct kms_params params = {.alg = last.sealed.alg,
                                      .aad = kms_span_str("the aad"),
                                      .iv = kms_buf_span(&last.sealed.iv)};
    struct kms_call call = new_call();
    uint8_t plain[2048];
    struct kms_buf out = KMS_BUF_OVER(plain);
    enum kms_status status = kms_waist_decrypt(waist, &call, last.sealed.key_id, &params,
                                               kms_buf_span(&last.sealed.ciphertext), &out);

    (void)words;
    if (status == KMS_OK &&
        (out.len != sizeof(last.plain) || memcmp(plain, last.plain, sizeof(last.plain)) != 0)) {
        printf("wrong plaintext\n");
        return;
    }
    answer(status, &call, last.sealed.key_id);
}

static void do_sign(char **words)
{
    static const uint8_t digest[32] = {1, 2, 3};
    const struct kms_params params = {.alg = KMS_ALG_ECDSA};
    uint8_t signature[KMS_SIGNATURE_MAX];
    struct kms_buf out = KMS_BUF_OVER(signature);
    struct kms_call call = new_call();
    enum kms_status status = ref_of(&call, words[1]);

    answer(status == KMS_OK ? kms_waist_sign(waist, &call, known_ref, &params,
                                             kms_span_of(digest, sizeof(digest)), &out)
                            : status,
           &call, "signed");
}

struct worker {
    pthread_t thread;
    unsigned count;
    unsigned done;
    enum kms_status status;
    char text[KMS_ERROR_TEXT_MAX];
};

static void *work(void *ctx)
{
    struct worker *worker = ctx;
    struct sealed mine;

    for (unsigned i = 0; i < worker->count; i++) {
        struct kms_call call = new_call();
        enum kms_status status = seal(&call, known_ref, &mine);

        worker->done += status == KMS_OK ? 1u : 0u;
        if (status != KMS_OK) {
            worker->status = status;
            (void)snprintf(worker->text, sizeof(worker->text), "%s", call.error.text);
        }
    }
    return NULL;
}

static void do_storm(char **words)
{
    struct worker workers[MANY];
    unsigned count = (unsigned)strtoul(words[1], NULL, 10) / MANY;
    unsigned done = 0;
    const struct worker *bad = NULL;
    struct kms_call call = new_call();
    enum kms_status status = words[2] == NULL ? KMS_E_INVALID : ref_of(&call, words[2]);

    if (status != KMS_OK) {
        answer(status, &call, "");
        return;
    }
    for (size_t i = 0; i < MANY; i++) {
        workers[i] = (struct worker){.count = count};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            exit(EXIT_FAILURE);
        }
    }
    for (size_t i = 0; i < MANY; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        done += workers[i].done;
        bad = workers[i].status != KMS_OK ? &workers[i] : bad;
    }
    printf("%s %u %s\n", bad == NULL ? "ok" : kms_status_name(bad->status), done,
           bad == NULL ? "" : bad->text);
}

static void do_health(char **words)
{
    struct kms_health health;

    (void)words;
    kms_waist_health(waist, &health);
    printf("ok ready=%d reconnects=%" PRIu64 " connections=%u %s\n", health.ready ? 1 : 0,
           health.reconnects, health.sessions_open, health.error.text);
}

static void do_deadline(char **words)
{
    deadline_ns = strtoull(words[1] == NULL ? "3000" : words[1], NULL, 10) * KMS_NS_PER_MS;
    printf("ok\n");
}

/* ---- the conversation --------------------------------------------------------------------- */

static const struct command {
    const char *name;
    unsigned words; /* that it needs, itself included */
    void (*run)(char **words);
} commands[] = {
    {"list", 1, do_list},     {"make", 3, do_make},     {"destroy", 2, do_destroy},
    {"seal", 2, do_seal},     {"open", 1, do_open},     {"sign", 2, do_sign},
    {"storm", 3, do_storm},   {"health", 1, do_health}, {"deadline", 2, do_deadline},
    {"forget", 1, do_forget},
};

static void run_line(char *line)
{
    char *words[8] = {NULL};
    char *rest = NULL;
    unsigned count = 0;

    for (char *word = strtok_r(line, " \n", &rest); word != NULL && count < 7;
         word = strtok_r(NULL, " \n", &rest)) {
        words[count++] = word;
    }
    for (size_t i = 0; count > 0 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, words[0]) == 0 && count >= commands[i].words) {
            commands[i].run(words);
            return;
        }
    }
    printf("no such command\n");
}

int main(int argc, char **argv)
{
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_conf_text text = {.name = argc > 1 ? argv[1] : "", .content = ""};
    struct kms_backend_conf *conf = NULL;
    void *data = NULL;
    char line[512];

    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 2 || kms_secure_init() != KMS_OK) {
        fprintf(stderr, "usage: ask FILE\n");
        return EXIT_FAILURE;
    }
    if (getenv("KMS_TEST_DEBUG") != NULL) {
        kms_log_setup(2, KMS_LOG_DEBUG, KMS_LOG_TEXT);
    }
    if (kms_conf_load(argv[1], &entry_value, &data, &err) != KMS_OK) {
        printf("invalid %s\n", err.text);
        return EXIT_FAILURE;
    }
    conf = data;
    if (kms_backend_conf_check(conf, &text, "backend", &err) != KMS_OK ||
        kms_waist_open(conf, NULL, NULL, &waist, &err) != KMS_OK) {
        printf("%s %s\n", kms_status_name(err.status), err.text);
        kms_conf_free(&entry_value, data);
        return EXIT_FAILURE;
    }
    printf("ok opened\n");
    while (fgets(line, sizeof(line), stdin) != NULL) {
        run_line(line);
    }
    kms_waist_close(waist);
    kms_conf_free(&entry_value, data);
    return EXIT_SUCCESS;
}
