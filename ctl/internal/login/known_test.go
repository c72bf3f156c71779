package login_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/httvps/httvps/ctl/internal/login"
)

func TestWhatServicesKnowThisMachineByIsRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "httvps", "ctl.json")
	remember := func(api, name, client string) {
		t.Helper()
		known, err := login.LoadKnown(path)
		if err == nil {
			err = known.Remember(api, name, client, "pin of "+api)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	remember("https://a", "ann", "1")
	remember("https://a", "bob", "2")
	remember("https://b", "ann", "3")
	remember("https://a", "ann", "4")
	known, err := login.LoadKnown(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ api, name, client, pin string }{
		{"https://a", "ann", "4", "pin of https://a"},
		{"https://a", "bob", "2", "pin of https://a"},
		{"https://b", "ann", "3", "pin of https://b"},
		{"https://a", "eve", "", "pin of https://a"},
		{"https://c", "ann", "", ""},
	} {
		if client, pin := known.Client(tc.api, tc.name); client != tc.client || pin != tc.pin {
			t.Errorf("%s at %s: %q, %q", tc.name, tc.api, client, pin)
		}
	}
	file := filepath.Join(filepath.Dir(path), "known.json")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	for n := range 60 {
		remember("https://many", fmt.Sprint(n), "x")
	}
	known, err = login.LoadKnown(path)
	if client, _ := known.Client("https://a", "ann"); err != nil || client != "" {
		t.Errorf("the oldest is still there after 60 others: %q, %v", client, err)
	}
	if client, _ := known.Client("https://many", "59"); client != "x" {
		t.Error("the newest is not there")
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := login.LoadKnown(path); err == nil {
		t.Error("a file that others can read is trusted")
	}
}
