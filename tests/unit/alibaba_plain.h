/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of an `alibaba` backend whose doors a test makes itself. */
#ifndef TESTS_UNIT_ALIBABA_PLAIN_H
#define TESTS_UNIT_ALIBABA_PLAIN_H

#include <stdint.h>

#include "backend/backend_conf.h"

static inline char *unconst(const char *text)
{
    return (char *)(uintptr_t)text;
}

/* The access key's secret is what TEST_ALI_SECRET holds. */
static inline void alibaba_plain(struct kms_alibaba_conf *settings, struct kms_backend_conf *conf)
{
    *settings = (struct kms_alibaba_conf){.region = unconst("cn-test"),
                                          .credentials = unconst("access_key"),
                                          .access_key_id = unconst("ID"),
                                          .access_key_secret = unconst("env:TEST_ALI_SECRET"),
                                          .deletion_days = 7};
    *conf = (struct kms_backend_conf){
        .name = unconst("a"), .type = unconst("alibaba"), .alibaba = settings};
}

#endif
