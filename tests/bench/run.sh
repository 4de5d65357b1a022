#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures kmsbridged beside a Go KMS v2 plugin over the same SoftHSM token, and the token alone.
# Prints a Markdown report. Servers are measured in turn within every cell of the tables (A B A B),
# and each figure is the median of the rounds.
#
#   tests/bench/run.sh [--build DIR] [--output FILE] [--quick] [--rounds N] [--seconds S]
#                      [--servers "kmsbridged peer-go"] [--keep]
#
# --build is where `make check` has built (default: the current folder). --quick takes seconds and
# proves that the bench is alive; its figures mean nothing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=.
output=
rounds=5
seconds=1.5
warmup=0.3
starts=15
callers="1 8 32 64"
slow_seconds=5
hang_seconds=5
servers="kmsbridged peer-go"
keep=
softhsm=${KMSBRIDGE_SOFTHSM:-/usr/lib/softhsm/libsofthsm2.so}

while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2; shift ;;
    --output) output=$2; shift ;;
    --rounds) rounds=$2; shift ;;
    --seconds) seconds=$2; shift ;;
    --servers) servers=$2; shift ;;
    --keep) keep=1 ;;
    --quick)
        rounds=1 seconds=0.15 warmup=0.05 starts=1 callers="1 8" slow_seconds=0.5 hang_seconds=1 ;;
    *) sed -n '/^#   tests/,/^# --build/p' "$0" >&2; exit 2 ;;
    esac
    shift
done

die() { echo "bench: $*" >&2; exit 1; }
say() { echo "bench: $*" >&2; }

# ---- programs ---------------------------------------------------------------------------------

find_built() { # NAME CANDIDATE...
    local name=$1 path
    shift
    for path in "$@"; do
        if [ -f "$build/$path" ]; then
            realpath "$build/$path"
            return
        fi
    done
    die "$name is not built in $build; run make check there, or name another --build folder"
}

client_h2=$(find_built client_h2 tests/bench/client_h2 client_h2)
client_grpc=$(find_built client_grpc tests/bench/client_grpc client_grpc)
floor=$(find_built floor tests/bench/floor floor)
shim=$(find_built p11-shim tests/fakes/.libs/p11-shim.so p11-shim.so)

build_peer() { # -> $peer
    local hash dir
    command -v go >/dev/null || die "the Go plugin needs a Go tool chain"
    hash=$( (go version; cd "$here/peer-go"; cat ./*.go go.mod go.sum) | sha256sum | cut -c1-16)
    dir=${KMSBRIDGE_CACHE:-$HOME/.cache/kmsbridge}/peer-go-$hash
    peer=$dir/peer-go
    if [ ! -x "$peer" ]; then
        say "building the Go plugin"
        mkdir -p "$dir"
        (cd "$here/peer-go" && go build -trimpath -o "$peer.$$" . && mv "$peer.$$" "$peer")
    fi
}

daemon=''
peer=''
for server in $servers; do
    case $server in
    kmsbridged)
        daemon=$(find_built kmsbridged kmsbridge/kmsbridged kmsbridged)
        # libtool's wrapper script would be measured with it.
        [ ! -f "$(dirname "$daemon")/.libs/kmsbridged" ] ||
            daemon=$(dirname "$daemon")/.libs/kmsbridged ;;
    peer-go) build_peer ;;
    *) die "no server $server" ;;
    esac
done

# ---- a token of our own -----------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/kmsbridge-bench.XXXXXX")
running=()
finish() {
    local pid
    for pid in "${running[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [ -n "$keep" ] || rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

mkdir -p "$work/tokens"
cat >"$work/softhsm2.conf" <<END
directories.tokendir = $work/tokens
objectstore.backend = file
log.level = ERROR
END
export SOFTHSM2_CONF=$work/softhsm2.conf
(umask 077 && printf '1234-bench' >"$work/pin")
softhsm2-util --init-token --free --label kmsbridge --so-pin 1234-bench --pin 1234-bench >/dev/null
pkcs11-tool --module "$softhsm" --token-label kmsbridge --login --pin 1234-bench --keygen \
    --key-type AES:32 --sensitive --label kmsbridge-kek --id 01 >/dev/null 2>&1

write_config() { # SOCKET MODULE -> file's path
    local file
    file=$1.yaml
    (umask 077 && cat >"$file") <<END
version: 1
log: {level: warn, format: text}
backends:
  - name: hsm
    type: hsm
    hsm:
      module: $2
      token: kmsbridge
      pin: file:$work/pin
      sessions: 64
kms:
  socket: $1
  mode: "0600"
  allow_uids: [$(id -u)]
  backend: hsm
  key: kmsbridge-kek
END
    echo "$file"
}

# Sets `command` to the words that start SERVER on SOCKET over MODULE.
server_command() { # SERVER SOCKET MODULE
    case $1 in
    kmsbridged) command=("$daemon" --config "$(write_config "$2" "$3")") ;;
    peer-go)
        command=("$peer" -listen "$2" -module "$3" -token kmsbridge -key kmsbridge-kek
            -pin-file "$work/pin" -sessions 64) ;;
    esac
}

# Starts SERVER and waits until it answers; sets `pid` and `socket`.
start_server() { # SERVER PINNED MODULE
    local pin=() tries=0
    socket=$work/$1.sock
    rm -f "$socket"
    server_command "$1" "$socket" "$3"
    [ "$2" = no ] || pin=(taskset -c 0)
    "${pin[@]}" "${command[@]}" >>"$work/$1.log" 2>&1 &
    pid=$!
    running+=("$pid")
    until "$client_h2" --socket "$socket" --seconds 0.01 --warmup 0 >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 200 ] || ! kill -0 "$pid" 2>/dev/null; then
            cat "$work/$1.log" >&2
            die "$1 does not answer"
        fi
        sleep 0.05
    done
}

stop_server() { # PID
    local kept=() p
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    for p in "${running[@]}"; do
        [ "$p" = "$1" ] || kept+=("$p")
    done
    running=("${kept[@]}")
}

# Results: one line per run, `LANE SERVER PINNED JSON`.
results=$work/results
: >"$results"
record() { # LANE SERVER PINNED COMMAND...
    local lane=$1 server=$2 pinned=$3 line
    shift 3
    if ! line=$("$@" 2>>"$work/$server.log"); then
        tail -n 5 "$work/$server.log" >&2
        die "$server: failed: $*"
    fi
    printf '%s %s %s %s\n' "$lane" "$server" "$pinned" "$line" >>"$results"
}

# ---- lanes ------------------------------------------------------------------------------------

load_before=$(cut -d' ' -f1 /proc/loadavg)

say "the token alone"
# shellcheck disable=SC2086
"$floor" "$softhsm" kmsbridge kmsbridge-kek "$work/pin" "$seconds" 1 8 32 |
    sed 's/^/floor softhsm no /' >>"$results"

say "from exec to the first good Status"
for ((i = 0; i < starts; i++)); do
    for server in $servers; do
        server_command "$server" "$work/first.sock" "$softhsm"
        record first "$server" no "$client_h2" --socket "$work/first.sock" --first-status -- \
            "${command[@]}"
    done
done

declare -A pids sockets
for pinned in no yes; do
    pin=()
    [ $pinned = no ] || pin=(taskset -c 0)
    for server in $servers; do
        start_server "$server" $pinned "$softhsm"
        pids[$server]=$pid
        sockets[$server]=$socket
    done
    for client in h2 grpc; do
        program=$client_h2
        [ $client = h2 ] || program=$client_grpc
        for method in Encrypt Decrypt Status; do
            for n in $callers; do
                say "client $client, one core: $pinned, $method, $n callers"
                for ((i = 0; i < rounds; i++)); do
                    for server in $servers; do
                        record "$client" "$server" $pinned "${pin[@]}" "$program" \
                            --socket "${sockets[$server]}" --method "$method" --callers "$n" \
                            --seconds "$seconds" --warmup "$warmup" --server-pid "${pids[$server]}"
                    done
                done
            done
        done
    done
    for server in $servers; do
        stop_server "${pids[$server]}"
    done
done

# The slow token. The control file is replaced by rename, so the shim never reads half of it.
export KMSBRIDGE_SHIM_MODULE=$softhsm KMSBRIDGE_SHIM_CONTROL=$work/control
control() {
    printf '%s\n' "$@" >"$work/control.new"
    mv "$work/control.new" "$work/control"
}
for ((i = 0; i < rounds; i++)); do
    for server in $servers; do
        say "a token of 2 ms, then one that hangs: $server"
        control latency_us=2000
        start_server "$server" no "$shim"
        record slow "$server" no "$client_h2" --socket "$socket" --method Encrypt --callers 64 \
            --seconds "$slow_seconds" --warmup 1 --status-rate 500 --server-pid "$pid"
        (sleep 0.5 && control latency_us=2000 hang=1) &
        record hang "$server" no "$client_h2" --socket "$socket" --method Encrypt --callers 64 \
            --seconds "$hang_seconds" --warmup 1 --status-rate 500 --allow-errors
        wait $!
        control latency_us=2000
        stop_server "$pid"
    done
done

# ---- the report -------------------------------------------------------------------------------

version_of() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo unknown; }

machine() {
    local os model
    os=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)
    model=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n1)
    echo "| machine | |"
    echo "|---|---|"
    echo "| CPU | $model, $(nproc) cores |"
    echo "| memory | $(awk '/^MemTotal/ {printf "%.1f GiB", $2 / 1048576}' /proc/meminfo) |"
    echo "| kernel, system | $(uname -r), $os |"
    echo "| load average before and after | $load_before, $(cut -d' ' -f1 /proc/loadavg) |"
    echo "| gRPC C core | $(version_of libgrpc29) |"
    echo "| nghttp2 | $(version_of libnghttp2-14) |"
    echo "| SoftHSM | $(version_of libsofthsm2) |"
    if [ -n "$peer" ]; then
        "$peer" -version | sed 's/^\([^ ]*\) \(.*\)$/| \1 | \2 |/'
    fi
    echo "| runs | $rounds of $seconds s each, interleaved; medians; $starts starts |"
}

report() {
    echo "# What kmsbridged costs"
    echo
    echo "Printed by \`tests/bench/run.sh\`. Closed loop over a unix socket, one connection, 32-byte"
    echo "seeds, AES-256-GCM on one SoftHSM token; every reply is checked. The Go plugin is"
    echo "\`tests/bench/peer-go\`; the clients are one over libnghttp2 (one thread, a stream per"
    echo "caller) and one over gRPC C core. Latencies in microseconds."
    echo
    machine
    echo
    if awk -v load="$load_before" -v cores="$(nproc)" 'BEGIN { exit !(load > cores / 4) }'; then
        echo "**The machine was busy with other work when this began (load average $load_before):"
        echo "latencies and rates say little, CPU per call says more. Do not quote.**"
        echo
    fi
    awk -v servers="$servers" -v callers="$callers" -f "$here/report.awk" "$results"
}

if [ -n "$output" ]; then
    report | tee "$output"
else
    report
fi
[ -z "$keep" ] || say "kept $work"
