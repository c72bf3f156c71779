package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/sdk/cli/internal/control"
	"github.com/httvps/httvps/sdk/cli/internal/forward"
	"github.com/httvps/httvps/sdk/cli/internal/home"
	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
)

func newConnect(around surroundings) *cobra.Command {
	var (
		proxy    proxyFlags
		forwards forwardFlags
		timeout  time.Duration
	)
	cmd := &cobra.Command{
		Use:   "connect",
		Short: "Run the tunnel and proxies in front of it",
		Long: `Run the tunnel and a SOCKS5 proxy in front of it, until Ctrl-C; with --http, an
HTTP proxy as well.

When the tunnel is up, one line of JSON on standard output says so:

  {"ready":true,"session":ID,"gateway":URL,"socks":ADDR,"http":ADDR,"forwards":[]}

What happens after that is told on standard error, one line per change. A
connection that is lost is made again for as long as it takes.

The proxies ask for no password, unless --proxy-login says which, and listen on
this machine only. Give programs the form socks5h:// where they have it: then names
are resolved at the far end of the tunnel, as they always are by way of --http.

What --direct names, the proxies reach from here and not through the tunnel; names
among it are resolved here, too, and all others never are. Browsers learn the rules
from http://HTTP-ADDR/proxy.pac, the address of their proxy's configuration:

  httvps connect --http 127.0.0.1:8118 --direct private --direct example.com

For programs that know no proxy, -L listens on one more port and carries what comes
to one target at the far end, for example questions to a name server there:

  httvps connect -L udp:5353:192.0.2.53:53
  dig @127.0.0.1 -p 5353 example.com

The ready line names each of them, in the order of the flags, as
{"proto":"udp","listen":ADDR,"target":"192.0.2.53:53"}.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usagef("--connect-timeout is %v, want more than 0", timeout)
			}
			specs, err := forwards.parse()
			if err != nil {
				return err
			}
			doors, err := proxy.parse()
			if err != nil {
				return err
			}
			store, err := takeHome(cmd.Context(), around.open, around.speak, cmd.ErrOrStderr())
			if cmd.Context().Err() != nil {
				return nil // the user's wish
			}
			if err != nil {
				return err
			}
			defer func() { _ = store.Close() }()
			// Asked first, so that a home without a device does not first
			// complain about a port.
			if _, err := store.Profile(cmd.Context()); err != nil {
				return err
			}
			if err := doors.listen(cmd.Context()); err != nil {
				return err
			}
			defer doors.close()
			ports, err := listenAll(cmd.Context(), specs)
			if err != nil {
				return err
			}
			defer closeAll(ports)
			t := &tunnel{
				speak:    around.speak,
				stdout:   cmd.OutOrStdout(),
				stderr:   cmd.ErrOrStderr(),
				socks:    doors.socks.Addr().String(),
				http:     doors.httpAddr(),
				forwards: tellAll(ports),
				timeout:  timeout,
				plans:    newPlans(),
			}
			client, err := httvps.NewClient(httvps.Config{Store: store, OnEvent: t.event, Agent: agent()})
			if err != nil {
				return err
			}
			parts := doors.parts(client)
			for i, port := range ports {
				parts = append(parts, part{"-L " + specs[i].String(), func(ctx context.Context) error {
					return port.Serve(ctx, client.DialContext)
				}})
			}
			parts = append(parts, part{"network", func(ctx context.Context) error { return watchNetwork(ctx, net.InterfaceAddrs, client.NetworkChanged) }})
			parts = append(parts, part{"sleep", func(ctx context.Context) error { return watchSleep(ctx, client.NetworkChanged) }})
			door, err := control.Listen(store.Path())
			if err != nil {
				t.say("status will not be available: %v", err)
			} else {
				parts = append(parts, part{"plan", func(ctx context.Context) error { return t.plans.run(ctx, client.Account) }})
				parts = append(parts, part{"status", func(ctx context.Context) error {
					return control.Serve(ctx, door, func() any { return t.status(ctx, client) }, client.DialContext)
				}})
			}
			return withSupport(cmd.Context(), client, t.run(cmd.Context(), client.Run, parts...))
		},
	}
	proxy.define(cmd)
	cmd.Flags().StringArrayVarP(&forwards.texts, "forward", "L", nil, "forward a port to one target, as "+forward.Form+"; IPv6 addresses in brackets, port 0 for any free one; may be repeated")
	cmd.Flags().BoolVar(&forwards.public, "forward-public", false, "let -L listen on an address that other machines can reach")
	cmd.Flags().DurationVar(&timeout, "connect-timeout", 20*time.Second, "give up when the first connection is not made by then")
	return cmd
}

// patience is how long connect waits for another one with the same home to end:
// longer than a service takes to end a session that it has refused.
const patience = 15 * time.Second

// takeHome opens the home. Where another process uses it, that one may be on
// its way out.
func takeHome(ctx context.Context, open func() (*home.Store, error), speak words.Language, stderr io.Writer) (*home.Store, error) {
	store, err := open()
	if !errors.Is(err, home.ErrInUse) {
		return store, err
	}
	_, _ = fmt.Fprintln(stderr, speak.Say("waiting up to %v: %v", patience, err))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for errors.Is(err, home.ErrInUse) {
		select {
		case <-tick.C:
			store, err = open()
		case <-ctx.Done():
			return nil, err
		}
	}
	return store, err
}

func agent() string {
	name := "httvps/" + version
	return name[:min(len(name), 64)]
}

// tunnel runs a client and its proxy and tells people and scripts about it.
type tunnel struct {
	stdout, stderr io.Writer
	speak          words.Language
	socks, http    string // http: "" when there is none
	forwards       []forwarded
	timeout        time.Duration
	plans          *plans
	whenReady      func() // instead of the ready line; nil: there is one

	mu    sync.Mutex // guards the following fields
	ready bool
	lost  bool  // the loss of a session was the last thing told
	last  error // why there is no session yet
	give  context.CancelCauseFunc
	over  func() bool // whether this end is ending it
}

// errTimeout ends the wait for the first session.
var errTimeout = errors.New("no connection in time")

// part is something that is served beside the client; its name is what people
// wrote to have it.
type part struct {
	name  string
	serve func(context.Context) error
}

// run serves until the user ends it, the service refuses or one part fails.
func (t *tunnel) run(parent context.Context, client func(context.Context) error, parts ...part) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	t.mu.Lock()
	t.give = cancel
	t.over = func() bool { return ctx.Err() != nil }
	t.mu.Unlock()
	timer := time.AfterFunc(t.timeout, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.ready {
			cancel(errTimeout)
		}
	})
	defer timer.Stop()

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := client(ctx); ctx.Err() == nil {
			cancel(err)
		}
	})
	for _, p := range parts {
		wg.Go(func() {
			if err := p.serve(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", p.name, err))
			}
		})
	}
	wg.Wait()
	switch err := context.Cause(ctx); {
	case parent.Err() != nil:
		return nil // the user's wish, whatever it broke off
	case errors.Is(err, errTimeout):
		return t.notInTime()
	default:
		return err
	}
}

// supportWait bounds the question whom to turn to, for the sake of which nobody is kept.
const supportWait = 5 * time.Second

// withSupport says with a refusal whom the user can turn to. A gateway does not know
// it, the service does.
func withSupport(ctx context.Context, client *httvps.Client, err error) error {
	refused, ok := errors.AsType[*httvps.RefusedError](err)
	if _, open := errors.AsType[*httvps.UnreachableError](err); !ok || open || refused.Support != "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, supportWait)
	defer cancel()
	account, failed := client.Account(ctx)
	if again, ok := errors.AsType[*httvps.RefusedError](failed); ok {
		account.Support = again.Support
	}
	said := *refused
	said.Support = account.Support
	return &said
}

// notInTime says why the first session did not come up.
func (t *tunnel) notInTime() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.last
	if last == nil {
		last = &httvps.UnreachableError{Errs: []error{errors.New("no answer")}}
	}
	return &timeoutError{after: t.timeout, last: last}
}

// timeoutError is a first session that did not come up in time.
type timeoutError struct {
	after time.Duration
	last  error
}

func (e *timeoutError) Error() string {
	return fmt.Sprintf("not connected within %v: %v", e.after, e.last)
}

func (e *timeoutError) Unwrap() error { return e.last }

// event tells of a change.
func (t *tunnel) event(e httvps.Event) {
	switch e.Kind {
	case httvps.Connecting:
		t.say("connecting to %s", host(e.Gateway))
	case httvps.Connected:
		t.say("connected to %s", host(e.Gateway))
		t.connected(e)
	case httvps.Degraded:
		t.say("the connection to %s is lost (%v); the session waits for another one", host(e.Gateway), e.Err)
	case httvps.Resumed:
		if e.Err != nil { // otherwise nobody noticed anything
			t.say("the session at %s goes on", host(e.Gateway))
		}
	case httvps.Moved:
		t.say("%s goes away; connected to %s, and open connections go on", host(e.From), host(e.Gateway))
	case httvps.LimitsChanged:
		t.say("%s", limitsText(e.Limits, t.speak))
	case httvps.Noticed:
		t.say("%s", noticeText(e.Notice, t.speak))
	case httvps.Disconnected:
		t.disconnected(e)
	case httvps.Waiting:
		t.waiting(e)
	case httvps.Refused: // told when run returns
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost = e.Kind == httvps.Disconnected
}

// disconnected tells why a session ended, unless this end did it: whoever
// pressed Ctrl-C knows, and any other reason of ours is told at the end.
func (t *tunnel) disconnected(e httvps.Event) {
	t.mu.Lock()
	over := t.over()
	t.mu.Unlock()
	if over {
		t.say("disconnected")
		return
	}
	t.say("lost the connection to %s: %v", host(e.Gateway), e.Err)
}

// waiting tells why the next attempt is not yet, unless that was told just now.
func (t *tunnel) waiting(e httvps.Event) {
	t.mu.Lock()
	t.last = e.Err
	told := t.lost
	t.mu.Unlock()
	wait := e.Wait.Round(100 * time.Millisecond)
	switch soon := e.Wait < time.Second; {
	case soon && told:
		t.say("retrying now")
	case soon:
		t.say("retrying now: %v", e.Err)
	case told:
		t.say("retrying in %v", wait)
	default:
		t.say("retrying in %v: %v", wait, e.Err)
	}
}

// say tells one line; errors in it may have words of the other end.
func (t *tunnel) say(format string, args ...any) {
	_, _ = fmt.Fprintln(t.stderr, plainText(t.speak.Say(format, args...)))
}

// connected prints the ready line for the first session.
func (t *tunnel) connected(e httvps.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ready {
		return
	}
	t.ready = true
	if t.whenReady != nil {
		t.whenReady()
		return
	}
	line, err := json.Marshal(struct {
		Ready    bool        `json:"ready"`
		Session  string      `json:"session"`
		Gateway  string      `json:"gateway"`
		SOCKS    string      `json:"socks"`
		HTTP     string      `json:"http"`
		Forwards []forwarded `json:"forwards"`
	}{true, e.Session, e.Gateway, t.socks, t.http, t.forwards})
	if err == nil {
		_, err = t.stdout.Write(append(line, '\n'))
	}
	if err != nil {
		t.give(fmt.Errorf("write the ready line: %w", err))
	}
}

// host returns the host of a URL: its path is nobody's business.
func host(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "?"
	}
	return u.Host
}
