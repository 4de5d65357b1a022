#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What conf/ hands to operators is true: the example configuration loads, also with every comment
# made a setting, and names every key that there is; the units verify and are as closed as we say;
# the manifest, the EncryptionConfiguration and the alert rules fit the daemon.
. "$(dirname "$0")/lib/check.sh"
check conf
build=${KMSBRIDGE_BUILD:-build}
ctl=$build/tools/kmsbridgectl
python=/usr/bin/python3 # Debian's, which has Debian's yaml

# --- the example configuration -------------------------------------------------------------------

# What they name is there, with rights that no clone's umask can spoil, as far as nobody is asked.
etc=$CHECK_TMP/etc
mkdir -m 0755 "$etc"
(umask 077 && for name in pin vault-token vault-secret-id vault-wrapped-secret-id vault-client.key alibaba-secret alibaba.ini \
    aliyun.json token vault; do
    echo 0000-planted >"$etc/$name"
done)
for name in vault-ca.pem vault-client.pem kms-instance-ca.pem proxy-ca.pem; do
    (umask 022 && echo planted >"$etc/$name")
done
loads() { # file
    sed -E "s#(file:|[ ])(/etc/kmsbridge|/var/run/secrets[a-z0-9./-]*)/([^/ ]+)( .*)?\$#\1$etc/\3\4#" "$1" >"$CHECK_TMP/load.yaml"
    chmod 0600 "$CHECK_TMP/load.yaml"
    "$ctl" config check --config "$CHECK_TMP/load.yaml" >"$CHECK_TMP/out" 2>&1
}

# file: with its commented-out settings switched on
switched_on() { sed -E 's/^( +)# ([a-z_]+: )/\1\2/' "$1"; }

all_settings() { # the example with its commented-out settings switched on
    # a setting behind "# ", or a whole section whose lines begin with it
    sed -E -e 's/^( +)# ([a-z_]+: )/\1\2/' -e 's/^# ( *(- )?[a-z_]+:( .*)?)$/\1/' \
        -e 's/^# ( +- \{.*)$/\1/' conf/kmsbridge.yaml
}

if [ -x "$ctl" ]; then
    if loads conf/kmsbridge.yaml; then ok "the example loads"; else
        not_ok "the example does not load"
        cat "$CHECK_TMP/out"
    fi
    all_settings >"$CHECK_TMP/all.yaml"
    if loads "$CHECK_TMP/all.yaml"; then ok "the example with every setting loads"; else
        not_ok "the example with every setting does not load"
        cat "$CHECK_TMP/out"
    fi
    sed 's/^  socket:/  sockte:/' conf/kmsbridge.yaml >"$CHECK_TMP/planted.yaml"
    if loads "$CHECK_TMP/planted.yaml"; then not_ok "planted: took a misspelt key"; else ok planted; fi

    loads conf/kmsbridge.yaml || true
    "$ctl" encryption-config --config "$CHECK_TMP/load.yaml" >"$CHECK_TMP/enc.yaml" 2>&1 || true
    if "$python" - conf/kubernetes/encryption-config.yaml "$CHECK_TMP/enc.yaml" <<'PY'; then
import sys, yaml
sys.exit(yaml.safe_load(open(sys.argv[1])) != yaml.safe_load(open(sys.argv[2])))
PY
        ok "encryption-config.yaml is what kmsbridgectl prints"
    else
        not_ok "encryption-config.yaml is not what kmsbridgectl prints:"
        cat "$CHECK_TMP/enc.yaml"
    fi
else
    not_ok "$ctl is not built"
fi

schema_keys >"$CHECK_TMP/keys"
all_settings | sed -nE 's/^[ -]*([a-z_]+):.*/\1/p' | sort -u >"$CHECK_TMP/shown"
[ -s "$CHECK_TMP/keys" ] || not_ok "found no keys in the schema"
while IFS= read -r key; do
    if grep -qx "$key" "$CHECK_TMP/shown"; then ok "example shows $key"; else not_ok "example lacks $key"; fi
done <"$CHECK_TMP/keys"

# --- an example for each way to a key service ----------------------------------------------------

for file in conf/vault/vault-*.yaml conf/alibaba/alibaba-*.yaml; do
    switched_on "$file" >"$CHECK_TMP/on.yaml"
    for what in "$file" "$CHECK_TMP/on.yaml"; do
        if loads "$what"; then ok "$file loads"; else not_ok "$file does not load: $(tail -n 3 "$CHECK_TMP/out")"; fi
    done
    sed -E 's/^( +)(method|credentials): .*/\1\2: planted/' "$file" >"$CHECK_TMP/on.yaml"
    if loads "$CHECK_TMP/on.yaml"; then not_ok "planted: $file loads with no such method"; else ok planted; fi
    if [ "$(grep -c '^ *# ' "$file")" -ge 4 ]; then ok "$file is commented"; else not_ok "$file has no comments"; fi
done
# ... and none is forgotten: the methods and sources that the code knows
{
    sed -nE '/^static const struct method \{/,/^\};/s/\{"([a-z]+)", (NOT|MAY|MUST)/\n=\1\n/gp' backend/vault_conf.c |
        sed -n 's/^=/vault method: /p'
    sed -nE 's/^ *\{"([a-z_]+)", (from_|kms_ali_from_).*/alibaba credentials: \1/p' backend/alibaba_creds.c
} >"$CHECK_TMP/ways"
while read -r service way; do
    # auto is no source, but all of them
    [ "$way" != 'credentials: auto' ] || continue
    if grep -qE "^ +$way\$" conf/"$service/$service"-*.yaml; then ok "$service: $way"; else not_ok "no example in conf/$service for $way"; fi
done <"$CHECK_TMP/ways"
if [ "$(grep -c vault "$CHECK_TMP/ways")" -ge 5 ] && [ "$(grep -c alibaba "$CHECK_TMP/ways")" -ge 7 ]; then ok 'the ways are read'; else
    not_ok "found too few ways: $(tr '\n' ',' <"$CHECK_TMP/ways")"
fi

# --- systemd -------------------------------------------------------------------------------------

units=$CHECK_TMP/units
mkdir "$units"
cp conf/systemd/kmsbridge-kms.socket conf/systemd/kmsbridge-agent.socket "$units"
sed 's|@sbindir@/kmsbridged|/bin/true|' conf/systemd/kmsbridged.service.in >"$units/kmsbridged.service"
verifies() { # systemd-analyze only warns about what it does not know, so any word of it counts
    (cd "$1" && systemd-analyze verify --man=no ./kmsbridged.service ./kmsbridge-*.socket) >"$CHECK_TMP/out" 2>&1 &&
        ! [ -s "$CHECK_TMP/out" ]
}
if command -v systemd-analyze >/dev/null 2>&1; then
    if verifies "$units"; then ok "units verify"; else
        not_ok "units do not verify"
        cat "$CHECK_TMP/out"
    fi
    if systemd-analyze security --offline=true --threshold=20 "$units/kmsbridged.service" >"$CHECK_TMP/out" 2>&1; then
        ok "exposure level: $(tail -n 1 "$CHECK_TMP/out")"
    else
        not_ok "the service is more exposed than 2.0: $(tail -n 1 "$CHECK_TMP/out")"
    fi
    cp -r "$units" "$CHECK_TMP/planted"
    sed -i 's/^ProtectSystem=.*/ProtectSytem=strict/' "$CHECK_TMP/planted/kmsbridged.service"
    if verifies "$CHECK_TMP/planted"; then not_ok "planted: took a misspelt directive"; else ok planted; fi
    # with the drop-in for key services on the network
    mkdir "$units/kmsbridged.service.d"
    cp conf/systemd/kmsbridged-network.conf "$units/kmsbridged.service.d/network.conf"
    if verifies "$units"; then ok "units verify with kmsbridged-network.conf"; else
        not_ok "units do not verify with kmsbridged-network.conf"
        cat "$CHECK_TMP/out"
    fi
    sed -i 's/^IPAddressAllow=/IPAdressAllow=/' "$units/kmsbridged.service.d/network.conf"
    if verifies "$units"; then not_ok "planted: took a misspelt directive in the drop-in"; else ok planted; fi
    for file in sysusers tmpfiles; do
        if "systemd-$file" --cat-config "$PWD/conf/systemd/kmsbridge.$file.conf" >"$CHECK_TMP/out" 2>&1; then
            ok "$file"
        else
            not_ok "$file: $(cat "$CHECK_TMP/out")"
        fi
    done
else
    skip "systemd-analyze is not installed: units not verified"
fi

want=$(sed -nE 's/^  socket: *(.*)/\1/p' conf/kmsbridge.yaml)
for file in conf/systemd/kmsbridge-kms.socket conf/kubernetes/encryption-config.yaml; do
    got=$(sed -nE 's/^ *(ListenStream=|endpoint: unix:\/\/)(.*)/\2/p' "$file")
    if [ "$got" = "$want" ]; then ok "$file names $want"; else not_ok "$file names $got, not $want"; fi
done

want=$(sed -nE 's/^#   socket: *(.*)/\1/p' conf/kmsbridge.yaml)
got=$(sed -nE 's/^ListenStream=(.*)/\1/p' conf/systemd/kmsbridge-agent.socket)
if [ "$got" = "$want" ]; then ok "kmsbridge-agent.socket names $want"; else not_ok "kmsbridge-agent.socket names $got, not $want"; fi

# --- Kubernetes and Prometheus -------------------------------------------------------------------

if "$python" -c 'import yaml' 2>/dev/null; then
    if "$python" - conf/kubernetes/kmsbridged-static-pod.yaml conf/kmsbridge.yaml >"$CHECK_TMP/out" 2>&1 <<'PY'; then
import os, sys, yaml
pod, conf = (yaml.safe_load(open(f)) for f in sys.argv[1:])
assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
c, = pod["spec"]["containers"]
mounts = {m["mountPath"]: m["name"] for m in c["volumeMounts"]}
assert set(mounts.values()) == {v["name"] for v in pod["spec"]["volumes"]}, "mounts and volumes differ"
assert os.path.dirname(conf["kms"]["socket"]) in mounts, "the socket's folder is not mounted"
assert c["command"][2] == "/etc/kmsbridge/kmsbridge.yaml"
for probe in ("livenessProbe", "readinessProbe"):
    get = c[probe]["httpGet"]
    assert "%s:%d" % (get["host"], get["port"]) == conf["monitor"]["listen"], probe
assert pod["spec"]["hostNetwork"] and not c["securityContext"]["allowPrivilegeEscalation"]
PY
        ok "static pod fits the configuration"
    else
        not_ok "static pod: $(tail -n 1 "$CHECK_TMP/out")"
    fi
    if "$python" - conf/kubernetes/kmsbridged-agent-daemonset.yaml conf/alibaba/rrsa-trust-policy.json \
        "$CHECK_TMP/agent.yaml" >"$CHECK_TMP/out" 2>&1 <<'PY'; then
import json, os, sys, yaml
kinds = {d["kind"]: d for d in yaml.safe_load_all(open(sys.argv[1]))}
account, pod = kinds["ServiceAccount"]["metadata"], kinds["DaemonSet"]["spec"]["template"]["spec"]
space = kinds["Namespace"]["metadata"]
assert all(d["metadata"]["namespace"] == space["name"] for k, d in kinds.items() if k != "Namespace")
assert space["labels"]["pod-identity.alibabacloud.com/injection"] == "on"
assert pod["serviceAccountName"] == account["name"]
c, = pod["containers"]
mounts = {m["mountPath"]: m["name"] for m in c["volumeMounts"]}
assert set(mounts.values()) == {v["name"] for v in pod["volumes"]}, "mounts and volumes differ"
text = kinds["ConfigMap"]["data"]["kmsbridge.yaml"]
assert os.path.dirname(yaml.safe_load(text)["agent"]["socket"]) in mounts, "the socket's folder is not mounted"
assert c["command"][2] == "/etc/kmsbridge/kmsbridge.yaml"
trust, = json.load(open(sys.argv[2]))["Statement"]
assert trust["Condition"]["StringEquals"]["oidc:sub"] == "system:serviceaccount:%s:%s" % (space["name"], account["name"])
open(sys.argv[3], "w").write(text)
PY
        ok "the DaemonSet fits its configuration and the trust policy"
        if loads "$CHECK_TMP/agent.yaml"; then ok "the DaemonSet's configuration loads"; else
            not_ok "the DaemonSet's configuration does not load"
            cat "$CHECK_TMP/out"
        fi
    else
        not_ok "DaemonSet: $(tail -n 1 "$CHECK_TMP/out")"
    fi
    "$python" - conf/prometheus/kmsbridge-alerts.yaml >"$CHECK_TMP/metrics" <<'PY'
import re, sys, yaml
rules = [r for g in yaml.safe_load(open(sys.argv[1]))["groups"] for r in g["rules"]]
names = {n for r in rules for n in re.findall(r"\bkmsbridge_[a-z_]+", r["expr"])}
print("\n".join(sorted(names)))
PY
    while IFS= read -r metric; do
        base=${metric#kmsbridge_} base=${base%_bucket}
        if grep -qE "\"(kmsbridge_)?${base}[\"{ ]" kmsbridge/*.c; then ok "$metric"; else
            not_ok "the alert rules name $metric, which the daemon has not"
        fi
    done <"$CHECK_TMP/metrics"
    [ -s "$CHECK_TMP/metrics" ] || not_ok "the alert rules name no metric"
else
    skip "python3-yaml is not installed: manifest and alert rules not read"
fi

# --- Alibaba Cloud -------------------------------------------------------------------------------

for file in conf/alibaba/ram-policy*.json; do
    if "$python" -c 'import json, sys
print("\n".join(a for s in json.load(open(sys.argv[1]))["Statement"] for a in s["Action"]))' "$file" >"$CHECK_TMP/actions"; then
        while IFS= read -r action; do
            name="\"${action#kms:}\""
            if grep -qF "${name%\**}" backend/alibaba*.c; then ok "$file: $action"; else
                not_ok "$file allows $action, which nobody calls"
            fi
        done <"$CHECK_TMP/actions"
    else
        not_ok "$file cannot be read"
    fi
done
# what the guides show of files is what the files say
for file in conf/alibaba/ram-policy.json conf/alibaba/rrsa-trust-policy.json; do
    if "$python" -c 'import sys
sys.exit(open(sys.argv[1]).read() not in open("docs/alibaba.md").read())' "$file"; then ok "docs/alibaba.md shows $file"; else
        not_ok "docs/alibaba.md does not show $file as it is"
    fi
done
check_end
