#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The waist's contract on the strict fake of Alibaba Cloud KMS.
. "$(dirname "$0")/fakes.sh"
fake_start alibaba_contract
KMS_TEST_ALIBABA=http://127.0.0.1:$(fake_field kms)
KMS_TEST_ALIBABA_KEY=$(fake_field access_key)
KMS_TEST_PIN=$(fake_field secret)
export KMS_TEST_ALIBABA KMS_TEST_ALIBABA_KEY KMS_TEST_PIN KMS_TEST_TOKEN=alibaba
# what this service has not, or has in its own way only
export KMS_TEST_LACKS="instant-destroy aes generic ec eddsa rsa-raw pss-salt pss-sha1 pss-sha224 pss-sha384
 pss-sha512 pkcs1-sha384 pkcs1-sha512"
timeout -k 10 240 "$build/tests/contract/contract" alibaba_contract
