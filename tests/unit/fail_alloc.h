/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the nth allocation of our own code fail. Programs that use it are linked with
 * -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup,--wrap=sodium_malloc: calls from our
 * objects go here, those inside shared libraries do not.
 */
#ifndef KMS_TESTS_UNIT_FAIL_ALLOC_H
#define KMS_TESTS_UNIT_FAIL_ALLOC_H

#include <stdbool.h>

/* The @nth allocation from now on fails, once; 0: none does. */
void fail_alloc_set(unsigned nth);
/* Switches it off; true when the failure came. */
bool fail_alloc_clear(void);

#endif
