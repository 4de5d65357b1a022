/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The module's frame, its slots, sessions and store, over an agent that is not there in earnest,
 * when memory runs out at every place where it can: an error, nothing left, and it goes on.
 */
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "pkcs11/core/session.h"
#include "pkcs11/core/slot.h"
#include "pkcs11/core/store.h"
#include "tests/fakes/fake_agent.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

#define NTH_MAX 2000
#define KEYS    3u
#define LIVES   50u

static CK_BBOOL yes = CK_TRUE;
static CK_BBOOL no = CK_FALSE;
static char reserved[256];

static CK_BYTE_PTR text_of(const char *text)
{
    return (CK_BYTE_PTR)(uintptr_t)text;
}

/* ---- what a host does ---------------------------------------------------------------------- */

static CK_RV begin(CK_SESSION_HANDLE *ret_session)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK, .pReserved = reserved};
    CK_SLOT_ID slots[4];
    CK_ULONG count = 4;
    CK_RV rv = C_Initialize(&args);

    if (rv == CKR_OK) {
        rv = C_GetSlotList(CK_TRUE, slots, &count);
        rv = rv == CKR_OK && count != 1 ? CKR_DEVICE_ERROR : rv; /* its list was lost on the way */
    }
    if (rv == CKR_OK) {
        rv = C_OpenSession(slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, ret_session);
    }
    return rv == CKR_OK ? C_Login(*ret_session, CKU_USER, text_of("1234"), 4) : rv;
}

static CK_RV find(CK_SESSION_HANDLE s, CK_ATTRIBUTE *tmpl, CK_ULONG n, CK_OBJECT_HANDLE *ret_first,
                  CK_ULONG *ret_count)
{
    CK_OBJECT_HANDLE found[16];
    CK_ULONG count = 0;
    CK_RV rv = C_FindObjectsInit(s, tmpl, n);

    if (rv == CKR_OK) {
        rv = C_FindObjects(s, found, 16, &count);
        (void)C_FindObjectsFinal(s);
    }
    *ret_first = count > 0 ? found[0] : CK_INVALID_HANDLE;
    *ret_count = count;
    return rv;
}

/* Each of the @ret steps that is made changes what is to be found; all of them checked. */
static CK_RV use(CK_SESSION_HANDLE s)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BYTE value[32] = "thirty-two bytes, hardly random";
    CK_ATTRIBUTE tmpl[] = {{CKA_CLASS, &class, sizeof(class)},
                           {CKA_KEY_TYPE, &type, sizeof(type)},
                           {CKA_TOKEN, &no, 1},
                           {CKA_ENCRYPT, &yes, 1},
                           {CKA_VALUE, value, sizeof(value)},
                           {CKA_LABEL, text_of("mine"), 4}};
    CK_ATTRIBUTE by_label = {CKA_LABEL, text_of("mine"), 4};
    CK_ATTRIBUTE other = {CKA_LABEL, text_of("renamed"), 7};
    CK_OBJECT_HANDLE token_key = CK_INVALID_HANDLE;
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;
    CK_OBJECT_HANDLE copy = CK_INVALID_HANDLE;
    CK_OBJECT_HANDLE first = CK_INVALID_HANDLE;
    CK_ULONG count = 0;
    CK_RV rv = find(s, NULL, 0, &token_key, &count);

    if (rv == CKR_OK && count < KEYS) {
        UNIT_CHECK("a list that succeeds is whole", false);
    }
    if (rv == CKR_OK) {
        rv = C_CreateObject(s, tmpl, UNIT_COUNT(tmpl), &key);
    }
    if (rv == CKR_OK) {
        rv = find(s, &by_label, 1, &first, &count);
        UNIT_CHECK("what was made is found", rv != CKR_OK || (count == 1 && first == key));
    }
    if (rv == CKR_OK) {
        rv = C_CopyObject(s, key, &other, 1, &copy);
    }
    if (rv == CKR_OK) {
        rv = C_SetAttributeValue(s, key, &other, 1);
    }
    if (rv == CKR_OK) {
        rv = find(s, &other, 1, &first, &count);
        UNIT_CHECK("both are found", rv != CKR_OK || count == 2);
    }
    if (rv == CKR_OK) {
        rv = C_SetAttributeValue(s, token_key, &other, 1);
    }
    if (rv == CKR_OK) {
        rv = C_DestroyObject(s, key);
    }
    return rv;
}

/* Nothing of a session stays in the store, whatever happened. */
static void check_empty(CK_SESSION_HANDLE s)
{
    CK_ATTRIBUTE of_session = {CKA_TOKEN, &no, 1};
    CK_OBJECT_HANDLE first = CK_INVALID_HANDLE;
    CK_ULONG count = 99;
    CK_SESSION_HANDLE other = CK_INVALID_HANDLE;
    CK_SESSION_INFO info;

    if (C_GetSessionInfo(s, &info) != CKR_OK ||
        C_OpenSession(info.slotID, CKF_SERIAL_SESSION, NULL, NULL, &other) != CKR_OK) {
        return;
    }
    CU_ASSERT_EQUAL(C_CloseSession(s), CKR_OK);
    CU_ASSERT_EQUAL(find(other, &of_session, 1, &first, &count), CKR_OK);
    CU_ASSERT_EQUAL(count, 0);
}

static CK_RV life(void)
{
    CK_SESSION_HANDLE s = CK_INVALID_HANDLE;
    CK_RV rv = begin(&s);

    if (rv == CKR_OK) {
        rv = use(s);
    }
    (void)fail_alloc_clear();
    check_empty(s);
    (void)C_Finalize(NULL);
    return rv;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static bool is_told(CK_RV rv)
{
    switch (rv) {
    case CKR_HOST_MEMORY:
    case CKR_DEVICE_ERROR: /* the agent's client had no memory for the request or the reply */
    case CKR_FUNCTION_FAILED:
    case CKR_GENERAL_ERROR:
        return true;
    default:
        return false;
    }
}

static bool came; /* as of the last fail_alloc_set() */

static CK_RV life_with(unsigned nth)
{
    CK_SESSION_HANDLE s = CK_INVALID_HANDLE;
    CK_RV rv = CKR_OK;

    fail_alloc_set(nth);
    rv = begin(&s);
    if (rv == CKR_OK) {
        rv = use(s);
    }
    came = fail_alloc_clear();
    check_empty(s);
    (void)C_Finalize(NULL);
    return rv;
}

static void no_memory_anywhere(void)
{
    unsigned failed = 0;
    unsigned nth = 1;

    CU_ASSERT_EQUAL_FATAL(life(), CKR_OK);
    for (came = true; came && nth < NTH_MAX; nth++) {
        const CK_RV rv = life_with(nth);

        failed += rv != CKR_OK;
        if (rv != CKR_OK && !is_told(rv)) {
            fprintf(stderr, "allocation %u: 0x%lx\n", nth, rv);
            UNIT_CHECK("what it says", false);
        }
    }
    CU_ASSERT_FALSE(came); /* the last life had all that it wanted */
    CU_ASSERT(failed > 50);
    CU_ASSERT_EQUAL(life(), CKR_OK);
}

/* What a life had is freed when it ends; sanitizers look closer, and know no mallinfo2(). */
static void nothing_grows(void)
{
    struct mallinfo2 before;

    for (unsigned i = 0; i < 20; i++) {
        CU_ASSERT_EQUAL(life(), CKR_OK);
    }
    before = mallinfo2();
    for (unsigned i = 0; i < LIVES; i++) {
        CU_ASSERT_EQUAL(life(), CKR_OK);
    }
    /*
     * The fake agent keeps some hundred bytes of each connection; a life of ours has ten thousand.
     * On a busy machine its threads still hold what the last connections had: they are waited for.
     */
    for (unsigned i = 0; i < 500 && mallinfo2().uordblks >= before.uordblks + LIVES * 1000; i++) {
        (void)poll(NULL, 0, 10);
    }
    CU_ASSERT(mallinfo2().uordblks < before.uordblks + LIVES * 1000);
}

/* Another thread closes the session while an object is made in it: nobody would ever drop that. */
static void closed_meanwhile(void)
{
    struct kms_slot slot = {.store = kms_store_new()};
    struct kms_session session = {.handle = 7, .slot = &slot};
    struct kms_object *object = kms_object_new();
    struct kms_object *again = NULL;
    CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;

    CU_ASSERT_FATAL(slot.store != NULL && object != NULL);
    (void)kms_object_ref(object);
    CU_ASSERT_EQUAL(kms_store_add(&slot, &session, object, &handle), CKR_OK);
    atomic_store(&session.dead, true);
    again = kms_object_new();
    CU_ASSERT_FATAL(again != NULL);
    (void)kms_object_ref(again);
    CU_ASSERT_EQUAL(kms_store_add(&slot, &session, again, &handle), CKR_SESSION_CLOSED);
    CU_ASSERT_EQUAL(atomic_load(&again->refs), 1); /* ours */
    CU_ASSERT_EQUAL(atomic_load(&object->refs), 2);
    kms_object_unref(object);
    kms_object_unref(again);
    kms_store_free(slot.store);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"no memory, anywhere", no_memory_anywhere},
        {"nothing grows", nothing_grows},
        {"closed meanwhile", closed_meanwhile},
    };
    struct fake_agent *agent = NULL;
    int result = EXIT_FAILURE;

    scratch_init();
    agent = fake_agent_start(scratch_path("agent.sock"));
    if (agent == NULL) {
        return EXIT_FAILURE;
    }
    fake_agent_keys(agent, KEYS);
    (void)snprintf(reserved, sizeof(reserved), "agent=%s", scratch_path("agent.sock"));
    result = unit_main("test_module_alloc", tests, UNIT_COUNT(tests));
    fake_agent_stop(agent);
    scratch_done();
    return result;
}
