package httvps

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/padding"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// The time for an attempt to go on over another carrier, the first and any: it
	// doubles with each that needs more. A gateway with several URLs has half of it at
	// each of them first.
	resumeTimeout, resumeTimeoutMost = 4 * time.Second, 16 * time.Second

	// The wait between attempts is drawn below bounds that double from the first to
	// the second. The second attempt does not wait: that a connection breaks while it
	// is made says little of the next.
	resumeSoon  = 100 * time.Millisecond
	resumeLater = 2 * time.Second

	// How long a session's gateway may be away until it counts whether another answers:
	// when nobody listens at any of its URLs, when all have been tried, and anyway.
	goneRefused, goneSilent, goneAnyway = 300 * time.Millisecond, 3 * time.Second, 10 * time.Second

	// betterTimeout is the time for another gateway to show that it works, and betterMost
	// how many are asked for that.
	betterTimeout = 3 * time.Second
	betterMost    = 8

	// A carrier is replaced, though nothing is wrong with it, after a time and a
	// number of bytes that are drawn between these: one long connection with much
	// in it is what few others have.
	rotateAfterLeast, rotateAfterMost = 20 * time.Minute, 60 * time.Minute
	rotateBytesLeast, rotateBytesMost = 500 << 20, 2000 << 20

	// rotateLook is how often the bytes are looked at.
	rotateLook = 30 * time.Second
)

// keeper gives a session another carrier when it has lost its own, when the network
// has changed, and from time to time.
type keeper struct {
	runner  *runner
	gateway Gateway
	at      string // that of its URLs which was connected to last
	id      string // of the session
	session *mux.Session
	ready   wire.Ready
	lost    chan error    // has room for one: why the carrier was lost
	left    chan struct{} // closed when another session has taken the place of this one
	attempt uint64        // the latest
	row     row

	news    news
	times   gatewayTimes
	shown   string      // the token that the gateway was shown last
	unheard bool        // and could not judge
	again   *time.Timer // when it is to be shown again

	// fresh is set when the gateway no longer has the session: a carrier on which the
	// device can introduce itself at once.
	fresh *opened
}

// loses notes that the session has lost its carrier.
func (k *keeper) loses(why error) {
	k.note(why)
	select {
	case k.lost <- why:
	default:
	}
}

// note notes why the session has no connection, unless another one has taken its place;
// nil: it has one.
func (k *keeper) note(lost error) {
	c := k.runner.client
	c.change(func() {
		if c.session == k.session {
			c.lost = lost
		}
	})
}

// run returns when the session has ended.
func (k *keeper) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		<-k.session.Done()
		cancel()
	})
	rotation := newRotation(k.session)
	look := time.NewTicker(rotateLook)
	defer look.Stop()
	k.again = time.NewTimer(reauthAgain)
	defer k.again.Stop()
	renewed := k.runner.tokens.changes()
	k.reauth() // there may be another token since HELLO
	left := k.left
	for {
		select {
		case <-left: // a new network is not its business any more
			left = nil
		case <-renewed:
			renewed = k.runner.tokens.changes()
			k.reauth()
		case <-k.again.C:
			k.reauth()
		case <-k.news.wake:
			k.hear()
		case why := <-k.lost:
			k.resume(ctx, why)
			rotation = newRotation(k.session)
		case <-k.hurry():
			k.elsewhere()
			if !k.replace(ctx) {
				k.probe()
			}
		case <-look.C:
			if rotation.due() {
				k.replace(ctx)
				rotation = newRotation(k.session)
			}
		case <-ctx.Done():
			<-k.session.Done()
			return
		}
	}
}

// hurry has something when the network has changed, for the session that is in use.
func (k *keeper) hurry() <-chan struct{} {
	select {
	case <-k.left:
		return nil
	default:
		return k.runner.client.hurry
	}
}

// probe asks the carrier for a sign of life, and does not wait for it.
func (k *keeper) probe() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _ = k.session.Ping(ctx)
}

// rotation is when a carrier is to be replaced.
type rotation struct {
	session *mux.Session
	at      time.Time
	bytes   uint64
}

func newRotation(session *mux.Session) rotation {
	stats := session.Stats()
	return rotation{
		session: session,
		at:      time.Now().Add(rotateAfterLeast + jitter(rotateAfterMost-rotateAfterLeast)),
		bytes:   stats.Sent + stats.Received + rotateBytesLeast + uint64(jitter(rotateBytesMost-rotateBytesLeast)),
	}
}

func (r rotation) due() bool {
	stats := r.session.Stats()
	return !time.Now().Before(r.at) || stats.Sent+stats.Received >= r.bytes
}

// replace puts another carrier in the place of one that may be good, and reports
// whether it has. The session keeps the one it has until the gateway answers on the
// new one.
func (k *keeper) replace(ctx context.Context) bool {
	if k.ready.ResumeWindow == 0 {
		return false
	}
	within, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	next, err := k.open(within, nil)
	if err != nil {
		k.runner.fronts.past(k.gateway.URL, k.at)
		return false
	}
	if err := k.goOn(within, next); err != nil {
		k.resume(ctx, err)
	} else {
		k.told(nil)
	}
	return true
}

// resume tries until the session goes on, or is over.
func (k *keeper) resume(ctx context.Context, why error) {
	if !k.session.Lost() {
		return // it has another one by now, or is over
	}
	k.degraded(why)
	fronts := &k.runner.fronts
	if k.row.end() {
		fronts.past(k.gateway.URL, k.at)
		if k.leaves(ctx) {
			return
		}
		k.pause(k.row.wait())
	}
	delays := backoff{min: resumeSoon, max: resumeLater}
	lost, timeout := time.Now(), resumeTimeout
	urls := len(fronts.of(k.gateway.URL))
	if urls > 1 {
		timeout /= 2
	}
	refused := 0 // the latest attempts, where nobody listened
	for failed := 0; k.session.Lost(); failed++ {
		began := time.Now()
		err := k.attemptWithin(ctx, timeout)
		if err == nil {
			k.told(why)
			return
		}
		if !k.session.Lost() {
			return // it is over
		}
		fronts.past(k.gateway.URL, k.at)
		if refused++; !errors.Is(err, syscall.ECONNREFUSED) {
			refused = 0
		}
		if time.Since(lost) >= patienceWith(urls, failed+1, refused) && k.another(ctx) {
			k.session.Close(wire.CodeSessionUnknown, "its gateway does not answer, and another one does")
			return
		}
		if time.Since(began) >= timeout && (failed+1)%urls == 0 {
			timeout = min(2*timeout, resumeTimeoutMost)
		}
		if asked := retryAfter(err); failed > 0 || asked > 0 {
			k.pause(delays.next(asked))
		}
	}
}

// leaves ends the session when so many of its connections have frozen that another gateway
// is worth it, and one works.
func (k *keeper) leaves(ctx context.Context) bool {
	fronts := &k.runner.fronts
	if !k.row.hopeless(len(fronts.of(k.gateway.URL))) || !k.better(ctx) {
		return false
	}
	fronts.freeze(k.gateway.URL)
	k.session.Close(wire.CodeSessionUnknown, "the way to its gateway is blocked, and another gateway answers")
	return true
}

// patienceWith is how long a gateway with that many URLs may be away, after so many failed
// attempts, of which at the latest nobody listened.
func patienceWith(urls, failed, refused int) time.Duration {
	switch {
	case refused >= urls:
		return goneRefused
	case failed >= urls:
		return goneSilent
	}
	return goneAnyway
}

// others are the other gateways, but for those that the device has reason to avoid.
func (k *keeper) others() []Gateway {
	others := slices.DeleteFunc(slices.Clone(k.runner.tokens.load().gateways), func(g Gateway) bool { return g.URL == k.gateway.URL })
	others, _ = k.runner.fronts.split(others)
	return others
}

// better reports whether a connection to another gateway works as far as the CHALLENGE: a
// network may let it begin, and no more.
func (k *keeper) better(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, betterTimeout)
	defer cancel()
	var (
		looking sync.WaitGroup
		works   atomic.Bool
	)
	others := k.others()
	for _, g := range others[:min(len(others), betterMost)] {
		looking.Go(func() {
			if there, err := k.runner.open(ctx, k.runner.fronts.first(g.URL)); err == nil {
				_ = there.conn.Close()
				works.Store(true)
				cancel()
			}
		})
	}
	looking.Wait()
	return works.Load()
}

// another reports whether another gateway answers.
func (k *keeper) another(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	for _, g := range measure(ctx, k.others(), k.runner.client.cfg.NetDial, 0) {
		if g.RoundTrip > 0 {
			return true
		}
	}
	return false
}

func (k *keeper) attemptWithin(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	next, err := k.open(ctx, k.hurry())
	if err != nil {
		return err
	}
	return k.goOn(ctx, next)
}

// elsewhere is called when there is another network: what the one before did to
// connections says nothing of it.
func (k *keeper) elsewhere() {
	k.row.forget()
	k.runner.fronts.thaw()
}

// pause waits, but not for long once the network has changed.
func (k *keeper) pause(wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.hurry():
		k.elsewhere()
	case <-k.session.Done():
	}
}

// degraded says that the session has no connection.
func (k *keeper) degraded(why error) {
	k.note(why)
	k.runner.client.cfg.OnEvent(Event{Kind: Degraded, Gateway: k.gateway.URL, Region: k.gateway.Region, Session: k.id, Err: why})
}

// told says that the session goes on.
func (k *keeper) told(why error) {
	k.note(nil)
	k.runner.client.cfg.OnEvent(Event{Kind: Resumed, Gateway: k.gateway.URL, Region: k.gateway.Region, Session: k.id, Err: why})
}

// open opens a carrier to the session's gateway, at that of its URLs that is to be used.
// It gives up in a hurry: what was begun on another network may hang.
func (k *keeper) open(ctx context.Context, hurry <-chan struct{}) (next *opened, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		watching sync.WaitGroup
		hurried  bool
	)
	watching.Go(func() {
		select {
		case <-hurry:
			hurried = true
			cancel()
		case <-ctx.Done():
		}
	})
	k.at = k.runner.fronts.first(k.gateway.URL)
	next, err = k.runner.open(ctx, k.at)
	cancel()
	watching.Wait()
	if hurried {
		k.elsewhere()
	}
	return next, err
}

// open opens a carrier to a gateway at one of its URLs, as far as the CHALLENGE.
func (r *runner) open(ctx context.Context, at string) (next *opened, err error) {
	err = r.knocking(at, r.tokens.load(), func(opts carrier.DialOptions) (err error) {
		next, err = open(ctx, at, opts)
		return err
	})
	return next, err
}

// goOn takes the session's carrier away and has it go on over the next one.
func (k *keeper) goOn(ctx context.Context, next *opened) error {
	if !next.challenge.Capabilities.Has(wire.Resume) {
		_ = next.conn.Close()
		k.session.Close(wire.CodeSessionUnknown, "the gateway no longer resumes sessions")
		return errors.New("the gateway no longer resumes sessions")
	}
	received, err := k.session.Park(ctx)
	if err != nil {
		_ = next.conn.Close()
		return err
	}
	k.attempt++
	asked := wire.Resumption{SessionID: k.ready.SessionID, Attempt: k.attempt, Received: received}
	resumed, rest, err := k.ask(ctx, next, asked)
	if err != nil {
		return err
	}
	if err := k.session.Resume(next.conn, rest, resumed.Received); err != nil {
		if fault, ok := errors.AsType[*wire.Error](err); ok {
			_ = next.conn.SetWriteDeadline(time.Now().Add(time.Second))
			_ = next.conn.WriteMessage(wire.AppendClose(nil, wire.Close{Code: fault.Code, Reason: fault.What}))
		}
		_ = next.conn.Close()
		return err
	}
	k.row.begin()
	return nil
}

// ask sends RESUME and reads the answer. Where the gateway no longer has the session,
// that is over, and the carrier is kept for another one.
func (k *keeper) ask(ctx context.Context, next *opened, asked wire.Resumption) (resumed wire.Resumed, rest []byte, err error) {
	unknown := false
	err = next.during(ctx, func() error {
		var binding []byte
		if k.ready.Capabilities.Has(wire.ChannelBinding) {
			var err error
			if binding, err = next.conn.ExportKeyingMaterial(); err != nil {
				return err
			}
		}
		nonce := next.challenge.Nonce
		asked.Proof = asked.Prove(k.ready.ResumeSecret, nonce, binding)
		if next.challenge.Capabilities.Has(wire.Padding) {
			asked.Padding = padding.Handshake(len(wire.AppendResume(nil, asked)))
		}
		if err := next.conn.WriteMessage(wire.AppendResume(nil, asked)); err != nil {
			return err
		}
		answer, behind, err := readAnswer(next.conn)
		if refused, ok := errors.AsType[*RefusedError](err); ok && refused.Code == wire.CodeSessionUnknown.String() {
			unknown = true
			return nil
		}
		if err != nil {
			return err
		}
		if answer.Type != wire.TypeResumed {
			return &wire.Error{Code: wire.CodeProtocol, What: "neither RESUMED nor REJECT after RESUME"}
		}
		if resumed, err = wire.ParseResumed(answer.Payload); err != nil {
			return err
		}
		if !resumed.Proof.Equal(resumed.Prove(k.ready.ResumeSecret, nonce, asked, binding)) {
			// Nothing is said to who is not the gateway.
			return errors.New("RESUMED: the proof is wrong")
		}
		rest = behind
		return nil
	})
	if unknown && err == nil {
		k.fresh = next
		err = &RefusedError{Code: wire.CodeSessionUnknown.String(), By: next.host}
		k.session.Close(wire.CodeSessionUnknown, "the gateway no longer has it")
	}
	return resumed, rest, err
}
