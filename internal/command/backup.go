package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// BackupSteps are what the commands "backup" and "restore" do with the server whose
// configuration is C. Each returns what it has to say, which an error may follow.
type BackupSteps[C any] struct {
	// Key makes a recovery key in a new file and returns its public half.
	Key func(path string) (recipient string, err error)
	// To returns a configuration under which backups are made for another public half.
	To      func(cfg C, recipient string) C
	Backup  func(ctx context.Context, cfg C, path string) (said string, err error)
	Restore func(ctx context.Context, cfg C, path, keyFile string) (said string, err error)
	Verify  func(ctx context.Context, path, keyFile string) (said string, err error)
}

// Backup returns the command "backup", which makes one, with "key" below it.
func Backup[C any](load func(*cobra.Command) (C, error), steps BackupSteps[C]) *cobra.Command {
	var out, recipient string
	cmd := &cobra.Command{
		Use:   "backup --out FILE",
		Short: "Back up the whole service, while it runs, to one encrypted file",
		Long: "Write all records, and the keys that seal the secrets among them, to one file, as of one moment and while the\n" +
			"service runs. Only who has the recovery key can read it, and needs nothing else to restore it on another machine.\n\n" +
			"Once: backup key --out recovery.key makes the recovery key and prints its public half, which is backup.recipient\n" +
			"of the configuration. Keep the file where the service is not.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return Misuse("--out FILE is needed: a file that is not there yet")
			}
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			if recipient != "" {
				cfg = steps.To(cfg, recipient)
			}
			said, err := steps.Backup(cmd.Context(), cfg, out)
			_, failed := fmt.Fprint(cmd.OutOrStdout(), said)
			return errors.Join(err, failed)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`file` that is made; one that is there stays")
	cmd.Flags().StringVar(&recipient, "recipient", "", "public half of the recovery key, `age1…` (backup.recipient)")
	var keyOut string
	key := &cobra.Command{
		Use:   "key --out FILE",
		Short: "Make a recovery key in a new file, and print its public half",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keyOut == "" {
				return Misuse("--out FILE is needed: a file that is not there yet")
			}
			recipient, err := steps.Key(keyOut)
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s holds the recovery key: without it no backup can be restored. Keep it where the service is not,\n"+
				"twice. This is its public half, for backup.recipient:\n", keyOut)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), recipient)
			return err
		},
	}
	key.Flags().StringVar(&keyOut, "out", "", "`file` that is made, for its owner alone; one that is there stays")
	cmd.AddCommand(key)
	return cmd
}

// Restore returns the command "restore", which puts a backup back or, with --verify,
// only tries.
func Restore[C any](load func(*cobra.Command) (C, error), steps BackupSteps[C]) *cobra.Command {
	var key string
	var verify bool
	cmd := &cobra.Command{
		Use:   "restore --key FILE BACKUP",
		Short: "Put a backup into an empty database, or with --verify look whether it is good",
		Long: "Put a backup into the configured database, which must be empty: an SQLite file that is not there yet, or a\n" +
			"PostgreSQL database without tables, whichever of them the backup is from. The service must be stopped. A file that\n" +
			"is damaged, foreign or from a newer version is refused before anything is touched.\n\n" +
			"--verify restores it into a database for once, checks the sums of the usage and the audit log, and says what it found.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return Misuse("%s wants one BACKUP, and has %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" {
				return Misuse("--key FILE is needed: the recovery key that backup key made")
			}
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			var said string
			if verify {
				said, err = steps.Verify(cmd.Context(), args[0], key)
			} else {
				said, err = steps.Restore(cmd.Context(), cfg, args[0], key)
			}
			_, failed := fmt.Fprint(cmd.OutOrStdout(), said)
			return errors.Join(err, failed)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "`file` with the recovery key")
	cmd.Flags().BoolVar(&verify, "verify", false, "restore it for a try only, and say what is in it")
	return cmd
}
