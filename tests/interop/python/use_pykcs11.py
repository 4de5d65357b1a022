# SPDX-License-Identifier: Apache-2.0
"""What PyKCS11 does with a token: use_pykcs11.py MODULE TOKEN PIN FOLDER.

Prints a line "ok NAME" or "FAIL NAME: why" for each thing. FOLDER has NAME.spki, the public keys.
"""

import os
import subprocess
import sys
import threading

import PyKCS11
from PyKCS11 import PyKCS11Error

P = PyKCS11
module, token, pin, folder = sys.argv[1:]
text = b"a text to be signed"
iv = bytes(range(16))
strict = "softhsm" not in module  # which begins operations with keys that cannot, and knows no fork


def check(name, what):
    try:
        what()
        print("ok", name)
    except Exception as error:  # pylint: disable=broad-except
        print(f"FAIL {name}: {type(error).__name__}: {error}".replace("\n", " "))
    sys.stdout.flush()


def same(one, other):
    if bytes(one) != bytes(other):
        raise AssertionError("not the same")


def refuses(what, *names):
    """@what raises one of these CKR_s; none named: any."""
    try:
        what()
    except PyKCS11Error as error:
        if names and not any(name in str(error) for name in names):
            raise AssertionError(f"refused with {error}") from error
        return
    raise AssertionError("was not refused")


lib = P.PyKCS11Lib()
lib.load(module)
slot = next(s for s in lib.getSlotList(tokenPresent=True) if lib.getTokenInfo(s).label.strip() == token)
session = lib.openSession(slot, P.CKF_SERIAL_SESSION | P.CKF_RW_SESSION)
check("wrong PIN", lambda: refuses(lambda: session.login("9999"), "CKR_PIN_INCORRECT"))
session.login(pin)
check("login twice", lambda: refuses(lambda: session.login(pin), "CKR_USER_ALREADY_LOGGED_IN"))


def find(label, kind):
    found = session.findObjects([(P.CKA_LABEL, label), (P.CKA_CLASS, kind)])
    if len(found) != 1:
        raise AssertionError(f"{len(found)} objects {label}")
    return found[0]


def attribute(key, kind):
    return session.getAttributeValue(key, [kind])[0]


def openssl_verifies(name, signature, *options):
    with open(os.path.join(folder, "py.text"), "wb") as out:
        out.write(text)
    with open(os.path.join(folder, "py.sig"), "wb") as out:
        out.write(bytes(signature))
    subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", os.path.join(folder, name + ".spki"),
         "-rawin", "-in", os.path.join(folder, "py.text"), "-sigfile", os.path.join(folder, "py.sig"), *options],
        check=True, capture_output=True)


rsa, rsa_public = find("rsa", P.CKO_PRIVATE_KEY), find("rsa", P.CKO_PUBLIC_KEY)
ec, ec_public = find("ec", P.CKO_PRIVATE_KEY), find("ec", P.CKO_PUBLIC_KEY)
ed = find("ed", P.CKO_PRIVATE_KEY)
kek = find("aes", P.CKO_SECRET_KEY)

# --- attributes ----------------------------------------------------------------------------------


def attributes():
    for key in rsa, ec, ed, kek:
        for kind, value in ((P.CKA_SENSITIVE, True), (P.CKA_EXTRACTABLE, False), (P.CKA_NEVER_EXTRACTABLE, True),
                            (P.CKA_TOKEN, True)):
            if bool(attribute(key, kind)) != value:
                raise AssertionError(f"{P.CKA[kind]} of {key}")
    if attribute(rsa, P.CKA_MODULUS) != attribute(rsa_public, P.CKA_MODULUS):
        raise AssertionError("modulus")
    if attribute(ec_public, P.CKA_EC_POINT)[:2] != (4, 65):
        raise AssertionError("EC_POINT is not an OCTET STRING in DER")
    # what cannot be had is None, what can be had is there all the same
    values = session.getAttributeValue(kek, [P.CKA_VALUE, P.CKA_KEY_TYPE], allAsBinary=False)
    if values[0] is not None or values[1] != P.CKK_AES:
        raise AssertionError(f"{values}")


check("attributes", attributes)
check("a search that finds nothing", lambda: same(session.findObjects([(P.CKA_LABEL, "nobody")]), []))
check("a search by CKA_ID", lambda: same(
    {attribute(o, P.CKA_CLASS) for o in session.findObjects([(P.CKA_ID, attribute(rsa, P.CKA_ID))])}
    >= {P.CKO_PRIVATE_KEY, P.CKO_PUBLIC_KEY} and b"1" or b"0", b"1"))

# --- signatures ----------------------------------------------------------------------------------

PSS = P.RSA_PSS_Mechanism(P.CKM_SHA256_RSA_PKCS_PSS, P.CKM_SHA256, P.CKG_MGF1_SHA256, 32)
for row in (("rsa", rsa, rsa_public, P.Mechanism(P.CKM_SHA256_RSA_PKCS, None), ("-digest", "sha256")),
            ("rsa, PSS", rsa, rsa_public, PSS, ("-digest", "sha256", "-pkeyopt", "rsa_padding_mode:pss",
                                                "-pkeyopt", "rsa_pss_saltlen:32"))):
    def signature_of(row=row):
        name, private, public, mechanism, options = row
        signature = session.sign(private, text, mechanism)
        openssl_verifies(name.split(",")[0], signature, *options)
        if not session.verify(public, text, signature, mechanism):
            raise AssertionError("not verified")
        if session.verify(public, text + b"!", signature, mechanism):
            raise AssertionError("another text verified")

    check("sign " + row[0], signature_of)


def sign_ec():
    import hashlib
    digest = hashlib.sha256(text).digest()
    for _ in range(20):  # r and s are 32 bytes each, also when they begin with zeros
        signature = session.sign(ec, digest, P.Mechanism(P.CKM_ECDSA, None))
        if len(signature) != 64:
            raise AssertionError(f"{len(signature)} bytes")
        if not session.verify(ec_public, digest, signature, P.Mechanism(P.CKM_ECDSA, None)):
            raise AssertionError("not verified")


check("sign ec", sign_ec)
check("sign ed", lambda: openssl_verifies("ed", session.sign(ed, text, P.Mechanism(P.CKM_EDDSA, None))))
if strict:
    check("sign with a key that cannot", lambda: refuses(
        lambda: session.sign(kek, text, P.Mechanism(P.CKM_SHA256_RSA_PKCS, None)),
        "CKR_KEY_TYPE", "CKR_KEY_FUNCTION", "CKR_KEY_HANDLE"))
check("sign with a mechanism that nobody has", lambda: refuses(
    lambda: session.sign(rsa, text, P.Mechanism(P.CKM_MD2_RSA_PKCS, None)), "CKR_MECHANISM_INVALID"))

# --- session keys --------------------------------------------------------------------------------

session_key = [(P.CKA_CLASS, P.CKO_SECRET_KEY), (P.CKA_KEY_TYPE, P.CKK_AES), (P.CKA_TOKEN, False),
               (P.CKA_ENCRYPT, True), (P.CKA_DECRYPT, True), (P.CKA_SENSITIVE, False), (P.CKA_EXTRACTABLE, True)]
AES_KEY_GEN = P.Mechanism(P.CKM_AES_KEY_GEN, None)
dek = session.generateKey(session_key + [(P.CKA_VALUE_LEN, 32)], AES_KEY_GEN)


def sealed_with(key, mechanism, data, openable=True):
    sealed = bytes(session.encrypt(key, data, mechanism))
    same(session.decrypt(key, sealed, mechanism), data)
    return sealed


GCM = P.AES_GCM_Mechanism(iv[:12], b"header", 128)
CBC = P.Mechanism(P.CKM_AES_CBC_PAD, iv)
CTR = P.AES_CTR_Mechanism(128, iv)
for name, mechanism in (("AES-GCM", GCM), ("AES-CBC-PAD", CBC), ("AES-CTR", CTR)):
    for size in 1, 15, 16, 1000, 60000, 200000:
        check(f"session key {name}, {size} bytes", lambda: sealed_with(dek, mechanism, os.urandom(size)))
        # one call to the agent carries 64 KiB, and GCM is one call
        if strict and mechanism is GCM and size > 60000:
            check(f"token key {name}, {size} bytes", lambda: refuses(
                lambda: sealed_with(kek, mechanism, os.urandom(size)), "CKR_DATA_LEN_RANGE"))
        else:
            check(f"token key {name}, {size} bytes", lambda: sealed_with(kek, mechanism, os.urandom(size)))


def altered():
    for key in dek, kek:
        sealed = bytearray(session.encrypt(key, text, GCM))
        sealed[2] ^= 1
        refuses(lambda: session.decrypt(key, bytes(sealed), GCM))


check("AES-GCM, altered", altered)


def openssl_opens():
    value = bytes(attribute(dek, P.CKA_VALUE))
    sealed = bytes(session.encrypt(dek, text, CBC))
    opened = subprocess.run(["openssl", "enc", "-d", "-aes-256-cbc", "-K", value.hex(), "-iv", iv.hex()],
                            input=sealed, check=True, capture_output=True).stdout
    same(opened, text)


check("a session key is what it says: openssl opens", openssl_opens)


def wrap(mechanism, wrapped_len):
    wrapped = bytes(session.wrapKey(kek, dek, mechanism))
    if wrapped_len and len(wrapped) != wrapped_len:
        raise AssertionError(f"{len(wrapped)} bytes")
    again = session.unwrapKey(kek, wrapped, session_key, mechanism)
    same(attribute(again, P.CKA_VALUE), attribute(dek, P.CKA_VALUE))
    same(session.decrypt(again, session.encrypt(dek, text, GCM), GCM), text)
    broken = bytearray(wrapped)
    broken[5] ^= 1
    refuses(lambda: session.unwrapKey(kek, bytes(broken), session_key, mechanism))


check("wrap and unwrap under the KEK, AES-KEY-WRAP", lambda: wrap(P.Mechanism(P.CKM_AES_KEY_WRAP, None), 40))
check("wrap and unwrap under the KEK, AES-KEY-WRAP-PAD", lambda: wrap(P.Mechanism(P.CKM_AES_KEY_WRAP_PAD, None), None))


def keep_sensitive():
    wrapped = session.wrapKey(kek, dek, P.Mechanism(P.CKM_AES_KEY_WRAP, None))
    hidden = [(k, v) for k, v in session_key if k not in (P.CKA_SENSITIVE, P.CKA_EXTRACTABLE)]
    again = session.unwrapKey(kek, wrapped, hidden + [(P.CKA_SENSITIVE, True), (P.CKA_EXTRACTABLE, False)],
                              P.Mechanism(P.CKM_AES_KEY_WRAP, None))
    if attribute(again, P.CKA_VALUE) is not None:
        raise AssertionError("can be read")
    refuses(lambda: session.wrapKey(kek, again, P.Mechanism(P.CKM_AES_KEY_WRAP, None)), "CKR_KEY_UNEXTRACTABLE")


check("an unwrapped key that stays hidden", keep_sensitive)
check("the KEK wraps no key of the token", lambda: refuses(
    lambda: session.wrapKey(kek, rsa, P.Mechanism(P.CKM_AES_KEY_WRAP, None)), "CKR_KEY_UNEXTRACTABLE", "CKR_KEY_NOT_WRAPPABLE"))


def derive():
    pair = [(P.CKA_TOKEN, False), (P.CKA_DERIVE, True)]
    curve = bytes.fromhex("06082a8648ce3d030107")
    halves = [session.generateKeyPair(
        [(P.CKA_CLASS, P.CKO_PUBLIC_KEY), (P.CKA_KEY_TYPE, P.CKK_EC), (P.CKA_EC_PARAMS, curve)] + pair,
        [(P.CKA_CLASS, P.CKO_PRIVATE_KEY), (P.CKA_KEY_TYPE, P.CKK_EC), (P.CKA_SENSITIVE, True)] + pair,
        P.MechanismECGENERATEKEYPAIR) for _ in range(2)]
    secrets = []
    for mine, theirs in ((0, 1), (1, 0)):
        point = bytes(attribute(halves[theirs][0], P.CKA_EC_POINT))[2:]
        key = session.deriveKey(halves[mine][1], session_key + [(P.CKA_VALUE_LEN, 32)],
                                P.ECDH1_DERIVE_Mechanism(point))
        secrets.append(attribute(key, P.CKA_VALUE))
    same(secrets[0], secrets[1])
    refuses(lambda: session.deriveKey(halves[0][1], session_key + [(P.CKA_VALUE_LEN, 32)],
                                      P.ECDH1_DERIVE_Mechanism(b"\x04" + bytes(64))))


check("derive between session keys", derive)


def create():
    key = session.createObject(session_key + [(P.CKA_VALUE, bytes(range(32)))])
    same(session.encrypt(key, text, CBC), subprocess.run(
        ["openssl", "enc", "-aes-256-cbc", "-K", bytes(range(32)).hex(), "-iv", iv.hex()], input=text,
        check=True, capture_output=True).stdout)
    session.destroyObject(key)
    refuses(lambda: session.encrypt(key, text, CBC), "CKR_KEY_HANDLE_INVALID", "CKR_OBJECT_HANDLE_INVALID")


check("create and destroy a session key", create)
check("digest", lambda: same(session.digest(text, P.Mechanism(P.CKM_SHA256, None)),
                             __import__("hashlib").sha256(text).digest()))
check("random", lambda: len(session.generateRandom(64)) == 64 or 1 / 0)

# --- threads, each with a session of its own -----------------------------------------------------


def threads():
    failed = []

    def work():
        try:
            own = lib.openSession(slot, P.CKF_SERIAL_SESSION)
            for _ in range(25):
                own.sign(rsa, text, P.Mechanism(P.CKM_SHA256_RSA_PKCS, None))
                own.decrypt(dek, own.encrypt(dek, text, GCM), GCM)
                own.findObjects([(P.CKA_LABEL, "ec")])
            own.closeSession()
        except Exception as error:  # pylint: disable=broad-except
            failed.append(error)

    all_of_them = [threading.Thread(target=work) for _ in range(4)]
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()
    if failed:
        raise failed[0]


check("threads", threads)


def fork():
    child = os.fork()
    if child == 0:
        try:
            if lib.lib.C_Initialize() != P.CKR_OK:  # PyKCS11 itself takes no notice of a fork
                raise AssertionError("C_Initialize in the child")
            own = lib.openSession(slot, P.CKF_SERIAL_SESSION)
            own.login(pin)
            key = own.findObjects([(P.CKA_LABEL, "rsa"), (P.CKA_CLASS, P.CKO_PRIVATE_KEY)])[0]
            own.sign(key, text, P.Mechanism(P.CKM_SHA256_RSA_PKCS, None))
            os._exit(0)
        except BaseException as error:  # pylint: disable=broad-except
            print(f"  in the child: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        raise AssertionError("the child failed")
    session.sign(rsa, text, P.Mechanism(P.CKM_SHA256_RSA_PKCS, None))  # and the parent goes on


if strict:
    check("a forked child", fork)
session.logout()
check("after logout", lambda: refuses(
    lambda: session.sign(rsa, text, P.Mechanism(P.CKM_SHA256_RSA_PKCS, None)),
    "CKR_USER_NOT_LOGGED_IN", "CKR_KEY_HANDLE_INVALID", "CKR_OBJECT_HANDLE_INVALID"))
session.closeSession()
