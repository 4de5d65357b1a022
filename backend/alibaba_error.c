/* SPDX-License-Identifier: Apache-2.0 */
/* What the service's errors mean. Codes: "Common error codes" of KMS's API reference, and those of
 * the gateway before it. */
#include <stdio.h>
#include <string.h>

#include "backend/alibaba_parts.h"

#define TEXT_MAX 300 /* bytes of the service's own words that we repeat */

/* First match counts; a code that ends in '*' stands for all that begin so. */
static const struct row {
    const char *code;
    enum kms_status status;
    bool renew; /* another credential may help */
} rows[] = {
    {"Rejected.Throttling", KMS_E_THROTTLED, false},
    {"Throttling*", KMS_E_THROTTLED, false},
    {"ServiceUnavailable*", KMS_E_UNAVAILABLE, false},
    {"InternalFailure", KMS_E_UNAVAILABLE, false},
    {"InternalError", KMS_E_UNAVAILABLE, false},
    {"SignatureNonceUsed", KMS_E_UNAVAILABLE, false}, /* the next attempt has a nonce of its own */
    {"Forbidden.KeyNotFound", KMS_E_NOT_FOUND, false},
    {"Forbidden.AliasNotFound", KMS_E_NOT_FOUND, false},
    {"Forbidden.KeyVersionNotFound", KMS_E_KEY_STATE, false}, /* the key is there */
    {"Forbidden.AccessKey*", KMS_E_AUTH, true},
    {"Forbidden*", KMS_E_DENIED, false},
    {"NoPermission*", KMS_E_DENIED, false},
    {"Rejected.AlreadyExist*", KMS_E_EXISTS, false},
    {"Rejected.LimitExceeded", KMS_E_DENIED, false},
    {"Rejected.UnsupportedOperation", KMS_E_UNSUPPORTED, false}, /* as of keys that do not rotate */
    {"Rejected.*", KMS_E_KEY_STATE, false}, /* Disabled, PendingDeletion, PendingImport, ... */
    {"InvalidAccessKeyId*", KMS_E_AUTH, true},
    {"InvalidSecurityToken*", KMS_E_AUTH, true},
    {"MissingSecurityToken", KMS_E_AUTH, true},
    {"SignatureDoesNotMatch", KMS_E_AUTH, true}, /* the secret was changed */
    {"InvalidTimeStamp*", KMS_E_AUTH, false},    /* a clock is wrong: no credential helps */
    {"IncompleteSignature", KMS_E_PROTOCOL, false},
    {"UnsupportedOperation", KMS_E_UNSUPPORTED, false},
    {"InvalidAction*", KMS_E_UNSUPPORTED, false},
    {"InvalidVersion", KMS_E_UNSUPPORTED, false},
    {"InvalidParameter*", KMS_E_INVALID, false},
    {"MissingParameter", KMS_E_INVALID, false},
};

static bool fits(const char *pattern, const char *code)
{
    size_t len = strlen(pattern);

    return len > 0 && pattern[len - 1] == '*' ? strncmp(pattern, code, len - 1) == 0
                                              : strcmp(pattern, code) == 0;
}

static const struct row *row_of(const char *code)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (fits(rows[i].code, code)) {
            return &rows[i];
        }
    }
    return NULL;
}

/* For codes that we do not know, and replies without one: those are of something that stands before
 * the service, which can only say whether to ask again. What it refuses is not the key. */
static enum kms_status status_of_http(unsigned status, bool has_code)
{
    switch (status) {
    case 401:
        return has_code ? KMS_E_AUTH : KMS_E_PROTOCOL;
    case 403:
        return has_code ? KMS_E_DENIED : KMS_E_PROTOCOL;
    case 404:
        return has_code ? KMS_E_UNSUPPORTED : KMS_E_PROTOCOL;
    case 408:
        return KMS_E_UNAVAILABLE;
    case 429:
        return KMS_E_THROTTLED;
    default:
        return status >= 500 ? KMS_E_UNAVAILABLE : KMS_E_PROTOCOL;
    }
}

/* What Decrypt does not take is ciphertext or context that is not its own: it has no other input
 * but these; ReEncrypt has the key besides, which has codes of its own. */
static bool is_about_data(const char *action, enum kms_status status)
{
    return status == KMS_E_INVALID &&
           (strcmp(action, "Decrypt") == 0 || strcmp(action, "AsymmetricDecrypt") == 0 ||
            strcmp(action, "ReEncrypt") == 0);
}

enum kms_status kms_ali_status_of(const char *action, unsigned http_status, const char *code)
{
    const struct row *row = row_of(code);
    enum kms_status status =
        row != NULL ? row->status : status_of_http(http_status, code[0] != '\0');

    return is_about_data(action, status) ? KMS_E_BAD_DATA : status;
}

static void read_texts(const struct kms_http_response *response, char *code, size_t code_size,
                       char *request_id, size_t id_size, char *message, size_t message_size)
{
    struct kms_json_doc *doc = NULL;
    struct kms_json root;
    struct kms_error ignored = KMS_ERROR_INIT;
    const char *text[3] = {"", "", ""};

    if (kms_json_parse("the error reply", kms_blob_span(&response->body), &doc, &root, &ignored) ==
        KMS_OK) {
        if (kms_json_text_maybe(&root, "Code", KMS_ERROR_CODE_MAX - 1, &text[0], &ignored) !=
                KMS_OK ||
            kms_json_text_maybe(&root, "RequestId", KMS_ERROR_CODE_MAX - 1, &text[1], &ignored) !=
                KMS_OK ||
            kms_json_text_maybe(&root, "Message", 4096, &text[2], &ignored) != KMS_OK) {
            kms_error_clear(&ignored); /* what it says as it should is told */
        }
    }
    (void)snprintf(code, code_size, "%s", text[0]);
    (void)snprintf(request_id, id_size, "%s", text[1]);
    (void)snprintf(message, message_size, "%s", text[2]);
    kms_json_free(doc);
}

enum kms_status kms_ali_error(const char *action, const struct kms_http_response *response,
                              struct kms_error *err, bool *ret_renew)
{
    char code[KMS_ERROR_CODE_MAX];
    char request_id[KMS_ERROR_CODE_MAX];
    char message[TEXT_MAX];
    const struct row *row = NULL;
    enum kms_status status = KMS_OK;

    read_texts(response, code, sizeof(code), request_id, sizeof(request_id), message,
               sizeof(message));
    row = row_of(code);
    status = kms_ali_status_of(action, response->status, code);
    *ret_renew = row != NULL && row->renew;
    status = kms_error_set_code(
        err, status, code, "%s: HTTP %u%s%s%s%s%s", action, response->status,
        code[0] == '\0' ? "" : ", ", code, message[0] == '\0' ? "" : ": ", message,
        strncmp(code, "InvalidTimeStamp", 16) == 0 ? " (our clock and the service's differ)" : "");
    if (err != NULL) {
        (void)snprintf(err->request_id, sizeof(err->request_id), "%s", request_id);
        err->retry_after_ns = response->retry_after_ns;
    }
    return status;
}

void kms_ali_name_request(const struct kms_http_response *response, struct kms_error *err)
{
    const char *id = response->want[0];

    if (err != NULL && err->request_id[0] == '\0' && strlen(id) < sizeof(err->request_id)) {
        memcpy(err->request_id, id, strlen(id) + 1);
    }
}
