package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/terminal"
)

// errNotAllowed ends why when a device, or a user, could not connect.
var errNotAllowed = errors.New("no session is possible now")

func (a *app) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "why USER|DEVICE", Short: "Say why a user or a device can or cannot connect, since when, and what to do", Args: exactly(1),
		Long: `Say why a user or a device can or cannot connect, since when, and what to do.

What the service looks at when a device connects is looked at in the same order, and
beyond the first thing that fails. What is given is a user's name, a device's name
when no user is called so, or the id of either. Exit code 1 when no session is possible.`,
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			why, err := askWhy(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if a.json() {
				err = a.printJSON(why.JSON)
			} else {
				err = a.printWhy(why.Value)
			}
			if err == nil && !why.Value.Allowed {
				err = errNotAllowed
			}
			return err
		}),
	}
}

func askWhy(ctx context.Context, c *api.Client, ref string) (api.Object[api.Why], error) {
	if isUUID(ref) {
		why, err := c.WhyDevice(ctx, ref)
		if problem, ok := errors.AsType[*api.ProblemError](err); ok && problem.Status == http.StatusNotFound {
			return c.WhyUser(ctx, ref)
		}
		return why, err
	}
	page, err := c.Users().List(ctx, url.Values{"name": {ref}}, 1, "")
	if err != nil {
		return api.Object[api.Why]{}, err
	}
	if len(page.Items) > 0 {
		return c.WhyUser(ctx, page.Items[0].Value.ID)
	}
	id, err := deviceCalled(ctx, c, ref)
	if err != nil {
		return api.Object[api.Why]{}, err
	}
	return c.WhyDevice(ctx, id)
}

// deviceCalled returns the id of the one device with a name.
func deviceCalled(ctx context.Context, c *api.Client, name string) (string, error) {
	page, err := collect(ctx, c.Devices(), url.Values{"q": {name}}, maxLookup, "")
	if err != nil {
		return "", err
	}
	var ids []string
	for _, d := range page.Items {
		if d.Value.Name == name {
			ids = append(ids, d.Value.ID)
		}
	}
	switch {
	case len(ids) == 1:
		return ids[0], nil
	case len(ids) > 1:
		return "", fmt.Errorf("%d devices are called %q: use the id (%s, %s, …)", len(ids), name, ids[0], ids[1])
	default:
		return "", fmt.Errorf("there is no user and no device %q", name)
	}
}

func (a *app) printWhy(why api.Why) error {
	what := "user " + why.UserName
	if why.DeviceID != "" {
		what = "device " + why.DeviceName + " of user " + why.UserName
	}
	verdict := "allowed: nothing stands in the way of a session"
	if !why.Allowed {
		verdict = "not allowed: " + why.Reason
	}
	rows := [][]string{{"WHAT:", what}, {"VERDICT:", verdict}}
	if !why.Allowed {
		rows = append(rows, []string{"SINCE:", atOr(why.Since, "not known")}, []string{"NEXT:", why.Next})
	}
	if err := a.printTable(rows); err != nil {
		return err
	}
	rows = [][]string{{"CHECK", "STATE", "SINCE", "DETAIL"}}
	for _, check := range why.Checks {
		rows = append(rows, []string{check.Name, check.State, atOr(check.Since, ""), check.Detail})
	}
	if err := a.blankThenTable(rows); err != nil {
		return err
	}
	for _, check := range why.Checks {
		if check.State == "warned" && check.Next != "" {
			if _, err := fmt.Fprintf(a.Stdout, "%s: %s\n", check.Name, terminal.Clean(check.Next)); err != nil {
				return err
			}
		}
	}
	if err := a.printLimits(why.Limits); err != nil || len(why.Devices) == 0 {
		return err
	}
	rows = [][]string{{"DEVICE", "NAME", "ALLOWED", "REASON", "SINCE"}}
	for _, d := range why.Devices {
		rows = append(rows, []string{d.ID, d.Name, yesNo(d.Allowed), d.Reason, atOr(d.Since, "")})
	}
	return a.blankThenTable(rows)
}

// blankThenTable prints a table apart from what is above it.
func (a *app) blankThenTable(rows [][]string) error {
	if _, err := fmt.Fprintln(a.Stdout); err != nil {
		return err
	}
	return a.printTable(rows)
}
