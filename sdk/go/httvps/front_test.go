package httvps_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// censor is a network that lets connections to some hosts begin, and then does something
// to them.
type censor struct {
	s     *httvpstest.Service
	after int  // bytes from there that it lets pass
	reset bool // it breaks them then, and does not only fall silent

	mu     sync.Mutex // guards the following fields
	hosts  []string
	dialed []string // all hosts that were connected to, in their order
}

// watch has the censor look at these hosts from now on.
func (c *censor) watch(urls ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts, c.dialed = nil, nil
	for _, u := range urls {
		c.hosts = append(c.hosts, hostName(u))
	}
}

// watches reports whether the censor looks at connections to an address.
func (c *censor) watches(address string) bool {
	host, _, err := net.SplitHostPort(address)
	c.mu.Lock()
	defer c.mu.Unlock()
	return err == nil && slices.Contains(c.hosts, host)
}

// connected returns how often each of some hosts was connected to.
func (c *censor) connected(host string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.dialed {
		if h == host {
			n++
		}
	}
	return n
}

func hostName(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err)
	}
	return u.Hostname()
}

func (c *censor) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.s.NetDial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialed = append(c.dialed, host)
	if err != nil || !slices.Contains(c.hosts, host) {
		return conn, err
	}
	w := &watched{Conn: conn, reset: c.reset, closed: make(chan struct{})}
	w.left.Store(int64(c.after))
	return w, nil
}

// watched is a connection that the censor looks at.
type watched struct {
	net.Conn
	left   atomic.Int64
	reset  bool
	once   sync.Once
	closed chan struct{}
}

func (w *watched) Read(p []byte) (int, error) {
	left := w.left.Load()
	if left <= 0 {
		if w.reset {
			_ = w.Close()
			return 0, syscall.ECONNRESET
		}
		<-w.closed
		return 0, net.ErrClosed
	}
	n, err := w.Conn.Read(p[:min(int64(len(p)), left)])
	w.left.Add(-int64(n))
	return n, err
}

func (w *watched) Write(p []byte) (int, error) {
	if w.left.Load() <= 0 {
		return len(p), nil // swallowed
	}
	return w.Conn.Write(p)
}

func (w *watched) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// censored is lastingSession on a network that begins to look when the session is up.
func censored(t *testing.T, c *censor, opts httvpstest.Options, change ...func(*httvps.Config)) (*device, httvps.Event, net.Conn) {
	t.Helper()
	opts.Memory, opts.Dial, opts.Resume = true, echo, time.Minute
	c.s = start(t, opts)
	through := func(cfg *httvps.Config) { cfg.NetDial = c.dial }
	d := run(t, c.s, enrolled(t, c.s), append([]func(*httvps.Config){through}, change...)...)
	up := d.next(httvps.Connected)
	conn, err := d.DialContext(t.Context(), "tcp", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	echoed(t, conn, "before")
	return d, up, conn
}

// end ends a device and its service, inside the bubble.
func (d *device) end(s *httvpstest.Service) {
	d.stop()
	_ = d.wait()
	s.Close()
}

// loud says much over a connection, and wants it back.
func loud(t *testing.T, conn net.Conn, n int) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := conn.Write(make([]byte, n)); err != nil {
			t.Errorf("write: %v", err)
		}
	})
	if _, err := io.ReadFull(conn, make([]byte, n)); err != nil {
		t.Errorf("read: %v", err)
	}
	wg.Wait()
}

// chatter says things over a connection until that ends, and counts the bytes that come back.
func chatter(conn net.Conn) (heard *atomic.Int64) {
	heard = new(atomic.Int64)
	go func() {
		for err := error(nil); err == nil; {
			_, err = conn.Write(make([]byte, 4096))
		}
	}()
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			heard.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	return heard
}

// docs/03, part 8.3: a session goes on at another URL of its gateway when the network lets
// connections to the one begin and nothing more, or none at all, and its connections do
// not notice.
func TestASessionWhoseFrontIsBlockedGoesOnAtAnother(t *testing.T) {
	for name, tc := range map[string]struct {
		censor *censor
		block  bool // no connection begins
		within time.Duration
	}{
		"frozen after 16 KiB":         {&censor{after: 16 << 10}, false, 5 * time.Second},
		"reset after 16 KiB":          {&censor{after: 16 << 10, reset: true}, false, time.Second},
		"silent in the TLS handshake": {&censor{after: 100}, false, 5 * time.Second},
		"reset in the TLS handshake":  {&censor{after: 100, reset: true}, false, time.Second},
		"no connection":               {&censor{}, true, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := tc.censor
				d, up, conn := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true, Fronts: 2})
				at := number(t, c.s, up.Gateway) // the other one would cost what is open
				c.watch(up.Gateway, c.s.Front(at, 0))
				if tc.block {
					c.s.Block(hostName(up.Gateway))
				}
				began := time.Now()
				c.s.Break() // the connection that there is was not looked at
				loud(t, conn, 1<<20)
				if took := time.Since(began); took > 2*tc.within {
					t.Errorf("it took %v", took)
				}
				if status := d.Status(); status.Session != up.Session || status.Gateway.URL != up.Gateway {
					t.Errorf("status: %+v", status)
				}
				if n := c.connected(hostName(c.s.Front(at, 1))); n == 0 {
					t.Error("the other URL was not tried")
				}
				d.end(c.s)
			})
		})
	}
}

// A gateway that is silent at all of its URLs is left as soon as one that has no others.
func TestAGatewayThatIsSilentAtEachOfItsURLsIsLeft(t *testing.T) {
	for _, n := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			c := &censor{}
			d, up, _ := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true, Fronts: n})
			at := number(t, c.s, up.Gateway)
			c.watch()
			c.s.Block(hostName(up.Gateway), hostName(c.s.Front(at, 0)))
			began := time.Now()
			c.s.Break()
			if next := d.next(httvps.Connected); next.Gateway == up.Gateway {
				t.Error("connected to the same gateway")
			}
			if took := time.Since(began); took > 4500*time.Millisecond {
				t.Errorf("it took %v with %d fronts", took, n)
			}
			d.end(c.s)
		})
	}
}

// Where connections to a gateway freeze, whichever way, and another gateway answers, the
// session is not worth the time, and the other gateway comes first for half an hour.
func TestADeviceLeavesAGatewayWhoseConnectionsFreeze(t *testing.T) {
	for name, tc := range map[string]struct {
		fronts int
		reset  bool
	}{
		"silent":                  {0, false},
		"silent, with a front":    {1, false},
		"broken":                  {0, true},
		"broken, with two fronts": {2, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &censor{after: 16 << 10, reset: tc.reset}
				d, up, conn := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true, Fronts: tc.fronts})
				from := number(t, c.s, up.Gateway)
				urls := []string{up.Gateway}
				for i := range tc.fronts {
					urls = append(urls, c.s.Front(from, i))
				}
				c.watch(urls...)
				began := time.Now()
				c.s.Break()
				chatter(conn)
				next := d.next(httvps.Connected)
				if next.Gateway != c.s.Gateway(1-from) {
					t.Errorf("connected to %s", next.Gateway)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				if _, err := conn.Write([]byte("x")); !errors.Is(err, mux.ErrEnded) {
					t.Errorf("write = %v", err)
				}
				for _, stay := range []struct {
					until time.Duration
					other bool
				}{{28 * time.Minute, true}, {31 * time.Minute, false}} {
					c.watch()
					<-time.After(time.Until(began.Add(stay.until)))
					c.s.Disconnect(wire.CodeShutdown)
					if again := d.next(httvps.Connected); (again.Gateway != up.Gateway) != stay.other {
						t.Errorf("connected to %s after %v", again.Gateway, stay.until)
					}
				}
				d.end(c.s)
			})
		})
	}
}

// A session is not given up for another gateway that is not there, or that freezes, too.
// Nor does the device then connect all the time.
func TestASessionWhoseConnectionsFreezeWaitsWhereThereIsNoBetter(t *testing.T) {
	for name, opts := range map[string]httvpstest.Options{
		"the only gateway":      {},
		"the other one is away": {Gateways: 2, Apart: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &censor{after: 30_000, reset: true}
				d, up, conn := censored(t, c, opts)
				c.watch(up.Gateway)
				if opts.Gateways > 1 {
					c.s.Block(hostName(c.s.Gateway(1 - number(t, c.s, up.Gateway))))
				}
				c.s.Break()
				heard := chatter(conn)
				<-time.After(time.Minute)
				if n := c.connected(hostName(up.Gateway)); n < 20 || n > 150 {
					t.Errorf("%d connections in a minute", n)
				}
				if n := heard.Load(); n < 100_000 {
					t.Errorf("%d bytes have come back", n)
				}
				if status := d.Status(); status.Session != up.Session {
					t.Errorf("status: %+v", status)
				}
				d.end(c.s)
			})
		})
	}
}

// What one network blocks, another one need not: the gateway that was left comes first again.
func TestAnotherNetworkHasNothingFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &censor{after: 16 << 10}
		d, up, conn := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true})
		c.watch(up.Gateway)
		c.s.Break()
		chatter(conn)
		if next := d.next(httvps.Connected); next.Gateway == up.Gateway {
			t.Fatal("it stays where connections freeze")
		}
		c.watch()
		d.NetworkChanged()
		d.next(httvps.Resumed)
		c.s.Disconnect(wire.CodeShutdown)
		if again := d.next(httvps.Connected); again.Gateway != up.Gateway {
			t.Errorf("connected to %s", again.Gateway)
		}
		d.end(c.s)
	})
}

// Where connections freeze at every gateway, a device does not go from one to the other
// and back.
func TestADeviceStaysWhereAllConnectionsFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &censor{after: 30_000}
		d, up, conn := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true})
		c.watch(c.s.Gateway(0), c.s.Gateway(1))
		c.s.Break()
		chatter(conn)
		next := d.next(httvps.Connected)
		if next.Gateway == up.Gateway {
			t.Error("it stays where connections freeze")
		}
		again, err := d.DialContext(t.Context(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		chatter(again)
		<-time.After(25 * time.Minute)
		if status := d.Status(); status.Session != next.Session {
			t.Errorf("status: %+v", status)
		}
		d.end(c.s)
	})
}

// A device that is started again knows the fronts, and comes by them to its gateway and to
// the device API where the addresses of both are blocked. It forgets what a gateway names
// no more.
func TestFrontsAreRememberedWithTheProfile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Apart: true, Fronts: 2, Dial: echo})
		store := enrolled(t, s)
		fronts := []string{s.Front(0, 0), s.Front(0, 1)}
		remembers := func(want map[string][]string) {
			t.Helper()
			profile, err := store.Profile(t.Context())
			if err == nil {
				err = profile.Validate()
			}
			if err != nil || !maps.EqualFunc(profile.Fronts, want, slices.Equal) {
				t.Errorf("the profile has %v, %v, want %v", profile.Fronts, err, want)
			}
		}
		d := run(t, s, store)
		d.next(httvps.Connected)
		d.stop()
		_ = d.wait()
		remembers(map[string][]string{s.Gateway(0): fronts})

		s.Block("service.test", hostName(s.Gateway(0)), hostName(fronts[0]))
		s.ExpireTokens()
		began := time.Now()
		d = run(t, s, store)
		d.next(httvps.Connected)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		d.stop()
		_ = d.wait()
		remembers(map[string][]string{s.Gateway(0): fronts})

		s.Block()
		s.SetFronts(0)
		d = run(t, s, store)
		d.next(httvps.Connected)
		d.end(s)
		remembers(nil)
	})
}

// A gateway that waits for the control plane is waited for, whatever fronts it has: they
// lead to the same gateway.
func TestAGatewayThatTakesItsTimeIsNotTriedAtItsFrontsInstead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		c := &censor{}
		d, up, _ := censored(t, c, httvpstest.Options{Fronts: 1, Admit: func(int, wire.Hello) wire.Reject {
			if slow.Load() {
				<-time.After(11 * time.Second)
			}
			return wire.Reject{}
		}})
		slow.Store(true)
		c.watch()
		began := time.Now()
		c.s.Disconnect(wire.CodeShutdown)
		d.next(httvps.Connected)
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("it took %v", took)
		}
		if n := c.connected(hostName(up.Gateway)) + c.connected(hostName(c.s.Front(0, 0))); n != 1 {
			t.Errorf("%d connections", n)
		}
		d.end(c.s)
	})
}

// A device that has to begin a new session begins it at the URL by which the last one
// worked, and tries the others, too.
func TestANewSessionBeginsAtTheFrontThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &censor{after: 16 << 10}
		d, up, conn := censored(t, c, httvpstest.Options{Fronts: 1})
		c.watch(up.Gateway)
		c.s.Break()
		loud(t, conn, 1<<20)
		c.watch(up.Gateway)
		c.s.Disconnect(wire.CodeShutdown)
		if again := d.next(httvps.Connected); again.Gateway != up.Gateway || again.Session == up.Session {
			t.Errorf("connected: %+v, after %+v", again, up)
		}
		conn, err := d.DialContext(t.Context(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		loud(t, conn, 1<<20) // it works here
		c.s.Break()
		d.next(httvps.Resumed)
		if n, m := c.connected(hostName(up.Gateway)), c.connected(hostName(c.s.Front(0, 0))); n > 0 || m != 2 {
			t.Errorf("%d and %d connections", n, m)
		}
		// Neither is there for a while.
		c.s.Block(hostName(up.Gateway), hostName(c.s.Front(0, 0)))
		c.s.Disconnect(wire.CodeShutdown)
		<-time.After(time.Minute)
		c.s.Block(hostName(c.s.Front(0, 0)))
		d.next(httvps.Connected)
		d.end(c.s)
	})
}
