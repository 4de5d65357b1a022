// SPDX-License-Identifier: Apache-2.0

// Package client runs the API server's own KMS v2 client (the loader of EncryptionConfiguration, the
// health probe, the seed and its cache, the gRPC client) against a real kmsbridged on a SoftHSM token.
// There is no HTTP API and no etcd here: a test keeps what would be stored, and the clock can be moved.
package client

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	"k8s.io/klog/v2"
	"kmsbridge.test/harness/fixture"
	"kmsbridge.test/harness/stored"
)

// The client keeps a good verdict for 20 s and a bad one for 3 s, in real time whatever the test's
// clock says, so this is how long it may take to notice anything.
const notice = 40 * time.Second

var secrets = schema.GroupResource{Resource: "secrets"}

func TestMain(m *testing.M) {
	if socket := os.Getenv(peerEnv); socket != "" {
		os.Exit(peerMain(socket))
	}
	// The client logs each of the thousands of refusals that these tests provoke.
	quiet := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(quiet)
	_ = quiet.Parse([]string{"-logtostderr=false", "-stderrthreshold=FATAL"})
	klog.SetOutput(io.Discard)
	controller.EncryptionConfigFileChangePollDuration = 500 * time.Millisecond
	os.Exit(m.Run())
}

// provider is a `kms:` entry of an EncryptionConfiguration. The client's metrics and test hooks are
// per name, so every entry of every test has a name of its own.
type provider struct {
	name, endpoint, timeout string
}

var providers atomic.Int64

func newProvider(d *fixture.Daemon) provider {
	return provider{name: fmt.Sprintf("kmsbridge-%d", providers.Add(1)), endpoint: d.Endpoint(), timeout: "3s"}
}

func (p provider) entry() string {
	return fmt.Sprintf("      - kms: {apiVersion: v2, name: %s, endpoint: %q, timeout: %s}\n",
		p.name, p.endpoint, p.timeout)
}

const identity = "      - identity: {}\n"

// writeConfig writes an EncryptionConfiguration for Secrets with these providers, in order. It is
// written beside and renamed, so that a reader never sees half of it.
func writeConfig(t testing.TB, file string, entries ...string) {
	t.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n" +
		"  - resources: [secrets]\n    providers:\n" + strings.Join(entries, "")
	fixture.Must(t, os.WriteFile(file+".new", []byte(text), 0o600), "EncryptionConfiguration")
	fixture.Must(t, os.Rename(file+".new", file), "EncryptionConfiguration")
}

// apiserver is the encryption half of an API server.
type apiserver struct {
	t      testing.TB
	id     string
	cancel context.CancelFunc
	lookup value.ResourceTransformers
	check  healthz.HealthChecker
}

var apiservers atomic.Int64

// bootFile loads a configuration file as kube-apiserver does at start, without hot reload.
func bootFile(t testing.TB, file string) *apiserver {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &apiserver{t: t, id: fmt.Sprintf("apiserver-%d", apiservers.Add(1)), cancel: cancel}
	t.Cleanup(cancel)
	ec, err := encryptionconfig.LoadEncryptionConfig(ctx, file, false, a.id)
	fixture.Must(t, err, "load EncryptionConfiguration")
	if len(ec.HealthChecks) != 1 {
		t.Fatalf("a v2-only configuration has %d health checks, want 1", len(ec.HealthChecks))
	}
	a.lookup = encryptionconfig.StaticTransformers(ec.Transformers)
	a.check = ec.HealthChecks[0]
	return a
}

// boot is bootFile for a list of providers; identity is the last, as in most clusters.
func boot(t testing.TB, providers ...provider) *apiserver {
	t.Helper()
	file := filepath.Join(fixture.Dir(t), "enc.yaml")
	var entries []string
	for _, p := range providers {
		entries = append(entries, p.entry())
	}
	writeConfig(t, file, append(entries, identity)...)
	return bootFile(t, file)
}

// bootHealthy is boot, and the provider must be good at once.
func bootHealthy(t testing.TB, p ...provider) *apiserver {
	t.Helper()
	a := boot(t, p...)
	if err := a.health(); err != nil {
		t.Fatalf("health after start: %v", err)
	}
	return a
}

// stop is the end of this API server: its probes stop and its connections are closed.
func (a *apiserver) stop() { a.cancel() }

func key(name string) string { return "/registry/secrets/default/" + name }

// write is what a create or an update does before etcd.
func (a *apiserver) write(name string, data []byte) ([]byte, error) {
	return a.lookup.TransformerForResource(secrets).
		TransformToStorage(context.Background(), data, value.DefaultContext(key(name)))
}

// read is what a get does after etcd. stale: a no-op update would write the object anew.
func (a *apiserver) read(name string, blob []byte) (data []byte, stale bool, err error) {
	return a.lookup.TransformerForResource(secrets).
		TransformFromStorage(context.Background(), blob, value.DefaultContext(key(name)))
}

func (a *apiserver) mustWrite(name, data string) []byte {
	a.t.Helper()
	blob, err := a.write(name, []byte(data))
	fixture.Must(a.t, err, "write "+name)
	return blob
}

func (a *apiserver) mustRead(name string, blob []byte, want string, wantStale bool) {
	a.t.Helper()
	got, stale, err := a.read(name, blob)
	fixture.Must(a.t, err, "read "+name)
	if string(got) != want {
		a.t.Fatalf("read %s: got %q, want %q", name, got, want)
	}
	if stale != wantStale {
		a.t.Fatalf("read %s: stale is %v, want %v", name, stale, wantStale)
	}
}

// health is GET /healthz/kms-providers: it asks Status anew once the client's cached verdict is old.
func (a *apiserver) health() error {
	return a.check.Check(httptest.NewRequest("GET", "/healthz/kms-providers", nil))
}

// healthy waits until the client's verdict is good.
func (a *apiserver) healthy() time.Duration {
	a.t.Helper()
	return fixture.Eventually(a.t, notice, "healthz good", a.health)
}

// unhealthy waits until the client's verdict is bad and returns it.
func (a *apiserver) unhealthy() error {
	a.t.Helper()
	var verdict error
	fixture.Eventually(a.t, notice, "healthz bad", func() error {
		if verdict = a.health(); verdict == nil {
			return fmt.Errorf("healthz is good")
		}
		return nil
	})
	return verdict
}

// parse takes a stored value apart, and it must satisfy the client's own checks.
func parse(t testing.TB, blob []byte) *stored.Object {
	t.Helper()
	o, err := stored.Parse(blob)
	fixture.Must(t, err, "stored value")
	if err := kmsv2.ValidateEncryptedObject(&kmstypes.EncryptedObject{EncryptedData: o.Data, KeyID: o.KeyID,
		EncryptedDEKSource: o.Seed, Annotations: o.Annotations,
		EncryptedDEKSourceType: kmstypes.EncryptedDEKSourceType(o.SeedType)}); err != nil {
		t.Fatalf("stored object is invalid: %v", err)
	}
	return o
}
