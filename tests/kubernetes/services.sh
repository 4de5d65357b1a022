#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Tier 1, and the main of tier 2, with the KEK in a key service instead of an HSM:
#
#   services.sh openbao    a real OpenBao server, Transit engine
#   services.sh alibaba    the fake of Alibaba Cloud KMS
#
# lib.sh says what the environment may set. Exit status: 0 passed, 77 something is missing, else
# failed.
set -eu
service=${1:?which service}
# shellcheck disable=SC2034
tier=$service
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"

prepare
case $service in
openbao)
    # shellcheck source=../services/openbao.sh
    . "$here/../services/openbao.sh"
    lane openbao
    trap 'exit 143' TERM
    bao_start
    export KMSBRIDGE_BAO_URL=$bao_url KMSBRIDGE_BAO_TOKEN=$bao_root
    ;;
alibaba)
    # shellcheck source=../services/fakes.sh
    . "$here/../services/fakes.sh"
    fake_start alibaba
    export KMSBRIDGE_ALIBABA=$fake
    ;;
*)
    echo "services.sh: no service $service" >&2
    exit 2
    ;;
esac
export KMSBRIDGE_KEY_SERVICE=$service

# Both clean up: the servers of the tests, and the key service; the exit code stays.
if [ "$service" = openbao ]; then stop_service=bao_exit; else stop_service=fake_stop; fi
# shellcheck disable=SC2154 # code
trap 'code=$?; set +e; cleanup; (exit "$code"); $stop_service' EXIT
compile "$TMPDIR/client.test" ./client
# Left out is what only a PKCS#11 token has: sessions that get lost, and ids that order the keys.
run client "$TMPDIR/client.test" -test.parallel=8 -test.timeout=10m \
    -test.skip='^(TestLoginLost|TestActiveKeyIsHighestID)$'
kube_build
compile "$TMPDIR/cluster.test" ./cluster
# Left out is what has been shown on SoftHSM and takes minutes: it does not ask the key service more.
run cluster "$TMPDIR/cluster.test" -test.parallel=4 -test.timeout=10m \
    -test.skip='^(TestHotReload|TestHSMGoneSixRealMinutes)$'
finish
