package cli

import (
	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

const maxTokenDays = 365

var findToken = byID("token", "token list", isUUID)

var tokens = kind[api.TokenInfo]{
	name: "token", arg: "ID", things: (*api.Client).Tokens, find: findToken,
	columns: []column[api.TokenInfo]{
		{"ID", func(t api.TokenInfo) string { return t.ID }},
		{"OPERATOR", func(t api.TokenInfo) string { return t.OperatorID }},
		{"ROLE", func(t api.TokenInfo) string { return t.Role }},
		{"CREATED", func(t api.TokenInfo) string { return at(t.CreatedAt) }},
		{"EXPIRES", func(t api.TokenInfo) string { return at(t.ExpiresAt) }},
	},
	names: map[string]lookup{"OPERATOR": operatorName},
}

func (a *app) tokenCommand() *cobra.Command {
	return a.noun("token", "Operators' API tokens",
		a.tokenCreate(), listCommand(a, tokens, filterBy("operator", "only those of this `OPERATOR` (id or name)", "operator_id", findOperator)),
		deleteCommand(a, tokens, ", which ends it at once, also when it is the one in use"))
}

func (a *app) tokenCreate() *cobra.Command {
	var days int
	var role, operator string
	cmd := &cobra.Command{
		Use: "create", Short: "Make a further API token, of yours or another operator's", Args: exactly(0),
		Long: `Make a further API token, of yours or another operator's.

The token is printed once. Whoever has it can do what its role may: as much as you
and its operator may, or less with --role. Log in with it before the one in use
expires: httvpsctl login.`,
	}
	tokenDays(cmd, &days, "it")
	cmd.Flags().StringVar(&role, "role", "", "what it may do: `ROLE` is "+roles)
	cmd.Flags().StringVar(&operator, "operator", "", "whose it is: `OPERATOR` (id or name; default: you)")
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		if err := checkDays(cmd, days); err != nil {
			return err
		}
		if err := checkRole(cmd, role); role != "" && err != nil {
			return err
		}
		k, err := key()
		if err != nil {
			return err
		}
		if operator != "" {
			if operator, err = findOperator(cmd.Context(), c, operator); err != nil {
				return err
			}
		}
		token, err := c.CreateToken(cmd.Context(), operator, role, days, k)
		if err != nil {
			return err
		}
		return printSecret(a, token, "token", token.Value.Text,
			"Token "+token.Value.ID+", valid until "+at(token.Value.ExpiresAt)+". Keep it with: httvpsctl login")
	})
	return cmd
}

func tokenDays(cmd *cobra.Command, days *int, what string) {
	cmd.Flags().IntVar(days, "ttl-days", 0, "how many days "+what+" is valid: 1 to 365 (default: what the settings say)")
}

func checkDays(cmd *cobra.Command, days int) error {
	if cmd.Flags().Changed("ttl-days") && days < 1 || days > maxTokenDays {
		return misuse(cmd, "--ttl-days is %d, want 1 to %d", days, maxTokenDays)
	}
	return nil
}
