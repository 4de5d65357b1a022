// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
	"kmsbridge.test/harness/fixture"
)

// raw is a plain gRPC client of the socket, for what the real client never sends or never shows.
type raw struct {
	t    testing.TB
	conn *grpc.ClientConn
	kmsapi.KeyManagementServiceClient
}

func dial(t testing.TB, socket string, options ...grpc.DialOption) *raw {
	t.Helper()
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		})}, options...)
	conn, err := grpc.Dial(socket, options...)
	fixture.Must(t, err, "dial")
	t.Cleanup(func() { conn.Close() })
	return &raw{t: t, conn: conn, KeyManagementServiceClient: kmsapi.NewKeyManagementServiceClient(conn)}
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (r *raw) mustStatus() *kmsapi.StatusResponse {
	r.t.Helper()
	s, err := r.Status(soon(r.t), &kmsapi.StatusRequest{})
	fixture.Must(r.t, err, "Status")
	return s
}

func (r *raw) mustEncrypt(plaintext []byte) *kmsapi.EncryptResponse {
	r.t.Helper()
	e, err := r.Encrypt(soon(r.t), &kmsapi.EncryptRequest{Plaintext: plaintext, Uid: "u-" + r.t.Name()})
	fixture.Must(r.t, err, "Encrypt")
	return e
}

// reverse makes the DecryptRequest that belongs to an EncryptResponse, in memory of its own.
func reverse(e *kmsapi.EncryptResponse) *kmsapi.DecryptRequest {
	d := &kmsapi.DecryptRequest{Ciphertext: append([]byte(nil), e.Ciphertext...), KeyId: e.KeyId, Uid: "u-reverse"}
	for k, v := range e.Annotations {
		if d.Annotations == nil {
			d.Annotations = map[string][]byte{}
		}
		d.Annotations[k] = append([]byte(nil), v...)
	}
	return d
}

func (r *raw) mustDecrypt(e *kmsapi.EncryptResponse, want []byte) {
	r.t.Helper()
	d, err := r.Decrypt(soon(r.t), reverse(e))
	fixture.Must(r.t, err, "Decrypt")
	if string(d.Plaintext) != string(want) {
		r.t.Fatalf("Decrypt: got %x, want %x", d.Plaintext, want)
	}
}

// refused checks that an altered request is refused with this code, and that the refusal does not
// carry plaintext.
func (r *raw) refused(what string, request *kmsapi.DecryptRequest, want codes.Code, secret []byte) error {
	r.t.Helper()
	d, err := r.Decrypt(soon(r.t), request)
	if err == nil {
		r.t.Errorf("%s: Decrypt succeeded with %x", what, d.Plaintext)
		return nil
	}
	if got := status.Code(err); got != want {
		r.t.Errorf("%s: got %v, want %v", what, err, want)
	}
	if strings.Contains(err.Error(), string(secret)) {
		r.t.Errorf("%s: the error carries the plaintext", what)
	}
	return err
}

// keyIDBecomes waits until Status names another key than old and returns it.
func (r *raw) keyIDBecomes(old string) string {
	r.t.Helper()
	var now string
	fixture.Eventually(r.t, 15*time.Second, "Status names the new key", func() error {
		s, err := r.Status(soon(r.t), &kmsapi.StatusRequest{})
		if err != nil {
			return err
		}
		if s.KeyId == old {
			return errors.New("still the old key_id")
		}
		now = s.KeyId
		return nil
	})
	return now
}
