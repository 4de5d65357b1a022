// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"strings"
	"testing"

	"kmsbridge.test/harness/fixture"
)

// Two providers in one configuration, each with a daemon: healthz names the one that fails, and
// objects of either are readable (TestKMSv2Healthz).
func TestTwoProvidersHealthz(t *testing.T) {
	t.Parallel()
	d1 := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	d2 := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p1, p2 := newProvider(d1), newProvider(d2)
	p1.timeout, p2.timeout = "1s", "1s"
	a := bootHealthy(t, p1, p2)
	first := a.mustWrite("s1", "first")
	if got := parse(t, first).Provider; got != p1.name {
		t.Errorf("written by provider %q, want the first, %q", got, p1.name)
	}
	b := bootHealthy(t, p2, p1)
	second := b.mustWrite("s2", "second")
	a.mustRead("s2", second, "second", true) // a would write it under its first provider
	b.mustRead("s1", first, "first", true)

	says := func(want, never string) {
		t.Helper()
		fixture.Eventually(t, notice, "healthz names "+want, func() error {
			err := a.health()
			if err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Errorf("healthz: %v", err)
			}
			if never != "" && strings.Contains(err.Error(), never) {
				return fmt.Errorf("healthz names %s too: %v", never, err)
			}
			return nil
		})
	}
	d1.Kill()
	says("kms-provider-0: ", "kms-provider-1: ")
	d1.Start()
	a.healthy()
	d2.Kill()
	says("kms-provider-1: ", "kms-provider-0: ")
	d1.Kill()
	says("kms-provider-0: ", "")
	says("kms-provider-1: ", "")
	d1.Start()
	d2.Start()
	a.healthy()
	a.mustRead("s1", first, "first", false)
	a.mustRead("s2", second, "second", true)
}
