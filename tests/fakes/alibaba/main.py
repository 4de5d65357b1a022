#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A strict fake of Alibaba Cloud KMS for tests: the KMS API, STS, the ECS metadata service, a
credentials URI, and of RAM and ECS what the operator's guide uses, each on a loopback port of its own, and a
control interface.

usage: main.py [--tls FOLDER]    prints one line of JSON with the ports; ends with its stdin
  --tls FOLDER  KMS also speaks TLS, for the name "localhost" and 127.0.0.1; FOLDER/ca.pem is made.
                A second port has a certificate for another name. A proxy for CONNECT leads to the
                service's own names (network.py): the region's by FOLDER/ca-region.pem, those of a
                dedicated instance, which has no more than its gateway has, by FOLDER/ca.pem.

FAKE_REGION, FAKE_CLUSTER: where its ARNs are, and whose tokens it knows.

Control: POST / with JSON {"do": NAME, ...}, see Control below. Standard library, and
python3-cryptography.
"""
import fnmatch
import json
import ssl
import sys
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kms
import ram
import roles
from acs3 import Gateway, Refused, parameters
from identity import CLUSTER, PROVIDER_ARN, ROLE, ROLE_ARN, Identity
from keys import ACCOUNT, REGION, Store
from network import INSTANCE, NAMES, Proxy, tls_contexts

BODY_MAX = 1 << 20


class State:
    def __init__(self):
        self.servers = {}
        self.lock = threading.Lock()
        self.gateway, self.store = Gateway(), Store()
        self.identity = Identity(self.gateway)
        self.roles = roles.Roles(self.identity)
        self.ram = None  # there is one once a test says so
        self.faults = []  # {"on", "action", "kind", "count", ...}, the first that fits counts
        self.calls = {}  # "kms Encrypt": how many
        self.last = {}  # the last KMS request: its request id and what it named
        self.whose = {}  # request id: KMS action
        self.ids = {}  # KMS action: the request id of the last one, whatever became of it
        self.connections = 0
        self.proxied, self.leads = [], {}
        self.denied, self.allowed = set(), None
        self.gateway.add("LTAI5tFakeFakeFakeFake", "fakeSecretFakeSecretFakeSecret")

    def created(self):
        return self.gateway.now()

    def allows(self, action, key):
        """By the policies, if there are any, of the identity and of the key's session; re-encrypting
        is two rights of one action."""
        rights = {"ReEncrypt": ("ReEncryptFrom", "ReEncryptTo")}.get(action, (action,))
        return all(allowed is None or all(
            any(fnmatch.fnmatchcase(f"kms:{right}", pattern) for pattern in allowed) for right in rights)
            for allowed in (self.allowed, key["allowed"]))

    def check(self, key, action, params):
        """By the policies of the role that @key is of, where RAM is kept."""
        for right, resource in kms.rights(self, action, params) if key["role"] is not None else ():
            if not self.ram.allows(key["role"], right, resource):
                raise Refused(403, "Forbidden.NoPermission", f"{right} on {resource} is not allowed.")

    def serve(self, name, handler, context=None, port=0):
        server = Server(("127.0.0.1", port), type(name, (handler,), {"state": self}))
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True,
                                                do_handshake_on_connect=False)
        self.servers[name] = server

    def start(self, name):
        threading.Thread(target=self.servers[name].serve_forever, kwargs={"poll_interval": 0.05},
                         daemon=True).start()

    def listen(self, name, wanted):
        """Plain ones alone: none of its port listens, or it does again."""
        server = self.servers[name]
        if not wanted and server.fileno() >= 0:
            server.shutdown()
            server.server_close()
        elif wanted and server.fileno() < 0:
            self.serve(name, server.RequestHandlerClass, port=server.server_address[1])
            self.start(name)

    def take_fault(self, on, action):
        for fault in self.faults:
            if fault["on"] == on and fault.get("action", action) == action:
                fault["count"] = fault.get("count", 1) - 1
                if fault["count"] <= 0:
                    self.faults.remove(fault)
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    """One exchange: read it whole, ask answer(), obey a fault. Subclasses have `on` and answer()."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # head and body in one segment, at once
    on, state = "", None
    request_id = ""  # of this exchange, where there is such a thing: with KMS and STS
    timeout = 60

    def log_message(self, *args):
        pass

    def setup(self):
        super().setup()
        with self.state.lock:
            self.state.connections += 1

    def exchange(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(min(length, BODY_MAX))
        url = urllib.parse.urlsplit(self.path)
        headers = {}
        for name, value in self.headers.items():
            if name.lower() in headers:
                return self.reply(400, {"Code": "InvalidParameter", "Message": f"{name} twice"})
            headers[name.lower()] = value
        name = self.action(url, headers)
        self.request_id = str(uuid.uuid4()) if self.on in ("kms", "sts", "ram", "ecs") else ""
        with self.state.lock:
            if self.on == "kms":
                self.state.ids[name] = self.request_id
                self.state.whose[self.request_id] = name
            key = f"{self.on} {name}"
            self.state.calls[key] = self.state.calls.get(key, 0) + 1
            fault = self.state.take_fault(self.on, name)
        if fault is not None and self.before(fault):
            return None
        with self.state.lock:
            status, reply = self.answer(url, headers, body)
        return self.after(fault or {"kind": ""}, status, reply)

    do_GET = do_POST = do_PUT = do_DELETE = exchange

    def action(self, url, headers):
        return url.path

    def reply(self, status, body, extra=(), length=None):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=utf-8")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if self.request_id:  # as the gateway of KMS and STS does
            self.send_header("x-acs-request-id", self.request_id)
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in extra:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def before(self, fault):
        """Faults that keep the request from being answered; True when it has been dealt with."""
        kind = fault["kind"]
        if kind == "error":
            extra = [("Retry-After", str(fault["after"]))] if "after" in fault else []
            code = fault["code"]
            self.reply(fault["status"], {
                "RequestId": self.request_id, "HostId": "kms.fake.aliyuncs.com",
                "Code": code, "Message": fault.get("message", "planted")}, extra)
        elif kind == "status":
            self.reply(fault["status"], b"<html>gateway</html>")
        elif kind == "drop":
            self.close_connection = True
        elif kind == "slow":
            time.sleep(fault["seconds"])
            return False
        else:
            return False
        return True

    def after(self, fault, status, reply):
        kind = fault["kind"]
        if kind == "cut":
            whole = json.dumps(reply).encode()
            self.close_connection = True
            return self.reply(status, whole[: len(whole) // 2], length=len(whole))
        if kind == "oversized":
            return self.reply(status, json.dumps(reply)[:-1].encode() + b" " * (4 << 20) + b"}")
        if kind == "malformed":
            return self.reply(status, json.dumps(reply)[:-1].encode())
        if kind == "double":
            field = fault["field"]
            return self.reply(status, (json.dumps(reply)[:-1] + f',"{field}":"x"}}').encode())
        if kind == "set":
            at = reply = reply if isinstance(reply, dict) else json.loads(reply)
            *outer, field = fault["field"].split(".")
            for name in outer:
                at = at[int(name)] if isinstance(at, list) else at[name]
            at[field] = fault["value"]
            if fault["value"] is None:
                del at[field]
        return self.reply(status, reply)


class Kms(Handler):
    on, version = "kms", "2016-01-20"

    def action(self, url, headers):
        return headers.get("x-acs-action", "")

    def answer(self, url, headers, body):
        state, request_id = self.state, self.request_id
        try:
            if self.command != "POST" or url.path != "/":
                raise Refused(404, "InvalidAction.NotFound", "POST / it is")
            params = parameters(url.query)
            key = state.gateway.check("POST", url.path, params, headers, body)
            if body:
                raise Refused(400, "InvalidParameter", "parameters stand in the query")
            if headers.get("x-acs-version") != self.version:
                raise Refused(400, "InvalidVersion", "Specified parameter Version is not valid.")
            name = headers.get("x-acs-action", "")
            return 200, {"RequestId": request_id, **self.perform(key, name, params, headers)}
        except Refused as e:
            return e.status, {"HttpStatus": e.status, "Code": e.code, "Message": e.message,
                              "RequestId": request_id, "HostId": f"{self.on}.fake.aliyuncs.com"}

    def perform(self, key, name, params, headers):
        state = self.state
        self.check_place(name, headers)
        state.last = {"action": name, "params": params, "request_id": self.request_id}
        if name in state.denied or name in key["denied"] or not state.allows(name, key):
            raise Refused(403, "Forbidden.NoPermission", "This operation is forbidden by permission system.")
        return kms.call(state, name, params, check=lambda: state.check(key, name, params))

    def check_place(self, name, headers):
        """What is asked by one of the service's names is asked for it; and what is not there is not."""
        server_name = getattr(self.connection, "server_name", None)
        if server_name in NAMES and headers.get("host") != server_name:
            raise Refused(400, "InvalidParameter", f"Host: is not {server_name}")
        if server_name == INSTANCE and name not in kms.DEDICATED:
            raise Refused(404, "InvalidAction.NotFound", "a dedicated gateway has no such action")


class Ram(Kms):
    """And ECS: for the account itself alone."""

    on, version, actions = "ram", "2015-05-01", ram.ACTIONS

    def perform(self, key, name, params, headers):
        if key["token"] is not None or self.state.ram is None:
            raise Refused(403, "NoPermission", "You are not authorized to do this action.")
        return kms.call(self.state, name, params, self.actions)


class Ecs(Ram):
    on, version, actions = "ecs", "2014-05-26", ram.ECS_ACTIONS


class Sts(Handler):
    on = "sts"

    def answer(self, url, headers, body):
        request_id = self.request_id
        try:
            if url.path != "/" or self.command not in ("GET", "POST"):
                raise Refused(404, "InvalidAction.NotFound", "Specified api is not found.")
            form = {}
            if body:
                if headers.get("content-type") != "application/x-www-form-urlencoded":
                    raise Refused(400, "InvalidParameter", "the body is no form")
                form = parameters(body.decode("ascii", "replace"))
            query = parameters(url.query)
            if roles.is_asked(query, headers):
                reply = self.state.roles.assume(self.command, url.path, query, form, headers, body)
            else:
                reply = self.state.identity.sts(query, form, headers)
            return 200, {"RequestId": request_id, **reply}
        except Refused as e:
            return e.status, {"RequestId": request_id, "HostId": "sts.aliyuncs.com", "Code": e.code,
                              "Message": e.message}


class Metadata(Handler):
    on = "imds"

    def answer(self, url, headers, body):
        self.close_connection = True  # or it would be there for who has been there before
        if self.state.identity.imds == "off":
            return 503, b""
        return self.state.identity.metadata(self.command, url.path, headers)


class Uri(Handler):
    on = "uri"

    def answer(self, url, headers, body):
        return self.state.identity.uri(self.command, url.path)


class Control(Handler):
    """What tests do to the service behind its back."""

    on = "control"

    def answer(self, url, headers, body):
        try:
            ask = json.loads(body)
            return 200, getattr(self, "do_" + ask.pop("do"))(**ask) or {}
        except (Refused, AttributeError, KeyError, TypeError, ValueError) as e:
            return 400, {"error": repr(e)}

    def do_fault(self, **fault):
        self.state.faults.append(fault)

    def do_clear(self):
        self.state.faults.clear()
        self.state.denied.clear()
        self.state.gateway.skew = 0

    def do_key(self, alias=None, spec="Aliyun_AES_256", usage=None, level="SOFTWARE"):
        key = self.state.store.create(spec, usage, self.state.created(), level=level)
        if alias is not None:
            self.state.store.aliases["alias/" + alias] = key.id
        return {"id": key.id, "version": key.primary.id}

    def do_rotate(self, key):
        found = self.state.store.find(key)  # as automatic rotation does it
        return {"version": found.add_version(self.state.created()).id}

    def do_state(self, key, state):
        self.state.store.find(key).state = state

    def do_material(self, key):
        """The bytes of an HMAC key, for who reckons again what it made."""
        return {"hex": self.state.store.find(key).primary.material.hex()}

    def do_destroy_version(self, key, version):
        self.state.store.find(key).version(version).destroyed = True

    def do_forget(self, key):
        found = self.state.store.find(key)
        del self.state.store.keys[found.id]

    def do_expire(self, key_id=None):
        """STS credentials end now."""
        for name, key in self.state.gateway.keys.items():
            if key["token"] is not None and key_id in (None, name):
                key["expires"] = self.state.gateway.now()

    def do_revoke(self, key_id=None, revoked=True):
        for name, key in self.state.gateway.keys.items():
            if key_id in (None, name):
                key["revoked"] = revoked

    def do_access_key(self, id, secret):
        self.state.gateway.add(id, secret)

    def do_deny(self, action):
        self.state.denied.add(action)

    def do_policy(self, policies=None):
        """Only what these RAM policies name is allowed, on any resource; without them all is."""
        self.state.allowed = None if policies is None else [
            action for policy in policies for statement in policy["Statement"] for action in statement["Action"]]

    def do_ram(self):
        """RAM is kept from now on: nobody but the account may anything until it says so."""
        self.state.ram = self.state.identity.ram = ram.Ram()

    def do_skew(self, seconds):
        self.state.gateway.skew = seconds

    def do_identity(self, lifetime=3600, imds="both"):
        """imds: both, v1, v2; off: it answers 503; absent: nobody listens."""
        self.state.identity.lifetime, self.state.identity.imds = lifetime, imds
        self.state.listen("imds", imds != "absent")

    def do_token(self, **over):
        return {"token": self.state.identity.issuer.token(self.state.gateway.now(), **over)}

    def do_issue(self, seconds=3600):
        return self.state.identity.issue(seconds)

    def do_session(self, id):
        """What was asked of STS for this key, and "by" which key, or provider."""
        return self.state.gateway.keys[id]["session"]

    def do_external_id(self, wanted=None):
        self.state.roles.external_id = wanted

    def do_calls(self):
        calls = dict(self.state.calls)
        self.state.calls.clear()
        return calls

    def do_last(self):
        return self.state.last

    def do_id_of(self, action):
        return {"request_id": self.state.ids.get(action, "none")}

    def do_proxied(self):
        """Where CONNECT led to since this was asked last."""
        hosts, self.state.proxied = self.state.proxied, []
        return {"hosts": " ".join(hosts)}

    def do_lead(self, host, to=None):
        """The proxy leads to the server that has the name @to instead."""
        self.state.leads[host] = to

    def do_whose(self, id):
        return {"action": self.state.whose.get(id, "none")}

    def do_connections(self):
        return {"connections": self.state.connections}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (OSError, ssl.SSLError)):
            super().handle_error(request, client_address)


def main():
    state, proxy = State(), None
    for name, handler in (("kms", Kms), ("ram", Ram), ("ecs", Ecs), ("sts", Sts), ("imds", Metadata),
                          ("uri", Uri), ("control", Control)):
        state.serve(name, handler)
    if len(sys.argv) == 3 and sys.argv[1] == "--tls":
        contexts = tls_contexts(sys.argv[2])
        state.serve("tls", Kms, contexts["localhost"])
        state.serve("tls_wrong_name", Kms, contexts["other.example"])
        for name, service in NAMES.items():
            state.serve(name, Kms if service == "kms" else Sts, contexts[name])
        ports = {name: state.servers[name].server_address[1] for name in NAMES}
        ports["other.example"] = state.servers["tls_wrong_name"].server_address[1]
        proxy = Proxy(state, ports)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
    for name in state.servers:
        state.start(name)
    known = {"role_arn": ROLE_ARN, "provider_arn": PROVIDER_ARN, "role": ROLE, "account": ACCOUNT,
             "user_role_arn": roles.USER_ROLE_ARN, "other_role_arn": roles.OTHER_ROLE_ARN,
             "region": REGION, "cluster": CLUSTER, "instance": ram.INSTANCE,
             "access_key": "LTAI5tFakeFakeFakeFake", "secret": "fakeSecretFakeSecretFakeSecret"}
    if proxy is not None:
        known["proxy"] = proxy.server_address[1]
    print(json.dumps({**{n: s.server_address[1] for n, s in state.servers.items()}, **known}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
