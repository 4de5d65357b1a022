#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The `alibaba` backend on its strict fake: keys, every fault, every source of credentials.
. "$(dirname "$0")/fakes.sh"
fake_start alibaba
KMS_TEST_FAKE=$fake KMS_TEST_DIR=$tmp timeout -k 10 240 "$build/tests/services/alibaba"
