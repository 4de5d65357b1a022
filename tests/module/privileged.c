/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that runs with more rights than its caller, as sudo and ssh-keysign do, and loads a
 * PKCS#11 module: prints `token LABEL` for each that it sees. privileged.sh makes it setuid.
 *
 *   privileged MODULE [RESERVED]    RESERVED: C_Initialize's pReserved, the program's own word
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

#include "pkcs11/pkcs11x.h"

#define SLOTS 16

static bool show(const CK_FUNCTION_LIST *f)
{
    CK_SLOT_ID slots[SLOTS];
    CK_ULONG count = SLOTS;
    CK_TOKEN_INFO info;
    CK_RV rv = f->C_GetSlotList(CK_TRUE, slots, &count);

    for (CK_ULONG i = 0; rv == CKR_OK && i < count; i++) {
        rv = f->C_GetTokenInfo(slots[i], &info);
        if (rv == CKR_OK) {
            printf("token %.32s\n", (const char *)info.label);
        }
    }
    return rv == CKR_OK;
}

int main(int argc, char **argv)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK,
                                 .pReserved = argc > 2 ? argv[2] : NULL};
    CK_FUNCTION_LIST *f = NULL;
    CK_C_GetFunctionList get = NULL;
    void *module = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;

    if (module == NULL) {
        fprintf(stderr, "privileged: %s\n", argc > 1 ? dlerror() : "which module?");
        return EXIT_FAILURE;
    }
    *(void **)&get = dlsym(module, "C_GetFunctionList");
    if (get == NULL || get(&f) != CKR_OK || f->C_Initialize(&args) != CKR_OK) {
        fprintf(stderr, "privileged: C_Initialize failed\n");
        return EXIT_FAILURE;
    }
    printf("secure %lu\n", getauxval(AT_SECURE));
    return show(f) && f->C_Finalize(NULL) == CKR_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
