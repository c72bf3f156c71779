// Package cli is httvpsctl's commands: what an operator types, what it asks of
// the service, and how the answer is shown.
//
// Standard output carries only what was asked for, so that it can be piped;
// everything said about it goes to standard error.
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/terminal"
)

// Exit codes of Run.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Person is whoever sits at the terminal.
type Person interface {
	// ReadLine reads a line as it is typed.
	ReadLine(context.Context) (string, error)
	// ReadSecret reads a line that is not shown.
	ReadSecret(context.Context) (string, error)
}

// Process is the world of one command.
type Process struct {
	Args    []string // without the program's name
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Getenv  func(string) string
	Person  Person // nil when nobody can be asked
	Version string

	// StdoutIsTerminal says that Stdout is shown to a person as it is.
	StdoutIsTerminal bool
	// StdoutSize returns how many characters and lines it has; nil, and zeros: unknown.
	StdoutSize func() (width, height int)
}

// Run does what p.Args say and returns the exit code.
func Run(ctx context.Context, p Process) int {
	a := &app{Process: p}
	root := a.root()
	root.SetArgs(p.Args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	a.say("httvpsctl: %s", api.Hide(sentence(err)))
	if errors.Is(err, errPending) {
		return ExitPending
	}
	if wrong, ok := errors.AsType[*usageError](err); ok {
		if wrong.command != "" {
			a.say("Run '%s --help' for what it takes.", wrong.command)
		}
		return ExitUsage
	}
	return ExitFailed
}

// sentence is what to tell about err.
func sentence(err error) string {
	text := err.Error()
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	lost, ok := errors.AsType[*api.UnreachableError](err)
	switch {
	case !ok || !lost.MaybeDone:
		return text
	case lost.Key == "":
		return text + ". It may have been done all the same: look before you repeat it"
	default:
		return text + ". It may have been done all the same: repeating it with --idempotency-key " + lost.Key + " does not do it twice"
	}
}

// usageError says that the command line itself is wrong.
type usageError struct {
	command string // the command whose help explains, empty when none does
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func misuse(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd.CommandPath(), err: fmt.Errorf(format, args...)}
}

// app is one run of the command.
type app struct {
	Process
	lines *bufio.Reader // standard input, when it is no terminal
	flags struct {
		api, token, ca, output, reason string
		timeout                        time.Duration
	}
}

// say tells the operator one line beside the result.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.Stderr, terminal.Clean(fmt.Sprintf(format, args...))) //nolint:errcheck // nowhere left to say it
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "httvpsctl",
		Short: "Operate an HTTVPS service",
		Long: `httvpsctl operates an HTTVPS service through its admin API.

A new service prints a bootstrap URL when it starts: "httvpsctl bootstrap URL"
makes you its owner and logs you in. Elsewhere, use "httvpsctl login"; with an
operator's invitation, "httvpsctl accept URL".

The address and the token are taken from the flags, else from the environment
(HTTVPS_API, HTTVPS_TOKEN, HTTVPS_CA), else from the saved login.`,
		Args:          cobra.ArbitraryArgs,
		RunE:          a.group,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if a.flags.output != "table" && a.flags.output != "json" {
				return misuse(cmd, "-o is %q, want table or json", a.flags.output)
			}
			if a.flags.timeout <= 0 {
				return misuse(cmd, "--timeout is %s, want more than 0", a.flags.timeout)
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return misuse(cmd, "%w", inWords(err))
	})
	root.Version = a.Version
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.Flags().Bool("version", false, "print the version")
	flags := root.PersistentFlags()
	flags.StringVar(&a.flags.api, "api", "", "`URL` of the admin API with its path: the value of \"admin\" in the service's ready line, or of \"api\" when it has no \"admin\"")
	flags.StringVar(&a.flags.token, "token", "", "API `TOKEN`, or - to read it from standard input; a token given here can be seen in the list of processes: prefer HTTVPS_TOKEN or login")
	flags.StringVar(&a.flags.ca, "ca", "", "PEM `FILE` of the only certificate authority to trust")
	flags.StringVarP(&a.flags.output, "output", "o", "table", "how to print: table or json")
	flags.StringVar(&a.flags.reason, "reason", "", "why you change something, for the audit log: `TEXT` of at most 200 characters")
	flags.DurationVar(&a.flags.timeout, "timeout", 30*time.Second, "how long to wait for each answer")

	root.AddCommand(
		a.bootstrapCommand(), a.acceptCommand(), a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.versionCommand(),
		a.userCommand(), a.planCommand(), a.subscriptionCommand(), a.deviceCommand(),
		a.regionCommand(), a.gatewayCommand(), a.outlineCommand(), a.sessionCommand(), a.usageCommand(), a.topCommand(), a.bulkCommand(), a.applyCommand(), a.whyCommand(), a.operatorCommand(), a.tokenCommand(), a.auditCommand(), a.webhookCommand(), a.settingsCommand(), a.manCommand(),
	)
	a.complete(root)
	return root
}

// inWords says what a flag wants instead of which parser refused its value.
func inWords(err error) error {
	invalid, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	flag := invalid.GetFlag()
	switch flag.Value.Type() {
	case "int":
		return fmt.Errorf("--%s: want a whole number", flag.Name)
	case "duration":
		return fmt.Errorf("--%s: want a time with its unit, such as 30s or 24h", flag.Name)
	case "bool":
		return fmt.Errorf("--%s: want true or false", flag.Name)
	default:
		return err
	}
}

// noun is a command that only holds others.
func (a *app) noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: a.group}
	cmd.AddCommand(verbs...)
	return cmd
}

// group answers a command that needs a further word: cobra would print its
// help and call it success.
func (a *app) group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return misuse(cmd, "%s needs a command", cmd.CommandPath())
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return misuse(cmd, "%s has no command %q: did you mean %s?", cmd.CommandPath(), args[0], near[0])
	}
	return misuse(cmd, "%s has no command %q", cmd.CommandPath(), args[0])
}

// exactly wants n arguments, as the command's Use line names them.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return misuse(cmd, "%d arguments, want %d: %s", len(args), n, cmd.UseLine())
		}
		return nil
	}
}

// needs is a PreRunE that wants these text flags to be given and not empty.
// Cobra's own required flags would not end in a usage error, and take an empty
// text, which a script's unset variable is, for an answer.
func needs(flags ...string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		var missing []string
		for _, name := range flags {
			if cmd.Flag(name).Value.String() == "" {
				missing = append(missing, "--"+name)
			}
		}
		if len(missing) > 0 {
			return misuse(cmd, "%s needs %s", cmd.CommandPath(), strings.Join(missing, " and "))
		}
		return nil
	}
}

// asking is a RunE that asks the service.
func (a *app) asking(run func(cmd *cobra.Command, c *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd, c, args)
	}
}
