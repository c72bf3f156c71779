package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/login"
	"github.com/httvps/httvps/ctl/internal/qrcode"
	"github.com/httvps/httvps/internal/totp"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	// maxTries is how often a person is asked for what was typed wrong.
	maxTries = 3
	// fewCodes is how many recovery codes are so few that it is said.
	fewCodes = 3
)

var logins = kind[api.Login]{
	name: "login", arg: "ID", things: (*api.Client).Logins, find: byID("login", "login list", isUUID),
	columns: []column[api.Login]{
		{"ID", func(l api.Login) string { return l.ID }},
		{"OPERATOR", func(l api.Login) string { return l.OperatorID }},
		{"FROM", func(l api.Login) string { return l.Address }},
		{"BROWSER", func(l api.Login) string { return yesNo(l.Browser) }},
		{"SEEN", func(l api.Login) string { return at(l.SeenAt) }},
		{"ENDS", func(l api.Login) string { return at(l.EndsAt) }},
		{"THIS", func(l api.Login) string { return yesNo(l.Current) }},
	},
	names: map[string]lookup{"OPERATOR": operatorName},
}

// signIn logs in with password and code.
func (a *app) signIn(cmd *cobra.Command, endpoint api.Endpoint, ca, name string) error {
	path, err := login.Path(a.Getenv)
	if err != nil {
		return err
	}
	known, err := login.LoadKnown(path)
	if err != nil {
		return err
	}
	client, pinText := known.Client(endpoint.String(), name)
	trust := api.Trust{CAFile: ca, Pin: a.savedPin(endpoint)}
	if trust.Pin == nil && pinText != "" {
		pin, err := tlspin.Parse(pinText)
		if err != nil {
			return errors.New("known.json beside the saved login is damaged: delete it")
		}
		trust.Pin = &pin
	}
	c, err := a.connect(endpoint, api.Token{}, trust)
	if err != nil {
		return err
	}
	defer c.Close()
	var done api.LoggedIn
	_, err = a.keep(endpoint, ca, true, func() (api.Token, error) {
		with, err := a.readCredentials(cmd, client)
		if err != nil {
			return api.Token{}, err
		}
		object, err := c.LogIn(cmd.Context(), name, with)
		if err != nil {
			return api.Token{}, err
		}
		done = object.Value
		return a.tokenOf(done, trust.Pin)
	})
	if err != nil {
		return err
	}
	if err := a.remember(endpoint, &known, done, trust.Pin); err != nil {
		return err
	}
	if done.RecoveryCodesLeft < fewCodes {
		a.say("%d recovery codes are left: make new ones with httvpsctl operator totp.", done.RecoveryCodesLeft)
	}
	return a.printLogin(done)
}

// savedPin is the pin of the saved login when that is for the same service.
func (a *app) savedPin(endpoint api.Endpoint) *tlspin.Pin {
	saved, err := a.savedLogin()
	if err != nil || saved.API != endpoint.String() {
		return nil
	}
	token, err := api.ParseToken(saved.Token)
	if err != nil {
		return nil
	}
	return token.Pin()
}

// tokenOf is a login's token, with the pin by which its service was found.
func (a *app) tokenOf(done api.LoggedIn, pin *tlspin.Pin) (api.Token, error) {
	token, err := api.ParseToken(done.Text)
	if err == nil && token.Pin() == nil && pin != nil {
		token = token.WithPin(*pin)
	}
	return token, err
}

// remember keeps what the service knows this machine by, and greets.
func (a *app) remember(endpoint api.Endpoint, known *login.Known, done api.LoggedIn, pin *tlspin.Pin) error {
	if done.Client != "" {
		pinText := ""
		if pin != nil {
			pinText = pin.String()
		}
		if err := known.Remember(endpoint.String(), done.Operator.Name, done.Client, pinText); err != nil {
			return fmt.Errorf("you are logged in, but the service will not know this machine again: %w", err)
		}
	}
	a.say("Logged in to %s as %s.", endpoint, done.Operator.Name)
	return nil
}

// printLogin shows a login to programs, without the secrets that are kept already.
func (a *app) printLogin(done api.LoggedIn) error {
	if !a.json() {
		return nil
	}
	shown := map[string]any{"id": done.ID, "name": done.Operator.Name, "role": done.Operator.Role, "recovery_codes_left": done.RecoveryCodesLeft}
	if len(done.RecoveryCodes) > 0 {
		shown["recovery_codes"] = done.RecoveryCodes
	}
	return a.printJSON(shown)
}

func (a *app) readCredentials(cmd *cobra.Command, client string) (api.Credentials, error) {
	password, err := a.readSecret(cmd.Context(), "Password: ")
	if err != nil {
		return api.Credentials{}, err
	}
	code, err := a.readSecret(cmd.Context(), "Code: ")
	return api.Credentials{Password: password, Code: strings.TrimSpace(code), Client: client}, err
}

// readPassword asks for a new password, twice when somebody types it.
func (a *app) readPassword(cmd *cobra.Command) (string, error) {
	for range maxTries {
		first, err := a.readSecret(cmd.Context(), "New password (12 characters or more): ")
		if err != nil || a.Person == nil {
			return first, err
		}
		again, err := a.readSecret(cmd.Context(), "The same again: ")
		if err != nil {
			return "", err
		}
		if first == again {
			return first, nil
		}
		a.say("They are not the same.")
	}
	return "", errors.New("nothing was changed: two times the same password is wanted")
}

// readTOTP makes the secret of a second factor, shows it and asks for its code. Without
// a terminal the secret comes on standard input, for those who have it already.
func (a *app) readTOTP(cmd *cobra.Command, service, name string) (api.TOTP, error) {
	if a.Person == nil {
		secret, err := a.readSecret(cmd.Context(), "")
		if err != nil {
			return api.TOTP{}, err
		}
		code, err := a.readSecret(cmd.Context(), "")
		return api.TOTP{Secret: secret, Code: code}, err
	}
	secret := totp.NewSecret()
	picture, err := qrcode.New(totp.URI(secret, service, name))
	if err != nil {
		return api.TOTP{}, err
	}
	if err := a.prompt(picture.String()); err != nil {
		return api.TOTP{}, err
	}
	a.say("Add this to an authenticator app, as a picture or by its secret: %s", totp.FormatSecret(secret))
	code, err := a.readSecret(cmd.Context(), "Code that the app shows: ")
	return api.TOTP{Secret: totp.FormatSecret(secret), Code: strings.TrimSpace(code)}, err
}

// printRecovery shows codes that are shown once.
func (a *app) printRecovery(codes []string) error {
	if a.json() {
		return a.printJSON(api.RecoveryCodes{RecoveryCodes: append([]string{}, codes...)})
	}
	if len(codes) == 0 {
		return nil
	}
	a.say("Recovery codes, for when the app is lost. Each is good once in place of a code; write them down, they are not shown again:")
	_, err := fmt.Fprintln(a.Stdout, strings.Join(codes, "\n"))
	return err
}

const changeStdin = `Without a terminal the lines of standard input are taken: the present password and
code, unless there is none yet; the new password; a new secret of 32 characters of
base32 and its code of now. Those that are not asked for are left out.`

func (a *app) operatorPassword() *cobra.Command {
	return &cobra.Command{
		Use: "password", Short: "Set your own password", Args: exactly(0),
		Long: `Set your own password, and with the first one a second factor, too.

Your other logins end; your API tokens do not ("httvpsctl token list").

` + changeStdin,
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error { return a.changeSignIn(cmd, c, true, false) }),
	}
}

func (a *app) operatorTOTP() *cobra.Command {
	return &cobra.Command{
		Use: "totp", Short: "Set your own second factor, with new recovery codes", Args: exactly(0),
		Long: `Set your own second factor: the secret of an authenticator app.

It comes with ten new recovery codes, and those from before are good no more. With
the first one a password is set, too. Your other logins end.

` + changeStdin,
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, _ []string) error { return a.changeSignIn(cmd, c, false, true) }),
	}
}

// changeSignIn sets the password, the second factor or, where there is nothing yet,
// both.
func (a *app) changeSignIn(cmd *cobra.Command, c *api.Client, password, second bool) error {
	operator, err := c.Whoami(cmd.Context())
	if err != nil {
		return err
	}
	state, err := c.SignIn(cmd.Context())
	if err != nil {
		return err
	}
	var change api.SignInChange
	if state.Value.ChangedAt == nil {
		password, second = true, true
	} else {
		current, err := a.readCredentials(cmd, "")
		if err != nil {
			return err
		}
		change.Current = &current
	}
	if password {
		text, err := a.readPassword(cmd)
		if err != nil {
			return err
		}
		change.Password = &text
	}
	if second {
		factor, err := a.readTOTP(cmd, "HTTVPS "+c.Host(), operator.Value.Name)
		if err != nil {
			return err
		}
		change.TOTP = &factor
	}
	codes, err := c.ChangeSignIn(cmd.Context(), change)
	if err != nil {
		return err
	}
	a.say("It is set. Other logins have ended; API tokens go on.")
	return a.printRecovery(codes.Value.RecoveryCodes)
}

// offerSignIn has the new owner, or one who was rescued, set password and second
// factor at once, if somebody is there to do it.
func (a *app) offerSignIn(cmd *cobra.Command, endpoint api.Endpoint, token api.Token, ca string) error {
	if a.Person == nil {
		return nil
	}
	if err := a.prompt("Set a password and a second factor now, for later logins? [Y/n] "); err != nil {
		return err
	}
	answer, err := a.Person.ReadLine(cmd.Context())
	if err != nil || strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "n") {
		a.say("Later it is: httvpsctl operator password")
		return nil
	}
	c, err := a.connect(endpoint, token, api.Trust{CAFile: ca, Pin: token.Pin()})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := a.changeSignIn(cmd, c, true, true); err != nil {
		return fmt.Errorf("you are logged in, but the password is not set: %w: try again with httvpsctl operator password", err)
	}
	return nil
}

func (a *app) operatorInvite() *cobra.Command {
	return &cobra.Command{
		Use: "invite OPERATOR", Short: "Make a link with which an operator sets password and second factor", Args: exactly(1),
		Long: `Make a link with which an operator sets password and second factor.

For one who is new, or has lost them: it replaces what there is, and ends the
operator's logins, once it is used. The link is good once and for 24 hours, and a
new one ends the one before. Pass it on over a channel that you trust; it is for
"httvpsctl accept".`,
		RunE: a.asking(func(cmd *cobra.Command, c *api.Client, args []string) error {
			id, err := findOperator(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			link, err := c.InviteOperator(cmd.Context(), id)
			if err != nil {
				return err
			}
			return printSecretLink(a, link, link.Value.Link, "For httvpsctl accept, once, until "+at(link.Value.ExpiresAt)+".")
		}),
	}
}

func (a *app) acceptCommand() *cobra.Command {
	return &cobra.Command{
		Use: "accept URL", Short: "Set your password and second factor with an operator's invitation, and log in", Args: exactly(1),
		Long: `Set your password and second factor with an operator's invitation, and log in.

URL is what "httvpsctl operator invite" printed; it works once. Give - to pass it on
standard input. Without a terminal the lines of standard input are the URL, if it
was -, the password, a secret of 32 characters of base32 and its code of now.`,
		RunE: a.redeeming("Operator URL: ", api.ParseOperatorLink, a.accept),
	}
}

// accept redeems an operator's invitation.
func (a *app) accept(cmd *cobra.Command, c *api.Client, link api.Link, ca string) error {
	path, err := login.Path(a.Getenv)
	if err != nil {
		return err
	}
	known, err := login.LoadKnown(path)
	if err != nil {
		return err
	}
	var done api.LoggedIn
	_, err = a.keep(link.Endpoint, ca, true, func() (api.Token, error) {
		password, err := a.readPassword(cmd)
		if err != nil {
			return api.Token{}, err
		}
		second, err := a.readTOTP(cmd, "HTTVPS "+c.Host(), "operator")
		if err != nil {
			return api.Token{}, err
		}
		object, err := c.AcceptInvitation(cmd.Context(), link.Code, password, second)
		if err != nil {
			return api.Token{}, err
		}
		done = object.Value
		return a.tokenOf(done, link.Pin)
	})
	if err != nil {
		return err
	}
	err = a.remember(link.Endpoint, &known, done, link.Pin)
	if a.json() {
		return errors.Join(err, a.printLogin(done))
	}
	return errors.Join(err, a.printRecovery(done.RecoveryCodes)) // they are shown whatever else happens
}
