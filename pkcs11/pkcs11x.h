/* SPDX-License-Identifier: Apache-2.0 */
/*
 * p11-kit's pkcs11.h, which stops at 2.40, and what PKCS#11 3.0 adds to it as far as we use it
 * (OASIS pkcs11-base-v3.0 and pkcs11-curr-v3.0, constants of their appendices).
 */
#ifndef KMS_PKCS11_PKCS11X_H
#define KMS_PKCS11_PKCS11X_H

/* C_ functions are what leaves the module, which is compiled with -fvisibility=hidden. */
#pragma GCC visibility push(default)
#include <p11-kit/pkcs11.h>

#include "pkcs11/kmsbridge-pkcs11.h"

#ifndef CKA_UNIQUE_ID
#define CKA_UNIQUE_ID         0x00000004UL
#define CKA_PROFILE_ID        0x00000601UL
#define CKO_PROFILE           0x00000009UL
#define CKP_BASELINE_PROVIDER 0x00000001UL
#define CKP_EXTENDED_PROVIDER 0x00000002UL
#endif

#ifndef CKK_CHACHA20
#define CKK_CHACHA20 0x00000033UL
#endif
#ifndef CKM_CHACHA20_KEY_GEN
#define CKM_CHACHA20_KEY_GEN  0x00001225UL
#define CKM_CHACHA20_POLY1305 0x00004021UL
typedef struct {
    CK_BYTE_PTR pNonce;
    CK_ULONG ulNonceLen;
    CK_BYTE_PTR pAAD;
    CK_ULONG ulAADLen;
} CK_SALSA20_CHACHA20_POLY1305_PARAMS;
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

/*
 * Interfaces and the functions of 3.0 (5.4.4 to 5.4.6, 5.6.8, 5.8, 5.9, 5.11, 5.14, 5.16), in the
 * order of its function list.
 */
#if CRYPTOKI_VERSION_MAJOR < 3
typedef struct CK_INTERFACE {
    CK_CHAR *pInterfaceName;
    CK_VOID_PTR pFunctionList;
    CK_FLAGS flags;
} CK_INTERFACE;
typedef CK_INTERFACE *CK_INTERFACE_PTR;
typedef CK_INTERFACE_PTR *CK_INTERFACE_PTR_PTR;

#define KMS_CK_FUNCTION(name, args)                                                                \
    typedef CK_RV(*CK_##name) args;                                                                \
    CK_RV name args

KMS_CK_FUNCTION(C_GetInterfaceList, (CK_INTERFACE_PTR interfaces, CK_ULONG_PTR count));
KMS_CK_FUNCTION(C_GetInterface, (CK_UTF8CHAR_PTR name, CK_VERSION_PTR version,
                                 CK_INTERFACE_PTR_PTR ret_interface, CK_FLAGS flags));
KMS_CK_FUNCTION(C_LoginUser, (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_CHAR_PTR pin,
                              CK_ULONG pin_len, CK_UTF8CHAR_PTR username, CK_ULONG username_len));
KMS_CK_FUNCTION(C_SessionCancel, (CK_SESSION_HANDLE session, CK_FLAGS flags));
KMS_CK_FUNCTION(C_MessageEncryptInit,
                (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key));
KMS_CK_FUNCTION(C_EncryptMessage,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR aad,
                 CK_ULONG aad_len, CK_BYTE_PTR plaintext, CK_ULONG plaintext_len,
                 CK_BYTE_PTR ciphertext, CK_ULONG_PTR ciphertext_len));
KMS_CK_FUNCTION(C_EncryptMessageBegin, (CK_SESSION_HANDLE session, CK_VOID_PTR param,
                                        CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len));
KMS_CK_FUNCTION(C_EncryptMessageNext,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR part,
                 CK_ULONG part_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len, CK_FLAGS flags));
KMS_CK_FUNCTION(C_MessageEncryptFinal, (CK_SESSION_HANDLE session));
KMS_CK_FUNCTION(C_MessageDecryptInit,
                (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key));
KMS_CK_FUNCTION(C_DecryptMessage,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR aad,
                 CK_ULONG aad_len, CK_BYTE_PTR ciphertext, CK_ULONG ciphertext_len,
                 CK_BYTE_PTR plaintext, CK_ULONG_PTR plaintext_len));
KMS_CK_FUNCTION(C_DecryptMessageBegin, (CK_SESSION_HANDLE session, CK_VOID_PTR param,
                                        CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len));
KMS_CK_FUNCTION(C_DecryptMessageNext,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR part,
                 CK_ULONG part_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len, CK_FLAGS flags));
KMS_CK_FUNCTION(C_MessageDecryptFinal, (CK_SESSION_HANDLE session));
KMS_CK_FUNCTION(C_MessageSignInit,
                (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key));
KMS_CK_FUNCTION(C_SignMessage,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR data,
                 CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG_PTR signature_len));
KMS_CK_FUNCTION(C_SignMessageBegin,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len));
KMS_CK_FUNCTION(C_SignMessageNext,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR data,
                 CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG_PTR signature_len));
KMS_CK_FUNCTION(C_MessageSignFinal, (CK_SESSION_HANDLE session));
KMS_CK_FUNCTION(C_MessageVerifyInit,
                (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key));
KMS_CK_FUNCTION(C_VerifyMessage,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR data,
                 CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG signature_len));
KMS_CK_FUNCTION(C_VerifyMessageBegin,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len));
KMS_CK_FUNCTION(C_VerifyMessageNext,
                (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR data,
                 CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG signature_len));
KMS_CK_FUNCTION(C_MessageVerifyFinal, (CK_SESSION_HANDLE session));
#undef KMS_CK_FUNCTION

typedef struct CK_FUNCTION_LIST_3_0 {
    CK_VERSION version;
    CK_C_Initialize C_Initialize;
    CK_C_Finalize C_Finalize;
    CK_C_GetInfo C_GetInfo;
    CK_C_GetFunctionList C_GetFunctionList;
    CK_C_GetSlotList C_GetSlotList;
    CK_C_GetSlotInfo C_GetSlotInfo;
    CK_C_GetTokenInfo C_GetTokenInfo;
    CK_C_GetMechanismList C_GetMechanismList;
    CK_C_GetMechanismInfo C_GetMechanismInfo;
    CK_C_InitToken C_InitToken;
    CK_C_InitPIN C_InitPIN;
    CK_C_SetPIN C_SetPIN;
    CK_C_OpenSession C_OpenSession;
    CK_C_CloseSession C_CloseSession;
    CK_C_CloseAllSessions C_CloseAllSessions;
    CK_C_GetSessionInfo C_GetSessionInfo;
    CK_C_GetOperationState C_GetOperationState;
    CK_C_SetOperationState C_SetOperationState;
    CK_C_Login C_Login;
    CK_C_Logout C_Logout;
    CK_C_CreateObject C_CreateObject;
    CK_C_CopyObject C_CopyObject;
    CK_C_DestroyObject C_DestroyObject;
    CK_C_GetObjectSize C_GetObjectSize;
    CK_C_GetAttributeValue C_GetAttributeValue;
    CK_C_SetAttributeValue C_SetAttributeValue;
    CK_C_FindObjectsInit C_FindObjectsInit;
    CK_C_FindObjects C_FindObjects;
    CK_C_FindObjectsFinal C_FindObjectsFinal;
    CK_C_EncryptInit C_EncryptInit;
    CK_C_Encrypt C_Encrypt;
    CK_C_EncryptUpdate C_EncryptUpdate;
    CK_C_EncryptFinal C_EncryptFinal;
    CK_C_DecryptInit C_DecryptInit;
    CK_C_Decrypt C_Decrypt;
    CK_C_DecryptUpdate C_DecryptUpdate;
    CK_C_DecryptFinal C_DecryptFinal;
    CK_C_DigestInit C_DigestInit;
    CK_C_Digest C_Digest;
    CK_C_DigestUpdate C_DigestUpdate;
    CK_C_DigestKey C_DigestKey;
    CK_C_DigestFinal C_DigestFinal;
    CK_C_SignInit C_SignInit;
    CK_C_Sign C_Sign;
    CK_C_SignUpdate C_SignUpdate;
    CK_C_SignFinal C_SignFinal;
    CK_C_SignRecoverInit C_SignRecoverInit;
    CK_C_SignRecover C_SignRecover;
    CK_C_VerifyInit C_VerifyInit;
    CK_C_Verify C_Verify;
    CK_C_VerifyUpdate C_VerifyUpdate;
    CK_C_VerifyFinal C_VerifyFinal;
    CK_C_VerifyRecoverInit C_VerifyRecoverInit;
    CK_C_VerifyRecover C_VerifyRecover;
    CK_C_DigestEncryptUpdate C_DigestEncryptUpdate;
    CK_C_DecryptDigestUpdate C_DecryptDigestUpdate;
    CK_C_SignEncryptUpdate C_SignEncryptUpdate;
    CK_C_DecryptVerifyUpdate C_DecryptVerifyUpdate;
    CK_C_GenerateKey C_GenerateKey;
    CK_C_GenerateKeyPair C_GenerateKeyPair;
    CK_C_WrapKey C_WrapKey;
    CK_C_UnwrapKey C_UnwrapKey;
    CK_C_DeriveKey C_DeriveKey;
    CK_C_SeedRandom C_SeedRandom;
    CK_C_GenerateRandom C_GenerateRandom;
    CK_C_GetFunctionStatus C_GetFunctionStatus;
    CK_C_CancelFunction C_CancelFunction;
    CK_C_WaitForSlotEvent C_WaitForSlotEvent;
    CK_C_GetInterfaceList C_GetInterfaceList;
    CK_C_GetInterface C_GetInterface;
    CK_C_LoginUser C_LoginUser;
    CK_C_SessionCancel C_SessionCancel;
    CK_C_MessageEncryptInit C_MessageEncryptInit;
    CK_C_EncryptMessage C_EncryptMessage;
    CK_C_EncryptMessageBegin C_EncryptMessageBegin;
    CK_C_EncryptMessageNext C_EncryptMessageNext;
    CK_C_MessageEncryptFinal C_MessageEncryptFinal;
    CK_C_MessageDecryptInit C_MessageDecryptInit;
    CK_C_DecryptMessage C_DecryptMessage;
    CK_C_DecryptMessageBegin C_DecryptMessageBegin;
    CK_C_DecryptMessageNext C_DecryptMessageNext;
    CK_C_MessageDecryptFinal C_MessageDecryptFinal;
    CK_C_MessageSignInit C_MessageSignInit;
    CK_C_SignMessage C_SignMessage;
    CK_C_SignMessageBegin C_SignMessageBegin;
    CK_C_SignMessageNext C_SignMessageNext;
    CK_C_MessageSignFinal C_MessageSignFinal;
    CK_C_MessageVerifyInit C_MessageVerifyInit;
    CK_C_VerifyMessage C_VerifyMessage;
    CK_C_VerifyMessageBegin C_VerifyMessageBegin;
    CK_C_VerifyMessageNext C_VerifyMessageNext;
    CK_C_MessageVerifyFinal C_MessageVerifyFinal;
} CK_FUNCTION_LIST_3_0;
typedef CK_FUNCTION_LIST_3_0 *CK_FUNCTION_LIST_3_0_PTR;
#endif
#pragma GCC visibility pop

#endif
