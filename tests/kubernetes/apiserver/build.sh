#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds kube-apiserver, kubectl, etcd and etcdctl from their Go modules, at the versions that go.mod
# here names, and prints the folder that holds them. The result is kept in
#     ${KMSBRIDGE_CACHE:-$HOME/.cache/kmsbridge}/kube-<version>-<key>/
# where the key is a hash of go.mod, go.sum, this script and the Go version, so that the
# many minutes of a cold build are paid once per version and machine.
#
# Exit status: 0 built or found, 77 something to build with is missing (said on stderr), else failed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here"

command -v go >/dev/null 2>&1 || { echo "no go compiler in PATH" >&2; exit 77; }
command -v flock >/dev/null 2>&1 || { echo "no flock in PATH" >&2; exit 77; }

export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false -mod=readonly' GOWORK=off

version=$(sed -n 's|^[[:space:]]*\(require \)\{0,1\}k8s.io/kubernetes \(v[0-9.]*\).*|\2|p' go.mod | head -n 1)
[ -n "$version" ] || { echo "go.mod does not say which k8s.io/kubernetes" >&2; exit 1; }
key=$( (cat go.mod go.sum build.sh; go env GOVERSION GOOS GOARCH) | sha256sum | cut -c 1-16)
cache=${KMSBRIDGE_CACHE:-$HOME/.cache/kmsbridge}
dir=$cache/kube-$version-$key

built() {
    for name in kube-apiserver kubectl etcd etcdctl; do
        [ -x "$dir/$name" ] || return 1
    done
}

if ! built; then
    mkdir -p "$cache"
    exec 9>"$cache/kube.lock"
    flock 9 # a second build waits for the first, and then finds its result
    if ! built; then
        if ! go mod download >"$cache/kube-download.log" 2>&1; then
            echo "cannot download the Go modules: $(tail -n 1 "$cache/kube-download.log")" >&2
            exit 77
        fi
        tmp=$(mktemp -d "$cache/.kube-build.XXXXXX")
        trap 'rm -rf "$tmp"' EXIT
        trap 'exit 130' INT TERM HUP
        minor=${version#v1.}
        minor=${minor%%.*}
        pkg=k8s.io/component-base/version
        began=$(date +%s)
        echo "building kube-apiserver and kubectl $version and etcd (many minutes when cold)" >&2
        nice -n 10 go build -o "$tmp/etcd" -ldflags '-s -w' go.etcd.io/etcd/server/v3 >&2
        nice -n 10 go build -o "$tmp/etcdctl" -ldflags '-s -w' go.etcd.io/etcd/etcdctl/v3 >&2
        for name in kube-apiserver kubectl; do
            nice -n 10 go build -o "$tmp/$name" \
                -ldflags "-s -w -X $pkg.gitVersion=$version -X $pkg.gitMajor=1 -X $pkg.gitMinor=$minor" \
                "k8s.io/kubernetes/cmd/$name" >&2
        done
        rm -rf "$dir"
        mv "$tmp" "$dir"
        chmod 755 "$dir"
        trap - EXIT
        echo "built in $(($(date +%s) - began)) s" >&2
    fi
fi
echo "$dir"
