/* SPDX-License-Identifier: Apache-2.0 */
/* The headers of a signed request: POST / with every parameter in the query, as the vendor's SDK
 * has it for KMS and for STS. */
#include <stdio.h>
#include <string.h>

#include "backend/alibaba_parts.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/secure.h"

#define FORM "application/x-www-form-urlencoded"

/* "host[:port]", as libcurl writes the Host field: without the scheme's own port. */
static bool host_of(const char *url, char ret_host[KMS_ALI_HOST_MAX])
{
    const char *port = strncmp(url, "https:", 6) == 0 ? ":443" : ":80";
    const char *at = strstr(url, "://");
    size_t port_len = strlen(port);
    size_t len = 0;

    at = at == NULL ? url : at + 3;
    len = strcspn(at, "/?");
    if (len > port_len && strncmp(at + len - port_len, port, port_len) == 0) {
        len -= port_len;
    }
    if (len == 0 || len >= KMS_ALI_HOST_MAX) {
        return false;
    }
    memcpy(ret_host, at, len);
    ret_host[len] = '\0';
    return true;
}

/* "2026-11-29T00:12:03Z" and 128 random bits. */
static bool stamp(struct kms_ali_signing *s)
{
    uint8_t nonce[KMS_ALI_NONCE_BYTES];

    kms_wall_text(kms_wall_ms(), s->date, sizeof(s->date));
    memcpy(s->date + strlen("yyyy-MM-ddTHH:mm:ss"), "Z", 2);
    return kms_random(nonce, sizeof(nonce)) == KMS_OK &&
           kms_hex_encode(kms_span_of(nonce, sizeof(nonce)), s->nonce, sizeof(s->nonce)) == KMS_OK;
}

static enum kms_status sign(struct kms_ali_signing *s, size_t *ret_count)
{
    const char *token = s->part[KMS_ALI_TOKEN];
    const struct kms_acs3_header all[KMS_ALI_SIGNED_MAX] = {
        {"host", s->host},
        {"content-type", FORM},
        {"x-acs-action", s->action},
        {"x-acs-version", s->version},
        {"x-acs-date", s->date},
        {"x-acs-signature-nonce", s->nonce},
        {"x-acs-content-sha256", s->payload_hash},
        {"x-acs-security-token", token},
    };
    size_t count = token == NULL || token[0] == '\0' ? KMS_ALI_SIGNED_MAX - 1 : KMS_ALI_SIGNED_MAX;
    const struct kms_acs3_request request = {.method = "POST",
                                             .path = "/",
                                             .query = s->query,
                                             .headers = all,
                                             .header_count = count,
                                             .payload_hash = s->payload_hash};
    const struct kms_acs3_key key = {
        .id = s->part[KMS_ALI_KEY_ID],
        .secret = kms_span_str(s->part[KMS_ALI_SECRET]),
    };
    enum kms_status status =
        kms_acs3_authorization(&request, &key, s->authorization, sizeof(s->authorization));

    for (size_t i = 1; i < count; i++) { /* the host field is the transport's own */
        s->headers[i - 1] = (struct kms_http_header){all[i].name, all[i].value};
    }
    s->headers[count - 1] = (struct kms_http_header){"authorization", s->authorization};
    s->headers[count] = (struct kms_http_header){"accept", "application/json"};
    *ret_count = count + 1;
    return status;
}

enum kms_status kms_ali_prepare(void *ctx, const char *url, struct kms_http_request *request,
                                struct kms_error *err)
{
    struct kms_ali_signing *s = ctx;
    enum kms_status status = KMS_OK;

    if (!host_of(url, s->host) || !stamp(s)) {
        return kms_error_set(err, KMS_E_INTERNAL, "a request cannot be dated or has no host");
    }
    status = kms_acs3_hash_hex(KMS_SPAN_NONE, s->payload_hash);
    if (status == KMS_OK) {
        status = sign(s, &request->header_count);
    }
    request->headers = s->headers;
    return status == KMS_OK ? KMS_OK
                            : kms_error_set(err, status,
                                            "the request cannot be signed; is there "
                                            "a line end in the access key?");
}
