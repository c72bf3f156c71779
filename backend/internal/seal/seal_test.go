package seal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func load(t *testing.T, dir string) *Key {
	t.Helper()
	key, err := Load(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestOnlyTheSameKeyAndPlaceOpenASecret(t *testing.T) {
	dir := t.TempDir()
	sealed, err := load(t, dir).Seal([]byte("secret"), "table|1|field")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("secret")) {
		t.Error("the secret is readable")
	}
	again := load(t, dir)
	if got, err := again.Open(sealed, "table|1|field"); err != nil || string(got) != "secret" {
		t.Errorf("Open = %q, %v", got, err)
	}
	for name, tc := range map[string]struct {
		key    *Key
		sealed []byte
		aad    string
	}{
		"another row": {again, sealed, "table|2|field"},
		"another key": {load(t, t.TempDir()), sealed, "table|1|field"},
		"a bit less":  {again, sealed[:len(sealed)-1], "table|1|field"},
		"nothing":     {again, nil, "table|1|field"},
	} {
		if got, err := tc.key.Open(tc.sealed, tc.aad); !errors.Is(err, ErrDamaged) || got != nil {
			t.Errorf("%s: Open = %q, %v, want ErrDamaged", name, got, err)
		}
	}
}

func TestTheKeyFileIsTheOwnersOnlyAndAloneInItsDirectory(t *testing.T) {
	dir := t.TempDir()
	load(t, dir)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "kek" {
		t.Fatalf("directory holds %v, %v", entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v, want 600", info.Mode(), err)
	}
}

func TestAKeyIsNotMadeWhereThereMustBeOne(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir, false); !errors.Is(err, ErrNoKey) {
		t.Errorf("Load = %v, want ErrNoKey", err)
	}
	for name, text := range map[string]string{"empty": "", "short": "AAAA\n", "no base64": "????????????????????????????????????????????"} {
		if err := os.WriteFile(filepath.Join(dir, "kek"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, true); err == nil {
			t.Errorf("%s: a damaged key file is taken", name)
		}
	}
}
