/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may stand in for Alibaba Cloud KMS: a status (with the highest bit keys are asked for as
 * applications see them), and the bodies of its answers one after the other, parted by NULs, the
 * last one for whatever is asked behind it. Refused, or keys and results that keep every bound of
 * the waist.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/alibaba.h"
#include "backend/alibaba_parts.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kms_span bodies;
static unsigned status;
static bool logical;

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* The first body, and on to the next one while there is one. */
static struct kms_span next_body(void)
{
    const uint8_t *end = bodies.len == 0 ? NULL : memchr(bodies.data, 0, bodies.len);
    struct kms_span body = bodies;

    if (end != NULL) {
        body.len = (size_t)(end - bodies.data);
        bodies = kms_span_of(end + 1, bodies.len - body.len - 1);
    }
    return body;
}

static enum kms_status answer(struct kms_http_door *door, const struct kms_http_request *request,
                              const struct kms_http_wait *wait, struct kms_http_response *ret,
                              struct kms_error *err)
{
    (void)door;
    (void)wait;
    (void)err;
    return kms_http_response_fill(request, ret, status, next_body(), NULL);
}

static void stay_open(struct kms_http_door *door)
{
    (void)door;
}

static struct kms_call new_call(void)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(10 * KMS_NS_PER_S)};
}

static bool keep(void *ctx, const struct kms_key_info *info)
{
    const bool whole = info->type == KMS_KEY_GENERIC || (logical && kms_ali_seals(info->type));
    struct kms_ali_ref ref;

    demand(kms_ali_ref_parse(info->ref, &ref, NULL) == KMS_OK);
    demand(strlen(info->id) == 45 && info->tag_len == 20 && info->label[0] != '\0');
    demand((unsigned)info->type < KMS_KEY_TYPE_COUNT &&
           strcmp(info->version, whole ? "" : ref.version) == 0);
    *(struct kms_key_info *)ctx = *info;
    return true;
}

static void use(struct kms_backend *ali, const struct kms_key_info *info)
{
    static uint8_t iv[KMS_IV_MAX], bytes[KMS_CIPHERTEXT_MAX];
    const struct kms_params seal = {.alg = KMS_ALG_SEALED, .aad = kms_span_str("aad")};
    const struct kms_params oaep = {.alg = KMS_ALG_RSA_OAEP_SHA1};
    const struct kms_params mac = {.alg = KMS_ALG_HMAC_SHA256};
    const struct kms_params sign = {.alg = info->type == KMS_KEY_EC ? KMS_ALG_ECDSA
                                                                    : KMS_ALG_RSA_PSS_SHA256};
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(bytes)};
    struct kms_buf out = kms_buf_over(bytes, 64);
    struct kms_call call = new_call();

    if (kms_alibaba_ops.encrypt(ali, &call, info->ref, &seal, kms_span_str("hello"), &sealed) ==
        KMS_OK) {
        demand(sealed.iv.len == 0 && sealed.ciphertext.len > 0);
        demand(sealed.alg == KMS_ALG_SEALED && strlen(sealed.key_id) == 45);
    } else {
        demand(call.error.text[0] != '\0' && sealed.ciphertext.len == 0);
    }
    call = new_call();
    demand(kms_alibaba_ops.decrypt(ali, &call, info->ref, &seal, kms_span_str("QUJD"), &out) ==
               KMS_OK ||
           out.len == 0);
    out.len = 0;
    call = new_call();
    demand(kms_alibaba_ops.decrypt(ali, &call, info->ref, &oaep, kms_span_of(bytes + 64, 256),
                                   &out) == KMS_OK ||
           out.len == 0);
    out = kms_buf_over(bytes, 32);
    sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(iv),
                                 .ciphertext = kms_buf_over(bytes + 64, sizeof(bytes) - 64)};
    call = new_call();
    if (kms_alibaba_ops.data_key(ali, &call, info->ref, &seal, 32, &out, &sealed) == KMS_OK) {
        demand(out.len == 32 && sealed.ciphertext.len > 0 && strlen(sealed.key_id) == 45);
    } else {
        demand(out.len == 0 && sealed.ciphertext.len == 0);
    }
    sealed.ciphertext.len = 0;
    call = new_call();
    demand(kms_alibaba_ops.rewrap(ali, &call, info->ref, &seal, kms_span_str("QUJD"), &sealed) ==
               KMS_OK ||
           sealed.ciphertext.len == 0);
    out = kms_buf_over(bytes, KMS_SIGNATURE_MAX);
    call = new_call();
    demand(kms_alibaba_ops.sign(ali, &call, info->ref, &sign, kms_span_of(iv, 32), &out) ==
               KMS_OK ||
           out.len == 0);
    out = kms_buf_over(bytes, 64);
    call = new_call();
    demand(kms_alibaba_ops.mac(ali, &call, "key/hmac", &mac, kms_span_str("hello"), &out) == KMS_OK
               ? out.len == 32
               : out.len == 0);
    call = new_call();
    demand(kms_alibaba_ops.verify(ali, &call, "key/hmac", &mac, kms_span_str("hello"),
                                  kms_span_of(iv, 32)) == KMS_OK ||
           call.error.text[0] != '\0');
    out = kms_buf_over(bytes, KMS_PUBLIC_KEY_MAX);
    call = new_call();
    demand(kms_alibaba_ops.public_key(ali, &call, info->ref, &out) == KMS_OK || out.len == 0);
}

static void run(const struct kms_backend_conf *conf)
{
    static struct kms_http_door door = {.perform = answer, .close = stay_open};
    const struct kms_ali_doors doors = {.kms = &door, .identity = &door};
    struct kms_backend *ali = NULL;
    struct kms_key_info info = {.ref = "key/version", .type = KMS_KEY_EC};
    const struct kms_key_filter filter = {.spec = "kek", .logical = logical};
    struct kms_call call = new_call();
    struct kms_error err = KMS_ERROR_INIT;

    demand(kms_ali_open_over(conf, &doors, &ali, &err) == KMS_OK);
    if (kms_alibaba_ops.list_keys(ali, &call, &filter, keep, &info) != KMS_OK) {
        demand(call.error.text[0] != '\0');
    }
    use(ali, &info);
    kms_alibaba_ops.close(ali);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned statuses[] = {200, 200, 200, 204, 400, 403, 429, 500};
    static char region[] = "cn-test", source[] = "access_key", id[] = "ID",
                secret[] = "env:KMS_FUZZ";
    static char name[] = "a";
    static struct kms_alibaba_conf ali = {.region = region,
                                          .credentials = source,
                                          .access_key_id = id,
                                          .access_key_secret = secret,
                                          .deletion_days = 7};
    static const struct kms_backend_conf conf = {.name = name, .type = name, .alibaba = &ali};

    if (size == 0) {
        return 0;
    }
    demand(kms_secure_init() == KMS_OK && setenv("KMS_FUZZ", "secret", 1) == 0);
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    logical = (data[0] & 0x80) != 0;
    status = statuses[data[0] % (sizeof(statuses) / sizeof(statuses[0]))];
    bodies = kms_span_of(data + 1, size - 1);
    run(&conf);
    return 0;
}
