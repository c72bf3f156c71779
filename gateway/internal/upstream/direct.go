package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// DialTimeout bounds one dial: name, policy and connection. It stays below
// the 15 s in which the tunnel protocol wants an answer, which still has to
// travel.
const DialTimeout = wire.OpenedTimeout - time.Second

const (
	// headStart is what a connection attempt gets before the next address is
	// tried beside it (RFC 8305 recommends 250 ms).
	headStart = 250 * time.Millisecond
	// maxAddresses of one name are tried. A name may have hundreds.
	maxAddresses = 8
	// maxLookups run at once by default.
	maxLookups = 256
	// lookupShare of them one session may have, so that names whose servers
	// never answer cost the session that asks for them, and nobody else.
	lookupShare = 8
	// lookupTimeout bounds one lookup, exchangeTimeout the wait for one name
	// server in it: behind a dead one there is time for the next.
	lookupTimeout   = 5 * time.Second
	exchangeTimeout = 2 * time.Second
	// keepAlive finds targets that vanished without a word.
	keepAlive = 30 * time.Second
)

// DirectConfig is how a [Direct] dials.
type DirectConfig struct {
	Policy *Policy
	// DialDNS connects to a name server of the host's configuration; nil means
	// by the network.
	DialDNS func(ctx context.Context, network, address string) (net.Conn, error)
	// MaxLookups is how many names may be looked up at once, by all sessions
	// together; one session may have an eighth of them. A further lookup waits
	// within its dial's time. 0 means 256.
	MaxLookups int
}

// Direct dials the targets of one session from this host.
type Direct struct {
	policy   *Policy
	resolver *net.Resolver
	lookups  places
	known    *names // by all sessions
}

// NewDirect returns a dialer under cfg.Policy.
func NewDirect(cfg DirectConfig) *Direct {
	if cfg.DialDNS == nil {
		cfg.DialDNS = new(net.Dialer).DialContext
	}
	if cfg.MaxLookups == 0 {
		cfg.MaxLookups = maxLookups
	}
	d := &Direct{policy: cfg.Policy, resolver: newResolver(cfg.DialDNS), lookups: newPlaces(cfg.MaxLookups), known: new(names)}
	d.known.init()
	return d.ForSession(nil)
}

// ForSession returns a dialer for another session: under the same policy within its
// plan's, which may be nil, and under the same bound on all lookups, with a share of its own.
func (d *Direct) ForSession(plan *Narrowing) *Direct {
	other := *d
	other.policy = d.policy.Within(plan)
	other.lookups = d.lookups.forSession()
	return &other
}

// places bound the lookups under way.
type places struct {
	all   chan struct{} // of all sessions
	share chan struct{} // of this one
}

func newPlaces(n int) places { return places{all: make(chan struct{}, n)} }

// forSession returns the places of a session that has a share of its own.
func (p places) forSession() places {
	p.share = make(chan struct{}, max(1, cap(p.all)/lookupShare))
	return p
}

// enter takes the places of one lookup; leave gives them back.
func (p places) enter(ctx context.Context) (leave func(), err error) {
	// Its own first: who waits for that holds nothing of others.
	taken := 0
	order := [...]chan struct{}{p.share, p.all}
	leave = func() {
		for _, place := range order[:taken] {
			<-place
		}
	}
	for _, place := range order {
		select {
		case place <- struct{}{}:
			taken++
		case <-ctx.Done():
			leave()
			return nil, &Error{Failure: waitFailure(ctx), Err: fmt.Errorf("wait for a lookup: %w", ctx.Err())}
		}
	}
	return leave, nil
}

// newResolver returns Go's resolver, which costs no thread for each name. A
// lookup that nobody waits for any more ends at once: by itself the resolver
// would go on reading until its own time-out, outside of every limit.
func newResolver(dial func(context.Context, string, string) (net.Conn, error)) *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, exchangeTimeout) // ctx ends with the exchange
			conn, err := dial(ctx, network, address)
			if err != nil {
				cancel()
				return nil, err
			}
			context.AfterFunc(ctx, func() {
				cancel()
				_ = conn.Close()
			})
			return heardOn(ctx, conn), nil
		},
	}
}

// Dial connects to target. When some of a name's addresses are denied and
// others are not, the others are used: a name with a private and a public
// answer stays reachable, and the private one is never touched. It is denied
// when nothing is left.
func (d *Direct) Dial(ctx context.Context, target wire.Addr) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	addrs, err := d.addresses(ctx, target, d.policy.Check)
	if err != nil {
		return nil, err
	}
	conn, err := race(ctx, addrs, d.connect)
	if err != nil {
		return nil, &Error{Failure: classify(err), Err: err}
	}
	return conn, nil
}

// addresses returns what target stands for, without what check denies.
func (d *Direct) addresses(ctx context.Context, target wire.Addr, check func(netip.AddrPort) error) ([]netip.AddrPort, error) {
	found := []netip.Addr{target.IP}
	if target.Name != "" {
		err := d.policy.CheckName(target.Name)
		if err != nil {
			return nil, &Error{Failure: Denied, Err: err}
		}
		if found, err = d.lookup(ctx, target.Name); err != nil {
			return nil, err
		}
	}
	addrs, err := allowed(found, target.Port, check)
	if err != nil {
		return nil, err
	}
	addrs = alternate(addrs)
	return addrs[:min(len(addrs), maxAddresses)], nil
}

// allowed returns the addresses with port, without what check denies.
func allowed(found []netip.Addr, port uint16, check func(netip.AddrPort) error) ([]netip.AddrPort, error) {
	addrs := make([]netip.AddrPort, 0, len(found))
	for _, ip := range found {
		if addr := netip.AddrPortFrom(ip.Unmap(), port); check(addr) == nil {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, &Error{Failure: Denied, Err: ErrDenied}
	}
	return addrs, nil
}

// lookup returns the addresses of a name, which nobody has judged: as they were told
// while that is good, otherwise as they are told now.
func (d *Direct) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	found, known := d.known.find(name)
	if !known {
		var err error
		if found, err = d.ask(ctx, name); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, &Error{Failure: DNS, Err: errors.New("no addresses")}
	}
	return found, nil
}

// ask looks a name up, and keeps the answer as long as the name servers said.
func (d *Direct) ask(ctx context.Context, name string) ([]netip.Addr, error) {
	leave, err := d.lookups.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	asked, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	asked, heard := withHeard(asked)
	// The final dot keeps the host's search list out of it: a device that asks
	// for "wiki" must not get "wiki.corp.example" of the gateway's network.
	found, err := d.resolver.LookupNetIP(asked, "ip", name+".")
	none, _ := errors.AsType[*net.DNSError](err)
	switch {
	case err == nil:
		if life := heard.life(); life > 0 && len(found) <= maxKnownAddresses {
			d.known.learn(name, found, life)
		}
		return found, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, &Error{Failure: Cancelled, Err: err}
	case none != nil && none.IsNotFound:
		d.known.learn(name, nil, noAddressLife)
	}
	return nil, &Error{Failure: DNS, Err: err}
}

func waitFailure(ctx context.Context) Failure {
	if errors.Is(ctx.Err(), context.Canceled) {
		return Cancelled
	}
	return DNS
}

// alternate orders addresses so that the families take turns, beginning with
// the resolver's first choice, as RFC 8305 wants it.
func alternate(addrs []netip.AddrPort) []netip.AddrPort {
	var first, second []netip.AddrPort
	for _, addr := range addrs {
		if addr.Addr().Is4() == addrs[0].Addr().Is4() {
			first = append(first, addr)
		} else {
			second = append(second, addr)
		}
	}
	ordered := make([]netip.AddrPort, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			ordered = append(ordered, first[i])
		}
		if i < len(second) {
			ordered = append(ordered, second[i])
		}
	}
	return ordered
}

type attempt struct {
	conn *net.TCPConn
	err  error
}

// race connects to the addresses in order, each with a head start over the
// next, and returns the first connection. The error is the first address's,
// which is the resolver's preferred one.
func race(ctx context.Context, addrs []netip.AddrPort, connect func(context.Context, netip.AddrPort) (*net.TCPConn, error)) (*net.TCPConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make([]attempt, len(addrs))
	ended := make(chan int, len(addrs))
	started, running, winner := 0, 0, -1
	start := func() {
		i := started
		started++
		running++
		go func() {
			results[i].conn, results[i].err = connect(ctx, addrs[i])
			ended <- i
		}()
	}
	start()
	timer := time.NewTimer(headStart)
	defer timer.Stop()
	for running > 0 && winner < 0 {
		select {
		case i := <-ended:
			running--
			switch {
			case results[i].err == nil:
				winner = i
			case started < len(addrs):
				start()
				timer.Reset(headStart)
			}
		case <-timer.C:
			if started < len(addrs) {
				start()
				timer.Reset(headStart)
			}
		}
	}
	cancel()
	for range running { // losers end at once now; a connection among them was not needed
		if i := <-ended; results[i].err == nil {
			_ = results[i].conn.Close()
		}
	}
	if winner < 0 {
		return nil, results[0].err
	}
	return results[winner].conn, nil
}

// connect connects to one literal address, asking the policy once more about
// what the kernel is really told.
func (d *Direct) connect(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	dialer := net.Dialer{
		KeepAlive: keepAlive,
		Control: func(_, address string, _ syscall.RawConn) error {
			actual, err := netip.ParseAddrPort(address)
			if err != nil {
				return ErrDenied
			}
			return d.policy.Check(actual)
		},
	}
	conn, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("connection of type %T", conn)
	}
	return tcp, nil
}
