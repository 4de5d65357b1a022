# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what the lanes use and set
# What the lanes of each service check alike, with $lane's name. Sourced.
#
# kms, kms_soon and round_trip ask a daemon at $tmp/kms.sock with $ctl, p11 and signs_well its agent
# with $module; $tmp/plain is what was encrypted.
passed=0 failed=0 said=

good() {
    passed=$((passed + 1))
    [ -z "${VERBOSE-}" ] || echo "ok: $lane: $*"
}
bad() {
    failed=$((failed + 1))
    echo "FAIL: $lane: $*"
}
kms() { # VERB...: its answer to $said, in one line
    said=$(timeout 20 "$ctl" kms "$@" --socket "$tmp/kms.sock" 2>&1 | tr '\n' ' ')
}
kms_soon() { # NAME PATTERN: Status comes to say it
    for _ in {1..75}; do
        kms status
        [[ $said =~ $2 ]] && break
        sleep 0.2
    done
    if [[ $said =~ $2 ]]; then good "$1"; else bad "$1: status says \"$said\""; fi
}
round_trip() { # NAME RECORD: what is in the record opens
    if timeout 20 "$ctl" kms decrypt --socket "$tmp/kms.sock" <"$2" 2>&1 | cmp -s - "$tmp/plain"; then
        good "$1"
    else
        bad "$1: $(timeout 20 "$ctl" kms decrypt --socket "$tmp/kms.sock" <"$2" 2>&1 | head -c 300)"
    fi
}
p11() { said=$(timeout 30 pkcs11-tool --module "$module" "$@" 2>&1 | tr '\n' ' '); }
lists() { # LABEL...
    local word
    p11 -O
    for word in "$@"; do
        if [[ $said == *"$word"* ]]; then good "pkcs11-tool lists $word"; else bad "no $word in: $said"; fi
    done
}
signs_well() { # LABEL: of an EC key
    head -c 32 /dev/urandom >"$tmp/digest"
    p11 --sign -m ECDSA --label "$1" --signature-format openssl -i "$tmp/digest" -o "$tmp/signature"
    timeout 30 pkcs11-tool --module "$module" --read-object --type pubkey --label "$1" -o "$tmp/$1.der" >/dev/null 2>&1
    openssl pkey -pubin -inform DER -in "$tmp/$1.der" -out "$tmp/$1.pub" 2>/dev/null
    if openssl pkeyutl -verify -pubin -inkey "$tmp/$1.pub" -in "$tmp/digest" -sigfile "$tmp/signature" >/dev/null 2>&1; then
        good 'OpenSSL verifies what pkcs11-tool signed'
    else
        bad "no signature that verifies: $said"
    fi
}
