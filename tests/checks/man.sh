#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The man pages are sound mdoc and say what is: every option of --help stands in the page and the
# other way round, every verb too; every key of the schema stands in kmsbridge.yaml(5) and the other
# way round; what kmsbridge-services(7) has one type stands in the guides, whose steps CI runs; every
# page is installed.
. "$(dirname "$0")/lib/check.sh"
check man
need mandoc
build=${KMSBRIDGE_BUILD:-build}

our_files '*.[1-9]' >"$CHECK_TMP/pages"
[ -s "$CHECK_TMP/pages" ] || not_ok "there are no man pages"
lint() { mandoc -T lint -W warning "$1" >"$CHECK_TMP/out" 2>&1; }
while IFS= read -r page; do
    if lint "$page"; then ok "$page"; else
        not_ok "$page: mandoc has something to say"
        head -n 10 "$CHECK_TMP/out"
    fi
done <"$CHECK_TMP/pages"
printf '.Dd today\n.Dt PLANTED 8\n.Sh NAME\n.Bl\n.Xx\n' >"$CHECK_TMP/planted.8"
if lint "$CHECK_TMP/planted.8"; then not_ok "planted: took a broken page"; else ok planted; fi

page_of() { grep -E "(^|/)$1\$" "$CHECK_TMP/pages" | head -n 1; }
text_of() { mandoc -T utf8 -O width=200 "$1" | sed 's/.\x08//g'; }
options_in() { grep -oE -- '(^|[^a-zA-Z0-9-])--[a-z][a-z-]+' | grep -oE -- '--[a-z][a-z-]+' | sort -u; }

# both NAME LEFT RIGHT: the two lists of words (files) are the same
both() {
    local word
    while IFS= read -r word; do
        if grep -qxF -e "$word" "$3"; then ok "$1: $word"; else not_ok "$1: $word is missing there"; fi
    done <"$2"
    while IFS= read -r word; do
        grep -qxF -e "$word" "$2" || not_ok "$1: $word stands there, but does not exist"
    done <"$3"
}

help_of() { # program: its --help, and that of each of its verbs
    "$@" --help
    "$@" --help | sed -nE '/^Verbs:/,/^$/s/^  ([a-z-]+( [a-z-]+)?)  .*/\1/p' | while IFS= read -r verb; do
        # shellcheck disable=SC2086 # a verb may be two words
        "$@" $verb --help </dev/null
    done
}

for row in kmsbridge/kmsbridged:kmsbridged.8 tools/kmsbridgectl:kmsbridgectl.1; do
    program=$build/${row%%:*} page=$(page_of "${row##*:}")
    if [ ! -x "$program" ] || [ -z "$page" ]; then
        not_ok "${row##*:} or $program is missing"
        continue
    fi
    help_of "$program" >"$CHECK_TMP/help"
    text_of "$page" >"$CHECK_TMP/text"
    options_in <"$CHECK_TMP/help" >"$CHECK_TMP/left"
    options_in <"$CHECK_TMP/text" >"$CHECK_TMP/right"
    [ -s "$CHECK_TMP/left" ] || not_ok "$program --help names no option"
    both "options of --help in ${row##*:}" "$CHECK_TMP/left" "$CHECK_TMP/right"
    sed -nE '/^Verbs:/,/^$/s/^  ([a-z-]+( [a-z-]+)?)  .*/\1/p' "$CHECK_TMP/help" >"$CHECK_TMP/verbs"
    while IFS= read -r verb; do
        if grep -qE "^ +$verb( |\$)" "$CHECK_TMP/text"; then ok "verb $verb"; else not_ok "$page lacks the verb $verb"; fi
    done <"$CHECK_TMP/verbs"
done

page=$(page_of kmsbridge.yaml.5)
if [ -n "$page" ]; then
    schema_keys >"$CHECK_TMP/left"
    [ -s "$CHECK_TMP/left" ] || not_ok "found no keys in the schema"
    # a key is what an item of a list opens with: ".It Ic key", ".It Ic kms.key"
    sed -nE 's/^\.It (Ic|Cm|Va|Li) "?([a-z_.]+\.)?([a-z_]+)"?( .*)?$/\3/p' "$page" | sort -u >"$CHECK_TMP/right"
    both "keys of the schema in kmsbridge.yaml.5" "$CHECK_TMP/left" "$CHECK_TMP/right"
else
    not_ok "there is no kmsbridge.yaml.5"
fi

# the commands of kmsbridge-services(7), each in a fence of a guide
typed() { sed -n '/^\.Bd -literal/,/^\.Ed/{/^\.[BE]d/!p}' "$1"; }
awk '/^```/ { fenced = !fenced; next } fenced' docs/openbao.md docs/alibaba.md >"$CHECK_TMP/fenced"
page=$(page_of kmsbridge-services.7)
[ -n "$page" ] && typed "$page" >"$CHECK_TMP/typed"
[ -s "$CHECK_TMP/typed" ] || not_ok "kmsbridge-services.7 has no commands"
while IFS= read -r line; do
    if grep -qxF -e "$line" "$CHECK_TMP/fenced"; then ok "in a guide: $line"; else not_ok "in no guide: $line"; fi
done <"$CHECK_TMP/typed"

# installed pages
if [ -f "$build/Makefile" ]; then
    make -s -C "$build" install-man DESTDIR="$CHECK_TMP/root" >/dev/null 2>&1 || true
    while IFS= read -r page; do
        if [ -n "$(find "$CHECK_TMP/root" -name "${page##*/}" 2>/dev/null)" ]; then ok "installed ${page##*/}"; else
            not_ok "$page is not installed"
        fi
    done <"$CHECK_TMP/pages"
fi
check_end
