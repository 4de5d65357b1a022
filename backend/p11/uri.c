/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/p11/uri.h"

#include <p11-kit/uri.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct kms_p11_uri {
    P11KitUri *uri;
};

bool kms_p11_is_uri(const char *text)
{
    return strncasecmp(text, "pkcs11:", 7) == 0;
}

enum kms_status kms_p11_uri_parse(const char *text, struct kms_p11_uri **ret_uri,
                                  struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    struct kms_p11_uri *uri = calloc(1, sizeof(*uri));
    int code = 0;

    if (uri == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for a pkcs11: URI");
    }
    uri->uri = p11_kit_uri_new();
    if (uri->uri == NULL) {
        status = kms_error_set(err, KMS_E_NOMEM, "no memory for a pkcs11: URI");
        goto out;
    }
    code = p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri->uri);
    if (code != P11_KIT_URI_OK) {
        status = kms_error_set(err, KMS_E_INVALID, "not a valid pkcs11: URI: %s",
                               p11_kit_uri_message(code));
        goto out;
    }
    if (p11_kit_uri_any_unrecognized(uri->uri) != 0) {
        status = kms_error_set(err, KMS_E_INVALID,
                               "the pkcs11: URI has an attribute that RFC 7512 "
                               "does not know");
        goto out;
    }
    if (p11_kit_uri_get_pin_value(uri->uri) != NULL) {
        status = kms_error_set(err, KMS_E_INVALID,
                               "a pkcs11: URI must not hold a pin-value; refer to the PIN by pin:");
        goto out;
    }
    *ret_uri = uri;
    uri = NULL;
out:
    kms_p11_uri_free(uri);
    return status;
}

void kms_p11_uri_free(struct kms_p11_uri *uri)
{
    if (uri != NULL) {
        p11_kit_uri_free(uri->uri);
        free(uri);
    }
}

bool kms_p11_uri_matches_token(const struct kms_p11_uri *uri, const CK_TOKEN_INFO *info)
{
    return p11_kit_uri_match_token_info(uri->uri, info) != 0;
}

bool kms_p11_uri_object(struct kms_p11_uri *uri, CK_ATTRIBUTE_TYPE type, const void **ret_value,
                        size_t *ret_len)
{
    const CK_ATTRIBUTE *attribute = p11_kit_uri_get_attribute(uri->uri, type);

    if (attribute == NULL) {
        return false;
    }
    *ret_value = attribute->pValue;
    *ret_len = attribute->ulValueLen;
    return true;
}

static char *format(const CK_TOKEN_INFO *token, CK_OBJECT_CLASS class, const char *label,
                    struct kms_span id)
{
    CK_ATTRIBUTE rows[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_ID, kms_p11_in(id.data), id.len},
        {CKA_LABEL, kms_p11_in(label), label == NULL ? 0 : strlen(label)},
    };
    P11KitUri *uri = p11_kit_uri_new();
    char *text = NULL;

    if (uri == NULL) {
        return NULL;
    }
    memcpy(p11_kit_uri_get_token_info(uri)->label, token->label, sizeof(token->label));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].ulValueLen > 0) {
            (void)p11_kit_uri_set_attribute(uri, &rows[i]);
        }
    }
    if (p11_kit_uri_format(uri, P11_KIT_URI_FOR_OBJECT_ON_TOKEN, &text) != P11_KIT_URI_OK) {
        text = NULL;
    }
    p11_kit_uri_free(uri);
    return text;
}

void kms_p11_uri_format(const CK_TOKEN_INFO *token, CK_OBJECT_CLASS class, const char *label,
                        struct kms_span id, char *ret_text, size_t size)
{
    const char *const labels[] = {label, NULL};

    ret_text[0] = '\0';
    for (size_t i = 0; i < 2 && ret_text[0] == '\0'; i++) {
        char *text = format(token, class, labels[i], id);

        if (text != NULL && strlen(text) < size) {
            memcpy(ret_text, text, strlen(text) + 1);
        }
        free(text);
    }
}
