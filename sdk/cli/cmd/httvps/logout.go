package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/home"
	"github.com/httvps/httvps/sdk/go/httvps"
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
			// A key that is damaged is a reason to remove it.
			if _, err := home.Look(store.Path()).Key(cmd.Context()); err != nil && !errors.Is(err, httvps.ErrNotEnrolled) {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), err)
			}
			removed, err := store.Remove()
			if err != nil {
				return err
			}
			if !removed {
				_, err = fmt.Fprintln(cmd.ErrOrStderr(), around.speak.Say("nothing to remove: this device is not enrolled"))
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s\n%s\n", around.speak.Say("logged out: key and profile are removed."),
				around.speak.Say("The operator's list still has the device; ask to have it removed if you need its place."))
			return err
		},
	}
}
