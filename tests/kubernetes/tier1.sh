#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Tier 1: the API server's own KMS v2 client against kmsbridged on a SoftHSM token; lib.sh says what
# the environment may set. Exit status: 0 passed, 77 something is missing, else failed.
set -eu
tier=tier1
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

prepare
compile "$TMPDIR/client.test" ./client
run client "$TMPDIR/client.test" -test.parallel=16 -test.timeout=10m
finish
