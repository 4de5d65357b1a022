/* SPDX-License-Identifier: Apache-2.0 */
/* One key of the keyring, and what is done with it: seal into an envelope, open one, prove that
 * both work. Included by keyring.c only. */
#ifndef KMSBRIDGE_RING_KEY_H
#define KMSBRIDGE_RING_KEY_H

#include "backend/waist.h"
#include "kmsbridge/envelope.h"

struct kms_ring_key {
    struct kms_key_info info;
    uint8_t hint[KMS_KEY_HINT_LEN];
};

/*
 * A key that the backend does not find is away, KMS_E_UNAVAILABLE: it was there. Otherwise as
 * kms_keyring_encrypt() and kms_keyring_decrypt().
 *
 * *ret_moved (NULL is fine) says whether sealing failed because the service used another version of
 * the key than @key, whose key_id the envelope would have carried and its AAD binds: the service
 * has rotated the key since the ring looked. KMS_E_UNAVAILABLE then; nothing is returned.
 */
enum kms_status kms_ring_key_seal(struct kms_waist *waist, struct kms_call *call,
                                  const struct kms_ring_key *key, struct kms_span plaintext,
                                  struct kms_buf *ret_envelope, bool *ret_moved) KMS_MUST_CHECK;
enum kms_status kms_ring_key_unseal(struct kms_waist *waist, struct kms_call *call,
                                    const struct kms_ring_key *key, const struct kms_envelope *env,
                                    struct kms_buf *ret_plaintext) KMS_MUST_CHECK;
/* Seals and opens random bytes; KMS_E_PROTOCOL when something else comes back. */
enum kms_status kms_ring_key_probe(struct kms_waist *waist, struct kms_call *call,
                                   const struct kms_ring_key *key, bool *ret_moved) KMS_MUST_CHECK;

#endif
