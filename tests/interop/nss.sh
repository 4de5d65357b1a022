#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# NSS: the module in a database of its own, listing, requests, signatures, and TLS between selfserv and
# tstclnt with their keys in the token.
# shellcheck disable=SC2016 # check() evaluates its words later
. "$(dirname "$0")/lib.sh"
lane nss modutil certutil selfserv tstclnt cmsutil signver

token
key server rsa
key server-ec ec
key client rsa
certify server localhost
certify server-ec localhost
certify client 'nss client'
serve
db=sql:$tmp/db
mkdir "$tmp/db"
printf '%s\n' "$PIN" >"$tmp/pin.txt"
printf '9999\n' >"$tmp/pin.wrong"
: >"$tmp/none"
head -c 64 /dev/urandom >"$tmp/noise"

run certutil -N -d "$db" --empty-password
check 'a database' done_well
run modutil -dbdir "$db" -add kmsbridge -libfile "$module" -mechanisms FRIENDLY -force
check 'modutil -add' says 'added to database'
run modutil -dbdir "$db" -list
check 'modutil -list' says "token: $TOKEN"
run modutil -dbdir "$db" -list kmsbridge
check 'modutil -list kmsbridge' says 'Status: Enabled'
run certutil -A -d "$db" -n 'interop CA' -t CT,C,C -a -i "$tmp/ca.pem"
check 'the CA' done_well
run certutil -L -d "$db" -h "$TOKEN" -f "$tmp/pin.txt"
for each in server server-ec client; do check "certutil -L: $each" says "^$TOKEN:$each "; done
run certutil -K -d "$db" -h "$TOKEN" -f "$tmp/pin.txt"
check 'certutil -K: RSA' says '> *rsa '
check 'certutil -K: EC' said '> *ec '
check 'certutil -K: three keys' test "$(grep -c '^<' "$tmp/out")" -eq 3
run certutil -K -d "$db" -h "$TOKEN" -f "$tmp/pin.wrong"
check 'certutil -K: wrong PIN' refused 'password|SEC_ERROR|incorrect'
run certutil -V -d "$db" -n "$TOKEN:server" -u V -f "$tmp/pin.txt"
check 'certutil -V' says 'certificate is valid'

key_id() { certutil -K -d "$db" -h "$TOKEN" -f "$tmp/pin.txt" | awk -v name="$1" '$NF == name || $NF == "'"$TOKEN"':" name { print $(NF - 1) }'; }

# a request with a key of the token, and one with a key that NSS makes there
run certutil -R -d "$db" -h "$TOKEN" -f "$tmp/pin.txt" -k "$(key_id server)" -s 'CN=nss request' -a -o "$tmp/request.pem" -z "$tmp/noise"
check 'certutil -R' done_well
run openssl req -in "$tmp/request.pem" -noout -verify -pubkey
check 'certutil -R: verified' says 'verify OK'
check 'certutil -R: with the key of the token' eval 'openssl req -in "$tmp/request.pem" -noout -pubkey | openssl pkey -pubin -outform DER | cmp -s - "$tmp/server.spki"'
export KMSBRIDGE_LOG=file:$tmp/p11.log,info
for type in 'rsa -g 2048' 'ec -q nistp256'; do
    # shellcheck disable=SC2086 # words
    run certutil -R -d "$db" -h "$TOKEN" -f "$tmp/pin.txt" -k $type -s 'CN=nss new' -a -o "$tmp/request.pem" -z "$tmp/noise"
    if [ "$ours" = yes ]; then # NSS gives no label, and then a CKA_ID of its own: not with keys of a key service
        check "certutil -R: no new key: $type" refused 'unable to generate'
        check "certutil -R: no new key: $type: the log says why" grep -q 'CKA_LABEL is missing' "$tmp/p11.log"
        continue
    fi
    check "certutil -R: a new key: $type" done_well
    run openssl req -in "$tmp/request.pem" -noout -verify
    check "certutil -R: a new key: $type: verified" says 'verify OK'
done

unset KMSBRIDGE_LOG

# signed and encrypted messages
printf 'a text to be signed\n' >"$tmp/text"
run cmsutil -S -d "$db" -f "$tmp/pin.txt" -N "$TOKEN:client" -i "$tmp/text" -o "$tmp/signed.cms" -H SHA256
check 'cmsutil -S' done_well
run openssl cms -verify -inform DER -in "$tmp/signed.cms" -CAfile "$tmp/ca.pem" -purpose any -out "$tmp/opened"
check 'cmsutil -S: openssl verifies' says 'verification successful'
run openssl cms -encrypt -aes256 -outform DER -in "$tmp/text" -out "$tmp/enveloped.cms" -binary "$tmp/client.pem"
run cmsutil -D -d "$db" -f "$tmp/pin.txt" -i "$tmp/enveloped.cms" -o "$tmp/opened"
check 'cmsutil -D' same "$tmp/opened" "$tmp/text"
run cmsutil -D -d "$db" -f "$tmp/pin.wrong" -i "$tmp/enveloped.cms" -o "$tmp/opened"
check 'cmsutil -D: wrong PIN' refused

# --- TLS -----------------------------------------------------------------------------------------

serve_tls() { # NICKNAME MORE...
    free_port
    background "$tmp/serv.log" selfserv -d "$db" -p "$port" -f "$tmp/pin.txt" -V tls1.2:tls1.3 "$@"
    serv=$child
    listening "$port" "$serv" "$tmp/serv.log"
}
talk() { # VERSION MORE...
    printf 'GET / HTTP/1.0\r\n\r\n' >"$tmp/word"
    local version=$1
    shift
    feed "$tmp/word" tstclnt -4 -d "$db" -h localhost -p "$port" -V "$version:$version" -W "$tmp/pin.txt" "$@"
}
# NSS's server copies its key with C_CopyObject and no template, which SoftHSM refuses: ours only
if [ "$ours" = yes ]; then
    for row in '-n server' '-e server-ec'; do
        read -r option nick <<<"$row"
        serve_tls "$option" "$TOKEN:$nick"
        for version in tls1.2 tls1.3; do
            talk "$version"
            check "$version with $nick" says '200 OK'
            run openssl s_client -connect "127.0.0.1:$port" -CAfile "$tmp/ca.pem" -verify_return_error -verify_hostname localhost
            check "openssl s_client with $nick" says 'Verify return code: 0'
        done
        for _ in {1..5}; do
            talk tls1.3
            check "TLS with $nick, again" says '200 OK'
        done
        stop "$serv"
    done
fi
run selfserv -d "$db" -p 1 -f "$tmp/pin.txt" -V tls1.2:tls1.3 -n "$TOKEN:nobody"
check 'selfserv without its key' refused "can't find certificate"

# the client's key in the token
free_port
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days 2 \
    -addext subjectAltName=DNS:localhost -CA "$tmp/ca.pem" -CAkey "$tmp/ca.key" -keyout "$tmp/file.key" -out "$tmp/file.pem" 2>"$tmp/err" ||
    not_ok "openssl makes no certificate: $(cat "$tmp/err")"
background "$tmp/serv.log" openssl s_server -accept "127.0.0.1:$port" -www -key "$tmp/file.key" -cert "$tmp/file.pem" \
    -CAfile "$tmp/ca.pem" -Verify 1 -verify_return_error
serv=$child
listening "$port" "$serv" "$tmp/serv.log"
for version in tls1.2 tls1.3; do
    talk "$version" -n "$TOKEN:client"
    check "$version: a client with its key in the token" says 'CN *= *nss client'
done
talk tls1.2 -n "$TOKEN:nobody"
check 'a client with a key that is not there' lacks 'CN *= *nss client'
stop "$serv"

away 'cmsutil -S' cmsutil -S -d "$db" -f "$tmp/pin.txt" -N "$TOKEN:client" -i "$tmp/text" -o "$tmp/signed.cms" -H SHA256
run modutil -dbdir "$db" -delete kmsbridge -force
check 'modutil -delete' done_well
lane_end
