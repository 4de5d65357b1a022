/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an application does with a KEK in a key service, through the module and nothing else:
 *
 *   envelope MODULE LABEL WHAT [FILE [AAD]]
 *
 *   seal FILE       a session key made here encrypts a megabyte; the KEK wraps it
 *   open FILE       in another process: unwraps, decrypts, compares; what was altered is refused
 *   datakey FILE    as seal, with a key that CKM_KMSBRIDGE_DATA_KEY_GEN made and wrapped at once;
 *                   open opens it
 *   message         the message API: the service makes the IV
 *   mac FILE        CKM_SHA256_HMAC of FILE's 3000 bytes by C_Sign, at once and in parts; C_Verify
 *                   finds another text and MAC out
 *   rotate COMMAND  a session that goes on while COMMAND has the service rotate the KEK: the same
 *                   object by the same CKA_ID, which encrypts under another version and opens what
 *                   the former sealed
 *   chacha FILE     FILE is nonce, ciphertext and tag of "hello chacha" with the AAD "aad":
 *                   CKM_CHACHA20_POLY1305 opens it, and that alone
 *
 * AAD is for seal, datakey and open, if not the usual one.
 *
 * Prints "ok: WHAT" for each thing that held, "FAIL: WHAT" and exits with 1 at the first that did
 * not.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pkcs11/pkcs11x.h"

enum { BULK = 1024 * 1024, TAG = 16, IV = 12, WRAPPED_MAX = 2048 };

static CK_FUNCTION_LIST *p11;
static void *library;
static CK_SESSION_HANDLE session;
static CK_OBJECT_HANDLE kek;

struct stored {
    CK_ULONG wrapped_len;
    CK_BYTE wrapped[WRAPPED_MAX];
    CK_BYTE iv[IV];
    CK_BYTE bulk[BULK + TAG];
};

static void check(const char *what, bool held, CK_RV rv)
{
    printf("%s: %s (0x%lx)\n", held ? "ok" : "FAIL", what, rv);
    if (!held) {
        exit(1);
    }
}
#define OK(what, call)                                                                             \
    do {                                                                                           \
        CK_RV rv_ = (call);                                                                        \
        check(what, rv_ == CKR_OK, rv_);                                                           \
    } while (0)
#define REFUSED(what, call)                                                                        \
    do {                                                                                           \
        CK_RV rv_ = (call);                                                                        \
        check(what, rv_ != CKR_OK && rv_ != CKR_DEVICE_ERROR && rv_ != CKR_GENERAL_ERROR, rv_);    \
    } while (0)

static void open_module(const char *module, char *label)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ATTRIBUTE find[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_LABEL, label, strlen(label)}};
    CK_C_GetFunctionList list = NULL;
    CK_SLOT_ID slots[8];
    CK_ULONG count = 8;

    library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
    *(void **)&list = dlsym(library, "C_GetFunctionList");
    OK("C_GetFunctionList", list(&p11));
    OK("C_Initialize", p11->C_Initialize(&args));
    OK("C_GetSlotList", p11->C_GetSlotList(CK_TRUE, slots, &count));
    check("a token", count == 1, count);
    OK("C_OpenSession", p11->C_OpenSession(slots[0], CKF_SERIAL_SESSION, NULL, NULL, &session));
    OK("C_FindObjectsInit", p11->C_FindObjectsInit(session, find, 2));
    OK("C_FindObjects", p11->C_FindObjects(session, &kek, 1, &count));
    OK("C_FindObjectsFinal", p11->C_FindObjectsFinal(session));
    check("the KEK", count == 1, count);
}

static void fill(CK_BYTE *bytes)
{
    for (size_t i = 0; i < BULK; i++) {
        bytes[i] = (CK_BYTE)(i * 31 + (i >> 8));
    }
}

static CK_MECHANISM gcm(CK_GCM_PARAMS *params, CK_BYTE *iv)
{
    *params = (CK_GCM_PARAMS){.iv_ptr = iv, .iv_len = IV, .iv_bits = 8 * IV, .tag_bits = 8 * TAG};
    return (CK_MECHANISM){CKM_AES_GCM, params, sizeof(*params)};
}

static CK_MECHANISM sealed(CK_KMSBRIDGE_SEALED_PARAMS *params, char *aad)
{
    *params = (CK_KMSBRIDGE_SEALED_PARAMS){.pAAD = (CK_BYTE *)aad, .ulAADLen = strlen(aad)};
    return (CK_MECHANISM){CKM_KMSBRIDGE_SEALED, params, sizeof(*params)};
}

/* What the key is bound to, unless the command line says otherwise. */
static char *bound_to(int argc, char **argv)
{
    static char usual[] = "backup 7 of db-1";

    return argc > 5 ? argv[5] : usual;
}

/* A session key of 32 bytes under the KEK, and its wrapped form to @stored. */
static CK_OBJECT_HANDLE new_data_key(struct stored *stored, char *aad)
{
    CK_BBOOL no = CK_FALSE;
    CK_BBOOL yes = CK_TRUE;
    CK_ULONG size = 32;
    CK_ATTRIBUTE tmpl[] = {{CKA_TOKEN, &no, sizeof(no)},
                           {CKA_SENSITIVE, &yes, sizeof(yes)},
                           {CKA_VALUE_LEN, &size, sizeof(size)}};
    CK_KMSBRIDGE_DATA_KEY_PARAMS params = {0, kek, (CK_BYTE *)aad, strlen(aad)};
    CK_MECHANISM make = {CKM_KMSBRIDGE_DATA_KEY_GEN, &params, sizeof(params)};
    CK_ATTRIBUTE get = {CKA_KMSBRIDGE_WRAPPED_VALUE, NULL, 0};
    CK_ATTRIBUTE value = {CKA_VALUE, NULL, 0};
    CK_OBJECT_HANDLE key = 0;

    OK("C_GenerateKey with its wrapped form",
       p11->C_GenerateKey(session, &make, tmpl, sizeof(tmpl) / sizeof(tmpl[0]), &key));
    OK("how long that is", p11->C_GetAttributeValue(session, key, &get, 1));
    check("... it fits", get.ulValueLen <= sizeof(stored->wrapped), get.ulValueLen);
    get.pValue = stored->wrapped;
    OK("CKA_KMSBRIDGE_WRAPPED_VALUE", p11->C_GetAttributeValue(session, key, &get, 1));
    stored->wrapped_len = get.ulValueLen;
    REFUSED("its value is not shown", p11->C_GetAttributeValue(session, key, &value, 1));
    return key;
}

static CK_OBJECT_HANDLE new_key_to_wrap(void)
{
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ULONG size = 32;
    CK_ATTRIBUTE tmpl[] = {{CKA_TOKEN, &no, sizeof(no)},
                           {CKA_EXTRACTABLE, &yes, sizeof(yes)},
                           {CKA_ENCRYPT, &yes, sizeof(yes)},
                           {CKA_VALUE_LEN, &size, sizeof(size)}};
    CK_MECHANISM make = {CKM_AES_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE key = 0;

    OK("C_GenerateKey", p11->C_GenerateKey(session, &make, tmpl, 4, &key));
    return key;
}

static void seal(const char *name, bool by_data_key, char *aad)
{
    static struct stored stored;
    static CK_BYTE plain[BULK];
    CK_GCM_PARAMS params;
    CK_KMSBRIDGE_SEALED_PARAMS sealing;
    CK_MECHANISM bulk = gcm(&params, stored.iv);
    CK_MECHANISM wrap = sealed(&sealing, aad);
    CK_OBJECT_HANDLE key = 0;
    CK_ULONG len = sizeof(stored.bulk);
    FILE *file = fopen(name, "we");

    fill(plain);
    key = by_data_key ? new_data_key(&stored, aad) : new_key_to_wrap();
    OK("C_GenerateRandom", p11->C_GenerateRandom(session, stored.iv, IV));
    OK("C_EncryptInit", p11->C_EncryptInit(session, &bulk, key));
    OK("C_Encrypt of a megabyte", p11->C_Encrypt(session, plain, BULK, stored.bulk, &len));
    if (!by_data_key) {
        stored.wrapped_len = sizeof(stored.wrapped);
        OK("C_WrapKey under the KEK",
           p11->C_WrapKey(session, &wrap, kek, key, stored.wrapped, &stored.wrapped_len));
    }
    check("written", file != NULL && fwrite(&stored, sizeof(stored), 1, file) == 1, 0);
    check("closed", fclose(file) == 0, 0);
}

static CK_RV unwrap(struct stored *stored, char *aad, CK_OBJECT_HANDLE *ret_key)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE tmpl[] = {{CKA_CLASS, &class, sizeof(class)},
                           {CKA_KEY_TYPE, &type, sizeof(type)},
                           {CKA_DECRYPT, &yes, sizeof(yes)}};
    CK_KMSBRIDGE_SEALED_PARAMS sealing;
    CK_MECHANISM mechanism = sealed(&sealing, aad);

    return p11->C_UnwrapKey(session, &mechanism, kek, stored->wrapped, stored->wrapped_len, tmpl, 3,
                            ret_key);
}

static void open_sealed(const char *name, char *aad)
{
    static struct stored stored;
    static CK_BYTE plain[BULK + TAG];
    static CK_BYTE wanted[BULK];
    char other[] = "backup 7 of db-2";
    CK_GCM_PARAMS params;
    CK_MECHANISM bulk;
    CK_OBJECT_HANDLE key = 0;
    CK_ULONG len = sizeof(plain);
    FILE *file = fopen(name, "re");

    fill(wanted);
    check("read", file != NULL && fread(&stored, sizeof(stored), 1, file) == 1, 0);
    (void)fclose(file);
    bulk = gcm(&params, stored.iv);
    REFUSED("another AAD is refused", unwrap(&stored, other, &key));
    stored.wrapped[stored.wrapped_len - 3] ^= 1;
    REFUSED("an altered key is refused", unwrap(&stored, aad, &key));
    stored.wrapped[stored.wrapped_len - 3] ^= 1;
    OK("C_UnwrapKey", unwrap(&stored, aad, &key));
    OK("C_DecryptInit", p11->C_DecryptInit(session, &bulk, key));
    OK("C_Decrypt of a megabyte",
       p11->C_Decrypt(session, stored.bulk, sizeof(stored.bulk), plain, &len));
    check("what was encrypted", len == BULK && memcmp(plain, wanted, BULK) == 0, len);
}

static void message(void)
{
    CK_C_MessageEncryptInit init = NULL;
    CK_C_EncryptMessage encrypt = NULL;
    CK_C_MessageEncryptFinal final = NULL;
    CK_BYTE iv[IV] = {0};
    CK_BYTE tag[TAG];
    CK_BYTE zero[IV] = {0};
    CK_BYTE aad[] = "aad";
    CK_BYTE text[] = "a message of no great length";
    CK_BYTE out[sizeof(text) + TAG];
    CK_BYTE back[sizeof(text) + TAG];
    CK_ULONG len = sizeof(text);
    CK_GCM_MESSAGE_PARAMS params = {
        .pIv = iv, .ulIvLen = IV, .ivGenerator = CKG_GENERATE, .pTag = tag, .ulTagBits = 8 * TAG};
    CK_MECHANISM mechanism = {CKM_AES_GCM, NULL, 0};
    CK_GCM_PARAMS plain_params;
    CK_MECHANISM plain = gcm(&plain_params, iv);

    *(void **)&init = dlsym(library, "C_MessageEncryptInit");
    *(void **)&encrypt = dlsym(library, "C_EncryptMessage");
    *(void **)&final = dlsym(library, "C_MessageEncryptFinal");
    check("a 3.0 module", init != NULL && encrypt != NULL && final != NULL, 0);
    OK("C_MessageEncryptInit", init(session, &mechanism, kek));
    OK("C_EncryptMessage",
       encrypt(session, &params, sizeof(params), aad, sizeof(aad), text, sizeof(text), out, &len));
    OK("C_MessageEncryptFinal", final(session));
    check("the service's IV is told", memcmp(iv, zero, IV) != 0, 0);
    memcpy(out + len, tag, TAG);
    plain_params.aad_ptr = aad;
    plain_params.aad_len = sizeof(aad);
    OK("C_DecryptInit with that IV", p11->C_DecryptInit(session, &plain, kek));
    CK_ULONG back_len = sizeof(back);
    OK("C_Decrypt", p11->C_Decrypt(session, out, len + TAG, back, &back_len));
    check("what was encrypted", back_len == sizeof(text) && memcmp(back, text, back_len) == 0,
          back_len);
    aad[0] ^= 1;
    OK("C_DecryptInit with another AAD", p11->C_DecryptInit(session, &plain, kek));
    back_len = sizeof(back);
    REFUSED("C_Decrypt is refused", p11->C_Decrypt(session, out, len + TAG, back, &back_len));
    OK("C_EncryptInit with an IV of ours", p11->C_EncryptInit(session, &plain, kek));
    len = sizeof(out);
    REFUSED("C_Encrypt with it is refused", p11->C_Encrypt(session, text, sizeof(text), out, &len));
}

static void chacha(const char *name)
{
    CK_BYTE bytes[64];
    CK_BYTE plain[64];
    CK_BYTE aad[] = "aad";
    CK_SALSA20_CHACHA20_POLY1305_PARAMS params = {bytes, IV, aad, 3};
    CK_MECHANISM mechanism = {CKM_CHACHA20_POLY1305, &params, sizeof(params)};
    CK_ULONG len = sizeof(plain);
    FILE *file = fopen(name, "re");
    size_t size = file == NULL ? 0 : fread(bytes, 1, sizeof(bytes), file);

    check("read", size == IV + 12 + TAG && fclose(file) == 0, size);
    REFUSED("it does not encrypt", p11->C_EncryptInit(session, &mechanism, kek));
    OK("C_DecryptInit", p11->C_DecryptInit(session, &mechanism, kek));
    OK("C_Decrypt's length", p11->C_Decrypt(session, bytes + IV, size - IV, NULL, &len));
    check("... is the plaintext's", len == 12, len);
    OK("C_Decrypt", p11->C_Decrypt(session, bytes + IV, size - IV, plain, &len));
    check("what was encrypted", len == 12 && memcmp(plain, "hello chacha", 12) == 0, len);
    aad[0] ^= 1;
    OK("C_DecryptInit with another AAD", p11->C_DecryptInit(session, &mechanism, kek));
    len = sizeof(plain);
    REFUSED("C_Decrypt is refused", p11->C_Decrypt(session, bytes + IV, size - IV, plain, &len));
}

static CK_ULONG seal_text(CK_BYTE *ret_blob, CK_ULONG size)
{
    CK_MECHANISM mechanism = {CKM_KMSBRIDGE_SEALED, NULL, 0};
    CK_BYTE text[] = "pinned";

    OK("C_EncryptInit", p11->C_EncryptInit(session, &mechanism, kek));
    OK("C_Encrypt", p11->C_Encrypt(session, text, sizeof(text), ret_blob, &size));
    return size;
}

static void open_text(CK_OBJECT_HANDLE key, CK_BYTE *blob, CK_ULONG len)
{
    CK_MECHANISM mechanism = {CKM_KMSBRIDGE_SEALED, NULL, 0};
    CK_BYTE text[WRAPPED_MAX];
    CK_ULONG text_len = sizeof(text);

    OK("C_DecryptInit", p11->C_DecryptInit(session, &mechanism, key));
    OK("C_Decrypt", p11->C_Decrypt(session, blob, len, text, &text_len));
    check("what was encrypted", text_len == 7 && memcmp(text, "pinned", 7) == 0, text_len);
}

/* The one object that an application which knows its CKA_ID alone gets. */
static CK_OBJECT_HANDLE find_pinned(CK_BYTE *id, CK_ULONG id_len)
{
    CK_ATTRIBUTE find = {CKA_ID, id, id_len};
    CK_OBJECT_HANDLE found[4] = {0};
    CK_ULONG count = 0;

    OK("C_FindObjectsInit", p11->C_FindObjectsInit(session, &find, 1));
    OK("C_FindObjects", p11->C_FindObjects(session, found, 4, &count));
    OK("C_FindObjectsFinal", p11->C_FindObjectsFinal(session));
    check("one object of the CKA_ID", count == 1, count);
    return found[0];
}

/* The first 36 bytes of the fake's ciphertext are the KeyVersionId: 48 of its base64 text. */
static void rotates(const char *command)
{
    enum { VERSION = 48 };
    const struct timespec stale = {.tv_sec = 1, .tv_nsec = 200000000};
    CK_BYTE id[64], first[WRAPPED_MAX], then[WRAPPED_MAX];
    CK_BYTE name[512];
    CK_ATTRIBUTE get[] = {{CKA_ID, id, sizeof(id)}, {CKA_UNIQUE_ID, name, sizeof(name)}};
    CK_ULONG first_len = 0, then_len = 0;
    int rc = 0;

    OK("its CKA_ID and CKA_UNIQUE_ID", p11->C_GetAttributeValue(session, kek, get, 2));
    check("... of 20 bytes", get[0].ulValueLen == 20, get[0].ulValueLen);
    check("... the key's resource name",
          get[1].ulValueLen > 12 && memcmp(name, "acs:kms:", 8) == 0 &&
              memchr(name, '/', get[1].ulValueLen) != NULL,
          get[1].ulValueLen);
    check("the pinned key", find_pinned(id, 20) == kek, kek);
    first_len = seal_text(first, sizeof(first));
    rc = system(command); /* NOLINT(cert-env33-c): the test's own */
    check(command, rc == 0, (CK_ULONG)rc);
    (void)nanosleep(&stale, NULL); /* the list of before is believed no longer */
    check("the same object after the rotation", find_pinned(id, 20) == kek, kek);
    then_len = seal_text(then, sizeof(then));
    check("another version seals",
          then_len > VERSION && first_len > VERSION && memcmp(first, then, VERSION) != 0, then_len);
    open_text(kek, first, first_len);
    open_text(kek, then, then_len);
}

static void make_mac(CK_BYTE text[3000], CK_BYTE mac[32])
{
    CK_MECHANISM mechanism = {CKM_SHA256_HMAC, NULL, 0};
    CK_BYTE parts[32];
    CK_ULONG len = 32, parts_len = sizeof(parts);

    OK("C_SignInit", p11->C_SignInit(session, &mechanism, kek));
    OK("C_Sign", p11->C_Sign(session, text, 3000, mac, &len));
    OK("C_SignInit", p11->C_SignInit(session, &mechanism, kek));
    OK("C_SignUpdate", p11->C_SignUpdate(session, text, 1000));
    OK("C_SignUpdate", p11->C_SignUpdate(session, text + 1000, 2000));
    OK("C_SignFinal", p11->C_SignFinal(session, parts, &parts_len));
    check("the same MAC", len == 32 && parts_len == 32 && memcmp(mac, parts, 32) == 0, len);
}

static void verify_mac(CK_BYTE text[3000], CK_BYTE mac[32])
{
    CK_MECHANISM mechanism = {CKM_SHA256_HMAC, NULL, 0};
    CK_RV rv = CKR_OK;

    OK("C_VerifyInit", p11->C_VerifyInit(session, &mechanism, kek));
    OK("C_Verify", p11->C_Verify(session, text, 3000, mac, 32));
    OK("C_VerifyInit", p11->C_VerifyInit(session, &mechanism, kek));
    rv = p11->C_Verify(session, text, 2999, mac, 32);
    check("another text is refused", rv == CKR_SIGNATURE_INVALID, rv);
    mac[0] ^= 1;
    OK("C_VerifyInit", p11->C_VerifyInit(session, &mechanism, kek));
    rv = p11->C_Verify(session, text, 3000, mac, 32);
    check("another MAC is refused", rv == CKR_SIGNATURE_INVALID, rv);
}

static void macs(const char *path)
{
    CK_BYTE text[3000], mac[32];
    FILE *file = fopen(path, "rb");

    check(path, file != NULL && fread(text, 1, sizeof(text), file) == sizeof(text), 0);
    (void)fclose(file);
    make_mac(text, mac);
    verify_mac(text, mac);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: envelope MODULE LABEL seal|datakey|open|message|mac|rotate|chacha "
                        "[FILE [AAD]]\n");
        return 2;
    }
    open_module(argv[1], argv[2]);
    if ((strcmp(argv[3], "seal") == 0 || strcmp(argv[3], "datakey") == 0) && argc >= 5) {
        seal(argv[4], strcmp(argv[3], "datakey") == 0, bound_to(argc, argv));
    } else if (strcmp(argv[3], "open") == 0 && argc >= 5) {
        open_sealed(argv[4], bound_to(argc, argv));
    } else if (strcmp(argv[3], "message") == 0) {
        message();
    } else if (strcmp(argv[3], "mac") == 0 && argc == 5) {
        macs(argv[4]);
    } else if (strcmp(argv[3], "rotate") == 0 && argc == 5) {
        rotates(argv[4]);
    } else if (strcmp(argv[3], "chacha") == 0 && argc == 5) {
        chacha(argv[4]);
    } else {
        return 2;
    }
    OK("C_Finalize", p11->C_Finalize(NULL));
    return 0;
}
