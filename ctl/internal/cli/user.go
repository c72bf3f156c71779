package cli

import (
	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

// findUser takes an id or a name.
var findUser = byName("user", "name", (*api.Client).Users, func(u api.User) (string, string) { return u.ID, u.Name })

var users = kind[api.User]{
	name: "user", arg: "USER", things: (*api.Client).Users, find: findUser,
	columns: []column[api.User]{
		{"ID", func(u api.User) string { return u.ID }},
		{"NAME", func(u api.User) string { return u.Name }},
		{"DISABLED", func(u api.User) string { return yesNo(u.Disabled) }},
		{"CREATED", func(u api.User) string { return at(u.CreatedAt) }},
	},
	details: []column[api.User]{
		{"NOTE", func(u api.User) string { return u.Note }},
		{"OWN LIMITS", ownLimitsOf},
	},
}

func (a *app) userCommand() *cobra.Command {
	return a.noun("user", "People and accounts (USER is an id or a name)",
		a.userCreate(), listCommand(a, users, searched), showCommand(a, users), a.userUpdate(),
		a.userSwitch("disable", "Refuse a user's devices and end their sessions", true),
		a.userSwitch("enable", "Let a disabled user in again", false),
		a.userInvite(), a.userInvitations(), a.userUninvite(),
		deleteCommand(a, users, ", with all devices and subscriptions"),
	)
}

func (a *app) userCreate() *cobra.Command {
	var name, note string
	limits := ownLimits{}
	cmd := &cobra.Command{Use: "create --name NAME", Short: "Make a user", Args: exactly(0), PreRunE: needs("name")}
	cmd.Flags().StringVar(&name, "name", "", "what to call the user: `NAME`")
	cmd.Flags().StringVar(&note, "note", "", "anything to remember about the user")
	limits.add(cmd.Flags())
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		fields := map[string]any{"name": name}
		if cmd.Flags().Changed("note") {
			fields["note"] = note
		}
		if own := limits.fields(cmd); len(own) > 0 {
			fields["limits"] = own
		}
		return creating(a, cmd, c, users, fields, key)
	})
	return cmd
}

func (a *app) userSwitch(use, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " USER", Short: short, Args: exactly(1),
		RunE: updating(a, users, func(*cobra.Command, *api.Client) (map[string]any, error) {
			return map[string]any{"disabled": disabled}, nil
		}),
	}
}
