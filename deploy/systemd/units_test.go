// Package systemd_test judges the units by systemd's own tools.
package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exposure is how much a unit may leave open, in tenths, as systemd-analyze counts:
// what is left is the network, which is what the services are for.
const exposure = "30"

func TestTheUnitsAreRightAndTight(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed (Debian: systemd)")
	}
	units, err := filepath.Glob("system/*.service")
	if err != nil || len(units) != 3 {
		t.Fatalf("units: %q, %v", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		// The programs are not installed here.
		text = regexp.MustCompile(`/usr/local/bin/[a-z-]+`).ReplaceAll(text, []byte("/bin/true"))
		file := filepath.Join(t.TempDir(), filepath.Base(unit))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"verify", "--man=no", file}, {"security", "--offline=true", "--threshold=" + exposure, file}} {
			out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
			if err != nil || args[0] == "verify" && strings.Contains(string(out), filepath.Base(unit)+":") {
				t.Errorf("%s %s: %v\n%s", args[0], unit, err, out)
			}
		}
	}
}

// The unit is for the systemd of a session, which finds programs by the path.
func TestTheUnitOfAPersonIsRight(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed (Debian: systemd)")
	}
	text, err := os.ReadFile("user/httvps.service")
	if err != nil {
		t.Fatal(err)
	}
	// The program is not installed here.
	unit := regexp.MustCompile(`(?m)^ExecStart=httvps `).ReplaceAll(text, []byte("ExecStart=/bin/true "))
	file := filepath.Join(t.TempDir(), "httvps.service")
	if err := os.WriteFile(file, unit, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), analyze, "verify", "--user", "--man=no", file)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "httvps.service:") {
		t.Errorf("%v\n%s", err, out)
	}
}
