// SPDX-License-Identifier: Apache-2.0
// What SunPKCS11 does with a token's keys, and with session keys: Use CONFIGURATION PIN.
// Prints a line "ok NAME" or "FAIL NAME: why" for each thing.
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.PublicKey;
import java.security.SecureRandom;
import java.security.Security;
import java.security.Signature;
import java.util.Arrays;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import javax.crypto.Cipher;
import javax.crypto.KeyGenerator;
import javax.crypto.Mac;
import javax.crypto.SecretKey;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;

public class Use {
    interface Try {
        void run() throws Exception;
    }

    static void check(String name, Try what) {
        try {
            what.run();
            System.out.println("ok " + name);
        } catch (Throwable e) {
            System.out.println("FAIL " + name + ": " + e + (e.getCause() != null ? " / " + e.getCause() : ""));
        }
    }

    static void same(byte[] one, byte[] other) {
        if (!Arrays.equals(one, other)) {
            throw new IllegalStateException("not the same");
        }
    }

    static byte[] text = "a text to be signed".getBytes();
    static Provider provider;

    static void sign(KeyStore store, String alias, String algorithm) throws Exception {
        Signature signer = Signature.getInstance(algorithm, provider);
        signer.initSign((PrivateKey) store.getKey(alias, null));
        signer.update(text, 0, 5);
        signer.update(text, 5, text.length - 5);
        byte[] signature = signer.sign();
        PublicKey key = store.getCertificate(alias).getPublicKey();
        for (Provider by : new Provider[] {provider, null}) {
            Signature verifier = by != null ? Signature.getInstance(algorithm, by) : Signature.getInstance(algorithm);
            verifier.initVerify(key);
            verifier.update(text);
            if (!verifier.verify(signature)) {
                throw new IllegalStateException("not verified by " + verifier.getProvider());
            }
            verifier.initVerify(key);
            verifier.update(text, 1, text.length - 1);
            if (verifier.verify(signature)) {
                throw new IllegalStateException("verified another text");
            }
        }
    }

    static void seal(SecretKey key, String algorithm, Object parameters) throws Exception {
        java.security.spec.AlgorithmParameterSpec spec = (java.security.spec.AlgorithmParameterSpec) parameters;
        byte[] input = new byte[4096];
        new SecureRandom().nextBytes(input);
        Cipher cipher = Cipher.getInstance(algorithm, provider);
        cipher.init(Cipher.ENCRYPT_MODE, key, spec);
        byte[] sealed = cipher.doFinal(input);
        cipher.init(Cipher.DECRYPT_MODE, key, spec);
        same(cipher.doFinal(sealed), input);
    }

    public static void main(String[] args) throws Exception {
        provider = Security.getProvider("SunPKCS11").configure(args[0]);
        Security.addProvider(provider);
        KeyStore store = KeyStore.getInstance("PKCS11", provider);
        store.load(null, args[1].toCharArray());

        for (String algorithm : new String[] {"SHA256withRSA", "SHA512withRSA"}) {
            check("sign " + algorithm, () -> sign(store, "rsa", algorithm));
        }
        for (String algorithm : new String[] {"SHA256withECDSA", "SHA384withECDSA"}) {
            check("sign " + algorithm, () -> sign(store, "ec", algorithm));
        }
        check("decrypt RSA", () -> {
            Cipher cipher = Cipher.getInstance("RSA/ECB/PKCS1Padding");
            cipher.init(Cipher.ENCRYPT_MODE, store.getCertificate("rsa").getPublicKey());
            byte[] sealed = cipher.doFinal(text);
            cipher = Cipher.getInstance("RSA/ECB/PKCS1Padding", provider);
            cipher.init(Cipher.DECRYPT_MODE, store.getKey("rsa", null));
            same(cipher.doFinal(sealed), text);
        });
        SecretKey token = (SecretKey) store.getKey("aes", null);
        IvParameterSpec iv = new IvParameterSpec(new byte[16]);
        check("the key of the token stays there", () -> {
            if (token == null || token.getEncoded() != null) {
                throw new IllegalStateException("it can be read, or is not there");
            }
        });
        check("token key AES/CBC/PKCS5Padding", () -> seal(token, "AES/CBC/PKCS5Padding", iv));
        check("token key AES/CTR/NoPadding", () -> seal(token, "AES/CTR/NoPadding", iv));
        check("token key AES/GCM/NoPadding", () -> seal(token, "AES/GCM/NoPadding", new GCMParameterSpec(128, new byte[12])));
        KeyGenerator generator = KeyGenerator.getInstance("AES", provider);
        generator.init(256);
        SecretKey session = generator.generateKey();
        check("session key AES/CBC/PKCS5Padding", () -> seal(session, "AES/CBC/PKCS5Padding", iv));
        check("session key AES/GCM/NoPadding", () -> seal(session, "AES/GCM/NoPadding", new GCMParameterSpec(128, new byte[12])));
        check("session key AES/GCM/NoPadding, altered", () -> {
            Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding", provider);
            cipher.init(Cipher.ENCRYPT_MODE, session, new GCMParameterSpec(128, new byte[12]));
            byte[] sealed = cipher.doFinal(text);
            sealed[3] ^= 1;
            cipher.init(Cipher.DECRYPT_MODE, session, new GCMParameterSpec(128, new byte[12]));
            try {
                cipher.doFinal(sealed);
            } catch (java.security.GeneralSecurityException | java.security.ProviderException e) {
                return;
            }
            throw new IllegalStateException("was opened");
        });
        check("HmacSHA256 with a key of ours", () -> {
            SecretKey key = new SecretKeySpec(new byte[32], "HmacSHA256");
            Mac mac = Mac.getInstance("HmacSHA256", provider);
            mac.init(key);
            Mac other = Mac.getInstance("HmacSHA256", "SunJCE");
            other.init(key);
            same(mac.doFinal(text), other.doFinal(text));
        });
        for (String hash : new String[] {"SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"}) {
            check("digest " + hash, () -> {
                MessageDigest digest = MessageDigest.getInstance(hash, provider);
                digest.update(text);
                same(digest.digest(), MessageDigest.getInstance(hash, "SUN").digest(text));
            });
            check("clone of digest " + hash, () -> { // by C_GetOperationState
                MessageDigest digest = MessageDigest.getInstance(hash, provider);
                digest.update(text, 0, 5);
                MessageDigest half = (MessageDigest) digest.clone();
                digest.update(text, 5, text.length - 5);
                half.update(text, 5, text.length - 5);
                same(digest.digest(), half.digest());
            });
        }
        check("random", () -> {
            byte[] one = new byte[32];
            SecureRandom.getInstance("PKCS11", provider).nextBytes(one);
            if (Arrays.equals(one, new byte[32])) {
                throw new IllegalStateException("zeros");
            }
        });
        check("threads", () -> {
            ExecutorService threads = Executors.newFixedThreadPool(4);
            java.util.List<Future<Void>> all = new java.util.ArrayList<>();
            for (int i = 0; i < 40; i++) {
                String algorithm = i % 2 == 0 ? "SHA256withRSA" : "SHA256withECDSA";
                all.add(threads.submit((Callable<Void>) () -> {
                    sign(store, algorithm.endsWith("RSA") ? "rsa" : "ec", algorithm);
                    return null;
                }));
            }
            for (Future<Void> each : all) {
                each.get();
            }
            threads.shutdown();
        });
        check("a key that is not there", () -> {
            if (store.getKey("nobody", null) != null) {
                throw new IllegalStateException("is there");
            }
        });
    }
}
