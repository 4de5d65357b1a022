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
# Of a mount that others use, too, the keys are shown that may be read.
# path "transit/keys" { capabilities = ["list"] }
# path "transit/keys/*" { capabilities = ["read"] }
# path "transit/sign/*" { capabilities = ["update"] }
# path "transit/verify/*" { capabilities = ["update"] }
# path "transit/hmac/*" { capabilities = ["update"] }
# path "transit/random" { capabilities = ["update"] }
# Keys that encrypt and wrap: encrypt and decrypt as above, and for data keys that Transit makes
# (CKM_KMSBRIDGE_DATA_KEY_GEN)
# path "transit/datakey/plaintext/kmsbridge-kek" { capabilities = ["update"] }

# For an operator, with a login of his own if the daemon need not have it. The next version of a key
# (kmsbridgectl keys rotate), and what was wrapped under older ones put under it (keys rewrap):
# path "transit/keys/kmsbridge-kek/rotate" { capabilities = ["update"] }
# path "transit/rewrap/kmsbridge-kek" { capabilities = ["update"] }
# To make keys (keys create, C_GenerateKey); not `*`, which would let it change the config of all:
# path "transit/keys/+" { capabilities = ["create", "read", "update"] }
# path "transit/keys/+/rotate" { capabilities = ["update"] }

# The policy `default`, which every token has unless it was left out, lets a token look itself up and
# renew itself. Without these rights it is replaced by another login ahead of its end; a token from a
# file is used for as long as it is good:
# path "auth/token/lookup-self" { capabilities = ["read"] }
# path "auth/token/renew-self" { capabilities = ["update"] }
