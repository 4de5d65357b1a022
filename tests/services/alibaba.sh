#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The `alibaba` backend on the strict fake of tests/fakes/alibaba: keys, every fault, every source of
# credentials.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
build=${top_builddir:-${KMSBRIDGE_BUILD:-$top/build}}
python=/usr/bin/python3 # Debian's, which has Debian's cryptography

lacks() {
    echo "SKIP: alibaba: $*"
    [ "${KMSBRIDGE_REQUIRE_ALL-}" != 1 ] || { echo "alibaba: 0 passed, 1 failed, 0 skipped" && exit 1; }
    echo "alibaba: 0 passed, 0 failed, 1 skipped"
    exit 77
}

[ -x "$build/tests/services/alibaba" ] || { echo "alibaba: 0 passed, 1 failed, 0 skipped: not built" && exit 1; }
"$python" -c 'import cryptography' 2>/dev/null || lacks "$python has no cryptography: install python3-cryptography"

tmp=$(mktemp -d "${TMPDIR:-/tmp}/kmsbridge-alibaba.XXXXXX")
# the fake ends with its stdin, which is this shell's
coproc FAKE { PYTHONDONTWRITEBYTECODE=1 exec "$python" "$top/tests/fakes/alibaba/main.py" --tls "$tmp" 2>"$tmp/fake.err"; }
# shellcheck disable=SC2317 # by the trap
stop() {
    local rc=$?
    kill "$FAKE_PID" 2>/dev/null
    wait "$FAKE_PID" 2>/dev/null
    if [ "$rc" -ne 0 ] && [ -s "$tmp/fake.err" ]; then tail -n 20 "$tmp/fake.err"; fi
    rm -rf "$tmp"
    exit "$rc"
}
trap stop EXIT
trap 'exit 130' INT TERM
if ! IFS= read -r -t 30 line <&"${FAKE[0]}"; then
    echo "the fake does not start"
    cat "$tmp/fake.err"
    echo "alibaba: 0 passed, 1 failed, 0 skipped"
    exit 1
fi
# nothing of the user's own takes part
for name in $(env | sed -n 's/^\(ALIBABA_CLOUD_[A-Z0-9_]*\)=.*/\1/p'); do unset "$name"; done
KMS_TEST_FAKE=$line KMS_TEST_DIR=$tmp timeout -k 10 240 "$build/tests/services/alibaba"
