#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The behaviour tests on our module in a process, and before a kmsbridged, whose OpenSSL has our module
# as an engine: libcrypto's configuration, loaded by us at the latest, makes libp11's engine, which
# initialises us again and offers itself for every RSA and EC operation. No recursion, and no hang.
. "$(dirname "$0")/lib.sh"
say() { echo "module-engine: $1 passed, $2 failed, $3 skipped"; }
engine=$(openssl version -e 2>&1 | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
if [ ! -e "$engine" ]; then
    echo "SKIP: module-engine: there is no $engine (libengine-pkcs11-openssl)"
    [ "${KMSBRIDGE_REQUIRE_ALL-}" = 1 ] && say 0 1 0 && exit 1
    say 0 0 1
    exit 77
fi
make_token one
# configure LINE: OpenSSL's configuration
configure() {
    cat >"$dir/openssl.cnf" <<END
openssl_conf = openssl_init
[openssl_init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
dynamic_path = $engine
MODULE_PATH = $build/pkcs11/.libs/kmsbridge-pkcs11.so
PIN = 1234
$1
END
}
export KMSBRIDGE_AGENT=$dir/agent.sock OPENSSL_CONF=$dir/openssl.cnf
# init: our C_Initialize is called while libcrypto loads its configuration, which our own C_ functions
# make it do. default_algorithms: RSA and EC keys of anybody's go through the engine, ours too.
for line in 'init = 1' 'default_algorithms = ALL'; do
    configure "$line"
    if [ -n "$daemon" ]; then
        kill "$daemon"
        wait "$daemon" || :
        rm -f "$dir/agent.sock"
    fi
    start_daemon one pin
    # the engine is really there, with our module behind it
    if ! timeout 30 openssl engine -t pkcs11 >"$dir/log" 2>&1 || ! grep -q available "$dir/log" ||
        ! timeout 30 openssl dgst -sha256 -engine pkcs11 -keyform engine -sign 'pkcs11:token=one;object=rsa' \
            -out "$dir/signature" "$dir/pin" >>"$dir/log" 2>&1 || [ "$(stat -c %s "$dir/signature")" -ne 256 ]; then
        cat "$dir/log"
        echo "FAIL: module-engine: openssl, $line"
        say 0 1 0
        exit 1
    fi
    timeout 120 "$module" run "engine-${line%% *}" "$build/pkcs11/.libs/kmsbridge-pkcs11.so" one 1234 || exit 1
done
