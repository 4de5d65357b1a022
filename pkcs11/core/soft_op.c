/* SPDX-License-Identifier: Apache-2.0 */
/* Operations, whatever they do: begun, fed, ended; and input that is gathered for the end. */
#include <stdlib.h>
#include <string.h>

#include "common/secure.h"
#include "pkcs11/core/log.h"
#include "pkcs11/core/soft_parts.h"

static const struct kms_soft_work *const works[] = {
    [KMS_MECH_CIPHER] = &kms_soft_cipher_work,
    [KMS_MECH_GCM] = &kms_soft_gcm_work,
    [KMS_MECH_KEY_WRAP] = &kms_soft_wrap_work,
    [KMS_MECH_HMAC] = &kms_soft_mac_work,
    [KMS_MECH_CMAC] = &kms_soft_mac_work,
    [KMS_MECH_DIGEST] = &kms_soft_digest_work,
    [KMS_MECH_RSA_PKCS1] = &kms_soft_rsa_work,
    [KMS_MECH_RSA_PSS] = &kms_soft_rsa_work,
    [KMS_MECH_RSA_OAEP] = &kms_soft_rsa_work,
    [KMS_MECH_RSA_RAW] = &kms_soft_rsa_work,
    [KMS_MECH_ECDSA] = &kms_soft_ecdsa_work,
    [KMS_MECH_EDDSA] = &kms_soft_eddsa_work,
    [KMS_MECH_SEALED] = NULL,
};

static CK_FLAGS flag_of(enum kms_soft_what what)
{
    static const CK_FLAGS flags[] = {
        [KMS_SOFT_ENCRYPT] = CKF_ENCRYPT, [KMS_SOFT_DECRYPT] = CKF_DECRYPT,
        [KMS_SOFT_SIGN] = CKF_SIGN,       [KMS_SOFT_VERIFY] = CKF_VERIFY,
        [KMS_SOFT_DIGEST] = CKF_DIGEST,
    };

    return flags[what];
}

/* The mechanism, what is to be done and the key go together. */
static CK_RV check(enum kms_soft_what what, const struct kms_mech *mech,
                   const struct kms_soft_key *key)
{
    bool opens = what == KMS_SOFT_DECRYPT || what == KMS_SOFT_SIGN;

    if ((mech->local & flag_of(what)) == 0 || works[mech->kind] == NULL) {
        return kms_p11_refuse(CKR_MECHANISM_INVALID, "%s cannot do this with keys that are here",
                              mech->name);
    }
    if (what == KMS_SOFT_DIGEST) {
        return CKR_OK;
    }
    if (key == NULL) {
        return CKR_KEY_HANDLE_INVALID;
    }
    if (!kms_mech_takes(mech, key->type)) {
        return kms_p11_refuse(CKR_KEY_TYPE_INCONSISTENT, "%s does not take this type of key",
                              mech->name);
    }
    if (opens && !key->has_private) {
        return kms_p11_refuse(CKR_KEY_TYPE_INCONSISTENT, "%s needs the private key", mech->name);
    }
    return CKR_OK;
}

static CK_RV op_new(enum kms_soft_what what, const struct kms_mech *mech,
                    const CK_MECHANISM *mechanism, struct kms_soft_key *key,
                    struct kms_soft_op **ret_op)
{
    struct kms_params params = {.alg = KMS_ALG_NONE};
    CK_RV rv = kms_mech_params(mech, mechanism, &params);
    struct kms_soft_op *op = NULL;

    if (rv == CKR_OK) {
        rv = check(what, mech, key);
    }
    if (rv != CKR_OK) {
        return rv;
    }
    op = calloc(1, sizeof(*op));
    if (op == NULL) {
        return CKR_HOST_MEMORY;
    }
    op->what = what;
    op->mech = mech;
    op->key = key == NULL ? NULL : kms_soft_key_ref(key);
    op->work = works[mech->kind];
    rv = op->work->begin(op, mechanism, &params);
    if (rv != CKR_OK) {
        kms_soft_op_free(op);
        return rv;
    }
    *ret_op = op;
    return CKR_OK;
}

CK_RV kms_soft_op_new(enum kms_soft_what what, const struct kms_mech *mech,
                      const CK_MECHANISM *mechanism, struct kms_soft_key *key,
                      struct kms_soft_op **ret_op)
{
    CK_RV rv = kms_soft_enter();

    return rv == CKR_OK ? kms_soft_leave(op_new(what, mech, mechanism, key, ret_op)) : rv;
}

void kms_soft_op_free(struct kms_soft_op *op)
{
    if (op == NULL) {
        return;
    }
    if (kms_soft_alive()) { /* else they are left: freeing them would call what is gone */
        EVP_CIPHER_CTX_free(op->cipher);
        EVP_MD_CTX_free(op->md);
        EVP_MAC_CTX_free(op->mac);
        EVP_PKEY_CTX_free(op->pkey);
    }
    kms_soft_gather_done(&op->gather);
    kms_soft_key_unref(op->key);
    free(op);
}

size_t kms_soft_op_room(const struct kms_soft_op *op, size_t len, bool final)
{
    return op->work->room(op, len, final);
}

/* ---- steps -------------------------------------------------------------------------------- */

/* Begins a step: nothing comes after the last one, or after a failure. */
static CK_RV step_enter(struct kms_soft_op *op)
{
    return op->done ? CKR_OPERATION_NOT_INITIALIZED : kms_soft_enter();
}

static CK_RV step_leave(struct kms_soft_op *op, CK_RV rv, bool last)
{
    op->done = last || rv != CKR_OK;
    return kms_soft_leave(rv);
}

CK_RV kms_soft_op_update(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    CK_RV rv = step_enter(op);

    if (rv != CKR_OK) {
        return rv;
    }
    return step_leave(op, in.len == 0 ? CKR_OK : op->work->update(op, in, out), false);
}

CK_RV kms_soft_op_final(struct kms_soft_op *op, struct kms_buf *out)
{
    CK_RV rv = step_enter(op);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = op->what == KMS_SOFT_VERIFY ? CKR_FUNCTION_FAILED : op->work->final(op, out);
    return step_leave(op, rv, true);
}

CK_RV kms_soft_op_verify(struct kms_soft_op *op, struct kms_span signature)
{
    CK_RV rv = step_enter(op);

    if (rv != CKR_OK) {
        return rv;
    }
    rv = op->what != KMS_SOFT_VERIFY ? CKR_FUNCTION_FAILED : op->work->verify(op, signature);
    return step_leave(op, rv, true);
}

CK_RV kms_soft_op_once(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    CK_RV rv;

    if (op->work->once == NULL) {
        bool puts = op->what == KMS_SOFT_ENCRYPT || op->what == KMS_SOFT_DECRYPT;

        rv = kms_soft_op_update(op, in, puts ? out : NULL);
        return rv == CKR_OK ? kms_soft_op_final(op, out) : rv;
    }
    rv = step_enter(op);
    return rv == CKR_OK ? step_leave(op, op->work->once(op, in, out), true) : rv;
}

/* ---- what is gathered --------------------------------------------------------------------- */

CK_RV kms_soft_len_range(const struct kms_soft_op *op)
{
    return kms_p11_refuse(
        op->what == KMS_SOFT_DECRYPT ? CKR_ENCRYPTED_DATA_LEN_RANGE : CKR_DATA_LEN_RANGE,
        "%s: the input is too long, too short, or not a whole number of blocks", op->mech->name);
}

static uint8_t *gather_bytes(const struct kms_soft_gather *gather, size_t cap)
{
    return gather->secret ? kms_secure_new(cap) : malloc(cap);
}

void kms_soft_gather_done(struct kms_soft_gather *gather)
{
    if (gather->secret) {
        kms_secure_free(gather->bytes);
    } else if (gather->bytes != NULL) {
        kms_wipe(gather->bytes, gather->len);
        free(gather->bytes);
    }
    gather->bytes = NULL;
    gather->len = gather->cap = 0;
}

CK_RV kms_soft_gather_put(struct kms_soft_op *op, struct kms_span in)
{
    struct kms_soft_gather *gather = &op->gather;

    if (in.len > gather->max - gather->len) {
        return kms_soft_len_range(op);
    }
    if (in.len > gather->cap - gather->len) {
        struct kms_soft_gather more = *gather;

        more.cap = gather->len + in.len < 128 ? 256 : 2 * (gather->len + in.len);
        more.bytes = gather_bytes(gather, more.cap);
        if (more.bytes == NULL) {
            return CKR_HOST_MEMORY;
        }
        if (gather->len > 0) {
            memcpy(more.bytes, gather->bytes, gather->len);
        }
        kms_soft_gather_done(gather);
        *gather = more;
    }
    if (in.len > 0) {
        memcpy(gather->bytes + gather->len, in.data, in.len);
        gather->len += in.len;
    }
    return CKR_OK;
}

/* ---- what is signed ----------------------------------------------------------------------- */

CK_RV kms_soft_input_begin(struct kms_soft_op *op, size_t max)
{
    EVP_MD *md;

    if (op->mech->hash == NULL) {
        op->gather.max = max;
        op->gather.secret = op->what == KMS_SOFT_ENCRYPT;
        return CKR_OK;
    }
    md = kms_soft_md(op->mech->hash);
    op->md = EVP_MD_CTX_new();
    if (md == NULL || op->md == NULL || EVP_DigestInit_ex2(op->md, md, NULL) != 1) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "libcrypto cannot do %s", op->mech->hash);
    }
    return CKR_OK;
}

CK_RV kms_soft_input_update(struct kms_soft_op *op, struct kms_span in, struct kms_buf *out)
{
    (void)out;
    if (op->md == NULL) {
        return kms_soft_gather_put(op, in);
    }
    return EVP_DigestUpdate(op->md, in.data, in.len) == 1 ? CKR_OK : CKR_FUNCTION_FAILED;
}

CK_RV kms_soft_input_end(struct kms_soft_op *op, uint8_t digest[EVP_MAX_MD_SIZE],
                         struct kms_span *ret_input)
{
    unsigned len = 0;

    if (op->md == NULL) {
        *ret_input = kms_soft_gathered(op);
        return CKR_OK;
    }
    if (EVP_DigestFinal_ex(op->md, digest, &len) != 1) {
        return CKR_FUNCTION_FAILED;
    }
    *ret_input = kms_span_of(digest, len);
    return CKR_OK;
}

CK_RV kms_soft_pkey_begin(struct kms_soft_op *op, int (*init)(EVP_PKEY_CTX *))
{
    op->pkey = EVP_PKEY_CTX_new_from_pkey(kms_soft_lib(), op->key->pkey, NULL);
    if (op->pkey == NULL || init(op->pkey) != 1) {
        return kms_p11_refuse(CKR_FUNCTION_FAILED, "%s: libcrypto cannot begin", op->mech->name);
    }
    return CKR_OK;
}
