#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds and tests everything, and closes with one line of counts.
# usage: tests/run.sh [--quick] [--stage NAME]... [--list]
#   --quick        the everyday stages only
#   --stage NAME   that stage only; may be repeated
#   --list         name the stages and stop
#
# KMSBRIDGE_REQUIRE_ALL=1  a skipped test fails the run
# KMSBRIDGE_LONG=1         tests that wait in real time take their time
# KMSBRIDGE_TIME_LIMIT=S   the whole run's limit in seconds; what is not done by then has failed
# KMSBRIDGE_CACHE=DIR      what is slow to make is kept there (default: ~/.cache/kmsbridge)
set -eu
cd "$(dirname "$0")/.."
top=$PWD

out=${KMSBRIDGE_OUT:-$top/build-run} # logs, results and a build folder for each way of building
stages=${KMSBRIDGE_STAGES:-tests/stages.sh} # tests/checks/counts.sh puts its own here
export KMSBRIDGE_CACHE="${KMSBRIDGE_CACHE:-${HOME:-/var/tmp}/.cache/kmsbridge}"
export out

# stage | limit in seconds | in --quick; asked: only by --stage | what
STAGES='
deps         |  900 | yes | install what conf/debian-packages lists
gcc          | 1200 | yes | build with gcc, warnings are errors; make check
clang        |  900 | no  | build with clang, warnings are errors; unit tests
asan         | 1500 | no  | make check under AddressSanitizer and UndefinedBehaviorSanitizer
tsan         | 1500 | no  | make check under ThreadSanitizer
fuzz         |  900 | no  | replay the corpora, then fuzz for a short while
checks       |  600 | yes | layers, headers, man pages, hardening, formats, example files
quickstart   |  600 | yes | the first command of the README
interop      | 1500 | no  | other programs use the module: OpenSSL, nginx, OpenSSH, NSS, Java ...
services     |  900 | no  | the waist on key services over HTTPS: a real OpenBao, a strict fake of Alibaba Cloud KMS
conformance  | 1500 | no  | pkcs11-check on our module and on SoftHSM, compared
kubernetes   | 3000 | no  | the real KMS v2 client, then kube-apiserver and etcd
bench        |  600 | no  | every benchmark, briefly
fresh-debian | 1500 | no  | README commands and units in a Debian 12 with nothing installed
'

stage_rows() { printf '%s' "$STAGES" | grep -F '|' | tr -d ' ' | awk -F'|' '{ print $1, $2, $3 }'; }

quick=no only=''
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=yes ;;
    --stage)
        if ! stage_rows | grep -q "^${2:-?} "; then
            echo "run.sh: no stage \"${2-}\"; --list names them" >&2
            exit 2
        fi
        only="$only $2 "
        shift
        ;;
    --list)
        printf '%s' "$STAGES" | grep -F '|' | sed 's/ *|[^|]*|[^|]*| */\t/' | expand -t 15
        exit 0
        ;;
    *)
        sed -n '4,7s/^# \{0,1\}//p' "tests/run.sh" >&2
        exit 2
        ;;
    esac
    shift
done

rm -rf "$out/logs" "$out"/*.results
mkdir -p "$out/logs" "$KMSBRIDGE_CACHE"
started=$SECONDS
passed=0 failed=0 skipped=0
child=
trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null; exit 130' INT TERM

# Shows what failed and what was skipped of one stage, so that nothing hides in a log.
tell() {
    local name p f s log
    while read -r name p f s log; do
        if [ "$f" -gt 0 ]; then
            echo "  FAIL $name ($f of $((p + f + s))), $log"
            { grep -E '^(FAIL|not ok)|[Ff]ailure|ERROR|SUMMARY|[Aa]ssert' "$log" || true; } | head -n 20 | sed 's/^/    /'
            tail -n 15 -- "$log" | sed 's/^/    | /'
        fi
        if [ "$s" -gt 0 ]; then
            echo "  SKIP $name ($s): $({ grep -i -m 3 'skip' "$log" || true; } | tr '\n' ';' | cut -c1-300)"
        fi
    done <"$1"
}

stage_rows >"$out/stages"
while read -r stage limit everyday; do
    if [ -n "$only" ]; then
        case $only in *" $stage "*) ;; *) continue ;; esac
    elif [ "$everyday" = asked ]; then
        [ "$quick" = yes ] || echo "$stage is run by --stage $stage only"
        continue
    elif [ "$quick" = yes ] && [ "$everyday" != yes ]; then
        continue
    fi
    if [ -n "${KMSBRIDGE_TIME_LIMIT-}" ]; then
        left=$((KMSBRIDGE_TIME_LIMIT - (SECONDS - started)))
        [ "$left" -ge "$limit" ] || limit=$left
    fi
    began=$SECONDS code=0
    results=$out/$stage.results
    : >"$results"
    if [ "$limit" -gt 0 ]; then
        timeout -k 20 "$limit" bash "$stages" "$stage" \
            >"$out/logs/$stage.log" 2>&1 </dev/null &
        child=$!
        wait "$child" || code=$?
        child=
    else
        echo "out of time: the run's limit is ${KMSBRIDGE_TIME_LIMIT}s" >"$out/logs/$stage.log"
        code=124
    fi
    [ "$code" -ne 124 ] || echo "stopped: the stage's time was up ($limit s)" >>"$out/logs/$stage.log"
    # a stage that died, or ended without a single result, is a failure whatever it had counted
    if [ "$code" -ne 0 ] || [ ! -s "$results" ]; then
        echo "$stage/stage 0 1 0 $out/logs/$stage.log" >>"$results"
    fi
    read -r p f s < <(awk '{ p += $2; f += $3; s += $4 } END { print p, f, s }' "$results")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    verdict=ok
    [ "$f" -eq 0 ] || verdict=FAILED
    printf '%-13s %-6s %5d passed %3d failed %3d skipped %6d s\n' \
        "$stage" "$verdict" "$p" "$f" "$s" $((SECONDS - began))
    tell "$results"
done <"$out/stages"

status=0
[ "$failed" -eq 0 ] || status=1
[ "$passed" -gt 0 ] || status=1
if [ "${KMSBRIDGE_REQUIRE_ALL-}" = 1 ] && [ "$skipped" -gt 0 ]; then
    echo "KMSBRIDGE_REQUIRE_ALL=1: nothing may be skipped, and $skipped were"
    status=1
fi
echo "logs are in $out/logs; $((SECONDS - started)) s"
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
