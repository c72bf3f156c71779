package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/backend"
)

func newKnock(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "knock", Short: "The key by which gateways tell devices from strangers"}
	cmd.AddCommand(&cobra.Command{
		Use:   "rotate",
		Short: "Make the next key now and print when devices begin to get it",
		Long: "Make the next key now, before its time (knock_rotation), and print when devices begin to get it. The one before\n" +
			"stays good for 24 hours after that. With SQLite the service must be stopped.",
		RunE: s.rotate(backend.RotateKnock),
	})
	return cmd
}

func newSigning(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "signing", Short: "The key that signs devices' access tokens"}
	cmd.AddCommand(&cobra.Command{
		Use:   "rotate",
		Short: "Make the next key now and print when it begins to sign",
		Long: "Make the next key now and print when it begins to sign: gateways have it by then. Tokens of the one before stay good\n" +
			"as long as they last. With SQLite the service must be stopped.",
		RunE: s.rotate(backend.RotateSigning),
	})
	return cmd
}

// rotate makes a next key and prints when its time comes.
func (s *settings) rotate(next func(context.Context, backend.Config) (time.Time, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		at, err := next(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), at.UTC().Format(time.RFC3339))
		return err
	}
}
