/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/rest/blob.h"

#include <stdint.h>
#include <string.h>

#include "common/secure.h"
#include "tests/unit/unit.h"

#define MAX ((size_t)300000)

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 31 + i / 251 + 1);
}

static bool holds(const struct kms_blob *blob, size_t len)
{
    if (blob->len != len || blob->data == NULL || blob->data[len] != 0) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (blob->data[i] != byte_at(i)) {
            return false;
        }
    }
    return true;
}

static bool grow(struct kms_blob *blob, size_t len)
{
    static uint8_t bytes[MAX];
    size_t some = len - blob->len;

    for (size_t i = 0; i < some; i++) {
        bytes[i] = byte_at(blob->len + i);
    }
    return kms_blob_put(blob, kms_span_of(bytes, some), MAX) == KMS_OK && holds(blob, len);
}

/* From nothing to each size, and from each size to all greater ones: across both kinds of slots. */
static void it_grows(void)
{
    static const size_t sizes[] = {0,    1,    1022, 1023,  1024,  1025,  8190,
                                   8191, 8192, 8193, 65535, 65536, 70000, MAX};

    for (size_t from = 0; from < UNIT_COUNT(sizes); from++) {
        for (size_t to = from; to < UNIT_COUNT(sizes); to++) {
            struct kms_blob blob = {.data = NULL};

            CU_ASSERT_TRUE(grow(&blob, sizes[from]));
            CU_ASSERT_TRUE(grow(&blob, sizes[to]));
            CU_ASSERT(blob.cap > blob.len);
            kms_blob_done(&blob);
            CU_ASSERT(blob.data == NULL && blob.len == 0 && blob.cap == 0 && blob.pool == NULL);
        }
    }
}

static void it_has_a_ceiling(void)
{
    struct kms_blob blob = {.data = NULL};

    CU_ASSERT_EQUAL(kms_blob_put(&blob, kms_span_str("12345"), 4), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_blob_put(&blob, kms_span_str("1234"), 4), KMS_OK);
    CU_ASSERT_EQUAL(kms_blob_put(&blob, kms_span_str("5"), 4), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_blob_put(&blob, kms_span_str("5"), 3), KMS_E_TOO_LARGE);
    CU_ASSERT_EQUAL(kms_blob_put(&blob, KMS_SPAN_NONE, 4), KMS_OK);
    CU_ASSERT_TRUE(kms_span_equal(kms_blob_span(&blob), kms_span_str("1234")));
    kms_blob_done(&blob);
}

static void what_is_reserved_stays(void)
{
    struct kms_blob blob = {.data = NULL};
    const uint8_t *at = NULL;

    CU_ASSERT_EQUAL(kms_blob_reserve(&blob, 5000), KMS_OK);
    at = blob.data;
    for (size_t len = 0; len <= 5000; len += 500) {
        CU_ASSERT_TRUE(grow(&blob, len));
        CU_ASSERT_PTR_EQUAL(blob.data, at);
    }
    kms_blob_done(&blob);
}

/* More than there are slots: the others have memory of their own, and slots are wiped for the next.
 */
#define MANY 2100
static void slots_may_be_used_up(void)
{
    static struct kms_blob blobs[MANY];
    size_t own = 0;

    for (size_t i = 0; i < MANY; i++) {
        CU_ASSERT_TRUE_FATAL(grow(&blobs[i], 100 + i % 900));
        own += blobs[i].pool == NULL ? 1 : 0;
    }
    CU_ASSERT(own > 0 && own < MANY);
    for (size_t i = 0; i < MANY; i++) {
        const uint8_t *at = blobs[i].data;
        bool is_slot = blobs[i].pool != NULL;

        CU_ASSERT_TRUE(holds(&blobs[i], 100 + i % 900));
        kms_blob_done(&blobs[i]);
        for (size_t j = 0; is_slot && j < 1000; j++) {
            if (at[j] != 0) {
                CU_FAIL("a slot is not wiped");
                break;
            }
        }
    }
    CU_ASSERT_TRUE(grow(&blobs[0], 100));
    CU_ASSERT_PTR_NOT_NULL(blobs[0].pool);
    kms_blob_done(&blobs[0]);
}

static const struct unit_test tests[] = {
    {"it grows", it_grows},
    {"it has a ceiling", it_has_a_ceiling},
    {"what is reserved stays", what_is_reserved_stays},
    {"slots may be used up", slots_may_be_used_up},
};

int main(void)
{
    return kms_secure_init() == KMS_OK ? unit_main("test_rest_blob", tests, UNIT_COUNT(tests))
                                       : EXIT_FAILURE;
}
