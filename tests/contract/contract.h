/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The waist's contract as tests, over whatever token the environment names:
 *   KMS_TEST_MODULE     the PKCS#11 module
 *   KMS_TEST_TOKEN      its token's label; keys are made and destroyed there
 *   KMS_TEST_TOKEN2     a second token of the module, with another serial; tests of replicas skip
 *                       without
 *   KMS_TEST_PIN        the PIN of both
 *   KMS_TEST_INIT_ARGS  pReserved, where the module wants it
 *   KMS_TEST_VAULT      instead of a module: the address of a Vault or OpenBao server, whose
 * Transit engine KMS_TEST_MOUNT ("transit") is the token, by the login token that KMS_TEST_PIN
 * holds; what is about PKCS#11 objects is left out KMS_TEST_ALIBABA    likewise: the endpoint of
 * Alibaba Cloud KMS, or of its fake, by the access key KMS_TEST_ALIBABA_KEY whose secret
 * KMS_TEST_PIN holds KMS_TEST_LACKS      what this token is known not to offer, in words ("aes-gcm
 * eddsa") What a token turns out not to offer must have been refused as unsupported. It is told
 * with the reason, and counts as skipped unless KMS_TEST_LACKS has the word.
 */
#ifndef KMS_TESTS_CONTRACT_H
#define KMS_TESTS_CONTRACT_H

#include "backend/backend_conf.h"
#include "backend/waist.h"
#include "tests/unit/unit.h"

#define FX_CIPHERTEXT_MAX (KMS_PLAINTEXT_MAX + 1024)

/* The environment. */
extern const char *fx_module, *fx_token, *fx_token2, *fx_pin, *fx_init_args;

bool fx_lacks(const char *what); /* the environment says so */
bool fx_is_service(void);        /* no PKCS#11 module */
bool fx_seals_itself(void);      /* by KMS_ALG_SEALED, and in no other way */
/* Asks the service something that changes nothing. */
enum kms_status fx_touch(struct kms_waist *waist, struct kms_call *call);
/* Prints why something is not tested; counts a skip unless @what is known to lack. */
void fx_skip(const char *what, const char *fmt, ...) KMS_PRINTF(2, 3);

/* Checks @condition; when it does not hold, prints what @call's error says. */
#define FX_CHECK(call, condition)                                                                  \
    (UNIT_CHECK("waist", condition) ? true                                                         \
                                    : (fprintf(stderr, "waist: %s\n", (call)->error.text), false))

/* A waist over the token; aborts the program when it cannot be opened. NULLs and 0: the defaults.
 */
struct kms_waist *fx_open(const char *token, const char *mechanism, unsigned sessions);
void fx_close(struct kms_waist *waist);

/* A call with ten seconds. */
struct kms_call fx_call(void);

/*
 * Makes a key with a label of its own. False, and skipped, when the token cannot; a failed test
 * when it fails in another way.
 */
bool fx_make(struct kms_waist *waist, enum kms_key_type type, unsigned bits,
             struct kms_key_info *ret_info);
void fx_destroy(struct kms_waist *waist, const char *ref);
/* A label that no other test uses; valid until the next call. */
const char *fx_label(void);

/* What encrypt makes, with its storage. */
struct fx_sealed {
    uint8_t iv[KMS_IV_MAX];
    uint8_t ciphertext[FX_CIPHERTEXT_MAX];
    struct kms_sealed sealed;
};
enum kms_status fx_seal(struct kms_waist *waist, const char *ref, enum kms_alg alg,
                        struct kms_span aad, struct kms_span plaintext, struct fx_sealed *ret);
enum kms_status fx_unseal(struct kms_waist *waist, const char *ref, const struct fx_sealed *sealed,
                          struct kms_span aad, struct kms_buf *ret_plaintext);

/* wrap and unwrap, or encrypt and decrypt, with all their parameters. */
enum kms_status fx_put(struct kms_waist *waist, const char *ref, bool wrap,
                       const struct kms_params *params, struct kms_span in, struct fx_sealed *ret);
enum kms_status fx_take(struct kms_waist *waist, const char *ref, bool wrap,
                        const struct kms_params *params, struct kms_span in, struct kms_buf *ret);
/* The one key with this label; false and a failed test when there is not one. */
bool fx_find(struct kms_waist *waist, const char *label, struct kms_key_info *ret_info);

/* ---- raw.c: PKCS#11 beside the backend, as an oracle ------------------------------------------
 */

enum fx_raw_kind { FX_RAW_AES, FX_RAW_HMAC };
/* Imports a secret key; false when the token does not let it. */
bool fx_raw_import(const char *token, enum fx_raw_kind kind, const char *label, struct kms_span tag,
                   struct kms_span value);
/* An AES key that is there for @uses (enum kms_key_use), and extractable. */
bool fx_raw_import_aes(const char *token, const char *label, struct kms_span tag,
                       struct kms_span value, unsigned uses);
/* How many objects there are in a session of the waist's own process, on the token and off it. */
unsigned long fx_raw_count_all(const char *token);
/* What the token says of the one secret (or private) key with this label and CKA_ID. */
struct fx_raw_facts {
    bool found, on_token, private, sensitive, extractable, value_readable;
};
struct fx_raw_facts fx_raw_facts(const char *token, const char *label, struct kms_span tag);
/* How many objects carry the label. */
unsigned long fx_raw_count(const char *token, const char *label);

/* ---- the tests --------------------------------------------------------------------------------
 */

extern const struct unit_test fx_seal_tests[], fx_key_tests[], fx_sign_tests[], fx_life_tests[],
    fx_cipher_tests[], fx_rsa_tests[], fx_token_tests[], fx_data_tests[], fx_type_tests[];
extern const size_t fx_seal_test_count, fx_key_test_count, fx_sign_test_count, fx_life_test_count,
    fx_cipher_test_count, fx_rsa_test_count, fx_token_test_count, fx_data_test_count,
    fx_type_test_count;

#endif
