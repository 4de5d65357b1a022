# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A SoftHSM with keys in it, for the behaviour tests, and a kmsbridged in front of it. Sourced.
set -eu
build=${top_builddir:-.}
module=$build/tests/module/module
softhsm=${KMS_SOFTHSM:-/usr/lib/softhsm/libsofthsm2.so}
dir=$(mktemp -d)
daemon=
cleanup() {
    [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null && wait "$daemon"; } || :
    rm -rf "$dir"
}
trap cleanup EXIT

# make_token LABEL: with the keys that the tests look for
make_token() {
    mkdir -p "$dir/tokens"
    printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$dir/tokens" >"$dir/softhsm.conf"
    export SOFTHSM2_CONF=$dir/softhsm.conf
    softhsm2-util --init-token --free --label "$1" --pin 1234 --so-pin 123456 >"$dir/log" || {
        cat "$dir/log"
        exit 1
    }
    "$module" make softhsm "$softhsm" "$1" 1234
}

# start_daemon TOKEN LOGIN: listens on $dir/agent.sock; $uids: more who may use it
start_daemon() {
    printf 1234 >"$dir/pin"
    cat >"$dir/kmsbridge.yaml" <<YAML
version: 1
backends:
  - name: hsm
    type: hsm
    hsm:
      module: $softhsm
      token: $1
      pin: file:$dir/pin
agent:
  socket: $dir/agent.sock
  calls_per_second: 1000000
  concurrent_calls_per_uid: 64
  max_connections_per_uid: 64
  tokens:
    - backend: hsm
      login: $2
  rules:
    - uids: ["$(id -u)"${uids:+, $uids}]
      allow: [all]
YAML
    chmod 600 "$dir/pin" "$dir/kmsbridge.yaml"
    "$build/kmsbridge/kmsbridged" --config "$dir/kmsbridge.yaml" >"$dir/daemon.log" 2>&1 &
    daemon=$!
    for _ in $(seq 100); do
        [ ! -S "$dir/agent.sock" ] || return 0
        sleep 0.1
    done
    cat "$dir/daemon.log"
    return 1
}
