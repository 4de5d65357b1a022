/* SPDX-License-Identifier: Apache-2.0 */
/* Looking for keys on the token, and passing over those that are sick by themselves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/hsm_parts.h"
#include "backend/p11/ckr.h"
#include "common/codec.h"
#include "common/log.h"

#define NAME_SIZE (KMS_LABEL_MAX + 2 * KMS_KEY_TAG_MAX + 32)
#define MANY      4 /* keys of a kind: more, and what is beside them is found by one search */

struct scan {
    struct kms_backend *backend;
    const struct kms_key_filter *filter;
    struct kms_hsm_beside *beside; /* NULL: they are few */
    struct kms_hsm_keys all;       /* that the label and tag of the filter match */
    unsigned unidentified;
};

/* The key of @handle: the known one if it is still the same, or described anew. */
static CK_RV key_of(struct scan *scan, struct kms_p11 *p, CK_OBJECT_HANDLE handle,
                    CK_OBJECT_CLASS class, struct kms_hsm_key **ret_key)
{
    struct kms_backend *b = scan->backend;
    struct kms_hsm_key *known =
        p->refresh ? NULL : kms_hsm_table_by_handle(b->table, p->generation, handle);
    bool same = false;
    CK_RV rv = CKR_OK;

    if (known != NULL) {
        rv = kms_hsm_still(p, scan->beside, known, &same);
        if (rv == CKR_OK && same) {
            *ret_key = known;
            return CKR_OK;
        }
        kms_hsm_key_put(known);
    }
    return rv == CKR_OK ? kms_hsm_describe(b, p, scan->beside, handle, class, ret_key) : rv;
}

static CK_RV find_class(struct kms_p11 *p, CK_OBJECT_CLASS class,
                        const struct kms_key_filter *filter, struct kms_p11_objects *ret_objects)
{
    struct kms_p11_template t = {.count = 0};

    kms_p11_put_number(&t, CKA_CLASS, class);
    kms_p11_put_bool(&t, CKA_TOKEN, true);
    if (filter->label != NULL && filter->label[0] != '\0') {
        kms_p11_put_bytes(&t, CKA_LABEL, filter->label, strlen(filter->label));
    }
    if (filter->tag.len != 0) {
        kms_p11_put_bytes(&t, CKA_ID, filter->tag.data, filter->tag.len);
    }
    return kms_p11_find(p, &t, ret_objects);
}

/* Whether an object was destroyed since a search found it. */
static bool is_gone(struct kms_p11 *p, CK_OBJECT_HANDLE handle)
{
    CK_OBJECT_CLASS class = 0;
    CK_ATTRIBUTE row = {CKA_CLASS, &class, sizeof(class)};

    return kms_p11_read(p, handle, &row, 1) == CKR_OBJECT_HANDLE_INVALID;
}

static CK_RV scan_add(struct scan *scan, struct kms_hsm_key *key)
{
    struct kms_hsm_key **grown =
        realloc(scan->all.keys, (scan->all.count + 1) * sizeof(struct kms_hsm_key *));

    if (grown == NULL) {
        kms_hsm_key_put(key);
        return CKR_HOST_MEMORY;
    }
    scan->all.keys = grown;
    grown[scan->all.count++] = key;
    return CKR_OK;
}

/* Its label and CKA_ID, as far as the token tells them. */
static void name_of(struct kms_p11 *p, CK_OBJECT_HANDLE handle, char ret_name[NAME_SIZE])
{
    char label[KMS_LABEL_MAX];
    uint8_t tag[KMS_KEY_TAG_MAX];
    char hex[2 * KMS_KEY_TAG_MAX + 1] = "";
    CK_ATTRIBUTE rows[] = {{CKA_LABEL, label, sizeof(label) - 1}, {CKA_ID, tag, sizeof(tag)}};
    bool told = kms_p11_read(p, handle, rows, 2) == CKR_OK;

    label[told && kms_p11_has(&rows[0]) ? rows[0].ulValueLen : 0] = '\0';
    if (told && kms_p11_has(&rows[1]) &&
        kms_hex_encode(kms_span_of(tag, rows[1].ulValueLen), hex, sizeof(hex)) != KMS_OK) {
        hex[0] = '\0';
    }
    (void)snprintf(ret_name, NAME_SIZE, "\"%s\", CKA_ID %s", label, hex);
}

/* Whether a key's failure may be its own: not the session's, the login's, the module's, or ours. */
static bool is_its_own(CK_RV rv)
{
    enum kms_p11_action action = kms_ckr_find(rv)->action;

    switch (rv) {
    case CKR_OK:
    case CKR_HOST_MEMORY:
    case CKR_SESSION_COUNT:
    case CKR_SESSION_CLOSED:
    case CKR_SESSION_HANDLE_INVALID:
        return false;
    default:
        return action != KMS_P11_RELOGIN && action != KMS_P11_REINIT;
    }
}

static void log_sick(struct kms_p11 *p, const char *name, const struct kms_hsm_key *key, CK_RV rv)
{
    struct kms_error why = KMS_ERROR_INIT;

    (void)kms_ckr_error(&why, kms_p11_token_name(p->token), key == NULL ? p->function : "probe",
                        rv);
    kms_log_error(KMS_LOG_WARN, &why, "hsm: key %s %s", name,
                  key == NULL ? "does not work, and is passed over"
                              : "fails at its best mechanism, and does without");
}

/*
 * The key of @handle, tried again on a fresh session unless it was sick before. What fails then is
 * the key's own: *ret_key is NULL and *ret_sick says why.
 */
static CK_RV key_surely(struct scan *scan, struct kms_p11 *p, CK_OBJECT_HANDLE handle,
                        CK_OBJECT_CLASS class, struct kms_hsm_key **ret_key, CK_RV *ret_sick)
{
    struct kms_backend *b = scan->backend;
    char name[NAME_SIZE];
    bool known = false;

    for (bool again = false;; again = true) {
        CK_RV rv = key_of(scan, p, handle, class, ret_key);
        CK_RV sick = rv == CKR_OK ? (*ret_key)->unclear : rv;

        if (rv == CKR_MECHANISM_INVALID || (rv != CKR_OK && !is_its_own(rv))) {
            return rv;
        }
        if (sick == CKR_OK && !kms_hsm_table_has_sick(b->table)) {
            return CKR_OK;
        }
        if (!again) {
            name_of(p, handle, name);
            known = kms_hsm_table_is_sick(b->table, name);
        }
        if (sick == CKR_OK) {
            if (known) {
                kms_hsm_table_set_well(b->table, name);
            }
            return CKR_OK;
        }
        if (rv != CKR_OK && is_gone(p, handle)) {
            return CKR_OK;
        }
        kms_error_clear(p->ask->err);
        if (known || again) {
            if (!known) {
                log_sick(p, name, *ret_key, sick);
                kms_hsm_table_set_sick(b->table, name);
            }
            *ret_sick = rv;
            return rv == CKR_OK ? CKR_OK : kms_p11_renew(p);
        }
        kms_hsm_key_put(*ret_key);
        *ret_key = NULL;
        rv = kms_p11_renew(p);
        if (rv != CKR_OK) {
            return rv;
        }
    }
}

/* Many keys may take longer than anybody waits. */
static bool is_cancelled(struct kms_p11 *p)
{
    return p->ask->cancelled != NULL && atomic_load(p->ask->cancelled) &&
           kms_error_set(p->ask->err, KMS_E_CANCELLED, "the caller gave up") != KMS_OK;
}

static bool is_wide(const struct kms_key_filter *filter)
{
    return (filter->label == NULL || filter->label[0] == '\0') && filter->tag.len == 0;
}

static CK_RV scan_class(struct scan *scan, struct kms_p11 *p, CK_OBJECT_CLASS class)
{
    struct kms_p11_objects objects;
    CK_RV rv = find_class(p, class, scan->filter, &objects);

    if (rv != CKR_OK) {
        return rv;
    }
    if (is_wide(scan->filter) && objects.count > MANY && scan->beside == NULL) {
        scan->beside = kms_hsm_beside_new();
    }
    for (size_t i = 0; i < objects.count && rv == CKR_OK; i++) {
        struct kms_hsm_key *key = NULL;
        CK_RV sick = CKR_OK;

        if (is_cancelled(p)) {
            rv = CKR_FUNCTION_CANCELED;
            break;
        }

        rv = key_surely(scan, p, objects.handles[i], class, &key, &sick);
        if (rv == CKR_OK && key != NULL) {
            rv = scan_add(scan, key);
        } else if (rv == CKR_MECHANISM_INVALID || sick != CKR_OK) {
            scan->unidentified++;
            rv = rv == CKR_MECHANISM_INVALID ? CKR_OK : rv;
        }
        scan->all.sick = scan->all.sick == CKR_OK ? sick : scan->all.sick;
    }
    kms_p11_objects_done(&objects);
    return rv;
}

static bool is_companion(const struct kms_hsm_keys *keys, const struct kms_hsm_key *key)
{
    for (size_t i = 0; i < keys->count; i++) {
        if (key->info.type == KMS_KEY_GENERIC && keys->keys[i]->mac == key->handle) {
            return true;
        }
    }
    return false;
}

/* Companions are a part of their AES key, not keys to choose from. */
static void hide_companions(struct kms_hsm_keys *keys)
{
    for (size_t i = keys->count; i > 0; i--) {
        struct kms_hsm_key *key = keys->keys[i - 1];

        if (is_companion(keys, key)) {
            keys->keys[i - 1] = keys->keys[--keys->count];
            kms_hsm_key_put(key);
        }
    }
}

CK_RV kms_hsm_scan(struct kms_backend *b, struct kms_p11 *p, const struct kms_key_filter *filter,
                   struct kms_hsm_keys *ret_found)
{
    struct kms_key_filter wide = {.label = filter->label, .tag = filter->tag};
    struct scan scan = {.backend = b, .filter = &wide};
    CK_RV rv = scan_class(&scan, p, CKO_SECRET_KEY);

    if (rv == CKR_OK) {
        rv = scan_class(&scan, p, CKO_PRIVATE_KEY);
    }
    if (rv == CKR_OK) {
        rv = kms_p11_check_login(p);
    }
    if (rv == CKR_OK && scan.all.count == 0) {
        rv = scan.all.sick; /* not one works: it is the token */
    }
    kms_hsm_beside_free(scan.beside);
    hide_companions(&scan.all);
    if (rv == CKR_OK) {
        rv = kms_hsm_table_update(b->table, &wide, &scan.all);
    }
    if (rv == CKR_OK && scan.all.count == 0 && scan.unidentified > 0 &&
        (filter->label != NULL || filter->tag.len > 0)) {
        (void)kms_error_set(p->ask->err, KMS_E_UNSUPPORTED,
                            "%u matching keys, and none that this token can use and identify: an "
                            "AES key must allow encryption by CKM_AES_ECB, CBC, CTR or GCM, an "
                            "HMAC key CKM_SHA256_HMAC, a private key needs its public half",
                            scan.unidentified);
        rv = CKR_MECHANISM_INVALID;
    }
    if (rv != CKR_OK) {
        kms_hsm_keys_done(&scan.all);
        return rv;
    }
    *ret_found = scan.all;
    return CKR_OK;
}

/* Looks for @ref on the token, by the label and tag that it had if those are known. */
static CK_RV look_for(struct kms_backend *b, struct kms_p11 *p, const struct kms_hsm_key *stale,
                      const char *ref, struct kms_hsm_key **ret_key, CK_RV *ret_sick)
{
    struct kms_key_filter filter = {.label = NULL};
    struct kms_hsm_keys found = {.keys = NULL, .count = 0};
    CK_RV rv = CKR_OK;

    if (stale != NULL) {
        filter.label = stale->info.label;
        filter.tag = kms_span_of(stale->info.tag, stale->info.tag_len);
    }
    rv = kms_hsm_scan(b, p, &filter, &found);
    for (size_t i = 0; i < found.count && *ret_key == NULL; i++) {
        if (kms_hsm_key_is(found.keys[i], ref)) {
            *ret_key = kms_hsm_key_ref(found.keys[i]);
        }
        if (found.keys[i]->unclear != CKR_OK) { /* it may have a name more than it knows now */
            *ret_sick = found.keys[i]->unclear;
        }
    }
    *ret_sick = found.sick == CKR_OK ? *ret_sick : found.sick;
    kms_hsm_keys_done(&found);
    return rv;
}

CK_RV kms_hsm_key_get(struct kms_backend *b, struct kms_p11 *p, const char *ref,
                      struct kms_hsm_key **ret_key)
{
    struct kms_hsm_key *known = kms_hsm_table_find(b->table, ref);
    struct kms_hsm_key *found = NULL;
    CK_RV sick = CKR_OK;
    CK_RV rv = CKR_OK;

    if (known != NULL && known->generation == p->generation && !p->refresh) {
        *ret_key = known;
        return CKR_OK;
    }
    if (known != NULL) {
        rv = look_for(b, p, known, ref, &found, &sick);
        kms_hsm_key_put(known);
    }
    if (rv == CKR_OK && found == NULL) {
        rv = look_for(b, p, NULL, ref, &found, &sick); /* it may have been renamed */
    }
    if (rv == CKR_OK && found == NULL && sick != CKR_OK) { /* it may well be the one that is sick */
        p->function = "probe";
        (void)kms_ckr_error(p->ask->err, kms_p11_token_name(b->token), p->function, sick);
        rv = sick;
    }
    if (rv == CKR_OK && found == NULL) {
        (void)kms_error_set(p->ask->err, KMS_E_NOT_FOUND, "%s: no key %s on the token",
                            kms_p11_token_name(b->token), ref);
        rv = CKR_KEY_HANDLE_INVALID;
    }
    *ret_key = found;
    return rv;
}
