#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each way in which OpenBao fails, seen from kmsbridged: matrix.sh has the table. What a real server can
# be made to do it does; the rest is the proxy's. By a token from a file, and by JWT.
# shellcheck disable=SC2154,SC2317 # what openbao.sh sets; functions that rows name
. "$(dirname "$0")/openbao.sh"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/matrix.sh"
lane vault_matrix
id_like='kb-[0-9a-f]{32}' not_said=$id_like # ours: an answer that is an error names no request
command -v pkcs11-tool >/dev/null || without 'there is no pkcs11-tool'
bao_start
authority
certify right 'DNS:openbao.test,IP:127.0.0.1'
certify wrong 'DNS:other.example'
for name in right wrong; do cat "$tmp/$name.key" >>"$tmp/$name.pem"; done
trap 'code=$?; daemons_stop; (exit "$code"); bao_exit' EXIT
proxy_start "$port" "$tmp/right.pem" "$tmp/wrong.pem"
policy() { # CAPABILITY of encrypting
    api PUT sys/policies/acl/user "{\"policy\":\"path \\\"transit/keys/kek\\\" {capabilities=[\\\"read\\\"]} path \\\"transit/encrypt/kek\\\" {capabilities=[\\\"$1\\\"]} path \\\"transit/decrypt/kek\\\" {capabilities=[\\\"update\\\"]}\"}"
}
policy update
key() { api POST "transit/keys/kek$1" "$2" >/dev/null; } # PATH JSON
key '' '{"type":"aes256-gcm96","exportable":true,"allow_plaintext_backup":true}'
backend() { # AUTH
    printf '    type: vault\n    vault:\n      addresses: ["https://127.0.0.1:%s"]\n      ca_file: %s\n      auth: {%s}\n' \
        "$proxy_port" "$tmp/ca.pem" "$1"
}

# --- a token -------------------------------------------------------------------------------------

new_token() { # [TTL]: in the file
    token=$(api POST auth/token/create "{\"policies\":[\"user\"],\"ttl\":\"${1:-1h}\",\"explicit_max_ttl\":\"${1:-1h}\"${no_default-}}" | field client_token)
    secret "$tmp/token" "$token"
}
revoke() {
    sleep 1.1 # a younger one than a second is not replaced for being refused
    api POST auth/token/revoke "{\"token\":\"$token\"}"
}
new_token
by_token=$(backend "method: token, token: 'file:$tmp/token'")

# by Transit's answer to the call, or to a look at the key, where what the daemon knows of it is older
# than ten seconds by then; that look's answer is a good one
looked_at="($id_like|[0-9a-f-]{36})"
# versions; each daemon has listed the key before its latest version was made, and not since
daemon old "$by_token"
cp "$tmp/old.record" "$tmp/first"
key /rotate '{}'
called=$looked_at record=$tmp/first row 'version too old' decrypt key_state 'too old' "key /config '{\"min_decryption_version\":2}'" \
    "key /config '{\"min_decryption_version\":1}'"
daemon next "$by_token"
key /rotate '{}'
called=$looked_at row 'not to encrypt' encrypt key_state '(less than the minimum|is not for that any more)' "key /config '{\"min_encryption_version\":3}'" \
    "key /config '{\"min_encryption_version\":0}'"
daemon trim "$by_token"
trimmed() {
    key /config '{"min_decryption_version":2,"min_encryption_version":2}'
    key /trim '{"min_available_version":2}'
}
# there is no undoing: other versions open
called=$looked_at record=$tmp/first row 'version trimmed' decrypt key_state 'too old' trimmed "record=$tmp/trim.record"

daemon token "$by_token" kek
# the policy has no LIST: what the configuration names is there
objects
says 'the key that is named is shown' '.*label: *kek'

transport '{"errors":["rate limit quota exceeded"]}' 'answers 429: rate limit quota exceeded' \
    '{"errors":["internal error"]}' 'answers 500: internal error' "$id_like"
over_quota() {
    api POST sys/quotas/rate-limit/slow '{"rate":1,"interval":"60s","path":"transit/"}'
    kms encrypt || : # there is one left
}
row 'over a quota' encrypt throttled 'answers 429: .*quota exceeded' over_quota 'api DELETE sys/quotas/rate-limit/slow'
row 'denied' encrypt denied 'answers 403: .*permission denied' 'policy deny' 'policy update'

token_expires() {
    local old=$token
    new_token 2s
    api POST auth/token/revoke "{\"token\":\"$old\"}"
    kms encrypt # by the new one
    sleep 2.2
}
sleep 1
# the second text where the probe has just been told the first one: nobody asks again within a second
refused="(token: the token of file:$tmp/token is refused|refuses our token \\(auth method token\\))"
row 'token expired' encrypt auth "$refused" token_expires new_token
row 'token revoked' encrypt auth "$refused" revoke new_token

row 'sealed' encrypt unavailable '503' 'api PUT sys/seal' bao_unsealed
row 'stopped' encrypt unavailable 'cut off before the reply' bao_stop bao_again

# the key
called=$looked_at row 'soft-deleted (encrypt)' encrypt key_state 'soft.deleted' 'ask DELETE transit/keys/kek/soft-delete' 'key /soft-delete-restore {}'
called=$looked_at row 'soft-deleted (decrypt)' decrypt key_state 'soft.deleted' 'ask DELETE transit/keys/kek/soft-delete' 'key /soft-delete-restore {}'
deleted() {
    backup=$(api GET transit/backup/kek | field backup)
    key /config '{"deletion_allowed":true}'
    api DELETE transit/keys/kek
}
restored() { api POST transit/restore "{\"backup\":\"$backup\"}"; }
# a key that was there is not given up at once; by Transit's answer to decrypt, or, where the key has been
# looked for since, by its answer to that
answer=unavailable row 'deleted' decrypt not_found '(key not found|no key kek .any more.)' deleted restored
# the policy lets nobody make a key, which it would be to encrypt: 403 to that, and 404 to the look at the key
unseen() { # once the last row is over for the probe, too, which would see it first
    for _ in {1..100}; do
        timeout 20 "$build/tools/kmsbridgectl" kms status --socket "$tmp/$by.sock" && break
        sleep 0.1
    done
    sleep 0.3
    deleted
}
answer=unavailable row 'deleted (encrypt)' encrypt not_found 'no key kek .any more.*answers 404' unseen restored
looked_for() { # a call that fails has the probe look for the key
    deleted
    mark=$(stat -c %s "$tmp/$by.log")
    for _ in {1..100}; do
        kms decrypt
        if since | grep -q ' debug rest: GET .* status=404 '; then return; fi
        sleep 0.1
    done
    return 1
}
answer=unavailable row 'deleted, and looked for' decrypt not_found 'no key kek .any more.*answers 404' looked_for restored

# --- a token without the policy `default`, which may not look itself up ---------------------------

no_default=',"no_default_policy":true'
new_token
daemon bare "$by_token"
row 'denied' encrypt denied 'answers 403: .*permission denied' 'policy deny' 'policy update'
row 'token revoked' encrypt auth "$refused" revoke new_token

# and somebody hides from it what every good one sees: what it is denied besides says nothing of the KEK
proxy '{"status":404,"only":"GET /v1/sys/internal/ui/mounts"}' >/dev/null
row='bare: sys/ is hidden' mark=$(stat -c %s "$tmp/bare.log")
objects
also ' (debug|warn) agent: token it: no list of its keys: the keys cannot be listed .*permission denied'
ready=$(curl -sS --max-time 10 --unix-socket "$tmp/bare.http" http://x/metrics | grep '^kmsbridge_backend_ready')
if [ "$ready" = 'kmsbridge_backend_ready 1' ]; then good "$row: the key service is well"; else bad "$row: $ready"; fi
row 'denied, sys/ is hidden' encrypt denied 'answers 403: .*permission denied' 'policy deny' 'policy update'
row 'token revoked, sys/ is hidden' encrypt auth 'denied, or our token is refused' revoke new_token
clear_proxy >/dev/null
no_default=

# --- by the root token: what only an operator may -------------------------------------------------

secret "$tmp/root" "$bao_root"
daemon root "$(backend "method: token, token: 'file:$tmp/root'")"
once 'POST /v1/transit/keys/kek/rotate' keys rotate
once 'POST /v1/transit/keys/fresh' keys create --label fresh

# --- JWT -----------------------------------------------------------------------------------------

jwt_start
relogin() { # SECONDS: and the JWT is of a clock that is so far ahead
    jwt us "$1" >"$tmp/jwt"
    sleep 1.1
    api POST sys/leases/revoke-prefix/auth/jwt
}
jwt us >"$tmp/jwt"
daemon jwt "$(backend "method: jwt, role: plugin, jwt: 'file:$tmp/jwt'")"
mark=0 row='jwt: no LIST'
objects
if [[ $said == *label:* ]]; then bad "keys that are not listed are shown: $said"; else good 'no key is shown without LIST'; fi
also ' warn agent: token it: no list of its keys: the keys cannot be listed \(LIST on transit/keys\), only used by name: .*permission denied'
row 'JWT expired' encrypt auth 'jwt: the login at auth/jwt: .*expired' 'relogin -86400' "jwt us >'$tmp/jwt'"
row 'JWT of tomorrow' encrypt auth 'jwt: the login at auth/jwt: .*not yet valid' 'relogin 86400' "jwt us >'$tmp/jwt'"
row 'role gone' encrypt auth 'jwt: the login at auth/jwt: .*role .*not be found' \
    'relogin 0; api DELETE auth/jwt/role/plugin' jwt_role
row 'login gone' encrypt auth 'jwt: the login at auth/jwt: .*answers 403' 'relogin 0; api DELETE sys/auth/jwt' jwt_enable
daemons_stop
lane_end
