package cli

import (
	"errors"
	"strconv"
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
		{"DENIED PREFIXES", func(p api.Plan) string { return strings.Join(p.DeniedPrefixes, ",") }},
		{"DENIED PORTS", func(p api.Plan) string { return numbers(p.DeniedPorts) }},
		{"ALLOWED PORTS", func(p api.Plan) string {
			if len(p.AllowedPorts) == 0 {
				return "all others"
			}
			return numbers(p.AllowedPorts)
		}},
		{"DENIED NAMES", func(p api.Plan) string { return strings.Join(p.DeniedNames, ",") }},
		{"ALLOWED NAMES", func(p api.Plan) string { return strings.Join(p.AllowedNames, ",") }},
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

func numbers(list []int) string {
	texts := make([]string, 0, len(list))
	for _, n := range list {
		texts = append(texts, count(n))
	}
	return strings.Join(texts, ",")
}

func (a *app) planCommand() *cobra.Command {
	return a.noun("plan", "Limits on offer (PLAN is an id or a name)",
		a.planCreate(), listCommand(a, plans), showCommand(a, plans), a.planUpdate(), deleteCommand(a, plans, ""))
}

// ports are those of a flag, with commas between them.
type ports []int

// String implements pflag.Value.
func (p *ports) String() string { return numbers(*p) }

// Type implements pflag.Value.
func (p *ports) Type() string { return "ports" }

// Set implements pflag.Value. An empty text is none.
func (p *ports) Set(text string) error {
	*p = ports{}
	if text == "" {
		return nil
	}
	for one := range strings.SplitSeq(text, ",") {
		port, err := strconv.ParseUint(one, 10, 16)
		if err != nil {
			return errors.New("want ports from 1 to 65535 with commas between them, or '' for none")
		}
		*p = append(*p, int(port))
	}
	return nil
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
	deniedPrefixes                        []string
	deniedPorts, allowedPorts             ports
	deniedNames, allowedNames             []string
}

func (l *planLimits) add(flags *pflag.FlagSet) {
	flags.IntVar(&l.devices, "max-devices", 0, "how many devices a user may have (default: the service's)")
	flags.IntVar(&l.sessions, "max-sessions", 0, "how many sessions a user may have at once (default: the service's)")
	flags.IntVar(&l.streams, "max-streams", 0, "how many TCP streams a session may have at once; where a gateway's limits.max_streams is lower, that counts (default: the service's)")
	flags.IntVar(&l.udp, "max-udp", 0, "how many UDP flows a session may have at once; where a gateway's limits.max_udp is lower, that counts (default: the service's)")
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
	flags.StringSliceVar(&l.deniedPrefixes, "denied-prefixes", nil, "`PREFIXES` of addresses that sessions may not reach, with commas; '' for none")
	flags.Var(&l.deniedPorts, "denied-ports", "`PORTS` that sessions may not reach, with commas; '' for none")
	flags.Var(&l.allowedPorts, "allowed-ports", "the only `PORTS` that sessions may reach, with commas; '' for all that are not denied")
	flags.StringSliceVar(&l.deniedNames, "denied-names", nil, "`NAMES` that sessions may not reach, each with everything below it, with commas; . is every name, '' none")
	flags.StringSliceVar(&l.allowedNames, "allowed-names", nil, "`NAMES` that are exceptions from --denied-names, with commas; '' for none")
}

// fields are those limits that the command line has.
func (l *planLimits) fields(cmd *cobra.Command) map[string]any {
	return changed(cmd, map[string]any{
		"max_devices": l.devices, "max_sessions": l.sessions, "max_streams": l.streams, "max_udp": l.udp,
		"duration_days": l.days, "starts_on_first_use": l.firstUse, "regions": append([]string{}, l.regions...),
		"speed_up_bps": l.up, "speed_down_bps": l.down, "quota_bytes": l.quota, "quota_period": l.period, "time_zone": l.zone,
		"quota_action": l.action, "throttle_bps": l.throttle, "quota_warnings": append([]int{}, l.warnings...),
		"denied_prefixes": append([]string{}, l.deniedPrefixes...), "denied_ports": append([]int{}, l.deniedPorts...),
		"allowed_ports": append([]int{}, l.allowedPorts...), "denied_names": append([]string{}, l.deniedNames...),
		"allowed_names": append([]string{}, l.allowedNames...),
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
