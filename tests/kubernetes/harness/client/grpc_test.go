// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	kmsapi "k8s.io/kms/apis/v2"
	"kmsbridge.test/harness/fixture"
)

// A hundred callers at once, each with its own plaintext, over the real client
// (TestGRPCServiceConcurrentAccess).
func TestHundredParallelCallers(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	s := realService(t, d, 20*time.Second)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range 5 {
				plain := []byte(fmt.Sprintf("caller %d, round %d", i, j))
				sealed, err := s.Encrypt(context.Background(), fmt.Sprintf("e-%d-%d", i, j), plain)
				if err != nil {
					t.Errorf("caller %d: Encrypt: %v", i, err)
					return
				}
				got, err := s.Decrypt(context.Background(), fmt.Sprintf("d-%d-%d", i, j), reverseReal(sealed))
				if err != nil || !bytes.Equal(got, plain) {
					t.Errorf("caller %d: got %q, %v, want %q", i, got, err, plain)
					return
				}
			}
		}()
	}
	wg.Wait()
}

// An API server that fills its caches asks for the same seed many times at once.
func TestIdenticalParallelDecrypts(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	r := dial(t, d.Socket)
	sealed := r.mustEncrypt(seed)
	bad := reverse(sealed)
	bad.Ciphertext[len(bad.Ciphertext)-1] ^= 1
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			// The odd ones look alike but are not: they must not share the good ones' answer.
			if i%2 == 1 {
				r.refused("altered twin", bad, codes.InvalidArgument, seed)
				return
			}
			got, err := r.Decrypt(soon(t), reverse(sealed))
			if err != nil || !bytes.Equal(got.Plaintext, seed) {
				t.Errorf("Decrypt: %v", err)
			}
		}()
	}
	wg.Wait()
}

// Whatever :authority says. Kubernetes up to 1.31 sends the socket's path, as it is or with %2F.
func TestAuthority(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	for _, authority := range []string{"localhost", d.Socket, url.PathEscape(d.Socket), "kms", "example.com:443", "@abstract"} {
		r := dial(t, d.Socket, grpc.WithAuthority(authority))
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		s, err := r.Status(ctx, &kmsapi.StatusRequest{})
		cancel()
		if err != nil || s.Healthz != "ok" {
			t.Errorf(":authority %q: %v, %v", authority, s, err)
			continue
		}
		r.mustDecrypt(r.mustEncrypt(seed), seed)
	}
}

// Status as the client wants it; v2beta1 is for Kubernetes 1.27 and 1.28.
func TestStatus(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v2", "v2beta1"} {
		d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{APIVersion: version})
		s := dial(t, d.Socket).mustStatus()
		if s.Version != version || s.Healthz != "ok" || s.KeyId == "" || len(s.KeyId) > 1024 {
			t.Errorf("api_version %s: Status is %v", version, s)
		}
		a := bootHealthy(t, newProvider(d))
		a.mustRead("s1", a.mustWrite("s1", version), version, false)
	}
}

// The client pins the version it saw first: a plugin that goes from v2beta1 to v2 is unhealthy until
// the API server restarts, but what is stored stays readable and writes go on.
func TestVersionFlip(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{APIVersion: "v2beta1"})
	p := newProvider(d)
	a := bootHealthy(t, p)
	blob := a.mustWrite("s1", "x")
	d.Kill()
	d.Configure(fixture.Options{APIVersion: "v2"})
	d.Start()
	// A check made while the plugin was away fails otherwise; one after it tells.
	fixture.Eventually(t, notice, "healthz names the flip", func() error {
		const flip = "should not change after the initial status response version v2beta1, got v2"
		if err := a.health(); err == nil || !strings.Contains(err.Error(), flip) {
			return fmt.Errorf("healthz: %v", err)
		}
		return nil
	})
	a.mustRead("s1", blob, "x", false)
	a.mustWrite("s2", "y")
	a.stop()
	b := bootHealthy(t, p)
	b.mustRead("s1", blob, "x", false)
}

// Calls cancelled by the hundred at any moment of their life: the others are right and the daemon
// stays well.
func TestCancelledCalls(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	r := dial(t, d.Socket)
	sealed := r.mustEncrypt(seed)
	var wg sync.WaitGroup
	var mu sync.Mutex
	outcome := map[codes.Code]int{}
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 50 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(4000))*time.Microsecond)
				if rand.IntN(2) == 0 {
					ctx, cancel = context.WithCancel(context.Background())
					time.AfterFunc(time.Duration(rand.IntN(4000))*time.Microsecond, cancel)
				}
				got, err := r.Decrypt(ctx, reverse(sealed))
				if err == nil && !bytes.Equal(got.Plaintext, seed) {
					t.Error("a wrong answer")
				}
				mu.Lock()
				outcome[status.Code(err)]++
				mu.Unlock()
				cancel()
			}
		}()
	}
	wg.Wait()
	t.Logf("outcomes: %v", outcome)
	for code := range outcome {
		if code != codes.OK && code != codes.Canceled && code != codes.DeadlineExceeded {
			t.Errorf("a cancelled call ended in %v", code)
		}
	}
	if outcome[codes.Canceled]+outcome[codes.DeadlineExceeded] == 0 {
		t.Error("no call was cancelled: this tested nothing")
	}
	r.mustDecrypt(sealed, seed)
	if !d.Running() {
		t.Error("the daemon is gone")
	}
}

// A message over the daemon's 64 KiB is refused, on a connection that goes on working; one of 60 kB
// is a well-formed request and gets an answer of the service.
func TestMessageTooLarge(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	r := dial(t, d.Socket)
	sealed := r.mustEncrypt(seed)
	for _, n := range []int{65 << 10, 1 << 20, 5 << 20} {
		_, err := r.Encrypt(soon(t), &kmsapi.EncryptRequest{Plaintext: make([]byte, n), Uid: "u"})
		if status.Code(err) != codes.ResourceExhausted && status.Code(err) != codes.InvalidArgument {
			t.Errorf("Encrypt of %d bytes: %v", n, err)
		}
		request := reverse(sealed)
		request.Annotations = map[string][]byte{"a.example.com": make([]byte, n)}
		r.refusedAny("annotation too large", request, codes.ResourceExhausted, codes.InvalidArgument)
		r.mustDecrypt(sealed, seed)
	}
}

func (r *raw) refusedAny(what string, request *kmsapi.DecryptRequest, want ...codes.Code) {
	r.t.Helper()
	_, err := r.Decrypt(soon(r.t), request)
	for _, code := range want {
		if status.Code(err) == code {
			return
		}
	}
	r.t.Errorf("%s: got %v, want one of %v", what, err, want)
}

// What Encrypt answers keeps to the client's limits, and what it cannot keep within them it refuses.
func TestPlaintextSizes(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	d := fixture.StartDaemon(t, token, fixture.Options{})
	r := dial(t, d.Socket)
	for _, n := range []int{1, 16, 24, 32, 33, 64, 512, 600, 900, 1000, 1024, 4096, 32768} {
		plain := bytes.Repeat([]byte{byte(n)}, n)
		sealed, err := r.Encrypt(soon(t), &kmsapi.EncryptRequest{Plaintext: plain, Uid: "u"})
		if err != nil {
			if n <= token.PlaintextMax() {
				t.Errorf("Encrypt of %d bytes: %v", n, err)
			} else if status.Code(err) != codes.InvalidArgument {
				t.Errorf("Encrypt of %d bytes: %v, want InvalidArgument", n, err)
			}
			continue
		}
		if len(sealed.Ciphertext) > 1024 {
			t.Errorf("Encrypt of %d bytes answers %d, the client takes 1024", n, len(sealed.Ciphertext))
		}
		r.mustDecrypt(sealed, plain)
	}
	if _, err := r.Encrypt(soon(t), &kmsapi.EncryptRequest{Uid: "u"}); err != nil && status.Code(err) != codes.InvalidArgument {
		t.Errorf("Encrypt of nothing: %v", err)
	}
	// The same plaintext twice is two ciphertexts.
	if bytes.Equal(r.mustEncrypt(seed).Ciphertext, r.mustEncrypt(seed).Ciphertext) {
		t.Error("the same ciphertext twice")
	}
}

// bare sends and takes a message as it is, for requests that no generated code would make.
type bare []byte

type bareCodec struct{}

func (bareCodec) Name() string { return "proto" }
func (bareCodec) Marshal(v any) ([]byte, error) {
	return *v.(*bare), nil
}
func (bareCodec) Unmarshal(data []byte, v any) error {
	*v.(*bare) = append(bare(nil), data...)
	return nil
}

func (r *raw) bare(method string, request []byte) ([]byte, error) {
	var in, out bare = request, nil
	err := r.conn.Invoke(soon(r.t), method, &in, &out, grpc.ForceCodec(bareCodec{}))
	return out, err
}

// Requests of other makers: unknown fields are ignored, bad ones refused, unknown methods named so.
func TestOddRequests(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	r := dial(t, d.Socket)
	str := func(number protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), s)
	}
	unknown := append(str(99, "from the future"), protowire.AppendVarint(protowire.AppendTag(nil, 98, protowire.VarintType), 7)...)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	const service = "/v2.KeyManagementService/"
	// What no parser takes: gRPC's own libraries say Internal, a service that parses by itself may say
	// InvalidArgument.
	const unparsed = codes.Internal
	for _, c := range []struct {
		what, method string
		request      []byte
		want         codes.Code
	}{
		{"Status with unknown fields", service + "Status", unknown, codes.OK},
		{"Encrypt with unknown fields", service + "Encrypt", join(str(1, "x"), str(2, "u"), unknown), codes.OK},
		{"Encrypt, uid not UTF-8", service + "Encrypt", join(str(1, "x"), str(2, "\xff\xfe")), unparsed},
		{"Encrypt, uid with NUL", service + "Encrypt", join(str(1, "x"), str(2, "a\x00b")), codes.InvalidArgument},
		{"Decrypt, key_id not UTF-8", service + "Decrypt", join(str(1, "x"), str(2, "u"), str(3, "\xff")), unparsed},
		{"Encrypt, cut off", service + "Encrypt", []byte{0x0a, 0x40, 1, 2, 3}, unparsed},
		{"Encrypt, garbage", service + "Encrypt", bytes.Repeat([]byte{0xff}, 100), unparsed},
		{"unknown method", service + "Rotate", nil, codes.Unimplemented},
		{"unknown service", "/v3.KeyManagementService/Status", nil, codes.Unimplemented},
		{"v2alpha1", "/v2alpha1.KeyManagementService/Status", nil, codes.Unimplemented},
	} {
		_, err := r.bare(c.method, c.request)
		got := status.Code(err)
		if c.want == unparsed && got == codes.InvalidArgument {
			continue
		}
		if got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, err, c.want)
		}
	}
	r.mustDecrypt(r.mustEncrypt(seed), seed)
}
