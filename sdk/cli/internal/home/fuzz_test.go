package home

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"
)

// Whatever is in a home's files is a device or an error. What is read is what would be
// written again.

func FuzzProfile(f *testing.F) {
	f.Add([]byte(`{"device_id":"0190163d-8694-739b-aea5-966c26f8ad91","api":["https://a.test/x"],"gateways":["wss://g.test/y"]}`))
	f.Add([]byte(`{"device_id":"0190163d-8694-739b-aea5-966c26f8ad91","api":["https://a.test/x"],"knock":{"cookie":"a","key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`))
	f.Add([]byte(`{"knock":{"cookie":"\u0000","key":"AA"}}`))
	f.Add([]byte(`{"device_id":"0190163d-8694-739b-aea5-966c26f8ad91","api":["https://a.test/x"],"gateways":[]}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		profile, err := parseProfile(text)
		if err != nil {
			return
		}
		written, err := json.Marshal(profile)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseProfile(written)
		if err != nil {
			t.Fatalf("%q is a profile, and %s is not: %v", text, written, err)
		}
		if rewritten, _ := json.Marshal(again); !bytes.Equal(rewritten, written) {
			t.Errorf("%q is read as %s, and then as %s", text, written, rewritten)
		}
	})
}

func FuzzKey(f *testing.F) {
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := parseKey(text)
		if err != nil {
			return
		}
		signature := ed25519.Sign(key, text)
		if !ed25519.Verify(key.Public().(ed25519.PublicKey), text, signature) || !bytes.Contains(text, []byte(pemType)) {
			t.Errorf("%q is a key that does not sign", text)
		}
	})
}
