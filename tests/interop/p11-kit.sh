#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# p11-kit: our module file in a registry of modules, the proxy module, and `p11-kit server` in front
# with p11-kit-client.so behind.
# shellcheck disable=SC2016 # check() evaluates its words later
. "$(dirname "$0")/lib.sh"
proxy=$(ldconfig -p 2>/dev/null | awk '$1 == "libp11-kit.so.0" { print $NF; exit }')
client=${proxy%/*}/pkcs11/p11-kit-client.so
modules=/usr/share/p11-kit/modules

# root's own registry is not looked at, so the system's gets another one, in a mount of our own
if [ "$(id -u)" -eq 0 ] && [ -z "${KMSBRIDGE_NAMESPACES-}" ]; then
    unshare --mount true 2>/dev/null || {
        lane p11-kit
        missing 'root, and no mount namespaces'
        lane_end
    }
    KMSBRIDGE_NAMESPACES=1 exec unshare --mount --propagation private "$BASH" "$0" "$@"
fi
lane p11-kit p11-kit p11tool "$proxy" "$client"

token
key rsa rsa
key ec ec
certify rsa 'p11-kit lane'
serve
mkdir "$tmp/modules"
# as it is installed, with another place
sed "s|^module: .*|module: $module|" "$top/conf/kmsbridge.module.in" >"$tmp/modules/kmsbridge.module"
if [ "$(id -u)" -eq 0 ]; then
    mount --bind "$tmp/modules" "$modules"
else
    mkdir -p "$XDG_CONFIG_HOME/pkcs11"
    mv "$tmp/modules" "$XDG_CONFIG_HOME/pkcs11/modules"
fi
export GNUTLS_PIN=$PIN
printf 'a text to be signed\n' >"$tmp/text"

run p11-kit list-modules
check 'list-modules' says '^kmsbridge:'
check 'list-modules: the token' said "token: $TOKEN"
for flag in rng login-required token-initialized user-pin-initialized; do
    check "list-modules: the token's flag $flag" said "^ *$flag\$"
done
run p11tool --list-tokens
check 'p11tool finds it' says "token=$TOKEN"
run p11tool --login --test-sign "$(uri ec ';type=private')"
check 'p11tool signs with it' says ok

id=$(object_id privkey rsa)
exchange() { # NAME MODULE: what a program sees through it
    local name=$1 through=$2
    run pkcs11-tool --module "$through" -L
    check "$name: -L" says "token label *: ${TOKEN}"
    run pkcs11-tool --module "$through" --token-label "$TOKEN" --login --pin "$PIN" -O
    check "$name: -O: private keys" says 'Private Key Object; RSA'
    check "$name: -O: the certificate" said 'Certificate Object'
    run pkcs11-tool --module "$through" --token-label "$TOKEN" --login --pin "$PIN" --sign -m SHA256-RSA-PKCS --id "$id" \
        --input-file "$tmp/text" --output-file "$tmp/sig"
    check "$name: sign" done_well
    run openssl dgst -sha256 -verify "$tmp/rsa.pub" -signature "$tmp/sig" "$tmp/text"
    check "$name: sign: verified" says 'Verified OK'
    run pkcs11-tool --module "$through" --token-label "$TOKEN" --login --pin "$PIN" --generate-random 32 --output-file "$tmp/random"
    check "$name: random" eval 'done_well && [ "$(stat -c %s "$tmp/random")" -eq 32 ]'
    run pkcs11-tool --module "$through" --token-label "$TOKEN" --login --pin 9999 -O
    check "$name: wrong PIN" refused CKR_PIN_INCORRECT
    run pkcs11-tool --module "$through" --token-label "$TOKEN" --login --pin "$PIN" --sign -m SHA256-RSA-PKCS --id 7f7f \
        --input-file "$tmp/text" --output-file "$tmp/sig"
    check "$name: no such key" refused 'not found'
}
exchange proxy "$proxy"

# p11-kit server: the token alone, on a socket of its own
name=$tmp/p11-kit.sock
background "$tmp/server.log" p11-kit server --foreground --provider "$module" --name "$name" "pkcs11:token=$TOKEN"
server=$child
wait_for test -S "$name"
export P11_KIT_SERVER_ADDRESS=unix:path=$name
exchange server "$client"
for _ in {1..5}; do
    run p11tool --provider "$client" --login --test-sign "$(uri rsa ';type=private')"
    check 'server: p11tool signs' says ok
done
away 'server: sign' pkcs11-tool --module "$client" --token-label "$TOKEN" --login --pin "$PIN" --sign -m SHA256-RSA-PKCS \
    --id "$id" --input-file "$tmp/text" --output-file "$tmp/sig"
stop "$server"
run pkcs11-tool --module "$client" --token-label "$TOKEN" -O
check 'server: it is gone' refused

away 'p11tool signs' p11tool --login --test-sign "$(uri ec ';type=private')"

# the agent is away when the program starts: others are not hurt, and nothing is printed
if [ "$ours" = yes ]; then
    stop_daemon
    run p11-kit list-modules
    check 'list-modules without an agent' says '^kmsbridge:'
    check 'list-modules without an agent: not skipped' lacks 'failed|skipping'
fi
lane_end
