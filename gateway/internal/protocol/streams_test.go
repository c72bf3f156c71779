package protocol

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/gateway/internal/pace"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// duplex is one end of a connection in memory whose directions end separately.
type duplex struct {
	net.Conn          // read
	out      net.Conn // written
	linger   atomic.Int32
}

const lingerUnset = -1

// newTarget returns a connection to a target and the target's end of it.
func newTarget() (conn, target *duplex) {
	down, downFar := net.Pipe()
	upFar, up := net.Pipe()
	conn, target = &duplex{Conn: down, out: up}, &duplex{Conn: upFar, out: downFar}
	conn.linger.Store(lingerUnset)
	return conn, target
}

func (d *duplex) Write(p []byte) (int, error)        { return d.out.Write(p) }
func (d *duplex) CloseWrite() error                  { return d.out.Close() }
func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }
func (d *duplex) SetLinger(seconds int) error        { d.linger.Store(int32(seconds)); return nil }
func (d *duplex) Close() error {
	_ = d.out.Close()
	return d.Conn.Close()
}

// wasReset reports whether the connection was closed with a reset.
func (d *duplex) wasReset() bool { return d.linger.Load() == 0 }

type meter struct{ up, down, streams atomic.Int64 }

func (m *meter) AddUp(n int)      { m.up.Add(int64(n)) }
func (m *meter) AddDown(n int)    { m.down.Add(int64(n)) }
func (m *meter) AddStreams(n int) { m.streams.Add(int64(n)) }

// sessionID is that of every rig.
var sessionID = [16]byte{1, 2, 3}

// rig is a session whose device the test plays frame by frame.
type rig struct {
	*muxtest.Peer
	streams *Streams
	meter   meter
	speeds  pace.Speeds
	quota   pot
	session *mux.Session
	results chan string
	served  chan error
	stop    context.CancelFunc // ends Serve, and not the session
	ended   sync.WaitGroup
}

func (r *rig) open(id uint64) {
	r.Send(wire.AppendOpen(nil, id, wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 20, Target: wire.Addr{Name: "target.example", Port: 80}}))
}

// hangUp ends the session and waits until nothing of it is left.
func (r *rig) hangUp() {
	r.Close()
	r.ended.Wait()
}

// newRig serves a session with dial until its device hangs up.
func newRig(t *testing.T, dial func(context.Context, wire.Addr) (Conn, error), change func(*Streams)) *rig {
	t.Helper()
	ours, theirs := muxtest.Pipe()
	r := &rig{Peer: muxtest.NewPeer(t, theirs), results: make(chan string, 1000), served: make(chan error, 1)}
	r.streams = &Streams{
		NewUpstream: func([16]byte) Upstream { return Upstream{Dial: dial, Close: func() {}} }, Slots: make(chan struct{}, 100), SessionDials: 100, SessionTargets: 100, Idle: 2 * time.Hour, HalfClosedIdle: 5 * time.Minute,
		Observe: func(result string, _ time.Duration) { r.results <- result },
	}
	if change != nil {
		change(r.streams)
	}
	limits := wire.DefaultLimits()
	limits.Silence = 0 // the scripted device does not ping
	r.session = mux.New(ours, mux.Config{Role: mux.Gateway, Limits: limits})
	r.ended.Go(func() { _ = r.session.Run(t.Context()) })
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	r.ended.Go(func() {
		r.served <- r.streams.Serve(ctx, r.session, sessionID, Bounds{Meter: &r.meter, Speeds: &r.speeds, Quota: &r.quota})
	})
	return r
}

// dialTo returns a dial function that connects to the returned targets.
func dialTo() (func(context.Context, wire.Addr) (Conn, error), <-chan *duplex, <-chan *duplex) {
	conns, targets := make(chan *duplex, 100), make(chan *duplex, 100)
	return func(context.Context, wire.Addr) (Conn, error) {
		conn, target := newTarget()
		conns <- conn
		targets <- target
		return conn, nil
	}, conns, targets
}

func TestBytesAndTheEndOfEachDirectionPassByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _, targets := dialTo()
		r := newRig(t, dial, nil)
		r.open(1)
		r.WantOpened(1)
		target := <-targets
		r.Send(wire.AppendFin(nil, 1, []byte("question")))
		if got, err := io.ReadAll(target); string(got) != "question" || err != nil {
			t.Errorf("the target read %q, %v", got, err)
		}
		if _, err := io.WriteString(target, "answer"); err != nil {
			t.Errorf("the target answers after the device's FIN: %v", err)
		}
		if got := r.Want(wire.TypeData, 1); string(got) != "answer" {
			t.Errorf("the device read %q", got)
		}
		target.Close()
		if got := r.Want(wire.TypeFin, 1); len(got) != 0 {
			t.Errorf("FIN with %q", got)
		}
		synctest.Wait()
		if r.meter.up.Load() != 8 || r.meter.down.Load() != 6 || r.meter.streams.Load() != 0 || r.session.Streams() != 0 {
			t.Errorf("counted %d up, %d down; %d and %d streams are left", r.meter.up.Load(), r.meter.down.Load(),
				r.meter.streams.Load(), r.session.Streams())
		}
		if got := <-r.results; got != "opened" {
			t.Errorf("observed %q", got)
		}
		r.hangUp()
	})
}

// The ordinary end of a connection that its program no longer wants: the device
// sends FIN and STOP, and forgets the stream. A target that says nothing must not
// keep its connection.
func TestSilentTargetGoesWithItsStream(t *testing.T) {
	for name, end := range map[string][]byte{
		"FIN, then STOP":  append(wire.AppendFin(nil, 1, nil), wire.AppendStop(nil, 1, wire.CodeCancelled)...),
		"STOP, then FIN":  append(wire.AppendStop(nil, 1, wire.CodeCancelled), wire.AppendFin(nil, 1, nil)...),
		"FIN, then RESET": append(wire.AppendFin(nil, 1, nil), wire.AppendReset(nil, 1, wire.CodeCancelled)...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, _, targets := dialTo()
				r := newRig(t, dial, nil)
				r.open(1)
				r.WantOpened(1)
				target := <-targets
				r.Send(end)
				synctest.Wait()
				if _, err := target.Write([]byte("x")); err == nil {
					t.Error("the target still has its connection")
				}
				if r.meter.streams.Load() != 0 {
					t.Error("the stream is still served")
				}
				r.hangUp()
			})
		})
	}
}

// What the device said to its end reaches the target, also when the session ends
// right behind it and the target takes its time.
func TestATargetGetsWhatCameWholeBeforeTheSessionsEnd(t *testing.T) {
	for name, behind := range map[string][]byte{
		"half closed":       nil,
		"closed":            wire.AppendStop(nil, 1, wire.CodeCancelled),
		"closed by a CLOSE": wire.AppendClose(nil, wire.Close{}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, conns, targets := dialTo()
				r := newRig(t, dial, nil)
				r.open(1)
				r.WantOpened(1)
				conn, target := <-conns, <-targets
				said := bytes.Repeat([]byte("0123456789"), 3000)
				r.Send(wire.AppendData(nil, 1, said[:16000]), wire.AppendFin(nil, 1, said[16000:]), behind)
				synctest.Wait()
				r.Close()
				<-r.session.Done()
				<-time.After(flushTimeout - time.Second)
				if got, err := io.ReadAll(target); !bytes.Equal(got, said) || err != nil {
					t.Errorf("the target read %d bytes, %v, want %d", len(got), err, len(said))
				}
				if _, err := target.Write([]byte("thanks")); err != nil && name != "closed" {
					t.Errorf("the target's answer: %v", err) // nobody hears it
				}
				_ = target.CloseWrite()
				began := time.Now()
				r.ended.Wait()
				if took := time.Since(began); took != 0 || conn.wasReset() {
					t.Errorf("ended %v after the target, reset: %t", took, conn.wasReset())
				}
				if r.meter.up.Load() != int64(len(said)) || r.meter.streams.Load() != 0 {
					t.Errorf("%d bytes are counted, %d streams are left", r.meter.up.Load(), r.meter.streams.Load())
				}
			})
		})
	}
}

func TestATargetThatTakesItsTimeIsResetFiveSecondsAfterTheSessionsEnd(t *testing.T) {
	for name, play := range map[string]func(target *duplex){
		"it reads nothing": func(*duplex) {},
		"it reads too slowly": func(target *duplex) {
			for {
				if _, err := target.Read(make([]byte, 1)); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		},
		"it does not end its direction": func(target *duplex) { _, _ = io.ReadAll(target) },
		"it talks on": func(target *duplex) {
			for {
				if _, err := target.Write([]byte("and then")); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, conns, targets := dialTo()
				r := newRig(t, dial, nil)
				r.open(1)
				r.WantOpened(1)
				r.Send(wire.AppendFin(nil, 1, []byte("the last words")))
				synctest.Wait()
				target := <-targets
				var played sync.WaitGroup
				played.Go(func() { play(target) })
				synctest.Wait()
				began := time.Now()
				r.hangUp()
				if took := time.Since(began); took != 5*time.Second || !(<-conns).wasReset() {
					t.Errorf("the session's end took %v; the target has to be reset", took)
				}
				played.Wait()
			})
		})
	}
}

// A device that may no longer is not done a last service.
func TestWhatIsOnItsWayIsCutOffWithARevokedSession(t *testing.T) {
	for name, revoke := range map[string]func(r *rig){
		"by its end": func(r *rig) {
			r.session.Close(wire.CodeDeviceRevoked, "")
			r.stop()
		},
		"after its end": func(r *rig) {
			r.Close()
			<-r.session.Done()
			synctest.Wait()
			r.stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, conns, targets := dialTo()
				r := newRig(t, dial, nil)
				r.open(1)
				r.WantOpened(1)
				target := <-targets
				r.Send(wire.AppendFin(nil, 1, []byte("more of it")))
				synctest.Wait()
				revoke(r)
				synctest.Wait()
				if got, err := io.ReadAll(target); len(got) != 0 {
					t.Errorf("the target read %q, %v", got, err)
				}
				if !(<-conns).wasReset() {
					t.Error("the target's connection was not reset")
				}
				r.hangUp()
			})
		})
	}
}

// A device that ends its streams properly has its places back while a target
// still takes its time with the last bytes. That has a bound of its own.
func TestTargetsThatReadNoMoreAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _, targets := dialTo()
		r := newRig(t, dial, func(s *Streams) { s.SessionTargets = 2 })
		for i := range uint64(2) {
			id := 2*i + 1
			r.open(id)
			r.WantOpened(id)
			target := <-targets
			r.Send(wire.AppendFin(nil, id, []byte("that it never reads")))
			_ = target.out.Close()
			r.Want(wire.TypeFin, id)
		}
		synctest.Wait()
		if r.session.Streams() != 0 {
			t.Fatalf("%d streams count, want 0", r.session.Streams())
		}
		r.open(5)
		r.WantReset(5, wire.CodeLimit)
		r.hangUp()
	})
}

func TestTheTargetMayEndFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _, targets := dialTo()
		r := newRig(t, dial, nil)
		r.open(1)
		r.WantOpened(1)
		target := <-targets
		_ = target.CloseWrite()
		r.Want(wire.TypeFin, 1)
		r.Send(wire.AppendData(nil, 1, []byte("still")), wire.AppendFin(nil, 1, []byte(" here")))
		if got, err := io.ReadAll(target); string(got) != "still here" || err != nil {
			t.Errorf("the target read %q, %v", got, err)
		}
		r.hangUp()
	})
}

// failure is an error as package upstream makes it.
type failure string

func (f failure) Error() string  { return "dial 10.0.0.1:80 failed: " + string(f) }
func (f failure) Reason() string { return string(f) }

func TestEachFailureOfADialHasItsCode(t *testing.T) {
	cases := []struct {
		err  error
		want wire.Code
	}{
		{errors.New("anything"), wire.CodeInternal},
		{failure("a reason from the future"), wire.CodeInternal},
		{context.DeadlineExceeded, wire.CodeConnTimeout},
		{context.Canceled, wire.CodeCancelled},
	}
	for reason, code := range failures {
		cases = append(cases, struct {
			err  error
			want wire.Code
		}{failure(reason), code})
	}
	for _, tc := range cases {
		t.Run(tc.want.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(context.Context, wire.Addr) (Conn, error) { return nil, tc.err }, nil)
				r.open(1)
				r.WantReset(1, tc.want)
				if got := <-r.results; got != tc.want.String() {
					t.Errorf("observed %q", got)
				}
				r.hangUp()
			})
		})
	}
}

// TestADialKeepsItsPlaceUntilItEnds is rapid reset: a device that opens and
// resets must not get more dials than one that waits.
func TestADialKeepsItsPlaceUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		answer := make(chan struct{})
		r := newRig(t, func(ctx context.Context, _ wire.Addr) (Conn, error) {
			dials.Add(1)
			select {
			case <-answer:
			case <-ctx.Done():
			}
			return nil, failure("refused")
		}, func(s *Streams) { s.SessionDials = 2 })
		for id := uint64(1); id < 41; id += 2 {
			r.open(id)
			r.Send(wire.AppendReset(nil, id, wire.CodeCancelled))
			synctest.Wait()
		}
		if n := dials.Load(); n != 2 {
			t.Errorf("%d dials are under way, want 2", n)
		}
		close(answer)
		synctest.Wait()
		r.open(41)
		for r.Next().Stream != 41 { // before it, what was refused
		}
		if n := dials.Load(); n != 3 {
			t.Errorf("%d dials after the first two ended, want 3", n)
		}
		r.hangUp()
	})
}

func TestDialsBeyondTheSessionsPlacesWaitForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connected, _, _ := dialTo()
		var dials atomic.Int32
		answered := make(chan struct{})
		r := newRig(t, func(ctx context.Context, to wire.Addr) (Conn, error) {
			if dials.Add(1) == 1 {
				<-time.After(5 * time.Second)
				return nil, failure("dns")
			}
			<-answered // a place is free before it is told why
			return connected(ctx, to)
		}, func(s *Streams) { s.SessionDials = 1 })
		r.open(1)
		synctest.Wait()
		r.open(3)
		synctest.Wait()
		if n := dials.Load(); n != 1 || len(r.streams.Slots) != 1 {
			t.Errorf("%d dials, %d places of the process taken, want 1: who waits takes no place of others", n, len(r.streams.Slots))
		}
		r.WantReset(1, wire.CodeDNSFail)
		close(answered)
		r.WantOpened(3)
		r.hangUp()
	})
}

func TestADialThatGetsNoPlaceIsAnsweredInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		r := newRig(t, func(ctx context.Context, _ wire.Addr) (Conn, error) {
			dials.Add(1)
			<-time.After(time.Minute) // whatever ctx says
			return nil, ctx.Err()
		}, func(s *Streams) { s.SessionDials = 1 })
		r.open(1)
		synctest.Wait()
		r.open(3)
		began := time.Now()
		r.WantReset(3, wire.CodeConnTimeout)
		if took := time.Since(began); took >= wire.OpenedTimeout || dials.Load() != 1 {
			t.Errorf("answered after %v, %d dials", took, dials.Load())
		}
		r.hangUp()
	})
}

func TestAResetEndsTheWaitForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		r := newRig(t, func(ctx context.Context, _ wire.Addr) (Conn, error) {
			dials.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}, func(s *Streams) { s.SessionDials = 1 })
		r.open(1)
		synctest.Wait()
		r.open(3)
		r.Send(wire.AppendReset(nil, 3, wire.CodeCancelled))
		synctest.Wait()
		if got := <-r.results; got != wire.CodeCancelled.String() || r.meter.streams.Load() != 1 {
			t.Errorf("observed %q, %d streams are served, want the first alone", got, r.meter.streams.Load())
		}
		r.hangUp()
		if dials.Load() != 1 {
			t.Errorf("%d dials, want 1", dials.Load())
		}
	})
}

func TestADialWaitsForAPlaceInTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _, targets := dialTo()
		r := newRig(t, dial, func(s *Streams) {
			s.Slots = make(chan struct{}, 1)
			s.Slots <- struct{}{} // another session's
		})
		r.open(1)
		r.WantQuiet()
		<-r.streams.Slots
		r.WantOpened(1)
		(<-targets).Close()
		if len(r.streams.Slots) != 0 {
			t.Error("the place is not free after the dial")
		}
		r.streams.Slots <- struct{}{}
		r.Want(wire.TypeFin, 1)
		r.open(3)
		for f := r.Next(); f.Stream != 3; f = r.Next() { // what stream 1 still says
		}
		r.hangUp()
	})
}

func TestTheEndOfTheSessionEndsItsDialsAndConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connected, conns, _ := dialTo()
		var calls atomic.Int32
		dialEnded := make(chan error, 1)
		r := newRig(t, func(ctx context.Context, to wire.Addr) (Conn, error) {
			if calls.Add(1) == 1 {
				return connected(ctx, to)
			}
			<-ctx.Done()
			dialEnded <- ctx.Err()
			return nil, ctx.Err()
		}, nil)
		r.open(1)
		r.WantOpened(1)
		conn := <-conns
		r.open(3)
		synctest.Wait()
		r.hangUp() // synctest fails the test if anything waits for ever
		if err := <-dialEnded; !errors.Is(err, context.Canceled) {
			t.Errorf("the dial ended with %v", err)
		}
		if err := <-r.served; !errors.Is(err, mux.ErrEnded) {
			t.Errorf("Serve = %v", err)
		}
		if !conn.wasReset() {
			t.Error("the target saw an orderly end of a session that broke off")
		}
	})
}

func TestTheDevicesResetReachesTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, conns, targets := dialTo()
		r := newRig(t, dial, nil)
		r.open(1)
		r.WantOpened(1)
		conn, target := <-conns, <-targets
		r.Send(wire.AppendReset(nil, 1, wire.CodeCancelled))
		if _, err := target.Read(make([]byte, 1)); err == nil {
			t.Error("the target's connection goes on")
		}
		synctest.Wait()
		if !conn.wasReset() || r.meter.streams.Load() != 0 {
			t.Errorf("reset %v, %d streams", conn.wasReset(), r.meter.streams.Load())
		}
		r.hangUp()
	})
}

// broken is a target whose writes fail, or whose reads from a moment on.
type broken struct {
	*duplex
	read, write error
	from        chan struct{}
}

func (b *broken) Read(p []byte) (int, error) {
	if b.read != nil {
		<-b.from
		return 0, b.read
	}
	return b.duplex.Read(p)
}

func (b *broken) Write(p []byte) (int, error) {
	if b.write != nil {
		return 0, b.write
	}
	return b.duplex.Write(p)
}

// A way that fails has a word for it, which is not the target's.
func TestTheWordOfAFailedWayReachesTheDevice(t *testing.T) {
	for _, reason := range []string{"egress_lost", "refused", "timeout"} {
		synctest.Test(t, func(t *testing.T) {
			from := make(chan struct{})
			r := newRig(t, func(context.Context, wire.Addr) (Conn, error) {
				conn, _ := newTarget()
				return &broken{duplex: conn, read: failure(reason), from: from}, nil
			}, nil)
			r.open(1)
			r.WantOpened(1)
			close(from)
			r.WantReset(1, failures[reason])
			r.hangUp()
		})
	}
}

func TestTheTargetsResetReachesTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := make(chan struct{})
		r := newRig(t, func(context.Context, wire.Addr) (Conn, error) {
			conn, _ := newTarget()
			return &broken{duplex: conn, read: syscall.ECONNRESET, from: from}, nil
		}, nil)
		r.open(1)
		r.WantOpened(1)
		close(from)
		r.WantReset(1, wire.CodeTargetReset)
		r.hangUp()
	})
}

func TestATargetThatTakesNoMoreMayStillAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets := make(chan *duplex, 1)
		r := newRig(t, func(context.Context, wire.Addr) (Conn, error) {
			conn, target := newTarget()
			targets <- target
			return &broken{duplex: conn, write: syscall.EPIPE}, nil
		}, nil)
		r.open(1)
		r.WantOpened(1)
		target := <-targets
		r.Send(wire.AppendData(nil, 1, []byte("a long upload")))
		r.WantStop(1, wire.CodeCancelled)
		r.Send(wire.AppendFin(nil, 1, nil))
		if _, err := io.WriteString(target, "413"); err != nil {
			t.Fatal(err)
		}
		if got := r.Want(wire.TypeData, 1); string(got) != "413" {
			t.Errorf("the device read %q", got)
		}
		_ = target.CloseWrite()
		r.Want(wire.TypeFin, 1)
		r.hangUp()
	})
}

func TestAnIdleStreamIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, conns, targets := dialTo()
		r := newRig(t, dial, nil)
		r.open(1)
		r.WantOpened(1)
		conn, target := <-conns, <-targets
		time.AfterFunc(time.Hour, func() { _, _ = target.Write([]byte("x")) })
		r.Want(wire.TypeData, 1)
		moved := time.Now()
		r.WantReset(1, wire.CodeIdle)
		if idle := time.Since(moved); idle != 2*time.Hour {
			t.Errorf("ended after %v without a byte, want 2h", idle)
		}
		synctest.Wait()
		if !conn.wasReset() {
			t.Error("the target's connection was not reset")
		}
		r.hangUp()
	})
}

func TestAHalfClosedStreamIsEndedSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _, targets := dialTo()
		r := newRig(t, dial, nil)
		r.open(1)
		r.WantOpened(1)
		target := <-targets
		r.Send(wire.AppendFin(nil, 1, nil))
		if _, err := target.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		closed := time.Now()
		r.WantReset(1, wire.CodeIdle)
		if idle := time.Since(closed); idle != 5*time.Minute {
			t.Errorf("ended after %v, want 5m", idle)
		}
		r.hangUp()
	})
}

func TestAStreamResetWhileItsTargetConnectsLeavesNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		conn, target := newTarget()
		r := newRig(t, func(context.Context, wire.Addr) (Conn, error) {
			<-answer
			return conn, nil
		}, nil)
		r.open(1)
		r.Send(wire.AppendReset(nil, 1, wire.CodeCancelled))
		synctest.Wait()
		close(answer)
		if _, err := target.Read(make([]byte, 1)); err == nil {
			t.Error("the connection goes on")
		}
		if got := <-r.results; got != wire.CodeCancelled.String() {
			t.Errorf("observed %q", got)
		}
		r.hangUp()
	})
}
