/* SPDX-License-Identifier: Apache-2.0 */
/* Searching, and attributes. */
#include "tests/module/module.h"

/* ---- searching ------------------------------------------------------------------------------- */

static void find(void)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ULONG odd = 1;
    CK_ATTRIBUTE by_class = {CKA_CLASS, &class, sizeof(class)};
    CK_ATTRIBUTE by_label = {CKA_LABEL, bytes_of("rsa"), 3};
    CK_ATTRIBUTE by_id = {CKA_ID, bytes_of("ec"), 2};
    CK_ATTRIBUTE both[] = {by_class, by_id};
    CK_ATTRIBUTE nobody = {CKA_LABEL, bytes_of("nobody"), 6};
    CK_ATTRIBUTE unknown[] = {by_label, {0x8abcdef0, &odd, sizeof(odd)}};
    CK_OBJECT_HANDLE a = 0;
    CK_OBJECT_HANDLE b = 0;
    CK_SESSION_HANDLE s = 0;

    module_start();
    s = module_open_logged_in(0);
    (void)UNIT_CHECK("all", module_find(s, NULL, 0, &a) >= 6);
    (void)UNIT_CHECK("class", module_find(s, &by_class, 1, &a) == 2);
    (void)UNIT_CHECK("label", module_find(s, &by_label, 1, &a) == 2);
    (void)UNIT_CHECK("id", module_find(s, &by_id, 1, &a) == 2);
    (void)UNIT_CHECK("class and id", module_find(s, both, 2, &a) == 1);
    (void)UNIT_CHECK("nobody", module_find(s, &nobody, 1, &b) == 0);
    (void)UNIT_CHECK("unknown attribute", module_find(s, unknown, 2, &b) == 0);
    (void)UNIT_CHECK("again", module_find(s, both, 2, &b) == 1 && a == b);
    module_stop();
}

static void find_states(void)
{
    CK_SESSION_HANDLE s = 0;
    CK_SESSION_HANDLE t = 0;
    CK_OBJECT_HANDLE found[64];
    CK_OBJECT_HANDLE mine = 0;
    CK_ULONG total = 0;
    CK_ULONG count = 9;

    module_start();
    s = module_open_logged_in(0);
    t = module_open(0);
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_FindObjects(s, found, 1, &count));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_FindObjectsFinal(s));
    total = module_find(s, NULL, 0, &mine);
    OK(m.f->C_FindObjectsInit(s, NULL, 0));
    GIVES(CKR_OPERATION_ACTIVE, m.f->C_FindObjectsInit(s, NULL, 0));
    mine = module_session_aes(s); /* later than the search: not in it; nor does it disturb it */
    (void)UNIT_CHECK("another session searches", module_find(t, NULL, 0, found) == total + 1);
    for (CK_ULONG i = 0; i < total; i++) {
        OK(m.f->C_FindObjects(s, found, 1, &count));
        (void)UNIT_CHECK("one", count == 1 && found[0] != mine);
    }
    OK(m.f->C_FindObjects(s, found, 64, &count));
    (void)UNIT_CHECK("none is left", count == 0);
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_FindObjects(s, found, 64, NULL));
    OK(m.f->C_FindObjectsFinal(s));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, m.f->C_FindObjectsFinal(s));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_FindObjectsInit(s, NULL, 1));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_FindObjectsInit(0, NULL, 0));
    module_stop();
}

/* ---- reading --------------------------------------------------------------------------------- */

#define COMMON                                                                                     \
    CKA_CLASS, CKA_TOKEN, CKA_PRIVATE, CKA_MODIFIABLE, CKA_LABEL, CKA_COPYABLE, CKA_DESTROYABLE
#define KEY                                                                                        \
    CKA_KEY_TYPE, CKA_ID, CKA_START_DATE, CKA_END_DATE, CKA_DERIVE, CKA_LOCAL, CKA_KEY_GEN_MECHANISM
#define HIDDEN                                                                                     \
    CKA_SENSITIVE, CKA_ALWAYS_SENSITIVE, CKA_EXTRACTABLE, CKA_NEVER_EXTRACTABLE,                   \
        CKA_WRAP_WITH_TRUSTED
#define OURS CKA_UNIQUE_ID, CKA_KMSBRIDGE_KEY_ID, CKA_KMSBRIDGE_VERSION, CKA_KMSBRIDGE_NAME

static const CK_ATTRIBUTE_TYPE of_secret[] = {COMMON,      KEY,           HIDDEN,     CKA_ENCRYPT,
                                              CKA_DECRYPT, CKA_WRAP,      CKA_UNWRAP, CKA_SIGN,
                                              CKA_VERIFY,  CKA_VALUE_LEN, CKA_TRUSTED};
static const CK_ATTRIBUTE_TYPE of_private[] = {COMMON,
                                               KEY,
                                               HIDDEN,
                                               CKA_SUBJECT,
                                               CKA_DECRYPT,
                                               CKA_SIGN,
                                               CKA_UNWRAP,
                                               CKA_SIGN_RECOVER,
                                               CKA_ALWAYS_AUTHENTICATE};
static const CK_ATTRIBUTE_TYPE of_public[] = {
    COMMON, KEY, CKA_SUBJECT, CKA_VERIFY, CKA_ENCRYPT, CKA_WRAP, CKA_VERIFY_RECOVER, CKA_TRUSTED};
static const CK_ATTRIBUTE_TYPE of_rsa[] = {CKA_MODULUS, CKA_PUBLIC_EXPONENT};
static const CK_ATTRIBUTE_TYPE of_ec[] = {CKA_EC_PARAMS};
static const CK_ATTRIBUTE_TYPE ours[] = {OURS};
static const CK_ATTRIBUTE_TYPE ours_private[] = {OURS, CKA_ALLOWED_MECHANISMS, CKA_PUBLIC_KEY_INFO};
static const CK_ATTRIBUTE_TYPE ours_rsa[] = {CKA_MODULUS, CKA_MODULUS_BITS, CKA_PUBLIC_EXPONENT};
static const CK_ATTRIBUTE_TYPE ours_ec[] = {CKA_EC_PARAMS, CKA_EC_POINT};

static void has_all(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, const CK_ATTRIBUTE_TYPE *types,
                    size_t count)
{
    for (size_t i = 0; i < count; i++) {
        CK_ATTRIBUTE one = {types[i], NULL, 0};
        CK_BYTE value[4096];
        char name[64];

        (void)snprintf(name, sizeof(name), "attribute 0x%lx", types[i]);
        (void)UNIT_CHECK(name, m.f->C_GetAttributeValue(s, object, &one, 1) == CKR_OK &&
                                   one.ulValueLen <= sizeof(value));
        one.pValue = value;
        (void)UNIT_CHECK(name, m.f->C_GetAttributeValue(s, object, &one, 1) == CKR_OK);
    }
}
#define HAS_ALL(object, list) has_all(s, object, list, UNIT_COUNT(list))

static void always_given(void)
{
    CK_SESSION_HANDLE s = 0;

    module_start();
    s = module_open_logged_in(0);
    HAS_ALL(module_key(s, CKO_SECRET_KEY, "aes"), of_secret);
    HAS_ALL(module_key(s, CKO_PRIVATE_KEY, "rsa"), of_private);
    HAS_ALL(module_key(s, CKO_PRIVATE_KEY, "rsa"), of_rsa);
    HAS_ALL(module_key(s, CKO_PUBLIC_KEY, "rsa"), of_public);
    HAS_ALL(module_key(s, CKO_PUBLIC_KEY, "rsa"), of_rsa);
    HAS_ALL(module_key(s, CKO_PRIVATE_KEY, "ec"), of_private);
    HAS_ALL(module_key(s, CKO_PRIVATE_KEY, "ec"), of_ec);
    HAS_ALL(module_key(s, CKO_PUBLIC_KEY, "ec"), of_ec);
    if (m.ours) {
        HAS_ALL(module_key(s, CKO_SECRET_KEY, "aes"), ours);
        HAS_ALL(module_key(s, CKO_PRIVATE_KEY, "rsa"), ours_private);
        HAS_ALL(module_key(s, CKO_PRIVATE_KEY, "rsa"), ours_rsa);
        HAS_ALL(module_key(s, CKO_PRIVATE_KEY, "ec"), ours_private);
        HAS_ALL(module_key(s, CKO_PRIVATE_KEY, "ec"), ours_ec);
        HAS_ALL(module_key(s, CKO_PUBLIC_KEY, "ec"), ours_ec);
        HAS_ALL(module_key(s, CKO_PUBLIC_KEY, "ec"), ours);
    }
    module_stop();
}

static bool flag(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type)
{
    CK_BBOOL value = 7;
    CK_ATTRIBUTE one = {type, &value, sizeof(value)};

    OK(m.f->C_GetAttributeValue(s, object, &one, 1));
    return value == CK_TRUE;
}

static void truths(void)
{
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE key = 0;

    module_start();
    s = module_open_logged_in(0);
    key = module_key(s, CKO_PRIVATE_KEY, "rsa");
    (void)UNIT_CHECK("token", flag(s, key, CKA_TOKEN));
    (void)UNIT_CHECK("private", flag(s, key, CKA_PRIVATE));
    (void)UNIT_CHECK("sensitive", flag(s, key, CKA_SENSITIVE));
    (void)UNIT_CHECK("extractable", !flag(s, key, CKA_EXTRACTABLE));
    (void)UNIT_CHECK("never", flag(s, key, CKA_NEVER_EXTRACTABLE));
    (void)UNIT_CHECK("local", flag(s, key, CKA_LOCAL));
    (void)UNIT_CHECK("sign", flag(s, key, CKA_SIGN));
    (void)UNIT_CHECK("again", !flag(s, key, CKA_ALWAYS_AUTHENTICATE));
    key = module_key(s, CKO_SECRET_KEY, "mac");
    (void)UNIT_CHECK("mac signs", flag(s, key, CKA_SIGN) && !flag(s, key, CKA_ENCRYPT));
    key = module_key(s, CKO_PUBLIC_KEY, "ec");
    (void)UNIT_CHECK("ec verifies", flag(s, key, CKA_VERIFY) && !flag(s, key, CKA_ENCRYPT));
    (void)UNIT_CHECK("public", !flag(s, key, CKA_PRIVATE));
    module_stop();
}

/* Every attribute is answered, whatever the others came to (5.7.5). */
static void mixed(void)
{
    CK_BYTE exponent[8];
    CK_BYTE small[1];
    CK_ULONG type = 99;
    CK_ATTRIBUTE tmpl[] = {
        {CKA_PRIVATE_EXPONENT, NULL, 0},
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_VALUE_LEN, NULL, 0}, /* no attribute of a private key */
        {CKA_MODULUS, small, sizeof(small)},
        {CKA_PUBLIC_EXPONENT, exponent, sizeof(exponent)},
    };
    CK_ATTRIBUTE sensitive = {CKA_PRIVATE_EXPONENT, NULL, 0};
    CK_ATTRIBUTE missing = {CKA_VALUE_LEN, NULL, 0};
    CK_ATTRIBUTE too_small = {CKA_MODULUS, small, sizeof(small)};
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE key = 0;

    module_start();
    s = module_open_logged_in(0);
    key = module_key(s, CKO_PRIVATE_KEY, "rsa");
    (void)UNIT_CHECK("some error", m.f->C_GetAttributeValue(s, key, tmpl, 5) != CKR_OK);
    (void)UNIT_CHECK("sensitive", tmpl[0].ulValueLen == CK_UNAVAILABLE_INFORMATION);
    (void)UNIT_CHECK("given", type == CKK_RSA);
    (void)UNIT_CHECK("missing", tmpl[2].ulValueLen == CK_UNAVAILABLE_INFORMATION);
    (void)UNIT_CHECK("too small", tmpl[3].ulValueLen == CK_UNAVAILABLE_INFORMATION);
    (void)UNIT_CHECK("the last", tmpl[4].ulValueLen == 3 && exponent[0] == 1);
    GIVES(CKR_ATTRIBUTE_SENSITIVE, m.f->C_GetAttributeValue(s, key, &sensitive, 1));
    GIVES(CKR_ATTRIBUTE_TYPE_INVALID, m.f->C_GetAttributeValue(s, key, &missing, 1));
    GIVES(CKR_BUFFER_TOO_SMALL, m.f->C_GetAttributeValue(s, key, &too_small, 1));
    GIVES(CKR_OBJECT_HANDLE_INVALID, m.f->C_GetAttributeValue(s, 999999999, &missing, 1));
    GIVES(CKR_SESSION_HANDLE_INVALID, m.f->C_GetAttributeValue(0, key, &missing, 1));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GetAttributeValue(s, key, NULL, 1));
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_GetObjectSize(s, key, NULL));
    module_stop();
}

static CK_ULONG value_of(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                         CK_BYTE *ret, CK_ULONG size)
{
    CK_ATTRIBUTE one = {type, ret, size};

    return OK(m.f->C_GetAttributeValue(s, object, &one, 1)) ? one.ulValueLen : 0;
}

/* What hosts rely upon to find one half by the other. */
static void pairs(void)
{
    CK_BYTE a[1024];
    CK_BYTE b[1024];
    CK_ULONG la = 0;
    CK_ULONG lb = 0;
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE private = 0;
    CK_OBJECT_HANDLE public = 0;

    module_start();
    s = module_open_logged_in(0);
    private = module_key(s, CKO_PRIVATE_KEY, "rsa");
    public = module_key(s, CKO_PUBLIC_KEY, "rsa");
    la = value_of(s, private, CKA_ID, BYTES(a));
    lb = value_of(s, public, CKA_ID, BYTES(b));
    (void)UNIT_CHECK("id", la == lb && la > 0 && la <= 32 && memcmp(a, b, la) == 0);
    la = value_of(s, private, CKA_MODULUS, BYTES(a));
    lb = value_of(s, public, CKA_MODULUS, BYTES(b));
    (void)UNIT_CHECK("modulus", la == lb && la == 256 && memcmp(a, b, la) == 0);
    public = module_key(s, CKO_PUBLIC_KEY, "ec");
    la = value_of(s, public, CKA_EC_POINT, BYTES(a));
    /* DER OCTET STRING of an uncompressed point of P-256 */
    (void)UNIT_CHECK("point", la == 67 && a[0] == 4 && a[1] == 65 && a[2] == 4);
    if (m.ours) {
        private = module_key(s, CKO_PRIVATE_KEY, "ec");
        lb = value_of(s, private, CKA_EC_POINT, BYTES(b));
        (void)UNIT_CHECK("the same", la == lb && memcmp(a, b, la) == 0);
        la = value_of(s, private, CKA_UNIQUE_ID, BYTES(a));
        lb = value_of(s, public, CKA_UNIQUE_ID, BYTES(b));
        (void)UNIT_CHECK("unique", la > 0 && lb > 0 && (la != lb || memcmp(a, b, la) != 0));
        lb = value_of(s, public, CKA_KMSBRIDGE_NAME, BYTES(b));
        (void)UNIT_CHECK("the key's name", la == lb && memcmp(a, b, la) == 0);
        lb = value_of(s, private, CKA_KMSBRIDGE_NAME, BYTES(b));
        (void)UNIT_CHECK("both halves' name", la == lb && memcmp(a, b, la) == 0);
    }
    module_stop();
}

/* ---- changing -------------------------------------------------------------------------------- */

static void change_session_object(void)
{
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ULONG number = 1;
    CK_BYTE value[64];
    CK_ATTRIBUTE label = {CKA_LABEL, bytes_of("new"), 3};
    CK_ATTRIBUTE sensitive = {CKA_SENSITIVE, &yes, 1};
    CK_ATTRIBUTE open = {CKA_SENSITIVE, &no, 1};
    CK_ATTRIBUTE class = {CKA_CLASS, &number, sizeof(number)};
    CK_ATTRIBUTE unknown = {0x8abcdef0, &number, sizeof(number)};
    CK_ATTRIBUTE read = {CKA_VALUE, value, sizeof(value)};
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE key = 0;
    CK_OBJECT_HANDLE found = 0;

    module_start();
    s = module_open_logged_in(0);
    key = module_session_aes(s);
    OK(m.f->C_GetAttributeValue(s, key, &read, 1));
    (void)UNIT_CHECK("value", read.ulValueLen == 32);
    OK(m.f->C_SetAttributeValue(s, key, &label, 1));
    (void)UNIT_CHECK("found by it", module_find(s, &label, 1, &found) == 1 && found == key);
    OK(m.f->C_SetAttributeValue(s, key, &sensitive, 1));
    read.ulValueLen = sizeof(value);
    GIVES(CKR_ATTRIBUTE_SENSITIVE, m.f->C_GetAttributeValue(s, key, &read, 1));
    (void)UNIT_CHECK("never back", m.f->C_SetAttributeValue(s, key, &open, 1) != CKR_OK);
    (void)UNIT_CHECK("class", m.f->C_SetAttributeValue(s, key, &class, 1) != CKR_OK);
    (void)UNIT_CHECK("unknown", m.f->C_SetAttributeValue(s, key, &unknown, 1) != CKR_OK);
    GIVES(CKR_ARGUMENTS_BAD, m.f->C_SetAttributeValue(s, key, NULL, 1));
    GIVES(CKR_OBJECT_HANDLE_INVALID, m.f->C_SetAttributeValue(s, 999999999, &label, 1));
    module_stop();
}

static void change_token_key(void)
{
    CK_BBOOL no = CK_FALSE;
    CK_ATTRIBUTE label = {CKA_LABEL, bytes_of("renamed"), 7};
    CK_ATTRIBUTE back = {CKA_LABEL, bytes_of("mac"), 3};
    CK_ATTRIBUTE nul = {CKA_LABEL, bytes_of("a\0b"), 3};
    CK_ATTRIBUTE sign = {CKA_SIGN, &no, 1};
    CK_SESSION_HANDLE s = 0;
    CK_SESSION_HANDLE reader = 0;
    CK_OBJECT_HANDLE key = 0;
    CK_OBJECT_HANDLE found = 0;

    module_start();
    s = module_open_logged_in(CKF_RW_SESSION);
    reader = module_open(0);
    key = module_key(s, CKO_SECRET_KEY, "mac");
    GIVES(CKR_SESSION_READ_ONLY, m.f->C_SetAttributeValue(reader, key, &label, 1));
    OK(m.f->C_SetAttributeValue(s, key, &label, 1));
    (void)UNIT_CHECK("found", module_find(s, &label, 1, &found) == 1 && found == key);
    (void)UNIT_CHECK("not there", module_find(s, &back, 1, &found) == 0);
    OK(m.f->C_SetAttributeValue(s, key, &back, 1));
    (void)UNIT_CHECK("back", module_find(s, &back, 1, &found) == 1 && found == key);
    if (m.ours) {
        GIVES(CKR_ATTRIBUTE_VALUE_INVALID, m.f->C_SetAttributeValue(s, key, &nul, 1));
        GIVES(CKR_ATTRIBUTE_READ_ONLY, m.f->C_SetAttributeValue(s, key, &sign, 1));
    }
    module_stop();
}

const struct module_test module_object_tests[] = {
    {"find", find, NULL},
    {"find-states", find_states, NULL},
    {"always-given", always_given, NULL},
    {"truths", truths, NULL},
    {"mixed-attributes", mixed, NULL},
    {"pairs", pairs, NULL},
    {"change-session-object", change_session_object, NULL},
    {"change-token-key", change_token_key, NULL},
    {NULL, NULL, NULL},
};
