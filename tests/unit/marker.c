/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/marker.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/secure.h"
#include "tests/unit/unit.h"

#define HIDDEN 0x2a
static const char marker[MARKER_LEN + 1] = "Zfxc^orkCf^oGKxaox"; /* with HIDDEN over each byte */

static bool holds_marker(const unsigned char *bytes, size_t len)
{
    const unsigned char *at = bytes;
    const unsigned char *end = bytes + len;

    while ((at = memchr(at, marker[0] ^ HIDDEN, (size_t)(end - at))) != NULL) {
        size_t same = 0;

        while (same < MARKER_LEN && at + same < end &&
               at[same] == ((unsigned char)marker[same] ^ HIDDEN)) {
            same++;
        }
        if (same == MARKER_LEN) {
            return true;
        }
        at++;
    }
    return false;
}

bool marker_is_left(void)
{
    static unsigned char bytes[1u << 16];
    FILE *maps = fopen("/proc/self/maps", "re");
    FILE *mem = fopen("/proc/self/mem", "rbe");
    char line[512];
    bool found = false;

    CU_ASSERT_FATAL(maps != NULL && mem != NULL);
    while (!found && fgets(line, sizeof(line), maps) != NULL) {
        unsigned long from = 0;
        unsigned long to = 0;

        if (sscanf(line, "%lx-%lx rw", &from, &to) != 2 || strstr(line, " rw-p ") == NULL ||
            to - from > 64ul << 20) {
            continue;
        }
        for (; !found && from < to; from += sizeof(bytes) - sizeof(marker)) {
            size_t want_len = to - from < sizeof(bytes) ? to - from : sizeof(bytes);

            if (pread(fileno(mem), bytes, want_len, (off_t)from) == (ssize_t)want_len) {
                found = holds_marker(bytes, want_len);
            }
            kms_wipe(bytes, sizeof(bytes));
        }
    }
    (void)fclose(maps);
    (void)fclose(mem);
    return found;
}

void marker_put(char *at)
{
    for (size_t i = 0; i < MARKER_LEN; i++) {
        at[i] = (char)(marker[i] ^ HIDDEN);
    }
    at[MARKER_LEN] = '\0';
}
