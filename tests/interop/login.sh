#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tokens that want no PIN, or take any; and what another user may do by agent.rules.
# SoftHSM itself always wants its PIN and knows no users: this is about our module only.
# shellcheck disable=SC2016 # check() evaluates its words later
unset MODULE
. "$(dirname "$0")/lib.sh"
lane login p11tool ssh-keygen
token
key web ec
key other ec
login=none
rules="    - uids: [65534]
      keys: [\"we*\"]
      allow: [sign]"
serve
printf 'a text to be signed\n' >"$tmp/text"
openssl dgst -sha256 -binary "$tmp/text" >"$tmp/digest"
chmod 711 "$tmp"
chmod 644 "$tmp/text" "$tmp/digest"
id_of() { pkcs11-tool --module "$module" --token-label "$TOKEN" -O --type privkey 2>/dev/null | awk -v l="$1" '$1 == "label:" { hit = ($2 == l) } $1 == "ID:" && hit { print $2; exit }'; }

run pkcs11-tool --module "$module" -L
check 'none: no login is required' eval 'done_well && lacks "login required"'
run p11tool --provider "$module" --test-sign "$(uri web ';type=private')"
check 'none: p11tool signs, and asks for nothing' says ok
run ssh-keygen -D "$module"
check 'none: ssh-keygen -D' says ecdsa-sha2-nistp256
web=$(id_of web) other=$(id_of other)
check 'none: private keys are seen' test -n "$web" -a -n "$other"

# another user, by the rules
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
if [ "$(id -u)" -eq 0 ] && "${nobody[@]}" test -r "$module" 2>/dev/null; then
    run "${nobody[@]}" pkcs11-tool --module "$module" --token-label "$TOKEN" -O
    check 'a user sees what a rule names' says 'label: *web$'
    check 'a user sees nothing else' lacks 'label: *other$'
    run "${nobody[@]}" p11tool --provider "$module" --test-sign "$(uri web ';type=private')"
    check 'a user signs with it' says ok
    run "${nobody[@]}" p11tool --provider "$module" --test-sign "$(uri other ';type=private')"
    check 'a user does not sign with another key' refused
    run "${nobody[@]}" pkcs11-tool --module "$module" --token-label "$TOKEN" --keygen --key-type AES:32 --label web-new
    check 'a user makes no key' refused CKR_
    run "${nobody[@]}" pkcs11-tool --module "$module" --token-label "$TOKEN" --delete-object --type privkey --id "$web"
    check 'a user destroys no key' refused 'CKR_'
    check 'the audit has it' grep -q '"uid":65534.*"op":"sign".*"verdict":"ok"' "$tmp/audit.log"
    check 'the audit has what was denied' grep -q '"uid":65534.*"verdict":"denied"' "$tmp/audit.log"
    run setpriv --reuid 65533 --regid 65533 --clear-groups pkcs11-tool --module "$module" -L
    check 'a user without a rule sees no token' eval 'lacks "token label"'
else
    missing 'not root, or others cannot read the module: no other user'
fi

stop_daemon
login=any
configuration
start_daemon
for pin in 1234 anything; do
    run pkcs11-tool --module "$module" --token-label "$TOKEN" --login --pin "$pin" -O
    check "any: PIN $pin" says 'label: *other$'
done
run pkcs11-tool --module "$module" --token-label "$TOKEN" -O
check 'any: private keys only after a login' lacks 'Private Key Object'
lane_end
