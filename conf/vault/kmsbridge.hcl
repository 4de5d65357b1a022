# SPDX-License-Identifier: Apache-2.0
# What kmsbridged may do in HashiCorp Vault or OpenBao, for a Transit engine at transit/:
#   bao policy write kmsbridge kmsbridge.hcl
# Never `create` on transit/encrypt/: Transit would make a key that is missing, silently, and what
# is sealed under it is lost to the key that was meant. It can be forbidden for all, too:
#   bao write transit/config/keys disable_upsert=true

# the KEK of kube-apiserver
path "transit/keys/kmsbridge-kek" {
  capabilities = ["read"]
}
path "transit/encrypt/kmsbridge-kek" {
  capabilities = ["update"]
}
path "transit/decrypt/kmsbridge-kek" {
  capabilities = ["update"]
}

# For PKCS#11 applications through the agent, besides: the list of keys, and what is done with them.
# path "transit/keys" { capabilities = ["list"] }
# path "transit/keys/*" { capabilities = ["read"] }
# path "transit/sign/*" { capabilities = ["update"] }
# path "transit/verify/*" { capabilities = ["update"] }
# path "transit/hmac/*" { capabilities = ["update"] }
# path "transit/random" { capabilities = ["update"] }
# Data keys that Transit makes (CKM_KMSBRIDGE_DATA_KEY_GEN), besides encrypt and decrypt as above:
# path "transit/datakey/plaintext/*" { capabilities = ["update"] }
# To make keys (kmsbridgectl keys create, C_GenerateKey) and their next versions:
# path "transit/keys/*" { capabilities = ["create", "read", "update"] }
# path "transit/keys/+/rotate" { capabilities = ["update"] }

# The policy `default`, which every token has unless it was left out, lets a token look itself up and
# renew itself; without it:
# path "auth/token/lookup-self" { capabilities = ["read"] }
# path "auth/token/renew-self" { capabilities = ["update"] }
