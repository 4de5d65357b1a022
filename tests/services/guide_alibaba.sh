#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# docs/alibaba.md, command by command, on the strict fake of Alibaba Cloud KMS: what the document does
# on the cloud's side has been done there, and the webhook's variables are set.
. "$(dirname "$0")/fakes.sh"
. "$(dirname "$0")/guide.sh"
fake_start guide_alibaba
command -v curl >/dev/null || fake_without 'there is no curl'
guide_tools
control() { curl -sS --fail-with-body --max-time 10 -d "$1" "http://127.0.0.1:$(fake_field control)/"; } # JSON
export KEY_ID
KEY_ID=$(control '{"do":"key","alias":"kmsbridge-kek"}' | sed -n 's/.*"id": "\([^"]*\)".*/\1/p')
# what stands for the vendor's command line: the one thing that the document has it do
cat >"$tmp/bin/aliyun" <<STANDIN
#!/bin/sh
[ "\$1 \$2 \$3 \$4" = "kms CreateKeyVersion --KeyId $KEY_ID" ] || exit 1
exec curl -sS --fail-with-body --max-time 10 -d '{"do":"rotate","key":"$KEY_ID"}' http://127.0.0.1:$(fake_field control)/
STANDIN
chmod 755 "$tmp/bin/aliyun"
control '{"do":"token"}' | sed -n 's/.*"token": "\([^"]*\)".*/\1/p' >"$tmp/token"

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
guide_end guide_alibaba
