package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"github.com/httvps/httvps/test/sstest"
)

// rolling is how much goes on while gateways are restarted.
type rolling struct {
	devices, opens int // opens a second, of all devices together
	drain          time.Duration
	spread         time.Duration // that devices of one gateway have to leave over, at least
}

// crowd is devices that open connections all the time.
type crowd struct {
	*region
	target  string
	devices []*device

	mu      sync.Mutex // guards the following fields
	took    map[*device][]attempt
	failed  []string
	streams int // long ones that came to their end
}

// attempt is one open.
type attempt struct {
	at   time.Time
	took time.Duration
}

// dial opens a connection through a device's proxy.
func (d *device) dial(ctx context.Context, target string) (net.Conn, error) {
	dialer, err := proxy.SOCKS5("tcp", d.Socks, nil, &net.Dialer{})
	if err != nil {
		return nil, err
	}
	return dialer.(proxy.ContextDialer).DialContext(ctx, "tcp", target)
}

// open is dial where nothing may go wrong.
func (d *device) open(target string) net.Conn {
	d.t.Helper()
	conn, err := d.dial(d.t.Context(), target)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// echo sends something through a connection and wants it back.
func echo(conn net.Conn) error {
	var buf [16]byte
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write(buf[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, buf[:])
	return err
}

func newCrowd(t *testing.T, r *region, devices int) *crowd {
	t.Helper()
	c := &crowd{region: r, took: make(map[*device][]attempt), target: sstest.ServeTCP(t, sstest.Echo).String()}
	first := r.enrol("anna")
	for i := range devices {
		d := first
		if i > 0 {
			d = r.copyOf(first, fmt.Sprintf("device-%d", i))
		}
		c.devices = append(c.devices, d)
	}
	for i, d := range c.devices { // evenly over the gateways, whatever their order is
		r.connectTo(d, r.nodes[i%len(r.nodes)])
	}
	return c
}

// open opens one connection and uses it.
func (c *crowd) open(ctx context.Context, d *device) {
	began := time.Now()
	conn, err := d.dial(ctx, c.target)
	took := time.Since(began)
	if err == nil {
		err = echo(conn)
		_ = conn.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.took[d] = append(c.took[d], attempt{began, took})
	case ctx.Err() == nil:
		c.failed = append(c.failed, fmt.Sprintf("an open after %v: %v", time.Since(began), err))
	}
}

// work has the devices open so many connections a second until ctx ends, and returns
// when all of them have ended.
func (c *crowd) work(ctx context.Context, opens int) {
	var working sync.WaitGroup
	defer working.Wait()
	ticker := time.NewTicker(time.Second / time.Duration(opens))
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		d := c.devices[i%len(c.devices)]
		working.Go(func() { c.open(context.WithoutCancel(ctx), d) })
	}
}

// talk has each device hold streams that last so long, one after the other, until ctx
// ends.
func (c *crowd) talk(ctx context.Context, long time.Duration) {
	var talking sync.WaitGroup
	defer talking.Wait()
	for _, d := range c.devices {
		talking.Go(func() {
			for ctx.Err() == nil {
				if err := c.longStream(d, long); err != nil {
					c.mu.Lock()
					c.failed = append(c.failed, fmt.Sprintf("a stream of %v: %v", long, err))
					c.mu.Unlock()
				}
			}
		})
	}
}

func (c *crowd) longStream(d *device, long time.Duration) error {
	conn, err := d.dial(c.t.Context(), c.target)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for began := time.Now(); time.Since(began) < long; <-time.After(100 * time.Millisecond) {
		if err := echo(conn); err != nil {
			return fmt.Errorf("after %v: %w", time.Since(began), err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams++
	return nil
}

// moves is how often a device has moved to another gateway.
func moves(d *device) int { return strings.Count(d.proc.Log(), " goes away; connected to ") }

// leaving notes when devices move, until ctx ends.
func (c *crowd) leaving(ctx context.Context, began time.Time) (after []time.Duration) {
	before := make(map[*device]int)
	for _, d := range c.devices {
		before[d] = moves(d)
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return after
		}
		for _, d := range c.devices {
			if n := moves(d); n > before[d] {
				before[d] = n
				after = append(after, time.Since(began))
			}
		}
	}
}

// Three gateways are restarted one after the other while devices open connections: none
// of these fails, no stream is cut that is shorter than the time that streams have, and
// the devices do not come to the other gateways all at once.
func TestARollingRestartFailsNoConnection(t *testing.T) {
	c := rolling{devices: 6, opens: 40, drain: 6 * time.Second}
	if soak {
		c = rolling{devices: 30, opens: 200, drain: 30 * time.Second, spread: 5 * time.Second}
	}
	r := startRegion(t, []string{"one", "two", "three"}, "1s", fmt.Sprintf("drain_timeout: %s\n", c.drain))
	all := newCrowd(t, r, c.devices)
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	busy.Go(func() { all.work(ctx, c.opens) })
	busy.Go(func() { all.talk(ctx, c.drain-time.Second) })
	<-time.After(2 * time.Second)
	var left []time.Duration
	for _, n := range r.nodes {
		watching, stop := context.WithCancel(ctx)
		began := time.Now()
		var after []time.Duration
		var watch sync.WaitGroup
		watch.Go(func() { after = all.leaving(watching, began) })
		_ = syscall.Kill(n.PID(), syscall.SIGTERM)
		select {
		case <-n.Exited():
		case <-time.After(c.drain + time.Minute):
			t.Fatalf("%s does not stop", n.name)
		}
		took := time.Since(began)
		if code := n.ExitCode(); code != 0 {
			t.Errorf("%s ended with %d", n.name, code)
		}
		stop()
		watch.Wait()
		slices.Sort(after)
		left = append(left, after...)
		if len(after) > 0 {
			t.Logf("%s stopped after %v; %d devices left after %v to %v", n.name, took.Round(time.Millisecond), len(after), after[0], after[len(after)-1])
		}
		if len(after) >= 10 && after[len(after)-1]-after[0] < c.spread {
			t.Errorf("the devices of %s left within %v", n.name, after[len(after)-1]-after[0])
		}
		r.startNode(n)
	}
	<-time.After(2 * time.Second)
	cancel()
	busy.Wait()
	slices.Sort(left)
	if len(left) < c.devices || left[len(left)-1]-left[0] < time.Second/2 {
		t.Errorf("%d times a device has left a gateway, after %v", len(left), left)
	}
	all.report(t, all.devices, time.Time{})
	if all.streams < 3*c.devices {
		t.Errorf("only %d long streams came to their end", all.streams)
	}
	for _, text := range all.failed {
		t.Error(text)
	}
}

// report tells how long the opens of devices took since a time, and returns the median
// and the last but one in a hundred.
func (c *crowd) report(t *testing.T, devices []*device, since time.Time) (median, p99 time.Duration) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var took []time.Duration
	for _, d := range devices {
		for _, a := range c.took[d] {
			if a.at.After(since) {
				took = append(took, a.took)
			}
		}
	}
	if len(took) == 0 {
		t.Fatal("nothing was opened")
	}
	slices.Sort(took)
	median, p99 = took[len(took)/2], took[len(took)*99/100]
	t.Logf("%d opens: median %v, p99 %v, the longest %v; %d long streams; %d failures", len(took), median, p99, took[len(took)-1], c.streams, len(c.failed))
	return median, p99
}

// A gateway is killed: its devices open connections by way of the other two within
// seconds.
func TestAKilledGatewaysDevicesAreBackWithinSeconds(t *testing.T) {
	devices, opens := 6, 60
	mostP50, mostP99, mostBack := 5*time.Second, 20*time.Second, 30*time.Second
	if soak { // what is promised is measured where nothing else runs
		devices, opens = 30, 200
		mostP50, mostP99, mostBack = time.Second, 3*time.Second, 10*time.Second
	}
	r := startRegion(t, []string{"one", "two", "three"}, "1s", "")
	all := newCrowd(t, r, devices)
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	busy.Go(func() { all.work(ctx, opens) })
	<-time.After(time.Second)
	var orphans []*device
	sessions := make(map[*device]int) // that each has had
	for _, d := range all.devices {
		if d.Gateway == r.nodes[0].url {
			orphans = append(orphans, d)
			sessions[d] = strings.Count(d.proc.Log(), "\nconnected to ")
		}
	}
	killed := time.Now()
	r.nodes[0].Kill()
	var (
		back  sync.WaitGroup
		worst atomic.Int64
	)
	for _, d := range orphans {
		back.Go(func() {
			r.await("a device is back", func() bool { return strings.Count(d.proc.Log(), "\nconnected to ") > sessions[d] })
			for took := int64(time.Since(killed)); ; {
				if last := worst.Load(); took <= last || worst.CompareAndSwap(last, took) {
					return
				}
			}
		})
	}
	back.Wait()
	<-time.After(max(0, time.Until(killed.Add(10*time.Second))))
	cancel()
	busy.Wait()
	median, p99 := all.report(t, orphans, killed)
	t.Logf("%d devices were back within %v", len(orphans), time.Duration(worst.Load()))
	if len(orphans) < devices/len(r.nodes) || median > mostP50 || p99 > mostP99 || time.Duration(worst.Load()) > mostBack {
		t.Errorf("%d devices: p50 %v (want %v), p99 %v (want %v), back within %v (want %v)",
			len(orphans), median, mostP50, p99, mostP99, time.Duration(worst.Load()), mostBack)
	}
	for _, text := range all.failed {
		if !strings.Contains(text, "EOF") && !strings.Contains(text, "reset") { // one that was open on the gateway that was killed
			t.Error(text)
		}
	}
}

// An operator takes a gateway out of use and puts it into use again: its device goes
// elsewhere though its plan has one place, and nobody is led there meanwhile.
func TestAnOperatorDrainsAGateway(t *testing.T) {
	r := startRegion(t, []string{"one", "two"}, "1s", "drain_timeout: 3s\n")
	one, two := r.nodes[0], r.nodes[1]
	r.ctl(nil, "plan", "update", "basic", "--max-sessions", "1")
	far := startOrigin(t)
	d := r.enrol("anna")
	r.connectTo(d, one)
	type gateway struct {
		object

		Status   string `json:"status"`
		Draining bool   `json:"draining"`
	}
	find := func(name string) gateway {
		var gateways struct{ Items []gateway }
		r.ctl(&gateways, "gateway", "list")
		for _, g := range gateways.Items {
			if g.Name == name {
				return g
			}
		}
		t.Fatalf("no gateway %s", name)
		return gateway{}
	}
	r.await("both are online", func() bool { return find("one").Status == "online" && find("two").Status == "online" })
	var drained gateway
	if r.ctl(&drained, "gateway", "drain", find("one").ID); !drained.Draining {
		t.Errorf("the answer is %+v", drained)
	}
	r.await("the device has left", func() bool { return moves(d) == 1 && r.metric(one, "httvps_gateway_sessions") == "0" })
	if got := r.metric(two, "httvps_gateway_sessions"); got != "1" {
		t.Errorf("the other gateway has %s sessions", got)
	}
	if _, err := d.curl(far.URL() + "/100000"); err != nil {
		t.Error(err)
	}
	if g := find("one"); !g.Draining || g.Status != "online" || r.metric(one, "httvps_gateway_draining") != "1" {
		t.Errorf("drained: %+v", g)
	}
	// Its device has no other gateway when that is drained, too, and waits.
	r.ctl(nil, "gateway", "drain", find("two").ID)
	r.await("nobody is connected", func() bool { return r.metric(two, "httvps_gateway_sessions") == "0" })
	r.ctl(nil, "gateway", "undrain", find("one").ID)
	if _, err := d.curl("--max-time", "60", far.URL()+"/100000"); err != nil {
		t.Errorf("after undrain: %v", err)
	}
	if g := find("one"); g.Draining || r.metric(one, "httvps_gateway_sessions") != "1" {
		t.Errorf("undrained: %+v", g)
	}
}
