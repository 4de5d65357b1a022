#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# GnuTLS: p11tool, certtool, and TLS 1.2 and 1.3 between gnutls-serv and gnutls-cli with their keys in
# the token.
# shellcheck disable=SC2016 # check() evaluates its words later
. "$(dirname "$0")/lib.sh"
lane gnutls p11tool certtool gnutls-serv gnutls-cli

token
key server rsa
key server-ec ec
key client ec
certify server localhost
certify server-ec localhost
certify client 'gnutls client'
serve
export GNUTLS_PIN=$PIN
p11() { run p11tool --provider "$module" "$@"; }
private=';type=private'

p11 --list-tokens
check 'p11tool --list-tokens' says "token=$TOKEN"
p11 --login --list-all "pkcs11:token=$TOKEN"
check 'p11tool --list-all' says "object=server"
for each in server server-ec client; do
    check "p11tool --list-all: private key $each" said "object=$each;type=private"
    check "p11tool --list-all: public key $each" said "object=$each;type=public"
    check "p11tool --list-all: certificate $each" said "object=$each;type=cert"
done
p11 --login --list-all-certs "pkcs11:token=$TOKEN"
check 'p11tool --list-all-certs' eval 'done_well && [ "$(grep -c "Type: X.509 Certificate" "$tmp/out")" -eq 3 ]'
p11 --list-mechanisms "pkcs11:token=$TOKEN"
check 'p11tool --list-mechanisms' says CKM_RSA_PKCS_PSS
p11 --login --info "$(uri server "$private")"
check 'p11tool --info' says 'Type: Private key \(RSA-2048\)'
check 'p11tool --info: it stays where it is' said 'CKA_NEVER_EXTRACTABLE'
p11 --login --export "$(uri server ';type=cert')"
check 'p11tool --export' eval 'done_well && openssl x509 -in "$tmp/out" | cmp -s - <(openssl x509 -in "$tmp/server.pem")'
p11 --login --export-pubkey "$(uri server "$private")"
check 'p11tool --export-pubkey' eval 'done_well && openssl pkey -pubin -in "$tmp/out" -outform DER | cmp -s - "$tmp/server.spki"'
for each in server server-ec; do
    p11 --login --test-sign "$(uri "$each" "$private")"
    check "p11tool --test-sign $each" says 'ok'
done
p11 --login --test-sign --sign-params=rsa-pss "$(uri server "$private")"
check 'p11tool --test-sign, PSS' says 'ok'
p11 --generate-random 32 "pkcs11:token=$TOKEN"
check 'p11tool --generate-random' done_well
GNUTLS_PIN=9999 p11 --login --test-sign "$(uri server "$private")"
check 'p11tool: wrong PIN' refused 'pin'
p11 --login --test-sign "$(uri nobody "$private")"
check 'p11tool: no such key' refused 'not available|no matching|requested'

printf 'cn = gnutls request\norganization = interop\nsigning_key\ntls_www_server\n' >"$tmp/template"
run certtool --provider "$module" --generate-request --load-privkey "$(uri server-ec "$private")" \
    --load-pubkey "$(uri server-ec ';type=public')" --template "$tmp/template" --outfile "$tmp/request.pem"
check 'certtool: a request' done_well
run openssl req -in "$tmp/request.pem" -noout -verify -subject
check 'certtool: openssl verifies the request' says 'verify OK'

# --- TLS -----------------------------------------------------------------------------------------

serve_tls() { # KEY MORE...
    local key=$1
    shift
    free_port
    background "$tmp/serv.log" gnutls-serv --provider "$module" --port "$port" --echo --quiet \
        --x509keyfile "$(uri "$key" "$private;pin-value=$PIN")" --x509certfile "$tmp/$key.pem" \
        --x509cafile "$tmp/ca.pem" "$@"
    serv=$child
    listening "$port" "$serv" "$tmp/serv.log"
}
talk() { # PRIORITY MORE...: a word there and back
    echo 'echo this back' >"$tmp/word"
    feed "$tmp/word" gnutls-cli --provider "$module" --port "$port" --x509cafile "$tmp/ca.pem" --priority "$@" localhost
}
for key in server server-ec; do
    serve_tls "$key" --disable-client-cert
    for version in 1.2 1.3; do
        talk "NORMAL:-VERS-ALL:+VERS-TLS$version"
        check "TLS $version with $key" says 'echo this back'
        check "TLS $version with $key: the version" said "TLS$version"
    done
    talk 'NORMAL:-VERS-ALL:+VERS-TLS1.2:-SIGN-ALL:+SIGN-DSA-SHA256'
    check "TLS with $key: no common signature" refused 'alert|error'
    for _ in {1..10}; do
        talk NORMAL
        check "TLS with $key, again" says 'echo this back'
    done
    stop "$serv"
done
serve_tls server --require-client-cert --verify-client-cert
talk NORMAL
check 'TLS: a client without a certificate' eval 'lacks "^echo this back" || refused'
talk NORMAL --x509keyfile "$(uri client "$private;pin-value=$PIN")" --x509certfile "$tmp/client.pem"
check 'TLS: a client with its key in the token' says 'echo this back'
talk NORMAL --x509keyfile "$(uri client "$private")" --x509certfile "$(uri client ';type=cert')"
check 'TLS: and its certificate, too' says 'echo this back'
stop "$serv"
run gnutls-serv --provider "$module" --port "$port" --x509keyfile "$(uri nobody "$private")" --x509certfile "$tmp/server.pem"
check 'gnutls-serv without its key' refused

away 'p11tool --test-sign' p11tool --provider "$module" --login --test-sign "$(uri server "$private")"
lane_end
