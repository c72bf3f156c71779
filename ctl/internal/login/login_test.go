package login_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/ctl/internal/login"
)

var example = login.Login{API: "https://127.0.0.1:8443", Token: "hvt1.secret", CAFile: "/ca.pem"}

func save(t *testing.T, path string, l login.Login) {
	t.Helper()
	draft, err := login.Prepare(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := draft.Save(l); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestLoginIsKeptForItsOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config", "httvps")
	if err := os.MkdirAll(dir, 0o755); err != nil { // as something else may have made it
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ctl.json")
	save(t, path, login.Login{API: "before", Token: "before"})
	save(t, path, example)
	got, err := login.Load(path)
	if diff := cmp.Diff(example, got); err != nil || diff != "" {
		t.Errorf("Load: %v\n%s", err, diff)
	}
	for name, want := range map[string]os.FileMode{dir: 0o700, path: 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want mode %v", name, info.Mode().Perm(), err, want)
		}
	}
	if diff := cmp.Diff([]string{"ctl.json"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestDiscardedDraftLeavesTheLoginBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl.json")
	save(t, path, example)
	draft, err := login.Prepare(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := draft.Discard(); err != nil {
		t.Fatal(err)
	}
	got, err := login.Load(path)
	if diff := cmp.Diff(example, got); err != nil || diff != "" {
		t.Errorf("Load: %v\n%s", err, diff)
	}
	if diff := cmp.Diff([]string{"ctl.json"}, files(t, filepath.Dir(path))); diff != "" {
		t.Error(diff)
	}
}

func TestSaveThatCannotEndLeavesNoLitter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl.json")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	draft, err := login.Prepare(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := draft.Save(example); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("Save = %v, want an error without the token", err)
	}
	if diff := cmp.Diff([]string{"ctl.json"}, files(t, filepath.Dir(path))); diff != "" {
		t.Error(diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	const good = `{"api":"https://h","token":"hvt1.secret"}`
	for name, tc := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"what the group can read": {good, 0o640, "mode 0640"},
		"what all can write":      {good, 0o602, "mode 0602"},
		"half a file":             {good[:30], 0o600, "is damaged"},
		"nothing":                 {"", 0o600, "is damaged"},
		"no token":                {`{"api":"https://h"}`, 0o600, "is damaged"},
		"no address":              {`{"token":"hvt1.secret"}`, 0o600, "is damaged"},
		"too much":                {good + strings.Repeat(" ", 1<<16), 0o600, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ctl.json")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
			_, err := login.Load(path)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Load = %v, want %q and the file's name in it", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
}

func TestNoLogin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "ctl.json")
	if _, err := login.Load(path); !errors.Is(err, login.ErrNone) {
		t.Errorf("Load = %v, want ErrNone", err)
	}
	if err := login.Remove(path); !errors.Is(err, login.ErrNone) {
		t.Errorf("Remove = %v, want ErrNone", err)
	}
}

func TestPathFollowsXDG(t *testing.T) {
	t.Setenv("HOME", "/home/someone")
	t.Setenv("XDG_CONFIG_HOME", "")
	for value, want := range map[string]string{
		"/somewhere": "/somewhere/httvps/ctl.json",
		"relative":   "/home/someone/.config/httvps/ctl.json",
		"":           "/home/someone/.config/httvps/ctl.json",
	} {
		got, err := login.Path(func(string) string { return value })
		if err != nil || got != want {
			t.Errorf("Path with XDG_CONFIG_HOME=%q = %q, %v, want %q", value, got, err, want)
		}
	}
}
