#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A token without keys: the first one is made, the last one destroyed, and made anew. What shows nothing
# could be an HSM that is away, but not where its last key was destroyed through us.
# SoftHSM itself has nothing to doubt: this is about our own module only.
# shellcheck disable=SC2016 # check() evaluates its words later
unset MODULE
. "$(dirname "$0")/lib.sh"
lane empty
token
serve
tool() { run pkcs11-tool --module "$module" --token-label "$TOKEN" --login --pin "$PIN" "$@"; }

tool -O
check 'nothing is there' done_well
for i in {1..6}; do
    tool --keygen --key-type AES:32 --label "key$i"
    check "key $i is made" done_well
    began=$SECONDS
    tool --delete-object --type secrkey --label "key$i"
    check "key $i is destroyed" done_well
    check "key $i is destroyed at once" test $((SECONDS - began)) -le 3
done
tool -O
check 'nothing is there again' eval 'done_well && lacks "Object"'
check 'nothing failed at the key service' eval '! grep -q "\"verdict\":\"unavailable\"" "$tmp/audit.log"'
lane_end
