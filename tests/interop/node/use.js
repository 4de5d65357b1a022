// SPDX-License-Identifier: Apache-2.0
// What pkcs11js does with a token: use.js PKCS11JS MODULE TOKEN PIN.
// Prints a line "ok NAME" or "FAIL NAME: why" for each thing.
'use strict';
const crypto = require('crypto');
const [, , where, module_, tokenLabel, pin] = process.argv;
const P = require(where);
const text = Buffer.from('a text to be signed');

async function check(name, what) {
  try {
    await what();
    console.log('ok ' + name);
  } catch (error) {
    console.log(`FAIL ${name}: ${error.message}`.replace(/\n/g, ' '));
  }
}
function same(one, other) {
  if (Buffer.compare(one, other) !== 0) throw new Error('not the same');
}
function refuses(what, ...names) {
  try {
    what();
  } catch (error) {
    if (names.length && !names.some((name) => error.message.includes(name))) throw error;
    return;
  }
  throw new Error('was not refused');
}

(async () => {
  const p11 = new P.PKCS11();
  p11.load(module_);
  // The asynchronous calls run on threads of libuv: without this flag a module may leave its locks
  // out (PKCS#11 v3.1, 5.4.1), and SoftHSM does.
  p11.C_Initialize({ flags: P.CKF_OS_LOCKING_OK });
  const slot = p11.C_GetSlotList(true).find((s) => p11.C_GetTokenInfo(s).label.trim() === tokenLabel);
  const session = p11.C_OpenSession(slot, P.CKF_RW_SESSION | P.CKF_SERIAL_SESSION);
  await check('wrong PIN', () => refuses(() => p11.C_Login(session, P.CKU_USER, '9999'), 'CKR_PIN_INCORRECT'));
  p11.C_Login(session, P.CKU_USER, pin);
  const find = (label, kind) => {
    p11.C_FindObjectsInit(session, [{ type: P.CKA_LABEL, value: label }, { type: P.CKA_CLASS, value: kind }]);
    const found = p11.C_FindObjects(session, 10);
    p11.C_FindObjectsFinal(session);
    if (found.length !== 1) throw new Error(`${found.length} objects ${label}`);
    return found[0];
  };
  const value = (object, type) => p11.C_GetAttributeValue(session, object, [{ type }])[0].value;
  const rsa = find('rsa', P.CKO_PRIVATE_KEY);
  const rsaPublic = find('rsa', P.CKO_PUBLIC_KEY);
  const ec = find('ec', P.CKO_PRIVATE_KEY);
  const ecPublic = find('ec', P.CKO_PUBLIC_KEY);
  const kek = find('aes', P.CKO_SECRET_KEY);

  await check('a key that is not there', () => refuses(() => find('nobody', P.CKO_PRIVATE_KEY), '0 objects'));
  await check('modulus and exponent', () => {
    const jwk = { kty: 'RSA', n: value(rsaPublic, P.CKA_MODULUS).toString('base64url'),
      e: value(rsaPublic, P.CKA_PUBLIC_EXPONENT).toString('base64url') };
    const key = crypto.createPublicKey({ key: jwk, format: 'jwk' });
    p11.C_SignInit(session, { mechanism: P.CKM_SHA256_RSA_PKCS }, rsa);
    const signature = p11.C_Sign(session, text, Buffer.alloc(256));
    if (!crypto.verify('sha256', text, key, signature)) throw new Error('node does not verify');
  });
  await check('ECDSA', () => {
    const point = value(ecPublic, P.CKA_EC_POINT).subarray(3);
    const jwk = { kty: 'EC', crv: 'P-256', x: point.subarray(0, 32).toString('base64url'), y: point.subarray(32).toString('base64url') };
    const key = crypto.createPublicKey({ key: jwk, format: 'jwk' });
    p11.C_SignInit(session, { mechanism: P.CKM_ECDSA }, ec);
    const signature = p11.C_Sign(session, crypto.createHash('sha256').update(text).digest(), Buffer.alloc(64));
    if (!crypto.verify('sha256', text, { key, dsaEncoding: 'ieee-p1363' }, signature)) throw new Error('node does not verify');
  });
  await check('sign in pieces, verify', () => {
    p11.C_SignInit(session, { mechanism: P.CKM_SHA256_RSA_PKCS }, rsa);
    p11.C_SignUpdate(session, text.subarray(0, 5));
    p11.C_SignUpdate(session, text.subarray(5));
    const signature = p11.C_SignFinal(session, Buffer.alloc(256));
    p11.C_VerifyInit(session, { mechanism: P.CKM_SHA256_RSA_PKCS }, rsaPublic);
    p11.C_Verify(session, text, signature);
    p11.C_VerifyInit(session, { mechanism: P.CKM_SHA256_RSA_PKCS }, rsaPublic);
    refuses(() => p11.C_Verify(session, Buffer.from('another text'), signature), 'CKR_SIGNATURE_INVALID');
  });
  const template = (more) => [{ type: P.CKA_CLASS, value: P.CKO_SECRET_KEY }, { type: P.CKA_KEY_TYPE, value: P.CKK_AES },
    { type: P.CKA_TOKEN, value: false }, { type: P.CKA_ENCRYPT, value: true }, { type: P.CKA_DECRYPT, value: true },
    { type: P.CKA_EXTRACTABLE, value: true }, { type: P.CKA_SENSITIVE, value: false }, ...more];
  const dek = p11.C_GenerateKey(session, { mechanism: P.CKM_AES_KEY_GEN }, template([{ type: P.CKA_VALUE_LEN, value: 32 }]));
  const iv = crypto.randomBytes(16);
  const gcm = { mechanism: P.CKM_AES_GCM, parameter: { type: P.CK_PARAMS_AES_GCM, iv: iv.subarray(0, 12), aad: Buffer.from('header'), tagBits: 128 } };
  const cbc = { mechanism: P.CKM_AES_CBC_PAD, parameter: iv };
  for (const [name, key] of [['token', kek], ['session', dek]]) {
    for (const [kind, mechanism] of [['GCM', gcm], ['CBC-PAD', cbc]]) {
      await check(`${name} key AES-${kind}`, async () => {
        const data = crypto.randomBytes(5000);
        p11.C_EncryptInit(session, mechanism, key);
        const sealed = await p11.C_EncryptAsync(session, data, Buffer.alloc(5100));
        p11.C_DecryptInit(session, mechanism, key);
        same(await p11.C_DecryptAsync(session, sealed, Buffer.alloc(5100)), data);
      });
    }
  }
  await check('node opens what a session key sealed', () => {
    p11.C_EncryptInit(session, gcm, dek);
    const sealed = p11.C_Encrypt(session, text, Buffer.alloc(100));
    const decipher = crypto.createDecipheriv('aes-256-gcm', value(dek, P.CKA_VALUE), iv.subarray(0, 12));
    decipher.setAAD(Buffer.from('header'));
    decipher.setAuthTag(sealed.subarray(-16));
    same(Buffer.concat([decipher.update(sealed.subarray(0, -16)), decipher.final()]), text);
  });
  await check('wrap and unwrap under the KEK', async () => {
    const wrapped = await p11.C_WrapKeyAsync(session, { mechanism: P.CKM_AES_KEY_WRAP }, kek, dek, Buffer.alloc(64));
    const again = await p11.C_UnwrapKeyAsync(session, { mechanism: P.CKM_AES_KEY_WRAP }, kek, wrapped, template([]));
    same(value(again, P.CKA_VALUE), value(dek, P.CKA_VALUE));
    wrapped[3] ^= 1;
    refuses(() => p11.C_UnwrapKey(session, { mechanism: P.CKM_AES_KEY_WRAP }, kek, wrapped, template([])), 'CKR_');
  });
  await check('the value of the KEK', () => refuses(() => value(kek, P.CKA_VALUE), 'CKR_ATTRIBUTE_SENSITIVE'));
  await check('a buffer that is too small keeps the operation', () => {
    p11.C_SignInit(session, { mechanism: P.CKM_SHA256_RSA_PKCS }, rsa);
    refuses(() => p11.C_Sign(session, text, Buffer.alloc(10)), 'CKR_BUFFER_TOO_SMALL');
    p11.C_Sign(session, text, Buffer.alloc(256));
  });
  await check('many at once', async () => {
    await Promise.all([...Array(16).keys()].map(async () => {
      const own = p11.C_OpenSession(slot, P.CKF_SERIAL_SESSION);
      for (let i = 0; i < 5; i++) {
        p11.C_SignInit(own, { mechanism: P.CKM_SHA256_RSA_PKCS }, rsa);
        await p11.C_SignAsync(own, text, Buffer.alloc(256));
      }
      p11.C_CloseSession(own);
    }));
  });
  await check('digest', () => {
    p11.C_DigestInit(session, { mechanism: P.CKM_SHA256 });
    same(p11.C_Digest(session, text, Buffer.alloc(32)), crypto.createHash('sha256').update(text).digest());
  });
  await check('random', () => {
    const bytes = Buffer.alloc(32);
    p11.C_GenerateRandom(session, bytes);
    if (bytes.equals(Buffer.alloc(32))) throw new Error('zeros');
  });
  p11.C_Logout(session);
  await check('after logout', () => refuses(() => {
    p11.C_SignInit(session, { mechanism: P.CKM_SHA256_RSA_PKCS }, rsa);
  }, 'CKR_USER_NOT_LOGGED_IN', 'CKR_KEY_HANDLE_INVALID', 'CKR_OBJECT_HANDLE_INVALID'));
  p11.C_CloseSession(session);
  p11.C_Finalize();
})().catch((error) => {
  console.log('FAIL it ended early: ' + error.message);
  process.exit(1);
});
