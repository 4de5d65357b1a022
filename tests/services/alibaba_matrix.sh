#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each way in which Alibaba Cloud KMS fails, the strict fake's, seen from kmsbridged: matrix.sh has the
# table. An access key of a user, RRSA, and the machine's role.
# shellcheck disable=SC2317 # functions that rows name
. "$(dirname "$0")/fakes.sh"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/matrix.sh"
lane=alibaba_matrix
id_like='[0-9A-Fa-f]{8}-[0-9A-Fa-f-]{27}' not_said=none
fake_start "$lane"
command -v curl >/dev/null || fake_without 'there is no curl'
control() { curl -sS --fail-with-body --max-time 10 -d "$1" "http://127.0.0.1:$(fake_field control)/"; } # JSON
leave() {
    local rc=$?
    daemons_stop
    (exit "$rc")
    fake_stop
}
trap leave EXIT

made=$(control '{"do":"key","alias":"kek"}')
key=$(sed -n 's/.*"id": "\([^"]*\)".*/\1/p' <<<"$made")
version=$(sed -n 's/.*"version": "\([^"]*\)".*/\1/p' <<<"$made")
proxy_start "$(fake_field kms)" "$tmp/localhost.pem" "$tmp/other.example.pem"
backend() { # CREDENTIALS [MORE]...: lines of the backend
    printf '    type: alibaba\n    alibaba:\n      endpoint: https://localhost:%s\n      ca_file: %s\n      credentials: %s\n' \
        "$proxy_port" "$tmp/ca.pem" "$1"
    shift
    [ $# -eq 0 ] || printf '      %s\n' "$@"
}

# --- an access key -------------------------------------------------------------------------------

(umask 077 && fake_field secret >"$tmp/secret")
daemon key "$(backend access_key "access_key_id: $(fake_field access_key)" "access_key_secret: file:$tmp/secret")"
refusal() { printf '{"Code":"%s","Message":"%s","RequestId":"%s"}' "$@"; } # CODE MESSAGE ID
id=3b2a1c00-0000-4000-8000-000000000001
transport "$(refusal Rejected.Throttling 'QPS Limit Exceeded' $id)" 'Encrypt: HTTP 429, Rejected.Throttling: QPS Limit Exceeded' \
    "$(refusal InternalFailure 'Internal Failure' $id)" '(HTTP 500, InternalFailure: Internal Failure|status 500)' $id
row 'throttled by the gateway' encrypt throttled 'HTTP 400, Throttling.User' \
    "control '{\"do\":\"fault\",\"on\":\"kms\",\"action\":\"Encrypt\",\"kind\":\"error\",\"status\":400,\"code\":\"Throttling.User\",\"count\":1000}'" \
    "control '{\"do\":\"clear\"}'"
row 'denied' encrypt denied 'Forbidden.NoPermission: This operation is forbidden' \
    "control '{\"do\":\"deny\",\"action\":\"Encrypt\"}'" "control '{\"do\":\"clear\"}'"
also ' warn kms: Encrypt failed: .* class=denied code=Forbidden.NoPermission request_id=[0-9a-f-]{36}'
for seconds in 3600 -3600; do
    way=ahead
    [ "$seconds" -gt 0 ] || way=behind
    row "clock $way" encrypt auth 'InvalidTimeStamp.Expired: .*our clock and the service.s differ' \
        "control '{\"do\":\"skew\",\"seconds\":$seconds}'" "control '{\"do\":\"clear\"}'"
done
row 'access key revoked' encrypt auth 'InvalidAccessKeyId.Inactive: Specified access key is disabled' \
    "control '{\"do\":\"revoke\"}'" "control '{\"do\":\"revoke\",\"revoked\":false}'"
# the key
state() { control "{\"do\":\"state\",\"key\":\"$key\",\"state\":\"$1\"}"; }
for op in encrypt decrypt; do
    row "disabled ($op)" "$op" key_state 'Rejected.Disabled: ' 'state Disabled' 'state Enabled'
    row "scheduled for deletion ($op)" "$op" key_state 'Rejected.PendingDeletion: ' 'state PendingDeletion' 'state Enabled'
done
# there is no undoing: what other versions encrypted opens, and a new one encrypts
destroy() {
    control "{\"do\":\"rotate\",\"key\":\"$key\"}"
    control "{\"do\":\"destroy_version\",\"key\":\"$key\",\"version\":\"$version\"}"
}
row 'version destroyed' decrypt key_state 'Forbidden.KeyVersionNotFound' destroy 'kms encrypt'

# a public key that could not be had is not missed for as long as the list of keys is believed
control '{"do":"key","alias":"web","spec":"EC_P256"}' >/dev/null
control '{"do":"fault","on":"kms","action":"GetPublicKey","kind":"error","status":400,"code":"Throttling.User","count":1000}' >/dev/null
daemon public "$(backend access_key "access_key_id: $(fake_field access_key)" "access_key_secret: file:$tmp/secret")" web
objects
if [[ $said == *'Private Key Object'* && $said != *'Public Key Object'* ]]; then good 'a pair whose public key is throttled'; else
    bad "a pair whose public key is throttled: $said"
fi
control '{"do":"clear"}' >/dev/null
for _ in {1..30}; do
    objects
    [[ $said == *'Public Key Object'* ]] && break
    sleep 0.1
done
if [[ $said == *'Public Key Object'* ]]; then good 'has it soon after'; else bad "the public key is not back: $said"; fi

# --- two endpoints -------------------------------------------------------------------------------

# the first fails and nobody notices; it is asked again once it is well
daemon two "$(backend access_key "fallback_endpoints: ['https://127.0.0.1:$(fake_field tls)']" \
    "access_key_id: $(fake_field access_key)" "access_key_secret: file:$tmp/secret")"
mark=0 row='two endpoints'
proxy '{"kind":"drop"}' >/dev/null
for _ in {1..5}; do
    if kms encrypt; then good "$row: the second does"; else bad "$row: $said"; fi
done
also " warn backend it: https://localhost:$proxy_port is left alone for a while: .*cut off"
also " debug rest: POST backend=it endpoint=https://127.0.0.1:$(fake_field tls) status=200"
clear_proxy >/dev/null
for _ in {1..50}; do
    kms encrypt || bad "$row: while the first comes back: $said"
    since | grep -q 'answers again' && break
    sleep 0.1
done
also " info backend it: https://localhost:$proxy_port answers again"
# the second is not asked, either, for what the first may have done
once 'POST / CreateKeyVersion' keys rotate
once 'POST / CreateKey' keys create --label fresh

# --- RRSA ----------------------------------------------------------------------------------------

# [MORE]: a token of the cluster's; MORE is JSON behind a comma
token() { control "{\"do\":\"token\"$1}" | sed -n 's/.*"token": "\([^"]*\)".*/\1/p' >"$tmp/token.new" && mv "$tmp/token.new" "$tmp/token"; }
# what STS gave has ended; a younger one than a second is not replaced for being refused
end_all() {
    sleep 1.1
    control '{"do":"expire"}'
}
token ''
daemon rrsa "$(backend rrsa "role_arn: $(fake_field role_arn)" "oidc_provider_arn: $(fake_field provider_arn)" \
    "oidc_token_file: $tmp/token" "sts_endpoint: http://127.0.0.1:$(fake_field sts)")"
row 'credentials and token expired' encrypt auth 'rrsa: .*AuthenticationFail.OIDCToken.Expired' \
    "token ',\"lifetime\":-5'; end_all" "token ''"
row 'token of tomorrow' encrypt auth 'rrsa: .*AuthenticationFail.OIDCToken.Invalid' "token ',\"nbf\":4000000000'; end_all" "token ''"
called=none row 'token gone' encrypt auth "rrsa: .*$tmp/token" "rm '$tmp/token'; end_all" "token ''"
sts() { # FAULT: of every call until it is cleared
    control "{\"do\":\"fault\",\"on\":\"sts\",\"count\":1000,$1}"
    end_all
}
row 'role gone' encrypt auth 'rrsa: .*EntityNotExist.Role' \
    "sts '\"kind\":\"error\",\"status\":404,\"code\":\"EntityNotExist.Role\"'" "control '{\"do\":\"clear\"}'"
row 'STS malformed' encrypt protocol "rrsa: STS's reply is not one JSON object" "sts '\"kind\":\"malformed\"'" "control '{\"do\":\"clear\"}'"
called=none row 'STS gives no answer' encrypt unavailable 'rrsa: .*cut off before the reply' "sts '\"kind\":\"drop\"'" "control '{\"do\":\"clear\"}'"
row 'STS throttles' encrypt throttled 'rrsa: .*Throttling' \
    "sts '\"kind\":\"error\",\"status\":429,\"code\":\"Throttling.User\"'" "control '{\"do\":\"clear\"}'"

# --- the machine's role --------------------------------------------------------------------------

daemon ecs "$(backend ecs "metadata_endpoint: http://127.0.0.1:$(fake_field imds)")"
called=none row 'metadata absent' encrypt unavailable 'ecs: the metadata service: .*no connection' \
    "control '{\"do\":\"identity\",\"imds\":\"absent\"}'; end_all" "control '{\"do\":\"identity\"}'"
called=none row 'metadata answers 503' encrypt unavailable 'ecs: the metadata service gives no token .HTTP 503' \
    "control '{\"do\":\"identity\",\"imds\":\"off\"}'; end_all" "control '{\"do\":\"identity\"}'"
called=none row 'metadata slow' encrypt timeout 'ecs: the metadata service: .*no reply in time' \
    "control '{\"do\":\"fault\",\"on\":\"imds\",\"kind\":\"slow\",\"seconds\":1,\"count\":1000}'; end_all" "control '{\"do\":\"clear\"}'"
called=none row 'metadata gives what has expired' encrypt auth 'ecs: what came had expired already' \
    "control '{\"do\":\"identity\",\"lifetime\":-5}'; end_all" "control '{\"do\":\"identity\"}'"
called=none row 'metadata without tokens' encrypt auth 'ecs: .*tokenless_metadata' \
    "control '{\"do\":\"identity\",\"imds\":\"v1\"}'; end_all" "control '{\"do\":\"identity\"}'"
daemons_stop
lane_end
