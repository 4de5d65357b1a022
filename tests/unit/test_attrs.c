/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/attrs.h"

#include <string.h>

#include "tests/unit/fail_alloc.h"
#include "tests/unit/fake_p11_log.h"
#include "tests/unit/unit.h"

static struct kms_attrs *fresh(void)
{
    struct kms_attrs *attrs = kms_attrs_new();

    if (attrs == NULL) {
        exit(EXIT_FAILURE);
    }
    return attrs;
}

static bool holds(const struct kms_attrs *attrs, CK_ATTRIBUTE_TYPE type, const char *text)
{
    struct kms_span value;

    return kms_attrs_get(attrs, type, &value) && kms_span_equal(value, kms_span_str(text));
}

static void set_and_get(void)
{
    struct kms_attrs *attrs = fresh();
    struct kms_span value;

    CU_ASSERT_EQUAL(kms_attrs_count(attrs), 0);
    CU_ASSERT_FALSE(kms_attrs_get(attrs, CKA_LABEL, &value));
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_VALUE, "secret", 6), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_LABEL, "label", 5), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_ID, NULL, 0), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_set_bool(attrs, CKA_TOKEN, true), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_set_ulong(attrs, CKA_CLASS, CKO_SECRET_KEY), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_count(attrs), 5);
    CU_ASSERT_TRUE(holds(attrs, CKA_VALUE, "secret"));
    CU_ASSERT_TRUE(holds(attrs, CKA_LABEL, "label"));
    CU_ASSERT_TRUE(holds(attrs, CKA_ID, ""));
    CU_ASSERT_TRUE(kms_attrs_bool(attrs, CKA_TOKEN, false));
    CU_ASSERT_TRUE(kms_attrs_bool(attrs, CKA_PRIVATE, true));
    CU_ASSERT_TRUE(kms_attrs_bool(attrs, CKA_LABEL, true)); /* of another size */
    CU_ASSERT_EQUAL(kms_attrs_ulong(attrs, CKA_CLASS, 99), CKO_SECRET_KEY);
    CU_ASSERT_EQUAL(kms_attrs_ulong(attrs, CKA_LABEL, 99), 99);
    CU_ASSERT_EQUAL(kms_attrs_ulong(attrs, CKA_KEY_TYPE, 99), 99);
    /* in order */
    CU_ASSERT_EQUAL(kms_attrs_at(attrs, 0, &value), CKA_CLASS);
    CU_ASSERT_EQUAL(kms_attrs_at(attrs, 1, &value), CKA_TOKEN);
    CU_ASSERT_EQUAL(kms_attrs_at(attrs, 4, &value), CKA_ID);
    CU_ASSERT_EQUAL(value.len, 0);
    CU_ASSERT_EQUAL(kms_attrs_at(attrs, 5, &value), CK_UNAVAILABLE_INFORMATION);
    kms_attrs_remove(attrs, CKA_LABEL);
    kms_attrs_remove(attrs, CKA_SUBJECT);
    CU_ASSERT_EQUAL(kms_attrs_count(attrs), 4);
    CU_ASSERT_FALSE(kms_attrs_get(attrs, CKA_LABEL, &value));
    CU_ASSERT_TRUE(holds(attrs, CKA_VALUE, "secret"));
    kms_attrs_free(attrs);
    kms_attrs_free(NULL);
}

/* Shorter, longer, out of its own bytes; and what is around it stays. */
static void replace(void)
{
    struct kms_attrs *attrs = fresh();
    char text[1000];
    struct kms_span value;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_LABEL, "first", 5), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_ID, "beside", 6), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_LABEL, "a", 1), CKR_OK);
    CU_ASSERT_TRUE(holds(attrs, CKA_LABEL, "a"));
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_LABEL, "12345678", 8), CKR_OK);
    CU_ASSERT_TRUE(holds(attrs, CKA_LABEL, "12345678"));
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_LABEL, text, strlen(text)), CKR_OK);
    CU_ASSERT_TRUE(holds(attrs, CKA_LABEL, text));
    CU_ASSERT_TRUE(holds(attrs, CKA_ID, "beside"));
    CU_ASSERT_TRUE(kms_attrs_get(attrs, CKA_LABEL, &value));
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_SUBJECT, value.data, value.len), CKR_OK);
    CU_ASSERT_TRUE(holds(attrs, CKA_SUBJECT, text));
    CU_ASSERT_TRUE(kms_attrs_get(attrs, CKA_LABEL, &value));
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_LABEL, value.data + 990, 5), CKR_OK);
    CU_ASSERT_TRUE(holds(attrs, CKA_LABEL, "xxxxx"));
    CU_ASSERT_EQUAL(kms_attrs_count(attrs), 3);
    kms_attrs_free(attrs);
}

static void bounds(void)
{
    static uint8_t long_value[KMS_ATTR_VALUE_MAX + 1];
    struct kms_attrs *attrs = fresh();
    struct kms_attrs *copy = NULL;

    CU_ASSERT_EQUAL(kms_attrs_set(attrs, 1, long_value, sizeof(long_value)),
                    CKR_ATTRIBUTE_VALUE_INVALID);
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, 1, NULL, 1), CKR_ATTRIBUTE_VALUE_INVALID);
    CU_ASSERT_EQUAL(kms_attrs_count(attrs), 0);
    for (size_t i = 0; i < KMS_ATTRS_MAX; i++) { /* from behind, so that each is put in front */
        CU_ASSERT_EQUAL(kms_attrs_set(attrs, KMS_ATTRS_MAX - i, long_value, 600), CKR_OK);
    }
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, 0, "a", 1), CKR_ATTRIBUTE_VALUE_INVALID);
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, 1, long_value, KMS_ATTR_VALUE_MAX), CKR_OK);
    copy = kms_attrs_copy(attrs);
    CU_ASSERT_PTR_NOT_NULL_FATAL(copy);
    kms_attrs_free(attrs);
    CU_ASSERT_EQUAL(kms_attrs_count(copy), KMS_ATTRS_MAX);
    kms_attrs_free(copy);
}

static void matching(void)
{
    struct kms_attrs *attrs = fresh();
    struct kms_attrs *tmpl = fresh();

    CU_ASSERT_TRUE(kms_attrs_match(attrs, tmpl));
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_LABEL, "label", 5), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_set(attrs, CKA_ID, "id", 2), CKR_OK);
    CU_ASSERT_TRUE(kms_attrs_match(attrs, tmpl));
    CU_ASSERT_EQUAL(kms_attrs_set(tmpl, CKA_ID, "id", 2), CKR_OK);
    CU_ASSERT_TRUE(kms_attrs_match(attrs, tmpl));
    CU_ASSERT_FALSE(kms_attrs_match(tmpl, attrs));
    CU_ASSERT_EQUAL(kms_attrs_set(tmpl, CKA_LABEL, "labex", 5), CKR_OK);
    CU_ASSERT_FALSE(kms_attrs_match(attrs, tmpl));
    CU_ASSERT_EQUAL(kms_attrs_set(tmpl, CKA_LABEL, "labe", 4), CKR_OK);
    CU_ASSERT_FALSE(kms_attrs_match(attrs, tmpl));
    kms_attrs_free(attrs);
    kms_attrs_free(tmpl);
}

static void templates(void)
{
    static CK_BBOOL yes = CK_TRUE;
    static CK_BBOOL no = CK_FALSE;
    static uint8_t odd = 2;
    static CK_ULONG number = 16;
    static CK_MECHANISM_TYPE mechanisms[2] = {CKM_AES_GCM, CKM_AES_CBC};
    static uint8_t date[8] = "20260101";
    static uint8_t longest[KMS_ATTR_VALUE_MAX];
    static CK_ATTRIBUTE inner = {CKA_LABEL, longest, 1};
    static const struct {
        const char *name;
        CK_ATTRIBUTE tmpl[3];
        CK_ULONG count;
        CK_RV rv;
        const char *log;
    } rows[] = {
        {"nothing", {{0, NULL, 0}}, 0, CKR_OK, NULL},
        {"two", {{CKA_TOKEN, &yes, 1}, {CKA_VALUE_LEN, &number, sizeof(number)}}, 2, CKR_OK, NULL},
        {"empty value", {{CKA_LABEL, NULL, 0}}, 1, CKR_OK, NULL},
        {"longest", {{CKA_LABEL, longest, sizeof(longest)}}, 1, CKR_OK, NULL},
        {"too long",
         {{CKA_LABEL, longest, sizeof(longest) + 1}},
         1,
         CKR_ATTRIBUTE_VALUE_INVALID,
         "CKA_LABEL"},
        {"unavailable",
         {{CKA_LABEL, longest, CK_UNAVAILABLE_INFORMATION}},
         1,
         CKR_ATTRIBUTE_VALUE_INVALID,
         "CKA_LABEL"},
        {"length without value", {{CKA_ID, NULL, 1}}, 1, CKR_ATTRIBUTE_VALUE_INVALID, "CKA_ID"},
        {"false", {{CKA_SIGN, &no, 1}}, 1, CKR_OK, NULL},
        {"empty bool", {{CKA_SIGN, NULL, 0}}, 1, CKR_ATTRIBUTE_VALUE_INVALID, "CKA_SIGN"},
        {"long bool", {{CKA_SIGN, &number, 8}}, 1, CKR_ATTRIBUTE_VALUE_INVALID, "CKA_SIGN"},
        {"bool of 2", {{CKA_SIGN, &odd, 1}}, 1, CKR_ATTRIBUTE_VALUE_INVALID, "CKA_SIGN"},
        {"short number",
         {{CKA_KEY_TYPE, &number, 4}},
         1,
         CKR_ATTRIBUTE_VALUE_INVALID,
         "CKA_KEY_TYPE"},
        {"date", {{CKA_START_DATE, date, 8}, {CKA_END_DATE, NULL, 0}}, 2, CKR_OK, NULL},
        {"half a date", {{CKA_END_DATE, date, 4}}, 1, CKR_ATTRIBUTE_VALUE_INVALID, "CKA_END_DATE"},
        {"mechanisms", {{CKA_ALLOWED_MECHANISMS, mechanisms, sizeof(mechanisms)}}, 1, CKR_OK, NULL},
        {"a mechanism and a half",
         {{CKA_ALLOWED_MECHANISMS, mechanisms, 12}},
         1,
         CKR_ATTRIBUTE_VALUE_INVALID,
         "CKA_ALLOWED_MECHANISMS"},
        {"empty nested", {{CKA_WRAP_TEMPLATE, NULL, 0}}, 1, CKR_OK, NULL},
        {"nested",
         {{CKA_WRAP_TEMPLATE, &inner, sizeof(inner)}},
         1,
         CKR_ATTRIBUTE_TYPE_INVALID,
         "CKA_WRAP_TEMPLATE"},
        {"unknown nested",
         {{CKF_ARRAY_ATTRIBUTE | 0x777, &inner, sizeof(inner)}},
         1,
         CKR_ATTRIBUTE_TYPE_INVALID,
         "0x40000777"},
        {"unknown", {{0x12345678, longest, 3}}, 1, CKR_OK, NULL},
        {"twice the same", {{CKA_SIGN, &yes, 1}, {CKA_SIGN, &yes, 1}}, 2, CKR_OK, NULL},
        {"twice, differently",
         {{CKA_SIGN, &yes, 1}, {CKA_TOKEN, &yes, 1}, {CKA_SIGN, &no, 1}},
         3,
         CKR_TEMPLATE_INCONSISTENT,
         "CKA_SIGN"},
        {"twice, shorter",
         {{CKA_LABEL, longest, 2}, {CKA_LABEL, longest, 1}},
         2,
         CKR_TEMPLATE_INCONSISTENT,
         "CKA_LABEL"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_attrs *attrs = NULL;
        CK_RV rv;

        fake_p11_log_clear();
        rv = kms_attrs_from_template(rows[i].tmpl, rows[i].count, &attrs);
        UNIT_CHECK(rows[i].name, rv == rows[i].rv);
        UNIT_CHECK(rows[i].name, (attrs != NULL) == (rv == CKR_OK));
        UNIT_CHECK(rows[i].name, rows[i].log == NULL || fake_p11_log_says(rows[i].log));
        kms_attrs_free(attrs);
    }
}

static void templates_as_a_whole(void)
{
    static CK_ATTRIBUTE many[KMS_ATTRS_MAX + 1];
    struct kms_attrs *attrs = NULL;

    CU_ASSERT_EQUAL(kms_attrs_from_template(NULL, 1, &attrs), CKR_ARGUMENTS_BAD);
    CU_ASSERT_EQUAL(kms_attrs_from_template(NULL, 0, &attrs), CKR_OK);
    kms_attrs_free(attrs);
    attrs = NULL;
    for (size_t i = 0; i < UNIT_COUNT(many); i++) {
        many[i].type = 0x80000000UL + i;
    }
    CU_ASSERT_EQUAL(kms_attrs_from_template(many, KMS_ATTRS_MAX + 1, &attrs), CKR_ARGUMENTS_BAD);
    CU_ASSERT_EQUAL(kms_attrs_from_template(many, (CK_ULONG)-1, &attrs), CKR_ARGUMENTS_BAD);
    CU_ASSERT_PTR_NULL(attrs);
    CU_ASSERT_EQUAL(kms_attrs_from_template(many, KMS_ATTRS_MAX, &attrs), CKR_OK);
    CU_ASSERT_EQUAL(kms_attrs_count(attrs), KMS_ATTRS_MAX);
    kms_attrs_free(attrs);
}

static void names(void)
{
    CU_ASSERT_STRING_EQUAL(kms_attr_name(CKA_EC_POINT), "CKA_EC_POINT");
    CU_ASSERT_PTR_NOT_NULL(kms_attr_name(0x7fffffff));
}

/* Every allocation fails once: an error, nothing lost, nothing changed. */
static void without_memory(void)
{
    static const CK_ATTRIBUTE tmpl[] = {{CKA_LABEL, (void *)(uintptr_t) "label", 5},
                                        {CKA_ID, (void *)(uintptr_t) "id", 2}};
    unsigned nth = 1;
    bool came = true;

    for (; came && nth < 100; nth++) {
        struct kms_attrs *attrs = NULL;
        struct kms_attrs *copy = NULL;
        CK_RV rv;

        fail_alloc_set(nth);
        rv = kms_attrs_from_template(tmpl, 2, &attrs);
        copy = rv == CKR_OK ? kms_attrs_copy(attrs) : NULL;
        came = fail_alloc_clear();
        CU_ASSERT_TRUE(rv == CKR_OK || rv == CKR_HOST_MEMORY);
        CU_ASSERT_TRUE(came || copy != NULL);
        CU_ASSERT_TRUE(!came || copy == NULL);
        kms_attrs_free(attrs);
        kms_attrs_free(copy);
    }
    CU_ASSERT_TRUE(nth > 4);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"set and get", set_and_get},
        {"replace", replace},
        {"bounds", bounds},
        {"matching", matching},
        {"templates", templates},
        {"templates as a whole", templates_as_a_whole},
        {"names", names},
        {"without memory", without_memory},
    };

    return unit_main("test_attrs", tests, UNIT_COUNT(tests));
}
