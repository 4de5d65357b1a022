#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The commands of docs/pkcs11.md as they are printed there, in its order, in one folder: every line of
# every ```sh block; then those of the README's block for other programs. Servers are started and asked; the files that a reader has are made here. The
# module is where the page says it is, in a mount namespace of our own.
# shellcheck disable=SC2016,SC2317 # holds() evaluates its words later
unset MODULE
if [ "${KMSBRIDGE_DOCS_NAMESPACE-}" != 1 ] && [ "$(id -u)" = 0 ]; then
    KMSBRIDGE_DOCS_NAMESPACE=1 exec unshare --mount bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"
lane docs p11tool certtool gnutls-serv ssh-keygen ssh-agent keytool jarsigner jar modutil certutil selfserv curl
[ "$(id -u)" = 0 ] || {
    missing "mounting over /usr/local/lib needs root"
    lane_end
}
page=$top/docs/pkcs11.md
TOKEN=hsm

# The page's ports are the page's: they are free, or this lane cannot be.
for port in 8443 8444 8445; do
    ! listens "$port" || {
        missing "port $port of the page is in use"
        lane_end
    }
done
token
key web ec
key rsa rsa
key aes aes
certify web localhost
certify rsa localhost
serve
if ! { mount -t tmpfs none /usr/local/lib && mkdir /usr/local/lib/pkcs11 &&
    cp -L "$module" /usr/local/lib/pkcs11/kmsbridge-pkcs11.so; }; then
    not_ok "the module cannot be put where the page has it"
fi
holds() { eval "$1"; } # a condition for check

# What a reader has: the files that the commands name, and the configurations of the page.
mkdir "$tmp/page"
cd "$tmp/page" || exit 1
block() { # LINE that the block begins with
    awk -v first="$1" '/^```/ { on = !on; next } on && !found && $0 == first { found = 1; show = 1 }
        on && show { print } !on && show { exit }' "$page"
}
printf 'a text to be signed\n' >text
openssl dgst -sha256 -binary text >digest
cp "$tmp/web.pem" "$tmp/ca.pem" .
printf 'cn = localhost\n' >template
printf '%s\n' "$PIN" >pin.txt
block 'openssl_conf = openssl_init' >openssl.cnf
block 'name = kmsbridge' >p11.cfg
check 'the page has a configuration of OpenSSL and of Java' holds '[ -s openssl.cnf ] && [ -s p11.cfg ]'
mkdir app db
echo hello >app/hello
(cd app && jar cf ../app.jar hello) >/dev/null 2>&1
certutil -N -d sql:db --empty-password >/dev/null 2>&1
sed -i "s|^dynamic_path = .*|dynamic_path = $(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so|" openssl.cnf
export OPENSSL_CONF=$PWD/openssl.cnf

# Every line, with what is continued; comments go.
awk '/^```sh$/ { on = 1; next } /^```/ { on = 0 } on' "$page" |
    sed -e ':a' -e '/\\$/{N;s/\\\n *//;ba' -e '}' -e 's/ \{2,\}#.*$//' >"$tmp/commands"
awk '/^```/ { on = !on; next } on && /^MODULE=/ { show = 1 } on && show { print } !on && show { exit }' \
    "$top/README.md" >>"$tmp/commands"
check 'the page has commands' holds '[ "$(wc -l <"$tmp/commands")" -ge 32 ]'
{
    echo 'exec 2>&1'
    echo 'set -u'
} >"$tmp/state"

# A line runs in a shell that has seen the assignments before it.
try() { # COMMAND: exit code to $code, output to $tmp/out
    code=0
    timeout 60 bash -c ". '$tmp/state'; $1" >"$tmp/out" 2>&1 </dev/null || code=$?
    : >"$tmp/err"
}
answers() { # PORT COMMAND: a server, which a client reaches; it ends here unless it is asked for later
    background "$tmp/server.log" bash -c ". '$tmp/state'; exec $2"
    listening "$1" "$child" "$tmp/server.log"
    code=0
    # the client is not to use the token
    OPENSSL_CONF=/dev/null openssl s_client -connect "127.0.0.1:$1" -CAfile ca.pem -verify_return_error \
        </dev/null >"$tmp/out" 2>&1 || code=$?
    check "$2" done_well
}
ran=0
server=
while IFS= read -r command <&3; do
    ran=$((ran + 1))
    case $command in
    export\ * | K=* | MODULE=*)
        echo "$command" >>"$tmp/state"
        try true
        check "$command" done_well
        continue
        ;;
    'openssl s_server '*)
        answers 8443 "$command"
        server=$child
        continue
        ;;
    gnutls-serv\ *)
        answers 8444 "$command"
        stop "$child"
        continue
        ;;
    selfserv\ *)
        answers 8445 "$command"
        stop "$child"
        continue
        ;;
    ssh-agent\ *)
        eval "$(eval ". '$tmp/state'; $command")" >"$tmp/out" 2>&1
        pids+=("${SSH_AGENT_PID:-}")
        export SSH_AUTH_SOCK SSH_AGENT_PID
        code=0
        check "$command" holds '[ -S "${SSH_AUTH_SOCK-}" ]'
        continue
        ;;
    ssh-add\ *) # asks for the PIN
        printf '#!/bin/sh\necho %s\n' "$PIN" >askpass
        chmod +x askpass
        command="DISPLAY=none SSH_ASKPASS_REQUIRE=force SSH_ASKPASS=$PWD/askpass $command"
        ;;
    'ssh -o '*) # needs a host of its own: tests/interop/ssh.sh logs in to a real sshd
        check "$command: in ssh.sh" grep -q PKCS11Provider= "$top/tests/interop/ssh.sh"
        continue
        ;;
    'certutil -R '*)
        id=$(certutil -K -d sql:db -h hsm -f pin.txt | awk '$NF ~ /(hsm:)?rsa$/ { print $(NF - 1); exit }')
        command=${command/KEY-ID/$id}
        ;;
    esac
    try "$command"
    check "$command" done_well
    if [[ $command == curl\ * ]] && [ -n "$server" ]; then
        stop "$server"
        server=
    fi
done 3<"$tmp/commands"
check 'every line was run' holds '[ "$ran" -eq "$(wc -l <"$tmp/commands")" ]'
for made in sig sealed request.pem; do
    check "it made $made" [ -s "$made" ]
done
run env -u OPENSSL_CONF openssl req -in request.pem -noout -verify
check 'the last request is signed' said 'verify OK'
lane_end
