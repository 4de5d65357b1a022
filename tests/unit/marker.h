/* SPDX-License-Identifier: Apache-2.0 */
/* A text that stands in none of our memory but where marker_put() has put it, and what was made of
 * that: found in our own memory, all of it. */
#ifndef KMS_TESTS_UNIT_MARKER_H
#define KMS_TESTS_UNIT_MARKER_H

#include <stdbool.h>

#define MARKER_LEN 18

void marker_put(char *at); /* with NUL */
/* Whether it is in any of our writable memory; mappings that are larger than 64 MiB are a
 * sanitizer's, and are not looked at. */
bool marker_is_left(void);

#endif
