/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/table.h"

#include <stdlib.h>
#include <string.h>

#include "common/codec.h"

#define GAP 2 /* blanks between columns */

/* Bytes of the character at @text that may be shown as they are; 0 when the first must not be. */
static size_t printable(const unsigned char *text)
{
    size_t len = 1;

    if (text[0] < ' ' || text[0] == 0x7f) {
        return 0;
    }
    if (text[0] < 0x80) {
        return 1;
    }
    while (len < 4 && (text[len] & 0xc0u) == 0x80u) {
        len++;
    }
    if (text[0] == 0xc2 && text[1] < 0xa0) { /* C1 controls, U+0080 to U+009F */
        return 0;
    }
    while (len > 1 && !kms_utf8_valid(kms_span_of(text, len))) {
        len--;
    }
    return len > 1 ? len : 0;
}

char *kms_table_escape(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    char *out = malloc(strlen(text) * 4 + 1); /* "\xNN" for a byte */
    size_t len = 0;

    if (out == NULL) {
        return NULL;
    }
    while (*at != '\0') {
        size_t good = printable(at);

        if (good == 0) {
            snprintf(out + len, 5, "\\x%02x", *at);
            len += 4;
            at++;
        } else {
            memcpy(out + len, at, good);
            len += good;
            at += good;
        }
    }
    out[len] = '\0';
    return out;
}

/* Characters, not bytes: each UTF-8 sequence has one byte that continues nothing. */
static size_t width(const char *text)
{
    size_t count = 0;

    for (; *text != '\0'; text++) {
        count += ((unsigned char)*text & 0xc0u) != 0x80u ? 1u : 0u;
    }
    return count;
}

static void print_cell(FILE *to, const char *text, size_t pad_to)
{
    char *shown = kms_table_escape(text == NULL || text[0] == '\0' ? "-" : text);
    size_t wide = shown != NULL ? width(shown) : 0;

    fputs(shown != NULL ? shown : "?", to);
    for (; wide < pad_to; wide++) {
        fputc(' ', to);
    }
    free(shown);
}

static size_t cell_width(const char *text)
{
    char *shown = kms_table_escape(text == NULL || text[0] == '\0' ? "-" : text);
    size_t wide = shown != NULL ? width(shown) : 1;

    free(shown);
    return wide;
}

static size_t column_width(const struct kms_column *columns, size_t count, const char *const *cells,
                           size_t rows, size_t column)
{
    size_t wide = width(columns[column].title);
    size_t row;

    for (row = 0; row < rows; row++) {
        size_t here = cell_width(cells[row * count + column]);

        wide = here > wide ? here : wide;
    }
    return wide;
}

void kms_table_print(FILE *to, const struct kms_column *columns, size_t count,
                     const char *const *cells, size_t rows)
{
    size_t wide[KMS_TABLE_COLUMNS_MAX] = {0};
    size_t row, column;

    if (count > KMS_TABLE_COLUMNS_MAX) {
        return;
    }
    for (column = 0; column < count; column++) {
        wide[column] = column_width(columns, count, cells, rows, column) + GAP;
    }
    for (row = 0; row <= rows; row++) { /* row 0 is the heading */
        for (column = 0; column < count; column++) {
            const char *text = row == 0 ? columns[column].title : cells[(row - 1) * count + column];

            print_cell(to, text, column + 1 < count ? wide[column] : 0);
        }
        fputc('\n', to);
    }
}

void kms_table_print_record(FILE *to, const struct kms_column *columns, const char *const *cells,
                            size_t count)
{
    size_t wide = 0;
    size_t i;

    for (i = 0; i < count; i++) {
        wide = width(columns[i].title) > wide ? width(columns[i].title) : wide;
    }
    for (i = 0; i < count; i++) {
        print_cell(to, columns[i].title, wide + GAP);
        print_cell(to, cells[i], 0);
        fputc('\n', to);
    }
}
