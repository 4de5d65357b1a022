#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A setuid program that loads the module: what its caller put into the environment counts for nothing,
# and what the program itself says counts. Each is seen to count in the same program without privilege.
# shellcheck disable=SC2317 # check() calls what it is given
. "$(dirname "$0")/lib.sh"
passed=0 failed=0
finish() {
    echo "module-privileged: $passed passed, $failed failed, ${skipped:-0} skipped"
    [ "$failed" -eq 0 ] || exit 1
    [ "$passed" -gt 0 ] || exit 77
    exit 0
}
skip() {
    echo "SKIP: module-privileged: $*"
    [ "${KMSBRIDGE_REQUIRE_ALL-}" = 1 ] && failed=1 || skipped=1
    finish
}
[ "$(id -u)" -eq 0 ] || skip 'only root can make a program setuid for others'
command -v setpriv >"$dir/log" || skip 'there is no setpriv'
case ,$(findmnt -n -o OPTIONS -T "$dir"), in *,nosuid,*) skip "$dir is mounted nosuid" ;; esac

nobody=65534
uids=$nobody
chmod 711 "$dir"
make_token privileged
start_daemon privileged none
chmod 666 "$dir/agent.sock"
cp "$build/pkcs11/.libs/kmsbridge-pkcs11.so" "$dir/module.so"
for program in plain setuid; do cp "$build/tests/module/privileged" "$dir/$program"; done
chmod 755 "$dir/module.so" "$dir/plain"
chmod 4755 "$dir/setuid"
mkdir -m 700 "$dir/home" "$dir/run" "$dir/root-run"
mkdir -p "$dir/home/.config/kmsbridge"
printf 'version: 1\n' >"$dir/home/.config/kmsbridge/kmsbridge.yaml"
chmod 600 "$dir/home/.config/kmsbridge/kmsbridge.yaml"
chown -R "$nobody:$nobody" "$dir/home" "$dir/run"

check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL: module-privileged: $name"
        sed 's/^/    /' "$dir/out"
    fi
}
as_nobody() { # PROGRAM VARIABLE... [-- RESERVED]: output to $dir/out
    local program=$1 environment=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do environment+=("$1") && shift; done
    [ $# -eq 0 ] || shift
    timeout 30 setpriv --reuid=$nobody --regid=$nobody --clear-groups env -i "${environment[@]}" \
        "$dir/$program" "$dir/module.so" "$@" >"$dir/out" 2>&1
}
says() { grep -q "$1" "$dir/out"; }
lacks() { ! says "$1"; }
empty() { [ -z "$(ls -A "$1")" ]; }

agent=KMSBRIDGE_AGENT=$dir/agent.sock
check 'plain: runs' as_nobody plain "$agent"
check 'plain: is not privileged' says '^secure 0'
check 'plain: KMSBRIDGE_AGENT counts' says '^token privileged'
check 'setuid: runs' as_nobody setuid "$agent"
check 'setuid: is privileged' says '^secure 1'
check 'setuid: KMSBRIDGE_AGENT does not count' lacks '^token privileged'
# no agent is something to write down; the program itself may say where
for program in plain setuid; do
    as_nobody "$program" "KMSBRIDGE_LOG=file:$dir/run/$program.log,debug" -- "agent=$dir/nowhere.sock" || :
done
check 'plain: KMSBRIDGE_LOG counts' test -s "$dir/run/plain.log"
check 'setuid: KMSBRIDGE_LOG does not count' test ! -e "$dir/run/setuid.log"
rm -f "$dir/run/plain.log"
check 'setuid: its own word counts' as_nobody setuid -- "agent=$dir/agent.sock"
check 'setuid: its own word counts: the token' says '^token privileged'

# a private agent: where it listens, and which configuration it has
own=("KMSBRIDGE_CONFIG=$dir/home/.config/kmsbridge/kmsbridge.yaml" "HOME=$dir/home")
as_nobody plain "${own[@]}" "XDG_RUNTIME_DIR=$dir/run" || :
check 'plain: a private agent is tried' test -d "$dir/run/kmsbridge"
check 'setuid: runs without an agent' as_nobody setuid "${own[@]}" "XDG_RUNTIME_DIR=$dir/root-run" "XDG_CONFIG_HOME=$dir/home/.config"
check 'setuid: no private agent for the caller' empty "$dir/root-run"
check 'setuid: no token' lacks '^token privileged'
finish
