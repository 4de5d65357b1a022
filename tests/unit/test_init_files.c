/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/init_files.h"

#include <stdlib.h>
#include <string.h>

#include "common/secure.h"
#include "kmsbridge/conf.h"
#include "tests/unit/unit.h"

static void pins(void)
{
    static const struct {
        const char *name;
        size_t min, max, room;
        enum kms_status status;
        size_t len;
    } rows[] = {
        {"SoftHSM", 4, 255, 256, KMS_OK, 32},        {"short ones only", 4, 8, 256, KMS_OK, 8},
        {"long ones only", 40, 64, 256, KMS_OK, 40}, {"too short", 4, 7, 256, KMS_E_UNSUPPORTED, 0},
        {"none", 0, 0, 256, KMS_E_UNSUPPORTED, 0},   {"no room", 4, 255, 31, KMS_E_UNSUPPORTED, 0},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        uint8_t one_bytes[256], two_bytes[256];
        struct kms_buf one = kms_buf_over(one_bytes, rows[i].room);
        struct kms_buf two = kms_buf_over(two_bytes, rows[i].room);
        struct kms_error err = KMS_ERROR_INIT;

        UNIT_CHECK(rows[i].name,
                   kms_init_pin(rows[i].min, rows[i].max, &one, &err) == rows[i].status);
        UNIT_CHECK(rows[i].name,
                   kms_init_pin(rows[i].min, rows[i].max, &two, &err) == rows[i].status);
        UNIT_CHECK(rows[i].name, one.len == rows[i].len);
        for (size_t n = 0; n < one.len; n++) {
            UNIT_CHECK(rows[i].name,
                       strchr("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", one_bytes[n]) != NULL);
        }
        UNIT_CHECK(rows[i].name,
                   one.len == 0 || !kms_span_equal(kms_buf_span(&one), kms_buf_span(&two)));
    }
}

/* What was written is what the daemon reads, whatever characters the names have. */
static void check_yaml(const char *row, const struct kms_init_names *names)
{
    struct kms_conf *conf = NULL;
    struct kms_error err = KMS_ERROR_INIT;
    const struct kms_hsm_conf *hsm;
    char *text = NULL;

    UNIT_CHECK(row, kms_init_yaml(names, &text, &err) == KMS_OK);
    if (!UNIT_CHECK(row, kms_conf_read_text("x", text, strlen(text), &conf, &err) == KMS_OK)) {
        fprintf(stderr, "%s: %s\n", row, err.text);
        free(text);
        return;
    }
    hsm = conf->backends[0].hsm;
    UNIT_CHECK(row, strcmp(hsm->module, names->module) == 0);
    UNIT_CHECK(row, strcmp(hsm->token, names->token) == 0);
    UNIT_CHECK(row, strncmp(hsm->pin, "file:", 5) == 0);
    UNIT_CHECK(row, strcmp(hsm->pin + 5, names->pin_path) == 0);
    UNIT_CHECK(row, strcmp(conf->kms.key, names->key) == 0);
    UNIT_CHECK(row, strcmp(conf->kms.socket, names->socket) == 0);
    UNIT_CHECK(row, (conf->monitor_listen == NULL) == (names->monitor == NULL));
    UNIT_CHECK(row, names->monitor == NULL || conf->monitor_listen == NULL ||
                        strcmp(conf->monitor_listen, names->monitor) == 0);
    kms_conf_done(conf);
    free(text);
}

static void yaml(void)
{
    static const struct kms_init_names plain = {"/lib/x.so", "token",       "/etc/pin",
                                                "kek",       "/run/k.sock", NULL};
    static const struct kms_init_names odd = {"/lib/a \"b\".so",   "# no: comment",
                                              "/etc/it's \\ here", "- \xc3\xa4: [1]",
                                              "/run/{k}.sock",     "127.0.0.1:1"};
    static const struct kms_init_names broken = {"/lib/\xff.so", "t", "/p", "k", "/s", NULL};
    struct kms_error err = KMS_ERROR_INIT;
    char *text = NULL;

    check_yaml("plain", &plain);
    check_yaml("odd", &odd);
    UNIT_CHECK("no UTF-8", kms_init_yaml(&broken, &text, &err) == KMS_E_INVALID);
    UNIT_CHECK("no UTF-8", text == NULL);
}

static const struct unit_test tests[] = {
    {"pins", pins},
    {"yaml", yaml},
};

int main(void)
{
    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    return unit_main("test_init_files", tests, UNIT_COUNT(tests));
}
