# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What every check shares: counting, skipping, the closing line. Sourced, not run.
#
# A check sources this, calls `check NAME`, then ok, not_ok or skip for every thing it looked at,
# and `check_end` last. It runs from the top of the source tree.

set -eu
CHECK_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
cd "$CHECK_ROOT"

check() {
    check_name=$1 check_passed=0 check_failed=0 check_skipped=0 check_ended=no
    CHECK_TMP=$(mktemp -d)
    trap check_exit EXIT
    need git
    if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        export GIT_DIR=$CHECK_TMP/git GIT_WORK_TREE=$CHECK_ROOT
        git init -q
    fi
}

ok() {
    check_passed=$((check_passed + 1))
    [ -z "${VERBOSE-}" ] || echo "ok: $check_name: $*"
}

not_ok() {
    check_failed=$((check_failed + 1))
    echo "FAIL: $check_name: $*"
}

skip() {
    check_skipped=$((check_skipped + 1))
    echo "SKIP: $check_name: $*"
}

# need TOOL...: skips the whole check when one is missing.
need() {
    local tool
    for tool in "$@"; do
        if ! command -v "$tool" >/dev/null 2>&1; then
            skip "$tool is not installed"
            check_end
        fi
    done
}

# Our files: what git tracks, and what it would track. A tarball has no repository: then .gitignore
# alone says what is a product of the build.
our_files() {
    git ls-files --cached --others --exclude-standard -- "$@" | sort -u |
        while IFS= read -r file; do [ ! -f "$file" ] || printf '%s\n' "$file"; done
}

# Every key of the configuration's schema, by the preprocessor: whatever macros write them.
schema_keys() {
    local file
    for file in $(our_files 'common/*conf.c' 'backend/*conf.c' 'kmsbridge/*conf.c'); do
        # shellcheck disable=SC2046 # flags are words
        gcc -E -P -D_GNU_SOURCE -I. $(pkg-config --cflags libcyaml) "$file" 2>/dev/null |
            tr '\n' ' ' | grep -oE '\.key = \(?\(?"[a-z_0-9]+"' | grep -oE '[a-z_0-9]+"' | tr -d '"' || true
    done | sort -u
}

check_summary() {
    echo "$check_name: $check_passed passed, $check_failed failed, $check_skipped skipped"
}

check_end() {
    check_ended=yes
    check_summary
    [ "$check_failed" -eq 0 ] || exit 1
    [ "$check_passed" -gt 0 ] || exit 77
    exit 0
}

# A check that dies half way has failed, whatever it counted before.
check_exit() {
    local rc=$?
    rm -rf "$CHECK_TMP"
    if [ "$check_ended" = no ]; then
        check_failed=$((check_failed + 1))
        echo "FAIL: $check_name: ended early with exit code $rc"
        check_summary
        exit 1
    fi
}
