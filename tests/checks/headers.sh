#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every header of ours compiles alone, with gcc and with clang, as C11 with -Wall -Wextra -Werror.
. "$(dirname "$0")/lib/check.sh"
check headers
need gcc clang pkg-config protoc-c

modules='grpc_unsecure libprotobuf-c libcyaml libsodium p11-kit-1 libcrypto libmicrohttpd libsystemd'
modules="$modules jansson cunit libnghttp2"
flags=
for module in $modules; do
    flags="$flags $(pkg-config --cflags "$module" 2>/dev/null || true)"
done
our_files '*.proto' >"$CHECK_TMP/protos"
while IFS= read -r proto; do
    protoc-c --proto_path=. --c_out="$CHECK_TMP" "$proto"
done <"$CHECK_TMP/protos"
: >"$CHECK_TMP/config.h"

compiles() { # compiler header
    local first=
    # it adds to whichever pkcs11.h its user has, and says so
    case $2 in pkcs11/kmsbridge-pkcs11.h) first='#include <p11-kit/pkcs11.h>' ;; esac
    # shellcheck disable=SC2086 # flags are words
    printf '%s\n#include "%s"\ntypedef int kms_not_empty;\n' "$first" "$2" |
        "$1" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror $flags -I. -I"$CHECK_TMP" \
            -fsyntax-only -x c - >"$CHECK_TMP/out" 2>&1
}

our_files '*.h' >"$CHECK_TMP/headers"
while IFS= read -r header; do
    for compiler in gcc clang; do
        if compiles "$compiler" "$header"; then
            ok "$compiler $header"
        else
            not_ok "$compiler $header"
            head -n 5 "$CHECK_TMP/out"
        fi
    done
done <"$CHECK_TMP/headers"

printf 'size_t kms_needs_stddef(void);\n' >"$CHECK_TMP/planted.h"
for compiler in gcc clang; do
    if compiles "$compiler" planted.h; then
        not_ok "planted: $compiler took a header that lacks its includes"
    else
        ok "planted $compiler"
    fi
done
check_end
