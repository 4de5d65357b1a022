#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The behaviour tests on our module, over a kmsbridged on SoftHSM.
. "$(dirname "$0")/lib.sh"
make_token one
start_daemon one pin
export KMSBRIDGE_AGENT=$dir/agent.sock
"$module" run kmsbridge "$build/pkcs11/.libs/kmsbridge-pkcs11.so" one 1234
