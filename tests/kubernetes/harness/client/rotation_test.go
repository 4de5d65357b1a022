// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kmsapi "k8s.io/kms/apis/v2"
	"kmsbridge.test/harness/fixture"
)

// untilStale waits until the client has noticed that the plugin's key is another one.
func (a *apiserver) untilStale(name string, blob []byte) {
	a.t.Helper()
	fixture.Eventually(a.t, notice, "a read turns stale", func() error {
		if err := a.health(); err != nil {
			return err
		}
		_, stale, err := a.read(name, blob)
		if err == nil && !stale {
			err = errors.New("not stale yet")
		}
		return err
	})
}

// A new key with the label becomes active without a restart; what the old one holds stays readable,
// is stale, and one rewrite settles it (TestKMSv2ProviderKeyIDStaleness, first half).
func TestRotation(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	d := fixture.StartDaemon(t, token, fixture.Options{})
	p := newProvider(d)
	a := bootHealthy(t, p)
	old := a.mustWrite("s1", "one")
	a.mustRead("s1", old, "one", false)

	token.AddKey("02")
	a.untilStale("s1", old)
	fresh := a.mustWrite("s1", "one")
	a.mustRead("s1", fresh, "one", false)
	o, f := parse(t, old), parse(t, fresh)
	if o.KeyID == f.KeyID {
		t.Errorf("key_id %q before and after", o.KeyID)
	}
	if string(o.Seed) == string(f.Seed) {
		t.Error("the seed did not change with the key")
	}
	if got := dial(t, d.Socket).mustStatus().KeyId; got != f.KeyID {
		t.Errorf("written under %q, Status says %q", f.KeyID, got)
	}
	again := a.mustWrite("s1", "one")
	a.mustRead("s1", again, "one", false)
	if parse(t, again).KeyID != f.KeyID {
		t.Error("key_id changed once more")
	}

	// A new API server and a new daemon know both keys.
	a.stop()
	d.Restart()
	b := bootHealthy(t, p)
	b.mustRead("s1", old, "one", true)
	b.mustRead("s1", fresh, "one", false)
}

// SIGHUP makes the daemon look for keys at once.
func TestRotationBySIGHUP(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	d := fixture.StartDaemon(t, token, fixture.Options{Refresh: "10m", Probe: "10m"})
	r := dial(t, d.Socket)
	before := r.mustStatus().KeyId
	sealed := r.mustEncrypt([]byte("under the old key"))
	token.AddKey("02")
	time.Sleep(1500 * time.Millisecond)
	if got := r.mustStatus().KeyId; got != before {
		t.Fatalf("key_id changed to %q though nobody asked and the refresh is minutes away", got)
	}
	d.Reload()
	after := r.keyIDBecomes(before)
	if e := r.mustEncrypt([]byte("x")); e.KeyId != after {
		t.Errorf("Encrypt uses %q, Status says %q", e.KeyId, after)
	}
	r.mustDecrypt(sealed, []byte("under the old key"))
	// Reading the configuration again leaves nothing of the old behind in what Status says.
	for range 20 {
		d.Reload()
		time.Sleep(20 * time.Millisecond)
		if s := r.mustStatus(); s.Version != "v2" || s.Healthz != "ok" || s.KeyId != after {
			t.Fatalf("Status after a reload: %v", s)
		}
	}
}

// Status and Encrypt change their key_id in one step: whoever saw the new one in Status gets it from
// Encrypt, and it never goes back. With callers on several connections all the time.
func TestRotationIsAtomic(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	d := fixture.StartDaemon(t, token, fixture.Options{})
	first := dial(t, d.Socket).mustStatus().KeyId
	const callers = 4
	stop := make(chan struct{})
	result := make(chan error, callers)
	var known [callers]atomic.Int32 // how many keys each has seen
	for i := range callers {
		r := dial(t, d.Socket)
		known[i].Store(1)
		go func() {
			seen := []string{first}
			note := func(who, id string) error {
				if id == seen[len(seen)-1] {
					return nil
				}
				for _, old := range seen {
					if id == old {
						return fmt.Errorf("%s went back to %q after %q", who, id, seen)
					}
				}
				seen = append(seen, id)
				known[i].Store(int32(len(seen)))
				return nil
			}
			for {
				select {
				case <-stop:
					if len(seen) != 4 {
						result <- fmt.Errorf("saw the keys %q, want 4", seen)
					}
					result <- nil
					return
				default:
				}
				s, err := r.Status(soon(t), &kmsapi.StatusRequest{})
				if err == nil {
					err = note("Status", s.KeyId)
				}
				var e *kmsapi.EncryptResponse
				if err == nil {
					e, err = r.Encrypt(soon(t), &kmsapi.EncryptRequest{Plaintext: make([]byte, 32), Uid: "u"})
				}
				if err == nil {
					err = note("Encrypt", e.KeyId)
				}
				if err != nil {
					result <- err
					return
				}
			}
		}()
	}
	watch := dial(t, d.Socket)
	id := first
	for n, name := range []string{"02", "03", "04"} {
		token.AddKey(name)
		id = watch.keyIDBecomes(id)
		// a caller that a busy machine holds up is waited for: else it never sees this key
		for i := range callers {
			for end := time.Now().Add(10 * time.Second); known[i].Load() < int32(n)+2 && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
	close(stop)
	for range callers {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
}

// The active key is the one with the highest id, as a number: not the youngest, not by text.
func TestActiveKeyIsHighestID(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	token.AddKey("0100") // 256
	d := fixture.StartDaemon(t, token, fixture.Options{})
	r := dial(t, d.Socket)
	highest := r.mustStatus().KeyId
	token.AddKey("ff") // 255, made later
	token.AddKey("00000002")
	d.Reload()
	time.Sleep(2500 * time.Millisecond)
	if got := r.mustStatus().KeyId; got != highest {
		t.Errorf("a younger key with a lower id became active: %q, was %q", got, highest)
	}
	token.AddKey("0101") // 257
	d.Reload()
	r.keyIDBecomes(highest)
}

// A key_id names one key for ever: the same after a restart and in a replica, another one for another
// key although its label and id are used again.
func TestKeyIDNamesOneKey(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	d := fixture.StartDaemon(t, token, fixture.Options{})
	r := dial(t, d.Socket)
	id := r.mustStatus().KeyId
	sealed := r.mustEncrypt([]byte("sealed"))
	d.Restart()
	r = dial(t, d.Socket)
	if got := r.mustStatus().KeyId; got != id {
		t.Errorf("key_id %q after a restart, was %q", got, id)
	}
	replica := dial(t, fixture.StartDaemon(t, token.Replica(), fixture.Options{}).Socket)
	if got := replica.mustStatus().KeyId; got != id {
		t.Errorf("key_id %q on a replica, want %q", got, id)
	}
	replica.mustDecrypt(sealed, []byte("sealed"))

	d.Kill()
	token.DeleteKey("01")
	token.AddKey("01")
	d.Start()
	r = dial(t, d.Socket)
	if got := r.mustStatus().KeyId; got == id {
		t.Errorf("another key with the same label and id has the same key_id %q", got)
	}
	_, err := r.Decrypt(soon(t), reverse(sealed))
	if err == nil {
		t.Error("another key decrypted")
	} else if !strings.Contains(err.Error(), id) {
		t.Errorf("the error does not name the key_id that is missing: %v", err)
	}
}

// A KEK destroyed in the HSM, its successor being active: reads that need it fail, named, and all
// else goes on.
func TestOldKeyDestroyed(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	d := fixture.StartDaemon(t, token, fixture.Options{})
	p := newProvider(d)
	a := bootHealthy(t, p)
	old := a.mustWrite("s1", "one")
	token.AddKey("02")
	a.untilStale("s1", old)
	fresh := a.mustWrite("s2", "two")
	a.stop()
	token.DeleteKey("01")
	d.Restart()
	b := bootHealthy(t, p)
	b.mustRead("s2", fresh, "two", false)
	_, _, err := b.read("s1", old)
	if err == nil || !strings.Contains(err.Error(), parse(t, old).KeyID) {
		t.Errorf("read under a destroyed key: %v", err)
	}
	b.mustWrite("s3", "three")
}
