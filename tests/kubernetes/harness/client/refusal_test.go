// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
	"kmsbridge.test/harness/fixture"
)

var seed = []byte("0123456789abcdef0123456789abcdef")

// Every bit of every byte of the envelope: each flip is refused as InvalidArgument, and the original
// still opens afterwards.
func TestBitFlipInEnvelope(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	r := dial(t, d.Socket)
	sealed := r.mustEncrypt(seed)
	if n := len(sealed.Ciphertext); n <= len(seed) || n > 1024 {
		t.Fatalf("the ciphertext of 32 bytes has %d bytes", n)
	}
	for i := range sealed.Ciphertext {
		for bit := range 8 {
			request := reverse(sealed)
			request.Ciphertext[i] ^= 1 << bit
			r.refused(fmt.Sprintf("byte %d bit %d of %d", i, bit, len(sealed.Ciphertext)), request, codes.InvalidArgument, seed)
		}
	}
	for name := range sealed.Annotations {
		request := reverse(sealed)
		delete(request.Annotations, name)
		r.refused("annotation "+name+" left out", request, codes.InvalidArgument, seed)
		for i := range sealed.Annotations[name] {
			request = reverse(sealed)
			request.Annotations[name][i] ^= 1
			r.refused(fmt.Sprintf("annotation %s byte %d", name, i), request, codes.InvalidArgument, seed)
		}
	}
	r.mustDecrypt(sealed, seed)
}

// Truncated, lengthened, foreign and made-up ciphertext.
func TestForeignCiphertext(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	d := fixture.StartDaemon(t, token, fixture.Options{})
	r := dial(t, d.Socket)
	first := r.mustEncrypt(seed)
	other := dial(t, fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{}).Socket).mustEncrypt(seed)
	token.AddKey("02")
	r.keyIDBecomes(first.KeyId)
	second := r.mustEncrypt(seed)

	with := func(ciphertext []byte, keyID string) *kmsapi.DecryptRequest {
		request := reverse(first)
		request.Ciphertext, request.KeyId = ciphertext, keyID
		return request
	}
	for n := range len(first.Ciphertext) {
		r.refused(fmt.Sprintf("first %d bytes", n), with(first.Ciphertext[:n], first.KeyId), codes.InvalidArgument, seed)
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return b
	}
	for _, c := range []struct {
		what       string
		ciphertext []byte
		keyID      string
	}{
		{"one byte more", append(append([]byte{}, first.Ciphertext...), 0), first.KeyId},
		{"twice", append(append([]byte{}, first.Ciphertext...), first.Ciphertext...), first.KeyId},
		{"random, same length", random(len(first.Ciphertext)), first.KeyId},
		{"random, 1024 bytes", random(1024), first.KeyId},
		{"random, 1025 bytes", random(1025), first.KeyId},
		{"random, 60000 bytes", random(60000), first.KeyId},
		{"zeros", make([]byte, len(first.Ciphertext)), first.KeyId},
		{"of another token, under our key_id", other.Ciphertext, first.KeyId},
		{"of the first key, under the second", first.Ciphertext, second.KeyId},
		{"of the second key, under the first", second.Ciphertext, first.KeyId},
	} {
		r.refused(c.what, with(c.ciphertext, c.keyID), codes.InvalidArgument, seed)
	}
	r.refusedAny("no key_id", with(first.Ciphertext, ""), codes.InvalidArgument, codes.NotFound)
	r.refusedAny("key_id of 1025 bytes", with(first.Ciphertext, strings.Repeat("k", 1025)), codes.InvalidArgument, codes.NotFound)
	extra := reverse(first)
	extra.Annotations = map[string][]byte{"stranger.example.com": []byte("x")}
	r.refused("an annotation that we never wrote", extra, codes.InvalidArgument, seed)
	r.mustDecrypt(first, seed)
	r.mustDecrypt(second, seed)
}

// A key_id that we do not have is NotFound, and the client and its log get to see which.
func TestUnknownKeyID(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	r := dial(t, d.Socket)
	sealed := r.mustEncrypt(seed)
	other := dial(t, fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{}).Socket).mustEncrypt(seed)

	cases := []string{other.KeyId, "no-such-key", sealed.KeyId + "x", sealed.KeyId[:len(sealed.KeyId)-1]}
	for _, id := range cases {
		request := reverse(sealed)
		request.KeyId = id
		err := r.refused("key_id "+id, request, codes.NotFound, seed)
		if err != nil && !strings.Contains(status.Convert(err).Message(), id) {
			t.Errorf("NotFound for %q does not name it: %v", id, err)
		}
	}
	// Another cluster's object, whole.
	if err := r.refused("another token's object", reverse(other), codes.NotFound, seed); err != nil &&
		!strings.Contains(err.Error(), other.KeyId) {
		t.Errorf("another token's object: the error does not name its key_id: %v", err)
	}
	r.mustDecrypt(sealed, seed)
}
