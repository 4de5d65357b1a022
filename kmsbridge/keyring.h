/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keyring: the KEKs of one label. One is active and encrypts; every other one decrypts.
 *
 * The active key is the one with the highest CKA_ID (as an unsigned big-endian number) of those
 * that can seal. A newer key becomes active without a restart, once it has been seen to encrypt and
 * decrypt; Status and Encrypt see the change in one step, because both look at the same snapshot. A
 * key that was active and disappears is not replaced by an older one: that would let a key_id come
 * back that was left. The ring then reports KMS_E_KEY_STATE until the key is back, a newer one is
 * there, or the daemon is restarted.
 *
 * A service may rotate a key by itself: then it says that it encrypted with another version than it
 * was asked for. What it made is not returned (its AAD names the former key_id); the ring looks for
 * the new version, and encrypts again under its key_id, inside the same call.
 *
 * Threads: all functions from any thread. A snapshot is immutable and counted.
 */
#ifndef KMSBRIDGE_KEYRING_H
#define KMSBRIDGE_KEYRING_H

#include "backend/waist.h"

struct kms_keyring;

/*
 * @waist and @spec are borrowed; @spec is the configuration's kms.key. An empty ring: refresh it.
 */
struct kms_keyring *kms_keyring_new(struct kms_waist *waist, const char *spec);
void kms_keyring_free(struct kms_keyring *ring);

/*
 * Asks the backend which keys there are and publishes what is new. Errors of the backend leave the
 * ring as it was. KMS_E_NOT_FOUND: no key of that name; KMS_E_UNSUPPORTED: none of them can seal;
 * KMS_E_KEY_STATE: see above.
 */
enum kms_status kms_keyring_refresh(struct kms_keyring *ring, struct kms_call *call) KMS_MUST_CHECK;

/* The active key's key_id, at most KMS_KEY_ID_MAX with NUL; KMS_E_NOT_FOUND before the first good
 * refresh. */
enum kms_status kms_keyring_active(struct kms_keyring *ring,
                                   char ret_key_id[KMS_KEY_ID_MAX]) KMS_MUST_CHECK;

/* Whether it has the key, as far as it has looked. */
bool kms_keyring_has(struct kms_keyring *ring, struct kms_span key_id);

/* How many keys can decrypt, the active one included. */
size_t kms_keyring_count(struct kms_keyring *ring);

/*
 * Seals @plaintext (1 to KMS_ENVELOPE_PLAINTEXT_MAX bytes) under the active key into @ret_envelope
 * (cap KMS_ENVELOPE_MAX) and says under which key_id. KMS_E_TOO_LARGE, KMS_E_INVALID (empty), the
 * backend's errors.
 */
enum kms_status kms_keyring_encrypt(struct kms_keyring *ring, struct kms_call *call,
                                    struct kms_span plaintext, struct kms_buf *ret_envelope,
                                    char ret_key_id[KMS_KEY_ID_MAX]) KMS_MUST_CHECK;

/*
 * Opens @envelope, made under @key_id, into @ret_plaintext (secure memory, cap KMS_ENVELOPE_MAX).
 * The envelope, the key_id and that they belong together are checked before the key is asked:
 * KMS_E_BAD_DATA. A key_id that we do not have is looked for once more in the token, at most every
 * 5 s; then KMS_E_NOT_FOUND names it.
 */
enum kms_status kms_keyring_decrypt(struct kms_keyring *ring, struct kms_call *call,
                                    struct kms_span key_id, struct kms_span envelope,
                                    struct kms_buf *ret_plaintext) KMS_MUST_CHECK;

/* Encrypts and decrypts 32 random bytes under the active key and compares. */
enum kms_status kms_keyring_probe(struct kms_keyring *ring, struct kms_call *call) KMS_MUST_CHECK;

#endif
