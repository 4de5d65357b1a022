/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/agent_io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/secure.h"

/* --- memory ------------------------------------------------------------------------------------
 */

#define ALIGN      ((size_t)16)
#define REPLY_MORE 2048u /* a reply beside its output: an error's texts, ids, an IV */

/* Two sizes, because signatures and seeds are small, and most by far. A pool grows as it is needed.
 * When it is empty its kind of memory is made for one request, by system calls that all threads
 * wait for. */
static const struct kind {
    size_t body;  /* longest */
    size_t arena; /* of the unpacked body, with what protobuf-c takes for itself */
    size_t out;   /* longest result: a body's ciphertext, a signature, random bytes */
    size_t slots;
} kinds[] = {
    {4096, 12288, 8192, 128},
    {KMS_AGENTD_REQUEST_MAX, KMS_AGENTD_REQUEST_MAX + 12288, KMS_AGENTD_REQUEST_MAX, 4},
};
#define KINDS    (sizeof(kinds) / sizeof(kinds[0]))
#define OWN_SLOT KINDS /* added to the kind */

struct kms_agentd_pools {
    struct kms_secure_pool *pools[KINDS];
};

static size_t rounded(size_t size)
{
    return (size + ALIGN - 1) & ~(ALIGN - 1);
}

/* The frame of a reply takes the place of the request's body. */
static size_t frame_size(const struct kind *kind)
{
    size_t reply = kind->out + REPLY_MORE;

    return rounded(reply > kind->body ? reply : kind->body);
}

static size_t slot_size(const struct kind *kind)
{
    return frame_size(kind) + rounded(kind->arena) + rounded(kind->out);
}

struct kms_agentd_pools *kms_agentd_pools_new(void)
{
    struct kms_agentd_pools *pools = calloc(1, sizeof(*pools));
    bool good = pools != NULL;

    for (size_t i = 0; i < KINDS && good; i++) {
        pools->pools[i] = kms_secure_pool_new(slot_size(&kinds[i]), kinds[i].slots);
        good = pools->pools[i] != NULL;
    }
    if (!good) {
        kms_agentd_pools_free(pools);
        return NULL;
    }
    return pools;
}

void kms_agentd_pools_free(struct kms_agentd_pools *pools)
{
    if (pools != NULL) {
        for (size_t i = 0; i < KINDS; i++) {
            if (pools->pools[i] != NULL) {
                kms_secure_pool_free(pools->pools[i]);
            }
        }
        free(pools);
    }
}

enum kms_status kms_agentd_room_take(struct kms_agentd_pools *pools, size_t len,
                                     struct kms_agentd_room *ret_room, struct kms_error *err)
{
    size_t i = 0;
    uint8_t *slot = NULL;

    while (i < KINDS && len > kinds[i].body) {
        i++;
    }
    if (i == KINDS) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "agent: a request of %zu bytes, at most %u", len,
                             KMS_AGENTD_REQUEST_MAX);
    }
    *ret_room = (struct kms_agentd_room){.kind = (unsigned)i};
    slot = kms_secure_pool_take(pools->pools[i]);
    if (slot == NULL) {
        slot = kms_secure_new(slot_size(&kinds[i]));
        ret_room->kind += OWN_SLOT;
    }
    if (slot == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "agent: no memory for a request");
    }
    ret_room->slot = slot;
    ret_room->frame = kms_buf_over(slot, frame_size(&kinds[i]));
    slot += frame_size(&kinds[i]);
    ret_room->arena = kms_buf_over(slot, rounded(kinds[i].arena));
    slot += rounded(kinds[i].arena);
    ret_room->out = kms_buf_over(slot, kinds[i].out);
    return KMS_OK;
}

void kms_agentd_room_give(struct kms_agentd_pools *pools, struct kms_agentd_room *room)
{
    if (room->slot == NULL) {
        return;
    }
    if (room->kind >= OWN_SLOT) {
        kms_secure_free(room->slot);
    } else {
        kms_secure_pool_give(pools->pools[room->kind], room->slot);
    }
    *room = (struct kms_agentd_room){.slot = NULL};
}

/* --- the socket --------------------------------------------------------------------------------
 */

/* False: the deadline passed. */
static bool wait_for(int fd, short event, uint64_t deadline_ns)
{
    struct pollfd pfd = {.fd = fd, .events = event};
    int ready = 0;

    do {
        uint64_t left = kms_deadline_left(deadline_ns);

        ready = poll(&pfd, 1, (int)((left + KMS_NS_PER_MS - 1) / KMS_NS_PER_MS));
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
}

static enum kms_status broken(struct kms_error *err, const char *what)
{
    return kms_error_set(err, KMS_E_UNAVAILABLE, "agent: %s: %s", what, strerror(errno));
}

enum kms_status kms_agentd_read(int fd, size_t len, uint64_t deadline_ns, struct kms_buf *buf,
                                struct kms_error *err)
{
    if (len > kms_buf_room(buf)) {
        return kms_error_set(err, KMS_E_TOO_LARGE, "agent: no room for %zu bytes", len);
    }
    while (len > 0) {
        ssize_t n = recv(fd, buf->data + buf->len, len, MSG_DONTWAIT);

        if (n > 0) {
            buf->len += (size_t)n;
            len -= (size_t)n;
        } else if (n == 0) {
            return kms_error_set(err, KMS_E_UNAVAILABLE, "agent: the peer left within a frame");
        } else if (errno == EAGAIN) {
            if (!wait_for(fd, POLLIN, deadline_ns)) {
                return kms_error_set(err, KMS_E_TIMEOUT, "agent: a frame came too slowly");
            }
        } else if (errno != EINTR) {
            return broken(err, "recv");
        }
    }
    return KMS_OK;
}

enum kms_status kms_agentd_read_len(int fd, uint64_t rest_ns, size_t *ret_len,
                                    struct kms_error *err)
{
    uint8_t header[KMS_AGENT_HEADER];
    struct kms_buf buf = KMS_BUF_OVER(header);
    enum kms_status status = KMS_OK;
    ssize_t n = 0;

    do {
        n = recv(fd, header, sizeof(header), 0);
    } while (n < 0 && errno == EINTR);
    if (n == 0) {
        return kms_error_set(err, KMS_E_CANCELLED, "agent: the peer left");
    }
    if (n < 0) {
        return errno == EAGAIN ? kms_error_set(err, KMS_E_TIMEOUT, "agent: a quiet connection")
                               : broken(err, "recv");
    }
    buf.len = (size_t)n;
    status = kms_agentd_read(fd, sizeof(header) - buf.len, kms_deadline_in(rest_ns), &buf, err);
    return status == KMS_OK ? kms_agent_frame_len(header, ret_len, err) : status;
}

enum kms_status kms_agentd_write(int fd, struct kms_span bytes, uint64_t deadline_ns,
                                 struct kms_error *err)
{
    while (bytes.len > 0) {
        ssize_t n = send(fd, bytes.data, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0) {
            bytes = kms_span_of(bytes.data + n, bytes.len - (size_t)n);
        } else if (n < 0 && errno == EAGAIN) {
            if (!wait_for(fd, POLLOUT, deadline_ns)) {
                return kms_error_set(err, KMS_E_TIMEOUT, "agent: a reply was not taken in time");
            }
        } else if (n == 0 || errno != EINTR) {
            return broken(err, "send");
        }
    }
    return KMS_OK;
}
