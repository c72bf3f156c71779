package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

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
"httvps-backend rescue" or "httvps-server rescue" printed logs the owner in again.

At a terminal you are asked for a password then, and shown a secret for an
authenticator app: with both you log in later, here and elsewhere.`,
		Args: exactly(1),
	}
	cmd.Flags().StringVar(&name, "name", "owner", "what to call you: `NAME`")
	cmd.RunE = a.redeeming("Bootstrap URL: ", api.ParseBootstrapLink, func(cmd *cobra.Command, c *api.Client, link api.Link, ca string) error {
		token, err := a.keep(link.Endpoint, ca, false, func() (api.Token, error) {
			token, err := c.Bootstrap(cmd.Context(), link.Code, name)
			if err == nil && token.Pin() == nil && link.Pin != nil {
				token = token.WithPin(*link.Pin) // the next command has to find the service, too
			}
			return token, err
		})
		if err != nil {
			return err
		}
		if err := a.welcome(cmd, link.Endpoint, token, ca); err != nil {
			return err
		}
		return a.offerSignIn(cmd, link.Endpoint, token, ca)
	})
	return cmd
}

// redeeming is a RunE for a one-time link: it is read, from standard input when it is -,
// and redeem gets the service that it leads to.
func (a *app) redeeming(
	prompt string, parse func(string) (api.Link, error), redeem func(cmd *cobra.Command, c *api.Client, link api.Link, ca string) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		text := args[0]
		if text == "-" {
			var err error
			if text, err = a.readSecret(cmd.Context(), prompt); err != nil {
				return err
			}
		}
		link, err := parse(text)
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
		return redeem(cmd, c, link, ca)
	}
}

func (a *app) loginCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Sign in, or keep an API token, for the commands that follow",
		Long: `Sign in, or keep an API token, for the commands that follow.

With --name, or a name at the question, password and code are asked for without
showing them; without a terminal they are the lines of standard input. The code is
what the authenticator app shows, or a recovery code. The login ends two hours after
its last use, twelve hours after it began, or with "httvpsctl logout".

An API token is asked for without showing it, or read from standard input with
--token -, or taken from HTTVPS_TOKEN. It is tried out first.

What is kept is httvps/ctl.json in $XDG_CONFIG_HOME (or ~/.config), readable only by
you, and beside it known.json, by which the service knows this machine again.`,
		Args: exactly(0),
	}
	cmd.Flags().StringVar(&name, "name", "", "sign in as the operator of this `NAME`")
	cmd.AddCommand(listCommand(a, logins, filterBy("operator", "only those of this `OPERATOR` (id or name)", "operator_id", findOperator)),
		deleteCommand(a, logins, ", which ends it at once, also when it is the one in use"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		endpoint, ca, err := a.loginTo(cmd)
		if err != nil {
			return err
		}
		text := a.given(a.flags.token, "HTTVPS_TOKEN")
		if name != "" && text != "" {
			return misuse(cmd, "--name and a token: want one of them")
		}
		if name == "" && text == "" {
			if a.Person == nil {
				return misuse(cmd, "nobody is at a terminal to be asked for the token: pass it on standard input with --token -, or sign in with --name")
			}
			if text, err = a.readSecret(cmd.Context(), "Name or API token: "); err != nil {
				return err
			}
			if !api.LooksLikeToken(text) {
				name, text = strings.TrimSpace(text), ""
			}
		}
		if text == "" {
			return a.signIn(cmd, endpoint, ca, name)
		}
		token, err := a.token(cmd.Context(), text)
		if err != nil {
			return err
		}
		return a.verified(cmd, endpoint, token, ca)
	}
	return cmd
}

// loginTo is where to log in, and by which authority: what was said, or where the
// saved login is for.
func (a *app) loginTo(cmd *cobra.Command) (api.Endpoint, string, error) {
	endpoint, err := a.endpoint(cmd)
	if err != nil {
		return api.Endpoint{}, "", err
	}
	ca := a.given(a.flags.ca, "HTTVPS_CA")
	if endpoint.IsZero() {
		saved, err := a.savedLogin()
		if err == nil {
			endpoint, err = api.ParseEndpoint(saved.API)
		}
		if err != nil {
			return api.Endpoint{}, "", misuse(cmd, "login to which service? Name it by --api URL")
		}
		if ca == "" {
			ca = saved.CAFile
		}
	}
	ca, err = absolute(ca)
	return endpoint, ca, err
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
	if _, err := a.keep(endpoint, ca, false, func() (api.Token, error) { return token, nil }); err != nil {
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
func (a *app) keep(endpoint api.Endpoint, ca string, signedIn bool, obtain func() (api.Token, error)) (api.Token, error) {
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
	return token, draft.Save(login.Login{API: endpoint.String(), Token: token.Reveal(), CAFile: ca, SignedIn: signedIn})
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Forget the saved login",
		Long: `Forget the saved login, and end it when it was made with a password.

An API token itself stays valid until it expires or "httvpsctl token delete" ends it.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := login.Path(a.Getenv)
			if err != nil {
				return err
			}
			ended := a.endSaved(cmd)
			err = login.Remove(path)
			was := err == nil
			switch {
			case errors.Is(err, login.ErrNone):
				a.say("You were not logged in.")
			case err != nil:
				return err
			case ended:
				a.say("Logged out.")
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

// endSaved ends the saved login at the service, and reports whether it did: an API
// token goes on, and so does what the service could not be told of.
func (a *app) endSaved(cmd *cobra.Command) bool {
	saved, err := a.savedLogin()
	if err != nil || !saved.SignedIn {
		return false
	}
	endpoint, err := api.ParseEndpoint(saved.API)
	if err != nil {
		return false
	}
	token, err := api.ParseToken(saved.Token)
	if err != nil {
		return false
	}
	c, err := a.connect(endpoint, token, api.Trust{CAFile: saved.CAFile, Pin: token.Pin()})
	if err != nil {
		return false
	}
	defer c.Close()
	operator, err := c.Whoami(cmd.Context())
	if refused, ok := errors.AsType[*api.ProblemError](err); ok && refused.Status == http.StatusUnauthorized {
		return true // it has ended already
	}
	if err == nil {
		err = c.Logins().Delete(cmd.Context(), operator.Value.Token.ID)
	}
	if err != nil {
		a.say("The login could not be ended at the service, and ends there by itself: %s", api.Hide(sentence(err)))
	}
	return err == nil
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
