package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

var bulkJobs = kind[api.BulkJob]{
	name: "bulk action", arg: "ID", things: (*api.Client).BulkJobs, find: byID("bulk action", "bulk list", isUUID),
	columns: []column[api.BulkJob]{
		{"ID", func(j api.BulkJob) string { return j.ID }},
		{"ACTION", func(j api.BulkJob) string { return j.Request.Action }},
		{"OBJECTS", func(j api.BulkJob) string { return strconv.Itoa(j.Objects) }},
		{"DONE", func(j api.BulkJob) string { return strconv.Itoa(j.Done) }},
		{"FAILED", func(j api.BulkJob) string { return strconv.Itoa(j.Failed) }},
		{"LEFT", func(j api.BulkJob) string { return strconv.Itoa(j.Left) }},
		{"CREATED", func(j api.BulkJob) string { return at(j.CreatedAt) }},
		{"OPERATOR", func(j api.BulkJob) string { return j.OperatorID }},
	},
	names: map[string]lookup{"OPERATOR": operatorName},
}

func (a *app) bulkCommand() *cobra.Command {
	extend := a.bulkAction("extend", "Move the end of each user's last subscription", "subscriptions")
	days := extend.Flags().Int("days", 0, "by `N` days from the end, or from now when that is past")
	until := extend.Flags().String("until", "", "to this `TIME` like 2027-01-31 or 2027-01-31T12:00:00Z, where the end is before it")
	move := a.bulkAction("move", "Move users' subscriptions that have not ended to another plan", "subscriptions")
	to := move.Flags().String("to", "", "to this `PLAN` (id or name)")
	invite := a.bulkAction("invite", "Invite one device of each user; the links are shown once", "users")
	ttl := invite.Flags().Duration("ttl", 0, "how long the links are valid (default: what the settings say)")
	extend.RunE = a.bulk("extend", "subscriptions", func(cmd *cobra.Command, _ *api.Client, request map[string]any) error {
		if (*days != 0) == (*until != "") {
			return misuse(cmd, "want either --days or --until")
		}
		if *days != 0 {
			request["days"] = *days
			return nil
		}
		ends, err := parseTime(*until)
		if err != nil {
			return misuse(cmd, "--until: %w", err)
		}
		request["ends_at"] = ends
		return nil
	})
	move.RunE = a.bulk("move", "subscriptions", func(cmd *cobra.Command, c *api.Client, request map[string]any) error {
		if *to == "" {
			return misuse(cmd, "%s needs --to", cmd.CommandPath())
		}
		var err error
		request["plan_id"], err = findPlan(cmd.Context(), c, *to)
		return err
	})
	invite.RunE = a.bulk("invite", "users", func(_ *cobra.Command, _ *api.Client, request map[string]any) error {
		if *ttl != 0 {
			request["ttl_seconds"] = int(ttl.Seconds())
		}
		return nil
	})
	return a.noun("bulk", "Do the same to many users, after a look at what it would touch",
		a.bulkAction("disable", "Refuse users' devices and end their sessions", "users"),
		a.bulkAction("enable", "Let disabled users in again", "users"),
		a.bulkAction("delete", "Delete users for good, with all devices and subscriptions", "users"),
		a.bulkAction("revoke", "Revoke all devices of users for good", "devices"),
		extend, move, invite, a.bulkLimit(),
		listCommand(a, bulkJobs), a.bulkShow(), a.bulkResume())
}

// bulkAction is the command of an action with the flags that all have.
func (a *app) bulkAction(action, short, objects string) *cobra.Command {
	cmd := &cobra.Command{
		Use: action, Short: short, Args: exactly(0),
		Long: short + `, after a look at what that would touch.

Users are selected by all flags that are given. What was shown is what is done: when
it has changed by then, nothing is. Each object is done by itself, what is in the way
of one is named, and an interrupted action goes on with "httvpsctl bulk resume ID".
Exit code 1 when something failed.`,
	}
	flags := cmd.Flags()
	flags.StringArray("user", nil, "this `USER` (id or name); may be repeated")
	flags.String("search", "", "whose name begins with `TEXT`")
	flags.String("plan", "", "with a subscription to this `PLAN` (id or name)")
	flags.String("region", "", "with a subscription whose plan names this `REGION` (id or code)")
	flags.Bool("disabled", false, "who are disabled; --disabled=false: who are not")
	flags.String("expired-before", "", "whose subscriptions had all ended by this `TIME` like 2027-01-31 or 2027-01-31T12:00:00Z")
	flags.String("no-session-since", "", "without a session since this `TIME` likewise")
	flags.Bool("all", false, "every user")
	flags.Bool("yes", false, "do not ask")
	flags.Bool("dry-run", false, "only show what it would touch")
	flags.String("idempotency-key", "", "any `TEXT`: repeating the command with it does not act twice (default: a new one)")
	cmd.RunE = a.bulk(action, objects, func(*cobra.Command, *api.Client, map[string]any) error { return nil })
	return cmd
}

// bulkFilter reads the flags that select users.
func bulkFilter(cmd *cobra.Command, c *api.Client) (map[string]any, error) {
	flags, filter := cmd.Flags(), map[string]any{}
	text := func(name string) string { return flags.Lookup(name).Value.String() }
	for flag, field := range map[string]string{"expired-before": "expired_before", "no-session-since": "no_session_since"} {
		if text(flag) == "" {
			continue
		}
		at, err := parseTime(text(flag))
		if err != nil {
			return nil, misuse(cmd, "--%s: %w", flag, err)
		}
		filter[field] = at
	}
	users, err := flags.GetStringArray("user")
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, ref := range users {
		id, err := findUser(cmd.Context(), c, ref)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if len(ids) > 0 {
		filter["user_ids"] = ids
	}
	if text("search") != "" {
		filter["search"] = text("search")
	}
	if text("plan") != "" {
		if filter["plan_id"], err = findPlan(cmd.Context(), c, text("plan")); err != nil {
			return nil, err
		}
	}
	if text("region") != "" {
		if filter["region_id"], err = findRegion(cmd.Context(), c, text("region")); err != nil {
			return nil, err
		}
	}
	if flags.Changed("disabled") {
		filter["disabled"] = text("disabled") == "true"
	}
	if text("all") == "true" {
		filter["all"] = true
	}
	if len(filter) == 0 {
		return nil, misuse(cmd, "say which users by a flag, or --all")
	}
	return filter, nil
}

// bulk is the RunE of an action; more adds to the request what this action needs.
func (a *app) bulk(action, objects string, more func(*cobra.Command, *api.Client, map[string]any) error) func(*cobra.Command, []string) error {
	return a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		filter, err := bulkFilter(cmd, c)
		if err != nil {
			return err
		}
		request := map[string]any{"action": action, "filter": filter}
		if err := more(cmd, c, request); err != nil {
			return err
		}
		preview, err := c.PreviewBulk(cmd.Context(), request)
		if err != nil {
			return err
		}
		flag := func(name string) bool { return cmd.Flags().Lookup(name).Value.String() == "true" }
		if flag("dry-run") && a.json() {
			return a.printJSON(preview.JSON)
		}
		a.say("%s would touch %d %s of %d users:", action, preview.Value.Objects, objects, preview.Value.Users)
		for i, o := range preview.Value.Sample {
			if i == 0 || o.UserID != preview.Value.Sample[i-1].UserID {
				a.say("  %s", o.UserName)
			}
		}
		if more := preview.Value.Objects - len(preview.Value.Sample); more > 0 {
			a.say("  and %d more %s", more, objects)
		}
		if flag("dry-run") || preview.Value.Objects == 0 {
			return nil
		}
		if err := a.confirm(cmd, flag("yes"), fmt.Sprintf("Do %s to these %d %s?", action, preview.Value.Objects, objects)); err != nil {
			return err
		}
		request["token"] = preview.Value.Token
		key := cmd.Flags().Lookup("idempotency-key").Value.String()
		if key == "" {
			key = "bulk " + preview.Value.Token + " " + strconv.FormatInt(time.Now().UnixNano(), 36)
		}
		job, err := c.BulkJobs().Create(cmd.Context(), request, key)
		if err != nil {
			return err
		}
		return a.runBulk(cmd, c, job.Value.ID)
	})
}

// runBulk does all pieces of a job that are left.
func (a *app) runBulk(cmd *cobra.Command, c *api.Client, id string) error {
	told := []json.RawMessage{}
	for {
		report, err := c.RunBulk(cmd.Context(), id)
		if err != nil {
			a.say("Go on with: httvpsctl bulk resume %s", id)
			return err
		}
		var raw struct {
			Items []json.RawMessage `json:"items"`
			Job   json.RawMessage   `json:"job"`
		}
		if err := json.Unmarshal(report.JSON, &raw); err != nil {
			return err
		}
		for i, o := range report.Value.Items {
			switch {
			case o.Error != "":
				a.say("%s (%s): %s", o.UserName, o.ObjectID, o.Error)
			case o.Link != "" && !a.json():
				if err := a.printTable([][]string{{o.UserName, o.Link}}); err != nil {
					return err
				}
			}
			if o.Error != "" || o.Link != "" {
				told = append(told, raw.Items[i])
			}
		}
		job := report.Value.Job
		a.say("%d of %d done, %d failed", job.Done, job.Objects, job.Failed)
		if job.Left > 0 && len(report.Value.Items) > 0 {
			continue
		}
		if a.json() {
			if err := a.printJSON(map[string]any{"job": raw.Job, "items": told}); err != nil {
				return err
			}
		}
		if job.Failed > 0 {
			return fmt.Errorf("%d of %d failed: httvpsctl bulk show %s names them", job.Failed, job.Objects, id)
		}
		return nil
	}
}

func (a *app) bulkShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show how far an action is, and what failed", Args: exactly(1),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			id, err := bulkJobs.find(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			report, err := c.BulkReport(cmd.Context(), id)
			if err != nil {
				return err
			}
			if a.json() {
				return a.printJSON(report.JSON)
			}
			job := report.Value.Job
			if err := bulkJobs.print(a, cmd, c, api.Object[api.BulkJob]{Value: job}); err != nil || len(report.Value.Items) == 0 {
				return err
			}
			rows := [][]string{{"USER", "OBJECT", "FAILED"}}
			for _, o := range report.Value.Items {
				rows = append(rows, []string{o.UserName, o.ObjectID, strings.TrimSpace(o.Error)})
			}
			return a.printTable(rows)
		}),
	}
}

func (a *app) bulkResume() *cobra.Command {
	return &cobra.Command{
		Use: "resume ID", Short: "Do what is left of an action that was interrupted", Args: exactly(1),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			id, err := bulkJobs.find(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			return a.runBulk(cmd, c, id)
		}),
	}
}
