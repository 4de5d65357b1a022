// SPDX-License-Identifier: Apache-2.0

// Command peer-vault is the yardstick of tests/bench/vault.sh: a KMS v2 plugin over the Transit engine
// as those for Vault are written today. The gRPC service is Kubernetes' own library
// (k8s.io/kms/pkg/service), the HTTP client OpenBao's own, which is that of HashiCorp Vault.
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
	"strings"
	"syscall"
	"time"

	"github.com/openbao/openbao/api/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"
)

const annotationKey = "version.encryption.remote.io"

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
	data["associated_data"] = base64.StdEncoding.EncodeToString([]byte(p.keyID))
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

func (p *plugin) Encrypt(ctx context.Context, uid string, plaintext []byte) (*service.EncryptResponse, error) {
	data := map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plaintext)}
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
	text, err := p.ask(ctx, "decrypt", "plaintext", map[string]any{"ciphertext": string(req.Ciphertext)})
	if err != nil {
		return nil, status.Error(codes.Internal, fmt.Sprintf("decrypt %s failed", uid))
	}
	return base64.StdEncoding.DecodeString(text)
}

func main() {
	listen := flag.String("listen", "", "path of the unix socket")
	address := flag.String("address", "", "the server's URL")
	tokenFile := flag.String("token-file", "", "file that holds the token")
	key := flag.String("key", "", "name of the Transit key")
	careful := flag.Bool("careful", false, "make the requests that kmsbridged makes: name the key's version,"+
		" forbid to make a missing key, bear an id for the server's audit log")
	version := flag.Bool("version", false, "print the versions of what this is made of")
	flag.Parse()
	if *version {
		printVersions()
		return
	}
	if err := run(*listen, *address, *tokenFile, *key, *careful); err != nil {
		log.Fatal(err)
	}
}

func run(listen, address, tokenFile, key string, careful bool) error {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	config := api.DefaultConfig()
	config.Address = address
	// The client's own default keeps two idle connections to a host.
	config.HttpClient.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	client, err := api.NewClient(config)
	if err != nil {
		return err
	}
	client.SetToken(strings.TrimSpace(string(token)))
	if careful {
		client = client.WithRequestCallbacks(func(request *api.Request) {
			var id [16]byte
			rand.Read(id[:]) // never fails
			request.Headers.Set("X-Correlation-Id", "kb-"+hex.EncodeToString(id[:]))
		})
	}
	if err := os.Remove(listen); err != nil && !os.IsNotExist(err) {
		return err
	}
	server := service.NewGRPCService(listen, 5*time.Second,
		&plugin{transit: client.Logical(), key: key, keyID: key + "-v1", careful: careful})
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
