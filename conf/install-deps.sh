#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what conf/debian-packages lists and is not there yet. Says nothing when nothing is to do.
# usage: conf/install-deps.sh [--list] [build|run|test]...      (default: build run)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
list=$here/debian-packages

fail() {
    echo "install-deps: $*" >&2
    exit 1
}

only_list=no
if [ "${1-}" = --list ]; then
    only_list=yes
    shift
fi
[ $# -gt 0 ] || set -- build run

packages=
for section in "$@"; do
    of_section=$(awk -v s="$section" '$1 == s { print $2 }' "$list")
    [ -n "$of_section" ] || fail "no section \"$section\" in $list (there are: build, run, test)"
    packages="$packages $(echo "$of_section" | tr '\n' ' ')"
done
if [ "$only_list" = yes ]; then
    printf '%s\n' "$packages" | tr ' ' '\n' | grep .
    exit 0
fi

command -v dpkg-query >/dev/null 2>&1 ||
    fail "this is not Debian; install what answers to:$packages"

missing=
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=absent
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 ||
        fail "not root and no sudo here; as root run: apt-get install --no-install-recommends$missing"
    as_root=sudo
fi
apt() {
    # sudo drops the environment, so env goes behind it
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 \
        -o Dpkg::Use-Pty=0 "$@" </dev/null
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "install-deps: installing$missing"
# A failed update is not fatal by itself: an unrelated source of this machine may be away. What
# counts is whether the packages can be installed.
apt update >"$log" 2>&1 || true
# shellcheck disable=SC2086 # a list of names
if ! apt install --no-install-recommends $missing >>"$log" 2>&1; then
    tail -n 25 "$log" >&2
    fail "apt-get could not install:$missing (is there a network, and does apt know bookworm?)"
fi
