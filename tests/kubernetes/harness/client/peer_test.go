// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
	"kmsbridge.test/harness/fixture"
)

// peerEnv makes this test binary a client of the socket it names and nothing else; so it can be run
// as another user.
const peerEnv = "KMSBRIDGE_TEST_PEER"

const nobody, stranger = 65534, 65533

func peerMain(socket string) int {
	if c, err := net.Dial("unix", socket); err != nil {
		if errors.Is(err, syscall.EACCES) {
			fmt.Println("connect: EACCES")
			return 0
		}
		fmt.Println("connect:", err)
		return 1
	} else {
		c.Close()
	}
	conn, err := grpc.Dial("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		fmt.Println("dial:", err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	kms := kmsapi.NewKeyManagementServiceClient(conn)
	_, err = kms.Status(ctx, &kmsapi.StatusRequest{})
	fmt.Println("Status:", status.Code(err))
	_, err = kms.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: []byte("x"), Uid: "u"})
	fmt.Println("Encrypt:", status.Code(err))
	return 0
}

func asPeer(t testing.TB, d *fixture.Daemon, uid, gid uint32) string {
	t.Helper()
	self, err := os.Executable()
	fixture.Must(t, err, "own path")
	cmd := exec.Command(self)
	cmd.Dir = "/"
	cmd.Env = []string{peerEnv + "=" + d.Socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: []uint32{}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("client as uid %d: %v\n%s", uid, err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// Who may talk to the socket: the peers that the configuration names and nobody else, whatever the
// socket's mode lets through.
func TestPeers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		fixture.Missing(t, "root, to run clients as other users")
	}
	token := fixture.NewToken(t)
	const in, out = "Status: OK Encrypt: OK", "Status: Unavailable Encrypt: Unavailable"
	type peer struct {
		uid, gid uint32
		want     string
	}
	for _, c := range []struct {
		what    string
		options fixture.Options
		peers   []peer
	}{
		{"default, socket open to all", fixture.Options{Mode: "0666"},
			[]peer{{0, 0, in}, {nobody, nobody, out}, {stranger, 0, out}}},
		{"default, socket for its owner", fixture.Options{Mode: "0600"},
			[]peer{{0, 0, in}, {nobody, nobody, "connect: EACCES"}}},
		{"one other user", fixture.Options{Mode: "0666", UIDs: []int{nobody}},
			[]peer{{nobody, nobody, in}, {stranger, nobody, out}, {0, 0, out}}},
		{"a group", fixture.Options{Mode: "0666", UIDs: []int{0}, GIDs: []int{nobody}},
			[]peer{{0, 0, in}, {stranger, nobody, in}, {nobody, stranger, out}}},
	} {
		d := fixture.StartDaemon(t, token, c.options)
		// The log names who is refused, for the operator who wonders: the first, for it may be limited
		// in how often. StartDaemon's own connections are root's.
		refused := -1
		if len(c.options.UIDs) > 0 && c.options.UIDs[0] != 0 {
			refused = 0
		}
		for _, p := range c.peers {
			if refused < 0 && p.want == out {
				refused = int(p.uid)
			}
			if got := asPeer(t, d, p.uid, p.gid); got != p.want {
				t.Errorf("%s: uid %d gid %d: %q, want %q", c.what, p.uid, p.gid, got, p.want)
			}
		}
		if refused >= 0 && !strings.Contains(d.Log(), fmt.Sprintf("uid %d ", refused)) {
			t.Errorf("%s: the log does not name the refused uid %d", c.what, refused)
		}
	}
}
