#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/run.sh counts what test programs say and believes no exit code that contradicts them; and a
# stage that fails, dies, hangs or tests nothing fails the run.
. "$(dirname "$0")/lib/check.sh"
check counts

# exit code | what the program printed | passed failed skipped
while IFS='|' read -r code text want; do
    printf '%b' "$text" >"$CHECK_TMP/log"
    got=$(out=$CHECK_TMP bash tests/stages.sh count "$CHECK_TMP/log" "$code")
    if [ "$got" = "$want" ]; then ok "$code $text"; else not_ok "\"$text\", exit $code: $got, not $want"; fi
done <<'ROWS'
0|x: 3 passed, 0 failed, 0 skipped\n|3 0 0
0|x: 3 passed, 0 failed, 2 skipped\n|3 0 2
0|noise\nx: 3 passed, 0 failed, 0 skipped\nnoise\n|3 0 0
0|x: 1 passed, 0 failed, 0 skipped\nx: 7 passed, 0 failed, 0 skipped\n|7 0 0
0|12 passed, 0 failed\n|12 0 0
0|no count at all\n|1 0 0
0||1 0 0
1|no count at all\n|0 1 0
77|needs go\n|0 0 1
77|x: 0 passed, 0 failed, 4 skipped\n|0 0 4
77|x: 2 passed, 0 failed, 0 skipped\n|2 0 1
1|x: 3 passed, 1 failed, 0 skipped\n|3 1 0
0|x: 3 passed, 1 failed, 0 skipped\n|3 1 0
134|x: 3 passed, 0 failed, 0 skipped\n|3 1 0
0|x: 0 passed, 0 failed, 0 skipped\n|0 1 0
139|Segmentation fault\n|0 1 0
ROWS

cat >"$CHECK_TMP/stages.sh" <<'STAGES'
echo "quick/one 2 0 0 -" >"$out/$1.results"
case $1:$FAKE in
checks:dies) exit 3 ;;
checks:dies-silent) : >"$out/$1.results"; exit 3 ;;
checks:empty) : >"$out/$1.results" ;;
checks:fails) echo "checks/two 1 1 0 /dev/null" >>"$out/$1.results" ;;
checks:skips) echo "checks/two 1 0 3 /dev/null" >>"$out/$1.results" ;;
checks:hangs) exec sleep 60 ;;
esac
STAGES

# what the stage "checks" does | REQUIRE_ALL | time limit | exit code | closing line
while IFS='|' read -r fake all limit want_code want; do
    code=0
    FAKE=$fake KMSBRIDGE_REQUIRE_ALL=$all KMSBRIDGE_TIME_LIMIT=$limit KMSBRIDGE_OUT=$CHECK_TMP/out \
        KMSBRIDGE_CACHE=$CHECK_TMP/cache KMSBRIDGE_STAGES=$CHECK_TMP/stages.sh \
        bash tests/run.sh --stage gcc --stage checks --stage quickstart \
        >"$CHECK_TMP/run.log" 2>&1 </dev/null || code=$?
    got=$(tail -n 1 "$CHECK_TMP/run.log")
    if [ "$code|$got" = "$want_code|$want" ]; then
        ok "run: $fake"
    else
        not_ok "run: $fake (everything required: ${all:-no}): \"$got\", exit $code"
    fi
done <<'ROWS'
well|1||0|6 passed, 0 failed, 0 skipped
dies|||1|6 passed, 1 failed, 0 skipped
dies-silent|||1|4 passed, 1 failed, 0 skipped
empty|||1|4 passed, 1 failed, 0 skipped
fails|||1|7 passed, 1 failed, 0 skipped
skips|||0|7 passed, 0 failed, 3 skipped
skips|1||1|7 passed, 0 failed, 3 skipped
hangs||2|1|4 passed, 2 failed, 0 skipped
ROWS
check_end
