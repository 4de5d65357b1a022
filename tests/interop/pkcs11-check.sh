#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pkcs11-check, of Python's index: the same tests on SoftHSM itself and on our module over SoftHSM. Each
# that SoftHSM passes and we fail is explained in docs/pkcs11-check.md, or this fails; and so it does
# when an explanation is not needed any more.
#
# KMSBRIDGE_CHECK_FULL=1   all its tests, for an hour; else those of check/files.txt, for some minutes
# KMSBRIDGE_PYTHON         a Python of 3.12 or newer, which it needs and Debian 12 has not
# KMSBRIDGE_CHECK_KEEP=DIR keeps both results there
#
# All run in one process, which is four times as fast as one for each file. check/files.txt leaves out
# the files in which SoftHSM passes nothing, one in which it crashes, and the benchmark.
# shellcheck disable=SC2016,SC2317 # check() evaluates its words later, functions by name
. "$(dirname "$0")/lib.sh"
requirements=$top/tests/interop/check/requirements.txt
explanations=$top/docs/pkcs11-check.md

find_python() { # to $recent
    for recent in ${KMSBRIDGE_PYTHON-} python3.14 python3.13 python3.12 python3 \
        "${PYENV_ROOT:-$real_home/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
        "$recent" -c 'import sys, venv; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && return 0
    done
    return 1
}
real_home=${HOME:-/root}
lane pkcs11-check flock
find_python || {
    missing 'no Python of 3.12 or newer; KMSBRIDGE_PYTHON may name one'
    lane_end
}
from_pip "$recent" pkcs11-check "$requirements"
cases=$("$venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("pkcs11_check").submodule_search_locations[0])')/testcases
if [ "${KMSBRIDGE_CHECK_FULL-}" = 1 ]; then
    mapfile -t files < <(cd "$cases" && find . -name 'test_*.py' ! -name test_scalar_attr_length_extended.py | sed 's|^\./||' | sort)
    selection=()
else
    mapfile -t files <"$top/tests/interop/check/files.txt"
    selection=(--skip-slow)
fi
targets=("${files[@]/#/$cases/}")

# results NAME MODULE: to $tmp/NAME.xml
results() {
    mkdir -p "$tmp/$1.run"
    (
        cd "$tmp/$1.run" || exit 1
        export KMSBRIDGE_LOG=file:$tmp/$1.p11.log,warn # what our module says when a call fails
        PYTEST_ADDOPTS=--junitxml=$tmp/$1.xml P11TEST_PIN=$PIN exec timeout --foreground 5000 \
            "$venv/bin/pkcs11-check" test --module "$2" --slot 0 --isolation none "${selection[@]}" "${targets[@]}"
    ) >"$tmp/$1.log" 2>&1 </dev/null
    code=$?
    [ -s "$tmp/$1.xml" ] && return 0
    tail -n 30 "$tmp/$1.log"
    echo "pkcs11-check on $1 ended with $code and no results"
    return 1
}

# SoftHSM's own results are the same as long as nothing of it changes. Where they are not known yet they
# are made at the same time, on a token of their own.
of_softhsm=$cache/pkcs11-check-softhsm-$({
    sha256sum "$requirements" "$softhsm" && printf '%s\n' "${files[@]}" "${selection[@]}"
} | sha256sum | cut -c1-16).xml
make_of_softhsm() {
    mkdir -p "$tmp/own/tokens"
    printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$tmp/own/tokens" >"$tmp/own/softhsm2.conf"
    export SOFTHSM2_CONF=$tmp/own/softhsm2.conf
    softhsm2-util --init-token --free --label "$TOKEN" --pin "$PIN" --so-pin "$SO_PIN" >"$tmp/token.log" 2>&1 &&
        results softhsm "$softhsm" && mv "$tmp/softhsm.xml" "$of_softhsm.$$" && mv "$of_softhsm.$$" "$of_softhsm"
}
apart() { # COMMAND...: at the same time, in a process group of its own, which ends with the lane
    set -m
    "$@" &
    child=$!
    set +m
    pids+=("-$child")
}
making=
if [ ! -s "$of_softhsm" ]; then
    apart make_of_softhsm
    making=$child
fi
token
serve
apart results ours "$module"
wait "$child" || {
    not_ok 'no results of the module'
    lane_end
}
[ -z "$making" ] || wait "$making"
[ -s "$of_softhsm" ] || {
    not_ok 'no results of SoftHSM'
    lane_end
}
if [ "$ours" = no ]; then # the check on the lane itself: SoftHSM twice, and nothing is to be explained
    explanations=$tmp/none.md
    : >"$explanations"
fi
run "$python" "$top/tests/interop/check/compare.py" "$of_softhsm" "$tmp/ours.xml" "$explanations"
cp "$tmp/out" "$tmp/compared"
if [ "$ours" = yes ]; then # it finds what it looks for
    : >"$tmp/none.md"
    run "$python" "$top/tests/interop/check/compare.py" "$of_softhsm" "$tmp/ours.xml" "$tmp/none.md"
    check 'planted: nothing is explained' refused 'FAIL: not explained'
    { cat "$explanations" && echo '- `test_planted.py::test_it`'; } >"$tmp/more.md"
    run "$python" "$top/tests/interop/check/compare.py" "$of_softhsm" "$tmp/ours.xml" "$tmp/more.md"
    check 'planted: more is explained than differs' refused 'no difference any more: test_planted.py'
fi
[ -z "${KMSBRIDGE_CHECK_KEEP-}" ] ||
    cp "$of_softhsm" "$tmp/ours.xml" "$tmp/ours.log" "$tmp/ours.p11.log" "$tmp/daemon.log" "$tmp/audit.log" "$KMSBRIDGE_CHECK_KEEP"
if grep -q 'CKR_DEVICE_ERROR' "$tmp/compared"; then # why, is in the log
    grep -E ': (auth|throttled|unavailable|timeout|protocol|busy)' "$tmp/ours.p11.log" | tail -n 10
fi
grep -v '^pkcs11-check: ' "$tmp/compared" # the closing line is said once
read -r _ same _ differ _ < <(grep '^pkcs11-check: ' "$tmp/compared" | tail -n 1 | tr -d ,)
check 'compared' test "${same:-0}" -gt 1000
passed=$((passed + ${same:-0})) failed=$((failed + ${differ:-0}))
check 'the daemon is there in the end' eval '[ "$ours" = no ] || kill -0 "$daemon_pid"'
lane_end
