/* SPDX-License-Identifier: Apache-2.0 */
#include "common/numbers.h"

#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/unit.h"

#define UNTOUCHED 77u /* outputs are written on success only */

static void u64(void)
{
    static const struct {
        const char *text;
        uint64_t min;
        uint64_t max;
        enum kms_status status;
        uint64_t value;
    } rows[] = {
        {"0", 0, 9, KMS_OK, 0},
        {"9", 0, 9, KMS_OK, 9},
        {"0009", 0, 9, KMS_OK, 9},
        {"18446744073709551615", 0, UINT64_MAX, KMS_OK, UINT64_MAX},
        {"18446744073709551616", 0, UINT64_MAX, KMS_E_INVALID, UNTOUCHED},
        {"99999999999999999999999", 0, UINT64_MAX, KMS_E_INVALID, UNTOUCHED},
        {"10", 0, 9, KMS_E_INVALID, UNTOUCHED},
        {"1", 2, 9, KMS_E_INVALID, UNTOUCHED},
        {"", 0, 9, KMS_E_INVALID, UNTOUCHED},
        {"-1", 0, UINT64_MAX, KMS_E_INVALID, UNTOUCHED},
        {"+1", 0, 9, KMS_E_INVALID, UNTOUCHED},
        {" 1", 0, 9, KMS_E_INVALID, UNTOUCHED},
        {"1 ", 0, 9, KMS_E_INVALID, UNTOUCHED},
        {"1x", 0, 9, KMS_E_INVALID, UNTOUCHED},
        {"0x1", 0, 9, KMS_E_INVALID, UNTOUCHED},
        {"1.0", 0, 9, KMS_E_INVALID, UNTOUCHED},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        uint64_t value = UNTOUCHED;

        UNIT_CHECK(rows[i].text,
                   kms_parse_u64(rows[i].text, rows[i].min, rows[i].max, &value) == rows[i].status);
        UNIT_CHECK(rows[i].text, value == rows[i].value);
    }
}

static void duration(void)
{
    static const struct {
        const char *text;
        enum kms_status status;
        uint64_t ns;
    } rows[] = {
        {"0s", KMS_OK, 0},
        {"250ms", KMS_OK, 250 * KMS_NS_PER_MS},
        {"30s", KMS_OK, 30 * KMS_NS_PER_S},
        {"5m", KMS_OK, 300 * KMS_NS_PER_S},
        {"2h", KMS_OK, 7200 * KMS_NS_PER_S},
        {"90d", KMS_OK, UINT64_C(7776000) * KMS_NS_PER_S},
        {"18446744073s", KMS_OK, UINT64_C(18446744073) * KMS_NS_PER_S},
        {"18446744074s", KMS_E_INVALID, UNTOUCHED},
        {"30", KMS_E_INVALID, UNTOUCHED},
        {"s", KMS_E_INVALID, UNTOUCHED},
        {"", KMS_E_INVALID, UNTOUCHED},
        {"-1s", KMS_E_INVALID, UNTOUCHED},
        {"1.5s", KMS_E_INVALID, UNTOUCHED},
        {"1 s", KMS_E_INVALID, UNTOUCHED},
        {"1S", KMS_E_INVALID, UNTOUCHED},
        {"1us", KMS_E_INVALID, UNTOUCHED},
        {"1h30m", KMS_E_INVALID, UNTOUCHED},
        {"18446744073709551616ms", KMS_E_INVALID, UNTOUCHED},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        uint64_t ns = UNTOUCHED;

        UNIT_CHECK(rows[i].text, kms_parse_duration(rows[i].text, &ns) == rows[i].status);
        UNIT_CHECK(rows[i].text, ns == rows[i].ns);
    }
}

static void mode(void)
{
    static const struct {
        const char *text;
        enum kms_status status;
        mode_t mode;
    } rows[] = {
        {"0600", KMS_OK, 0600},
        {"600", KMS_OK, 0600},
        {"0", KMS_OK, 0},
        {"0777", KMS_OK, 0777},
        {"1777", KMS_E_INVALID, UNTOUCHED},
        {"0999", KMS_E_INVALID, UNTOUCHED},
        {"0o600", KMS_E_INVALID, UNTOUCHED},
        {"rw-------", KMS_E_INVALID, UNTOUCHED},
        {"", KMS_E_INVALID, UNTOUCHED},
        {"0600 ", KMS_E_INVALID, UNTOUCHED},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        mode_t value = UNTOUCHED;

        UNIT_CHECK(rows[i].text, kms_parse_mode(rows[i].text, &value) == rows[i].status);
        UNIT_CHECK(rows[i].text, value == rows[i].mode);
    }
}

static void user_and_group(void)
{
    static const struct {
        const char *text;
        enum kms_status status;
        id_t id;
    } rows[] = {
        {"root", KMS_OK, 0},
        {"0", KMS_OK, 0},
        {"65534", KMS_OK, 65534},
        {"4294967294", KMS_OK, 4294967294u},
        {"4294967295", KMS_E_INVALID, UNTOUCHED}, /* (uid_t)-1 */
        {"99999999999", KMS_E_INVALID, UNTOUCHED},
        {"0x0", KMS_E_INVALID, UNTOUCHED},
        {"", KMS_E_INVALID, UNTOUCHED},
        {"no-such-name-here", KMS_E_NOT_FOUND, UNTOUCHED},
        {"-1", KMS_E_NOT_FOUND, UNTOUCHED},
    };
    char longest[300];

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        uid_t uid = UNTOUCHED;
        gid_t gid = UNTOUCHED;

        UNIT_CHECK(rows[i].text, kms_parse_user(rows[i].text, &uid) == rows[i].status);
        UNIT_CHECK(rows[i].text, uid == rows[i].id);
        UNIT_CHECK(rows[i].text, kms_parse_group(rows[i].text, &gid) == rows[i].status);
        UNIT_CHECK(rows[i].text, gid == rows[i].id);
    }
    memset(longest, 'n', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    CU_ASSERT_EQUAL(kms_parse_user(longest, &(uid_t){0}), KMS_E_INVALID);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"u64", u64},
        {"duration", duration},
        {"mode", mode},
        {"user and group", user_and_group},
    };

    return unit_main("test_numbers", tests, UNIT_COUNT(tests));
}
