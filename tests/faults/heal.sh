#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Self-healing on a private SoftHSM token behind the fault-injecting shim.
set -eu
heal=${KMS_HEAL:-./tests/faults/heal}
shim=${KMS_SHIM:-$PWD/tests/fakes/.libs/p11-shim.so}
export KMSBRIDGE_SHIM_MODULE=${KMS_SOFTHSM:-/usr/lib/softhsm/libsofthsm2.so}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

mkdir "$dir/tokens"
printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$dir/tokens" >"$dir/conf"
export SOFTHSM2_CONF=$dir/conf

make_token() {
    softhsm2-util --init-token --free --label one --pin 1234 --so-pin 123456
    for twin in 1 2; do
        softhsm2-util --init-token --free --label twin --pin "${twin}234" --so-pin 123456
    done
    softhsm2-util --init-token --free --label empty --pin 1234 --so-pin 123456
    for id in 11 12 13; do
        pkcs11-tool --module "$KMSBRIDGE_SHIM_MODULE" --token-label one --login --pin 1234 \
            --keygen --id "$id" --sensitive --key-type AES:32 --label many
    done
    for key in "AES:32 --label kek" "GENERIC:32 --label kek-mac --usage-sign"; do
        # shellcheck disable=SC2086  # words on purpose
        pkcs11-tool --module "$KMSBRIDGE_SHIM_MODULE" --token-label one --login --pin 1234 \
            --keygen --id 01 --sensitive --key-type $key
    done
}
if ! (set -e; make_token) >"$dir/log" 2>&1; then
    cat "$dir/log"
    echo "heal: 0 passed, 1 failed, 0 skipped"
    exit 1
fi

# the shim, and its other names
cp "$shim" "$dir/shim.so"
ln -s shim.so "$dir/symlink.so"
ln "$dir/shim.so" "$dir/hardlink.so"
export KMS_TEST_DIR=$dir KMS_TEST_MODULE=$dir/shim.so
export KMSBRIDGE_SHIM_CONTROL=$dir/plan KMSBRIDGE_SHIM_COUNTERS=$dir/counters
: >"$dir/plan"
timeout -k 5 180 "$heal"
