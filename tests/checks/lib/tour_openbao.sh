# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # what fresh-debian.sh and chroot.sh set
# docs/openbao.md as it stands there, under the systemd that fresh-debian.sh has booted: an OpenBao on
# an address that is no loopback one, and kmsbridged as its unit and the document's drop-in have it.
# Sourced by fresh-debian.sh. What docs/alibaba.md says of systemd must be the same commands.

openbao_address=10.77.0.1 # the drop-in lets the daemon out to 10.0.0.0/8

# DOCUMENT TEXT: the one block of shell that has TEXT in it, to stdout
guide_block() {
    awk -v text="$2" '
        /^```sh( run)?$/ { inside = 1; block = ""; has = 0; next }
        /^```/ { if (inside && has) { printf "%s", block; found++ } inside = 0; next }
        inside { block = block $0 "\n"; if (index($0, text)) has = 1 }
        END { exit found == 1 ? 0 : 1 }' "$1"
}

openbao_block() { # ROOT WHAT TEXT [SED]: that block of docs/openbao.md runs in the booted system
    if guide_block docs/openbao.md "$3" | sed "${4-}" >"$1/root/block"; then
        expect "openbao.md: $2" bash -euxc '. /root/openbao.env; . /root/block'
    else
        not_ok "tour: openbao.md has no block, or more than one, with: $3"
    fi
}

# ROOT: the server's binary to it, and a certificate of the server's to $CHECK_TMP; false: it is not to
# be had. What openbao.sh sets is not for who calls us.
openbao_fetch() {
    local root=$1 top build cache requirements tls bao bao_pid tmp=$CHECK_TMP
    # shellcheck source=../../services/openbao.sh
    . tests/services/openbao.sh
    command -v ip >/dev/null || { echo 'there is no ip (iproute2)' && return 1; }
    bao_fetch || { tail -n 2 "$tmp/fetch.log" && return 1; }
    install -m 755 "$bao" "$root/usr/local/bin/bao"
    authority
    certify server "IP:$openbao_address"
}

# ROOT: a server as one on the network would be
openbao_start() {
    local root=$1 folder=$1/root/openbao answer tmp=$CHECK_TMP
    mkdir -p "$folder/store" || return 1
    cp "$tmp/server.pem" "$tmp/server.key" "$folder/"
    install -m 644 "$tmp/ca.pem" "$root/etc/kmsbridge/vault-ca.pem"
    cat >"$folder/bao.hcl" <<HCL
storage "raft" {
  path = "/root/openbao/store"
  node_id = "one"
}
listener "tcp" {
  address = "$openbao_address:8200"
  cluster_address = "$openbao_address:8201"
  tls_cert_file = "/root/openbao/server.pem"
  tls_key_file = "/root/openbao/server.key"
}
api_addr = "https://$openbao_address:8200"
cluster_addr = "https://$openbao_address:8201"
disable_mlock = true
HCL
    # what the document's first block sets, with another address
    cat >"$root/root/openbao.env" <<ENV
export BAO_ADDR=https://$openbao_address:8200 BAO_CACERT=/etc/kmsbridge/vault-ca.pem
export CONF=/etc/kmsbridge RUN=/run/kmsbridge EXAMPLES=/usr/local/share/doc/kmsbridge/examples
ENV
    nsenter --target "$booted" --net ip address add "$openbao_address/32" dev lo || return 1
    in_booted systemd-run --quiet --unit=openbao bao server -config=/root/openbao/bao.hcl -log-level=error
    answer=$(in_booted bash -euc '. /root/openbao.env
        for try in {1..100}; do
            bao operator init -key-shares=1 -key-threshold=1 -format=json 2>/root/openbao/said && exit 0
            sleep 0.1
        done
        cat /root/openbao/said >&2
        exit 1' | tr -d ' \n') || return 1
    echo "export BAO_TOKEN=$(field root_token <<<"$answer")" >>"$root/root/openbao.env"
    in_booted bash -euc ". /root/openbao.env
        bao operator unseal '$(field unseal_keys_b64 <<<"$answer")' >/dev/null
        for try in {1..100}; do
            bao secrets list >/root/openbao/said 2>&1 && exit 0
            sleep 0.1
        done
        cat /root/openbao/said
        exit 1"
}

tour_openbao() { # ROOT, booted, in which the README's tour has been
    local root=$1
    in_booted sh -c 'systemctl stop kmsbridged.service kmsbridge-kms.socket
        rm -r /run/systemd/system/kmsbridged.service.d; systemctl daemon-reload'
    if ! openbao_fetch "$root"; then
        if [ "${KMSBRIDGE_REQUIRE_ALL-}" = 1 ]; then not_ok 'tour: no OpenBao'; else skip 'tour: no OpenBao'; fi
        return 0
    fi
    if ! openbao_start "$root"; then
        not_ok 'tour: OpenBao does not start'
        return 0
    fi
    openbao_block "$root" 'the engine' 'bao secrets enable transit'
    openbao_block "$root" 'a login' 'bao auth enable approle'
    openbao_block "$root" 'whose the secret id is' 'chown root:kmsbridge'
    # shellcheck disable=SC2016 # as it stands there
    openbao_block "$root" 'the configuration' 'cat >"$CONF/kmsbridge.yaml"'
    in_booted systemctl start --no-block kmsbridge-kms.socket kmsbridged.service
    # shellcheck disable=SC2016 # for the booted shell
    expect 'the unit alone reaches no network' bash -c '
        for try in {1..100}; do
            journalctl -b -u kmsbridged -o cat --since "$(systemctl show -P InactiveExitTimestamp kmsbridged)" |
                grep "KEK is not usable: .*//10.77.0.1:8200: no " && exit 0
            sleep 0.1
        done
        exit 1'
    in_booted systemctl stop kmsbridged.service kmsbridge-kms.socket
    openbao_block "$root" 'the start' 'systemctl enable --now'
    expect 'status over OpenBao' sh -c 'kmsbridgectl kms status --timeout 10s | grep "^key_id  *kbv1-"'
    openbao_block "$root" 'a round trip' 'head -c 32 /dev/urandom'
    # shellcheck disable=SC2016 # as it stands there
    openbao_block "$root" 'rotation' 'transit/keys/kmsbridge-kek/rotate' \
        's|grep keyring: "$RUN/log".*|journalctl -b -u kmsbridged -o cat \| grep "keyring: active key.*previous=kbv1-"|'
    expect_text 'the service is active over OpenBao' active systemctl is-active kmsbridged.service
    if guide_block docs/alibaba.md 'systemctl enable --now' |
        cmp -s - <(guide_block docs/openbao.md 'systemctl enable --now'); then
        ok 'tour: alibaba.md starts it by the same commands'
    else
        not_ok 'tour: alibaba.md starts it by other commands than openbao.md, which nobody has run'
    fi
}
