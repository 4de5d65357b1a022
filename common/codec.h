/* SPDX-License-Identifier: Apache-2.0 */
/* Text forms of bytes (libsodium's codecs, RFC 4648) and checks of text. */
#ifndef KMS_COMMON_CODEC_H
#define KMS_COMMON_CODEC_H

#include <stdbool.h>

#include "common/span.h"

/* Lower-case hex of @bytes with NUL into @ret_text; KMS_E_TOO_LARGE unless @size >= 2 * len + 1. */
enum kms_status kms_hex_encode(struct kms_span bytes, char *ret_text, size_t size) KMS_MUST_CHECK;

/* Hex, either case, even length, nothing else; appended to @out. KMS_E_BAD_DATA, KMS_E_TOO_LARGE.
 */
enum kms_status kms_hex_decode(struct kms_span text, struct kms_buf *out) KMS_MUST_CHECK;

/* Standard base64 with padding and NUL; KMS_E_TOO_LARGE. */
enum kms_status kms_base64_encode(struct kms_span bytes, char *ret_text,
                                  size_t size) KMS_MUST_CHECK;
enum kms_status kms_base64_decode(struct kms_span text, struct kms_buf *out) KMS_MUST_CHECK;

/* Well-formed UTF-8 (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF) without NUL.
 */
bool kms_utf8_valid(struct kms_span text);

/* Bytes of the well-formed UTF-8 character (not NUL) that @text begins with; 0 when it does not. */
size_t kms_utf8_next(struct kms_span text);

#endif
