// SPDX-License-Identifier: Apache-2.0

//go:build !k8s_old

package client

import (
	"testing"
	"time"

	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
)

// advance moves the clock by which a provider's seed expires.
func advance(t testing.TB, p provider, by time.Duration) {
	t.Helper()
	t.Cleanup(kmsv2.SetNowFuncForTests(p.name, func() time.Time { return time.Now().Add(by) }))
}

// legacyDEK makes the client send AES_GCM_KEY keys, as Kubernetes 1.27 did, and not HKDF seeds, until
// the returned function is called.
func legacyDEK(p provider) func() { return encryptionconfig.SetKDFForTests(p.name, false) }
