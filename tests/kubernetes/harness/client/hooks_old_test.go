// SPDX-License-Identifier: Apache-2.0

//go:build k8s_old

package client

import (
	"testing"
	"time"
)

// Clients before Kubernetes 1.35 have these hooks once per process and not per provider, which tests
// that run side by side cannot use. The lanes of old clients do not run the tests that need them.

func advance(t testing.TB, _ provider, _ time.Duration) {
	t.Helper()
	t.Fatal("this client has no clock per provider")
}

func legacyDEK(provider) func() { panic("this client has no seed switch per provider") }
