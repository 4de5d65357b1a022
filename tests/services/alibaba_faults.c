/* SPDX-License-Identifier: Apache-2.0 */
/* Each way in which the service fails: its class, what is said of it, and that the next call is
 * well again without anything being opened anew. */
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "tests/services/alibaba.h"

static struct ali_sealed sealed;
static uint8_t opened[KMS_CIPHERTEXT_MAX];

static const struct row {
    const char *name;
    const char *action;
    const char *fault;
    enum kms_status status;
    const char *says;
} rows[] = {
    {"throttled", "Encrypt",
     "\"kind\":\"error\",\"status\":429,\"code\":\"Rejected.Throttling\",\"after\":1",
     KMS_E_THROTTLED, "Rejected.Throttling"},
    {"throttled by the gateway", "Encrypt",
     "\"kind\":\"error\",\"status\":400,\"code\":\"Throttling.User\"", KMS_E_THROTTLED,
     "Throttling.User"},
    {"internal failure", "Encrypt",
     "\"kind\":\"error\",\"status\":500,\"code\":\"InternalFailure\"", KMS_E_UNAVAILABLE,
     "InternalFailure"},
    {"unavailable", "Encrypt",
     "\"kind\":\"error\",\"status\":503,\"code\":\"ServiceUnavailableTemporary\"",
     KMS_E_UNAVAILABLE, "ServiceUnavailableTemporary"},
    {"a proxy's page", "Encrypt", "\"kind\":\"status\",\"status\":502", KMS_E_UNAVAILABLE,
     "HTTP 502"},
    {"a redirect", "Encrypt", "\"kind\":\"status\",\"status\":302", KMS_E_PROTOCOL, "HTTP 302"},
    {"no answer", "Encrypt", "\"kind\":\"drop\",\"count\":2", KMS_E_UNAVAILABLE, "cut off"},
    {"half an answer", "Encrypt", "\"kind\":\"cut\"", KMS_E_UNAVAILABLE, "cut off"},
    {"slow", "Encrypt", "\"kind\":\"slow\",\"seconds\":1", KMS_E_TIMEOUT, "no reply in time"},
    {"too much", "Encrypt", "\"kind\":\"oversized\"", KMS_E_PROTOCOL, "over our bounds"},
    {"no JSON", "Encrypt", "\"kind\":\"malformed\"", KMS_E_PROTOCOL, "not one JSON object"},
    {"a key twice", "Encrypt", "\"kind\":\"double\",\"field\":\"KeyId\"", KMS_E_PROTOCOL,
     "not one JSON object"},
    {"no KeyId", "Encrypt", "\"kind\":\"set\",\"field\":\"KeyId\",\"value\":null", KMS_E_PROTOCOL,
     "KeyId"},
    {"a number", "Encrypt", "\"kind\":\"set\",\"field\":\"KeyId\",\"value\":7", KMS_E_PROTOCOL,
     "KeyId"},
    {"another key", "Encrypt", "\"kind\":\"set\",\"field\":\"KeyId\",\"value\":\"x\"",
     KMS_E_PROTOCOL, "another key"},
    {"no version", "Encrypt", "\"kind\":\"set\",\"field\":\"KeyVersionId\",\"value\":\"\"",
     KMS_E_PROTOCOL, "version"},
    {"no version at all", "Encrypt", "\"kind\":\"set\",\"field\":\"KeyVersionId\",\"value\":null",
     KMS_E_PROTOCOL, "KeyVersionId"},
    {"no blob", "Encrypt", "\"kind\":\"set\",\"field\":\"CiphertextBlob\",\"value\":\"\"",
     KMS_E_PROTOCOL, "no ciphertext"},
    {"no request id", "Encrypt", "\"kind\":\"set\",\"field\":\"RequestId\",\"value\":null",
     KMS_E_PROTOCOL, "RequestId"},
    {"denied", "Encrypt", "\"kind\":\"error\",\"status\":403,\"code\":\"Forbidden.NoPermission\"",
     KMS_E_DENIED, "Forbidden.NoPermission"},
    {"a code of tomorrow", "Encrypt", "\"kind\":\"error\",\"status\":403,\"code\":\"SomethingNew\"",
     KMS_E_DENIED, "SomethingNew"},
    {"a nonce twice", "Encrypt",
     "\"kind\":\"error\",\"status\":400,\"code\":\"SignatureNonceUsed\"", KMS_E_UNAVAILABLE,
     "SignatureNonceUsed"},
    {"plaintext is no base64", "Decrypt",
     "\"kind\":\"set\",\"field\":\"Plaintext\",\"value\":\"=\"", KMS_E_PROTOCOL, "Plaintext"},
    {"no plaintext", "Decrypt", "\"kind\":\"set\",\"field\":\"Plaintext\",\"value\":null",
     KMS_E_PROTOCOL, "Plaintext"},
};

static enum kms_status use(struct ali *ali, struct kms_call *call, const struct kms_key_info *info,
                           const char *action)
{
    struct kms_buf out = KMS_BUF_OVER(opened);

    return strcmp(action, "Decrypt") == 0
               ? ali_unseal(ali, call, info->ref, kms_span_str("aad"), &sealed, &out)
               : ali_seal(ali, call, info->ref, kms_span_str("aad"), kms_span_str("a secret text"),
                          &sealed);
}

static void each_fault_is_told_and_passes(void)
{
    struct ali ali;
    struct kms_key_info info;
    char alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("Aliyun_AES_256", "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct row *row = &rows[i];
        struct kms_call call = ali_call();

        ALI_CHECK(&call, row->name, use(&ali, &call, &info, "Encrypt") == KMS_OK);
        CU_ASSERT(ali_fault("kms", row->action, row->fault));
        if (row->status == KMS_E_TIMEOUT) {
            call.deadline_ns = kms_deadline_in(300 * KMS_NS_PER_MS);
        }
        ALI_CHECK(&call, row->name, use(&ali, &call, &info, row->action) == row->status);
        UNIT_CHECK(row->name, call.error.status == row->status);
        ALI_CHECK(&call, row->name, strstr(call.error.text, row->says) != NULL);
        UNIT_CHECK(row->name, strstr(call.error.text, "a secret text") == NULL &&
                                  strstr(call.error.text, ali_secret) == NULL);
        if (strstr(row->fault, "\"error\"") != NULL) {
            UNIT_CHECK(row->name, strcmp(call.error.code, row->says) == 0);
        }
        /* ActionTrail's id of the request, wherever it was answered at all */
        ALI_CHECK(&call, row->name,
                  strstr(row->fault, "\"drop\"") != NULL || row->status == KMS_E_TIMEOUT ||
                      ali_named(&call, row->action));
        UNIT_CHECK(row->name, (strstr(row->fault, "\"after\"") != NULL) ==
                                  (call.error.retry_after_ns == KMS_NS_PER_S));
        call = ali_call();
        ALI_CHECK(&call, row->name, use(&ali, &call, &info, "Encrypt") == KMS_OK);
        if (row->status == KMS_E_TIMEOUT) { /* the fake is still asleep with a lock it has not */
            CU_ASSERT(ali_control("{\"do\":\"clear\"}", NULL, NULL));
        }
    }
    ali_close(&ali);
}

/* ---- keys --------------------------------------------------------------------------------- */

static bool set_state(const char *alias, const char *state)
{
    char ask[160];

    (void)snprintf(ask, sizeof(ask), "{\"do\":\"state\",\"key\":\"alias/%s\",\"state\":\"%s\"}",
                   alias, state);
    return ali_control(ask, NULL, NULL);
}

static void key_states_are_told_and_pass(void)
{
    static const struct {
        const char *state, *code;
    } states[] = {{"Disabled", "Rejected.Disabled"},
                  {"PendingDeletion", "Rejected.PendingDeletion"},
                  {"PendingImport", "Rejected.PendingImport"}};
    struct ali ali;
    struct kms_key_info info, found;
    char alias[64], ask[256];
    struct kms_call call = ali_call();

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("Aliyun_AES_256", "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    CU_ASSERT_EQUAL(use(&ali, &call, &info, "Encrypt"), KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(states); i++) {
        static const char *const actions[] = {"Encrypt", "Decrypt"};

        for (size_t a = 0; a < 2; a++) {
            CU_ASSERT_EQUAL(use(&ali, &call, &info, "Encrypt"), KMS_OK);
            CU_ASSERT(set_state(alias, states[i].state));
            ALI_CHECK(&call, states[i].state,
                      use(&ali, &call, &info, actions[a]) == KMS_E_KEY_STATE);
            CU_ASSERT_STRING_EQUAL(call.error.code, states[i].code);
            CU_ASSERT(ali_find(&ali, alias, &found)); /* named, it is shown all the same */
            CU_ASSERT(set_state(alias, "Enabled"));
            ALI_CHECK(&call, states[i].state, use(&ali, &call, &info, actions[a]) == KMS_OK);
        }
    }
    (void)snprintf(ask, sizeof(ask),
                   "{\"do\":\"destroy_version\",\"key\":\"alias/%s\",\"version\":\"%s\"}", alias,
                   info.version);
    CU_ASSERT(ali_control(ask, NULL, NULL));
    ALI_CHECK(&call, "version", use(&ali, &call, &info, "Decrypt") == KMS_E_KEY_STATE);
    CU_ASSERT_STRING_EQUAL(call.error.code, "Forbidden.KeyVersionNotFound");
    (void)snprintf(ask, sizeof(ask), "{\"do\":\"forget\",\"key\":\"alias/%s\"}", alias);
    CU_ASSERT(ali_control(ask, NULL, NULL));
    ALI_CHECK(&call, "gone", use(&ali, &call, &info, "Encrypt") == KMS_E_NOT_FOUND);
    CU_ASSERT_STRING_EQUAL(call.error.code, "Forbidden.KeyNotFound");
    ali_close(&ali);
}

/* ---- the access key and the clock --------------------------------------------------------- */

/* Until it is well again: a failure of the credential is remembered for a second. */
static bool soon_well(struct ali *ali, const struct kms_key_info *info)
{
    for (unsigned i = 0; i < 60; i++) {
        const struct timespec nap = {.tv_nsec = 50000000};
        struct kms_call call = ali_call();

        if (use(ali, &call, info, "Encrypt") == KMS_OK) {
            return true;
        }
        (void)nanosleep(&nap, NULL);
    }
    return false;
}

static void what_is_refused_is_told_and_passes(void)
{
    static const struct {
        const char *name, *plant, *undo, *code, *says;
    } cases[] = {
        {"clock ahead", "{\"do\":\"skew\",\"seconds\":3600}", "{\"do\":\"clear\"}",
         "InvalidTimeStamp.Expired", "clock"},
        {"clock behind", "{\"do\":\"skew\",\"seconds\":-3600}", "{\"do\":\"clear\"}",
         "InvalidTimeStamp.Expired", "clock"},
        {"revoked", "{\"do\":\"revoke\"}", "{\"do\":\"revoke\",\"revoked\":false}",
         "InvalidAccessKeyId.Inactive", "disabled"},
        {"another secret",
         "{\"do\":\"access_key\",\"id\":\"LTAI5tFakeFakeFakeFake\",\"secret\":\"new\"}",
         "{\"do\":\"access_key\",\"id\":\"LTAI5tFakeFakeFakeFake\","
         "\"secret\":\"fakeSecretFakeSecretFakeSecret\"}",
         "SignatureDoesNotMatch", "signature"},
    };
    struct ali ali;
    struct kms_key_info info;
    char alias[64];

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("Aliyun_AES_256", "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    for (size_t i = 0; i < UNIT_COUNT(cases); i++) {
        struct kms_call call = ali_call();
        struct kms_health health = {.ready = false};

        CU_ASSERT(ali_control(cases[i].plant, NULL, NULL));
        ALI_CHECK(&call, cases[i].name, use(&ali, &call, &info, "Encrypt") == KMS_E_AUTH);
        UNIT_CHECK(cases[i].name, strcmp(call.error.code, cases[i].code) == 0);
        UNIT_CHECK(cases[i].name, strstr(call.error.text, cases[i].says) != NULL);
        kms_alibaba_ops.health(ali.backend, &health);
        UNIT_CHECK(cases[i].name, !health.ready && health.error.status == KMS_E_AUTH);
        CU_ASSERT(ali_control(cases[i].undo, NULL, NULL));
        UNIT_CHECK(cases[i].name, soon_well(&ali, &info));
        kms_alibaba_ops.health(ali.backend, &health);
        UNIT_CHECK(cases[i].name, health.ready);
    }
    ali_close(&ali);
}

/* ---- the waist over it -------------------------------------------------------------------- */

static void the_waist_tries_again(void)
{
    const struct kms_params params = {.alg = KMS_ALG_BEST};
    struct ali ali;
    struct kms_key_info info;
    char alias[64];
    struct kms_call call = ali_call();

    ali_setup(&ali);
    CU_ASSERT_FATAL(ali_open(&ali) && ali_new_key("Aliyun_AES_256", "ENCRYPT/DECRYPT", alias) &&
                    ali_find(&ali, alias, &info));
    (void)ali_calls("");
    CU_ASSERT(ali_fault("kms", "Encrypt",
                        "\"kind\":\"error\",\"status\":429,\"code\":\"Rejected.Throttling\","
                        "\"count\":2"));
    sealed.sealed = (struct kms_sealed){.iv = KMS_BUF_OVER(sealed.iv),
                                        .ciphertext = KMS_BUF_OVER(sealed.bytes)};
    ALI_CHECK(&call, "retry",
              kms_waist_encrypt(ali.waist, &call, info.ref, &params, kms_span_str("x"),
                                &sealed.sealed) == KMS_OK);
    CU_ASSERT_EQUAL(sealed.sealed.alg, KMS_ALG_SEALED);
    CU_ASSERT_EQUAL(ali_calls("kms Encrypt"), 3);
    CU_ASSERT(ali_fault("kms", "Encrypt",
                        "\"kind\":\"error\",\"status\":429,\"code\":\"Rejected.Throttling\","
                        "\"count\":1000"));
    call.deadline_ns = kms_deadline_in(400 * KMS_NS_PER_MS);
    CU_ASSERT_EQUAL(
        kms_waist_encrypt(ali.waist, &call, info.ref, &params, kms_span_str("x"), &sealed.sealed),
        KMS_E_THROTTLED);
    CU_ASSERT(ali_control("{\"do\":\"clear\"}", NULL, NULL));
    call = ali_call();
    ALI_CHECK(&call, "after",
              kms_waist_encrypt(ali.waist, &call, info.ref, &params, kms_span_str("x"),
                                &sealed.sealed) == KMS_OK);
    ali_close(&ali);
}

const struct unit_test ali_fault_tests[] = {
    {"each fault is told and passes", each_fault_is_told_and_passes},
    {"key states are told and pass", key_states_are_told_and_pass},
    {"what is refused is told and passes", what_is_refused_is_told_and_passes},
    {"the waist tries again", the_waist_tries_again},
};
const size_t ali_fault_test_count = UNIT_COUNT(ali_fault_tests);
