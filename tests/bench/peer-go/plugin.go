// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"
)

const (
	annotationKey = "version.encryption.remote.io"
	nonceLen      = 12
)

type plugin struct {
	token *token
	keyID string
}

func (p *plugin) Status(context.Context) (*service.StatusResponse, error) {
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: p.keyID}, nil
}

// Encrypt returns nonce || ciphertext || tag.
func (p *plugin) Encrypt(ctx context.Context, uid string, plaintext []byte) (*service.EncryptResponse, error) {
	nonce := make([]byte, nonceLen, nonceLen+len(plaintext)+16)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	sealed, err := p.token.encrypt(ctx, nonce, []byte(p.keyID), plaintext)
	if err != nil {
		return nil, status.Error(codes.Internal, fmt.Sprintf("encrypt %s failed", uid))
	}
	return &service.EncryptResponse{
		Ciphertext:  append(nonce, sealed...),
		KeyID:       p.keyID,
		Annotations: map[string][]byte{annotationKey: []byte("1")},
	}, nil
}

func (p *plugin) Decrypt(ctx context.Context, uid string, req *service.DecryptRequest) ([]byte, error) {
	if req.KeyID != p.keyID {
		return nil, status.Error(codes.NotFound, "unknown key_id")
	}
	if len(req.Annotations) != 1 || string(req.Annotations[annotationKey]) != "1" {
		return nil, status.Error(codes.InvalidArgument, "unknown annotations")
	}
	if len(req.Ciphertext) < nonceLen+16 {
		return nil, status.Error(codes.InvalidArgument, "ciphertext too short")
	}
	plaintext, err := p.token.decrypt(ctx, req.Ciphertext[:nonceLen], []byte(p.keyID), req.Ciphertext[nonceLen:])
	if err != nil {
		return nil, status.Error(codes.Internal, fmt.Sprintf("decrypt %s failed", uid))
	}
	return plaintext, nil
}
