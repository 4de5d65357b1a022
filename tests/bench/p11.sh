#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures kmsbridge-pkcs11.so over kmsbridged on a SoftHSM token, beside that token in process,
# through p11-kit's proxy, and through p11-kit's remoting. Prints a Markdown report. The four are
# measured in turn within every cell (A B C D A B C D), each figure is the median of the rounds.
#
#   tests/bench/p11.sh [--build DIR] [--output FILE] [--quick] [--rounds N] [--seconds S]
#
# --build is where `make check` has built (default: the current folder). --quick takes seconds and
# proves that the bench is alive; its figures mean nothing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=.
output=
rounds=5
seconds=1
runs=15
sizes="1 100 1000"
threads="1 4"
softhsm=${KMSBRIDGE_SOFTHSM:-/usr/lib/softhsm/libsofthsm2.so}

while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2; shift ;;
    --output) output=$2; shift ;;
    --rounds) rounds=$2; shift ;;
    --seconds) seconds=$2; shift ;;
    --quick) rounds=1 seconds=0.1 runs=2 sizes="1 50" threads=1 ;;
    *) sed -n '/^#   tests/,/^# --build/p' "$0" >&2; exit 2 ;;
    esac
    shift
done

die() { echo "bench: $*" >&2; exit 1; }
say() { echo "bench: $*" >&2; }

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

program=$(find_built p11bench tests/bench/p11bench)
# libtool's wrapper scripts would be measured with them.
[ ! -f "$(dirname "$program")/.libs/p11bench" ] || program=$(dirname "$program")/.libs/p11bench
daemon=$(find_built kmsbridged kmsbridge/kmsbridged)
[ ! -f "$(dirname "$daemon")/.libs/kmsbridged" ] || daemon=$(dirname "$daemon")/.libs/kmsbridged
ours=$(find_built kmsbridge-pkcs11.so pkcs11/.libs/kmsbridge-pkcs11.so)
library_dir=$(dirname "$(ldconfig -p | sed -n 's/.* => \(.*libp11-kit\.so\.0\)$/\1/p' | head -n1)")
proxy=$library_dir/p11-kit-proxy.so
client=$library_dir/pkcs11/p11-kit-client.so

work=$(mktemp -d "${TMPDIR:-/tmp}/kmsbridge-bench.XXXXXX")
pids=()
finish() {
    local pid
    for pid in "${pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
(umask 077 && printf '1234-bench' >"$work/pin")

# p11-kit's proxy loads what its configuration names: the token's module and nothing else.
mkdir -p "$work/home/.config/pkcs11/modules"
echo "user-config: only" >"$work/home/.config/pkcs11/pkcs11.conf"
echo "module: $softhsm" >"$work/home/.config/pkcs11/modules/softhsm.module"

use_token() { # KEYS: a token of its own for each number of keys; restarts the servers
    local pid
    for pid in "${pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    pids=()
    export SOFTHSM2_CONF=$work/softhsm-$1.conf
    if [ ! -f "$SOFTHSM2_CONF" ]; then
        say "a token with $1 keys"
        mkdir -p "$work/tokens-$1"
        printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' \
            "$work/tokens-$1" >"$SOFTHSM2_CONF"
        softhsm2-util --init-token --free --label bench --so-pin 1234-bench --pin 1234-bench \
            >/dev/null
        "$program" "$softhsm" bench "$work/pin" make "$1"
    fi
    (umask 077 && cat >"$work/kmsbridge.yaml") <<END
version: 1
log: {level: warn, format: text}
backends:
  - name: bench
    type: hsm
    hsm: {module: $softhsm, token: bench, pin: "file:$work/pin"}
agent:
  socket: $work/agent.sock
  tokens:
    - {backend: bench, login: none}
END
    "$daemon" --config "$work/kmsbridge.yaml" >>"$work/daemon.log" 2>&1 &
    pids+=($!)
    p11-kit server --provider "$softhsm" -f -n "$work/remote.sock" "pkcs11:token=bench" \
        >"$work/remote.log" 2>&1 &
    pids+=($!)
    for socket in agent remote; do
        for ((i = 0; i < 100; i++)); do
            [ ! -S "$work/$socket.sock" ] || break
            sleep 0.1
        done
        [ -S "$work/$socket.sock" ] || { cat "$work"/*.log >&2; die "no $socket socket"; }
    done
}

export KMSBRIDGE_AGENT=$work/agent.sock P11_KIT_SERVER_ADDRESS=unix:path=$work/remote.sock
module_of() {
    case $1 in
    direct) echo "$softhsm" ;;
    proxy) echo "$proxy" ;;
    remote) echo "$client" ;;
    ours) echo "$ours" ;;
    esac
}

results=$work/results
: >"$results"
record() { # KEYS WAY LANE NUMBER [SECONDS]
    local line keys=$1 way=$2
    shift 2
    if ! line=$(HOME=$work/home "$program" "$(module_of "$way")" bench "$work/pin" "$@" \
        2>>"$work/errors"); then
        line="{\"lane\":\"$1\",\"threads\":$2,\"cannot\":\"$(tail -n1 "$work/errors")\"}"
    fi
    printf '%s %s %s\n' "$keys" "$way" "$line" >>"$results"
}

load_before=$(cut -d' ' -f1 /proc/loadavg)
ways="direct proxy remote ours"
use_token 1
for lane in random-16 gcm-32-token gcm-64k-token gcm-32-session gcm-64k-session wrap unwrap \
    sign-rsa-2048 sign-p256 open-session; do
    for n in $threads; do
        say "$lane, $n threads"
        for ((i = 0; i < rounds; i++)); do
            for way in $ways; do
                record 1 "$way" $lane "$n" "$seconds"
            done
        done
    done
done
for n in $threads; do
    for ((i = 0; i < rounds; i++)); do
        record 1 direct gcm-64k-evp "$n" "$seconds"
    done
done
say "gcm-64k-session beside EVP"
for ((i = 0; i < rounds; i++)); do
    record 1 ours beside 1
done
say "fresh processes"
for ((i = 0; i < rounds; i++)); do
    for way in $ways; do
        record 1 "$way" first "$runs"
    done
done
for keys in $sizes; do
    use_token "$keys"
    say "find among $keys keys"
    for n in $threads; do
        for ((i = 0; i < rounds; i++)); do
            for way in $ways; do
                record "$keys" "$way" find "$n" "$seconds"
            done
        done
    done
done

version_of() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo unknown; }
report() {
    local model os
    os=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)
    model=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n1)
    echo "# What kmsbridge-pkcs11.so costs"
    echo
    echo "Printed by \`tests/bench/p11.sh\`. Microseconds; SoftHSM in process, the same through"
    echo "p11-kit-proxy, the same through \`p11-kit server\` and p11-kit-client, and through our module"
    echo "and agent. Every thread has a session of its own."
    echo
    echo "| machine | |"
    echo "|---|---|"
    echo "| CPU | $model, $(nproc) cores |"
    echo "| kernel, system | $(uname -r), $os |"
    echo "| load average before and after | $load_before, $(cut -d' ' -f1 /proc/loadavg) |"
    echo "| SoftHSM, p11-kit, OpenSSL | $(version_of libsofthsm2), $(version_of libp11-kit0), $(version_of libssl3) |"
    echo "| runs | $rounds of $seconds s each, interleaved; medians; $runs fresh processes a run |"
    echo
    if awk -v load="$load_before" -v cores="$(nproc)" 'BEGIN { exit !(load > cores / 4) }'; then
        echo "**The machine was busy with other work when this began (load average $load_before):"
        echo "latencies and rates say little. Do not quote.**"
        echo
    fi
    awk -v ways="$ways" -f "$here/p11_report.awk" "$results"
}
if [ -n "$output" ]; then
    report | tee "$output"
else
    report
fi
if grep ' ours .*"cannot"' "$results" >&2; then
    die "our module cannot do the above"
fi
