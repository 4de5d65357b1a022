/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/hsm.h"

#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend_conf.h"
#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "backend/p11/uri.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/secret.h"
#include "common/secure.h"

#define SMALL_SLOTS_MAX 64
#define DOUBT_MIN_NS    (2 * KMS_NS_PER_S)
#define DOUBT_MAX_NS    (60 * KMS_NS_PER_S)

static const struct {
    const char *name;
    enum kms_alg only;
} mechanisms[] = {
    {"auto", KMS_ALG_NONE},
    {"aes-gcm", KMS_ALG_AES_GCM},
    {"aes-cbc-hmac", KMS_ALG_AES_CBC_HMAC},
    {"rsa-oaep", KMS_ALG_RSA_OAEP_SHA256},
};

enum kms_status kms_hsm_run(struct kms_backend *b, struct kms_call *call, enum kms_p11_mode mode,
                            kms_p11_step step, void *ctx)
{
    struct kms_p11_ask ask = {
        .deadline_ns = call->deadline_ns, .cancelled = call->cancelled, .err = &call->error};

    return kms_p11_run(b->token, mode, &ask, step, ctx);
}

enum kms_status kms_hsm_run_once(struct kms_backend *b, struct kms_call *call,
                                 enum kms_p11_mode mode, kms_p11_step step, void *ctx)
{
    struct kms_p11_ask ask = {.deadline_ns = call->deadline_ns,
                              .cancelled = call->cancelled,
                              .err = &call->error,
                              .patient = true};

    return kms_p11_run(b->token, mode, &ask, step, ctx);
}

/* ---- open, close, health ------------------------------------------------------------------ */

static enum kms_status parse_mechanism(const struct kms_backend_conf *conf, enum kms_alg *ret_only,
                                       struct kms_error *err)
{
    const char *name = conf->hsm->mechanism == NULL ? "auto" : conf->hsm->mechanism;

    for (size_t i = 0; i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++) {
        if (strcmp(mechanisms[i].name, name) == 0) {
            *ret_only = mechanisms[i].only;
            return KMS_OK;
        }
    }
    return kms_error_set(err, KMS_E_INVALID,
                         "backend %s: mechanism: \"%s\" is none of auto, aes-gcm, aes-cbc-hmac, "
                         "rsa-oaep",
                         conf->name, name);
}

static enum kms_status check(const struct kms_backend_conf *conf, struct kms_error *err)
{
    const struct kms_hsm_conf *hsm = conf->hsm;
    struct kms_error why = KMS_ERROR_INIT;

    if (hsm == NULL || hsm->module == NULL || hsm->module[0] == '\0') {
        return kms_error_set(err, KMS_E_INVALID, "backend %s: hsm.module is missing", conf->name);
    }
    if (hsm->token == NULL || hsm->token[0] == '\0') {
        return kms_error_set(err, KMS_E_INVALID, "backend %s: hsm.token is missing", conf->name);
    }
    if (hsm->sessions > KMS_HSM_SESSIONS_MAX) {
        return kms_error_set(err, KMS_E_INVALID, "backend %s: hsm.sessions is over %d", conf->name,
                             KMS_HSM_SESSIONS_MAX);
    }
    if (hsm->pin != NULL && kms_secret_check_ref(hsm->pin, &why) != KMS_OK) {
        return kms_error_set(err, KMS_E_INVALID, "backend %s: hsm.pin: %s", conf->name, why.text);
    }
    return KMS_OK;
}

static void hsm_close(struct kms_backend *b)
{
    if (b == NULL) {
        return;
    }
    kms_p11_token_free(b->token);
    kms_hsm_table_free(b->table);
    kms_secure_pool_free(b->small);
    free(b);
}

static enum kms_status hsm_open(const struct kms_backend_conf *conf,
                                struct kms_backend **ret_backend, struct kms_error *err)
{
    const struct kms_hsm_conf *hsm = conf->hsm;
    struct kms_p11_token_conf token = {.name = conf->name};
    struct kms_backend *b = NULL;
    enum kms_status status = check(conf, err);

    if (status != KMS_OK) {
        return status;
    }
    b = calloc(1, sizeof(*b));
    if (b == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for backend %s", conf->name);
    }
    b->table = kms_hsm_table_new();
    b->pin = hsm->pin;
    token.module = hsm->module;
    token.token = hsm->token;
    token.pin = hsm->pin;
    token.init_args = hsm->init_args;
    token.sessions = hsm->sessions == 0 ? KMS_HSM_SESSIONS_DEFAULT : hsm->sessions;
    b->small = kms_secure_pool_new(
        KMS_HSM_SMALL, token.sessions < SMALL_SLOTS_MAX ? token.sessions : SMALL_SLOTS_MAX);
    if (b->small == NULL || b->table == NULL) {
        status = kms_error_set(err, KMS_E_NOMEM, "no memory for backend %s", conf->name);
        goto out;
    }
    status = parse_mechanism(conf, &b->only, err);
    if (status == KMS_OK) {
        status = kms_p11_token_new(&token, &b->token, err);
    }
    if (status == KMS_OK) {
        *ret_backend = b;
        b = NULL;
    }
out:
    hsm_close(b);
    return status;
}

static void hsm_health(struct kms_backend *b, struct kms_health *ret_health)
{
    struct kms_p11_state state;

    kms_p11_token_state(b->token, &state, &ret_health->error);
    ret_health->ready = state.ready;
    ret_health->sessions_open = state.open;
    ret_health->sessions_busy = state.busy;
    ret_health->sessions_max = state.max;
    ret_health->reconnects = state.repairs;
    ret_health->stuck_ns = state.stuck_ns;
}

/* ---- list_keys ---------------------------------------------------------------------------- */

struct list {
    struct kms_backend *backend;
    struct kms_key_filter filter;
    char label[KMS_LABEL_MAX];
    uint8_t tag[KMS_KEY_TAG_MAX];
    struct kms_p11_uri *uri; /* NULL, or what names the key */
    struct kms_hsm_keys found;
};

/*
 * A token that was taken away without a word shows nothing (SoftHSM's folder moved, a network HSM's
 * partition unmounted), and goes on showing nothing after its return until the module is started
 * again. So nothing is believed only after a restart; the pauses between such doubts double. Where
 * we destroyed what there was, nothing is what there should be.
 */
static bool doubt(struct kms_backend *b)
{
    uint64_t now = kms_now_ns();
    uint64_t pause = atomic_load(&b->doubt_pause_ns);

    if (now < atomic_load(&b->doubt_ns) || atomic_load(&b->destroyed)) {
        return false;
    }
    pause = pause == 0 ? DOUBT_MIN_NS : pause * 2;
    pause = pause > DOUBT_MAX_NS ? DOUBT_MAX_NS : pause;
    atomic_store(&b->doubt_pause_ns, pause);
    atomic_store(&b->doubt_ns, now + pause);
    return true;
}

/* Whether the token shows no object at all; what a search for one key does not find may not be
 * there. */
static CK_RV shows_nothing(struct kms_p11 *p, bool *ret_nothing)
{
    struct kms_p11_template t = {.count = 0};
    CK_OBJECT_HANDLE one = CK_INVALID_HANDLE;
    CK_ULONG got = 0;
    CK_RV rv = CKR_OK;

    kms_p11_put_bool(&t, CKA_TOKEN, true);
    rv = KMS_P11(p, C_FindObjectsInit)(p->session, t.rows, t.count);
    if (rv == CKR_OK) {
        rv = KMS_P11(p, C_FindObjects)(p->session, &one, 1, &got);
        (void)p->functions->C_FindObjectsFinal(p->session);
    }
    *ret_nothing = rv == CKR_OK && got == 0;
    return rv;
}

static CK_RV list_step(struct kms_p11 *p, void *ctx)
{
    struct list *list = ctx;
    bool nothing = false;
    CK_RV rv = CKR_OK;

    if (list->uri != NULL && !kms_p11_is_on(p, list->uri)) {
        (void)kms_error_set(p->ask->err, KMS_E_INVALID,
                            "the key's pkcs11: URI names another token than backend %s has",
                            kms_p11_token_name(p->token));
        return CKR_ARGUMENTS_BAD;
    }
    rv = kms_hsm_scan(list->backend, p, &list->filter, &list->found);
    if (rv == CKR_OK && list->found.count == 0) {
        rv = shows_nothing(p, &nothing);
    }
    if (nothing && doubt(list->backend)) {
        p->function = "C_FindObjects";
        return CKR_TOKEN_NOT_PRESENT; /* restarts the module, then this step comes again */
    }
    if (rv == CKR_OK && list->found.count != 0) {
        atomic_store(&list->backend->doubt_pause_ns, 0);
        atomic_store(&list->backend->doubt_ns, 0);
        atomic_store(&list->backend->destroyed, false);
    }
    return rv;
}

/* The URI's object= and id= become the filter. */
static enum kms_status filter_by_uri(struct list *list, const char *text, struct kms_error *err)
{
    enum kms_status status = kms_p11_uri_parse(text, &list->uri, err);
    const void *label = NULL;
    const void *tag = NULL;
    size_t label_len = 0;
    size_t tag_len = 0;

    if (status != KMS_OK) {
        return status;
    }
    (void)kms_p11_uri_object(list->uri, CKA_LABEL, &label, &label_len);
    (void)kms_p11_uri_object(list->uri, CKA_ID, &tag, &tag_len);
    if (label_len >= sizeof(list->label) || tag_len > sizeof(list->tag)) {
        status = kms_error_set(err, KMS_E_INVALID, "object= or id= of the pkcs11: URI is too long");
    } else if (label_len == 0 && tag_len == 0) {
        status = kms_error_set(err, KMS_E_INVALID,
                               "the pkcs11: URI names no key: it needs object= "
                               "or id=");
    } else {
        memcpy(list->label, label == NULL ? "" : label, label_len);
        memcpy(list->tag, tag == NULL ? list->tag : tag, tag_len);
        list->filter.label = list->label;
        list->filter.tag = kms_span_of(list->tag, tag_len);
    }
    return status;
}

static enum kms_status filter_by_hex(struct list *list, const char *hex, struct kms_error *err)
{
    struct kms_buf tag = KMS_BUF_OVER(list->tag);

    if (kms_hex_decode(kms_span_str(hex), &tag) != KMS_OK || tag.len == 0) {
        return kms_error_set(err, KMS_E_INVALID,
                             "\"id:%s\" is no CKA_ID: it needs 1 to %d bytes in "
                             "hex",
                             hex, KMS_KEY_TAG_MAX);
    }
    list->filter.tag = kms_buf_span(&tag);
    return KMS_OK;
}

/* filter->spec, as the configuration names keys, becomes label and tag. */
static enum kms_status filter_by_spec(struct list *list, const char *spec, struct kms_error *err)
{
    if (kms_p11_is_uri(spec)) {
        return filter_by_uri(list, spec, err);
    }
    if (strncmp(spec, "id:", 3) == 0) {
        return filter_by_hex(list, spec + 3, err);
    }
    list->filter.label = spec;
    return KMS_OK;
}

/* Shows the keys found; one that was asked for by its alias answers to it. */
static void visit_all(const struct list *list, kms_key_visit visit, void *ctx)
{
    const char *ref = list->filter.ref;

    for (size_t i = 0; i < list->found.count; i++) {
        const struct kms_hsm_key *key = list->found.keys[i];
        struct kms_key_info info = key->info;

        if (ref != NULL && ref[0] != '\0') {
            if (!kms_hsm_key_is(key, ref)) {
                continue;
            }
            memcpy(info.ref, ref, strlen(ref) + 1);
            memcpy(info.id, ref, strlen(ref) + 1);
        }
        if (!visit(ctx, &info)) {
            return;
        }
    }
}

static enum kms_status hsm_list_keys(struct kms_backend *b, struct kms_call *call,
                                     const struct kms_key_filter *filter, kms_key_visit visit,
                                     void *ctx)
{
    struct list list = {.backend = b};
    enum kms_status status = KMS_OK;

    if (filter != NULL) {
        list.filter = *filter;
    }
    if (list.filter.spec != NULL && list.filter.spec[0] != '\0') {
        status = filter_by_spec(&list, list.filter.spec, &call->error);
    }
    if (status == KMS_OK) {
        status = kms_hsm_run(b, call, KMS_P11_READ, list_step, &list);
    }
    if (status == KMS_OK) {
        visit_all(&list, visit, ctx);
    }
    kms_hsm_keys_done(&list.found);
    kms_p11_uri_free(list.uri);
    return status;
}

/* ---- public_key, random ------------------------------------------------------------------- */

struct spki {
    struct kms_backend *backend;
    const char *ref;
    struct kms_buf *out;
};

static CK_RV spki_step(struct kms_p11 *p, void *ctx)
{
    struct spki *spki = ctx;
    struct kms_hsm_key *key = NULL;
    uint8_t *der = NULL;
    int len = 0;
    CK_RV rv = kms_hsm_key_get(spki->backend, p, spki->ref, &key);

    if (rv != CKR_OK) {
        return rv;
    }
    if (key->public_key == NULL) {
        (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED, "%s has no public half", spki->ref);
        rv = CKR_KEY_TYPE_INCONSISTENT;
        goto out;
    }
    len = i2d_PUBKEY(key->public_key, &der);
    if (len <= 0 || kms_buf_put(spki->out, kms_span_of(der, (size_t)len)) != KMS_OK) {
        (void)kms_error_set(p->ask->err, KMS_E_TOO_LARGE, "a public key of %d bytes has no room",
                            len);
        rv = CKR_BUFFER_TOO_SMALL;
    }
out:
    OPENSSL_free(der);
    kms_hsm_key_put(key);
    return rv;
}

static enum kms_status hsm_public_key(struct kms_backend *b, struct kms_call *call, const char *ref,
                                      struct kms_buf *ret_spki)
{
    struct spki spki = {.backend = b, .ref = ref, .out = ret_spki};

    return kms_hsm_run(b, call, KMS_P11_READ, spki_step, &spki);
}

static CK_RV random_step(struct kms_p11 *p, void *ctx)
{
    struct kms_buf *out = ctx;

    return KMS_P11(p, C_GenerateRandom)(p->session, out->data + out->len, kms_buf_room(out));
}

static enum kms_status hsm_random(struct kms_backend *b, struct kms_call *call,
                                  struct kms_buf *ret_bytes)
{
    enum kms_status status = KMS_OK;

    if (kms_buf_room(ret_bytes) == 0) {
        return KMS_OK;
    }
    status = kms_hsm_run(b, call, KMS_P11_READ, random_step, ret_bytes);
    if (status == KMS_OK) {
        ret_bytes->len = ret_bytes->cap;
    }
    return status;
}

const struct kms_backend_ops kms_hsm_ops = {
    .type = "hsm",
    .open = hsm_open,
    .close = hsm_close,
    .health = hsm_health,
    .list_keys = hsm_list_keys,
    .generate = kms_hsm_generate,
    .destroy = kms_hsm_destroy,
    .rotate = kms_hsm_rotate,
    .public_key = hsm_public_key,
    .encrypt = kms_hsm_encrypt,
    .decrypt = kms_hsm_decrypt,
    .wrap = kms_hsm_wrap,
    .unwrap = kms_hsm_unwrap,
    .sign = kms_hsm_sign,
    .verify = kms_hsm_verify,
    .mac = kms_hsm_mac,
    .random = hsm_random,
    .set_label = kms_hsm_set_label,
    .describe = kms_hsm_describe_token,
    .check_pin = kms_hsm_check_pin,
};
