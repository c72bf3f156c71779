package home_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/cli/internal/home"
	"github.com/httvps/httvps/sdk/go/httvps"
)

var profile = httvps.Profile{
	DeviceID:    "0190163d-8694-739b-aea5-966c26f8ad91",
	DeviceName:  "laptop",
	UserName:    "ann",
	ServiceID:   "0190163d-8694-739b-aea5-966c26f8ad92",
	ServiceName: "example",
	API:         []string{"https://vpn.example:8443/k3j"},
	Invitation:  "x",
}

func open(t *testing.T, dir string) *home.Store {
	t.Helper()
	store, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func TestKeyAndProfileSurviveAReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	store := open(t, dir)
	if _, err := store.Profile(t.Context()); !errors.Is(err, httvps.ErrNotEnrolled) {
		t.Errorf("Profile of an empty home: %v, want ErrNotEnrolled", err)
	}
	first, err := store.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.SaveProfile(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	store = open(t, dir)
	second, err := store.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	public, ok := first.Public().(ed25519.PublicKey)
	if !ok || !public.Equal(second.Public()) {
		t.Error("another key after the reopen")
	}
	got, err := store.Profile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(profile, got); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyTheOwnerCanReadAHome(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	store := open(t, dir)
	if _, err := store.Key(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.SaveProfile(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	modes := map[string]os.FileMode{".": 0o700, "device.key": 0o600, "device.json": 0o600, "lock": 0o600}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(modes)-1 {
		t.Errorf("the home holds %v: a temporary file was left behind", entries)
	}
	for name, want := range modes {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", name, got, want)
		}
	}
}

func TestAHomeIsUsedByOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	if _, err := home.Open(dir); !errors.Is(err, home.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second Open: %v, want ErrInUse with the directory", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestDamagedFilesAreNamedAndLeftAlone(t *testing.T) {
	ecKey := otherKey(t)
	for name, tc := range map[string]struct {
		file, text string
		mode       os.FileMode
		want       string
	}{
		"an empty key":              {"device.key", "", 0o600, "device.key is damaged"},
		"a key that is no PEM":      {"device.key", "hello", 0o600, "device.key is damaged"},
		"a key cut short":           {"device.key", ecKey[:60], 0o600, "device.key is damaged"},
		"a key of another kind":     {"device.key", ecKey, 0o600, "not an Ed25519 key"},
		"something behind the key":  {"device.key", ecKey + ecKey, 0o600, "device.key is damaged"},
		"a key that others can see": {"device.key", "hello", 0o644, "may be read by others (mode 0644)"},
		"an empty profile":          {"device.json", "", 0o600, "device.json is damaged"},
		"a profile cut short":       {"device.json", `{"device_id":"0190`, 0o600, "device.json is damaged"},
		"a profile of nothing":      {"device.json", `{}`, 0o600, "device.json is damaged: device_id"},
		"a profile without a host": {
			"device.json",
			`{"device_id":"0190163d-8694-739b-aea5-966c26f8ad91","api":["ftp://x"]}`, 0o600,
			"device.json is damaged: api",
		},
		"a profile that never ends": {"device.json", strings.Repeat(" ", 2<<20), 0o600, "over 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, tc.file)
			if err := os.WriteFile(path, []byte(tc.text), tc.mode); err != nil {
				t.Fatal(err)
			}
			store := open(t, dir)
			var err error
			if tc.file == "device.key" {
				_, err = store.Key(t.Context())
			} else {
				_, err = store.Profile(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want %q and the path", err, tc.want)
			}
			left, err := os.ReadFile(path)
			if err != nil || string(left) != tc.text {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

func TestAProfileWithoutItsKeyGetsNoNewOne(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir)
	if err := store.SaveProfile(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Key(t.Context()); err == nil || !strings.Contains(err.Error(), "device.key is missing") {
		t.Errorf("Key: %v, want that the file is missing", err)
	}
}

func TestAnUnwritableHomeIsAClearError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Open(filepath.Join(file, "home")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Open below a file: %v, want an error with the path", err)
	}
}

// otherKey returns the PEM text of a key that is no device key.
func otherKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestWhoLooksSeesTheDeviceAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := home.Look(dir).Key(t.Context()); !errors.Is(err, httvps.ErrNotEnrolled) {
		t.Errorf("a key where there is none: %v", err)
	}
	if err := home.Look(dir).SaveProfile(t.Context(), httvps.Profile{}); err == nil {
		t.Error("a profile was saved")
	}
	if _, err := home.Look(dir).Remove(); err == nil {
		t.Error("the device was removed")
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("it left %v", entries)
	}
	s, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	key, err := s.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen, err := home.Look(dir).Key(t.Context())
	if err != nil || !seen.Public().(ed25519.PublicKey).Equal(key.Public()) {
		t.Errorf("beside the owner: %v", err)
	}
	for _, there := range []bool{true, false} {
		if removed, err := s.Remove(); err != nil || removed != there {
			t.Errorf("Remove = %v, %v, want %v", removed, err, there)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "device.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key is still there: %v", err)
	}
}
