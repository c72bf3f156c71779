package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

// verifyTimeout is how long a recomputation may take unless --timeout says otherwise.
const verifyTimeout = 15 * time.Minute

func (a *app) usageCommand() *cobra.Command {
	return a.noun("usage", "What devices have moved", a.usageShow(), a.usageSeries(), a.usageVerify())
}

func (a *app) usageShow() *cobra.Command {
	var device bool
	var from, to string
	cmd := &cobra.Command{
		Use: "show USER|DEVICE", Short: "Show a user's or a device's usage by day, in UTC", Args: exactly(1),
		Long: `Show a user's or a device's usage by day, in UTC, newest first.

What is given is taken for a user's name or id; with --device, for a device's id.`,
	}
	cmd.Flags().BoolVar(&device, "device", false, "the argument is a device's id")
	cmd.Flags().StringVar(&from, "from", "", "first `DAY`, as 2026-03-01 (default: 30 days in all)")
	cmd.Flags().StringVar(&to, "to", "", "last `DAY` (default: today)")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
		var span [2]time.Time
		for i, text := range []string{from, to} {
			if text == "" {
				continue
			}
			day, err := time.Parse(time.DateOnly, text)
			if err != nil {
				return misuse(cmd, "%q is no day, want one like 2026-03-01", text)
			}
			span[i] = day
		}
		find, ask := findUser, c.UsageOfUser
		if device {
			find, ask = findDevice, c.UsageOfDevice
		}
		id, err := find(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		usage, err := ask(cmd.Context(), id, span[0], span[1])
		if err != nil {
			return err
		}
		return a.printUsage(usage)
	})
	return cmd
}

func (a *app) printUsage(usage api.Object[api.UsageDays]) error {
	if a.json() {
		return a.printJSON(usage.JSON)
	}
	rows := [][]string{{"DAY", "UP", "DOWN"}}
	for _, d := range usage.Value.Items {
		rows = append(rows, []string{d.Day, amount(d.Up), amount(d.Down)})
	}
	rows = append(rows, []string{"total", amount(usage.Value.Total.Up), amount(usage.Value.Total.Down)})
	return a.printTable(rows)
}

func (a *app) usageSeries() *cobra.Command {
	var by, zone, from, to string
	cmd := &cobra.Command{
		Use: "series", Short: "Show the traffic of everything, or of one thing, over time", Args: exactly(0),
		Long: `Show the traffic of everything, or of one user, device, gateway, region or plan, by
hour, day, week or month of the calendar in a time zone: at most 400 of them, oldest
first, those without traffic too. A plan's is that of the subscriptions that had it.`,
	}
	owners := []filter{
		filterBy("user", "only that of this `USER` (id or name)", "user_id", findUser),
		filterBy("device", "only that of this `DEVICE` (id)", "device_id", findDevice),
		filterBy("gateway", "only that through this `GATEWAY` (id)", "gateway_id", findGateway),
		filterBy("region", "only that through the gateways of this `REGION` (id or code)", "region_id", findRegion),
		filterBy("plan", "only that of subscriptions with this `PLAN` (id or name)", "plan_id", findPlan),
	}
	texts := make([]string, len(owners))
	for i, o := range owners {
		cmd.Flags().StringVar(&texts[i], o.flag, "", o.usage)
	}
	cmd.Flags().StringVar(&by, "by", "day", "hour, day, week (from Monday) or month")
	cmd.Flags().StringVar(&zone, "time-zone", "UTC", "in whose calendar: `NAME` like Europe/Berlin")
	cmd.Flags().StringVar(&from, "from", "", "`TIME` in the first of them, like 2027-01-31 (midnight in the time zone) or 2027-01-31T12:00:00Z (default: 30 in all)")
	cmd.Flags().StringVar(&to, "to", "", "`TIME` likewise, at which they end (default: now)")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		if given := slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return text == "" }); len(given) > 1 {
			return misuse(cmd, "want one of --user, --device, --gateway, --region and --plan, or none")
		}
		query := url.Values{"by": {by}, "time_zone": {zone}}
		for name, text := range map[string]string{"from": from, "to": to} {
			if text == "" {
				continue
			}
			at, err := timeIn(zone, text)
			if err != nil {
				return misuse(cmd, "--%s: %w", name, err)
			}
			query.Set(name, at)
		}
		for i, o := range owners {
			if texts[i] == "" {
				continue
			}
			name, id, err := o.value(cmd.Context(), c, texts[i])
			if err != nil {
				return err
			}
			query.Set(name, id)
		}
		series, err := c.UsageSeries(cmd.Context(), query)
		if err != nil {
			return err
		}
		return a.printSeries(series)
	})
	return cmd
}

// timeIn reads a time; a day is its midnight in a time zone.
func timeIn(zone, text string) (string, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC().Format(time.RFC3339Nano), nil
	}
	where, err := time.LoadLocation(zone)
	if err != nil {
		return "", fmt.Errorf("%q is not a time zone that this machine knows: write times like 2027-01-31T12:00:00Z", zone)
	}
	t, err := time.ParseInLocation(time.DateOnly, text, where)
	if err != nil {
		return "", fmt.Errorf("%q is not a time: write 2027-01-31 (midnight in the time zone) or 2027-01-31T12:00:00Z", text)
	}
	return t.UTC().Format(time.RFC3339Nano), nil
}

func (a *app) printSeries(series api.Object[api.UsageSeries]) error {
	if a.json() {
		return a.printJSON(series.JSON)
	}
	rows := [][]string{{"BEGINS", "UP", "DOWN"}}
	layout := time.RFC3339
	if series.Value.By != "hour" {
		layout = time.DateOnly
	}
	for _, p := range series.Value.Items {
		rows = append(rows, []string{p.BeginsAt.Format(layout), amount(p.Up), amount(p.Down)})
	}
	rows = append(rows, []string{"total", amount(series.Value.Total.Up), amount(series.Value.Total.Down)})
	return a.printTable(rows)
}

// amount writes bytes for people, with the exact number where they are few.
func amount(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB"}
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n)/1024, 0
	for ; value >= 1024 && unit < len(units)-1; unit++ {
		value /= 1024
	}
	return fmt.Sprintf("%.2f %s", value, units[unit])
}

// errDiffers ends verify when the account does not hold.
var errDiffers = errors.New("the account differs from the reports that it rests on")

func (a *app) usageVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify", Short: "Recompute all usage from the raw reports and name each total that differs", Args: exactly(0),
		Long: `Recompute all usage from the raw reports of the gateways and compare it with every
total, as of one moment. Exit code 1 when one differs. It may take minutes.`,
	}
	cmd.PreRun = func(cmd *cobra.Command, _ []string) {
		if !cmd.Flags().Changed("timeout") {
			a.flags.timeout = verifyTimeout
		}
	}
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		return a.verifyUsage(cmd.Context(), c)
	})
	return cmd
}

func (a *app) verifyUsage(ctx context.Context, c *api.Client) error {
	verdict, err := c.VerifyUsage(ctx)
	if err != nil {
		return err
	}
	v := verdict.Value
	if a.json() {
		if err := a.printJSON(verdict.JSON); err != nil {
			return err
		}
	} else if err := a.printVerdict(v); err != nil {
		return err
	}
	if !v.OK || len(v.Differences) > 0 {
		return errDiffers
	}
	return nil
}

func (a *app) printVerdict(v api.UsageVerdict) error {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	result := "every total is what the reports lead to"
	if len(v.Differences) > 0 {
		result = count(len(v.Differences)) + " totals differ"
	}
	if v.More {
		result = "more than " + result
	}
	if err := a.printTable([][]string{
		{"REPORTS:", number(v.Reports)},
		{"SESSIONS:", number(v.Sessions)},
		{"BUCKETS:", number(v.Buckets)},
		{"UP:", number(v.Total.Up)},
		{"DOWN:", number(v.Total.Down)},
		{"UNATTRIBUTED UP:", number(v.Unattributed.Up)},
		{"UNATTRIBUTED DOWN:", number(v.Unattributed.Down)},
		{"FAULTS:", number(v.Faults)},
		{"RESULT:", result},
	}); err != nil || len(v.Differences) == 0 {
		return err
	}
	rows := [][]string{{"LEVEL", "GATEWAY", "BOOT", "SESSION", "SUBSCRIPTION", "PLAN", "BUCKET", "WANT UP", "WANT DOWN", "HAVE UP", "HAVE DOWN"}}
	for _, d := range v.Differences {
		rows = append(rows, []string{
			d.Level, d.GatewayID, d.BootID, d.SessionID, d.SubscriptionID, d.PlanID, atOr(d.Bucket, ""),
			number(d.Want.Up), number(d.Want.Down), number(d.Have.Up), number(d.Have.Down),
		})
	}
	return a.printTable(rows)
}
