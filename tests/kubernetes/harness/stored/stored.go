// SPDX-License-Identifier: Apache-2.0

// Package stored takes apart what an API server with a KMS v2 provider writes to etcd. It does so by
// hand: Kubernetes has changed its protobuf library, and these tests run with several versions.
package stored

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Prefix begins every value, whatever the provider's name.
const Prefix = "k8s:enc:kms:v2:"

// HKDFSeed is the Object.SeedType of Kubernetes 1.28 and later; 0 is a bare AES key.
const HKDFSeed = 1

// Object is Kubernetes' EncryptedObject and the provider's name from before it.
type Object struct {
	Provider    string
	Data        []byte
	KeyID       string
	Seed        []byte // as the plugin encrypted it
	Annotations map[string][]byte
	SeedType    int
}

// Parse takes a value apart; an unknown field is an error.
func Parse(value []byte) (*Object, error) {
	if !strings.HasPrefix(string(value), Prefix) {
		return nil, fmt.Errorf("the stored value begins with %q and not with %q", value[:min(len(value), 40)], Prefix)
	}
	name, body, ok := strings.Cut(string(value[len(Prefix):]), ":")
	if !ok {
		return nil, fmt.Errorf("the stored value names no provider")
	}
	o := &Object{Provider: name, Annotations: map[string][]byte{}}
	return o, each([]byte(body), func(number protowire.Number, data []byte, n uint64) error {
		switch number {
		case 1:
			o.Data = data
		case 2:
			o.KeyID = string(data)
		case 3:
			o.Seed = data
		case 4:
			var k string
			var v []byte
			err := each(data, func(number protowire.Number, data []byte, _ uint64) error {
				if number == 1 {
					k = string(data)
				} else {
					v = data
				}
				return nil
			})
			o.Annotations[k] = v
			return err
		case 5:
			o.SeedType = int(n)
		default:
			return fmt.Errorf("unknown field %d", number)
		}
		return nil
	})
}

func each(b []byte, field func(protowire.Number, []byte, uint64) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var data []byte
		var u uint64
		switch kind {
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			u, n = protowire.ConsumeVarint(b)
		default:
			return fmt.Errorf("field %d has wire type %d", number, kind)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := field(number, data, u); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
