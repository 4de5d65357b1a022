/* SPDX-License-Identifier: Apache-2.0 */
#include "pkcs11/core/init_args.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static CK_RV check_locking(const CK_C_INITIALIZE_ARGS *args)
{
    const int given = (args->CreateMutex != NULL) + (args->DestroyMutex != NULL) +
                      (args->LockMutex != NULL) + (args->UnlockMutex != NULL);

    if (given != 0 && given != 4) {
        return CKR_ARGUMENTS_BAD;
    }
    /* 5.4.1: with both offered we choose the system's own; callbacks alone we do not use */
    return given == 4 && (args->flags & CKF_OS_LOCKING_OK) == 0 ? CKR_CANT_LOCK : CKR_OK;
}

/* One value: up to a blank, or in quotes. NULL when it has no end or no room. */
static const char *take_value(const char *at, char *ret, size_t size)
{
    const char quote = *at == '"' || *at == '\'' ? *at++ : '\0';
    const char *end = quote != '\0' ? strchr(at, quote) : at + strcspn(at, " \t\n");
    const size_t len = end == NULL ? 0 : (size_t)(end - at);

    if (end == NULL || len == 0 || len >= size) {
        return NULL;
    }
    memcpy(ret, at, len);
    ret[len] = '\0';
    return quote != '\0' ? end + 1 : end;
}

static CK_RV read_reserved(const char *text, struct kms_init_args *ret)
{
    const struct {
        const char *key;
        char *value;
        size_t size;
    } keys[] = {
        {"agent=", ret->agent, sizeof(ret->agent)},
        {"config=", ret->config, sizeof(ret->config)},
        {"log=", ret->log, sizeof(ret->log)},
    };
    const size_t count = sizeof(keys) / sizeof(keys[0]);

    if (strnlen(text, KMS_INIT_ARGS_MAX) == KMS_INIT_ARGS_MAX) {
        return CKR_ARGUMENTS_BAD;
    }
    for (text += strspn(text, " \t\n"); *text != '\0'; text += strspn(text, " \t\n")) {
        size_t i = 0;

        while (i < count && strncmp(text, keys[i].key, strlen(keys[i].key)) != 0) {
            i++;
        }
        text =
            i == count ? NULL : take_value(text + strlen(keys[i].key), keys[i].value, keys[i].size);
        if (text == NULL || (*text != '\0' && strchr(" \t\n", *text) == NULL)) {
            return CKR_ARGUMENTS_BAD;
        }
    }
    return CKR_OK;
}

/* An absolute path of the environment; anything else is as good as nothing. */
static void read_environment(const char *name, char *ret, size_t size)
{
    const char *value = secure_getenv(name);

    if (ret[0] == '\0' && value != NULL && value[0] == '/' && strlen(value) < size) {
        memcpy(ret, value, strlen(value) + 1);
    }
}

/* Never in a setuid program: secure_getenv() gives no home there. */
static void find_own_config(struct kms_init_args *ret)
{
    const char *home = secure_getenv("HOME");
    const char *xdg = secure_getenv("XDG_CONFIG_HOME");
    int len = 0;

    if (xdg != NULL && xdg[0] == '/') {
        len = snprintf(ret->config, sizeof(ret->config), "%s/kmsbridge/kmsbridge.yaml", xdg);
    } else if (home != NULL && home[0] == '/') {
        len =
            snprintf(ret->config, sizeof(ret->config), "%s/.config/kmsbridge/kmsbridge.yaml", home);
    }
    if (len <= 0 || (size_t)len >= sizeof(ret->config) || access(ret->config, R_OK) != 0) {
        ret->config[0] = '\0';
    }
}

CK_RV kms_init_args_read(const CK_C_INITIALIZE_ARGS *args, struct kms_init_args *ret)
{
    CK_RV rv = CKR_OK;

    memset(ret, 0, sizeof(*ret));
    if (args != NULL) {
        rv = check_locking(args);
        if (rv == CKR_OK && args->pReserved != NULL) {
            rv = read_reserved(args->pReserved, ret);
        }
    }
    if (rv != CKR_OK) {
        return rv;
    }
    read_environment("KMSBRIDGE_AGENT", ret->agent, sizeof(ret->agent));
    read_environment("KMSBRIDGE_CONFIG", ret->config, sizeof(ret->config));
    if (ret->config[0] == '\0' && ret->agent[0] == '\0') {
        find_own_config(ret);
    }
    return CKR_OK;
}
