package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

var invitationColumns = []column[api.Invitation]{
	{"ID", func(i api.Invitation) string { return i.ID }},
	{"CREATED", func(i api.Invitation) string { return at(i.CreatedAt) }},
	{"EXPIRES", func(i api.Invitation) string { return at(i.ExpiresAt) }},
	{"USED", func(i api.Invitation) string { return atOr(i.UsedAt, "no") }},
	{"DEVICE", func(i api.Invitation) string { return i.DeviceID }},
}

func (a *app) userInvite() *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "invite USER", Short: "Make a link that enrols one device", Args: exactly(1),
		Long: `Make a link that enrols one device.

The link is printed once and works once. Whoever has it becomes a device of this
user: pass it on as you would a password.`,
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long the link works")
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		if ttl < time.Second {
			return misuse(cmd, "--ttl is %s, want at least 1s", ttl)
		}
		id, err := findUser(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		k, err := key()
		if err != nil {
			return err
		}
		invitation, err := c.Invite(cmd.Context(), id, int(ttl/time.Second), k)
		if err != nil {
			return err
		}
		return printSecretLink(a, invitation, invitation.Value.Link, fmt.Sprintf(
			"Invitation for one device of %s, until %s. On the device: httvps enroll LINK", args[0], at(invitation.Value.ExpiresAt)))
	})
	return cmd
}

func (a *app) userInvitations() *cobra.Command {
	cmd := &cobra.Command{Use: "invitations USER", Short: "List a user's invitations, without their links", Args: exactly(1)}
	page := pageFlags(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		id, err := findUser(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return listing(a, cmd, c.Invitations(id), nil, *page, invitationColumns)
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
