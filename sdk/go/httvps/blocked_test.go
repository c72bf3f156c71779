package httvps_test

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Rules of docs/03, part 8.3, where more than one thing is wrong with the network.

// stays fails unless a device still has the session that it had.
func (d *device) stays(up httvps.Event) {
	d.t.Helper()
	if status := d.Status(); status.Session != up.Session {
		d.t.Errorf("another session: %+v", status)
	}
}

// soon waits a second for an event.
func (d *device) soon(kind httvps.EventKind, after string) {
	d.t.Helper()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		select {
		case e := <-d.events:
			if e.Kind == kind {
				return
			}
		case <-timer.C:
			d.t.Errorf("no %v after %s", kind, after)
			return
		}
	}
}

// A session that had to begin at a front goes on there, and is replaced there.
func TestASessionGoesOnAtTheFrontThatItBeganAt(t *testing.T) {
	for name, lose := range map[string]func(*censor, *device){
		"a break":         func(c *censor, _ *device) { c.s.Break() },
		"another network": func(_ *censor, d *device) { d.NetworkChanged() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &censor{}
				d, up, _ := censored(t, c, httvpstest.Options{Apart: true, Fronts: 1})
				c.s.Block(hostName(up.Gateway))
				c.s.Disconnect(wire.CodeShutdown)
				d.next(httvps.Connected)
				<-time.After(2 * time.Minute) // it has not frozen
				lose(c, d)
				d.soon(httvps.Resumed, name)
				d.end(c.s)
			})
		})
	}
}

// A connection that cannot be replaced at one URL is replaced at another.
func TestAConnectionIsReplacedAtAnotherFrontNextTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &censor{}
		d, up, conn := censored(t, c, httvpstest.Options{Apart: true, Fronts: 1})
		c.s.Block(hostName(up.Gateway))
		d.NetworkChanged()
		<-time.After(10 * time.Second)
		echoed(t, conn, "still")
		d.NetworkChanged()
		d.soon(httvps.Resumed, "another network")
		d.end(c.s)
	})
}

// That another gateway answers is no reason to leave one with a front that works.
func TestASessionIsNotLeftBeforeItsFrontsWereTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &censor{}
		d, up, conn := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true, Fronts: 1})
		<-time.After(2 * time.Minute) // it has not frozen
		c.s.Block(hostName(up.Gateway))
		c.s.Break()
		echoed(t, conn, "after")
		d.stays(up)
		d.end(c.s)
	})
}

// A front where nothing answers costs as long as the URL where nothing answered, and where
// there are many of them, another gateway is not made to wait for the last.
func TestManyFrontsThatAreSilentDoNotAddUp(t *testing.T) {
	for name, tc := range map[string]struct {
		fronts, silent int
		within         time.Duration
	}{
		"the last one answers": {fronts: 2, silent: 1, within: 5 * time.Second},
		"none answers":         {fronts: wire.MaxURLs, silent: wire.MaxURLs, within: 13 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &censor{}
				d, up, _ := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true, Fronts: tc.fronts})
				<-time.After(2 * time.Minute) // it has not frozen
				silent := []string{hostName(up.Gateway)}
				for i := range tc.silent {
					silent = append(silent, hostName(c.s.Front(number(t, c.s, up.Gateway), i)))
				}
				c.s.Block(silent...)
				began := time.Now()
				c.s.Break()
				left := tc.silent == tc.fronts
				if left {
					if next := d.next(httvps.Connected); next.Gateway == up.Gateway {
						t.Error("connected to the gateway that is silent")
					}
				} else {
					d.next(httvps.Resumed)
					d.stays(up)
				}
				if took := time.Since(began); took > tc.within {
					t.Errorf("it took %v", took)
				}
				d.end(c.s)
			})
		})
	}
}

// Where nobody listens at a front, the gateway is not gone.
func TestAFrontThatRefusesSaysNothingOfItsGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &censor{after: 100, reset: true}
		var front atomic.Pointer[string]
		d, up, conn := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true, Fronts: 1}, func(cfg *httvps.Config) {
			cfg.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if refuses := front.Load(); refuses != nil && address == *refuses+":443" {
					return nil, syscall.ECONNREFUSED
				}
				return c.dial(ctx, network, address)
			}
		})
		refuses := hostName(c.s.Front(0, 0))
		front.Store(&refuses)
		c.watch(up.Gateway)
		time.AfterFunc(900*time.Millisecond, func() { c.watch() })
		c.s.Break()
		echoed(t, conn, "after")
		d.stays(up)
		d.end(c.s)
	})
}

// That connections to another gateway begin does not say that they work: the session is
// given up when they do.
func TestASessionThatFreezesIsKeptUntilAnotherGatewayWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &censor{after: 30_000, reset: true}
		handshakes := &censor{after: 100}
		d, up, conn := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true}, func(cfg *httvps.Config) {
			cfg.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if handshakes.watches(address) {
					return handshakes.dial(ctx, network, address)
				}
				return c.dial(ctx, network, address)
			}
		})
		handshakes.s = c.s
		other := c.s.Gateway(1 - number(t, c.s, up.Gateway))
		handshakes.watch(other)
		c.watch(up.Gateway)
		c.s.Break()
		heard := chatter(conn)
		<-time.After(2 * time.Minute)
		d.stays(up)
		if n := heard.Load(); n < 200_000 {
			t.Errorf("%d bytes have come back", n)
		}
		handshakes.watch()
		began := time.Now()
		if next := d.next(httvps.Connected); next.Gateway != other {
			t.Errorf("connected to %s", next.Gateway)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		d.end(c.s)
	})
}

// What was lost on one network says nothing of the next.
func TestConnectionsOfAnotherNetworkHaveNotFrozen(t *testing.T) {
	for name, away := range map[string]bool{"that comes later": false, "that is waited for": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &censor{}
				d, up, conn := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true})
				for range 5 {
					if away {
						c.s.Block(hostName(up.Gateway))
					}
					c.s.Break()
					if !away {
						d.next(httvps.Resumed)
					}
					<-time.After(2 * time.Second)
					c.s.Block()
					d.NetworkChanged()
					d.next(httvps.Resumed)
					<-time.After(5 * time.Second)
				}
				echoed(t, conn, "after")
				d.stays(up)
				d.end(c.s)
			})
		})
	}
}

// What a gateway itself says it says at all of its URLs.
func TestADeviceIsRefusedOnceAndNotAtEachFront(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			busy  atomic.Bool
			asked atomic.Int32
		)
		c := &censor{}
		d, _, _ := censored(t, c, httvpstest.Options{Apart: true, Fronts: 3, Admit: func(int, wire.Hello) wire.Reject {
			if !busy.Load() {
				return wire.Reject{}
			}
			asked.Add(1)
			return wire.Reject{Code: wire.CodeRetryLater}
		}})
		busy.Store(true)
		c.s.Disconnect(wire.CodeShutdown)
		d.next(httvps.Waiting) // the session has ended
		d.next(httvps.Waiting)
		if n := asked.Load(); n != 1 {
			t.Errorf("it asked %d times", n)
		}
		busy.Store(false)
		d.next(httvps.Connected)
		d.end(c.s)
	})
}

// A gateway that lets nobody in is no better than one whose connections freeze: it costs
// one session to find out, and not one after the other.
func TestAFullGatewayIsNotGoneToAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Int32
		full.Store(-1)
		c := &censor{after: 30_000, reset: true}
		d, up, conn := censored(t, c, httvpstest.Options{Gateways: 2, Apart: true, Admit: func(gateway int, _ wire.Hello) wire.Reject {
			if gateway == int(full.Load()) {
				return wire.Reject{Code: wire.CodeRetryLater}
			}
			return wire.Reject{}
		}})
		other := 1 - number(t, c.s, up.Gateway)
		full.Store(int32(other))
		c.watch(up.Gateway)
		c.s.Break()
		chatter(conn)
		began, sessions := time.Now(), 0
		for over := time.After(4 * time.Minute); over != nil; {
			select {
			case e := <-d.events:
				if e.Kind != httvps.Connected {
					continue
				}
				sessions++
				again, err := d.DialContext(t.Context(), "tcp", "a:1")
				if err != nil {
					t.Fatal(err)
				}
				chatter(again)
			case <-over:
				over = nil
			}
		}
		if sessions != 1 {
			t.Errorf("%d sessions after the first", sessions)
		}
		full.Store(-1)
		if next := d.next(httvps.Connected); next.Gateway != c.s.Gateway(other) {
			t.Errorf("connected to %s", next.Gateway)
		}
		if took := time.Since(began); took > 6*time.Minute {
			t.Errorf("it took %v", took)
		}
		d.end(c.s)
	})
}
