#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Both commands of the README, each in a Debian 12 of its own with nothing installed but what
# debootstrap's minbase has; then the README's tour, as it stands there, under a systemd started in the
# first one, and docs/openbao.md. Needs root; has mounts and processes of its own, which end with it.
# usage: tests/checks/fresh-debian.sh [1] [2] [tour]     (default: all; 2 with --quick; tour needs 1)
# shellcheck disable=SC2016 # many a $ here is for another shell
. "$(dirname "$0")/lib/check.sh"
. "$(dirname "$0")/lib/chroot.sh"
. "$(dirname "$0")/lib/tour_openbao.sh"

own_namespaces fresh-debian "$0" "$@"
[ $# -gt 0 ] || set -- 1 tour 2

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
    } | sed -u 's/^/    /'
    code=$(cat "$CHECK_TMP/code")
    if [ "$code" -eq 0 ]; then
        ok "command $1"
        touch "$root/passed"
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

# expect WHAT COMMAND...: the command succeeds in the booted system.
expect() {
    local what=$1
    shift
    if in_booted "$@" >"$CHECK_TMP/out" 2>&1; then
        ok "tour: $what"
    else
        not_ok "tour: $what"
        tail -n 15 "$CHECK_TMP/out"
    fi
}

# expect_text WHAT WANTED COMMAND...: the command prints exactly this.
expect_text() {
    local what=$1 wanted=$2 got
    shift 2
    got=$(in_booted "$@" 2>&1) || true
    if [ "$got" = "$wanted" ]; then ok "tour: $what"; else not_ok "tour: $what: \"$got\", not \"$wanted\""; fi
}

tour() { # root in which command 1 has built
    local root=$1 began=$SECONDS pid
    if [ ! -e "$root/passed" ]; then
        not_ok "tour: command 1 has not passed"
        return 0
    fi
    mount --bind "$cache/apt-archives" "$root/var/cache/apt/archives"
    inside "$root" 'DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends systemd dbus opensc procps' \
        >"$CHECK_TMP/out" 2>&1 || { tail -n 5 "$CHECK_TMP/out" && not_ok "tour: systemd not installed" && return 0; }
    umount "$root/var/cache/apt/archives"
    mkdir -p "$root/etc/kubernetes"
    # the README's two commands for a private agent, for a user of no rank
    awk '/Two commands from nothing:$/ { f = 1 } f && /^```/ { n++; next } n == 1; n == 2 { exit }' \
        README.md >"$root/opt/private.sh"
    # the README's own lines: every block that is marked as shell
    sed -n '/^```sh$/,/^```$/{/^```/d;p}' README.md >"$root/root/tour.sh"
    if ! boot_systemd "$root"; then
        not_ok "tour: systemd did not start"
        return 0
    fi
    expect "the README's commands" sh -euxc 'cd /root/kmsbridge && . /root/tour.sh'
    expect_text "the service is active" active systemctl is-active kmsbridged.service
    expect "it runs as its own user" sh -c \
        'grep -q "^Uid:.$(id -u kmsbridge)." /proc/$(systemctl show -P MainPID kmsbridged)/status'
    expect_text "the socket is root's alone" "srw------- root root" stat -c '%A %U %G' /run/kmsbridge/kms.sock
    expect "readyz" sh -c 'curl -sf http://127.0.0.1:8780/readyz'
    expect "a round trip" sh -euc 'cd /root; head -c 32 /dev/urandom >seed
        kmsbridgectl kms encrypt --in seed --out sealed; kmsbridgectl kms decrypt --in sealed --out opened
        cmp seed opened'
    expect "the EncryptionConfiguration names the socket" \
        grep -q 'endpoint: .*unix:///run/kmsbridge/kms.sock' /etc/kubernetes/encryption-config.yaml
    expect "nobody else may connect" \
        sh -c '! runuser -u nobody -- kmsbridgectl kms status --socket /run/kmsbridge/kms.sock'
    pid=$(in_booted systemctl show -P MainPID kmsbridged)
    expect_text "no capabilities, no new privileges, filtered system calls" "0000000000000000 1 2" \
        awk '/^(CapEff|NoNewPrivs|Seccomp):/ { printf "%s%s", sep, $2; sep = " " }' "/proc/$pid/status"
    expect_text "no core dumps" "0 0" awk '/^Max core file size/ { print $5, $6 }' "/proc/$pid/limits"
    expect "it locks its secrets" sh -c '! journalctl -u kmsbridged -o cat | grep -i "mlock\|memlock\|lock.* memory"'

    in_booted systemctl kill -s KILL kmsbridged.service
    expect "a client waits out a killed daemon" kmsbridgectl kms status --timeout 20s
    expect_text "and it was restarted" 1 systemctl show -P NRestarts kmsbridged.service
    expect "reload" systemctl reload kmsbridged.service
    expect "status after the reload" kmsbridgectl kms status --timeout 10s
    expect "stop" systemctl stop kmsbridged.service
    expect_text "it ended well" success systemctl show -P Result kmsbridged.service
    expect "the socket stays" test -S /run/kmsbridge/kms.sock
    expect "and starts the daemon again" kmsbridgectl kms status --timeout 20s
    expect "what was sealed before opens" sh -euc 'cd /root; rm opened
        kmsbridgectl kms decrypt --in sealed --out opened; cmp seed opened'
    expect "a user" useradd -m builder
    expect "a private agent in two commands" runuser -u builder -- \
        sh -euxc 'HOME=$(getent passwd builder | cut -d: -f6); export HOME; cd; [ "$(wc -l </opt/private.sh)" -eq 2 ]; . /opt/private.sh >seen; grep kmsbridge-kek seen'
    expect "it is the user's and nobody's child" sh -euxc '
        pid=$(pgrep -u builder -f "kmsbridged --private"); [ "$(ps -o ppid= -p "$pid" | tr -d " ")" = 1 ]'
    # a watchdog of 3 seconds instead of the unit's 30, and a daemon that hangs
    expect "a drop-in for the watchdog" sh -euc 'mkdir -p /run/systemd/system/kmsbridged.service.d
        printf "[Service]\nWatchdogSec=3\n" >/run/systemd/system/kmsbridged.service.d/watchdog.conf
        systemctl daemon-reload; systemctl restart kmsbridged'
    pid=$(in_booted systemctl show -P MainPID kmsbridged)
    in_booted sh -c "kill -STOP $pid"
    expect "the watchdog restarts a daemon that hangs" sh -c '
        for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
            now=$(systemctl show -P MainPID kmsbridged)
            [ "$now" = '"$pid"' ] || [ "$now" = 0 ] || exec kmsbridgectl kms status --timeout 10s
            sleep 1
        done
        exit 1'
    tour_openbao "$root"
    if [ "$check_failed" -gt 0 ]; then
        in_booted journalctl -b --no-pager -u kmsbridged -u kmsbridge-kms.socket -o cat | tail -n 40 || true
    fi
    halt_systemd
    echo "--- the tour took $((SECONDS - began)) s"
}

for which in "$@"; do
    case $which in
    1) try 1 'sh conf/quickstart.sh' ;;
    2) try 2 'bash tests/run.sh' --quick ;;
    tour) tour "$work/root-1" ;;
    *) not_ok "there is no $which" ;;
    esac
done
check_end
