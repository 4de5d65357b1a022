# SPDX-License-Identifier: Apache-2.0
"""What stands for the vendor's command line, which maps `aliyun PRODUCT ACTION --Parameter VALUE ...` to one
request of that product's API. Here each is checked against the vendor's generated SDK of the product (there is
such an action, a parameter of exactly that name, what the SDK calls required is given, and of its type), and the
SDK sends it, signed, to the fake.

usage: aliyun.py PRODUCT ACTION [--PARAMETER VALUE]...   ALIYUN_FAKE: the fake's line of JSON;
                                                         ALIYUN_LOG: where "PRODUCT ACTION" is noted if it went well
       aliyun.py --check FILE...    the commands in these documents that are quoted, or printed in fences that
                                    are not run: "ok WHAT" or "FAIL WHAT: why"
"""
import importlib
import inspect
import json
import os
import re
import shlex
import sys

PRODUCTS = {"kms": "alibabacloud_kms20160120", "ram": "alibabacloud_ram20150501", "ecs": "alibabacloud_ecs20140526"}
TYPES = {"str": str, "int": int, "bool": lambda text: {"true": True, "false": False}[text]}
# the SDK of RAM marks nothing as required; these are by the vendor's documentation
REQUIRED = {"CreateRole": {"RoleName", "AssumeRolePolicyDocument"}, "CreatePolicy": {"PolicyName", "PolicyDocument"},
            "AttachPolicyToRole": {"PolicyType", "PolicyName", "RoleName"}}


class Wrong(Exception):
    pass


def parameters(model):
    """Of a request: {name in the API: (attribute, its type, whether the SDK says that it is required)}."""
    found, source = {}, inspect.getsource(model.__init__)
    for attribute, parameter in inspect.signature(model.__init__).parameters.items():
        if attribute == "self":
            continue
        said = re.search(rf"((?:^ *#.*\n)*)^ *self\.{attribute} = {attribute}$", source, re.MULTILINE)
        named = re.search(rf"result\['([^']+)'\] = self\.{attribute}$", inspect.getsource(model.to_map), re.MULTILINE)
        if named:  # what is no plain value has no such line
            found[named[1]] = (attribute, str(parameter.annotation), "This parameter is required." in said[1])
    return found


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def checked(words, literal=True):
    """The SDK's client, its method and the request of a command. Without @literal it is as a document has it: a
    value with a $ in it may be anything, and an action may stand alone."""
    product, action, *rest = words
    if product not in PRODUCTS:
        raise Wrong(f"{product}: no such product here")
    models = importlib.import_module(PRODUCTS[product] + ".models")
    client = importlib.import_module(PRODUCTS[product] + ".client").Client
    method = snake(action) + "_with_options"
    model = getattr(models, action + "Request", None)
    # snake_case has lost the case of letters, so the SDK's own name of the action counts
    if model is None or f"action = '{action}'" not in inspect.getsource(getattr(client, method, Wrong)):
        raise Wrong(f"{product} has no action {action}")
    known, given = parameters(model), {}
    if len(rest) % 2:
        raise Wrong(f"{rest[-1]}: a parameter and a value it must be")
    for flag, value in zip(rest[::2], rest[1::2]):
        if not flag.startswith("--") or flag[2:] not in known:
            raise Wrong(f"{action} has no {flag}, but {', '.join(sorted(known))}")
        attribute, kind, _ = known[flag[2:]]
        if attribute in given:
            raise Wrong(f"{flag} is given twice")
        try:
            if literal or "$" not in value:
                TYPES[kind](value)
            given[attribute] = value  # as the text that the command line sends
        except (KeyError, ValueError):
            raise Wrong(f"{flag} is {kind}, not {value}") from None
    must = REQUIRED.get(action, set()) | {name for name, (_, _, required) in known.items() if required}
    lacks = must - {flag[2:] for flag in rest[::2]}
    if lacks and (literal or rest):
        raise Wrong(f"{action} lacks {', '.join(sorted(lacks))}")
    return client, method, model(**given)


def run(words):
    client, method, request = checked(words)
    from alibabacloud_tea_openapi.models import Config
    from darabonba.runtime import RuntimeOptions
    fake = json.loads(os.environ["ALIYUN_FAKE"])
    config = Config(access_key_id=fake["access_key"], access_key_secret=fake["secret"], region_id=fake["region"],
                    protocol="http", endpoint=f"127.0.0.1:{fake[words[0]]}")
    try:
        reply = getattr(client(config), method)(request, RuntimeOptions(autoretry=False))
    except Exception as e:  # the SDK's classes differ by status
        raise Wrong(f"{getattr(e, 'code', type(e).__name__)}: {getattr(e, 'message', e)}") from None
    print(json.dumps(reply.body.to_map(), indent="\t"))
    if "ALIYUN_LOG" in os.environ:
        with open(os.environ["ALIYUN_LOG"], "a", encoding="utf-8") as log:
            log.write(" ".join(words[:2]) + "\n")


def quoted(text):
    """`aliyun ...` in running text, and as mdoc's .Ql or .Li has it."""
    return (re.findall(r"(?<!`)`aliyun ([^`]+)`(?!`)", text)
            + re.findall(r"^\.(?:Ql|Li) aliyun (.+)$", text, re.MULTILINE))


def fenced(text):
    """(whether it is run, the command), of fences and of mdoc's literal displays."""
    fences = re.findall(r"^```(sh.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    blocks = [(kind == "sh run", block) for kind, block in fences]
    blocks += [(False, block) for block in re.findall(r"^\.Bd -literal\n((?:.*\n)*?)\.Ed$", text, re.MULTILINE)]
    for ran, block in blocks:
        for command in re.findall(r"(?:^|\()aliyun (.+)$", block.replace("\\\n", " "), re.MULTILINE):
            yield ran, command


def plain(command):
    """Without what a shell puts in, and where the output goes."""
    return re.split(r"\s[|>]", re.sub(r"\$\([^()]*\)", "$(...)", command))[0]


def check_documents(files):
    for file in files:
        with open(file, encoding="utf-8") as f:
            text = f.read()
        # what is printed in a guide is run there; what a man page prints, man.sh finds in a guide
        commands = [(True, command) for command in quoted(text)]
        commands += [(ran or not file.endswith(".md"), command) for ran, command in fenced(text)]
        for ran, command in commands:
            what = f"{os.path.basename(file)}: aliyun {command}"
            try:
                checked(shlex.split(plain(command)), literal=False)
                if not ran:
                    raise Wrong("it is not run")
                print(f"ok {what}")
            except (Wrong, ValueError) as e:
                print(f"FAIL {what}: {e}")


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--check"]:
            check_documents(sys.argv[2:])
        elif len(sys.argv) < 3:
            raise Wrong("a product and an action it must be")
        else:
            run(sys.argv[1:])
    except Wrong as e:
        print(f"aliyun: {e}", file=sys.stderr)
        sys.exit(1)
