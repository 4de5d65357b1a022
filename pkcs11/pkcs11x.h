/* SPDX-License-Identifier: Apache-2.0 */
/*
 * p11-kit's pkcs11.h, which stops at 2.40, and what PKCS#11 3.0 adds to it as far as we use it
 * (OASIS pkcs11-base-v3.0 and pkcs11-curr-v3.0, constants of their appendices).
 */
#ifndef KMS_PKCS11_PKCS11X_H
#define KMS_PKCS11_PKCS11X_H

#include <p11-kit/pkcs11.h>

#include "pkcs11/kmsbridge-pkcs11.h"

#ifndef CKA_UNIQUE_ID
#define CKA_UNIQUE_ID         0x00000004UL
#define CKA_PROFILE_ID        0x00000601UL
#define CKO_PROFILE           0x00000009UL
#define CKP_BASELINE_PROVIDER 0x00000001UL
#define CKP_EXTENDED_PROVIDER 0x00000002UL
#endif

#ifndef CKK_HKDF
#define CKK_HKDF 0x00000042UL
#endif

#ifndef CKM_HKDF_DERIVE
#define CKM_HKDF_DERIVE  0x0000402aUL
#define CKM_HKDF_DATA    0x0000402bUL
#define CKM_HKDF_KEY_GEN 0x0000402cUL
#endif
#ifndef CKM_AES_KEY_WRAP_KWP
#define CKM_AES_KEY_WRAP_KWP 0x0000210bUL
#endif

#ifndef CKR_AEAD_DECRYPT_FAILED
#define CKR_AEAD_DECRYPT_FAILED     0x00000042UL
#define CKR_OPERATION_CANCEL_FAILED 0x00000202UL
#define CKR_KEY_EXHAUSTED           0x00000203UL
#endif

#ifndef CKF_MESSAGE_ENCRYPT
#define CKF_MESSAGE_ENCRYPT     0x00000002UL
#define CKF_MESSAGE_DECRYPT     0x00000004UL
#define CKF_MESSAGE_SIGN        0x00000008UL
#define CKF_MESSAGE_VERIFY      0x00000010UL
#define CKF_MULTI_MESSAGE       0x00000020UL
#define CKF_FIND_OBJECTS        0x00000040UL
#define CKF_EC_CURVENAME        0x04000000UL
#define CKF_INTERFACE_FORK_SAFE 0x00000001UL
#define CKF_END_OF_MESSAGE      0x00000001UL
#endif

#ifndef CK_EC_KDF_TYPE
typedef CK_ULONG CK_EC_KDF_TYPE; /* not in p11-kit's header */
#endif

typedef unsigned long CK_MAC_GENERAL_PARAMS_X; /* CK_MAC_GENERAL_PARAMS: not in p11-kit's header */

#ifndef CKG_NO_GENERATE
#define CKG_NO_GENERATE          0x00000000UL
#define CKG_GENERATE             0x00000001UL
#define CKG_GENERATE_COUNTER     0x00000002UL
#define CKG_GENERATE_RANDOM      0x00000003UL
#define CKG_GENERATE_COUNTER_XOR 0x00000004UL
typedef CK_ULONG CK_GENERATOR_FUNCTION;
typedef struct {
    CK_BYTE_PTR pIv;
    CK_ULONG ulIvLen;
    CK_ULONG ulIvFixedBits;
    CK_GENERATOR_FUNCTION ivGenerator;
    CK_BYTE_PTR pTag;
    CK_ULONG ulTagBits;
} CK_GCM_MESSAGE_PARAMS;
#endif

#ifndef CKF_HKDF_SALT_NULL
#define CKF_HKDF_SALT_NULL 0x00000001UL
#define CKF_HKDF_SALT_DATA 0x00000002UL
#define CKF_HKDF_SALT_KEY  0x00000004UL
typedef struct {
    CK_BBOOL bExtract;
    CK_BBOOL bExpand;
    CK_MECHANISM_TYPE prfHashMechanism;
    CK_ULONG ulSaltType;
    CK_BYTE_PTR pSalt;
    CK_ULONG ulSaltLen;
    CK_OBJECT_HANDLE hSaltKey;
    CK_BYTE_PTR pInfo;
    CK_ULONG ulInfoLen;
} CK_HKDF_PARAMS;
typedef struct {
    CK_BBOOL phFlag;
    CK_ULONG ulContextDataLen;
    CK_BYTE_PTR pContextData;
} CK_EDDSA_PARAMS;
#endif

#endif
