# SPDX-License-Identifier: Apache-2.0
"""RAM 2015-05-01 and ECS 2014-05-26, as far as the operator's guide uses them: roles, whom they trust,
policies, and the role of one machine. Limits are those of the vendor's SDKs (alibabacloud-ram20150501,
alibabacloud-ecs20140526) and documentation. Stricter than the service: what is not understood of a policy is
an error, names have no upper and lower case alike, and a name of the service's own is none here."""
import fnmatch
import json
import re

from acs3 import Refused
from keys import ACCOUNT, REGION
from identity import PROVIDER_ARN
from kms import enters, invalid

ACTIONS, ECS_ACTIONS = {}, {}
action, ecs_action = enters(ACTIONS), enters(ECS_ACTIONS)
INSTANCE = "i-bp1fakefakefakefake"
CONDITIONS = {"oidc:iss": "iss", "oidc:aud": "aud", "oidc:sub": "sub"}  # the claim that each is of


def texts(value):
    """A text, or a list of them, and not an empty one."""
    value = [value] if isinstance(value, str) else value
    return value if isinstance(value, list) and value and all(isinstance(v, str) for v in value) else None


def statements(p, name, most, fields):
    """Those of a policy's document, each with @fields and Effect; Action and Resource are made lists."""
    bad = Refused(400, f"InvalidParameter.{name}", f"The parameter {name} is no policy that this understands.")
    try:
        document = json.loads(p[name])
        found = document["Statement"]
        if len(p[name]) > most or set(document) != {"Version", "Statement"} or document["Version"] != "1" or not found:
            raise bad
        for statement in found:
            maybe = {"Condition"} if "Principal" in fields else set()
            if set(statement) | maybe != fields | maybe | {"Effect"} or statement["Effect"] not in ("Allow", "Deny"):
                raise bad
            for field in ("Action", "Resource"):
                if field in fields:
                    statement[field] = texts(statement[field])
    except (KeyError, TypeError, ValueError):
        raise bad from None
    if not all(s.get(field) for s in found for field in fields):
        raise bad
    return found


class Ram:
    """An account in which nothing is allowed to anybody but itself until it says so."""

    def __init__(self):
        self.roles, self.policies = {}, {}  # name: (trust, [policy]); name: statements
        self.instance_role = None

    def role(self, role_arn):
        name = role_arn.removeprefix(f"acs:ram::{ACCOUNT}:role/")
        if name == role_arn or name not in self.roles:
            raise Refused(404, "EntityNotExist.Role", "The role not exists.")
        return name

    def trusts(self, name, claims):
        """Whether the role is for who has these claims of PROVIDER_ARN's."""
        for statement in self.roles[name][0]:
            wanted = statement.get("Condition", {}).get("StringEquals", {})
            if self.has(PROVIDER_ARN, statement["Principal"].get("Federated")) and all(
                    self.has(claims[CONDITIONS[key]], value) for key, value in wanted.items()):
                return statement["Effect"] == "Allow"
        return False

    @staticmethod
    def has(claim, wanted):
        return bool(set(texts(claim) or []) & set(texts(wanted) or []))

    def rights_of(self, role):
        return role

    def allows(self, role, right, resource):
        """A denial wins; what nothing allows is denied."""
        effects = {s["Effect"] for policy in self.roles[role][1] for s in self.policies[policy]
                   if any(fnmatch.fnmatchcase(right, a) for a in s["Action"])
                   and any(fnmatch.fnmatchcase(resource, r) for r in s["Resource"])}
        return effects == {"Allow"}


@action("RoleName AssumeRolePolicyDocument", "Description MaxSessionDuration")
def CreateRole(s, p):
    name = p["RoleName"]
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", name):
        raise invalid("RoleName")
    trust = statements(p, "AssumeRolePolicyDocument", 4096, {"Action", "Principal"})
    for statement in trust:
        wanted, principal = statement.get("Condition", {}), statement["Principal"]
        if not isinstance(principal, dict) or len(principal) != 1 or statement["Action"] != ["sts:AssumeRole"]:
            raise invalid("AssumeRolePolicyDocument")
        # whom a provider vouches for must be named by issuer and audience
        equal = wanted.get("StringEquals") if isinstance(wanted, dict) and len(wanted) == 1 else None
        if "Federated" in principal and not (
                isinstance(equal, dict) and {"oidc:iss", "oidc:aud"} <= set(equal) <= set(CONDITIONS)):
            raise invalid("AssumeRolePolicyDocument")
        if not texts(principal.get("Federated") or principal.get("Service")):
            raise invalid("AssumeRolePolicyDocument")
    if name in s.ram.roles:
        raise Refused(409, "EntityAlreadyExists.Role", "The role already exists.")
    s.ram.roles[name] = (trust, [])
    return {"Role": {"RoleName": name, "Arn": f"acs:ram::{ACCOUNT}:role/{name}",
                     "AssumeRolePolicyDocument": p["AssumeRolePolicyDocument"]}}


@action("PolicyName PolicyDocument", "Description")
def CreatePolicy(s, p):
    if not re.fullmatch(r"[A-Za-z0-9-]{1,128}", p["PolicyName"]):
        raise invalid("PolicyName")
    found = statements(p, "PolicyDocument", 6144, {"Action", "Resource"})
    if p["PolicyName"] in s.ram.policies:
        raise Refused(409, "EntityAlreadyExists.Policy", "The policy already exists.")
    s.ram.policies[p["PolicyName"]] = found
    return {"Policy": {"PolicyName": p["PolicyName"], "PolicyType": "Custom", "DefaultVersion": "v1"}}


@action("PolicyType PolicyName RoleName")
def AttachPolicyToRole(s, p):
    if p["PolicyType"] not in ("Custom", "System"):
        raise invalid("PolicyType")
    if p["PolicyType"] != "Custom" or p["PolicyName"] not in s.ram.policies:
        raise Refused(404, "EntityNotExist.Policy", "The policy does not exist.")
    _, attached = s.ram.roles[s.ram.role(f"acs:ram::{ACCOUNT}:role/{p['RoleName']}")]
    if p["PolicyName"] in attached:
        raise Refused(409, "EntityAlreadyExists.Role.Policy", "The policy is attached to the role already.")
    attached.append(p["PolicyName"])
    return {}


# --- ECS: one machine -----------------------------------------------------------------------------

def machine(p, instance):
    if p["RegionId"] != REGION:
        raise Refused(404, "InvalidRegionId.NotFound", "The specified RegionId does not exist.")
    if instance != INSTANCE:
        raise Refused(404, "InvalidInstanceId.NotFound", "The specified instance does not exist.")


@ecs_action("RegionId RamRoleName InstanceIds", "Policy")
def AttachInstanceRamRole(s, p):
    try:
        instances = json.loads(p["InstanceIds"])
    except ValueError:
        instances = None
    if not isinstance(instances, list) or len(instances) != 1:  # the service takes 100
        raise Refused(400, "InvalidInstanceIds.Malformed", "The specified instanceIds are not valid.")
    machine(p, instances[0])
    trust, _ = s.ram.roles[s.ram.role(f"acs:ram::{ACCOUNT}:role/{p['RamRoleName']}")]
    if not any(s.ram.has("ecs.aliyuncs.com", t["Principal"].get("Service")) for t in trust):
        raise Refused(403, "InvalidRamRole.NotEcsRole", "The specified ram role is not authorized for ecs.")
    if s.ram.instance_role is not None:
        raise Refused(400, "InvalidOperation.RoleExists", "The instance has a role already.")
    s.ram.instance_role = p["RamRoleName"]
    return {"RamRoleName": p["RamRoleName"], "TotalCount": 1, "FailCount": 0,
            "AttachInstanceRamRoleResults": {"AttachInstanceRamRoleResult": [
                {"InstanceId": INSTANCE, "Code": "200", "Message": "Success", "Success": True}]}}


@ecs_action("RegionId HttpEndpoint", "InstanceId HttpTokens")
def ModifyInstanceMetadataOptions(s, p):
    machine(p, p.get("InstanceId"))
    if p["HttpEndpoint"] not in ("enabled", "disabled"):
        raise invalid("HttpEndpoint")
    if p.get("HttpTokens", "optional") not in ("optional", "required"):
        raise invalid("HttpTokens")
    if p["HttpEndpoint"] == "disabled":
        s.identity.imds = "off"
    else:
        s.identity.imds = "v2" if p.get("HttpTokens") == "required" else "both"
    return {}
