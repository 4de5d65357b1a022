// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"kmsbridge.test/harness/fixture"
)

// The HSM is gone for six minutes by the clock on the wall, and nobody helps: no healthz is asked, the
// API server finds out by itself. Writes go on for three minutes from its last good check, then stop;
// what was read stays readable; when the HSM is back all goes on under the same key.
func TestHSMGoneSixRealMinutes(t *testing.T) {
	if os.Getenv("KMSBRIDGE_LONG") != "1" {
		t.Skip("KMSBRIDGE_LONG=1 is not set: six minutes by the wall clock")
	}
	t.Parallel()
	token := fixture.NewToken(t)
	shim, options := fixture.NewShim(t, token, fixture.Options{})
	d := fixture.StartDaemon(t, token, options)
	e := startEtcd(t)
	a := newAPIServer(t, e, false, "secrets", kms("kmsbridge", d), identity)
	a.start()
	a.mustCreate("s1", "before")
	a.mustRead("s1", "before")
	id := e.secret("s1").KeyID

	shim.Unplug()
	d.Ready(false, 20*time.Second)
	gone := time.Now()
	at := func(since time.Duration) { time.Sleep(time.Until(gone.Add(since))) }

	// The last good check is at most a minute older than the outage, so two minutes are safe.
	at(100 * time.Second)
	a.mustCreate("s2", "after 100 seconds")
	at(3*time.Minute + 10*time.Second)
	for _, late := range []time.Duration{3*time.Minute + 10*time.Second, 4 * time.Minute, 5*time.Minute + 50*time.Second} {
		at(late)
		if err := a.create("s3", "too late"); err == nil || !strings.Contains(err.Error(), "expired at") {
			t.Errorf("create after %v: %v", late, err)
		}
		a.mustRead("s1", "before")
		a.mustRead("s2", "after 100 seconds")
	}
	if code, body, err := a.call("GET", "/readyz", nil); err != nil || code != 500 || !bytes.Contains(body, []byte("kms-providers")) {
		t.Errorf("readyz without an HSM: %d %s %v", code, body, err)
	}
	at(6 * time.Minute)
	shim.Plug()
	d.Ready(true, time.Minute)
	back := fixture.Eventually(t, 30*time.Second, "writes work again", func() error { return a.create("s3", "after") })
	t.Logf("writes work %v after the daemon is well", back.Round(time.Millisecond))
	for name, data := range map[string]string{"s1": "before", "s2": "after 100 seconds", "s3": "after"} {
		a.mustRead(name, data)
	}
	if got := e.secret("s3").KeyID; got != id {
		t.Errorf("key_id %q after the outage, was %q", got, id)
	}
	a.ready(time.Minute)
	a.restart()
	a.mustRead("s1", "before")
}
