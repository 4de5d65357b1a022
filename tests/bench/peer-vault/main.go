// SPDX-License-Identifier: Apache-2.0

// Command peer-vault is the yardstick of tests/bench/vault.sh: a KMS v2 plugin over the Transit engine
// as those for Vault are written today. The gRPC service is Kubernetes' own library
// (k8s.io/kms/pkg/service), the HTTP client OpenBao's own, which is that of HashiCorp Vault.
// -requests says which requests it makes.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openbao/openbao/api/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"
)

const annotationKey = "version.encryption.remote.io"

// The values of -requests.
const (
	leastRequests = "least" // one for an operation, none for Status
	sameRequests  = "same"  // those that kmsbridged makes
	vkkRequests   = "vault-kubernetes-kms"
)

type plugin struct {
	transit *api.Logical
	key     string
	keyID   string
	careful bool
}

func (p *plugin) Status(context.Context) (*service.StatusResponse, error) {
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: p.keyID}, nil
}

// ask writes to Transit and returns one text of its answer.
func (p *plugin) ask(ctx context.Context, op, field string, data map[string]any) (string, error) {
	secret, err := p.transit.WriteWithContext(ctx, "transit/"+op+"/"+p.key, data)
	if err != nil {
		return "", err
	}
	text, ok := secret.Data[field].(string)
	if !ok {
		return "", errors.New("no " + field)
	}
	return text, nil
}

// bound names the key in what it is asked to do.
func (p *plugin) bound(field, text string) map[string]any {
	return map[string]any{field: text, "associated_data": base64.StdEncoding.EncodeToString([]byte(p.keyID))}
}

func (p *plugin) Encrypt(ctx context.Context, uid string, plaintext []byte) (*service.EncryptResponse, error) {
	data := p.bound("plaintext", base64.StdEncoding.EncodeToString(plaintext))
	if p.careful {
		data["key_version"] = 1
		data["type"] = "never-make-one"
	}
	sealed, err := p.ask(ctx, "encrypt", "ciphertext", data)
	if err != nil {
		return nil, status.Error(codes.Internal, fmt.Sprintf("encrypt %s failed", uid))
	}
	return &service.EncryptResponse{
		Ciphertext:  []byte(sealed),
		KeyID:       p.keyID,
		Annotations: map[string][]byte{annotationKey: []byte("1")},
	}, nil
}

func (p *plugin) Decrypt(ctx context.Context, uid string, req *service.DecryptRequest) ([]byte, error) {
	if req.KeyID != p.keyID {
		return nil, status.Error(codes.NotFound, "unknown key_id")
	}
	text, err := p.ask(ctx, "decrypt", "plaintext", p.bound("ciphertext", string(req.Ciphertext)))
	if err != nil {
		return nil, status.Error(codes.Internal, fmt.Sprintf("decrypt %s failed", uid))
	}
	return base64.StdEncoding.DecodeString(text)
}

func newService(transit *api.Logical, key, requests string) service.Service {
	asked := plugin{transit: transit, key: key, keyID: key + "-v1", careful: requests == sameRequests}
	if requests == vkkRequests {
		return &vkk{asked}
	}
	return &asked
}

func main() {
	listen := flag.String("listen", "", "path of the unix socket")
	address := flag.String("address", "", "the server's URL")
	tokenFile := flag.String("token-file", "", "file that holds the token")
	key := flag.String("key", "", "name of the Transit key")
	requests := flag.String("requests", leastRequests, leastRequests+": one for an operation; "+
		sameRequests+": those of kmsbridged, which name the key's version, forbid to make a missing key and"+
		" bear an id for the server's audit log; "+vkkRequests+": those of that plugin")
	version := flag.Bool("version", false, "print the versions of what this is made of")
	flag.Parse()
	if *version {
		printVersions()
		return
	}
	if !slices.Contains([]string{leastRequests, sameRequests, vkkRequests}, *requests) {
		log.Fatalf("-requests: %q is none of those that it can make", *requests)
	}
	if err := run(*listen, *address, *tokenFile, *key, *requests); err != nil {
		log.Fatal(err)
	}
}

func run(listen, address, tokenFile, key, requests string) error {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	config := api.DefaultConfig()
	config.Address = address
	// The client's own default keeps two idle connections to a host.
	if requests != vkkRequests {
		config.HttpClient.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	}
	client, err := api.NewClient(config)
	if err != nil {
		return err
	}
	client.SetToken(strings.TrimSpace(string(token)))
	if requests == sameRequests {
		client = client.WithRequestCallbacks(func(request *api.Request) {
			var id [16]byte
			rand.Read(id[:]) // never fails
			request.Headers.Set("X-Correlation-Id", "kb-"+hex.EncodeToString(id[:]))
		})
	}
	if err := os.Remove(listen); err != nil && !os.IsNotExist(err) {
		return err
	}
	server := service.NewGRPCService(listen, 5*time.Second, newService(client.Logical(), key, requests))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		server.Shutdown()
	}()
	return server.ListenAndServe()
}

func printVersions() {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	fmt.Println("go", info.GoVersion)
	for _, dep := range info.Deps {
		switch dep.Path {
		case "google.golang.org/grpc", "k8s.io/kms", "github.com/openbao/openbao/api/v2":
			fmt.Println(dep.Path, dep.Version)
		}
	}
}
