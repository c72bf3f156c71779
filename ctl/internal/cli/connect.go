package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/login"
)

// maxInput bounds what is read from standard input: a token, a URL or what somebody
// signs in with.
const maxInput = 8 << 10

// given is what a flag says, else the environment, else nothing.
func (a *app) given(flag, variable string) string {
	if flag != "" {
		return flag
	}
	return a.Getenv(variable)
}

// client is made of the flags, the environment and the saved login, in that order.
func (a *app) client(cmd *cobra.Command) (*api.Client, error) {
	endpoint, err := a.endpoint(cmd)
	if err != nil {
		return nil, err
	}
	tokenText, ca := a.given(a.flags.token, "HTTVPS_TOKEN"), a.given(a.flags.ca, "HTTVPS_CA")
	if endpoint.IsZero() || tokenText == "" {
		saved, err := a.savedLogin()
		if errors.Is(err, errNoLogin) && !endpoint.IsZero() {
			return nil, fmt.Errorf("there is no token for %s: give it in HTTVPS_TOKEN, or run httvpsctl login --api %s", endpoint, endpoint)
		}
		if err != nil {
			return nil, err
		}
		home, err := api.ParseEndpoint(saved.API)
		if err != nil {
			return nil, fmt.Errorf("saved login: %w: log in again", err)
		}
		if endpoint.IsZero() {
			endpoint = home
		}
		if tokenText == "" {
			tokenText = saved.Token
			if endpoint != home {
				return nil, fmt.Errorf("the saved login is for %s, and its token is not sent elsewhere: log in to %s, or give its token in HTTVPS_TOKEN", home, endpoint)
			}
		}
		if ca == "" && endpoint == home {
			ca = saved.CAFile
		}
	}
	token, err := a.token(cmd.Context(), tokenText)
	if err != nil {
		return nil, err
	}
	return a.connect(endpoint, token, api.Trust{CAFile: ca, Pin: token.Pin()})
}

// endpoint is what a flag or the environment names; zero when neither does.
func (a *app) endpoint(cmd *cobra.Command) (api.Endpoint, error) {
	address := a.given(a.flags.api, "HTTVPS_API")
	if address == "" {
		return api.Endpoint{}, nil
	}
	endpoint, err := api.ParseEndpoint(address)
	if err != nil {
		return api.Endpoint{}, misuse(cmd, "%w", err)
	}
	return endpoint, nil
}

var errNoLogin = errors.New("you are not logged in: run httvpsctl login, or give --api and HTTVPS_TOKEN")

func (a *app) savedLogin() (login.Login, error) {
	path, err := login.Path(a.Getenv)
	if err != nil {
		return login.Login{}, err
	}
	saved, err := login.Load(path)
	if errors.Is(err, login.ErrNone) {
		return login.Login{}, errNoLogin
	}
	return saved, err
}

func (a *app) connect(endpoint api.Endpoint, token api.Token, trust api.Trust) (*api.Client, error) {
	return api.New(api.Options{
		Endpoint:  endpoint,
		Trust:     trust,
		Token:     token,
		Timeout:   a.flags.timeout,
		UserAgent: "httvpsctl/" + a.Version,
		Reason:    a.flags.reason,
	})
}

// token reads a token's text; - means that it is yet to come.
func (a *app) token(ctx context.Context, text string) (api.Token, error) {
	if text == "-" {
		var err error
		if text, err = a.readSecret(ctx, "API token: "); err != nil {
			return api.Token{}, err
		}
	}
	return api.ParseToken(text)
}

// readSecret asks the person at the terminal, or reads the next line of standard
// input when there is none.
func (a *app) readSecret(ctx context.Context, prompt string) (string, error) {
	if a.Person == nil {
		if a.lines == nil {
			a.lines = bufio.NewReader(io.LimitReader(a.Stdin, maxInput))
		}
		line, err := a.lines.ReadString('\n')
		if line = strings.TrimSpace(line); line == "" {
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("it is empty")
			}
			return "", fmt.Errorf("read standard input: %w", err)
		}
		return line, nil
	}
	if err := a.prompt(prompt); err != nil {
		return "", err
	}
	line, err := a.Person.ReadSecret(ctx)
	a.say("") // the line end that was typed was not shown either
	return line, err
}

func (a *app) prompt(text string) error {
	_, err := io.WriteString(a.Stderr, text)
	return err
}

// confirm asks before something is lost for good.
func (a *app) confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	if a.Person == nil {
		return misuse(cmd, "this cannot be undone, and nobody is at a terminal to be asked: add --yes")
	}
	if err := a.prompt(question + " [y/N] "); err != nil {
		return err
	}
	answer, err := a.Person.ReadLine(cmd.Context())
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	default:
		return errors.New("nothing was done")
	}
}

func absolute(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	return filepath.Abs(file)
}
