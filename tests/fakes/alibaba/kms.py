# SPDX-License-Identifier: Apache-2.0
"""The KMS API 2016-01-20, as far as kmsbridge and the vendor's SDK use it in our tests. Parameter
names and reply fields are those of the vendor's SDK (alibabacloud-kms20160120); limits and error
codes those of its documentation. Stricter than the service: a parameter it does not know is an
error."""
import base64
import os
import re

from cryptography.hazmat.primitives import constant_time

from acs3 import Refused
from keys import CRYPT, MAC, OAEPS, SIGN, SIGNATURES, arn, context_bytes, iso

PLAINTEXT_MAX = 6 * 1024
MESSAGE_MAX = 6 * 1024  # of a MAC: a limit of ours, the service's is not documented
CONTEXT_MAX = 8192  # a limit of ours: the service's is not documented
ALIAS = re.compile(r"alias/[A-Za-z0-9_/-]{1,249}")
ACTIONS = {}  # name: (function, mandatory parameters, optional ones)
# what a dedicated instance's gateway has: cryptography, but for ReEncrypt ("Alibaba Cloud SDK" in the guide)
DEDICATED = {"Encrypt", "Decrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "AsymmetricSign",
             "AsymmetricVerify", "AsymmetricEncrypt", "AsymmetricDecrypt", "GetPublicKey", "GenerateMac",
             "VerifyMac"}


# "Key management types and key specifications": no default key has these
INSTANCES_ONLY = {"Aliyun_AES_128", "Aliyun_AES_192", "Aliyun_SM4"}


def enters(actions):
    """The decorator of what is an action of one service, for the table of that service."""
    def action(mandatory="", optional=""):
        def enter(function):
            actions[function.__name__] = (function, set(mandatory.split()), set(optional.split()))
            return function
        return enter
    return action


action = enters(ACTIONS)


def invalid(name):
    return Refused(400, "InvalidParameter", f"The specified parameter {name} is not valid.")


def unbase64(p, name, low, high):
    try:
        raw = base64.b64decode(p[name], validate=True)
    except ValueError:
        raise invalid(name) from None
    if not low <= len(raw) <= high or base64.b64encode(raw).decode() != p[name]:
        raise invalid(name)
    return raw


def number(p, name, default, low, high):
    text = p.get(name, str(default))
    if not re.fullmatch(r"\d{1,9}", text) or not low <= int(text) <= high:
        raise invalid(name)
    return int(text)


def context(p, name="EncryptionContext"):
    if len(p.get(name, "")) > CONTEXT_MAX:
        raise invalid(name)
    return context_bytes(p.get(name))


def b64(raw):
    return base64.b64encode(raw).decode()


def usable(s, p, usage):
    key = s.store.find(p["KeyId"])
    key.may(usage)
    return key


def page(s, p, rows, outer, inner):
    size, at = number(p, "PageSize", 10, 1, 100), number(p, "PageNumber", 1, 1, 10**8)
    return {outer: {inner: rows[(at - 1) * size:at * size]}, "TotalCount": len(rows),
            "PageNumber": at, "PageSize": size}


# --- symmetric -----------------------------------------------------------------------------------

@action("KeyId Plaintext", "EncryptionContext DryRun")
def Encrypt(s, p):
    key = usable(s, p, CRYPT)
    blob, version = key.seal(unbase64(p, "Plaintext", 1, PLAINTEXT_MAX), context(p))
    return {"KeyId": key.id, "KeyVersionId": version.id, "CiphertextBlob": blob}


@action("CiphertextBlob", "EncryptionContext DryRun")
def Decrypt(s, p):
    key, version, plaintext = s.store.open(p["CiphertextBlob"], context(p))
    return {"KeyId": key.id, "KeyVersionId": version.id, "Plaintext": b64(plaintext)}


@action("KeyId", "KeySpec NumberOfBytes EncryptionContext DryRun")
def GenerateDataKey(s, p):
    key = usable(s, p, CRYPT)
    sizes = {"AES_256": 32, "AES_128": 16}
    if "KeySpec" in p and p["KeySpec"] not in sizes:
        raise invalid("KeySpec")
    size = number(p, "NumberOfBytes", sizes[p.get("KeySpec", "AES_256")], 1, 1024)
    plaintext = os.urandom(size)
    blob, version = key.seal(plaintext, context(p))
    return {"KeyId": key.id, "KeyVersionId": version.id, "CiphertextBlob": blob,
            "Plaintext": b64(plaintext)}


@action("KeyId", "KeySpec NumberOfBytes EncryptionContext DryRun")
def GenerateDataKeyWithoutPlaintext(s, p):
    reply = GenerateDataKey(s, p)
    del reply["Plaintext"]
    return reply


@action("CiphertextBlob DestinationKeyId",
        "SourceEncryptionContext DestinationEncryptionContext SourceKeyId SourceKeyVersionId "
        "SourceEncryptionAlgorithm DryRun")
def ReEncrypt(s, p):
    target = s.store.find(p["DestinationKeyId"])
    target.may(CRYPT)
    _, _, plaintext = s.store.open(p["CiphertextBlob"], context(p, "SourceEncryptionContext"))
    blob, version = target.seal(plaintext, context(p, "DestinationEncryptionContext"))
    return {"KeyId": target.id, "KeyVersionId": version.id, "CiphertextBlob": blob}


# --- asymmetric ----------------------------------------------------------------------------------

def signing(s, p):
    key = usable(s, p, SIGN)
    algorithm = p["Algorithm"]
    if algorithm not in SIGNATURES or not key.spec.startswith(SIGNATURES[algorithm][0] + "_"):
        raise invalid("Algorithm")
    return key, key.version(p["KeyVersionId"]), unbase64(p, "Digest", 32, 32)


@action("KeyId KeyVersionId Algorithm Digest", "DryRun")
def AsymmetricSign(s, p):
    key, version, digest = signing(s, p)
    return {"KeyId": key.id, "KeyVersionId": version.id,
            "Value": b64(key.sign(version, p["Algorithm"], digest))}


@action("KeyId KeyVersionId Algorithm Digest Value", "DryRun")
def AsymmetricVerify(s, p):
    key, version, digest = signing(s, p)
    return {"KeyId": key.id, "KeyVersionId": version.id,
            "Value": key.verify(version, p["Algorithm"], digest, unbase64(p, "Value", 1, 1024))}


def crypting(s, p):
    key = usable(s, p, CRYPT)
    if p["Algorithm"] not in OAEPS or not key.spec.startswith("RSA_"):
        raise invalid("Algorithm")
    return key, key.version(p["KeyVersionId"]), OAEPS[p["Algorithm"]]


@action("KeyId KeyVersionId Algorithm Plaintext", "DryRun")
def AsymmetricEncrypt(s, p):
    key, version, oaep = crypting(s, p)
    try:
        sealed = version.material.public_key().encrypt(unbase64(p, "Plaintext", 1, 446), oaep)
    except ValueError:
        raise invalid("Plaintext") from None
    return {"KeyId": key.id, "KeyVersionId": version.id, "CiphertextBlob": b64(sealed)}


@action("KeyId KeyVersionId Algorithm CiphertextBlob", "DryRun")
def AsymmetricDecrypt(s, p):
    key, version, oaep = crypting(s, p)
    try:
        plaintext = version.material.decrypt(unbase64(p, "CiphertextBlob", 1, 512), oaep)
    except ValueError:
        raise invalid("CiphertextBlob") from None
    return {"KeyId": key.id, "KeyVersionId": version.id, "Plaintext": b64(plaintext)}


@action("KeyId KeyVersionId", "DryRun")
def GetPublicKey(s, p):
    key = usable(s, p, None)
    if key.symmetric:
        raise Refused(400, "UnsupportedOperation", "This action is for asymmetric keys.")
    version = key.version(p["KeyVersionId"])
    return {"KeyId": key.id, "KeyVersionId": version.id, "PublicKey": key.public_pem(version)}


# --- MACs: a reply names no version -------------------------------------------------------------

@action("KeyId Algorithm Message", "DryRun")
def GenerateMac(s, p):
    key = usable(s, p, MAC)
    made = key.mac(p["Algorithm"], unbase64(p, "Message", 1, MESSAGE_MAX))
    return {"KeyId": key.id, "Algorithm": p["Algorithm"], "Mac": b64(made)}


@action("KeyId Algorithm Message Mac", "DryRun")
def VerifyMac(s, p):
    key = usable(s, p, MAC)
    made = key.mac(p["Algorithm"], unbase64(p, "Message", 1, MESSAGE_MAX))
    return {"KeyId": key.id, "Algorithm": p["Algorithm"],
            "Value": constant_time.bytes_eq(made, unbase64(p, "Mac", 1, 64))}


# --- keys ----------------------------------------------------------------------------------------

@action("", "PageNumber PageSize Filters")
def ListKeys(s, p):
    rows = [{"KeyId": key.id, "KeyArn": key.arn} for key in s.store.keys.values()]
    return page(s, p, rows, "Keys", "Key")


@action("KeyId")
def DescribeKey(s, p):
    return {"KeyMetadata": s.store.find(p["KeyId"]).metadata()}


def version_row(key, version):
    return {"KeyId": key.id, "KeyVersionId": version.id, "CreationDate": iso(version.created)}


@action("KeyId", "PageNumber PageSize")
def ListKeyVersions(s, p):
    key = s.store.find(p["KeyId"])
    rows = [version_row(key, v) for v in key.versions if not v.destroyed]
    return page(s, p, rows, "KeyVersions", "KeyVersion")


@action("KeyId KeyVersionId")
def DescribeKeyVersion(s, p):
    key = s.store.find(p["KeyId"])
    return {"KeyVersion": version_row(key, key.version(p["KeyVersionId"]))}


@action("", "KeySpec KeyUsage Description Origin ProtectionLevel EnableAutomaticRotation "
            "RotationInterval DKMSInstanceId Tags Policy KeyStorageMechanism")
def CreateKey(s, p):
    if len(p.get("Description", "")) > 8192:
        raise invalid("Description")
    if p.get("Origin", "Aliyun_KMS") not in ("Aliyun_KMS", "EXTERNAL"):
        raise invalid("Origin")
    if p.get("KeySpec") in INSTANCES_ONLY and "DKMSInstanceId" not in p:
        raise invalid("KeySpec")
    key = s.store.create(p.get("KeySpec", "Aliyun_AES_256"), p.get("KeyUsage"), s.created(),
                         p.get("Description", ""))
    key.instance = p.get("DKMSInstanceId")
    if p.get("Origin") == "EXTERNAL":
        key.state = "PendingImport"
    return {"KeyMetadata": key.metadata()}


@action("KeyId")
def CreateKeyVersion(s, p):
    key = usable(s, p, None)
    if key.usage == MAC:
        raise Refused(400, "UnsupportedOperation", "HMAC keys do not rotate.")
    if key.level == "HSM":  # "Configure key rotation": software-protected keys alone have versions
        raise Refused(400, "Rejected.UnsupportedOperation", "Unsupported operation.")
    return {"KeyVersion": version_row(key, key.add_version(s.created()))}


@action("KeyId PendingWindowInDays")
def ScheduleKeyDeletion(s, p):
    key = s.store.find(p["KeyId"])
    days = number(p, "PendingWindowInDays", 0, 7, 366)
    if key.protected:  # the code is a guess of ours
        raise Refused(409, "Rejected.DeletionProtection", "The key is protected from deletion.")
    if key.state == "PendingDeletion":
        key.may(None)
    key.state, key.delete_date = "PendingDeletion", s.gateway.now() + days * 86400
    return {}


@action("KeyId")
def CancelKeyDeletion(s, p):
    key = s.store.find(p["KeyId"])
    if key.state != "PendingDeletion":
        raise Refused(409, "Rejected.Enabled", "The key is not to be deleted.")
    key.state, key.delete_date = "Enabled", None
    return {}


@action("KeyId")
def EnableKey(s, p):
    key = s.store.find(p["KeyId"])
    if key.state in ("PendingDeletion", "PendingImport"):
        key.may(None)
    key.state = "Enabled"
    return {}


@action("KeyId")
def DisableKey(s, p):
    key = s.store.find(p["KeyId"])
    if key.state in ("PendingDeletion", "PendingImport"):
        key.may(None)
    key.state = "Disabled"
    return {}


UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def boolean(p, name):
    text = p[name].lower()  # the SDK for Python has a capital
    if text not in ("true", "false"):
        raise invalid(name)
    return text == "true"


@action("KeyId EnableAutomaticRotation", "RotationInterval")
def UpdateRotationPolicy(s, p):
    """The intervals are those of the vendor's documentation: 365 days for a default key, 7 to 365 for
    one of an instance."""
    key = usable(s, p, None)
    if not boolean(p, "EnableAutomaticRotation"):
        key.automatic, key.interval = "Disabled", None
        return {}
    if not key.symmetric or key.usage == MAC or key.level == "HSM":
        raise Refused(400, "Rejected.UnsupportedOperation", "Unsupported operation.")
    match = re.fullmatch(r"(\d{1,8})([dhms])", p.get("RotationInterval", ""))
    seconds = int(match[1]) * UNITS[match[2]] if match else 0
    if not (7 if key.instance else 365) * 86400 <= seconds <= 365 * 86400:
        raise invalid("RotationInterval")
    key.automatic, key.interval = "Enabled", seconds
    return {}


@action("ProtectedResourceArn EnableDeletionProtection", "DeletionProtectionDescription")
def SetDeletionProtection(s, p):
    key = next((key for key in s.store.keys.values() if key.arn == p["ProtectedResourceArn"]), None)
    if key is None:
        raise Refused(404, "Forbidden.KeyNotFound", "The specified Key is not found.")
    if key.state == "PendingDeletion":
        key.may(None)
    key.protected = boolean(p, "EnableDeletionProtection")
    return {}


# --- aliases -------------------------------------------------------------------------------------

@action("KeyId AliasName")
def CreateAlias(s, p):
    key = s.store.find(p["KeyId"])
    if not ALIAS.fullmatch(p["AliasName"]):
        raise invalid("AliasName")
    if p["AliasName"] in s.store.aliases:
        raise Refused(409, "Rejected.AlreadyExist", "The specified alias already exists.")
    s.store.aliases[p["AliasName"]] = key.id
    return {}


@action("KeyId AliasName")
def UpdateAlias(s, p):
    key = s.store.find(p["KeyId"])
    s.store.find(p["AliasName"])
    s.store.aliases[p["AliasName"]] = key.id
    return {}


@action("AliasName")
def DeleteAlias(s, p):
    s.store.find(p["AliasName"])
    del s.store.aliases[p["AliasName"]]
    return {}


def alias_row(s, name):
    return {"AliasName": name, "KeyId": s.store.aliases[name],
            "AliasArn": arn(name)}


@action("", "PageNumber PageSize")
def ListAliases(s, p):
    return page(s, p, [alias_row(s, n) for n in sorted(s.store.aliases)], "Aliases", "Alias")


@action("KeyId", "PageNumber PageSize")
def ListAliasesByKeyId(s, p):
    key = s.store.find(p["KeyId"])
    names = sorted(n for n, k in s.store.aliases.items() if k == key.id)
    return page(s, p, [alias_row(s, n) for n in names], "Aliases", "Alias")


def rights(state, name, params):
    """What a caller must be allowed: [(action of RAM, ARN)], by the vendor's table of both."""
    store, right = state.store, "kms:" + name
    if name in ("CreateKey", "ListKeys"):
        return [(right, arn("key"))]
    if name == "ListAliases":
        return [(right, arn("alias"))]
    if name == "ReEncrypt":  # one action, two rights
        return [("kms:ReEncryptFrom", store.sealed_by(params["CiphertextBlob"])[0].arn),
                ("kms:ReEncryptTo", store.find(params["DestinationKeyId"]).arn)]
    if name == "Decrypt":
        return [(right, store.sealed_by(params["CiphertextBlob"])[0].arn)]
    key = params.get("KeyId") or params.get("ProtectedResourceArn") or params["AliasName"]
    aliases = [alias for alias in (key, params.get("AliasName", "")) if alias.startswith("alias/")]
    return [(right, store.find(key).arn)] + [(right, arn(alias)) for alias in set(aliases)]


def call(state, name, params, actions=None, check=lambda: None):
    """One action, its parameters checked against its row, and then whether the caller may."""
    actions = ACTIONS if actions is None else actions
    if name not in actions:
        raise Refused(404, "InvalidAction.NotFound", "Specified api is not found.")
    function, mandatory, optional = actions[name]
    for param in sorted(mandatory - set(params)):
        raise Refused(400, "MissingParameter", f"The parameter {param} needed to be specified.")
    for param in sorted(set(params) - mandatory - optional):
        raise invalid(param)
    check()
    return function(state, params)
