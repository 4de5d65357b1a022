#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The stages of tests/run.sh, which runs each in a process of its own: tests/stages.sh NAME.
# A stage writes a line for each test program to $out/NAME.results; when it dies, it has failed.
set -eu
cd "$(dirname "$0")/.."
stage=$1
: "${out:?is set by tests/run.sh}"
jobs=$(nproc)

# --- counting ------------------------------------------------------------------------------------

# count LOG CODE: prints "passed failed skipped" of one test program, from its closing line
# "name: N passed, N failed, N skipped" and its exit code. Without that line it counts as one test.
# An exit code that contradicts the line adds a failure.
count() {
    awk -v code="$2" '
        /^([^ ]+: )?[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ {
            line = $0; sub(/^[^ ]+: /, "", line); split(line, n, /[^0-9]+/)
            p = n[1] + 0; f = n[2] + 0; s = n[3] + 0; seen = 1
        }
        END {
            if (!seen) {
                p = (code == 0); s = (code == 77); f = !p && !s
            } else if (code == 77) {
                if (s == 0) s = 1
            } else if (code != 0 && f == 0) f = 1
            else if (code == 0 && p + f + s == 0) f = 1
            print p, f, s
        }' "$1"
}

# record NAME LOG CODE: one line "name passed failed skipped log".
record() {
    echo "$1 $(count "$2" "$3") $2" >>"$out/$stage.results"
}

# counted NAME COMMAND...: runs one test program and counts it; never fails itself.
counted() {
    local name=$1 log code
    shift
    log=$out/logs/$stage/${name//\//_}.log
    mkdir -p "${log%/*}"
    code=0
    "$@" >"$log" 2>&1 </dev/null || code=$?
    record "$name" "$log" "$code"
}

# check_in BUILD [TEST...]: make check there (only these tests), and counts what automake recorded.
check_in() {
    local build=$1 made=0 trs name log code
    shift
    find "$build/tests" -name '*.trs' -delete
    if [ $# -gt 0 ]; then
        make -C "$build" -j"$jobs" check TESTS="$*" || made=$?
    else
        make -C "$build" -j"$jobs" check || made=$?
    fi
    find "$build/tests" -name '*.trs' | sort >"$out/$stage.trs"
    while IFS= read -r trs; do
        name=${trs#"$build"/} name=${name%.trs} log=${trs%.trs}.log
        case $(sed -n 's/^:test-result: *\([A-Z]*\).*/\1/p' "$trs") in
        PASS) code=0 ;;
        SKIP) code=77 ;;
        *) code=1 ;;
        esac
        record "$name" "$log" "$code"
    done <"$out/$stage.trs"
    if [ ! -s "$out/$stage.trs" ]; then
        echo "make check ran no test"
        return 1
    fi
    # a failing test has been counted above; a failing build has not
    [ "$made" -eq 0 ] ||
        xargs grep -hq '^:test-result: *\(FAIL\|ERROR\|XPASS\|XFAIL\)' <"$out/$stage.trs"
}

# --- stages: each runs in a shell of its own under set -e ----------------------------------------

build_in() { # folder, then arguments of configure
    local build=$out/$1 source=$PWD
    shift
    mkdir -p "$build"
    if [ ! -x configure ] || [ configure.ac -nt configure ]; then autoreconf -fi; fi
    (cd "$build" && "$source/configure" --enable-werror "$@")
    make -C "$build" -j"$jobs" all
    make -C "$build" -j"$jobs" check TESTS=
}

stage_deps() {
    sh conf/install-deps.sh build run test
    echo "deps 1 0 0 -" >>"$out/$stage.results"
}

stage_gcc() {
    build_in gcc CC=gcc
    check_in "$out/gcc"
}

stage_clang() {
    build_in clang CC=clang
    # shellcheck disable=SC2046 # a list of names
    check_in "$out/clang" $(make -s -C "$out/clang" print-tests | tr ' ' '\n' | grep '^tests/unit/')
}

stage_asan() {
    build_in asan CC=clang --with-sanitizer=address,undefined CFLAGS='-g -O1'
    ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1 \
        UBSAN_OPTIONS=print_stacktrace=1 \
        LSAN_OPTIONS=suppressions=$PWD/tests/checks/lsan.supp:print_suppressions=0 \
        check_in "$out/asan"
}

stage_tsan() {
    # clang 14's run time cannot place its shadow under a newer kernel's address randomisation
    if [ "${KMSBRIDGE_FIXED_ADDRESSES-}" != 1 ]; then
        KMSBRIDGE_FIXED_ADDRESSES=1 exec setarch "$(uname -m)" -R bash "$0" tsan
    fi
    build_in tsan CC=clang --with-sanitizer=thread CFLAGS='-g -O1'
    # what has threads: kmsbridgectl has none of its own; and what does not measure time or memory
    # shellcheck disable=SC2046 # a list of names
    TSAN_OPTIONS=suppressions=$PWD/tests/checks/tsan.supp:second_deadlock_stack=1:ignore_noninstrumented_modules=1 \
        check_in "$out/tsan" $(make -s -C "$out/tsan" print-tests | tr ' ' '\n' | grep -v '^tests/interop/\|test_abuse$')
}

stage_fuzz() {
    local fuzzer name corpus seconds=20
    [ "${KMSBRIDGE_LONG-}" != 1 ] || seconds=45
    build_in fuzz CC=clang --enable-fuzz --with-sanitizer=address,undefined CFLAGS='-g -O1'
    for fuzzer in "$out"/fuzz/tests/fuzz/fuzz_*; do
        [ -x "$fuzzer" ] || continue
        name=${fuzzer##*/}
        corpus=$PWD/tests/fuzz/corpus/${name#fuzz_}
        [ -d "$corpus" ] || { echo "no corpus for $name: $corpus"; return 1; }
        counted "$name/corpus" "$fuzzer" -runs=0 "$corpus"
        mkdir -p "$out/fuzz/new/$name"
        counted "$name/short" "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
            -artifact_prefix="$out/logs/fuzz/" "$out/fuzz/new/$name" "$corpus"
    done
}

stage_checks() {
    local script
    [ -f "$out/gcc/config.status" ] || build_in gcc CC=gcc
    for script in tests/checks/*.sh; do
        case $script in */fresh-debian.sh) continue ;; esac # has a stage of its own
        counted "${script#tests/}" env KMSBRIDGE_BUILD="$out/gcc" top_builddir="$out/gcc" bash "$script"
    done
}

stage_quickstart() {
    counted quickstart sh conf/quickstart.sh
}

stage_interop() {
    local script name
    [ -f "$out/gcc/config.status" ] || build_in gcc CC=gcc
    for script in tests/interop/*.sh; do
        name=${script#tests/} name=${name%.sh}
        # ctl is in make check, pkcs11-check a stage of its own
        case $name in interop/lib | interop/ctl | interop/pkcs11-check) continue ;; esac
        # each lane on SoftHSM itself, too: a check on the lane; what begins with "unset MODULE" is
        # about what SoftHSM has not
        grep -q '^unset MODULE$' "$script" ||
            counted "$name/softhsm" env MODULE=/usr/lib/softhsm/libsofthsm2.so bash "$script"
        counted "$name" env KMSBRIDGE_BUILD="$out/gcc" bash "$script"
    done
}

stage_services() {
    local script name
    [ -f "$out/gcc/config.status" ] || build_in gcc CC=gcc
    for script in tests/services/*_*.sh; do
        name=${script#tests/} name=${name%.sh}
        counted "$name" env KMSBRIDGE_BUILD="$out/gcc" bash "$script"
    done
}

stage_conformance() {
    [ -f "$out/gcc/config.status" ] || build_in gcc CC=gcc
    counted interop/pkcs11-check env KMSBRIDGE_BUILD="$out/gcc" bash tests/interop/pkcs11-check.sh
}

stage_kubernetes() {
    local script service
    [ -f "$out/gcc/config.status" ] || build_in gcc CC=gcc
    for script in tests/kubernetes/tier1.sh tests/kubernetes/tier2.sh; do
        counted "${script#tests/}" env KMSBRIDGE_BUILD="$out/gcc" top_builddir="$out/gcc" bash "$script"
    done
    for service in openbao alibaba; do
        counted "kubernetes/$service" env KMSBRIDGE_BUILD="$out/gcc" \
            bash tests/kubernetes/services.sh "$service"
    done
}

stage_bench() {
    [ -f "$out/gcc/config.status" ] || build_in gcc CC=gcc
    if command -v go >/dev/null 2>&1; then
        counted bench bash tests/bench/run.sh --build "$out/gcc" --quick
    else
        counted bench bash tests/bench/run.sh --build "$out/gcc" --quick --servers kmsbridged
        counted bench/peer-go sh -c 'echo "SKIP: the Go plugin to compare with needs go"; exit 77'
    fi
    counted bench/p11 bash tests/bench/p11.sh --build "$out/gcc" --quick
    counted bench/vault bash tests/bench/vault.sh --build "$out/gcc" --quick
}

stage_fresh_debian() {
    counted fresh-debian bash tests/checks/fresh-debian.sh
}

case $stage in
count) count "$2" "$3" ;; # LOG CODE: for tests/checks/counts.sh
deps) stage_deps ;;
gcc) stage_gcc ;;
clang) stage_clang ;;
asan) stage_asan ;;
tsan) stage_tsan ;;
fuzz) stage_fuzz ;;
checks) stage_checks ;;
quickstart) stage_quickstart ;;
interop) stage_interop ;;
services) stage_services ;;
conformance) stage_conformance ;;
kubernetes) stage_kubernetes ;;
bench) stage_bench ;;
fresh-debian) stage_fresh_debian ;;
*)
    echo "stages.sh: no stage $stage" >&2
    exit 2
    ;;
esac
