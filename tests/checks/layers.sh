#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Who may include whom, by the include lines alone. Every file of ours must match a row of OURS, and
# every header that is not of the C library must have a row in THEIRS. The check is then turned on
# planted violations, which it must see.
. "$(dirname "$0")/lib/check.sh"
check layers

# file (first matching row counts) | which headers of ours it may include; both extended regexps
OURS='
^common/                              | ^common/
^backend/(p11|rest)/                  | ^common/|^backend/\1/
^backend/registry\.c$                 | ^common/|^backend/[a-z0-9_]+\.h$
^backend/alibaba[a-z0-9_]*\.[ch]$     | ^common/|^backend/(backend|backend_conf|backend_conf_schema)\.h$|^backend/alibaba[a-z0-9_]*\.h$|^backend/rest/
^backend/hsm[a-z0-9_]*\.[ch]$         | ^common/|^backend/(backend|backend_conf)\.h$|^backend/hsm[a-z0-9_]*\.h$|^backend/p11/
^backend/vault[a-z0-9_]*\.[ch]$       | ^common/|^backend/(backend|backend_conf|backend_conf_schema)\.h$|^backend/vault[a-z0-9_]*\.h$|^backend/rest/
^backend/(backend|backend_conf|backend_conf_schema|registry|waist)\.[ch]$ | ^common/|^backend/(backend|backend_conf|backend_conf_schema|[a-z]+_conf_schema|registry|waist)\.h$
^backend/agent[a-z0-9_]*\.[ch]$       | ^common/|^backend/backend\.h$|^backend/agent[a-z0-9_]*(\.pb-c)?\.h$
^kmsbridge/agent[a-z0-9_]*\.[ch]$     | ^common/|^kmsbridge/|^backend/(backend|backend_conf|backend_conf_schema|registry|waist|agent_wire)\.h$
^kmsbridge/                           | ^common/|^kmsbridge/|^backend/(backend|backend_conf|backend_conf_schema|registry|waist)\.h$
^tools/                               | ^common/|^tools/|^backend/(backend|backend_conf|registry|waist)\.h$|^backend/p11/init_token\.h$|^kmsbridge/(conf|kms_v2_client)\.h$
^pkcs11/core/(attrs|attrs_template)\.c$ | ^common/|^pkcs11/(core/(attrs|log)|pkcs11x|kmsbridge-pkcs11)\.h$
^pkcs11/core/soft[a-z0-9_]*\.[ch]$       | ^common/|^pkcs11/(core/(soft[a-z0-9_]*|attrs|mech|log)|pkcs11x|kmsbridge-pkcs11)\.h$
^pkcs11/core/(library|slots?|store[a-z0-9_]*)\.[ch]$ | ^common/|^backend/(agent|backend)\.h$|^pkcs11/(core/[a-z0-9_]+|pkcs11x|kmsbridge-pkcs11)\.h$
^pkcs11/core/                         | ^common/|^backend/backend\.h$|^pkcs11/(core/[a-z0-9_]+|pkcs11x|kmsbridge-pkcs11)\.h$
^pkcs11/                              | ^common/|^pkcs11/
^tests/                               | .
'

# header of a library | the files that may include it; both extended regexps
THEIRS='
^grpc/                                | ^kmsbridge/rpc[a-z0-9_]*\.[ch]$|^kmsbridge/kms_v2_client_call\.c$|^tests/bench/
^protobuf-c/                          | ^kmsbridge/(rpc|kms_v2|agent)[a-z0-9_]*\.[ch]$|^backend/agent[a-z0-9_]*\.[ch]$|^tests/
^microhttpd\.h$                       | ^kmsbridge/monitor\.c$|^tests/
^cyaml/                               | ^common/conf\.[ch]$|conf\.c$|_schema\.h$
^yaml\.h$                              | ^common/yaml\.c$
^sodium(\.h$|/)                       | ^common/(secure|codec)\.c$
^p11-kit/|^pkcs11\.h$                 | ^backend/p11/|^backend/hsm[a-z0-9_]*\.[ch]$|^pkcs11/pkcs11x\.h$|^tests/
^systemd/                             | ^kmsbridge/notify\.c$|^tests/
^openssl/                             | ^backend/(hsm|p11/|rest/(acs3\.c|http_trust\.[ch])$|alibaba(_rsa|_sign)\.c$|alibaba_parts\.h$|vault(_parse)?\.c$)|^pkcs11/core/soft[a-z0-9_]*\.[ch]$|^kmsbridge/(agent_certs|envelope|kms_v2|metrics)\.c$|^tools/verb_kms\.c$|^tests/
^jansson\.h$                          | ^tools/output\.c$|^backend/rest/json\.c$
^curl/                                | ^backend/rest/http_(job|loop)\.c$|^backend/rest/http_parts\.h$|^tests/
^nghttp2/                             | ^tests/
^CUnit/                               | ^tests/
'

# the C library, the kernel, what configure wrote: anybody may
LIBC='^config\.h$|^(sys|linux|netinet|arpa|net|asm|bits)/[a-z0-9_/]+\.h$'
LIBC="$LIBC|^(assert|ctype|dirent|dlfcn|elf|endian|errno|fcntl|fenv|ftw|getopt|glob|grp|inttypes"
LIBC="$LIBC|limits|link|locale|malloc|math|netdb|poll|pthread|pwd|regex|sched|search|semaphore|setjmp"
LIBC="$LIBC|signal|spawn|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn"
LIBC="$LIBC|string|strings|syslog|termios|threads|time|ucontext|uchar|unistd|wchar)\.h$"
LIBC="$LIBC|^sanitizer/[a-z_]+\.h$|^valgrind/[a-z]+\.h$"

# Reads "file:kind:header" lines, prints one line for each violation.
violations() {
    # by the environment: -v would read the backslashes
    OURS=$OURS THEIRS=$THEIRS LIBC=$LIBC awk -F'\t' '
    function trim(s) { gsub(/^[ ]+|[ ]+$/, "", s); return s }
    function rows(text, left, right,    lines, n, i, at, count) {
        n = split(text, lines, "\n"); count = 0
        for (i = 1; i <= n; i++) {
            at = index(lines[i], " | ")
            if (at == 0) continue
            left[++count] = trim(substr(lines[i], 1, at))
            right[count] = trim(substr(lines[i], at + 2))
        }
        return count
    }
    BEGIN {
        our_count = rows(ENVIRON["OURS"], of, may)
        their_count = rows(ENVIRON["THEIRS"], header, who)
        libc = ENVIRON["LIBC"]
    }
    {
        file = $1; kind = $2; inc = $3; row = 0
        for (i = 1; i <= our_count && !row; i++) if (file ~ of[i]) row = i
        if (!row) { print file ": no row in OURS says what it may include"; next }
        if (kind == "q") {
            if (inc == "config.h") next
            allowed = may[row]
            if (allowed ~ /\\1/ && match(file, /\/[a-z0-9]+\//))
                gsub(/\\1/, substr(file, RSTART + 1, RLENGTH - 2), allowed)
            if (inc !~ /\// && file !~ /^tests\//)
                print file ": \"" inc "\" is not written from the root"
            else if (inc !~ allowed) print file ": may not include \"" inc "\""
            next
        }
        if (inc ~ libc) next
        row = 0
        for (i = 1; i <= their_count && !row; i++) if (inc ~ header[i]) row = i
        if (!row) print file ": no row in THEIRS for <" inc ">"
        else if (file !~ who[row]) print file ": may not include <" inc ">"
    }'
}

# Prints file, q (quoted) or a (angle), header, tab-separated, for the C files named on stdin.
includes() {
    while IFS= read -r file; do
        sed -nE -e "s|^[ \t]*#[ \t]*include[ \t]*\"([^\"]+)\".*|${file}\tq\t\1|p" \
            -e "s|^[ \t]*#[ \t]*include[ \t]*<([^>]+)>.*|${file}\ta\t\1|p" "$file"
    done
}

our_files '*.c' '*.h' >"$CHECK_TMP/files"
includes <"$CHECK_TMP/files" >"$CHECK_TMP/includes"
violations <"$CHECK_TMP/includes" >"$CHECK_TMP/violations"
while IFS= read -r file; do
    if grep -F "$file: " "$CHECK_TMP/violations" >"$CHECK_TMP/of-file"; then
        while IFS= read -r line; do not_ok "$line"; done <"$CHECK_TMP/of-file"
    else
        ok "$file"
    fi
done <"$CHECK_TMP/files"

# planted: what must be seen, and what must be let through
while IFS='|' read -r verdict file kind inc; do
    if printf '%s\t%s\t%s\n' "$file" "$kind" "$inc" | violations | grep -q .; then
        seen=bad
    else
        seen=good
    fi
    if [ "$seen" = "$verdict" ]; then
        ok "planted: $file including $inc is $verdict"
    else
        not_ok "planted: $file including $inc was taken for $seen"
    fi
done <<'PLANTED'
bad|common/log.c|q|backend/backend.h
bad|backend/p11/pool.c|q|backend/backend.h
bad|backend/p11/pool.c|q|backend/rest/http.h
good|backend/p11/pool.c|q|backend/p11/pool.h
bad|backend/waist.c|q|backend/hsm.h
bad|backend/waist.c|q|backend/agent.h
bad|backend/agent_ask.c|q|backend/waist.h
good|backend/agent_wire.c|a|protobuf-c/protobuf-c.h
good|kmsbridge/agent.c|q|backend/agent_wire.h
bad|kmsbridge/agent.c|q|backend/agent.h
bad|kmsbridge/keyring.c|q|backend/agent_wire.h
bad|pkcs11/core/store.c|a|protobuf-c/protobuf-c.h
bad|pkcs11/entry.c|q|backend/agent.h
bad|pkcs11/core/store.c|q|backend/waist.h
bad|pkcs11/core/store.c|a|openssl/evp.h
bad|pkcs11/core/soft_key.c|q|backend/agent.h
good|pkcs11/core/soft_key.c|a|openssl/evp.h
good|pkcs11/core/slot.c|q|backend/agent.h
bad|backend/hsm.c|q|kmsbridge/conf.h
good|backend/registry.c|q|backend/hsm.h
good|backend/registry.c|q|backend/alibaba.h
bad|kmsbridge/keyring.c|q|backend/alibaba.h
bad|backend/alibaba.c|q|backend/hsm.h
good|backend/alibaba_call.c|q|backend/rest/acs3.h
bad|backend/alibaba_call.c|a|jansson.h
bad|backend/alibaba_keys.c|a|openssl/evp.h
bad|kmsbridge/keyring.c|q|backend/hsm.h
bad|kmsbridge/keyring.c|q|backend/p11/pool.h
bad|kmsbridge/keyring.c|q|backend/vault.h
bad|backend/vault.c|q|backend/hsm.h
bad|backend/vault.c|q|backend/p11/pool.h
good|backend/vault.c|q|backend/rest/http.h
bad|backend/vault_ask.c|a|jansson.h
bad|kmsbridge/keyring.c|q|tools/output.h
good|kmsbridge/keyring.c|q|backend/waist.h
bad|kmsbridge/keyring.c|q|backend/agent_wire.h
bad|kmsbridge/agent.c|q|backend/agent.h
good|kmsbridge/agent_io.c|q|backend/agent_wire.h
bad|kmsbridge/keyring.c|a|grpc/grpc.h
good|kmsbridge/rpc.c|a|grpc/grpc.h
bad|kmsbridge/rpc.c|a|microhttpd.h
bad|backend/hsm.c|a|sodium.h
bad|tools/kms.c|a|jansson.h
bad|common/log.c|a|systemd/sd-daemon.h
bad|kmsbridge/keyring.c|a|p11-kit/pkcs11.h
bad|kmsbridge/keyring.c|a|openssl/evp.h
bad|kmsbridge/keyring.c|a|curl/curl.h
bad|backend/rest/json.c|a|curl/curl.h
good|backend/rest/http_loop.c|a|curl/curl.h
good|backend/rest/http_trust.c|a|openssl/ssl.h
bad|backend/rest/http_job.c|a|openssl/ssl.h
bad|backend/rest/http.c|a|jansson.h
bad|backend/rest/http.c|q|backend/backend.h
bad|kmsbridge/keyring.c|q|keyring.h
good|pkcs11/core/soft_rsa.c|a|openssl/rsa.h
bad|pkcs11/core/mech.c|a|openssl/evp.h
bad|pkcs11/entry.c|a|openssl/evp.h
bad|backend/agent.c|a|openssl/evp.h
bad|pkcs11/core/soft_op.c|q|pkcs11/core/session.h
bad|pkcs11/core/soft_op.c|q|backend/agent.h
bad|pkcs11/core/make.c|q|backend/agent.h
good|pkcs11/core/store.c|q|backend/agent.h
bad|pkcs11/core/store.c|q|backend/hsm.h
bad|pkcs11/core/store.c|q|backend/p11/pool.h
bad|pkcs11/entry.c|q|backend/backend.h
bad|pkcs11/entry.c|a|p11-kit/pkcs11.h
good|pkcs11/pkcs11x.h|a|p11-kit/pkcs11.h
bad|pkcs11/core/slot.c|a|protobuf-c/protobuf-c.h
bad|backend/agent.c|q|backend/waist.h
bad|kmsbridge/keyring.c|q|pkcs11/core/mech.h
bad|newfolder/x.c|a|stdio.h
good|common/log.c|a|stdio.h
PLANTED

check_end
