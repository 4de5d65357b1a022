#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# OpenSSL 3.0 with libengine-pkcs11-openssl: signatures, decryption, requests, TLS with the server's and
# the client's key in the token. curl with a client certificate the same way.
# shellcheck disable=SC2016 # check() evaluates its words later
. "$(dirname "$0")/lib.sh"
lane openssl curl
engine=$(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
need "$engine"

token
key rsa rsa
key ec ec
key client rsa
certify rsa localhost
certify ec localhost
certify client 'openssl client'
serve
configure() { # PIN: OpenSSL's configuration to $OPENSSL_CONF
    export OPENSSL_CONF=$tmp/openssl-$1.cnf
    cat >"$OPENSSL_CONF" <<END
openssl_conf = openssl_init
[openssl_init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
dynamic_path = $engine
MODULE_PATH = $module
PIN = $1
init = 0
[req]
distinguished_name = name
[name]
END
}
configure "$PIN"
use=(-engine pkcs11 -keyform engine)
printf 'a text to be signed\n' >"$tmp/text"
head -c 100 "$tmp/text" >"$tmp/other"
echo 'and more' >>"$tmp/other"

run openssl engine -t pkcs11
check 'the engine' says '\[ available \]'
for row in 'rsa sha256' 'rsa sha512' 'ec sha256' 'ec sha384'; do
    read -r key hash <<<"$row"
    run openssl dgst "-$hash" "${use[@]}" -sign "$(uri "$key")" -out "$tmp/sig" "$tmp/text"
    check "sign: $row" done_well
    run env -u OPENSSL_CONF openssl dgst "-$hash" -verify "$tmp/$key.pub" -signature "$tmp/sig" "$tmp/text"
    check "verify: $row" says 'Verified OK'
    run env -u OPENSSL_CONF openssl dgst "-$hash" -verify "$tmp/$key.pub" -signature "$tmp/sig" "$tmp/other"
    check "verify: $row: another text" refused 'Verification failure'
    run openssl dgst "-$hash" "${use[@]}" -prverify "$(uri "$key" ';type=private')" -signature "$tmp/sig" "$tmp/text"
    check "verify with the engine: $row" says 'Verified OK'
done
run openssl dgst -sha256 "${use[@]}" -sign "$(uri rsa)" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 \
    -out "$tmp/sig" "$tmp/text"
check 'sign: rsa, PSS' done_well
run env -u OPENSSL_CONF openssl dgst -sha256 -verify "$tmp/rsa.pub" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 \
    -signature "$tmp/sig" "$tmp/text"
check 'verify: rsa, PSS' says 'Verified OK'
run openssl dgst -sha256 "${use[@]}" -sign "pkcs11:token=$TOKEN;id=$(object_id privkey ec | sed 's/../%&/g');type=private" \
    -out "$tmp/sig" "$tmp/text"
check 'sign: by CKA_ID' done_well
run env -u OPENSSL_CONF openssl dgst -sha256 -verify "$tmp/ec.pub" -signature "$tmp/sig" "$tmp/text"
check 'verify: by CKA_ID' says 'Verified OK'
env -u OPENSSL_CONF openssl pkeyutl -encrypt -pubin -inkey "$tmp/rsa.pub" -in "$tmp/text" -out "$tmp/sealed"
run openssl pkeyutl -decrypt "${use[@]}" -inkey "$(uri rsa)" -in "$tmp/sealed" -out "$tmp/opened"
check 'decrypt: rsa' same "$tmp/opened" "$tmp/text"
env -u OPENSSL_CONF openssl pkeyutl -encrypt -pubin -inkey "$tmp/rsa.pub" -in "$tmp/text" -out "$tmp/sealed" -pkeyopt rsa_padding_mode:oaep
run openssl pkeyutl -decrypt "${use[@]}" -inkey "$(uri rsa)" -in "$tmp/sealed" -out "$tmp/opened" -pkeyopt rsa_padding_mode:oaep
check 'decrypt: rsa, OAEP' same "$tmp/opened" "$tmp/text"
run openssl pkey -engine pkcs11 -inform engine -pubin -in "$(uri ec ';type=public')" -outform DER -out "$tmp/read.spki"
check 'the public key' same "$tmp/read.spki" "$tmp/ec.spki"

for key in rsa ec; do
    run openssl req -new "${use[@]}" -key "$(uri "$key")" -subj "/CN=request of $key" -out "$tmp/request.pem"
    check "a request: $key" done_well
    run env -u OPENSSL_CONF openssl req -in "$tmp/request.pem" -noout -verify
    check "a request: $key: verified" says 'verify OK'
    run openssl req -new -x509 "${use[@]}" -key "$(uri "$key")" -subj "/CN=self $key" -days 2 -out "$tmp/self.pem"
    check "a certificate of its own: $key" done_well
    run env -u OPENSSL_CONF openssl verify -CAfile "$tmp/self.pem" "$tmp/self.pem"
    check "a certificate of its own: $key: verified" says ': OK'
done

run openssl dgst -sha256 "${use[@]}" -sign "$(uri nobody)" -out "$tmp/sig" "$tmp/text"
check 'no such key' refused_by_us 'not found|could not|no key|unable'
configure 9999
run openssl dgst -sha256 "${use[@]}" -sign "$(uri rsa)" -out "$tmp/sig" "$tmp/text"
check 'wrong PIN' refused_by_us 'login|PIN|could not'
configure "$PIN"

# --- TLS -----------------------------------------------------------------------------------------

serve_tls() { # KEY MORE...
    local key=$1
    shift
    free_port
    background "$tmp/serv.log" openssl s_server -accept "127.0.0.1:$port" -www "${use[@]}" -key "$(uri "$key")" \
        -cert "$tmp/$key.pem" -CAfile "$tmp/ca.pem" "$@"
    serv=$child
    listening "$port" "$serv" "$tmp/serv.log"
}
get() { run curl --silent --show-error --max-time 20 --cacert "$tmp/ca.pem" "$@" "https://localhost:$port/"; }
for key in rsa ec; do
    serve_tls "$key"
    for version in 1_2 1_3; do
        run env -u OPENSSL_CONF openssl s_client -connect "127.0.0.1:$port" -CAfile "$tmp/ca.pem" -verify_return_error \
            -verify_hostname localhost "-tls$version"
        check "TLS $version with $key" says 'Verify return code: 0'
    done
    for _ in {1..10}; do
        OPENSSL_CONF='' get
        check "curl, with $key" says 's_server'
    done
    stop "$serv"
done
serve_tls rsa -Verify 1 -verify_return_error
OPENSSL_CONF='' get
check 'curl without a client certificate' refused 'alert|certificate required|error'
get --engine pkcs11 --key-type ENG --key "$(uri client)" --cert "$tmp/client.pem"
check 'curl with a client certificate, its key in the token' says 's_server'
check 'curl with a client certificate: its name arrives' said 'CN *= *openssl client'
get --engine pkcs11 --key-type ENG --key "$(uri nobody)" --cert "$tmp/client.pem"
check 'curl with a key that is not there' refused_by_us
get --engine pkcs11 --key-type ENG --key "$(uri ec)" --cert "$tmp/client.pem"
check 'curl with a key of another certificate' refused_by_us
stop "$serv"

away 'sign' openssl dgst -sha256 "${use[@]}" -sign "$(uri rsa)" -out "$tmp/sig" "$tmp/text"
lane_end
