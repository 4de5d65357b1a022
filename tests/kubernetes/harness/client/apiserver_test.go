// SPDX-License-Identifier: Apache-2.0

// Package client runs the API server's own KMS v2 client (the loader of EncryptionConfiguration, the
// health probe, the seed and its cache, the gRPC client) against a real kmsbridged on a SoftHSM token.
// There is no HTTP API and no etcd here: a test keeps what would be stored, and the clock can be moved.
package client

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	"kmsbridge.test/harness/fixture"
)

const (
	// The client keeps a good verdict for 20 s and a bad one for 3 s, in real time whatever the test's
	// clock says, so this is how long it may take to notice anything.
	notice = 40 * time.Second
	prefix = "k8s:enc:kms:v2:"
)

var secrets = schema.GroupResource{Resource: "secrets"}

func TestMain(m *testing.M) {
	if socket := os.Getenv(peerEnv); socket != "" {
		os.Exit(peerMain(socket))
	}
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

// stored is an object as etcd holds it.
type stored struct {
	provider string
	object   *kmstypes.EncryptedObject
}

// parse takes a stored value apart, by hand because Kubernetes has changed its protobuf library.
func parse(t testing.TB, blob []byte) stored {
	t.Helper()
	if !strings.HasPrefix(string(blob), prefix) {
		t.Fatalf("stored value begins with %q, want %q", blob[:min(len(blob), len(prefix))], prefix)
	}
	name, body, ok := strings.Cut(string(blob[len(prefix):]), ":")
	if !ok {
		t.Fatal("stored value names no provider")
	}
	s := stored{provider: name, object: &kmstypes.EncryptedObject{}}
	o := s.object
	o.Annotations = map[string][]byte{}
	fields(t, []byte(body), func(number protowire.Number, data []byte, n uint64) {
		switch number {
		case 1:
			o.EncryptedData = data
		case 2:
			o.KeyID = string(data)
		case 3:
			o.EncryptedDEKSource = data
		case 4:
			var k string
			var v []byte
			fields(t, data, func(number protowire.Number, data []byte, _ uint64) {
				if number == 1 {
					k = string(data)
				} else {
					v = data
				}
			})
			o.Annotations[k] = v
		case 5:
			o.EncryptedDEKSourceType = kmstypes.EncryptedDEKSourceType(n)
		default:
			t.Fatalf("stored object has an unknown field %d", number)
		}
	})
	if err := kmsv2.ValidateEncryptedObject(o); err != nil {
		t.Fatalf("stored object is invalid: %v", err)
	}
	return s
}

func fields(t testing.TB, b []byte, each func(protowire.Number, []byte, uint64)) {
	t.Helper()
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatalf("bad tag: %v", protowire.ParseError(n))
		}
		b = b[n:]
		var data []byte
		var u uint64
		switch kind {
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			u, n = protowire.ConsumeVarint(b)
		default:
			t.Fatalf("field %d has wire type %d", number, kind)
		}
		if n < 0 {
			t.Fatalf("bad field %d: %v", number, protowire.ParseError(n))
		}
		each(number, data, u)
		b = b[n:]
	}
}
