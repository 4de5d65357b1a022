/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/init_args.h"

#include <string.h>
#include <sys/stat.h>

#include "pkcs11/core/schema.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

static struct kms_init_args got;

static CK_RV read_text(const char *text)
{
    char copy[2 * KMS_INIT_ARGS_MAX];
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK, .pReserved = copy};

    (void)snprintf(copy, sizeof(copy), "%s", text);
    return kms_init_args_read(&args, &got);
}

static void reserved(void)
{
    static const struct {
        const char *text;
        CK_RV want;
        const char *agent, *config, *log;
    } rows[] = {
        {"", CKR_OK, "", "", ""},
        {"  \t", CKR_OK, "", "", ""},
        {"agent=/a", CKR_OK, "/a", "", ""},
        {" agent=/a  config=/c\nlog=file:/l,debug ", CKR_OK, "/a", "/c", "file:/l,debug"},
        {"agent='/a b' config=\"/c d\"", CKR_OK, "/a b", "/c d", ""},
        {"agent=/a agent=/b", CKR_OK, "/b", "", ""},
        {"agent=", CKR_ARGUMENTS_BAD, "", "", ""},
        {"agent='/a", CKR_ARGUMENTS_BAD, "", "", ""},
        {"agent='/a'x", CKR_ARGUMENTS_BAD, "", "", ""},
        {"agent=''", CKR_ARGUMENTS_BAD, "", "", ""},
        {"colour=red", CKR_ARGUMENTS_BAD, "", "", ""},
        {"/etc/x", CKR_ARGUMENTS_BAD, "", "", ""},
        {"agent=/a,config=/b", CKR_OK, "/a,config=/b", "", ""},
    };
    static char longest[KMS_INIT_ARGS_MAX + 10];

    (void)unsetenv("KMSBRIDGE_AGENT");
    (void)unsetenv("KMSBRIDGE_CONFIG");
    (void)unsetenv("HOME");
    (void)unsetenv("XDG_CONFIG_HOME");
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        (void)UNIT_CHECK(rows[i].text, read_text(rows[i].text) == rows[i].want);
        if (rows[i].want == CKR_OK) {
            (void)UNIT_CHECK(rows[i].text, strcmp(got.agent, rows[i].agent) == 0);
            (void)UNIT_CHECK(rows[i].text, strcmp(got.config, rows[i].config) == 0);
            (void)UNIT_CHECK(rows[i].text, strcmp(got.log, rows[i].log) == 0);
        }
    }
    memset(longest, ' ', sizeof(longest) - 1);
    (void)UNIT_CHECK("too long", read_text(longest) == CKR_ARGUMENTS_BAD);
}

static void environment(void)
{
    const char *home = scratch_path("");
    char dir[512];
    char file[600];

    (void)setenv("KMSBRIDGE_AGENT", "/e/agent", 1);
    (void)setenv("KMSBRIDGE_CONFIG", "/e/config", 1);
    (void)UNIT_CHECK("read", kms_init_args_read(NULL, &got) == CKR_OK);
    (void)UNIT_CHECK("agent", strcmp(got.agent, "/e/agent") == 0);
    (void)UNIT_CHECK("config", strcmp(got.config, "/e/config") == 0);
    (void)UNIT_CHECK("host", read_text("agent=/h") == CKR_OK && strcmp(got.agent, "/h") == 0);
    (void)setenv("KMSBRIDGE_AGENT", "relative", 1);
    (void)UNIT_CHECK("read", kms_init_args_read(NULL, &got) == CKR_OK && got.agent[0] == '\0');
    (void)unsetenv("KMSBRIDGE_AGENT");
    (void)unsetenv("KMSBRIDGE_CONFIG");

    /* the user's own configuration, where it is */
    (void)setenv("XDG_CONFIG_HOME", home, 1);
    (void)UNIT_CHECK("none", kms_init_args_read(NULL, &got) == CKR_OK && got.config[0] == '\0');
    (void)snprintf(dir, sizeof(dir), "%s/kmsbridge", home);
    (void)snprintf(file, sizeof(file), "%s/kmsbridge.yaml", dir);
    if (UNIT_CHECK("made", mkdir(dir, 0700) == 0)) {
        FILE *made = fopen(file, "w");

        if (made != NULL) {
            (void)fclose(made);
        }
        (void)UNIT_CHECK("found",
                         kms_init_args_read(NULL, &got) == CKR_OK && strcmp(got.config, file) == 0);
        (void)UNIT_CHECK("an agent is named",
                         read_text("agent=/h") == CKR_OK && got.config[0] == '\0');
        (void)remove(file);
        (void)remove(dir);
    }
}

/* The table is looked up by halving. */
static void schema(void)
{
    static const CK_ATTRIBUTE_TYPE some[] = {
        CKA_CLASS,
        CKA_UNIQUE_ID,
        CKA_VALUE,
        CKA_ID,
        CKA_MODULUS,
        CKA_EC_POINT,
        CKA_ALWAYS_AUTHENTICATE,
        CKA_ALLOWED_MECHANISMS,
        CKA_KMSBRIDGE_KEY_ID,
        CKA_KMSBRIDGE_VERSION,
        CKA_KMSBRIDGE_NAME,
        CKA_COEFFICIENT,
        CKA_PUBLIC_KEY_INFO,
        CKA_CHECK_VALUE,
    };

    for (size_t i = 0; i < UNIT_COUNT(some); i++) {
        const struct kms_attr_row *row = kms_schema_find(some[i]);

        (void)UNIT_CHECK("found", row != NULL && row->type == some[i]);
    }
    (void)UNIT_CHECK("unknown", kms_schema_find(0x12345678) == NULL);
    (void)UNIT_CHECK("secret", kms_schema_is_secret(kms_schema_find(CKA_VALUE), CKO_SECRET_KEY));
    (void)UNIT_CHECK("no secret",
                     !kms_schema_is_secret(kms_schema_find(CKA_VALUE), CKO_CERTIFICATE));
    (void)UNIT_CHECK("of keys", !kms_schema_has(kms_schema_find(CKA_SENSITIVE), CKO_PUBLIC_KEY));
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"reserved", reserved}, {"environment", environment}, {"schema", schema}};
    int result = EXIT_FAILURE;

    scratch_init();
    result = unit_main("test_init_args", tests, UNIT_COUNT(tests));
    scratch_done();
    return result;
}
