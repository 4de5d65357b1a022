# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The strict fake of Alibaba Cloud KMS for a test: sourced, not run. It ends with the test.
#
#   fake_start NAME   its line of JSON to $fake, its folder (with ca.pem) to $tmp; ends the test called
#                     NAME where the fake cannot run
#   fake_field FIELD  a number or a text of that line
#
# KMSBRIDGE_REQUIRE_ALL=1: what is missing fails the test
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034 # the tests use it
build=${KMSBRIDGE_BUILD:-$([ -f config.status ] && pwd || echo "$top/build")} # make check is in its own
python=/usr/bin/python3 # Debian's, which has Debian's cryptography

fake_without() {
    if [ "${KMSBRIDGE_REQUIRE_ALL-}" = 1 ]; then
        echo "missing: $*"
        echo "$name: 0 passed, 1 failed, 0 skipped"
        exit 1
    fi
    echo "SKIP: $name: $*"
    echo "$name: 0 passed, 0 failed, 1 skipped"
    exit 77
}
# by the trap
# shellcheck disable=SC2317
fake_stop() {
    local rc=$?
    set +e # of those that source us: a killed server's exit code is not ours
    kill "$FAKE_PID" 2>/dev/null
    wait "$FAKE_PID" 2>/dev/null
    if [ "$rc" -ne 0 ] && [ -s "$tmp/fake.err" ]; then tail -n 20 "$tmp/fake.err"; fi
    rm -rf "$tmp"
    exit "$rc"
}
fake_start() { # NAME
    local variable
    name=$1
    "$python" -c 'import cryptography' 2>/dev/null ||
        fake_without "$python has no cryptography: install python3-cryptography"
    tmp=$(mktemp -d "${TMPDIR:-/tmp}/kmsbridge-fake.XXXXXX")
    # nothing of the user's own takes part
    for variable in $(env | sed -n 's/^\(ALIBABA_CLOUD_[A-Z0-9_]*\)=.*/\1/p'); do unset "$variable"; done
    # it ends with its stdin, which is this shell's
    coproc FAKE { PYTHONDONTWRITEBYTECODE=1 exec "$python" "$top/tests/fakes/alibaba/main.py" --tls "$tmp" 2>"$tmp/fake.err"; }
    trap fake_stop EXIT
    trap 'exit 130' INT TERM
    if ! IFS= read -r -t 60 fake <&"${FAKE[0]}"; then
        echo "the fake does not start"
        echo "$name: 0 passed, 1 failed, 0 skipped"
        exit 1
    fi
}
fake_field() { # FIELD
    sed -n "s/.*\"$1\": \"\\{0,1\\}\\([^\",}]*\\).*/\\1/p" <<<"$fake"
}
