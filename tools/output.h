/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kmsbridgectl says: records and lists as a table or as JSON, errors, and the JSON record that
 * `kms encrypt` writes and `kms decrypt` reads. The only user of jansson in tools/.
 *
 * Cells are strings; their kind says what they are in JSON. Nothing here is given a secret, but for
 * kms_output_plaintext_json(), which keeps to its caller's memory.
 */
#ifndef KMS_TOOLS_OUTPUT_H
#define KMS_TOOLS_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

#include "common/span.h"
#include "common/status.h"
#include "kmsbridge/kms_v2_client.h"
#include "tools/table.h"

/* Exit codes; kmsbridgectl(1) documents them. */
enum kms_exit {
    KMS_EXIT_OK = 0,
    KMS_EXIT_FAILED = 1,
    KMS_EXIT_USAGE = 2,
    KMS_EXIT_CONFIG = 3,
    KMS_EXIT_UNREACHABLE = 4,
    KMS_EXIT_REFUSED = 5,
    KMS_EXIT_EXISTS = 6
};

/* Why a verb failed: the error, and a sentence on what to do next. */
struct kms_failure {
    struct kms_error error;
    char next[KMS_ERROR_TEXT_MAX];
    const char *service; /* the type of the backend that was opened: what advice fits; borrowed of
                            the configuration, NULL: none was */
};

/* The exit code that a status has where nothing more is known. */
enum kms_exit kms_exit_of(enum kms_status status);

/* Sets what to do next, unless it is set; returns @code. */
enum kms_exit kms_fail(struct kms_failure *failure, enum kms_exit code, const char *next, ...)
    KMS_PRINTF(3, 4);

/* "kmsbridgectl: <text>" and the advice, or {"error":{class,code,text,next}}. */
void kms_output_failure(FILE *to, bool json, const struct kms_failure *failure);

/* One thing: its members one below the other, or a JSON object. */
enum kms_status kms_output_record(FILE *to, bool json, const struct kms_column *columns,
                                  const char *const *cells, size_t count,
                                  struct kms_error *err) KMS_MUST_CHECK;

/* Many things: a table, or {"<name>":[{...}]}. @cells holds @rows times @count strings. */
enum kms_status kms_output_rows(FILE *to, bool json, const char *name,
                                const struct kms_column *columns, size_t count,
                                const char *const *cells, size_t rows,
                                struct kms_error *err) KMS_MUST_CHECK;

/* @text in double quotes, as JSON and YAML both read it; free(). NULL for invalid UTF-8. */
char *kms_output_quote(const char *text);

/* {"ciphertext":base64,"key_id":...,"annotations":{name:base64}}; heap text, free(). */
enum kms_status kms_output_sealed(bool json, const struct kms_v2_sealed *sealed, char **ret_text,
                                  struct kms_error *err) KMS_MUST_CHECK;
/* Reads that back; KMS_E_BAD_DATA says what is wrong with it. */
enum kms_status kms_input_sealed(struct kms_span text, struct kms_v2_sealed *ret_sealed,
                                 struct kms_error *err) KMS_MUST_CHECK;

/* Appends {"plaintext":base64} to @ret_text, the caller's secure memory; KMS_E_TOO_LARGE. */
enum kms_status kms_output_plaintext_json(struct kms_span plaintext,
                                          struct kms_buf *ret_text) KMS_MUST_CHECK;

#endif
