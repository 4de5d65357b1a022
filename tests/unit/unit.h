/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner of our unit tests over CUnit: a table of tests, checks that name the row of a table
 * test, and an exit status that tells the truth (CU_basic_run_tests() returns 0 though tests
 * failed). The last line is "name: N passed, N failed, 0 skipped".
 */
#ifndef KMS_TESTS_UNIT_UNIT_H
#define KMS_TESTS_UNIT_UNIT_H

#include <CUnit/CUnit.h>
#include <CUnit/TestRun.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define UNIT_COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct unit_test {
    const char *name;
    void (*fn)(void);
};

static inline bool unit_check_at(bool ok, const char *row, const char *expression, const char *file,
                                 unsigned line)
{
    char text[1024];

    (void)snprintf(text, sizeof(text), "%s: %s", row, expression);
    (void)CU_assertImplementation(ok ? CU_TRUE : CU_FALSE, line, text, file, "", CU_FALSE);
    return ok;
}

/* Checks @condition; @row names the case in the failure's line. The value is the condition. */
#define UNIT_CHECK(row, condition)                                                                 \
    unit_check_at((condition) ? true : false, (row), #condition, __FILE__, __LINE__)

static inline void unit_print_failures(void)
{
    for (CU_pFailureRecord f = CU_get_failure_list(); f != NULL; f = f->pNext) {
        fprintf(stderr, "%s:%u: %s: %s\n", f->strFileName == NULL ? "?" : f->strFileName,
                f->uiLineNumber, f->pTest == NULL ? "?" : f->pTest->pName,
                f->strCondition == NULL ? "?" : f->strCondition);
    }
}

/* Registers all, or says why not. */
static inline bool unit_register(const char *name, const struct unit_test *tests, size_t count)
{
    CU_pSuite suite;

    if (CU_initialize_registry() != CUE_SUCCESS) {
        return false;
    }
    suite = CU_add_suite(name, NULL, NULL);
    for (size_t i = 0; suite != NULL && i < count; i++) {
        if (CU_add_test(suite, tests[i].name, tests[i].fn) == NULL) {
            return false;
        }
    }
    return suite != NULL;
}

/* main()'s value: success only when all tests ran, and no check failed. */
static inline int unit_main(const char *name, const struct unit_test *tests, size_t count)
{
    unsigned ran;
    unsigned failed;
    bool good;

    if (!unit_register(name, tests, count)) {
        fprintf(stderr, "%s: %s\n", name, CU_get_error_msg());
        return EXIT_FAILURE;
    }
    (void)CU_run_all_tests();
    ran = CU_get_number_of_tests_run();
    failed = CU_get_number_of_tests_failed();
    good = CU_get_number_of_failures() == 0 && ran == count && CU_get_number_of_asserts() > 0;
    unit_print_failures();
    printf("%s: %u passed, %u failed, 0 skipped\n", name, ran - failed, failed);
    CU_cleanup_registry();
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
