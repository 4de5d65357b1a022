/* SPDX-License-Identifier: Apache-2.0 */
/* Making and destroying keys. What is made never leaves the token. */
#include <stdio.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/clock.h"

#define TAG_LEN 8 /* of the tags we give: Unix milliseconds, big-endian */

#define MADE_MAX    2    /* a key and its companion */
#define DESTROY_MAX 1000 /* objects of one key's material */

/* The handles of what a job made. */
struct made {
    CK_OBJECT_HANDLE handles[MADE_MAX];
    size_t count;
};

struct job {
    struct kms_backend *backend;
    struct made *made;
    const char *label;
    uint8_t tag[KMS_KEY_TAG_MAX];
    size_t tag_len;
    const struct kind *kind;
    unsigned bits;
    unsigned uses;
    struct kms_key_info info;
};

/* ---- templates ---------------------------------------------------------------------------- */

static void put_name(struct kms_p11_template *t, const struct job *job, const char *label)
{
    kms_p11_put_bool(t, CKA_TOKEN, true);
    kms_p11_put_bytes(t, CKA_LABEL, label, strlen(label));
    kms_p11_put_bytes(t, CKA_ID, job->tag, job->tag_len);
}

static void put_private(struct kms_p11_template *t)
{
    kms_p11_put_bool(t, CKA_PRIVATE, true);
    kms_p11_put_bool(t, CKA_SENSITIVE, true);
    kms_p11_put_bool(t, CKA_EXTRACTABLE, false);
}

static void put_uses(struct kms_p11_template *t, unsigned uses, unsigned which)
{
    static const struct {
        unsigned use;
        CK_ATTRIBUTE_TYPE type;
    } rows[] = {
        {KMS_USE_ENCRYPT, CKA_ENCRYPT}, {KMS_USE_DECRYPT, CKA_DECRYPT},
        {KMS_USE_WRAP, CKA_WRAP},       {KMS_USE_UNWRAP, CKA_UNWRAP},
        {KMS_USE_SIGN, CKA_SIGN},       {KMS_USE_VERIFY, CKA_VERIFY},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if ((which & rows[i].use) != 0) {
            kms_p11_put_bool(t, rows[i].type, (uses & rows[i].use) != 0);
        }
    }
}

static void note_made(const struct job *job, CK_OBJECT_HANDLE handle)
{
    if (handle != CK_INVALID_HANDLE && job->made->count < MADE_MAX) {
        job->made->handles[job->made->count++] = handle;
    }
}

/* ---- one maker for each type -------------------------------------------------------------- */

static CK_RV make_secret(struct kms_p11 *p, const struct job *job, const char *label,
                         CK_MECHANISM_TYPE type, unsigned bits, unsigned uses, unsigned which)
{
    struct kms_p11_template t = {.count = 0};
    CK_MECHANISM mechanism = {.mechanism = type};
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
    CK_RV rv = CKR_OK;

    put_name(&t, job, label);
    put_private(&t);
    put_uses(&t, uses, which);
    kms_p11_put_number(&t, CKA_VALUE_LEN, bits / 8);
    p->committed = true;
    rv = KMS_P11(p, C_GenerateKey)(p->session, &mechanism, t.rows, t.count, &handle);
    if (rv == CKR_OK) {
        note_made(job, handle);
    }
    return rv;
}

#define SECRET_USES (KMS_USE_ENCRYPT | KMS_USE_DECRYPT | KMS_USE_WRAP | KMS_USE_UNWRAP)
#define MAC_USES    (KMS_USE_SIGN | KMS_USE_VERIFY)
#define ALL_USES    (SECRET_USES | MAC_USES)

static CK_RV make_aes(struct kms_p11 *p, const struct job *job)
{
    return make_secret(p, job, job->label, CKM_AES_KEY_GEN, job->bits, job->uses, ALL_USES);
}

static CK_RV make_generic(struct kms_p11 *p, const struct job *job)
{
    return make_secret(p, job, job->label, CKM_GENERIC_SECRET_KEY_GEN, job->bits, job->uses,
                       ALL_USES);
}

static CK_RV make_pair(struct kms_p11 *p, const struct job *job, CK_MECHANISM_TYPE type,
                       struct kms_p11_template *public_half)
{
    const unsigned publics = KMS_USE_ENCRYPT | KMS_USE_VERIFY | KMS_USE_WRAP;
    const unsigned privates = KMS_USE_DECRYPT | KMS_USE_SIGN | KMS_USE_UNWRAP;
    struct kms_p11_template private_half = {.count = 0};
    CK_MECHANISM mechanism = {.mechanism = type};
    CK_OBJECT_HANDLE handles[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};

    put_name(public_half, job, job->label);
    put_uses(public_half, job->uses, publics);
    put_name(&private_half, job, job->label);
    put_private(&private_half);
    put_uses(&private_half, job->uses, privates);
    p->committed = true;
    return KMS_P11(p, C_GenerateKeyPair)(p->session, &mechanism, public_half->rows,
                                         public_half->count, private_half.rows, private_half.count,
                                         &handles[0], &handles[1]);
}

static CK_RV make_rsa(struct kms_p11 *p, const struct job *job)
{
    static const uint8_t exponent[] = {0x01, 0x00, 0x01};
    struct kms_p11_template t = {.count = 0};

    kms_p11_put_number(&t, CKA_MODULUS_BITS, job->bits);
    kms_p11_put_bytes(&t, CKA_PUBLIC_EXPONENT, exponent, sizeof(exponent));
    return make_pair(p, job, CKM_RSA_PKCS_KEY_PAIR_GEN, &t);
}

static CK_RV make_curve(struct kms_p11 *p, const struct job *job, CK_MECHANISM_TYPE type,
                        struct kms_span params)
{
    struct kms_p11_template t = {.count = 0};

    kms_p11_put_bytes(&t, CKA_EC_PARAMS, params.data, params.len);
    return make_pair(p, job, type, &t);
}

/* DER OBJECT IDENTIFIERs (RFC 5480 2.1.1.1). */
static const uint8_t oid_p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
static const uint8_t oid_p384[] = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22};
static const uint8_t oid_p521[] = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23};

static CK_RV make_ec(struct kms_p11 *p, const struct job *job)
{
    struct kms_span oid = job->bits == 256   ? kms_span_of(oid_p256, sizeof(oid_p256))
                          : job->bits == 384 ? kms_span_of(oid_p384, sizeof(oid_p384))
                                             : kms_span_of(oid_p521, sizeof(oid_p521));

    return make_curve(p, job, CKM_EC_KEY_PAIR_GEN, oid);
}

/* 2.40 says nothing of Ed25519; tokens name it by RFC 8410's OID or by 3.0's PrintableString. */
static CK_RV make_eddsa(struct kms_p11 *p, const struct job *job)
{
    static const uint8_t oid[] = {0x06, 0x03, 0x2b, 0x65, 0x70};
    static const uint8_t name[] = "\x13\x0c"
                                  "edwards25519";
    CK_RV rv = make_curve(p, job, CKM_EC_EDWARDS_KEY_PAIR_GEN, kms_span_of(oid, sizeof(oid)));

    if (kms_ckr_is_unsupported(rv)) {
        rv = make_curve(p, job, CKM_EC_EDWARDS_KEY_PAIR_GEN, kms_span_of(name, sizeof(name) - 1));
    }
    return rv;
}

#define SIGN_USES (KMS_USE_SIGN | KMS_USE_VERIFY)

static const struct kind {
    enum kms_key_type type;
    CK_RV (*make)(struct kms_p11 *p, const struct job *job);
    unsigned bits[4]; /* allowed ones, the usual one first; RSA: 2048 to 4096 by 256 */
    unsigned uses;    /* the usual ones */
} kinds[] = {
    {KMS_KEY_AES, make_aes, {256, 128, 192, 0}, SECRET_USES},
    {KMS_KEY_GENERIC, make_generic, {256, 384, 512, 0}, MAC_USES},
    {KMS_KEY_RSA, make_rsa, {3072, 2048, 4096, 0}, SIGN_USES | KMS_USE_ENCRYPT | KMS_USE_DECRYPT},
    {KMS_KEY_EC, make_ec, {256, 384, 521, 0}, SIGN_USES},
    {KMS_KEY_EDDSA, make_eddsa, {256, 255, 0, 0}, SIGN_USES},
};

/* ---- tags --------------------------------------------------------------------------------- */

/* One more than @tag into @job; false when it has no room. */
static bool tag_above(struct job *job, struct kms_span tag)
{
    size_t i = 0;

    tag = kms_key_tag_significant(tag);
    job->tag_len = tag.len < TAG_LEN ? TAG_LEN : tag.len;
    if (tag.len > sizeof(job->tag)) {
        return false;
    }
    memset(job->tag, 0, sizeof(job->tag));
    memcpy(job->tag + job->tag_len - tag.len, tag.data, tag.len);
    for (i = job->tag_len; i > 0 && ++job->tag[i - 1] == 0; i--) {
    }
    return i > 0; /* all ones: nothing sorts after it in as many bytes */
}

static bool tag_make(struct job *job, const struct kms_hsm_keys *found)
{
    uint64_t now = kms_wall_ms();
    struct kms_span highest = KMS_SPAN_NONE;

    for (size_t i = 0; i < found->count; i++) {
        const struct kms_key_info *info = &found->keys[i]->info;
        struct kms_span tag = kms_span_of(info->tag, info->tag_len);

        highest = kms_key_tag_compare(tag, highest) > 0 ? tag : highest;
    }
    job->tag_len = TAG_LEN;
    for (size_t i = 0; i < TAG_LEN; i++) {
        job->tag[i] = (uint8_t)(now >> (56 - 8 * i));
    }
    return kms_key_tag_compare(kms_span_of(job->tag, TAG_LEN), highest) > 0 ||
           tag_above(job, highest);
}

/* ---- generate ----------------------------------------------------------------------------- */

/*
 * Whether a key has the tag, whatever its label: a token may keep one key for each CKA_ID, and let
 * a new one take the place of the old (NSS softokn does).
 */
static CK_RV check_free(struct kms_p11 *p, const struct job *job, CK_OBJECT_CLASS class)
{
    struct kms_p11_template t = {.count = 0};
    struct kms_p11_objects found;
    CK_RV rv = CKR_OK;

    kms_p11_put_number(&t, CKA_CLASS, class);
    kms_p11_put_bytes(&t, CKA_ID, job->tag, job->tag_len);
    rv = kms_p11_find(p, &t, &found);
    if (rv == CKR_OK && found.count > 0) {
        (void)kms_error_set(p->ask->err, KMS_E_EXISTS,
                            "a key with this CKA_ID is on the token already");
        rv = CKR_TEMPLATE_INCONSISTENT;
    }
    kms_p11_objects_done(&found);
    return rv;
}

static CK_RV choose_tag(struct kms_p11 *p, struct job *job)
{
    struct kms_key_filter filter = {.label = job->label};
    struct kms_hsm_keys found = {.keys = NULL, .count = 0};
    CK_RV rv = kms_hsm_scan(job->backend, p, &filter, &found);

    if (rv == CKR_MECHANISM_INVALID) { /* there are some, though we cannot use them */
        kms_error_clear(p->ask->err);
        rv = CKR_OK;
    }
    if (rv == CKR_OK && !tag_make(job, &found)) {
        (void)kms_error_set(p->ask->err, KMS_E_EXISTS,
                            "no CKA_ID sorts after those of \"%s\"; give one", job->label);
        rv = CKR_TEMPLATE_INCONSISTENT;
    }
    kms_hsm_keys_done(&found);
    return rv;
}

static CK_RV name_it(struct kms_p11 *p, struct job *job)
{
    CK_RV rv = job->tag_len == 0 ? choose_tag(p, job) : CKR_OK;

    if (rv == CKR_OK) {
        rv = check_free(p, job, CKO_SECRET_KEY);
    }
    return rv == CKR_OK ? check_free(p, job, CKO_PRIVATE_KEY) : rv;
}

/* The key just made, as everybody will see it. */
static CK_RV look_at_it(struct kms_p11 *p, struct job *job, struct kms_hsm_keys *ret_found)
{
    struct kms_key_filter filter = {.label = job->label,
                                    .tag = kms_span_of(job->tag, job->tag_len)};
    CK_RV rv = kms_hsm_scan(job->backend, p, &filter, ret_found);

    if (rv == CKR_OK && ret_found->count != 1) {
        (void)kms_error_set(p->ask->err, KMS_E_PROTOCOL, "%zu keys \"%s\" after making one",
                            ret_found->count, job->label);
        kms_hsm_keys_done(ret_found);
        rv = KMS_P11_BAD_REPLY;
    }
    if (rv == CKR_OK) {
        job->info = ret_found->keys[0]->info;
    }
    return rv;
}

/* What was made goes, and nothing else: others may have made a key of this CKA_ID since. */
static void undo(struct kms_p11 *p, const struct job *job)
{
    while (job->made->count > 0) {
        (void)p->functions->C_DestroyObject(p->session, job->made->handles[--job->made->count]);
    }
}

/* An AES key that cannot seal by itself gets an HMAC key beside it; useless without, it goes. */
static CK_RV add_companion(struct kms_p11 *p, struct job *job, const struct kms_hsm_key *aes)
{
    char label[KMS_LABEL_MAX + sizeof(KMS_HSM_MAC_SUFFIX)];
    bool same = false;
    CK_RV rv = CKR_OK;

    (void)snprintf(label, sizeof(label), "%s%s", job->label, KMS_HSM_MAC_SUFFIX);
    rv = make_secret(p, job, label, CKM_GENERIC_SECRET_KEY_GEN, 256, MAC_USES, ALL_USES);
    if (rv == CKR_OK && (kms_hsm_still(p, aes, &same) != CKR_OK || !same)) {
        (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                            "the token keeps one key for each CKA_ID, so an AES key cannot have "
                            "its HMAC key beside it");
        rv = CKR_TEMPLATE_INCONSISTENT;
    }
    if (rv != CKR_OK) {
        undo(p, job);
    }
    p->refresh = rv == CKR_OK; /* describe the AES key anew, with its companion */
    return rv;
}

static bool wants_companion(const struct job *job, const struct kms_hsm_key *key)
{
    const unsigned both = KMS_USE_ENCRYPT | KMS_USE_DECRYPT;

    bool may = job->backend->only == KMS_ALG_NONE || job->backend->only == KMS_ALG_AES_CBC_HMAC;

    return may && key->info.type == KMS_KEY_AES && (job->uses & both) == both &&
           key->mac == CK_INVALID_HANDLE && key->info.seal == KMS_ALG_NONE;
}

static CK_RV generate_step(struct kms_p11 *p, void *ctx)
{
    struct job *job = ctx;
    struct kms_hsm_keys found = {.keys = NULL, .count = 0};
    struct made made = {.count = 0};
    CK_RV rv = name_it(p, job);

    job->made = &made;
    if (rv == CKR_OK) {
        rv = job->kind->make(p, job);
    }
    if (rv == CKR_OK) {
        rv = look_at_it(p, job, &found);
    }
    if (rv == CKR_OK && wants_companion(job, found.keys[0])) {
        rv = add_companion(p, job, found.keys[0]);
        kms_hsm_keys_done(&found);
        if (rv == CKR_OK) {
            rv = look_at_it(p, job, &found);
        }
    }
    kms_hsm_keys_done(&found);
    job->made = NULL;
    return rv;
}

static bool bits_fit(const struct kind *kind, unsigned bits)
{
    if (kind->type == KMS_KEY_RSA) {
        return bits >= 2048 && bits <= 4096 && bits % 256 == 0;
    }
    for (size_t i = 0; i < 4 && kind->bits[i] != 0; i++) {
        if (kind->bits[i] == bits) {
            return true;
        }
    }
    return false;
}

static enum kms_status job_make(struct kms_call *call, const struct kms_key_template *tmpl,
                                struct job *ret_job)
{
    struct job *job = ret_job;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i].type == tmpl->type) {
            job->kind = &kinds[i];
        }
    }
    if (job->kind == NULL) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "no key of type %s is made in an HSM",
                             kms_key_type_name(tmpl->type));
    }
    job->bits = tmpl->bits == 0 ? job->kind->bits[0] : tmpl->bits;
    if (!bits_fit(job->kind, job->bits)) {
        return kms_error_set(&call->error, KMS_E_INVALID, "no %s key of %u bits is made",
                             kms_key_type_name(tmpl->type), job->bits);
    }
    if (tmpl->label == NULL || tmpl->label[0] == '\0' || strlen(tmpl->label) >= KMS_LABEL_MAX) {
        return kms_error_set(&call->error, KMS_E_INVALID,
                             "a new key needs a label of 1 to %d bytes", KMS_LABEL_MAX - 1);
    }
    if (tmpl->tag.len > sizeof(job->tag)) {
        return kms_error_set(&call->error, KMS_E_INVALID, "a CKA_ID has at most %d bytes",
                             KMS_KEY_TAG_MAX);
    }
    job->label = tmpl->label;
    job->uses = tmpl->uses == 0 ? job->kind->uses : tmpl->uses;
    job->tag_len = tmpl->tag.len;
    if (tmpl->tag.len > 0) {
        memcpy(job->tag, tmpl->tag.data, tmpl->tag.len);
    }
    return KMS_OK;
}

enum kms_status kms_hsm_generate(struct kms_backend *b, struct kms_call *call,
                                 const struct kms_key_template *tmpl, struct kms_key_info *ret_info)
{
    struct job job = {.backend = b};
    enum kms_status status = job_make(call, tmpl, &job);

    if (status == KMS_OK) {
        status = kms_hsm_run(b, call, KMS_P11_WRITE, generate_step, &job);
    }
    if (status == KMS_OK) {
        *ret_info = job.info;
    }
    return status;
}

/* ---- rotate ------------------------------------------------------------------------------- */

struct lookup {
    struct kms_backend *backend;
    const char *ref;
    struct kms_key_info info;
};

static CK_RV lookup_step(struct kms_p11 *p, void *ctx)
{
    struct lookup *lookup = ctx;
    struct kms_hsm_key *key = NULL;
    CK_RV rv = kms_hsm_key_get(lookup->backend, p, lookup->ref, &key);

    if (rv == CKR_OK) {
        lookup->info = key->info;
    }
    kms_hsm_key_put(key);
    return rv;
}

enum kms_status kms_hsm_rotate(struct kms_backend *b, struct kms_call *call, const char *ref,
                               struct kms_key_info *ret_info)
{
    struct lookup lookup = {.backend = b, .ref = ref};
    struct kms_key_template tmpl = {.bits = 0};
    enum kms_status status = kms_hsm_run(b, call, KMS_P11_READ, lookup_step, &lookup);

    if (status != KMS_OK) {
        return status;
    }
    tmpl.type = lookup.info.type;
    tmpl.bits = lookup.info.bits;
    tmpl.label = lookup.info.label;
    tmpl.uses = lookup.info.uses;
    return kms_hsm_generate(b, call, &tmpl, ret_info);
}

/* ---- destroy ------------------------------------------------------------------------------ */

struct doomed {
    struct kms_backend *backend;
    const char *ref;
    unsigned destroyed;
};

static CK_RV destroy_public(struct kms_p11 *p, const struct kms_hsm_key *key)
{
    struct kms_p11_template t = {.count = 0};
    struct kms_p11_objects found;
    CK_RV rv = CKR_OK;

    if (key->public_key == NULL || key->info.tag_len == 0) {
        return CKR_OK;
    }
    kms_p11_put_number(&t, CKA_CLASS, CKO_PUBLIC_KEY);
    kms_p11_put_number(&t, CKA_KEY_TYPE, key->key_type);
    kms_p11_put_bytes(&t, CKA_LABEL, key->info.label, strlen(key->info.label));
    kms_p11_put_bytes(&t, CKA_ID, key->info.tag, key->info.tag_len);
    rv = kms_p11_find(p, &t, &found);
    for (size_t i = 0; i < found.count && rv == CKR_OK; i++) {
        rv = KMS_P11(p, C_DestroyObject)(p->session, found.handles[i]);
    }
    kms_p11_objects_done(&found);
    return rv;
}

/* The companion and the public half first: what is left when that fails can be destroyed again. */
static CK_RV destroy_one(struct kms_p11 *p, const struct kms_hsm_key *key)
{
    CK_RV rv = destroy_public(p, key);

    if (rv == CKR_OK && key->mac != CK_INVALID_HANDLE) {
        rv = KMS_P11(p, C_DestroyObject)(p->session, key->mac);
    }
    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_DestroyObject)(p->session, key->handle);
    }
    return rv;
}

/* Every object with this material goes: a key that is destroyed is not to be found again. */
static CK_RV destroy_step(struct kms_p11 *p, void *ctx)
{
    struct doomed *doomed = ctx;
    CK_RV rv = CKR_OK;

    for (;;) {
        struct kms_hsm_key *key = NULL;

        p->refresh = true; /* nothing is destroyed by a handle remembered from before */
        rv = kms_hsm_key_get(doomed->backend, p, doomed->ref, &key);
        if (rv != CKR_OK && doomed->destroyed > 0 && p->ask->err->status == KMS_E_NOT_FOUND) {
            kms_error_clear(p->ask->err);
            return CKR_OK;
        }
        if (rv == CKR_OK) {
            rv = destroy_one(p, key);
        }
        kms_hsm_key_put(key);
        if (rv != CKR_OK) {
            return rv;
        }
        doomed->destroyed++;
        if (doomed->destroyed == DESTROY_MAX || kms_deadline_passed(p->ask->deadline_ns)) {
            (void)kms_error_set(p->ask->err, KMS_E_TIMEOUT,
                                "%s: %u objects of the key were destroyed, and it may not be gone",
                                kms_p11_token_name(doomed->backend->token), doomed->destroyed);
            return CKR_FUNCTION_CANCELED;
        }
    }
}

enum kms_status kms_hsm_destroy(struct kms_backend *b, struct kms_call *call, const char *ref)
{
    struct doomed doomed = {.backend = b, .ref = ref};

    return kms_hsm_run(b, call, KMS_P11_WRITE, destroy_step, &doomed);
}
