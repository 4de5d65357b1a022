#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The contract on SoftHSM: two private tokens, and a copy of one, which must show the same keys.
set -eu
contract=${KMS_CONTRACT:-./tests/contract/contract}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# token_dir NAME: a SoftHSM of its own below $dir/NAME
use() {
    mkdir -p "$dir/$1/tokens"
    printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$dir/$1/tokens" >"$dir/$1/conf"
    export SOFTHSM2_CONF=$dir/$1/conf
}

export KMS_TEST_MODULE=${KMS_SOFTHSM:-/usr/lib/softhsm/libsofthsm2.so}
# C_WrapKey alone does key wrap, not for keys of odd lengths; C_UnwrapKey does OAEP by SHA-1 alone
export KMS_TEST_LACKS="aes-key-wrap-data aes-key-wrap-pad-data aes-key-wrap-pad-odd rsa-raw-unwrap
 rsa-oaep-sha1-label-unwrap rsa-oaep-l-sha256-unwrap rsa-oaep-l-sha256-label-unwrap
 rsa-oaep-l-sha384-label-unwrap rsa-oaep-l-sha512-label-unwrap"
export KMS_TEST_TOKEN=one KMS_TEST_TOKEN2=two KMS_TEST_PIN=1234
use first
for token in one two; do
    softhsm2-util --init-token --free --label "$token" --pin 1234 --so-pin 123456 >"$dir/log" || {
        cat "$dir/log"
        exit 1
    }
done

"$contract" make
"$contract" ids | sort >"$dir/ids"
use copy
cp -r "$dir/first/tokens/." "$dir/copy/tokens/"
"$contract" ids | sort >"$dir/ids.copy"
if [ "$(wc -l <"$dir/ids")" -ne 2 ] || ! cmp "$dir/ids" "$dir/ids.copy"; then
    echo "a copied token shows other identities"
    echo "softhsm: 0 passed, 1 failed, 0 skipped"
    exit 1
fi
use first
"$contract" softhsm
