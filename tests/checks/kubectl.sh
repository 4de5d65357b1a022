#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Nobody is told to type a kubectl line that has not been run: what README.md and docs/ fence as
# ```sh run kubernetes is run by tests/kubernetes/harness/cluster/documents_test.go, and whatever else
# speaks such a line, a man page, an example or a program, says one of these, word for word.
. "$(dirname "$0")/lib/check.sh"
check kubectl
runs=tests/kubernetes/harness/cluster/documents_test.go
typed='(^|[^A-Za-z0-9_./-])kubectl [a-z-]' # "kubectl" alone is the program's name

fenced() { # DOCUMENT...: the lines that are run
    awk '/^```/ { to = !inside && $0 == "```sh run kubernetes"; inside = !inside; next } to' "$@"
}
# the lines of a file that have one type kubectl. Of prose what is in `code` or a macro does; a
# comment has a line of its own, and in C a string
told() { # FILE
    case $1 in
    *.md) awk '/^```/ { inside = !inside; next }
               inside { print; next }
               { n = split($0, part, "`"); for (i = 2; i <= n; i += 2) print part[i] }' "$1" ;;
    *.[1-9]) sed -nE '/^\.Bd/,/^\.Ed/{/^\.[BE]d/!p; b}; s/^\.[A-Z][A-Za-z]+ //p' "$1" ;;
    *.c) sed -nE 's/^ *"(# *)?(.*)\\n".*/\2/p; t; p' "$1" ;;
    *) sed -E 's/^ *# *//' "$1" ;;
    esac | grep -E -e "$typed" || true
}
check_file() { # FILE
    local line
    told "$1" >"$CHECK_TMP/told"
    while IFS= read -r line; do
        if grep -qxF -e "$line" "$CHECK_TMP/run"; then ok "$1: $line"; else not_ok "$1: is not run: $line"; fi
    done <"$CHECK_TMP/told"
}

our_files README.md 'docs/*.md' >"$CHECK_TMP/documents"
xargs cat <"$CHECK_TMP/documents" >"$CHECK_TMP/all.md"
fenced "$CHECK_TMP/all.md" >"$CHECK_TMP/run"
[ "$(grep -cE -e "$typed" "$CHECK_TMP/run")" -ge 3 ] || not_ok 'found too few lines that are run'
[ -f $runs ] || skip "$runs is not there, as in a tarball"
[ ! -f $runs ] || while IFS= read -r file; do
    if [ -z "$(fenced "$file")" ] || grep -qF "{\"$file\", " $runs; then ok "$file"; else not_ok "$runs does not run $file"; fi
done <"$CHECK_TMP/documents"

our_files README.md 'docs/*.md' '*.[1-9]' 'conf/*' 'common/*.c' 'backend/*.c' 'kmsbridge/*.c' 'pkcs11/*.c' 'tools/*.c' \
    >"$CHECK_TMP/files"
while IFS= read -r file; do check_file "$file"; done <"$CHECK_TMP/files"
# where there are some today, or this looks nowhere
for file in README.md docs/alibaba.md kmsbridge/kmsbridge-services.7 tools/verb_encryption_config.c; do
    if [ -n "$(told "$file")" ]; then ok "$file is read"; else not_ok "found no kubectl line in $file"; fi
done

# one of each kind that nobody runs, and none where the program is only spoken of
while IFS='|' read -r kind found text; do
    printf '%b' "$text" >"$CHECK_TMP/planted.$kind"
    got=$(told "$CHECK_TMP/planted.$kind" | grep -cvxF -f "$CHECK_TMP/run" || true)
    if [ "$got" = "$found" ]; then ok "planted: $text"; else not_ok "planted: $got lines, not $found, in: $text"; fi
done <<'ROWS'
md|1|text\n```sh\nkubectl delete secret demo\n```\n
md|1|then `kubectl get pods` says so\n
md|1|```sh run\nsudo kubectl get pods | wc\n```\n
md|0|kubectl and others, `kubectl`, and by hand\n```\n  kubectl          etcd\n```\n
7|1|.Bd -literal\nx | kubectl replace -f -\n.Ed\n
7|1|.Ic kubectl get pods\n
7|0|With kubectl one sees it.\n
yaml|1|# kubectl get pods\nkind: Pod\n
c|1|    printf("x"\n           "#   kubectl get pods\\n"\n
c|1|    puts("kubectl get pods");\n
ROWS
check_end
