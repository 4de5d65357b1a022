#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The daemon at the service's own names, behind a proxy for CONNECT that leads to the fake: the region's
# public and VPC endpoint, a dedicated instance with a CA of its own, STS. What it takes for each is that
# name's certificate by that name's CA and no other, its Host: and a signature over it; and what the
# proxy is not for goes by without it.
# shellcheck disable=SC2154 # what those set
. "$(dirname "$0")/fakes.sh"
. "$(dirname "$0")/checks.sh"
lane=alibaba_endpoints
fake_start "$lane"
command -v curl >/dev/null || fake_without 'there is no curl'
daemon=$build/kmsbridge/kmsbridged
control() { curl -sS --noproxy '*' --fail-with-body --max-time 10 -d "$1" "http://127.0.0.1:$(fake_field control)/"; } # JSON
text_of() { sed -n "s/.*\"$1\": \"\\([^\"]*\\)\".*/\\1/p"; } # FIELD
control '{"do":"key","alias":"kek"}' >/dev/null
control '{"do":"token"}' | text_of token >"$tmp/token"
(umask 077 && fake_field secret >"$tmp/secret")

public=kms.cn-hangzhou.aliyuncs.com vpc=kms-vpc.cn-hangzhou.aliyuncs.com
instance=kst-hzz0123456789.cryptoservice.kms.aliyuncs.com
region_ca=$tmp/ca-region.pem instance_ca=$tmp/ca.pem
by_key=("credentials: access_key" "access_key_id: $(fake_field access_key)" "access_key_secret: file:$tmp/secret")
by_rrsa=("credentials: rrsa" "role_arn: '$(fake_field role_arn)'" "oidc_provider_arn: '$(fake_field provider_arn)'" "oidc_token_file: $tmp/token")

conf() { # LINE...: of the backend
    (umask 077 && {
        printf 'version: 1\nbackends:\n  - name: alibaba\n    type: alibaba\n    alibaba:\n'
        printf '      proxy: http://127.0.0.1:%s\n' "$(fake_field proxy)"
        printf '      %s\n' "$@"
        printf 'kms: {socket: %s, backend: alibaba, key: kek}\n' "$tmp/kms.sock"
    } >"$tmp/kmsbridge.yaml")
}
# asks NAME LINE...: kmsbridged --check finds the key, encrypts and decrypts; its last line to $said, and
# to $hosts where the proxy was asked to lead, each once
asks() {
    control '{"do":"proxied"}' >/dev/null
    conf "$@"
    said=$(timeout 30 "$daemon" --check --config "$tmp/kmsbridge.yaml" 2>&1 | tail -n 1)
    hosts=$(control '{"do":"proxied"}' | text_of hosts | tr ' ' '\n' | sort -u | tr '\n' ' ')
    hosts=${hosts% }
}
reaches() { # NAME HOSTS LINE...
    local name=$1 wanted=$2
    shift 2
    asks "$@"
    if [[ $said =~ 'good; KEK ali1-'[0-9a-f]+' encrypts and decrypts' ]]; then good "$name"; else bad "$name: $said"; fi
    if [ "$hosts" = "$wanted" ]; then good "$name: by way of $wanted"; else bad "$name: by way of \"$hosts\", not \"$wanted\""; fi
}
refuses() { # NAME PATTERN LINE...
    local name=$1 pattern=$2
    shift 2
    asks "$@"
    if [[ $said =~ $pattern && $said != *'encrypts and decrypts'* ]]; then good "$name"; else bad "$name: \"$said\", not like $pattern"; fi
}

# --- KMS -----------------------------------------------------------------------------------------

reaches 'the public endpoint' "$public" 'region: cn-hangzhou' "ca_file: $region_ca" "${by_key[@]}"
reaches 'the public endpoint, named' "$public" 'region: cn-hangzhou' 'network: public' "ca_file: $region_ca" "${by_key[@]}"
reaches 'the VPC endpoint' "$vpc" 'region: cn-hangzhou' 'network: vpc' "ca_file: $region_ca" "${by_key[@]}"
reaches 'an endpoint by its URL' "$vpc" "endpoint: https://$vpc" "ca_file: $region_ca" "${by_key[@]}"
# keys are managed where they can be: a dedicated gateway has none of that
reaches 'a dedicated instance' "$public $instance" 'region: cn-hangzhou' "endpoint: https://$instance" \
    "ca_file: $instance_ca" "management_ca_file: $region_ca" "${by_key[@]}"
reaches 'a dedicated instance, the rest in the VPC' "$vpc $instance" 'region: cn-hangzhou' 'network: vpc' \
    "endpoint: https://$instance" "ca_file: $instance_ca" "management_ca_file: $region_ca" "${by_key[@]}"
reaches 'a dedicated instance, the rest by its URL' "$vpc $instance" "management_endpoint: https://$vpc" \
    "endpoint: https://$instance" "ca_file: $instance_ca" "management_ca_file: $region_ca" "${by_key[@]}"
refuses 'the gateway alone, asked for what it has not' 'InvalidAction.NotFound: a dedicated gateway has no such action' \
    "management_endpoint: https://$instance" "management_ca_file: $instance_ca" \
    "endpoint: https://$instance" "ca_file: $instance_ca" "${by_key[@]}"

for row in "public|region: cn-hangzhou|$public" "vpc|network: vpc|$vpc"; do
    IFS='|' read -r name line host <<<"$row"
    [ "$name" = public ] || line="region: cn-hangzhou
      $line"
    refuses "$name: by the instance's CA" "https://$host: its certificate does not verify.*(issuer|self-signed)" "$line" \
        "ca_file: $instance_ca" "${by_key[@]}"
    refuses "$name: by the system's CAs" "https://$host: its certificate does not verify.*(issuer|self-signed)" "$line" "${by_key[@]}"
    control "{\"do\":\"lead\",\"host\":\"$host\",\"to\":\"sts.aliyuncs.com\"}" >/dev/null
    refuses "$name: another's certificate" "https://$host: its certificate does not verify.*$host" "$line" \
        "ca_file: $region_ca" "${by_key[@]}"
    control "{\"do\":\"lead\",\"host\":\"$host\"}" >/dev/null
done
dedicated=('region: cn-hangzhou' "endpoint: https://$instance" "management_ca_file: $region_ca" "${by_key[@]}")
refuses "instance: by the region's CA" "https://$instance: its certificate does not verify.*(issuer|self-signed)" \
    "ca_file: $region_ca" "${dedicated[@]}"
refuses "instance: by the system's CAs" "https://$instance: its certificate does not verify.*(issuer|self-signed)" "${dedicated[@]}"
control "{\"do\":\"lead\",\"host\":\"$instance\",\"to\":\"other.example\"}" >/dev/null
refuses "instance: another's certificate" "https://$instance: its certificate does not verify.*$instance" \
    "ca_file: $instance_ca" "${dedicated[@]}"
control "{\"do\":\"lead\",\"host\":\"$instance\"}" >/dev/null
# the instance's CA is trusted for the instance alone
refuses "management: by the instance's CA" "https://$public: its certificate does not verify.*(issuer|self-signed)" \
    'region: cn-hangzhou' "endpoint: https://$instance" "ca_file: $instance_ca" "management_ca_file: $instance_ca" "${by_key[@]}"
refuses 'a name that the proxy does not know' 'https://kms.cn-beijing.aliyuncs.com: .*403' 'region: cn-beijing' \
    "ca_file: $region_ca" "${by_key[@]}"

# what conf/alibaba/ hands out for it, but for the way there, and where the CAs and the metadata service are
sed -e "s|^ *endpoint: .*|&\n      proxy: http://127.0.0.1:$(fake_field proxy)|; s|^ *ca_file: .*|      ca_file: $instance_ca\n      management_ca_file: $region_ca|" \
    -e "s|credentials: ecs|credentials: ecs\n      metadata_endpoint: http://127.0.0.1:$(fake_field imds)|; s|kmsbridge-kek|kek|" \
    "$top/conf/alibaba/alibaba-instance.yaml" >"$tmp/kmsbridge.yaml"
control '{"do":"proxied"}' >/dev/null
said=$(timeout 30 "$daemon" --check --config "$tmp/kmsbridge.yaml" 2>&1 | tail -n 1)
hosts=$(control '{"do":"proxied"}' | text_of hosts)
if [[ $said == *'encrypts and decrypts'* && $hosts == *"$instance"* && $hosts == *"$vpc"* ]]; then good 'the example alibaba-instance.yaml'; else
    bad "the example alibaba-instance.yaml: $said, by way of $hosts"
fi

# --- STS -----------------------------------------------------------------------------------------

kms=('region: cn-hangzhou' "ca_file: $region_ca" "sts_ca_file: $region_ca" "${by_rrsa[@]}")
reaches "STS of the region" "$public sts.cn-hangzhou.aliyuncs.com" "${kms[@]}"
reaches "STS of the VPC" "$vpc sts-vpc.cn-hangzhou.aliyuncs.com" 'network: vpc' "${kms[@]}"
reaches "STS by its URL" "$public sts.aliyuncs.com" 'sts_endpoint: https://sts.aliyuncs.com' "${kms[@]}"
reaches "STS where no region is named" "$vpc sts.aliyuncs.com" "endpoint: https://$vpc" "${kms[@]:1}"
# what ack-pod-identity-webhook injects
ALIBABA_CLOUD_STS_ENDPOINT=sts-vpc.cn-hangzhou.aliyuncs.com \
    reaches 'STS by ALIBABA_CLOUD_STS_ENDPOINT' "$public sts-vpc.cn-hangzhou.aliyuncs.com" "${kms[@]}"
ALIBABA_CLOUD_STS_REGION=cn-beijing \
    reaches 'STS by ALIBABA_CLOUD_STS_REGION' "$public sts.cn-beijing.aliyuncs.com" "${kms[@]}"
ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED=true \
    reaches 'STS by ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED' "$public sts-vpc.cn-hangzhou.aliyuncs.com" "${kms[@]}"
ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED=false \
    reaches '... and not' "$vpc sts.cn-hangzhou.aliyuncs.com" 'network: vpc' "${kms[@]}"
ALIBABA_CLOUD_ROLE_ARN=$(fake_field role_arn) ALIBABA_CLOUD_OIDC_PROVIDER_ARN=$(fake_field provider_arn) \
    ALIBABA_CLOUD_OIDC_TOKEN_FILE=$tmp/token reaches 'RRSA by the environment alone' \
    "$public sts.cn-hangzhou.aliyuncs.com" "${kms[@]:0:3}" 'credentials: rrsa'
# what a profile of the CLI says, of its own STS and of its source's
profile() { # MORE: a role by the key, and one by that
    printf '{"name": "r", "mode": "RamRoleArn", "access_key_id": "%s", "access_key_secret": "%s", ' \
        "$(fake_field access_key)" "$(fake_field secret)"
    printf '"ram_role_arn": "%s"%s}' "$(fake_field user_role_arn)" "$1"
}
chained() { # MORE SOURCE
    printf '{"name": "c", "mode": "ChainableRamRoleArn", "source_profile": "r", "ram_role_arn": "%s"%s}, %s' \
        "$(fake_field user_role_arn)" "$1" "$2"
}
cli() { (umask 077 && printf '{"current": "%s", "profiles": [%s]}' "$1" "$2" >"$tmp/cli.json"); } # CURRENT PROFILES
kms=("${kms[@]:0:3}" 'credentials: cli' "cli_file: $tmp/cli.json")
cli r "$(profile ', "sts_region": "cn-beijing"')"
reaches "STS by a profile's sts_region" "$public sts.cn-beijing.aliyuncs.com" "${kms[@]}"
cli r "$(profile ', "enable_vpc": true')"
reaches "STS by a profile's enable_vpc" "$public sts-vpc.cn-hangzhou.aliyuncs.com" "${kms[@]}"
cli c "$(chained ', "sts_region": "cn-beijing"' "$(profile ', "enable_vpc": true')")"
reaches 'STS of each link of a chain' "$public sts-vpc.cn-hangzhou.aliyuncs.com sts.cn-beijing.aliyuncs.com" "${kms[@]}"
reaches 'one STS for all of a chain' "$public sts.aliyuncs.com" 'sts_endpoint: https://sts.aliyuncs.com' "${kms[@]}"
kms=('region: cn-hangzhou' "ca_file: $region_ca" "sts_ca_file: $region_ca" "${by_rrsa[@]}")
refuses "STS: by the instance's CA" 'https://sts.cn-hangzhou.aliyuncs.com: its certificate does not verify' \
    'region: cn-hangzhou' "ca_file: $region_ca" "sts_ca_file: $instance_ca" "${by_rrsa[@]}"
refuses "STS: by the system's CAs" 'https://sts.cn-hangzhou.aliyuncs.com: its certificate does not verify' \
    'region: cn-hangzhou' "ca_file: $region_ca" "${by_rrsa[@]}"
control "{\"do\":\"lead\",\"host\":\"sts.cn-hangzhou.aliyuncs.com\",\"to\":\"$public\"}" >/dev/null
refuses "STS: another's certificate" 'https://sts.cn-hangzhou.aliyuncs.com: its certificate does not verify' "${kms[@]}"
control '{"do":"lead","host":"sts.cn-hangzhou.aliyuncs.com"}' >/dev/null

# --- what goes by no proxy -----------------------------------------------------------------------

kms=('region: cn-hangzhou' "ca_file: $region_ca")
reaches 'the metadata service by no proxy' "$public" "${kms[@]}" 'credentials: ecs' "metadata_endpoint: http://127.0.0.1:$(fake_field imds)"
reaches 'a credentials URI by no proxy' "$public" "${kms[@]}" 'credentials: uri' "credentials_uri: http://127.0.0.1:$(fake_field uri)/credentials"
reaches 'STS on loopback by no proxy' "$public" "${kms[@]}" "sts_endpoint: http://127.0.0.1:$(fake_field sts)" "${by_rrsa[@]}"
# and no proxy of the environment
https_proxy=http://127.0.0.1:1 HTTPS_PROXY=http://127.0.0.1:1 ALL_PROXY=http://127.0.0.1:1 \
    reaches 'not by one of the environment' "$public sts.cn-hangzhou.aliyuncs.com" "${kms[@]}" "sts_ca_file: $region_ca" "${by_rrsa[@]}"

echo "$lane: $passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
