/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may stand in for Vault: a status, a key as it is read, and the answer to an operation,
 * parted by a NUL. Refused, or keys and results that keep every bound of the waist.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/backend_conf.h"
#include "backend/vault.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/fake_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kms_span key_body, op_body;
static unsigned status;

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

static enum kms_status answer(struct fake_http *fake, const struct kms_http_request *request,
                              struct kms_http_response *ret, struct kms_error *err)
{
    (void)fake;
    (void)err;
    if (strstr(request->url, "lookup-self") != NULL) {
        return fake_http_reply(request, ret, 200, "{\"data\":{\"ttl\":0}}");
    }
    return kms_http_response_fill(request, ret, request->method == KMS_HTTP_GET ? 200 : status,
                                  request->method == KMS_HTTP_GET ? key_body : op_body, NULL);
}

static struct kms_call new_call(void)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(10 * KMS_NS_PER_S)};
}

static bool keep(void *ctx, const struct kms_key_info *info)
{
    demand(strlen(info->ref) == 45 && strcmp(info->ref, info->id) == 0 && info->tag_len == 20);
    demand(strcmp(info->label, "kek") == 0 && (unsigned)info->type < KMS_KEY_TYPE_COUNT);
    demand(info->version[0] >= '1' && info->version[0] <= '9');
    *(struct kms_key_info *)ctx = *info;
    return true;
}

static void use(struct kms_backend *vault, const struct kms_key_info *info)
{
    static uint8_t iv[KMS_IV_MAX], bytes[KMS_CIPHERTEXT_MAX];
    static const uint8_t nothing[32];
    const struct kms_params seal = {.alg = KMS_ALG_BEST};
    const struct kms_params open = {
        .alg = info->type == KMS_KEY_CHACHA20 ? KMS_ALG_CHACHA20_POLY1305 : KMS_ALG_AES_GCM,
        .iv = kms_span_of(nothing, 12)};
    const struct kms_params sign = {.alg = info->type == KMS_KEY_EC    ? KMS_ALG_ECDSA
                                           : info->type == KMS_KEY_RSA ? KMS_ALG_RSA_PKCS1
                                                                       : KMS_ALG_EDDSA};
    struct kms_sealed sealed = {.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(bytes)};
    struct kms_buf out = kms_buf_over(bytes, 64);
    struct kms_call call = new_call();

    if (kms_vault_ops.encrypt(vault, &call, info->ref, &seal, kms_span_str("hello"), &sealed) ==
        KMS_OK) {
        demand(sealed.iv.len == 12 && sealed.ciphertext.len == 21);
        demand(strcmp(sealed.key_id, info->id) == 0);
    } else {
        demand(call.error.text[0] != '\0' && sealed.ciphertext.len == 0);
    }
    call = new_call();
    demand(kms_vault_ops.decrypt(vault, &call, info->ref, &open, kms_span_of(bytes, 21), &out) ==
               KMS_OK ||
           out.len == 0);
    out = kms_buf_over(bytes, 32);
    sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(iv),
                                 .ciphertext = kms_buf_over(bytes + 64, sizeof(bytes) - 64)};
    call = new_call();
    if (kms_vault_ops.data_key(vault, &call, info->ref, &seal, 32, &out, &sealed) == KMS_OK) {
        demand(out.len == 32 && sealed.iv.len == 12 && sealed.ciphertext.len == 48);
    } else {
        demand(out.len == 0 && sealed.iv.len == 0 && sealed.ciphertext.len == 0);
    }
    sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(iv), .ciphertext = KMS_BUF_OVER(bytes)};
    call = new_call();
    demand(kms_vault_ops.rewrap(vault, &call, info->ref, &open, kms_span_of(nothing, 21),
                                &sealed) == KMS_OK ||
           (sealed.iv.len == 0 && sealed.ciphertext.len == 0));
    out = kms_buf_over(bytes, KMS_SIGNATURE_MAX);
    call = new_call();
    demand(kms_vault_ops.sign(vault, &call, info->ref, &sign, kms_span_of(iv, 32), &out) ==
               KMS_OK ||
           out.len == 0);
    out = kms_buf_over(bytes, KMS_PUBLIC_KEY_MAX);
    call = new_call();
    demand(kms_vault_ops.public_key(vault, &call, info->ref, &out) == KMS_OK || out.len == 0);
}

static void run(const struct kms_backend_conf *conf)
{
    static struct fake_http fake;
    struct kms_backend *vault = NULL;
    struct kms_key_info info = {.ref = ""};
    const struct kms_key_filter filter = {.label = "kek"};
    struct kms_call call = new_call();

    fake_http_init(&fake, answer);
    demand(kms_vault_open_over(conf, &fake.door, &vault, NULL) == KMS_OK);
    if (kms_vault_ops.list_keys(vault, &call, &filter, keep, &info) != KMS_OK) {
        demand(call.error.text[0] != '\0');
    } else if (info.ref[0] != '\0') {
        use(vault, &info);
    }
    kms_vault_ops.close(vault);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned statuses[] = {200, 200, 204, 400, 403, 404, 429, 500};
    static char address[] = "https://v", method[] = "token", token[] = "env:KMS_FUZZ", name[] = "v";
    static char *addresses[] = {address};
    static struct kms_vault_auth_conf auth = {.method = method, .token = token};
    static struct kms_vault_conf vault = {
        .addresses = addresses, .addresses_count = 1, .auth = &auth};
    static const struct kms_backend_conf conf = {.name = name, .type = name, .vault = &vault};
    const uint8_t *part = NULL;

    if (size == 0) {
        return 0;
    }
    demand(kms_secure_init() == KMS_OK && setenv("KMS_FUZZ", "s.token", 1) == 0);
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    status = statuses[data[0] % 8];
    data++;
    size--;
    part = size == 0 ? NULL : memchr(data, 0, size);
    key_body = kms_span_of(data, part == NULL ? size : (size_t)(part - data));
    op_body =
        part == NULL ? KMS_SPAN_NONE : kms_span_of(part + 1, size - (size_t)(part - data) - 1);
    run(&conf);
    return 0;
}
