# SPDX-License-Identifier: Apache-2.0
"""What the gateway does before a key is touched: ACS3-HMAC-SHA256 recomputed from what came over
the wire, the date's skew, the nonce's reuse, the security token. Written from the vendor's
documentation, not from our C."""
import calendar
import hashlib
import hmac
import re
import time
import urllib.parse

SKEW_MAX = 15 * 60
AUTHORIZATION = re.compile(
    r"ACS3-HMAC-SHA256 Credential=([^,\s]+),SignedHeaders=([a-z0-9;-]+),Signature=([0-9a-f]{64})"
)
HOP_HEADERS = {"authorization"}


class Refused(Exception):
    """An error reply: HTTP status, Code, Message."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def quote(text):
    return urllib.parse.quote(text, safe="-_.~")


def parameters(raw_query):
    """The query's parameters; one given twice is refused, so is what is not well-formed."""
    found = {}
    if raw_query:
        try:
            pairs = urllib.parse.parse_qsl(
                raw_query, keep_blank_values=True, strict_parsing=True, errors="strict"
            )
        except ValueError:
            raise Refused(400, "InvalidParameter", "the query is not well-formed") from None
        for name, value in pairs:
            if name in found:
                raise Refused(400, "InvalidParameter", f"{name} is given twice")
            found[name] = value
    return found


def canonical_request(method, path, params, headers, signed, payload_hash):
    query = "&".join(f"{quote(k)}={quote(params[k])}" for k in sorted(params))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in signed)
    return "\n".join([method, path or "/", query, lines, ";".join(signed), payload_hash])


def signature(secret, request):
    text = "ACS3-HMAC-SHA256\n" + hashlib.sha256(request.encode()).hexdigest()
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


class Gateway:
    """The access keys that there are, and the nonces that were."""

    def __init__(self):
        # id: {secret, token, expires, denied, revoked, role, allowed: patterns of what alone it may do}
        self.keys = {}
        self.nonces = {}
        self.skew = 0  # seconds that our clock is ahead

    def now(self):
        return time.time() + self.skew

    def add(self, key_id, secret, token=None, expires=None, role=None):
        """@role: of RAM, whose rights the key has; None is the account itself."""
        self.keys[key_id] = {
            "id": key_id, "secret": secret, "token": token, "expires": expires, "denied": (),
            "revoked": False, "role": role, "allowed": None, "session": {},
        }

    def check(self, method, path, params, headers, body):
        """Whose request it is. @headers: lower-case name to value, each once."""
        match = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if not match:
            raise Refused(400, "IncompleteSignature", "there is no well-formed Authorization")
        key_id, signed, claimed = match.group(1), match.group(2).split(";"), match.group(3)
        must = {n for n in headers if n.startswith("x-acs-") or n in ("host", "content-type")}
        if signed != sorted(set(signed)) or not set(signed) >= must or not set(signed) <= set(headers):
            raise Refused(400, "IncompleteSignature", "SignedHeaders: not sorted, or not all of them")
        payload_hash = hashlib.sha256(body).hexdigest()
        if headers.get("x-acs-content-sha256") != payload_hash:
            raise Refused(400, "SignatureDoesNotMatch", "x-acs-content-sha256 is not of the body")
        key = self.keys.get(key_id)
        if key is None:
            raise Refused(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        request = canonical_request(method, path, params, headers, signed, payload_hash)
        if not hmac.compare_digest(signature(key["secret"], request), claimed):
            raise Refused(400, "SignatureDoesNotMatch", "Specified signature is not matched.")
        self.check_token(key, headers)
        self.check_time(headers)
        self.check_nonce(headers)
        return key

    def check_token(self, key, headers):
        token = headers.get("x-acs-security-token")
        if key["token"] is None and token is not None:
            raise Refused(400, "InvalidSecurityToken.Malformed", "a security token for a key without")
        if key["token"] is not None and token is None:
            raise Refused(400, "MissingSecurityToken", "SecurityToken is mandatory for this action.")
        if key["token"] is not None and not hmac.compare_digest(key["token"], token):
            raise Refused(400, "InvalidSecurityToken.MismatchWithAccessKey", "another key's token")
        if key["revoked"]:
            raise Refused(403, "InvalidAccessKeyId.Inactive", "Specified access key is disabled.")
        if key["expires"] is not None and self.now() >= key["expires"]:
            raise Refused(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.")

    def check_time(self, headers):
        date = headers.get("x-acs-date", "")
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", date):
            raise Refused(400, "InvalidTimeStamp.Format", "x-acs-date is not yyyy-MM-ddTHH:mm:ssZ")
        when = calendar.timegm(time.strptime(date, "%Y-%m-%dT%H:%M:%SZ"))
        if abs(self.now() - when) > SKEW_MAX:
            raise Refused(400, "InvalidTimeStamp.Expired", "Specified time stamp or date is expired.")

    def check_nonce(self, headers):
        nonce = headers.get("x-acs-signature-nonce", "")
        if not 8 <= len(nonce) <= 64:
            raise Refused(400, "InvalidParameter", "x-acs-signature-nonce is missing or too long")
        if nonce in self.nonces:
            raise Refused(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self.nonces[nonce] = True
