#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The contract on openCryptoki 3.8's soft token, in mount and IPC namespaces of its own: its paths,
# its daemon's socket and its shared memory are fixed names. The soft token has no GCM, EC or
# Ed25519: this is where AES-CBC with HMAC meets a token that needs it.
set -eu
contract=${KMS_CONTRACT:-./tests/contract/contract}

skip() {
    echo "skipped: $1"
    echo "opencryptoki: 0 passed, 0 failed, 1 skipped"
    exit 77
}

if [ "${1:-}" != inside ]; then
    for need in pkcsslotd pkcsconf unshare; do
        command -v "$need" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$need" >/dev/null ||
            skip "$need is missing (opencryptoki, util-linux)"
    done
    [ "$(id -u)" -eq 0 ] || skip "pkcsslotd and namespaces need root"
    getent group pkcs11 >/dev/null || skip "there is no group pkcs11"
    unshare -m -i true 2>/dev/null || skip "unshare -m -i is not permitted here"
    exec unshare -m -i "$BASH" "$0" inside
fi

PATH=$PATH:/usr/sbin:/sbin
module=${KMS_OPENCRYPTOKI:-$(find /usr/lib /usr/lib64 -name 'libopencryptoki.so.0' 2>/dev/null |
    head -n 1)}
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/tokens /var/lock/opencryptoki /var/log/opencryptoki
mount -t tmpfs tmpfs /var/lib/opencryptoki
mount -t tmpfs tmpfs /var/lock/opencryptoki
mount -t tmpfs tmpfs /etc/opencryptoki
mkdir -p /var/lib/opencryptoki/swtok/TOK_OBJ /var/lock/opencryptoki/swtok
chmod -R 770 /var/lib/opencryptoki/swtok /var/lock/opencryptoki/swtok
chgrp -R pkcs11 /var/lib/opencryptoki /var/lock/opencryptoki
printf 'version opencryptoki-3.1\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\n' \
    >/etc/opencryptoki/opencryptoki.conf

pkcsslotd -f >/run/slotd.log 2>&1 &
slotd=$!
trap 'kill $slotd' EXIT
for _ in $(seq 50); do
    pkcsconf -t >/run/conf.log 2>&1 && break
    sleep 0.1
done
{
    printf 'octok\n' | pkcsconf -I -c 3 -S 87654321
    pkcsconf -P -c 3 -S 87654321 -n 12345678
    pkcsconf -u -c 3 -S 12345678 -n 1234567
    pkcsconf -p -c 3 -U 1234567 -n 12345
} >>/run/conf.log 2>&1 || {
    cat /run/slotd.log /run/conf.log
    echo "opencryptoki: 0 passed, 1 failed, 0 skipped"
    exit 1
}

export KMS_TEST_MODULE=$module KMS_TEST_TOKEN=octok KMS_TEST_PIN=12345
# bad-padding: it believes the padding's length and reads beyond its buffer, which ASan ends
export KMS_TEST_LACKS="aes-gcm hmac-sha224 ec eddsa token2 bad-padding aes-gcm-data aes-ctr aes-ctr-data aes-key-wrap
 aes-key-wrap-data aes-key-wrap-pad aes-key-wrap-pad-data pss-sha224 SHA224
 rsa-pkcs1-unwrap rsa-raw-unwrap rsa-oaep-sha1-unwrap rsa-oaep-sha1-label-unwrap
 rsa-oaep-l-sha256-unwrap rsa-oaep-l-sha256-label-unwrap rsa-oaep-l-sha384-label-unwrap
 rsa-oaep-l-sha512-label-unwrap"
# its own leaks are many, and its code is unloaded by the time they are told
ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" "$contract" opencryptoki
