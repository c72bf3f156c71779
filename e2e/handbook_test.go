package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The handbook's commands are run as they stand there, one block after the other.
func TestTheOperatorsHandbookIsRunFromBeginningToEnd(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "08-operators-handbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	s := startService(t)
	dir := t.TempDir()
	var script strings.Builder
	script.WriteString("set -eu -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n")
	commands, files := 0, 0
	for _, m := range codeBlock.FindAllStringSubmatch(string(text), -1) {
		if m[1] == "yaml" {
			name, _, _ := strings.Cut(strings.TrimPrefix(m[2], "# "), "\n")
			writeFile(t, filepath.Join(dir, name), m[2])
			files++
			continue
		}
		first, _, _ := strings.Cut(m[2], "\n")
		script.WriteString("echo '>>> " + strings.ReplaceAll(first, "'", "") + "'\n" + m[2])
		commands++
	}
	script.WriteString("echo '>>> the end'\n")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "HTTVPS_API=" + s.API, "HTTVPS_TOKEN=" + s.Token}
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if commands < 14 || files != 1 {
		t.Errorf("%d blocks of commands and %d files were found", commands, files)
	}
	// The README's few are in the same place: nobody is at a terminal, so one says --yes.
	daily, _ := blocks(t, "README.md", "Day to day")
	for line := range strings.Lines(strings.Join(daily, "")) {
		line = strings.Replace(strings.TrimPrefix(comment.ReplaceAllString(line, ""), "bin/"), "--days 30", "--days 30 --yes", 1)
		one := exec.CommandContext(ctx, "bash", "-c", line)
		one.Dir, one.Env = dir, cmd.Env
		said, err := one.CombinedOutput()
		if exit, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed || failed && (exit.ExitCode() == 2 || strings.Contains(line, "update")) {
			t.Errorf("%s: %v\n%s", line, err, said)
		}
	}
	if len(daily) != 1 {
		t.Errorf("the README has %d blocks for every day, want 1", len(daily))
	}
	said := string(out)
	for _, want := range []string{
		"5 to create, 0 to update, 0 to delete, 0 unchanged", "0 to create, 0 to update, 0 to delete, 5 unchanged", "allowed: nothing stands in the way",
		"200GiB", "user; the plan says 100GiB", "1 of 1 done, 0 failed", "every total is what the reports lead to", "she cannot connect", "device_revoked", "complaint 4711",
		"~ user anna: plan generous -> basic, ends_at 2038-01-31T00:00:00Z -> 2037-01-31T00:00:00Z", "+ user boris", ">>> the end",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in:\n%s", want, said)
		}
	}
}
