/* SPDX-License-Identifier: Apache-2.0 */
#include "common/secure.h"

#include <errno.h>
#include <sodium.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define SECURE_ALIGN ((size_t)16) /* what malloc() gives on the machines we build for */

enum kms_status kms_secure_init(void)
{
    return sodium_init() < 0 ? KMS_E_INTERNAL : KMS_OK; /* 1: was ready already */
}

/*
 * sodium_malloc() lets the end of the memory touch a guard page: a size that is a multiple of the
 * alignment aligns the start. It locks and excludes from dumps as far as it can, and gives the
 * memory also when the limit forbids to lock: exclusion and guard pages need no limit.
 */
void *kms_secure_new(size_t size)
{
    size_t rounded = (size + SECURE_ALIGN - 1) & ~(SECURE_ALIGN - 1);
    void *ptr;

    if (rounded < size) {
        return NULL;
    }
    if (rounded == 0) {
        rounded = SECURE_ALIGN;
    }
    ptr = sodium_malloc(rounded);
    if (ptr != NULL) {
        sodium_memzero(ptr, rounded); /* it comes filled with 0xdb */
    }
    return ptr;
}

void kms_secure_free(void *ptr)
{
    sodium_free(ptr); /* wipes; NULL is fine */
}

/* Asked of the kernel rather than computed: what is locked already, CAP_IPC_LOCK and cgroups count
 * too. */
bool kms_secure_can_lock(size_t size)
{
    long page = sysconf(_SC_PAGESIZE);
    size_t extra = page > 0 ? (size_t)page : 4096; /* sodium_malloc()'s canary may cost a page */
    void *map;
    bool locked;

    if (size > SIZE_MAX - extra) {
        return false;
    }
    map = mmap(NULL, size + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        return false;
    }
    locked = mlock(map, size + extra) == 0;
    (void)munmap(map, size + extra);
    return locked;
}

void kms_wipe(void *ptr, size_t size)
{
    if (size > 0) {
        sodium_memzero(ptr, size);
    }
}

enum kms_status kms_random(void *ret_bytes, size_t size)
{
    if (kms_secure_init() != KMS_OK) {
        return KMS_E_INTERNAL;
    }
    randombytes_buf(ret_bytes, size);
    return KMS_OK;
}

bool kms_secret_equal(const void *a, const void *b, size_t size)
{
    return size == 0 || sodium_memcmp(a, b, size) == 0;
}

enum kms_status kms_secure_harden_process(struct kms_error *err)
{
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = 0};

    if (setrlimit(RLIMIT_CORE, &none) != 0) {
        return kms_error_set(err, KMS_E_INTERNAL, "cannot switch core dumps off: %s",
                             strerror(errno));
    }
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return kms_error_set(err, KMS_E_INTERNAL, "cannot make the process non-dumpable: %s",
                             strerror(errno));
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return kms_error_set(err, KMS_E_INTERNAL, "cannot renounce new privileges: %s",
                             strerror(errno));
    }
    return KMS_OK;
}
