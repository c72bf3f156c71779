package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newLogout(around surroundings) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Remove this device's key and profile",
		Long: `Remove this device's key and profile. There is no way back but a new invitation.

The service is not told: its operator's list has the device until it is removed
there. httvps connect has to be ended first.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := around.open()
			if err != nil {
				return err
			}
			defer func() { _ = store.Close() }()
			// A profile that is damaged is a reason to remove it.
			if _, err := store.Key(cmd.Context()); err != nil {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), err)
			}
			if err := store.Remove(); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s\n%s\n", around.speak.Say("logged out: key and profile are removed."),
				around.speak.Say("The operator's list still has the device; ask to have it removed if you need its place."))
			return err
		},
	}
}
