package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// KEKSteps are what the command "kek" does with the server whose configuration is
// C. Each returns what it has to say, which an error may follow.
type KEKSteps[C any] struct {
	Generate                          func() string
	Status, Rotate, Add, Reseal, Drop func(context.Context, C) (string, error)
}

// KEK returns the command "kek", about the keys that seal the secrets in a
// server's database.
func KEK[C any](load func(*cobra.Command) (C, error), steps KEKSteps[C]) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kek",
		Short: "The keys that seal the secrets in the database: look at them, replace them",
		Long: "The keys that seal the secrets in the database. The file kek_file (by default kek in the data directory) holds one\n" +
			"to a line, the newest last; HTTVPS_BACKEND_KEK may hold them instead, with commas between them.\n\n" +
			"To replace the key, run kek rotate. Where several processes have copies of the file each: kek add, copy the file to\n" +
			"all of them, kek reseal, kek drop, copy it again. They need not be stopped, except the one with an SQLite database.",
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "generate",
		Short: "Print a new key and change nothing",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), steps.Generate())
			return err
		},
	})
	for _, step := range []struct {
		use, short string
		do         func(context.Context, C) (string, error)
	}{
		{"status", "List the keys by their ids and how many secrets each has sealed", steps.Status},
		{"rotate", "Replace the key, or finish a rotation that was interrupted: add, reseal and drop in one", steps.Rotate},
		{"add", "Put a new key into the file, which seals nothing yet", steps.Add},
		{"reseal", "Seal everything with the newest key, now and from now on", steps.Reseal},
		{"drop", "Take the keys out of the file that seal nothing any more", steps.Drop},
	} {
		cmd.AddCommand(&cobra.Command{
			Use:   step.use,
			Short: step.short,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := load(cmd)
				if err != nil {
					return err
				}
				said, err := step.do(cmd.Context(), cfg)
				_, failed := fmt.Fprint(cmd.OutOrStdout(), said)
				return errors.Join(err, failed)
			},
		})
	}
	return cmd
}
