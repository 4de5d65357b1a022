// SPDX-License-Identifier: Apache-2.0
// A TLS server with its key in a PKCS#11 token: TlsServer CONFIGURATION PIN ALIAS [threads].
// Prints "port N", answers each connection with a line, ends with its standard input.
import java.io.OutputStream;
import java.net.InetAddress;
import java.security.KeyStore;
import java.security.Provider;
import java.security.Security;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.X509ExtendedKeyManager;

public class TlsServer {
    /** Always the one key: a token may hold several that fit. */
    static class OneKey extends X509ExtendedKeyManager {
        private final javax.net.ssl.X509KeyManager all;
        private final String alias;

        OneKey(javax.net.ssl.X509KeyManager all, String alias) {
            this.all = all;
            this.alias = alias;
        }

        private String fits(String keyType) {
            return getPrivateKey(alias).getAlgorithm().equals(keyType.split("_")[0]) ? alias : null;
        }

        public String chooseServerAlias(String type, java.security.Principal[] issuers, java.net.Socket socket) {
            return fits(type);
        }

        public String chooseEngineServerAlias(String type, java.security.Principal[] issuers, javax.net.ssl.SSLEngine engine) {
            return fits(type);
        }

        public String chooseClientAlias(String[] types, java.security.Principal[] issuers, java.net.Socket socket) {
            return null;
        }

        public String[] getClientAliases(String type, java.security.Principal[] issuers) {
            return null;
        }

        public String[] getServerAliases(String type, java.security.Principal[] issuers) {
            return new String[] {alias};
        }

        public java.security.cert.X509Certificate[] getCertificateChain(String name) {
            return all.getCertificateChain(name);
        }

        public java.security.PrivateKey getPrivateKey(String name) {
            return all.getPrivateKey(name);
        }
    }

    public static void main(String[] args) throws Exception {
        Provider provider = Security.getProvider("SunPKCS11").configure(args[0]);
        Security.addProvider(provider);
        KeyStore store = KeyStore.getInstance("PKCS11", provider);
        store.load(null, args[1].toCharArray());
        KeyManagerFactory factory = KeyManagerFactory.getInstance("SunX509");
        factory.init(store, args[1].toCharArray());
        javax.net.ssl.X509KeyManager all = null;
        for (KeyManager manager : factory.getKeyManagers()) {
            all = (javax.net.ssl.X509KeyManager) manager;
        }
        if (store.getKey(args[2], null) == null) {
            throw new IllegalStateException("no key " + args[2]);
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(new KeyManager[] {new OneKey(all, args[2])}, null, null);
        SSLServerSocket server = (SSLServerSocket) context.getServerSocketFactory()
                .createServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
        System.out.println("port " + server.getLocalPort());
        System.out.flush();
        Thread end = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    continue;
                }
            } catch (java.io.IOException gone) {
                // the same
            }
            System.exit(0);
        });
        end.setDaemon(true);
        end.start();
        ExecutorService threads = Executors.newFixedThreadPool(args.length > 3 ? Integer.parseInt(args[3]) : 4);
        while (true) {
            SSLSocket socket = (SSLSocket) server.accept();
            threads.submit(() -> {
                try (socket) {
                    socket.setSoTimeout(10000);
                    socket.getInputStream().read();
                    OutputStream out = socket.getOutputStream();
                    out.write("HTTP/1.0 200 OK\r\n\r\nhello from Java\n".getBytes("US-ASCII"));
                    out.flush();
                } catch (Exception e) {
                    System.err.println(e);
                }
            });
        }
    }
}
