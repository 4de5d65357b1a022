/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/services/alibaba.h"

#include <string.h>

#include "backend/rest/http.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"

unsigned ali_port_kms, ali_port_tls, ali_port_wrong, ali_port_sts, ali_port_imds, ali_port_uri;
char ali_role_arn[128], ali_provider_arn[128], ali_role[64], ali_key_id[64], ali_secret[64];
const char *ali_dir;

static unsigned port_control;
static struct kms_http_door *door;

/* ---- the fake ----------------------------------------------------------------------------- */

static bool read_port(const struct kms_json *root, const char *name, unsigned *ret)
{
    struct kms_error err = KMS_ERROR_INIT;
    uint64_t port = 0;

    if (kms_json_u64(root, name, 1, 65535, &port, &err) != KMS_OK) {
        fprintf(stderr, "alibaba: %s\n", err.text);
        return false;
    }
    *ret = (unsigned)port;
    return true;
}

static bool read_text(const struct kms_json *root, const char *name, char *ret, size_t size)
{
    struct kms_error err = KMS_ERROR_INIT;
    const char *text = NULL;

    if (kms_json_text(root, name, size - 1, &text, &err) != KMS_OK) {
        fprintf(stderr, "alibaba: %s\n", err.text);
        return false;
    }
    (void)snprintf(ret, size, "%s", text);
    return true;
}

static bool read_fake(const char *line)
{
    struct kms_json_doc *doc = NULL;
    struct kms_json root;
    struct kms_error err = KMS_ERROR_INIT;
    bool good = kms_json_parse("the fake", kms_span_str(line), &doc, &root, &err) == KMS_OK &&
                read_port(&root, "kms", &ali_port_kms) && read_port(&root, "sts", &ali_port_sts) &&
                read_port(&root, "imds", &ali_port_imds) &&
                read_port(&root, "uri", &ali_port_uri) && read_port(&root, "tls", &ali_port_tls) &&
                read_port(&root, "tls_wrong_name", &ali_port_wrong) &&
                read_port(&root, "control", &port_control) &&
                read_text(&root, "role_arn", ali_role_arn, sizeof(ali_role_arn)) &&
                read_text(&root, "provider_arn", ali_provider_arn, sizeof(ali_provider_arn)) &&
                read_text(&root, "role", ali_role, sizeof(ali_role)) &&
                read_text(&root, "access_key", ali_key_id, sizeof(ali_key_id)) &&
                read_text(&root, "secret", ali_secret, sizeof(ali_secret));

    kms_json_free(doc);
    return good;
}

bool ali_control(const char *ask, struct kms_json_doc **ret_doc, struct kms_json *ret)
{
    char url[64];
    const struct kms_http_request request = {
        .method = KMS_HTTP_POST, .url = url, .body = kms_span_str(ask)};
    struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(20 * KMS_NS_PER_S)};
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    struct kms_json_doc *doc = NULL;
    struct kms_json root;
    struct kms_error err = KMS_ERROR_INIT;
    bool good = false;

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", port_control);
    good = kms_http_perform(door, &request, &wait, &response, &err) == KMS_OK &&
           response.status == 200 &&
           kms_json_parse("control", kms_blob_span(&response.body), &doc, &root, &err) == KMS_OK;
    if (!good) {
        fprintf(stderr, "control: %s: %u %s %.*s\n", ask, response.status, err.text,
                (int)response.body.len, (const char *)response.body.data);
    } else if (ret_doc != NULL) {
        *ret_doc = doc;
        *ret = root;
        doc = NULL;
    }
    kms_json_free(doc);
    kms_http_response_done(&response);
    return good;
}

bool ali_control_text(const char *ask, const char *field, char *ret, size_t size)
{
    struct kms_json_doc *doc = NULL;
    struct kms_json root;
    bool good = ali_control(ask, &doc, &root) && read_text(&root, field, ret, size);

    kms_json_free(doc);
    return good;
}

bool ali_fault(const char *on, const char *action, const char *more)
{
    char ask[512];

    (void)snprintf(ask, sizeof(ask), "{\"do\":\"fault\",\"on\":\"%s\",\"action\":\"%s\",%s}", on,
                   action, more);
    return ali_control(ask, NULL, NULL);
}

unsigned ali_calls(const char *what)
{
    struct kms_json_doc *doc = NULL;
    struct kms_json root;
    struct kms_error err = KMS_ERROR_INIT;
    uint64_t count = 0;

    if (ali_control("{\"do\":\"calls\"}", &doc, &root) &&
        kms_json_u64_maybe(&root, what, 0, 100000, &count, &err) != KMS_OK) {
        count = 100001;
    }
    kms_json_free(doc);
    return (unsigned)count;
}

bool ali_named(const struct kms_call *call, const char *action)
{
    char ask[96];
    char id[64] = "";

    (void)snprintf(ask, sizeof(ask), "{\"do\":\"id_of\",\"action\":\"%s\"}", action);
    return ali_control_text(ask, "request_id", id, sizeof(id)) && id[0] != '\0' &&
           strcmp(call->error.request_id, id) == 0;
}

bool ali_new_key(const char *spec, const char *usage, char ret_alias[64])
{
    static unsigned count;
    char ask[256];

    (void)snprintf(ret_alias, 64, "test-%u", count++);
    (void)snprintf(ask, sizeof(ask),
                   "{\"do\":\"key\",\"alias\":\"%s\",\"spec\":\"%s\",\"usage\":\"%s\"}", ret_alias,
                   spec, usage);
    return ali_control(ask, NULL, NULL);
}

void ali_each_symmetric(void (*test)(const struct ali_symmetric *kind))
{
    static const struct ali_symmetric kinds[] = {{"Aliyun_AES_256", KMS_KEY_AES, 256},
                                                 {"Aliyun_SM4", KMS_KEY_SM4, 128}};

    for (size_t i = 0; i < UNIT_COUNT(kinds); i++) {
        unsigned before = CU_get_number_of_failures();

        test(&kinds[i]);
        if (CU_get_number_of_failures() != before) {
            fprintf(stderr, "... with %s\n", kinds[i].spec);
        }
    }
}

/* ---- the backend -------------------------------------------------------------------------- */

static char *unconst(const char *text)
{
    return (char *)(uintptr_t)text;
}

void ali_setup(struct ali *ali)
{
    *ali = (struct ali){.backend = NULL};
    (void)snprintf(ali->endpoint, sizeof(ali->endpoint), "http://127.0.0.1:%u", ali_port_kms);
    (void)snprintf(ali->sts, sizeof(ali->sts), "http://127.0.0.1:%u", ali_port_sts);
    (void)snprintf(ali->imds, sizeof(ali->imds), "http://127.0.0.1:%u", ali_port_imds);
    (void)snprintf(ali->uri, sizeof(ali->uri), "http://127.0.0.1:%u/credentials", ali_port_uri);
    ali->settings = (struct kms_alibaba_conf){
        .endpoint = ali->endpoint,
        .sts_endpoint = ali->sts,
        .metadata_endpoint = ali->imds,
        .deletion_days = 7,
        .session_seconds = 3600,
        .credentials = unconst("access_key"),
        .access_key_id = ali_key_id,
        .access_key_secret = unconst("env:KMS_TEST_SECRET"),
    };
    ali->conf = (struct kms_backend_conf){.name = unconst("ali"), .type = unconst("alibaba")};
}

bool ali_open(struct ali *ali)
{
    struct kms_error err = KMS_ERROR_INIT;

    ali->conf.alibaba = &ali->settings;
    if (kms_alibaba_ops.open(&ali->conf, &ali->backend, &err) != KMS_OK ||
        kms_waist_open(&ali->conf, NULL, NULL, &ali->waist, &err) != KMS_OK) {
        fprintf(stderr, "alibaba: %s\n", err.text);
        return false;
    }
    return true;
}

void ali_close(struct ali *ali)
{
    kms_waist_close(ali->waist);
    if (ali->backend != NULL) {
        kms_alibaba_ops.close(ali->backend);
    }
}

struct kms_call ali_call(void)
{
    return (struct kms_call){.deadline_ns = kms_deadline_in(10 * KMS_NS_PER_S)};
}

struct finding {
    unsigned count;
    struct kms_key_info *info;
};

static bool note_latest(void *ctx, const struct kms_key_info *info)
{
    struct finding *finding = ctx;

    if (info->latest) {
        finding->count++;
        *finding->info = *info;
    }
    return true;
}

bool ali_find(struct ali *ali, const char *spec, struct kms_key_info *ret_info)
{
    struct finding finding = {.info = ret_info};
    struct kms_key_filter filter = {.spec = spec};
    struct kms_call call = ali_call();

    return ALI_CHECK(&call, spec,
                     kms_waist_list_keys(ali->waist, &call, &filter, note_latest, &finding) ==
                             KMS_OK &&
                         finding.count == 1);
}

enum kms_status ali_seal(struct ali *ali, struct kms_call *call, const char *ref,
                         struct kms_span aad, struct kms_span plaintext, struct ali_sealed *ret)
{
    const struct kms_params params = {.alg = KMS_ALG_SEALED, .aad = aad};

    kms_error_clear(&call->error);
    ret->sealed =
        (struct kms_sealed){.iv = KMS_BUF_OVER(ret->iv), .ciphertext = KMS_BUF_OVER(ret->bytes)};
    return kms_alibaba_ops.encrypt(ali->backend, call, ref, &params, plaintext, &ret->sealed);
}

enum kms_status ali_unseal(struct ali *ali, struct kms_call *call, const char *ref,
                           struct kms_span aad, const struct ali_sealed *sealed,
                           struct kms_buf *ret)
{
    const struct kms_params params = {.alg = KMS_ALG_SEALED, .aad = aad};

    kms_error_clear(&call->error);
    return kms_alibaba_ops.decrypt(ali->backend, call, ref, &params,
                                   kms_buf_span(&sealed->sealed.ciphertext), ret);
}

/* ---- main --------------------------------------------------------------------------------- */

static bool add_suite(const char *name, const struct unit_test *tests, size_t count)
{
    CU_pSuite suite = CU_add_suite(name, NULL, NULL);

    for (size_t i = 0; suite != NULL && i < count; i++) {
        if (CU_add_test(suite, tests[i].name, tests[i].fn) == NULL) {
            return false;
        }
    }
    return suite != NULL;
}

int main(void)
{
    const char *fake = getenv("KMS_TEST_FAKE");
    const struct kms_http_conf conf = {.name = "control"};
    struct kms_error err = KMS_ERROR_INIT;
    unsigned ran = 0;
    unsigned failed = 0;
    bool good = false;

    ali_dir = getenv("KMS_TEST_DIR");
    if (fake == NULL || ali_dir == NULL) {
        printf("alibaba: skipped: KMS_TEST_FAKE names no fake; tests/services/alibaba.sh does\n");
        printf("alibaba: 0 passed, 0 failed, 1 skipped\n");
        return 77;
    }
    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    if (kms_secure_init() != KMS_OK || kms_http_open(&conf, &door, &err) != KMS_OK ||
        !read_fake(fake) || setenv("KMS_TEST_SECRET", ali_secret, 1) != 0 ||
        CU_initialize_registry() != CUE_SUCCESS ||
        !add_suite("keys", ali_key_tests, ali_key_test_count) ||
        !add_suite("logical keys", ali_logical_tests, ali_logical_test_count) ||
        !add_suite("macs", ali_mac_tests, ali_mac_test_count) ||
        !add_suite("SM4", ali_sm4_tests, ali_sm4_test_count) ||
        !add_suite("identity", ali_identity_tests, ali_identity_test_count) ||
        !add_suite("faults", ali_fault_tests, ali_fault_test_count)) {
        fprintf(stderr, "alibaba: cannot begin: %s\n", err.text);
        return EXIT_FAILURE;
    }
    (void)CU_run_all_tests();
    ran = CU_get_number_of_tests_run();
    failed = CU_get_number_of_tests_failed();
    good = CU_get_number_of_failures() == 0 &&
           ran == ali_key_test_count + ali_logical_test_count + ali_mac_test_count +
                      ali_sm4_test_count + ali_fault_test_count + ali_identity_test_count;
    unit_print_failures();
    printf("alibaba: %u passed, %u failed, 0 skipped\n", ran - failed, failed);
    CU_cleanup_registry();
    kms_http_door_close(door);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
