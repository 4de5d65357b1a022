#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# docs/alibaba.md, command by command, on the strict fake of Alibaba Cloud: an account with RAM, in which
# nothing is allowed to anybody before the document's own commands say so. `aliyun` is alibaba/aliyun.py.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../interop/lib.sh" # from_pip
. "$here/fakes.sh"
. "$here/guide.sh"
# no placeholder of the examples is right
export FAKE_REGION=cn-beijing FAKE_CLUSTER=c9876543210
fake_start guide_alibaba
command -v curl >/dev/null || fake_without 'there is no curl'
# shellcheck disable=SC2034 # from_pip's
lane=$name
from_pip "$python" alibaba-sdk "$here/alibaba/requirements.txt"
guide_tools
control() { curl -sS --fail-with-body --max-time 10 -d "$1" "http://127.0.0.1:$(fake_field control)/"; } # JSON
control '{"do":"ram"}' >/dev/null
export ALIYUN_FAKE=$fake ALIYUN_LOG=$tmp/aliyun.log PYTHONDONTWRITEBYTECODE=1
# shellcheck disable=SC2154 # from_pip sets it
printf '#!/bin/sh\nexec %s %s "$@"\n' "$venv/bin/python" "$here/alibaba/aliyun.py" >"$tmp/bin/aliyun"
chmod 755 "$tmp/bin/aliyun"
export REGION ACCOUNT CLUSTER INSTANCE
REGION=$(fake_field region) ACCOUNT=$(fake_field account) CLUSTER=$(fake_field cluster) INSTANCE=$(fake_field instance)
token() { # SUBJECT: of a service account
    control "{\"do\":\"token\",\"sub\":\"system:serviceaccount:$1\"}" | sed -n 's/.*"token": "\([^"]*\)".*/\1/p' >"$tmp/token"
}
token kmsbridge:kmsbridge

export KMS_ENDPOINT KMS_CA=$tmp/ca.pem METADATA
KMS_ENDPOINT=https://localhost:$(fake_field tls)
METADATA=http://127.0.0.1:$(fake_field imds)
export CREDENTIALS_URI
CREDENTIALS_URI=http://127.0.0.1:$(fake_field uri)/credentials
# what ack-pod-identity-webhook injects
export ALIBABA_CLOUD_ROLE_ARN ALIBABA_CLOUD_OIDC_PROVIDER_ARN ALIBABA_CLOUD_OIDC_TOKEN_FILE=$tmp/token
export ALIBABA_CLOUD_STS_ENDPOINT
ALIBABA_CLOUD_ROLE_ARN=$(fake_field role_arn)
ALIBABA_CLOUD_OIDC_PROVIDER_ARN=$(fake_field provider_arn)
ALIBABA_CLOUD_STS_ENDPOINT=http://127.0.0.1:$(fake_field sts)
# a user's access key
export ACCESS_KEY_ID
ACCESS_KEY_ID=$(fake_field access_key)
(umask 077 && fake_field secret >"$CONF/alibaba-secret")

guide_planted
guide "$top/docs/alibaba.md"

# the machine insists on tokens
code=$(curl -sS -o "$tmp/out" -w '%{http_code}' --max-time 10 "$METADATA/latest/meta-data/ram/security-credentials/")
guide_say "metadata without a token: $code" "$([ "$code" = 403 ] && echo yes)"

# the documents' commands against the SDK, also those in running text
cp "$top/kmsbridge/kmsbridge-services.7" "$top/docs/alibaba.md" "$tmp/"
commands=0
while IFS= read -r line; do
    commands=$((commands + 1))
    case $line in 'ok '*) guide_say "${line#ok }" yes ;; *) guide_say "$line" no ;; esac
done < <(aliyun --check "$tmp/alibaba.md" "$tmp/kmsbridge-services.7" 2>&1)
guide_say "$commands commands in the documents" "$([ "$commands" -ge 20 ] && echo yes)"

# What looks must be able to see, and what is allowed must be what was said: WORDS, in what it says; COMMAND.
refused() {
    local said wanted=$1
    shift
    if said=$(timeout 30 "$@" 2>&1); then
        guide_say "$1 $2 $3: is not refused" no
    elif grep -qE -e "$wanted" <<<"$said"; then
        guide_say "refused: $1 $2 $3 by $wanted" yes
    else
        guide_say "$1 $2 $3: not \"$wanted\" but: $said" no
    fi
}
# shellcheck disable=SC2016 # fences
planted() { # WORDS COMMAND: in a document
    printf '```sh run\naliyun %s\n```\n' "$2" >"$tmp/planted.md"
    if aliyun --check "$tmp/planted.md" 2>&1 | grep -qE -e "^FAIL .*$1"; then guide_say "planted: $2" yes; else guide_say "planted, and not seen: $2" no; fi
}
planted 'has no --MetadataOptions.HttpTokens' 'ecs RunInstances --RegionId r --MetadataOptions.HttpTokens required'
planted 'lacks KeyId' 'kms CreateAlias --AliasName alias/x'
planted 'lacks PolicyDocument' 'ram CreatePolicy --PolicyName x'
# shellcheck disable=SC2016 # as documents have it
planted 'is bool' 'kms UpdateRotationPolicy --KeyId $KEY_ID --EnableAutomaticRotation yes'
planted 'is given twice' 'kms DescribeKey --KeyId a --KeyId b'
planted 'has no action' 'kms AttachPolicyToRole --RoleName x'
planted 'has no action' 'kms Createkey'
refused 'has no --keyId' aliyun kms DescribeKey --keyId x
refused 'is int' aliyun kms ScheduleKeyDeletion --KeyId x --PendingWindowInDays 7d
key=$(sed -n 's/.*"KeyId": "\([^"]*\)".*/\1/p' < <(aliyun kms DescribeKey --KeyId alias/kmsbridge-kek))
refused 'RotationInterval' aliyun kms UpdateRotationPolicy --KeyId "$key" --EnableAutomaticRotation true --RotationInterval 90d
refused 'Rejected.DeletionProtection' aliyun kms ScheduleKeyDeletion --KeyId "$key" --PendingWindowInDays 7
refused 'EntityNotExist.Role' aliyun ram AttachPolicyToRole --PolicyType Custom --PolicyName kmsbridge --RoleName no-such-role
refused 'EntityAlreadyExists.Policy' aliyun ram CreatePolicy --PolicyName kmsbridge --PolicyDocument "$(cat "$EXAMPLES/ram-policy.json")"
refused 'InvalidParameter.PolicyDocument' aliyun ram CreatePolicy --PolicyName other --PolicyDocument "$(cat "$EXAMPLES/rrsa-trust-policy.json")"
refused 'AssumeRolePolicyDocument' aliyun ram CreateRole --RoleName other --AssumeRolePolicyDocument \
    "$(sed '/oidc:aud/d' "$EXAMPLES/rrsa-trust-policy.json")"
refused 'AssumeRolePolicyDocument' aliyun ram CreateRole --RoleName other --AssumeRolePolicyDocument \
    "$(sed 's/"Federated".*/"Federated": []/' "$EXAMPLES/rrsa-trust-policy.json")"
refused 'InvalidRamRole.NotEcsRole' aliyun ecs AttachInstanceRamRole --RegionId "$REGION" --RamRoleName kmsbridge --InstanceIds "[\"$INSTANCE\"]"
# the clean-up that the text tells of
other=$(control '{"do":"key","alias":"other"}' | sed -n 's/.*"id": "\([^"]*\)".*/\1/p')
sed 's/key: kmsbridge-kek/key: other/' "$CONF/kmsbridge.yaml" >"$CONF/other.yaml"
refused 'Forbidden.NoPermission' kmsbridged --check --config "$CONF/other.yaml" # the machine's role is for one key
sed 's/key: kmsbridge-kek/key: other/' "$CONF/by-rrsa.yaml" >"$CONF/other.yaml"
if kmsbridged --check --config "$CONF/other.yaml" >"$tmp/out" 2>&1; then guide_say "the agent's role is for all keys" yes; else guide_say "the agent's role: $(cat "$tmp/out")" no; fi
token kube-system:kmsbridge
refused 'AuthenticationFail.NoPermission' kmsbridged --check --config "$CONF/by-rrsa.yaml"
refused 'Forbidden.NoPermission' kmsbridgectl keys list --config "$CONF/kmsbridge.yaml"
if aliyun kms ListAliasesByKeyId --KeyId "$other" | grep -q '"alias/other"' &&
    aliyun kms ScheduleKeyDeletion --KeyId "$other" --PendingWindowInDays 7 >/dev/null; then
    guide_say 'the clean-up' yes
else
    guide_say 'the clean-up' no
fi
# all of a fence was run, and by this stand-in
while read -r command; do
    guide_say "run: aliyun $command" "$(grep -qxF -e "$command" "$ALIYUN_LOG" && echo yes)"
done < <(grep -oE '\<aliyun (kms|ram|ecs) [A-Za-z]+' "$top/docs/alibaba.md" | cut -d ' ' -f 2- | sort -u)
guide_end guide_alibaba
