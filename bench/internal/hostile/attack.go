package hostile

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/wire"
)

// The attacks.
const (
	// RapidReset opens streams and resets each at once, as fast as it can.
	RapidReset = "rapid reset"
	// Everything makes the gateway hold as much as it can: uploads up to their
	// credit for targets that do not read, downloads that are not read, more
	// streams than allowed, PINGs, credit and padding without an end.
	Everything = "everything"
)

// Spec is an attack.
type Spec struct {
	Kind      string        `json:"kind"`
	Link      string        `json:"link"`      // an invitation
	Authority string        `json:"authority"` // directory of the service's certificate authority
	Target    string        `json:"target"`    // for RapidReset one that never answers, else an origin
	Count     int           `json:"count"`     // of streams, for RapidReset
	Duration  time.Duration `json:"duration"`  // of Everything
	Download  byte          `json:"download"`  // what an origin is asked for by those that are not read
	Stall     byte          `json:"stall"`     // and by those that do not read
}

// Result is how the gateway took it.
type Result struct {
	Sent     int     `json:"sent"`     // streams opened
	Uploaded int64   `json:"uploaded"` // bytes, for Everything
	Filled   bool    `json:"filled"`   // the gateway granted no more credit for them
	Stopped  float64 `json:"stopped"`  // seconds until the first refusal for haste or the end of the session; the whole time when there was none
	Ended    bool    `json:"ended"`    // the gateway ended the session
	Code     string  `json:"code"`     // with this code, or that of the first refusal for haste
}

// Run connects, calls ready, waits for begin and attacks.
func Run(ctx context.Context, spec Spec, trust *tls.Config, ready func(), begin <-chan struct{}) (Result, error) {
	target, err := netip.ParseAddrPort(spec.Target)
	if err != nil {
		return Result{}, err
	}
	s, err := connect(ctx, spec.Link, trust)
	if err != nil {
		return Result{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	a := &attack{session: s, spec: spec, target: wire.Addr{IP: target.Addr(), Port: target.Port()}, over: make(chan struct{})}
	ready()
	select {
	case <-begin:
	case <-ctx.Done():
		return Result{}, errors.Join(context.Cause(ctx), s.conn.Close())
	}
	a.start = time.Now()
	var reading sync.WaitGroup
	reading.Go(a.read)
	switch spec.Kind {
	case RapidReset:
		a.rapidReset(ctx)
	case Everything:
		a.everything(ctx)
	default:
		err = fmt.Errorf("no attack is called %q", spec.Kind)
	}
	took := time.Since(a.start)
	a.leaving.Store(true)
	_ = s.conn.Close()
	reading.Wait()
	if a.result.Stopped == 0 {
		a.result.Stopped = took.Seconds()
	}
	return a.result, err
}

// attack is an attack under way.
type attack struct {
	*session
	spec   Spec
	target wire.Addr
	start  time.Time
	over   chan struct{} // closed when the gateway has ended the session

	deaf    atomic.Bool // nothing is read
	leaving atomic.Bool // the end is ours

	mu     sync.Mutex // guards the following, but for what result has from the attack itself
	credit map[uint64]uint64
	result Result
}

// read follows what the gateway says.
func (a *attack) read() {
	defer close(a.over)
	var buf []byte
	for {
		for a.deaf.Load() && !a.leaving.Load() {
			nap(5 * time.Millisecond)
		}
		message, err := a.conn.ReadMessage(buf)
		if err != nil {
			if !a.leaving.Load() {
				a.note(true, "")
			}
			return
		}
		buf = message
		for frame, err := range wire.Frames(message) {
			if err != nil {
				break
			}
			a.take(frame)
		}
	}
}

func nap(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

func (a *attack) take(frame wire.Frame) {
	switch frame.Type {
	case wire.TypeOpened:
		if o, err := wire.ParseOpened(frame.Payload); err == nil {
			a.grant(frame.Stream, o.RecvWindow)
		}
	case wire.TypeCredit:
		if offset, err := wire.ParseCredit(frame.Payload); err == nil {
			a.grant(frame.Stream, offset)
		}
	case wire.TypeReset:
		if code, err := wire.ParseReset(frame.Payload); err == nil && code == wire.CodeEnhanceCalm {
			a.note(false, code.String())
		}
	case wire.TypeClose:
		if c, err := wire.ParseClose(frame.Payload); err == nil {
			a.note(true, c.Code.String())
		}
	default: // whatever else a gateway says, a hostile device does not care
	}
}

func (a *attack) grant(stream, offset uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.credit == nil {
		a.credit = make(map[uint64]uint64)
	}
	a.credit[stream] = max(a.credit[stream], offset)
}

// note remembers when the gateway had enough, and why.
func (a *attack) note(ended bool, code string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.result.Stopped == 0 {
		a.result.Stopped, a.result.Code = time.Since(a.start).Seconds(), code
	}
	a.result.Ended = a.result.Ended || ended
}

// write sends frames, and reports whether they could be sent.
func (a *attack) write(frames []byte) bool {
	_ = a.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	return a.conn.WriteMessage(frames) == nil
}

// rapidReset sends an OPEN and its RESET, Count times, as many in a message as
// fit, and then waits for the gateway to have had enough.
func (a *attack) rapidReset(ctx context.Context) {
	const room = 60 << 10
	message := make([]byte, 0, wire.MaxMessage)
	id := uint64(1)
	for a.result.Sent < a.spec.Count {
		message = wire.AppendOpen(message, id, wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 20, Target: a.target})
		message = wire.AppendReset(message, id, wire.CodeCancelled)
		id += 2
		a.result.Sent++
		if len(message) > room || a.result.Sent == a.spec.Count {
			if ctx.Err() != nil || !a.write(message) {
				break
			}
			message = message[:0]
		}
	}
	select {
	case <-a.over:
	case <-ctx.Done():
	case <-time.After(2 * time.Second):
	}
}

func knockCookie(k *httvps.Knock, host string) string {
	return k.Cookie + "=" + knock.Mint(k.Key, host, time.Now())
}
