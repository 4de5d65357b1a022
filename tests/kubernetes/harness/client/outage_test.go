// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
	"kmsbridge.test/harness/fixture"
)

// cord is how an HSM is taken away and brought back.
type cord interface {
	Unplug()
	Plug()
}

// wedge is an HSM that does not answer at all.
type wedge struct{ *fixture.Shim }

func (w wedge) Unplug() { w.Set("hang=1") }

// The HSM is gone for six minutes of the API server's clock and comes back
// (TestKMSv2ProviderKeyIDStaleness, second half): writes stop after three minutes and not before,
// cached reads go on, uncached ones fail, and afterwards all is as before under the same key.
func hsmGone(t *testing.T, d *fixture.Daemon, hsm cord) {
	p, q := newProvider(d), newProvider(d)
	q.name = p.name // another API server of the same cluster
	a := bootHealthy(t, p)
	before := a.mustWrite("s1", "before")
	id := parse(t, before).KeyID
	b := bootHealthy(t, q)

	hsm.Unplug()
	d.Ready(false, 20*time.Second)
	verdict := a.unhealthy()
	if !strings.Contains(verdict.Error(), "kms-provider-0: ") {
		t.Errorf("healthz: %v", verdict)
	}
	advance(t, p, 2*time.Minute)
	within := a.mustWrite("s2", "two minutes in")
	advance(t, p, 6*time.Minute)
	_, err := a.write("s3", []byte("six minutes in"))
	if err == nil || !strings.Contains(err.Error(), `encryptedDEKSource with keyID hash "sha256:`) ||
		!strings.Contains(err.Error(), "expired at") {
		t.Fatalf("write six minutes after the HSM went: %v", err)
	}
	a.mustRead("s1", before, "before", false)
	a.mustRead("s2", within, "two minutes in", false)
	if _, _, err := b.read("s1", before); err == nil {
		t.Error("an API server that had not seen the seed read it without an HSM")
	}

	hsm.Plug()
	t.Logf("daemon well %v after the HSM's return", d.Ready(true, 60*time.Second))
	a.healthy()
	after := a.mustWrite("s3", "after")
	if got := parse(t, after).KeyID; got != id {
		t.Errorf("key_id %q after the outage, was %q", got, id)
	}
	for name, o := range map[string]struct {
		blob []byte
		data string
	}{"s1": {before, "before"}, "s2": {within, "two minutes in"}, "s3": {after, "after"}} {
		a.mustRead(name, o.blob, o.data, false)
	}
	b.healthy()
	b.mustRead("s1", before, "before", false)
}

func TestHSMGoneSixMinutes(t *testing.T) {
	t.Parallel()
	t.Run("token files taken away", func(t *testing.T) {
		t.Parallel()
		token := fixture.NewToken(t)
		hsmGone(t, fixture.StartDaemon(t, token, fixture.Options{}), token)
	})
	t.Run("device removed", func(t *testing.T) {
		t.Parallel()
		token := fixture.NewToken(t)
		s, o := fixture.NewShim(t, token, fixture.Options{})
		hsmGone(t, fixture.StartDaemon(t, token, o), s)
	})
	t.Run("module hangs", func(t *testing.T) {
		t.Parallel()
		token := fixture.NewToken(t)
		s, o := fixture.NewShim(t, token, fixture.Options{})
		hsmGone(t, fixture.StartDaemon(t, token, o), wedge{s})
	})
}

// on_failure: stop-writing answers Status with an error; keep-writing with a healthz that is not ok
// and the key_id, and then the API server is unready but writes with its old seed for as long as it
// lasts (kubernetes#138950).
func TestKeepWriting(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	s, o := fixture.NewShim(t, token, fixture.Options{OnFailure: "keep-writing"})
	d := fixture.StartDaemon(t, token, o)
	p := newProvider(d)
	a := bootHealthy(t, p)
	blob := a.mustWrite("s1", "x")
	r := dial(t, d.Socket)
	id := r.mustStatus().KeyId
	s.Unplug()
	d.Ready(false, 20*time.Second)
	got := r.mustStatus()
	if got.Healthz == "ok" || got.Healthz == "" || got.KeyId != id || got.Version != "v2" {
		t.Errorf("Status without an HSM: %v", got)
	}
	verdict := a.unhealthy().Error()
	then := r.mustStatus() // the reason may have become another one meanwhile
	if text := "got unexpected healthz status: "; !strings.Contains(verdict, text+got.Healthz) &&
		!strings.Contains(verdict, text+then.Healthz) {
		t.Errorf("healthz: %v; Status before: %q, then: %q", verdict, got.Healthz, then.Healthz)
	}
	for minutes := 2; minutes <= 10; minutes += 2 {
		advance(t, p, time.Duration(minutes)*time.Minute)
		// The failed check extends the seed's life: wait for one made at this hour.
		n := operations(t, p, "Status", "OK")
		fixture.Eventually(t, notice, "another Status", func() error {
			_ = a.health()
			if operations(t, p, "Status", "OK") == n {
				return fmt.Errorf("%d so far", n)
			}
			return nil
		})
		a.mustRead("s2", a.mustWrite("s2", "kept on"), "kept on", false)
	}
	s.Plug()
	a.healthy()
	a.mustRead("s1", blob, "x", false)
}

func TestStopWriting(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	d := fixture.StartDaemon(t, token, fixture.Options{OnFailure: "stop-writing"})
	r := dial(t, d.Socket)
	sealed := r.mustEncrypt(seed)
	token.Unplug()
	d.Ready(false, 20*time.Second)
	for what, call := range map[string]func() error{
		"Status": func() error { _, err := r.Status(soon(t), &kmsapi.StatusRequest{}); return err },
		"Encrypt": func() error {
			_, err := r.Encrypt(soon(t), &kmsapi.EncryptRequest{Plaintext: seed, Uid: "u"})
			return err
		},
		"Decrypt": func() error { _, err := r.Decrypt(soon(t), reverse(sealed)); return err },
	} {
		err := call()
		if err == nil {
			t.Errorf("%s succeeded without an HSM", what)
			continue
		}
		if code := status.Code(err); code == codes.InvalidArgument {
			t.Errorf("%s without an HSM blames the data: %v", what, err)
		}
		// This text reaches users of the Kubernetes API.
		for _, detail := range token.Details() {
			if strings.Contains(err.Error(), detail) {
				t.Errorf("%s tells the client %q: %v", what, detail, err)
			}
		}
	}
	token.Plug()
	d.Ready(true, 60*time.Second)
	r.mustDecrypt(sealed, seed)
	r.mustEncrypt(seed)
}

// An HSM that takes a second: a call with less time ends at its deadline, one cancelled is given up,
// Status never waits, and the ones with time are answered.
func TestSlowHSM(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	s, o := fixture.NewShim(t, token, fixture.Options{Probe: "30s"})
	d := fixture.StartDaemon(t, token, o)
	r := dial(t, d.Socket)
	sealed := r.mustEncrypt(seed)
	s.Set("latency_us=1000000")

	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := r.Decrypt(ctx, reverse(sealed))
	if took := time.Since(began); status.Code(err) != codes.DeadlineExceeded || took > 700*time.Millisecond {
		t.Errorf("Decrypt with 200 ms: %v after %v", err, took)
	}
	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err = r.Decrypt(ctx, reverse(sealed)); status.Code(err) != codes.Canceled {
		t.Errorf("Decrypt cancelled: %v", err)
	}
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			got, err := r.Decrypt(soon(t), reverse(sealed))
			if err == nil && string(got.Plaintext) != string(seed) {
				err = fmt.Errorf("got %x", got.Plaintext)
			}
			done <- err
		}()
	}
	for range 20 {
		began = time.Now()
		r.mustStatus()
		if took := time.Since(began); took > 700*time.Millisecond {
			t.Errorf("Status took %v while the HSM was busy", took)
		}
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Errorf("Decrypt with time enough: %v", err)
		}
	}
	// The real client, with its three seconds, does not notice but for the wait.
	a := bootHealthy(t, newProvider(d))
	a.mustRead("s1", a.mustWrite("s1", "slow"), "slow", false)
	s.Set("")
	r.mustDecrypt(sealed, seed)
}

// A login that the token has forgotten is renewed within the call.
func TestLoginLost(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	s, o := fixture.NewShim(t, token, fixture.Options{Probe: "10m", Refresh: "10m"})
	d := fixture.StartDaemon(t, token, o)
	r := dial(t, d.Socket)
	sealed := r.mustEncrypt(seed)
	for _, fault := range []string{"logout_sessions=1", "fail_once=CKR_SESSION_HANDLE_INVALID:C_DecryptInit",
		"fail_once=CKR_OBJECT_HANDLE_INVALID:C_DecryptInit", "fail_once=CKR_SESSION_CLOSED:C_Decrypt"} {
		s.Set(fault)
		got, err := r.Decrypt(soon(t), reverse(sealed))
		if err != nil || string(got.Plaintext) != string(seed) {
			t.Errorf("%s: %v", fault, err)
		}
		s.Set("")
		r.mustDecrypt(r.mustEncrypt(seed), seed)
	}
}
