#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What can go wrong with OpenBao, done to a real one: each fault has its class and its words, and is
# over without a restart of ours once its cause is.
# shellcheck disable=SC2154 # what openbao.sh sets
. "$(dirname "$0")/openbao.sh"
. "$(dirname "$0")/lib.sh"
lane vault_faults
bao_start
api PUT sys/policies/acl/user '{"policy":"path \"transit/keys/*\" {capabilities=[\"read\",\"update\"]} path \"transit/keys\" {capabilities=[\"list\"]} path \"transit/encrypt/kek\" {capabilities=[\"update\"]} path \"transit/decrypt/kek\" {capabilities=[\"update\"]}"}'
new_token() { # [TTL]: to $token
    token=$(api POST auth/token/create "{\"policies\":[\"user\"],\"ttl\":\"${1:-1h}\",\"explicit_max_ttl\":\"${1:-1h}\"}" | field client_token)
}
new_token
secret "$tmp/token" "$token"
entry "$tmp/conf" "method: token, token: 'file:$tmp/token'"
opened "$tmp/conf"
says 'a waist over it' 'ok opened'
api POST transit/keys/kek '{"type":"aes256-gcm96"}' >/dev/null
does 'a key is listed' 'ok 1 kek/1=kbv1-[0-9a-f]{40}\*\+$' list kek
does seal 'ok kbv1-' seal kek
does open 'ok kbv1-' open
does 'health is well' 'ok ready=1 reconnects=0' health

# a key that is not there is not made by encrypting
does 'no key by that name' 'not_found .*no key is named other' seal other
does 'nor is one made' 'ok 1 kek/1' list

# ... with every right to make one, either: the key is known, and goes before it is used. Transit then
# makes another one for who asks it naively.
api PUT sys/policies/acl/maker '{"policy":"path \"transit/*\" {capabilities=[\"create\",\"read\",\"update\",\"list\"]}"}'
secret "$tmp/maker" "$(api POST auth/token/create '{"policies":["maker"]}' | field client_token)"
entry "$tmp/maker.conf" "method: token, token: 'file:$tmp/maker'"
opened "$tmp/maker.conf"
api POST transit/keys/gone '{"type":"aes256-gcm96"}' >/dev/null
does 'a key that its token might have made' 'ok kbv1-' seal gone
api POST transit/keys/gone/config '{"deletion_allowed":true}' >/dev/null
api DELETE transit/keys/gone
does 'is not found once it is gone' 'not_found .*400' seal gone
does 'and not made anew' 'ok 1 kek/1=[^ ]*$' list
if [[ $(curl -sS -H "X-Vault-Token: $(cat "$tmp/maker")" -d '{"plaintext":"","key_version":1}' \
    "$bao_url/v1/transit/encrypt/naive") == *ciphertext* ]]; then good 'a naive request makes one'; else bad 'nothing was tested: this OpenBao makes none'; fi
api POST transit/keys/naive/config '{"deletion_allowed":true}' >/dev/null
api DELETE transit/keys/naive

# what an HMAC key's versions are called does not depend on what is known of them already
api POST transit/keys/mac '{"type":"hmac","key_size":32}' >/dev/null
api POST transit/keys/mac/rotate >/dev/null
does 'two versions of an HMAC key' 'ok 2 mac/1=kbv1-[0-9a-f]{40} mac/2=kbv1-[0-9a-f]{40}\*$' list mac
two=${said%\*}
does 'called so again' "${two//+/.}" list mac
api POST transit/keys/mac/rotate >/dev/null
does 'and beside a third one' "${two/ok 2/ok 3} mac/3=kbv1-[0-9a-f]{40}\\*\$" list mac
three=$said
opened "$tmp/maker.conf"
does 'and by who has never seen them' "${three%\*}" list mac
api POST transit/keys/mac/config '{"deletion_allowed":true}' >/dev/null
api DELETE transit/keys/mac
api POST transit/keys/mac '{"type":"hmac","key_size":32}' >/dev/null
does 'made anew it is another key' 'ok 1 mac/1=' list mac
again=${said#ok 1 mac/1=}
if [[ $three == *"${again%\*}"* ]]; then bad "a remade HMAC key has its old identity: $said"; else good 'by another identity'; fi
api POST transit/keys/mac/config '{"deletion_allowed":true}' >/dev/null
api DELETE transit/keys/mac
opened "$tmp/conf"

# denied: the token is good, the policy says no; nobody logs in anew for that
api POST transit/keys/second '{"type":"aes256-gcm96"}' >/dev/null
does 'a policy that denies' 'denied .*403.*permission denied' seal second
does 'is no reason for another token' 'ok ready=1 reconnects=0' health

# without the policy `default` a token may not look itself up; what is denied to it is told apart from
# its end all the same
new_bare() { bare=$(api POST auth/token/create '{"policies":["user"],"no_default_policy":true}' | field client_token); }
new_bare
secret "$tmp/bare" "$bare"
entry "$tmp/bare.conf" "method: token, token: 'file:$tmp/bare'"
opened "$tmp/bare.conf"
does 'a token that may not look itself up' 'ok kbv1-' seal kek
does 'is denied what its policy denies' 'denied .*403.*permission denied' seal second
does 'which is no reason for another one' 'ok ready=1 reconnects=0' health
if [ "$(grep -c "the token of file:$tmp/bare may not look itself up" "$tmp/ask.log")" = 1 ]; then good 'that it is not renewed is told once'; else bad 'that it is not renewed is not told, or more than once'; fi
sleep 1.1 # a younger one than a second is not replaced for being refused
api POST auth/token/revoke "{\"token\":\"$bare\"}"
say forget
does 'and refused once it is revoked' 'auth .*refuse' seal kek
new_bare
secret "$tmp/bare" "$bare"
soon 'another one in the file' 'ok' seal kek

# nor may one of a login, which is replaced by another login
api POST sys/auth/approle '{"type":"approle"}'
api POST auth/approle/role/bare '{"token_policies":"user","token_no_default_policy":true}' >/dev/null
secret "$tmp/secret-id" "$(api POST auth/approle/role/bare/secret-id | field secret_id)"
entry "$tmp/approle.conf" "method: approle, role_id: $(api GET auth/approle/role/bare/role-id | field role_id), secret_id: 'file:$tmp/secret-id'"
opened "$tmp/approle.conf"
does 'one of a login' 'ok kbv1-' seal kek
sleep 1.1
does 'is denied what its policy denies' 'denied .*403.*permission denied' seal second
does 'without another login' 'ok ready=1 reconnects=0' health
say forget
does 'it is good still' 'ok kbv1-' seal kek
api POST sys/leases/revoke-prefix/auth/approle
does 'once it is revoked there is another one' 'ok kbv1-' seal kek
does 'by one login' 'ok ready=1 reconnects=1' health
# it is not renewed, but replaced ahead of its end
api POST auth/approle/role/bare '{"token_policies":"user","token_no_default_policy":true,"token_ttl":"6s"}' >/dev/null
opened "$tmp/approle.conf"
for _ in {1..10}; do
    say seal kek
    [[ $said == ok* ]] || break
    sleep 0.8
done
says 'beyond the end of its tokens' 'ok kbv1-'
does 'none was refused' 'ok ready=1 reconnects=0' health

# not to list: what is named is found all the same
secret "$tmp/blind" "$(api POST auth/token/create '{"policies":["blind"]}' | field client_token)"
api PUT sys/policies/acl/blind '{"policy":"path \"transit/keys/kek\" {capabilities=[\"read\"]} path \"transit/encrypt/kek\" {capabilities=[\"update\"]} path \"transit/decrypt/kek\" {capabilities=[\"update\"]}"}'
entry "$tmp/blind.conf" "method: token, token: 'file:$tmp/blind'"
opened "$tmp/blind.conf"
does 'a policy without LIST: no list of keys' 'denied the keys cannot be listed \(LIST on transit/keys\), only used by name: .*403.*permission denied' list
does 'but the key that is named' 'ok 1 kek/1=kbv1-[0-9a-f]{40}\*\+$' list kek
does 'and its use' 'ok kbv1-' seal kek
does 'both ways' 'ok kbv1-' open
does 'no reason for another token either' 'ok ready=1 reconnects=0' health

# ... and what became of it, too, by who looks for it by name first, as the daemon's probe does
api PUT sys/policies/acl/passing '{"policy":"path \"transit/keys/passing\" {capabilities=[\"read\"]} path \"transit/encrypt/passing\" {capabilities=[\"update\"]} path \"transit/decrypt/passing\" {capabilities=[\"update\"]}"}'
secret "$tmp/passing" "$(api POST auth/token/create '{"policies":["passing"]}' | field client_token)"
entry "$tmp/passing.conf" "method: token, token: 'file:$tmp/passing'"
opened "$tmp/passing.conf"
api POST transit/keys/passing '{"type":"aes256-gcm96","exportable":true,"allow_plaintext_backup":true}' >/dev/null
does 'a key that is not listed' 'ok kbv1-' seal passing
backup=$(api GET transit/backup/passing | field backup)
gone() {
    api POST transit/keys/passing/config '{"deletion_allowed":true}' >/dev/null
    api DELETE transit/keys/passing
}
gone
does 'is deleted, and looked for by its name' 'not_found no key is named passing' list passing
does 'what it sealed is of no key' 'not_found Transit has no key passing \(any more\): .*404' open
does 'nor does it seal' 'not_found Transit has no key passing \(any more\): .*404' seal passing
api POST transit/restore "{\"backup\":\"$backup\"}"
does 'restored it opens' 'ok kbv1-' open
api POST transit/keys/passing/rotate >/dev/null
api POST transit/keys/passing/config '{"min_decryption_version":2}' >/dev/null
does 'its version is archived, and looked for' 'ok 1 passing/2=' list passing
does 'which is told as Transit tells it' 'key_state version 1 of key passing is too old' open
gone
sleep 1 # Transit keeps seconds
api POST transit/keys/passing '{"type":"aes256-gcm96"}' >/dev/null
does 'made anew it is another key' 'ok 1 passing/1=' list passing
does 'which opens nothing of the old one' 'not_found no version of transit/keys/passing' open
gone

# to list, and to read one of those that are listed: the others are not in its way
secret "$tmp/short" "$(api POST auth/token/create '{"policies":["blind","lister"]}' | field client_token)"
api PUT sys/policies/acl/lister '{"policy":"path \"transit/keys\" {capabilities=[\"list\"]}"}'
entry "$tmp/short.conf" "method: token, token: 'file:$tmp/short'"
opened "$tmp/short.conf"
does 'a policy that reads one of two keys: the list has that one' 'ok 1 kek/1=kbv1-[0-9a-f]{40}\*\+$' list
does 'the other one is denied to who names it' 'denied .*403.*permission denied' list second
does 'nor is that a reason for another token' 'ok ready=1 reconnects=0' health
opened "$tmp/conf"

# pinned: a version is used until the new one is looked up
say forget
does 'sealed under version 1' 'ok kbv1-' seal kek
first=$said
api POST transit/keys/kek/rotate >/dev/null
does 'after a rotation still under version 1' "$first" seal kek
does 'both are listed, the new one is the latest' 'ok 2 kek/1=kbv1-[0-9a-f]+\+ kek/2=kbv1-[0-9a-f]+\*\+' list kek

# versions that the policy of the key forbids
api POST transit/keys/kek/config '{"min_encryption_version":2}' >/dev/null
does 'min_encryption_version is raised: not sealed' 'key_state .*' seal kek
does 'what was sealed opens' "$first" open
does 'it is listed without the use' 'ok 2 kek/1=kbv1-[0-9a-f]+ kek/2=kbv1-[0-9a-f]+\*\+' list kek
api POST transit/keys/kek/config '{"min_encryption_version":0,"min_decryption_version":2}' >/dev/null
does 'min_decryption_version is raised: not opened' 'key_state .*too old' open
api POST transit/keys/kek/config '{"min_decryption_version":1}' >/dev/null
does 'lowered again: it opens' "$first" open
soon 'and seals' "$first" seal kek

# soft-deleted (OpenBao)
if ask DELETE transit/keys/second/soft-delete | grep -q 'unsupported'; then
    bad 'this OpenBao does not soft-delete'
else
    say list second
    says 'a soft-deleted key is listed without uses' 'ok 1 second/1=kbv1-[0-9a-f]+\*$'
fi

# quota
api POST sys/quotas/rate-limit/slow '{"rate":1,"path":"transit/"}'
say deadline 400
say seal kek
say seal kek
does 'over a rate quota' 'throttled .*429' seal kek
api DELETE sys/quotas/rate-limit/slow
say deadline 3000
soon 'the quota has gone' 'ok' seal kek

# sealed
api PUT sys/seal
say deadline 700
began=$(date +%s%N)
does 'sealed' 'unavailable .*(503|left alone)' seal kek
took=$((($(date +%s%N) - began) / 1000000))
if [ "$took" -lt 2000 ]; then good 'in time'; else bad "a sealed server held us for $took ms"; fi
does 'health says so' 'ok ready=0 .*503.*[Ss]ealed' health
bao_unsealed
say deadline 3000
soon 'unsealed: without a restart' 'ok' seal kek
soon 'health is well again' 'ok ready=1' health

# gone, and back
bao_stop
say deadline 700
does 'gone' 'unavailable .*(no connection|left alone|cut off)' seal kek
for _ in 1 2 3 4; do say seal kek; done
if grep -q 'is left alone' "$tmp/ask.log"; then good 'the breaker opens'; else bad 'no breaker opens'; fi
bao_again
say deadline 3000
soon 'back' 'ok' seal kek
does 'what was sealed before opens' 'ok' open

# killed under load: every call ends, with an answer or an error
say deadline 2000
echo 'storm 4000 kek' >&"$to_ask"
sleep 0.3
bao_stop
IFS= read -r -t 120 said <&"$from_ask" || said='no answer'
says 'killed under load' '(unavailable|timeout) [0-9]+ '
bao_again
soon 'back after that' 'ok' seal kek
say deadline 3000

# deleted and made anew: another key
say forget
does 'sealed before it is deleted' 'ok' seal kek
before=$said
sleep 1
api POST transit/keys/kek/config '{"deletion_allowed":true}' >/dev/null
api DELETE transit/keys/kek
api POST transit/keys/kek '{"type":"aes256-gcm96"}' >/dev/null
does 'the new one is listed' 'ok 1 kek/1=' list kek
if [[ $said == *"${before#ok }"* ]]; then bad 'a remade key has the identity of the old one'; else good 'by another identity'; fi
does 'the old one is gone' 'not_found' open
does 'and seals nothing any more' 'not_found' seal kek

# revoked, then another one in its place
api POST auth/token/revoke "{\"token\":\"$token\"}"
say forget
sleep 1
does 'a revoked token' 'auth .*refuse' seal kek
does 'health says so' 'ok ready=0 .*refuse' health
new_token
secret "$tmp/token" "$token"
soon 'another one in the file' 'ok' seal kek

# expired
new_token 4s
secret "$tmp/token" "$token"
opened "$tmp/conf"
does 'with a token of four seconds' 'ok' seal kek
sleep 4.2
does 'an expired token' 'auth token: .*refused' seal kek
new_token
secret "$tmp/token" "$token"
soon 'another one in the file' 'ok' seal kek
rm "$tmp/token"
opened "$tmp/conf"
does 'a token file that is missing is named' "auth token: .*$tmp/token" seal kek
secret "$tmp/token" "$token"
soon 'and read once it is there' 'ok' seal kek

# a mount that is none
entry "$tmp/conf2" "method: token, token: 'file:$tmp/token'" 'mount: nowhere'
secret "$tmp/token" "$bao_root"
opened "$tmp/conf2"
does 'a mount that is none' 'not_found .*no handler' list
does 'for one key, too' 'not_found .*no handler' list kek

# two nodes, the first one away
address="http://127.0.0.1:$((port + 1)), $bao_url" entry "$tmp/conf3" "method: token, token: 'file:$tmp/token'"
bao_dead=$((port + 1)) # its cluster port speaks TLS alone: nobody that we can talk to
opened "$tmp/conf3"
does "of two nodes the first (port $bao_dead) is away" 'ok' seal kek
does 'and stays so' 'ok 400' storm 400 kek

# a standby, which answers reads itself, and late: what was changed through it is there
if bao_standby; then
    address=$standby_url entry "$tmp/conf4" "method: token, token: 'file:$tmp/token'"
    opened "$tmp/conf4"
    soon 'a standby' 'ok' seal kek
    behind=
    for i in {1..20}; do
        say make "late$i" aes
        made=$said
        [[ $made == 'ok kbv1-'* ]] || behind+=" made: $made;"
        say seal "late$i"
        [[ $said == "$made" ]] || behind+=" sealed: $said;"
        say make "late$i" aes # another version
        [[ $said == 'ok kbv1-'* && $said != "$made" ]] || behind+=" rotated: $said;"
    done
    if [ -z "$behind" ]; then good 'keys made and rotated through it'; else bad "through a standby:$behind"; fi
else
    bad 'no standby joins'
fi
lane_end
