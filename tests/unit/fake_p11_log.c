/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_p11_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pkcs11/core/log.h"

static _Thread_local char last[512];

void fake_p11_log_clear(void)
{
    last[0] = '\0';
}

bool fake_p11_log_says(const char *text)
{
    return strstr(last, text) != NULL;
}

void kms_p11_log_start(void)
{
}

static void keep(const char *fmt, va_list args) KMS_PRINTF(1, 0);
static void keep(const char *fmt, va_list args)
{
    (void)vsnprintf(last, sizeof(last), fmt, args);
}

void kms_p11_log(enum kms_p11_log level, const char *fmt, ...)
{
    va_list args;

    (void)level;
    va_start(args, fmt);
    keep(fmt, args);
    va_end(args);
}

CK_RV kms_p11_refuse(CK_RV rv, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    keep(fmt, args);
    va_end(args);
    return rv;
}
