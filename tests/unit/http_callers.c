/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/http_callers.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/secure.h"
#include "tests/unit/scratch.h"

#define UNTIL_MS    10000
#define DEADLINE_MS 20000

static uint8_t *make_body(const struct caller *caller)
{
    uint8_t *body = malloc(caller->body_len + 1);

    for (size_t i = 0; body != NULL && i < caller->body_len; i++) {
        body[i] = (uint8_t)(i * 7 + strlen(caller->path));
    }
    return body;
}

/* What makes an answer large, whole and in order. */
static bool is_large(struct kms_span rest)
{
    for (size_t i = 0; i < rest.len; i++) {
        if (rest.data[i] != (uint8_t)https_large_at(i)) {
            return false;
        }
    }
    return true;
}

static bool is_mine(const struct caller *caller, uint32_t sum,
                    const struct kms_http_response *response)
{
    char text[256];
    int len =
        snprintf(text, sizeof(text), "%s %s %zu %u %s", kms_http_method_name(caller->method),
                 caller->path, caller->body_len, sum, caller->token == NULL ? "-" : caller->token);
    size_t all = (size_t)len + (strstr(caller->path, "large") != NULL ? HTTPS_LARGE : 0);

    return response->status == 200 && response->body.len == all &&
           memcmp(response->body.data, text, (size_t)len) == 0 &&
           is_large(kms_span_of(response->body.data + len, all - (size_t)len)) &&
           response->body.data[all] == 0;
}

void caller_ask(struct caller *caller)
{
    unsigned ms = caller->deadline_ms == 0 ? DEADLINE_MS : caller->deadline_ms;
    struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(ms * KMS_NS_PER_MS),
                                 .cancelled = caller->may_cancel ? &caller->cancelled : NULL};
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    struct kms_http_header *header = calloc(1, sizeof(*header));
    char *url = malloc(256);
    uint8_t *body = make_body(caller);
    struct kms_http_request request = {.method = caller->method,
                                       .url = url,
                                       .headers = header,
                                       .once = caller->once,
                                       .fresh = caller->fresh};
    uint32_t sum = https_sum(body, caller->body_len);
    uint64_t start = kms_now_ns();

    (void)snprintf(url, 256, "https://127.0.0.1:%u%s", https_server_port(caller->server),
                   caller->path);
    request.body = kms_span_of(body, caller->body_len);
    if (caller->token != NULL) {
        *header = (struct kms_http_header){"X-Token", caller->token};
        request.header_count = 1;
    }
    kms_error_clear(&caller->error);
    caller->status = kms_http_perform(caller->door, &request, &wait, &response, &caller->error);
    free(body);
    free(url);
    free(header);
    caller->took_ms = (unsigned)((kms_now_ns() - start) / KMS_NS_PER_MS);
    caller->was_sent = response.was_sent;
    caller->is_mine = caller->status == KMS_OK && is_mine(caller, sum, &response);
    kms_http_response_done(&response);
}

static void *caller_main(void *ctx)
{
    struct caller *caller = ctx;

    caller_ask(caller);
    atomic_store(&caller->is_back, true);
    return NULL;
}

bool caller_start(struct caller *caller)
{
    atomic_store(&caller->is_back, false);
    return pthread_create(&caller->thread, NULL, caller_main, caller) == 0;
}

void caller_join(struct caller *caller)
{
    (void)pthread_join(caller->thread, NULL);
}

static bool holds(void *server, unsigned count)
{
    return https_server_seen(server).held == count;
}

static bool has_reset(void *server, unsigned count)
{
    return https_server_seen(server).resets == count;
}

static bool is_busy(void *ctx, unsigned count)
{
    struct kms_http_door *door = ctx;
    unsigned open = 0;
    unsigned busy = 0;
    unsigned max = 0;
    uint64_t oldest = 0;

    door->count(door, &open, &busy, &max, &oldest);
    return busy == count;
}

static bool is_back(void *ctx, unsigned count)
{
    struct caller *caller = ctx;

    (void)count;
    return atomic_load(&caller->is_back);
}

static bool until(bool (*holds_now)(void *ctx, unsigned count), void *ctx, unsigned count)
{
    for (unsigned ms = 0; ms < UNTIL_MS; ms += 2) {
        if (holds_now(ctx, count)) {
            return true;
        }
        (void)poll(NULL, 0, 2);
    }
    return false;
}

bool until_held(struct https_server *server, unsigned count)
{
    return until(holds, server, count);
}

bool until_reset(struct https_server *server, unsigned count)
{
    return until(has_reset, server, count);
}

bool until_busy(struct kms_http_door *door, unsigned count)
{
    return until(is_busy, door, count);
}

bool until_back(struct caller *caller)
{
    return until(is_back, caller, 0);
}

/* ---- the program -------------------------------------------------------------------------- */

char callers_ca_file[PATH_MAX];

int callers_main(const char *name, const struct unit_test *tests, size_t count)
{
    int code = EXIT_FAILURE;

    (void)signal(SIGPIPE, SIG_IGN);
    scratch_init();
    (void)snprintf(callers_ca_file, sizeof(callers_ca_file), "%s", scratch_path("ca.pem"));
    if (kms_secure_init() == KMS_OK && https_certificate_make(callers_ca_file)) {
        code = unit_main(name, tests, count);
    }
    scratch_done();
    return code;
}
