# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154
#
# What tier1.sh and tier2.sh share; they set `tier` and `here` and source this file.
#
# Environment:
#   KMSBRIDGE_BUILD           the build tree; default: top_builddir, else two folders up
#   KMSBRIDGED, KMSBRIDGECTL  the binaries; default: the build tree's
#   KMSBRIDGE_SHIM            the fault-injecting PKCS#11 module; default: the build tree's, which is
#                             built if need be
#   KMSBRIDGE_REQUIRE_ALL=1   a missing thing is a failure and not a skip
#   KMSBRIDGE_CACHE           where built things are kept, default $HOME/.cache/kmsbridge
#   KMSBRIDGE_TEST_RUN        a regular expression of tests to run, default all

set -eu

build=${KMSBRIDGE_BUILD:-${top_builddir:-$here/../..}}
KMSBRIDGED=${KMSBRIDGED:-$build/kmsbridge/kmsbridged}
KMSBRIDGECTL=${KMSBRIDGECTL:-$build/tools/kmsbridgectl}
KMSBRIDGE_SHIM=${KMSBRIDGE_SHIM:-$build/tests/fakes/.libs/p11-shim.so}

# absolute FILE: tests run in a folder of their own.
absolute() {
    case $1 in
    /*) echo "$1" ;;
    *) echo "$PWD/$1" ;;
    esac
}
KMSBRIDGED=$(absolute "$KMSBRIDGED")
KMSBRIDGECTL=$(absolute "$KMSBRIDGECTL")
KMSBRIDGE_SHIM=$(absolute "$KMSBRIDGE_SHIM")
export KMSBRIDGED KMSBRIDGECTL KMSBRIDGE_SHIM
KMSBRIDGE_SOURCE=$(cd "$here/../.." && pwd) # its documents are run
export KMSBRIDGE_SOURCE

export GOTOOLCHAIN=local GOWORK=off CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false -mod=readonly'

# missing WHAT: ends the script with a skip, or with a failure when nothing may be missing.
missing() {
    if [ "${KMSBRIDGE_REQUIRE_ALL:-}" = 1 ]; then
        echo "$tier: FAIL: missing: $1"
        exit 1
    fi
    echo "$tier: SKIP: missing: $1"
    exit 77
}

# The daemon runs in the build tree as libtool's wrapper, which would put a shell between the tests
# and the process that they kill; so take the real binary if there is one behind it.
unwrap() {
    dir=$(dirname "$1")
    name=$(basename "$1")
    if [ -x "$dir/.libs/$name" ]; then
        echo "$dir/.libs/$name"
    else
        echo "$1"
    fi
}

prepare() {
    command -v go >/dev/null 2>&1 || missing "go"
    for tool in softhsm2-util pkcs11-tool setpriv; do
        command -v $tool >/dev/null 2>&1 || missing "$tool"
    done
    [ -x "$KMSBRIDGED" ] || missing "$KMSBRIDGED (build it, or set KMSBRIDGED)"
    [ -x "$KMSBRIDGECTL" ] || missing "$KMSBRIDGECTL (build it, or set KMSBRIDGECTL)"
    KMSBRIDGED=$(unwrap "$KMSBRIDGED")
    if [ ! -f "$KMSBRIDGE_SHIM" ] && [ -f "$build/Makefile" ]; then
        make -s -C "$build" tests/fakes/p11-shim.la >&2 || :
    fi
    [ -f "$KMSBRIDGE_SHIM" ] || missing "$KMSBRIDGE_SHIM (build it, or set KMSBRIDGE_SHIM)"

    # A short name: unix socket paths hold 107 bytes. Readable, for clients that run as other users.
    TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/kms.XXXXXX")
    export TMPDIR
    chmod 755 "$TMPDIR"
    child=
    trap cleanup EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# Servers die with the test process, which dies with us.
cleanup() {
    if [ -n "$child" ]; then
        kill -9 "$child" 2>/dev/null || :
        wait "$child" 2>/dev/null || :
    fi
    rm -rf "$TMPDIR"
}

# compile OUT PACKAGE [FLAGS]: a test binary from the harness. go may lack only the network: that is
# a missing thing; code that does not compile is a failure.
compile() {
    out=$1
    package=$2
    shift 2
    log=$TMPDIR/compile.log
    modfile=
    for flag; do
        case $flag in -modfile=*) modfile=$flag ;; esac
    done
    if ! (cd "$here/harness" && go mod download ${modfile:+"$modfile"}) >"$log" 2>&1; then
        missing "Go modules: $(tail -n 1 "$log")"
    fi
    if ! (cd "$here/harness" && nice -n 10 go test -c -vet=off -o "$out" "$@" "$package") >"$log" 2>&1; then
        cat "$log"
        echo "$tier: FAIL: $package does not compile"
        exit 1
    fi
}

# kube_build: kube-apiserver, kubectl and etcd, in $KMSBRIDGE_KUBE.
kube_build() {
    status=0
    "$here/apiserver/build.sh" >"$TMPDIR/dir" 2>"$TMPDIR/build.log" || status=$?
    cat "$TMPDIR/build.log"
    case $status in
    0) ;;
    77) missing "$(tail -n 1 "$TMPDIR/build.log")" ;;
    *)
        echo "$tier: FAIL: kube-apiserver, kubectl and etcd were not built"
        exit 1
        ;;
    esac
    KMSBRIDGE_KUBE=$(cat "$TMPDIR/dir")
    export KMSBRIDGE_KUBE
}

passed=0 failed=0 skipped=0 broken=0

# count RESULT LOG: tests that have this result; one that only holds subtests is not counted.
count() {
    grep -E '^ *--- (PASS|FAIL|SKIP): ' "$2" | awk -v want="$1:" '
        function flush() { if (result == want) n++ }
        { match($0, /^ */); if (NR > 1 && RLENGTH <= depth) flush(); depth = RLENGTH; result = $2 }
        END { if (NR) flush(); print n + 0 }'
}

# run NAME BINARY FLAGS: runs a test binary, shows one line per test and the whole output of those
# that failed, and adds to the counts.
run() {
    name=$1
    binary=$2
    shift 2
    log=$TMPDIR/$name.log
    # pdeathsig: so that it also dies when this shell is killed outright.
    (cd "$TMPDIR" && exec setpriv --pdeathsig KILL -- "$binary" -test.v ${KMSBRIDGE_TEST_RUN:+"-test.run=$KMSBRIDGE_TEST_RUN"} "$@") >"$log" 2>&1 &
    child=$!
    status=0
    wait "$child" || status=$?
    child=
    grep -E '^ *--- ' "$log" | sed "s|^|$name: |" || :
    p=$(count PASS "$log") f=$(count FAIL "$log") s=$(count SKIP "$log")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$status" -ne 0 ]; then
        [ "$f" -gt 0 ] || broken=1 # a panic or a timeout fails no test by name
        grep -vE '^=== (RUN|PAUSE|CONT)' "$log" | sed "s|^|$name> |"
    elif [ "$s" -gt 0 ]; then
        grep -A 2 -E '^ *--- SKIP' "$log" | sed "s|^|$name> |"
    fi
    if [ "$p" -eq 0 ] && [ "$f" -eq 0 ] && [ "$s" -eq 0 ]; then
        echo "$name: no test ran, status $status"
        broken=1
    fi
}

finish() {
    echo "$tier: $passed passed, $failed failed, $skipped skipped"
    if [ "$failed" -gt 0 ] || [ "$broken" -ne 0 ]; then
        exit 1
    fi
    exit 0
}
