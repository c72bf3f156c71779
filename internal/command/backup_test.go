package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// backupServer is a server that only says what it was asked to do.
func backupServer() *cobra.Command {
	root := &cobra.Command{Use: "server", Short: "A server"}
	load := func(*cobra.Command) (settings, error) { return settings{Name: "age1configured"}, nil }
	say := func(what, path, key string) (string, error) {
		said := fmt.Sprintf("%s %s %s\n", what, path, key)
		if path == "bad" {
			return said, errors.New("it is not good")
		}
		return said, nil
	}
	steps := BackupSteps[settings]{
		Key: func(path string) (string, error) { return "age1new for " + path, nil },
		To:  func(s settings, recipient string) settings { s.Name = recipient; return s },
		Backup: func(_ context.Context, s settings, path string) (string, error) {
			return say("backed up", path, s.Name)
		},
		Restore: func(_ context.Context, _ settings, path, key string) (string, error) {
			return say("restored", path, key)
		},
		Verify: func(_ context.Context, path, key string) (string, error) { return say("verified", path, key) },
	}
	root.AddCommand(Backup(load, steps), Restore(load, steps))
	return root
}

func TestCommandLinesOfBackups(t *testing.T) {
	for name, tc := range map[string]struct {
		args   string
		code   int
		stdout string
		wrong  string
	}{
		"a backup":                        {args: "backup --out f", stdout: "backed up f age1configured\n"},
		"a backup for somebody else":      {args: "backup --out f --recipient age1x", stdout: "backed up f age1x\n"},
		"a backup to nowhere":             {args: "backup", code: 2, wrong: "--out FILE is needed"},
		"a backup that fails":             {args: "backup --out bad", code: 1, stdout: "backed up bad age1configured\n", wrong: "it is not good"},
		"a recovery key":                  {args: "backup key --out k", stdout: "age1new for k\n", wrong: "k holds the recovery key"},
		"a recovery key to nowhere":       {args: "backup key", code: 2, wrong: "--out FILE is needed"},
		"a restore":                       {args: "restore --key k f", stdout: "restored f k\n"},
		"a restore for a try":             {args: "restore --verify --key k f", stdout: "verified f k\n"},
		"a restore for a try that fails":  {args: "restore --verify --key k bad", code: 1, stdout: "verified bad k\n", wrong: "it is not good"},
		"a restore without the key":       {args: "restore f", code: 2, wrong: "--key FILE is needed"},
		"a restore of nothing":            {args: "restore --key k", code: 2, wrong: "wants one BACKUP"},
		"a restore of more than one file": {args: "restore --key k f g", code: 2, wrong: "wants one BACKUP"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Run(t.Context(), backupServer(), strings.Fields(tc.args), nil, &stdout, &stderr)
			if code != tc.code || stdout.String() != tc.stdout || !strings.Contains(stderr.String(), tc.wrong) || tc.wrong == "" && stderr.Len() > 0 {
				t.Errorf("exit %d, want %d; stdout %q, want %q; stderr %q, want %q", code, tc.code, &stdout, tc.stdout, &stderr, tc.wrong)
			}
		})
	}
}
