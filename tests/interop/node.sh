#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pkcs11js, of npm's registry: Node.js with the token's keys and with session keys.
# shellcheck disable=SC2016 # check() evaluates its words later
. "$(dirname "$0")/lib.sh"
lane node node npm make g++
from_npm pkcs11js 2.1.7

token
key rsa rsa
key ec ec
key aes aes
serve
limit=120 run node "$top/tests/interop/node/use.js" "$npm/node_modules/pkcs11js" "$module" "$TOKEN" "$PIN"
check_lines pkcs11js 17
if [ "$ours" = yes ]; then
    stop_daemon
    run node "$top/tests/interop/node/use.js" "$npm/node_modules/pkcs11js" "$module" "$TOKEN" "$PIN"
    check 'without an agent' refused 'ended early'
fi
lane_end
