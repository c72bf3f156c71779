package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// Devices come to other gateways over so much of the time that their streams have,
	// and over no more than a time, so that they do not come all at once. They get some
	// more to arrive before nothing is taken here any more.
	spreadShare, spreadMost = 3, 10 * time.Second
	settleShare, settleMost = 10, 2 * time.Second

	// operatorDrain is the least that streams have when an operator drains the gateway:
	// nobody waits for that.
	operatorDrain = 30 * time.Second

	// drainLook is how often a gateway that goes away looks at its sessions.
	drainLook = 100 * time.Millisecond

	// retryElsewhere is when a device that has come for a session may ask again: others
	// take it at once.
	retryElsewhere = 2 * time.Second
)

// drain sends sessions away to other gateways: while an operator wants it so, and before
// the gateway stops. Meanwhile no session begins.
type drain struct {
	log    *slog.Logger
	within func() time.Duration // drain_timeout
	wake   chan struct{}        // has an item when there is something to look at

	mu       sync.Mutex // guards the following fields
	sessions map[*sessions.Session]*guest
	on       bool          // no session begins
	stopping bool          // for good
	time     time.Duration // what streams have from when none is opened any more
	others   []string      // gateways that devices may turn to; nil: it is not known whether there are any
}

// guest is a session, and how far it is on its way.
type guest struct {
	mux     *mux.Session
	told    time.Time     // when it was told to go; zero: it was not
	time    time.Duration // when it ends, since then
	spread  time.Duration // in which devices leave
	settled time.Duration // when they have
	closed  bool          // it opens nothing more
}

func newDrain(within func() time.Duration, log *slog.Logger) *drain {
	return &drain{within: within, log: log, wake: make(chan struct{}, 1), sessions: make(map[*sessions.Session]*guest)}
}

// begun is told of each session that is served.
func (d *drain) begun(live *sessions.Session, session *mux.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions[live] = &guest{mux: session}
	d.wakeLocked()
}

// ended is told when it is not any more.
func (d *drain) ended(live *sessions.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, live)
}

func (d *drain) wakeLocked() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// draining reports whether no session begins.
func (d *drain) draining() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.on
}

// told is what the control plane says with each heartbeat.
func (d *drain) told(ctx context.Context, operator bool, others []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if others != nil {
		d.others = others
	}
	if d.stopping || operator == d.on {
		return
	}
	d.on, d.others, d.time = operator, others, max(d.within(), operatorDrain)
	if operator {
		d.log.InfoContext(ctx, "gateway drained by an operator", "sessions", len(d.sessions), "within", d.time.String())
		d.wakeLocked()
	} else {
		d.log.InfoContext(ctx, "gateway takes sessions again")
	}
}

// stop has every session leave, and none begin any more. Streams have so long from when
// none is opened any more.
func (d *drain) stop(within time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.on, d.stopping, d.time = true, true, within
	d.wakeLocked()
}

// run sends sessions away until ctx ends.
func (d *drain) run(ctx context.Context) {
	ticker := time.NewTicker(drainLook)
	defer ticker.Stop()
	for {
		select {
		case <-d.wake:
		case <-ctx.Done():
			return
		}
		for d.look(time.Now()) {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// look does what is due for each session, and reports whether there is more to come.
func (d *drain) look(now time.Time) (more bool) {
	var over []*sessions.Session
	d.mu.Lock()
	for live, g := range d.sessions {
		if g.told.IsZero() && !d.on {
			continue
		}
		more = true
		left := g.time - now.Sub(g.told)
		switch {
		case g.told.IsZero():
			d.tell(g, now)
		case left <= 0:
			over = append(over, live)
		case left > g.time-g.settled:
		case !g.closed && d.elsewhere():
			g.closed = true
			g.mux.GoAway(wire.GoAway{Code: wire.CodeShutdown, Drain: left, Gateways: d.others})
		case g.mux.Streams() == 0 && live.Streams() == 0:
			over = append(over, live)
		}
	}
	d.mu.Unlock()
	for _, live := range over {
		live.End(wire.CodeShutdown)
	}
	return more
}

// elsewhere reports whether there may be other gateways. Where there are none, this one
// serves as long as it can. Called with mu held.
func (d *drain) elsewhere() bool { return d.others == nil || len(d.others) > 0 }

// settling is in which time devices leave, and when they have, where streams have so long
// from then on.
func settling(within time.Duration) (spread, settled time.Duration) {
	spread = min(within/spreadShare, spreadMost)
	return spread, spread + min(within/settleShare, settleMost)
}

// tell tells a session to go. Called with mu held.
func (d *drain) tell(g *guest, now time.Time) {
	g.told = now
	if d.elsewhere() {
		g.spread, g.settled = settling(d.time)
	}
	g.time = g.settled + d.time
	g.mux.Announce(wire.GoAway{Code: wire.CodeShutdown, Drain: g.time, ReconnectMax: g.spread, Gateways: d.others})
}
