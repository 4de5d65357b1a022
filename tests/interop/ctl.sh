#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kmsbridgectl from outside: a first run on a private SoftHSM, what it refuses, what it prints, and
# Status, Encrypt and Decrypt against a real kmsbridged. Runs in the build folder ($KMSBRIDGE_BUILD).
# shellcheck disable=SC2016,SC2034,SC2317 # check() evaluates its words later, functions by name
set -u
build=${KMSBRIDGE_BUILD:-.}
[ -x "$build/tools/kmsbridgectl" ] || build=build
build=$(cd "$build" && pwd)
ctl=$build/tools/kmsbridgectl
daemon=$build/kmsbridge/kmsbridged
python=/usr/bin/python3 # Debian's, which has Debian's yaml
passed=0 failed=0 skipped=0

end() {
    echo "ctl: $passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ] || exit 1
    [ "$skipped" -eq 0 ] || exit 77
    exit 0
}
for module in /usr/lib/softhsm/libsofthsm2.so "$python"; do
    [ -e "$module" ] || { echo "SKIP: there is no $module" && skipped=1 && end; }
done

tmp=$(mktemp -d "${TMPDIR:-/tmp}/kmsbridge-ctl.XXXXXX")
pids=()
clean_up() {
    [ "${#pids[@]}" -eq 0 ] || kill "${pids[@]}" 2>/dev/null
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
unset SOFTHSM2_CONF CREDENTIALS_DIRECTORY

# --- checking ------------------------------------------------------------------------------------

check() { # NAME COMMAND...: passes when the command does
    local name=$1
    shift
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL: $name: $*"
        echo "  exit code ${code-}, stdout: $(head -c 400 "$tmp/out"), stderr: $(head -c 600 "$tmp/err")"
    fi
}
run() { # runs kmsbridgectl: exit code to $code, output to $tmp/out and $tmp/err
    "$ctl" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    code=$?
}
feed() { # FILE, arguments: the same with standard input
    local input=$1
    shift
    "$ctl" "$@" >"$tmp/out" 2>"$tmp/err" <"$input"
    code=$?
}
ends() { [ "$code" -eq "$1" ]; }
out_has() { grep -qF -e "$1" "$tmp/out"; }
err_has() { grep -qF -e "$1" "$tmp/err"; }
err_lacks() { ! grep -qF -e "$1" "$tmp/err"; }
silent() { [ ! -s "$tmp/err" ]; }
no_output() { [ ! -s "$tmp/out" ]; }
spoken() { # every line of an error is a sentence of ours
    [ -s "$tmp/err" ] && ! grep -qv '^kmsbridgectl: ' "$tmp/err"
}
json() { # FILE EXPRESSION: a Python expression over d, the file's JSON
    "$python" -c 'import json,sys; d=json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$@"
}
yaml() {
    "$python" -c 'import yaml,sys; d=yaml.safe_load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$@"
}
mode_is() { [ "$(stat -c %a "$1")" = "$2" ]; }
# everything below a folder, with content and mode, in one word
state_of() { (cd "$1" && find . -printf '%p %m %y\n' -type f -exec sha256sum {} + | sort | sha256sum); }
same_state() { [ "$(state_of "$1")" = "$2" ]; }
refused() { # CODE TEXT: exit code, our sentence with the text, nothing on stdout
    ends "$1" && spoken && no_output && err_has "$2"
}

# --- the command line ----------------------------------------------------------------------------

run --help
for verb in init 'keys list' 'keys create' 'keys rotate' 'keys rewrap' 'kms status' 'kms encrypt' 'kms decrypt' \
    encryption-config 'config check'; do
    check "--help lists $verb" grep -qE "^  $verb  " "$tmp/out"
done
for verb in init 'keys list' 'keys create' 'keys rotate' 'keys rewrap' 'kms status' 'kms encrypt' 'kms decrypt' \
    encryption-config 'config check'; do
    # shellcheck disable=SC2086 # a verb may be two words
    run $verb --help
    check "$verb --help" ends 0
    check "$verb --help names it" out_has "Usage: kmsbridgectl $verb "
    check "$verb --help has --json" out_has ' --json '
done
run --version
check 'version' grep -qE '^kmsbridgectl [0-9]+\.[0-9]+' "$tmp/out"
set -f # "*" is a word here
while IFS='|' read -r name text arguments; do
    # shellcheck disable=SC2086 # words
    run $arguments
    check "usage: $name" refused 2 "$text"
    # shellcheck disable=SC2086
    run --json $arguments
    check "usage as JSON: $name" ends 2
    check "usage as JSON: $name" json "$tmp/err" 'd["error"]["class"] == "invalid" and d["error"]["next"]'
done <<'ROWS'
no verb|a verb is missing|
no such verb|frobnicate is no verb|frobnicate
half a verb|keys is no verb|keys
no such option|--frob|keys list --frob
value missing|--config needs a value|keys list --config
option of another verb|does not take --bits|keys list --bits 256
no such type|"des" is no key type|keys create --type des
no key size|"12x" is no key size|keys create --bits 12x
no time|"3" is no time|kms status --timeout 3
zero time|"0s" is no time|encryption-config --timeout 0s
overlap|overlap|encryption-config --resources secrets,*.*
not encryptable|kube-apiserver|encryption-config --resources *
upper case|kube-apiserver|encryption-config --resources Secrets
empty item|kube-apiserver|encryption-config --resources secrets,
alias|kube-apiserver|encryption-config --resources events.events.k8s.io
provider with a colon|provider's name|encryption-config --socket /s --name a:b
relative socket|neither an absolute path|encryption-config --socket s --name a
softhsm folder for another module|is not SoftHSM|init --private-softhsm --module /lib/other.so
monitor for everybody|monitor.listen|init --monitor 0.0.0.0:80
ROWS
set +f

# --- init ----------------------------------------------------------------------------------------

home=$tmp/home
sock=$tmp/kms.sock
run init --dir "$home" --private-softhsm --token 'ctl test' --key ctl-kek --socket "$sock" \
    --monitor "unix:$tmp/monitor.sock"
check 'init' ends 0
check 'init is silent on stderr' silent
check 'init says what to export' out_has "export SOFTHSM2_CONF=$home/softhsm2.conf"
check 'init says how to check' out_has 'kmsbridged --check'
check 'configuration 0640' mode_is "$home/kmsbridge.yaml" 640
check 'PIN 0600' mode_is "$home/pin" 600
check 'SO PIN 0600' mode_is "$home/so-pin" 600
check 'tokens 0700' mode_is "$home/tokens" 700
check 'PINs differ' eval '! cmp -s "$home/pin" "$home/so-pin"'
check 'a PIN has 32 characters' eval '[ "$(wc -c <"$home/pin")" -eq 32 ]'
check 'no PIN is printed' eval '! grep -qF -e "$(cat "$home/pin")" -e "$(cat "$home/so-pin")" "$tmp/out" "$tmp/err"'
check 'no PIN is in the configuration' eval '! grep -qF -e "$(cat "$home/pin")" "$home/kmsbridge.yaml"'
check 'the configuration is YAML' yaml "$home/kmsbridge.yaml" 'd["kms"]["key"] == "ctl-kek" and d["monitor"]'
export SOFTHSM2_CONF=$home/softhsm2.conf
conf=$home/kmsbridge.yaml

before=$(state_of "$home")
run init --dir "$home" --private-softhsm --token other
check 'init twice' refused 6 "$home/kmsbridge.yaml exists already"
check 'init twice changes nothing' same_state "$home" "$before"
check 'init twice says what to do' err_has 'Give another --dir'
for file in pin so-pin kmsbridge.yaml softhsm2.conf tokens; do
    mkdir -p "$tmp/one/$file"
    before_one=$(state_of "$tmp/one")
    run init --dir "$tmp/one" --private-softhsm --json
    check "init beside $file" ends 6
    check "init beside $file" json "$tmp/err" 'd["error"]["class"] == "exists"'
    check "init beside $file changes nothing" same_state "$tmp/one" "$before_one"
    rmdir "$tmp/one/$file"
done
run init --dir "$tmp/second" --token 'ctl test'
check 'init with the same token' refused 6 'a token with the label "ctl test" exists already'
check 'init with the same token makes no folder' eval '[ ! -e "$tmp/second" ]'
check 'init with the same token leaves the tokens' same_state "$home" "$before"
run init --dir "$tmp/second" --module "$tmp/none.so"
check 'init without a module' refused 1 "$tmp/none.so"
check 'init without a module makes no folder' eval '[ ! -e "$tmp/second" ]'
run init --dir "$tmp/second" --token "$(printf 'x%.0s' {1..33})"
check 'init with a long label' refused 2 '1 to 32 bytes'
run init --dir /proc/self/none
check 'init where no folder can be' eval 'spoken && no_output && [ "$code" -ne 0 ]'
SOFTHSM2_CONF=$tmp/none.conf run init --dir "$tmp/second"
check 'init with a module that does not start' eval 'spoken && no_output && [ "$code" -eq 1 ]'
check 'init with a module that does not start makes no folder' eval '[ ! -e "$tmp/second" ]'

# a fault in each call of the way: before there is a token all is taken back, later all stays
shim=$build/tests/fakes/.libs/p11-shim.so
if [ -e "$shim" ]; then
    ln -s "$shim" "$tmp/softhsm-shim.so"
    export KMSBRIDGE_SHIM_CONTROL=$tmp/shim.control
    faulty() { # FAULT: init into $tmp/faulty
        rm -rf "$tmp/faulty"
        echo "fail=$1" >"$tmp/shim.control"
        SOFTHSM2_CONF='' run init --dir "$tmp/faulty" --private-softhsm --module "$tmp/softhsm-shim.so" \
            --token faulty --key faulty-kek --socket "$sock"
    }
    files_are() { # DIR NAMES
        [ "$(cd "$1" && echo *)" = "$2" ]
    }
    token_there() {
        SOFTHSM2_CONF=$tmp/faulty/softhsm2.conf softhsm2-util --show-slots | grep -q 'Label: *faulty '
    }
    for call in C_GetSlotList C_GetTokenInfo C_InitToken; do
        faulty "CKR_DEVICE_ERROR:$call"
        check "fault in $call" refused 1 "$call failed with CKR_DEVICE_ERROR"
        check "fault in $call: nothing was changed" err_has 'nothing was changed'
        check "fault in $call: nothing is there" eval '[ ! -e "$tmp/faulty" ]'
    done
    for call in C_OpenSession C_Login C_InitPIN; do
        faulty "CKR_DEVICE_ERROR:$call"
        check "fault in $call" refused 1 "$call"
        check "fault in $call: what is done" err_has "done so far in $tmp/faulty: the PIN files, the token. To go on: set the user PIN"
        check "fault in $call: the PINs stay" files_are "$tmp/faulty" 'pin so-pin softhsm2.conf tokens'
        check "fault in $call: the token is there" token_there
    done
    faulty CKR_DEVICE_ERROR:C_GenerateKey
    check 'fault in C_GenerateKey' refused 1 CKR_DEVICE_ERROR
    check 'fault in C_GenerateKey: what is done' err_has 'the PIN files, the token, its user PIN, the configuration. To go on:'
    check 'fault in C_GenerateKey: the files stay' files_are "$tmp/faulty" 'kmsbridge.yaml pin so-pin softhsm2.conf tokens'
    : >"$tmp/shim.control"
    SOFTHSM2_CONF=$tmp/faulty/softhsm2.conf run keys create --config "$tmp/faulty/kmsbridge.yaml"
    check 'to go on goes on' grep -qE '  faulty-kek +[0-9a-f]+ +aes +256 .* active$' "$tmp/out"
    unset KMSBRIDGE_SHIM_CONTROL
else
    skipped=$((skipped + 1))
    echo 'SKIP: the fault-injecting module is not built (make check builds it)'
fi

run init --dir "$tmp/deep/er/home" --token 'ctl deep' --private-softhsm
check 'init makes the folders above' ends 0
check 'init makes the folders above as mkdir -p does' mode_is "$tmp/deep" 755

# --- config check --------------------------------------------------------------------------------

run config check --config "$conf"
check 'config check' ends 0
check 'config check shows the key' grep -qE '^kms\.key +ctl-kek +ok$' "$tmp/out"
check 'config check shows the PIN reference' grep -qE "^backends\.hsm\.pin +file:$home/pin +ok\$" "$tmp/out"
check 'config check never shows the PIN' eval '! grep -qF -e "$(cat "$home/pin")" "$tmp/out"'
run config check --config "$conf" --json
check 'config check --json' json "$tmp/out" '{"key":"kms.mode","value":"0600","check":"ok"} in d["settings"]'
run config check --config "$tmp/none.yaml"
check 'no configuration' refused 3 "$tmp/none.yaml"
check 'no configuration: what to do' err_has 'kmsbridgectl init'

broken() { # NAME SED-EXPRESSION TEXT...: config check of a changed configuration
    local name=$1 change=$2
    shift 2
    (umask 077 && sed -E "$change" "$conf" >"$tmp/broken.yaml")
    check "broken: $name: is changed" eval '! cmp -s "$conf" "$tmp/broken.yaml"'
    run config check --config "$tmp/broken.yaml"
    check "broken: $name" refused 3 "$tmp/broken.yaml:"
    while [ $# -gt 0 ]; do
        check "broken: $name" err_has "$1"
        shift
    done
}
line_of() { grep -nE "$1" "$conf" | head -n 1 | cut -d: -f1; }
broken 'misspelt key' 's/^  socket:/  sockte:/' ":$(line_of '^  socket:'):" sockte
broken 'missing key' '/^  key:/d' key
broken 'bad mode' "s|^  backend: hsm|&\\n  mode: \"0999\"|" ":$(($(line_of '^  backend:') + 1)):" kms.mode 0999
broken 'bad duration' "s|^  backend: hsm|&\\n  probe_interval: 30|" kms.probe_interval
broken 'no value' 's/^  key:.*/  key:/' ":$(line_of '^  key:'):" kms.key
broken 'no such backend' 's/^  backend: hsm/  backend: other/' kms.backend other
broken 'no such type' 's/^    type: hsm/    type: cloud/' backends cloud
broken 'a PIN instead of a reference' 's/^      pin: .*/      pin: 55555-planted/' hsm.pin
check 'a PIN in the configuration is not repeated' err_lacks 55555-planted
broken 'no YAML' 's/^kms:/kms: [/' "$tmp/broken.yaml:"
run config check --config "$tmp/broken.yaml" --json
check 'broken as JSON' json "$tmp/err" 'd["error"]["class"] == "invalid" and "broken.yaml:" in d["error"]["text"]'

# an agent only: no kms section
sed '/^kms:/,/^[a-z]/{/^kms:/d;/^ /d}' "$conf" >"$tmp/agent.yaml"
printf 'agent:\n  socket: %s/agent.sock\n' "$tmp" >>"$tmp/agent.yaml"
chmod 600 "$tmp/agent.yaml"
run config check --config "$tmp/agent.yaml"
check 'agent only' ends 0
check 'agent only: its socket' grep -qE "^agent\.socket +$tmp/agent.sock" "$tmp/out"
check 'agent only: no kms' eval '! grep -q "^kms" "$tmp/out"'
run keys list --config "$tmp/agent.yaml"
check 'agent only: keys list' out_has ctl-kek
run keys create --config "$tmp/agent.yaml"
check 'agent only: keys create wants a label' refused 2 --label
run kms status --config "$tmp/agent.yaml"
check 'agent only: kms status' refused 3 'there is no kms section'
run encryption-config --config "$tmp/agent.yaml"
check 'agent only: encryption-config' refused 3 'there is no kms section'

# another service: what to do is said of that one
other() { # type, the settings of it
    (umask 077 && printf 'version: 1\nbackends:\n  - name: far\n    type: %s\n    %s: {%s}\nagent:\n  socket: %s\n' \
        "$1" "$1" "$2" "$tmp/agent.sock" >"$tmp/$1.yaml")
    KMS_TEST_SECRET=x run keys list --config "$tmp/$1.yaml"
    check "$1: nobody there" eval '[ "$code" -ne 0 ]'
}
other vault 'addresses: ["http://127.0.0.1:1"], auth: {method: token, token: "env:KMS_TEST_SECRET"}'
check 'vault: what to do' err_has 'a node of vault.addresses is there'
other alibaba 'endpoint: "http://127.0.0.1:1", credentials: access_key, access_key_id: x, access_key_secret: "env:KMS_TEST_SECRET"'
check 'alibaba: what to do' err_has 'lead to the service from here'

cp "$conf" "$tmp/open.yaml"
chmod 0666 "$tmp/open.yaml"
run config check --config "$tmp/open.yaml"
check 'configuration open to others' refused 3 "$tmp/open.yaml"
chmod 0644 "$home/pin"
run config check --config "$conf"
check 'PIN open to others' ends 3
check 'PIN open to others is named' err_has "$home/pin"
check 'PIN open to others is shown' grep -qE '^backends\.hsm\.pin .* failed$' "$tmp/out"
run config check --config "$conf" --json
check 'PIN open to others as JSON' json "$tmp/out" '"failed" in [s["check"] for s in d["settings"]]'
chmod 0600 "$home/pin"
mv "$home/pin" "$home/pin.away"
run config check --config "$conf"
check 'PIN missing' ends 3
check 'PIN missing is named' err_has "$home/pin"
mv "$home/pin.away" "$home/pin"
(umask 077 && sed -E 's/^      pin: .*/      pin: credential:pin/' "$conf" >"$tmp/credential.yaml")
run config check --config "$tmp/credential.yaml"
check 'credential outside of the service' ends 0
check 'credential is not judged' grep -qE '^backends\.hsm\.pin +credential:pin +only the daemon sees it$' "$tmp/out"
(umask 077 && sed -E 's|^      module: .*|      module: /none/x.so|' "$conf" >"$tmp/module.yaml")
run config check --config "$tmp/module.yaml"
check 'module missing' ends 3
check 'module missing is named' err_has '/none/x.so'

# what key services refer to; none of them is asked
(umask 077 && for file in secret key.pem; do echo planted >"$tmp/$file"; done)
echo planted >"$tmp/ca.pem"
service() { # SETTINGS: of a backend "s", one a line; the rest of the configuration is the same
    (umask 077 && printf 'version: 1\nbackends:\n  - name: s\n%s\nkms: {socket: %s/s.sock, backend: s, key: k}\n' \
        "$1" "$tmp" >"$tmp/service.yaml")
    run config check --config "$tmp/service.yaml"
}
vault() { # AUTH [ADDRESS]
    service "    type: vault
    vault:
      addresses: [${2-https://vault.invalid:8200}]
      ca_file: $tmp/ca.pem
      certificate: $tmp/ca.pem
      key: $tmp/key.pem
      auth: {$1}"
}
alibaba() { # SETTING [ENDPOINT]
    service "    type: alibaba
    alibaba:
      endpoint: ${2-https://kms.invalid}
      ca_file: $tmp/ca.pem
      $1"
}
by_approle="method: approle, role_id: r, secret_id: 'file:$tmp/secret'"
by_jwt="method: jwt, role: r, jwt: 'file:$tmp/secret'"
by_key="access_key_id: i
      access_key_secret: file:$tmp/secret"
vault "$by_approle"
check 'vault' ends 0
check 'vault: where it is' grep -qE '^backends\.s\.addresses +https://vault\.invalid:8200 +ok$' "$tmp/out"
check 'vault: how it logs in' grep -qE '^backends\.s\.auth\.method +approle +ok$' "$tmp/out"
check 'vault: with what' grep -qE "^backends\.s\.auth\.secret_id +file:$tmp/secret +ok\$" "$tmp/out"
alibaba "$by_key"
check 'alibaba' ends 0
check 'alibaba: with what' grep -qE "^backends\.s\.access_key_secret +file:$tmp/secret +ok\$" "$tmp/out"
wrong() { # NAME KEY TEXT: config check names the key and what is wrong with it, and shows it
    check "$1" ends 3
    check "$1" err_has "backends.s.$2: "
    check "$1" err_has "$3"
    check "$1 is shown" grep -qE "^backends\.s\.$2 .* failed\$" "$tmp/out"
}
vault "$by_approle" http://vault.invalid:8200
wrong 'vault: no TLS' type 'must be https:// unless the host is loopback'
alibaba "$by_key" http://kms.invalid
wrong 'alibaba: no TLS' type 'alibaba.endpoint must be https:// unless the host is loopback'
chmod 0644 "$tmp/secret"
vault "$by_approle"
wrong 'vault: a secret id that is open' auth.secret_id "run chmod 0640 $tmp/secret"
vault "$by_jwt"
check 'vault: a JWT that is open' ends 0
alibaba "$by_key"
wrong 'alibaba: a secret that is open' access_key_secret "run chmod 0640 $tmp/secret"
alibaba "profile_file: $tmp/secret"
wrong 'alibaba: a profile that is open' profile_file "run chmod 0640 $tmp/secret"
alibaba "oidc_token_file: $tmp/secret"
check 'alibaba: an OIDC token that is open' ends 0
rm "$tmp/secret"
vault "$by_approle"
wrong 'vault: no secret id' auth.secret_id "cannot open $tmp/secret"
vault "$by_jwt"
wrong 'vault: no JWT' auth.jwt "cannot open $tmp/secret"
alibaba "oidc_token_file: $tmp/secret"
wrong 'alibaba: no OIDC token' oidc_token_file "cannot open $tmp/secret"
[ "$(id -u)" != 0 ] || chown 12345 "$tmp/ca.pem"
vault 'method: cert'
check 'vault: a certificate, whoever owns it' ends 0
chmod 0644 "$tmp/key.pem"
vault 'method: cert'
wrong 'vault: a key that is open' key "run chmod 0640 $tmp/key.pem"
rm "$tmp/ca.pem"
vault 'method: cert'
wrong 'vault: no CA file' ca_file "$tmp/ca.pem: No such file"
check 'vault: no certificate is shown' grep -qE '^backends\.s\.certificate .* failed$' "$tmp/out"
alibaba 'credentials: ecs'
wrong 'alibaba: no CA file' ca_file "$tmp/ca.pem: No such file"

# --- keys ----------------------------------------------------------------------------------------

run keys list --config "$conf" --json
check 'keys list --json' json "$tmp/out" 'len(d["keys"]) == 1'
check 'the KEK' json "$tmp/out" '[k for k in d["keys"] if k["label"] == "ctl-kek" and k["type"] == "aes" and k["bits"] == 256 and k["state"] == "active" and k["seal"] == "aes-gcm" and "encrypt" in k["uses"]]'
first=$("$python" -c 'import json,sys; print(json.load(open(sys.argv[1]))["keys"][0]["key_id"])' "$tmp/out")
run keys create --config "$conf" --type rsa --bits 2048 --label ctl-rsa
check 'keys create rsa' ends 0
check 'keys create rsa shows it' grep -qE '  ctl-rsa +[0-9a-f]+ +rsa +2048 ' "$tmp/out"
run keys create --config "$conf" --type ec --label ctl-ec --json
check 'keys create ec' json "$tmp/out" 'd["keys"][0]["label"] == "ctl-ec" and d["keys"][0]["bits"] == 256 and d["keys"][0]["state"] == ""'
run keys list --config "$conf"
check 'other labels change nothing' grep -qE "^$first +ctl-kek .* active\$" "$tmp/out"
check 'one is active' eval '[ "$(grep -c " active\$" "$tmp/out")" -eq 1 ]'
check 'other labels have no state' eval '[ "$(grep -cE "ctl-(rsa|ec) .* -\$" "$tmp/out")" -eq 2 ]'
run keys rotate --config "$conf" --label ctl-ec --json
check 'keys rotate' json "$tmp/out" 'd["keys"][0]["label"] == "ctl-ec" and d["keys"][0]["type"] == "ec" and d["keys"][0]["bits"] == 256'
run keys list --config "$conf" --json
check 'keys rotate keeps the older key' json "$tmp/out" 'sum(k["label"] == "ctl-ec" for k in d["keys"]) == 2'
run keys rotate --config "$conf" --label ctl-none
check 'keys rotate of no key' eval 'spoken && no_output && [ "$code" -eq 1 ]'
printf 'KMSB\001\001\004\000none' >"$tmp/frame"
run keys rewrap --config "$conf" --in "$tmp/frame"
check 'keys rewrap: the key is gone' refused 1 'none, is not there'
printf 'KMSB\001\001\004\077none' >"$tmp/frame"
run keys rewrap --config "$conf" --in "$tmp/frame"
check 'keys rewrap of half a frame' refused 1 'the frame is cut'
printf 'KMSB\001\001%b%s' "\\$(printf %03o ${#first})\\014" "${first}twelve bytes and what follows it" >"$tmp/frame"
run keys rewrap --config "$conf" --in "$tmp/frame"
check 'keys rewrap: no HSM does it' refused 1 'cannot rewrap'
check 'keys rewrap: what to do then' grep -q 'unwrap it and wrap it again' "$tmp/err"
run keys create --config "$conf" --type aes --bits 100
check 'keys create of an impossible size' eval 'spoken && no_output && [ "$code" -eq 1 ]'
chmod 0600 "$home/pin"
(umask 077 && printf 'wrong-pin' >"$tmp/wrong" && sed -E "s|^      pin: .*|      pin: file:$tmp/wrong|" "$conf" >"$tmp/wrong.yaml")
run keys list --config "$tmp/wrong.yaml"
check 'wrong PIN' refused 5 PIN
check 'wrong PIN is not shown' err_lacks wrong-pin
(umask 077 && sed -E 's|^      token: .*|      token: elsewhere|' "$conf" >"$tmp/token.yaml")
run keys list --config "$tmp/token.yaml"
check 'no such token' refused 1 elsewhere

# --- encryption-config ---------------------------------------------------------------------------

provider='d["resources"][0]["providers"][0]["kms"]'
run encryption-config --config "$conf" --resources secrets,configmaps,deployments.apps
check 'encryption-config' ends 0
cp "$tmp/out" "$tmp/enc.yaml"
check 'kind' yaml "$tmp/enc.yaml" 'd["apiVersion"] == "apiserver.config.k8s.io/v1" and d["kind"] == "EncryptionConfiguration"'
check 'provider' yaml "$tmp/enc.yaml" "$provider == {'apiVersion': 'v2', 'name': 'kmsbridge', 'endpoint': 'unix://$sock', 'timeout': '3s'}"
check 'resources' yaml "$tmp/enc.yaml" 'd["resources"][0]["resources"] == ["secrets", "configmaps", "deployments.apps"]'
check 'identity last' yaml "$tmp/enc.yaml" 'd["resources"][0]["providers"][1:] == [{"identity": {}}]'
run encryption-config --config "$conf" --resources secrets,configmaps,deployments.apps --json
check 'JSON says the same' eval '"$python" -c "import json,yaml,sys; sys.exit(json.load(open(sys.argv[1])) != yaml.safe_load(open(sys.argv[2])))" "$tmp/out" "$tmp/enc.yaml"'
run encryption-config --config "$conf" --name other --timeout 1500ms --socket @kms
check 'options' yaml "$tmp/out" "$provider == {'apiVersion': 'v2', 'name': 'other', 'endpoint': 'unix:///@kms', 'timeout': '1500ms'}"
run encryption-config --socket '/run/a b%#.sock' --name n --config "$tmp/none.yaml"
check 'a URL of an odd path' yaml "$tmp/out" "${provider}['endpoint'] == 'unix:///run/a%20b%25%23.sock'"
run encryption-config --config "$tmp/none.yaml"
check 'encryption-config without a configuration' refused 3 "$tmp/none.yaml"

# --- a daemon that is not there, or is something else --------------------------------------------

head -c 32 /dev/urandom >"$tmp/seed"
run kms status --config "$conf"
check 'no daemon' refused 4 "$sock"
check 'no daemon: what to do' err_has 'see whether kmsbridged runs'
feed "$tmp/seed" kms encrypt --socket "@kmsbridge-ctl-$$-none"
check 'no daemon, abstract' refused 4 "@kmsbridge-ctl-$$-none"
run kms status --socket "$conf" --json
check 'no socket' ends 4
check 'no socket' json "$tmp/err" 'd["error"]["class"] == "unavailable"'
run kms status --socket "/$(printf 'x%.0s' {1..120})"
check 'a name too long' refused 2 'a socket'

fake() { # MODE: a server that is no KMS plugin, on $tmp/fake.sock
    rm -f "$tmp/fake.sock"
    "$python" - "$1" "$tmp/fake.sock" <<'PY' &
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[2])
s.listen(1)
kept = []
while True:
    c = s.accept()[0]
    if sys.argv[1] == "close":
        c.close()
    elif sys.argv[1] == "garbage":
        c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        kept.append(c)
    else:
        kept.append(c)
PY
    fake_pid=$!
    pids+=("$fake_pid")
    for _ in {1..100}; do
        [ ! -S "$tmp/fake.sock" ] || break
        sleep 0.05
    done
}
fake close
run kms status --socket "$tmp/fake.sock"
check 'closed at once' refused 5 'closes our connection'
check 'closed at once: what to do' err_has kms.allow_uids
kill "$fake_pid"
fake silent
started=$(date +%s%N)
run kms status --socket "$tmp/fake.sock" --timeout 300ms
check 'silence' refused 4 'does not answer in time'
check 'silence ends in time' eval '[ $((($(date +%s%N) - started) / 1000000)) -lt 3000 ]'
kill "$fake_pid"
fake garbage
run kms status --socket "$tmp/fake.sock" --timeout 1s
check 'no gRPC' eval 'spoken && no_output && [ "$code" -eq 1 ]'
kill "$fake_pid"

# --- a real daemon -------------------------------------------------------------------------------

start_daemon() { # CONFIGURATION SOCKET
    "$daemon" --config "$1" >"$tmp/daemon.log" 2>&1 </dev/null &
    daemon_pid=$!
    pids+=("$daemon_pid")
    for _ in {1..200}; do
        [ -S "$2" ] && return
        kill -0 "$daemon_pid" 2>/dev/null || break
        sleep 0.05
    done
    echo "kmsbridged does not start: $(tail -n 3 "$tmp/daemon.log")"
}
stop_daemon() {
    kill "$daemon_pid" && wait "$daemon_pid"
}
(umask 077 && sed -E 's|^  on_failure: .*|  on_failure: keep-writing\n  refresh_interval: 1s\n  probe_interval: 1s|' "$conf" >"$tmp/live.yaml")
start_daemon "$tmp/live.yaml" "$sock"
run kms status --config "$conf"
check 'kms status' ends 0
check 'kms status: healthz' grep -qE '^healthz +ok$' "$tmp/out"
check 'kms status: key_id' grep -qE "^key_id +$first\$" "$tmp/out"
run kms status --socket "$sock" --json
hash=sha256:$(printf %s "$first" | sha256sum | cut -d' ' -f1)
check 'kms status --json' json "$tmp/out" "d['version'] == 'v2' and d['healthz'] == 'ok' and d['key_id'] == '$first' and d['key_id_hash'] == '$hash' and 0 < d['latency_us'] < 3000000"

feed "$tmp/seed" kms encrypt --config "$conf"
check 'kms encrypt' ends 0
cp "$tmp/out" "$tmp/sealed"
check 'the record' json "$tmp/sealed" "d['key_id'] == '$first' and len(d['ciphertext']) > 60 and isinstance(d['annotations'], dict)"
check 'the seed is not in it' eval '! grep -qF -e "$(base64 <"$tmp/seed")" "$tmp/sealed"'
feed "$tmp/sealed" kms decrypt --config "$conf"
check 'kms decrypt' cmp -s "$tmp/out" "$tmp/seed"
check 'kms decrypt is silent' silent
feed "$tmp/sealed" kms decrypt --config "$conf" --json
check 'kms decrypt --json' json "$tmp/out" "__import__('base64').b64decode(d['plaintext']) == open('$tmp/seed','rb').read()"
run kms encrypt --config "$conf" --in "$tmp/seed" --out "$tmp/sealed2" --json
check 'kms encrypt to a file' eval 'ends 0 && no_output && mode_is "$tmp/sealed2" 600'
run kms decrypt --config "$conf" --in "$tmp/sealed2" --out "$tmp/opened"
check 'kms decrypt to a file' eval 'ends 0 && no_output && mode_is "$tmp/opened" 600 && cmp -s "$tmp/opened" "$tmp/seed"'
run kms decrypt --config "$conf" --in "$tmp/sealed2" --out "$tmp/seed"
check 'nothing is overwritten' refused 6 "$tmp/seed"
check 'the file stays' cmp -s "$tmp/opened" "$tmp/seed"

altered() { # NAME PYTHON CODE TEXT: a changed record
    "$python" -c "import json,sys,base64
d=json.load(open(sys.argv[1]))
$2
json.dump(d,open(sys.argv[2],'w'))" "$tmp/sealed" "$tmp/altered"
    feed "$tmp/altered" kms decrypt --config "$conf"
    check "altered: $1" refused 1 "$3"
}
altered 'last byte' 'b=bytearray(base64.b64decode(d["ciphertext"])); b[-1]^=1; d["ciphertext"]=base64.b64encode(b).decode()' INVALID_ARGUMENT
altered 'cut short' 'd["ciphertext"]=d["ciphertext"][:40]' INVALID_ARGUMENT
altered 'another key_id' 'd["key_id"]="kb1-"+"0"*40' NOT_FOUND
altered 'no key_id' 'del d["key_id"]' 'no string "key_id"'
altered 'no base64' 'd["ciphertext"]="###"' 'no base64'
feed "$tmp/seed" kms decrypt --config "$conf"
check 'no record' refused 1 'no JSON object'
: >"$tmp/empty"
feed "$tmp/empty" kms encrypt --config "$conf"
check 'nothing to encrypt' refused 1 INVALID_ARGUMENT
head -c 70000 /dev/zero >"$tmp/large"
feed "$tmp/large" kms encrypt --config "$conf"
check 'too much for a message' refused 1 'larger than'
head -c 60000 "$tmp/large" >"$tmp/larger"
feed "$tmp/larger" kms encrypt --config "$conf"
check 'too much for an envelope' eval 'spoken && no_output && [ "$code" -eq 1 ]'
run kms encrypt --config "$conf" --in "$tmp/none"
check 'no such input' refused 1 "$tmp/none"
"$ctl" kms decrypt --config "$conf" --in "$tmp/sealed" >/dev/full 2>"$tmp/err"
code=$?
: >"$tmp/out"
check 'an output that is full' refused 1 'cannot write'

# rotation: a newer key of the label encrypts, the older one decrypts
run keys create --config "$conf" --json
second=$("$python" -c 'import json,sys; print(json.load(open(sys.argv[1]))["keys"][0]["key_id"])' "$tmp/out")
check 'a newer key' json "$tmp/out" "d['keys'][0]['label'] == 'ctl-kek' and d['keys'][0]['state'] == 'active' and '$second' != '$first'"
run keys list --config "$conf"
check 'the older one decrypts only' grep -qE "^$first +ctl-kek .* decrypt-only\$" "$tmp/out"
for _ in {1..100}; do
    run kms status --config "$conf"
    out_has "$second" && break
    sleep 0.1
done
check 'the daemon takes it' out_has "$second"
feed "$tmp/sealed" kms decrypt --config "$conf"
check 'what the older one sealed' cmp -s "$tmp/out" "$tmp/seed"

# the HSM goes away under a daemon that is to keep writing: it says so in healthz
mv "$home/tokens" "$home/tokens.away"
for _ in {1..150}; do
    run kms status --config "$conf"
    [ "$code" -eq 0 ] || break
    sleep 0.1
done
check 'unhealthy' ends 1
check 'unhealthy is said' err_has 'calls itself unhealthy'
check 'unhealthy is shown' out_has "$second"
mv "$home/tokens.away" "$home/tokens"
check 'the daemon stops' stop_daemon

# a peer that is not allowed, past the socket's mode
if [ "$(id -u)" -eq 0 ] && setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$ctl" 2>/dev/null; then
    chmod 0755 "$tmp"
    (umask 077 && sed -E 's|^  backend: hsm|&\n  mode: "0666"|' "$conf" >"$tmp/peers.yaml")
    start_daemon "$tmp/peers.yaml" "$sock"
    setpriv --reuid 65534 --regid 65534 --clear-groups "$ctl" kms status --socket "$sock" >"$tmp/out" 2>"$tmp/err"
    code=$?
    check 'a peer that is not allowed' refused 5 'closes our connection'
    check 'a peer that is not allowed: what to do' err_has 'kms.allow_uids'
    chmod 0600 "$sock"
    setpriv --reuid 65534 --regid 65534 --clear-groups "$ctl" kms status --socket "$sock" >"$tmp/out" 2>"$tmp/err"
    code=$?
    check 'a socket that may not be opened' refused 5 'may not open it'
    stop_daemon
fi
end
