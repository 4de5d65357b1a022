// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

type tokenConfig struct {
	module, token, pin, key string
	sessions                int
}

// token is a logged-in PKCS#11 token with one AES key and a bounded pool of sessions, opened as
// they are needed and never closed before the end.
type token struct {
	ctx  *pkcs11.Ctx
	slot uint
	key  pkcs11.ObjectHandle
	idle chan pkcs11.SessionHandle // sessions that nobody uses
	room chan struct{}             // one entry for each session that may still be opened
}

func openToken(cfg tokenConfig) (*token, error) {
	t := &token{
		ctx:  pkcs11.New(cfg.module),
		idle: make(chan pkcs11.SessionHandle, cfg.sessions),
		room: make(chan struct{}, cfg.sessions),
	}
	if t.ctx == nil {
		return nil, fmt.Errorf("cannot load %s", cfg.module)
	}
	if err := t.ctx.Initialize(); err != nil {
		return nil, err
	}
	if err := t.findSlot(cfg.token); err != nil {
		return nil, err
	}
	session, err := t.ctx.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, err
	}
	if err := t.ctx.Login(session, pkcs11.CKU_USER, cfg.pin); err != nil {
		return nil, err
	}
	if err := t.findKey(session, cfg.key); err != nil {
		return nil, err
	}
	t.idle <- session
	for range cfg.sessions - 1 {
		t.room <- struct{}{}
	}
	return t, nil
}

func (t *token) findSlot(label string) error {
	slots, err := t.ctx.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		info, err := t.ctx.GetTokenInfo(slot)
		if err == nil && info.Label == label {
			t.slot = slot
			return nil
		}
	}
	return fmt.Errorf("no token %q", label)
}

func (t *token) findKey(session pkcs11.SessionHandle, label string) error {
	find := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	}
	if err := t.ctx.FindObjectsInit(session, find); err != nil {
		return err
	}
	keys, _, err := t.ctx.FindObjects(session, 2)
	if err := errors.Join(err, t.ctx.FindObjectsFinal(session)); err != nil {
		return err
	}
	if len(keys) != 1 {
		return fmt.Errorf("%d keys with label %q, need one", len(keys), label)
	}
	t.key = keys[0]
	return nil
}

func (t *token) close() {
	_ = t.ctx.Finalize()
	t.ctx.Destroy()
}

func (t *token) acquire(ctx context.Context) (pkcs11.SessionHandle, error) {
	select {
	case session := <-t.idle:
		return session, nil
	default:
	}
	select {
	case session := <-t.idle:
		return session, nil
	case <-t.room:
		session, err := t.ctx.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			t.room <- struct{}{}
		}
		return session, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (t *token) encrypt(ctx context.Context, nonce, aad, plaintext []byte) ([]byte, error) {
	session, err := t.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { t.idle <- session }()
	params := pkcs11.NewGCMParams(nonce, aad, 128)
	defer params.Free()
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}
	if err := t.ctx.EncryptInit(session, mechanism, t.key); err != nil {
		return nil, err
	}
	return t.ctx.Encrypt(session, plaintext)
}

func (t *token) decrypt(ctx context.Context, nonce, aad, ciphertext []byte) ([]byte, error) {
	session, err := t.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { t.idle <- session }()
	params := pkcs11.NewGCMParams(nonce, aad, 128)
	defer params.Free()
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}
	if err := t.ctx.DecryptInit(session, mechanism, t.key); err != nil {
		return nil, err
	}
	return t.ctx.Decrypt(session, ciphertext)
}
