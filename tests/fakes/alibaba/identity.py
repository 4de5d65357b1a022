# SPDX-License-Identifier: Apache-2.0
"""Where credentials come from: STS AssumeRoleWithOIDC, which verifies the token as the service
does (RS256 against the issuer's JWKS, iss, aud, exp, sub), the ECS metadata service, and a
credentials URI."""
import base64
import calendar
import json
import os
import re
import secrets
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from acs3 import Refused
from keys import ACCOUNT, REGION, iso
from roles import narrowed

CLUSTER = os.environ.get("FAKE_CLUSTER", "c0123456789")
ISSUER = f"https://oidc-ack-{REGION}.oss-{REGION}.aliyuncs.com/{CLUSTER}"
AUDIENCE = "sts.aliyuncs.com"
SUBJECT = "system:serviceaccount:kube-system:kmsbridge"
PROVIDER_ARN = f"acs:ram::{ACCOUNT}:oidc-provider/ack-rrsa-{CLUSTER}"
ROLE_ARN = f"acs:ram::{ACCOUNT}:role/kmsbridge"
ROLE = "kmsbridge-node"  # of the metadata service


def b64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64url(text):
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


class Issuer:
    """The cluster's OIDC issuer: one key, published as JWKS."""

    def __init__(self):
        self.key, self.kid = rsa.generate_private_key(65537, 2048), "fake-1"

    def jwks(self):
        n = self.key.public_key().public_numbers()
        return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid,
                          "n": b64url(n.n.to_bytes(256, "big")), "e": b64url(n.e.to_bytes(3, "big"))}]}

    def token(self, now, **over):
        """A projected service account token; @over replaces claims, "alg", "kid" and "forged"."""
        header = {"alg": over.pop("alg", "RS256"), "kid": over.pop("kid", self.kid), "typ": "JWT"}
        forged = over.pop("forged", False)
        claims = {"iss": ISSUER, "aud": [AUDIENCE], "sub": SUBJECT, "iat": int(now), "nbf": int(now),
                  "exp": int(now) + int(over.pop("lifetime", 3600)), **over}
        text = ".".join(b64url(json.dumps(part).encode()) for part in (header, claims))
        key = rsa.generate_private_key(65537, 2048) if forged else self.key
        return text + "." + b64url(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))


def verify(token, jwks, now):
    """The claims of a token, or what STS answers."""
    bad = Refused(400, "AuthenticationFail.OIDCToken.Invalid", "This JWT is invalid.")
    try:
        head, body, tail = token.split(".")
        header, claims = json.loads(unb64url(head)), json.loads(unb64url(body))
        jwk = next(k for k in jwks["keys"] if k["kid"] == header["kid"])
        if header["alg"] != "RS256":
            raise bad
        numbers = [int.from_bytes(unb64url(jwk[c]), "big") for c in "en"]
        rsa.RSAPublicNumbers(*numbers).public_key().verify(
            unb64url(tail), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, KeyError, StopIteration, InvalidSignature):
        raise bad from None
    if claims.get("iss") != ISSUER:
        raise Refused(400, "AuthenticationFail.IssuerMismatch", "The issuer does not match.")
    if now >= claims.get("exp", 0):
        raise Refused(400, "AuthenticationFail.OIDCToken.Expired", "This JWT has expired.")
    if now < claims.get("nbf", 0):
        raise bad
    audience = claims.get("aud")
    if AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
        raise Refused(400, "AuthenticationFail.AudienceMismatch", "The client id does not match.")
    return claims


class Given:
    """Where no RAM is kept (ram.py): one role that trusts one subject, one of the machine, and they may all."""

    instance_role = ROLE

    def role(self, role_arn):
        if role_arn != ROLE_ARN:
            raise Refused(404, "EntityNotExist.Role", "The role not exists.")
        return role_arn.rsplit("/", 1)[1]

    def trusts(self, role, claims):
        return claims.get("sub") == SUBJECT

    def rights_of(self, role):
        return None


class Identity:
    def __init__(self, gateway):
        self.gateway, self.issuer, self.ram = gateway, Issuer(), Given()
        self.lifetime = 3600  # of what the metadata service and the URI hand out
        self.imds, self.tokens = "both", {}  # "v2": token mode only; "v1": it has no tokens; "off"
        self.nonces = set()

    def issue(self, seconds, role=None):
        """A fresh STS access key, with the rights of @role."""
        key_id, secret = "STS." + secrets.token_hex(10), secrets.token_hex(20)
        token, expires = "CAIS" + secrets.token_urlsafe(600), self.gateway.now() + seconds
        self.gateway.add(key_id, secret, token, expires, role and self.ram.rights_of(role))
        return {"AccessKeyId": key_id, "AccessKeySecret": secret, "SecurityToken": token,
                "Expiration": iso(expires)}

    # --- STS

    def sts(self, query, form, headers):
        if set(query) & set(form):
            raise Refused(400, "InvalidParameter", "a parameter stands in query and body")
        p = {**query, **form}
        if "authorization" in headers or "Signature" in p:
            raise Refused(400, "InvalidParameter", "AssumeRoleWithOIDC is anonymous")
        self.check_common(p)
        for name in ("RoleArn", "OIDCProviderArn", "OIDCToken", "RoleSessionName"):
            if name not in p:
                raise Refused(400, "MissingParameter", f"{name} is mandatory for this action.")
        if not 4 <= len(p["OIDCToken"]) <= 20000:
            raise Refused(400, "InvalidParameter.OIDCToken", "4 to 20000 characters")
        if not re.fullmatch(r"[A-Za-z0-9.@_-]{2,64}", p["RoleSessionName"]):
            raise Refused(400, "InvalidParameter.RoleSessionName", "The RoleSessionName is wrong.")
        seconds = p.get("DurationSeconds", "3600")
        if not re.fullmatch(r"\d{1,6}", seconds) or not 900 <= int(seconds) <= 43200:
            raise Refused(400, "InvalidParameter.DurationSeconds", "The Min/Max value is wrong.")
        if p["OIDCProviderArn"] != PROVIDER_ARN:
            raise Refused(404, "EntityNotExist.OIDCProvider", "The OIDC provider does not exist.")
        patterns = narrowed(p)
        role = self.ram.role(p["RoleArn"])
        claims = verify(p["OIDCToken"], self.issuer.jwks(), self.gateway.now())
        if not self.ram.trusts(role, claims):
            raise Refused(403, "AuthenticationFail.NoPermission",
                          "This operator is not authorized to perform this action: the role's policy.")
        given = self.issue(min(int(seconds), self.lifetime), role)
        issued = self.gateway.keys[given["AccessKeyId"]]
        issued["allowed"] = patterns
        issued["session"] = {"by": PROVIDER_ARN, **{
            name: p[name] for name in ("RoleArn", "RoleSessionName", "DurationSeconds", "Policy") if name in p}}
        return {"Credentials": given,
                "OIDCTokenInfo": {"Issuer": claims["iss"], "Subject": claims["sub"],
                                  "ClientIds": AUDIENCE, "VerificationInfo": "Success"},
                "AssumedRoleUser": {"Arn": f"{p['RoleArn']}/{p['RoleSessionName']}",
                                    "AssumedRoleId": f"33157794895460:{p['RoleSessionName']}"}}

    def check_common(self, p):
        known = {"Action", "Version", "Format", "Timestamp", "SignatureNonce", "RoleArn",
                 "OIDCProviderArn", "OIDCToken", "RoleSessionName", "DurationSeconds", "Policy"}
        if set(p) - known:
            raise Refused(400, "InvalidParameter", f"unknown: {sorted(set(p) - known)}")
        if (p.get("Action"), p.get("Version")) != ("AssumeRoleWithOIDC", "2015-04-01"):
            raise Refused(404, "InvalidAction.NotFound", "Specified api is not found.")
        if p.get("Format", "XML").upper() != "JSON":
            raise Refused(400, "UnsupportedFormat", "this fake speaks JSON only")
        try:
            when = calendar.timegm(time.strptime(p.get("Timestamp", ""), "%Y-%m-%dT%H:%M:%SZ"))
        except ValueError:
            raise Refused(400, "InvalidTimeStamp.Format", "Timestamp is not well formatted.") from None
        if abs(self.gateway.now() - when) > 900:
            raise Refused(400, "InvalidTimeStamp.Expired", "Timestamp is expired.")
        nonce = p.get("SignatureNonce")
        if nonce is not None and nonce in self.nonces:
            raise Refused(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self.nonces.add(nonce)

    # --- ECS metadata: (status, body)

    def metadata(self, method, path, headers):
        if path == "/latest/api/token":
            ttl = headers.get("x-aliyun-ecs-metadata-token-ttl-seconds", "")
            if self.imds == "v1" or method != "PUT":
                return 404 if self.imds == "v1" else 405, b""
            if not re.fullmatch(r"\d{1,5}", ttl) or not 1 <= int(ttl) <= 21600:
                return 400, b""
            token = secrets.token_urlsafe(40)
            self.tokens[token] = self.gateway.now() + int(ttl)
            return 200, token.encode()
        if method != "GET":
            return 405, b""
        token = headers.get("x-aliyun-ecs-metadata-token")
        if token is not None and self.tokens.get(token, 0) <= self.gateway.now():
            return 401, b""
        if token is None and self.imds == "v2":
            return 403, b""
        return self.security_credentials(path)

    def security_credentials(self, path):
        base = "/latest/meta-data/ram/security-credentials/"
        role = self.ram.instance_role
        if path == base and role is not None:
            return 200, role.encode()
        if role is None or path != base + role:
            return 404, b"<?xml version='1.0'?><html><title>404 - Not Found</title></html>"
        return 200, json.dumps({"Code": "Success", "LastUpdated": iso(self.gateway.now()),
                                **self.issue(self.lifetime, role)}).encode()

    def uri(self, method, path):
        if (method, path) != ("GET", "/credentials"):
            return 404, b"{}"
        return 200, json.dumps({"Code": "Success", **self.issue(self.lifetime)}).encode()
