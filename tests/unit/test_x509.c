/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/x509.h"

#include <string.h>

#include "tests/unit/unit.h"

/* A v3 certificate of the shape of RFC 5280, without what nobody reads. Issuer "O=a", subject
 * "O=b, CN=x". */
#define OID_O  0x06, 0x03, 0x55, 0x04, 0x0a
#define OID_CN 0x06, 0x03, 0x55, 0x04, 0x03
#define ISSUER 0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, OID_O, 0x0c, 0x01, 'a'
#define SUBJECT                                                                                    \
    0x30, 0x18, 0x31, 0x0a, 0x30, 0x08, OID_O, 0x0c, 0x01, 'b', 0x31, 0x0a, 0x30, 0x08, OID_CN,    \
        0x0c, 0x01, 'x'
#define VERSION  0xa0, 0x03, 0x02, 0x01, 0x02
#define SERIAL   0x02, 0x02, 0x12, 0x34
#define ALG      0x30, 0x02, 0x05, 0x00
#define VALIDITY 0x30, 0x00
#define SPKI     0x30, 0x03, 0x03, 0x01, 0x00
#define BEHIND   0x30, 0x00, 0x03, 0x01, 0x00 /* signatureAlgorithm, signature */

static const uint8_t v3[] = {0x30, 0x43,   0x30,     0x3c,    VERSION, SERIAL,
                             ALG,  ISSUER, VALIDITY, SUBJECT, SPKI,    BEHIND};
static const uint8_t v1[] = {0x30,   0x3e,     0x30,    0x37, SERIAL, ALG,
                             ISSUER, VALIDITY, SUBJECT, SPKI, BEHIND};

static void good(void)
{
    static const uint8_t serial[] = {SERIAL};
    static const uint8_t issuer[] = {ISSUER};
    static const uint8_t subject[] = {SUBJECT};
    static const uint8_t spki[] = {SPKI};
    const struct kms_span ders[] = {kms_span_of(v3, sizeof(v3)), kms_span_of(v1, sizeof(v1))};

    for (size_t i = 0; i < UNIT_COUNT(ders); i++) {
        struct kms_x509 x509;
        const char *row = i == 0 ? "v3" : "v1";

        if (UNIT_CHECK(row, kms_x509_read(ders[i], &x509) == KMS_OK)) {
            (void)UNIT_CHECK(row, kms_span_equal(x509.serial, kms_span_of(serial, sizeof(serial))));
            (void)UNIT_CHECK(row, kms_span_equal(x509.issuer, kms_span_of(issuer, sizeof(issuer))));
            (void)UNIT_CHECK(row,
                             kms_span_equal(x509.subject, kms_span_of(subject, sizeof(subject))));
            (void)UNIT_CHECK(row, kms_span_equal(x509.spki, kms_span_of(spki, sizeof(spki))));
            (void)UNIT_CHECK(row, kms_span_equal(x509.common_name, kms_span_str("x")));
        }
    }
}

/* Every length that is too short, a byte too many, and every byte turned over: an answer or a
 * refusal, whose spans lie inside; never a read beyond. */
static void bad(void)
{
    uint8_t copy[sizeof(v3) + 1];
    struct kms_x509 x509;

    for (size_t len = 0; len < sizeof(v3); len++) {
        uint8_t *exact = malloc(len + 1); /* for AddressSanitizer to see its end */

        memcpy(exact, v3, len);
        (void)UNIT_CHECK("short", kms_x509_read(kms_span_of(exact, len), &x509) == KMS_E_BAD_DATA);
        free(exact);
    }
    memcpy(copy, v3, sizeof(v3));
    copy[sizeof(v3)] = 0;
    (void)UNIT_CHECK("long",
                     kms_x509_read(kms_span_of(copy, sizeof(copy)), &x509) == KMS_E_BAD_DATA);
    for (size_t i = 0; i < sizeof(v3); i++) {
        for (unsigned value = 0; value < 256; value++) {
            memcpy(copy, v3, sizeof(v3));
            copy[i] = (uint8_t)value;
            if (kms_x509_read(kms_span_of(copy, sizeof(v3)), &x509) == KMS_OK) {
                (void)UNIT_CHECK(
                    "inside",
                    x509.subject.data >= copy &&
                        x509.subject.data + x509.subject.len <= copy + sizeof(v3) &&
                        (x509.common_name.len == 0 ||
                         x509.common_name.data + x509.common_name.len <= copy + sizeof(v3)));
            }
        }
    }
}

static void lengths(void)
{
    static const struct {
        const char *name;
        uint8_t der[8];
        size_t len;
    } rows[] = {
        {"empty", {0}, 0},
        {"no length", {0x30}, 1},
        {"indefinite", {0x30, 0x80, 0x00, 0x00}, 4},
        {"long form of a short one", {0x30, 0x81, 0x02, 0x30, 0x00}, 5},
        {"leading zero", {0x30, 0x82, 0x00, 0x81}, 4},
        {"five bytes", {0x30, 0x85, 1, 1, 1, 1, 1}, 7},
        {"four bytes of too much", {0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, 6},
        {"other tag", {0x31, 0x00}, 2},
    };
    struct kms_x509 x509;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        (void)UNIT_CHECK(rows[i].name, kms_x509_read(kms_span_of(rows[i].der, rows[i].len),
                                                     &x509) == KMS_E_BAD_DATA);
    }
}

int main(void)
{
    static const struct unit_test tests[] = {{"good", good}, {"bad", bad}, {"lengths", lengths}};

    return unit_main("test_x509", tests, UNIT_COUNT(tests));
}
