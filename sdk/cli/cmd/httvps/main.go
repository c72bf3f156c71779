// Command httvps is the device's end of an HTTVPS service: it enrols this
// device and runs a tunnel that other programs use through proxies and
// forwarded ports.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/control"
	"github.com/httvps/httvps/sdk/cli/internal/home"
	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// version is set by the linker.
var version = "dev"

// Exit codes, a contract with scripts.
const (
	exitOK          = 0 // also: ended by the user
	exitFailure     = 1 // anything without a code of its own, such as a port in use
	exitUsage       = 2 // wrong arguments, or a home that does not fit the command
	exitRefused     = 3 // the service will not serve this device
	exitUnreachable = 4 // nobody answered who could decide
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main with everything from outside handed in.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends things in order, a second one at once.
	context.AfterFunc(ctx, stop)

	speak := words.Of(os.Getenv)
	root := newRoot(speak)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	code := exitCode(err)
	if code != exitOK {
		tell(stderr, speak, cmd.Name(), err)
	}
	return code
}

// usageError is a mistake in how the program was called.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// usage makes mistakes that cobra finds in arguments usage errors.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef("%w; see %s --help", err, cmd.CommandPath())
		}
		return nil
	}
}

// exitCode is the one table from errors to exit codes.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[*usageError](err); ok || errors.Is(err, httvps.ErrNotEnrolled) || errors.Is(err, httvps.ErrInvitation) {
		return exitUsage
	}
	// A refusal inside of an UnreachableError was not final, but it is the
	// better explanation of why there is no session.
	if _, ok := errors.AsType[*httvps.RefusedError](err); ok {
		return exitRefused
	}
	if _, ok := errors.AsType[*httvps.UnreachableError](err); ok {
		return exitUnreachable
	}
	return exitFailure
}

// tell writes the error of a command and, where there is one, the way out. The
// doctor has told that already.
func tell(w io.Writer, speak words.Language, command string, err error) {
	text := err.Error()
	if _, ours := errors.AsType[*usageError](err); !ours {
		text = plainText(text) // a usage error has lines
	}
	_, _ = fmt.Fprintf(w, "httvps: %s\n", text)
	if command == "doctor" {
		return
	}
	for _, line := range waysOut(speak, command, err) {
		_, _ = fmt.Fprintln(w, line)
	}
	if refused, ok := errors.AsType[*httvps.RefusedError](err); ok {
		for _, d := range refused.Devices {
			seen := "-"
			if !d.LastSeen.IsZero() {
				seen = d.LastSeen.UTC().Format(time.RFC3339)
			}
			_, _ = fmt.Fprintf(w, "  --replace %q  %q  %s\n", d.ID, d.Name, seen)
		}
	}
}

// waysOut says what helps against an error of a command.
func waysOut(speak words.Language, command string, err error) (lines []string) {
	refused, _ := errors.AsType[*httvps.RefusedError](err)
	_, stranger := errors.AsType[*httvps.StrangerError](err)
	_, unreachable := errors.AsType[*httvps.UnreachableError](err)
	switch {
	case refused != nil:
		if refused.Code == "device_limit" {
			lines = append(lines, speak.Say("The operator can make room: ask to remove a device that you no longer use (httvpsctl device revoke)."))
		}
		lines = append(lines, speak.Explain(refused.Code))
		switch refused.Code {
		case "device_revoked", "device_mismatch", "device_not_found", "conflict":
			lines = append(lines, speak.Say("With a new link: httvps logout, then httvps enroll LINK"))
		}
		if refused.Support != "" {
			lines = append(lines, speak.Say("Whom to ask: %s", plainText(refused.Support)))
		}
	case stranger:
		lines = append(lines, speak.Say("The address or the pin in the link may be wrong, or this device does not know the service's certificate authority. Ask the operator for a new link."))
	case unreachable && command == "enroll": // the doctor wants a device
		lines = append(lines, speak.Say("Check this device's network. If other sites work, the service may be down or blocked here."))
	case unreachable:
		lines = append(lines, speak.Say("Check this device's network. If other sites work, the service may be down or blocked here; httvps doctor says more."))
	}
	if open, ok := errors.AsType[*httvps.OpenError](err); ok {
		lines = append(lines, speak.Explain(open.Code))
	}
	if errors.Is(err, httvps.ErrNotEnrolled) {
		lines = append(lines, speak.Say("Ask the operator of your service for an invitation link, then: httvps enroll LINK"))
	}
	if errors.Is(err, home.ErrInUse) {
		lines = append(lines, speak.Say("End it first (httvps status says how it goes), or give this one another directory with --home."))
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		lines = append(lines, speak.Say("Another program listens there: end it, or choose another port (0: any free one)."))
	}
	if errors.Is(err, control.ErrNobody) {
		lines = append(lines, speak.Say("Start it: httvps connect"))
	}
	return lines
}

// wished reports whether the user has ended the command.
func wished(cmd *cobra.Command) bool { return cmd.Context().Err() != nil }

// surroundings is what commands are given.
type surroundings struct {
	speak words.Language
	dir   func() (string, error) // of the home
}

// open takes hold of the home.
func (s surroundings) open() (*home.Store, error) {
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	return home.Open(dir)
}

// look is open for those who change nothing, beside whoever has hold of it.
func (s surroundings) look() (*home.Store, error) {
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	return home.Look(dir), nil
}

func newRoot(speak words.Language) *cobra.Command {
	var dir string
	root := &cobra.Command{
		Use:           "httvps",
		Short:         "Use an HTTVPS service from this device",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Long: `Use an HTTVPS service from this device.

First enrol the device with the link that the operator of your service gave you,
then connect and point programs at the SOCKS5 proxy, or at an HTTP proxy (--http):

  httvps enroll LINK
  httvps connect
  curl -x socks5h://127.0.0.1:1080 https://example.com/

Exit codes: 0 ended by the user, 1 failure, 2 usage, 3 refused by the service,
4 the service could not be reached.`,
		Version: version,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.Flags().Bool("version", false, "print the version")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	root.PersistentFlags().StringVar(&dir, "home", "", "directory of this device's key and profile (default httvps in the user's configuration directory)")
	around := surroundings{speak: speak, dir: func() (string, error) {
		if dir != "" {
			return dir, nil
		}
		return home.Dir()
	}}
	root.AddCommand(newEnroll(around), newConnect(around), newStatus(around), newGateways(around), newSpeedtest(around),
		newDoctor(around), newLogout(around), newVersion(), newMan())
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), cmd.Root().Name(), version)
			return err
		},
	}
}
