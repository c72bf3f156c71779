package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/picture"
	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
)

func newEnroll(around surroundings) *cobra.Command {
	var name, replace string
	cmd := &cobra.Command{
		Use:   "enroll LINK|FILE|-",
		Short: "Enrol this device with an invitation link or its QR code",
		Long: `Enrol this device with an invitation link, or with a picture of its QR code: a PNG
or JPEG file, such as a screenshot or a photograph.

The device makes a key that never leaves it and registers the public half. A
link works once. With - the link or the picture is read from standard input, so
that it shows up neither in the list of processes nor in the shell's history.

A home holds one device. Repeating the link that it was enrolled with does
nothing; another link is refused: use another --home, or remove the old one.`,
		Args: usage(func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("enroll wants the invitation link, a picture of its QR code, or - to read either from standard input")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			link, err := readLink(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			return enroll(cmd, around, link, name, replace)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what the operator sees (default this machine's name)")
	cmd.Flags().StringVar(&replace, "replace", "", "the `ID` of another device of yours that gives its place to this one, when the plan allows no more; it is revoked")
	return cmd
}

// readLink returns the link that is named: itself, in a picture or a file, or on
// standard input.
func readLink(stdin io.Reader, named string) (string, error) {
	var from io.Reader
	switch {
	case named == "-":
		from = stdin
	case strings.Contains(named, "://"):
		return named, nil
	default:
		file, err := os.Open(named) //nolint:gosec // named by the user
		if err != nil && !isPicture(named) {
			return named, nil // a link that is damaged, most likely
		}
		if err != nil {
			return "", usagef("read the invitation: %w", err)
		}
		defer func() { _ = file.Close() }()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, picture.MaxBytes+1))
	if err != nil {
		return "", fmt.Errorf("read the invitation: %w", err)
	}
	if !picture.Is(text) {
		return string(text[:min(len(text), maxLinkFile)]), nil
	}
	link, err := picture.Read(text)
	if err != nil {
		return "", usagef("read the invitation: %w", err)
	}
	return link, nil
}

// maxLinkFile is more than a link has with everything around it.
const maxLinkFile = 64 << 10

// isPicture reports whether a file's name is that of a picture.
func isPicture(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".png", ".jpg", ".jpeg":
		return true
	}
	return false
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
