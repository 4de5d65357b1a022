# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' TokenReview over TLS, as far as OpenBao asks: every well-formed token is of the service
account that it names. usage: token_review.py CERT KEY AUDIENCE"""
import base64
import http.server
import json
import ssl
import sys


class Review(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("/tokenreviews"):
            self.send_error(404)
            return
        part = body["spec"]["token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        body["status"] = {
            "authenticated": True,
            "user": {"username": claims["sub"], "uid": "1", "groups": ["system:serviceaccounts"]},
        }
        answer = json.dumps(body).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


server = http.server.HTTPServer(("127.0.0.1", 0), Review)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("listening", server.server_address[1], flush=True)
server.serve_forever()
