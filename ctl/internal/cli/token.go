package cli

import (
	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

const (
	defaultTokenDays = 90
	maxTokenDays     = 365
)

var findToken = byID("token", "token list", isUUID)

var tokens = kind[api.TokenInfo]{
	name: "token", arg: "ID", things: (*api.Client).Tokens, find: findToken,
	columns: []column[api.TokenInfo]{
		{"ID", func(t api.TokenInfo) string { return t.ID }},
		{"OPERATOR", func(t api.TokenInfo) string { return t.OperatorID }},
		{"CREATED", func(t api.TokenInfo) string { return at(t.CreatedAt) }},
		{"EXPIRES", func(t api.TokenInfo) string { return at(t.ExpiresAt) }},
	},
}

func (a *app) tokenCommand() *cobra.Command {
	return a.noun("token", "Operators' API tokens",
		a.tokenCreate(), listCommand(a, tokens), deleteCommand(a, tokens, ", which ends it at once, also when it is the one in use"))
}

func (a *app) tokenCreate() *cobra.Command {
	var days int
	cmd := &cobra.Command{
		Use: "create", Short: "Make a further API token of yours", Args: exactly(0),
		Long: `Make a further API token of yours.

The token is printed once. Whoever has it can do what you can. Log in with it
before the one in use expires: httvpsctl login.`,
	}
	cmd.Flags().IntVar(&days, "ttl-days", defaultTokenDays, "how many days it is valid: 1 to 365")
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		if days < 1 || days > maxTokenDays {
			return misuse(cmd, "--ttl-days is %d, want 1 to %d", days, maxTokenDays)
		}
		k, err := key()
		if err != nil {
			return err
		}
		token, err := c.CreateToken(cmd.Context(), days, k)
		if err != nil {
			return err
		}
		return printSecret(a, token, "token", token.Value.Text,
			"Token "+token.Value.ID+", valid until "+at(token.Value.ExpiresAt)+". Keep it with: httvpsctl login")
	})
	return cmd
}
