// Package command is the frame of the servers' command lines: how a mistake
// ends a process, and the commands that every server has. A server brings its
// own flags, its configuration and what it does with them.
//
// Standard output carries only what was asked for, so that scripts can read it;
// everything else goes to standard error.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes of a process.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2 // a mistake in the command line
)

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Misuse returns the error of a mistake in the command line, which Run tells
// apart from all others. It formats and wraps as fmt.Errorf does.
func Misuse(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// Main runs root as this process until it is over, or until SIGINT or SIGTERM
// end its context, and returns the exit code.
func Main(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, root, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Hurry returns a channel that is closed when the process is told to stop a second time.
// stop ends it.
func Hurry() (hurry <-chan struct{}, stop func()) {
	told := make(chan os.Signal, 2)
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	again, over := make(chan struct{}), make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		for range 2 {
			select {
			case <-told:
			case <-over:
				return
			}
		}
		close(again)
	})
	return again, func() {
		signal.Stop(told)
		close(over)
		waiting.Wait()
	}
}

// Run does what args, without the program's name, say, tells stderr what went
// wrong, and returns the exit code. It completes root and all below it: a
// command that says nothing about its arguments takes none, and one that does
// nothing itself needs a command after it.
func Run(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	complete(root)
	for _, cmd := range root.Commands() {
		if version, ok := cmd.Annotations[versionKey]; ok {
			root.Version = version
			root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
		}
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	_, _ = fmt.Fprintf(stderr, "%s: %v\n", root.Name(), err) // there is nobody else to tell
	if _, ok := errors.AsType[usageError](err); ok {
		_, _ = fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
		return ExitUsage
	}
	return ExitFailure
}

func complete(cmd *cobra.Command) {
	if cmd.Args == nil {
		cmd.Args = noArgs
	}
	if !cmd.Runnable() {
		cmd.RunE = needCommand
	}
	for _, sub := range cmd.Commands() {
		complete(sub)
	}
}

// noArgs is cobra.NoArgs as a mistake in the command line.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Misuse("unknown argument %q for %q", args[0], cmd.CommandPath())
	}
	return nil
}

// needCommand is an error where cobra would print the help and succeed.
func needCommand(cmd *cobra.Command, _ []string) error {
	return Misuse("%s needs a command", cmd.CommandPath())
}
