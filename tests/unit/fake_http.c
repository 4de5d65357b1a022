/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_http.h"

#include <stdio.h>
#include <string.h>

static void keep_header(const struct kms_http_request *request, const char *name, char *ret,
                        size_t size)
{
    ret[0] = '\0';
    for (size_t i = 0; i < request->header_count; i++) {
        if (strcmp(request->headers[i].name, name) == 0 && request->headers[i].value != NULL) {
            (void)snprintf(ret, size, "%s", request->headers[i].value);
        }
    }
}

static void keep_locked(struct fake_http *fake, const struct kms_http_request *request)
{
    (void)snprintf(fake->lines[fake->count++ % FAKE_HTTP_MAX], sizeof(fake->lines[0]), "%s %s",
                   kms_http_method_name(request->method), request->url);
    keep_header(request, "X-Vault-Token", fake->token, sizeof(fake->token));
    keep_header(request, "X-Correlation-Id", fake->correlation, sizeof(fake->correlation));
    (void)snprintf(fake->body, sizeof(fake->body), "%.*s", (int)request->body.len,
                   request->body.len == 0 ? "" : (const char *)request->body.data);
}

static enum kms_status perform(struct kms_http_door *door, const struct kms_http_request *request,
                               const struct kms_http_wait *wait, struct kms_http_response *ret,
                               struct kms_error *err)
{
    struct fake_http *fake = (struct fake_http *)door;
    enum kms_status status = KMS_OK;

    (void)wait;
    pthread_mutex_lock(&fake->lock);
    keep_locked(fake, request);
    status = fake->answer(fake, request, ret, err);
    pthread_mutex_unlock(&fake->lock);
    return status;
}

static void close_fake(struct kms_http_door *door)
{
    struct fake_http *fake = (struct fake_http *)door;

    (void)pthread_mutex_destroy(&fake->lock);
}

void fake_http_init(struct fake_http *fake,
                    enum kms_status (*answer)(struct fake_http *fake,
                                              const struct kms_http_request *request,
                                              struct kms_http_response *ret, struct kms_error *err))
{
    memset(fake, 0, sizeof(*fake));
    fake->door = (struct kms_http_door){.perform = perform, .close = close_fake};
    fake->answer = answer;
    (void)pthread_mutex_init(&fake->lock, NULL);
}

enum kms_status fake_http_reply(const struct kms_http_request *request,
                                struct kms_http_response *ret, unsigned status, const char *body)
{
    return kms_http_response_fill(request, ret, status, kms_span_str(body), NULL);
}

unsigned fake_http_asked(struct fake_http *fake, const char *line)
{
    unsigned count = 0;

    for (unsigned i = 0; i < fake->count && i < FAKE_HTTP_MAX; i++) {
        count += strncmp(fake->lines[i], line, strlen(line)) == 0 ? 1u : 0u;
    }
    return count;
}
