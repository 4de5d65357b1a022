// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a whole kube-apiserver with a real etcd against a real kmsbridged on a SoftHSM
// token. It drives the API over HTTPS and looks at etcd over etcd's own JSON gateway; nothing of
// Kubernetes is linked in.
package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmsbridge.test/harness/fixture"
	"kmsbridge.test/harness/stored"
)

const (
	token = "the-admin"
	// How long the API server may take to ask Status by itself: one minute while all is well.
	poll = 70 * time.Second
	// How long it may take if its healthz is asked all the time: it keeps a good verdict for 20 s.
	notice = 40 * time.Second
)

// binary finds kube-apiserver or etcd where build.sh has put them.
func binary(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("KMSBRIDGE_KUBE")
	if dir == "" {
		t.Fatal("KMSBRIDGE_KUBE does not name the folder of kube-apiserver and etcd")
	}
	return filepath.Join(dir, name)
}

// etcd is one etcd server on loopback.
type etcd struct {
	*fixture.Process
	t   testing.TB
	url string
}

func startEtcd(t testing.TB) *etcd {
	t.Helper()
	dir := fixture.Dir(t)
	e := &etcd{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", fixture.FreePort(t))}
	peer := fmt.Sprintf("http://127.0.0.1:%d", fixture.FreePort(t))
	e.Process = fixture.Spawn(t, filepath.Join(dir, "log"), nil, binary(t, "etcd"),
		"--name", "one", "--data-dir", filepath.Join(dir, "data"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", e.url, "--advertise-client-urls", e.url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "one="+peer)
	fixture.Eventually(t, 30*time.Second, "etcd answers", func() error {
		if !e.Running() {
			t.Fatalf("etcd ended:\n%s", fixture.Tail(e.LogFile, 20))
		}
		_, err := e.post("/v3/maintenance/status", struct{}{}, nil)
		return err
	})
	return e
}

func (e *etcd) post(path string, in, out any) (int, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	client := http.Client{Timeout: 10 * time.Second}
	r, err := client.Post(e.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		return r.StatusCode, fmt.Errorf("etcd %s: %s %s %v", path, r.Status, text, err)
	}
	if out != nil {
		err = json.Unmarshal(text, out)
	}
	return r.StatusCode, err
}

type pair struct{ Key, Value []byte } // encoding/json has bytes in base64, as the gateway does

// under returns all keys that begin with a prefix.
func (e *etcd) under(prefix string) []pair {
	e.t.Helper()
	end := []byte(prefix)
	end[len(end)-1]++
	var out struct{ Kvs []pair }
	_, err := e.post("/v3/kv/range", map[string]any{"key": []byte(prefix), "range_end": end}, &out)
	fixture.Must(e.t, err, "range")
	return out.Kvs
}

func (e *etcd) get(key string) []byte {
	e.t.Helper()
	var out struct{ Kvs []pair }
	_, err := e.post("/v3/kv/range", map[string]any{"key": []byte(key)}, &out)
	fixture.Must(e.t, err, "get")
	if len(out.Kvs) != 1 {
		e.t.Fatalf("etcd holds %d values for %s", len(out.Kvs), key)
	}
	return out.Kvs[0].Value
}

func (e *etcd) put(key string, value []byte) {
	e.t.Helper()
	_, err := e.post("/v3/kv/put", map[string]any{"key": []byte(key), "value": value}, nil)
	fixture.Must(e.t, err, "put")
}

func etcdKey(name string) string { return "/registry/secrets/default/" + name }

// secret returns the stored form of a Secret.
func (e *etcd) secret(name string) *stored.Object {
	e.t.Helper()
	o, err := stored.Parse(e.get(etcdKey(name)))
	fixture.Must(e.t, err, "Secret "+name+" in etcd")
	return o
}

// apiserver is one kube-apiserver. Like a Daemon it outlives its process.
type apiserver struct {
	*fixture.Process
	t      testing.TB // the step that runs
	owner  testing.TB // the test at whose end the process is stopped
	dir    string
	url    string
	port   int
	etcd   *etcd
	config string
	reload bool
	client *http.Client
}

// newAPIServer makes an API server with an EncryptionConfiguration of its own; start starts it.
func newAPIServer(t testing.TB, e *etcd, reload bool, resources string, providers ...string) *apiserver {
	t.Helper()
	a := &apiserver{t: t, owner: t, dir: fixture.Dir(t), port: fixture.FreePort(t), etcd: e, reload: reload}
	a.url = fmt.Sprintf("https://127.0.0.1:%d", a.port)
	a.config = filepath.Join(a.dir, "enc.yaml")
	a.configure(resources, providers...)
	a.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		// The server signs its own certificate at every start; it is ours, on loopback.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fixture.Must(t, err, "service account key")
	der, err := x509.MarshalECPrivateKey(key)
	fixture.Must(t, err, "service account key")
	for name, text := range map[string][]byte{
		"sa.key":     pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
		"tokens.csv": []byte(token + `,admin,admin,"system:masters"` + "\n"),
	} {
		fixture.Must(t, os.WriteFile(filepath.Join(a.dir, name), text, 0o600), name)
	}
	return a
}

// kms is the entry of a provider.
func kms(name string, d *fixture.Daemon) string {
	return fmt.Sprintf("      - kms: {apiVersion: v2, name: %s, endpoint: %q}\n", name, d.Endpoint())
}

const identity = "      - identity: {}\n"

func (a *apiserver) configure(resources string, providers ...string) {
	a.t.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n" +
		"  - resources: [" + resources + "]\n    providers:\n" + strings.Join(providers, "")
	fixture.Must(a.t, os.WriteFile(a.config+".new", []byte(text), 0o600), "EncryptionConfiguration")
	fixture.Must(a.t, os.Rename(a.config+".new", a.config), "EncryptionConfiguration")
}

// launch starts the process and does not wait for it.
func (a *apiserver) launch() {
	a.t.Helper()
	in := func(name string) string { return filepath.Join(a.dir, name) }
	a.Process = fixture.Spawn(a.owner, in("log"), nil, binary(a.t, "kube-apiserver"),
		"--etcd-servers="+a.etcd.url, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", a.port),
		"--advertise-address=127.0.0.1", "--cert-dir="+in("certs"), "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.0.0.0/24", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+in("sa.key"), "--service-account-signing-key-file="+in("sa.key"),
		"--authorization-mode=RBAC", "--token-auth-file="+in("tokens.csv"),
		// Nobody makes default service accounts here.
		"--disable-admission-plugins=ServiceAccount",
		"--encryption-provider-config="+a.config,
		fmt.Sprintf("--encryption-provider-config-automatic-reload=%v", a.reload))
}

// start starts the process and waits until it is ready and the default namespace is there.
func (a *apiserver) start() {
	a.t.Helper()
	a.launch()
	a.ready(90 * time.Second)
}

func (a *apiserver) ready(limit time.Duration) time.Duration {
	a.t.Helper()
	return fixture.Eventually(a.t, limit, "kube-apiserver is ready", func() error {
		if !a.Running() {
			a.t.Fatalf("kube-apiserver ended:\n%s", fixture.Tail(a.LogFile, 40))
		}
		for _, path := range []string{"/readyz", "/api/v1/namespaces/default"} {
			if code, body, err := a.call("GET", path, nil); err != nil || code != http.StatusOK {
				return fmt.Errorf("%s: %d %.300s %v", path, code, body, err)
			}
		}
		return nil
	})
}

// restart is SIGTERM, the server's own orderly end, and a new process.
func (a *apiserver) restart() {
	a.t.Helper()
	if err := a.Stop(70 * time.Second); err != nil {
		a.t.Error(err)
	}
	a.client.CloseIdleConnections()
	a.start()
}

func (a *apiserver) call(method, path string, in any) (int, []byte, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(context.Background(), method, a.url+path, body)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	r, err := a.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r.StatusCode, text, err
}

// secret is as much of a Secret as these tests need.
type secret struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Data       map[string]any `json:"data"`
	Type       string         `json:"type,omitempty"`
}

func (s secret) version() string { return fmt.Sprint(s.Metadata["resourceVersion"]) }

const path = "/api/v1/namespaces/default/secrets"

func (a *apiserver) create(name, data string) error {
	code, body, err := a.call("POST", path, secret{APIVersion: "v1", Kind: "Secret",
		Metadata: map[string]any{"name": name},
		Data:     map[string]any{"k": base64.StdEncoding.EncodeToString([]byte(data))}})
	if err == nil && code != http.StatusCreated {
		err = fmt.Errorf("create Secret %s: %d %s", name, code, body)
	}
	return err
}

func (a *apiserver) mustCreate(name, data string) {
	a.t.Helper()
	fixture.Must(a.t, a.create(name, data), "create")
}

func (a *apiserver) read(name string) (secret, string, error) {
	var s secret
	code, body, err := a.call("GET", path+"/"+name, nil)
	if err != nil {
		return s, "", err
	}
	if code != http.StatusOK {
		return s, "", fmt.Errorf("get Secret %s: %d %s", name, code, body)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, "", err
	}
	data, err := base64.StdEncoding.DecodeString(fmt.Sprint(s.Data["k"]))
	return s, string(data), err
}

func (a *apiserver) mustRead(name, want string) secret {
	a.t.Helper()
	s, got, err := a.read(name)
	fixture.Must(a.t, err, "read")
	if got != want {
		a.t.Fatalf("Secret %s is %q, want %q", name, got, want)
	}
	return s
}

// touch is a no-op PUT; it returns the resourceVersion after it.
func (a *apiserver) touch(name string) string {
	a.t.Helper()
	before, _, err := a.read(name)
	fixture.Must(a.t, err, "read")
	code, body, err := a.call("PUT", path+"/"+name, before)
	fixture.Must(a.t, err, "put")
	if code != http.StatusOK {
		a.t.Fatalf("no-op PUT of %s: %d %s", name, code, body)
	}
	var after secret
	fixture.Must(a.t, json.Unmarshal(body, &after), "put")
	return after.version()
}

// health is GET /healthz/kms-providers; asking makes the server look, once its last verdict is old.
func (a *apiserver) health() error {
	code, body, err := a.call("GET", "/healthz/kms-providers", nil)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("healthz: %d %s", code, body)
	}
	return err
}

// seeds counts the distinct seeds among the Secrets in etcd.
func (e *etcd) seeds() map[string]int {
	e.t.Helper()
	seeds := map[string]int{}
	for _, kv := range e.under("/registry/secrets/") {
		o, err := stored.Parse(kv.Value)
		fixture.Must(e.t, err, string(kv.Key))
		seeds[string(o.Seed)]++
	}
	return seeds
}

// metric sums the samples of a metric whose labels contain all of these.
func (a *apiserver) metric(name string, labels ...string) float64 {
	a.t.Helper()
	code, body, err := a.call("GET", "/metrics", nil)
	if err != nil || code != http.StatusOK {
		a.t.Fatalf("metrics: %d %v", code, err)
	}
	total := 0.0
next:
	for line := range strings.Lines(string(body)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(series, label) {
				continue next
			}
		}
		var v float64
		if _, err := fmt.Sscan(value, &v); err == nil {
			total += v
		}
	}
	return total
}
