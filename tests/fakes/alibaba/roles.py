# SPDX-License-Identifier: Apache-2.0
"""STS AssumeRole: an access key takes a role. Signed as today's SDKs sign (ACS3-HMAC-SHA256, the
gateway's own check), or as the credentials SDKs still do (HMAC-SHA1 over the parameters, "V2
signature" of the vendor's documentation); each is recomputed with the key's own secret. Limits are
those of the API's reference."""
import base64
import hashlib
import hmac
import json
import re

from acs3 import Refused, quote
from keys import ACCOUNT

# Of the same account. The first trusts every key of it, the second another account.
USER_ROLE_ARN = f"acs:ram::{ACCOUNT}:role/kmsbridge-by-key"
OTHER_ROLE_ARN = f"acs:ram::{ACCOUNT}:role/of-others"
COMMON = {"Action", "Version", "Format", "Timestamp", "SignatureNonce", "SignatureMethod",
          "SignatureVersion", "AccessKeyId", "SecurityToken"}
OWN = {"RoleArn", "RoleSessionName", "DurationSeconds", "Policy", "ExternalId"}
ACTION, VERSION = "AssumeRole", "2015-04-01"


def is_asked(query, headers):
    return ACTION in (query.get("Action"), headers.get("x-acs-action"))


def allowed_by(policy):
    """What a session's policy allows at most, as patterns of actions."""
    bad = Refused(400, "InvalidParameter.PolicyGrammar",
                  "The parameter Policy has not passed grammar check.")
    try:
        document = json.loads(policy)
        statements = document["Statement"]
        if document["Version"] != "1" or not isinstance(statements, list) or not statements:
            raise bad
        patterns = []
        for statement in statements:
            actions = statement["Action"]
            if statement["Effect"] != "Allow" or "Resource" not in statement:
                raise bad  # this fake knows no Deny
            patterns += [actions] if isinstance(actions, str) else actions
        return patterns
    except (ValueError, KeyError, TypeError):
        raise bad from None


def narrowed(p):
    """What the session's own policy allows at most; None: it has none."""
    if "Policy" not in p:
        return None
    if not 1 <= len(p["Policy"]) <= 2048:
        raise Refused(400, "InvalidParameter.PolicySize", "The size of Policy must be smaller than 2048 bytes.")
    return allowed_by(p["Policy"])


class Roles:
    def __init__(self, identity):
        self.identity, self.gateway = identity, identity.gateway
        self.external_id = None  # that the first role's trust policy asks for
        self.longest = {USER_ROLE_ARN: 7200, OTHER_ROLE_ARN: 3600}  # MaxSessionDuration

    def assume(self, method, path, query, form, headers, body):
        if set(query) & set(form):
            raise Refused(400, "InvalidParameter", "a parameter stands in query and body")
        if "authorization" in headers:
            key = self.gateway.check(method, path, query, headers, body)
            if headers.get("x-acs-version") != VERSION:
                raise Refused(400, "InvalidVersion", "Specified parameter Version is not valid.")
            p = {**query, **form}
        else:
            key, p = self.check_parameters(method, {**query, **form})
        if set(p) - OWN:
            raise Refused(400, "InvalidParameter", f"unknown: {sorted(set(p) - OWN)}")
        patterns = self.check_limits(p)
        self.check_trust(p)
        given = self.identity.issue(min(int(p.get("DurationSeconds", "3600")), self.identity.lifetime))
        issued = self.gateway.keys[given["AccessKeyId"]]
        issued["allowed"], issued["session"] = patterns, {**p, "by": key["id"]}
        return {"Credentials": given,
                "AssumedRoleUser": {"Arn": f"{p['RoleArn']}/{p['RoleSessionName']}",
                                    "AssumedRoleId": f"33157794895460:{p['RoleSessionName']}"}}

    def check_parameters(self, method, p):
        """A signature among the parameters; what is left is the action's own."""
        claimed = p.pop("Signature", None)
        if claimed is None or (p.get("SignatureMethod"), p.get("SignatureVersion")) != ("HMAC-SHA1", "1.0"):
            raise Refused(400, "IncompleteSignature", "neither Authorization nor a Signature")
        if (p.get("Version"), p.get("Format", "XML").upper()) != (VERSION, "JSON"):
            raise Refused(400, "InvalidVersion", "another version, or not JSON")
        key = self.gateway.keys.get(p.get("AccessKeyId"))
        if key is None:
            raise Refused(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        text = "&".join(f"{quote(k)}={quote(p[k])}" for k in sorted(p))
        mac = hmac.new(key["secret"].encode() + b"&", f"{method}&%2F&{quote(text)}".encode(), hashlib.sha1)
        if not hmac.compare_digest(base64.b64encode(mac.digest()).decode(), claimed):
            raise Refused(400, "SignatureDoesNotMatch", "Specified signature is not matched.")
        as_headers = {"x-acs-date": p.get("Timestamp", ""), "x-acs-signature-nonce": p.get("SignatureNonce", "")}
        if "SecurityToken" in p:
            as_headers["x-acs-security-token"] = p["SecurityToken"]
        self.gateway.check_token(key, as_headers)
        self.gateway.check_time(as_headers)
        self.gateway.check_nonce(as_headers)
        return key, {name: value for name, value in p.items() if name not in COMMON}

    def check_limits(self, p):
        for name in ("RoleArn", "RoleSessionName"):
            if name not in p:
                raise Refused(400, "MissingParameter", f"{name} is mandatory for this action.")
        if not re.fullmatch(r"acs:ram::\d{16}:role/[A-Za-z0-9.-]{1,64}", p["RoleArn"]):
            raise Refused(400, "InvalidParameter.RoleArn", "The parameter RoleArn is wrongly formed.")
        if not re.fullmatch(r"[A-Za-z0-9.@_-]{2,64}", p["RoleSessionName"]):
            raise Refused(400, "InvalidParameter.RoleSessionName",
                          "The parameter RoleSessionName is wrongly formed.")
        longest = self.longest.get(p["RoleArn"], 43200)
        if not re.fullmatch(r"\d{1,6}", p.get("DurationSeconds", "3600")) or \
                not 900 <= int(p.get("DurationSeconds", "3600")) <= longest:
            raise Refused(400, "InvalidParameter.DurationSeconds",
                          f"The Min/Max value of DurationSeconds is 15min/{longest // 3600}hr.")
        if not re.fullmatch(r"[\w+=,.@:/-]{2,1224}", p.get("ExternalId", "none"), re.ASCII):
            raise Refused(400, "InvalidParameter.ExternalId", "The parameter ExternalId is wrongly formed.")
        return narrowed(p)

    def check_trust(self, p):
        if p["RoleArn"] not in self.longest:
            raise Refused(404, "EntityNotExist.Role", f"The role not exists: {p['RoleArn']}.")
        if p["RoleArn"] == OTHER_ROLE_ARN or (self.external_id or p.get("ExternalId")) != p.get("ExternalId"):
            raise Refused(403, "NoPermission",
                          "You are not authorized to do this action. You should be authorized by RAM.")
