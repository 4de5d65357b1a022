#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The built programs are PIE, full RELRO, NX, with stack protector and FORTIFY. On x86-64 every
# object of ours is marked for control-flow protection, and so is the program where the C run time is
# (Debian 12's is not). Both wipe what is freed, and what passes through HTTP/2, and reset no stream
# in vain: the dynamic linker finds the functions of kmsbridge/wipe_free.c, backend/rest/http_wipe.c
# and http_reset.c in them. A program built without is planted.
. "$(dirname "$0")/lib/check.sh"
check hardening
need readelf gcc nm
build=${KMSBRIDGE_BUILD:-build}

taken_over='SSL_write nghttp2_session_callbacks_set_send_callback nghttp2_session_del nghttp2_session_mem_recv
    nghttp2_submit_request nghttp2_submit_rst_stream'
# a sanitizer brings these two
grep -qs 'define KMS_SANITIZED' "$build/config.h" || taken_over="free realloc $taken_over"

# libtool may leave a wrapper script in the build folder and the program in .libs
program() {
    local dir=${1%/*} base=${1##*/}
    if [ -x "$dir/.libs/$base" ]; then echo "$dir/.libs/$base"; else echo "$1"; fi
}

marked() { grep -q 'IBT, SHSTK' <<<"$(readelf -nW "$1" 2>/dev/null)"; }

takes_over() {
    local exported name
    exported=$(nm -D --defined-only "$1" | awk '{ print $3 }')
    for name in $taken_over; do grep -qx "$name" <<<"$exported" || return 1; done
}

# Prints the names of the protections that $1 lacks.
lacks() {
    local header dynamic segments symbols
    header=$(readelf -hW "$1") dynamic=$(readelf -dW "$1") segments=$(readelf -lW "$1")
    symbols=$(readelf -sW "$1")
    grep -q 'Type: *DYN' <<<"$header" && grep -q 'FLAGS_1.*PIE' <<<"$dynamic" || echo PIE
    grep -q 'GNU_RELRO' <<<"$segments" || echo RELRO
    grep -q 'FLAGS_1.*NOW\|BIND_NOW' <<<"$dynamic" || echo BIND_NOW
    grep -q 'GNU_STACK .*RW ' <<<"$segments" || echo NX
    grep -q '__stack_chk_fail' <<<"$symbols" || echo stack-protector
    grep -q '_chk@\|_chk$' <<<"$(grep -v __stack_chk <<<"$symbols")" || echo FORTIFY
    [ "$cet" = no ] || marked "$1" || echo CET
    ! grep -qE 'R(UN)?PATH' <<<"$dynamic" || echo no-RPATH
    takes_over "$1" || echo taken-over
}

printf 'int main(void) { return 0; }\n' >"$CHECK_TMP/probe.c"
cet=no
if [ "$(uname -m)" = x86_64 ]; then
    gcc -fcf-protection=full -o "$CHECK_TMP/probe" "$CHECK_TMP/probe.c"
    ! marked "$CHECK_TMP/probe" || cet=yes
    find "$build/common" "$build/backend" "$build/pkcs11" "$build/kmsbridge" "$build/tools" -name '*.o' >"$CHECK_TMP/objects"
    [ -s "$CHECK_TMP/objects" ] || not_ok "$build has no objects"
    while IFS= read -r object; do
        if marked "$object"; then ok "$object"; else not_ok "$object has no control-flow protection"; fi
    done <"$CHECK_TMP/objects"
    gcc -fcf-protection=none -c -o "$CHECK_TMP/probe.o" "$CHECK_TMP/probe.c"
    if marked "$CHECK_TMP/probe.o"; then not_ok "planted: took an object without"; else ok "planted object"; fi
fi

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
[ "$cet" = no ] || want="${want}CET "
want="${want}taken-over "
if [ "$missing" = "$want" ]; then ok planted; else not_ok "planted: saw only that it lacks $missing"; fi
check_end
