package httvps

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// maxLeft bounds the sessions that the device has left and that have streams yet:
	// beyond it the oldest ends.
	maxLeft = 4

	// leftLook is how often it is looked whether such a session has streams yet.
	leftLook = 200 * time.Millisecond

	// nowhereLeast is the least bound of the wait between two looks for another gateway:
	// each may ask the service.
	nowhereLeast = time.Second
)

// errNowhere says that a gateway goes away and that there is no other one.
var errNowhere = errors.New("no other gateway is known")

// stay is a session that is served.
type stay struct {
	admission
	id      string
	session *mux.Session
	keep    *keeper
	said    chan wire.GoAway // has room for the latest
	ended   chan struct{}    // closed when all of it has returned
	err     error            // why, when it has ended
}

// serve serves a session, and those at other gateways that take its place, until one
// ends without a successor.
func (r *runner) serve(ctx context.Context, at admission) (time.Duration, error) {
	var before *departure
	for {
		start := time.Now()
		s := r.begin(ctx, at, before)
		var moved bool
		if at, before, moved = s.hold(ctx); !moved {
			return time.Since(start), r.over(ctx, s)
		}
		if before == nil { // it ended just when there was another
			_ = r.over(ctx, s)
			continue
		}
		r.leave(ctx, s)
	}
}

// departure is why a session is left.
type departure struct {
	from Gateway
	code wire.Code
}

// begin begins to serve a session: the first one, or one that takes the place of that
// before it.
func (r *runner) begin(ctx context.Context, at admission, before *departure) *stay {
	c := r.client
	s := &stay{
		admission: at, id: hex.EncodeToString(at.ready.SessionID[:]),
		said: make(chan wire.GoAway, 1), ended: make(chan struct{}),
	}
	start := time.Now()
	s.keep = &keeper{
		runner: r, gateway: at.gateway, at: at.url, id: s.id, ready: at.ready,
		lost: make(chan error, 1), left: make(chan struct{}),
		news: news{wake: make(chan struct{}, 1)}, times: timesOf(at.ready, start), shown: at.tok.text,
	}
	limits := s.keep.times.limits(wire.SessionTerms{Limits: at.ready.Limits, Deadline: at.ready.Deadline})
	cfg := mux.Config{
		Role: mux.Client, Limits: c.cfg.Memory.limits(at.ready.Limits), First: at.rest,
		Budget: c.cfg.Memory.budget(),
		Resume: mux.Resume{Within: at.ready.ResumeWindow, OnLost: s.keep.loses},
		Drain:  mux.Drain{Agreed: at.ready.Capabilities.Has(wire.Drain), OnGoAway: s.hears},
	}
	if at.ready.Capabilities.Has(wire.Padding) {
		cfg.Padding = &at.ready.PaddingPolicy
	}
	if at.ready.Capabilities.Has(wire.Terms) {
		cfg.Terms = s.keep.news.terms()
	}
	s.session = mux.New(at.conn, cfg)
	open, _ := r.fronts.split([]Gateway{at.gateway})
	s.keep.session, s.keep.row = s.session, newRow(s.session, len(open) == 0)
	named := r.fronts.learn(at.gateway.URL, at.url, at.ready.Fronts)
	c.remember(ctx, func(p *Profile) bool { return nameFronts(p, at.gateway.URL, named) })

	select {
	case <-c.hurry: // it came before this session
	default:
	}
	c.change(func() {
		c.session, c.lost, c.last = s.session, nil, nil
		c.status.Gateway, c.status.Session, c.status.Limits = at.gateway, s.id, limits
		if before == nil {
			c.status.Since = start
		}
	})
	told := Event{Kind: Connected, Gateway: at.gateway.URL, Region: at.gateway.Region, Session: s.id, Limits: limits}
	if before != nil {
		told.Kind, told.From = Moved, before.from.URL
		told.Err = &RefusedError{Code: before.code.Meaning().String(), By: hostOf(before.from.URL)}
	}
	c.cfg.OnEvent(told)
	r.behind.Go(func() {
		defer close(s.ended)
		var keeping sync.WaitGroup
		keeping.Go(func() { s.keep.run(ctx) })
		s.err = s.session.Run(ctx)
		keeping.Wait()
	})
	return s
}

// hears notes that the gateway goes away. The session's reader alone calls it.
func (s *stay) hears(g wire.GoAway) {
	select {
	case <-s.said:
	default:
	}
	s.said <- g
}

// hold waits until the session has ended, or there is another one to take its place. Of
// one that is to be left, why is set.
func (s *stay) hold(ctx context.Context) (next admission, why *departure, moved bool) {
	ctx, cancel := context.WithCancel(ctx)
	found := make(chan admission, 1)
	code := wire.CodeShutdown
	var moving sync.WaitGroup
	moving.Go(func() {
		var at admission
		if at, code, moved = s.move(ctx); moved {
			found <- at
		}
	})
	select {
	case <-s.ended:
	case next = <-found:
		why = &departure{from: s.gateway, code: code}
	}
	cancel()
	moving.Wait()
	if moved && why == nil {
		next = <-found
	}
	return next, why, moved
}

// move waits until the gateway says that it goes away, and finds another one that lets
// the device in. It gives up when ctx ends.
func (s *stay) move(ctx context.Context) (at admission, why wire.Code, found bool) {
	why, more, ok := s.turnToGo(ctx)
	if !ok {
		return admission{}, why, false
	}
	r := s.keep.runner
	delays := backoff{min: r.client.cfg.MinBackoff, max: r.client.cfg.MaxBackoff}
	for {
		at, err := r.elsewhere(ctx, s.gateway, more)
		if err == nil {
			return at, why, true
		}
		if errors.Is(err, errNowhere) {
			delays.min = max(delays.min, nowhereLeast)
		}
		// What is final is said of the present session, too.
		if finalRefusal(err) != nil || !pause(ctx, delays.next(retryAfter(err))) {
			return admission{}, why, false
		}
	}
}

// turnToGo waits until the gateway says that it goes away, and then for this device's
// turn, which comes at once when something cannot be opened here any more. more are
// gateways that it named.
func (s *stay) turnToGo(ctx context.Context) (why wire.Code, more []string, ok bool) {
	var (
		turn <-chan time.Time
		urge <-chan struct{}
	)
	for {
		select {
		case g := <-s.said:
			if turn == nil {
				wait := min(g.ReconnectMin, maxRetryAfter)
				timer := time.NewTimer(wait + jitter(min(g.ReconnectMax, maxRetryAfter)-wait+1))
				defer timer.Stop()
				turn = timer.C
			}
			if g.Last != wire.AllOpens {
				urge = s.keep.runner.client.urge
			}
			why, more = g.Code, g.Gateways
		case <-turn:
			return why, more, true
		case <-urge:
			return why, more, true
		case <-ctx.Done():
			return why, more, false
		}
	}
}

// elsewhere has another gateway than that one let the device in. more are URLs of
// gateways that may not be known.
func (r *runner) elsewhere(ctx context.Context, from Gateway, more []string) (admission, error) {
	tok, err := r.tokens.get(ctx, "")
	if err != nil {
		if tok = r.tokens.last(err); tok.text == "" {
			return admission{}, err
		}
	}
	others := otherGateways(tok.gateways, from, more)
	if len(others) == 0 {
		r.tokens.refreshGateways(ctx)
		if others = otherGateways(r.tokens.load().gateways, from, nil); len(others) == 0 {
			return admission{}, &UnreachableError{Errs: []error{errNowhere}}
		}
	}
	return r.try(ctx, tok, others, nil)
}

// otherGateways are those of a list, and of more that are none of it, without that one.
func otherGateways(known []Gateway, from Gateway, more []string) []Gateway {
	list := slices.DeleteFunc(slices.Clone(known), func(g Gateway) bool { return g.URL == from.URL })
	for _, url := range more {
		if isGateway(url) && url != from.URL && !slices.ContainsFunc(list, func(g Gateway) bool { return g.URL == url }) {
			list = append(list, Gateway{URL: url})
		}
	}
	return list
}

// leave has a session go on behind the one that has taken its place, until its last
// stream has ended.
func (r *runner) leave(ctx context.Context, s *stay) {
	c := r.client
	close(s.keep.left)
	c.change(func() {
		if c.left = append(c.left, s.session); len(c.left) > maxLeft {
			c.left[0].Close(wire.CodeNoError, "too many sessions were left")
		}
	})
	r.behind.Go(func() {
		look := time.NewTicker(leftLook)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				if s.session.Streams() == 0 {
					s.session.Close(wire.CodeNoError, "its gateway goes away")
				}
			case <-s.ended:
				_ = r.over(ctx, s)
				return
			}
		}
	})
}

// over notes that a session has ended, and returns why.
func (r *runner) over(ctx context.Context, s *stay) error {
	c := r.client
	<-s.ended
	var left bool
	c.change(func() {
		stats := s.session.Stats()
		c.status.Sent += stats.Sent
		c.status.Received += stats.Received
		n := len(c.left)
		c.left = slices.DeleteFunc(c.left, func(other *mux.Session) bool { return other == s.session })
		if left = len(c.left) < n; !left {
			c.session, c.lost, c.last = nil, nil, s.err
			c.status = Status{Sent: c.status.Sent, Received: c.status.Received, Since: time.Now()}
		}
	})
	if fresh := s.keep.fresh; fresh != nil && left {
		_ = fresh.conn.Close()
	} else if fresh != nil {
		r.fresh = &freshCarrier{opened: fresh, gateway: s.gateway, url: s.keep.at}
	}
	err := s.err
	closed, ok := errors.AsType[*mux.CloseError](err)
	switch {
	case ok && closed.Remote:
		switch code := closed.Code.Meaning().String(); judge(code) {
		case final:
			err = &RefusedError{Code: code, By: hostOf(s.gateway.URL)}
		case freshToken:
			r.tokens.drop(s.keep.shown)
		case again:
		}
	case !ok && ctx.Err() == nil: // not by us
		err = fmt.Errorf("the connection broke: %w", err) // bare, it may be no more than "EOF"
	}
	if !left {
		c.cfg.OnEvent(Event{Kind: Disconnected, Gateway: s.gateway.URL, Region: s.gateway.Region, Session: s.id, Err: err})
	}
	return err
}
