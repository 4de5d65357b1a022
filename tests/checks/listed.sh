#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# No test is forgotten: every test program and script is in automake's TESTS, or part of a program
# that is, and every fuzzer has a corpus.
. "$(dirname "$0")/lib/check.sh"
check listed
build=${KMSBRIDGE_BUILD:-build}
[ -f "$build/Makefile" ] || { not_ok "$build is not configured" && check_end; }
make -s -C "$build" print-tests | tr ' ' '\n' | sed 's/\.sh$//' | sort >"$CHECK_TMP/tests"

our_files 'tests/*/Makefile.am*' | xargs cat >"$CHECK_TMP/fragments"
our_files 'tests/*/test_*.c' 'tests/contract/*.sh' 'tests/daemon/*.sh' 'tests/faults/*.sh' \
    'tests/fuzz/*.sh' tests/interop/ctl.sh >"$CHECK_TMP/files"
while IFS= read -r file; do
    name=${file%.*}
    # a program of its own, or a part of one
    if grep -qx "$name" "$CHECK_TMP/tests" || { [[ $file = *.c && $file != tests/unit/* ]] &&
        grep -qF "$file" "$CHECK_TMP/fragments"; }; then
        ok "$file"
    else
        not_ok "$file is not in TESTS"
    fi
done <"$CHECK_TMP/files"

# the other lanes are all run by the stage of that name; they have to be in the tarball
our_files 'tests/interop/*' >"$CHECK_TMP/files"
while IFS= read -r file; do
    case $file in */Makefile.am) continue ;; esac
    if grep -qF "$file" "$CHECK_TMP/fragments"; then ok "$file"; else not_ok "$file is not distributed"; fi
done <"$CHECK_TMP/files"

our_files 'tests/fuzz/fuzz_*.c' >"$CHECK_TMP/files"
while IFS= read -r file; do
    name=${file##*/fuzz_} name=${name%.c}
    if [ -n "$(our_files "tests/fuzz/corpus/$name/*")" ]; then ok "$file"; else not_ok "$file has no corpus"; fi
done <"$CHECK_TMP/files"

if grep -qx tests/unit/test_planted "$CHECK_TMP/tests"; then not_ok "planted is listed"; else ok planted; fi
check_end
