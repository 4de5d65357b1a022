/* SPDX-License-Identifier: Apache-2.0 */
/* Time: monotonic nanoseconds for deadlines and latencies, wall time for people. Thread-safe. */
#ifndef KMS_COMMON_CLOCK_H
#define KMS_COMMON_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KMS_NS_PER_US     UINT64_C(1000)
#define KMS_NS_PER_MS     UINT64_C(1000000)
#define KMS_NS_PER_S      UINT64_C(1000000000)
#define KMS_DEADLINE_NONE UINT64_MAX /* only where the caller waits for the process's own end */

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t kms_now_ns(void);

/* CLOCK_REALTIME in milliseconds since 1970. */
uint64_t kms_wall_ms(void);

/* RFC 3339 in UTC with milliseconds and NUL: "2026-11-22T07:05:49.123Z"; @size at least 25. */
void kms_wall_text(uint64_t wall_ms, char *ret_text, size_t size);

/* now + @ns, saturating at KMS_DEADLINE_NONE. */
uint64_t kms_deadline_in(uint64_t ns);
bool kms_deadline_passed(uint64_t deadline_ns);
/* Nanoseconds left, 0 when passed. */
uint64_t kms_deadline_left(uint64_t deadline_ns);

/* Anywhere from @low to @high, both included: so that a fleet does not come back in step. Not for
 * secrets. */
uint64_t kms_jitter(uint64_t low, uint64_t high);

#endif
