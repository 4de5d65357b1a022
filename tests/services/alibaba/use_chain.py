# SPDX-License-Identifier: Apache-2.0
"""The SDK's default provider and our `credentials: auto`, given the same home and environment: both
take the same key, and where one finds none, so does the other.

usage: use_chain.py WHOSE    (our side: tests/services/alibaba_whose)
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from asked import check

# the SDK reads the environment when it is imported: a process for each
THEIRS = """
from alibabacloud_credentials.provider.default import DefaultCredentialsProvider
c = DefaultCredentialsProvider().get_credentials()
print(c.get_access_key_id(), c.get_access_key_secret(), c.get_security_token() or "-")
"""
CLI, INI = ".aliyun/config.json", ".alibabacloud/credentials.ini"


def cli(current, *profiles):
    return json.dumps({"current": current, "profiles": list(profiles)})


def key(name, key_id, **more):
    """As the CLI writes it, with all that a profile does not have."""
    return {"name": name, "mode": "AK", "access_key_id": key_id, "access_key_secret": "s-" + key_id,
            "sts_token": "", "ram_role_name": "", "ram_role_arn": "", "expired_seconds": 0, **more}


def ini(name, key_id):
    return f"[{name}]\ntype = access_key\naccess_key_id = {key_id}\naccess_key_secret = s-{key_id}\n"


STS = key("sts", "CLISTS", mode="StsToken", sts_token="token")
HOMES = (  # name, files, environment, whose it is
    ("nothing", {}, {}, None),
    ("the CLI's", {CLI: cli("default", key("default", "CLI"))}, {}, "CLI"),
    ("the CLI's current one", {CLI: cli("sts", key("default", "CLI"), STS)}, {}, "CLISTS"),
    ("a profile", {INI: ini("default", "INI")}, {}, "INI"),
    ("both", {CLI: cli("default", key("default", "CLI")), INI: ini("default", "INI")}, {}, "CLI"),
    ("both, but not the CLI's", {CLI: cli("default", key("default", "CLI")), INI: ini("default", "INI")},
     {"ALIBABA_CLOUD_CLI_PROFILE_DISABLED": "True"}, "INI"),
    ("both, and the environment", {CLI: cli("default", key("default", "CLI")), INI: ini("default", "INI")},
     {"ALIBABA_CLOUD_ACCESS_KEY_ID": "ENV", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "s-ENV"}, "ENV"),
    ("a named one of the CLI's", {CLI: cli("default", key("default", "CLI"), STS), INI: ini("sts", "INI")},
     {"ALIBABA_CLOUD_PROFILE": "sts"}, "CLISTS"),
    ("a named one that the CLI has not", {CLI: cli("default", key("default", "CLI")), INI: ini("sts", "INI")},
     {"ALIBABA_CLOUD_PROFILE": "sts"}, "INI"),
    ("a CLI that was never set up", {CLI: cli("default", key("default", "", access_key_secret="")),
                                     INI: ini("default", "INI")}, {}, "INI"),
    ("a CLI without profiles", {CLI: cli(""), INI: ini("default", "INI")}, {}, "INI"),
    ("a profile file by name", {"named": ini("default", "NAMED"), INI: ini("default", "INI")},
     {"ALIBABA_CLOUD_CREDENTIALS_FILE": "named"}, "NAMED"),
    ("a profile file by name, and the CLI's", {"named": ini("default", "NAMED"),
                                               CLI: cli("default", key("default", "CLI"))},
     {"ALIBABA_CLOUD_CREDENTIALS_FILE": "named"}, "CLI"),
    ("comments", {INI: "; x\n[default] # y\ntype: access_key # z\naccess_key_id=INI#\n"
                       "access_key_secret : s-INI # s\n"}, {}, "INI"),
    ("a mode that neither knows", {CLI: cli("default", key("default", "CLI", mode="Magic"))}, {}, None),
)


def ask(command, environment):
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=30, check=False)
    return done.stdout.strip() if done.returncode == 0 else None, done.stdout + done.stderr


for name, files, variables, wanted in HOMES:
    with tempfile.TemporaryDirectory() as home:
        for path, content in files.items():
            at = pathlib.Path(home, path)
            at.parent.mkdir(exist_ok=True)
            at.write_text(content)
            at.chmod(0o600)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ALIBABA_CLOUD_")}
        environment |= {"HOME": home, "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true"}
        environment |= {k: str(pathlib.Path(home, v)) if v in files else v for k, v in variables.items()}
        theirs, why = ask([sys.executable, "-c", THEIRS], environment)
        ours, said = ask([sys.argv[1]], environment)
        check(f"{name}: the SDK", (theirs or "").split(" ")[0] == (wanted or ""), why)
        check(f"{name}: ours", ours == theirs and (ours is not None or "auto: " in said), f"{said!r}, not {theirs!r}")
