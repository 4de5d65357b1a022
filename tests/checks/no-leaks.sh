#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# No path of a developer's machine, no host name of a package registry and no secret is in a file
# that we keep. Each kind is then planted, and must be seen.
. "$(dirname "$0")/lib/check.sh"
check no-leaks

# kind | extended regexp. Brackets keep this file from matching itself.
KINDS='
a machine path       | (^|[^a-zA-Z0-9_.}/-])/(wor[k]|far[m]|hom[e]/[a-z]+|roo[t]/\.|Use[r]s)(/|$|[^a-zA-Z0-9_-])
a registry host      | (deb|security|snapshot)\.debia[n]\.org|py[p]i\.org|pythonhoste[d]\.org|prox[y]\.golang\.org|su[m]\.golang\.org|registr[y]\.npmjs\.org|repo1?\.mave[n]|crate[s]\.io|registr[y]\.k8s\.io
a private key        | -----BEGI[N] ([A-Z]+ )?PRIVATE KEY-----
an access token      | (gh[pousr]_[A-Za-z0-9]{36}|AKI[A][0-9A-Z]{16}|xo[x][bp]-[0-9A-Za-z-]{20,}|AIz[a][0-9A-Za-z_-]{35})
a PIN in the open    | ^[ ]*pin:[ ]*["'\'']?[0-9]{4,}
'

matches() { # regexp file
    grep -nIE -e "$1" -- "$2" >"$CHECK_TMP/hits"
}

kinds() { # kind, tab, regexp
    printf '%s' "$KINDS" | awk '{ at = index($0, " | ") }
        at { kind = substr($0, 1, at); sub(/ +$/, "", kind); print kind "\t" substr($0, at + 3) }'
}
kinds >"$CHECK_TMP/kinds"

our_files >"$CHECK_TMP/files"
while IFS= read -r file; do
    clean=yes
    while IFS="$(printf '\t')" read -r kind regexp; do
        if matches "$regexp" "$file"; then
            clean=no
            not_ok "$file has $kind, line $(cut -d: -f1 "$CHECK_TMP/hits" | head -n 3 | tr '\n' ' ')"
        fi
    done <"$CHECK_TMP/kinds"
    [ "$clean" = no ] || ok "$file"
done <"$CHECK_TMP/files"

planted() { # kind text
    local regexp
    regexp=$(awk -F'\t' -v k="$1" '$1 == k' "$CHECK_TMP/kinds" | cut -f2-)
    printf '%s\n' "$2" >"$CHECK_TMP/planted"
    if matches "$regexp" "$CHECK_TMP/planted"; then ok "planted: $1"; else not_ok "planted: $1 was not seen"; fi
}
planted 'a machine path' 'dir=/wor''k/x'
planted 'a machine path' 'see /hom''e/alice/src'
planted 'a registry host' 'url: http://de''b.debian.org/debian'
planted 'a registry host' 'GOPROXY=https://prox''y.golang.org'
planted 'a private key' '-----BEGI''N EC PRIVATE KEY-----'
planted 'an access token' 'AKI''AABCDEFGHIJKLMNOP'
planted 'a PIN in the open' '  pin: "12''34"'
check_end
