#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Tier 2: a whole kube-apiserver with etcd against kmsbridged on a SoftHSM token; lib.sh says what the
# environment may set. KMSBRIDGE_LONG=1 adds the outage of six real minutes. The first run on a
# machine builds kube-apiserver and etcd: see apiserver/build.sh.
# Exit status: 0 passed, 77 something is missing, else failed.
set -eu
# shellcheck disable=SC2034
tier=tier2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"

prepare
kube_build
compile "$TMPDIR/cluster.test" ./cluster
run cluster "$TMPDIR/cluster.test" -test.parallel=4 -test.timeout=25m
finish
