/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What passes through an HTTP/2 connection is wiped behind it, in a program that has this file
 * among its sources: the daemon.
 *
 * A connection that stays open for the next exchange keeps the bytes of the last one, in buffers
 * that are in use until it is closed, so that wiping what is freed (kmsbridge/wipe_free.c) does not
 * do:
 *
 *   received   libcurl's, which it hands to nghttp2_session_mem_recv()
 *   to send    nghttp2's, which it hands to libcurl's send callback
 *   to send    libcurl's copy of that, which it hands to SSL_write()
 *
 * Nobody reads a byte to send again that the other has taken. What was received is only noted: see
 * kms_received in backend/rest/wiping.h. Over HTTP/1 there is nothing to do: what SSL_write() gets
 * there is the request itself, which may have to be sent once more.
 *
 * And a request's header fields stay in the connection's compression table until others have taken
 * their place, but for Authorization, which nghttp2 leaves out. Here all are left out.
 *
 * The dynamic linker finds these five here before their libraries', to which they hand on. The
 * prototypes are those of nghttp2/nghttp2.h and openssl/ssl.h; neither is needed to build.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "backend/rest/wiping.h"

typedef ssize_t (*recv_fn)(void *session, const uint8_t *in, size_t len);
typedef ssize_t (*send_fn)(void *session, const uint8_t *data, size_t len, int flags, void *ctx);

struct field { /* nghttp2_nv */
    uint8_t *name, *value;
    size_t name_len, value_len;
    uint8_t flags;
};
#define NEVER_INDEXED 0x01   /* NGHTTP2_NV_FLAG_NO_INDEX */
#define NO_MEMORY     (-901) /* NGHTTP2_ERR_NOMEM */

int32_t nghttp2_submit_request(void *session, const void *priority, const struct field *fields,
                               size_t count, const void *body, void *stream_ctx);
ssize_t nghttp2_session_mem_recv(void *session, const uint8_t *in, size_t len);
void nghttp2_session_del(void *session);
void nghttp2_session_callbacks_set_send_callback(void *callbacks, send_fn send);
int SSL_write(void *ssl, const void *bytes, int len);

static struct {
    int32_t (*submit)(void *session, const void *priority, const struct field *fields, size_t count,
                      const void *body, void *stream_ctx);
    recv_fn recv;
    void (*del)(void *session);
    void (*set_send)(void *callbacks, send_fn send);
    int (*write)(void *ssl, const void *bytes, int len);
    void (*protocol)(const void *ssl, const unsigned char **ret_name, unsigned *ret_len);
} theirs;

static void look_up(void)
{
    /* POSIX's way to turn an object pointer into a function pointer. */
    *(void **)&theirs.submit = dlsym(RTLD_NEXT, "nghttp2_submit_request");
    *(void **)&theirs.recv = dlsym(RTLD_NEXT, "nghttp2_session_mem_recv");
    *(void **)&theirs.del = dlsym(RTLD_NEXT, "nghttp2_session_del");
    *(void **)&theirs.set_send = dlsym(RTLD_NEXT, "nghttp2_session_callbacks_set_send_callback");
    *(void **)&theirs.write = dlsym(RTLD_NEXT, "SSL_write");
    *(void **)&theirs.protocol = dlsym(RTLD_NEXT, "SSL_get0_alpn_selected");
}

static void look_up_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, look_up);
}

/*
 * Every field but the pseudo ones goes as one that is never indexed: a token, and whatever else a
 * service wants to be told, under any name. RFC 7541 7.1.3 wants it of secrets, since who can put
 * fields of his own beside them could guess them by the length. nghttp2 copies what it is given.
 */
int32_t nghttp2_submit_request(void *session, const void *priority, const struct field *fields,
                               size_t count, const void *body, void *stream_ctx)
{
    struct field *ours = calloc(count + 1, sizeof(*ours));
    int32_t stream = NO_MEMORY;

    look_up_once();
    for (size_t i = 0; ours != NULL && i < count; i++) {
        ours[i] = fields[i];
        ours[i].flags |= fields[i].name_len > 0 && fields[i].name[0] == ':' ? 0 : NEVER_INDEXED;
    }
    if (ours != NULL) {
        stream = theirs.submit(session, priority, ours, count, body, stream_ctx);
    }
    free(ours);
    return stream;
}

/* Their owner has no more use for the first @taken of @bytes, which it lends as const. */
static void wipe_taken(const void *bytes, ssize_t taken)
{
    if (taken > 0) {
        explicit_bzero((void *)(uintptr_t)bytes, (size_t)taken);
    }
}

ssize_t nghttp2_session_mem_recv(void *session, const uint8_t *in, size_t len)
{
    ssize_t taken = 0;

    look_up_once();
    taken = theirs.recv(session, in, len);
    kms_received_note(session, in, taken > 0 ? (size_t)taken : 0, len);
    return taken;
}

/* libcurl frees its buffer behind this. */
void nghttp2_session_del(void *session)
{
    look_up_once();
    kms_received_forget(session);
    theirs.del(session);
}

static _Atomic(send_fn) sender; /* libcurl's, once it has set it */

static ssize_t send_and_wipe(void *session, const uint8_t *data, size_t len, int flags, void *ctx)
{
    ssize_t taken = atomic_load(&sender)(session, data, len, flags, ctx);

    wipe_taken(data, taken);
    return taken;
}

void nghttp2_session_callbacks_set_send_callback(void *callbacks, send_fn send)
{
    send_fn first = NULL;

    look_up_once();
    if (send != NULL && (atomic_compare_exchange_strong(&sender, &first, send) || first == send)) {
        theirs.set_send(callbacks, send_and_wipe);
    } else { /* somebody else's */
        theirs.set_send(callbacks, send);
    }
}

int SSL_write(void *ssl, const void *bytes, int len)
{
    const unsigned char *name = NULL;
    unsigned name_len = 0;
    int taken = 0;

    look_up_once();
    taken = theirs.write(ssl, bytes, len);
    theirs.protocol(ssl, &name, &name_len);
    if (name_len == 2 && memcmp(name, "h2", 2) == 0) {
        wipe_taken(bytes, taken);
    }
    return taken;
}
