/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `vault` backend: the Transit secrets engine of HashiCorp Vault and OpenBao.
 *
 * Every version of a Transit key is a key of its own: label is the key's name, version the number,
 * latest says whether Transit takes it when no version is named. A key's ref and id are the same
 * text, "kbv1-" and the first 20 bytes in hex of SHA-256 over
 *
 *     "kmsbridge vault key id v1", mount, namespace, name, version, creation time of that version
 *
 * (of HMAC keys Transit tells no creation time: "mac:" and, in hex, 16 bytes of HMAC-SHA256 by that
 * version over the first of these texts stand for it, so that listing them needs the right to
 * <mount>/hmac/<name>/, and one that we may not ask is not shown; vault_marks.c)
 *
 * each but the version (8 bytes, big-endian) as 4 bytes of length, big-endian, and bytes; the
 * creation time as Transit writes it (seconds since 1970 in decimal for symmetric keys, RFC 3339
 * for the others); mount and namespace without slashes at the ends. All of it comes from the
 * configuration and from the cluster's own storage, so that replicas of us, restarts, and every
 * node of a cluster agree, whatever address they are reached by; a key that was deleted and made
 * again has another creation time. (Two made within the same second by somebody else than us are
 * told apart for asymmetric keys alone: Transit keeps no more.) The tag (CKA_ID) is the same 20
 * bytes; the version says which one is newer.
 *
 * Encryption names the version of the ref in the request, and the reply must name it, too: what
 * Status announces is what is used. What is known of a key is read anew when it is older than ten
 * seconds; a key that was deleted and made again meanwhile would be used as the old one until then.
 * A key that was seen once is asked for by its name, whatever became of it; the mount is listed for
 * a ref that was never seen, and for who wants all keys.
 * Decryption refuses a version that has gone. Transit's ciphertext "vault:vN:" base64(nonce || ct
 * || tag) of AES-GCM and ChaCha20-Poly1305 keys goes apart into IV and ciphertext, and is rebuilt
 * for decryption.
 *
 * No key comes into being by encrypting (Transit's upsert): a ref is only known from a key that was
 * read, and the policy of our token must not hold `create` on <mount>/encrypt/; conf/ has one.
 *
 * Keys of other types than aes128-gcm96, aes256-gcm96, chacha20-poly1305, rsa-*, ecdsa-p*, ed25519
 * and hmac, and derived (hence convergent) ones, are not shown.
 */
#ifndef KMS_BACKEND_VAULT_H
#define KMS_BACKEND_VAULT_H

#include "backend/backend.h"

extern const struct kms_backend_ops kms_vault_ops;

struct kms_http_door;

/* The op `open` over another door, which the backend closes: for tests and fuzzers. */
enum kms_status kms_vault_open_over(const struct kms_backend_conf *conf, struct kms_http_door *door,
                                    struct kms_backend **ret_backend,
                                    struct kms_error *err) KMS_MUST_CHECK;

#endif
