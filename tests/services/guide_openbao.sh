#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# docs/openbao.md, command by command, on a real OpenBao with TLS. What stands for the cluster's API
# server is the stub that vault_auth.sh has, too.
# shellcheck disable=SC2154 # what openbao.sh sets
. "$(dirname "$0")/openbao.sh"
. "$(dirname "$0")/guide.sh"
lane guide_openbao
bao_tls_start
# an engine is there; the document enables its own
api DELETE sys/mounts/transit
guide_tools
ln -s "$bao" "$tmp/bin/bao"
export BAO_ADDR=$bao_url BAO_CACERT=$bao_ca BAO_TOKEN=$bao_root UNSEAL_KEY=$bao_unseal

# the client's certificate, by the CA that the document trusts
certify client 'DNS:kmsbridge'
install -m 0600 "$tmp/client.key" "$CONF/vault-client.key"
install -m 0644 "$tmp/client.pem" "$CONF/vault-client.pem"
export CLIENT_CA=$bao_ca

# the cluster, and a token of its service account kmsbridge
certify stub 'IP:127.0.0.1'
/usr/bin/python3 "$top/tests/services/token_review.py" "$tmp/stub.pem" "$tmp/stub.key" us >"$tmp/stub.log" 2>&1 &
stub=$!
trap 'code=$?; kill $stub 2>/dev/null; (exit "$code"); bao_exit' EXIT
for _ in {1..100}; do
    stub_port=$(sed -n 's/^listening //p' "$tmp/stub.log" 2>/dev/null)
    [ -z "$stub_port" ] || break
    sleep 0.05
done
export KUBE_API=https://127.0.0.1:$stub_port KUBE_CA=$bao_ca SERVICE_ACCOUNT_TOKEN=$tmp/service-account
/usr/bin/python3 - >"$SERVICE_ACCOUNT_TOKEN" <<'PY'
import base64, json, time
name, now = "kmsbridge", int(time.time())
claims = {"iss": "kubernetes", "sub": "system:serviceaccount:kube-system:" + name, "iat": now, "nbf": now - 5,
          "exp": now + 600, "kubernetes.io": {"namespace": "kube-system",
                                              "serviceaccount": {"name": name, "uid": "1"}}}
parts = (json.dumps(part).encode() for part in ({"alg": "RS256", "kid": "k"}, claims))
print(".".join([base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts] + ["c2ln"]), end="")
PY

guide_planted
guide "$top/docs/openbao.md"

# the table of slips: what each is told, by a text that the table has
slip() { # TEXT SED-EXPRESSION: of the configuration
    sed "$2" "$CONF/kmsbridge.yaml" >"$CONF/slip.yaml"
    timeout 60 kmsbridged --check --config "$CONF/slip.yaml" >"$tmp/slip.out" 2>&1
    if grep -qF -e "$1" "$tmp/slip.out" && sed -n '/usual slips/,/^## 4/p' "$top/docs/openbao.md" | grep -qF -e "$1"; then
        guide_say "slip: $1" yes
    else
        guide_say "slip: not \"$1\", or not in the document: $(cat "$tmp/slip.out")" no
    fi
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=services CA' -days 30 \
    -keyout "$tmp/other.key" -out "$tmp/other-ca.pem" 2>/dev/null
for type in rsa-2048 aes256-gcm96; do
    api POST "transit/keys/$type" "{\"type\":\"$type\",\"derived\":$([ "$type" = rsa-2048 ] && echo false || echo true)}" >/dev/null
done
slip 'unable to get local issuer certificate' "s|ca_file: .*|ca_file: $tmp/other-ca.pem|"
slip 'no alternative certificate subject name matches' 's|ca_file: .*|&\n      server_name: other.test|'
slip ' class=protocol' 's|https://|http://|'
slip 'answers 404: namespace not found' 's|ca_file: .*|&\n      namespace: nowhere|'
slip ' class=denied' 's|ca_file: .*|&\n      mount: transitt|'
slip ' class=denied' 's|key: kmsbridge-kek|key: kmsbridge-keg|'
slip '403: permission denied' 's|method: approle|&, mount: approl|'
slip 'invalid role or secret ID' 's|role_id: [^,]*|role_id: other|'
(umask 077 && echo none >"$tmp/none" && echo "$bao_root" >"$tmp/root")
slip 'is refused' "s|auth: .*|auth: {method: token, token: 'file:$tmp/none'}|"
by_root="s|auth: .*|auth: {method: token, token: 'file:$tmp/root'}|"
slip 'has no key named' "$by_root; s|key: kmsbridge-kek|key: kmsbridge-keg|"
slip 'which this backend does not use' "$by_root; s|key: kmsbridge-kek|key: aes256-gcm96|"
slip 'can both encrypt and decrypt' "$by_root; s|key: kmsbridge-kek|key: rsa-2048|"
bao operator seal >/dev/null
slip 'Vault is sealed' 's|x|x|'
guide_end guide_openbao
