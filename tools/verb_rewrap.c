/* SPDX-License-Identifier: Apache-2.0 */
/* keys rewrap: what CKM_KMSBRIDGE_SEALED made, under the newest version of its key. */
#include "tools/verbs.h"

#include <string.h>

#include "common/clock.h"
#include "common/sealed_frame.h"
#include "common/secure.h"
#include "tools/context.h"
#include "tools/files.h"

#define BLOB_MAX (KMS_CIPHERTEXT_MAX + KMS_FRAME_HEADER + KMS_FRAME_KEY_ID_MAX + KMS_FRAME_IV_MAX)

/* One blob, framed or the service's own. */
struct blob {
    bool framed;
    struct kms_sealed_frame frame; /* framed: borrows; else ->ciphertext alone counts */
};

/* ---- its key -------------------------------------------------------------------------------- */

struct looking {
    const struct blob *blob;
    struct kms_key_info info;
    bool found;
};

/* The very key that a frame names; else the newest of those that seal by blobs of their own. */
static bool look(void *ctx, const struct kms_key_info *info)
{
    struct looking *looking = ctx;

    if (looking->blob->framed
            ? kms_span_equal(looking->blob->frame.key_id, kms_span_str(info->id))
            : info->seal == KMS_ALG_SEALED &&
                  (!looking->found || kms_key_age_compare(info, &looking->info) > 0)) {
        looking->info = *info;
        looking->found = true;
    }
    return true;
}

static enum kms_exit find_key(struct kms_waist *waist, const struct kms_key_filter *filter,
                              struct kms_call *call, struct looking *looking,
                              struct kms_failure *failure)
{
    if (kms_waist_list_keys(waist, call, filter, look, looking) != KMS_OK) {
        return kms_context_call_failed(call, failure);
    }
    if (!looking->found && looking->blob->framed) {
        (void)kms_error_set(
            &failure->error, KMS_E_NOT_FOUND, "the key that sealed it, %.*s, is not there",
            (int)looking->blob->frame.key_id.len, (const char *)looking->blob->frame.key_id.data);
    } else if (!looking->found) {
        (void)kms_error_set(&failure->error, KMS_E_BAD_DATA,
                            "this was not sealed by CKM_KMSBRIDGE_SEALED, or there is no such key");
    }
    return looking->found ? KMS_EXIT_OK
                          : kms_fail(failure, KMS_EXIT_FAILED,
                                     "kmsbridgectl keys list shows what keys there are");
}

/* ---- the blob ------------------------------------------------------------------------------- */

static enum kms_exit read_blob(const struct kms_options *options, struct kms_buf *bytes,
                               struct blob *ret_blob, struct kms_failure *failure)
{
    struct blob blob = {.framed = false};
    enum kms_status status = kms_read_input(options->value[KMS_OPT_IN], bytes, &failure->error);

    if (status == KMS_OK) {
        blob.framed = kms_sealed_frame_is(kms_buf_span(bytes));
        blob.frame.ciphertext = kms_buf_span(bytes);
        status = blob.framed
                     ? kms_sealed_frame_take(kms_buf_span(bytes), &blob.frame, &failure->error)
                     : KMS_OK;
    }
    if (status != KMS_OK) {
        return kms_fail(failure, kms_exit_of(status), "give it what was wrapped, as it is");
    }
    *ret_blob = blob;
    return KMS_EXIT_OK;
}

static enum kms_status write_blob(const struct kms_options *options, const struct blob *old,
                                  const struct kms_sealed *sealed, struct kms_error *err)
{
    const struct kms_sealed_frame frame = {.alg = (unsigned)sealed->alg,
                                           .key_id = kms_span_str(sealed->key_id),
                                           .iv = kms_buf_span(&sealed->iv),
                                           .ciphertext = kms_buf_span(&sealed->ciphertext)};
    static uint8_t bytes[BLOB_MAX];
    struct kms_buf out = KMS_BUF_OVER(bytes);
    enum kms_status status =
        old->framed ? kms_sealed_frame_put(&frame, &out) : kms_buf_put(&out, frame.ciphertext);

    return status == KMS_OK ? kms_write_output(options->value[KMS_OPT_OUT], kms_buf_span(&out), err)
                            : kms_error_set(err, KMS_E_PROTOCOL, "what came back fits no frame");
}

static enum kms_exit refused(const struct kms_call *call, struct kms_failure *failure)
{
    if (call->error.status == KMS_E_UNSUPPORTED) {
        (void)kms_fail(failure, KMS_EXIT_FAILED,
                       "unwrap it and wrap it again: C_UnwrapKey, C_WrapKey");
    } else if (call->error.status == KMS_E_BAD_DATA) {
        (void)kms_fail(failure, KMS_EXIT_FAILED,
                       "give --aad as it was given when this was sealed, and --label where the "
                       "input names no key");
    }
    return kms_context_call_failed(call, failure);
}

static enum kms_exit rewrap(const struct kms_options *options, struct kms_waist *waist,
                            const struct blob *blob, const struct kms_key_filter *filter,
                            struct kms_failure *failure)
{
    static uint8_t bytes[KMS_CIPHERTEXT_MAX];
    uint8_t iv[KMS_IV_MAX];
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_HSM_CALL_S * KMS_NS_PER_S)};
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(bytes)};
    struct looking looking = {.blob = blob};
    struct kms_params params = {.aad = kms_span_str(kms_option_or(options, KMS_OPT_AAD, "")),
                                .iv = blob->frame.iv};
    enum kms_exit code = find_key(waist, filter, &call, &looking, failure);

    if (code != KMS_EXIT_OK) {
        return code;
    }
    params.alg = blob->framed ? (enum kms_alg)blob->frame.alg : KMS_ALG_SEALED;
    if (kms_waist_rewrap(waist, &call, looking.info.ref, &params, blob->frame.ciphertext,
                         &sealed) != KMS_OK) {
        return refused(&call, failure);
    }
    if (write_blob(options, blob, &sealed, &failure->error) != KMS_OK) {
        return failure->error.status == KMS_E_EXISTS
                   ? kms_fail(failure, KMS_EXIT_EXISTS,
                              "nothing is overwritten: name another --out")
                   : kms_fail(failure, kms_exit_of(failure->error.status), "see --out");
    }
    return KMS_EXIT_OK;
}

/* A frame names its key; what is the service's own blob is under --label, or kms.key. */
static struct kms_key_filter filter_for(const struct kms_options *options,
                                        const struct kms_conf *conf, const struct blob *blob)
{
    struct kms_key_filter filter = {.spec = NULL};

    if (!blob->framed) {
        filter.label = options->value[KMS_OPT_LABEL];
        filter.spec = filter.label == NULL ? conf->kms.key : NULL;
    }
    return filter;
}

enum kms_exit kms_verb_keys_rewrap(const struct kms_options *options, struct kms_failure *failure)
{
    struct kms_buf bytes = kms_buf_over(kms_secure_new(BLOB_MAX), BLOB_MAX);
    struct kms_conf *conf = NULL;
    struct kms_waist *waist = NULL;
    struct blob blob = {.framed = false};
    enum kms_exit code = KMS_EXIT_FAILED;

    if (bytes.data == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_NOMEM, "no memory");
        return code;
    }
    code = read_blob(options, &bytes, &blob, failure);
    if (code == KMS_EXIT_OK) {
        code = kms_context_conf(options, &conf, failure);
    }
    if (code == KMS_EXIT_OK) {
        code = kms_context_waist(conf, &waist, failure);
    }
    if (code == KMS_EXIT_OK) {
        const struct kms_key_filter filter = filter_for(options, conf, &blob);

        code = rewrap(options, waist, &blob, &filter, failure);
    }
    kms_waist_close(waist);
    kms_conf_done(conf);
    kms_secure_free(bytes.data);
    return code;
}
