/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/token_key.h"

#include <stdio.h>
#include <string.h>

#include "pkcs11/core/log.h"
#include "pkcs11/core/mech.h"
#include "pkcs11/core/soft.h"
#include "pkcs11/core/x509.h"

#define MECHANISMS_MAX 64
#define UNIQUE_ID_MAX  (KMS_KEY_NAME_MAX + 16)

/* Key types of the waist in PKCS#11's words. */
static const struct {
    CK_KEY_TYPE type;
    CK_MECHANISM_TYPE made_by;
    bool pair;
} key_types[KMS_KEY_TYPE_COUNT] = {
    [KMS_KEY_AES] = {CKK_AES, CKM_AES_KEY_GEN, false},
    [KMS_KEY_GENERIC] = {CKK_GENERIC_SECRET, CKM_GENERIC_SECRET_KEY_GEN, false},
    [KMS_KEY_RSA] = {CKK_RSA, CKM_RSA_PKCS_KEY_PAIR_GEN, true},
    [KMS_KEY_EC] = {CKK_EC, CKM_EC_KEY_PAIR_GEN, true},
    [KMS_KEY_EDDSA] = {CKK_EC_EDWARDS, CKM_EC_EDWARDS_KEY_PAIR_GEN, true},
    [KMS_KEY_CHACHA20] = {CKK_CHACHA20, CKM_CHACHA20_KEY_GEN, false},
    [KMS_KEY_SM4] = {CKK_KMSBRIDGE_SM4, CKM_KMSBRIDGE_SM4_KEY_GEN, false},
};

/* An object being made: the first failure stays. */
struct maker {
    struct kms_slot *slot;
    const struct kms_agent_key *key;
    uint8_t id[KMS_KEY_TAG_MAX];
    size_t id_len;
    struct kms_soft_key *soft; /* the pair's public half; NULL: unreadable, or no pair */
    struct kms_object *object;
    CK_RV rv;
};

static void put(struct maker *m, CK_ATTRIBUTE_TYPE type, const void *value, size_t len)
{
    if (m->rv == CKR_OK) {
        m->rv = kms_attrs_set(m->object->attrs, type, value, len);
    }
}

static void put_text(struct maker *m, CK_ATTRIBUTE_TYPE type, const char *text)
{
    put(m, type, text, strlen(text));
}

static void put_ulong(struct maker *m, CK_ATTRIBUTE_TYPE type, CK_ULONG value)
{
    put(m, type, &value, sizeof(value));
}

static void put_bool(struct maker *m, CK_ATTRIBUTE_TYPE type, bool value)
{
    const CK_BBOOL byte = value ? CK_TRUE : CK_FALSE;

    put(m, type, &byte, sizeof(byte));
}

static void copy(struct maker *m, CK_ATTRIBUTE_TYPE type, const struct kms_object *from)
{
    struct kms_span value;

    if (from != NULL && kms_attrs_get(from->attrs, type, &value)) {
        put(m, type, value.data, value.len);
    }
}

/* ---- what all of a key's objects have -------------------------------------------------------- */

static CK_RV hash(struct kms_span bytes, const char *name, uint8_t *ret, size_t size)
{
    uint8_t digest[32];
    struct kms_buf out = KMS_BUF_OVER(digest);
    CK_RV rv = kms_soft_digest(name, bytes, &out);

    if (rv == CKR_OK) {
        memcpy(ret, digest, size);
    }
    return rv;
}

/* Short, stable, the same for every object of the key. */
static CK_RV choose_id(struct maker *m)
{
    const struct kms_key_info *info = &m->key->info;

    if (info->tag_len > 0) {
        memcpy(m->id, info->tag, info->tag_len);
        m->id_len = info->tag_len;
        return CKR_OK;
    }
    m->id_len = KMS_KEY_HASH_ID;
    return hash(kms_span_str(info->name), "SHA256", m->id, m->id_len);
}

static bool begin(struct maker *m, CK_OBJECT_CLASS class, bool is_private, const char *mark)
{
    const struct kms_key_info *info = &m->key->info;
    char unique[UNIQUE_ID_MAX];
    const bool key = class != CKO_CERTIFICATE;

    m->object = kms_object_new();
    if (m->object == NULL) {
        m->rv = CKR_HOST_MEMORY;
        return false;
    }
    (void)snprintf(unique, sizeof(unique), "%s%s", info->name, mark);
    m->object->class = class;
    m->object->on_token = true;
    m->object->is_private = is_private;
    m->object->superseded = info->version[0] != '\0' && !info->latest;
    m->object->slot = m->slot;
    put_ulong(m, CKA_CLASS, class);
    put_bool(m, CKA_TOKEN, true);
    put_bool(m, CKA_PRIVATE, is_private);
    put_bool(m, CKA_MODIFIABLE, key && m->slot->ops->set_label != NULL);
    put_bool(m, CKA_COPYABLE, !is_private);
    put_bool(m, CKA_DESTROYABLE, is_private && m->slot->ops->destroy != NULL);
    put_text(m, CKA_LABEL, info->label);
    put(m, CKA_ID, m->id, m->id_len);
    put_text(m, CKA_UNIQUE_ID, unique);
    put(m, CKA_START_DATE, NULL, 0);
    put(m, CKA_END_DATE, NULL, 0);
    put_text(m, CKA_KMSBRIDGE_KEY_ID, info->id);
    put_text(m, CKA_KMSBRIDGE_VERSION, info->version);
    put_text(m, CKA_KMSBRIDGE_NAME, info->name);
    return true;
}

/* Into the list, or away. */
static void end(struct maker *m, struct kms_object **ret_list, size_t *ret_count)
{
    if (m->rv == CKR_OK) {
        ret_list[(*ret_count)++] = m->object;
    } else {
        kms_object_unref(m->object);
    }
    m->object = NULL;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static void put_key(struct maker *m)
{
    const struct kms_key_info *info = &m->key->info;

    m->object->key_type = key_types[info->type].type;
    m->object->bits = info->bits;
    put_ulong(m, CKA_KEY_TYPE, m->object->key_type);
    put_bool(m, CKA_DERIVE, false);
    put_bool(m, CKA_LOCAL, info->local);
    put_ulong(m, CKA_KEY_GEN_MECHANISM,
              info->local ? key_types[info->type].made_by : CK_UNAVAILABLE_INFORMATION);
}

/* What the agent does with it. */
static void put_remote(struct maker *m)
{
    const struct kms_key_info *info = &m->key->info;
    CK_MECHANISM_TYPE allowed[MECHANISMS_MAX];
    const size_t count =
        kms_mech_allowed(&info->algs, info->type, info->uses, allowed, MECHANISMS_MAX);

    memcpy(m->object->ref, info->ref, sizeof(m->object->ref));
    m->object->algs = info->algs;
    put(m, CKA_ALLOWED_MECHANISMS, allowed, count * sizeof(allowed[0]));
    put_bool(m, CKA_SENSITIVE, true); /* whatever the service says: here nobody reads it */
    put_bool(m, CKA_ALWAYS_SENSITIVE, info->always_sensitive);
    put_bool(m, CKA_EXTRACTABLE, false);
    put_bool(m, CKA_NEVER_EXTRACTABLE, info->never_extractable);
    put_bool(m, CKA_WRAP_WITH_TRUSTED, false);
}

static void put_uses(struct maker *m, const CK_ATTRIBUTE_TYPE *types, const unsigned *uses,
                     size_t count)
{
    /* tokens let their makers claim that a key on a curve decrypts */
    const bool curve = m->key->info.type == KMS_KEY_EC || m->key->info.type == KMS_KEY_EDDSA;
    const unsigned can = curve ? KMS_USE_SIGN | KMS_USE_VERIFY : ~0u;

    for (size_t i = 0; i < count; i++) {
        put_bool(m, types[i], (m->key->info.uses & can & uses[i]) != 0);
    }
}

static void make_secret(struct maker *m, struct kms_key_objects *ret)
{
    static const CK_ATTRIBUTE_TYPE types[] = {CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP,
                                              CKA_UNWRAP,  CKA_SIGN,    CKA_VERIFY};
    static const unsigned uses[] = {KMS_USE_ENCRYPT, KMS_USE_DECRYPT, KMS_USE_WRAP,
                                    KMS_USE_UNWRAP,  KMS_USE_SIGN,    KMS_USE_VERIFY};

    if (!begin(m, CKO_SECRET_KEY, true, "")) {
        return;
    }
    put_key(m);
    put_remote(m);
    put_uses(m, types, uses, sizeof(types) / sizeof(types[0]));
    if (m->object->key_type != CKK_CHACHA20) { /* which has one length only (3.0, 2.55.2) */
        put_ulong(m, CKA_VALUE_LEN, (m->key->info.bits + 7) / 8);
    }
    put_bool(m, CKA_TRUSTED, false);
    end(m, ret->own, &ret->own_count);
}

/* Who has the public half can do these: nobody is asked. */
static void make_public(struct maker *m, struct kms_key_objects *ret)
{
    const unsigned uses = m->key->info.uses;
    const bool rsa = m->key->info.type == KMS_KEY_RSA;

    if (m->soft == NULL || !begin(m, CKO_PUBLIC_KEY, false, "#public")) {
        return;
    }
    put_key(m);
    put_bool(m, CKA_ENCRYPT, rsa && (uses & (KMS_USE_ENCRYPT | KMS_USE_DECRYPT)) != 0);
    put_bool(m, CKA_WRAP, rsa && (uses & (KMS_USE_WRAP | KMS_USE_UNWRAP)) != 0);
    put_bool(m, CKA_VERIFY, (uses & (KMS_USE_SIGN | KMS_USE_VERIFY)) != 0);
    put_bool(m, CKA_VERIFY_RECOVER, false);
    put_bool(m, CKA_TRUSTED, false);
    put(m, CKA_SUBJECT, NULL, 0);
    if (m->rv == CKR_OK) {
        m->rv = kms_soft_key_export(m->soft, true, m->object->attrs);
    }
    m->object->soft = kms_soft_key_ref(m->soft);
    end(m, ret->own, &ret->own_count);
}

static void make_private(struct maker *m, struct kms_key_objects *ret)
{
    static const CK_ATTRIBUTE_TYPE types[] = {CKA_DECRYPT, CKA_UNWRAP, CKA_SIGN};
    static const unsigned uses[] = {KMS_USE_DECRYPT, KMS_USE_UNWRAP, KMS_USE_SIGN};
    /* of the public half: saves hosts a look-up, and some never look for the other object */
    static const CK_ATTRIBUTE_TYPE halves[] = {CKA_MODULUS,         CKA_MODULUS_BITS,
                                               CKA_PUBLIC_EXPONENT, CKA_EC_PARAMS,
                                               CKA_EC_POINT,        CKA_PUBLIC_KEY_INFO};
    struct kms_key_objects half = {.own_count = 0};

    make_public(m, &half);
    if (!begin(m, CKO_PRIVATE_KEY, true, "")) {
        kms_key_objects_done(&half);
        return;
    }
    put_key(m);
    put_remote(m);
    put_uses(m, types, uses, sizeof(types) / sizeof(types[0]));
    put_bool(m, CKA_SIGN_RECOVER, false);
    put_bool(m, CKA_ALWAYS_AUTHENTICATE, false);
    put(m, CKA_SUBJECT, NULL, 0);
    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        copy(m, halves[i], half.own[0]);
    }
    end(m, ret->own, &ret->own_count);
    if (half.own_count > 0) {
        ret->own[ret->own_count++] = half.own[0];
    }
}

/* ---- certificates ---------------------------------------------------------------------------- */

static void put_certificate(struct maker *m, struct kms_span der, const struct kms_x509 *x509,
                            bool authority)
{
    uint8_t check[3] = {0}; /* 4.6.3: of its SHA-1 */

    put(m, CKA_VALUE, der.data, der.len);
    put(m, CKA_SUBJECT, x509->subject.data, x509->subject.len);
    put(m, CKA_ISSUER, x509->issuer.data, x509->issuer.len);
    put(m, CKA_SERIAL_NUMBER, x509->serial.data, x509->serial.len);
    put(m, CKA_PUBLIC_KEY_INFO, x509->spki.data, x509->spki.len);
    put_ulong(m, CKA_CERTIFICATE_TYPE, CKC_X_509);
    put_ulong(m, CKA_CERTIFICATE_CATEGORY, authority ? 2 : 1); /* authority, token user */
    put_ulong(m, CKA_JAVA_MIDP_SECURITY_DOMAIN, 0);            /* unspecified */
    put_ulong(m, CKA_NAME_HASH_ALGORITHM, CKM_SHA_1);
    put(m, CKA_URL, NULL, 0);
    put(m, CKA_HASH_OF_SUBJECT_PUBLIC_KEY, NULL, 0);
    put(m, CKA_HASH_OF_ISSUER_PUBLIC_KEY, NULL, 0);
    put_bool(m, CKA_TRUSTED, false);
    if (m->rv == CKR_OK) {
        m->rv = hash(der, "SHA1", check, sizeof(check));
    }
    put(m, CKA_CHECK_VALUE, check, sizeof(check));
}

static void make_certificate(struct maker *m, size_t index, struct kms_key_objects *ret)
{
    const struct kms_span der = m->key->certificates[index];
    struct kms_x509 x509;

    if (kms_x509_read(der, &x509) != KMS_OK) {
        kms_p11_log(KMS_P11_WARN, "key %s: its certificate %zu cannot be read", m->key->info.label,
                    index + 1);
        return;
    }
    if (!begin(m, CKO_CERTIFICATE, false, "#certificate")) {
        return;
    }
    put_certificate(m, der, &x509, index > 0);
    if (index == 0) {
        end(m, ret->own, &ret->own_count);
        return;
    }
    /* an authority's: of no key of ours, and the same whichever key brings it */
    if (m->rv == CKR_OK) {
        uint8_t id[KMS_KEY_HASH_ID] = {0};
        char unique[2 * sizeof(id) + 16] = "certificate:";
        size_t at = strlen(unique);

        m->rv = hash(der, "SHA256", id, sizeof(id));
        for (size_t i = 0; i < sizeof(id) && m->rv == CKR_OK; i++) {
            at += (size_t)snprintf(unique + at, sizeof(unique) - at, "%02x", id[i]);
        }
        put(m, CKA_ID, id, sizeof(id));
        put_text(m, CKA_UNIQUE_ID, unique);
        put(m, CKA_LABEL, x509.common_name.data, x509.common_name.len);
        put(m, CKA_KMSBRIDGE_KEY_ID, NULL, 0);
        put(m, CKA_KMSBRIDGE_VERSION, NULL, 0);
        put(m, CKA_KMSBRIDGE_NAME, NULL, 0);
    }
    end(m, ret->chain, &ret->chain_count);
}

/* ---- all of it ------------------------------------------------------------------------------- */

void kms_key_objects_done(struct kms_key_objects *objects)
{
    for (size_t i = 0; i < objects->own_count; i++) {
        kms_object_unref(objects->own[i]);
    }
    for (size_t i = 0; i < objects->chain_count; i++) {
        kms_object_unref(objects->chain[i]);
    }
    *objects = (struct kms_key_objects){.own_count = 0};
}

static void read_public(struct maker *m)
{
    CK_RV rv =
        m->key->spki.len == 0 ? CKR_GENERAL_ERROR : kms_soft_key_from_spki(m->key->spki, &m->soft);

    if (rv != CKR_OK) {
        kms_p11_log(KMS_P11_WARN, "key %s: its public key %s", m->key->info.label,
                    m->key->spki.len == 0 ? "is not known" : "cannot be read");
    }
}

CK_RV kms_key_objects_make(struct kms_slot *slot, const struct kms_agent_key *key,
                           struct kms_key_objects *ret)
{
    struct maker m = {.slot = slot, .key = key};
    struct kms_key_objects made = {.own_count = 0};

    if ((unsigned)key->info.type >= KMS_KEY_TYPE_COUNT) {
        return CKR_GENERAL_ERROR;
    }
    m.rv = choose_id(&m);
    if (key_types[key->info.type].pair) {
        read_public(&m);
        make_private(&m, &made);
    } else {
        make_secret(&m, &made);
    }
    for (size_t i = 0; i < key->certificate_count && i < KMS_AGENT_CERTS_MAX; i++) {
        make_certificate(&m, i, &made);
    }
    kms_soft_key_unref(m.soft);
    if (m.rv != CKR_OK) {
        kms_key_objects_done(&made);
        return m.rv;
    }
    made.hashed_id = key->info.tag_len == 0;
    *ret = made;
    return CKR_OK;
}
