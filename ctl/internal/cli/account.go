package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/login"
)

var whoamiColumns = []column[api.Whoami]{
	{"NAME", func(w api.Whoami) string { return w.Name }},
	{"ROLE", func(w api.Whoami) string { return w.Role }},
	{"ID", func(w api.Whoami) string { return w.ID }},
	{"TOKEN", func(w api.Whoami) string { return w.Token.ID }},
	{"TOKEN ROLE", func(w api.Whoami) string { return w.Token.Role }},
	{"TOKEN EXPIRES", func(w api.Whoami) string { return at(w.Token.ExpiresAt) }},
}

func (a *app) bootstrapCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "bootstrap URL",
		Short: "Become the owner of a new service and log in",
		Long: `Become the owner of a new service and log in.

URL is what the service printed when it started for the first time; it works
once and not for long. Give - to pass it on standard input. The URL that
"httvps-backend rescue" or "httvps-server rescue" printed logs the owner in again.`,
		Args: exactly(1),
	}
	cmd.Flags().StringVar(&name, "name", "owner", "what to call you: `NAME`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text := args[0]
		if text == "-" {
			var err error
			if text, err = a.readSecret(cmd.Context(), "Bootstrap URL: "); err != nil {
				return err
			}
		}
		link, err := api.ParseBootstrapLink(text)
		if err != nil {
			return misuse(cmd, "%w", err)
		}
		ca, err := absolute(a.given(a.flags.ca, "HTTVPS_CA"))
		if err != nil {
			return err
		}
		c, err := a.connect(link.Endpoint, api.Token{}, api.Trust{CAFile: ca, Pin: link.Pin})
		if err != nil {
			return err
		}
		defer c.Close()
		token, err := a.keep(link.Endpoint, ca, func() (api.Token, error) {
			token, err := c.Bootstrap(cmd.Context(), link.Code, name)
			if err == nil && token.Pin() == nil && link.Pin != nil {
				token = token.WithPin(*link.Pin) // the next command has to find the service, too
			}
			return token, err
		})
		if err != nil {
			return err
		}
		return a.welcome(cmd, link.Endpoint, token, ca)
	}
	return cmd
}

func (a *app) loginCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "login",
		Short: "Keep an API token for the commands that follow",
		Long: `Keep an API token for the commands that follow.

The token is asked for without showing it, or read from standard input with
--token -, or taken from HTTVPS_TOKEN. It is tried out first, and then kept in
httvps/ctl.json in $XDG_CONFIG_HOME (or ~/.config), readable only by you.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			endpoint, err := a.endpoint(cmd)
			if err != nil {
				return err
			}
			ca := a.given(a.flags.ca, "HTTVPS_CA")
			if endpoint.IsZero() {
				saved, err := a.savedLogin()
				if err == nil {
					endpoint, err = api.ParseEndpoint(saved.API)
				}
				if err != nil {
					return misuse(cmd, "login to which service? Name it by --api URL")
				}
				if ca == "" {
					ca = saved.CAFile
				}
			}
			if ca, err = absolute(ca); err != nil {
				return err
			}
			text := a.given(a.flags.token, "HTTVPS_TOKEN")
			if text == "" && a.Person == nil {
				return misuse(cmd, "nobody is at a terminal to be asked for the token: pass it on standard input with --token -")
			}
			if text == "" {
				text = "-"
			}
			token, err := a.token(cmd.Context(), text)
			if err != nil {
				return err
			}
			return a.verified(cmd, endpoint, token, ca)
		},
	}
}

// verified keeps a token that the service knows.
func (a *app) verified(cmd *cobra.Command, endpoint api.Endpoint, token api.Token, ca string) error {
	c, err := a.connect(endpoint, token, api.Trust{CAFile: ca, Pin: token.Pin()})
	if err != nil {
		return err
	}
	defer c.Close()
	operator, err := c.Whoami(cmd.Context())
	if err != nil {
		return err
	}
	if _, err := a.keep(endpoint, ca, func() (api.Token, error) { return token, nil }); err != nil {
		return err
	}
	return a.greet(endpoint, operator)
}

// welcome greets the owner that was just made.
func (a *app) welcome(cmd *cobra.Command, endpoint api.Endpoint, token api.Token, ca string) error {
	c, err := a.connect(endpoint, token, api.Trust{CAFile: ca, Pin: token.Pin()})
	if err != nil {
		return err
	}
	defer c.Close()
	operator, err := c.Whoami(cmd.Context())
	if err != nil {
		return fmt.Errorf("the owner was made and the login is saved, but: %w", err)
	}
	return a.greet(endpoint, operator)
}

func (a *app) greet(endpoint api.Endpoint, operator api.Object[api.Whoami]) error {
	a.say("Logged in to %s as %s.", endpoint, operator.Value.Name)
	if a.json() {
		return a.printJSON(operator.JSON)
	}
	return nil
}

// keep saves the login that obtain returns. It makes sure that saving works
// before obtain spends anything.
func (a *app) keep(endpoint api.Endpoint, ca string, obtain func() (api.Token, error)) (api.Token, error) {
	path, err := login.Path(a.Getenv)
	if err != nil {
		return api.Token{}, err
	}
	draft, err := login.Prepare(path)
	if err != nil {
		return api.Token{}, err
	}
	token, err := obtain()
	if err != nil {
		return api.Token{}, errors.Join(err, draft.Discard())
	}
	return token, draft.Save(login.Login{API: endpoint.String(), Token: token.Reveal(), CAFile: ca})
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Forget the saved login",
		Long:  "Forget the saved login. The token itself stays valid until it expires or \"httvpsctl token delete\" ends it.",
		Args:  exactly(0),
		RunE: func(*cobra.Command, []string) error {
			path, err := login.Path(a.Getenv)
			if err != nil {
				return err
			}
			err = login.Remove(path)
			was := err == nil
			switch {
			case errors.Is(err, login.ErrNone):
				a.say("You were not logged in.")
			case err != nil:
				return err
			default:
				a.say("Logged out. The token itself stays valid until it expires.")
			}
			if a.json() {
				return a.printJSON(map[string]bool{"logged_out": was})
			}
			return nil
		},
	}
}

func (a *app) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show whose token is in use and what it may do", Args: exactly(0),
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			operator, err := c.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			return printObject(a, operator, whoamiColumns, nil)
		}),
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.json() {
				return a.printJSON(map[string]string{"version": a.Version})
			}
			_, err := fmt.Fprintln(a.Stdout, cmd.Root().Name(), a.Version)
			return err
		},
	}
}
