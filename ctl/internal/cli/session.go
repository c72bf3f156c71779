package cli

import (
	"context"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

var findSession = byID("session", "session list", isSessionID)

var sessions = kind[api.Session]{
	name: "session", arg: "ID", things: (*api.Client).Sessions, find: findSession,
	columns: []column[api.Session]{
		{"ID", func(s api.Session) string { return s.ID }},
		{"USER", func(s api.Session) string { return s.UserID }},
		{"DEVICE", func(s api.Session) string { return s.DeviceID }},
		{"GATEWAY", func(s api.Session) string { return s.GatewayID }},
		{"STARTED", func(s api.Session) string { return at(s.StartedAt) }},
		{"ENDED", func(s api.Session) string { return atOr(s.EndedAt, "live") }},
	},
	names: map[string]lookup{"USER": userName, "DEVICE": deviceName, "GATEWAY": gatewayName},
	details: []column[api.Session]{
		{"REASON", func(s api.Session) string { return s.Reason }},
	},
}

func (a *app) sessionCommand() *cobra.Command {
	return a.noun("session", "Devices' tunnels",
		listCommand(
			a, sessions,
			filterBy("device", "only those of this device `ID`", "device_id", findDevice),
			filterBy("gateway", "only those on this gateway `ID`", "gateway_id", findGateway),
			filterBy("state", "which `STATE`: live, ended or all (default: live)", "state", state),
			filterBy("user", "only those of this `USER` (id or name)", "user_id", findUser),
		),
		showCommand(a, sessions), a.sessionClose())
}

func (a *app) sessionClose() *cobra.Command {
	return &cobra.Command{
		Use: "close ID", Short: "Have a session ended", Args: exactly(1),
		Long: `Have a session ended.

Its gateway ends it within a heartbeat; until then it is shown as live. Its device
may begin another one at once. To keep a device out: device revoke, or user disable.`,
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			id, err := findSession(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			session, err := c.CloseSession(cmd.Context(), id)
			if err != nil {
				return err
			}
			return sessions.print(a, cmd, c, session)
		}),
	}
}

var sessionID = regexp.MustCompile(`^[0-9A-Fa-f]{32}$`)

// isSessionID knows the ids of sessions, which gateways choose.
func isSessionID(text string) bool { return sessionID.MatchString(text) }

func state(_ context.Context, _ *api.Client, text string) (string, error) {
	switch text {
	case "live", "ended", "all":
		return text, nil
	default:
		return "", &usageError{err: fmt.Errorf("--state is %q, want live, ended or all", text)}
	}
}
