#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# OpenSSH: keys listed, held by ssh-agent, and used to log in to a real sshd on loopback as the user who
# runs this; and sshd with its own host key in the token.
# shellcheck disable=SC2016 # check() evaluates its words later
. "$(dirname "$0")/lib.sh"
lane ssh sshd ssh ssh-agent ssh-add ssh-keygen
sshd=$(command -v sshd)

token
key rsa rsa
key ec ec
key host ec
serve
mkdir -p "$tmp/ssh" "$HOME/.ssh"
chmod 700 "$tmp" "$tmp/ssh" "$HOME/.ssh"
# shellcheck disable=SC2016 # for the script
printf '#!/bin/sh\nprintf "%%s\\n" "$INTEROP_PIN"\n' >"$tmp/askpass"
chmod 700 "$tmp/askpass"
export SSH_ASKPASS=$tmp/askpass SSH_ASKPASS_REQUIRE=force DISPLAY=none INTEROP_PIN=$PIN

run ssh-keygen -D "$module"
cp "$tmp/out" "$tmp/keys.pub"
check 'ssh-keygen -D' says '^ssh-rsa '
check 'ssh-keygen -D: EC keys' said '^ecdsa-sha2-nistp256 '
check 'ssh-keygen -D: three keys' test "$(wc -l <"$tmp/keys.pub")" -eq 3
for key in rsa ec host; do # by name, from the token's own public keys
    ssh-keygen -i -m PKCS8 -f "$tmp/$key.pub" >"$tmp/$key.ssh" 2>"$tmp/err"
    check "ssh-keygen -D: $key is there" grep -qF "$(cat "$tmp/$key.ssh")" "$tmp/keys.pub"
done

# --- ssh-agent -----------------------------------------------------------------------------------

real=$(realpath "$module")
background "$tmp/agent.log" ssh-agent -D -a "$tmp/ssh-agent.sock" -P "$real"
wait_for test -S "$tmp/ssh-agent.sock"
export SSH_AUTH_SOCK=$tmp/ssh-agent.sock
INTEROP_PIN=9999 run ssh-add -s "$real"
check 'ssh-add -s: wrong PIN' refused 'agent refused|could not add'
run ssh-add -s "$real"
check 'ssh-add -s' says 'Card added'
run ssh-add -L
check 'ssh-add -L' eval 'done_well && [ "$(grep -c "^ssh-rsa\|^ecdsa" "$tmp/out")" -eq 3 ]'
for key in rsa ec; do
    run ssh-add -T "$tmp/$key.ssh"
    check "ssh-add -T: $key signs" done_well
    printf 'a text to be signed\n' >"$tmp/text"
    rm -f "$tmp/text.sig"
    run ssh-keygen -Y sign -f "$tmp/$key.ssh" -n file "$tmp/text"
    check "ssh-keygen -Y sign: $key" done_well
    printf 'me %s\n' "$(cat "$tmp/$key.ssh")" >"$tmp/signers"
    feed "$tmp/text" ssh-keygen -Y verify -f "$tmp/signers" -I me -n file -s "$tmp/text.sig"
    check "ssh-keygen -Y verify: $key" says 'Good "file" signature'
    feed "$tmp/signers" ssh-keygen -Y verify -f "$tmp/signers" -I me -n file -s "$tmp/text.sig"
    check "ssh-keygen -Y verify: $key: another text" refused
done

# --- sshd ----------------------------------------------------------------------------------------

[ "$(id -u)" -ne 0 ] || mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f "$tmp/ssh/host_key"
free_port
start_sshd() { # HOST-KEY-LINES
    cat >"$tmp/ssh/config" <<END
ListenAddress 127.0.0.1
Port $port
PidFile none
AuthorizedKeysFile $tmp/ssh/authorized
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
$1
END
    background "$tmp/sshd.log" "$sshd" -D -e -f "$tmp/ssh/config"
    server=$child
    listening "$port" "$server" "$tmp/sshd.log"
}
login_to() { # OPTION...: a word from the other side
    run ssh -F none -p "$port" "$@" -o BatchMode=yes -o UserKnownHostsFile="$tmp/ssh/known" -o StrictHostKeyChecking=yes \
        -o IdentitiesOnly=no -o PasswordAuthentication=no "$(id -un)@127.0.0.1" 'echo logged in as $(id -un)'
}
start_sshd "HostKey $tmp/ssh/host_key"
echo "[127.0.0.1]:$port $(cat "$tmp/ssh/host_key.pub")" >"$tmp/ssh/known"
for key in rsa ec; do
    cp "$tmp/$key.ssh" "$tmp/ssh/authorized"
    login_to
    check "login with $key of the agent" says "logged in as $(id -un)"
done
# without an agent: ssh loads the module itself
SSH_AUTH_SOCK='' login_to -o PKCS11Provider="$module" -o BatchMode=no
check 'login with PKCS11Provider' says "logged in as $(id -un)"
INTEROP_PIN=9999 SSH_AUTH_SOCK='' login_to -o PKCS11Provider="$module" -o BatchMode=no -o NumberOfPasswordPrompts=1
check 'login with PKCS11Provider: wrong PIN' refused 'permission denied|login failed|too many'
cp "$tmp/ssh/host_key.pub" "$tmp/ssh/authorized"
login_to
check 'a key that is not authorized' refused 'permission denied|too many'
cp "$tmp/ec.ssh" "$tmp/ssh/authorized"
for _ in {1..5}; do
    login_to
    check 'login, again' says 'logged in'
done
if [ "$ours" = yes ]; then
    stop_daemon
    login_to
    check 'login without kmsbridged' refused 'permission denied|agent refused|failed'
    start_daemon
    login_to
    check 'login, kmsbridged is back: ssh-agent noticed nothing' says 'logged in'
fi
stop "$server"

# sshd itself with a host key in the token
start_sshd "HostKey $tmp/host.ssh
HostKeyAgent $SSH_AUTH_SOCK"
echo "[127.0.0.1]:$port $(cat "$tmp/host.ssh")" >"$tmp/ssh/known"
login_to
check 'the host key is in the token' says 'logged in'
stop "$server"

run ssh-add -e "$real"
check 'ssh-add -e' says 'Card removed'
run ssh-add -L
check 'ssh-add -e: the keys are gone' refused 'no identities'
run ssh-add -s "$tmp/askpass"
check 'ssh-add -s: a module that is not allowed' refused
lane_end
