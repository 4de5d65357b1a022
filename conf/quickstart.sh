#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a clone to a KMS v2 round trip: installs what is missing, builds, makes a SoftHSM token with an
# AES-256 KEK in a private folder, starts kmsbridged on it, encrypts and decrypts through its socket,
# and prints what kube-apiserver is to be given. Stops the daemon and removes the folder again.
# usage: conf/quickstart.sh [--keep]
#   --keep   leave the daemon running and the folder in place, and say where
set -eu
cd "$(dirname "$0")/.."
top=$(pwd)
keep=no
case ${1-} in
'') ;;
--keep) keep=yes ;;
*)
    sed -n '6,7s/^# \{0,1\}//p' conf/quickstart.sh >&2
    exit 2
    ;;
esac

say() { printf '%s\n' "$*"; }
fail() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}
quietly() { # runs a command, shows its output only when it fails
    "$@" >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        fail "failed: $*"
    }
}

sh conf/install-deps.sh build run

say "Building in $top/build"
mkdir -p build
log=$top/build/quickstart.log
if [ ! -x configure ] || [ -n "$(find configure.ac -newer configure)" ]; then
    quietly autoreconf -fi
fi
[ -f build/config.status ] || (cd build && quietly ../configure)
quietly make -C build -j"$(nproc)"
ctl=$top/build/tools/kmsbridgectl
daemon=$top/build/kmsbridge/kmsbridged

umask 077
demo=$(mktemp -d "${TMPDIR:-/tmp}/kmsbridge-demo.XXXXXX")
pid=
clean_up() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    rm -rf "$demo"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

say "Making a SoftHSM token with an AES-256 KEK in $demo"
conf=$demo/kmsbridge.yaml
quietly "$ctl" init --dir "$demo" --private-softhsm --token demo --key demo-kek \
    --socket "$demo/kms.sock" --monitor "unix:$demo/monitor.sock"
export SOFTHSM2_CONF="$demo/softhsm2.conf"
"$ctl" keys list --config "$conf"

say "Starting kmsbridged"
"$daemon" --config "$conf" >"$demo/kmsbridged.log" 2>&1 &
pid=$!
tries=0
until curl -sf --max-time 2 --unix-socket "$demo/monitor.sock" http://localhost/readyz >/dev/null 2>&1; do
    tries=$((tries + 1))
    if ! kill -0 "$pid" 2>/dev/null || [ "$tries" -gt 200 ]; then
        cat "$demo/kmsbridged.log" >&2
        fail "kmsbridged did not become ready"
    fi
    sleep 0.1
done

say "Status:"
"$ctl" kms status --config "$conf"

say "Encrypt and Decrypt 32 random bytes, as kube-apiserver does with its seed"
head -c 32 /dev/urandom >"$demo/seed"
"$ctl" kms encrypt --config "$conf" --in "$demo/seed" --out "$demo/sealed"
"$ctl" kms decrypt --config "$conf" --in "$demo/sealed" --out "$demo/opened"
cut -c1-100 "$demo/sealed" | sed 's/^/  /'
! grep -qF "$(base64 <"$demo/seed")" "$demo/sealed" || fail "the seed stands in the sealed record"
cmp "$demo/seed" "$demo/opened" || fail "what was decrypted is not what was encrypted"
say "  decrypted to the same bytes"

say "The EncryptionConfiguration for kube-apiserver (--encryption-provider-config):"
"$ctl" encryption-config --config "$conf" | sed 's/^/  /'

if [ "$keep" = yes ]; then
    trap - EXIT
    say "Left running: process $pid, folder $demo, log $demo/kmsbridged.log"
    say "  export SOFTHSM2_CONF=$SOFTHSM2_CONF"
    say "  $ctl kms status --config $conf"
    exit 0
fi
kill "$pid"
stopped=0
wait "$pid" || stopped=$?
pid=
[ "$stopped" -eq 0 ] || fail "kmsbridged ended with exit code $stopped: $(tail -n 5 "$demo/kmsbridged.log")"
say "Stopped. It works."
