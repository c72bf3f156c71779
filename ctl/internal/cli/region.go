package cli

import (
	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

// findRegion takes an id or a code.
var findRegion = byName("region", "code", (*api.Client).Regions, func(r api.Region) (string, string) { return r.ID, r.Code })

var regions = kind[api.Region]{
	name: "region", arg: "REGION", things: (*api.Client).Regions, find: findRegion,
	columns: []column[api.Region]{
		{"ID", func(r api.Region) string { return r.ID }},
		{"CODE", func(r api.Region) string { return r.Code }},
		{"NAME", func(r api.Region) string { return r.Name }},
	},
}

func (a *app) regionCommand() *cobra.Command {
	return a.noun("region", "Places that gateways belong to (REGION is an id or a code)",
		a.regionCreate(), listCommand(a, regions), showCommand(a, regions), a.regionUpdate(), deleteCommand(a, regions, ""))
}

func (a *app) regionCreate() *cobra.Command {
	var code, name string
	cmd := &cobra.Command{Use: "create --code CODE", Short: "Make a region", Args: exactly(0), PreRunE: needs("code")}
	cmd.Flags().StringVar(&code, "code", "", "what to call it in commands: `CODE`")
	cmd.Flags().StringVar(&name, "name", "", "what people call it (default: the code)")
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		if name == "" {
			name = code
		}
		return creating(a, cmd, c, regions, map[string]any{"code": code, "name": name}, key)
	})
	return cmd
}

func (a *app) regionUpdate() *cobra.Command {
	var code, name string
	cmd := &cobra.Command{Use: "update REGION", Short: "Change a region", Args: exactly(1)}
	cmd.Flags().StringVar(&code, "code", "", "the new code")
	cmd.Flags().StringVar(&name, "name", "", "the new name")
	cmd.RunE = updating(a, regions, func(cmd *cobra.Command, _ *api.Client) (map[string]any, error) {
		return changed(cmd, map[string]any{"code": code, "name": name}), nil
	})
	return cmd
}
