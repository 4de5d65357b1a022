/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `alibaba` backend on the fake of tests/fakes/alibaba, which the environment names:
 *   KMS_TEST_FAKE  the line of JSON that the fake prints
 *   KMS_TEST_DIR   a private folder, with the fake's ca.pem
 * The fake recomputes every signature, so each test is one of the signature, too.
 */
#ifndef KMS_TESTS_SERVICES_ALIBABA_H
#define KMS_TESTS_SERVICES_ALIBABA_H

#include "backend/alibaba.h"
#include "backend/backend_conf.h"
#include "backend/rest/json.h"
#include "backend/waist.h"
#include "tests/unit/unit.h"

/* What the fake said of itself. */
extern unsigned ali_port_kms, ali_port_tls, ali_port_wrong, ali_port_sts, ali_port_imds,
    ali_port_uri;
extern char ali_role_arn[128], ali_provider_arn[128], ali_role[64], ali_key_id[64], ali_secret[64];
extern const char *ali_dir;

/* Asks the control interface: @ask is JSON. True when it did it; @ret (NULL is fine) is freed by
 * the caller with kms_json_free(). */
bool ali_control(const char *ask, struct kms_json_doc **ret_doc, struct kms_json *ret);
/* A text of what control answers to @ask. */
bool ali_control_text(const char *ask, const char *field, char *ret, size_t size);
/* One fault at the next @action of @on; @more is JSON without braces: "\"kind\":\"drop\"". */
bool ali_fault(const char *on, const char *action, const char *more);
/* How often @what ("kms Encrypt") was asked since the last time any count was asked for. */
unsigned ali_calls(const char *what);
/* Whether @call tells the request id that the service gave the last @action. */
bool ali_named(const struct kms_call *call, const char *action);
/* A symmetric key with an alias of its own; the alias to @ret_alias. */
bool ali_new_key(const char *spec, const char *usage, char ret_alias[64]);

/* The kinds of symmetric keys: what holds for one holds for each. */
struct ali_symmetric {
    const char *spec; /* KeySpec */
    enum kms_key_type type;
    unsigned bits;
};
/* @test with each; a failure's says with which. */
void ali_each_symmetric(void (*test)(const struct ali_symmetric *kind));

/* An opened backend, by its ops and by the waist, over one configuration. */
struct ali {
    struct kms_alibaba_conf settings;
    struct kms_backend_conf conf;
    struct kms_backend *backend; /* one attempt a call */
    struct kms_waist *waist;     /* retries */
    char endpoint[64], sts[64], imds[64], uri[64];
};
/* Settings for the plain endpoint and the environment's access key; open with ali_open(). */
void ali_setup(struct ali *ali);
bool ali_open(struct ali *ali);
void ali_close(struct ali *ali);
struct kms_call ali_call(void); /* ten seconds */
/* The latest version of the key named @spec. */
bool ali_find(struct ali *ali, const char *spec, struct kms_key_info *ret_info);

/* What encrypt makes, with its storage. */
struct ali_sealed {
    uint8_t iv[KMS_IV_MAX];
    uint8_t bytes[KMS_CIPHERTEXT_MAX];
    struct kms_sealed sealed;
};
enum kms_status ali_seal(struct ali *ali, struct kms_call *call, const char *ref,
                         struct kms_span aad, struct kms_span plaintext, struct ali_sealed *ret);
enum kms_status ali_unseal(struct ali *ali, struct kms_call *call, const char *ref,
                           struct kms_span aad, const struct ali_sealed *sealed,
                           struct kms_buf *ret);

#define ALI_CHECK(call, row, condition)                                                            \
    (UNIT_CHECK(row, condition)                                                                    \
         ? true                                                                                    \
         : (fprintf(stderr, "%s: %s: %s\n", row, kms_status_name((call)->error.status),            \
                    (call)->error.text),                                                           \
            false))

extern const struct unit_test ali_key_tests[], ali_logical_tests[], ali_mac_tests[],
    ali_sm4_tests[], ali_fault_tests[], ali_identity_tests[];
extern const size_t ali_key_test_count, ali_logical_test_count, ali_mac_test_count,
    ali_sm4_test_count, ali_fault_test_count, ali_identity_test_count;

#endif
