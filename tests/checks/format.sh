#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format 14 with our .clang-format has nothing to change in any C file of ours.
. "$(dirname "$0")/lib/check.sh"
check format
need clang-format-14

formatted() {
    clang-format-14 --style=file --dry-run -Werror "$1" >"$CHECK_TMP/out" 2>&1
}

our_files '*.c' '*.h' >"$CHECK_TMP/files"
while IFS= read -r file; do
    if formatted "$file"; then
        ok "$file"
    else
        not_ok "$file: run clang-format-14 -i"
        head -n 4 "$CHECK_TMP/out"
    fi
done <"$CHECK_TMP/files"

cp .clang-format "$CHECK_TMP"
printf 'int f( int a ){return a ;}\n' >"$CHECK_TMP/planted.c"
if formatted "$CHECK_TMP/planted.c"; then not_ok "planted: took a badly laid out file"; else ok planted; fi
check_end
