#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The waist's contract on the Transit engine of a real OpenBao.
# shellcheck disable=SC2154 # what openbao.sh sets
. "$(dirname "$0")/openbao.sh"
lane vault_contract
bao_start
export KMS_TEST_VAULT=$bao_url KMS_TEST_TOKEN=vault KMS_TEST_PIN=$bao_root
# what Transit has not: PKCS#11's other schemes, OAEP with a label or by another hash than SHA-256,
# decryption without OAEP; data keys of 24 bytes, and associated data in rewrap
export KMS_TEST_LACKS="aes-cbc-hmac rsa-oaep rsa-raw rsa-pkcs1 rsa-oaep-sha1 rsa-oaep-sha1-label
 rsa-oaep-sha256 rsa-oaep-sha256-label rsa-oaep-l-sha256-label rsa-oaep-l-sha384
 rsa-oaep-l-sha384-label rsa-oaep-l-sha512 rsa-oaep-l-sha512-label data-key-24 rewrap-aad"
"$build/tests/contract/contract" vault_contract
