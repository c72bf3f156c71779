package httvps

import (
	"crypto"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// maxNews bounds the notices that wait for the program to be told; the oldest is
	// dropped.
	maxNews = 8

	// reauthAgain is when a token is shown again that the gateway could not judge.
	reauthAgain = 15 * time.Second
)

// Limits are what a gateway allows a session.
type Limits struct {
	Streams int // connections and sockets open at once
	UDP     int // sockets among them; 0: none is served

	// SpeedUp and SpeedDown are in bits per second from the device and to it, of all its
	// sessions together; 0: there is no limit, or the gateway does not say.
	SpeedUp, SpeedDown int64

	// Until is when the right to it ends, unless it is extended by then; zero: never.
	Until time.Time
}

// Notice says what is going to happen to a session.
type Notice struct {
	// Code is the reason as for a [RefusedError]: subscription_expired, quota_exceeded,
	// token_expired (the device gets no other token), …
	Code string

	// At is when, by this device's clock; zero: that depends on what is moved.
	At time.Time

	// Left is how much is left of the quota of Quota bytes; with quota_exceeded alone.
	Left, Quota int64
}

// gatewayTimes turns times of a gateway's clock into times of this device's.
type gatewayTimes struct{ ahead time.Duration }

func timesOf(ready wire.Ready, now time.Time) gatewayTimes {
	if ready.Time.IsZero() {
		return gatewayTimes{}
	}
	return gatewayTimes{ahead: ready.Time.Sub(now)}
}

// here leaves the zero Time as it is.
func (g gatewayTimes) here(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(-g.ahead)
}

func (g gatewayTimes) limits(t wire.SessionTerms) Limits {
	l := t.Limits
	return Limits{
		Streams: int(l.MaxStreams), UDP: int(l.MaxUDP), SpeedUp: int64(l.SpeedUp), SpeedDown: int64(l.SpeedDown), Until: g.here(t.Deadline),
	}
}

func (g gatewayTimes) notice(n wire.Notice) Notice {
	return Notice{Code: n.Code.Meaning().String(), At: g.here(n.At), Left: int64(n.Left), Quota: int64(n.Quota)}
}

// news is what the gateway says about a session, until somebody has the time for it.
type news struct {
	wake chan struct{} // holds one token when there is something

	mu      sync.Mutex // guards the following fields
	auth    *wire.Auth
	limits  *wire.SessionTerms
	notices []wire.Notice
}

// terms are the functions that the session calls.
func (n *news) terms() *mux.Terms {
	return &mux.Terms{
		OnAuth:   func(a wire.Auth) { n.note(func() { n.auth = &a }) },
		OnLimits: func(t wire.SessionTerms) { n.note(func() { n.limits = &t }) },
		OnNotice: func(notice wire.Notice) {
			n.note(func() {
				if len(n.notices) == maxNews {
					n.notices = n.notices[1:]
				}
				n.notices = append(n.notices, notice)
			})
		},
	}
}

func (n *news) note(change func()) {
	n.mu.Lock()
	change()
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take returns what there is.
func (n *news) take() (auth *wire.Auth, limits *wire.SessionTerms, notices []wire.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	auth, limits, notices = n.auth, n.limits, n.notices
	n.auth, n.limits, n.notices = nil, nil, nil
	return auth, limits, notices
}

// hear acts on what the gateway has said.
func (k *keeper) hear() {
	c := k.runner.client
	auth, limits, notices := k.news.take()
	if auth != nil {
		k.answered(*auth)
	}
	if limits != nil {
		now := k.times.limits(*limits)
		c.change(func() {
			if c.session == k.session {
				c.status.Limits = now
			}
		})
		c.cfg.OnEvent(Event{Kind: LimitsChanged, Gateway: k.gateway.URL, Region: k.gateway.Region, Session: k.id, Limits: now})
	}
	for _, notice := range notices {
		c.cfg.OnEvent(Event{
			Kind: Noticed, Gateway: k.gateway.URL, Region: k.gateway.Region, Session: k.id, Notice: k.times.notice(notice),
		})
	}
}

// reauth shows the gateway the latest token, unless it has seen that. The session then
// outlives the token that it began with.
func (k *keeper) reauth() {
	k.again.Stop()
	tok := k.runner.tokens.load()
	if !k.ready.Capabilities.Has(wire.Terms) || tok.text == k.shown && !k.unheard || !tok.valid() {
		return
	}
	r, err := k.runner.creds.reauth(k.ready.SessionID, tok.text)
	if err == nil {
		err = k.session.Reauth(r)
	}
	switch {
	case err == nil:
		k.shown, k.unheard = tok.text, false
	case errors.Is(err, mux.ErrReauthUnderway): // its answer comes first
	case !errors.Is(err, mux.ErrEnded): // the key could not be used just now
		k.again.Reset(reauthAgain)
	}
}

// answered acts on the answer to a REAUTH. A token that the gateway refuses is not shown
// to it again: its session ends when the one before is over, and the next one begins
// with another.
func (k *keeper) answered(a wire.Auth) {
	if a.Code == wire.CodeRetryLater {
		k.unheard = true
		k.again.Reset(reauthAgain)
		return
	}
	k.reauth() // there may be a later one by now
}

// reauth builds a signed REAUTH.
func (c credentials) reauth(session [16]byte, token string) (wire.Reauth, error) {
	r := wire.Reauth{AccessToken: token}
	signature, err := c.key.Sign(nil, r.SigningInput(session), crypto.Hash(0))
	if err != nil {
		return r, fmt.Errorf("%w: %w", errKey, err)
	}
	if copy(r.Signature[:], signature) != len(r.Signature) {
		return r, fmt.Errorf("%w: not an Ed25519 signature", errKey)
	}
	return r, nil
}
