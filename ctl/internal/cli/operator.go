package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

// roles are what an operator or a token may be.
const roles = "owner, admin, support or auditor"

func checkRole(cmd *cobra.Command, role string) error {
	if !slices.Contains([]string{"owner", "admin", "support", "auditor"}, role) {
		return misuse(cmd, "--role is %q, want %s", role, roles)
	}
	return nil
}

// findOperator takes an id or a name.
var findOperator = byName("operator", "name", (*api.Client).Operators, func(o api.Operator) (string, string) { return o.ID, o.Name })

var operators = kind[api.Operator]{
	name: "operator", arg: "OPERATOR", things: (*api.Client).Operators, find: findOperator,
	columns: []column[api.Operator]{
		{"ID", func(o api.Operator) string { return o.ID }},
		{"NAME", func(o api.Operator) string { return o.Name }},
		{"ROLE", func(o api.Operator) string { return o.Role }},
		{"DISABLED", func(o api.Operator) string { return yesNo(o.Disabled) }},
		{"CREATED", func(o api.Operator) string { return at(o.CreatedAt) }},
	},
}

func (a *app) operatorCommand() *cobra.Command {
	return a.noun("operator", "Those who run the service, and what they may do (OPERATOR is an id or a name)",
		a.operatorCreate(), listCommand(a, operators), showCommand(a, operators), a.operatorUpdate(),
		a.operatorSwitch("disable", "End an operator's tokens and make no more", true),
		a.operatorSwitch("enable", "Let a disabled operator have tokens again (token create --operator)", false),
		deleteCommand(a, operators, ", which ends all tokens and logins"),
		a.operatorInvite(), a.operatorPassword(), a.operatorTOTP(),
	)
}

func (a *app) operatorCreate() *cobra.Command {
	var name, role string
	var days int
	cmd := &cobra.Command{
		Use: "create --name NAME --role ROLE", Short: "Make an operator with a first API token", Args: exactly(0), PreRunE: needs("name", "role"),
		Long: `Make an operator with a first API token.

The token is printed once: pass it on over a channel that you trust. The operator
keeps it with "httvpsctl login".

  owner    may do everything
  admin    everything but operators and their tokens
  support  looks at everything but operators and the audit, and helps users who are
           there: invitations, devices, sessions, names, disabling
  auditor  looks at everything and changes nothing`,
	}
	cmd.Flags().StringVar(&name, "name", "", "what to call the operator: `NAME`")
	cmd.Flags().StringVar(&role, "role", "", "what the operator may do: `ROLE` is "+roles)
	tokenDays(cmd, &days, "the token")
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		if err := checkRole(cmd, role); err != nil {
			return err
		}
		if err := checkDays(cmd, days); err != nil {
			return err
		}
		k, err := key()
		if err != nil {
			return err
		}
		made, err := c.CreateOperator(cmd.Context(), name, role, days, k)
		if err != nil {
			return err
		}
		return printSecret(a, made, "token", made.Value.Text,
			"Operator "+made.Value.ID+". The token is valid until "+atOr(made.Value.ExpiresAt, "")+"; kept with: httvpsctl login --api "+c.Address())
	})
	return cmd
}

func (a *app) operatorUpdate() *cobra.Command {
	var name, role string
	cmd := &cobra.Command{Use: "update OPERATOR", Short: "Change an operator; tokens that may more than a new role end at once", Args: exactly(1)}
	cmd.Flags().StringVar(&name, "name", "", "the new name")
	cmd.Flags().StringVar(&role, "role", "", "what the operator may do from now on: `ROLE` is "+roles)
	cmd.RunE = updating(a, operators, func(cmd *cobra.Command, _ *api.Client) (map[string]any, error) {
		if cmd.Flags().Changed("role") {
			if err := checkRole(cmd, role); err != nil {
				return nil, err
			}
		}
		return changed(cmd, map[string]any{"name": name, "role": role}), nil
	})
	return cmd
}

func (a *app) operatorSwitch(use, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " OPERATOR", Short: short, Args: exactly(1),
		RunE: updating(a, operators, func(*cobra.Command, *api.Client) (map[string]any, error) {
			return map[string]any{"disabled": disabled}, nil
		}),
	}
}
