package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/httvps/httvps/ctl/internal/api"
)

// findPlan takes an id or a name.
var findPlan = byName("plan", "name", (*api.Client).Plans, func(p api.Plan) (string, string) { return p.ID, p.Name })

var plans = kind[api.Plan]{
	name: "plan", arg: "PLAN", things: (*api.Client).Plans, find: findPlan,
	columns: []column[api.Plan]{
		{"ID", func(p api.Plan) string { return p.ID }},
		{"NAME", func(p api.Plan) string { return p.Name }},
		{"DEVICES", func(p api.Plan) string { return count(p.MaxDevices) }},
		{"SESSIONS", func(p api.Plan) string { return count(p.MaxSessions) }},
		{"STREAMS", func(p api.Plan) string { return count(p.MaxStreams) }},
		{"UDP", func(p api.Plan) string { return count(p.MaxUDP) }},
		{"DAYS", func(p api.Plan) string {
			if p.DurationDays == nil {
				return "unlimited"
			}
			return count(*p.DurationDays)
		}},
	},
}

func (a *app) planCommand() *cobra.Command {
	return a.noun("plan", "Limits on offer (PLAN is an id or a name)",
		a.planCreate(), listCommand(a, plans), showCommand(a, plans), a.planUpdate(), deleteCommand(a, plans, ""))
}

// planLimits are the flags that create and update share.
type planLimits struct{ devices, sessions, streams, udp, days int }

func (l *planLimits) add(flags *pflag.FlagSet) {
	flags.IntVar(&l.devices, "max-devices", 0, "how many devices a user may have (default: the service's)")
	flags.IntVar(&l.sessions, "max-sessions", 0, "how many sessions a user may have at once (default: the service's)")
	flags.IntVar(&l.streams, "max-streams", 0, "how many TCP streams a session may have at once; where a gateway's limits.max_streams is lower, that counts (default: the service's)")
	flags.IntVar(&l.udp, "max-udp", 0, "how many UDP flows a session may have at once; gateways do not carry UDP yet (default: the service's)")
	flags.IntVar(&l.days, "duration-days", 0, "how many days a subscription lasts; 0: without end")
}

// fields are those limits that the command line has.
func (l *planLimits) fields(cmd *cobra.Command) map[string]any {
	return changed(cmd, map[string]any{
		"max_devices": l.devices, "max_sessions": l.sessions, "max_streams": l.streams, "max_udp": l.udp,
		"duration_days": l.days,
	})
}

func (a *app) planCreate() *cobra.Command {
	var name string
	var limits planLimits
	cmd := &cobra.Command{Use: "create --name NAME", Short: "Make a plan", Args: exactly(0), PreRunE: needs("name")}
	cmd.Flags().StringVar(&name, "name", "", "what to call the plan: `NAME`")
	limits.add(cmd.Flags())
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		fields := limits.fields(cmd)
		fields["name"] = name
		return creating(a, cmd, c, plans, fields, key)
	})
	return cmd
}

func (a *app) planUpdate() *cobra.Command {
	var name string
	var limits planLimits
	cmd := &cobra.Command{Use: "update PLAN", Short: "Change a plan", Args: exactly(1)}
	cmd.Flags().StringVar(&name, "name", "", "the new name")
	limits.add(cmd.Flags())
	cmd.RunE = updating(a, plans, func(cmd *cobra.Command, _ *api.Client) (map[string]any, error) {
		fields := limits.fields(cmd)
		if cmd.Flags().Changed("name") {
			fields["name"] = name
		}
		return fields, nil
	})
	return cmd
}
