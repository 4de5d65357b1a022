/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ciphertext from any bytes, as Decrypt gets it from etcd. First byte even: the bytes as they
 * are; odd: they are laid over a good envelope by exclusive or, so that the deep checks are
 * reached. Whatever comes is refused with one sentence, or it is exactly the envelope that was
 * made.
 */
#include "kmsbridge/envelope.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "kmsbridge/keyring.h"
#include "tests/unit/fake_waist.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char seed[] = "0123456789abcdef0123456789abcdef";

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

static struct kms_keyring *ring;
static uint8_t good[KMS_ENVELOPE_MAX];
static size_t good_len;
static char key_id[KMS_KEY_ID_MAX];

static void set_up(void)
{
    struct kms_call call = {.deadline_ns = KMS_DEADLINE_NONE};
    struct kms_buf buf = KMS_BUF_OVER(good);
    fake_reset();
    fake_add("kb1-a", "kek", 1);
    kms_log_setup(-1, KMS_LOG_ERROR, KMS_LOG_TEXT);
    ring = kms_keyring_new(NULL, "kek");
    demand(ring != NULL && kms_keyring_refresh(ring, &call) == KMS_OK);
    demand(kms_keyring_encrypt(ring, &call, kms_span_str(seed), &buf, key_id) == KMS_OK);
    good_len = buf.len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[KMS_ENVELOPE_MAX + 64];
    uint8_t plain[KMS_ENVELOPE_MAX];
    struct kms_call call = {.deadline_ns = KMS_DEADLINE_NONE};
    struct kms_buf out = KMS_BUF_OVER(plain);
    if (ring == NULL) {
        set_up();
    }
    if (size == 0 || size > sizeof bytes) {
        return 0;
    }
    bool overlay = (data[0] & 1) != 0;
    size_t len = size - 1;
    memcpy(bytes, data + 1, len);
    if (overlay) {
        for (size_t i = 0; i < good_len; i++) {
            bytes[i] = i < len ? bytes[i] ^ good[i] : good[i];
        }
        len = len > good_len ? len : good_len;
    }
    enum kms_status status =
        kms_keyring_decrypt(ring, &call, kms_span_str(key_id), kms_span_of(bytes, len), &out);
    bool same = len == good_len && memcmp(bytes, good, len) == 0;
    demand((status == KMS_OK) == same);
    if (status == KMS_OK) {
        demand(out.len == sizeof seed - 1 && memcmp(plain, seed, out.len) == 0);
    } else {
        demand(status == KMS_E_BAD_DATA || status == KMS_E_TOO_LARGE);
        demand(call.error.text[0] != '\0' && out.len == 0);
    }
    return 0;
}
