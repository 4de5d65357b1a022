/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers from text, without a guess: the whole text must be the number, in range, or it is
 * KMS_E_INVALID. */
#ifndef KMS_COMMON_NUMBERS_H
#define KMS_COMMON_NUMBERS_H

#include <stdint.h>
#include <sys/types.h>

#include "common/status.h"

/* Decimal digits only. */
enum kms_status kms_parse_u64(const char *text, uint64_t min, uint64_t max,
                              uint64_t *ret_value) KMS_MUST_CHECK;

/* "250ms", "30s", "5m", "2h", "90d" to nanoseconds; a bare number is refused, a unit is needed. */
enum kms_status kms_parse_duration(const char *text, uint64_t *ret_ns) KMS_MUST_CHECK;

/* "0600", "600": octal permission bits, at most 0777. */
enum kms_status kms_parse_mode(const char *text, mode_t *ret_mode) KMS_MUST_CHECK;

/* A user or group by name or decimal number; KMS_E_NOT_FOUND for an unknown name. */
enum kms_status kms_parse_user(const char *text, uid_t *ret_uid) KMS_MUST_CHECK;
enum kms_status kms_parse_group(const char *text, gid_t *ret_gid) KMS_MUST_CHECK;

#endif
