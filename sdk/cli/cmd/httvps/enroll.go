package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
)

func newEnroll(around surroundings) *cobra.Command {
	var name, replace string
	cmd := &cobra.Command{
		Use:   "enroll LINK|-",
		Short: "Enrol this device with an invitation link",
		Long: `Enrol this device with an invitation link.

The device makes a key that never leaves it and registers the public half. A
link works once. With - the link is read from standard input, so that it shows up
neither in the list of processes nor in the shell's history.

A home holds one device. Repeating the link that it was enrolled with does
nothing; another link is refused: use another --home, or remove the old one.`,
		Args: usage(func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("enroll wants the invitation link, or - to read it from standard input")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			link := args[0]
			if link == "-" {
				text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 64<<10))
				if err != nil {
					return fmt.Errorf("read the link: %w", err)
				}
				link = string(text)
			}
			return enroll(cmd, around, link, name, replace)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what the operator sees (default this machine's name)")
	cmd.Flags().StringVar(&replace, "replace", "", "the `ID` of another device of yours that gives its place to this one, when the plan allows no more; it is revoked")
	return cmd
}

func enroll(cmd *cobra.Command, around surroundings, link, name, replace string) error {
	invitation, err := httvps.ParseInvitation(link)
	if err != nil {
		return err
	}
	store, err := around.open()
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()

	old, err := store.Profile(cmd.Context())
	switch {
	case err == nil && old.Invitation == invitation.Fingerprint():
		_, err := fmt.Fprintln(cmd.ErrOrStderr(), around.speak.Say("already enrolled with this link: %s", describe(around.speak, old)))
		return err
	case err == nil:
		return usagef("this home is already enrolled: %s; use another --home DIR for the new link", describe(words.English, old))
	case !errors.Is(err, httvps.ErrNotEnrolled):
		return err
	}
	profile, err := httvps.Enroll(cmd.Context(), invitation, httvps.EnrollOptions{Store: store, Name: deviceName(name), Replace: replace})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.ErrOrStderr(), around.speak.Say("enrolled: %s", describe(around.speak, profile)))
	return err
}

// describe says who a profile is, with what the service said cleaned of
// anything that a terminal would act on.
func describe(speak words.Language, p httvps.Profile) string {
	return speak.Say("device %q of %q at %q (%s)", p.DeviceName, p.UserName, p.ServiceName, p.DeviceID)
}

// deviceName returns a name that a service takes: not empty, not long.
func deviceName(name string) string {
	if name == "" {
		name, _ = os.Hostname() // then "device"
	}
	const limit = 64
	name = strings.ToValidUTF8(name, "")
	if runes := []rune(name); len(runes) > limit {
		name = string(runes[:limit])
	}
	return name
}
