#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Java 17: SunPKCS11 below keytool, jarsigner, a program that uses what the token has, and a TLS server.
# shellcheck disable=SC2016 # check() evaluates its words later
. "$(dirname "$0")/lib.sh"
lane java keytool jarsigner java jar curl

token
key rsa rsa
key ec ec
key aes aes
certify rsa localhost
certify ec localhost
serve
printf 'name = interop\nlibrary = %s\nslotListIndex = 0\n' "$module" >"$tmp/p11.cfg"
# Every start of a VM costs more than what it does here.
export JAVA_TOOL_OPTIONS='-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto'
classes=$tmp/classes
limit=120 run javac -d "$classes" "$top/tests/interop/java/TlsServer.java" "$top/tests/interop/java/Use.java"
check 'javac' done_well
keystore=(-keystore NONE -storetype PKCS11 -providerClass sun.security.pkcs11.SunPKCS11 -providerArg "$tmp/p11.cfg")

run keytool -list "${keystore[@]}" -storepass "$PIN"
check 'keytool -list' says 'Keystore provider: SunPKCS11-interop'
for each in rsa ec; do check "keytool -list: $each" said "^$each, PrivateKeyEntry"; done
check 'keytool -list: aes' said '^aes, SecretKeyEntry'
run keytool -list "${keystore[@]}" -storepass 9999
check 'keytool: wrong PIN' refused 'CKR_PIN_INCORRECT|password was incorrect|load failed'
run keytool -certreq "${keystore[@]}" -storepass "$PIN" -alias rsa -file "$tmp/request.pem"
check 'keytool -certreq' done_well
run openssl req -in "$tmp/request.pem" -noout -verify
check 'keytool -certreq: verified' says 'verify OK'
run keytool -exportcert "${keystore[@]}" -storepass "$PIN" -alias ec -rfc -file "$tmp/export.pem"
check 'keytool -exportcert' eval 'done_well && openssl x509 -in "$tmp/export.pem" | cmp -s - <(openssl x509 -in "$tmp/ec.pem")'
run keytool -certreq "${keystore[@]}" -storepass "$PIN" -alias nobody -file "$tmp/request.pem"
check 'keytool: no such key' refused 'does not exist'

if [ "$ours" = yes ]; then # keytool makes a session key and copies it to the token
    run keytool -genkeypair "${keystore[@]}" -storepass "$PIN" -alias new -keyalg EC -groupname secp256r1 -dname CN=new
    check 'keytool -genkeypair' refused CKR_TEMPLATE_INCONSISTENT
    check 'keytool -genkeypair: nothing is left' test -z "$(object_id privkey new)"
fi

echo 'a file' >"$tmp/file.txt"
for alias in rsa ec; do
    run jar -cf "$tmp/$alias.jar" -C "$tmp" file.txt
    run jarsigner "${keystore[@]}" -storepass "$PIN" "$tmp/$alias.jar" "$alias"
    check "jarsigner: $alias" says 'jar signed'
    run jarsigner -verify "$tmp/$alias.jar"
    check "jarsigner -verify: $alias" says 'jar verified'
done
run jarsigner "${keystore[@]}" -storepass "$PIN" "$tmp/rsa.jar" nobody
check 'jarsigner: no such key' refused 'not found|cannot be found|must reference'

limit=120 run java -cp "$classes" Use "$tmp/p11.cfg" "$PIN"
cp "$tmp/out" "$tmp/used"
check 'a program' done_well
while IFS= read -r line; do
    case $line in
    ok*) check "a program: ${line#ok }" true ;;
    # neither SoftHSM nor we give the state of an operation away; Java then hashes with its own provider
    'FAIL clone'*CKR_FUNCTION_NOT_SUPPORTED*) check "a program: ${line#FAIL }" test "$ours" = no ;;
    'FAIL clone'*CKR_STATE_UNSAVEABLE*) check "a program: ${line#FAIL }" test "$ours" = yes ;;
    FAIL*) not_ok "a program: ${line#FAIL }" ;;
    esac
done <"$tmp/used"
check 'a program: all of it' test "$(wc -l <"$tmp/used")" -ge 20

for alias in rsa ec; do
    mkfifo "$tmp/$alias.end"
    java -cp "$classes" TlsServer "$tmp/p11.cfg" "$PIN" "$alias" <"$tmp/$alias.end" >"$tmp/$alias.out" 2>"$tmp/tls.err" &
    server=$!
    pids+=("$server")
    exec 9>"$tmp/$alias.end"
    wait_for grep -q '^port' "$tmp/$alias.out" || wait_for grep -q '^port' "$tmp/$alias.out"
    port=$(awk '$1 == "port" { print $2 }' "$tmp/$alias.out")
    listening "${port:-1}" "$server" "$tmp/tls.err"
    for version in 1.2 1.3; do
        run curl --silent --show-error --max-time 20 --cacert "$tmp/ca.pem" "--tlsv$version" --tls-max "$version" "https://localhost:$port/"
        check "TLS $version with $alias" says 'hello from Java'
    done
    for _ in {1..10}; do
        run curl --silent --show-error --max-time 20 --cacert "$tmp/ca.pem" "https://localhost:$port/"
        check "TLS with $alias, again" says 'hello from Java'
    done
    if [ "$ours" = yes ] && [ "$alias" = rsa ]; then
        stop_daemon
        run curl --silent --show-error --max-time 20 --cacert "$tmp/ca.pem" "https://localhost:$port/"
        check 'TLS without an agent' refused
        start_daemon
        run curl --silent --show-error --max-time 20 --cacert "$tmp/ca.pem" "https://localhost:$port/"
        check 'TLS, the agent is back' says 'hello from Java'
    fi
    exec 9>&-
    check "TLS with $alias: the server ends" gone "$server"
done
lane_end
