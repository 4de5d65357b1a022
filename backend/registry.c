/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/registry.h"

#include <string.h>

#include "backend/alibaba.h"
#include "backend/hsm.h"
#include "backend/vault.h"

static const struct kms_backend_ops *const rows[] = {
    &kms_hsm_ops,
    &kms_alibaba_ops,
    &kms_vault_ops,
};

static const char *const types[] = {"hsm", "alibaba", "vault", NULL};

_Static_assert(sizeof(rows) / sizeof(rows[0]) == sizeof(types) / sizeof(types[0]) - 1,
               "one name for each row");

const struct kms_backend_ops *kms_backend_find(const char *type)
{
    for (size_t i = 0; type != NULL && i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i]->type, type) == 0) {
            return rows[i];
        }
    }
    return NULL;
}

const char *const *kms_backend_types(void)
{
    return types;
}
