/* SPDX-License-Identifier: Apache-2.0 */
/* The module's log for tests of its parts: keeps the last line. One thread. */
#ifndef KMS_TESTS_UNIT_FAKE_P11_LOG_H
#define KMS_TESTS_UNIT_FAKE_P11_LOG_H

#include <stdbool.h>

void fake_p11_log_clear(void);
/* Whether the last line since then has @text in it. */
bool fake_p11_log_says(const char *text);

#endif
