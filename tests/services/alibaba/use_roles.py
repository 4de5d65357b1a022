# SPDX-License-Identifier: Apache-2.0
"""Roles that an access key or a token takes: first the vendor's own clients against our fake's AssumeRole,
by both of their signatures; then the SDK's default provider and our `credentials: auto` in the same homes.
Each gets a key of its own from STS; that both ask STS for the very same is what the fake says of the keys,
and that they are good what its KMS says. Which STS the SDK would ask is said here, too; where ours does is
in alibaba_endpoints.sh.

usage: use_roles.py PORTS WHOSE    (the fake's line of JSON; tests/services/alibaba_whose)
"""
import functools
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile

from alibabacloud_kms20160120 import models as m
from alibabacloud_kms20160120.client import Client
from alibabacloud_tea_openapi.client import Client as OpenApi
from alibabacloud_tea_openapi.utils_models import Config, OpenApiRequest, Params
from darabonba.runtime import RuntimeOptions

import asked
from asked import check

ports = json.loads(sys.argv[1])
ROLE, OTHER = ports["user_role_arn"], ports["other_role_arn"]
LISTS = {"Version": "1", "Statement": [{"Effect": "Allow", "Action": ["kms:List*"], "Resource": ["*"]}]}
# the SDK for Python signs a blank as "+", where that for Go, and the vendor's documentation, have "%20"
PACKED = json.dumps(LISTS, separators=(",", ":"))
logging.disable(logging.CRITICAL)

control = functools.partial(asked.control, ports)


def code_of(function, *args):
    """"" when it was answered."""
    try:
        function(*args)
        return ""
    except Exception as e:  # the SDK's classes differ by status
        return getattr(e, "code", "") or repr(e)


def config(port, key_id, secret, token=None):
    return Config(access_key_id=key_id, access_key_secret=secret, security_token=token, protocol="http",
                  endpoint=f"127.0.0.1:{port}", max_idle_conns=1)


def may(key_id, secret, token):
    """What KMS says to listing and to making keys."""
    kms = Client(config(ports["kms"], key_id, secret, token))
    return code_of(kms.list_keys, m.ListKeysRequest()), code_of(kms.create_key, m.CreateKeyRequest())


# --- AssumeRole as the vendor's client of STS asks for it: ACS3-HMAC-SHA256, everything in the query

def assume(by=None, **over):
    by = by or (ports["access_key"], ports["secret"])
    params = Params(action="AssumeRole", version="2015-04-01", protocol="HTTPS", pathname="/", method="POST",
                    auth_type="AK", style="RPC", req_body_type="formData", body_type="json")
    query = {"RoleArn": ROLE, "RoleSessionName": "sdk", **over}
    reply = OpenApi(config(ports["sts"], *by)).call_api(params, OpenApiRequest(query=query), RuntimeOptions())
    return tuple(reply["body"]["Credentials"][f] for f in ("AccessKeyId", "AccessKeySecret", "SecurityToken"))


def by_signed_headers():
    check("AssumeRole", may(*assume()) == ("", ""))
    given = assume(Policy=json.dumps(LISTS), DurationSeconds="900", ExternalId="a/b=c")
    check("a policy takes rights away", may(*given) == ("", "Forbidden.NoPermission"), may(*given))
    check("what was asked is what the fake saw", control("session", id=given[0]) == {
        "RoleArn": ROLE, "RoleSessionName": "sdk", "DurationSeconds": "900", "ExternalId": "a/b=c",
        "Policy": json.dumps(LISTS), "by": ports["access_key"]})
    check("a role by a role", may(*assume(by=assume())) == ("", ""))
    for what, code, over in (
            ("another's secret", "SignatureDoesNotMatch", {"by": (ports["access_key"], "no")}),
            ("no such key", "InvalidAccessKeyId.NotFound", {"by": ("LTAIno", "no")}),
            ("a token that is missing", "MissingSecurityToken", {"by": assume()[:2]}),
            ("no such role", "EntityNotExist.Role", {"RoleArn": ROLE + "x"}),
            ("a role that does not trust us", "NoPermission", {"RoleArn": OTHER}),
            ("no role's name", "InvalidParameter.RoleArn", {"RoleArn": "kmsbridge"}),
            ("a session's name too short", "InvalidParameter.RoleSessionName", {"RoleSessionName": "a"}),
            ("a session's name with a space", "InvalidParameter.RoleSessionName", {"RoleSessionName": "a b"}),
            ("too short", "InvalidParameter.DurationSeconds", {"DurationSeconds": "899"}),
            ("longer than the role", "InvalidParameter.DurationSeconds", {"DurationSeconds": "7201"}),
            ("a policy that is none", "InvalidParameter.PolicyGrammar", {"Policy": "{}"}),
            ("a policy too long", "InvalidParameter.PolicySize", {"Policy": json.dumps(LISTS) + " " * 2000}),
            ("an external id with a space", "InvalidParameter.ExternalId", {"ExternalId": "a b"}),
            ("what it has not", "InvalidParameter", {"OIDCToken": "x" * 9})):
        seen = code_of(lambda: assume(**over))  # pylint: disable=cell-var-from-loop
        check(f"{what}: {code}", seen == code, seen)
    control("external_id", wanted="mine")
    check("another's external id", code_of(lambda: assume(ExternalId="yours")) == "NoPermission")
    check("its external id", code_of(lambda: assume(ExternalId="mine")) == "")
    control("external_id")
    control("skew", seconds=3600)
    check("a clock that is wrong", code_of(assume) == "InvalidTimeStamp.Expired")
    control("clear")


# --- the homes

CLI, INI = ".aliyun/config.json", ".alibabacloud/credentials.ini"
# the SDK reads the environment when it is imported: a process for each. Its providers insist on https
# and ask by HMAC-SHA1: only where they ask is changed
THEIRS = """
import sys
from alibabacloud_credentials.provider import oidc, ram_role_arn
from alibabacloud_credentials.provider.default import DefaultCredentialsProvider
original = ram_role_arn.TeaCore
class Core(original):
    @staticmethod
    def do_action(request, options=None):
        print("asks", request.headers["host"], file=sys.stderr)
        request.protocol, request.port = "http", int(sys.argv[1])
        request.headers["host"] = "127.0.0.1"
        return original.do_action(request, options)
ram_role_arn.TeaCore = oidc.TeaCore = Core
c = DefaultCredentialsProvider().get_credentials()
print(c.get_access_key_id(), c.get_access_key_secret(), c.get_security_token() or "-")
"""
MINE = {"access_key_id": ports["access_key"], "access_key_secret": ports["secret"]}


def cli(*others, **more):
    """As the CLI writes it, with all that a profile does not have; @others: profiles beside it."""
    return {CLI: json.dumps({"current": "r", "profiles": [{
        "name": "r", "mode": "RamRoleArn", "sts_token": "", "ram_role_name": "", "ram_role_arn": ROLE,
        "ram_session_name": "home", "expired_seconds": 3600, "sts_region": "cn-beijing", **MINE, **more}, *others]})}


def oidc(**more):
    # a session's name is ram_session_name to the CLI and the SDK for Go, the other one to that for Python
    return {**cli(mode="OIDC", ram_role_arn=ports["role_arn"], oidc_provider_arn=ports["provider_arn"],
                  oidc_token_file="HOME/token", role_session_name="home", **more),
            "token": control("token")["token"]}


def chain(source, **more):
    """A role that is taken by the identity of the profile @source."""
    return cli(source, **{"mode": "ChainableRamRoleArn", "source_profile": source["name"], "access_key_id": "",
                          "access_key_secret": "", **more})


def ini(**more):
    fields = {"type": "ram_role_arn", "role_arn": ROLE, "role_session_name": "home", **MINE, **more}
    return {INI: "[default]\n" + "".join(f"{name} = {value}\n" for name, value in fields.items())}


KEY = {"name": "key", "mode": "AK", **MINE}
HUB = {"name": "hub", "mode": "RamRoleArn", "ram_role_arn": ROLE, "ram_session_name": "hub",
       "sts_region": "cn-hangzhou", "expired_seconds": 900, **MINE}
BY_HUB = {"RoleSessionName": "hub", "DurationSeconds": "900"}
BY_TOKEN = {"RoleArn": ports["role_arn"], "by": ports["provider_arn"]}
BEIJING = "sts.cn-beijing.aliyuncs.com"

# name, files, what KMS says, what the session has besides, and that of the key that it was taken by, and
# so on; None: neither gets a key. Last, whom the SDK asks
HOMES = (
    ("RamRoleArn", cli(), ("", ""), [{}], BEIJING),
    ("RamRoleArn in the VPC", cli(enable_vpc=True), ("", ""), [{}], "sts-vpc.cn-beijing.aliyuncs.com"),
    ("RamRoleArn for a while", cli(expired_seconds=901), ("", ""), [{"DurationSeconds": "901"}], BEIJING),
    ("RamRoleArn with less, and an external id", cli(policy=PACKED, external_id="e/x"),
     ("", "Forbidden.NoPermission"), [{"Policy": PACKED, "ExternalId": "e/x"}], BEIJING),
    ("RamRoleArn of others", cli(ram_role_arn=OTHER), None, [], BEIJING),
    ("RamRoleArn by another's secret", cli(access_key_secret="no"), None, [], BEIJING),
    ("RamRoleArn for too short", cli(expired_seconds=899), None, [], ""),
    ("OIDC", oidc(), ("", ""), [BY_TOKEN], BEIJING),
    ("OIDC in the VPC", oidc(enable_vpc=True), ("", ""), [BY_TOKEN], "sts-vpc.cn-beijing.aliyuncs.com"),
    ("OIDC with less", oidc(policy=PACKED), ("", "Forbidden.NoPermission"), [{"Policy": PACKED, **BY_TOKEN}],
     BEIJING),
    ("OIDC with a policy that is none", oidc(policy="{}"), None, [], BEIJING),
    ("ChainableRamRoleArn", chain(KEY), ("", ""), [{}], BEIJING),
    ("ChainableRamRoleArn by a role", chain(HUB, external_id="e/x"), ("", ""), [{"ExternalId": "e/x"}, BY_HUB],
     "sts.cn-hangzhou.aliyuncs.com " + BEIJING),
    ("ChainableRamRoleArn with less", chain(HUB, policy=PACKED, enable_vpc=True), ("", "Forbidden.NoPermission"),
     [{"Policy": PACKED}, BY_HUB], "sts.cn-hangzhou.aliyuncs.com sts-vpc.cn-beijing.aliyuncs.com"),
    ("ChainableRamRoleArn by nobody", chain(KEY, source_profile="none"), None, [], ""),
    ("ChainableRamRoleArn by others", chain({**HUB, "ram_role_arn": OTHER}), None, [], "sts.cn-hangzhou.aliyuncs.com"),
    ("ram_role_arn", ini(), ("", ""), [{}], "sts.aliyuncs.com"),
    ("ram_role_arn with less", ini(policy=PACKED), ("", "Forbidden.NoPermission"), [{"Policy": PACKED}],
     "sts.aliyuncs.com"),
    ("ram_role_arn of others", ini(role_arn=OTHER), None, [], "sts.aliyuncs.com"),
    ("ram_role_arn by no key", ini(access_key_id="LTAIno"), None, [], "sts.aliyuncs.com"),
)


def sessions(key_id):
    """What was asked for this key, and for the one that asked, and so on."""
    found = []
    while not found or found[-1]["by"].startswith("STS."):
        found.append(control("session", id=found[-1]["by"] if found else key_id))
    for session in found[:-1]:
        session["by"] = ports["access_key"]  # it is another key each time
    return found


def ask(home, *command):
    """The key that is found there, and what was said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ALIBABA_CLOUD_")}
    environment |= {"HOME": home, "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
                    "ALIBABA_CLOUD_STS_ENDPOINT": f"http://127.0.0.1:{ports['sts']}"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=30, check=False)
    return tuple(done.stdout.split()) if done.returncode == 0 else None, done.stdout + done.stderr


def in_homes():
    for name, files, rights, more, asked_of in HOMES:
        with tempfile.TemporaryDirectory() as home:
            for path, content in files.items():
                at = pathlib.Path(home, path)
                at.parent.mkdir(exist_ok=True)
                at.write_text(content.replace("HOME/", home + "/"))
                at.chmod(0o600)
            wanted = [{"RoleArn": ROLE, "RoleSessionName": "home", "DurationSeconds": "3600",
                       "by": ports["access_key"], **fields} for fields in more]
            for who, command in (("the SDK", (sys.executable, "-c", THEIRS, str(ports["sts"]))),
                                 ("ours", (sys.argv[2],))):
                key, said = ask(home, *command)
                if who != "ours":
                    hosts = " ".join(line[5:] for line in said.splitlines() if line.startswith("asks "))
                    check(f"{name}: whom it asks", hosts == asked_of, hosts)
                if rights is None:
                    check(f"{name}: {who}", key is None and (who != "ours" or home in said), said)
                elif key is None:
                    check(f"{name}: {who}", False, said)
                else:
                    seen = may(*key), sessions(key[0])
                    check(f"{name}: {who}", seen == (rights, wanted), seen)


for part in (by_signed_headers, in_homes):
    try:
        part()
    except Exception as e:
        check(part.__name__, False, repr(e))
