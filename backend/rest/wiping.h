/* SPDX-License-Identifier: Apache-2.0 */
/*
 * malloc() and its kin for libraries that carry secrets in buffers of their own (libcurl, jansson):
 * what is freed is wiped first. Thread-safe, as malloc() is.
 */
#ifndef KMS_BACKEND_REST_WIPING_H
#define KMS_BACKEND_REST_WIPING_H

#include <stddef.h>

void *kms_wiping_malloc(size_t size);
void *kms_wiping_calloc(size_t count, size_t size);
void *kms_wiping_realloc(void *ptr, size_t size);
char *kms_wiping_strdup(const char *text);
void kms_wiping_free(void *ptr);

#endif
