/* SPDX-License-Identifier: Apache-2.0 */
/* The one table of key services. Each binary links the rows it has. */
#ifndef KMS_BACKEND_REGISTRY_H
#define KMS_BACKEND_REGISTRY_H

#include "backend/backend.h"

/* The ops of `type:`, or NULL. */
const struct kms_backend_ops *kms_backend_find(const char *type);
/* The types, for error texts and --help; NULL-terminated. */
const char *const *kms_backend_types(void);

#endif
