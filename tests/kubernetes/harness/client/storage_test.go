// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/aes"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/storage/value"
	aestransformer "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	kmsapi "k8s.io/kms/apis/v2"
	"kmsbridge.test/harness/fixture"
	"kmsbridge.test/harness/stored"
)

func envelopeOf(s *stored.Object) *kmsapi.EncryptResponse {
	return &kmsapi.EncryptResponse{Ciphertext: s.Seed, KeyId: s.KeyID,
		Annotations: s.Annotations}
}

// What is stored is what Kubernetes says it is, and only the plugin opens it (TestKMSv2Provider).
func TestStoredForm(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p := newProvider(d)
	a := bootHealthy(t, p)
	secret := "the plaintext of a Secret"
	blob := a.mustWrite("s1", secret)
	a.mustRead("s1", blob, secret, false)

	if bytes.Contains(blob, []byte(secret)) {
		t.Error("the stored value holds the plaintext")
	}
	s := parse(t, blob)
	if s.Provider != p.name {
		t.Errorf("stored under provider %q, want %q", s.Provider, p.name)
	}
	if s.SeedType != stored.HKDFSeed {
		t.Errorf("seed type %v, want an HKDF seed", s.SeedType)
	}
	r := dial(t, d.Socket)
	if got := r.mustStatus().KeyId; got != s.KeyID {
		t.Errorf("stored under key_id %q, Status says %q", s.KeyID, got)
	}
	// The seed that the plugin hands back opens the payload, bound to its path in etcd.
	opened, err := r.Decrypt(soon(t), reverse(envelopeOf(s)))
	fixture.Must(t, err, "Decrypt the seed")
	if len(opened.Plaintext) != 32 {
		t.Fatalf("the seed has %d bytes, want 32", len(opened.Plaintext))
	}
	payload, err := aestransformer.NewHKDFExtendedNonceGCMTransformer(opened.Plaintext)
	fixture.Must(t, err, "HKDF transformer")
	got, _, err := payload.TransformFromStorage(context.Background(), s.Data,
		value.DefaultContext(key("s1")))
	if err != nil || string(got) != secret {
		t.Errorf("payload opened by hand: %q, %v", got, err)
	}
	if _, _, err := a.read("other", blob); err == nil {
		t.Error("a value moved to another path was opened")
	}
}

// A thousand objects share one seed, so the HSM is asked once (TestKMSv2ProviderDEKSourceReuse).
func TestThousandObjectsOneSeed(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p := newProvider(d)
	a := bootHealthy(t, p)
	seeds, payloads := map[string]bool{}, map[string]bool{}
	blobs := make([][]byte, 1000)
	for i := range blobs {
		blobs[i] = a.mustWrite(fmt.Sprint(i), fmt.Sprintf("data %d", i))
		s := parse(t, blobs[i])
		seeds[string(s.Seed)] = true
		payloads[string(s.Data)] = true
	}
	if len(seeds) != 1 {
		t.Errorf("1000 objects have %d distinct seeds, want 1", len(seeds))
	}
	if len(payloads) != 1000 {
		t.Errorf("1000 objects have %d distinct payloads", len(payloads))
	}
	for i, blob := range blobs {
		a.mustRead(fmt.Sprint(i), blob, fmt.Sprintf("data %d", i), false)
	}
	if n := operations(t, p, "Encrypt", "OK"); n != 1 {
		t.Errorf("%d Encrypt calls, want 1", n)
	}
	if n := operations(t, p, "Decrypt", "OK"); n != 0 {
		t.Errorf("%d Decrypt calls, want none: this server made the seed", n)
	}

	// After a restart of the API server all of them are opened with one Decrypt.
	a.stop()
	b := bootHealthy(t, p)
	for i, blob := range blobs {
		b.mustRead(fmt.Sprint(i), blob, fmt.Sprintf("data %d", i), false)
	}
	if n := operations(t, p, "Decrypt", "OK"); n != 1 {
		t.Errorf("%d Decrypt calls after a restart, want 1", n)
	}
}

// Every restart of an API server makes a seed; all of them stay readable by the next.
func TestSeedPerRestart(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p := newProvider(d)
	const restarts = 8
	var blobs [][]byte
	seeds := map[string]bool{}
	for i := range restarts {
		a := bootHealthy(t, p)
		for j, blob := range blobs {
			a.mustRead(fmt.Sprint(j), blob, fmt.Sprintf("data %d", j), false)
		}
		blobs = append(blobs, a.mustWrite(fmt.Sprint(i), fmt.Sprintf("data %d", i)))
		seeds[string(parse(t, blobs[i]).Seed)] = true
		a.stop()
	}
	if len(seeds) != restarts {
		t.Errorf("%d restarts made %d seeds", restarts, len(seeds))
	}
}

// The client's 1.27 form: a bare AES key, 32 bytes, in place of an HKDF seed.
func TestLegacyDEK(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p := newProvider(d)
	seedsAgain := legacyDEK(p)
	a := bootHealthy(t, p)
	blob := a.mustWrite("s1", "legacy")
	s := parse(t, blob)
	if s.SeedType != 0 {
		t.Fatalf("seed type %v, want AES_GCM_KEY", s.SeedType)
	}
	opened, err := dial(t, d.Socket).Decrypt(soon(t), reverse(envelopeOf(s)))
	fixture.Must(t, err, "Decrypt the DEK")
	if _, err := aes.NewCipher(opened.Plaintext); err != nil || len(opened.Plaintext) != 32 {
		t.Errorf("the DEK has %d bytes: %v", len(opened.Plaintext), err)
	}
	a.stop()
	// Seeds again: the old object is read and is stale.
	seedsAgain()
	b := bootHealthy(t, p)
	b.mustRead("s1", blob, "legacy", true)
	b.mustRead("s1", b.mustWrite("s1", "legacy"), "legacy", false)
}

// A bit flipped anywhere in a stored value is noticed, by an API server that has the seed and by one
// that has to ask for it.
func TestBitFlipInStoredValue(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p := newProvider(d)
	a := bootHealthy(t, p)
	secret := "flip me"
	blob := a.mustWrite("s1", secret)
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 1 << (i % 8)
		// A changed prefix is no longer ours: identity takes it unless it looks encrypted.
		if i < len(stored.Prefix) {
			continue
		}
		if got, _, err := a.read("s1", bad); err == nil {
			// A flip in the provider's name or in a field's tag must not yield the plaintext under
			// another meaning either: an unknown field is ignored, so the payload would be intact.
			t.Errorf("bit flip at byte %d of %d was read as %q", i, len(blob), got)
		}
	}
	a.mustRead("s1", blob, secret, false)
	a.stop()
	b := bootHealthy(t, p)
	s := parse(t, blob)
	at := bytes.Index(blob, s.Seed)
	for i := at; i < at+len(s.Seed); i++ {
		bad := bytes.Clone(blob)
		bad[i] ^= 1 << (i % 8)
		_, _, err := b.read("s1", bad)
		if err == nil || !strings.Contains(err.Error(), "failed to decrypt DEK") {
			t.Errorf("bit flip in the seed at byte %d: %v", i-at, err)
		}
	}
	b.mustRead("s1", blob, secret, false)
}
