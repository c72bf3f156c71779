package protocol

import (
	"context"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/gateway/internal/pace"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// busy is a device with sessions whose streams move as much as they can, in one
// direction.
type busy struct {
	t       *testing.T
	up      bool
	speeds  pace.Speeds
	meter   meter
	quota   pot
	running sync.WaitGroup
	clients []*mux.Session
	cutOff  context.CancelFunc // the streams of the latest session

	mu    sync.Mutex // guards the following field
	moved []*atomic.Int64
}

func newBusy(t *testing.T, up bool, bits int64) *busy {
	t.Helper()
	b := &busy{t: t, up: up}
	b.speeds.Set(time.Now(), bits, bits)
	return b
}

// count counts what is read until it ends.
func (b *busy) count(r io.Reader) {
	var moved atomic.Int64
	b.mu.Lock()
	b.moved = append(b.moved, &moved)
	b.mu.Unlock()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		moved.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// fill writes until it is not possible any more.
func fill(w io.Writer) {
	for buf := make([]byte, 32<<10); ; {
		if _, err := w.Write(buf); err != nil {
			return
		}
	}
}

// session opens a session with streams that are busy.
func (b *busy) session(streams int) *mux.Session {
	b.t.Helper()
	serve := &Streams{
		NewUpstream: func([16]byte) Upstream {
			return Upstream{Close: func() {}, Dial: func(context.Context, wire.Addr) (Conn, error) {
				plain, target := newTarget()
				conn := &buffered{duplex: plain}
				b.running.Go(func() {
					if b.up {
						b.count(target)
					} else {
						fill(target)
					}
				})
				return conn, nil
			}}
		},
		Slots: make(chan struct{}, 100), SessionDials: 100, SessionTargets: 100, Idle: 2 * time.Hour, HalfClosedIdle: 5 * time.Minute,
		Observe: func(string, time.Duration) {},
	}
	ours, theirs := muxtest.Pipe()
	gateway := mux.New(ours, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits()})
	client := mux.New(theirs, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits()})
	b.clients = append(b.clients, client)
	b.running.Go(func() { _ = gateway.Run(b.t.Context()) })
	b.running.Go(func() { _ = client.Run(b.t.Context()) })
	allowed, cutOff := context.WithCancel(b.t.Context())
	b.cutOff = cutOff
	b.running.Go(func() {
		_ = serve.Serve(allowed, gateway, sessionID, Bounds{Meter: &b.meter, Speeds: &b.speeds, Quota: &b.quota})
	})
	for range streams {
		b.stream(client)
	}
	return client
}

func (b *busy) stream(client *mux.Session) *mux.Stream {
	b.t.Helper()
	stream, err := client.Open(b.t.Context(), wire.Addr{Name: "target.example", Port: 80})
	if err != nil {
		b.t.Fatal(err)
	}
	b.running.Go(func() {
		if b.up {
			fill(stream)
		} else {
			b.count(stream)
		}
	})
	return stream
}

// during returns what each stream moves in d.
func (b *busy) during(d time.Duration) (moved []float64) {
	synctest.Wait()
	for _, n := range b.moved {
		moved = append(moved, -float64(n.Load()))
	}
	<-time.After(d)
	synctest.Wait()
	for i, n := range b.moved {
		moved[i] += float64(n.Load())
	}
	return moved
}

// hangUp ends all sessions and waits until nothing is left of them.
func (b *busy) hangUp() {
	for _, client := range b.clients {
		client.Close(wire.CodeNoError, "")
	}
	b.running.Wait()
	b.cutOff()
}

// wantSpeed checks bits per second, ±5 % in all, and that the streams had equal
// shares.
func wantSpeed(t *testing.T, moved []float64, d time.Duration, bits float64) {
	t.Helper()
	total, squares := 0.0, 0.0
	for _, n := range moved {
		total += n
		squares += n * n
	}
	if off := 100 * (total/(bits/8*d.Seconds()) - 1); math.Abs(off) > 5 {
		t.Errorf("%.0f bytes in %v: off by %.1f %%", total, d, off)
	}
	if jain := total * total / (float64(len(moved)) * squares); jain < 0.95 {
		t.Errorf("shared with Jain's index %.3f: %.0f", jain, moved)
	}
}

func TestADeviceKeepsItsSpeedWithAnyNumberOfStreamsAndSessions(t *testing.T) {
	for name, tc := range map[string]struct{ sessions, streams int }{
		"one stream": {1, 1}, "two streams": {1, 2}, "fifty streams": {1, 50}, "two sessions": {2, 5},
	} {
		for _, up := range []bool{true, false} {
			t.Run(name+map[bool]string{true: " up", false: " down"}[up], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBusy(t, up, 8_000_000)
					for range tc.sessions {
						b.session(tc.streams)
					}
					moved := b.during(10 * time.Second)
					if len(moved) != tc.sessions*tc.streams {
						t.Fatalf("%d streams are busy", len(moved))
					}
					wantSpeed(t, moved, 10*time.Second, 8_000_000)
					b.hangUp()
				})
			})
		}
	}
}

func TestANewSpeedIsThatOfLiveStreams(t *testing.T) {
	for _, up := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBusy(t, up, 64_000)
			b.session(3)
			_ = b.during(time.Second)
			for _, bits := range []int64{16_000_000, 2_000_000} {
				b.speeds.Set(time.Now(), bits, bits)
				wantSpeed(t, b.during(10*time.Second), 10*time.Second, float64(bits))
			}
			b.hangUp()
		})
	}
}

func TestAStreamThatEndsWaitsForNoTurn(t *testing.T) {
	for _, up := range []bool{true, false} {
		for name, end := range map[string]func(*busy, *mux.Stream){
			"its device resets it":  func(_ *busy, stream *mux.Stream) { stream.Reset(wire.CodeCancelled) },
			"its session ends":      func(b *busy, _ *mux.Stream) { b.hangUp() },
			"it is cut off":         func(b *busy, _ *mux.Stream) { b.cutOff() },
			"its device hears less": func(_ *busy, stream *mux.Stream) { _ = stream.CloseRead(); _ = stream.CloseWrite() },
		} {
			if up && name == "its device hears less" || !up && name == "it is cut off" {
				continue // what it said has to arrive; it still may say something
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBusy(t, up, 8000)
					b.session(50)
					stream := b.stream(b.clients[0])
					_ = b.during(3 * time.Second)
					before, began := b.meter.streams.Load(), time.Now()
					end(b, stream)
					synctest.Wait()
					if left := b.meter.streams.Load(); left >= before || time.Since(began) != 0 {
						t.Errorf("%d of %d streams are left after %v", left, before, time.Since(began))
					}
					b.hangUp()
				})
			})
		}
	}
}

func TestTheLastWordsOfASlowDeviceAreCutOffAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, conns, targets := dialTo()
		r := newRig(t, dial, nil)
		r.speeds.Set(time.Now(), 8000, 0)
		r.open(1)
		r.WantOpened(1)
		target := <-targets
		var heard int64
		var reading sync.WaitGroup
		reading.Go(func() { heard, _ = io.Copy(io.Discard, target) })
		r.Send(wire.AppendFin(nil, 1, make([]byte, 16_000)))
		synctest.Wait()
		began := time.Now()
		r.hangUp()
		reading.Wait()
		if took := time.Since(began); took != flushTimeout || !(<-conns).wasReset() {
			t.Errorf("the session's end took %v; the target has to be reset", took)
		}
		if heard < 4500 || heard > 5600 {
			t.Errorf("the target heard %d bytes in 5 s at 1,000 a second", heard)
		}
	})
}

func TestDatagramsBeyondTheSpeedAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		r.speeds.Set(time.Now(), 80_000, 80_000) // 1,000 bytes at once
		socket := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		data := string(make([]byte, 600))
		for range 5 {
			r.Send(dgram(peerA, data))
		}
		r.wantDropped(t, map[string]int{dropSpeed: 3})
		if n := len(socket.taken()); n != 2 {
			t.Errorf("%d datagrams were sent", n)
		}
		for range 5 {
			socket.in <- packet{addrPort(peerA), []byte(data)}
		}
		r.wantDgram(t, wire.KindUDPAny, peerA, data)
		r.wantDgram(t, wire.KindUDPAny, peerA, data)
		r.wantDropped(t, map[string]int{dropSpeed: 3})
		if up, down := r.meter.up.Load(), r.meter.down.Load(); up != 1200 || down != 1200 {
			t.Errorf("%d bytes up and %d down are counted", up, down)
		}
		<-time.After(time.Second)
		r.Send(dgram(peerA, data))
		r.wantDropped(t, map[string]int{})
		r.hangUp()
	})
}

func TestWithoutASpeedAWriteIsOnePieceAndCostsNothing(t *testing.T) {
	var (
		speeds pace.Speeds
		quota  pot
		bytes  meter
		target pieces
	)
	w := &watched{Conn: &target, meter: &bytes, began: time.Now(), up: newTurns(&speeds.Up, &quota), down: newTurns(&speeds.Down, &quota)}
	p := make([]byte, 1<<20)
	if cost := testing.AllocsPerRun(100, func() { _, _ = w.Write(p) }); cost != 0 {
		t.Errorf("%v allocations for a write", cost)
	}
	if target.writes != 101 || bytes.up.Load() != 101<<20 {
		t.Errorf("%d writes of %d bytes together", target.writes, bytes.up.Load())
	}
}

// pieces counts the writes that it takes.
type pieces struct {
	Conn
	writes int
}

func (p *pieces) Write(data []byte) (int, error) {
	p.writes++
	return len(data), nil
}
