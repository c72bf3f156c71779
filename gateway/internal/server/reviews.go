package server

import (
	"context"
	"sync"
	"time"

	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/sessions"
)

const (
	// reviewPlaces bounds the questions about live sessions under way at once.
	reviewPlaces = 8
	// reviewPause is when those are asked again that nobody decided.
	reviewPause = 10 * time.Second
	// maxReviews bounds the plans and users that are remembered; beyond that all
	// sessions are asked about.
	maxReviews = 256
)

// reviews asks about live sessions again when the control plane says that their terms
// may be others now: speeds change while a session lives.
type reviews struct {
	registry *sessions.Registry
	wake     chan struct{} // holds one token when there is something to ask

	mu     sync.Mutex // guards the following fields
	all    bool
	terms  map[sessions.Terms]bool // of which one member is set
	latest time.Time               // when an event came last
}

func newReviews(registry *sessions.Registry) *reviews {
	return &reviews{registry: registry, wake: make(chan struct{}, 1), terms: make(map[sessions.Terms]bool)}
}

// event notes an event. It does not wait.
func (r *reviews) event(e nodes.Event) {
	r.changed()
	switch e.Kind {
	case nodes.PlanChanged:
		r.add(sessions.Terms{Plan: e.PlanID})
	case nodes.SubscriptionChanged, nodes.SubscriptionEnded:
		r.add(sessions.Terms{User: e.UserID})
	case nodes.EventsMissed:
		r.add(sessions.Terms{})
	}
}

// changed notes that something may be about a session that is only about to begin.
func (r *reviews) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latest = time.Now()
}

// add has the sessions asked about that have these terms, or all where there are none.
func (r *reviews) add(of sessions.Terms) {
	r.mu.Lock()
	if of == (sessions.Terms{}) || len(r.terms) >= maxReviews {
		r.all = true
		clear(r.terms)
	} else if !r.all {
		r.terms[of] = true
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// begun is told of each session that begins: an event may have come after the
// question was asked, and before the session was there.
func (r *reviews) begun(live *sessions.Session, asked time.Time) {
	r.mu.Lock()
	late := !r.latest.Before(asked)
	r.mu.Unlock()
	if late {
		r.add(sessions.Terms{User: live.Terms().User})
	}
}

// due returns the sessions to ask about now.
func (r *reviews) due() []*sessions.Session {
	r.mu.Lock()
	all, terms := r.all, r.terms
	r.all, r.terms = false, make(map[sessions.Terms]bool)
	r.mu.Unlock()
	return r.registry.Those(func(of sessions.Terms) bool {
		return all || terms[sessions.Terms{Plan: of.Plan}] || terms[sessions.Terms{User: of.User}] || terms[sessions.Terms{Subscription: of.Subscription}]
	})
}

// run asks until ctx ends.
func (r *reviews) run(ctx context.Context) {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		if r.ask(ctx, r.due()) {
			continue
		}
		timer := time.NewTimer(reviewPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// ask asks about sessions and reports whether all were decided. Those that were not
// are due again.
func (r *reviews) ask(ctx context.Context, due []*sessions.Session) bool {
	var (
		places  = make(chan struct{}, reviewPlaces)
		mu      sync.Mutex
		decided = true
		asking  sync.WaitGroup
	)
	for _, live := range due {
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			if live.Review(ctx) {
				return
			}
			mu.Lock()
			decided = false
			mu.Unlock()
			r.add(sessions.Terms{User: live.Terms().User})
		})
	}
	asking.Wait()
	return decided
}
