/* SPDX-License-Identifier: Apache-2.0 */
/* What is read-only leaves memory and comes back as it was; what was written stays. */
#include "kmsbridge/resident.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/unit/unit.h"

#define BALLAST 8388608
#define PAGE    4096

static const uint8_t ballast[BALLAST] = {1, 2, 3, [BALLAST - 1] = 4};
static uint8_t written[PAGE] = {5};

/* Pages of files that this process has in memory, not to the page (proc(5), statm). */
static long resident(void)
{
    long size = 0;
    long all = 0;
    long shared = -1;
    FILE *file = fopen("/proc/self/statm", "re");

    if (file != NULL) {
        if (fscanf(file, "%ld %ld %ld", &size, &all, &shared) != 3) {
            shared = -1;
        }
        (void)fclose(file);
    }
    return shared;
}

static unsigned sum(void)
{
    const volatile uint8_t *bytes = ballast;
    unsigned total = 0;

    for (size_t i = 0; i < BALLAST; i += PAGE) {
        total += bytes[i];
    }
    return total + bytes[1] + bytes[2] + bytes[BALLAST - 1];
}

static void comes_back_as_it_was(void)
{
    long before = 0;
    long after = 0;

    kms_resident_note();
    memset(written, 6, sizeof(written));
    CU_ASSERT_EQUAL(sum(), 10);
    before = resident();
    kms_resident_trim();
    after = resident();
    CU_ASSERT(after >= 0);
    CU_ASSERT(before - after >= BALLAST / PAGE / 2);
    CU_ASSERT_EQUAL(sum(), 10);
    CU_ASSERT(resident() - after >= BALLAST / PAGE / 2);
    CU_ASSERT_EQUAL(written[0], 6);
    CU_ASSERT_EQUAL(written[sizeof(written) - 1], 6);
}

/* A library may have changed its own code before it forbade to write to it. */
static void what_was_written_stays(void)
{
    FILE *file = fopen("/proc/self/exe", "re");
    uint8_t *code = MAP_FAILED;
    uint8_t changed = 0;

    if (file != NULL) {
        code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(file), 0);
        (void)fclose(file);
    }
    CU_ASSERT_PTR_NOT_EQUAL_FATAL(code, MAP_FAILED);
    changed = code[PAGE - 1] ^ 7;
    code[PAGE - 1] = changed;
    CU_ASSERT_EQUAL(mprotect(code, 2 * PAGE, PROT_READ), 0);
    kms_resident_note();
    kms_resident_trim();
    CU_ASSERT_EQUAL(code[PAGE - 1], changed);
    CU_ASSERT_EQUAL(munmap(code, 2 * PAGE), 0);
}

/* As while a thread loads a library: what is read-only now may be its data in a moment. */
static void what_came_later_stays(void)
{
    FILE *file = fopen("/proc/self/exe", "re");
    void *later = MAP_FAILED;
    const volatile uint8_t *bytes = NULL;
    unsigned total = 0;
    long before = 0;

    kms_resident_note();
    if (file != NULL) {
        later = mmap(NULL, BALLAST, PROT_READ, MAP_PRIVATE, fileno(file), 0);
        (void)fclose(file);
    }
    CU_ASSERT_PTR_NOT_EQUAL_FATAL(later, MAP_FAILED);
    bytes = later;
    kms_resident_trim(); /* what was noted goes now */
    for (size_t i = 0; i < BALLAST; i += PAGE) {
        total += bytes[i];
    }
    before = resident();
    kms_resident_trim();
    CU_ASSERT(total > 0 && before - resident() < BALLAST / PAGE / 2);
    CU_ASSERT_EQUAL(munmap(later, BALLAST), 0);
}

int main(void)
{
    static const struct unit_test tests[] = {{"comes back as it was", comes_back_as_it_was},
                                             {"what was written stays", what_was_written_stays},
                                             {"what came later stays", what_came_later_stays}};

    return unit_main("test_resident", tests, UNIT_COUNT(tests));
}
