// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"kmsbridge.test/harness/fixture"
	"kmsbridge.test/harness/stored"
)

// The life of one API server with one plugin, step after step on the same two.
func TestOneAPIServer(t *testing.T) {
	t.Parallel()
	hsm := fixture.NewToken(t)
	d := fixture.StartDaemon(t, hsm, fixture.Options{})
	e := startEtcd(t)
	const name = "kmsbridge"
	a := newAPIServer(t, e, false, "secrets", kms(name, d), identity)
	a.start()

	step(t, a, "secret is ciphertext in etcd", func(t *testing.T) {
		const data = "never in the clear"
		a.mustCreate("s1", data)
		a.mustRead("s1", data)
		raw := e.get(etcdKey("s1"))
		if !bytes.HasPrefix(raw, []byte(stored.Prefix+name+":")) {
			t.Errorf("etcd holds %q", raw[:40])
		}
		for _, clear := range []string{data, base64.StdEncoding.EncodeToString([]byte(data))} {
			for _, kv := range e.under("/") {
				if bytes.Contains(kv.Value, []byte(clear)) {
					t.Errorf("etcd holds the plaintext under %s", kv.Key)
				}
			}
		}
		if o := e.secret("s1"); o.SeedType != stored.HKDFSeed || o.KeyID == "" || len(o.Seed) == 0 || len(o.Seed) > 1024 {
			t.Errorf("stored object: %+v", o)
		}
		// What is configured is encrypted and nothing else is.
		code, body, err := a.call("POST", "/api/v1/namespaces/default/configmaps", map[string]any{"apiVersion": "v1",
			"kind": "ConfigMap", "metadata": map[string]any{"name": "c1"}, "data": map[string]any{"k": data}})
		if err != nil || code != http.StatusCreated {
			t.Fatalf("ConfigMap: %d %s %v", code, body, err)
		}
		if !bytes.Contains(e.get("/registry/configmaps/default/c1"), []byte(data)) {
			t.Error("a ConfigMap is not in the clear: this test would not see plaintext if there were any")
		}
	})

	step(t, a, "thousand secrets one seed", func(t *testing.T) {
		var wg sync.WaitGroup
		began := time.Now()
		for worker := range 10 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := range 100 {
					n := fmt.Sprintf("many-%d-%d", worker, i)
					if err := a.create(n, "data of "+n); err != nil {
						t.Error(err)
						return
					}
				}
			}()
		}
		wg.Wait()
		t.Logf("1000 Secrets in %v", time.Since(began).Round(time.Millisecond))
		if seeds := e.seeds(); len(seeds) != 1 {
			t.Errorf("%d distinct seeds in etcd, want 1", len(seeds))
		}
		if n := len(e.under("/registry/secrets/default/")); n != 1001 {
			t.Errorf("%d Secrets in etcd, want 1001", n)
		}
		const rpc = "apiserver_envelope_encryption_kms_operations_latency_seconds_count"
		if n := a.metric(rpc, `method_name="/v2.KeyManagementService/Encrypt"`, `grpc_status_code="OK"`); n != 1 {
			t.Errorf("%v Encrypt calls, want 1", n)
		}
	})

	step(t, a, "metrics", func(t *testing.T) {
		const family = "apiserver_envelope_encryption_"
		provider := `provider_name="` + name + `"`
		if n := a.metric(family+"dek_source_cache_size", provider); n != 1 {
			t.Errorf("dek_source_cache_size is %v, want 1", n)
		}
		if n := a.metric(family+"key_id_hash_total", provider, `transformation_type="to_storage"`, `key_id_hash="sha256:`); n < 1001 {
			t.Errorf("key_id_hash_total to storage is %v, want 1001 or more", n)
		}
		if n := a.metric(family + "invalid_key_id_from_status_total"); n != 0 {
			t.Errorf("%v invalid key_ids", n)
		}
		code, body, err := d.Get("/metrics")
		if err != nil || code != http.StatusOK || !strings.Contains(body, "# TYPE ") {
			t.Errorf("the daemon's own metrics: %d %v %.200s", code, err, body)
		}
	})

	step(t, a, "apiserver restart", func(t *testing.T) {
		a.restart()
		a.mustRead("s1", "never in the clear")
		for worker := range 10 {
			n := fmt.Sprintf("many-%d-%d", worker, 99-worker)
			a.mustRead(n, "data of "+n)
		}
		code, body, err := a.call("GET", path, nil)
		if n := bytes.Count(body, []byte(`"uid":`)); err != nil || code != http.StatusOK || n != 1001 {
			t.Errorf("list: %d, %d Secrets, %v", code, n, err)
		}
		const rpc = "apiserver_envelope_encryption_kms_operations_latency_seconds_count"
		if n := a.metric(rpc, `method_name="/v2.KeyManagementService/Decrypt"`, `grpc_status_code="OK"`); n < 1 {
			t.Errorf("%v Decrypt calls after a restart", n)
		}
		a.mustCreate("s2", "after the restart")
		if n := len(e.seeds()); n != 2 {
			t.Errorf("%d seeds after a restart, want 2", n)
		}
	})

	step(t, a, "no-op update writes nothing", func(t *testing.T) {
		before := a.mustRead("s2", "after the restart").version()
		if after := a.touch("s2"); after != before {
			t.Errorf("resourceVersion went from %s to %s", before, after)
		}
	})

	step(t, a, "plugin killed and restarted", func(t *testing.T) {
		d.Kill()
		a.mustRead("s1", "never in the clear")
		a.mustCreate("s3", "without a plugin")
		d.Start()
		fixture.Eventually(t, notice, "healthz is good", a.health)
		a.mustCreate("s4", "with it again")
		a.mustRead("s3", "without a plugin")
	})

	step(t, a, "rotation", func(t *testing.T) {
		old := e.secret("s1").KeyID
		before := a.mustRead("s1", "never in the clear").version()
		hsm.AddKey("02")
		began := time.Now()
		var after string
		fixture.Eventually(t, notice, "a no-op PUT changes the resourceVersion", func() error {
			if err := a.health(); err != nil {
				return err
			}
			if after = a.touch("s1"); after == before {
				return errors.New("not yet")
			}
			return nil
		})
		t.Logf("seen after %v", time.Since(began).Round(time.Millisecond))
		if again := a.touch("s1"); again != after {
			t.Errorf("a second no-op PUT went from %s to %s", after, again)
		}
		if id := e.secret("s1").KeyID; id == old {
			t.Errorf("s1 is still under key_id %q", id)
		}
		if id := e.secret("s2").KeyID; id != old {
			t.Errorf("s2 was not written and is under %q", id)
		}
		a.mustRead("s1", "never in the clear")
		a.mustRead("s2", "after the restart")
		// Migrate all, as an administrator does, and then take the old key out of the HSM.
		for _, kv := range e.under("/registry/secrets/default/") {
			a.touch(strings.TrimPrefix(string(kv.Key), "/registry/secrets/default/"))
		}
		for _, kv := range e.under("/registry/secrets/") {
			if o, err := stored.Parse(kv.Value); err != nil || o.KeyID == old {
				t.Fatalf("%s was not migrated: %v", kv.Key, err)
			}
		}
		hsm.DeleteKey("01")
		d.Reload()
		a.restart()
		a.mustRead("s1", "never in the clear")
		a.mustRead("many-5-5", "data of many-5-5")
	})

	step(t, a, "bit flip in etcd", func(t *testing.T) {
		a.mustCreate("flip", "flip me")
		good := e.get(etcdKey("flip"))
		o := e.secret("flip")
		for what, at := range map[string]int{"last byte": len(good) - 1,
			"payload": bytes.Index(good, o.Data) + len(o.Data)/2,
			"seed":    bytes.Index(good, o.Seed) + len(o.Seed)/2, "seed's first byte": bytes.Index(good, o.Seed),
			"key_id": bytes.Index(good, []byte(o.KeyID)) + 1} {
			bad := bytes.Clone(good)
			bad[at] ^= 1
			e.put(etcdKey("flip"), bad)
			code, body, err := a.call("GET", path+"/flip", nil)
			if err != nil || code != http.StatusInternalServerError {
				t.Errorf("%s flipped: GET answers %d %s %v", what, code, body, err)
			}
			if bytes.Contains(body, []byte(base64.StdEncoding.EncodeToString([]byte("flip me")))) {
				t.Errorf("%s flipped: the error carries the data", what)
			}
			a.mustRead("s1", "never in the clear")
		}
		e.put(etcdKey("flip"), good)
		fixture.Eventually(t, 30*time.Second, "the original is readable", func() error {
			_, data, err := a.read("flip")
			if err == nil && data != "flip me" {
				err = fmt.Errorf("got %q", data)
			}
			return err
		})
	})

	step(t, a, "apiserver restarts without a plugin", func(t *testing.T) {
		d.Kill()
		if err := a.Stop(70 * time.Second); err != nil {
			t.Error(err)
		}
		a.client.CloseIdleConnections()
		a.launch()
		fixture.Eventually(t, 60*time.Second, "readyz names kms-providers", func() error {
			code, body, err := a.call("GET", "/readyz", nil)
			if err == nil && (code != http.StatusInternalServerError || !bytes.Contains(body, []byte("[-]kms-providers"))) {
				err = fmt.Errorf("readyz: %d %.2000s", code, body)
			}
			return err
		})
		if code, body, err := a.call("GET", "/livez?verbose", nil); err != nil || bytes.Contains(body, []byte("kms-provider")) {
			t.Errorf("livez speaks of the plugin: %d %s %v", code, body, err)
		} else {
			t.Logf("livez %d, failing:%s", code, failing(body))
		}
		if _, _, err := a.read("s1"); err == nil {
			t.Error("read without a plugin")
		}
		d.Start()
		t.Logf("ready %v after the plugin's start", a.ready(90*time.Second))
		a.mustRead("s1", "never in the clear")
	})
}

// step is a subtest; the steps build on each other, so the first that fails is the last that runs.
func step(t *testing.T, a *apiserver, name string, f func(t *testing.T)) {
	t.Helper()
	if !t.Run(name, func(t *testing.T) {
		old := a.t
		a.t, a.etcd.t = t, t
		defer func() { a.t, a.etcd.t = old, old }()
		f(t)
	}) {
		t.FailNow()
	}
}

// Two API servers on one etcd, each with a kmsbridged of its own over a replica of the token, and all
// resources encrypted (TestEncryptAll): they read each other's writes; while a new key has reached
// only one of the HSMs the other says so and names it; then all is well again.
func TestTwoAPIServers(t *testing.T) {
	t.Parallel()
	hsm := fixture.NewToken(t)
	replica := hsm.Replica()
	d1 := fixture.StartDaemon(t, hsm, fixture.Options{})
	d2 := fixture.StartDaemon(t, replica, fixture.Options{})
	e := startEtcd(t)
	a := newAPIServer(t, e, false, "'*.*'", kms("kmsbridge", d1), identity)
	b := newAPIServer(t, e, false, "'*.*'", kms("kmsbridge", d2), identity)
	a.start()
	b.start()
	a.mustCreate("by-a", "A")
	b.mustCreate("by-b", "B")
	a.mustRead("by-b", "B")
	b.mustRead("by-a", "A")
	if x, y := e.secret("by-a").KeyID, e.secret("by-b").KeyID; x != y {
		t.Errorf("the replicas have different key_ids %q and %q", x, y)
	}
	clear := 0
	for _, kv := range e.under("/registry/") {
		exempt := false
		for _, kind := range []string{"masterleases", "peerserverleases", "ranges/serviceips", "ranges/servicenodeports"} {
			exempt = exempt || strings.HasPrefix(string(kv.Key), "/registry/"+kind)
		}
		if !exempt && !bytes.HasPrefix(kv.Value, []byte(stored.Prefix)) {
			clear++
			t.Errorf("%s is not encrypted", kv.Key)
		}
	}
	t.Logf("%d keys in etcd, %d in the clear", len(e.under("/registry/")), clear)

	hsm.AddKey("02")
	old := e.secret("by-a").KeyID
	fixture.Eventually(t, notice, "A writes under the new key", func() error {
		if err := a.health(); err != nil {
			return err
		}
		a.touch("by-a")
		if e.secret("by-a").KeyID == old {
			return errors.New("still the old key")
		}
		return nil
	})
	fresh := e.secret("by-a").KeyID
	_, _, err := b.read("by-a")
	if hsm.Shared() {
		if err != nil {
			t.Errorf("B can look the key %q up, and says: %v", fresh, err)
		}
	} else if err == nil || !strings.Contains(err.Error(), fresh) || !strings.Contains(err.Error(), ": 500 ") {
		t.Errorf("B has not got the key %q yet, and says: %v", fresh, err)
	}
	b.mustRead("by-b", "B")
	hsm.ReplicateTo(replica)
	fixture.Eventually(t, notice, "B reads what A wrote", func() error {
		_, data, err := b.read("by-a")
		if err == nil && data != "A" {
			err = fmt.Errorf("got %q", data)
		}
		return err
	})
	fixture.Eventually(t, notice, "B writes under the new key", func() error {
		if err := b.health(); err != nil {
			return err
		}
		b.touch("by-b")
		if e.secret("by-b").KeyID != fresh {
			return errors.New("still the old key")
		}
		return nil
	})
	a.mustRead("by-b", "B")
}

// From plain text to kmsbridge and to another token without a restart; the server looks at its
// configuration once a minute.
func TestHotReload(t *testing.T) {
	t.Parallel()
	d1 := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	d2 := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	e := startEtcd(t)
	a := newAPIServer(t, e, true, "secrets", kms("one", d1), identity)
	a.start()
	pid := a.Pid()
	a.mustCreate("s1", "first")
	if got := e.secret("s1").Provider; got != "one" {
		t.Fatalf("written by %q", got)
	}
	a.configure("secrets", kms("two", d2), kms("one", d1), identity)
	n := 0
	took := fixture.Eventually(t, 100*time.Second, "the new provider writes", func() error {
		n++
		a.mustCreate(fmt.Sprint("probe-", n), "probe")
		if got := e.secret(fmt.Sprint("probe-", n)).Provider; got != "two" {
			time.Sleep(time.Second)
			return fmt.Errorf("written by %q", got)
		}
		return nil
	})
	t.Logf("new configuration taken after %v", took.Round(time.Second))
	a.mustRead("s1", "first")
	before := a.mustRead("s1", "first").version()
	if a.touch("s1") == before || e.secret("s1").Provider != "two" {
		t.Error("a no-op PUT did not move the Secret to the new provider")
	}
	a.mustRead("s1", "first")
	if a.Pid() != pid || !a.Running() {
		t.Error("the API server was restarted")
	}
	if n := a.metric("apiserver_encryption_config_controller_automatic_reloads_total", `status="success"`); n != 1 {
		t.Errorf("%v successful reloads, want 1", n)
	}
}

// failing picks the names of failed checks out of a healthz page.
func failing(page []byte) string {
	names := ""
	for line := range strings.Lines(string(page)) {
		if name, ok := strings.CutPrefix(line, "[-]"); ok {
			names += " " + strings.Fields(name)[0]
		}
	}
	return names
}
