#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures kmsbridged over the Transit engine of a real OpenBao, with TLS and with default settings:
# through KMS v2 beside Go plugins on the same server, through the PKCS#11 module, and the same HTTP
# by bare libcurl as the floor. Prints a Markdown report. What is compared is measured in turn (A B A
# B); each figure is the median of the rounds.
#
#   tests/bench/vault.sh [--build DIR] [--output FILE] [--quick] [--rounds N] [--seconds S]
#
# --build is where `make check` has built (default: ./build). --quick takes seconds and proves that
# the bench is alive; its figures mean nothing.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=build output='' rounds=5 seconds=1 callers="1 8 64"
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2; shift ;;
    --output) output=$2; shift ;;
    --rounds) rounds=$2; shift ;;
    --seconds) seconds=$2; shift ;;
    --quick) rounds=1 seconds=0.2 callers="1 8" ;;
    *) sed -n '/^#   tests/,/^# --build/p' "$0" >&2; exit 2 ;;
    esac
    shift
done
build=$(cd "$build" && pwd)
export KMSBRIDGE_BUILD=$build

# shellcheck source=../services/openbao.sh
. "$here/../services/openbao.sh"
lane bench-vault
say() { echo "bench: $*" >&2; }
die() { say "$*"; exit 1; }

client=$build/tests/bench/client_h2 floor=$build/tests/bench/http_floor
grpc_floor=$build/tests/bench/grpc_floor
program=$build/tests/bench/p11bench module=$build/pkcs11/.libs/kmsbridge-pkcs11.so
daemon=$build/kmsbridge/kmsbridged
[ ! -x "$build/kmsbridge/.libs/kmsbridged" ] || daemon=$build/kmsbridge/.libs/kmsbridged
for file in "$client" "$floor" "$grpc_floor" "$program" "$module" "$daemon"; do
    [ -f "$file" ] || die "$file is not built; run make check there"
done

peer=
if command -v go >/dev/null; then
    hash=$( (go version; cd "$here/peer-vault" && cat ./*.go go.mod go.sum) | sha256sum | cut -c1-16)
    peer=${KMSBRIDGE_CACHE:-$HOME/.cache/kmsbridge}/peer-vault-$hash
    if [ ! -x "$peer" ]; then
        say "building the Go plugin"
        (cd "$here/peer-vault" && GOFLAGS=-mod=readonly go build -trimpath -o "$peer.$$" . &&
            mv "$peer.$$" "$peer") || die "the Go plugin is not built"
    fi
elif [ "${KMSBRIDGE_REQUIRE_ALL-}" = 1 ]; then
    die "the Go plugin to compare with needs go"
fi

bao_tls_start
export KMS_BENCH_CA=$bao_ca BAO_CACERT=$bao_ca VAULT_CACERT=$bao_ca
api POST transit/keys/bench-aes '{"type":"aes256-gcm96"}' >/dev/null || exit 1
api POST transit/keys/bench-ec '{"type":"ecdsa-p256"}' >/dev/null || exit 1
(umask 077 && printf %s "$bao_root" >"$tmp/token")
(umask 077 && cat >"$tmp/kmsbridge.yaml") <<END
version: 1
log: {level: warn, format: text}
backends:
  - name: bench
    type: vault
    vault:
      addresses: ["$bao_url"]
      ca_file: $bao_ca
      auth: {method: token, token: "file:$tmp/token"}
kms: {socket: $tmp/kmsbridged.sock, backend: bench, key: bench-aes}
agent: {socket: $tmp/agent.sock, concurrent_calls_per_uid: 64} # the bench is one uid
END
declare -A pids
servers=(kmsbridged)
daemon_start() {
    "$daemon" --config "$tmp/kmsbridge.yaml" >>"$tmp/kmsbridged.log" 2>&1 &
    pids[kmsbridged]=$!
}
peer_start() { # NAME REQUESTS
    "$peer" -listen "$tmp/$1.sock" -address "$bao_url" -token-file "$tmp/token" -key bench-aes -requests "$2" \
        >>"$tmp/$1.log" 2>&1 &
    pids[$1]=$!
    servers+=("$1")
}
answers() { # SERVER: waits for it
    for _ in {1..100}; do
        "$client" --socket "$tmp/$1.sock" --seconds 0.01 --warmup 0 >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat "$tmp/$1.log" >&2
    die "$1 does not answer"
}
daemon_start
if [ -n "$peer" ]; then
    peer_start go-vkk vault-kubernetes-kms
    peer_start go-least least
    peer_start go-same same
fi
trap 'code=$?; kill "${pids[@]}" 2>/dev/null; wait "${pids[@]}" 2>/dev/null; (exit "$code"); bao_exit' EXIT
for server in "${servers[@]}"; do
    answers "$server"
done

# The least plugin: of the threads tried, as many as callers up to 16 did best.
url=$bao_url/v1/transit/encrypt/bench-aes
for n in $callers; do
    "$grpc_floor" "$tmp/grpc-floor-$n.sock" 1.1 "$url" "$tmp/token" $((n < 16 ? n : 16)) \
        >>"$tmp/grpc-floor.log" 2>&1 &
    pids[grpc-floor-$n]=$!
    for _ in {1..100}; do [ -S "$tmp/grpc-floor-$n.sock" ] && break; sleep 0.1; done
    [ -S "$tmp/grpc-floor-$n.sock" ] || { cat "$tmp/grpc-floor.log" >&2; die "grpc_floor does not answer"; }
done

results=$tmp/results
: >"$results"
record() { # WHAT COMMAND...
    local what=$1 line
    shift
    line=$("$@" 2>>"$tmp/errors.log") || { cat "$tmp/errors.log" >&2; die "failed: $*"; }
    echo "$what $line" >>"$results"
}

load_before=$(cut -d' ' -f1 /proc/loadavg)
for n in $callers; do
    say "$n callers"
    for ((i = 0; i < rounds; i++)); do
        record "floor Encrypt" "$floor" 1.1 "$url" "$tmp/token" "$seconds" "$n"
        record "floor-h2 Encrypt" "$floor" 2 "$url" "$tmp/token" "$seconds" "$n"
        record "grpc-floor Encrypt" "$client" --socket "$tmp/grpc-floor-$n.sock" --method Encrypt \
            --callers "$n" --seconds "$seconds" --warmup 0.3 --server-pid "${pids[grpc-floor-$n]}"
        for method in Encrypt Decrypt Status; do
            for ((k = 0; k < ${#servers[@]}; k++)); do # each is the first one in turn
                server=${servers[(i + k) % ${#servers[@]}]}
                record "$server $method" "$client" --socket "$tmp/$server.sock" --method $method \
                    --callers "$n" --seconds "$seconds" --warmup 0.3 --server-pid "${pids[$server]}"
            done
        done
    done
done

# A Status asks nobody: the messages that all of this machine have sent to OpenBao, as the kernel
# counts them, before and after many of them. The probe may send some.
asked() {
    ss -Htni state established "( dport = :$port )" |
        awk '{ for (i = 1; i <= NF; i++) if (sub(/^data_segs_out:/, "", $i)) n += $i } END { print n + 0 }'
}
"$client" --socket "$tmp/kmsbridged.sock" --method Encrypt --callers 8 --seconds 0.2 --warmup 0 >/dev/null
before=$(asked)
statuses=$("$client" --socket "$tmp/kmsbridged.sock" --method Status --callers 8 --seconds 1 --warmup 0 |
    sed -n 's/.*"calls":\([0-9]*\).*/\1/p')
after=$(asked)
[ "$before" -gt 0 ] || die "the kernel counts no messages to OpenBao"

# Neither does a call shake hands again: the connections of kmsbridged to OpenBao, by their ports,
# before and after many calls, with as many callers before.
connections() {
    ss -Htnp state established "( dport = :$port )" |
        sed -n "s/^[0-9]* *[0-9]* *[^ ]*:\([0-9]*\) .*pid=${pids[kmsbridged]},.*/\1/p" | sort
}
encrypts() { # SECONDS: how many
    "$client" --socket "$tmp/kmsbridged.sock" --method Encrypt --callers 64 --seconds "$1" --warmup 0 |
        sed -n 's/.*"calls":\([0-9]*\).*/\1/p'
}
encrypts 0.5 >/dev/null
connections >"$tmp/connections.before"
calls=$(encrypts 1)
connections >"$tmp/connections.after"
[ -s "$tmp/connections.before" ] || die "kmsbridged has no connection to OpenBao"
opened=$(comm -13 "$tmp/connections.before" "$tmp/connections.after" | wc -l)
[ "$opened" -eq 0 ] || die "kmsbridged made $opened connections in the midst of its work"

# The agent, which the Go plugin does not have, in a process of its own.
kill "${pids[kmsbridged]}" && wait "${pids[kmsbridged]}"
daemon_start
answers kmsbridged
export KMSBRIDGE_AGENT=$tmp/agent.sock
for n in $callers; do
    say "$n callers of the module"
    for ((i = 0; i < rounds; i++)); do
        record "hop-floor Encrypt" "$floor" --hop 1.1 "$url" "$tmp/token" "$seconds" "$n"
        for what in sealed-32 sign-p256; do
            record "module $what" "$program" "$module" bench "$tmp/token" $what "$n" "$seconds"
        done
    done
done

report() {
    echo "# What kmsbridged costs over Vault or OpenBao"
    echo
    echo "Printed by \`tests/bench/vault.sh\`. Closed loop, 32-byte seeds, an aes256-gcm96 key of the Transit"
    echo "engine of OpenBao on loopback with TLS, raft storage; kmsbridged with its default settings. The floor"
    echo "is bare libcurl making the same request, a kept connection for each thread; floor-h2 does so over HTTP/2."
    echo "grpc-floor is \`tests/bench/grpc_floor.c\`, the least that a plugin over gRPC C core and libcurl can be: it"
    echo "makes the floor's request whatever it is asked, and nothing else; with as many threads as callers, up to 16."
    echo "hop-floor is the floor's request made by another process, for who asks over a unix socket: the least that"
    echo "a module with an agent can be. The module's sealed-32 is that Encrypt, by C_Encrypt."
    echo "The Go plugins are \`tests/bench/peer-vault\` on Kubernetes' and OpenBao's own libraries, which choose"
    echo "HTTP/2. go-vkk makes the requests of FalcoSuessgott/vault-kubernetes-kms, which reads the key after each"
    echo "encryption and to answer Status reads, encrypts and decrypts, but logs nothing. go-least makes one"
    echo "request for an operation and none for Status. go-same makes kmsbridged's, which name the key's version,"
    echo "forbid the server to make a missing key and bear an id for its audit log. OpenBao has most of the CPU in"
    echo "every row: the cores are shared with it and with the clients. Latencies in microseconds; private is"
    echo "memory that is no file's (RssAnon), resident has the pages of programs and libraries in it, too."
    echo
    echo "| machine | |"
    echo "|---|---|"
    echo "| CPU | $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores |"
    echo "| kernel | $(uname -r) |"
    echo "| load average before | $load_before |"
    echo "| OpenBao | $("$bao" version | head -n 1) |"
    [ -z "$peer" ] || "$peer" -version | sed 's/^\([^ ]*\) \(.*\)$/| \1 | \2 |/'
    echo "| runs | $rounds of $seconds s each, interleaved; medians |"
    echo
    awk -f "$here/vault_report.awk" "$results" || exit 1
    echo "| connections, so TLS handshakes, made during $calls Encrypts: 0 | 64 | $opened | $([ "$opened" -eq 0 ] && echo yes || echo no) |"
    echo "| messages to OpenBao during $statuses Status calls: at most the probe's | 8 | $((after - before)) | $([ $((after - before)) -le 8 ] && echo yes || echo no) |"
}
report >"$tmp/report" || die "no report can be made"
cat "$tmp/report"
[ -z "$output" ] || cp "$tmp/report" "$output"
