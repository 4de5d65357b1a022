# SPDX-License-Identifier: Apache-2.0
"""The vendor's own SDK against our fake: what the one sends the other must understand, byte for
byte of the signature, and what the fake refuses the SDK must report as the service's error. So the
fake and our client are not judged by each other alone.

usage: use_sdk.py PORTS    (the fake's line of JSON); prints "ok WHAT" or "FAIL WHAT: why"
"""
import base64
import functools
import hashlib
import json
import logging
import sys
import tempfile

from alibabacloud_credentials.client import Client as Credentials
from alibabacloud_credentials.models import Config as CredentialsConfig
from alibabacloud_credentials.provider import ecs_ram_role, oidc
from alibabacloud_kms20160120 import models as m
from alibabacloud_kms20160120.client import Client
from alibabacloud_tea_openapi.models import Config
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

import asked
from asked import check

ports = json.loads(sys.argv[1])
logging.disable(logging.CRITICAL)  # the SDK logs each refused credential with a traceback

control = functools.partial(asked.control, ports)


def client(key_id=None, secret=None, token=None):
    return Client(Config(access_key_id=key_id or ports["access_key"],
                         access_key_secret=secret or ports["secret"], security_token=token,
                         protocol="http", endpoint=f"127.0.0.1:{ports['kms']}", max_idle_conns=1))


def refused(what, code, function, *args):
    try:
        function(*args)
        check(what, False, "it was answered")
    except Exception as e:  # the SDK's classes differ by status
        check(what, getattr(e, "code", "") == code, f"{getattr(e, 'code', '')} {e!r}")


def b64(raw):
    return base64.b64encode(raw).decode()


kms = client()


def symmetric():
    key = kms.create_key(m.CreateKeyRequest(description="a+b c/中*~")).body.key_metadata
    check("CreateKey", key.key_state == "Enabled" and key.primary_key_version != "")
    described = kms.describe_key(m.DescribeKeyRequest(key_id=key.key_id)).body.key_metadata
    check("a description comes back whole", described.description == "a+b c/中*~", described.description)
    kms.create_alias(m.CreateAliasRequest(key_id=key.key_id, alias_name="alias/sdk-aes"))
    context = {"k": "v w", "ü": "+/="}
    secret = bytes(range(256)) * 24
    sealed = kms.encrypt(m.EncryptRequest(key_id="alias/sdk-aes", plaintext=b64(secret),
                                          encryption_context=context)).body
    check("Encrypt 6 KiB", sealed.key_id == key.key_id and sealed.key_version_id == key.primary_key_version)
    opened = kms.decrypt(m.DecryptRequest(ciphertext_blob=sealed.ciphertext_blob,
                                          encryption_context=context)).body
    check("Decrypt", base64.b64decode(opened.plaintext) == secret)
    refused("another context", "InvalidParameter", kms.decrypt, m.DecryptRequest(
        ciphertext_blob=sealed.ciphertext_blob, encryption_context={"k": "v"}))
    refused("no context", "InvalidParameter", kms.decrypt,
            m.DecryptRequest(ciphertext_blob=sealed.ciphertext_blob))
    blob = kms.encrypt(m.EncryptRequest(key_id=key.key_id, plaintext=b64(b"xyz"))).body.ciphertext_blob
    other = blob[:-3] + chr(ord(blob[-3]) + 1) + "=="
    check("a blob with bits behind its last byte", blob.endswith("==") and base64.b64decode(other) == base64.b64decode(blob))
    refused("... is another blob", "InvalidParameter", kms.decrypt, m.DecryptRequest(ciphertext_blob=other))
    refused("a byte too many", "InvalidParameter", kms.encrypt,
            m.EncryptRequest(key_id=key.key_id, plaintext=b64(secret + b"x")))
    data = kms.generate_data_key(m.GenerateDataKeyRequest(key_id=key.key_id, number_of_bytes=16)).body
    again = kms.decrypt(m.DecryptRequest(ciphertext_blob=data.ciphertext_blob)).body
    check("GenerateDataKey", again.plaintext == data.plaintext and len(base64.b64decode(data.plaintext)) == 16)
    version = kms.create_key_version(m.CreateKeyVersionRequest(key_id=key.key_id)).body.key_version
    later = kms.encrypt(m.EncryptRequest(key_id=key.key_id, plaintext=b64(b"x"))).body
    check("CreateKeyVersion: the new one encrypts", later.key_version_id == version.key_version_id)
    opened = kms.decrypt(m.DecryptRequest(ciphertext_blob=sealed.ciphertext_blob,
                                          encryption_context=context)).body
    check("the old one decrypts", opened.key_version_id == sealed.key_version_id)
    listed = kms.list_key_versions(m.ListKeyVersionsRequest(key_id=key.key_id)).body
    check("ListKeyVersions", listed.total_count == 2 and len(listed.key_versions.key_version) == 2)
    moved = kms.re_encrypt(m.ReEncryptRequest(ciphertext_blob=sealed.ciphertext_blob,
                                              source_encryption_context=context,
                                              destination_key_id=key.key_id)).body
    check("ReEncrypt", moved.key_version_id == version.key_version_id)
    moved = kms.re_encrypt(m.ReEncryptRequest(
        ciphertext_blob=sealed.ciphertext_blob, source_encryption_context=context, source_key_id=key.key_id,
        destination_encryption_context={"k": "other"}, destination_key_id=key.key_id)).body
    opened = kms.decrypt(m.DecryptRequest(ciphertext_blob=moved.ciphertext_blob,
                                          encryption_context={"k": "other"})).body
    check("ReEncrypt into another context",
          base64.b64decode(opened.plaintext) == secret and opened.key_version_id == version.key_version_id)
    refused("ReEncrypt out of another context", "InvalidParameter", kms.re_encrypt, m.ReEncryptRequest(
        ciphertext_blob=sealed.ciphertext_blob, source_encryption_context={"k": "v"},
        destination_key_id=key.key_id))
    bound = kms.generate_data_key(m.GenerateDataKeyRequest(key_id=key.key_id, number_of_bytes=64,
                                                           encryption_context=context)).body
    again = kms.decrypt(m.DecryptRequest(ciphertext_blob=bound.ciphertext_blob,
                                         encryption_context=context)).body
    check("GenerateDataKey in a context", again.plaintext == bound.plaintext
          and len(base64.b64decode(bound.plaintext)) == 64 and bound.key_version_id == version.key_version_id)
    refused("a data key out of its context", "InvalidParameter", kms.decrypt,
            m.DecryptRequest(ciphertext_blob=bound.ciphertext_blob))
    refused("too long a data key", "InvalidParameter", kms.generate_data_key,
            m.GenerateDataKeyRequest(key_id=key.key_id, number_of_bytes=1025))
    policies(key.key_id)
    states(key.key_id)


def policies(key):
    kms.update_rotation_policy(m.UpdateRotationPolicyRequest(
        key_id=key, enable_automatic_rotation=True, rotation_interval="365d"))
    kms.set_deletion_protection(m.SetDeletionProtectionRequest(
        protected_resource_arn=kms.describe_key(m.DescribeKeyRequest(key_id=key)).body.key_metadata.arn,
        enable_deletion_protection=True))
    found = kms.describe_key(m.DescribeKeyRequest(key_id=key)).body.key_metadata
    check("UpdateRotationPolicy", (found.automatic_rotation, found.rotation_interval) == ("Enabled", "31536000s"))
    check("SetDeletionProtection", found.deletion_protection == "Enabled")
    refused("a default key, every 90 days", "InvalidParameter", kms.update_rotation_policy,
            m.UpdateRotationPolicyRequest(key_id=key, enable_automatic_rotation=True, rotation_interval="90d"))
    refused("a protected key", "Rejected.DeletionProtection", kms.schedule_key_deletion,
            m.ScheduleKeyDeletionRequest(key_id=key, pending_window_in_days=7))
    kms.set_deletion_protection(m.SetDeletionProtectionRequest(
        protected_resource_arn=found.arn, enable_deletion_protection=False))


def sm4():
    """As AES, but of an instance alone; with a key of its own length, and no version where it is hardware."""
    refused("SM4 outside an instance", "InvalidParameter", kms.create_key, m.CreateKeyRequest(key_spec="Aliyun_SM4"))
    key = kms.create_key(m.CreateKeyRequest(key_spec="Aliyun_SM4", dkmsinstance_id="kst-hzz0123456789")).body.key_metadata
    check("CreateKey of SM4", key.key_spec == "Aliyun_SM4" and key.key_usage == "ENCRYPT/DECRYPT"
          and key.primary_key_version != "")
    context, secret = {"k": "v"}, bytes(range(256)) * 24
    sealed = kms.encrypt(m.EncryptRequest(key_id=key.key_id, plaintext=b64(secret), encryption_context=context)).body
    opened = kms.decrypt(m.DecryptRequest(ciphertext_blob=sealed.ciphertext_blob, encryption_context=context)).body
    check("SM4: Encrypt and Decrypt 6 KiB", base64.b64decode(opened.plaintext) == secret
          and opened.key_id == key.key_id and sealed.key_version_id == key.primary_key_version)
    refused("SM4: another context", "InvalidParameter", kms.decrypt, m.DecryptRequest(
        ciphertext_blob=sealed.ciphertext_blob, encryption_context={"k": "w"}))
    refused("SM4: a byte too many", "InvalidParameter", kms.encrypt,
            m.EncryptRequest(key_id=key.key_id, plaintext=b64(secret + b"x")))
    refused("SM4: an altered blob", "InvalidParameter", kms.decrypt, m.DecryptRequest(
        ciphertext_blob=sealed.ciphertext_blob[:100] + ("A" if sealed.ciphertext_blob[100] != "A" else "B")
        + sealed.ciphertext_blob[101:], encryption_context=context))
    data = kms.generate_data_key(m.GenerateDataKeyRequest(key_id=key.key_id, number_of_bytes=16)).body
    again = kms.decrypt(m.DecryptRequest(ciphertext_blob=data.ciphertext_blob)).body
    check("SM4: GenerateDataKey", again.plaintext == data.plaintext and len(base64.b64decode(data.plaintext)) == 16)
    version = kms.create_key_version(m.CreateKeyVersionRequest(key_id=key.key_id)).body.key_version
    moved = kms.re_encrypt(m.ReEncryptRequest(ciphertext_blob=sealed.ciphertext_blob, source_encryption_context=context,
                                              destination_key_id=key.key_id)).body
    check("SM4: CreateKeyVersion and ReEncrypt", moved.key_version_id == version.key_version_id
          and version.key_version_id != key.primary_key_version)
    hardware = control("key", spec="Aliyun_SM4", level="HSM")["id"]
    refused("SM4 in hardware has one version", "Rejected.UnsupportedOperation", kms.create_key_version,
            m.CreateKeyVersionRequest(key_id=hardware))
    refused("SM4 signs nothing", "InvalidParameter", kms.create_key, m.CreateKeyRequest(
        key_spec="Aliyun_SM4", key_usage="SIGN/VERIFY", dkmsinstance_id="kst-hzz0123456789"))


def states(key):
    kms.disable_key(m.DisableKeyRequest(key_id=key))
    refused("disabled", "Rejected.Disabled", kms.encrypt, m.EncryptRequest(key_id=key, plaintext="eA=="))
    kms.enable_key(m.EnableKeyRequest(key_id=key))
    kms.schedule_key_deletion(m.ScheduleKeyDeletionRequest(key_id=key, pending_window_in_days=7))
    refused("to be deleted", "Rejected.PendingDeletion", kms.encrypt,
            m.EncryptRequest(key_id=key, plaintext="eA=="))
    refused("no such key", "Forbidden.KeyNotFound", kms.describe_key, m.DescribeKeyRequest(key_id="x"))
    refused("no such alias", "Forbidden.AliasNotFound", kms.describe_key,
            m.DescribeKeyRequest(key_id="alias/x"))


def asymmetric():
    digest = hashlib.sha256(b"message").digest()
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    for spec, algorithm, how in (
            ("RSA_2048", "RSA_PSS_SHA_256", (pss, utils.Prehashed(hashes.SHA256()))),
            ("RSA_3072", "RSA_PKCS1_SHA_256", (padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))),
            ("EC_P256", "ECDSA_SHA_256", (ec.ECDSA(utils.Prehashed(hashes.SHA256())),))):
        key = kms.create_key(m.CreateKeyRequest(key_spec=spec, key_usage="SIGN/VERIFY")).body.key_metadata
        version = kms.list_key_versions(m.ListKeyVersionsRequest(key_id=key.key_id)).body.key_versions.key_version[0]
        at = {"key_id": key.key_id, "key_version_id": version.key_version_id}
        value = kms.asymmetric_sign(m.AsymmetricSignRequest(algorithm=algorithm, digest=b64(digest), **at)).body.value
        public = serialization.load_pem_public_key(
            kms.get_public_key(m.GetPublicKeyRequest(**at)).body.public_key.encode())
        public.verify(base64.b64decode(value), digest, *how)
        good = kms.asymmetric_verify(m.AsymmetricVerifyRequest(algorithm=algorithm, digest=b64(digest), value=value, **at)).body
        other = kms.asymmetric_verify(m.AsymmetricVerifyRequest(algorithm=algorithm, digest=b64(bytes(32)), value=value, **at)).body
        check(f"{algorithm} with {spec}", good.value is True and other.value is False)
        refused(f"{spec}: a short digest", "InvalidParameter", kms.asymmetric_sign,
                m.AsymmetricSignRequest(algorithm=algorithm, digest="eA==", **at))
    key = kms.create_key(m.CreateKeyRequest(key_spec="RSA_2048", key_usage="ENCRYPT/DECRYPT")).body.key_metadata
    version = kms.list_key_versions(m.ListKeyVersionsRequest(key_id=key.key_id)).body.key_versions.key_version[0]
    at = {"key_id": key.key_id, "key_version_id": version.key_version_id}
    for algorithm in ("RSAES_OAEP_SHA_256", "RSAES_OAEP_SHA_1"):
        blob = kms.asymmetric_encrypt(m.AsymmetricEncryptRequest(algorithm=algorithm, plaintext=b64(b"oaep"), **at)).body
        back = kms.asymmetric_decrypt(m.AsymmetricDecryptRequest(algorithm=algorithm, ciphertext_blob=blob.ciphertext_blob, **at)).body
        check(algorithm, base64.b64decode(back.plaintext) == b"oaep")


def macs():
    for bits in (224, 256, 384, 512):
        key = kms.create_key(m.CreateKeyRequest(key_spec=f"HMAC_SHA_{bits}")).body.key_metadata
        at = {"key_id": key.key_id, "algorithm": f"HMAC_SHA_{bits}"}
        made = kms.generate_mac(m.GenerateMacRequest(message=b64(b"message"), **at)).body
        check(f"HMAC_SHA_{bits}", len(base64.b64decode(made.mac)) == bits // 8 and made.key_id == key.key_id
              and made.algorithm == at["algorithm"])
        good = kms.verify_mac(m.VerifyMacRequest(message=b64(b"message"), mac=made.mac, **at)).body
        other = kms.verify_mac(m.VerifyMacRequest(message=b64(b"massage"), mac=made.mac, **at)).body
        check(f"HMAC_SHA_{bits} verified", good.value is True and other.value is False
              and good.key_id == key.key_id and good.algorithm == at["algorithm"])
    refused("another algorithm", "InvalidParameter", kms.generate_mac,
            m.GenerateMacRequest(key_id=key.key_id, algorithm="HMAC_SHA_256", message=b64(b"x")))
    aes = kms.create_key(m.CreateKeyRequest()).body.key_metadata.key_id
    refused("a MAC by an AES key", "UnsupportedOperation", kms.generate_mac,
            m.GenerateMacRequest(key_id=aes, algorithm="HMAC_SHA_256", message=b64(b"x")))
    refused("encrypting by an HMAC key", "UnsupportedOperation", kms.encrypt,
            m.EncryptRequest(key_id=key.key_id, plaintext="eA=="))


def lists():
    for i in range(12):
        control("key", alias=f"sdk-{i}")
    seen, page = set(), 1
    while True:
        body = kms.list_keys(m.ListKeysRequest(page_number=page, page_size=5)).body
        seen |= {k.key_id for k in body.keys.key or []}
        if page * 5 >= body.total_count:
            break
        page += 1
    check("ListKeys by pages", len(seen) == body.total_count >= 12)
    aliases = kms.list_aliases(m.ListAliasesRequest(page_size=100)).body.aliases.alias
    check("ListAliases", "alias/sdk-11" in {a.alias_name for a in aliases})


def signatures():
    listing = m.ListKeysRequest()
    refused("a wrong secret", "SignatureDoesNotMatch", client(secret="no").list_keys, listing)
    refused("no such access key", "InvalidAccessKeyId.NotFound", client(key_id="LTAIno").list_keys, listing)
    sts = control("issue")
    temporary = client(sts["AccessKeyId"], sts["AccessKeySecret"], sts["SecurityToken"])
    check("an STS key", temporary.list_keys(listing).body.total_count > 0)
    refused("another token", "InvalidSecurityToken.MismatchWithAccessKey",
            client(sts["AccessKeyId"], sts["AccessKeySecret"], "x").list_keys, listing)
    control("expire")
    refused("an expired token", "InvalidSecurityToken.Expired", temporary.list_keys, listing)
    control("skew", seconds=3600)
    refused("a clock that is wrong", "InvalidTimeStamp.Expired", kms.list_keys, listing)
    control("clear")
    control("fault", on="kms", kind="error", status=429, code="Rejected.Throttling")
    refused("throttled", "Rejected.Throttling", kms.list_keys, listing)


def by_credentials(credential):
    return Client(Config(credential=credential, protocol="http", endpoint=f"127.0.0.1:{ports['kms']}"))


def to_fake(module, name, port):
    """The SDK's provider insists on https, or on a fixed address: only that is changed."""
    original = module.TeaCore

    class Core(original):
        @staticmethod
        def do_action(request, options=None):
            request.protocol, request.port = "http", port
            request.headers["host"] = "127.0.0.1"
            return original.do_action(request, options)
    setattr(module, name, Core)


def providers():
    listing = m.ListKeysRequest()
    to_fake(oidc, "TeaCore", ports["sts"])
    to_fake(ecs_ram_role, "TeaCore", ports["imds"])
    with tempfile.NamedTemporaryFile("w") as f:
        f.write(control("token")["token"])
        f.flush()
        config = CredentialsConfig(type="oidc_role_arn", role_arn=ports["role_arn"],
                                   oidc_provider_arn=ports["provider_arn"],
                                   oidc_token_file_path=f.name, role_session_name="sdk")
        check("RRSA", by_credentials(Credentials(config)).list_keys(listing).body.total_count > 0)
        for what, over in (("expired", {"lifetime": -5}), ("of another audience", {"aud": "x"}),
                           ("of another subject", {"sub": "x"}), ("of another issuer", {"iss": "https://x"}),
                           ("with another key", {"forged": True}), ("with alg none", {"alg": "none"})):
            f.seek(0)
            f.truncate()
            f.write(control("token", **over)["token"])
            f.flush()
            try:
                by_credentials(Credentials(config)).list_keys(listing)
                check(f"a token {what}", False, "it was taken")
            except Exception as e:
                check(f"a token {what}", "AuthenticationFail" in str(e), repr(e))
    for mode in ("v2", "v1"):
        control("identity", imds=mode)
        config = CredentialsConfig(type="ecs_ram_role", role_name="" if mode == "v2" else ports["role"])
        check(f"ECS metadata {mode}", by_credentials(Credentials(config)).list_keys(listing).body.total_count > 0)
    control("identity")
    config = CredentialsConfig(type="credentials_uri", credentials_uri=f"http://127.0.0.1:{ports['uri']}/credentials")
    check("credentials URI", by_credentials(Credentials(config)).list_keys(listing).body.total_count > 0)


for part in (symmetric, sm4, asymmetric, macs, lists, signatures, providers):
    try:
        part()
    except Exception as e:
        check(part.__name__, False, repr(e))
