#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Replays each corpus/NAME with fuzz_NAME, whether built with libFuzzer or with replay_main.c.
set -u
passed=0 failed=0
for corpus in "${srcdir:-.}"/tests/fuzz/corpus/*/; do
    name=$(basename "$corpus")
    if ./tests/fuzz/fuzz_"$name" -runs=0 "$corpus"; then
        passed=$((passed + 1))
    else
        echo "fuzz_$name failed on its corpus" >&2
        failed=$((failed + 1))
    fi
done
echo "fuzz replay: $passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
