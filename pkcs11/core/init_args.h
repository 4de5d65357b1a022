/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What C_Initialize is told: the host's CK_C_INITIALIZE_ARGS, and the environment, which is read
 * then and never again (a host may change it while other threads run).
 */
#ifndef KMS_PKCS11_CORE_INIT_ARGS_H
#define KMS_PKCS11_CORE_INIT_ARGS_H

#include <limits.h>

#include "pkcs11/pkcs11x.h"

#define KMS_INIT_ARGS_MAX 4096 /* bytes of the reserved string */

/* Empty texts: not said. */
struct kms_init_args {
    char agent[PATH_MAX];  /* agent=, $KMSBRIDGE_AGENT: the socket */
    char config[PATH_MAX]; /* config=, $KMSBRIDGE_CONFIG, the user's own file: a private agent's */
    char log[PATH_MAX];    /* log= */
};

/*
 * CKR_CANT_LOCK: callbacks without CKF_OS_LOCKING_OK; CKR_ARGUMENTS_BAD: some of the callbacks, or
 * a reserved string that is not "agent=PATH config=PATH log=SPEC", any of them, values in quotes if
 * they hold blanks. The host's word goes before the environment's.
 */
CK_RV kms_init_args_read(const CK_C_INITIALIZE_ARGS *args, struct kms_init_args *ret);

#endif
