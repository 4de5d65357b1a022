#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Both commands of the README, each in a Debian 12 of its own with nothing installed but what
# debootstrap's minbase has. Needs root; has mounts and processes of its own, which end with it.
# usage: tests/checks/fresh-debian.sh [1] [2]     (default: both; 2 with --quick)
. "$(dirname "$0")/lib/check.sh"
. "$(dirname "$0")/lib/chroot.sh"

own_namespaces fresh-debian "$0" "$@"
[ $# -gt 0 ] || set -- 1 2

try() { # name, command of the README, more arguments
    local root=$work/root-$1 command=$2 began=$SECONDS code
    if ! grep -qxF "$command" README.md; then
        not_ok "command $1: the README has no line \"$command\""
        return 0
    fi
    [ $# -lt 3 ] || command="$command $3"
    make_root "$root"
    if [ -n "$(inside "$root" 'command -v gcc make git go curl softhsm2-util' || true)" ]; then
        not_ok "command $1: the system is not fresh"
        return 0
    fi
    echo "--- command $1: $command"
    {
        code=0
        inside "$root" "$command" 2>&1 || code=$?
        echo "$code" >"$CHECK_TMP/code"
    } | sed 's/^/    /'
    code=$(cat "$CHECK_TMP/code")
    if [ "$code" -eq 0 ]; then
        ok "command $1"
        echo "--- command $1 passed in $((SECONDS - began)) s"
    else
        not_ok "command $1: exit code $code after $((SECONDS - began)) s"
        [ "$1" = 1 ] || keep_logs "$root"
    fi
    umount "$root/var/cache/apt/archives"
}

keep_logs() { # root
    [ -z "${out-}" ] || cp -r "$root/root/kmsbridge/build-run/logs" "$out/logs/fresh-debian-inside" || true
}

for which in "$@"; do
    case $which in
    1) try 1 'sh conf/quickstart.sh' ;;
    2) try 2 'bash tests/run.sh' --quick ;;
    *) not_ok "no command $which" ;;
    esac
done
check_end
