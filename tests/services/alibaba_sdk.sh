#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The vendor's own SDK on our fake: so that the fake and our client are not judged by each other. And which
# key it takes by default, and ours, in the same home; and what roles both take by a key or a token.
here=$(cd "$(dirname "$0")" && pwd)
MODULE=none # the lane needs no module of ours, and no daemon
. "$here/../interop/lib.sh"
lane alibaba_sdk python3
"$python" -c 'import cryptography' 2>/dev/null || { missing "$python has no cryptography: install python3-cryptography" && lane_end; }
from_pip "$python" alibaba-sdk "$here/alibaba/requirements.txt"
mkfifo "$tmp/stdin" # the fake ends with it, and it with this shell
export PYTHONDONTWRITEBYTECODE=1
"$python" "$top/tests/fakes/alibaba/main.py" <"$tmp/stdin" >"$tmp/ports" 2>"$tmp/fake.err" &
pids+=("$!")
# shellcheck disable=SC2034 # nothing is written
exec {hold}>"$tmp/stdin"
for _ in $(seq 100); do
    [ ! -s "$tmp/ports" ] || break
    sleep 0.1
done
run "$venv/bin/python" "$here/alibaba/use_sdk.py" "$(cat "$tmp/ports")"
check_lines sdk 74
whose=$build/tests/services/alibaba_whose
[ -x "$whose" ] || { not_ok "not built: $whose" && lane_end; }
limit=240 run "$venv/bin/python" "$here/alibaba/use_chain.py" "$whose"
check_lines chain 30
limit=240 run "$venv/bin/python" "$here/alibaba/use_roles.py" "$(cat "$tmp/ports")" "$whose"
check_lines roles 81
lane_end
