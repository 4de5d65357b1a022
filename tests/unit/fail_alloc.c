/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fail_alloc.h"

#include <stddef.h>

static _Thread_local unsigned countdown; /* of the thread that set it: fakes have others */
static _Thread_local bool came;

void *__wrap_malloc(size_t size);
void *__real_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_realloc(void *ptr, size_t size);
void *__real_realloc(void *ptr, size_t size);
char *__wrap_strdup(const char *text);
char *__real_strdup(const char *text);
void *__wrap_sodium_malloc(size_t size);
void *__real_sodium_malloc(size_t size);

void fail_alloc_set(unsigned nth)
{
    countdown = nth;
    came = false;
}

bool fail_alloc_clear(void)
{
    countdown = 0;
    return came;
}

static bool fails_now(void)
{
    if (countdown == 0 || --countdown > 0) {
        return false;
    }
    came = true;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *ptr, size_t size)
{
    return fails_now() ? NULL : __real_realloc(ptr, size);
}

char *__wrap_strdup(const char *text)
{
    return fails_now() ? NULL : __real_strdup(text);
}

void *__wrap_sodium_malloc(size_t size)
{
    return fails_now() ? NULL : __real_sodium_malloc(size);
}
