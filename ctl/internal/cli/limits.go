package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/httvps/httvps/ctl/internal/api"
)

// The words that say what holds for a user instead of a value.
const (
	fromPlan = "plan" // what his plan says, again
	allOf    = "all"  // regions
)

// ownLimit is the value of a flag that sets a limit for one user, or gives it back to his
// plan.
type ownLimit struct {
	kind  string
	parse func(string) (any, error)
	text  string
	value any // nil: the plan's
}

// Set implements pflag.Value.
func (l *ownLimit) Set(text string) (err error) {
	l.text, l.value = text, nil
	if text == fromPlan {
		return nil
	}
	if l.value, err = l.parse(text); err != nil {
		return fmt.Errorf("%w, or %s for what the plan says", err, fromPlan)
	}
	return nil
}

// Type implements pflag.Value.
func (l *ownLimit) Type() string { return l.kind }

// String implements pflag.Value.
func (l *ownLimit) String() string { return l.text }

// ownLimits are the flags for limits of users by their names.
type ownLimits map[string]*ownLimit

func wholeNumber(text string) (any, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("want a whole number")
	}
	return n, nil
}

func (l ownLimits) add(flags *pflag.FlagSet) {
	one := func(name, kind, usage string, parse func(string) (any, error)) {
		l[name] = &ownLimit{kind: kind, parse: parse}
		flags.Var(l[name], name, usage)
	}
	bits := func(text string) (any, error) {
		var r rate
		err := r.Set(text)
		return int64(r), err
	}
	one("max-devices", "number", "how many devices: `N`, here and below instead of what the plan says; \"plan\": as that says", wholeNumber)
	one("max-sessions", "number", "how many sessions at once: `N` or plan", wholeNumber)
	one("max-streams", "number", "how many TCP streams of a session: `N` or plan", wholeNumber)
	one("max-udp", "number", "how many UDP flows of a session: `N` or plan", wholeNumber)
	one("speed-up-bps", "bits", "`BITS` per second of a session from the device, like 20M, 0 for no limit, or plan", bits)
	one("speed-down-bps", "bits", "`BITS` per second of a session to the device, 0 for no limit, or plan", bits)
	one("quota-bytes", "bytes", "traffic of a subscription in a period: `BYTES` like 100GiB, 0 for no quota, or plan", func(text string) (any, error) {
		var s size
		err := s.Set(text)
		return int64(s), err
	})
	one("quota-period", "period", "when the quota begins anew: `PERIOD` none, day, week, month, rolling, or plan", func(text string) (any, error) {
		if !slices.Contains([]string{"none", "day", "week", "month", "rolling"}, text) {
			return nil, fmt.Errorf("want none, day, week, month or rolling")
		}
		return text, nil
	})
	one("regions", "codes", "`CODES` of the regions that may be used, with commas, or all, or plan", func(text string) (any, error) {
		if text == allOf {
			return []string{}, nil
		}
		codes := strings.Split(text, ",")
		if slices.Contains(codes, "") {
			return nil, fmt.Errorf("want codes with commas between them, or %s", allOf)
		}
		return codes, nil
	})
}

// fields are those limits that the command line has; nil is what the plan says.
func (l ownLimits) fields(cmd *cobra.Command) map[string]any {
	fields := make(map[string]any, len(l))
	for name, limit := range l {
		if cmd.Flags().Changed(name) {
			fields[strings.ReplaceAll(name, "-", "_")] = limit.value
		}
	}
	return fields
}

// ownLimitsOf says in one line what holds for a user whatever his plans say.
func ownLimitsOf(u api.User) string {
	var parts []string
	add := func(name string, value *string) {
		if value != nil {
			parts = append(parts, name+"="+*value)
		}
	}
	number := func(n *int) *string {
		if n == nil {
			return nil
		}
		return new(strconv.Itoa(*n))
	}
	quantity := func(n *int64, units []unit) *string {
		if n == nil {
			return nil
		}
		return new(shown(*n, units))
	}
	l := u.Limits
	add("max-devices", number(l.MaxDevices))
	add("max-sessions", number(l.MaxSessions))
	add("max-streams", number(l.MaxStreams))
	add("max-udp", number(l.MaxUDP))
	add("speed-up-bps", quantity(l.SpeedUpBPS, rateUnits))
	add("speed-down-bps", quantity(l.SpeedDownBPS, rateUnits))
	add("quota-bytes", quantity(l.QuotaBytes, sizeUnits))
	add("quota-period", l.QuotaPeriod)
	if l.Regions != nil {
		add("regions", new(orAll(*l.Regions)))
	}
	return strings.Join(parts, " ")
}

func orAll(codes []string) string {
	if len(codes) == 0 {
		return allOf
	}
	return strings.Join(codes, ",")
}

// readable shows a limit as the service names and writes it.
func readable(name, value string) string {
	n, err := strconv.ParseInt(value, 10, 64)
	switch {
	case err != nil:
		return value
	case strings.HasSuffix(name, "_bps"):
		return rate(n).String() + "bit/s"
	case strings.HasSuffix(name, "_bytes"):
		return size(n).String()
	default:
		return value
	}
}

// printLimits shows what holds for a user, and whose word it is.
func (a *app) printLimits(limits []api.WhyLimit) error {
	if len(limits) == 0 {
		return nil
	}
	rows := [][]string{{"LIMIT", "VALUE", "FROM"}}
	for _, l := range limits {
		from := l.Source
		if l.Plan != "" {
			from += "; the plan says " + readable(l.Name, l.Plan)
		}
		rows = append(rows, []string{l.Name, readable(l.Name, l.Value), from})
	}
	return a.blankThenTable(rows)
}

func (a *app) userUpdate() *cobra.Command {
	var name, note string
	limits := ownLimits{}
	cmd := &cobra.Command{
		Use: "update USER", Short: "Change a user, or what holds for him instead of what his plan says", Args: exactly(1),
		Long: `Change a user, or what holds for him instead of what his plan says.

A limit of his own holds with every plan that he has or gets, at once and also for
sessions that live, until it is given back with the word "plan":
  httvpsctl user update anna --quota-bytes 200GiB --max-devices plan
"httvpsctl why USER" shows what holds and whose word it is.`,
	}
	cmd.Flags().StringVar(&name, "name", "", "the new name")
	cmd.Flags().StringVar(&note, "note", "", "the new note")
	limits.add(cmd.Flags())
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		fields, own := changed(cmd, map[string]any{"name": name, "note": note}), limits.fields(cmd)
		if len(fields)+len(own) == 0 {
			return misuse(cmd, "nothing to change: name it by a flag")
		}
		id, err := users.find(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		var user api.Object[api.User]
		if len(own) > 0 {
			if user, err = c.UpdateLimits(cmd.Context(), id, own); err != nil {
				return err
			}
		}
		if len(fields) > 0 {
			if user, err = users.things(c).Update(cmd.Context(), id, fields); err != nil {
				return err
			}
		}
		return users.print(a, cmd, c, user)
	})
	return cmd
}

func (a *app) bulkLimit() *cobra.Command {
	limits := ownLimits{}
	cmd := a.bulkAction("limit", "Change what holds for users instead of what their plans say", "users")
	limits.add(cmd.Flags())
	cmd.RunE = a.bulk("limit", "users", func(cmd *cobra.Command, _ *api.Client, request map[string]any) error {
		own := limits.fields(cmd)
		if len(own) == 0 {
			return misuse(cmd, "nothing to change: name a limit by a flag")
		}
		request["limits"] = own
		return nil
	})
	return cmd
}
