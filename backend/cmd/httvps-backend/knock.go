package main

import (
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			activeFrom, err := backend.RotateKnock(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), activeFrom.UTC().Format(time.RFC3339))
			return err
		},
	})
	return cmd
}
