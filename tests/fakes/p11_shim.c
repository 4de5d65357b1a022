/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PKCS#11 2.40 module that stands before a real one and misbehaves on request.
 *
 * Every C_ function is forwarded to the module that KMSBRIDGE_SHIM_MODULE names (SoftHSM if unset);
 * p11_shim_plan.h says how to ask for faults and where calls are counted. Any thread may call; no
 * lock is held across a forwarded call.
 */
#include "tests/fakes/p11_shim_plan.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static const char default_module[] = "/usr/lib/softhsm/libsofthsm2.so";

enum { GCM_IV_LEN = 12, MAX_LATE_IVS = 1024 };

static CK_FUNCTION_LIST_PTR real;
static pthread_once_t real_once = PTHREAD_ONCE_INIT;

static void real_load(void)
{
    const char *path = getenv("KMSBRIDGE_SHIM_MODULE");
    CK_C_GetFunctionList get_function_list = NULL;
    void *library = NULL;

    if (path == NULL || *path == '\0') {
        path = default_module;
    }
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "p11-shim: %s\n", dlerror());
        return;
    }
    /* POSIX's way to turn an object pointer into a function pointer. */
    *(void **)&get_function_list = dlsym(library, "C_GetFunctionList");
    if (get_function_list == NULL || get_function_list(&real) != CKR_OK) {
        fprintf(stderr, "p11-shim: %s: no function list\n", path);
        real = NULL;
    }
}

static bool loaded(void)
{
    (void)pthread_once(&real_once, real_load);
    return real != NULL;
}

static CK_RV enter(enum p11_shim_function function)
{
    return loaded() ? p11_shim_enter(function) : CKR_GENERAL_ERROR;
}

/* ---- time ----------------------------------------------------------------------------------- */

static struct timespec now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t;
}

/* Sleeps until `us` microseconds after `start`, so that the call takes that long in all. */
static void last_until(struct timespec start, unsigned long us)
{
    long ns = start.tv_nsec + (long)(us % 1000000) * 1000;
    struct timespec end = {.tv_sec = start.tv_sec + (time_t)(us / 1000000) + ns / 1000000000,
                           .tv_nsec = ns % 1000000000};

    while (us > 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) != 0) {
    }
}

/* ---- a token that makes its own IV ---------------------------------------------------------- */

/* An IV that C_Encrypt is to hand out: the caller's pIv must live until then (own_iv=late), or is
 * NULL and the IV goes behind the tag (own_iv=append). */
struct late_iv {
    CK_SESSION_HANDLE session;
    CK_BYTE *caller;
    CK_BYTE iv[GCM_IV_LEN];
};

static struct {
    pthread_mutex_t lock; /* guards the rest */
    atomic_size_t count;  /* read without the lock: 0 is all that most calls need to know */
    struct late_iv ivs[MAX_LATE_IVS];
} late = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void late_iv_put(CK_SESSION_HANDLE session, CK_BYTE *caller, const CK_BYTE *iv)
{
    size_t i = 0;

    pthread_mutex_lock(&late.lock);
    while (i < late.count && late.ivs[i].session != session) {
        i++;
    }
    if (i < MAX_LATE_IVS) {
        late.ivs[i].session = session;
        late.ivs[i].caller = caller;
        memcpy(late.ivs[i].iv, iv, GCM_IV_LEN);
        late.count += i == late.count ? 1 : 0;
    }
    pthread_mutex_unlock(&late.lock);
}

/* Ends the session's entry; writes the IV to the caller's pIv if `deliver`. */
static void late_iv_take(CK_SESSION_HANDLE session, bool deliver)
{
    if (late.count == 0) {
        return;
    }
    pthread_mutex_lock(&late.lock);
    for (size_t i = 0; i < late.count; i++) {
        if (late.ivs[i].session == session) {
            if (deliver && late.ivs[i].caller != NULL) {
                memcpy(late.ivs[i].caller, late.ivs[i].iv, GCM_IV_LEN);
            }
            late.ivs[i] = late.ivs[--late.count];
            break;
        }
    }
    pthread_mutex_unlock(&late.lock);
}

/* The IV that is to be appended to this session's ciphertext; false: none. */
static bool late_iv_appended(CK_SESSION_HANDLE session, CK_BYTE *ret_iv)
{
    bool found = false;

    if (late.count == 0) {
        return false;
    }
    pthread_mutex_lock(&late.lock);
    for (size_t i = 0; i < late.count && !found; i++) {
        found = late.ivs[i].session == session && late.ivs[i].caller == NULL;
        if (found) {
            memcpy(ret_iv, late.ivs[i].iv, GCM_IV_LEN);
        }
    }
    pthread_mutex_unlock(&late.lock);
    return found;
}

/* Whether the caller's pIv is what a token wants that makes its own. */
static bool takes_iv(enum p11_shim_iv how, const CK_GCM_PARAMS *caller)
{
    static const CK_BYTE zero[GCM_IV_LEN];

    if (how == P11_SHIM_IV_APPEND) {
        return caller->iv_len == 0;
    }
    return caller->iv_ptr != NULL && caller->iv_len == GCM_IV_LEN &&
           (how != P11_SHIM_IV_EMPTY || memcmp(caller->iv_ptr, zero, GCM_IV_LEN) == 0);
}

static CK_RV gcm_init_own_iv(enum p11_shim_iv when, CK_SESSION_HANDLE session,
                             CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    CK_BYTE iv[GCM_IV_LEN];
    CK_GCM_PARAMS *caller = mechanism->pParameter;
    CK_GCM_PARAMS params;
    CK_MECHANISM own = *mechanism;
    CK_RV rv = CKR_OK;

    if (caller == NULL || mechanism->ulParameterLen != sizeof *caller || !takes_iv(when, caller)) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    if (getrandom(iv, sizeof iv, 0) != (ssize_t)sizeof iv) {
        return CKR_GENERAL_ERROR;
    }
    params = *caller;
    params.iv_len = GCM_IV_LEN;
    params.iv_bits = 8 * GCM_IV_LEN;
    params.iv_ptr = iv; /* SoftHSM copies it; a module that does not is no use with own_iv=late */
    own.pParameter = &params;
    if (when == P11_SHIM_IV_EARLY || when == P11_SHIM_IV_EMPTY) {
        memcpy(caller->iv_ptr, iv, sizeof iv);
        return real->C_EncryptInit(session, mechanism, key);
    }
    rv = real->C_EncryptInit(session, &own, key);
    if (rv == CKR_OK) {
        late_iv_put(session, when == P11_SHIM_IV_APPEND ? NULL : caller->iv_ptr, iv);
    }
    return rv;
}

/* What fail_id and fail_mech say of this call. */
static CK_RV picked_fault(CK_SESSION_HANDLE session, const CK_MECHANISM *mechanism,
                          CK_OBJECT_HANDLE key)
{
    const struct p11_shim_settings *s = p11_shim_settings();
    CK_BYTE id = 0;
    CK_ATTRIBUTE row = {CKA_ID, &id, sizeof id};

    if (s->mech_fault != CKR_OK && mechanism != NULL && mechanism->mechanism == s->mech) {
        return s->mech_fault;
    }
    if (s->id_fault != CKR_OK && real->C_GetAttributeValue(session, key, &row, 1) == CKR_OK &&
        row.ulValueLen == sizeof id && id == s->id) {
        return s->id_fault;
    }
    return CKR_OK;
}

/* What swap_id makes of a handle. Nobody searches while an operation begins. */
static CK_OBJECT_HANDLE swapped(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
    const struct p11_shim_settings *s = p11_shim_settings();
    CK_BYTE id = 0;
    CK_BYTE to = s->swap_to;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ATTRIBUTE row = {CKA_ID, &id, sizeof id};
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_ID, &to, sizeof to}};
    CK_OBJECT_HANDLE other = key;
    CK_ULONG count = 0;

    if (!s->swaps || real->C_GetAttributeValue(session, key, &row, 1) != CKR_OK ||
        row.ulValueLen != sizeof id || id != s->swap_from ||
        real->C_FindObjectsInit(session, wanted, 2) != CKR_OK) {
        return key;
    }
    (void)real->C_FindObjects(session, &other, 1, &count);
    (void)real->C_FindObjectsFinal(session);
    return count == 1 ? other : key;
}

CK_RV C_DecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
    CK_RV rv = enter(FN_C_DecryptInit);

    if (rv == CKR_OK && mechanism != NULL && p11_shim_hides(mechanism->mechanism)) {
        rv = CKR_MECHANISM_INVALID;
    }
    return rv == CKR_OK ? real->C_DecryptInit(session, mechanism, swapped(session, key)) : rv;
}

CK_RV C_EncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
    CK_RV rv = enter(FN_C_EncryptInit);

    if (rv != CKR_OK) {
        return rv;
    }
    if (mechanism != NULL && p11_shim_hides(mechanism->mechanism)) {
        return CKR_MECHANISM_INVALID;
    }
    rv = picked_fault(session, mechanism, key);
    if (rv != CKR_OK) {
        return rv;
    }
    key = swapped(session, key);
    late_iv_take(session, false);
    if (p11_shim_settings()->own_iv != P11_SHIM_IV_CALLER && mechanism != NULL &&
        mechanism->mechanism == CKM_AES_GCM) {
        return gcm_init_own_iv(p11_shim_settings()->own_iv, session, mechanism, key);
    }
    return real->C_EncryptInit(session, mechanism, key);
}

/* ---- slow operations ------------------------------------------------------------------------ */

/* `out` NULL only asks for the length, which costs no token its time. */
static void slow_down(struct timespec start, const void *out)
{

    last_until(start, out == NULL ? 0 : p11_shim_settings()->latency_us);
}

typedef CK_RV (*one_part)(CK_SESSION_HANDLE, CK_BYTE_PTR, CK_ULONG, CK_BYTE_PTR, CK_ULONG_PTR);

/*
 * PKCS#11 2.40, 11.8: C_Encrypt and its like end the active operation whatever they return, but for
 * CKR_BUFFER_TOO_SMALL and a successful question for the length. So a faulted call ends it in the
 * real module.
 */
static void end_operation(one_part real_call, CK_RV fault, CK_SESSION_HANDLE session,
                          CK_BYTE_PTR in, CK_ULONG in_len)
{
    CK_ULONG len = in_len + 1024;
    CK_BYTE *scratch = NULL;

    if (fault == CKR_BUFFER_TOO_SMALL || fault == CKR_CRYPTOKI_NOT_INITIALIZED) {
        return;
    }
    scratch = malloc(len);
    if (scratch != NULL) {
        (void)real_call(session, in, in_len, scratch, &len);
        explicit_bzero(scratch, in_len + 1024);
        free(scratch);
    }
}

static CK_RV slow_call(enum p11_shim_function function, one_part real_call,
                       CK_SESSION_HANDLE session, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out,
                       CK_ULONG_PTR out_len)
{
    struct timespec start = now();
    CK_RV rv = enter(function);

    if (rv == CKR_OK) {
        rv = real_call(session, in, in_len, out, out_len);
        slow_down(start, out);
    } else {
        end_operation(real_call, rv, session, in, in_len);
    }
    return rv;
}

CK_RV C_Encrypt(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len,
                CK_BYTE_PTR encrypted_data, CK_ULONG_PTR encrypted_data_len)
{
    CK_RV rv = CKR_GENERAL_ERROR;
    CK_BYTE iv[GCM_IV_LEN];
    CK_ULONG room = encrypted_data_len == NULL ? 0 : *encrypted_data_len;

    if (loaded()) {
        rv = slow_call(FN_C_Encrypt, real->C_Encrypt, session, data, data_len, encrypted_data,
                       encrypted_data_len);
    }
    if (rv == CKR_OK && late_iv_appended(session, iv)) {
        if (encrypted_data != NULL && room - *encrypted_data_len >= sizeof iv) {
            memcpy(encrypted_data + *encrypted_data_len, iv, sizeof iv);
        }
        *encrypted_data_len += sizeof iv;
    }
    if (rv != CKR_BUFFER_TOO_SMALL && !(rv == CKR_OK && encrypted_data == NULL)) {
        late_iv_take(session, rv == CKR_OK);
    }
    return rv;
}

CK_RV C_Decrypt(CK_SESSION_HANDLE session, CK_BYTE_PTR encrypted_data, CK_ULONG encrypted_data_len,
                CK_BYTE_PTR data, CK_ULONG_PTR data_len)
{
    if (!loaded()) {
        return CKR_GENERAL_ERROR;
    }
    return slow_call(FN_C_Decrypt, real->C_Decrypt, session, encrypted_data, encrypted_data_len,
                     data, data_len);
}

CK_RV C_Sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG data_len, CK_BYTE_PTR signature,
             CK_ULONG_PTR signature_len)
{
    if (!loaded()) {
        return CKR_GENERAL_ERROR;
    }
    return slow_call(FN_C_Sign, real->C_Sign, session, data, data_len, signature, signature_len);
}

CK_RV C_GenerateRandom(CK_SESSION_HANDLE session, CK_BYTE_PTR random_data, CK_ULONG random_len)
{
    struct timespec start = now();
    CK_RV rv = enter(FN_C_GenerateRandom);

    if (rv == CKR_OK) {
        rv = real->C_GenerateRandom(session, random_data, random_len);
        last_until(start, p11_shim_settings()->random_latency_us);
    }
    return rv;
}

/* ---- mechanisms, token, login --------------------------------------------------------------- */

CK_RV C_GetMechanismList(CK_SLOT_ID slot_id, CK_MECHANISM_TYPE_PTR mechanism_list,
                         CK_ULONG_PTR count)
{
    CK_MECHANISM_TYPE *all = NULL;
    CK_ULONG total = 0;
    CK_ULONG shown = 0;
    CK_RV rv = enter(FN_C_GetMechanismList);

    if (rv != CKR_OK) {
        return rv;
    }
    if (count == NULL) {
        return CKR_ARGUMENTS_BAD;
    }
    rv = real->C_GetMechanismList(slot_id, NULL, &total);
    if (rv != CKR_OK) {
        return rv;
    }
    all = calloc(total + 1, sizeof *all);
    if (all == NULL) {
        return CKR_HOST_MEMORY;
    }
    rv = real->C_GetMechanismList(slot_id, all, &total);
    for (CK_ULONG i = 0; rv == CKR_OK && i < total; i++) {
        if (!p11_shim_hides(all[i])) {
            all[shown++] = all[i];
        }
    }
    if (rv == CKR_OK && mechanism_list != NULL) {
        if (*count < shown) {
            rv = CKR_BUFFER_TOO_SMALL;
        } else {
            memcpy(mechanism_list, all, shown * sizeof *all);
        }
    }
    *count = shown;
    free(all);
    return rv;
}

CK_RV C_GetMechanismInfo(CK_SLOT_ID slot_id, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO_PTR info)
{
    CK_RV rv = enter(FN_C_GetMechanismInfo);

    if (rv != CKR_OK) {
        return rv;
    }
    return p11_shim_hides(type) ? CKR_MECHANISM_INVALID
                                : real->C_GetMechanismInfo(slot_id, type, info);
}

CK_RV C_GetTokenInfo(CK_SLOT_ID slot_id, CK_TOKEN_INFO_PTR info)
{
    CK_RV rv = enter(FN_C_GetTokenInfo);

    if (rv == CKR_OK) {
        rv = real->C_GetTokenInfo(slot_id, info);
    }
    if (rv == CKR_OK && p11_shim_settings()->final_try) {
        info->flags |= CKF_USER_PIN_FINAL_TRY;
    }
    if (rv == CKR_OK && p11_shim_settings()->has_serial) {
        memcpy(info->serialNumber, p11_shim_settings()->serial, P11_SHIM_SERIAL_LEN);
    }
    return rv;
}

CK_RV C_GetSessionInfo(CK_SESSION_HANDLE session, CK_SESSION_INFO_PTR info)
{
    CK_RV rv = enter(FN_C_GetSessionInfo);

    if (rv == CKR_OK) {
        rv = real->C_GetSessionInfo(session, info);
    }
    if (rv == CKR_OK && p11_shim_settings()->logged_out) {
        info->state =
            (info->flags & CKF_RW_SESSION) != 0 ? CKS_RW_PUBLIC_SESSION : CKS_RO_PUBLIC_SESSION;
    }
    return rv;
}

CK_RV C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE_PTR object,
                    CK_ULONG max_object_count, CK_ULONG_PTR object_count)
{
    CK_RV rv = enter(FN_C_FindObjects);

    if (rv == CKR_OK) {
        rv = real->C_FindObjects(session, object, max_object_count, object_count);
    }
    if (rv == CKR_OK && p11_shim_settings()->logged_out) {
        *object_count = 0; /* private objects do not exist for who is not logged in */
    }
    return rv;
}

CK_RV C_DestroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    CK_RV rv = enter(FN_C_DestroyObject);

    if (rv != CKR_OK || p11_shim_settings()->keep_objects) {
        return rv;
    }
    return real->C_DestroyObject(session, object);
}

/* After a lost login the real one still stands; it is ended first, so handles go stale as well. */
CK_RV C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user_type, CK_BYTE_PTR pin, CK_ULONG pin_len)
{
    CK_RV rv = enter(FN_C_Login);

    if (rv != CKR_OK) {
        return rv;
    }
    if (p11_shim_settings()->logged_out) {
        (void)real->C_Logout(session);
    }
    rv = real->C_Login(session, user_type, pin, pin_len);
    if (rv == CKR_OK && p11_shim_settings()->logged_out) {
        p11_shim_note_login();
    }
    return rv;
}

/* ---- life of the library -------------------------------------------------------------------- */

CK_RV C_Initialize(CK_VOID_PTR init_args)
{
    CK_RV rv = enter(FN_C_Initialize);

    if (rv == CKR_OK) {
        rv = real->C_Initialize(init_args);
    }
    if (rv == CKR_OK) {
        p11_shim_note_initialized();
    }
    return rv;
}

CK_RV C_Finalize(CK_VOID_PTR reserved)
{
    CK_RV rv = enter(FN_C_Finalize);

    if (rv == CKR_OK) {
        rv = real->C_Finalize(reserved);
    }
    if (rv == CKR_OK) {
        p11_shim_note_finalized();
    }
    return rv;
}

/* ---- all others ----------------------------------------------------------------------------- */

#define FN(name, parameters, arguments)                                                            \
    CK_RV name parameters                                                                          \
    {                                                                                              \
        CK_RV rv = enter(FN_##name);                                                               \
                                                                                                   \
        return rv == CKR_OK ? real->name arguments : rv;                                           \
    }
P11_SHIM_PLAIN(FN)
#undef FN

#define FN(name, parameters, arguments)                                                            \
    CK_RV name parameters                                                                          \
    {                                                                                              \
        CK_RV rv = enter(FN_##name);                                                               \
                                                                                                   \
        if (rv == CKR_OK && mechanism != NULL && p11_shim_hides(mechanism->mechanism)) {           \
            rv = CKR_MECHANISM_INVALID;                                                            \
        }                                                                                          \
        return rv == CKR_OK ? real->name arguments : rv;                                           \
    }
P11_SHIM_MECH_INIT(FN)
#undef FN

static CK_FUNCTION_LIST function_list = {.version = {.major = 2, .minor = 40},
#define FN(name, ...) .name = name,
                                         P11_SHIM_OWN(FN) P11_SHIM_PLAIN(FN) P11_SHIM_MECH_INIT(FN)
#undef FN
};

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
    CK_RV rv = enter(FN_C_GetFunctionList);

    if (rv == CKR_OK) {
        *list = &function_list;
    }
    return rv;
}
