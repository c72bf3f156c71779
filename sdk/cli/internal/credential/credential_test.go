package credential

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOneLineIsReadAndKnownAgain(t *testing.T) {
	for text, password := range map[string]string{
		"anna:secret":     "secret",
		"anna:secret\n":   "secret",
		"anna:secret\r\n": "secret",
		"anna:a:b":        "a:b", // only the first colon divides
		"anna: пароль ":   " пароль ",
	} {
		p, err := Parse([]byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if !p.Is([]byte("anna"), []byte(password)) {
			t.Errorf("%q: not known again", text)
		}
		for _, other := range [][2]string{{"anna", ""}, {"", password}, {"Anna", password}, {"anna", password + "x"}, {password, "anna"}} {
			if p.Is([]byte(other[0]), []byte(other[1])) {
				t.Errorf("%q: %q is taken for it", text, other)
			}
		}
	}
}

func TestWhatIsNoPairIsAnErrorThatDoesNotRepeatIt(t *testing.T) {
	for _, text := range []string{
		"", ":", "anna", "anna:", ":hunter2", "anna:hunter2\nmore", "anna:hunter2\x00", "anna:hunter2\xff",
		strings.Repeat("a", 256) + ":hunter2", "anna:hunter2" + strings.Repeat("x", 256),
	} {
		if p, err := Parse([]byte(text)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.20q: %v, %v", text, p, err)
		}
	}
}

func TestAFileThatOthersMayReadIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "proxy")
	if err := os.WriteFile(file, []byte("anna:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := Read(file); err != nil || !p.Is([]byte("anna"), []byte("secret")) {
		t.Errorf("Read = %v", err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("Read = %v", err)
	}
	if _, err := Read(file + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"anna:secret\n", "a:b:c\r\n", ":", "a:", "\xff:x", "a\n:b", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text)
		line := bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
		user, password, _ := bytes.Cut(line, []byte(":"))
		switch {
		case err == nil && !p.Is(user, password):
			t.Errorf("%q is not known again", text)
		case err == nil && (len(user) == 0 || len(password) == 0 || len(user) > 255 || len(password) > 255):
			t.Errorf("%q is a pair", text)
		case err != nil && len(line) > 30 && strings.Contains(err.Error(), string(line)):
			t.Errorf("the error repeats it: %v", err)
		}
	})
}
