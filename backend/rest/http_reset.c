/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No stream of HTTP/2 is reset that has ended already, in a program that has this file among its
 * sources, as http_wipe.c is.
 *
 * libcurl 7.88 resets every stream once more after its answer has come whole. A server may take
 * that for an attack (CVE-2023-44487): those over libnghttp2 hang up on who resets more than 1000
 * streams, and 33 more each second, with all exchanges that are on their way (nghttp2 1.57,
 * Debian's 1.52.0-1+deb12u1). RFC 9113 5.1 allows no such frame either.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

int nghttp2_submit_rst_stream(void *session, uint8_t flags, int32_t stream, uint32_t code);

static struct {
    int (*reset)(void *session, uint8_t flags, int32_t stream, uint32_t code);
    int (*local_close)(const void *session, int32_t stream); /* -1: there is no such stream */
    size_t (*queued)(const void *session);
} theirs;

static void look_up(void)
{
    /* POSIX's way to turn an object pointer into a function pointer. */
    *(void **)&theirs.reset = dlsym(RTLD_NEXT, "nghttp2_submit_rst_stream");
    *(void **)&theirs.local_close = dlsym(RTLD_NEXT, "nghttp2_session_get_stream_local_close");
    *(void **)&theirs.queued = dlsym(RTLD_NEXT, "nghttp2_session_get_outbound_queue_size");
}

/* A request that waits to be sent has no stream yet, and resetting it takes it out of the queue. */
int nghttp2_submit_rst_stream(void *session, uint8_t flags, int32_t stream, uint32_t code)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, look_up);
    if (theirs.local_close(session, stream) == -1 && theirs.queued(session) == 0) {
        return 0;
    }
    return theirs.reset(session, flags, stream, code);
}
