package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// settings is the configuration of the server under test.
type settings struct {
	Name   string `yaml:"name"`
	Limits struct {
		Links []string `yaml:"links"`
	} `yaml:"limits"`
}

func (s settings) Validate() error {
	if s.Name == "bad" {
		return errors.New("name is bad\nlimits are bad too")
	}
	return nil
}

func (s settings) Check() (warnings []string, err error) {
	switch s.Name {
	case "bad":
		return nil, errors.New("its file is missing")
	case "dubious":
		return []string{"its file is old"}, nil
	}
	return nil, nil
}

// server returns the command line of a server that serves until told to stop.
// It is asked for its health through ask.
func server(ask func(ctx context.Context, cfg settings, ready bool) error) *cobra.Command {
	root := &cobra.Command{Use: "server", Short: "A server"}
	var name string
	root.PersistentFlags().StringVar(&name, "name", "here", "its name")
	load := func(cmd *cobra.Command) (settings, error) {
		if cmd.Flags().Changed("name") && name == "" {
			return settings{}, Misuse("--%s is empty", "name")
		}
		s := settings{Name: name}
		s.Limits.Links = []string{"a&b"}
		return s, nil
	}
	root.AddCommand(
		&cobra.Command{
			Use: "serve",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := load(cmd)
				if err != nil {
					return fmt.Errorf("serve: %w", err)
				}
				PrintReady(cmd.OutOrStdout(), struct {
					Link string `json:"link"`
				}{"https://" + cfg.Name + "/<x>#code=1&pin=2"})
				<-cmd.Context().Done()
				return nil
			},
		},
		&cobra.Command{
			Use: "echo WORD", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				text, err := io.ReadAll(cmd.InOrStdin())
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s", args[0], text)
				return err
			},
		},
		Config(load), Version("v1.2.3"),
		Health("the server", "it can", load, ask),
		Rescue(load, func(_ context.Context, cfg settings) (string, error) {
			if cfg.Name == "running" {
				return "", errors.New("another process is using it")
			}
			return "https://" + cfg.Name + "/bootstrap#code=1", nil
		}),
	)
	return root
}

func TestCommandLines(t *testing.T) {
	well := func(context.Context, settings, bool) error { return nil }
	for name, tc := range map[string]struct {
		args   string
		code   int
		stdout string
		wrong  string // what stderr says
		at     string // whose help it names
	}{
		"nothing":                {code: 2, wrong: "server needs a command", at: "server"},
		"half a command":         {args: "config", code: 2, wrong: "server config needs a command", at: "server config"},
		"an unknown command":     {args: "sevre", code: 2, wrong: `unknown argument "sevre" for "server"`, at: "server"},
		"an unknown half":        {args: "config chekc", code: 2, wrong: `unknown argument "chekc" for "server config"`, at: "server config"},
		"an argument too many":   {args: "version now", code: 2, wrong: `unknown argument "now" for "server version"`, at: "server version"},
		"an unknown flag":        {args: "serve --prot 1", code: 2, wrong: "unknown flag: --prot", at: "server serve"},
		"a flag without a value": {args: "serve --name", code: 2, wrong: "flag needs an argument: --name", at: "server serve"},
		"a server's own mistake": {args: "serve --name=", code: 2, wrong: "serve: --name is empty", at: "server serve"},
		"no shell completion":    {args: "completion bash", code: 2, wrong: `unknown argument "completion" for "server"`, at: "server"},

		"an argument that is wanted": {args: "echo word", stdout: "word and stdin"},
		"version":                    {args: "version", stdout: "server v1.2.3\n"},
		"the same by flag":           {args: "--version", stdout: "server v1.2.3\n"},
		"a valid configuration":      {args: "config check", stdout: "the configuration is valid\n"},
		"an invalid configuration":   {args: "config check --name bad", code: 1, wrong: "name is bad\nlimits are bad too\nits file is missing"},
		"it is printed all the same": {args: "config print --name bad", stdout: "name: bad\nlimits:\n  links:\n    - a&b\n"},
		"nothing to check":           {args: "config check --name=", code: 2, wrong: "--name is empty", at: "server config check"},
		"nothing to print":           {args: "config print --name=", code: 2, wrong: "--name is empty", at: "server config print"},
		"nobody to rescue":           {args: "rescue --name=", code: 2, wrong: "--name is empty", at: "server rescue"},
		"a rescue in vain":           {args: "rescue --name running", code: 1, wrong: "another process is using it"},
		"nobody to ask":              {args: "health --name=", code: 2, wrong: "--name is empty", at: "server health"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Run(t.Context(), server(well), strings.Fields(tc.args), strings.NewReader("and stdin"), &stdout, &stderr)
			complaint := ""
			if tc.wrong != "" {
				complaint = "server: " + tc.wrong + "\n"
			}
			if tc.at != "" {
				complaint += "Run '" + tc.at + " --help' for usage.\n"
			}
			if code != tc.code || stdout.String() != tc.stdout || stderr.String() != complaint {
				t.Errorf("run = %d, want %d\nstdout: %q, want %q\nstderr: %q, want %q", code, tc.code, &stdout, tc.stdout, &stderr, complaint)
			}
		})
	}
}

func TestAWarningIsNoMistake(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), server(nil), []string{"config", "check", "--name", "dubious"}, nil, &stdout, &stderr)
	if code != ExitOK || stdout.String() != "the configuration is valid\n" || stderr.String() != "warning: its file is old\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, &stdout, &stderr)
	}
}

func TestMisuseWrapsItsCause(t *testing.T) {
	if err := Misuse("--config: %w", io.ErrUnexpectedEOF); !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "--config: unexpected EOF" {
		t.Errorf("Misuse = %v", err)
	}
}

func TestHealthAsksForWhatItsFlagSays(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		code int
	}{
		"lives":     {args: []string{"health", "--name", "there"}, code: ExitOK},
		"not ready": {args: []string{"health", "--name", "there", "--ready"}, code: ExitFailure},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			asked := ""
			code := Run(t.Context(), server(func(_ context.Context, cfg settings, ready bool) error {
				asked = cfg.Name
				if ready {
					return errors.New("not ready")
				}
				return nil
			}), tc.args, nil, &stdout, &stderr)
			if code != tc.code || asked != "there" || stdout.Len() > 0 || strings.Contains(stderr.String(), "usage") {
				t.Errorf("exit %d, asked %q, stdout %q, stderr %q", code, asked, &stdout, &stderr)
			}
		})
	}
}

func TestARescuePrintsItsLinkAlone(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), server(nil), []string{"rescue"}, nil, &stdout, &stderr)
	if code != ExitOK || stdout.String() != "https://here/bootstrap#code=1\n" || strings.Contains(stderr.String(), "code=") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, &stdout, &stderr)
	}
}

func TestHelpGoesToStandardOutput(t *testing.T) {
	for _, line := range []string{"--help", "config --help", "health --help", "help health"} {
		var stdout, stderr bytes.Buffer
		code := Run(t.Context(), server(nil), strings.Fields(line), nil, &stdout, &stderr)
		if code != ExitOK || !strings.Contains(stdout.String(), "Usage:") || stderr.Len() > 0 {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, &stdout, &stderr)
		}
	}
}

// A script that starts a server reads its links from the line as they are, with
// & and <.
func TestTheReadyLineIsOneLineWithLinksAsTheyAre(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var stdout, stderr bytes.Buffer
	code := Run(ctx, server(nil), []string{"serve"}, nil, &stdout, &stderr)
	if want := `{"link":"https://here/<x>#code=1&pin=2"}` + "\n"; code != ExitOK || stdout.String() != want {
		t.Errorf("exit %d, stdout %q, want %q, stderr %q", code, &stdout, want, &stderr)
	}
}

// full is an output that takes nothing, like a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAnAnswerThatCannotBeWrittenIsAFailure(t *testing.T) {
	for _, line := range []string{"version", "config check", "config print", "rescue"} {
		var stderr bytes.Buffer
		code := Run(t.Context(), server(nil), strings.Fields(line), nil, full{}, &stderr)
		if code != ExitFailure || strings.Count(stderr.String(), "no space left") != 1 {
			t.Errorf("%s: exit %d, stderr %q", line, code, &stderr)
		}
	}
}
