#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Stands between a client and a service, and fails as it is told to: by TLS on a loopback port, with
the certificate of the right name or of a wrong one. Each request goes to the service as it came.

usage: fault_proxy.py PORT RIGHT.pem WRONG.pem    prints "listening TLS-PORT CONTROL-PORT".
PORT: the service's, on 127.0.0.1; each .pem a certificate with its key.

Control: POST / with JSON, one fault that stays until the next:
  {}                                          none
  {"status": 429, "body": {}, "after": 5}     that answer, with Retry-After; "until": 5 as a date
  {"kind": "slow", "seconds": 2}              then the service's answer
  {"kind": "cut"}                             half of the service's answer
  {"kind": "drop"}                            no answer
  {"kind": "oversized"}                       the answer, and 16 MB of blanks within its object
  {"kind": "malformed"}                       the answer without its last byte
  {"kind": "wrong_name"}                      the other certificate, on new connections
"only": TEXT besides: of requests that are called so, "POST /path action"; action is Alibaba's.
It answers with how many requests of each name there were since the last time.
"""
import collections
import email.utils
import http.client
import json
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

fault = {}
asked = collections.Counter()
kept = set()  # connections of clients: another certificate is for new ones


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1
    timeout = 60

    def log_message(self, *args):
        pass

    def setup(self):
        super().setup()
        kept.add(self.connection)

    def finish(self):
        kept.discard(self.connection)
        super().finish()

    def forward(self, body):
        """Status, headers and body of the service's answer."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.service, timeout=30)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            upstream.putheader(name, value)
        upstream.endheaders(body)
        answer = upstream.getresponse()
        head = [(n, v) for n, v in answer.getheaders()
                if n.lower() not in ("content-length", "transfer-encoding", "connection")]
        return answer.status, head, answer.read()

    def reply(self, status, head, body, length=None):
        self.send_response_only(status)
        for name, value in head:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def exchange(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        name = f"{self.command} {self.path.partition('?')[0]} {self.headers.get('x-acs-action', '')}".rstrip()
        asked[name] += 1
        now = dict(fault) if fault.get("only", name) == name else {}
        if "status" in now:
            head = [("Retry-After", str(now["after"]))] if "after" in now else []
            if "until" in now:  # whole seconds: never earlier than that
                head = [("Retry-After", email.utils.formatdate(time.time() + now["until"] + 1, usegmt=True))]
            text = now.get("body", "<html>gateway</html>")
            return self.reply(now["status"], head, (text if isinstance(text, str) else json.dumps(text)).encode())
        if now.get("kind") == "drop":
            self.close_connection = True
            return None
        if now.get("kind") == "slow":
            time.sleep(now["seconds"])
        status, head, answer = self.forward(body)
        if now.get("kind") == "oversized":
            answer = answer.rstrip()[:-1] + b" " * (16 << 20) + b"}"
        if now.get("kind") == "malformed":
            answer = answer.rstrip()[:-1]
        if now.get("kind") == "cut":
            self.close_connection = True
            return self.reply(status, head, answer[: len(answer) // 2], len(answer))
        return self.reply(status, head, answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_LIST = exchange


class Control(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        global fault
        fault = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for connection in list(kept):  # a kept one would not see another certificate
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        counts = json.dumps(asked).encode()
        asked.clear()
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(counts)))
        self.end_headers()
        self.wfile.write(counts)


class Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service, right, wrong):
        super().__init__(("127.0.0.1", 0), Handler)
        self.service = service
        self.contexts = []
        for path in (right, wrong):
            self.contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self.contexts[-1].load_cert_chain(path)

    def get_request(self):
        connection, address = super().get_request()
        context = self.contexts[1 if fault.get("kind") == "wrong_name" else 0]
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (OSError, http.client.HTTPException)):
            super().handle_error(request, client_address)


def main():
    proxy = Proxy(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    control = ThreadingHTTPServer(("127.0.0.1", 0), Control)
    control.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    print("listening", proxy.server_address[1], control.server_address[1], flush=True)
    control.serve_forever()


if __name__ == "__main__":
    main()
