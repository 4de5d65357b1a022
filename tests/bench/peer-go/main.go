// SPDX-License-Identifier: Apache-2.0

// Command peer-go is the yardstick of tests/bench: the KMS v2 plugin that a competent Go author
// would write today over the same PKCS#11 token. The gRPC service is Kubernetes' own library
// (k8s.io/kms/pkg/service); as in its mock plugin the nonce comes from crypto/rand, the AES-256-GCM
// operation from the token, the additional data is the key_id and Status is a constant. What the
// mock lacks and a production plugin has: the key's handle is found once, sessions are pooled.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"k8s.io/kms/pkg/service"
)

func main() {
	var cfg tokenConfig
	listen := flag.String("listen", "", "path of the unix socket")
	pinFile := flag.String("pin-file", "", "file that holds the user PIN")
	version := flag.Bool("version", false, "print the versions of what this is made of")
	flag.StringVar(&cfg.module, "module", "", "PKCS#11 module")
	flag.StringVar(&cfg.token, "token", "", "token label")
	flag.StringVar(&cfg.key, "key", "", "key label")
	flag.IntVar(&cfg.sessions, "sessions", 64, "upper bound of the session pool")
	flag.Parse()

	if *version {
		printVersions()
		return
	}
	pin, err := os.ReadFile(*pinFile)
	if err != nil {
		log.Fatal(err)
	}
	cfg.pin = strings.TrimRight(string(pin), "\n")
	if err := run(*listen, cfg); err != nil {
		log.Fatal(err)
	}
}

func run(listen string, cfg tokenConfig) error {
	token, err := openToken(cfg)
	if err != nil {
		return err
	}
	defer token.close()
	if err := os.Remove(listen); err != nil && !os.IsNotExist(err) {
		return err
	}
	server := service.NewGRPCService(listen, 5*time.Second, &plugin{token: token, keyID: cfg.key})

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
		case "google.golang.org/grpc", "k8s.io/kms", "github.com/miekg/pkcs11":
			fmt.Println(dep.Path, dep.Version)
		}
	}
}
