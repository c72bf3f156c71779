package server

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/sdk/go/wire"
)

// reviewed is a gateway with sessions 1 and 2 of plan p, and 3 of plan q; 2 and 3 are
// those of user v.
type reviewed struct {
	*reviews
	live map[byte]*sessions.Session
	stop func()

	mu     sync.Mutex // guards the following fields
	asked  []byte     // about which sessions
	atOnce int
	most   int
	answer wire.Code
	takes  time.Duration
}

func newReviewed(t *testing.T) *reviewed {
	t.Helper()
	registry := sessions.New(1000, sessions.Leaving{}, nil)
	r := &reviewed{reviews: newReviews(registry), live: make(map[byte]*sessions.Session)}
	r.add(t, 1, sessions.Terms{User: "u", Plan: "p"})
	r.add(t, 2, sessions.Terms{User: "v", Plan: "p"})
	r.add(t, 3, sessions.Terms{User: "v", Plan: "q"})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.run(ctx) })
	r.stop = func() { cancel(); running.Wait() }
	return r
}

func (r *reviewed) add(t *testing.T, id byte, on sessions.Terms) *sessions.Session {
	t.Helper()
	live, err := r.registry.Add(sessions.ID{id}, sessions.Device{id}, sessions.Term{Renew: func(context.Context) (time.Time, wire.Code) {
		r.mu.Lock()
		r.atOnce++
		r.most = max(r.most, r.atOnce)
		r.asked = append(r.asked, id)
		answer, takes := r.answer, r.takes
		r.mu.Unlock()
		<-time.After(takes)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.atOnce--
		return time.Time{}, answer
	}})
	if err != nil {
		t.Fatal(err)
	}
	live.Rest(on)
	r.live[id] = live
	return live
}

// wantAsked compares the sessions that were asked about since the last call.
func (r *reviewed) wantAsked(t *testing.T, want ...byte) {
	t.Helper()
	<-time.After(time.Millisecond)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.asked)
	if diff := cmp.Diff(want, r.asked); diff != "" {
		t.Errorf("asked about (-want +got):\n%s", diff)
	}
	r.asked = nil
}

func TestEventsHaveTheSessionsAskedAboutThatTheyAreAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewed(t)
		defer r.stop()
		r.event(nodes.Event{Kind: nodes.PlanChanged, PlanID: "p"})
		r.wantAsked(t, 1, 2)
		r.event(nodes.Event{Kind: nodes.SubscriptionChanged, UserID: "v", PlanID: "p"})
		r.wantAsked(t, 2, 3)
		r.event(nodes.Event{Kind: nodes.SubscriptionEnded, UserID: "u"})
		r.wantAsked(t, 1)
		r.event(nodes.Event{Kind: nodes.PlanChanged, PlanID: "q"})
		r.event(nodes.Event{Kind: nodes.SubscriptionChanged, UserID: "u"})
		r.wantAsked(t, 1, 3)
		r.event(nodes.Event{Kind: nodes.EventsMissed})
		r.wantAsked(t, 1, 2, 3)
		r.event(nodes.Event{Kind: nodes.OutlineChanged, PlanID: "p", UserID: "u"})
		r.event(nodes.Event{Kind: nodes.PlanChanged, PlanID: "of nobody"})
		r.wantAsked(t)
	})
}

func TestAReviewedSessionEndsOnlyByARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewed(t)
		defer r.stop()
		r.answer = wire.CodeRetryLater
		r.event(nodes.Event{Kind: nodes.SubscriptionChanged, UserID: "u"})
		r.wantAsked(t, 1)
		r.mu.Lock()
		r.answer = wire.CodeDeviceRevoked
		r.mu.Unlock()
		<-time.After(reviewPause - 3*time.Millisecond)
		r.wantAsked(t)
		select {
		case <-r.live[1].Ending():
			t.Error("the session ends though nobody said so")
		default:
		}
		<-time.After(2 * time.Millisecond)
		synctest.Wait()
		<-r.live[1].Ending()
		<-time.After(time.Hour)
		select {
		case <-r.live[2].Ending():
			t.Error("another session ends, too")
		default:
		}
	})
}

func TestAnEventThatComesBeforeItsSessionCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewed(t)
		defer r.stop()
		asked := time.Now()
		<-time.After(time.Second)
		r.event(nodes.Event{Kind: nodes.PlanChanged, PlanID: "z"})
		<-time.After(time.Second)
		r.begun(r.add(t, 4, sessions.Terms{User: "w", Plan: "z"}), asked)
		r.wantAsked(t, 4)
		r.begun(r.add(t, 5, sessions.Terms{User: "x", Plan: "z"}), time.Now())
		r.wantAsked(t)
	})
}

func TestReviewsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewed(t)
		defer r.stop()
		for id := range byte(40) {
			r.add(t, 100+id, sessions.Terms{User: "many", Plan: "many"})
		}
		r.takes = time.Second
		r.event(nodes.Event{Kind: nodes.PlanChanged, PlanID: "p"})
		synctest.Wait() // it is busy with two of them meanwhile
		began := time.Now()
		for n := range 2 * maxReviews {
			r.event(nodes.Event{Kind: nodes.PlanChanged, PlanID: fmt.Sprint(n)})
		}
		r.reviews.mu.Lock()
		if !r.all || len(r.terms) != 0 {
			t.Errorf("%d plans are remembered", len(r.terms))
		}
		r.reviews.mu.Unlock()
		<-time.After(time.Minute)
		synctest.Wait()
		if r.most != reviewPlaces || len(r.asked) != 2+43 {
			t.Errorf("%d questions, %d at once, in %v", len(r.asked), r.most, time.Since(began))
		}
	})
}
