#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Both commands of the README, each in a Debian 12 of its own with nothing installed but what
# debootstrap's minbase has. Needs root; has mounts and processes of its own, which end with it.
# usage: tests/checks/fresh-debian.sh [1] [2]     (default: both; 2 with --quick)
#
# The base system is kept in KMSBRIDGE_CACHE. KMSBRIDGE_DEBIAN_MIRROR overrides where Debian comes from.
. "$(dirname "$0")/lib.sh"

# A mount and PID namespace of our own: whatever happens, nothing stays mounted or running.
if [ "${KMSBRIDGE_FRESH_INSIDE-}" != 1 ]; then
    check fresh-debian
    need debootstrap unshare tar
    if [ "$(id -u)" -ne 0 ] || ! unshare --mount --pid --fork true 2>/dev/null; then
        skip "needs root and namespaces"
        check_end
    fi
    rm -rf "$CHECK_TMP"
    trap - EXIT
    work=$(mktemp -d)
    trap 'rm -rf --one-file-system "$work"' EXIT
    code=0
    KMSBRIDGE_FRESH_INSIDE=1 KMSBRIDGE_FRESH_WORK=$work unshare --mount --propagation private \
        --pid --fork --kill-child "$BASH" tests/checks/fresh-debian.sh "$@" || code=$?
    exit "$code"
fi
check fresh-debian
work=$KMSBRIDGE_FRESH_WORK
cache=${KMSBRIDGE_CACHE:-$HOME/.cache/kmsbridge}
base=$cache/debian-12-minbase.tar
mkdir -p "$cache/apt-archives"
[ $# -gt 0 ] || set -- 1 2

# "URI RELEASE" of the Debian archives that this machine's apt uses
archives() {
    if [ -n "${KMSBRIDGE_DEBIAN_MIRROR-}" ]; then
        echo "$KMSBRIDGE_DEBIAN_MIRROR bookworm"
    else
        # shellcheck disable=SC2016 # apt's variables
        apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
            'Created-By: Packages' | awk '$2 ~ /^bookworm(-updates|-security)?$/ && $3 == "main" { print $1, $2 }'
    fi
}
archives | sort -u >"$CHECK_TMP/archives"
mirror=$(awk '$2 == "bookworm" { print $1; exit }' "$CHECK_TMP/archives")
if [ -z "$mirror" ]; then
    skip "apt here knows no Debian bookworm; set KMSBRIDGE_DEBIAN_MIRROR"
    check_end
fi

make_base() {
    [ -z "$(find "$base" -mtime -30 2>/dev/null)" ] || return 0
    echo "making the base system"
    debootstrap --variant=minbase bookworm "$work/base" "$mirror" >"$CHECK_TMP/debootstrap.log" 2>&1 || {
        tail -n 20 "$CHECK_TMP/debootstrap.log"
        return 1
    }
    umount -R "$work/base/proc" 2>/dev/null || true
    rm -f "$work"/base/var/cache/apt/archives/*.deb
    tar -C "$work/base" --one-file-system -cf "$base.tmp" .
    mv "$base.tmp" "$base"
    rm -rf --one-file-system "$work/base"
}

make_root() { # folder
    local root=$1
    mkdir "$root"
    tar -C "$root" -xpf "$base"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mkdir -p "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount --bind "$cache/apt-archives" "$root/var/cache/apt/archives"
    # how this machine reaches Debian: read now, kept nowhere
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    sed 's/\(.*\) \(.*\)/deb \1 \2 main/' "$CHECK_TMP/archives" >"$root/etc/apt/sources.list"
    apt-config dump | grep -E '^Acquire::(https?|ftp|Check-|Retries|Proxy)' >"$root/etc/apt/apt.conf.d/99host" || true
    cp -r /etc/apt/auth.conf.d "$root/etc/apt/" 2>/dev/null || true
    # nothing may start services here
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    # the source as a tarball would have it: no git, no build products
    mkdir "$root/root/kmsbridge"
    our_files | tar -cf - -T - | tar -C "$root/root/kmsbridge" -xf -
}

inside() { # root command: with an environment of its own but for proxies
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8 \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        chroot "$1" /bin/sh -c "cd /root/kmsbridge && $2" </dev/null
}

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

make_base
for which in "$@"; do
    case $which in
    1) try 1 'sh conf/quickstart.sh' ;;
    2) try 2 'bash tests/run.sh' --quick ;;
    *) not_ok "no command $which" ;;
    esac
done
check_end
