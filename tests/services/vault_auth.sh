#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How we log in to a real OpenBao, over TLS: every method, renewal, its end, and what is refused.
# shellcheck disable=SC2154 # what openbao.sh sets
. "$(dirname "$0")/openbao.sh"
. "$(dirname "$0")/lib.sh"
lane vault_auth
for tool in softhsm2-util pkcs11-tool; do
    command -v "$tool" >/dev/null || without "there is no $tool"
done
[ -n "$(find /usr/lib -path '*engines-3/pkcs11.so' 2>/dev/null)" ] || without "there is no OpenSSL engine pkcs11"
bao_tls_start
api PUT sys/policies/acl/user '{"policy":"path \"transit/keys/*\" {capabilities=[\"read\"]} path \"transit/encrypt/kek\" {capabilities=[\"update\"]} path \"transit/decrypt/kek\" {capabilities=[\"update\"]}"}'
api POST transit/keys/kek '{"type":"aes256-gcm96"}' >/dev/null
secret "$tmp/root" "$bao_root"
works() { # NAME: seal and open
    does "$1: seal" 'ok kbv1-' seal kek
    does "$1: open" 'ok kbv1-' open
}

logs_in_anew() { # METHOD: its tokens are revoked behind our back; the waist has just been used
    sleep 1.1 # a younger one than a second is not replaced for being refused
    api POST "sys/leases/revoke-prefix/auth/$1"
    works "$1: after a revocation"
    does "$1: one login more" 'ok ready=1 reconnects=1' health
}

# conf/vault/vault-NAME.yaml, with SED's changes for what is ours here, on this server
example() { # NAME [SED]
    sed -e "s|https://vault.example:8200|$bao_url|; s|/etc/kmsbridge/vault-ca.pem|$bao_ca|" \
        -e "s|key: kmsbridge-kek|key: kek|; s|/run/kmsbridge/kms.sock|$tmp/kms.sock|; ${2-}" \
        "$top/conf/vault/vault-$1.yaml" >"$tmp/example.yaml"
    chmod 600 "$tmp/example.yaml"
    said=$(timeout 20 "$build/kmsbridge/kmsbridged" --check --config "$tmp/example.yaml" 2>&1 | tail -n 1)
    says "the example vault-$1.yaml" '.*good; KEK kbv1-[0-9a-f]+ encrypts and decrypts'
}

# TLS: who it is, and by whose word
entry "$tmp/conf" "method: token, token: 'file:$tmp/root'"
opened "$tmp/conf"
works 'TLS'
example token "s|file:/etc/kmsbridge/vault-token|file:$tmp/root|"
does 'eight threads' 'ok 800' storm 800 kek
say health
says 'HTTP/1.1: a connection each' 'ok ready=1 .*connections=[3-8] '
entry "$tmp/h2" "method: token, token: 'file:$tmp/root'" 'http_version: 2'
opened "$tmp/h2"
does 'eight threads over HTTP/2' 'ok 800' storm 800 kek
say health
says 'HTTP/2: one connection' 'ok ready=1 .*connections=[12] '
address=https://localhost:$port entry "$tmp/name" "method: token, token: 'file:$tmp/root'"
opened "$tmp/name"
does 'a certificate of another name' 'protocol .*certificate does not verify' seal kek
address=https://localhost:$port entry "$tmp/sni" "method: token, token: 'file:$tmp/root'" 'server_name: openbao.test'
opened "$tmp/sni"
works 'server_name'
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=services CA' -days 30 \
    -keyout "$tmp/other.key" -out "$tmp/other.pem" 2>/dev/null
ca_file=$tmp/other.pem entry "$tmp/ca" "method: token, token: 'file:$tmp/root'"
opened "$tmp/ca"
does 'another CA of the same name' 'protocol .*certificate does not verify' seal kek
ca_file=$tmp/nowhere.pem entry "$tmp/ca" "method: token, token: 'file:$tmp/root'"
opened "$tmp/ca"
does 'a CA file that is missing' 'auth .*CA certificates' seal kek
address=http://127.0.0.1:$port entry "$tmp/plain" "method: token, token: 'file:$tmp/root'"
opened "$tmp/plain"
does 'no TLS where TLS is spoken' 'protocol .*answers 400' seal kek
address=http://192.0.2.1:$port entry "$tmp/plain" "method: token, token: 'file:$tmp/root'"
opened "$tmp/plain"
says 'no TLS beyond loopback' 'invalid .*https://'

# AppRole; its tokens end after 4 seconds, for good after 8
api POST sys/auth/approle '{"type":"approle"}'
api POST auth/approle/role/plugin '{"token_policies":"user","token_ttl":"4s","token_max_ttl":"8s"}' >/dev/null
role_id=$(api GET auth/approle/role/plugin/role-id | field role_id)
secret "$tmp/secret-id" "$(api POST auth/approle/role/plugin/secret-id | field secret_id)"
entry "$tmp/approle" "method: approle, role_id: $role_id, secret_id: 'file:$tmp/secret-id'"
opened "$tmp/approle"
works approle
example approle "s|role_id: .*|role_id: $role_id|; s|/etc/kmsbridge/vault-secret-id|$tmp/secret-id|"
# twelve seconds: renewed, then logged in anew, by the secret id that stands in the file by then; of
# eight threads never a call that fails
former=$(cat "$tmp/secret-id")
secret "$tmp/secret-id" "$(api POST auth/approle/role/plugin/secret-id | field secret_id)"
api POST auth/approle/role/plugin/secret-id/destroy "{\"secret_id\":\"$former\"}"
for _ in {1..24}; do
    say storm 16 kek
    [[ $said == ok* ]] || break
    sleep 0.5
done
says 'approle: beyond the end of its tokens' 'ok 16'
does 'approle: without a token that was refused' 'ok ready=1 reconnects=0' health
printf '\n\n' >>"$tmp/secret-id"
opened "$tmp/approle"
does 'a secret id of two lines' "auth approle: the secret file:$tmp/secret-id is .*more than a line" seal kek
secret "$tmp/secret-id" 00000000-0000-0000-0000-000000000000
opened "$tmp/approle"
does 'a wrong secret id' 'auth approle: the login at auth/approle.*invalid role or secret ID' seal kek

# wrapped: good once, however often we log in
wrapped=$(curl -sS --cacert "$bao_ca" -H "X-Vault-Token: $bao_root" -H 'X-Vault-Wrap-TTL: 5m' -X POST \
    "$bao_url/v1/auth/approle/role/plugin/secret-id" | field token)
secret "$tmp/wrapped" "$wrapped"
entry "$tmp/wrapped.conf" "method: approle, role_id: $role_id, secret_id: 'file:$tmp/wrapped', secret_id_is_wrapped: true"
opened "$tmp/wrapped.conf"
works 'wrapped secret id'
sleep 4.5
works 'wrapped secret id: after another login'
opened "$tmp/wrapped.conf"
does 'a wrapping token that was used' 'auth approle: the wrapping token .*used already' seal kek

wrapped=$(curl -sS --cacert "$bao_ca" -H "X-Vault-Token: $bao_root" -H 'X-Vault-Wrap-TTL: 5m' -X POST \
    "$bao_url/v1/auth/approle/role/plugin/secret-id" | field token)
secret "$tmp/wrapped" "$wrapped"
example approle-wrapped "s|role_id: .*|role_id: $role_id|; s|/etc/kmsbridge/vault-wrapped-secret-id|$tmp/wrapped|"

# revoked behind our back: one more login
secret "$tmp/secret-id" "$(api POST auth/approle/role/plugin/secret-id | field secret_id)"
api POST auth/approle/role/plugin '{"token_policies":"user","token_ttl":"1h","token_max_ttl":"2h"}' >/dev/null
opened "$tmp/approle"
works 'approle: tokens for an hour'
logs_in_anew approle

# a token of our own, renewable and of three seconds: renewed for as long as we use it, never replaced
own=$(api POST auth/token/create '{"policies":["user"],"ttl":"3s","renewable":true}')
accessor=$(field accessor <<<"$own")
secret "$tmp/own" "$(field client_token <<<"$own")"
entry "$tmp/own.conf" "method: token, token: 'file:$tmp/own'"
opened "$tmp/own.conf"
for _ in {1..14}; do
    say seal kek
    [[ $said == ok* ]] || break
    sleep 0.5
done
says 'token: beyond its first end' ok
does 'token: it was never refused' 'ok ready=1 reconnects=0' health
if api POST auth/token/lookup-accessor "{\"accessor\":\"$accessor\"}" | grep -q '"last_renewal_time":[0-9]'; then
    good 'token: OpenBao has renewed it'
else
    bad 'token: it was not renewed'
fi

# JWT
jwt_start
jwt us >"$tmp/jwt"
chmod 644 "$tmp/jwt" # as the kubelet writes them
entry "$tmp/jwt.conf" "method: jwt, role: plugin, jwt: 'file:$tmp/jwt'"
opened "$tmp/jwt.conf"
works jwt
logs_in_anew jwt
example jwt "s|role: kmsbridge|role: plugin|; s|/var/run/secrets/tokens/vault|$tmp/jwt|"
jwt them >"$tmp/jwt"
opened "$tmp/jwt.conf"
does 'a JWT of somebody else' 'auth jwt: the login at auth/jwt' seal kek
jwt us >"$tmp/jwt"
soon 'another JWT in the file' ok seal kek
for seconds in -86400 86400; do # the clocks of who signs and who verifies differ
    jwt us "$seconds" >"$tmp/jwt"
    opened "$tmp/jwt.conf"
    does "a JWT $seconds seconds away" 'auth jwt: the login at auth/jwt: .*(expired|not yet valid)' seal kek
    jwt us >"$tmp/jwt"
    soon 'another JWT in the file' ok seal kek
done

# Kubernetes: the server asks the API server, here a stub that knows one token
api POST sys/auth/kubernetes '{"type":"kubernetes"}'
certify stub 'IP:127.0.0.1'
/usr/bin/python3 "$top/tests/services/token_review.py" "$tmp/stub.pem" "$tmp/stub.key" us >"$tmp/stub.log" 2>&1 &
stub=$!
trap 'code=$?; kill $stub 2>/dev/null; (exit "$code"); bao_exit' EXIT
for _ in {1..100}; do
    stub_port=$(sed -n "s/^listening //p" "$tmp/stub.log" 2>/dev/null)
    [ -z "$stub_port" ] || break
    sleep 0.05
done
api POST auth/kubernetes/config "{\"kubernetes_host\":\"https://127.0.0.1:$stub_port\",\"kubernetes_ca_cert\":\"$(awk '{printf "%s\\n", $0}' "$bao_ca")\",\"disable_local_ca_jwt\":true}"
api POST auth/kubernetes/role/plugin '{"bound_service_account_names":["kmsbridge"],"bound_service_account_namespaces":["kube-system"],"token_policies":["user"]}' >/dev/null
service_account() { # NAME: a token as kube-apiserver issues them
    local head body now
    now=$(date +%s)
    head=$(printf '{"alg":"RS256","kid":"k"}' | b64url)
    body=$(printf '{"iss":"kubernetes","sub":"system:serviceaccount:kube-system:%s",%s,"kubernetes.io":{"namespace":"kube-system","serviceaccount":{"name":"%s","uid":"1"}}}' \
        "$1" "$(printf '"iat":%d,"nbf":%d,"exp":%d' $((now - 5)) $((now - 5)) $((now + 600)))" "$1" | b64url)
    printf '%s.%s.%s' "$head" "$body" "$(printf '%s.%s' "$head" "$body" | openssl dgst -sha256 -sign "$tmp/jwt.key" -binary | b64url)"
}
service_account kmsbridge >"$tmp/sa"
entry "$tmp/kubernetes.conf" "method: kubernetes, role: plugin, jwt: 'file:$tmp/sa'"
opened "$tmp/kubernetes.conf"
works kubernetes
logs_in_anew kubernetes
example kubernetes "s|role: kmsbridge|role: plugin|; s|/var/run/secrets/kubernetes.io/serviceaccount/token|$tmp/sa|"
service_account default >"$tmp/sa"
opened "$tmp/kubernetes.conf"
does 'a service account that may not' 'auth kubernetes: the login' seal kek

# TLS certificate
api POST sys/auth/cert '{"type":"cert"}'
certify client 'DNS:kmsbridge'
api POST auth/cert/certs/plugin "{\"certificate\":\"$(awk '{printf "%s\\n", $0}' "$bao_ca")\",\"token_policies\":[\"user\"]}"
entry "$tmp/cert.conf" 'method: cert, role: plugin' "certificate: $tmp/client.pem
  key: $tmp/client.key"
opened "$tmp/cert.conf"
works cert
logs_in_anew cert
example cert "s|role: kmsbridge|role: plugin|; s|/etc/kmsbridge/vault-client|$tmp/client|"
# its key is a secret as others are, whoever reads it
chmod 0644 "$tmp/client.key"
opened "$tmp/cert.conf"
does 'cert: a key that everybody may read' "auth cert: $tmp/client.key holds a secret and can be read by everybody" seal kek
chmod 0600 "$tmp/client.key"
soon 'cert: once that is mended' 'ok' seal kek
mv "$tmp/client.key" "$tmp/away.key"
opened "$tmp/cert.conf"
does 'cert: no key' "auth cert: cannot open $tmp/client.key" seal kek
mv "$tmp/away.key" "$tmp/client.key"
# the certificate is replaced, and OpenBao takes the new one alone: the next login shows it, whatever
# connections there are
opened "$tmp/cert.conf"
works 'cert: once more'
certify next 'DNS:kmsbridge-2'
mv "$tmp/next.key" "$tmp/client.key"
mv "$tmp/next.pem" "$tmp/client.pem"
api POST auth/cert/certs/plugin "{\"certificate\":\"$(awk '{printf "%s\\n", $0}' "$bao_ca")\",\"token_policies\":[\"user\"],\"allowed_dns_sans\":[\"kmsbridge-2\"]}"
logs_in_anew cert
entry "$tmp/cert.conf" 'method: cert, role: other' "certificate: $tmp/client.pem
  key: $tmp/client.key"
opened "$tmp/cert.conf"
does 'a certificate role that is none' 'auth cert: the login' seal kek

# and one whose key is in an HSM: OpenSSL's engine opens it
mkdir "$tmp/tokens"
printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$tmp/tokens" >"$tmp/softhsm2.conf"
export SOFTHSM2_CONF=$tmp/softhsm2.conf PKCS11_MODULE_PATH=/usr/lib/softhsm/libsofthsm2.so
(umask 077 && printf 1234 >"$tmp/pin") # without a newline: libp11 would take it for a part
api POST auth/cert/certs/plugin "{\"certificate\":\"$(awk '{printf "%s\\n", $0}' "$bao_ca")\",\"token_policies\":[\"user\"],\"allowed_dns_sans\":[\"kmsbridge*\"]}"
{
    softhsm2-util --init-token --free --label tls --pin 1234 --so-pin 123456 &&
        pkcs11-tool --module "$PKCS11_MODULE_PATH" --token-label tls --login --pin 1234 --keypairgen \
            --key-type EC:prime256v1 --label client --id 01 --usage-sign &&
        pkcs11-tool --module "$PKCS11_MODULE_PATH" --token-label tls --read-object --type pubkey --id 01 \
            --output-file "$tmp/hsm.der" &&
        openssl pkey -pubin -inform DER -in "$tmp/hsm.der" -out "$tmp/hsm.pub" &&
        openssl x509 -new -force_pubkey "$tmp/hsm.pub" -subj /CN=hsm -days 20 -CA "$tmp/ca.pem" \
            -CAkey "$tmp/ca.key" -out "$tmp/hsm.pem" \
            -extfile <(printf 'subjectAltName=DNS:kmsbridge\nextendedKeyUsage=clientAuth\n')
} >"$tmp/hsm.log" 2>&1 || bad "no key in a token: $(tail -n 2 "$tmp/hsm.log")"
entry "$tmp/cert.conf" 'method: cert, role: plugin' "certificate: $tmp/hsm.pem
  key: 'pkcs11:token=tls;object=client;type=private?pin-source=file:$tmp/pin'"
opened "$tmp/cert.conf"
works 'cert with its key in an HSM'
unset SOFTHSM2_CONF PKCS11_MODULE_PATH

# namespaces: the same names there are other keys
api POST sys/namespaces/team >/dev/null
curl -sS --fail --cacert "$bao_ca" -H "X-Vault-Token: $bao_root" -H 'X-Vault-Namespace: team' -X POST \
    -d '{"type":"transit"}' "$bao_url/v1/sys/mounts/transit"
curl -sS --fail --cacert "$bao_ca" -H "X-Vault-Token: $bao_root" -H 'X-Vault-Namespace: team' -X POST \
    -d '{"type":"aes256-gcm96"}' "$bao_url/v1/transit/keys/kek" >/dev/null
opened "$tmp/conf"
does 'in the root namespace' 'ok' seal kek
root_id=$said
entry "$tmp/namespace.conf" "method: token, token: 'file:$tmp/root'" 'namespace: team/'
opened "$tmp/namespace.conf"
works namespace
if [ "$said" != "$root_id" ]; then good 'another identity'; else bad 'two namespaces, one identity'; fi
# and a login there
team() { # METHOD PATH [JSON]
    curl -sS --fail --cacert "$bao_ca" -H "X-Vault-Token: $bao_root" -H 'X-Vault-Namespace: team' -X "$1" \
        ${3:+-d "$3"} "$bao_url/v1/$2"
}
team PUT sys/policies/acl/user '{"policy":"path \"transit/*\" {capabilities=[\"read\",\"update\"]}"}'
team POST sys/auth/approle '{"type":"approle"}'
team POST auth/approle/role/plugin '{"token_policies":"user"}' >/dev/null
secret "$tmp/team-id" "$(team POST auth/approle/role/plugin/secret-id | field secret_id)"
entry "$tmp/team.conf" "method: approle, role_id: $(team GET auth/approle/role/plugin/role-id | field role_id), secret_id: 'file:$tmp/team-id'" \
    'namespace: team'
opened "$tmp/team.conf"
works 'a login of the namespace'
entry "$tmp/root-ns.conf" "method: approle, role_id: $(team GET auth/approle/role/plugin/role-id | field role_id), secret_id: 'file:$tmp/team-id'"
opened "$tmp/root-ns.conf"
does 'which is none outside of it' 'auth approle: the login' seal kek
lane_end
