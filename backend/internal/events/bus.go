package events

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// NATSOptions say how to reach a NATS server.
type NATSOptions struct {
	// URL is that of a server, or of several with commas between them. It may hold
	// credentials, which no error and no log repeats.
	URL string
	// Service names the service: several may use one server.
	Service string
	// Told is called when another process has something new, and when something
	// may have been missed. It must not block.
	Told func()
	// State is called with whether the server can be reached, at each change.
	State  func(connected bool)
	Logger *slog.Logger
}

// NATS is a Bus on plain NATS publish and subscribe. It connects by itself, also
// when the server is away at first.
type NATS struct {
	conn    *nats.Conn
	subject string
	closed  chan struct{}
}

const (
	busTimeout    = 2 * time.Second // to connect, and to write
	busReconnect  = 250 * time.Millisecond
	busJitter     = 100 * time.Millisecond
	busPing       = 5 * time.Second // a server that fell silent is found within two
	busMaxPings   = 2
	noBuffer      = -1 // what cannot be sent now is worth nothing later
	endless       = -1
	subjectPrefix = "httvps."
)

// ConnectNATS returns a bus that stays connected until Close. The error says that
// the options cannot be used at all.
func ConnectNATS(ctx context.Context, opts NATSOptions) (*NATS, error) {
	b := &NATS{subject: subjectPrefix + opts.Service + ".events", closed: make(chan struct{})}
	up := func(*nats.Conn) {
		opts.State(true)
		opts.Logger.InfoContext(ctx, "wake-up bus connected")
		opts.Told() // whatever was said meanwhile
	}
	var err error
	b.conn, err = nats.Connect(opts.URL,
		nats.Name("httvps-backend"), nats.NoEcho(), nats.Timeout(busTimeout), nats.FlusherTimeout(busTimeout),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(endless), nats.ReconnectWait(busReconnect),
		nats.ReconnectJitter(busJitter, busJitter), nats.ReconnectBufSize(noBuffer),
		nats.PingInterval(busPing), nats.MaxPingsOutstanding(busMaxPings),
		nats.IgnoreAuthErrorAbort(), // credentials that are wrong today may be right tomorrow
		nats.ConnectHandler(up), nats.ReconnectHandler(up),
		nats.DisconnectErrHandler(func(*nats.Conn, error) {
			opts.State(false)
			opts.Logger.WarnContext(ctx, "wake-up bus away: events wait for the next poll")
		}),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // not to stderr
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }),
	)
	if err != nil {
		return nil, fmt.Errorf("nats.url: %w", unusable(err))
	}
	if _, err := b.conn.Subscribe(b.subject, func(*nats.Msg) { opts.Told() }); err != nil {
		b.Close()
		return nil, fmt.Errorf("subscribe to the wake-up bus: %w", err)
	}
	if !b.conn.IsConnected() {
		opts.Logger.WarnContext(ctx, "wake-up bus away: events wait for the next poll")
	}
	return b, nil
}

// unusable keeps what an error says unless it may repeat the URL.
func unusable(err error) error {
	return fmt.Errorf("the address cannot be used (%T)", err)
}

// Announce implements Bus. The message is empty.
func (b *NATS) Announce() error {
	if err := b.conn.Publish(b.subject, nil); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	return nil
}

// Connected reports whether the server can be reached.
func (b *NATS) Connected() bool { return b.conn.IsConnected() }

// Close ends the connection.
func (b *NATS) Close() {
	b.conn.Close()
	<-b.closed
}
