#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The PKCS#11 module gives its host the functions of PKCS#11 3.0 and nothing else, and brings it no
# library but libc, libcrypto and libprotobuf-c. It cannot be unloaded, its own functions are its
# own, and it is built with the protections of the programs. Modules that do it wrong are planted.
. "$(dirname "$0")/lib/check.sh"
check exports
need nm ldd readelf gcc pkg-config
build=${KMSBRIDGE_BUILD:-build}
module=$build/pkcs11/.libs/kmsbridge-pkcs11.so
[ -f "$module" ] || { not_ok "$module is not built" && check_end; }

# Prints what is exported and should not be (+NAME), or should be and is not (-NAME).
wrong_exports() {
    nm -D --defined-only "$1" | awk '{ print $3 }' | sort >"$CHECK_TMP/exported"
    comm -13 "$CHECK_TMP/functions" "$CHECK_TMP/exported" | sed 's/^/+/'
    comm -23 "$CHECK_TMP/functions" "$CHECK_TMP/exported" | sed 's/^/-/'
}

# Prints the libraries beyond those that a host may be asked to bear; ASan and TSan bring their own.
wrong_libraries() {
    ldd "$1" | awk '{ print $1 }' | sed 's|.*/||' |
        grep -vE '^(linux-vdso|libc|libcrypto|libprotobuf-c|libm|ld-linux.*|libpthread|libdl)\.so' |
        grep -vE '^lib(asan|ubsan|tsan)\.so' || :
}

lacks() {
    local dynamic
    dynamic=$(readelf -dW "$1")
    grep -q 'FLAGS_1.*NODELETE' <<<"$dynamic" || echo nodelete
    grep -q 'FLAGS_1.*NOW' <<<"$dynamic" || echo now
    grep -q 'SYMBOLIC' <<<"$dynamic" || echo symbolic
    grep -q 'GNU_RELRO' <<<"$(readelf -lW "$1")" || echo relro
    ! grep -q 'TEXTREL' <<<"$dynamic" || echo no-textrel
    ! grep -qE 'R(UN)?PATH' <<<"$dynamic" || echo no-rpath
}

# the functions that the headers declare
# shellcheck disable=SC2046 # flags are words
printf '#include "pkcs11/pkcs11x.h"\n' |
    gcc -E -P -D_GNU_SOURCE $(pkg-config --cflags p11-kit-1) -I. -x c - |
    grep -oE '\<C_[A-Za-z]+ *\(' | tr -d ' (' | sort -u >"$CHECK_TMP/functions"
if [ "$(wc -l <"$CHECK_TMP/functions")" -eq 92 ]; then
    ok "92 functions"
else
    not_ok "the headers declare $(wc -l <"$CHECK_TMP/functions") functions, not 92"
fi

for what in wrong_exports wrong_libraries lacks; do
    found=$($what "$module" | tr '\n' ' ')
    if [ -z "$found" ]; then ok "$what"; else not_ok "$what: $found"; fi
done

printf 'int C_Initialize(void) { return 0; }\nint helper(void) { return 1; }\n' >"$CHECK_TMP/planted.c"
gcc -shared -fPIC -Wl,--no-as-needed -Wl,-z,lazy -Wl,-z,norelro -o "$CHECK_TMP/planted.so" "$CHECK_TMP/planted.c" \
    -lssl 2>/dev/null || gcc -shared -fPIC -Wl,--no-as-needed -Wl,-z,lazy -Wl,-z,norelro \
    -o "$CHECK_TMP/planted.so" "$CHECK_TMP/planted.c" -l:libp11-kit.so.0
if wrong_exports "$CHECK_TMP/planted.so" | grep -qx '+helper' &&
    wrong_exports "$CHECK_TMP/planted.so" | grep -qx -- '-C_Sign'; then
    ok "planted exports"
else
    not_ok "planted: took a module with other exports"
fi
if [ -n "$(wrong_libraries "$CHECK_TMP/planted.so")" ]; then
    ok "planted library"
else
    not_ok "planted: took a module with another library"
fi
missing=$(lacks "$CHECK_TMP/planted.so" | tr '\n' ' ')
if [ "$missing" = "nodelete now symbolic relro " ]; then
    ok "planted flags"
else
    not_ok "planted: saw only that it lacks $missing"
fi
check_end
