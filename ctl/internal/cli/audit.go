package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

var auditColumns = []column[api.AuditEntry]{
	{"NUMBER", func(e api.AuditEntry) string { return strconv.FormatInt(e.Number, 10) }},
	{"AT", func(e api.AuditEntry) string { return at(e.At) }},
	{"WHO", who},
	{"ACTION", func(e api.AuditEntry) string { return e.Action }},
	{"OBJECT", func(e api.AuditEntry) string { return e.ObjectID }},
	{"CHANGE", change},
	{"REASON", func(e api.AuditEntry) string { return e.Reason }},
}

var auditDetails = []column[api.AuditEntry]{
	{"ACTOR ID", func(e api.AuditEntry) string { return e.Actor.ID }},
	{"TOKEN", func(e api.AuditEntry) string { return e.Actor.TokenID }},
	{"ADDRESS", func(e api.AuditEntry) string { return e.Actor.Address }},
	{"HASH", func(e api.AuditEntry) string { return e.Hash }},
}

// who names the actor as people know him.
func who(e api.AuditEntry) string { return strings.TrimSpace(e.Actor.Kind + " " + e.Actor.Name) }

// change names what is another than before, with both values.
func change(e api.AuditEntry) string {
	var before, after map[string]any
	_ = json.Unmarshal(e.Before, &before) // null when there was nothing
	_ = json.Unmarshal(e.After, &after)
	names := maps.Clone(before)
	if names == nil {
		names = map[string]any{}
	}
	maps.Copy(names, after)
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := before[name], after[name]
		switch {
		case fmt.Sprint(was) == fmt.Sprint(is):
		case before == nil:
			parts = append(parts, fmt.Sprintf("%s=%v", name, is))
		case after == nil:
			parts = append(parts, fmt.Sprintf("%s was %v", name, was))
		default:
			parts = append(parts, fmt.Sprintf("%s: %v > %v", name, was, is))
		}
	}
	return strings.Join(parts, ", ")
}

func (a *app) auditCommand() *cobra.Command {
	return a.noun("audit", "Who changed what", a.auditList(), a.auditShow(), a.auditVerify(), a.auditExport())
}

func (a *app) auditList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List entries, newest first", Args: exactly(0)}
	page := pageFlags(cmd)
	actor := cmd.Flags().String("actor", "", "only what this operator, device or gateway did: an `ID`, or an operator's name")
	object := cmd.Flags().String("object", "", "only what became of the thing with this `ID`")
	action := cmd.Flags().String("action", "", "only this `ACTION`, such as device.revoked")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		query := url.Values{}
		if *actor != "" {
			id, err := findOperator(cmd.Context(), c, *actor)
			if err != nil {
				return err
			}
			query.Set("actor_id", id)
		}
		for name, value := range map[string]string{"object_id": *object, "action": *action} {
			if value != "" {
				query.Set(name, value)
			}
		}
		return listing(a, cmd, c, c.Audit(), query, *page, auditColumns, nil)
	})
	return cmd
}

func (a *app) auditShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NUMBER", Short: "Show an entry", Args: exactly(1),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			if n, err := strconv.ParseInt(args[0], 10, 64); err != nil || n < 1 {
				return misuse(cmd, "%q is no entry's number; see httvpsctl audit list", args[0])
			}
			entry, err := c.Audit().Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printObject(a, entry, slices.Concat(auditColumns, auditDetails), nil)
		}),
	}
}

func (a *app) auditVerify() *cobra.Command {
	var known string
	cmd := &cobra.Command{
		Use: "verify", Short: "Look at every entry and name the first that is not as it was written", Args: exactly(0),
		Long: `Look at every entry and name the first that is not as it was written.

It prints where the log ends, as NUMBER:HASH. Keep that elsewhere and give it with
--known later: a log that was replaced by an older copy of itself does not have it.
With a long log, raise --timeout.`,
	}
	cmd.Flags().StringVar(&known, "known", "", "where the log ended earlier: `NUMBER:HASH`")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		query := url.Values{}
		if known != "" {
			number, hash, found := strings.Cut(known, ":")
			if _, err := strconv.ParseInt(number, 10, 64); err != nil || !found || len(hash) != 64 {
				return misuse(cmd, "--known is %q, want NUMBER:HASH as audit verify prints it", known)
			}
			query = url.Values{"number": {number}, "hash": {hash}}
		}
		verdict, err := c.VerifyAudit(cmd.Context(), query)
		if err != nil {
			return err
		}
		v := verdict.Value
		if a.json() {
			err = a.printJSON(verdict.JSON)
		} else if v.OK {
			_, err = fmt.Fprintf(a.Stdout, "%d:%s\n", v.Entries, v.Hash)
		}
		switch {
		case err != nil:
			return err
		case !v.OK && v.Broken != nil:
			return fmt.Errorf("the audit log is broken at entry %d: %s", *v.Broken, v.Problem)
		case !v.OK:
			return errors.New("the audit log is broken")
		}
		a.say("All %d entries are as they were written.", v.Entries)
		return nil
	})
	return cmd
}

func (a *app) auditExport() *cobra.Command {
	var after int64
	cmd := &cobra.Command{
		Use: "export", Short: "Print all entries as JSON lines, oldest first", Args: exactly(0),
		Long: "Print all entries as JSON lines, oldest first. What comes after an entry that you have: --after NUMBER.",
	}
	cmd.Flags().Int64Var(&after, "after", 0, "begin behind the entry with this `NUMBER`")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		for cursor := strconv.FormatInt(after, 10); cursor != ""; {
			page, err := c.Audit().List(cmd.Context(), url.Values{"order": {"oldest"}}, maxExport, cursor)
			if err != nil {
				return err
			}
			for _, entry := range page.Items {
				if _, err := a.Stdout.Write(append(entry.JSON, '\n')); err != nil {
					return err
				}
			}
			cursor = page.Next
		}
		return nil
	})
	return cmd
}

// maxExport is how many entries are asked for at once.
const maxExport = 500
