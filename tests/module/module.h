/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Behaviour tests of a PKCS#11 module, whichever it is: ours over a kmsbridged, and SoftHSM, to see
 * that the tests ask for what PKCS#11 says and not for what we happen to do. Each test initialises
 * and finalises by itself. The token holds what module_make() made.
 */
#ifndef KMS_TESTS_MODULE_MODULE_H
#define KMS_TESTS_MODULE_MODULE_H

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

#include "pkcs11/pkcs11x.h"
#include "tests/unit/unit.h"

struct module {
    const char *path;
    const char *pin;   /* of the token's user */
    const char *label; /* of the token */
    bool ours;
    void *handle;
    CK_FUNCTION_LIST *f;
    CK_FUNCTION_LIST_3_0 *f3; /* NULL: it has no 3.0 */
};
extern struct module m;

/* A test, and why it is left out on SoftHSM; NULL: it is not. */
struct module_test {
    const char *name;
    void (*fn)(void);
    const char *not_softhsm;
};
/* One table a file, ended by a NULL name. */
extern const struct module_test module_info_tests[];
extern const struct module_test module_session_tests[];
extern const struct module_test module_object_tests[];
extern const struct module_test module_use_tests[];
extern const struct module_test module_process_tests[];

bool module_load(void);
void module_make(void); /* C_Initialize must be done; a token without keys */

#define BYTES(array) (array), sizeof(array)

/* All of these check what they do. */
void module_start(void); /* C_Initialize, with system locking */
void module_stop(void);
CK_SLOT_ID module_slot(void); /* the token's */
CK_SESSION_HANDLE module_open(CK_FLAGS more);
CK_SESSION_HANDLE module_open_logged_in(CK_FLAGS more);
/* Number of matches; the first goes to *ret. */
CK_ULONG module_find(CK_SESSION_HANDLE s, CK_ATTRIBUTE *tmpl, CK_ULONG count,
                     CK_OBJECT_HANDLE *ret);
CK_OBJECT_HANDLE module_key(CK_SESSION_HANDLE s, CK_OBJECT_CLASS class, const char *label);
CK_OBJECT_HANDLE module_session_aes(CK_SESSION_HANDLE s);
/* The test's child: runs @fn, its return is the exit status; the value here is that, or 1000 and
 * more for a signal. */
int module_in_child(int (*fn)(void *ctx), void *ctx);

#define OK(expression) UNIT_CHECK(#expression, (expression) == CKR_OK)
#define GIVES(value, expression)                                                                   \
    module_gives(#expression, (expression), #value, (value), __FILE__, __LINE__)
bool module_gives(const char *what, CK_RV got, const char *name, CK_RV want, const char *file,
                  unsigned line);
/* @fn in a child ends with 0. */
#define CHILD(fn, ctx) module_child(#fn, (fn), (ctx), __FILE__, __LINE__)
bool module_child(const char *what, int (*fn)(void *ctx), void *ctx, const char *file,
                  unsigned line);

static inline CK_BYTE_PTR bytes_of(const char *text)
{
    return (CK_BYTE_PTR)(uintptr_t)text;
}

#endif
