package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

var subscriptions = kind[api.Subscription]{
	name: "subscription", arg: "ID", things: (*api.Client).Subscriptions, find: byID("subscription", "subscription list", isUUID),
	columns: []column[api.Subscription]{
		{"ID", func(s api.Subscription) string { return s.ID }},
		{"USER", func(s api.Subscription) string { return s.UserID }},
		{"PLAN", func(s api.Subscription) string { return s.PlanID }},
		{"STATUS", func(s api.Subscription) string { return s.Status }},
		{"STARTS", func(s api.Subscription) string {
			if s.AwaitsUse {
				return "on first use"
			}
			return at(s.StartsAt)
		}},
		{"ENDS", func(s api.Subscription) string {
			if s.AwaitsUse {
				return ""
			}
			return atOr(s.EndsAt, "never")
		}},
	},
	names: map[string]lookup{"USER": userName, "PLAN": planName},
}

// withQuota adds what is used of the quota, of which only show is told.
func withQuota(k kind[api.Subscription]) kind[api.Subscription] {
	ofQuota := func(value func(api.QuotaUse) string) func(api.Subscription) string {
		return func(s api.Subscription) string {
			if s.Quota == nil {
				return ""
			}
			return value(*s.Quota)
		}
	}
	k.details = []column[api.Subscription]{
		{"QUOTA", func(s api.Subscription) string {
			if s.Quota == nil {
				return "unlimited"
			}
			return size(s.Quota.Bytes).String()
		}},
		{"USED", ofQuota(func(q api.QuotaUse) string { return fmt.Sprintf("%s (%d%%)", amount(q.Used), percent(q)) })},
		{"LEFT", ofQuota(func(q api.QuotaUse) string {
			if q.Throttled {
				return amount(q.Left) + ", throttled"
			}
			return amount(q.Left)
		})},
		{"SINCE", ofQuota(func(q api.QuotaUse) string { return atOr(q.From, "") })},
		{"RESETS", ofQuota(func(q api.QuotaUse) string { return atOr(q.ResetsAt, "never") })},
	}
	return k
}

// percent is how much of a quota is used, rounded down: 100 only when nothing is left.
func percent(q api.QuotaUse) int64 {
	if q.Bytes <= 0 {
		return 0
	}
	return int64(float64(q.Used) / float64(q.Bytes) * 100)
}

func (a *app) subscriptionCommand() *cobra.Command {
	return a.noun("subscription", "Users' plans for a period",
		a.subscriptionCreate(),
		listCommand(a, subscriptions, filterBy("user", "only those of this `USER` (id or name)", "user_id", findUser)),
		showCommand(a, withQuota(subscriptions)), a.subscriptionUpdate(), deleteCommand(a, subscriptions, ""))
}

func (a *app) subscriptionCreate() *cobra.Command {
	var user, plan, starts, ends string
	cmd := &cobra.Command{Use: "create --user USER --plan PLAN", Short: "Give a user a plan", Args: exactly(0)}
	cmd.Flags().StringVar(&user, "user", "", "whose (id or name)")
	cmd.Flags().StringVar(&plan, "plan", "", "which plan (id or name)")
	cmd.Flags().StringVar(&starts, "starts-at", "", "`TIME` like 2027-01-31 or 2027-01-31T12:00:00Z (default: now, or the first use when the plan says so)")
	cmd.Flags().StringVar(&ends, "ends-at", "", "`TIME` likewise (default: as the plan says)")
	key := keyFlag(cmd)
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		if user == "" || plan == "" {
			return misuse(cmd, "a subscription needs --user and --plan")
		}
		fields, err := period(cmd, starts, ends)
		if err != nil {
			return err
		}
		if fields["user_id"], err = findUser(cmd.Context(), c, user); err != nil {
			return err
		}
		if fields["plan_id"], err = findPlan(cmd.Context(), c, plan); err != nil {
			return err
		}
		return creating(a, cmd, c, subscriptions, fields, key)
	})
	return cmd
}

func (a *app) subscriptionUpdate() *cobra.Command {
	var starts, ends, plan string
	cmd := &cobra.Command{Use: "update ID", Short: "Move a subscription's times, or to another plan", Args: exactly(1)}
	cmd.Flags().StringVar(&plan, "plan", "", "to this plan (id or name); its duration does not move the end")
	cmd.Flags().StringVar(&starts, "starts-at", "", "`TIME` like 2027-01-31 or 2027-01-31T12:00:00Z")
	cmd.Flags().StringVar(&ends, "ends-at", "", "`TIME` likewise")
	cmd.RunE = updating(a, subscriptions, func(cmd *cobra.Command, c *api.Client) (map[string]any, error) {
		fields, err := period(cmd, starts, ends)
		if err == nil && plan != "" {
			fields["plan_id"], err = findPlan(cmd.Context(), c, plan)
		}
		return fields, err
	})
	return cmd
}

// period reads the two ends of a period, those that were given.
func period(cmd *cobra.Command, starts, ends string) (map[string]any, error) {
	fields := map[string]any{}
	for field, text := range map[string]string{"starts_at": starts, "ends_at": ends} {
		if text == "" {
			continue
		}
		t, err := parseTime(text)
		if err != nil {
			return nil, misuse(cmd, "--%s: %w", strings.ReplaceAll(field, "_", "-"), err)
		}
		fields[field] = t
	}
	return fields, nil
}

func parseTime(text string) (string, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC().Format(time.RFC3339Nano), nil
		}
	}
	return "", fmt.Errorf("%q is not a time: write 2027-01-31 (midnight UTC) or 2027-01-31T12:00:00Z", text)
}
