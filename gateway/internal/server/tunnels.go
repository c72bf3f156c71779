package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/gateway/internal/auth"
	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/metrics"
	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/protocol"
	"github.com/httvps/httvps/gateway/internal/quota"
	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/internal/anonym"
	"github.com/httvps/httvps/internal/gate"
	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// A device that is told retry_later waits so long: the control plane
	// could not be asked, too many were waiting to ask it, or the gateway is full.
	retryUndecided = 2 * time.Second
	retryBusy      = 5 * time.Second
	retryFull      = 15 * time.Second

	// carrierLost is how a session ended whose carrier just went away.
	carrierLost = "carrier_lost"
)

// tunnels serves carriers from the upgrade to the end of their sessions.
type tunnels struct {
	limits    atomic.Pointer[config.Limits]
	padding   atomic.Pointer[wire.PaddingPolicy] // nil: none
	handshake protocol.Handshake
	checker   *auth.Checker
	node      *nodes.Node
	grace     time.Duration // for tokens that are over while the control plane is away
	registry  *sessions.Registry
	reviews   *reviews
	usage     *usage
	quotas    *quota.Book
	resumes   *resumes
	drain     *drain
	streams   *protocol.Streams
	metrics   *metrics.Metrics
	memory    *mux.Memory // what all sessions may hold
	log       *slog.Logger
	site      http.Handler // for who comes when the gateway is stopping

	mu      sync.Mutex // guards the following fields
	closed  bool
	running sync.WaitGroup
}

// enter counts a tunnel in unless the gateway is stopping.
func (t *tunnels) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.running.Add(1)
	}
	return !t.closed
}

// wait returns when every tunnel has ended; none begins any more.
func (t *tunnels) wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.running.Wait()
}

func (t *tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !t.enter() {
		t.site.ServeHTTP(w, r)
		return
	}
	conn, err := carrier.Upgrade(w, r)
	if err != nil {
		t.running.Done()
		t.log.DebugContext(r.Context(), "upgrade not finished", "error", anonym.Error(err))
		return
	}
	began := time.Now()
	comes := &arrival{tunnels: t, conn: conn, host: strings.ToLower(r.Host)}
	accepted, err := t.shake(r.Context(), comes)
	if err != nil {
		t.running.Done()
		t.refused(r.Context(), err, time.Since(began))
		return
	}
	if accepted.Resumed {
		t.running.Done() // it is served by who serves the session
		t.metrics.Handshake("resumed", time.Since(began))
		return
	}
	t.metrics.Handshake("ready", time.Since(began))
	// The server's context ends when new sessions are not wanted any more.
	// Those that live end by their own word, and on a goroutine of their own:
	// that of the request keeps buffers and a stack as large as TLS needed.
	ctx := context.WithoutCancel(r.Context())
	go func() {
		defer t.running.Done()
		t.carry(ctx, comes, accepted)
	}()
}

// arrival is a carrier that wants to be a session, or to go on with one.
type arrival struct {
	*tunnels
	conn *carrier.Conn
	host string
	live *sessions.Session // set when there is a new one
	who  auth.Identity     // with it

	terms bool // with it: its device knows the frames of docs/03, part 8.5
}

// shake does the handshake. When it succeeds there is a live session, here and
// at the control plane.
func (t *tunnels) shake(ctx context.Context, comes *arrival) (protocol.Accepted, error) {
	handshake := t.handshake
	handshake.Padding = t.padding.Load()
	accepted, err := handshake.Run(ctx, comes.conn, comes)
	if err != nil && comes.live != nil {
		t.gone(comes.live, carrierLost)
	}
	return accepted, err
}

// Admit makes a session, if the device may have one.
func (a *arrival) Admit(ctx context.Context, hello wire.Hello, nonce [32]byte) (grant protocol.Grant, err error) {
	a.terms = hello.Capabilities.Has(wire.Terms)
	grant, err = a.admit(ctx, hello, auth.Connection{Nonce: nonce, Host: a.host})
	return grant, err
}

// Resume gives the carrier to a session that is there.
func (a *arrival) Resume(ctx context.Context, asked wire.Resumption, nonce [32]byte) (protocol.Resumption, error) {
	return a.resumes.resume(ctx, a.conn, asked, nonce)
}

// admit decides whether a device gets a session, and makes it.
func (a *arrival) admit(ctx context.Context, hello wire.Hello, to auth.Connection) (protocol.Grant, error) {
	if hello.Capabilities.Has(wire.ChannelBinding) {
		binding, err := a.conn.ExportKeyingMaterial()
		if err != nil {
			return protocol.Grant{}, err
		}
		to.Binding = binding
	}
	device, err := a.checker.Check(ctx, hello, to)
	switch {
	case errors.Is(err, auth.ErrUnready):
		return protocol.Grant{}, &protocol.RefusedError{Code: wire.CodeRetryLater, RetryAfter: retryUndecided}
	case errors.Is(err, auth.ErrInvalid):
		return protocol.Grant{}, &protocol.RefusedError{Code: wire.CodeInvalidToken}
	}
	expired := err != nil
	gate.Pass(ctx)
	if a.drain.draining() || a.registry.Stopping() {
		return protocol.Grant{}, &protocol.RefusedError{Code: wire.CodeShutdown, RetryAfter: retryElsewhere}
	}

	if err := a.usage.enter(ctx); err != nil {
		return protocol.Grant{}, &protocol.RefusedError{Code: wire.CodeRetryLater, RetryAfter: retryFull}
	}
	live, grant, err := a.begin(ctx, device, expired)
	if err != nil {
		a.usage.leave()
		return protocol.Grant{}, err
	}
	if a.terms {
		live.Show(grant.AuthDeadline)
	}
	if hello.Capabilities.Has(wire.Resume) {
		grant.Resume = a.resumes.grant(hello.Capabilities)
	}
	grant.Drain = hello.Capabilities.Has(wire.Drain)
	a.live, a.who = live, device
	return grant, nil
}

// begin asks for the decision about a device that has proven who it is, with a token
// that is good or expired, and makes its session, which has a place in the ledger
// already.
func (t *tunnels) begin(ctx context.Context, device auth.Identity, expired bool) (*sessions.Session, protocol.Grant, error) {
	var id sessions.ID
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	question := nodes.Question{Session: id, Device: device.Device, Thumbprint: device.Thumbprint, Generation: device.Generation}
	asked := time.Now()
	decide := t.node.Validate
	if expired {
		// Nobody can get another token while the control plane is away.
		question.Expired = device.Expired
		decide = t.node.StandIn
	}
	decision, err := decide(ctx, question)
	if err != nil && expired {
		return nil, protocol.Grant{}, &protocol.RefusedError{Code: wire.CodeTokenExpired}
	}
	if refusal := refusedBy(decision, err); refusal != nil {
		if refusal.Code == wire.CodeSessionLimit && t.resumes.replace(device.Device) {
			refusal.RetryAfter = retryReplaced // its own former session had the place
		}
		return nil, protocol.Grant{}, refusal
	}
	told := asked
	if decision.Own {
		told = time.Time{} // whatever else is known is newer
	}
	var live *sessions.Session
	live, err = t.registry.Add(id, device.Device, sessions.Term{
		Until: decision.ExpiresAt,
		Renew: func(ctx context.Context) (time.Time, wire.Code) { return t.renew(ctx, question, live) },
	})
	if err == nil {
		live.Quota, err = t.quotas.Begin(decision.Subscription, quotaOf(decision), told, live.Moved, func(bps int64) { live.Speeds.Slow(live, bps) })
		if err != nil {
			t.registry.Remove(live)
		}
	}
	if err != nil {
		t.node.Ended(id, wire.CodeRetryLater.String())
		return nil, protocol.Grant{}, &protocol.RefusedError{Code: wire.CodeRetryLater, RetryAfter: retryFull}
	}
	t.rest(live, decision, told)
	t.reviews.begun(live, asked)
	grant := protocol.Grant{
		Session: id, Limits: t.limitsFor(decision), Deadline: decision.ExpiresAt, AuthDeadline: device.Expires.Add(ticket.Leeway),
	}
	up, down := live.Speeds.InForce()
	grant.Limits.SpeedUp, grant.Limits.SpeedDown = uint64(up), uint64(down)
	return live, grant, nil
}

// refusedBy is how a device is refused that the control plane does not allow, or of
// which it did not decide in time; nil where it may come in.
func refusedBy(decision nodes.Decision, err error) *protocol.RefusedError {
	switch {
	case errors.Is(err, nodes.ErrBusy):
		return &protocol.RefusedError{Code: wire.CodeRetryLater, RetryAfter: retryBusy}
	case err != nil, !decision.Allowed && decision.Reason == reason.RetryLater:
		return &protocol.RefusedError{Code: wire.CodeRetryLater, RetryAfter: retryUndecided}
	case !decision.Allowed:
		return &protocol.RefusedError{Code: decision.Reason.Wire()}
	}
	return nil
}

// renew asks how long a session may go on whose subscription would be over: it
// may have been extended, or another may have followed it, with other speeds.
func (t *tunnels) renew(ctx context.Context, question nodes.Question, live *sessions.Session) (time.Time, wire.Code) {
	asked := time.Now()
	decision, err := t.node.Renew(ctx, question)
	switch {
	case err != nil:
		return time.Time{}, wire.CodeRetryLater
	case !decision.Allowed:
		return time.Time{}, decision.Reason.Wire()
	default:
		t.rest(live, decision, asked)
		return decision.ExpiresAt, wire.CodeNoError
	}
}

// rest has a session keep to a decision.
func (t *tunnels) rest(live *sessions.Session, decision nodes.Decision, asked time.Time) {
	limits := t.limitsFor(decision)
	live.Offer(asked, limits.MaxStreams, limits.MaxUDP)
	live.Rest(sessions.Terms{User: decision.User, Plan: decision.Plan, Subscription: decision.Subscription})
	live.Speeds.Set(asked, decision.SpeedUp, decision.SpeedDown)
	live.Egress.Set(asked, decision.Egress)
	live.Quota.Rest(decision.Subscription, quotaOf(decision), asked)
}

// limitsFor returns the gateway's limits, or the plan's where they are lower.
func (t *tunnels) limitsFor(decision nodes.Decision) wire.Limits {
	limits := t.limits.Load()
	streams, flows := limits.MaxStreams, limits.MaxUDP
	if decision.MaxStreams > 0 {
		streams = min(streams, decision.MaxStreams)
	}
	if decision.MaxUDP >= 0 {
		flows = min(flows, decision.MaxUDP)
	}
	return wire.Limits{
		MaxStreams:  uint64(streams),
		MaxUDP:      uint64(flows),
		EarlyWindow: mux.EarlyWindow(uint64(limits.EarlyWindow), uint64(limits.SessionBudget), uint64(streams)),
		OpenBurst:   uint64(limits.OpenBurst),
		OpenRate:    uint64(limits.OpenRate),
		Silence:     limits.Silence.Std(),
	}
}

// carry serves a live session until it ends.
func (t *tunnels) carry(ctx context.Context, came *arrival, accepted protocol.Accepted) {
	began := time.Now()
	live := came.live
	t.log.InfoContext(ctx, "session begun", "session", live.ID.String())
	cfg := mux.Config{
		Role:   mux.Gateway,
		Limits: accepted.Limits,
		Budget: uint64(t.limits.Load().SessionBudget),
		Memory: t.memory,
		First:  accepted.First,
		Drain:  mux.Drain{Agreed: accepted.Drain},

		Padding: accepted.Padding,
	}
	var kept *lasting // nil: it ends with its carrier
	if accepted.Resume != nil {
		kept = &lasting{live: live, terms: *accepted.Resume, turn: make(chan struct{}, 1)}
		cfg.Resume = mux.Resume{Within: accepted.Resume.Window, OnLost: func(why error) {
			t.log.DebugContext(ctx, "session has lost its carrier", "session", live.ID.String(), "error", anonym.Error(why))
			t.resumes.loses(kept)
		}}
	}
	var beside *attendant // nil: the device does not know what it would tell
	if came.terms {
		beside = t.attendantOf(came, accepted)
		cfg.Terms = beside.terms()
	}
	session := mux.New(came.conn, cfg)
	if kept != nil {
		kept.session, kept.beside = session, beside
		t.resumes.add(kept)
	}
	t.drain.begun(live, session)
	defer t.drain.ended(live)
	var parts sync.WaitGroup
	allowed, revoke := context.WithCancel(ctx)
	defer revoke()
	live.OnEnd(func(code wire.Code) {
		session.Close(code, "")
		if cutsOff(code) {
			revoke()
		}
	})
	term, over := context.WithCancel(ctx)
	defer over()
	parts.Go(func() { live.KeepTerm(term) })
	if beside != nil {
		beside.session = session
		parts.Go(func() { beside.attend(term) })
	}
	parts.Go(func() {
		_ = t.streams.Serve(allowed, session, live.ID, protocol.Bounds{Meter: live, Speeds: live.Speeds, Quota: live.Quota})
	}) // its error is the session's
	err := session.Run(ctx)
	over()
	if kept != nil {
		t.resumes.remove(kept)
	}

	why := carrierLost
	if closed, ok := errors.AsType[*mux.CloseError](err); ok {
		why = closed.Code.Meaning().String()
		if !closed.Remote {
			t.metrics.Closed(why)
		}
	}
	// Told now: the device may come back before its targets took the last bytes.
	t.node.Ended(live.ID, why)
	t.registry.Leave(live, session.Held)
	if since := live.Since(); !since.IsZero() {
		t.metrics.Revoked(time.Since(since))
	}
	parts.Wait()
	t.forget(live)
	t.log.InfoContext(ctx, "session ended", "session", live.ID.String(), "reason", why, "took", time.Since(began).Round(time.Millisecond).String(),
		"bytes_up", live.Up(), "bytes_down", live.Down())
}

// attendantOf makes the attendant of a session that is about to be carried.
func (t *tunnels) attendantOf(came *arrival, accepted protocol.Accepted) *attendant {
	return &attendant{
		checker: t.checker, lastAway: t.node.LastAway, grace: t.grace, reauthed: t.metrics.Reauth,
		live: came.live, device: came.who, reauths: make(chan wire.Reauth, 1),
		told: wire.SessionTerms{Limits: accepted.Limits, Deadline: accepted.Deadline},
	}
}

// cutsOff says whether a session that is told to end for this reason takes along
// what is on its way to targets: it does when that was decided against the device.
func cutsOff(code wire.Code) bool { return code != wire.CodeShutdown }

// gone forgets a session here and at the control plane.
func (t *tunnels) gone(live *sessions.Session, why string) {
	t.forget(live)
	t.node.Ended(live.ID, why)
}

// forget forgets a session that moves nothing any more. What it has moved is written
// down.
func (t *tunnels) forget(live *sessions.Session) {
	t.registry.Remove(live)
	live.Quota.End()
	t.usage.end(live)
}

// refused notes how a handshake failed. What anybody can cause goes to debug.
func (t *tunnels) refused(ctx context.Context, err error, took time.Duration) {
	var (
		refusal   *protocol.RefusedError
		violation *protocol.ViolationError
		level     = slog.LevelDebug
		result    = carrierLost
	)
	switch {
	case errors.As(err, &refusal):
		result = refusal.Code.String()
		if refusal.Code != wire.CodeInvalidToken {
			level = slog.LevelInfo
		}
	case errors.As(err, &violation):
		result = violation.Code.String()
	case ctx.Err() != nil:
		result = wire.CodeShutdown.String()
	}
	t.metrics.Handshake(result, took)
	t.log.Log(ctx, level, "handshake failed", "result", result, "error", anonym.Error(err))
}

// tokens verifies with a node's keys.
type tokens struct{ node *nodes.Node }

func (t tokens) Verify(ctx context.Context, token string) (ticket.Claims, error) {
	claims, err := t.node.Verify(ctx, token)
	if errors.Is(err, nodes.ErrNoKeys) {
		err = fmt.Errorf("%w: %w", auth.ErrUnready, err)
	}
	return claims, err
}
