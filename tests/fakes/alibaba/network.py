# SPDX-License-Identifier: Apache-2.0
"""The service's own names: a certificate for each, by the CA that such a name has one of, and the
one way to them, a proxy for CONNECT."""
import datetime
import ipaddress
import socket
import socketserver
import ssl
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

INSTANCE = "kst-hzz0123456789.cryptoservice.kms.aliyuncs.com"
NAMES = {  # what is served there
    "kms.cn-hangzhou.aliyuncs.com": "kms",
    "kms-vpc.cn-hangzhou.aliyuncs.com": "kms",
    INSTANCE: "kms",
    "sts.aliyuncs.com": "sts",
    "sts.cn-hangzhou.aliyuncs.com": "sts",
    "sts-vpc.cn-hangzhou.aliyuncs.com": "sts",
    "sts.cn-beijing.aliyuncs.com": "sts",
}


def certificate(name, key, issuer, issuer_key, ca):
    now = datetime.datetime.utcnow()
    build = (x509.CertificateBuilder()
             .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
             .issuer_name(issuer).public_key(key.public_key()).serial_number(x509.random_serial_number())
             .not_valid_before(now - datetime.timedelta(hours=1))
             .not_valid_after(now + datetime.timedelta(days=2))
             .add_extension(x509.BasicConstraints(ca, None), True))
    if not ca:
        names = [x509.DNSName(name)]
        if name == "localhost":
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        build = build.add_extension(x509.SubjectAlternativeName(names), False)
    return build.sign(issuer_key, hashes.SHA256())


class Authority:
    def __init__(self, path, name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        with open(path, "wb") as f:
            f.write(certificate(name, self.key, self.name, self.key, True).public_bytes(
                serialization.Encoding.PEM))

    def context(self, path, name):
        key = ec.generate_private_key(ec.SECP256R1())
        with open(path, "wb") as f:
            f.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                      serialization.NoEncryption()))
            f.write(certificate(name, key, self.name, self.key, False).public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.sni_callback = note_server_name
        return context


def note_server_name(connection, server_name, context):
    """A name of the service's that is asked for where another one is, is not there."""
    connection.server_name = server_name


def tls_contexts(folder):
    """FOLDER/ca.pem and FOLDER/ca-region.pem, and a context for each name."""
    instance = Authority(f"{folder}/ca.pem", "fake KMS instance CA")
    region = Authority(f"{folder}/ca-region.pem", "fake public CA")
    return {name: (region if name in NAMES and name != INSTANCE else instance).context(
        f"{folder}/{name}.pem", name) for name in ("localhost", "other.example", *NAMES)}


class Connect(socketserver.StreamRequestHandler):
    def handle(self):
        words = self.rfile.readline(4096).decode("ascii", "replace").split()
        while self.rfile.readline(4096) not in (b"\r\n", b"\n", b""):
            pass
        host, _, port = words[1].rpartition(":") if len(words) == 3 else ("", "", "")
        state = self.server.state
        with state.lock:
            state.proxied.append(host or " ".join(words[:2]))
            at = self.server.ports.get(state.leads.get(host) or host)
        if words[:1] != ["CONNECT"] or port != "443" or at is None:
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", at)) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pass_on, args=(there, self.connection), daemon=True)
            back.start()
            pass_on(self.connection, there)
            back.join()


def pass_on(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, state, ports):
        super().__init__(("127.0.0.1", 0), Connect)
        self.state, self.ports = state, ports
