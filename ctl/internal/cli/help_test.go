package cli_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/ctl/internal/cli"
)

var update = flag.Bool("update", false, "write the golden files anew")

// subcommands finds the commands that a help text lists.
var subcommands = regexp.MustCompile(`(?m)^  ([a-z]+) {2,}\S`)

func help(t *testing.T, command ...string) string {
	t.Helper()
	var out bytes.Buffer
	code := cli.Run(t.Context(), cli.Process{
		Args: append(command, "--help"), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out,
		// What the environment holds must not show up as a default.
		Getenv: func(string) string { return "hvt1." + secret },
	})
	if code != cli.ExitOK {
		t.Fatalf("%s --help: exit code %d", strings.Join(command, " "), code)
	}
	return out.String()
}

// TestHelpIsReviewed keeps every command and flag in one file, where a change
// to what scripts rely on cannot be overlooked.
func TestHelpIsReviewed(t *testing.T) {
	var all strings.Builder
	var visit func(command ...string)
	visit = func(command ...string) {
		text := help(t, command...)
		own := text
		if len(command) > 0 {
			own, _, _ = strings.Cut(text, "\nGlobal Flags:") // the root's, seen there
		}
		fmt.Fprintf(&all, "## httvpsctl %s\n\n%s\n", strings.Join(command, " "), own)
		_, list, _ := strings.Cut(text, "Available Commands:")
		list, _, _ = strings.Cut(list, "Flags:")
		for _, found := range subcommands.FindAllStringSubmatch(list, -1) {
			if found[1] != "help" {
				visit(slices.Concat(command, []string{found[1]})...)
			}
		}
	}
	visit()

	golden := filepath.Join("testdata", "help.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(all.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), all.String()); diff != "" {
		t.Errorf("help has changed (go test -update writes it anew):\n%s", diff)
	}
	if strings.Contains(all.String(), secret) {
		t.Error("help shows the token")
	}
}
