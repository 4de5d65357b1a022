/* SPDX-License-Identifier: Apache-2.0 */
/*
 * malloc() and its kin for libraries that carry secrets in buffers of their own (libcurl, jansson):
 * what is freed is wiped first. Thread-safe, as malloc() is.
 */
#ifndef KMS_BACKEND_REST_WIPING_H
#define KMS_BACKEND_REST_WIPING_H

#include <stddef.h>
#include <stdint.h>

void *kms_wiping_malloc(size_t size);
void *kms_wiping_calloc(size_t count, size_t size);
void *kms_wiping_realloc(void *ptr, size_t size);
char *kms_wiping_strdup(const char *text);
void kms_wiping_free(void *ptr);

#define KMS_RECEIVED_MAX 16 /* connections of a libcurl multi handle, at most: it is told so */

/*
 * What has been received in buffers that live as long as their connections, which libcurl does over
 * HTTP/2. Filled by who sees it pass (backend/rest/http_wipe.c; in other programs it stays empty).
 * Not wiped at once: libcurl goes on pointing into such a buffer while it holds back an exchange
 * whose own buffer is full, so it is wiped when no exchange is left.
 */
struct kms_received_part {
    const void *session; /* NULL: free */
    uint8_t *start;
    uint8_t *end;
    uint8_t *rest; /* up to rest_end: what has not been looked at yet */
    uint8_t *rest_end;
};
struct kms_received {
    struct kms_received_part parts[KMS_RECEIVED_MAX];
};

/* Where what this thread's libcurl receives is noted; NULL: nowhere. */
extern _Thread_local struct kms_received *kms_receiving;

/* The first @taken of @bytes have been looked at. */
void kms_received_note(const void *session, const uint8_t *bytes, size_t taken, size_t len);
void kms_received_forget(const void *session); /* its buffer is about to be freed */
void kms_received_wipe(struct kms_received *received);

#endif
