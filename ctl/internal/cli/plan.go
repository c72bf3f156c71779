package cli

import (
	"strings"

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
		{"QUOTA", func(p api.Plan) string {
			if p.QuotaBytes == nil {
				return "unlimited"
			}
			return size(*p.QuotaBytes).String()
		}},
	},
	details: []column[api.Plan]{
		{"QUOTA PERIOD", func(p api.Plan) string { return p.QuotaPeriod }},
		{"TIME ZONE", func(p api.Plan) string { return p.TimeZone }},
		{"QUOTA ACTION", func(p api.Plan) string { return p.QuotaAction }},
		{"THROTTLE", func(p api.Plan) string { return rateOr(p.ThrottleBPS, "") }},
		{"WARNINGS", func(p api.Plan) string { return percentages(p.QuotaWarnings) }},
		{"SPEED UP", func(p api.Plan) string { return rateOr(p.SpeedUpBPS, "unlimited") }},
		{"SPEED DOWN", func(p api.Plan) string { return rateOr(p.SpeedDownBPS, "unlimited") }},
		{"REGIONS", func(p api.Plan) string {
			if len(p.Regions) == 0 {
				return "all"
			}
			return strings.Join(p.Regions, ",")
		}},
		{"STARTS ON FIRST USE", func(p api.Plan) string { return yesNo(p.StartsOnFirstUse) }},
	},
}

func percentages(list []int) string {
	texts := make([]string, 0, len(list))
	for _, percent := range list {
		texts = append(texts, count(percent)+"%")
	}
	return strings.Join(texts, ",")
}

func (a *app) planCommand() *cobra.Command {
	return a.noun("plan", "Limits on offer (PLAN is an id or a name)",
		a.planCreate(), listCommand(a, plans), showCommand(a, plans), a.planUpdate(), deleteCommand(a, plans, ""))
}

// planLimits are the flags that create and update share.
type planLimits struct {
	devices, sessions, streams, udp, days int
	firstUse                              bool
	regions                               []string
	up, down, throttle                    rate
	quota                                 size
	period, zone, action                  string
	warnings                              []int
}

func (l *planLimits) add(flags *pflag.FlagSet) {
	flags.IntVar(&l.devices, "max-devices", 0, "how many devices a user may have (default: the service's)")
	flags.IntVar(&l.sessions, "max-sessions", 0, "how many sessions a user may have at once (default: the service's)")
	flags.IntVar(&l.streams, "max-streams", 0, "how many TCP streams a session may have at once; where a gateway's limits.max_streams is lower, that counts (default: the service's)")
	flags.IntVar(&l.udp, "max-udp", 0, "how many UDP flows a session may have at once; gateways do not carry UDP yet (default: the service's)")
	flags.IntVar(&l.days, "duration-days", 0, "how many days a subscription lasts; 0: without end")
	flags.BoolVar(&l.firstUse, "starts-on-first-use", false, "a new subscription begins with its user's first session")
	flags.StringSliceVar(&l.regions, "regions", nil, "`CODES` of the regions that may be used, with commas; '' for all")
	flags.Var(&l.up, "speed-up-bps", "`BITS` per second of a session from the device, like 20M; 0: no limit")
	flags.Var(&l.down, "speed-down-bps", "`BITS` per second of a session to the device; 0: no limit")
	flags.Var(&l.quota, "quota-bytes", "traffic of a subscription in a period, `BYTES` like 100GiB; 0: no quota")
	flags.StringVar(&l.period, "quota-period", "", "when the quota begins anew: `PERIOD` none, day, week, month, or rolling (months from the subscription's start)")
	flags.StringVar(&l.zone, "time-zone", "", "in whose calendar periods are: `ZONE` like Europe/Berlin (default: UTC)")
	flags.StringVar(&l.action, "quota-action", "", "what becomes of who has used up the quota: `ACTION` block or throttle (default: block)")
	flags.Var(&l.throttle, "throttle-bps", "`BITS` per second of a session with --quota-action throttle")
	flags.IntSliceVar(&l.warnings, "quota-warnings", nil, "at what `PERCENT` of the quota to warn, with commas (default: 80,95)")
}

// fields are those limits that the command line has.
func (l *planLimits) fields(cmd *cobra.Command) map[string]any {
	return changed(cmd, map[string]any{
		"max_devices": l.devices, "max_sessions": l.sessions, "max_streams": l.streams, "max_udp": l.udp,
		"duration_days": l.days, "starts_on_first_use": l.firstUse, "regions": append([]string{}, l.regions...),
		"speed_up_bps": l.up, "speed_down_bps": l.down, "quota_bytes": l.quota, "quota_period": l.period, "time_zone": l.zone,
		"quota_action": l.action, "throttle_bps": l.throttle, "quota_warnings": append([]int{}, l.warnings...),
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
