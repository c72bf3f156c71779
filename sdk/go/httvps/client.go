package httvps

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// goodAfter is how long a session has to last for the next loss to count
	// as the first one.
	goodAfter = 30 * time.Second
)

// ErrRan says that [Client.Run] was called twice. A client runs once.
var ErrRan = errors.New("the client is running or has run")

// ErrNoSession says that a client has no session at the moment.
var ErrNoSession = errors.New("not connected")

// Config says how a [Client] works. Store is required, everything else has a
// default.
type Config struct {
	// Store holds key and profile of an enrolled device. Clients that share one are
	// the same device; each has a session that counts towards the plan's.
	Store Store

	// OnEvent is told what changes, one call after another, from within Run.
	// It should return quickly: the client waits for it.
	OnEvent func(Event)

	// Agent is the program's name and version for the operator, at most 64
	// printable ASCII characters; default "httvps-go".
	Agent string

	// NetDial opens the connections to service and gateways; nil means
	// net.Dialer.
	NetDial NetDial

	// Memory bounds what the client holds for its streams; default Desktop.
	Memory Memory

	// MinBackoff and MaxBackoff bound the wait between attempts: the first is
	// drawn from zero to MinBackoff, and each failure doubles that bound up to
	// MaxBackoff. Defaults: 200 ms and 30 s.
	MinBackoff, MaxBackoff time.Duration
}

// Conn is what connections of [Client.DialContext] can do besides what every
// net.Conn can.
type Conn interface {
	net.Conn

	// CloseWrite ends this direction behind what was written; reading goes on.
	CloseWrite() error

	// CloseRead says that nothing more will be read; writing goes on.
	CloseRead() error

	// Abort breaks the connection off in both directions. Unlike Close it
	// loses what is on its way, and the target sees a reset.
	Abort()
}

// Client keeps a session up and opens connections through it. All methods may
// be called from any goroutine.
type Client struct {
	cfg   Config
	ran   atomic.Bool
	hurry chan struct{} // holds one when the network has changed
	urge  chan struct{} // holds one when something waits for another gateway

	remembering sync.Mutex // guards the profile in the store

	mu      sync.Mutex     // guards the following fields
	runner  *runner        // what Run works with; nil while it does not run
	session *mux.Session   // nil while there is none
	lost    error          // why session has no connection; nil: it has one
	left    []*mux.Session // whose gateways go away, with streams that go on; the oldest first
	status  Status         // but for what the session itself knows
	last    error          // what went wrong last
	ended   error          // set when Run has returned
	changed chan struct{}  // closed and replaced when one of them changes
}

// NewClient returns a client that does nothing before [Client.Run].
func NewClient(cfg Config) (*Client, error) {
	var problems []error
	if cfg.Store == nil {
		problems = append(problems, errors.New("no store"))
	}
	if cfg.Agent == "" {
		cfg.Agent = "httvps-go"
	}
	if !isAgent(cfg.Agent) {
		problems = append(problems, fmt.Errorf("agent has %d bytes, want at most %d printable ASCII characters",
			len(cfg.Agent), wire.MaxAgent))
	}
	if cfg.MinBackoff == 0 {
		cfg.MinBackoff = 200 * time.Millisecond
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = max(30*time.Second, cfg.MinBackoff)
	}
	if cfg.MinBackoff < 0 || cfg.MaxBackoff < cfg.MinBackoff {
		problems = append(problems, fmt.Errorf("back-off from %v to %v", cfg.MinBackoff, cfg.MaxBackoff))
	}
	if cfg.Memory.budget() == 0 {
		problems = append(problems, fmt.Errorf("memory %v is neither Desktop nor Mobile", cfg.Memory))
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("client: %w", errors.Join(problems...))
	}
	cfg.OnEvent = oneByOne(cfg.OnEvent)
	return &Client{cfg: cfg, changed: make(chan struct{}), hurry: make(chan struct{}, 1), urge: make(chan struct{}, 1)}, nil
}

// oneByOne tells one event after another: a session may go on over another connection
// while the next one comes up.
func oneByOne(tell func(Event)) func(Event) {
	var telling sync.Mutex
	return func(e Event) {
		if tell == nil {
			return
		}
		telling.Lock()
		defer telling.Unlock()
		tell(e)
	}
}

func isAgent(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return len(s) <= wire.MaxAgent
}

// Run keeps a session up until ctx ends, and returns its cause, or until the
// service refuses for good, and returns a *RefusedError. Whatever may pass
// (a network that is down, a gateway that restarts, a control plane that is
// away) it waits out. Before the first attempt it returns ErrNotEnrolled or
// another error of the store. When it returns, all of its goroutines have.
func (c *Client) Run(ctx context.Context) error {
	if c.ran.Swap(true) {
		return ErrRan
	}
	err := c.run(ctx)
	c.change(func() { c.ended = err })
	return err
}

// change applies f to the guarded fields and wakes who waits for them.
func (c *Client) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Client) run(ctx context.Context) error {
	r, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	c.change(func() { c.runner = r })
	defer r.closeFresh()
	defer r.behind.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	delays := backoff{min: c.cfg.MinBackoff, max: c.cfg.MaxBackoff}
	renewal := delays
	wg.Go(func() {
		if err := r.tokens.keepFresh(ctx, renewal); err != nil {
			cancel(err)
		}
	})
	for {
		lasted, err := r.round(ctx)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if refused := finalRefusal(err); refused != nil {
			c.cfg.OnEvent(Event{Kind: Refused, Err: refused})
			return refused
		}
		if ctx.Err() != nil {
			return err
		}
		if lasted >= goodAfter {
			delays.reset()
		}
		if r.fresh != nil {
			continue // a gateway waits for the device to introduce itself
		}
		wait := delays.next(retryAfter(err))
		c.change(func() { c.last = err })
		c.cfg.OnEvent(Event{Kind: Waiting, Wait: wait, Err: err})
		if c.pause(ctx, wait) { // the end of ctx is seen above
			r.fronts.thaw()
			delays.reset()
		}
	}
}

// pause waits, and reports whether it ended early for a network that has changed.
func (c *Client) pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-c.hurry:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// NetworkChanged tells the client that the device may have another network now, or
// has slept. A session that is up goes on over a new connection at once; where that
// cannot be had, or the gateway does not know how, the present one is asked for a sign
// of life, and given up within seconds if there is none. An attempt that is waited for
// begins at once. Programs that are not told of such things need not call it: a
// connection that is dead is noticed anyway when something is sent.
func (c *Client) NetworkChanged() {
	select {
	case c.hurry <- struct{}{}:
	default:
	}
}

// runner is what one Run works with.
type runner struct {
	client *Client
	creds  credentials
	tokens *tokens
	tls    func(host string) *tls.Config
	knock  *Knock   // of the profile, for tokens that bring none
	known  []string // gateways of the profile
	clock  gatewayClock
	fronts fronts
	fresh  *freshCarrier  // where the device can introduce itself at once; nil: nowhere
	behind sync.WaitGroup // sessions that the device has left
}

// freshCarrier is one to a gateway that no longer had the session that it was opened for.
type freshCarrier struct {
	*opened
	gateway Gateway
	url     string // that of its URLs
}

func (r *runner) closeFresh() {
	if r.fresh != nil {
		_ = r.fresh.conn.Close()
	}
}

func (c *Client) prepare(ctx context.Context) (*runner, error) {
	profile, err := c.cfg.Store.Profile(ctx)
	if err != nil {
		return nil, err
	}
	if err := profile.Validate(); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	key, err := c.cfg.Store.Key(ctx)
	if err != nil {
		return nil, err
	}
	public, err := publicKey(key)
	if err != nil {
		return nil, err
	}
	service, err := newAPI(profile.API, profile.Pin, c.cfg.NetDial)
	if err != nil {
		return nil, err
	}
	config, err := tlsConfigs(profile.Pin)
	if err != nil {
		return nil, err
	}
	tokens, err := newTokens(service, key, profile.DeviceID)
	if err != nil {
		return nil, err
	}
	r := &runner{
		client: c,
		creds:  credentials{device: tokens.device, public: [32]byte(public), key: key, agent: c.cfg.Agent},
		tokens: tokens,
		tls:    config,
		knock:  profile.Knock,
		known:  profile.Gateways,
	}
	service.around = func() []way { return r.around(profile.API) }
	for gateway, others := range profile.Fronts {
		r.fronts.learn(gateway, gateway, others)
	}
	tokens.learned = func(ctx context.Context, gateways []Gateway) {
		c.remember(ctx, func(p *Profile) bool { return nameGateways(p, gateways) })
	}
	return r, nil
}

// Status is how a [Client] is doing.
type Status struct {
	Connected bool      // a session is up, and has a connection
	Degraded  bool      // a session is up, has lost its connection and waits for another
	Gateway   Gateway   // with Connected or Degraded, like the following two
	Session   string    // 32 hexadecimal digits
	Limits    Limits    // what the gateway allows
	Since     time.Time // since when there is a session, or none; zero before the first time

	// RoundTrip is how long the gateway last took to answer; 0: not measured yet.
	RoundTrip time.Duration

	// Streams is how many connections and sockets are open.
	Streams int

	// Sent and Received are bytes since Run began, of all sessions.
	Sent, Received uint64

	// Err is what went wrong last, without Connected; with Degraded, how the connection
	// was lost.
	Err error
}

// Status returns how the client is doing.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	for _, session := range c.left {
		stats := session.Stats()
		s.Streams += stats.Streams
		s.Sent += stats.Sent
		s.Received += stats.Received
	}
	if c.session == nil {
		s.Err = c.last
		return s
	}
	stats := c.session.Stats()
	s.Connected, s.Degraded, s.Err = c.lost == nil, c.lost != nil, c.lost
	s.RoundTrip = stats.RoundTrip
	s.Streams += stats.Streams
	s.Sent += stats.Sent
	s.Received += stats.Received
	return s
}

// Ping measures the time to the gateway and back. Without a session the error is
// that of Status, or ErrNoSession.
func (c *Client) Ping(ctx context.Context) (time.Duration, error) {
	c.mu.Lock()
	session, last := c.session, c.last
	c.mu.Unlock()
	switch {
	case session != nil:
		return session.Ping(ctx)
	case last != nil:
		return 0, fmt.Errorf("%w: %w", ErrNoSession, last)
	}
	return 0, ErrNoSession
}

// conn is a stream as DialContext returns it, with all that io.Copy looks for.
type conn struct{ *mux.Stream }

var _ Conn = conn{}

// Abort resets the stream.
func (c conn) Abort() { c.Reset(wire.CodeCancelled) }

// DialContext opens a connection through the tunnel; network is "tcp" or "udp". The
// host of address is not resolved here but at the far end. It waits for a session,
// for a free place in it and, with TCP, for the target to accept, as long as ctx
// allows: give ctx an end. A TCP connection is a [Conn]. A UDP one is a
// net.PacketConn as well and reads and writes datagrams; what
// [Client.ListenPacket] says holds for it too.
//
// The error is an *OpenError when the session works and the target could not be
// had; with UDP that is what reading and writing report. It wraps net.ErrClosed
// after Run has returned, beside what Run returned; and ctx's cause when ctx ended
// first, beside what went wrong last. A connection whose session has ended fails
// with [mux.ErrEnded].
func (c *Client) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "udp" {
		return nil, net.UnknownNetworkError(network)
	}
	target, err := parseTarget(ctx, network, address)
	if err != nil {
		return nil, &OpenError{Code: wire.CodeRefused.String(), Target: address, Err: err}
	}
	if network == "udp" {
		conn := &udpConn{peer: netAddr(target), flowConn: flowConn{target: address, open: func(ctx context.Context) (*mux.Flow, error) {
			return c.openFlow(ctx, wire.KindUDP, target, address)
		}}}
		if err := conn.begin(ctx); err != nil {
			return nil, err
		}
		return conn, nil
	}
	var stream *mux.Stream
	if err := c.open(ctx, address, func(session *mux.Session) (err error) {
		stream, err = session.Open(ctx, target)
		return err
	}); err != nil {
		return nil, err
	}
	return conn{stream}, nil
}

// open has in open something in the current session, and in the next one when that
// has ended, or its gateway goes away and has not looked at it.
func (c *Client) open(ctx context.Context, address string, in func(*mux.Session) error) error {
	var dead *mux.Session
	for {
		session, err := c.await(ctx, dead)
		if err != nil {
			return fmt.Errorf("open %s: %w", address, err)
		}
		if err = in(session); err == nil {
			return nil
		}
		if refused, ok := errors.AsType[*mux.StreamError](err); ok {
			return &OpenError{Code: refused.Code.Meaning().String(), Target: address, Err: err}
		}
		switch {
		case errors.Is(err, mux.ErrUnprocessed):
			select {
			case c.urge <- struct{}{}:
			default:
			}
		case !errors.Is(err, mux.ErrEnded):
			return fmt.Errorf("open %s: %w", address, err)
		}
		// Nothing was sent on it yet, so the next session may try again.
		dead = session
	}
}

func parseTarget(ctx context.Context, network, address string) (wire.Addr, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return wire.Addr{}, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return wire.Addr{}, err
	}
	return wire.AddrFromHostPort(host, uint16(port))
}

// await returns the current session as soon as there is one other than dead.
func (c *Client) await(ctx context.Context, dead *mux.Session) (*mux.Session, error) {
	for {
		c.mu.Lock()
		session, last, ended, changed := c.session, c.last, c.ended, c.changed
		c.mu.Unlock()
		if ended != nil {
			return nil, fmt.Errorf("%w: %w", net.ErrClosed, ended)
		}
		if session != nil && session != dead {
			return session, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if last != nil {
				return nil, fmt.Errorf("no session: %w (%w)", context.Cause(ctx), last)
			}
			return nil, fmt.Errorf("no session: %w", context.Cause(ctx))
		}
	}
}
