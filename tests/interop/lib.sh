# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034 # what it sets is for the lanes
# What the lanes share. A lane is one program, or one library, that uses kmsbridge-pkcs11.so: a real
# exchange, and the ways in which it fails. Sourced, not run.
#
# A lane sources this, calls `lane NAME TOOL...`, makes a token (`token`, `key`, `certify`), starts
# what serves it (`serve`), then checks, and calls lane_end last. Whatever happens, all that it
# started ends and all that it made is removed.
#
# MODULE            the module to test: ours when it is not set. With SoftHSM's own, a lane is a check
#                   on itself: keys, PIN and expectations are the same
# KMSBRIDGE_BUILD   the build folder (default: build)
# KMSBRIDGE_CACHE   packages that lanes fetch are kept there (default: ~/.cache/kmsbridge)
# KMSBRIDGE_REQUIRE_ALL=1   what is missing fails the lane instead of being skipped
# VERBOSE=1         name what passed, too
# KMSBRIDGE_KEEP=1  leave the lane's folder

set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
softhsm=${KMS_SOFTHSM:-/usr/lib/softhsm/libsofthsm2.so}
build=${KMSBRIDGE_BUILD:-$top/build}
# lanes use these
# shellcheck disable=SC2034
{
    cache=${KMSBRIDGE_CACHE:-${HOME:-/var/tmp}/.cache/kmsbridge}/interop
    TOKEN=interop PIN=1234 SO_PIN=123456
    python=/usr/bin/python3 # Debian's
}
passed=0 failed=0 skipped=0 code=0
pids=() # what ends with the lane; -PID is a process group
certificates=() # "label file", for the agent's configuration
login=pin       # agent.tokens[].login; a lane may say none or any before serve
rules=''        # agent.rules, YAML; a lane may set it before serve

# --- the lane ------------------------------------------------------------------------------------

lane() { # NAME TOOL...: a tool is a command, or the path of a file
    lane=$1
    shift
    if [ -n "${MODULE-}" ]; then
        ours=no module=$MODULE
    else
        ours=yes module=
    fi
    tmp=$(mktemp -d "${TMPDIR:-/tmp}/kmsbridge-interop.XXXXXX")
    trap lane_exit EXIT
    trap 'exit 130' INT # which of the two it was is seen in the last line
    trap 'exit 143' TERM
    # nothing of the user's own takes part
    export HOME=$tmp/home XDG_CONFIG_HOME=$tmp/home/.config XDG_RUNTIME_DIR=$tmp/run
    mkdir -p "$XDG_CONFIG_HOME" "$XDG_RUNTIME_DIR"
    chmod 700 "$XDG_RUNTIME_DIR"
    unset KMSBRIDGE_AGENT KMSBRIDGE_CONFIG KMSBRIDGE_LOG SOFTHSM2_CONF OPENSSL_CONF CREDENTIALS_DIRECTORY
    unset SSH_AUTH_SOCK SSH_AGENT_PID
    PATH=$PATH:/usr/sbin:/sbin
    need "$softhsm" softhsm2-util pkcs11-tool openssl "$python" "$@"
    if [ "$ours" = yes ]; then
        [ -e "$build/config.status" ] && build=$(cd "$build" && pwd)
        daemon=$build/kmsbridge/kmsbridged
        module=$build/pkcs11/.libs/kmsbridge-pkcs11.so
        [ -e "$module" ] || module=$build/.libs/kmsbridge-pkcs11.so
        for file in "$daemon" "$module"; do
            [ -e "$file" ] || { not_ok "not built: $file" && lane_end; }
        done
    fi
}

# need TOOL...: ends the lane when one is missing.
need() {
    local tool
    for tool in "$@"; do
        case $tool in
        */*) [ -e "$tool" ] && continue ;;
        *) command -v "$tool" >/dev/null 2>&1 && continue ;;
        esac
        missing "there is no $tool"
        lane_end
    done
}

missing() { # WHAT: a part of the lane cannot be done here
    if [ "${KMSBRIDGE_REQUIRE_ALL-}" = 1 ]; then not_ok "missing: $*"; else
        skipped=$((skipped + 1))
        echo "SKIP: $lane: $*"
    fi
}

not_ok() {
    failed=$((failed + 1))
    echo "FAIL: $lane: $*"
}

lane_end() {
    ended=yes
    echo "$lane: $passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ] || exit 1
    [ "$passed" -gt 0 ] || exit 77
    exit 0
}

lane_exit() {
    local rc=$? pid
    trap '' INT TERM
    for pid in "${pids[@]}"; do kill -TERM -- "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do gone "$pid" || kill -KILL -- "$pid" 2>/dev/null; done
    if [ "$failed" -gt 0 ] && [ -s "$tmp/daemon.log" ]; then
        echo "kmsbridged's last words:"
        tail -n 10 "$tmp/daemon.log"
    fi
    if [ "${KMSBRIDGE_KEEP-}" = 1 ]; then echo "left: $tmp"; else rm -rf "$tmp"; fi
    if [ "${ended-}" != yes ]; then # a lane that dies half way has failed
        echo "FAIL: $lane: ended early with exit code $rc"
        echo "$lane: $passed passed, $((failed + 1)) failed, $skipped skipped"
        exit 1
    fi
}

# --- checking ------------------------------------------------------------------------------------

run() { # COMMAND...: exit code to $code, output to $tmp/out and $tmp/err, never longer than a minute
    feed /dev/null "$@"
}
feed() { # FILE COMMAND...: the same with standard input
    local input=$1
    shift
    { timeout -k 5 "${limit:-60}" "$@" >"$tmp/out" 2>"$tmp/err" <"$input"; } 2>/dev/null
    code=$?
}
check() { # NAME COMMAND...: passes when the command does
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        [ -z "${VERBOSE-}" ] || echo "ok: $lane: $name"
    else
        not_ok "$name: $*"
        echo "  exit code $code"
        { tail -c 600 "$tmp/out" && echo && tail -c 600 "$tmp/err"; } 2>/dev/null | tr -d '\0' | sed 's/^/  | /'
    fi
}
ends() { [ "$code" -eq "$1" ]; }
done_well() { ends 0; }
# It said no: by itself (no signal, no time-out) and with these words.
refused() { # TEXT...
    { [ "$code" -gt 0 ] && [ "$code" -lt 124 ]; } || [ "$code" -eq 255 ] || return 1
    while [ $# -gt 0 ]; do
        said "$1" || return 1
        shift
    done
}
# The same; of another module than ours only that it said no: SoftHSM has other words,
# and under OpenSSL's engine it dies at exit.
refused_by_us() {
    if [ "$ours" = yes ]; then refused "$@"; else [ "$code" -gt 0 ]; fi
}
said() { cat "$tmp/out" "$tmp/err" | grep -aqiE -e "$1"; }
says() { ends 0 && said "$1"; } # it did it, and said so
lacks() { ! said "$1"; }
same() { ends 0 && cmp -s "$1" "$2"; }

gone() { # PID: within five seconds
    for _ in {1..100}; do
        kill -0 -- "$1" 2>/dev/null || return 0
        sleep 0.05
    done
    return 1
}
wait_for() { # COMMAND...: within ten seconds
    for _ in {1..200}; do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.05
    done
    return 1
}
listens() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() { # to $port
    for _ in {1..50}; do
        port=$((20000 + RANDOM % 12000))
        listens "$port" || return 0
    done
    return 1
}
background() { # LOG COMMAND...: started, its pid to $child; ends with the lane at the latest
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    pids+=("$child")
}
# listening PORT PID LOG: the server that was started; without it the lane has nothing to go on with.
listening() {
    for _ in {1..600}; do
        listens "$1" && return 0
        kill -0 "$2" 2>/dev/null || break
        sleep 0.05
    done
    not_ok "the server does not start: $(tail -n 3 "$3")"
    lane_end
}
stop() { # PID
    kill "$1" 2>/dev/null
    gone "$1" || kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

# --- the token -----------------------------------------------------------------------------------

direct() { # COMMAND...: with SoftHSM itself, below or beside the module that is tested
    SOFTHSM2_CONF=$tmp/softhsm2.conf "$@"
}
token_tool() {
    direct pkcs11-tool --module "$softhsm" --token-label "$TOKEN" --login --pin "$PIN" "$@" >"$tmp/token.log" 2>&1 || {
        cat "$tmp/token.log"
        not_ok "cannot make the token: pkcs11-tool $*"
        lane_end
    }
}
token() {
    mkdir -p "$tmp/tokens"
    printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$tmp/tokens" >"$tmp/softhsm2.conf"
    direct softhsm2-util --init-token --free --label "$TOKEN" --pin "$PIN" --so-pin "$SO_PIN" >"$tmp/token.log" 2>&1 || {
        cat "$tmp/token.log"
        not_ok "softhsm2-util makes no token"
        lane_end
    }
}
ids=0
declare -A id_in_token
key() { # LABEL rsa|ec|ec384|ed|aes|hmac: and its public half to $tmp/LABEL.pub, where it has one
    local label=$1 id
    ids=$((ids + 1))
    id=$(printf '%02x' "$ids")
    id_in_token[$label]=$id
    case $2 in
    rsa) set -- --keypairgen --key-type rsa:2048 --usage-sign --usage-decrypt ;;
    ec) set -- --keypairgen --key-type EC:prime256v1 --usage-sign --usage-derive ;;
    ec384) set -- --keypairgen --key-type EC:secp384r1 --usage-sign ;;
    ed) set -- --keypairgen --key-type EC:edwards25519 --usage-sign ;;
    aes) set -- --keygen --key-type AES:32 --usage-decrypt --usage-wrap ;;
    hmac) set -- --keygen --key-type GENERIC:32 --usage-sign ;;
    esac
    token_tool "$@" --sensitive --label "$label" --id "$id"
    [ "$1" = --keypairgen ] || return 0
    if [ "$3" = EC:edwards25519 ]; then # pkcs11-tool 0.23 shows the point, and writes something else
        token_tool -O --type pubkey
        awk -v label="$label" '$1 == "EC_POINT:" { point = substr($2, 5) }
            $1 == "label:" && $2 == label { print "302a300506032b6570032100" point }' "$tmp/token.log" |
            xxd -r -p >"$tmp/$label.spki"
    else
        token_tool --read-object --type pubkey --id "$id" --output-file "$tmp/$label.spki"
    fi
    openssl pkey -pubin -inform DER -in "$tmp/$label.spki" -out "$tmp/$label.pub" 2>"$tmp/token.log" ||
        not_ok "openssl cannot read the public key of $label"
}
authority() { # a CA with its key in a file: $tmp/ca.pem
    [ -e "$tmp/ca.pem" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -subj '/CN=interop CA' -days 30 -keyout "$tmp/ca.key" -out "$tmp/ca.pem" 2>"$tmp/token.log" ||
        not_ok "openssl makes no CA"
}
certify() { # LABEL NAME: a certificate of the CA to $tmp/LABEL.pem, which the token shows with the key
    local label=$1 usage
    authority
    usage='keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth,clientAuth,codeSigning,emailProtection
basicConstraints=CA:FALSE
subjectAltName=DNS:localhost,IP:127.0.0.1'
    openssl x509 -new -force_pubkey "$tmp/$label.pub" -subj "/CN=$2" -days 20 -CA "$tmp/ca.pem" \
        -CAkey "$tmp/ca.key" -extfile <(echo "$usage") -out "$tmp/$label.pem" 2>"$tmp/token.log" ||
        not_ok "openssl makes no certificate for $label: $(cat "$tmp/token.log")"
    certificates+=("$label $tmp/$label.pem")
    if [ "$ours" = no ]; then
        openssl x509 -in "$tmp/$label.pem" -outform DER -out "$tmp/$label.der"
        token_tool --write-object "$tmp/$label.der" --type cert --label "$label" --id "${id_in_token[$label]}"
    fi
}

# --- what serves it ------------------------------------------------------------------------------

configuration() { # to $tmp/kmsbridge.yaml
    local each
    (
        umask 077
        printf %s "$PIN" >"$tmp/pin"
        {
            printf 'version: 1\nbackends:\n  - name: hsm\n    type: hsm\n    hsm:\n'
            printf '      module: %s\n      token: %s\n      pin: file:%s\n' "$softhsm" "$TOKEN" "$tmp/pin"
            printf 'agent:\n  socket: %s\n' "$tmp/agent.sock"
            printf '  tokens:\n    - backend: hsm\n      label: %s\n      login: %s\n' "$TOKEN" "$login"
            [ "${#certificates[@]}" -eq 0 ] || printf '      certificates:\n'
            for each in "${certificates[@]}"; do
                printf '        - key: %s\n          file: %s\n' "${each%% *}" "${each#* }"
            done
            [ -z "$rules" ] || printf '  rules:\n%s\n' "$rules"
            printf 'audit:\n  file: %s\n' "$tmp/audit.log"
        } >"$tmp/kmsbridge.yaml"
    )
}
daemon_is_settled() { [ -S "$tmp/agent.sock" ] || ! kill -0 "$daemon_pid"; }
start_daemon() {
    SOFTHSM2_CONF=$tmp/softhsm2.conf "$daemon" --config "$tmp/kmsbridge.yaml" >>"$tmp/daemon.log" 2>&1 </dev/null 9>&- &
    daemon_pid=$!
    pids+=("$daemon_pid")
    wait_for daemon_is_settled
    kill -0 "$daemon_pid" 2>/dev/null || {
        not_ok "kmsbridged does not start"
        lane_end
    }
}
stop_daemon() {
    kill "$daemon_pid" 2>/dev/null
    wait "$daemon_pid"
}
serve() {
    if [ "$ours" = yes ]; then
        configuration
        start_daemon
        # the module finds the agent, and nothing else: SoftHSM is not to be reached from here
        export KMSBRIDGE_AGENT=$tmp/agent.sock
    else
        export SOFTHSM2_CONF=$tmp/softhsm2.conf
    fi
}
# away NAME COMMAND...: it works, is refused in time while the agent is away, and works again. With
# another module than ours, there is no agent, and it only works.
away() {
    local name=$1 began
    shift
    run "$@"
    check "$name" done_well
    [ "$ours" = yes ] || return 0
    stop_daemon
    began=$SECONDS
    run "$@"
    check "$name, without an agent" refused
    check "$name, without an agent, ends in time" test $((SECONDS - began)) -le 20
    start_daemon
    run "$@"
    check "$name, the agent is back" done_well
}

# object_id TYPE LABEL: the CKA_ID that the module shows, in hex
object_id() {
    pkcs11-tool --module "$module" --token-label "$TOKEN" --login --pin "$PIN" -O --type "$1" 2>/dev/null |
        awk -v label="$2" '$1 == "label:" { hit = ($2 == label) } $1 == "ID:" && hit { print $2; exit }'
}
uri() { # LABEL [MORE]: RFC 7512
    printf 'pkcs11:token=%s;object=%s%s' "$TOKEN" "$1" "${2-}"
}

# check_lines NAME COUNT: what run() printed: a line "ok WHAT" or "FAIL WHAT: why" for each thing that
# a program of ours did, and at least so many.
check_lines() {
    local line
    cp "$tmp/out" "$tmp/lines"
    check "$1" done_well
    while IFS= read -r line; do
        case $line in
        'ok '*) check "$1: ${line#ok }" true ;;
        'FAIL '*) not_ok "$1: ${line#FAIL }" ;;
        esac
    done <"$tmp/lines"
    check "$1: all of it" test "$(grep -c '^ok \|^FAIL ' "$tmp/lines")" -ge "$2"
}

# --- what registries have ------------------------------------------------------------------------

# kept NAME FILL...: $cache/NAME to $kept, filled once by a function that gets a folder.
kept() {
    kept=$cache/$1
    shift
    [ -e "$kept/.complete" ] && return 0
    mkdir -p "$cache"
    (
        flock 9
        [ -e "$kept/.complete" ] && exit 0
        rm -rf "$kept"
        "$@" "$kept" >"$tmp/fetch.log" 2>&1 && touch "$kept/.complete"
    ) 9>"$cache/.lock" && return 0
    tail -n 5 "$tmp/fetch.log"
    return 1
}
fill_venv() { # PYTHON REQUIREMENTS FOLDER
    "$1" -m venv "$3" && "$3/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir -r "$2"
}
from_pip() { # PYTHON NAME REQUIREMENTS: a virtual environment to $venv; ends the lane without it
    local version
    version=$("$1" -c 'import platform; print(platform.python_version())')
    kept "$2-$version-$(sha256sum <"$3" | cut -c1-12)" fill_venv "$1" "$3" || {
        missing "pip cannot install $(tr '\n' ' ' <"$3")"
        lane_end
    }
    # shellcheck disable=SC2034 # lanes use it
    venv=$kept
}
fill_npm() { # PACKAGE@VERSION FOLDER
    mkdir -p "$2"
    # node's headers beside node are enough to build it: nothing is fetched but the package
    (cd "$2" && echo '{"private": true}' >package.json &&
        npm_config_nodedir=${npm_config_nodedir-$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")} \
            npm install --no-audit --no-fund --no-save "$1" && [ -n "$(find . -name '*.node' -print -quit)" ])
}
from_npm() { # PACKAGE VERSION: a folder with node_modules to $npm
    kept "npm-$1-$2-node$(node -p process.versions.modules)" fill_npm "$1@$2" || {
        missing "npm cannot install $1@$2"
        lane_end
    }
    # shellcheck disable=SC2034 # lanes use it
    npm=$kept
}
