#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Tier 1: the API server's own KMS v2 client against kmsbridged on a SoftHSM token; lib.sh says what
# the environment may set. Exit status: 0 passed, 77 something is missing, else failed.
set -eu
# shellcheck disable=SC2034
tier=tier1
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"

prepare
compile "$TMPDIR/client.test" ./client
run client "$TMPDIR/client.test" -test.parallel=16 -test.timeout=10m

# Older clients: another gRPC library, and :authority is the socket's path. Left out are the tests
# that need hooks which those clients do not have.
for version in 0.29 0.31; do
    compile "$TMPDIR/client-$version.test" ./client -modfile="skew/k8s-$version.mod" -tags=k8s_old
    run "client-$version" "$TMPDIR/client-$version.test" -test.parallel=16 -test.timeout=10m \
        -test.skip='^(TestHSMGoneSixMinutes|TestKeepWriting|TestLegacyDEK)$'
done
finish
