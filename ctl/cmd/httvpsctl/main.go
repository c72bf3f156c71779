// Command httvpsctl is the operator's command: a client of the admin API.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/httvps/httvps/ctl/internal/cli"
	"github.com/httvps/httvps/ctl/internal/terminal"
)

var version = "dev" // set when it is linked

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	process := cli.Process{
		Args:    os.Args[1:],
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Getenv:  os.Getenv,
		Version: version,
	}
	if out := terminal.Of(os.Stdout); out != nil {
		process.StdoutIsTerminal, process.StdoutSize = true, out.Size
	}
	if t := terminal.Of(os.Stdin); t != nil {
		process.Person = t
	}
	return cli.Run(ctx, process)
}
