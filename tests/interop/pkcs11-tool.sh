#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# OpenSC's pkcs11-tool: everything that it can ask of a token.
# shellcheck disable=SC2016 # check() evaluates its words later
. "$(dirname "$0")/lib.sh"
lane pkcs11-tool sha256sum

token
key rsa rsa
key ec ec
key ed ed
key aes aes
key hmac hmac
certify rsa 'pkcs11-tool lane'
serve

tool() { run pkcs11-tool --module "$module" "$@"; }
login() { tool --token-label "$TOKEN" --login --pin "$PIN" "$@"; }
printf 'a text to be signed\n' >"$tmp/text"
head -c 4096 /dev/urandom >"$tmp/data"
openssl dgst -sha256 -binary "$tmp/text" >"$tmp/digest"

# --- looking -------------------------------------------------------------------------------------

tool -I
check '-I' says '^Cryptoki version'
[ "$ours" = no ] || check '-I names us' said 'kmsbridge'
tool -L
check '-L' says "token label *: ${TOKEN}"
check '-L: a PIN is wanted' said 'token flags *:.*login required'
check '-L: it is initialized' said 'token flags *:.*token initialized'
check '-L: it has a random number generator' said 'token flags *:.*rng'
tool -T
check '-T' says "token label *: ${TOKEN}"
tool --token-label "$TOKEN" -M
for mechanism in AES-GCM AES-CBC-PAD AES-CTR AES-KEY-WRAP AES-KEY-GEN RSA-PKCS RSA-PKCS-PSS RSA-PKCS-OAEP SHA256-RSA-PKCS \
    SHA256-RSA-PKCS-PSS RSA-PKCS-KEY-PAIR-GEN ECDSA ECDSA-KEY-PAIR-GEN EDDSA ECDH1-DERIVE SHA256-HMAC SHA256 SHA512; do
    check "-M has $mechanism" says "^ *${mechanism}[, ]"
done
tool --token-label nobody -O
check 'no such token' refused 'not found|no slot'
tool --token-label "$TOKEN" -O
check '-O without a login shows no private key' lacks '^Private Key Object'
login -O
check '-O' done_well
for each in 'Private Key Object; RSA' 'Public Key Object; RSA 2048 bits' 'Private Key Object; EC' 'Public Key Object; EC *EC_POINT 256 bits' \
    'Secret Key Object; AES length 32' 'Certificate Object; type = X.509 cert'; do
    check "-O has $each" said "$each"
done
for each in rsa ec ed aes hmac; do check "-O has the label $each" said "label: *$each\$"; done
check '-O: keys cannot be had' said 'Access: *sensitive, always sensitive, never extractable'
rsa=$(object_id privkey rsa) ec=$(object_id privkey ec) ed=$(object_id privkey ed)
aes=$(object_id secrkey aes) hmac=$(object_id secrkey hmac)
for each in rsa ec ed; do
    check "$each: the halves have one CKA_ID" test -n "${!each}" -a "${!each}" = "$(object_id pubkey "$each")"
done
check 'rsa: so has the certificate' test "$rsa" = "$(object_id cert rsa)"
login --read-object --type pubkey --id "$rsa" --output-file "$tmp/read.spki"
check 'the public key is the one in the token' same "$tmp/read.spki" "$tmp/rsa.spki"
login --read-object --type pubkey --id "$ec" --output-file "$tmp/read.spki"
check 'the EC public key is the one in the token' same "$tmp/read.spki" "$tmp/ec.spki"
login --read-object --type cert --id "$rsa" --output-file "$tmp/read.der"
check 'the certificate is the one given' eval 'openssl x509 -inform DER -in "$tmp/read.der" | cmp -s - <(openssl x509 -in "$tmp/rsa.pem")'
login --read-object --type secrkey --id "$aes" --output-file "$tmp/read.key"
check 'a secret key cannot be read' refused 'CKR_ATTRIBUTE_SENSITIVE|C_GetAttributeValue|sensitive|failed'
check 'a secret key is not written' test ! -s "$tmp/read.key"

# --- PINs ----------------------------------------------------------------------------------------

tool --token-label "$TOKEN" --login --pin 9999 -O
check 'wrong PIN' refused CKR_PIN_INCORRECT
tool --token-label "$TOKEN" --login --pin '' -O
check 'empty PIN' refused
login -O
check 'the right PIN still opens' done_well
tool --token-label "$TOKEN" --login --login-type so --so-pin 999999 -O
check 'the security officer is not let in' refused_by_us 'CKR_PIN_INCORRECT|CKR_USER_TYPE_INVALID|CKR_FUNCTION_NOT_SUPPORTED|CKR_PIN_LOCKED'

# --- signatures ----------------------------------------------------------------------------------

sign() { # NAME ID MECHANISM INPUT MORE...
    local name=$1 id=$2 mechanism=$3 input=$4
    shift 4
    rm -f "$tmp/sig"
    login --sign --id "$id" -m "$mechanism" --input-file "$input" --output-file "$tmp/sig" "$@"
    check "sign: $name" done_well
}
verify() { # NAME ID MECHANISM INPUT MORE...: the signature of sign(), and of something else
    local name=$1 id=$2 mechanism=$3 input=$4
    shift 4
    login --verify --id "$id" -m "$mechanism" --input-file "$input" --signature-file "$tmp/sig" "$@"
    check "verify: $name" says 'Signature is valid'
    head -c "$(stat -c %s "$input")" /dev/urandom >"$tmp/other"
    login --verify --id "$id" -m "$mechanism" --input-file "$tmp/other" --signature-file "$tmp/sig" "$@"
    check "verify: $name: of something else" lacks 'Signature is valid'
}
openssl_verifies() { # KEY MORE...: what openssl says of it
    run openssl dgst -verify "$tmp/$1.pub" -signature "$tmp/sig" "${@:2}" "$tmp/text"
    check "openssl verifies: ${*:1}" says 'Verified OK'
}
for hash in SHA1 SHA224 SHA256 SHA384 SHA512; do
    sign "$hash-RSA-PKCS" "$rsa" "$hash-RSA-PKCS" "$tmp/text"
    openssl_verifies rsa "-${hash,,}"
    verify "$hash-RSA-PKCS" "$rsa" "$hash-RSA-PKCS" "$tmp/text"
done
sign SHA256-RSA-PKCS-PSS "$rsa" SHA256-RSA-PKCS-PSS "$tmp/text" --salt-len 32
openssl_verifies rsa -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32
verify SHA256-RSA-PKCS-PSS "$rsa" SHA256-RSA-PKCS-PSS "$tmp/text" --salt-len 32
sign RSA-PKCS-PSS "$rsa" RSA-PKCS-PSS "$tmp/digest" --hash-algorithm SHA256 --salt-len 20
openssl_verifies rsa -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20
{ printf '\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20' && cat "$tmp/digest"; } >"$tmp/info"
sign RSA-PKCS "$rsa" RSA-PKCS "$tmp/info"
openssl_verifies rsa -sha256
sign ECDSA "$ec" ECDSA "$tmp/digest" --signature-format openssl
openssl_verifies ec -sha256
sign 'ECDSA, r and s' "$ec" ECDSA "$tmp/digest"
check 'an ECDSA signature has 64 bytes' test "$(stat -c %s "$tmp/sig")" -eq 64
verify ECDSA "$ec" ECDSA "$tmp/digest"
sign EDDSA "$ed" EDDSA "$tmp/text"
run openssl pkeyutl -verify -pubin -inkey "$tmp/ed.pub" -rawin -in "$tmp/text" -sigfile "$tmp/sig"
check 'openssl verifies: ed' says 'Verified Successfully'
sign SHA256-HMAC "$hmac" SHA256-HMAC "$tmp/text"
cp "$tmp/sig" "$tmp/mac"
sign 'SHA256-HMAC again' "$hmac" SHA256-HMAC "$tmp/text"
check 'a MAC is the same again' cmp -s "$tmp/sig" "$tmp/mac"
verify SHA256-HMAC "$hmac" SHA256-HMAC "$tmp/text"
head -c 3000000 /dev/urandom >"$tmp/large"
sign 'three megabytes' "$rsa" SHA256-RSA-PKCS "$tmp/large"
run openssl dgst -sha256 -verify "$tmp/rsa.pub" -signature "$tmp/sig" "$tmp/large"
check 'openssl verifies: three megabytes' says 'Verified OK'

login --sign --id "$aes" -m SHA256-RSA-PKCS --input-file "$tmp/text" --output-file "$tmp/sig"
check 'an AES key signs nothing' refused 'private key not found|CKR_KEY'
login --sign --id "$ec" -m SHA256-RSA-PKCS --input-file "$tmp/text" --output-file "$tmp/sig"
check 'an EC key makes no RSA signature' refused_by_us CKR_KEY_TYPE_INCONSISTENT
login --sign --id 7f7f7f --input-file "$tmp/text" --output-file "$tmp/sig" -m SHA256-RSA-PKCS
check 'no such key' refused 'private key not found'
login --sign --id "$rsa" -m RSA-PKCS --input-file "$tmp/data" --output-file "$tmp/sig"
check 'too long for RSA-PKCS' refused_by_us 'CKR_DATA_LEN_RANGE|CKR_DATA_INVALID'
tool --token-label "$TOKEN" --sign --id "$rsa" -m SHA256-RSA-PKCS --input-file "$tmp/text" --output-file "$tmp/sig"
check 'no signature without a login' refused_by_us 'private key not found|CKR_USER_NOT_LOGGED_IN|util_getpass'

# --- encryption ----------------------------------------------------------------------------------

iv=000102030405060708090a0b0c0d0e0f
crypt() { # NAME MECHANISM INPUT MORE...
    local name=$1 mechanism=$2 input=$3
    shift 3
    rm -f "$tmp/sealed" "$tmp/opened"
    login --encrypt --id "$aes" -m "$mechanism" --input-file "$input" --output-file "$tmp/sealed" "$@"
    check "encrypt: $name" done_well
    check "encrypt: $name: it is not the text" eval '! cmp -s "$input" "$tmp/sealed"'
    login --decrypt --id "$aes" -m "$mechanism" --input-file "$tmp/sealed" --output-file "$tmp/opened" "$@"
    check "decrypt: $name" same "$tmp/opened" "$input"
}
crypt AES-CBC-PAD AES-CBC-PAD "$tmp/text" --iv "$iv"
head -c 31 "$tmp/sealed" >"$tmp/cut"
login --decrypt --id "$aes" -m AES-CBC-PAD --iv "$iv" --input-file "$tmp/cut" --output-file "$tmp/opened"
check 'decrypt: cut short' refused 'CKR_ENCRYPTED_DATA|failed'
crypt 'AES-CBC-PAD, 4096 bytes' AES-CBC-PAD "$tmp/data" --iv "$iv"
crypt AES-CBC AES-CBC "$tmp/data" --iv "$iv"
openssl pkeyutl -encrypt -pubin -inkey "$tmp/rsa.pub" -in "$tmp/text" -out "$tmp/sealed" -pkeyopt rsa_padding_mode:oaep \
    -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256
if [ "$ours" = yes ]; then # SoftHSM 2.6 knows OAEP with SHA-1 only
    login --decrypt --id "$rsa" -m RSA-PKCS-OAEP --hash-algorithm SHA256 --mgf MGF1-SHA256 --input-file "$tmp/sealed" \
        --output-file "$tmp/opened"
    check 'decrypt: RSA-PKCS-OAEP, SHA-256: the HSM may say no' eval 'same "$tmp/opened" "$tmp/text" || refused CKR_'
fi
openssl pkeyutl -encrypt -pubin -inkey "$tmp/rsa.pub" -in "$tmp/text" -out "$tmp/sealed" -pkeyopt rsa_padding_mode:oaep
login --decrypt --id "$rsa" -m RSA-PKCS-OAEP --hash-algorithm SHA-1 --mgf MGF1-SHA1 --input-file "$tmp/sealed" --output-file "$tmp/opened"
check 'decrypt: RSA-PKCS-OAEP, SHA-1' same "$tmp/opened" "$tmp/text"
openssl pkeyutl -encrypt -pubin -inkey "$tmp/rsa.pub" -in "$tmp/text" -out "$tmp/sealed"
login --decrypt --id "$rsa" -m RSA-PKCS --input-file "$tmp/sealed" --output-file "$tmp/opened"
check 'decrypt: RSA-PKCS' same "$tmp/opened" "$tmp/text"
login --decrypt --id "$rsa" -m RSA-PKCS-OAEP --hash-algorithm SHA-1 --mgf MGF1-SHA1 --input-file "$tmp/sealed" --output-file "$tmp/opened"
check 'decrypt: another padding' refused_by_us 'CKR_(ENCRYPTED_DATA|DATA|GENERAL|FUNCTION_FAILED)'

# --- digests and random numbers ------------------------------------------------------------------

for hash in SHA-1 SHA224 SHA256 SHA384 SHA512; do
    tool --token-label "$TOKEN" --hash -m "$hash" --input-file "$tmp/data" --output-file "$tmp/hashed"
    name=${hash,,}
    openssl dgst -"${name//-/}" -binary "$tmp/data" >"$tmp/expected"
    check "hash: $hash" same "$tmp/hashed" "$tmp/expected"
done
tool --token-label "$TOKEN" --hash -m AES-CBC --input-file "$tmp/data" --output-file "$tmp/hashed"
check 'hash: no digest' refused_by_us CKR_MECHANISM_INVALID
tool --token-label "$TOKEN" --generate-random 48 --output-file "$tmp/random1"
check 'random' eval 'done_well && [ "$(stat -c %s "$tmp/random1")" -eq 48 ]'
tool --token-label "$TOKEN" --generate-random 48 --output-file "$tmp/random2"
check 'random: never twice' eval 'done_well && ! cmp -s "$tmp/random1" "$tmp/random2"'

# --- derive --------------------------------------------------------------------------------------

openssl ecparam -name prime256v1 -genkey -noout -out "$tmp/peer.key" 2>/dev/null
openssl pkey -in "$tmp/peer.key" -pubout -outform DER -out "$tmp/peer.spki"
openssl pkeyutl -derive -inkey "$tmp/peer.key" -peerkey "$tmp/ec.pub" -out "$tmp/secret"
login --derive -m ECDH1-DERIVE --id "$ec" --input-file "$tmp/peer.spki" --output-file "$tmp/derived"
if [ "$ours" = no ]; then
    check 'derive: ECDH1-DERIVE' same "$tmp/derived" "$tmp/secret"
else # no key of the backend derives: the secret would have to cross to us
    check 'derive: not with a key of the backend' refused 'CKR_(KEY_FUNCTION_NOT_PERMITTED|MECHANISM_INVALID|KEY_HANDLE_INVALID)'
fi

# --- making, renaming and destroying keys --------------------------------------------------------

number=50
made() { # NAME TYPE LABEL MORE...: makes it, uses nothing, sees it
    local name=$1 type=$2 label=$3
    shift 3
    number=$((number + 1))
    login "$@" --label "$label" --id "$number"
    check "$name" done_well
    check "$name: it is there" test -n "$(object_id "$type" "$label")"
}
made 'keygen AES:32' secrkey new-aes --keygen --key-type AES:32 --sensitive --usage-decrypt
made 'keygen AES:16' secrkey new-aes16 --keygen --key-type AES:16 --sensitive --usage-decrypt
made 'keygen GENERIC:32' secrkey new-generic --keygen --key-type GENERIC:32 --sensitive --usage-sign
made 'keypairgen rsa:2048' privkey new-rsa --keypairgen --key-type rsa:2048 --usage-sign
made 'keypairgen EC:prime256v1' privkey new-ec --keypairgen --key-type EC:prime256v1 --usage-sign
made 'keypairgen EC:secp384r1' privkey new-ec384 --keypairgen --key-type EC:secp384r1 --usage-sign
made 'keypairgen EC:edwards25519' privkey new-ed --keypairgen --key-type EC:edwards25519 --usage-sign
new=$(object_id privkey new-ec)
login --read-object --type pubkey --id "$new" --output-file "$tmp/new.spki"
openssl pkey -pubin -inform DER -in "$tmp/new.spki" -out "$tmp/new.pub"
sign 'with a key made here' "$new" ECDSA "$tmp/digest" --signature-format openssl
openssl_verifies new -sha256
new=$(object_id privkey new-rsa)
login --read-object --type pubkey --id "$new" --output-file "$tmp/new.spki"
openssl pkey -pubin -inform DER -in "$tmp/new.spki" -out "$tmp/new.pub"
sign 'with an RSA key made here' "$new" SHA256-RSA-PKCS "$tmp/text"
openssl_verifies new -sha256
login --keypairgen --key-type rsa:100 --label new-odd
check 'keypairgen of an impossible size' refused_by_us 'CKR_|unknown|failed'
login --keypairgen --key-type EC:nosuchcurve --label new-odd
check 'keypairgen of an unknown curve' refused 'CKR_|unknown|failed'
tool --token-label "$TOKEN" --keygen --key-type AES:32 --label new-odd --private --session-rw
check 'keygen without a login' refused 'CKR_USER_NOT_LOGGED_IN|CKR_SESSION_READ_ONLY|CKR_USER'

new=$(object_id secrkey new-aes)
login --set-id "$new" --id "$new" --type secrkey
check 'set CKA_ID: the token may say no' eval 'done_well || refused CKR_'
login --delete-object --type secrkey --id "$new"
check 'delete a secret key' done_well
check 'delete a secret key: it is gone' test -z "$(object_id secrkey new-aes)"
check 'delete a secret key: others stay' test -n "$(object_id secrkey new-aes16)"
new=$(object_id privkey new-ec384)
login --delete-object --type privkey --id "$new"
check 'delete a private key' done_well
check 'delete a private key: it is gone' test -z "$(object_id privkey new-ec384)"
login --delete-object --type secrkey --id "$new"
check 'delete what is not there' refused 'not found'

# --- wrap and unwrap -----------------------------------------------------------------------------
# pkcs11-tool makes token keys only; session keys under a KEK are in python.sh.

token_tool --keygen --key-type AES:32 --label loose --id 70 --extractable --usage-decrypt
loose=$(object_id secrkey loose)
login --wrap -m AES-KEY-WRAP --id "$aes" --application-id "$loose" --output-file "$tmp/wrapped"
if [ "$ours" = no ]; then
    check 'wrap' eval 'done_well && [ "$(stat -c %s "$tmp/wrapped")" -eq 40 ]'
    login --unwrap -m AES-KEY-WRAP --id "$aes" --input-file "$tmp/wrapped" --key-type AES: --application-label again \
        --application-id 71 --extractable
    check 'unwrap' done_well
else
    check 'wrap: a key of the backend stays there' refused 'CKR_(KEY_UNEXTRACTABLE|KEY_NOT_WRAPPABLE)'
    openssl rand 40 >"$tmp/wrapped"
    login --unwrap -m AES-KEY-WRAP --id "$aes" --input-file "$tmp/wrapped" --key-type AES: --application-label again
    check 'unwrap into the token' refused 'CKR_(TEMPLATE_INCONSISTENT|WRAPPED_KEY_INVALID)'
fi
openssl rand 40 >"$tmp/wrapped"
login --unwrap -m AES-KEY-WRAP --id "$aes" --input-file "$tmp/wrapped" --key-type AES: --application-label again
check 'unwrap: what was never wrapped' refused 'CKR_'

# --- its own tests -------------------------------------------------------------------------------

login --test
check '--test' said 'RSA-X-509: OK|RSA-PKCS: OK'
if [ "$ours" = yes ]; then # SoftHSM gets through none of them
    check '--test: to the end' says 'No errors'
    tool --test-fork
    check '--test-fork' eval 'done_well && lacks "CKR_[^O]|error"'
    limit=120 login --test-threads ILGISLT0 --test-threads ILGISLT0 --test-threads ILGISLT0
    check '--test-threads' eval 'done_well && lacks "CKR_(GENERAL|FUNCTION_FAILED|DEVICE|HOST)"'
fi

away 'sign' pkcs11-tool --module "$module" --token-label "$TOKEN" --login --pin "$PIN" --sign --id "$rsa" -m SHA256-RSA-PKCS \
    --input-file "$tmp/text" --output-file "$tmp/sig"
lane_end
