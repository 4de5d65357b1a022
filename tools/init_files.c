/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/init_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/secure.h"
#include "tools/output.h"

#define PIN_LEN     32u
#define PIN_LEN_MIN 8u

/* %s in order: module, token, "file:PIN", socket, key, monitor: each in double quotes. */
static const char yaml_format[] =
    "# kmsbridged's configuration, made by kmsbridgectl init. kmsbridge.yaml(5) has every key.\n"
    "version: 1\n"
    "\n"
    "log:\n"
    "  level: info # error, warning, info, debug\n"
    "  format: text # or json\n"
    "\n"
    "backends:\n"
    "  - name: hsm\n"
    "    type: hsm\n"
    "    hsm:\n"
    "      module: %s\n"
    "      token: %s\n"
    "      # Where the PIN is, never the PIN: file:/path, env:NAME, credential:NAME (systemd).\n"
    "      pin: %s\n"
    "\n"
    "kms:\n"
    "  # kmsbridgectl encryption-config prints what kube-apiserver needs to find it.\n"
    "  socket: %s\n"
    "  # Who may connect besides root and the daemon's own user:\n"
    "  # allow_uids: [0]\n"
    "  backend: hsm\n"
    "  # All keys of this label decrypt; the newest encrypts. kmsbridgectl keys create makes one.\n"
    "  key: %s\n"
    "  # stop-writing: kube-apiserver stops writing 3 minutes after the KEK fails; keep-writing: "
    "it\n"
    "  # goes on under the seed it has.\n"
    "  on_failure: stop-writing\n"
    "\n"
    "# /livez, /readyz and /metrics.\n"
    "%smonitor:\n"
    "%s  listen: %s\n";

static const char softhsm_format[] = "# SoftHSM's configuration for kmsbridge's own tokens:\n"
                                     "# export SOFTHSM2_CONF with this file's path.\n"
                                     "directories.tokendir = %s\n"
                                     "objectstore.backend = file\n"
                                     "log.level = ERROR\n"
                                     "slots.removable = false\n";

enum kms_status kms_init_yaml(const struct kms_init_names *names, char **ret_text,
                              struct kms_error *err)
{
    const char *comment = names->monitor == NULL ? "# " : "";
    char *pin_ref = NULL;
    const char *texts[6] = {
        names->module, names->token, NULL,
        names->socket, names->key,   names->monitor != NULL ? names->monitor : "127.0.0.1:8780"};
    char *quoted[6] = {NULL};
    enum kms_status status = KMS_OK;
    size_t i;

    if (asprintf(&pin_ref, "file:%s", names->pin_path) < 0) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    texts[2] = pin_ref;
    for (i = 0; i < 6; i++) {
        quoted[i] = kms_output_quote(texts[i]);
        if (quoted[i] == NULL) {
            status = kms_error_set(err, KMS_E_INVALID, "\"%s\" is no UTF-8 text", texts[i]);
            goto out;
        }
    }
    if (asprintf(ret_text, yaml_format, quoted[0], quoted[1], quoted[2], quoted[3], quoted[4],
                 comment, comment, quoted[5]) < 0) {
        status = kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
out:
    for (i = 0; i < 6; i++) {
        free(quoted[i]);
    }
    free(pin_ref);
    return status;
}

enum kms_status kms_init_softhsm_conf(const char *tokens_path, char **ret_text,
                                      struct kms_error *err)
{
    if (asprintf(ret_text, softhsm_format, tokens_path) < 0) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory");
    }
    return KMS_OK;
}

enum kms_status kms_init_pin(size_t pin_min, size_t pin_max, struct kms_buf *ret_pin,
                             struct kms_error *err)
{
    static const char letters[33] = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    size_t len = pin_min > PIN_LEN ? pin_min : PIN_LEN;
    enum kms_status status;
    uint8_t *at = ret_pin->data + ret_pin->len;
    size_t i;

    len = pin_max < len ? pin_max : len;
    if (len < PIN_LEN_MIN || len > kms_buf_room(ret_pin)) {
        return kms_error_set(err, KMS_E_UNSUPPORTED,
                             "the token takes PINs of %zu to %zu bytes only", pin_min, pin_max);
    }
    status = kms_random(at, len);
    if (status != KMS_OK) {
        return kms_error_set(err, status, "the kernel gives no random bytes");
    }
    for (i = 0; i < len; i++) {
        at[i] = (uint8_t)letters[at[i] & 31u]; /* 32 letters: no bias */
    }
    ret_pin->len += len;
    return KMS_OK;
}
