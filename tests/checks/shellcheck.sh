#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# No shell script of ours gets a remark from shellcheck.
. "$(dirname "$0")/lib/check.sh"
check shellcheck
need shellcheck

clean() {
    shellcheck --external-sources --source-path=SCRIPTDIR "$1" >"$CHECK_TMP/out" 2>&1
}

our_files >"$CHECK_TMP/all"
while IFS= read -r file; do
    case $file in
    *.sh) ;;
    *) head -n 1 "$file" | tr -d '\0' | grep -qE '^#! ?/(usr/)?bin/(env )?(ba)?sh' || continue ;;
    esac
    if clean "$file"; then
        ok "$file"
    else
        not_ok "$file"
        head -n 20 "$CHECK_TMP/out"
    fi
done <"$CHECK_TMP/all"

# shellcheck disable=SC2016 # written as it stands
printf '#!/bin/sh\nrm -rf $1/*\n' >"$CHECK_TMP/planted.sh"
if clean "$CHECK_TMP/planted.sh"; then not_ok "planted: took an unquoted variable"; else ok planted; fi
check_end
