package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/qrcode"
)

var invitationColumns = []column[api.Invitation]{
	{"ID", func(i api.Invitation) string { return i.ID }},
	{"CREATED", func(i api.Invitation) string { return at(i.CreatedAt) }},
	{"EXPIRES", func(i api.Invitation) string { return at(i.ExpiresAt) }},
	{"USED", func(i api.Invitation) string { return atOr(i.UsedAt, "no") }},
	{"DEVICE", func(i api.Invitation) string { return i.DeviceID }},
}

func (a *app) userInvite() *cobra.Command {
	var (
		ttl time.Duration
		qr  string
	)
	cmd := &cobra.Command{
		Use: "invite USER", Short: "Make a link that enrols one device", Args: exactly(1),
		Long: `Make a link that enrols one device.

The link is printed once and works once. Whoever has it becomes a device of this
user: pass it on as you would a password. A terminal shows it as a QR code, too,
and --qr has that as a picture, which httvps enroll takes as well.`,
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long the link works (default: what the settings say)")
	cmd.Flags().StringVar(&qr, "qr", "", "also write the link as a QR code into this new PNG `FILE`; - prints it, even where no terminal is")
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		if cmd.Flags().Changed("ttl") && ttl < time.Second {
			return misuse(cmd, "--ttl is %s, want at least 1s", ttl)
		}
		if qr == "-" && a.json() {
			return misuse(cmd, "--qr - is for people, and -o json for programs")
		}
		id, err := findUser(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		k, err := key()
		if err != nil {
			return err
		}
		picture, err := newPicture(qr) // before there is a link that could be lost
		if err != nil {
			return err
		}
		invitation, err := c.Invite(cmd.Context(), id, int(ttl/time.Second), k)
		if err == nil {
			err = printSecretLink(a, invitation, invitation.Value.Link, fmt.Sprintf(
				"Invitation for one device of %s, until %s. On the device: httvps enroll LINK", args[0], at(invitation.Value.ExpiresAt)))
		}
		if err != nil {
			return errors.Join(err, picture.discard())
		}
		return a.printCode(invitation.Value.Link, qr == "-" || a.StdoutIsTerminal && !a.json(), picture)
	})
	return cmd
}

// printCode shows a link as a QR code where that is wanted, and writes the picture.
func (a *app) printCode(link string, show bool, p picture) error {
	if !show && p.file == nil {
		return nil
	}
	code, err := qrcode.New(link)
	if err != nil {
		return errors.Join(err, p.discard())
	}
	if show {
		if _, err := io.WriteString(a.Stdout, code.String()); err != nil {
			return errors.Join(err, p.discard())
		}
	}
	return p.write(code)
}

// picture is a file for a QR code; its file is nil when none is wanted.
type picture struct{ file *os.File }

// newPicture makes the file, which only its owner can read, as whoever has the link
// becomes a device. It replaces none.
func newPicture(name string) (picture, error) {
	if name == "" || name == "-" {
		return picture{}, nil
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // named by the operator
	if err != nil {
		return picture{}, fmt.Errorf("--qr: %w", err)
	}
	return picture{file}, nil
}

// write writes the code into the file, if there is one.
func (p picture) write(code qrcode.Code) error {
	if p.file == nil {
		return nil
	}
	err := code.WritePNG(p.file)
	if err = errors.Join(err, p.file.Close()); err != nil {
		return fmt.Errorf("--qr: %w", err)
	}
	return nil
}

// discard removes the file of a link that there is not.
func (p picture) discard() error {
	if p.file == nil {
		return nil
	}
	_ = p.file.Close()
	return os.Remove(p.file.Name())
}

func (a *app) userInvitations() *cobra.Command {
	cmd := &cobra.Command{Use: "invitations USER", Short: "List a user's invitations, without their links", Args: exactly(1)}
	page := pageFlags(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		id, err := findUser(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return listing(a, cmd, c, c.Invitations(id), nil, *page, invitationColumns, map[string]lookup{"DEVICE": deviceName})
	})
	return cmd
}

var findInvitation = byID("invitation", "user invitations", isUUID)

func (a *app) userUninvite() *cobra.Command {
	return &cobra.Command{
		Use: "uninvite USER INVITATION", Short: "Withdraw an invitation (its id) that nobody has used", Args: exactly(2),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			id, err := findInvitation(cmd.Context(), c, args[1]) // first: it asks the service nothing
			if err != nil {
				return err
			}
			user, err := findUser(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := c.Invitations(user).Delete(cmd.Context(), id); err != nil {
				return err
			}
			return a.printDone("invitation", id, "deleted")
		}),
	}
}
