package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

var findGateway = byID("gateway", "gateway list", isUUID)

var gateways = kind[api.Gateway]{
	name: "gateway", arg: "ID", things: (*api.Client).Gateways, find: findGateway,
	columns: []column[api.Gateway]{
		{"ID", func(g api.Gateway) string { return g.ID }},
		{"NAME", func(g api.Gateway) string { return g.Name }},
		{"REGION", func(g api.Gateway) string { return g.Region }},
		{"STATUS", gatewayStatus},
		{"SESSIONS", func(g api.Gateway) string { return count(g.Sessions) }},
		{"URL", func(g api.Gateway) string { return g.URL }},
	},
	details: []column[api.Gateway]{
		{"VERSION", func(g api.Gateway) string { return g.Version }},
		{"DRAINED", func(g api.Gateway) string { return atOr(g.DrainedAt, "no") }},
	},
}

// gatewayStatus says of one that is online whether devices leave it.
func gatewayStatus(g api.Gateway) string {
	if g.Draining {
		return g.Status + ", draining"
	}
	return g.Status
}

func (a *app) gatewayCommand() *cobra.Command {
	return a.noun("gateway", "Nodes that devices connect to",
		a.gatewayCreate(),
		listCommand(a, gateways, filterBy("region", "only those in this `REGION` (id or code)", "region_id", findRegion)),
		showCommand(a, gateways),
		a.gatewaySwitch("drain", "Have a gateway send its devices to others and take none", (*api.Client).DrainGateway, `Have a gateway send its devices to others and take none.

New connections go to other gateways within seconds. Those that are open have the
gateway's drain_timeout to end, half a minute at least. It stays so until undrain,
when the gateway is restarted, too.`),
		a.gatewaySwitch("undrain", "Let a drained gateway take devices again", (*api.Client).UndrainGateway, ""),
		deleteCommand(a, gateways, ", which ends its sessions"))
}

func (a *app) gatewaySwitch(verb, short string, do func(*api.Client, context.Context, string) (api.Object[api.Gateway], error), long string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Long: long, Args: exactly(1),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			id, err := findGateway(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			gateway, err := do(c, cmd.Context(), id)
			if err != nil {
				return err
			}
			return gateways.print(a, cmd, c, gateway)
		}),
	}
}

func (a *app) gatewayCreate() *cobra.Command {
	var name, region string
	cmd := &cobra.Command{
		Use: "create --name NAME --region REGION", Short: "Make the link that a new gateway joins with",
		Args: exactly(0), PreRunE: needs("name", "region"),
		Long: `Make the link that a new gateway joins with.

The link is printed once and works once. Whoever has it can join as this
gateway: pass it on as you would a password.`,
	}
	cmd.Flags().StringVar(&name, "name", "", "what to call the gateway: `NAME`")
	cmd.Flags().StringVar(&region, "region", "", "where it is (id or code)")
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		k, err := key()
		if err != nil {
			return err
		}
		gateway, err := c.CreateGateway(cmd.Context(), name, region, k)
		if err != nil {
			return err
		}
		return printSecretLink(a, gateway, gateway.Value.Join,
			"Link for gateway "+gateway.Value.Name+", which works once. On the gateway: httvps-gateway join LINK --config FILE")
	})
	return cmd
}
