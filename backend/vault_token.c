/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 403 is said of a token that is not good any more, and of a good one whose policy says no. Which
 * of the two it is:
 *
 * - Vault says "invalid token" of the former besides, from 1.17 on (its pull request 25953); older
 *   ones, and OpenBao 2.7, do not.
 * - The policy `default` lets a token look itself up. Without it that is denied to a good one, too.
 * - sys/internal/ui/mounts lists what a token may see and asks for no right at all, so that every
 *   good token gets a list, if an empty one, and 403 is of the token (Vault's and OpenBao's API
 *   documentation, internal-ui-mounts; tried with tokens that are expired, revoked, used up and
 *   made up, and with good ones without any policy). It comes with no promise to stay, and
 *   somebody may have closed sys/ before the server: any other answer leaves it open.
 * - Then the key that was read last is read once more: who may still do what we could do has not
 *   ended. A 403 of that is of either again.
 */
#include <string.h>

#include "backend/vault_parts.h"

static enum kms_status get(struct kms_backend *backend, const struct kms_http_wait *wait,
                           const char *token, const char *path, struct kms_error *err)
{
    const struct kms_vault_ask ask = {.method = KMS_HTTP_GET, .path = path};
    struct kms_vault_reply reply = {.doc = NULL};
    enum kms_status status = kms_vault_ask_as(backend, wait, token, &ask, &reply, err);

    kms_vault_reply_done(&reply);
    return status;
}

/* It may pass by itself, or is of our own: nothing was learned. */
static bool is_no_answer(enum kms_status status)
{
    return kms_status_is_transient(status) || status == KMS_E_TIMEOUT ||
           status == KMS_E_CANCELLED || status == KMS_E_NOMEM || status == KMS_E_INTERNAL;
}

static bool says_invalid(const struct kms_error *said)
{
    return strstr(said->text, "invalid token") != NULL;
}

/* Once nothing but what it could do before may tell. */
static enum kms_vault_verdict weigh_by_key(struct kms_backend *backend,
                                           const struct kms_http_wait *wait, const char *token)
{
    char name[KMS_VAULT_NAME_MAX];
    char path[KMS_VAULT_PATH_MAX];
    struct kms_call call = {.deadline_ns = wait->deadline_ns};
    enum kms_status status = KMS_OK;

    pthread_mutex_lock(&backend->lock);
    memcpy(name, backend->last_read, sizeof(name));
    pthread_mutex_unlock(&backend->lock);
    if (name[0] == '\0' || kms_vault_path(backend, &call, "/keys/", name, "", path) != KMS_OK) {
        return KMS_VAULT_TOKEN_UNSURE;
    }
    status = get(backend, wait, token, path, &call.error);
    return status == KMS_OK       ? KMS_VAULT_TOKEN_GOOD
           : is_no_answer(status) ? KMS_VAULT_TOKEN_UNASKED
                                  : KMS_VAULT_TOKEN_UNSURE;
}

enum kms_vault_verdict kms_vault_weigh_blind(struct kms_backend *backend,
                                             const struct kms_http_wait *wait, const char *token,
                                             const struct kms_error *said,
                                             struct kms_error *ret_why)
{
    enum kms_status status = KMS_OK;

    kms_error_clear(ret_why);
    if (says_invalid(said)) {
        return KMS_VAULT_TOKEN_BAD;
    }
    status = get(backend, wait, token, "/v1/sys/internal/ui/mounts", ret_why);
    if (status == KMS_OK) {
        return KMS_VAULT_TOKEN_GOOD;
    }
    if (status == KMS_E_DENIED || status == KMS_E_AUTH) {
        return KMS_VAULT_TOKEN_BAD;
    }
    return is_no_answer(status) ? KMS_VAULT_TOKEN_UNASKED : KMS_VAULT_TOKEN_UNSURE;
}

enum kms_vault_verdict kms_vault_weigh(struct kms_backend *backend,
                                       const struct kms_http_wait *wait, const char *token,
                                       const struct kms_error *said)
{
    struct kms_error err = KMS_ERROR_INIT;
    struct kms_error why = KMS_ERROR_INIT;
    enum kms_vault_verdict verdict = KMS_VAULT_TOKEN_UNSURE;
    enum kms_status status = KMS_OK;

    if (says_invalid(said)) {
        return KMS_VAULT_TOKEN_BAD;
    }
    status = get(backend, wait, token, "/v1/auth/token/lookup-self", &err);
    if (status == KMS_OK) {
        return KMS_VAULT_TOKEN_GOOD;
    }
    if (is_no_answer(status)) {
        return KMS_VAULT_TOKEN_UNASKED;
    }
    verdict = kms_vault_weigh_blind(backend, wait, token, &err, &why);
    return verdict == KMS_VAULT_TOKEN_UNSURE ? weigh_by_key(backend, wait, token) : verdict;
}
