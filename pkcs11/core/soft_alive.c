/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/soft_alive.h"

#include <openssl/crypto.h>
#include <openssl/err.h>

bool kms_soft_alive(void)
{
    bool alive = false;

    (void)ERR_set_mark();
    alive =
        OPENSSL_init_crypto(0, NULL) == 1; /* 0 once it is cleaned up (OPENSSL_init_crypto(3)) */
    (void)ERR_pop_to_mark();
    return alive;
}
