package cli

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
)

// byDefault is the word for what a service has of which nothing was said.
const byDefault = "default"

// setting is the value of a flag that sets a setting, or makes it the default again.
type setting struct {
	kind  string
	parse func(string) (any, error)
	text  string
	value any // nil: the default
}

// Set implements pflag.Value.
func (s *setting) Set(text string) (err error) {
	s.text, s.value = text, nil
	if text == byDefault {
		return nil
	}
	if s.value, err = s.parse(text); err != nil {
		return fmt.Errorf("%w, or %s", err, byDefault)
	}
	return nil
}

// Type implements pflag.Value.
func (s *setting) Type() string { return s.kind }

// String implements pflag.Value.
func (s *setting) String() string { return s.text }

// wholeSeconds reads a length of time that the service counts in seconds.
func wholeSeconds(text string) (any, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d%time.Second != 0 {
		return nil, errors.New("want a length of time in whole seconds like 48h")
	}
	return int(d / time.Second), nil
}

var settingsColumns = []column[api.Settings]{
	{"SUPPORT", func(s api.Settings) string { return s.Support }},
	{"INVITATION TTL", func(s api.Settings) string { return (time.Duration(s.InvitationTTLSeconds) * time.Second).String() }},
	{"API TOKEN TTL DAYS", func(s api.Settings) string { return strconv.Itoa(s.APITokenTTLDays) }},
}

func (a *app) settingsCommand() *cobra.Command {
	return a.noun("settings", "What holds for the whole service, without a restart", a.settingsShow(), a.settingsUpdate())
}

func (a *app) settingsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the settings of the service", Args: exactly(0),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			settings, err := c.Settings(cmd.Context())
			if err != nil {
				return err
			}
			return printObject(a, settings, settingsColumns, nil)
		}),
	}
}

func (a *app) settingsUpdate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "update", Short: "Change the settings of the service", Args: exactly(0),
		Long: `Change the settings of the service. They hold at once, for all its backends; the
word "default" makes one what it was at first:
  httvpsctl settings update --support https://help.example.com --invitation-ttl default`,
	}
	flags := map[string]*setting{
		"support":                {kind: "text", parse: func(text string) (any, error) { return text, nil }},
		"invitation_ttl_seconds": {kind: "time", parse: wholeSeconds},
		"api_token_ttl_days":     {kind: "days", parse: wholeNumber},
	}
	names := map[string]string{"support": "support", "invitation_ttl_seconds": "invitation-ttl", "api_token_ttl_days": "api-token-ttl-days"} //nolint:gosec // names of flags
	cmd.Flags().Var(flags["support"], "support", "`TEXT` or URL that people are shown who cannot go on; '' for none")
	cmd.Flags().Var(flags["invitation_ttl_seconds"], "invitation-ttl", "how long a user's invitation lasts unless said otherwise: `TIME` from 1m to 720h")
	cmd.Flags().Var(flags["api_token_ttl_days"], "api-token-ttl-days", "how many days an API token lasts unless said otherwise: `N` from 1 to 365")
	cmd.RunE = a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		fields := make(map[string]any, len(flags))
		for field, flag := range flags {
			if cmd.Flags().Changed(names[field]) {
				fields[field] = flag.value
			}
		}
		if len(fields) == 0 {
			return misuse(cmd, "nothing to change: name it by a flag")
		}
		settings, err := c.UpdateSettings(cmd.Context(), fields)
		if err != nil {
			return err
		}
		return printObject(a, settings, settingsColumns, nil)
	})
	return cmd
}
