// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmsapi "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/service"
	"kmsbridge.test/harness/fixture"
)

// The API server comes up before the plugin (TestKMSPluginLateStart).
func TestPluginLateStart(t *testing.T) {
	t.Parallel()
	d := fixture.NewDaemon(t, fixture.NewToken(t), fixture.Options{})
	a := boot(t, newProvider(d))
	if a.health() == nil {
		t.Fatal("healthy without a plugin")
	}
	if _, err := a.write("s1", []byte("x")); err == nil {
		t.Fatal("a write succeeded without a plugin")
	}
	d.Start()
	t.Logf("good again after %v", a.healthy())
	a.mustRead("s1", a.mustWrite("s1", "x"), "x", false)
}

// An API server that restarts while the plugin is down reads nothing, and all of it once the plugin
// is back; one that kept running reads what it had read.
func TestAPIServerRestartsWithPluginDown(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p := newProvider(d)
	a := bootHealthy(t, p)
	blob := a.mustWrite("s1", "x")
	d.Kill()
	a.mustRead("s1", blob, "x", false)
	a.mustRead("s2", a.mustWrite("s2", "within three minutes"), "within three minutes", false)
	a.stop()

	b := boot(t, p)
	if _, _, err := b.read("s1", blob); err == nil {
		t.Fatal("a new API server read without a plugin")
	}
	d.Start()
	b.healthy()
	b.mustRead("s1", blob, "x", false)
}

// A call made while the plugin is away waits for it and succeeds within its timeout
// (TestIntermittentConnectionLoss).
func TestCallWaitsForPlugin(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	s := realService(t, d, 20*time.Second)
	sealed, err := s.Encrypt(context.Background(), "u1", []byte("before"))
	fixture.Must(t, err, "Encrypt")
	d.Kill()
	// A call made before the client has noticed is lost with the connection; this is about the next.
	time.Sleep(200 * time.Millisecond)
	type outcome struct {
		plain []byte
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		plain, err := s.Decrypt(context.Background(), "u2", reverseReal(sealed))
		done <- outcome{plain, err}
	}()
	select {
	case o := <-done:
		t.Fatalf("Decrypt ended without a plugin: %q, %v", o.plain, o.err)
	case <-time.After(time.Second):
	}
	d.Start()
	if o := <-done; o.err != nil || string(o.plain) != "before" {
		t.Errorf("Decrypt over a restart: %q, %v", o.plain, o.err)
	}
}

// The client's timeouts (TestTimeouts): a plugin that never comes costs the timeout and no more.
func TestTimeoutWithoutPlugin(t *testing.T) {
	t.Parallel()
	d := fixture.NewDaemon(t, fixture.NewToken(t), fixture.Options{})
	s := realService(t, d, time.Second)
	began := time.Now()
	_, err := s.Encrypt(context.Background(), "u1", []byte("x"))
	if took := time.Since(began); status.Code(err) != codes.DeadlineExceeded || took > 3*time.Second {
		t.Errorf("Encrypt without a plugin: %v after %v", err, took)
	}
}

func realService(t testing.TB, d *fixture.Daemon, timeout time.Duration) service.Service {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s, err := kmsv2.NewGRPCService(ctx, d.Endpoint(), newProvider(d).name, timeout)
	fixture.Must(t, err, "KMS v2 client")
	return s
}

func reverseReal(e *service.EncryptResponse) *service.DecryptRequest {
	return &service.DecryptRequest{Ciphertext: e.Ciphertext, KeyID: e.KeyID, Annotations: e.Annotations}
}

// kill -9, again and again, under load. Whatever Encrypt ever answered is decryptable afterwards,
// no answer is wrong, the callers recover by themselves, and what was stored is readable.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	p := newProvider(d)
	a := bootHealthy(t, p)

	type pair struct {
		plain  []byte
		sealed *service.EncryptResponse
	}
	const callers = 8
	var mu sync.Mutex
	var pairs []pair
	var good, failed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		s := realService(t, d, 3*time.Second)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				plain := []byte(fmt.Sprintf("caller %d call %d, 32 bytes or so", i, n))
				sealed, err := s.Encrypt(context.Background(), fmt.Sprintf("u-%d-%d", i, n), plain)
				if err != nil {
					failed.Add(1)
					continue
				}
				mu.Lock()
				pairs = append(pairs, pair{plain, sealed})
				old := pairs[rand.IntN(len(pairs))]
				mu.Unlock()
				got, err := s.Decrypt(context.Background(), fmt.Sprintf("d-%d-%d", i, n), reverseReal(old.sealed))
				switch {
				case err != nil:
					failed.Add(1)
				case string(got) != string(old.plain):
					t.Errorf("Decrypt gave %q, want %q", got, old.plain)
				default:
					good.Add(1)
				}
			}
		}()
	}
	stored := map[string][]byte{}
	const kills = 10
	for i := range kills {
		time.Sleep(300*time.Millisecond + time.Duration(rand.IntN(300))*time.Millisecond)
		d.Restart()
		name := fmt.Sprint("s", i)
		stored[name] = a.mustWrite(name, "stored "+name)
	}
	before := good.Load()
	recovery := fixture.Eventually(t, 15*time.Second, "the callers recover", func() error {
		if n := good.Load() - before; n < 10*callers {
			return fmt.Errorf("%d calls since the last kill", n)
		}
		return nil
	})
	close(stop)
	wg.Wait()
	t.Logf("%d good round trips, %d failed calls, %d kills, callers back within %v", good.Load(), failed.Load(), kills, recovery)
	if good.Load() < 100 {
		t.Errorf("only %d round trips: that was no load", good.Load())
	}
	s := realService(t, d, 5*time.Second)
	for _, p := range pairs {
		got, err := s.Decrypt(context.Background(), "u-after", reverseReal(p.sealed))
		if err != nil || string(got) != string(p.plain) {
			t.Fatalf("lost: %q is now %q, %v", p.plain, got, err)
		}
	}
	a.stop()
	b := bootHealthy(t, p)
	for name, blob := range stored {
		b.mustRead(name, blob, "stored "+name, false)
	}
}

// SIGTERM lets calls in flight finish and leaves no socket that takes connections.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	r := dial(t, d.Socket)
	r.mustStatus()
	if err := d.Stop(10 * time.Second); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := dial(t, d.Socket).Status(ctx, &kmsapi.StatusRequest{}); err == nil {
		t.Error("Status answered after the stop")
	}
	d.Start()
	dial(t, d.Socket).mustStatus()
}

// Two API servers on one plugin, then each on a plugin of its own over replicas of the token: what
// one writes the other reads, also while only one of them has seen a rotation.
func TestTwoAPIServers(t *testing.T) {
	t.Parallel()
	token := fixture.NewToken(t)
	d1 := fixture.StartDaemon(t, token, fixture.Options{})
	d2 := fixture.StartDaemon(t, token.Replica(), fixture.Options{})
	p1, p2, p3 := newProvider(d1), newProvider(d2), newProvider(d1)
	// The name is part of the stored prefix, so it is the same on every API server of a cluster.
	p2.name, p3.name = p1.name, p1.name
	a, b, c := bootHealthy(t, p1), bootHealthy(t, p2), bootHealthy(t, p3)
	for _, w := range []*apiserver{a, b, c} {
		blob := w.mustWrite("s", "by "+w.id)
		for _, r := range []*apiserver{a, b, c} {
			r.mustRead("s", blob, "by "+w.id, false)
		}
	}
	if strings.Contains(d1.Socket, d2.Socket) {
		t.Fatal("the two daemons share a socket")
	}

	// The key is rotated in the HSM cluster: first its replica reaches d2 only.
	later := token.Replica()
	later.AddKey("02")
	d3 := fixture.StartDaemon(t, later, fixture.Options{})
	p4 := newProvider(d3)
	p4.name = p1.name
	old := a.mustWrite("s", "old")
	e := bootHealthy(t, p4)
	e.mustRead("s", old, "old", true)
	fresh := e.mustWrite("s", "new")
	// d1 does not have the key yet: it says so and names it, and goes on with what it has.
	_, _, err := a.read("s", fresh)
	if token.Shared() {
		if err != nil {
			t.Errorf("read under a key that d1 could look up: %v", err)
		}
	} else if err == nil || !strings.Contains(err.Error(), parse(t, fresh).KeyID) {
		t.Errorf("read under a key that has not arrived yet: %v", err)
	}
	a.mustRead("s", a.mustWrite("s", "still"), "still", false)
}
