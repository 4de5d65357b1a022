/* SPDX-License-Identifier: Apache-2.0 */
/* Text for people: aligned columns. What a token or a server named cannot move the cursor. */
#ifndef KMS_TOOLS_TABLE_H
#define KMS_TOOLS_TABLE_H

#include <stddef.h>
#include <stdio.h>

#define KMS_TABLE_COLUMNS_MAX 16

enum kms_cell_kind {
    KMS_CELL_TEXT,
    KMS_CELL_NUMBER, /* decimal digits */
    KMS_CELL_LIST    /* comma-separated */
};

struct kms_column {
    const char *name;  /* JSON member */
    const char *title; /* heading */
    enum kms_cell_kind kind;
};

/* @cells holds @rows times @count strings (at most KMS_TABLE_COLUMNS_MAX); an empty one is "-". */
void kms_table_print(FILE *to, const struct kms_column *columns, size_t count,
                     const char *const *cells, size_t rows);

/* One record, a line per member: "title  cell". */
void kms_table_print_record(FILE *to, const struct kms_column *columns, const char *const *cells,
                            size_t count);

/*
 * Text with control characters and what is no UTF-8 as \xNN; heap, free(); NULL without memory.
 */
char *kms_table_escape(const char *text);

#endif
