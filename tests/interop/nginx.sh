#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nginx with its TLS keys in the token, through OpenSSL's engine: it forks after the module was loaded,
# reloads under load and replaces its workers.
# shellcheck disable=SC2016,SC2317 # check() evaluates its words later, functions by name
. "$(dirname "$0")/lib.sh"
lane nginx nginx ab curl
engine=$(openssl version -e | sed 's/.*"\(.*\)"/\1/')/pkcs11.so
need "$engine"
requests=${KMSBRIDGE_REQUESTS:-600}

token
key rsa rsa
key ec ec
certify rsa localhost
certify ec localhost
serve
cat >"$tmp/openssl.cnf" <<END
openssl_conf = openssl_init
[openssl_init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
dynamic_path = $engine
MODULE_PATH = $module
init = 1
END
configure() { # KEY
    cat >"$tmp/nginx.conf" <<END
$([ "$(id -u)" -ne 0 ] || echo 'user root;') # SoftHSM's folder is its own
worker_processes 2;
pid $tmp/nginx.pid;
error_log $tmp/error.log info;
env KMSBRIDGE_AGENT;
env SOFTHSM2_CONF;
env OPENSSL_CONF;
daemon off;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $tmp/body; proxy_temp_path $tmp/proxy; fastcgi_temp_path $tmp/fastcgi;
    uwsgi_temp_path $tmp/uwsgi; scgi_temp_path $tmp/scgi;
    ssl_session_cache off;
    ssl_session_tickets off;
    server {
        listen 127.0.0.1:$port ssl;
        server_name localhost;
        ssl_certificate $tmp/$1.pem;
        ssl_certificate_key "engine:pkcs11:$(uri "$1" ";type=private;pin-value=$PIN")";
        ssl_protocols TLSv1.2 TLSv1.3;
        location / { return 200 "nginx says hello\n"; }
    }
}
END
}
nginx() { OPENSSL_CONF=$tmp/openssl.cnf command nginx -p "$tmp" -c "$tmp/nginx.conf" -e "$tmp/error.log" "$@"; }
get() { run curl --silent --show-error --max-time 20 --cacert "$tmp/ca.pem" "$@" "https://localhost:$port/"; }
workers() { ps -o pid= --ppid "$master" | tr -d ' ' | sort; }
replaced() { # OLD: none of them runs, and there are two
    [ "$(workers | wc -l)" -eq 2 ] && ! workers | grep -qxF "$1"
}
load() { # NAME: ab, each request a handshake of its own
    run ab -q -n "$requests" -c 8 "https://127.0.0.1:$port/"
    check "$1" says "^Complete requests: *$requests"
    check "$1: none failed" said '^Failed requests: *0'
    check "$1: none was refused" lacks 'Non-2xx|SSL (read|handshake) failed'
}

free_port
configure rsa
OPENSSL_CONF=$tmp/openssl.cnf run nginx -p "$tmp" -c "$tmp/nginx.conf" -e "$tmp/error.log" -t
check 'nginx -t' says 'test is successful'
OPENSSL_CONF=$tmp/openssl.cnf background "$tmp/nginx.log" nginx
listening "$port" "$child" "$tmp/nginx.log"
master=$(cat "$tmp/nginx.pid")
pids+=("$master")
for version in 1.2 1.3; do
    get "--tlsv$version" --tls-max "$version"
    check "TLS $version" says 'says hello'
done
load 'load with an RSA key'

# reload, three times, with the key replaced, under load
ab -q -n "$((requests * 2))" -c 8 "https://127.0.0.1:$port/" >"$tmp/ab.out" 2>"$tmp/ab.err" </dev/null &
load_pid=$!
pids+=("$load_pid")
for key in ec rsa ec; do
    old=$(workers)
    configure "$key"
    kill -HUP "$master"
    wait_for replaced "$old"
    check "reload: $key: new workers" replaced "$old"
    get --tlsv1.2 --tls-max 1.2 --ciphers "$([ "$key" = ec ] && echo ECDHE-ECDSA-AES128-GCM-SHA256 || echo ECDHE-RSA-AES128-GCM-SHA256)"
    check "reload: $key: it is the key" says 'says hello'
done
wait "$load_pid"
code=$?
cat "$tmp/ab.out" "$tmp/ab.err" >"$tmp/out"
: >"$tmp/err"
check 'reload under load' says "^Complete requests: *$((requests * 2))"
check 'reload under load: none failed' said '^Failed requests: *0'
load 'load with an EC key'

# a worker dies, another takes its place
old=$(workers | head -n 1)
kill -KILL "$old"
wait_for replaced "$old"
get
check 'a new worker' says 'says hello'

# a reload to a key that is not there changes nothing
old=$(workers)
sed -i 's/object=ec/object=nobody/' "$tmp/nginx.conf"
kill -HUP "$master"
wait_for grep -q 'cannot load certificate key' "$tmp/error.log"
check 'reload to a key that is not there' grep -q 'cannot load certificate key' "$tmp/error.log"
get
check 'reload to a key that is not there: the old one serves' says 'says hello'
check 'reload to a key that is not there: by the old workers' test "$(workers)" = "$old"
configure ec

if [ "$ours" = yes ]; then
    stop_daemon
    began=$SECONDS
    get
    check 'without an agent' refused
    check 'without an agent, in time' test $((SECONDS - began)) -le 20
    start_daemon
    get
    check 'the agent is back' says 'says hello'
    old=$(workers)
    check 'the agent is back: the workers are the same' test "$(workers | wc -l)" -eq 2
    load 'load, after the agent was away'
fi
kill -QUIT "$master"
check 'nginx ends' gone "$master"
check 'no worker died' eval '! grep -E "exited on signal (6|7|8|11)" "$tmp/error.log"'
lane_end
