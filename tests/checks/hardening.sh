#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The built programs are PIE, full RELRO, NX, with stack protector, FORTIFY and, on x86-64, marked
# for control-flow protection where the C run time is. A program built without is planted.
. "$(dirname "$0")/lib/check.sh"
check hardening
need readelf gcc
build=${KMSBRIDGE_BUILD:-build}

# libtool may leave a wrapper script in the build folder and the program in .libs
program() {
    local dir=${1%/*} base=${1##*/}
    if [ -x "$dir/.libs/$base" ]; then echo "$dir/.libs/$base"; else echo "$1"; fi
}

# Prints the names of the protections that $1 lacks.
lacks() {
    local header dynamic segments symbols notes
    header=$(readelf -hW "$1") dynamic=$(readelf -dW "$1") segments=$(readelf -lW "$1")
    symbols=$(readelf -sW "$1") notes=$(readelf -nW "$1" 2>/dev/null)
    grep -q 'Type: *DYN' <<<"$header" && grep -q 'FLAGS_1.*PIE' <<<"$dynamic" || echo PIE
    grep -q 'GNU_RELRO' <<<"$segments" || echo RELRO
    grep -q 'FLAGS_1.*NOW\|BIND_NOW' <<<"$dynamic" || echo BIND_NOW
    grep -q 'GNU_STACK .*RW ' <<<"$segments" || echo NX
    grep -q '__stack_chk_fail' <<<"$symbols" || echo stack-protector
    grep -q '_chk@\|_chk$' <<<"$(grep -v __stack_chk <<<"$symbols")" || echo FORTIFY
    if [ "$(uname -m)" = x86_64 ]; then
        grep -q 'IBT, SHSTK' <<<"$notes" || echo CET
    fi
    ! grep -qE 'R(UN)?PATH' <<<"$dynamic" || echo no-RPATH
}

for name in kmsbridge/kmsbridged tools/kmsbridgectl; do
    binary=$(program "$build/$name")
    if [ ! -x "$binary" ]; then
        not_ok "$build/$name is not built"
        continue
    fi
    missing=$(lacks "$binary" | tr '\n' ' ')
    if [ -z "$missing" ]; then ok "$name"; else not_ok "$name lacks $missing"; fi
done

printf '#include <stdio.h>\nint main(void) { char b[64]; return !fgets(b, 64, stdin); }\n' >"$CHECK_TMP/p.c"
gcc -O0 -no-pie -fno-stack-protector -U_FORTIFY_SOURCE -fcf-protection=none -z execstack -z norelro -z lazy \
    -o "$CHECK_TMP/planted" "$CHECK_TMP/p.c" 2>/dev/null
missing=$(lacks "$CHECK_TMP/planted" | tr '\n' ' ')
want='PIE RELRO BIND_NOW NX stack-protector FORTIFY '
[ "$(uname -m)" != x86_64 ] || want="${want}CET "
if [ "$missing" = "$want" ]; then ok planted; else not_ok "planted: saw only that it lacks $missing"; fi
check_end
