/* SPDX-License-Identifier: Apache-2.0 */
/* kms status, encrypt, decrypt: kube-apiserver's part, by hand. */
#include "tools/verbs.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/clock.h"
#include "common/codec.h"
#include "common/secure.h"
#include "tools/context.h"
#include "tools/files.h"

#define RECORD_MAX     ((size_t)2 * KMS_V2_MESSAGE_MAX) /* base64 and member names of a message */
#define HASH_TEXT_SIZE 72                               /* "sha256:", 64 digits, NUL */

/* A call was answered with an error: what to do, by what the server said. */
static const struct advice_row {
    enum kms_status status;
    const char *next;
} advice_rows[] = {
    {KMS_E_INVALID, "the daemon refuses what it was given; its log has the reason under the uid"},
    {KMS_E_NOT_FOUND, "the key service has no such key (any more): see the daemon's log; "
                      "kmsbridgectl keys list shows which it has"},
    {KMS_E_TIMEOUT,
     "the key service may be slow or away: see the daemon's log, or give --timeout more"},
    {KMS_E_UNAVAILABLE, "the key service may be away: see the daemon's log"},
    {KMS_E_BUSY, "the daemon is at one of its limits: try again"},
    {KMS_E_KEY_STATE, "see the daemon's log; kmsbridgectl keys list shows the keys"},
    {KMS_E_UNSUPPORTED, "what listens there is no KMS v2 plugin: see --socket"},
};

static enum kms_exit call_failed(struct kms_failure *failure)
{
    const char *next = "see the daemon's log";
    size_t i;

    for (i = 0; i < sizeof(advice_rows) / sizeof(advice_rows[0]); i++) {
        if (advice_rows[i].status == failure->error.status) {
            next = advice_rows[i].next;
        }
    }
    return kms_fail(failure, kms_exit_of(failure->error.status), "%s", next);
}

/* What every verb here begins with. */
static enum kms_exit begin(const struct kms_options *options, uint64_t *ret_timeout_ns,
                           struct kms_v2_client **ret_client, struct kms_failure *failure)
{
    enum kms_exit code = kms_context_timeout(options, ret_timeout_ns, failure);

    return code == KMS_EXIT_OK ? kms_context_client(options, *ret_timeout_ns, ret_client, failure)
                               : code;
}

/* ---- kms status ------------------------------------------------------------------------------ */

/* As kube-apiserver's metrics name a key_id: "sha256:" and the hex of its SHA-256. */
static void hash_key_id(const char *key_id, char ret_text[HASH_TEXT_SIZE])
{
    uint8_t digest[32];
    size_t len = sizeof(digest);

    strcpy(ret_text, "sha256:");
    if (EVP_Q_digest(NULL, "SHA256", NULL, key_id, strlen(key_id), digest, &len) != 1 ||
        kms_hex_encode(kms_span_of(digest, len), ret_text + 7, HASH_TEXT_SIZE - 7) != KMS_OK) {
        ret_text[0] = '\0';
    }
}

static enum kms_status print_status(const struct kms_options *options,
                                    const struct kms_v2_status *status, uint64_t took_ns,
                                    struct kms_error *err)
{
    static const struct kms_column columns[] = {
        {"version", "version", KMS_CELL_TEXT},
        {"healthz", "healthz", KMS_CELL_TEXT},
        {"key_id", "key_id", KMS_CELL_TEXT},
        {"key_id_hash", "key_id hash", KMS_CELL_TEXT},
        {"latency_us", "latency (us)", KMS_CELL_NUMBER},
    };
    char hash[HASH_TEXT_SIZE];
    char took[24];
    const char *cells[] = {status->version, status->healthz, status->key_id, hash, took};

    hash_key_id(status->key_id, hash);
    snprintf(took, sizeof(took), "%llu", (unsigned long long)(took_ns / KMS_NS_PER_US));
    return kms_output_record(stdout, kms_option_given(options, KMS_OPT_JSON), columns, cells,
                             sizeof(cells) / sizeof(cells[0]), err);
}

enum kms_exit kms_verb_kms_status(const struct kms_options *options, struct kms_failure *failure)
{
    struct kms_v2_client *client = NULL;
    struct kms_v2_status status;
    uint64_t timeout_ns = 0, start;
    enum kms_exit code = begin(options, &timeout_ns, &client, failure);

    if (code != KMS_EXIT_OK) {
        return code;
    }
    start = kms_now_ns();
    if (kms_v2_client_status(client, kms_deadline_in(timeout_ns), &status, &failure->error) !=
        KMS_OK) {
        code = call_failed(failure);
    } else if (print_status(options, &status, kms_now_ns() - start, &failure->error) != KMS_OK) {
        code = KMS_EXIT_FAILED;
    } else if (strcmp(status.healthz, "ok") != 0) {
        (void)kms_error_set(&failure->error, KMS_E_UNAVAILABLE,
                            "the daemon answers and calls itself unhealthy: %.256s",
                            status.healthz);
        code = kms_fail(failure, KMS_EXIT_FAILED, "see the daemon's log");
    }
    kms_v2_client_close(client);
    return code;
}

/* ---- kms encrypt ----------------------------------------------------------------------------- */

static enum kms_status write_sealed(const struct kms_options *options,
                                    const struct kms_v2_sealed *sealed, struct kms_error *err)
{
    char *text = NULL;
    enum kms_status status =
        kms_output_sealed(kms_option_given(options, KMS_OPT_JSON), sealed, &text, err);

    if (status == KMS_OK) {
        status = kms_write_output(options->value[KMS_OPT_OUT], kms_span_str(text), err);
    }
    free(text);
    return status;
}

static enum kms_status encrypt(const struct kms_options *options, struct kms_v2_client *client,
                               uint64_t timeout_ns, struct kms_span plaintext,
                               struct kms_failure *failure)
{
    struct kms_v2_sealed sealed = {0};
    char uid[KMS_V2_UID_SIZE];
    enum kms_status status = kms_v2_uid_make(uid, &failure->error);

    if (status == KMS_OK) {
        status = kms_v2_client_encrypt(client, kms_deadline_in(timeout_ns), uid, plaintext, &sealed,
                                       &failure->error);
    }
    if (status != KMS_OK) {
        (void)call_failed(failure);
        return status;
    }
    status = write_sealed(options, &sealed, &failure->error);
    kms_v2_sealed_done(&sealed);
    return status;
}

/* Reading or writing failed: exit code and advice. */
static enum kms_exit file_failed(const struct kms_options *options, struct kms_failure *failure)
{
    if (failure->error.status == KMS_E_EXISTS) {
        return kms_fail(failure, KMS_EXIT_EXISTS, "nothing is overwritten: name another --out");
    }
    return kms_fail(failure, kms_exit_of(failure->error.status), "see --in and --out of %s",
                    options->verb);
}

enum kms_exit kms_verb_kms_encrypt(const struct kms_options *options, struct kms_failure *failure)
{
    struct kms_buf plaintext = kms_buf_over(kms_secure_new(KMS_V2_MESSAGE_MAX), KMS_V2_MESSAGE_MAX);
    struct kms_v2_client *client = NULL;
    uint64_t timeout_ns = 0;
    enum kms_exit code = KMS_EXIT_OK;

    if (plaintext.data == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_NOMEM, "no memory");
        return KMS_EXIT_FAILED;
    }
    if (kms_read_input(options->value[KMS_OPT_IN], &plaintext, &failure->error) != KMS_OK) {
        code = file_failed(options, failure);
        goto out;
    }
    code = begin(options, &timeout_ns, &client, failure);
    if (code == KMS_EXIT_OK &&
        encrypt(options, client, timeout_ns, kms_buf_span(&plaintext), failure) != KMS_OK) {
        code = file_failed(options, failure);
    }
out:
    kms_v2_client_close(client);
    kms_secure_free(plaintext.data);
    return code;
}

/* ---- kms decrypt ----------------------------------------------------------------------------- */

static enum kms_status write_plaintext(const struct kms_options *options, struct kms_span plaintext,
                                       struct kms_error *err)
{
    const char *path = options->value[KMS_OPT_OUT];
    size_t cap = plaintext.len * 2 + 64; /* base64 and the braces */
    struct kms_buf text;
    enum kms_status status;

    if (!kms_option_given(options, KMS_OPT_JSON)) {
        return kms_write_output(path, plaintext, err);
    }
    text = kms_buf_over(kms_secure_new(cap), cap);
    if (text.data == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    status = kms_output_plaintext_json(plaintext, &text);
    if (status == KMS_OK) {
        status = kms_write_output(path, kms_buf_span(&text), err);
    }
    kms_secure_free(text.data);
    return status;
}

static enum kms_status decrypt(const struct kms_options *options, struct kms_v2_client *client,
                               uint64_t timeout_ns, const struct kms_v2_sealed *sealed,
                               struct kms_failure *failure)
{
    struct kms_buf plaintext = kms_buf_over(kms_secure_new(KMS_V2_MESSAGE_MAX), KMS_V2_MESSAGE_MAX);
    char uid[KMS_V2_UID_SIZE];
    enum kms_status status;

    if (plaintext.data == NULL) {
        return kms_error_set(&failure->error, KMS_E_NOMEM, "no memory");
    }
    status = kms_v2_uid_make(uid, &failure->error);
    if (status == KMS_OK) {
        status = kms_v2_client_decrypt(client, kms_deadline_in(timeout_ns), uid, sealed, &plaintext,
                                       &failure->error);
    }
    if (status != KMS_OK) {
        (void)call_failed(failure);
    } else {
        status = write_plaintext(options, kms_buf_span(&plaintext), &failure->error);
    }
    kms_secure_free(plaintext.data);
    return status;
}

static enum kms_exit read_sealed(const struct kms_options *options,
                                 struct kms_v2_sealed *ret_sealed, struct kms_failure *failure)
{
    struct kms_buf text = kms_buf_over(kms_secure_new(RECORD_MAX), RECORD_MAX);
    enum kms_exit code = KMS_EXIT_OK;

    if (text.data == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_NOMEM, "no memory");
        return KMS_EXIT_FAILED;
    }
    if (kms_read_input(options->value[KMS_OPT_IN], &text, &failure->error) != KMS_OK) {
        code = file_failed(options, failure);
    } else if (kms_input_sealed(kms_buf_span(&text), ret_sealed, &failure->error) != KMS_OK) {
        code = kms_fail(failure, KMS_EXIT_FAILED, "give it what kmsbridgectl kms encrypt wrote");
    }
    kms_secure_free(text.data);
    return code;
}

enum kms_exit kms_verb_kms_decrypt(const struct kms_options *options, struct kms_failure *failure)
{
    struct kms_v2_client *client = NULL;
    struct kms_v2_sealed sealed = {0};
    uint64_t timeout_ns = 0;
    enum kms_exit code = read_sealed(options, &sealed, failure);

    if (code != KMS_EXIT_OK) {
        return code;
    }
    code = begin(options, &timeout_ns, &client, failure);
    if (code == KMS_EXIT_OK && decrypt(options, client, timeout_ns, &sealed, failure) != KMS_OK) {
        code = file_failed(options, failure);
    }
    kms_v2_client_close(client);
    kms_v2_sealed_done(&sealed);
    return code;
}
