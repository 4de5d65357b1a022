// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	"kmsbridge.test/harness/fixture"
	"kmsbridge.test/harness/stored"
)

// bootDynamic loads a configuration file as kube-apiserver does with
// --encryption-provider-config-automatic-reload.
func bootDynamic(t testing.TB, file string) *apiserver {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	a := &apiserver{t: t, id: fmt.Sprintf("apiserver-%d", apiservers.Add(1)), cancel: cancel}
	first, cancelFirst := context.WithCancel(ctx)
	t.Cleanup(cancelFirst)
	ec, err := encryptionconfig.LoadEncryptionConfig(first, file, true, a.id)
	fixture.Must(t, err, "load EncryptionConfiguration")
	dynamic := encryptionconfig.NewDynamicTransformers(ec.Transformers, ec.HealthChecks[0], cancelFirst, ec.KMSCloseGracePeriod)
	c := controller.NewDynamicEncryptionConfiguration("reload", file, dynamic, ec.EncryptionFileContentHash, a.id)
	go c.Run(ctx)
	a.lookup, a.check = dynamic, dynamic
	return a
}

// writesWith waits until new objects are stored under this prefix.
func (a *apiserver) writesWith(want string) {
	a.t.Helper()
	fixture.Eventually(a.t, 30*time.Second, "new objects begin with "+want, func() error {
		blob, err := a.write("probe", []byte("probe"))
		if err == nil && !strings.HasPrefix(string(blob), want) {
			err = fmt.Errorf("stored value begins with %q", blob[:min(40, len(blob))])
		}
		return err
	})
}

// From plain text to our provider, to another key service, and away from the first, without a
// restart (TestEncryptionConfigHotReload, TestEncryptionConfigHotReloadFilePolling, TestController).
func TestHotReload(t *testing.T) {
	t.Parallel()
	d1 := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	d2 := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p1, p2 := newProvider(d1), newProvider(d2)
	one, two := stored.Prefix+p1.name+":", stored.Prefix+p2.name+":"
	file := filepath.Join(fixture.Dir(t), "enc.yaml")
	writeConfig(t, file, identity)
	a := bootDynamic(t, file)
	plain := a.mustWrite("s0", "plain")
	if string(plain) != "plain" {
		t.Fatalf("identity stored %q", plain)
	}

	writeConfig(t, file, p1.entry(), identity)
	a.writesWith(one)
	a.mustRead("s0", plain, "plain", true)
	first := a.mustWrite("s1", "first")
	a.mustRead("s1", first, "first", false)

	// A second service takes over; the first one's objects are readable and stale.
	writeConfig(t, file, p2.entry(), p1.entry(), identity)
	a.writesWith(two)
	a.mustRead("s1", first, "first", true)
	second := a.mustWrite("s1", "first") // the migration: a no-op update
	a.mustRead("s1", second, "first", false)

	// The first one and plain text are removed: what was not migrated is unreadable.
	writeConfig(t, file, p2.entry())
	fixture.Eventually(t, 30*time.Second, "the first provider is gone", func() error {
		if _, _, err := a.read("s1", first); err == nil {
			return fmt.Errorf("an object of the first provider is still readable")
		}
		return nil
	})
	d1.Kill() // nobody needs it any more
	a.mustRead("s1", second, "first", false)
	if err := a.health(); err != nil {
		t.Errorf("healthz after the first provider's removal: %v", err)
	}

	// A configuration that does not parse, and one whose plugin is not there, change nothing.
	absent := newProvider(d1)
	absent.timeout = "1s"
	for _, c := range []struct {
		what string
		text func()
	}{
		{"broken", func() { fixture.Must(t, os.WriteFile(file, []byte("kind: [broken"), 0o600), "write") }},
		{"dead plugin", func() { writeConfig(t, file, absent.entry(), p2.entry()) }},
	} {
		c.text()
		time.Sleep(3 * time.Second)
		blob := a.mustWrite("s2", c.what)
		if !strings.HasPrefix(string(blob), two) {
			t.Errorf("%s configuration: stored value begins with %q", c.what, blob[:40])
		}
		a.mustRead("s1", second, "first", false)
	}
	// The dead plugin comes to life: now its configuration is taken.
	d1.Start()
	a.writesWith(stored.Prefix + absent.name + ":")
	a.mustRead("s1", second, "first", true)

	// The three ways in which editors and configuration managers replace a file.
	for i, replace := range []func(text []byte){
		func(text []byte) { fixture.Must(t, os.WriteFile(file, text, 0o600), "truncate and write") },
		func(text []byte) {
			fixture.Must(t, os.Remove(file), "remove")
			time.Sleep(1200 * time.Millisecond)
			fixture.Must(t, os.WriteFile(file, text, 0o600), "create")
		},
		func(text []byte) {
			fixture.Must(t, os.WriteFile(file+".x", text, 0o600), "write beside")
			fixture.Must(t, os.Rename(file+".x", file), "rename")
		},
	} {
		p := newProvider(d2)
		scratch := file + ".scratch"
		writeConfig(t, scratch, p.entry(), p2.entry())
		text, err := os.ReadFile(scratch)
		fixture.Must(t, err, "read")
		replace(text)
		a.writesWith(stored.Prefix + p.name + ":")
		t.Logf("replacement %d taken", i)
	}
	a.mustRead("s1", second, "first", true)
}

// Each reload makes a new probe and a new seed, even if the provider did not change; old objects stay
// readable through the same plugin.
func TestReloadMakesNewSeed(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p := newProvider(d)
	file := filepath.Join(fixture.Dir(t), "enc.yaml")
	writeConfig(t, file, p.entry(), identity)
	a := bootDynamic(t, file)
	blob := a.mustWrite("s1", "x")
	old := string(parse(t, blob).Seed)
	writeConfig(t, file, "      # touched\n", p.entry(), identity)
	fixture.Eventually(t, 30*time.Second, "a new seed", func() error {
		if string(parse(t, a.mustWrite("s2", "y")).Seed) == old {
			return fmt.Errorf("still the old seed")
		}
		return nil
	})
	a.mustRead("s1", blob, "x", false)
}
