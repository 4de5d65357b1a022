// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"

	"k8s.io/kms/pkg/service"
)

// vkk makes the requests of FalcoSuessgott/vault-kubernetes-kms, as of its version 1.4
// (pkg/vault/transit.go, pkg/plugin/plugin_v2.go): after each encryption it reads the key, whose latest
// version is the key_id; a Status reads the key, encrypts and decrypts. What that plugin logs of each
// call, and its metrics, are left out.
type vkk struct{ plugin }

func (p *vkk) latest(ctx context.Context) (string, error) {
	secret, err := p.transit.ReadWithContext(ctx, "transit/keys/"+p.key)
	if err != nil {
		return "", err
	}
	if secret == nil {
		return "", errors.New("no such key")
	}
	version, ok := secret.Data["latest_version"].(json.Number)
	if !ok {
		return "", errors.New("no latest_version")
	}
	return version.String(), nil
}

func (p *vkk) Encrypt(ctx context.Context, _ string, plaintext []byte) (*service.EncryptResponse, error) {
	sealed, err := p.ask(ctx, "encrypt", "ciphertext",
		map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plaintext)})
	if err != nil {
		return nil, err
	}
	version, err := p.latest(ctx)
	if err != nil {
		return nil, err
	}
	return &service.EncryptResponse{Ciphertext: []byte(sealed), KeyID: version}, nil
}

func (p *vkk) Decrypt(ctx context.Context, _ string, req *service.DecryptRequest) ([]byte, error) {
	text, err := p.ask(ctx, "decrypt", "plaintext", map[string]any{"ciphertext": string(req.Ciphertext)})
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(text)
}

func (p *vkk) Status(ctx context.Context) (*service.StatusResponse, error) {
	version, err := p.latest(ctx)
	if err != nil {
		return nil, err
	}
	sealed, err := p.Encrypt(ctx, "", []byte("health"))
	if err != nil {
		return nil, err
	}
	_, err = p.Decrypt(ctx, "", &service.DecryptRequest{Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID})
	if err != nil {
		return nil, err
	}
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: version}, nil
}
