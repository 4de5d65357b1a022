#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The contract on NSS softokn 3.87 (PKCS#11 3.0, used by its 2.40 function list), which takes its
# configuration in pReserved. It keeps one secret key for each CKA_ID, so there are no companions,
# and it has no second token and no Ed25519.
set -eu
contract=${KMS_CONTRACT:-./tests/contract/contract}
module=${KMS_SOFTOKN:-$(find /usr/lib /usr/lib64 -name libsoftokn3.so 2>/dev/null | head -n 1)}
if [ -z "$module" ] || ! command -v certutil >/dev/null; then
    echo "skipped: libsoftokn3.so or certutil is missing (libnss3, libnss3-tools)"
    echo "nss: 0 passed, 0 failed, 1 skipped"
    exit 77
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf '1234\n' >"$dir/pin"
certutil -N -d "sql:$dir" -f "$dir/pin"

export KMS_TEST_MODULE=$module KMS_TEST_TOKEN="NSS Certificate DB" KMS_TEST_PIN=1234
export KMS_TEST_INIT_ARGS="configdir='sql:$dir' certPrefix='' keyPrefix='' secmod='secmod.db' flags= "
export KMS_TEST_LACKS="aes-cbc-hmac eddsa token2 origin"
"$contract" nss
