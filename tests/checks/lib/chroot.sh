# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A Debian 12 with nothing installed but what debootstrap's minbase has, in mounts and processes of
# its own. Sourced behind check.sh by a check that begins with: own_namespaces NAME "$0" "$@"
#
# The base system and the packages that are fetched are kept in KMSBRIDGE_CACHE.
# KMSBRIDGE_DEBIAN_MIRROR overrides where Debian comes from.

# Runs the script again in namespaces of its own: whatever happens, nothing stays mounted or running.
# Returns inside, with $work an empty folder that is removed in the end.
own_namespaces() { # name script arguments...
    local name=$1 script=$2 code=0
    shift 2
    check "$name"
    if [ -z "${KMSBRIDGE_NAMESPACES-}" ]; then
        need debootstrap unshare nsenter pgrep tar
        if [ "$(id -u)" -ne 0 ] || ! unshare --mount --pid --fork true 2>/dev/null; then
            skip "needs root and namespaces"
            check_end
        fi
        work=$(mktemp -d)
        mkdir "$work/cgroup"
        trap 'rm -rf --one-file-system "$work" "$CHECK_TMP"' EXIT
        KMSBRIDGE_NAMESPACES=$work unshare --mount --propagation private --pid --fork --kill-child \
            --mount-proc --ipc --uts --cgroup "$BASH" "$script" "$@" || code=$?
        remove_cgroup
        exit "$code"
    fi
    work=$KMSBRIDGE_NAMESPACES
    cache=${KMSBRIDGE_CACHE:-$HOME/.cache/kmsbridge}
    base=$cache/debian-12-minbase.tar
    mkdir -p "$cache/apt-archives"
    find_archives | sort -u >"$CHECK_TMP/archives"
    mirror=$(awk '$2 == "bookworm" { print $1; exit }' "$CHECK_TMP/archives")
    if [ -z "$mirror" ]; then
        skip "apt here knows no Debian bookworm; set KMSBRIDGE_DEBIAN_MIRROR"
        check_end
    fi
    make_base
}

# Our cgroup outlives the namespaces, as folders with nothing in them.
remove_cgroup() {
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --propagation private sh -c 'mount -t cgroup2 none "$1/cgroup" &&
        find "$1/cgroup/kmsbridge-${1##*/}" -depth -type d -exec rmdir {} \;' sh "$work" 2>/dev/null || true
}

# "URI RELEASE" of the Debian archives that this machine's apt uses
find_archives() {
    if [ -n "${KMSBRIDGE_DEBIAN_MIRROR-}" ]; then
        echo "$KMSBRIDGE_DEBIAN_MIRROR bookworm"
    else
        # shellcheck disable=SC2016 # apt's variables
        apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
            'Created-By: Packages' | awk '$2 ~ /^bookworm(-updates|-security)?$/ && $3 == "main" { print $1, $2 }'
    fi
}

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
    mount --bind "$root" "$root" # a mount, so that tests inside may have namespaces of their own
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

# boot_systemd ROOT: starts the systemd installed there as PID 1 of namespaces of its own, and of a
# cgroup of its own. What it mounts and starts ends with it.
boot_systemd() {
    local root=$1 tries=0 unshare_pid
    mount -t cgroup2 none "$work/cgroup" || return 1
    cgroup=$work/cgroup/kmsbridge-${work##*/}
    mkdir "$cgroup"
    cat >"$work/boot" <<'BOOT'
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/sys/fs/cgroup"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
umount -l /.old
mount --make-rshared / # or LoadCredential= stays unseen
exec env -i container=kmsbridge PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=journal --show-status=no
BOOT
    (
        echo "$BASHPID" >"$cgroup/cgroup.procs"
        exec unshare --mount --propagation private --pid --fork --kill-child --ipc --uts --cgroup --net \
            "$BASH" -eu "$work/boot" "$root"
    ) >"$work/boot.log" 2>&1 </dev/null &
    unshare_pid=$!
    while [ "$tries" -lt 300 ]; do
        tries=$((tries + 1))
        booted=$(tr -d ' ' <"/proc/$unshare_pid/task/$unshare_pid/children") 2>/dev/null || booted=
        if [ -n "$booted" ] && [ "$(cat "/proc/$booted/comm" 2>/dev/null)" = systemd ] &&
            [[ "$(in_booted systemctl is-system-running 2>/dev/null)" =~ running|degraded ]]; then
            return 0
        fi
        sleep 0.1
    done
    cat "$work/boot.log"
    return 1
}

in_booted() { # command...
    nsenter --target "$booted" --mount --pid --ipc --uts --cgroup --net --wdns=/ -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        "$@" </dev/null
}

halt_systemd() {
    kill -KILL "$booted"
}
