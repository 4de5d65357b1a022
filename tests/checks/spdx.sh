#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every source, script and build fragment that a person wrote says its licence in its first lines.
. "$(dirname "$0")/lib/check.sh"
check spdx

says_licence() {
    head -n 5 "$1" | grep -q 'SPDX-License-Identifier: Apache-2\.0$\|SPDX-License-Identifier: Apache-2\.0 \*/$'
}

our_files '*.c' '*.h' '*.sh' '*.go' '*.py' '*.proto' '.ci/run' >"$CHECK_TMP/files"
while IFS= read -r file; do
    if says_licence "$file"; then ok "$file"; else not_ok "$file: no SPDX-License-Identifier"; fi
done <"$CHECK_TMP/files"

printf 'int x;\n' >"$CHECK_TMP/planted.c"
if says_licence "$CHECK_TMP/planted.c"; then not_ok "planted: took a file without"; else ok planted; fi
check_end
