/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The envelope: what Encrypt returns as ciphertext and kube-apiserver keeps in etcd beside the
 * data. Bytes in, bytes out; no key is touched here.
 *
 *   offset  size  what
 *        0     3  "KMB"
 *        3     1  format version, 1
 *        4     1  algorithm, enum kms_alg: 1 AES-GCM, 2 RSA-OAEP-SHA256,
 *                 3 AES-CBC-PAD + HMAC-SHA256, 4 the service's own blob
 *        5     1  flags, 0; a reader refuses every bit it does not know
 *        6     1  length of the IV
 *        7     1  length of the extensions, 0 in this version; room to grow: type-length-value
 *                 rows that a version 1 reader refuses, so that nothing unknown is ever ignored
 *        8     8  key hint: the first 8 bytes of SHA-256(key_id)
 *       16     n  extensions, then the IV, then the ciphertext with its tag behind it, to the end
 *
 * Authenticated as additional data (AAD): every byte before the IV, then the key_id's bytes. So
 * format, algorithm and key_id cannot be exchanged without the tag failing. (RSA-OAEP has no tag:
 * there the AAD's SHA-256 is the label, which binds the same, but anybody who has the public key
 * can make an envelope.) A 32-byte seed under AES-GCM makes 76 bytes; the API server's limit is
 * 1024.
 */
#ifndef KMSBRIDGE_ENVELOPE_H
#define KMSBRIDGE_ENVELOPE_H

#include "backend/backend.h"

#define KMS_ENVELOPE_MAX     1024 /* kube-apiserver refuses a longer ciphertext (kmsv2, MaxSize) */
#define KMS_ENVELOPE_HEADER  16
#define KMS_KEY_HINT_LEN     8
#define KMS_ENVELOPE_AAD_MAX (KMS_ENVELOPE_HEADER + KMS_KEY_ID_MAX)
/* What fits under the limit with the largest overhead of the symmetric schemes. */
#define KMS_ENVELOPE_PLAINTEXT_MAX 928

struct kms_envelope {
    enum kms_alg alg;
    struct kms_span header;     /* the bytes that the AAD takes */
    struct kms_span iv;         /* borrowed from the envelope's bytes, as are the others */
    struct kms_span ciphertext; /* with tag */
    struct kms_span key_hint;
};

/* The hint of a key_id. KMS_E_INTERNAL when libcrypto cannot hash. */
enum kms_status kms_envelope_hint(struct kms_span key_id,
                                  uint8_t ret_hint[KMS_KEY_HINT_LEN]) KMS_MUST_CHECK;

/* Appends the header for @alg, @iv_len and @hint to @out. KMS_E_INVALID for an algorithm that
 * cannot seal. */
enum kms_status kms_envelope_header(enum kms_alg alg, size_t iv_len,
                                    const uint8_t hint[KMS_KEY_HINT_LEN],
                                    struct kms_buf *out) KMS_MUST_CHECK;

/* @aad = header || key_id. KMS_E_TOO_LARGE. */
enum kms_status kms_envelope_aad(struct kms_span header, struct kms_span key_id,
                                 struct kms_buf *ret_aad) KMS_MUST_CHECK;

/*
 * Takes @bytes apart and checks all that can be checked without the key: magic, version, algorithm,
 * flags, lengths. KMS_E_BAD_DATA with a sentence that says which; KMS_E_TOO_LARGE over
 * KMS_ENVELOPE_MAX.
 */
enum kms_status kms_envelope_parse(struct kms_span bytes, struct kms_envelope *ret_envelope,
                                   struct kms_error *err) KMS_MUST_CHECK;

/* The IV length that the format demands of @alg: 12, 0 or 16. */
size_t kms_envelope_iv_len(enum kms_alg alg);

#endif
