#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kmsbridged with its KEK in a real OpenBao: KMS v2 from kmsbridgectl, a rotation that Status follows,
# a sealed server, and PKCS#11 applications through the agent. By the example's policy.
# shellcheck disable=SC2154 # what openbao.sh sets
. "$(dirname "$0")/openbao.sh"
. "$(dirname "$0")/lib.sh"
lane vault_kms
command -v pkcs11-tool >/dev/null || without 'there is no pkcs11-tool'
bao_audit=$tmp/bao-audit.log
bao_tls_start
daemon=$build/kmsbridge/kmsbridged ctl=$build/tools/kmsbridgectl
module=$build/pkcs11/.libs/kmsbridge-pkcs11.so
[ -e "$module" ] || module=$build/.libs/kmsbridge-pkcs11.so

# the policy that we hand out, with the lines for applications switched on
sed -E 's/^# (path .*)$/\1/' "$top/conf/vault/kmsbridge.hcl" >"$tmp/policy.hcl"
/usr/bin/python3 -c 'import json, sys; print(json.dumps({"policy": open(sys.argv[1]).read()}))' \
    "$tmp/policy.hcl" >"$tmp/policy.json"
api PUT sys/policies/acl/kmsbridge "@$tmp/policy.json"
api POST sys/auth/approle '{"type":"approle"}'
api POST auth/approle/role/plugin '{"token_policies":"kmsbridge","token_ttl":"5m"}' >/dev/null
secret "$tmp/secret-id" "$(api POST auth/approle/role/plugin/secret-id | field secret_id)"
api POST transit/keys/kmsbridge-kek '{"type":"aes256-gcm96"}' >/dev/null
# whoever makes keys by it makes none exportable that is there
said=$(curl -sS --max-time 10 --cacert "$bao_ca" -o /dev/null -w '%{http_code}' -d '{"exportable":true}' \
    -H "X-Vault-Token: $(api POST auth/token/create '{"policies":["kmsbridge"]}' | field client_token)" \
    "$bao_url/v1/transit/keys/kmsbridge-kek/config")
says 'the policy leaves the config of the KEK alone' '403$'
api POST transit/keys/web '{"type":"ecdsa-p256"}' >/dev/null
api POST transit/keys/mac '{"type":"hmac","key_size":32}' >/dev/null
(
    umask 077
    {
        printf 'version: 1\nbackends:\n  - '
        entry /dev/stdout "method: approle, role_id: $(api GET auth/approle/role/plugin/role-id | field role_id), secret_id: 'file:$tmp/secret-id'" |
            sed '2,$s/^/    /'
        printf 'kms:\n  socket: %s\n  backend: vault\n  key: kmsbridge-kek\n  refresh_interval: 1s\n' "$tmp/kms.sock"
        printf 'agent:\n  socket: %s\n  tokens:\n    - {backend: vault, keys_ttl: 1s}\naudit:\n  file: %s\n' \
            "$tmp/agent.sock" "$tmp/audit.log"
    } >"$tmp/kmsbridge.yaml"
)
"$daemon" --config "$tmp/kmsbridge.yaml" >"$tmp/daemon.log" 2>&1 </dev/null &
daemon_pid=$!
trap 'code=$?; kill $daemon_pid 2>/dev/null; wait $daemon_pid 2>/dev/null; [ "$failed" -eq 0 ] || tail -n 15 "$tmp/daemon.log"; (exit "$code"); bao_exit' EXIT

kms_soon 'Status is well' 'ok.*kbv1-[0-9a-f]{40}|kbv1-[0-9a-f]{40}.*ok'
head -c 32 /dev/urandom >"$tmp/plain"
timeout 20 "$ctl" kms encrypt --socket "$tmp/kms.sock" <"$tmp/plain" >"$tmp/record1"
round_trip 'encrypted and decrypted' "$tmp/record1"
first=$(grep -o 'kbv1-[0-9a-f]*' <<<"$said" | head -n 1)
api POST transit/keys/kmsbridge-kek/rotate >/dev/null
for _ in {1..75}; do
    kms status
    second=$(grep -o 'kbv1-[0-9a-f]*' <<<"$said" | head -n 1)
    [ "$second" != "$first" ] && break
    sleep 0.2
done
if [ -n "$second" ] && [ "$second" != "$first" ]; then good 'Status follows a rotation'; else bad "Status stays at $first: $said"; fi
timeout 20 "$ctl" kms encrypt --socket "$tmp/kms.sock" <"$tmp/plain" >"$tmp/record2"
round_trip 'under the new version' "$tmp/record2"
round_trip 'and what the old one encrypted' "$tmp/record1"
if grep -q "$second" "$tmp/record2" && grep -q "$first" "$tmp/record1"; then good 'each by its own key_id'; else
    bad "key_ids: $(cat "$tmp/record1" "$tmp/record2" | head -c 400)"
fi

# a call that failed is found in the server's own log
api POST sys/config/auditing/request-headers/x-correlation-id '{"hmac":false}'
sed -E '/"ciphertext"/{s/A(.{8}",)$/B\1/;t;s/.(.{8}",)$/A\1/}' "$tmp/record2" >"$tmp/altered"
kms decrypt --in "$tmp/altered"
id=$(grep '"verdict":"bad_data"' "$tmp/audit.log" | grep -o '"request_id":"kb-[0-9a-f]\{32\}"' | cut -d'"' -f4)
if [ -n "$id" ] && grep -q "\"x-correlation-id\":\[\"$id\"\]" "$bao_audit"; then
    good 'a request that failed has one id in both audit logs'
else
    bad "no request id \"$id\" of a failed decryption: $(tail -n 1 "$tmp/audit.log")"
fi
api PUT sys/seal
kms_soon 'a sealed server is told' 'unhealthy|not ok|error|unavailable|UNAVAILABLE|sealed'
bao_unsealed
kms_soon 'and is well again' "ok.*$second|$second.*ok"

# administration: what is there, and a newer version
said=$(timeout 20 "$ctl" keys list --config "$tmp/kmsbridge.yaml" 2>&1 | tr '\n' ' ')
if [[ $said == *"$first"* && $said == *"$second"* ]]; then good 'keys list'; else bad "keys list: $said"; fi
said=$(timeout 20 "$ctl" keys create --config "$tmp/kmsbridge.yaml" 2>&1 | tr '\n' ' ')
third=$(grep -o 'kbv1-[0-9a-f]*' <<<"$said" | tail -n 1)
if [ -n "$third" ] && [ "$third" != "$second" ]; then good 'keys create'; else bad "keys create: $said"; fi
kms_soon 'is the next version' "ok.*$third|$third.*ok"
said=$(timeout 20 "$ctl" keys rotate --config "$tmp/kmsbridge.yaml" 2>&1 | tr '\n' ' ')
fourth=$(grep -o 'kbv1-[0-9a-f]*' <<<"$said" | tail -n 1)
if [ -n "$fourth" ] && [ "$fourth" != "$third" ] && [[ $said == *active* ]]; then good 'keys rotate'; else bad "keys rotate: $said"; fi
kms_soon 'is the version after that' "ok.*$fourth|$fourth.*ok"
round_trip 'and what the first one encrypted opens' "$tmp/record1"

# PKCS#11
export KMSBRIDGE_AGENT=$tmp/agent.sock
envelope() { timeout 60 "$build/tests/services/envelope" "$module" kmsbridge-kek "$@" >"$tmp/out" 2>&1; }
if envelope datakey "$tmp/sealed" && envelope open "$tmp/sealed"; then
    good 'a data key by the example'\''s policy'
else
    bad "data key: $(tail -n 1 "$tmp/out")"
fi
wrapped() { /usr/bin/python3 "$top/tests/services/wrapped.py" "$@"; }
if envelope seal "$tmp/sealed" '' && wrapped "$tmp/sealed" >"$tmp/wrapped" &&
    timeout 20 "$ctl" keys rotate --config "$tmp/kmsbridge.yaml" >"$tmp/out" 2>&1 &&
    timeout 20 "$ctl" keys rewrap --config "$tmp/kmsbridge.yaml" --in "$tmp/wrapped" --out "$tmp/rewrapped" >"$tmp/out" 2>&1 &&
    ! cmp -s "$tmp/wrapped" "$tmp/rewrapped" && wrapped "$tmp/sealed" "$tmp/rewrapped" >"$tmp/sealed-2" && sleep 1.1 && envelope open "$tmp/sealed-2" ''; then
    good 'keys rotate and rewrap by it, too'
else
    bad "rewrap: $(tail -n 2 "$tmp/out")"
fi
lists kmsbridge-kek web mac
signs_well web
if grep -q '"op":"sign"' "$tmp/audit.log"; then good 'the audit has it'; else bad "no line of audit: $(tail -n 1 "$tmp/audit.log")"; fi
if grep -qF "$bao_root" "$tmp/daemon.log" "$tmp/audit.log" || grep -qF "$(cat "$tmp/secret-id")" "$tmp/daemon.log" "$tmp/audit.log"; then
    bad 'a secret is in a log'
else
    good 'no secret in a log'
fi
lane_end
