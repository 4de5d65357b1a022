#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kmsbridged with its KEK in the fake of Alibaba Cloud KMS, by RRSA: KMS v2 from kmsbridgectl, an
# automatic rotation that no listing waits for, a key that is disabled, and PKCS#11 applications
# through the agent. What ActionTrail calls a request stands in the audit's line.
# shellcheck disable=SC2154 # what those set
. "$(dirname "$0")/fakes.sh"
. "$(dirname "$0")/checks.sh"
lane=alibaba_kms
fake_start "$lane"
for tool in curl pkcs11-tool openssl; do
    command -v "$tool" >/dev/null || fake_without "there is no $tool"
done
daemon=$build/kmsbridge/kmsbridged ctl=$build/tools/kmsbridgectl
module=$build/pkcs11/.libs/kmsbridge-pkcs11.so
[ -e "$module" ] || module=$build/.libs/kmsbridge-pkcs11.so

control() { curl -sS --fail-with-body --max-time 10 -d "$1" "http://127.0.0.1:$(fake_field control)/"; } # JSON
text_of() { sed -n "s/.*\"$1\": \"\\([^\"]*\\)\".*/\\1/p"; } # FIELD

key=$(control '{"do":"key","alias":"kmsbridge-kek"}' | text_of id)
control '{"do":"key","alias":"web","spec":"EC_P256"}' >/dev/null
control '{"do":"key","alias":"mac","spec":"HMAC_SHA_256"}' >/dev/null
sm4=$(control '{"do":"key","alias":"sm4","spec":"Aliyun_SM4"}' | text_of id)
control '{"do":"token"}' | text_of token >"$tmp/token"
(
    umask 077
    cat >"$tmp/kmsbridge.yaml" <<YAML
version: 1
backends:
  - name: alibaba
    type: alibaba
    alibaba:
      endpoint: https://localhost:$(fake_field tls)
      ca_file: $tmp/ca.pem
      sts_endpoint: http://127.0.0.1:$(fake_field sts)
      credentials: rrsa
      role_arn: "$(fake_field role_arn)"
      oidc_provider_arn: "$(fake_field provider_arn)"
      oidc_token_file: $tmp/token
      encryption_context: [cluster=test]
      instance: kst-hzz0123456789
kms:
  socket: $tmp/kms.sock
  backend: alibaba
  key: kmsbridge-kek
  probe_interval: 1s
  refresh_interval: 1h
agent:
  socket: $tmp/agent.sock
  tokens:
    - {backend: alibaba, keys_ttl: 1s}
audit:
  file: $tmp/audit.log
YAML
)
"$daemon" --config "$tmp/kmsbridge.yaml" >"$tmp/daemon.log" 2>&1 </dev/null &
daemon_pid=$!
# by the trap
# shellcheck disable=SC2317
leave() {
    local rc=$?
    kill "$daemon_pid" ${sm4_pid:+"$sm4_pid"} 2>/dev/null
    wait "$daemon_pid" ${sm4_pid:+"$sm4_pid"} 2>/dev/null
    [ "$failed" -eq 0 ] || { rc=1 && tail -n 15 "$tmp/daemon.log"; }
    (exit "$rc")
    fake_stop
}
trap leave EXIT

# policy NAME...: from here on the identity may do what these examples of conf/alibaba/ name, and no more
policy() {
    local name all=
    for name in "$@"; do all="$all${all:+,}$(cat "$top/conf/alibaba/ram-policy$name.json")"; done
    control "{\"do\":\"policy\",\"policies\":[$all]}" >/dev/null || bad "no policy $*"
}
policy ''
key_id() { grep -o 'ali1-[0-9a-f]\{40\}' | head -n 1; }

# --- what conf/alibaba/ hands out, on the fake; alibaba-instance.yaml: alibaba_endpoints.sh -------

where="endpoint: https://localhost:$(fake_field tls)\n      ca_file: $tmp/ca.pem"
example() { # NAME [SED]
    sed -e "s|^ *region: .*||; s|network: .*|$where|; s|/run/kmsbridge/kms.sock|$tmp/other.sock|; ${2-}" \
        "$top/conf/alibaba/alibaba-$1.yaml" >"$tmp/example.yaml"
    chmod 600 "$tmp/example.yaml"
    said=$(timeout 20 "$daemon" --check --config "$tmp/example.yaml" 2>&1 | tail -n 1)
    if [[ $said =~ 'good; KEK ali1-'[0-9a-f]+' encrypts and decrypts' ]]; then good "the example alibaba-$1.yaml"; else
        bad "the example alibaba-$1.yaml: $said"
    fi
}
(umask 077 && fake_field secret >"$tmp/secret" &&
    printf '[default]\ntype = access_key\naccess_key_id = %s\naccess_key_secret = %s\n' \
        "$(fake_field access_key)" "$(fake_field secret)" >"$tmp/alibaba.ini" &&
    printf '{"current": "a", "profiles": [{"name": "a", "mode": "AK", "access_key_id": "%s", "access_key_secret": "%s"}]}\n' \
        "$(fake_field access_key)" "$(fake_field secret)" >"$tmp/aliyun.json")
imds="s|http://100.100.100.200|http://127.0.0.1:$(fake_field imds)|"
example access-key "s|LTAI5tExample|$(fake_field access_key)|; s|/etc/kmsbridge/alibaba-secret|$tmp/secret|"
ALIBABA_CLOUD_ACCESS_KEY_ID=$(fake_field access_key) ALIBABA_CLOUD_ACCESS_KEY_SECRET=$(fake_field secret) \
    example environment
example rrsa "s|role_arn: .*|role_arn: $(fake_field role_arn)|; s|oidc_provider_arn: .*|oidc_provider_arn: $(fake_field provider_arn)|; s|oidc_token_file: .*|oidc_token_file: $tmp/token|; s|sts_endpoint: .*|sts_endpoint: http://127.0.0.1:$(fake_field sts)|"
example cli "s|/etc/kmsbridge/aliyun.json|$tmp/aliyun.json|"
example profile "s|/etc/kmsbridge/alibaba.ini|$tmp/alibaba.ini|"
example ecs "$imds"
example uri "s|credentials_uri: .*|credentials_uri: http://127.0.0.1:$(fake_field uri)/credentials|"

# --- KMS v2 --------------------------------------------------------------------------------------

kms_soon 'Status is well' 'ok.*ali1-[0-9a-f]{40}|ali1-[0-9a-f]{40}.*ok'
head -c 32 /dev/urandom >"$tmp/plain"
timeout 20 "$ctl" kms encrypt --socket "$tmp/kms.sock" <"$tmp/plain" >"$tmp/record1"
round_trip 'encrypted and decrypted' "$tmp/record1"
first=$(key_id <<<"$said")
# audited OP VERDICT ACTION: the last line of the audit about it has the request id that the service gave
# such an action, so that ActionTrail finds it
audited() {
    local line id action
    line=$(grep "\"op\":\"$1\"" "$tmp/audit.log" | grep "\"verdict\":\"$2\"" | tail -n 1)
    id=$(sed -n 's/.*"request_id":"\([^"]*\)".*/\1/p' <<<"$line")
    action=$(control "{\"do\":\"whose\",\"id\":\"$id\"}" | text_of action)
    if [ "$action" = "$3" ]; then good "the audit of $1 ($2) has the request id of $3"; else
        bad "the audit of $1 ($2) has \"$id\" of \"$action\", not one of $3: $line"
    fi
}
audited encrypt ok Encrypt
audited decrypt ok Decrypt
# the service rotates; the very next encryption is under the new version, and says so
control "{\"do\":\"rotate\",\"key\":\"$key\"}" >/dev/null
timeout 20 "$ctl" kms encrypt --socket "$tmp/kms.sock" <"$tmp/plain" >"$tmp/record2"
second=$(key_id <"$tmp/record2")
if [ -n "$second" ] && [ "$second" != "$first" ]; then good 'a rotation is followed'; else bad "still $first: $(head -c 300 "$tmp/record2")"; fi
kms_soon 'Status says the same' "ok.*$second|$second.*ok"
round_trip 'under the new version' "$tmp/record2"
round_trip 'and what the old one encrypted' "$tmp/record1"

said=$(timeout 20 "$ctl" keys rotate --config "$tmp/kmsbridge.yaml" 2>&1 | tr '\n' ' ')
if [[ $said == *Forbidden.NoPermission* ]]; then good "the KEK's policy makes no version"; else bad "keys rotate with the KEK's policy: $said"; fi
policy -admin ''
said=$(timeout 20 "$ctl" keys rotate --config "$tmp/kmsbridge.yaml" 2>&1 | tr '\n' ' ')
third=$(key_id <<<"$said")
if [ -n "$third" ] && [ "$third" != "$second" ] && [[ $said == *active* ]]; then good 'keys rotate'; else bad "keys rotate: $said"; fi
timeout 20 "$ctl" kms encrypt --socket "$tmp/kms.sock" <"$tmp/plain" >"$tmp/record3"
if grep -q "$third" "$tmp/record3"; then good 'is what encrypts next'; else bad "not $third: $(head -c 300 "$tmp/record3")"; fi
second=$third
control "{\"do\":\"state\",\"key\":\"$key\",\"state\":\"Disabled\"}" >/dev/null
kms_soon 'a disabled key is told' 'FAILED_PRECONDITION'
control "{\"do\":\"state\",\"key\":\"$key\",\"state\":\"Enabled\"}" >/dev/null
kms_soon 'and is well again' "ok.*$second|$second.*ok"
sleep 1.1
control '{"do":"expire"}' >/dev/null
round_trip 'expired credentials are renewed' "$tmp/record2"

# --- KMS v2 with an SM4 key ------------------------------------------------------------------------

sed -e "s|$tmp/kms.sock|$tmp/sm4.sock|; s|key: kmsbridge-kek|key: sm4|; /^agent:/,\$d" "$tmp/kmsbridge.yaml" >"$tmp/sm4.yaml"
chmod 600 "$tmp/sm4.yaml"
"$daemon" --config "$tmp/sm4.yaml" >"$tmp/sm4.log" 2>&1 </dev/null &
sm4_pid=$!
for _ in {1..75}; do
    timeout 20 "$ctl" kms status --socket "$tmp/sm4.sock" >/dev/null 2>&1 && break
    sleep 0.2
done
under_sm4() { timeout 20 "$ctl" kms "$1" --socket "$tmp/sm4.sock" <"$2" 2>&1; } # VERB FILE
under_sm4 encrypt "$tmp/plain" >"$tmp/sm4-record1"
control "{\"do\":\"rotate\",\"key\":\"$sm4\"}" >/dev/null
under_sm4 encrypt "$tmp/plain" >"$tmp/sm4-record2"
then=$(key_id <"$tmp/sm4-record1") now=$(key_id <"$tmp/sm4-record2")
if [ -n "$then" ] && [ -n "$now" ] && [ "$then" != "$now" ] && [ "$now" != "$second" ]; then good 'an SM4 key is a KEK whose rotation is followed'; else
    bad "under SM4: \"$then\", then \"$now\": $(tail -n 3 "$tmp/sm4.log")"
fi
for record in 1 2; do
    if under_sm4 decrypt "$tmp/sm4-record$record" | cmp -s - "$tmp/plain"; then good "... and decrypts (record $record)"; else
        bad "SM4, record $record: $(under_sm4 decrypt "$tmp/sm4-record$record" | head -c 300)"
    fi
done
kill "$sm4_pid" && wait "$sm4_pid" 2>/dev/null
sm4_pid=
# what one KEK sealed is no other's, of whatever kind
if timeout 20 "$ctl" kms decrypt --socket "$tmp/kms.sock" <"$tmp/sm4-record1" >/dev/null 2>&1; then bad "the AES key decrypts what SM4 encrypted"; else good '... and no other KEK does'; fi

# --- PKCS#11 -------------------------------------------------------------------------------------

policy -agent
export KMSBRIDGE_AGENT=$tmp/agent.sock
# An envelope: the wrapped key is the service's own ciphertext, base64 text as it came.
envelope() { timeout 60 "$build/tests/services/envelope" "$module" kmsbridge-kek "$@" >"$tmp/out" 2>&1; }
if envelope seal "$tmp/sealed"; then good 'the key of an envelope is wrapped'; else bad "wrap: $(tail -n 1 "$tmp/out")"; fi
if envelope open "$tmp/sealed"; then good '... and unwrapped in another process'; else bad "unwrap: $(tail -n 1 "$tmp/out")"; fi
if dd if="$tmp/sealed" bs=1 skip=8 count=64 2>/dev/null | grep -qE '^[A-Za-z0-9+/]{64}$'; then
    good '... and is the ciphertext of the service, unchanged'
else
    bad "not the service's blob: $(dd if="$tmp/sealed" bs=1 skip=8 count=64 2>/dev/null | tr -dc ' -~')"
fi
if envelope datakey "$tmp/sealed-2"; then good 'the service makes a data key'; else bad "data key: $(tail -n 1 "$tmp/out")"; fi
if envelope open "$tmp/sealed-2"; then good '... that another process unwraps'; else bad "unwrap: $(tail -n 1 "$tmp/out")"; fi
audited wrap ok Encrypt
# the version that sealed, as KMS v2 calls it, and not the object, which stands for all of them
if grep '"op":"wrap"' "$tmp/audit.log" | tail -n 1 | grep -q "\"key_id\":\"$second\""; then good "... and of the version"; else
    bad "the audit of wrap has not $second: $(grep '"op":"wrap"' "$tmp/audit.log" | tail -n 1)"
fi
audited data_key ok GenerateDataKey
audited unwrap ok Decrypt
wrapped() { /usr/bin/python3 "$top/tests/services/wrapped.py" "$@"; }
wrapped "$tmp/sealed-2" >"$tmp/wrapped"
if timeout 20 "$ctl" keys rewrap --config "$tmp/kmsbridge.yaml" --aad 'backup 7 of db-1' --in "$tmp/wrapped" --out "$tmp/rewrapped" >"$tmp/out" 2>&1 &&
    ! cmp -s "$tmp/wrapped" "$tmp/rewrapped" && wrapped "$tmp/sealed-2" "$tmp/rewrapped" >"$tmp/sealed-3" && envelope open "$tmp/sealed-3"; then
    good 'keys rewrap, and what came of it opens'
else
    bad "rewrap: $(tail -n 1 "$tmp/out")"
fi
if timeout 20 "$ctl" keys rewrap --config "$tmp/kmsbridge.yaml" --aad other --in "$tmp/wrapped" >/dev/null 2>&1; then bad 'rewrapped with another AAD'; else good '... with its own AAD only'; fi
lists kmsbridge-kek web mac sm4
# it has three versions by now, and is one object, of the CKA_ID that its name makes
one_object() { # NAME [LABEL KEYID]
    local id name
    p11 -O --type secrkey
    id=$(timeout 30 pkcs11-tool --module "$module" -O --type secrkey 2>/dev/null |
        awk -v label="${2:-kmsbridge-kek}" '/label:/ { l = $2 } /^ *ID:/ && l == label { print $2 }')
    name="acs:kms:$(fake_field region):$(fake_field account):key/${3:-$key}"
    if [ "$id" = "$(printf %s "$name" | sha256sum | cut -c 1-40)" ]; then good "$1"; else bad "$1: \"$id\" in: $said"; fi
}
one_object 'one object for all versions'
rotation() { # KEYID: the command
    echo "curl -sS --fail-with-body --max-time 10 -o /dev/null -d '{\"do\":\"rotate\",\"key\":\"$1\"}' http://127.0.0.1:$(fake_field control)/"
}
if envelope rotate "$(rotation "$key")"; then good 'a pinned CKA_ID and its handle outlive a rotation'; else bad "rotate: $(tail -n 1 "$tmp/out")"; fi
if envelope open "$tmp/sealed"; then good '... what was wrapped before opens by it'; else bad "unwrap: $(tail -n 1 "$tmp/out")"; fi
one_object '... and no object is added'
said=$(timeout 20 "$ctl" keys list --config "$tmp/kmsbridge.yaml" 2>&1)
if [ "$(grep -c ' kmsbridge-kek ' <<<"$said")" = 4 ] && [ "$(grep ' kmsbridge-kek ' <<<"$said" | grep -c active)" = 1 ]; then
    good 'keys list has each of the versions, one of them active'
else
    bad "keys list: $said"
fi
# what is listed again because the service failed halfway is there once
control '{"do":"fault","on":"kms","action":"ListKeyVersions","kind":"slow","seconds":0}' >/dev/null
control '{"do":"fault","on":"kms","action":"ListKeyVersions","kind":"error","status":503,"code":"ServiceUnavailableTemporary"}' >/dev/null
said=$(timeout 20 "$ctl" keys list --config "$tmp/kmsbridge.yaml" 2>&1)
if [ "$(grep -o 'ali1-[0-9a-f]\{40\}' <<<"$said" | sort | uniq -d | wc -l)" = 0 ] && grep -q web <<<"$said"; then good 'keys list names each key once'; else
    bad "keys list: $said"
fi
control '{"do":"clear"}' >/dev/null
signs_well web
audited sign ok AsymmetricSign
# the service signs digests of SHA-256 alone, so no key claims more
p11 -O --type privkey
if [[ $said =~ 'Allowed mechanisms: ECDSA,ECDSA-SHA256 ' ]]; then good 'no hash is claimed that the service does not sign'; else bad "allowed: $said"; fi
head -c 48 /dev/urandom >"$tmp/long-digest"
p11 --sign -m ECDSA --label web -i "$tmp/long-digest" -o "$tmp/signature-2"
if [[ $said == *CKR_DATA_LEN_RANGE* ]]; then good "... and a digest of another length is refused"; else bad "signed or refused otherwise: $said"; fi

# --- SM4 keys: CKK_VENDOR_DEFINED, and otherwise as AES's ------------------------------------------

tool() { timeout 30 pkcs11-tool --module "$module" "$@" >"$tmp/out" 2>&1; }
try() { # NAME COMMAND...
    local name=$1
    shift
    if "$@"; then good "$name"; else bad "$name: $(tail -n 1 "$tmp/out")"; fi
}
id_of() { tool -O --type "$2" && awk -v label="$1" '/label:/ { l = $2 } /^ *ID:/ && l == label { print $2; exit }' "$tmp/out"; } # LABEL TYPE
sm4() { timeout 60 "$build/tests/services/sm4" "$module" "$@" >"$tmp/out" 2>&1; }
try 'an SM4 key says what it is, and seals, up to 6144 bytes' sm4 sm4 look
one_object 'an SM4 key is one object' sm4 "$sm4"
id=$(id_of sm4 secrkey)
p11 -O --type secrkey
if [[ $said =~ 'Secret Key Object; unknown key algorithm 2147483648'\ +label:\ +sm4\ +ID:\ +"$id"\ +Usage:\ +'encrypt, decrypt, wrap, unwrap' ]]; then
    good 'pkcs11-tool shows what it is'
else
    bad "shown: $said"
fi
by_sm4() { timeout 60 "$build/tests/services/envelope" "$module" sm4 "$@" >"$tmp/out" 2>&1; }
try 'a session key is wrapped by SM4' by_sm4 seal "$tmp/sealed-5"
try '... and unwrapped in another process' by_sm4 open "$tmp/sealed-5"
try 'the service makes a data key under SM4' by_sm4 datakey "$tmp/sealed-6"
try '... that another process unwraps' by_sm4 open "$tmp/sealed-6"
audited data_key ok GenerateDataKey
try 'its CKA_ID and its handle outlive a rotation' by_sm4 rotate "$(rotation "$sm4")"
try '... what was wrapped before opens by it' by_sm4 open "$tmp/sealed-5"
wrapped "$tmp/sealed-5" >"$tmp/wrapped"
try 'keys rewrap puts it under the newest version' timeout 20 "$ctl" keys rewrap --config "$tmp/kmsbridge.yaml" --label sm4 \
    --aad 'backup 7 of db-1' --in "$tmp/wrapped" --out "$tmp/rewrapped-2"
wrapped "$tmp/sealed-5" "$tmp/rewrapped-2" >"$tmp/sealed-7"
try '... and that opens' by_sm4 open "$tmp/sealed-7"
if cmp -s -n 48 "$tmp/wrapped" "$tmp/rewrapped-2"; then bad 'rewrapped under the same version'; else good '... and is of another version'; fi
said=$(timeout 20 "$ctl" keys list --config "$tmp/kmsbridge.yaml" 2>&1)
if [ "$(grep -cE ' sm4 .* sm4 +128 ' <<<"$said")" = 3 ] && [ "$(grep -cE ' sm4 .* sm4 +128 .* sealed ' <<<"$said")" = 1 ]; then good 'keys list has its three versions'; else bad "keys list: $said"; fi

# --- MACs ----------------------------------------------------------------------------------------

head -c 3000 /dev/urandom >"$tmp/text"
mac=$(id_of mac secrkey)
try 'C_Sign makes a MAC' tool --sign --id "$mac" --mechanism SHA256-HMAC --input-file "$tmp/text" --output-file "$tmp/mac"
audited mac ok GenerateMac
openssl dgst -sha256 -mac HMAC -macopt "hexkey:$(control '{"do":"material","key":"alias/mac"}' | text_of hex)" \
    -binary -out "$tmp/mac-2" "$tmp/text"
try '... as OpenSSL makes it' cmp "$tmp/mac" "$tmp/mac-2"
macs() { timeout 60 "$build/tests/services/envelope" "$module" mac mac "$tmp/text" >"$tmp/out" 2>&1; }
try 'C_Sign and C_Verify, which finds out another MAC and text' macs
# (VerifyMac is for who may verify only: tests/services/alibaba_mac.c)

# --- keys made and gone, and what is refused: each with its request id ----------------------------

policy -agent -admin
try 'a key is made' tool --keygen --key-type AES:32 --label made
audited generate ok CreateKey
denied() { # OP ACTION COMMAND...
    local op=$1 action=$2
    shift 2
    control "{\"do\":\"deny\",\"action\":\"$action\"}" >/dev/null
    if "$@" >"$tmp/out" 2>&1; then bad "$op: done, though $action is denied"; fi
    control '{"do":"clear"}' >/dev/null
    audited "$op" denied "$action"
}
ctl_kms() { timeout 20 "$ctl" kms "$1" --socket "$tmp/kms.sock" <"$2"; }
denied encrypt Encrypt ctl_kms encrypt "$tmp/plain"
denied decrypt Decrypt ctl_kms decrypt "$tmp/record2"
denied wrap Encrypt envelope seal "$tmp/sealed-4"
denied unwrap Decrypt envelope open "$tmp/sealed"
denied data_key GenerateDataKey envelope datakey "$tmp/sealed-4"
denied sign AsymmetricSign tool --sign --id "$(id_of web privkey)" -m ECDSA -i "$tmp/digest" -o "$tmp/signature"
denied mac GenerateMac tool --sign --id "$mac" --mechanism SHA256-HMAC --input-file "$tmp/text" --output-file "$tmp/mac-2"
denied generate CreateKey tool --keygen --key-type AES:32 --label made-2
made=$(id_of made secrkey)
denied destroy ScheduleKeyDeletion tool --delete-object --type secrkey --id "$made"
try 'a key is destroyed' tool --delete-object --type secrkey --id "$made"
audited destroy ok ScheduleKeyDeletion
# what is made is told as it is listed: one that was told otherwise would have another handle soon
key_id_of() { grep "\"op\":\"$1\"" "$tmp/audit.log" | grep '"verdict":"ok"' | tail -n 1 | key_id; } # OP
if [ -n "$(key_id_of generate)" ] && [ "$(key_id_of generate)" = "$(key_id_of destroy)" ]; then good '... the one that was made'; else
    bad "made $(key_id_of generate), destroyed $(key_id_of destroy)"
fi
try 'an SM4 key is made by C_GenerateKey' sm4 made-sm4 make
audited generate ok CreateKey
try '... and is destroyed' tool --delete-object --type secrkey --id "$(id_of made-sm4 secrkey)"
said=$(timeout 20 "$ctl" keys create --config "$tmp/kmsbridge.yaml" --type sm4 --label created-sm4 2>&1)
if grep -qE ' created-sm4 .* sm4 +128 .* sealed ' <<<"$said"; then good 'keys create --type sm4'; else bad "keys create: $said"; fi
made=$(key_id <<<"$said")
said=$(timeout 20 "$ctl" keys rotate --config "$tmp/kmsbridge.yaml" --label created-sm4 2>&1)
if [ -n "$made" ] && [ -n "$(key_id <<<"$said")" ] && ! grep -q "$made" <<<"$said"; then good '... keys rotate --label'; else bad "keys rotate: $said"; fi
kms_soon 'Status is well again' 'ok.*ali1-[0-9a-f]{40}|ali1-[0-9a-f]{40}.*ok'

if grep -qF "$(cut -c1-200 "$tmp/token")" "$tmp/daemon.log" "$tmp/audit.log"; then bad 'a token is in a log'; else good 'no token in a log'; fi
echo "$lane: $passed passed, $failed failed, 0 skipped"
