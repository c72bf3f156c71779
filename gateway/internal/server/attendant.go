package server

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/gateway/internal/auth"
	"github.com/httvps/httvps/gateway/internal/quota"
	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// reauthPause is the least time from one answer to a REAUTH to the next: each costs
	// two signatures' verification.
	reauthPause = time.Second

	// renewTime is what devices have to get another token when the control plane is back.
	renewTime = 2 * time.Minute

	// shownNotice is how long before its end a session is told that its device has to show
	// again who it is.
	shownNotice = time.Minute

	day = 24 * time.Hour
)

// endNotices are how long before the end of its subscription a session is told of that.
func endNotices() []time.Duration {
	return []time.Duration{3 * day, day, time.Hour, 10 * time.Minute, time.Minute}
}

// attendant tells the device of a session what changes on that, and hears who it is once
// more. It is for devices that know the frames of docs/03, part 8.5.
type attendant struct {
	checker  *auth.Checker
	lastAway func() time.Time // see nodes.Node
	grace    time.Duration    // for tokens that are over while the control plane is away
	reauthed func(result string)
	live     *sessions.Session
	session  *mux.Session
	device   auth.Identity
	reauths  chan wire.Reauth // has room for the one that may wait for its answer

	told     wire.SessionTerms
	answered time.Time // when a REAUTH was
	end      countdown // of the subscription
	shown    countdown // see [sessions.Session.ShownUntil]
	warned   int       // percent of the quota of which the device was told
}

// terms are the functions that the session calls.
func (a *attendant) terms() *mux.Terms {
	return &mux.Terms{OnReauth: func(r wire.Reauth) { a.reauths <- r }} // has room: the session passes on one at a time
}

// attend returns when ctx ends, or when the session must end.
func (a *attendant) attend(ctx context.Context) {
	a.end.notices, a.shown.notices = endNotices(), []time.Duration{shownNotice}
	a.live.Speeds.Watch(a.live, a.live.Change)
	defer a.live.Speeds.Watch(a.live, nil)
	a.live.Quota.Watch(a.live.Change)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		a.tell()
		if a.over(time.Now()) {
			a.live.End(wire.CodeTokenExpired)
			return
		}
		timer.Reset(a.next(time.Now()))
		select {
		case r := <-a.reauths:
			if !pauseUntil(ctx, a.answered.Add(reauthPause)) {
				return
			}
			a.hear(ctx, r)
		case <-a.live.Changed():
		case <-timer.C:
		case <-a.live.Ending():
			return
		case <-ctx.Done():
			return
		}
	}
}

// pauseUntil waits for a time, and reports whether ctx has not ended.
func pauseUntil(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hear answers a REAUTH.
func (a *attendant) hear(ctx context.Context, r wire.Reauth) {
	expires, err := a.checker.Renew(ctx, r, a.live.ID, a.device)
	code := wire.CodeNoError
	switch {
	case err == nil:
		if until := expires.Add(ticket.Leeway); until.After(a.live.ShownUntil()) {
			a.live.Show(until)
		}
	case errors.Is(err, auth.ErrUnready):
		code = wire.CodeRetryLater
	case errors.Is(err, auth.ErrExpired):
		code = wire.CodeTokenExpired
	case errors.Is(err, auth.ErrMismatch):
		code = wire.CodeDeviceMismatch
	default:
		code = wire.CodeInvalidToken
	}
	a.reauthed(code.String())
	a.answered = time.Now()
	_ = a.session.AnswerReauth(wire.Auth{Code: code, Deadline: a.live.ShownUntil()}) // or the session is over
}

// over reports whether the device would have had to show who it is once more.
func (a *attendant) over(now time.Time) bool {
	until := lastMoment(a.live.ShownUntil(), a.lastAway(), a.grace)
	return !until.IsZero() && !now.Before(until)
}

// lastMoment is until when a session goes on whose device has shown until a time who it
// is. While the control plane is away nobody gets another token, and those who wait for
// one get it only some time after it is back.
func lastMoment(shown, lastAway time.Time, grace time.Duration) time.Time {
	if shown.IsZero() || lastAway.IsZero() {
		return shown
	}
	until := lastAway.Add(renewTime)
	if last := shown.Add(grace); until.After(last) {
		until = last
	}
	if until.Before(shown) {
		return shown
	}
	return until
}

// next is how long nothing is to be done, unless something happens.
func (a *attendant) next(now time.Time) time.Duration {
	wait := min(a.end.next(now), a.shown.next(now))
	if until := lastMoment(a.live.ShownUntil(), a.lastAway(), a.grace); !until.IsZero() {
		wait = min(wait, until.Sub(now))
	}
	return max(wait, time.Millisecond)
}

// tell tells the device what is not as it was told.
func (a *attendant) tell() {
	now := time.Now()
	if terms := a.present(); terms != a.told && a.session.SetTerms(terms) == nil {
		a.told = terms
	}
	if at, due := a.end.due(now, a.told.Deadline); due {
		_ = a.session.Notify(wire.Notice{Code: wire.CodeSubscriptionExpired, At: at})
	}
	if at, due := a.shown.due(now, a.live.ShownUntil()); due {
		_ = a.session.Notify(wire.Notice{Code: wire.CodeTokenExpired, At: at})
	}
	use := a.live.Quota.Level()
	if use.Reached > a.warned {
		_ = a.session.Notify(wire.Notice{Code: wire.CodeQuotaExceeded, Left: left(use), Quota: uint64(use.Quota)})
	}
	a.warned = use.Reached // a new period begins with none
}

func left(use quota.Level) uint64 { return uint64(max(use.Quota-use.Used, 0)) }

// present are the terms that hold now.
func (a *attendant) present() wire.SessionTerms {
	offer, until := a.live.Offered()
	up, down := a.live.Speeds.InForce()
	terms := a.told
	terms.Limits.MaxStreams, terms.Limits.MaxUDP = offer.MaxStreams, offer.MaxUDP
	terms.Limits.SpeedUp, terms.Limits.SpeedDown = uint64(up), uint64(down)
	terms.Deadline = until
	return terms
}

// countdown tells of a time before it comes, some times.
type countdown struct {
	notices []time.Duration // before it; the longest first
	at      time.Time       // that it was about
	told    int             // of the notices
}

// due reports whether it is time to tell of a time, the zero Time being never, and notes
// that this is done.
func (c *countdown) due(now, at time.Time) (_ time.Time, due bool) {
	if !at.Equal(c.at) {
		c.at, c.told = at, 0
	}
	for !at.IsZero() && c.told < len(c.notices) && !now.Before(at.Add(-c.notices[c.told])) {
		c.told++
		due = true
	}
	return at, due
}

// next is how long there is nothing to be told.
func (c *countdown) next(now time.Time) time.Duration {
	if c.at.IsZero() || c.told == len(c.notices) {
		return day
	}
	return c.at.Add(-c.notices[c.told]).Sub(now)
}
