/* SPDX-License-Identifier: Apache-2.0 */
#include "common/clock.h"

#include <stdio.h>
#include <sys/random.h>
#include <time.h>

/* Neither clock can fail on Linux: both exist, and the pointer is good. */
uint64_t kms_now_ns(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * KMS_NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t kms_wall_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / KMS_NS_PER_MS;
}

void kms_wall_text(uint64_t wall_ms, char *ret_text, size_t size)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm = {0};
    char date[32] = "";

    if (gmtime_r(&seconds, &tm) != NULL) {
        (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    }
    (void)snprintf(ret_text, size, "%s.%03uZ", date, (unsigned)(wall_ms % 1000));
}

uint64_t kms_deadline_in(uint64_t ns)
{
    uint64_t now = kms_now_ns();

    return ns > KMS_DEADLINE_NONE - now ? KMS_DEADLINE_NONE : now + ns;
}

bool kms_deadline_passed(uint64_t deadline_ns)
{
    return kms_deadline_left(deadline_ns) == 0;
}

uint64_t kms_deadline_left(uint64_t deadline_ns)
{
    uint64_t now;

    if (deadline_ns == KMS_DEADLINE_NONE) {
        return KMS_DEADLINE_NONE;
    }
    now = kms_now_ns();
    return deadline_ns > now ? deadline_ns - now : 0;
}

uint64_t kms_jitter(uint64_t low, uint64_t high)
{
    uint64_t random = 0;

    if (high <= low || getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        return high < low ? low : high;
    }
    return high - low == UINT64_MAX ? random : low + random % (high - low + 1);
}
