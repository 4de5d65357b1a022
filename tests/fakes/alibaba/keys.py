# SPDX-License-Identifier: Apache-2.0
"""Keys with real cryptography. A symmetric ciphertext is the base64 of its version's id, a nonce
and AES-GCM output; the encryption context is its additional data. (An SM4 key's: SM4-CTR output and an
HMAC. The service has SM4-GCM, which OpenSSL 3.0 has not; what is in a blob is nobody's affair.)"""
import base64
import json
import os
import time
import uuid

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from acs3 import Refused

# whose all this is, and where
ACCOUNT, REGION = "1540355698840001", os.environ.get("FAKE_REGION", "cn-hangzhou")

# the usage of HMAC keys, and their KeySpecs, are guesses of ours: the vendor's list could not be had
SIGN, CRYPT, MAC = "SIGN/VERIFY", "ENCRYPT/DECRYPT", "GENERATE_VERIFY_MAC"
MACS = {f"HMAC_SHA_{bits}": getattr(hashes, f"SHA{bits}") for bits in (224, 256, 384, 512)}
SPECS = {  # KeySpec: the usages it may have, the first is the default
    **{name: (MAC,) for name in MACS},
    **{f"Aliyun_{name}": (MAC,) for name in MACS},
    "Aliyun_HMAC_256": (MAC,),
    "HMAC_SM3": (MAC,),
    "Aliyun_AES_256": (CRYPT,),
    "Aliyun_AES_192": (CRYPT,),
    "Aliyun_AES_128": (CRYPT,),
    "Aliyun_SM4": (CRYPT,),
    "RSA_2048": (SIGN, CRYPT),
    "RSA_3072": (SIGN, CRYPT),
    "RSA_4096": (SIGN, CRYPT),
    "EC_P256": (SIGN,),
    "EC_P256K": (SIGN,),
}
PREHASHED = utils.Prehashed(hashes.SHA256())
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256().digest_size)
SIGNATURES = {  # Algorithm: (kind of key, padding)
    "RSA_PSS_SHA_256": ("RSA", PSS),
    "RSA_PKCS1_SHA_256": ("RSA", padding.PKCS1v15()),
    "ECDSA_SHA_256": ("EC", None),
}
OAEPS = {
    "RSAES_OAEP_SHA_256": padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
    "RSAES_OAEP_SHA_1": padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None),
}


def arn(what):
    return f"acs:kms:{REGION}:{ACCOUNT}:{what}"


def iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def new_material(spec):
    if spec.startswith("RSA_"):
        return rsa.generate_private_key(65537, int(spec[4:]))
    if spec.startswith("EC_"):
        return ec.generate_private_key(ec.SECP256K1() if spec.endswith("K") else ec.SECP256R1())
    return os.urandom({"Aliyun_AES_128": 16, "Aliyun_AES_192": 24, "Aliyun_SM4": 16}.get(spec, 32))


class SM4:
    """What AESGCM is for AES: the same two functions, the same errors."""

    def __init__(self, key):
        self.key = key

    def _crypt(self, nonce, data):
        return Cipher(algorithms.SM4(self.key), modes.CTR(nonce + b"\0\0\0\2")).encryptor().update(data)

    def _tag(self, nonce, sealed, context):
        made = hmac.HMAC(self.key, hashes.SHA256())
        made.update(nonce + len(context).to_bytes(8, "big") + context + sealed)
        return made

    def encrypt(self, nonce, plaintext, context):
        sealed = self._crypt(nonce, plaintext)
        return sealed + self._tag(nonce, sealed, context).finalize()

    def decrypt(self, nonce, sealed, context):
        try:
            self._tag(nonce, sealed[:-32], context).verify(sealed[-32:])
        except InvalidSignature:
            raise InvalidTag from None
        return self._crypt(nonce, sealed[:-32])


def sealing(spec, version):
    return (SM4 if spec == "Aliyun_SM4" else AESGCM)(version.material)


def context_bytes(text):
    """EncryptionContext: a JSON object, texts only. Its canonical bytes."""
    if text is None:
        return b""
    try:
        context = json.loads(text)
    except ValueError:
        context = None
    if not isinstance(context, dict) or not all(isinstance(v, str) for v in context.values()):
        raise Refused(400, "InvalidParameter", "EncryptionContext is no JSON object of texts.")
    return json.dumps(context, sort_keys=True).encode()


class Version:
    def __init__(self, spec, created):
        self.id, self.created, self.material = str(uuid.uuid4()), created, new_material(spec)
        self.destroyed = False


class Key:
    def __init__(self, spec, usage, created, description="", level="SOFTWARE"):
        self.level = level  # "SOFTWARE"; "HSM": in a hardware key management instance
        self.id, self.spec, self.usage, self.state = str(uuid.uuid4()), spec, usage, "Enabled"
        self.description, self.created, self.delete_date = description, created, None
        self.versions, self.automatic = [], "Disabled"
        self.interval = None  # of automatic rotation, in seconds
        self.instance, self.protected = None, False  # DKMSInstanceId; from deletion
        self.add_version(created)

    @property
    def symmetric(self):
        return isinstance(self.primary.material, bytes)

    @property
    def primary(self):
        return self.versions[-1]

    @property
    def arn(self):
        return arn(f"key/{self.id}")

    def add_version(self, created):
        self.versions.append(Version(self.spec, created))
        return self.versions[-1]

    def version(self, version_id):
        for version in self.versions:
            if version.id == version_id and not version.destroyed:
                return version
        raise Refused(404, "Forbidden.KeyVersionNotFound", "The specified key version is not found.")

    def metadata(self):
        found = {
            "KeyId": self.id, "Arn": self.arn, "KeySpec": self.spec, "KeyUsage": self.usage,
            "KeyState": self.state, "Description": self.description, "Creator": ACCOUNT,
            "CreationDate": iso(self.created), "Origin": "Aliyun_KMS", "ProtectionLevel": self.level,
            "DeleteDate": "" if self.delete_date is None else iso(self.delete_date),
            "MaterialExpireTime": "", "AutomaticRotation": self.automatic,
            "LastRotationDate": iso(self.primary.created),
        }
        found["DeletionProtection"] = "Enabled" if self.protected else "Disabled"
        if self.interval is not None:
            found["RotationInterval"] = f"{self.interval}s"
        if self.instance is not None:
            found["DKMSInstanceId"] = self.instance
        if self.symmetric:  # "the current primary key version for the symmetric CMK"
            found["PrimaryKeyVersion"] = self.primary.id
        return found

    def may(self, usage):
        """Refuses what the key's state or usage does not allow."""
        codes = {"Disabled": "Rejected.Disabled", "PendingDeletion": "Rejected.PendingDeletion",
                 "PendingImport": "Rejected.PendingImport"}
        if self.state in codes:
            raise Refused(409, codes[self.state], f"The request is rejected because the key state is {self.state}.")
        if usage is not None and self.usage != usage:
            raise Refused(400, "UnsupportedOperation", "The key's usage does not allow this action.")

    # --- symmetric

    def seal(self, plaintext, context):
        if not self.symmetric:
            raise Refused(400, "UnsupportedOperation", "This action is for symmetric keys.")
        nonce, version = os.urandom(12), self.primary
        if version.destroyed:
            self.version(version.id)
        sealed = sealing(self.spec, version).encrypt(nonce, plaintext, context)
        return base64.b64encode(version.id.encode() + nonce + sealed).decode(), version

    def mac(self, algorithm, message):
        """With the key's only Algorithm; it has one version, and the request names none."""
        if algorithm not in MACS or self.spec.replace("Aliyun_", "") not in (algorithm, algorithm.replace("_SHA", "")):
            raise Refused(400, "InvalidParameter", "The specified parameter Algorithm is not valid.")
        made = hmac.HMAC(self.primary.material, MACS[algorithm]())
        made.update(message)
        return made.finalize()

    # --- asymmetric

    def sign(self, version, algorithm, digest):
        kind, pad = SIGNATURES[algorithm]
        if kind == "EC":
            return version.material.sign(digest, ec.ECDSA(PREHASHED))
        return version.material.sign(digest, pad, PREHASHED)

    def verify(self, version, algorithm, digest, value):
        kind, pad = SIGNATURES[algorithm]
        public = version.material.public_key()
        try:
            if kind == "EC":
                public.verify(value, digest, ec.ECDSA(PREHASHED))
            else:
                public.verify(value, digest, pad, PREHASHED)
            return True
        except InvalidSignature:
            return False

    def public_pem(self, version):
        return version.material.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()


class Store:
    def __init__(self):
        self.keys, self.aliases = {}, {}

    def find(self, name):
        if name.startswith("acs:kms:"):
            name = name.rsplit(":", 1)[1]
            name = name[4:] if name.startswith("key/") else name
        if name.startswith("alias/"):
            if name not in self.aliases:
                raise Refused(404, "Forbidden.AliasNotFound", "The specified Alias is not found.")
            name = self.aliases[name]
        if name not in self.keys:
            raise Refused(404, "Forbidden.KeyNotFound", "The specified Key is not found.")
        return self.keys[name]

    def create(self, spec, usage, created, description="", level="SOFTWARE"):
        if spec not in SPECS or (usage or SPECS[spec][0]) not in SPECS[spec]:
            raise Refused(400, "InvalidParameter", "The specified parameter KeySpec or KeyUsage is not valid.")
        key = Key(spec, usage or SPECS[spec][0], created, description, level)
        self.keys[key.id] = key
        return key

    def sealed_by(self, blob):
        """Which key sealed @blob, the id of its version, and the rest of it."""
        invalid = Refused(400, "InvalidParameter", "The specified parameter CiphertextBlob is not valid.")
        try:
            raw = base64.b64decode(blob, validate=True)
            version_id = raw[:36].decode("ascii")
        except ValueError:
            raise invalid from None
        if base64.b64encode(raw).decode() != blob:  # other bits behind the last byte: w= is 7= to b64decode()
            raise invalid
        for key in self.keys.values():
            if any(v.id == version_id for v in key.versions):
                return key, version_id, raw[36:]
        raise invalid

    def open(self, blob, context):
        """Which key and version sealed @blob, and what is in it."""
        key, version_id, sealed = self.sealed_by(blob)
        key.may(None)
        version = key.version(version_id)
        try:
            return key, version, sealing(key.spec, version).decrypt(sealed[:12], sealed[12:], context)
        except (InvalidTag, ValueError):
            raise Refused(400, "InvalidParameter",
                          "The specified parameter CiphertextBlob is not valid.") from None
