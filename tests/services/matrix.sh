# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what the lane's other files set, and what it uses
# One kmsbridged over a key service, by way of a proxy that fails on demand (fault_proxy.py): a row is
# one fault, and all that is said of it. Sourced by the lanes *_matrix.sh, after lib.sh. Which fault has
# a row where, and what stands for one that a service has not, by the names of the rows:
#
#   fault                  OpenBao                                 Alibaba Cloud KMS
#   throttling             throttled, over a quota                 throttled, throttled by the gateway,
#                                                                  STS throttles
#   5xx                    status 500, status 503                  status 500, status 503
#   slow                   slow                                    slow
#   cut                    cut off, no answer                      cut off, no answer
#   oversized              oversized                               oversized
#   malformed JSON         malformed                               malformed, STS malformed
#   wrong TLS name         wrong name                              wrong name
#   expired credentials    token expired, JWT expired              credentials and token expired (RRSA),
#                                                                  metadata gives what has expired
#   revoked credentials    token revoked, role gone, login gone    access key revoked, role gone, token
#                                                                  gone
#   clock skew             JWT of tomorrow (its nbf and iat);      clock behind, clock ahead (the date
#                          Transit itself asks for no time         of the signature), token of tomorrow
#   denied                 denied; it and token revoked also by    denied
#                          one that may not look itself up (bare)
#   key disabled           there is no such state: not to encrypt  disabled
#                          (min_encryption_version)
#   scheduled for deletion soft-deleted (OpenBao)                  scheduled for deletion
#   key gone               deleted, also (encrypt); deleted, and   there is no undoing: alibaba_faults.c
#                          looked for; restored from a backup
#   version destroyed      version too old (min_decryption_        version destroyed
#                          version), version trimmed
#   metadata service       there is none: login gone               metadata absent, answers 503, slow,
#     absent                                                       without tokens; STS gives no answer
#   sealed, stopped        sealed, stopped                         no such state: no answer
#
# daemon NAME AUTH-YAML [KEYS]   starts one; AUTH-YAML are the lines of its backend, KEYS are named for
#   its agent. The row's is $by
# row NAME OP CLASS SAID PLANT UNDO
#   the command PLANT makes the fault. OP (encrypt or decrypt) then fails in CLASS, and so says:
#   - the client, in gRPC's code and our words for the class;
#   - the log, in a warning about the call and a line of each attempt with SAID, a regular expression, and
#     with the request's id: the service's, or ours where it gives none (Vault);
#   - the metrics, in calls of that class, and in no other class of failure.
#   The command UNDO ends it, and the same process is well again. UNDO `-`: by itself.
#   answer=CLASS before it: what the client is told, and the warning says, is another class
#   called=PATTERN before it: what the request's id is like, where not $id_like; none: it has none
#   record=FILE before it: what is decrypted, rather than what was encrypted last
# once REQUEST VERB...     what kmsbridgectl asks for with $by's configuration it asks for once
# The lane sets id_like, and not_said, the same where no answer says it.
# also PATTERN             the log of the last row has such a line, too

declare -A said_of=(
    [throttled]='RESOURCE_EXHAUSTED.*the key service asks for fewer requests'
    [unavailable]='UNAVAILABLE.*the key service is unavailable'
    [timeout]='DEADLINE_EXCEEDED.*the key service did not answer in time'
    [protocol]='INTERNAL.*internal error; see the plugin'
    [auth]='FAILED_PRECONDITION.*the key service refuses this plugin.s credential'
    [denied]='PERMISSION_DENIED.*the key service.s policy denies this'
    [key_state]='FAILED_PRECONDITION.*the key is not in a usable state'
    [not_found]='.*the KEK was not found'
)
declare -A pids
by='' # the daemon of the rows that follow

proxy_start() { # PORT RIGHT.pem WRONG.pem: $proxy_port
    /usr/bin/python3 "$top/tests/services/fault_proxy.py" "$@" >"$tmp/proxy.out" 2>&1 </dev/null &
    proxy_pid=$!
    for _ in {1..200}; do
        if [ -s "$tmp/proxy.out" ] && read -r _ proxy_port proxy_control <"$tmp/proxy.out"; then return; fi
        sleep 0.05
    done
    echo "no proxy: $(tail -n 1 "$tmp/proxy.out")"
    exit 1
}
proxy() { curl -sS --fail --max-time 10 -d "$1" "http://127.0.0.1:$proxy_control/"; } # JSON
clear_proxy() { proxy '{}'; }

daemon() { # NAME AUTH-YAML [KEYS]
    by=$1
    (
        umask 077
        printf 'version: 1\nlog: {level: debug}\nbackends:\n  - name: it\n%s\n' "$2"
        printf 'kms:\n  socket: %s\n  backend: it\n  key: kek\n  call_timeout: 600ms\n  probe_interval: 10m\n  refresh_interval: 10m\n' \
            "$tmp/$by.sock"
        printf 'agent:\n  socket: %s\n  tokens:\n    - backend: it\n' "$tmp/$by.agent"
        [ -z "${3-}" ] || printf '      keys: [%s]\n' "$3"
        printf 'monitor:\n  listen: unix:%s\n' "$tmp/$by.http"
    ) >"$tmp/$by.yaml"
    "$build/kmsbridge/kmsbridged" --config "$tmp/$by.yaml" >"$tmp/$by.log" 2>&1 </dev/null &
    pids[$by]=$!
    soon_ok "$by: is up" encrypt
    mark=0 row=$by
    also ' debug call: encrypt backend=it class=ok request_id=[0-9a-f-]{36} trace_id='
}
daemons_stop() {
    local name
    for name in "${!pids[@]}"; do kill "${pids[$name]}" 2>/dev/null; done
    for name in "${!pids[@]}"; do
        wait "${pids[$name]}" || bad "kmsbridged of $name ends with $?: $(tail -n 3 "$tmp/$name.log")"
    done
    pids=()
    [ -z "${proxy_pid-}" ] || kill "$proxy_pid" 2>/dev/null
    proxy_pid=
}

# OP: its answer to $said, in one line. What is decrypted is $record, or what was encrypted last.
kms() {
    if [ "$1" = encrypt ]; then
        said=$(printf 'a seed' | timeout 20 "$build/tools/kmsbridgectl" kms encrypt --socket "$tmp/$by.sock" 2>&1 >"$tmp/new") &&
            mv "$tmp/new" "$tmp/$by.record"
    else
        said=$(timeout 20 "$build/tools/kmsbridgectl" kms decrypt --socket "$tmp/$by.sock" 2>&1 <"${record:-$tmp/$by.record}")
    fi
}
soon_ok() { # NAME OP: within ten seconds
    for _ in {1..100}; do
        if kms "$2"; then
            good "$1"
            return
        fi
        sleep 0.1
    done
    bad "$1: not well again: $said"
}
counted() { # OP: "CLASS COUNT" for each class of failure that the metrics have
    curl -sS --max-time 10 --unix-socket "$tmp/$by.http" http://x/metrics |
        sed -n "s/^kmsbridge_backend_calls_total{op=\"$1\",class=\"\([a-z_]*\)\"} /\1 /p" | grep -v '^ok '
}
objects() { # to $said: what PKCS#11 applications see
    local module=$build/pkcs11/.libs/kmsbridge-pkcs11.so
    [ -e "$module" ] || module=$build/.libs/kmsbridge-pkcs11.so
    said=$(KMSBRIDGE_AGENT=$tmp/$by.agent timeout 30 pkcs11-tool --module "$module" -O 2>&1 | tr '\n' ' ')
}
since() { tail -c "+$((mark + 1))" "$tmp/$by.log"; }
also() { # PATTERN
    if since | grep -qE -- "$1"; then good "$row: $1"; else bad "$row: no \"$1\" in: $(since | tail -n 8)"; fi
}

named() { # OP CLASS ID: each attempt that failed so has that request id, with none where it is "none"
    local all strangers
    all=$(since | grep " debug call: $1: .* class=$2")
    # nobody is asked of an endpoint that fails, nor of a key that was looked at within the last second
    strangers=$(grep -vE ' left alone for a while| is not for that any more ' <<<"$all")
    if [ "$3" = none ]; then strangers=$(grep ' request_id=' <<<"$strangers"); else
        strangers=$(grep -vE " request_id=$3( |\$)|^\$" <<<"$strangers"); fi
    if [ -n "$all" ] && [ -z "$strangers" ]; then good "$row: request id: $3"; else
        bad "$row: a request's id is not $3: $strangers"; fi
}

row() { # NAME OP CLASS SAID PLANT UNDO
    row="$by: $1"
    local op=$2 class=$3 what=$4 before method=Encrypt answer=${answer-$3} called=${called-$id_like}
    [ "$op" = encrypt ] || method=Decrypt
    soon_ok "$row: well before" encrypt # the last row may have been about decrypting
    eval "$5" >/dev/null || bad "$row: $5"
    before=$(counted "$op")
    mark=$(stat -c %s "$tmp/$by.log")
    if kms "$op"; then
        bad "$row: nothing fails"
    elif [[ $said =~ ${said_of[$answer]} ]]; then
        good "$row: the client is told"
    else
        bad "$row: the client is told \"$said\", not ${said_of[$answer]}"
    fi
    also " warn kms: $method failed: .* class=$answer( |\$)"
    also " debug call: $op: .*$what.* class=$class( |\$)"
    named "$op" "$class" "$called"
    # it rises, and no other class of failure does
    rose=$(counted "$op" | grep -vxF "$before" | cut -d' ' -f1 | tr '\n' ' ')
    # the last try of what passes by itself may be cut short by the deadline, which the log says, too
    case $class in
    unavailable | throttled) since | grep -q " debug call: $op: .* class=timeout" && rose=${rose/timeout /} ;;
    esac
    if [ "$rose" = "$class " ]; then good "$row: is counted"; else bad "$row: not $class is counted, but: $rose"; fi
    [ "$6" = - ] || eval "$6" >/dev/null || bad "$row: $6"
    soon_ok "$row: well again" "$op"
    if kill -0 "${pids[$by]}" 2>/dev/null; then good "$row: by the same process"; else bad "$row: the daemon is gone"; fi
}

# What makes something is asked for once, whatever becomes of the answer: a second one would be another.
once() { # REQUEST VERB...: what the proxy calls it, and the verb of kmsbridgectl that sends it
    local request=$1 fault count
    shift
    for fault in '"status":503' '"status":429' '"kind":"drop"' '"kind":"cut"'; do
        row="$by: $* with $fault"
        proxy "{$fault,\"only\":\"$request\"}" >/dev/null
        if said=$(timeout 30 "$build/tools/kmsbridgectl" "$@" --config "$tmp/$by.yaml" 2>&1); then
            bad "$row: nothing fails: $said"
        fi
        count=$(clear_proxy | sed -n "s|.*\"$request\": \([0-9]*\).*|\1|p")
        if [ "$count" = 1 ]; then good "$row: once"; else bad "$row: $request ${count:-not asked for}: $said"; fi
    done
}

# What goes wrong on the way to any service; the body of a 429 and of a 500 is the service's own.
transport() { # BODY-429 SAID-429 BODY-500 SAID-500 REQUEST-ID of these two
    local when
    for when in after until; do # seconds, or a date
        called=$5 row "throttled ($when)" encrypt throttled "$2" "proxy '{\"status\":429,\"$when\":5,\"body\":$1}'" clear_proxy
        # the service asked for five seconds, which the call has not: it does not try again meanwhile
        if [ "$(since | grep ' debug call: encrypt: ' | grep -vc 'trace_id=probe')" = 1 ]; then good "$row: one attempt"; else
            bad "$row: tried again before Retry-After: $(since | grep ' call: ')"
        fi
    done
    # the retries that the budget has open the breaker, then there are none until calls have paid for them
    called=$not_said row 'status 503' encrypt unavailable '503' "proxy '{\"status\":503}'" clear_proxy
    also ' warn backend it: .* is left alone for a while: it answers with status 503 class=unavailable'
    also ' info backend it: .* answers again'
    called=$5 row 'status 500' encrypt unavailable "$4" "proxy '{\"status\":500,\"body\":$3}'" clear_proxy
    called=$not_said row 'slow' encrypt timeout 'no reply in time' "proxy '{\"kind\":\"slow\",\"seconds\":1}'" clear_proxy
    row 'cut off' encrypt unavailable 'cut off in the reply' "proxy '{\"kind\":\"cut\"}'" clear_proxy
    called=$not_said row 'no answer' encrypt unavailable 'cut off before the reply' "proxy '{\"kind\":\"drop\"}'" clear_proxy
    row 'oversized' encrypt protocol 'its reply is over our bounds' "proxy '{\"kind\":\"oversized\"}'" clear_proxy
    row 'malformed' encrypt protocol 'the reply.* is not one JSON object' "proxy '{\"kind\":\"malformed\"}'" clear_proxy
    called=none row 'wrong name' encrypt protocol 'its certificate does not verify' "proxy '{\"kind\":\"wrong_name\"}'" clear_proxy
}
