/* SPDX-License-Identifier: Apache-2.0 */
/* A directory of the test's own below $TMPDIR or /tmp, and files in it. One per program. */
#ifndef KMS_TESTS_UNIT_SCRATCH_H
#define KMS_TESTS_UNIT_SCRATCH_H

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

/* Makes the directory; exits when that fails: nothing can be tested then. */
void scratch_init(void);
/* Removes the directory and the files in it. */
void scratch_done(void);
/* The path of @name in it; valid until the next call but three. */
const char *scratch_path(const char *name);
/* Writes the file, with exactly @mode. */
const char *scratch_file(const char *name, mode_t mode, const char *content, size_t len);
/* Files may not grow beyond @bytes: write(2) then does a part, and fails; 0: as far as they like.
 */
void scratch_limit(size_t bytes);
/* How many names are in it. */
size_t scratch_count(void);

#endif
