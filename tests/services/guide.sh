# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # what the server's file sets: build, tmp, top
# Runs an operator's guide (docs/openbao.md, docs/alibaba.md) as it stands there: sourced, by a lane
# whose server runs already.
#
#   guide DOCUMENT    what is fenced as ```sh run is run, in order, by one bash -e. What is fenced as
#                     ```text seen are lines that the block before it has printed; `...` in them is
#                     any text. Other fences are not run: ```sh run kubernetes is run by
#                     tests/kubernetes/harness/cluster/documents_test.go. The lane exports what the
#                     document says that its reader sets.
#   guide_end NAME    counts: a block that ran and a line that was seen are a pass each
passed=0 failed=0

guide_say() { # NAME RIGHT
    if [ "$2" = yes ]; then
        passed=$((passed + 1))
        [ -z "${VERBOSE-}" ] || echo "ok: $1"
    else
        failed=$((failed + 1))
        echo "FAIL: $1"
    fi
}

# DOCUMENT FOLDER: to FOLDER/script, and FOLDER/N.seen with the lines that block N has to print
guide_take() {
    mkdir -p "$2"
    awk -v dir="$2" '
        BEGIN { script = dir "/script"
                print "set -eu -o pipefail\ntrap \"kill \\$(jobs -p) 2>/dev/null; wait\" EXIT" >script }
        /^```/ && fenced { fenced = 0; to = ""; next }
        /^```/ { fenced = 1; to = ""
                 if ($0 ~ /^```sh run/) ours = $0 == "```sh run"
                 if ($0 == "```sh run") {
                     n++; to = script
                     printf "exec >%s/%d.out 2>&1\n", dir, n >script
                     print NR >(dir "/" n ".line")
                 } else if ($0 == "```text seen" && ours) to = dir "/" n ".seen"
                 next }
        to != "" { print >to }
        END { print "exec >" dir "/end" >script }' "$1"
}

guide_line() { # FILE LINE: one of the file is like it
    local like
    like=$(sed -e 's/[][\.*^$]/\\&/g' -e 's/\\\.\\\.\\\./.*/g' <<<"$2")
    grep -qx -e "$like" "$1"
}

guide() { # DOCUMENT
    local folder=$tmp/guide n line
    rm -rf "$folder"
    guide_take "$1" "$folder"
    (cd "$tmp" && exec timeout -k 5 240 bash "$folder/script") </dev/null
    for ((n = 1; ; n++)); do
        [ -e "$folder/$n.line" ] || break
        # it ran to its end if the next one began
        if [ -e "$folder/$((n + 1)).out" ] || [ -e "$folder/end" ]; then
            guide_say "${1##*/}:$(cat "$folder/$n.line"): runs" yes
        else
            guide_say "${1##*/}:$(cat "$folder/$n.line"): ends with an error: $(tail -n 5 "$folder/$n.out" 2>&1)" no
            break
        fi
        [ ! -e "$folder/$n.seen" ] || while IFS= read -r line; do
            if guide_line "$folder/$n.out" "$line"; then
                guide_say "${1##*/}: \"$line\" is seen" yes
            else
                guide_say "${1##*/}:$(cat "$folder/$n.line"): no \"$line\" in: $(cat "$folder/$n.out")" no
            fi
        done <"$folder/$n.seen"
    done
}

# what the documents call by name, and where they find the examples
guide_tools() {
    local file name
    mkdir -p "$tmp/bin" "$tmp/examples" "$tmp/home" "$tmp/run" "$tmp/etc"
    for name in kmsbridge/kmsbridged tools/kmsbridgectl; do
        printf '#!/bin/sh\nexec %s "$@"\n' "$build/$name" >"$tmp/bin/${name##*/}"
        chmod 755 "$tmp/bin/${name##*/}"
    done
    for file in "$top"/conf/vault/* "$top"/conf/alibaba/* "$top"/conf/kubernetes/* "$top"/conf/systemd/*.conf; do
        cp "$file" "$tmp/examples/"
    done
    umask 022
    export PATH=$tmp/bin:$PATH HOME=$tmp/home CONF=$tmp/etc RUN=$tmp/run EXAMPLES=$tmp/examples
}

# What looks must be able to see: a block that fails, a line that is not printed, and none of it done.
# shellcheck disable=SC2016 # fences
guide_planted() {
    local kept="$passed $failed" ran
    printf '```sh run\necho one [two] three\n```\n```text seen\none [two]...\n```\n' >"$tmp/planted.md"
    printf '```sh run kubernetes\nfalse\n```\n```text seen\nnever\n```\n' >>"$tmp/planted.md" # not run here
    guide "$tmp/planted.md" >/dev/null
    ran=$((passed + failed))
    printf '```sh run\necho one\nfalse\necho two\n```\n' >"$tmp/planted.md"
    guide "$tmp/planted.md" >/dev/null
    printf '```sh run\necho one\n```\n```text seen\none.\n```\n' >"$tmp/planted.md"
    guide "$tmp/planted.md" >/dev/null
    if [ "$ran" = 2 ] && [ "$passed $failed" = '3 2' ]; then
        passed=${kept% *} failed=${kept#* }
        guide_say 'planted faults are seen' yes
    else
        echo "planted: $passed passed, $failed failed"
        passed=${kept% *} failed=${kept#* }
        guide_say 'planted faults are not seen' no
    fi
}

guide_end() { # NAME
    echo "$1: $passed passed, $failed failed, 0 skipped"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 4 ] || exit 1
    exit 0
}
