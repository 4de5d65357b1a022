/* SPDX-License-Identifier: Apache-2.0 */
/* What kmsbridgectl advises when a call failed: in the words of the service that was asked. */
#include "tools/context.h"

#include <string.h>

#include "tests/unit/unit.h"

static void advice_fits_the_service(void)
{
    static const struct {
        const char *service, *says;
        bool is_hsm;
    } rows[] = {{"hsm", "hsm.", true},
                {"vault", "vault.", false},
                {"alibaba", "alibaba.", false},
                {NULL, "config check", false},
                {"tomorrow", "config check", false}};
    static const char *const words[] = {"hsm.", "PIN", "SOFTHSM2_CONF", "module", "device"};

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        unsigned says = 0;
        unsigned of_hsm = 0;

        for (unsigned status = KMS_OK + 1; status < KMS_STATUS_COUNT; status++) {
            struct kms_failure failure = {.service = rows[i].service};
            struct kms_call call = {.deadline_ns = 0};

            (void)kms_error_set(&call.error, (enum kms_status)status, "planted");
            CU_ASSERT_NOT_EQUAL(kms_context_call_failed(&call, &failure), KMS_EXIT_OK);
            CU_ASSERT_STRING_EQUAL(failure.error.text, "planted");
            UNIT_CHECK(kms_status_name((enum kms_status)status), failure.next[0] != '\0');
            says += strstr(failure.next, rows[i].says) != NULL ? 1u : 0u;
            for (size_t w = 0; w < UNIT_COUNT(words); w++) {
                of_hsm += strstr(failure.next, words[w]) != NULL ? 1u : 0u;
            }
        }
        UNIT_CHECK(rows[i].says, says > 1);
        UNIT_CHECK(rows[i].says, (of_hsm > 0) == rows[i].is_hsm);
    }
}

/* The statuses that an operator can do something about have advice of their own everywhere. */
static void each_service_has_advice(void)
{
    static const char *const services[] = {"hsm", "vault", "alibaba"};
    static const enum kms_status statuses[] = {KMS_E_AUTH,   KMS_E_NOT_FOUND,   KMS_E_UNAVAILABLE,
                                               KMS_E_DENIED, KMS_E_UNSUPPORTED, KMS_E_TIMEOUT};

    for (size_t i = 0; i < UNIT_COUNT(services); i++) {
        for (size_t s = 0; s < UNIT_COUNT(statuses); s++) {
            struct kms_failure failure = {.service = services[i]};
            struct kms_call call = {.deadline_ns = 0};

            (void)kms_error_set(&call.error, statuses[s], "planted");
            (void)kms_context_call_failed(&call, &failure);
            UNIT_CHECK(services[i], strstr(failure.next, "config check") == NULL);
        }
    }
}

static const struct unit_test tests[] = {
    {"advice fits the service", advice_fits_the_service},
    {"each service has advice", each_service_has_advice},
};

int main(void)
{
    return unit_main("test_context", tests, UNIT_COUNT(tests));
}
