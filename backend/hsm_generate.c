/* SPDX-License-Identifier: Apache-2.0 */
/* Generating and rotating: which key is to be made, under which CKA_ID, and what came of it. */
#include <string.h>

#include "backend/hsm_make.h"
#include "backend/p11/ckr.h"
#include "common/clock.h"

#define TAG_LEN 8 /* of the tags we give: Unix milliseconds, big-endian */

/* ---- tags --------------------------------------------------------------------------------- */

/* One more than @tag into @job; false when it has no room. */
static bool tag_above(struct kms_hsm_new *job, struct kms_span tag)
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

static bool tag_make(struct kms_hsm_new *job, const struct kms_hsm_keys *found)
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
static CK_RV check_free(struct kms_p11 *p, const struct kms_hsm_new *job, CK_OBJECT_CLASS class)
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

static CK_RV choose_tag(struct kms_p11 *p, struct kms_hsm_new *job)
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

static CK_RV name_it(struct kms_p11 *p, struct kms_hsm_new *job)
{
    CK_RV rv = job->tag_len == 0 ? choose_tag(p, job) : CKR_OK;

    if (rv == CKR_OK) {
        rv = check_free(p, job, CKO_SECRET_KEY);
    }
    return rv == CKR_OK ? check_free(p, job, CKO_PRIVATE_KEY) : rv;
}

/* The key just made, as everybody will see it. */
static CK_RV look_at_it(struct kms_p11 *p, struct kms_hsm_new *job, struct kms_hsm_keys *ret_found)
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

/* An AES key that cannot seal by itself gets an HMAC key beside it; useless without, it goes. */
static CK_RV add_companion(struct kms_p11 *p, struct kms_hsm_new *job,
                           const struct kms_hsm_key *aes)
{
    bool same = false;
    CK_RV rv = kms_hsm_make_companion(p, job);

    if (rv == CKR_OK && (kms_hsm_still(p, NULL, aes, &same) != CKR_OK || !same)) {
        (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                            "the token keeps one key for each CKA_ID, so an AES key cannot have "
                            "its HMAC key beside it");
        rv = CKR_TEMPLATE_INCONSISTENT;
    }
    if (rv != CKR_OK) {
        kms_hsm_unmake(p, job);
    }
    p->refresh = rv == CKR_OK; /* describe the AES key anew, with its companion */
    return rv;
}

static bool wants_companion(const struct kms_hsm_new *job, const struct kms_hsm_key *key)
{
    const unsigned both = KMS_USE_ENCRYPT | KMS_USE_DECRYPT;

    bool may = job->backend->only == KMS_ALG_NONE || job->backend->only == KMS_ALG_AES_CBC_HMAC;

    return may && key->info.type == KMS_KEY_AES && (job->uses & both) == both &&
           key->mac == CK_INVALID_HANDLE && key->info.seal == KMS_ALG_NONE;
}

static CK_RV generate_step(struct kms_p11 *p, void *ctx)
{
    struct kms_hsm_new *job = ctx;
    struct kms_hsm_keys found = {.keys = NULL, .count = 0};
    struct kms_hsm_made made = {.count = 0};
    CK_RV rv = name_it(p, job);

    job->made = &made;
    if (rv == CKR_OK) {
        rv = job->kind->make(p, job);
    }
    if (rv == CKR_OK) {
        rv = look_at_it(p, job, &found);
        if (rv == CKR_MECHANISM_INVALID) { /* no use to anybody: it could not even be destroyed */
            kms_hsm_unmake(p, job);
        }
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

static enum kms_status job_make(struct kms_call *call, const struct kms_key_template *tmpl,
                                struct kms_hsm_new *ret_job)
{
    struct kms_hsm_new *job = ret_job;

    job->kind = kms_hsm_kind_find(tmpl->type);
    if (job->kind == NULL) {
        return kms_error_set(&call->error, KMS_E_UNSUPPORTED, "no key of type %s is made in an HSM",
                             kms_key_type_name(tmpl->type));
    }
    job->bits = tmpl->bits == 0 ? job->kind->bits[0] : tmpl->bits;
    if (!kms_hsm_kind_fits(job->kind, job->bits)) {
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
    struct kms_hsm_new job = {.backend = b};
    enum kms_status status = job_make(call, tmpl, &job);

    if (status == KMS_OK) {
        status = kms_hsm_run_once(b, call, KMS_P11_WRITE, generate_step, &job);
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
    enum kms_status status = kms_hsm_run_once(b, call, KMS_P11_READ, lookup_step, &lookup);

    if (status != KMS_OK) {
        return status;
    }
    tmpl.type = lookup.info.type;
    tmpl.bits = lookup.info.bits;
    tmpl.label = lookup.info.label;
    tmpl.uses = lookup.info.uses;
    return kms_hsm_generate(b, call, &tmpl, ret_info);
}
