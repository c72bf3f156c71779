package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// switchPause is how long a session keeps a server that it was switched to:
	// where several fail at once, it is no help to go round among them.
	switchPause = 30 * time.Second
	// assignTimeout bounds the question for a server.
	assignTimeout = 5 * time.Second
	// askPause is how long an answer stands that brought no other server.
	askPause = 3 * time.Second
	// mostPause bounds what an [Assigner] may say about it.
	mostPause = time.Minute
	// idleExits that no session uses are kept, with what was seen of them.
	idleExits = 64
	// MaxWatched is how many servers are probed that no session uses.
	MaxWatched = 256
)

var (
	// ErrNoServer is what an [Assigner] returns that has no server for a session.
	ErrNoServer = errors.New("there is no Outline server for this session")

	errLost    = errors.New("the Outline server is lost")
	errConnect = errors.New("it cannot be connected to")
)

// Server is a Shadowsocks server and how to use it. Servers can be compared with
// ==.
type Server struct {
	ID string // in reports and metrics; no secret
	// Generation tells the keys of a server apart that has had several.
	Generation int64
	Host       string // a name or an IP address
	Port       uint16
	Cipher     string
	Password   string
	Prefix     string // of salts; bytes
	// Managed says that the server is known to refuse private addresses itself. It
	// gets names and resolves them where it stands.
	Managed bool
}

// String returns the ID: the rest is secret or says where the server is.
func (s Server) String() string { return s.ID }

// GoString returns what String does.
func (s Server) GoString() string { return fmt.Sprintf("upstream.Server(%q)", s.ID) }

// Failed is a server that a session cannot use. The zero Failed is none.
type Failed struct {
	ID  string
	Why string // one of Why…
}

// Why a server cannot be used. The texts are stable: they are labels of metrics,
// and other programs are told them.
const (
	WhyConnect = "connect"   // it cannot be connected to
	WhyTimeout = "timeout"   // nothing came in time
	WhyClosed  = "no_answer" // it closed without a byte: target, or key
	WhyBroken  = "broken"    // what came is not under the key, or cut off
)

// Assignment is the answer of an [Assigner].
type Assignment struct {
	Server Server
	// RetryAfter is when to ask again where Server is the one that failed; 0: in 3 s.
	RetryAfter time.Duration
}

// An Assigner says which server a session leaves through. It is safe for
// concurrent use.
type Assigner interface {
	// Assign returns a session's server, which stays the same until it fails. Where
	// there is no other than the one that failed, that may be the answer again. The
	// error is [ErrNoServer] when the session may have none.
	Assign(ctx context.Context, session [16]byte, failed Failed) (Assignment, error)
	// Release says that a session with a server is over. It does not wait.
	Release(session [16]byte)
	// Probed is told what a probe of a server saw. It does not wait.
	Probed(Probe)
}

// OutlineConfig is how an [Outline] works.
type OutlineConfig struct {
	Policy   *Policy
	Assigner Assigner
	// Servers are probed also while no session uses them, until [Outline.Watch] says
	// otherwise.
	Servers []Server
	// Resolvers are name servers, asked through the servers.
	Resolvers []netip.AddrPort
	// Probe is a web server, asked through each server; the zero Addr: none is probed.
	Probe wire.Addr
	// ProbeInterval is the pause between two probes of a server.
	ProbeInterval time.Duration
	// ProbeTimeout bounds a probe; 0 means 5 s.
	ProbeTimeout time.Duration
	// MaxLookups is that of [DirectConfig].
	MaxLookups int
	// Probed, unless nil, is told what the Assigner is.
	Probed func(Probe)
	// Held, unless nil, is told of the memory in which connections hold what came and
	// nobody has taken yet: n bytes more, or less.
	Held func(n int)
	// Switched, unless nil, is told when a session has gone over to another server.
	Switched func()
}

// Outline sends streams and flows out through Shadowsocks servers. [Outline.Run]
// probes them.
type Outline struct {
	cfg      OutlineConfig
	lookups  places
	suspect  chan *exit
	interval atomic.Int64  // between two probes of a server
	watching chan struct{} // holds one token when that, or what is watched, is new
	changes  atomic.Int64  // how often something was told to have changed

	mu      sync.Mutex // guards the following fields
	exits   map[Server]*exit
	watched map[string]*exit // by ID: those that are probed in any case
}

// NewOutline returns an Outline. The error says which server of the configuration
// cannot be used.
func NewOutline(cfg OutlineConfig) (*Outline, error) {
	o := &Outline{
		cfg: cfg, lookups: newPlaces(cmp.Or(cfg.MaxLookups, maxLookups)),
		suspect: make(chan *exit, idleExits), watching: make(chan struct{}, 1),
		exits: make(map[Server]*exit), watched: make(map[string]*exit),
	}
	o.interval.Store(int64(cfg.ProbeInterval))
	if o.cfg.Switched == nil {
		o.cfg.Switched = func() {}
	}
	o.cfg.ProbeTimeout = cmp.Or(cfg.ProbeTimeout, probeTimeout)
	if o.cfg.Probed == nil {
		o.cfg.Probed = func(Probe) {}
	}
	if err := o.Watch(cfg.Servers, cfg.ProbeInterval); err != nil {
		return nil, err
	}
	return o, nil
}

// Watch replaces the servers that are probed while no session uses them, and the
// pause between two probes of one. Sessions whose server is not among them, or not
// as it is here, ask again with their next stream, once. The error says which
// servers cannot be used; the others are watched.
func (o *Outline) Watch(servers []Server, interval time.Duration) error {
	var problems []error
	next := make(map[string]*exit, len(servers))
	for _, s := range servers[:min(len(servers), MaxWatched)] {
		if next[s.ID] != nil {
			continue
		}
		e, err := o.use(s)
		if err != nil {
			problems = append(problems, fmt.Errorf("server %s: %w", s.ID, err))
			continue
		}
		next[s.ID] = e
	}
	o.interval.Store(int64(interval))
	o.mu.Lock()
	before := o.watched
	o.watched = next
	n := o.changes.Add(1)
	for _, e := range o.exits {
		listed := next[e.server.ID] == e
		if !listed && !e.unlisted {
			e.changed.Store(n)
		}
		e.unlisted = !listed
	}
	o.mu.Unlock()
	for _, e := range before {
		o.leave(e)
	}
	select {
	case o.watching <- struct{}{}:
	default:
	}
	return errors.Join(problems...)
}

// Changed has the sessions of a server ask again for one with their next stream;
// those of all servers, when id is empty. Streams that are open go on.
func (o *Outline) Changed(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.changes.Add(1)
	for server, e := range o.exits {
		if id == "" || server.ID == id {
			e.changed.Store(n)
		}
	}
}

// use returns the exit of a server and counts a user of it.
func (o *Outline) use(s Server) (*exit, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e, known := o.exits[s]; known {
		e.users++
		return e, nil
	}
	key, err := shadowsocks.NewKey(s.Cipher, s.Password, []byte(s.Prefix))
	if err != nil {
		return nil, err
	}
	key.Held = o.cfg.Held
	if len(o.exits) >= idleExits {
		maps.DeleteFunc(o.exits, func(_ Server, e *exit) bool { return e.users == 0 })
	}
	e := newExit(s, key, o)
	e.users = 1
	e.changed.Store(o.changes.Load()) // who asked before that asks again: it may have been about this one
	o.exits[s] = e
	return e, nil
}

func (o *Outline) leave(e *exit) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.users--
}

// used lists the exits that have users, in the order of their IDs.
func (o *Outline) used() []*exit {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []*exit
	for _, e := range o.exits {
		if e.users > 0 {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *exit) int {
		return cmp.Or(strings.Compare(a.server.ID, b.server.ID), cmp.Compare(a.server.Generation, b.server.Generation))
	})
	return list
}

// ForSession returns how one session leaves. It must be closed when the session
// is over.
func (o *Outline) ForSession(id [16]byte, plan *Narrowing) *OutlineSession {
	return &OutlineSession{outline: o, id: id, policy: o.cfg.Policy.Within(plan), lookups: o.lookups.forSession(), turn: make(chan struct{}, 1)}
}

// OutlineSession is a [Dialer] and a [PacketDialer] through the server of one
// session.
type OutlineSession struct {
	outline *Outline
	id      [16]byte
	policy  *Policy
	lookups places
	turn    chan struct{} // held by who asks for a server

	mu     sync.Mutex // guards the following fields
	exit   *exit      // nil: there is none yet
	err    error      // why the last question brought none
	until  time.Time  // nothing is asked before, unless something changes
	heard  int64      // what had changed when the last answer was asked for
	asked  int64      // likewise, of the last question, answered or not
	closed bool
}

// Close gives the session's server back. Connections live on.
func (s *OutlineSession) Close() {
	s.mu.Lock()
	e := s.exit
	s.exit, s.closed = nil, true
	s.mu.Unlock()
	if e != nil {
		s.outline.leave(e)
		s.outline.cfg.Assigner.Release(s.id)
	}
}

// failing is a server that a stream could not use.
type failing struct {
	exit *exit // nil: none
	why  string
}

// known returns the session's exit where nothing is to be asked: it works, or it is
// too early for another.
func (s *OutlineSession) known(failed *exit) (e *exit, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	works := s.exit != nil && s.exit != failed && !s.exit.isLost()
	changed := s.exit != nil && s.exit.changed.Load() > s.heard
	early := time.Now().Before(s.until) && (s.exit == nil || s.exit.changed.Load() <= s.asked)
	switch {
	case works && !changed:
		return s.exit, true, nil
	case early && s.err != nil && (!works || errors.Is(s.err, ErrNoServer)):
		return s.exit, true, s.err
	case early, s.closed:
		return s.exit, s.exit != nil, nil
	default:
		return s.exit, false, nil
	}
}

// through returns the exit that the session leaves through. It asks for a server
// when there is none, when it is lost or was changed, and when it is the one that
// failed. Who comes meanwhile waits for the answer.
func (s *OutlineSession) through(ctx context.Context, failed failing) (*exit, error) {
	if e, known, err := s.known(failed.exit); known {
		return e, err
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, &Error{Failure: lostOr(ctx), Err: ctx.Err()}
	}
	before, known, err := s.known(failed.exit)
	if known { // somebody has asked
		return before, err
	}
	ctx, cancel := context.WithTimeout(ctx, assignTimeout)
	defer cancel()
	changes := s.outline.changes.Load() // what comes later may not be in the answer
	report := reportOf(before, failed)
	e, pause, err := s.ask(ctx, report)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return nil, &Error{Failure: Cancelled, Err: err} // it was not the server's fault
	case err != nil:
		return s.unanswered(err, changes, failed.exit)
	case s.closed:
		s.outline.leave(e)
		s.outline.cfg.Assigner.Release(s.id)
		return nil, &Error{Failure: Cancelled, Err: net.ErrClosed}
	}
	s.exit, s.err, s.heard, s.asked, s.until = e, nil, changes, changes, time.Time{}
	if before == nil {
		return e, nil
	}
	s.outline.leave(before)
	switch {
	case before == e && report.ID != "":
		s.until = time.Now().Add(min(max(pause, askPause), mostPause))
	case before.server.ID != e.server.ID:
		s.until = time.Now().Add(switchPause)
		s.outline.cfg.Switched()
	}
	return e, nil
}

// unanswered takes down that a question brought no server. A session whose server
// works keeps it, unless it may not have it any more. Called with mu held.
func (s *OutlineSession) unanswered(err error, changes int64, failed *exit) (*exit, error) {
	failure := EgressLost
	if errors.Is(err, ErrNoServer) {
		failure = NoServer
	}
	s.err, s.until, s.asked = &Error{Failure: failure, Err: err}, time.Now().Add(askPause), changes
	if failure == EgressLost && s.exit != nil && s.exit != failed && !s.exit.isLost() {
		return s.exit, nil
	}
	return nil, s.err
}

// reportOf is what there is to say about the server before, which may be nil.
func reportOf(before *exit, failed failing) Failed {
	if before == nil {
		return Failed{}
	}
	if before == failed.exit {
		return Failed{ID: before.server.ID, Why: failed.why}
	}
	if why, lost := before.lostWhy(); lost {
		return Failed{ID: before.server.ID, Why: why}
	}
	return Failed{}
}

// ask asks for a server. pause is how long to wait before the next question when it
// is the one that failed.
func (s *OutlineSession) ask(ctx context.Context, report Failed) (e *exit, pause time.Duration, err error) {
	answer, err := s.outline.cfg.Assigner.Assign(ctx, s.id, report)
	if err != nil {
		return nil, 0, err
	}
	e, err = s.outline.use(answer.Server)
	if err != nil {
		return nil, 0, fmt.Errorf("server %s: %w", answer.Server.ID, err)
	}
	return e, answer.RetryAfter, nil
}

// whyOf is why a server cannot be used, by the error that it led to.
func whyOf(err error) string {
	switch {
	case errors.Is(err, errConnect):
		return WhyConnect
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return WhyTimeout
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, shadowsocks.ErrNoAnswer):
		return WhyClosed
	default:
		return WhyBroken
	}
}

// lostOr is the failure of what ended with ctx or without it.
func lostOr(ctx context.Context) Failure {
	if errors.Is(ctx.Err(), context.Canceled) {
		return Cancelled
	}
	return EgressLost
}

// try does something through the session's server, and when that turns out to be
// lost once more through the next one, if there is one.
func (s *OutlineSession) try(ctx context.Context, do func(context.Context, *exit) error) error {
	e, err := s.through(ctx, failing{})
	if err != nil {
		return err
	}
	err = do(ctx, e)
	if !errors.Is(err, errLost) || ctx.Err() != nil {
		return err
	}
	next, switchErr := s.through(ctx, failing{e, whyOf(err)})
	switch {
	case errors.Is(switchErr, ErrNoServer):
		return switchErr
	case switchErr != nil, next == e:
		return err
	}
	return do(ctx, next)
}

// Dial connects to target. The answer to a connection is that of the server, not
// of the target: whether the target could be had shows when bytes come.
func (s *OutlineSession) Dial(ctx context.Context, target wire.Addr) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	var conn Conn
	return conn, s.try(ctx, func(ctx context.Context, e *exit) error {
		to, err := s.judge(ctx, e, target)
		if err != nil {
			return err
		}
		opened, err := e.dial(ctx, to)
		if err == nil {
			conn = opened
		}
		return err
	})
}

// judge returns what the server is to connect to. A managed server gets a name,
// except where the operator denies addresses: these are judged here.
func (s *OutlineSession) judge(ctx context.Context, e *exit, target wire.Addr) (wire.Addr, error) {
	policy := s.policy
	if target.Name != "" && e.server.Managed && policy.TakesNames() {
		if policy.CheckName(target.Name) != nil || policy.CheckPort(target.Port) != nil {
			return wire.Addr{}, &Error{Failure: Denied, Err: ErrDenied}
		}
		return target, nil
	}
	addrs, err := s.addresses(ctx, e, target, policy.Check)
	if err != nil {
		return wire.Addr{}, err
	}
	return wire.Addr{IP: addrs[0].Addr(), Port: addrs[0].Port()}, nil
}

// addresses returns what target stands for, without what check denies. IPv4 comes
// first: nobody says whether the server has IPv6.
func (s *OutlineSession) addresses(ctx context.Context, e *exit, target wire.Addr, check func(netip.AddrPort) error) ([]netip.AddrPort, error) {
	found := []netip.Addr{target.IP}
	if target.Name != "" {
		if err := s.policy.CheckName(target.Name); err != nil {
			return nil, &Error{Failure: Denied, Err: err}
		}
		leave, err := s.lookups.enter(ctx)
		if err != nil {
			return nil, err
		}
		found, err = e.lookup(ctx, target.Name)
		leave()
		if err != nil {
			return nil, err
		}
	}
	return allowed(found, target.Port, check)
}

// DialPacket implements [PacketDialer]. Names are resolved through the server,
// also where it is a managed one: answers come from addresses.
func (s *OutlineSession) DialPacket(ctx context.Context, target wire.Addr) (PacketConn, netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	var (
		conn PacketConn
		peer netip.AddrPort
	)
	err := s.try(ctx, func(ctx context.Context, e *exit) error {
		addrs, err := s.addresses(ctx, e, target, s.policy.CheckUDP)
		if err != nil {
			return err
		}
		opened, err := e.dialPacket(ctx, addrs[0], s.policy)
		if err == nil {
			conn, peer = opened, addrs[0]
		}
		return err
	})
	return conn, peer, err
}

// ListenPacket implements [PacketDialer].
func (s *OutlineSession) ListenPacket(ctx context.Context) (PacketConn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	var conn PacketConn
	return conn, s.try(ctx, func(ctx context.Context, e *exit) error {
		opened, err := e.dialPacket(ctx, netip.AddrPort{}, s.policy)
		if err == nil {
			conn = opened
		}
		return err
	})
}

// Resolve implements [PacketDialer].
func (s *OutlineSession) Resolve(ctx context.Context, target wire.Addr) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	var addrs []netip.AddrPort
	err := s.try(ctx, func(ctx context.Context, e *exit) error {
		var err error
		addrs, err = s.addresses(ctx, e, target, s.policy.CheckUDP)
		return err
	})
	return addrs, err
}
