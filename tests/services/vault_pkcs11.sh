#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2317 # functions that try() calls
# Programs that load kmsbridge-pkcs11.so use keys of a real OpenBao: an envelope across processes, the
# message API, signatures that OpenSSL verifies, versions, keys made and refused, and what the audit
# log says of it.
. "$(dirname "$0")/openbao.sh"
. "$(dirname "$0")/lib.sh"
command -v pkcs11-tool >/dev/null || { echo "SKIP: no pkcs11-tool"; exit 77; }
lane vault_pkcs11
bao_start
for key in kek:aes256-gcm96 cha:chacha20-poly1305 web:ecdsa-p256 rsa:rsa-2048 ed:ed25519; do
    api POST "transit/keys/${key%:*}" "{\"type\":\"${key#*:}\"}" >/dev/null || exit 1
done
api POST transit/keys/mac '{"type":"hmac","key_size":32}' >/dev/null || exit 1
(umask 077 && printf %s "$bao_root" >"$tmp/token")
(umask 077 && cat >"$tmp/kmsbridge.yaml") <<END
version: 1
log: {level: info, format: text}
backends:
  - name: bao
    type: vault
    vault:
      addresses: ["$bao_url"]
      auth: {method: token, token: "file:$tmp/token"}
agent:
  socket: $tmp/agent.sock
  tokens:
    - {backend: bao, keys_ttl: 1s}
audit: {file: $tmp/audit.log}
END
"$build/kmsbridge/kmsbridged" --config "$tmp/kmsbridge.yaml" >>"$tmp/kmsbridged.log" 2>&1 &
daemon=$!
trap 'code=$?; kill $daemon 2>/dev/null; wait $daemon 2>/dev/null; (exit "$code"); bao_exit' EXIT
export KMSBRIDGE_AGENT=$tmp/agent.sock
module=$build/pkcs11/.libs/kmsbridge-pkcs11.so
tool() { pkcs11-tool --module "$module" "$@"; }
for _ in {1..100}; do
    [ ! -S "$KMSBRIDGE_AGENT" ] || break
    sleep 0.1
done

try() { # NAME COMMAND...: it succeeds
    local name=$1
    shift
    if "$@" >"$tmp/out" 2>&1; then good "$name"; else bad "$name: $(tail -n 3 "$tmp/out")"; fi
}
refused() { # NAME TEXT COMMAND...: it fails and says so
    local name=$1 text=$2
    shift 2
    if "$@" >"$tmp/out" 2>&1; then bad "$name: it worked"; fi
    if grep -q "$text" "$tmp/out"; then good "$name"; else bad "$name: $(cat "$tmp/out")"; fi
}
ids() { # LABEL [TYPE]: its CKA_IDs, as they are found
    tool -O --type "${2:-privkey}" 2>/dev/null | awk -v label="$1" '/label:/ { l = $2 } /^ *ID:/ && l == label { print $2 }'
}
id() { ids "$@" | head -n 1; }

try "the key of an envelope is wrapped" "$build/tests/services/envelope" "$module" kek seal "$tmp/sealed"
try "... and unwrapped in another process" "$build/tests/services/envelope" "$module" kek open "$tmp/sealed"
try "the message API takes the service's IV" "$build/tests/services/envelope" "$module" kek message
asked() { grep -c '"op":"'"$1"'"' "$tmp/audit.log"; } # OP: how often
wraps=$(asked wrap)
try "OpenBao makes a data key" "$build/tests/services/envelope" "$module" kek datakey "$tmp/sealed4"
try "... that another process unwraps" "$build/tests/services/envelope" "$module" kek open "$tmp/sealed4"
if [ "$(asked data_key)" = 1 ] && [ "$(asked wrap)" = "$wraps" ] &&
    grep '"op":"data_key"' "$tmp/audit.log" | grep '"label":"kek"' | grep -qE '"request_id":"[0-9a-f-]{36}"'; then
    good "... and the audit names the operation"
else
    bad "audit: $(grep '"op":"data_key"' "$tmp/audit.log")"
fi
api POST transit/keys/kek/rotate >/dev/null
sleep 1.1
try "... and after a rotation" "$build/tests/services/envelope" "$module" kek open "$tmp/sealed4"
try "a rotated KEK still unwraps" "$build/tests/services/envelope" "$module" kek open "$tmp/sealed"
try "... and wraps" "$build/tests/services/envelope" "$module" kek seal "$tmp/sealed2"
try "... for another process" "$build/tests/services/envelope" "$module" kek open "$tmp/sealed2"

# What was wrapped before a rotation is wrapped anew: by an operator, inside OpenBao, and without an AAD.
ctl=$build/tools/kmsbridgectl
wrapped() { /usr/bin/python3 "$top/tests/services/wrapped.py" "$@"; }
(umask 077 && sed -e '/^agent:/,$d' "$tmp/kmsbridge.yaml" >"$tmp/kms.yaml" &&
    printf 'kms: {socket: %s, backend: bao, key: cha}\n' "$tmp/kms.sock" >>"$tmp/kms.yaml")
try "a key is wrapped without an AAD" "$build/tests/services/envelope" "$module" kek seal "$tmp/sealed6" ""
wrapped "$tmp/sealed6" >"$tmp/wrapped"
before=$(head -c 60 "$tmp/wrapped" | grep -ao 'kbv1-[0-9a-f]\{40\}')
api POST transit/keys/kek/rotate >/dev/null
try "keys rewrap" "$ctl" keys rewrap --config "$tmp/kms.yaml" --in "$tmp/wrapped" --out "$tmp/rewrapped"
after=$(head -c 60 "$tmp/rewrapped" | grep -ao 'kbv1-[0-9a-f]\{40\}')
if [ -n "$after" ] && [ "$after" != "$before" ]; then good "... names the newest version"; else bad "rewrap: $before, then $after"; fi
api POST transit/keys/kek/config '{"min_decryption_version":3}' >/dev/null
sleep 1.1
wrapped "$tmp/sealed6" "$tmp/rewrapped" >"$tmp/sealed7"
try "... and opens when the older ones are retired" "$build/tests/services/envelope" "$module" kek open "$tmp/sealed7" ""
refused "... which what was not rewrapped does not" FAIL "$build/tests/services/envelope" "$module" kek open "$tmp/sealed6" ""
wrapped "$tmp/sealed4" >"$tmp/wrapped"
refused "with an AAD it is refused, and why" 'not there' "$ctl" keys rewrap --config "$tmp/kms.yaml" --in "$tmp/wrapped"
api POST transit/keys/kek/config '{"min_decryption_version":1}' >/dev/null
refused "... by Transit" 'without an AAD' "$ctl" keys rewrap --config "$tmp/kms.yaml" --in "$tmp/wrapped" --aad 'backup 7 of db-1'

# ChaCha20-Poly1305: seals and wraps by the service's nonce, and opens what the API's own users sealed
try "a ChaCha20-Poly1305 KEK wraps" "$build/tests/services/envelope" "$module" cha seal "$tmp/sealed3"
try "... and unwraps in another process" "$build/tests/services/envelope" "$module" cha open "$tmp/sealed3"
try "... so does a data key under it" "$build/tests/services/envelope" "$module" cha datakey "$tmp/sealed5"
try "... in another process" "$build/tests/services/envelope" "$module" cha open "$tmp/sealed5"
api POST transit/encrypt/cha "{\"plaintext\":\"aGVsbG8gY2hhY2hh\",\"associated_data\":\"YWFk\"}" | field ciphertext |
    sed 's/^vault:v1://' | base64 -d >"$tmp/chacha"
try "... and decrypts by CKM_CHACHA20_POLY1305" "$build/tests/services/envelope" "$module" cha chacha "$tmp/chacha"

try "... and is a KEK for kube-apiserver" "$build/kmsbridge/kmsbridged" --check --config "$tmp/kms.yaml"
if grep -q 'KEK kbv1-[0-9a-f]* encrypts and decrypts' "$tmp/out"; then good "... that encrypts and decrypts"; else bad "$(cat "$tmp/out")"; fi

head -c 3000 /dev/urandom >"$tmp/text"
public() { tool --read-object --type pubkey --id "$(id "$1" pubkey)" --output-file "$tmp/$1.der"; }
sign() { # KEY MECHANISM [MORE]
    local key=$1 mechanism=$2
    shift 2
    tool --sign --id "$(id "$key")" --mechanism "$mechanism" --input-file "$tmp/text" \
        --output-file "$tmp/$key.sig" "$@"
}
try "RSA signs" sign rsa SHA256-RSA-PKCS
try "RSA's public key" public rsa
try "OpenSSL verifies RSA" openssl dgst -sha256 -keyform DER -verify "$tmp/rsa.der" -signature "$tmp/rsa.sig" "$tmp/text"
try "RSA-PSS signs" sign rsa SHA256-RSA-PKCS-PSS
try "OpenSSL verifies RSA-PSS" openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 \
    -keyform DER -verify "$tmp/rsa.der" -signature "$tmp/rsa.sig" "$tmp/text"
try "P-256 signs" sign web ECDSA-SHA256 --signature-format openssl
try "P-256's public key" public web
try "OpenSSL verifies P-256" openssl dgst -sha256 -keyform DER -verify "$tmp/web.der" -signature "$tmp/web.sig" "$tmp/text"
try "Ed25519 signs" sign ed EDDSA
try "... and verifies" tool --verify --id "$(id ed)" --mechanism EDDSA --input-file "$tmp/text" --signature-file "$tmp/ed.sig"
try "HMAC" tool --sign --id "$(id mac secrkey)" --mechanism SHA256-HMAC --input-file "$tmp/text" --output-file "$tmp/mac"
openssl pkeyutl -encrypt -pubin -keyform DER -inkey "$tmp/rsa.der" -in <(echo hello) -out "$tmp/oaep" \
    -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256
try "OAEP is decrypted" tool --decrypt --id "$(id rsa)" --mechanism RSA-PKCS-OAEP --hash-algorithm SHA256 \
    --input-file "$tmp/oaep" --output-file "$tmp/plain"
if [ "$(cat "$tmp/plain")" = hello ]; then good "... to what it was"; else bad "OAEP gave $(cat "$tmp/plain")"; fi

# Versions: what is found first for a label is the newest; the old one still verifies what it signed.
before=$(id web)
api POST transit/keys/web/rotate >/dev/null
sleep 1.1
after=$(id web)
if [ "$(ids web | wc -l)" = 2 ] && [ "$after" != "$before" ] && [ "$(ids web | tail -n 1)" = "$before" ]; then
    good "the newest version comes first"
else
    bad "versions: $(ids web | tr '\n' ' '), before $before"
fi
tool --verify --id "$before" --mechanism ECDSA-SHA256 --signature-format openssl --input-file "$tmp/text" \
    --signature-file "$tmp/web.sig" >"$tmp/out" 2>&1
if grep -q 'Signature is valid' "$tmp/out"; then good "the older one verifies"; else bad "older: $(cat "$tmp/out")"; fi

refused "what Transit has not is not made" 'Transit makes no sm4 keys' "$ctl" keys create --config "$tmp/kms.yaml" --type sm4 --label sm4
try "a key is made" tool --keygen --key-type AES:32 --label made
if api GET transit/keys/made | grep -q '"exportable":false'; then good "... in OpenBao, not exportable"; else bad "made"; fi
refused "destroying is denied unless allowed" CKR_ tool --delete-object --type secrkey --id "$(id made secrkey)"
if api GET transit/keys/made >/dev/null; then good "... and nothing is gone"; else bad "made is gone"; fi

# Each operation has a line with the service's request id.
if grep -E '"op":"sign".*"label":"rsa"|"label":"rsa".*"op":"sign"' "$tmp/audit.log" | grep -qE '"request_id":"[0-9a-f-]{36}"'; then
    good "the audit line has OpenBao's request id"
else
    bad "audit: $(grep -m 1 '"op":"sign"' "$tmp/audit.log")"
fi

# What an agent lacks its log says before anybody asks, once, and when it is there again.
listing() { # CAPABILITY on the list of keys, for the token of who may do no more
    api POST sys/policies/acl/listing "{\"policy\":\"path \\\"transit/keys\\\" {capabilities=[\\\"$1\\\"]}\"}" >/dev/null
}
log_says() { # NAME PATTERN: within ten seconds, and once
    for _ in {1..50}; do
        grep -qE "$2" "$tmp/other.log" && break
        sleep 0.2
    done
    if [ "$(grep -cE "$2" "$tmp/other.log")" = 1 ]; then good "$1"; else bad "$1: $(cat "$tmp/other.log")"; fi
}
listing deny
(umask 077 && api POST auth/token/create '{"policies":["listing"]}' | field client_token >"$tmp/listing")
sed "s|$tmp/token|$tmp/listing|; s|agent\.sock|other.sock|; s|audit\.log|other-audit.log|" "$tmp/kmsbridge.yaml" >"$tmp/other.yaml"
"$build/kmsbridge/kmsbridged" --config "$tmp/other.yaml" >"$tmp/other.log" 2>&1 &
other=$!
log_says 'a list that is denied is logged at the start' 'warn agent: token bao: no list of its keys: .*LIST on transit/keys.* class=denied'
KMSBRIDGE_AGENT=$tmp/other.sock tool -O >/dev/null 2>&1
log_says '... and once' 'warn agent: token bao'
listing list
sleep 1.1
KMSBRIDGE_AGENT=$tmp/other.sock tool -O >/dev/null 2>&1
log_says '... and that it is mended' 'info agent: token bao: its keys can be listed again'
kill "$other"
wait "$other"
sed -i 's|{backend: bao, |&keys: [web, webb], |' "$tmp/kmsbridge.yaml"
"$build/kmsbridge/kmsbridged" --check --config "$tmp/kmsbridge.yaml" >"$tmp/other.log" 2>&1
log_says 'a key that is named and not there is told by --check' 'warn agent: agent\.tokens\[0\]\.keys\[1\]: token bao has no key "webb"'
if grep -q "$(cat "$tmp/token")" "$tmp/audit.log" "$tmp/kmsbridged.log"; then bad "a log holds the token"; else good "no log holds the token"; fi
lane_end
