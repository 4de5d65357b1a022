/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which credential "auto" takes in this environment: one line "ID SECRET TOKEN" ("-" for no token),
 * or, exiting 1, why there is none. For comparing with the vendor's SDK; the keys are a test's.
 */
#include <stdio.h>
#include <stdlib.h>

#include "backend/alibaba.h"
#include "backend/alibaba_parts.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/secure.h"
#include "tests/unit/alibaba_plain.h"

static int tell(struct kms_backend *b)
{
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(20 * KMS_NS_PER_S)};
    const struct kms_credential_value *value = NULL;
    struct kms_error err = KMS_ERROR_INIT;

    if (kms_credential_get(b->credential, &wait, &value, &err) != KMS_OK) {
        printf("%s\n", err.text);
        return EXIT_FAILURE;
    }
    printf("%s %s %s\n", value->part[KMS_ALI_KEY_ID], value->part[KMS_ALI_SECRET],
           value->part[KMS_ALI_TOKEN] == NULL ? "-" : value->part[KMS_ALI_TOKEN]);
    kms_credential_give(b->credential, value);
    return EXIT_SUCCESS;
}

int main(void)
{
    struct kms_alibaba_conf settings;
    struct kms_backend_conf conf;
    struct kms_backend *b = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    int code = EXIT_FAILURE;

    kms_log_setup(2, KMS_LOG_ERROR, KMS_LOG_TEXT);
    alibaba_plain(&settings, &conf);
    settings.credentials = settings.access_key_id = settings.access_key_secret = NULL;
    settings.session_seconds = 3600; /* kmsbridge.yaml's default */
    if (kms_secure_init() != KMS_OK || kms_alibaba_ops.open(&conf, &b, &err) != KMS_OK) {
        printf("%s\n", err.text);
        return EXIT_FAILURE;
    }
    code = tell(b);
    kms_alibaba_ops.close(b);
    return code;
}
