# SPDX-License-Identifier: Apache-2.0
"""What python-pkcs11 does with a token: use_python_pkcs11.py MODULE TOKEN PIN.

Prints a line "ok NAME" or "FAIL NAME: why" for each thing.
"""

import hashlib
import sys

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

module, token_label, pin = sys.argv[1:]
text = b"a text to be signed"


def check(name, what):
    try:
        what()
        print("ok", name)
    except Exception as error:  # pylint: disable=broad-except
        print(f"FAIL {name}: {type(error).__name__}: {error}".replace("\n", " "))
    sys.stdout.flush()


def same(one, other):
    if one != other:
        raise AssertionError("not the same")


def raises(what, *kinds):
    try:
        what()
    except kinds:
        return
    raise AssertionError("was not refused")


library = pkcs11.lib(module)
token = library.get_token(token_label=token_label)
check("no such token", lambda: raises(lambda: library.get_token(token_label="nobody"), pkcs11.NoSuchToken))
check("wrong PIN", lambda: raises(lambda: token.open(user_pin="9999"), pkcs11.PinIncorrect))
with token.open(rw=True, user_pin=pin) as session:
    rsa = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label="rsa")
    rsa_public = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label="rsa")
    ec = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label="ec")
    ec_public = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label="ec")
    kek = session.get_key(object_class=ObjectClass.SECRET_KEY, label="aes")
    check("no such key", lambda: raises(lambda: session.get_key(label="nobody"), pkcs11.NoSuchKey))

    def sign(private, public, mechanism):
        signature = private.sign(text, mechanism=mechanism)
        if not public.verify(text, signature, mechanism=mechanism):
            raise AssertionError("not verified")
        if public.verify(text + b"!", signature, mechanism=mechanism):
            raise AssertionError("another text verified")

    for mechanism in Mechanism.SHA256_RSA_PKCS, Mechanism.SHA512_RSA_PKCS:
        check(f"sign {mechanism.name}", lambda: sign(rsa, rsa_public, mechanism))
    check("sign in pieces", lambda: same(
        rsa.sign([text[:7], text[7:]], mechanism=Mechanism.SHA256_RSA_PKCS),
        rsa.sign(text, mechanism=Mechanism.SHA256_RSA_PKCS)))

    def sign_ec():
        digest = hashlib.sha256(text).digest()
        signature = ec.sign(digest, mechanism=Mechanism.ECDSA)
        if not ec_public.verify(digest, signature, mechanism=Mechanism.ECDSA):
            raise AssertionError("not verified")

    check("sign ECDSA", sign_ec)

    def decrypt_rsa():
        sealed = rsa_public.encrypt(text, mechanism=Mechanism.RSA_PKCS)
        same(rsa.decrypt(sealed, mechanism=Mechanism.RSA_PKCS), text)

    check("decrypt RSA_PKCS", decrypt_rsa)
    iv = session.generate_random(128)
    dek = session.generate_key(KeyType.AES, 256, store=False,
                               template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True})
    for name, key in (("token", kek), ("session", dek)):
        for mechanism in Mechanism.AES_CBC_PAD, Mechanism.AES_GCM:
            parameter = iv if mechanism == Mechanism.AES_CBC_PAD else pkcs11.GCMParams(iv[:12], b"header", 128)

            def pieces():
                data = bytes(range(256)) * 40
                sealed = key.encrypt(data, mechanism=mechanism, mechanism_param=parameter)
                same(key.decrypt(sealed, mechanism=mechanism, mechanism_param=parameter), data)

            check(f"{name} key {mechanism.name}", pieces)

        def in_pieces():
            chunks = [b"x" * 100, b"y" * 7, b"z" * 5000]
            sealed = b"".join(key.encrypt(iter(chunks), mechanism_param=iv, buffer_size=8192))
            same(b"".join(key.decrypt((sealed[i:i + 33] for i in range(0, len(sealed), 33)), mechanism_param=iv,
                                      buffer_size=8192)), b"".join(chunks))

        check(f"{name} key AES_CBC_PAD, in pieces", in_pieces)

    def wrap():
        wrapped = kek.wrap_key(dek, mechanism=Mechanism.AES_KEY_WRAP)
        again = kek.unwrap_key(ObjectClass.SECRET_KEY, KeyType.AES, wrapped, mechanism=Mechanism.AES_KEY_WRAP, store=False,
                               template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True})
        same(again[Attribute.VALUE], dek[Attribute.VALUE])

    check("wrap and unwrap a session key under the KEK", wrap)

    def session_pair():
        parameters = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True)
        public, private = parameters.generate_keypair(store=False)
        digest = hashlib.sha256(text).digest()
        signature = private.sign(digest, mechanism=Mechanism.ECDSA)
        if not public.verify(digest, signature, mechanism=Mechanism.ECDSA):
            raise AssertionError("not verified")

    check("a session key pair", session_pair)

    def make_and_destroy():
        made = session.generate_key(KeyType.AES, 256, label="python-made", store=True)
        same(session.get_key(label="python-made")[Attribute.LABEL], "python-made")
        made.destroy()
        raises(lambda: session.get_key(label="python-made"), pkcs11.NoSuchKey)

    check("make and destroy a key of the token", make_and_destroy)
    check("digest", lambda: same(session.digest(text, mechanism=Mechanism.SHA256), hashlib.sha256(text).digest()))
check("two sessions", lambda: same(*[
    (lambda s: (s.get_key(object_class=ObjectClass.PUBLIC_KEY, label="ec")[Attribute.EC_POINT], s.close())[0])(
        token.open(user_pin=pin)) for _ in range(2)]))
