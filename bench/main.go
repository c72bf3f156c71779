// Command bench measures HTTVPS as people use it: through the shipped binaries,
// beside a raw TLS relay of the same two hops and beside no tunnel at all, all
// of them under the same loads, one after the other, in rounds. It writes a
// table to standard output and everything it found to a file of JSON.
// docs/benchmarks.md explains each figure.
//
//	go run ./bench [-run REGEX] [-rounds N] [-quick] [-patience D] [-out FILE] [-bin DIR]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		err = play(ctx, os.Args[1], os.Stdin, os.Stdout)
	} else {
		err = bench(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	run    *regexp.Regexp
	rounds int
	quick  bool
	out    string
	bin    string
	buffer int

	// patience is how long one run may be repeated because others keep the
	// machine busy.
	patience time.Duration
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var pattern string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&pattern, "run", "", "measure only the figures whose name this regular expression finds")
	flags.IntVar(&o.rounds, "rounds", 0, "rounds of each measurement; 0: as many as each has by default")
	flags.BoolVar(&o.quick, "quick", false, "short loads: to see that everything works, not how fast")
	flags.StringVar(&o.out, "out", filepath.Join("bench", "out", "latest.json"), "file for the results")
	flags.StringVar(&o.bin, "bin", "", "folder of the binaries; empty: they are built now")
	flags.IntVar(&o.buffer, "relay-buffer", 0, "bytes that the relay copies at once; 0: the fastest")
	flags.DurationVar(&o.patience, "patience", 0, "how long a load may be repeated while others use the machine")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("what is %q?", flags.Arg(0))
	}
	if o.rounds < 0 || o.rounds > 100 {
		return o, fmt.Errorf("-rounds is %d, want 1 to 100, or 0", o.rounds)
	}
	var err error
	if o.run, err = regexp.Compile(pattern); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	return o, nil
}

// bench runs the measurements and writes what they found.
func bench(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	chosen := choose(measurements(), o.run)
	if len(chosen) == 0 {
		return fmt.Errorf("-run %s finds no figure", o.run)
	}
	dir, err := os.MkdirTemp("", "httvps-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.bin == "" {
		o.bin = filepath.Join(dir, "bin")
		if err := build(ctx, o.bin); err != nil {
			return err
		}
	}
	whole := newMeter()
	env, err := newEnvironment(ctx, o, dir, stderr)
	if err != nil {
		return err
	}
	found := env.measure(ctx, chosen)
	if err := env.close(); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	report := newReport(chosen, found, machine(whole), o)
	if err := report.write(o.out); err != nil {
		return err
	}
	if err := report.table(stdout); err != nil {
		return err
	}
	return found.err()
}

// build makes the binaries as "make build" does.
func build(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", dir+string(filepath.Separator), //nolint:gosec // fixed words and a directory of ours
		"./backend/cmd/httvps-backend", "./gateway/cmd/httvps-gateway", "./sdk/cli/cmd/httvps")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the binaries (from the top of the repository): %w\n%s", err, out)
	}
	return nil
}
