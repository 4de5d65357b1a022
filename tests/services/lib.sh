# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2153,SC2154 # what openbao.sh and coproc set
# Talking to a waist (tests/services/ask.c) from a lane, and checks of what it says. Sourced after
# openbao.sh.
. "$top/tests/services/checks.sh"

# opened FILE: a waist over one entry of `backends:`, until the next one
opened() {
    closed
    coproc ASK { exec "$build/tests/services/ask" "$1" 2>>"$tmp/ask.log"; }
    # bash forgets ASK when it ends
    ask_pid=$ASK_PID
    exec {from_ask}<&"${ASK[0]}" {to_ask}>&"${ASK[1]}"
    eval "exec ${ASK[0]}<&- ${ASK[1]}>&-"
    IFS= read -r -t 30 said <&"$from_ask" || said='dead at the start'
    opens=no
    [[ $said != 'ok opened' ]] || opens=yes
}
closed() {
    [ -n "${ask_pid-}" ] || return 0
    exec {to_ask}>&- {from_ask}<&-
    # nothing is left behind, as a sanitizer would say
    wait "$ask_pid" 2>/dev/null || [ "$opens" = no ] ||
        bad "the waist ends with an error: $(tail -n 3 "$tmp/ask.log")"
    ask_pid=
}
say() { # COMMAND...: its answer to $said
    said='no answer'
    echo "$*" >&"$to_ask" || said=dead
    IFS= read -r -t 60 said <&"$from_ask" || said='no answer'
}
says() { # NAME PATTERN: the last answer fits the extended regular expression
    if [[ $said =~ ^$2 ]]; then good "$1"; else bad "$1: it said \"$said\", not $2"; fi
}
does() { # NAME PATTERN COMMAND...: says it, and what it answers
    local name=$1 pattern=$2
    shift 2
    say "$@"
    says "$name" "$pattern"
}
soon() { # NAME PATTERN COMMAND...: within ten seconds
    local name=$1 pattern=$2
    shift 2
    for _ in {1..50}; do
        say "$@"
        [[ $said =~ ^$pattern ]] && break
        sleep 0.2
    done
    says "$name" "$pattern"
}
lane_end() {
    closed
    echo "$lane: $passed passed, $failed failed, 0 skipped"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] || exit 1
    exit 0
}
# entry FILE AUTH [MORE]: a description of the backend; AUTH and MORE are lines of YAML
entry() {
    {
        printf 'name: vault\ntype: vault\nvault:\n  addresses: [%s]\n' "${address:-$bao_url}"
        [ -z "${bao_ca-}" ] || printf '  ca_file: %s\n' "${ca_file:-$bao_ca}"
        [ -z "${3-}" ] || printf '  %s\n' "$3"
        printf '  auth: {%s}\n' "$2"
    } >"$1"
}
secret() { # FILE VALUE: as a secret's file must be
    (umask 077 && printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1")
}
