/* SPDX-License-Identifier: Apache-2.0 */
/* RFC 7512 pkcs11: URIs, by libp11-kit's parser. Pure. */
#ifndef KMS_BACKEND_P11_URI_H
#define KMS_BACKEND_P11_URI_H

#include <stddef.h>

#include "backend/p11/p11.h"
#include "common/span.h"

struct kms_p11_uri;

bool kms_p11_is_uri(const char *text);

/* KMS_E_INVALID says what is wrong. A pin-value is refused: PINs are referred to, never written. */
enum kms_status kms_p11_uri_parse(const char *text, struct kms_p11_uri **ret_uri,
                                  struct kms_error *err) KMS_MUST_CHECK;
void kms_p11_uri_free(struct kms_p11_uri *uri);

/* What the URI does not say matches anything. */
bool kms_p11_uri_matches_token(const struct kms_p11_uri *uri, const CK_TOKEN_INFO *info);
/* The URI's object= or id=; false when it has none. Borrowed. */
bool kms_p11_uri_object(struct kms_p11_uri *uri, CK_ATTRIBUTE_TYPE type, const void **ret_value,
                        size_t *ret_len);

/*
 * "pkcs11:token=...;id=...;object=...;type=..." of an object, with NUL. What makes it longer than
 * @size is left out, the label first; ends as "" when nothing fits.
 */
void kms_p11_uri_format(const CK_TOKEN_INFO *token, CK_OBJECT_CLASS class, const char *label,
                        struct kms_span id, char *ret_text, size_t size);

#endif
