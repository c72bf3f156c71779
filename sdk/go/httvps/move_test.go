package httvps_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Rules of docs/03, part 8.4, at the device.

var farewell = wire.GoAway{Code: wire.CodeShutdown, Drain: 30 * time.Second, ReconnectMin: 2 * time.Second, ReconnectMax: 10 * time.Second}

// closing says which gateways refuse sessions because they go away.
type closing struct{ gateways [3]atomic.Bool }

func (c *closing) admit(gateway int, _ wire.Hello) wire.Reject {
	if c.gateways[gateway].Load() {
		return wire.Reject{Code: wire.CodeShutdown, RetryAfter: time.Second}
	}
	return wire.Reject{}
}

// number is which gateway of a service a URL is.
func number(t *testing.T, s *httvpstest.Service, url string) int {
	t.Helper()
	for i := range 3 {
		if s.Gateway(i) == url {
			return i
		}
	}
	t.Fatalf("%s is no gateway", url)
	return -1
}

func TestADeviceMovesToAnotherGatewayAndItsConnectionsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var going closing
		s, d, up, old := lastingSession(t, httvpstest.Options{Gateways: 3, Admit: going.admit})
		from := number(t, s, up.Gateway)
		going.gateways[from].Store(true)
		began := time.Now()
		s.Announce(from, farewell)
		moved := d.next(httvps.Moved)
		if took := time.Since(began); took < farewell.ReconnectMin || took > farewell.ReconnectMax+time.Second {
			t.Errorf("it moved after %v", took)
		}
		refused, ok := errors.AsType[*httvps.RefusedError](moved.Err)
		if moved.From != up.Gateway || moved.Gateway == up.Gateway || moved.Session == up.Session || !ok || refused.Code != "shutdown" {
			t.Errorf("moved: %+v, from %+v", moved, up)
		}
		to := number(t, s, moved.Gateway)
		if status := d.Status(); status.Session != moved.Session || status.Gateway.URL != moved.Gateway || !status.Connected {
			t.Errorf("status: %+v", status)
		}
		// What is new goes to the new one, what is open goes on by way of the old one.
		s.GoAway(from, farewell)
		fresh, err := d.DialContext(t.Context(), "tcp", "b:1")
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			echoed(t, fresh, "new")
			echoed(t, old, "old")
			<-time.After(5 * time.Second)
		}
		if s.SessionsAt(from) != 1 || s.SessionsAt(to) != 1 {
			t.Errorf("%d sessions at the old gateway, %d at the new one", s.SessionsAt(from), s.SessionsAt(to))
		}
		before := d.Status()
		_ = old.Close()
		<-time.After(time.Second)
		if s.SessionsAt(from) != 0 {
			t.Error("the old session has no stream and is still there")
		}
		if after := d.Status(); !after.Connected || after.Sent != before.Sent || after.Received != before.Received || after.Streams != 1 {
			t.Errorf("status was %+v, is %+v", before, after)
		}
		echoed(t, fresh, "still")
		d.stop()
		_ = d.wait()
		for len(d.events) > 0 {
			if e := <-d.events; e.Kind == httvps.Disconnected && e.Session == up.Session {
				t.Error("the end of a session was told that another had taken the place of")
			}
		}
		s.Close()
	})
}

// The gateway takes no OPEN any more, at once: those under way and those that come are
// repeated elsewhere, and the device does not wait for its turn when there are any.
func TestOpensThatWereNotProcessedAreRepeatedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var going closing
		s, d, up, old := lastingSession(t, httvpstest.Options{Gateways: 2, Admit: going.admit})
		from := number(t, s, up.Gateway)
		for round := range 4 {
			var opening sync.WaitGroup
			going.gateways[from].Store(true)
			going.gateways[1-from].Store(false)
			for range 50 {
				opening.Go(func() {
					conn, err := d.DialContext(t.Context(), "tcp", "a:1")
					if err != nil {
						t.Errorf("round %d: %v", round, err)
						return
					}
					defer conn.Close()
					echoed(t, conn, "x")
				})
			}
			began := time.Now()
			s.GoAway(from, farewell)
			opening.Wait()
			// One that comes when none is under way urges, too.
			conn, err := d.DialContext(t.Context(), "tcp", "a:1")
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			if took := time.Since(began); took > time.Second {
				t.Errorf("round %d: it took %v", round, took)
			}
			if moved := d.next(httvps.Moved); moved.Gateway != s.Gateway(1-from) {
				t.Errorf("moved: %+v", moved)
			}
			from = 1 - from
		}
		_ = old.Close()
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

func TestADeviceWithoutAnotherGatewayWaitsAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var going closing
		s, d, up, old := lastingSession(t, httvpstest.Options{Admit: going.admit})
		going.gateways[0].Store(true)
		s.GoAway(0, farewell)
		dialled := make(chan error, 1)
		go func() {
			conn, err := d.DialContext(t.Context(), "tcp", "a:1")
			if err == nil {
				_ = conn.Close()
			}
			dialled <- err
		}()
		<-time.After(25 * time.Second)
		echoed(t, old, "goes on")
		s.Disconnect(wire.CodeShutdown) // the time is over
		if e := d.next(httvps.Disconnected); e.Session != up.Session {
			t.Errorf("disconnected: %+v", e)
		}
		if _, err := old.Read(make([]byte, 1)); !errors.Is(err, mux.ErrEnded) {
			t.Errorf("Read = %v", err)
		}
		<-time.After(5 * time.Second)
		going.gateways[0].Store(false)
		if e := d.next(httvps.Connected); e.Gateway != up.Gateway {
			t.Errorf("connected: %+v", e)
		}
		if err := <-dialled; err != nil {
			t.Errorf("the dial that waited: %v", err)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// The gateway names one that the device was not told of.
func TestADeviceMovesToAGatewayThatItLearnsOfByTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Dial: echo, Gateways: 2})
		s.SetLive(0)
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)
		g := farewell
		g.Gateways = []string{"https://no.gateway/x", s.Gateway(0), s.Gateway(1)}
		s.Announce(0, g)
		if e := d.next(httvps.Moved); e.Gateway != s.Gateway(1) {
			t.Errorf("moved: %+v", e)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// Devices draw their turns.
func TestDevicesMoveOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Dial: echo, Gateways: 2})
		s.SetLive(0)
		var devices []*device
		for range 40 {
			d := run(t, s, enrolled(t, s))
			d.next(httvps.Connected)
			devices = append(devices, d)
		}
		s.SetLive(0, 1)
		g := farewell
		g.Gateways = []string{s.Gateway(1)}
		began := time.Now()
		s.Announce(0, g)
		first, last := time.Hour, time.Duration(0)
		var (
			mu      sync.Mutex
			waiting sync.WaitGroup
		)
		for _, d := range devices {
			waiting.Go(func() {
				d.next(httvps.Moved)
				mu.Lock()
				defer mu.Unlock()
				first, last = min(first, time.Since(began)), max(last, time.Since(began))
			})
		}
		waiting.Wait()
		if last-first < 5*time.Second || last > farewell.ReconnectMax+time.Second || first < farewell.ReconnectMin {
			t.Errorf("the first moved after %v, the last after %v", first, last)
		}
		for _, d := range devices {
			d.stop()
			_ = d.wait()
		}
		s.Close()
	})
}

// A session that was left is resumed like any other, and a new network is the business
// of the one that is in use.
func TestASessionThatWasLeftIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, up, old := lastingSession(t, httvpstest.Options{Gateways: 2})
		from := number(t, s, up.Gateway)
		s.Announce(from, farewell)
		moved := d.next(httvps.Moved)
		s.Break()
		for _, want := range []string{"one", "other"} {
			if e := d.next(httvps.Resumed); e.Session != up.Session && e.Session != moved.Session {
				t.Errorf("the %s: %+v", want, e)
			}
		}
		echoed(t, old, "goes on")
		d.NetworkChanged()
		if e := d.next(httvps.Resumed); e.Session != moved.Session || e.Err != nil {
			t.Errorf("resumed: %+v", e)
		}
		echoed(t, old, "goes on")
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// lateness is how late what a slow connection brings is heard.
const lateness = 300 * time.Millisecond

// late is a connection that may be slow.
type late struct {
	net.Conn

	slow *atomic.Bool
}

func (c late) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.slow.Load() {
		<-time.After(lateness)
	}
	return n, err
}

// A UDP socket whose OPEN was not processed goes on elsewhere, and loses no more than
// what was on its way.
func TestASocketThatWasNotProcessedIsOpenedElsewhere(t *testing.T) {
	echoes, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echoes.Close()
	var echoing sync.WaitGroup
	defer echoing.Wait()
	defer echoes.Close()
	echoing.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := echoes.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = echoes.WriteTo(buf[:n], from)
		}
	})
	s := start(t, httvpstest.Options{Gateways: 2})
	var slow atomic.Bool
	d := run(t, s, enrolled(t, s), func(cfg *httvps.Config) {
		dial := cfg.NetDial
		cfg.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return late{conn, &slow}, err
		}
	})
	from := number(t, s, d.next(httvps.Connected).Gateway)
	slow.Store(true)
	s.GoAway(from, farewell)
	conn, err := d.DialContext(t.Context(), "udp", echoes.LocalAddr().String()) // does not know of it yet
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-time.After(lateness / 3)
	slow.Store(false)
	buf := make([]byte, 10)
	for deadline := time.Now().Add(10 * time.Second); ; {
		_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := io.WriteString(conn, "ping"); err != nil {
			t.Fatalf("write: %v", err)
		}
		n, err := conn.Read(buf)
		if err == nil && string(buf[:n]) == "ping" {
			break
		}
		if nerr, ok := errors.AsType[net.Error](err); !ok || !nerr.Timeout() || time.Now().After(deadline) {
			t.Fatalf("read: %v", err)
		}
	}
}
