package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/quota"
	"github.com/httvps/httvps/gateway/internal/sessions"
)

// drawn is a gateway that draws from the quota of a subscription.
type drawn struct {
	*quotas
	use  *quota.Use
	stop func()

	mu      sync.Mutex // guards the following fields
	moved   int64
	asked   []nodes.LeaseRequest
	answer  nodes.Grant
	away    error
	reviews []string
}

func newDrawn(t *testing.T, first *quota.Grant) *drawn {
	t.Helper()
	d := new(drawn)
	d.quotas = &quotas{
		book: quota.NewBook(), log: slog.New(slog.DiscardHandler),
		renew: func(_ context.Context, list []nodes.LeaseRequest) ([]nodes.Grant, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.asked = append(d.asked, list...)
			if d.away != nil {
				return nil, d.away
			}
			return []nodes.Grant{d.answer}, nil
		},
		review: func(of sessions.Terms) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.reviews = append(d.reviews, of.Subscription)
		},
	}
	var err error
	d.use, err = d.book.Begin("s", first, time.Now(), func() int64 { d.mu.Lock(); defer d.mu.Unlock(); return d.moved }, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { d.run(ctx) })
	d.stop = func() { cancel(); running.Wait() }
	return d
}

// move moves what there is, up to n bytes.
func (d *drawn) move(n int) int {
	n = d.use.Reserve(n)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moved += int64(n)
	return n
}

func (d *drawn) set(change func(*drawn)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// wantAsked compares what was asked since the last call.
func (d *drawn) wantAsked(t *testing.T, want ...nodes.LeaseRequest) {
	t.Helper()
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if diff := cmp.Diff(want, d.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	d.asked = nil
}

func TestMoreOfAQuotaIsThereBeforeItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrawn(t, &quota.Grant{Subscription: "s", State: quota.Open, Version: 1, Allowance: 1000})
		d.answer = nodes.Grant{Subscription: "s", State: "open", Version: 2, Allowance: 1500}
		d.move(500)
		d.wantAsked(t, nodes.LeaseRequest{Subscription: "s", Used: 500, Version: 1})
		if n := d.move(5000); n != 1000 {
			t.Errorf("%d bytes were moved", n)
		}
		d.stop()
	})
}

func TestTrafficStopsWithinItsLeaseWhileTheControlPlaneIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrawn(t, &quota.Grant{Subscription: "s", State: quota.Open, Version: 1, Allowance: 1000})
		d.away = errors.New("away")
		if n := d.move(5000); n != 1000 {
			t.Errorf("%d bytes were moved", n)
		}
		waits := make(chan bool, 1)
		go func() { waits <- d.use.Wait(nil) }()
		<-time.After(time.Hour)
		synctest.Wait()
		d.set(func(d *drawn) {
			if n := len(d.asked); n < 500 || n > 1000 || len(d.reviews) != 0 {
				t.Errorf("it was asked %d times in an hour, and sessions %d times", n, len(d.reviews))
			}
			d.asked, d.away = nil, nil
			d.answer = nodes.Grant{Subscription: "s", State: "open", Version: 2, Allowance: 1500}
		})
		before := time.Now()
		if !<-waits || time.Since(before) > quotaRetryLast+quotaTick {
			t.Errorf("it goes on after %v", time.Since(before))
		}
		d.stop()
	})
}

func TestSessionsOfAQuotaThatIsUsedUpAreAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrawn(t, &quota.Grant{Subscription: "s", State: quota.Exhausted, Version: 1, Allowance: 1000})
		d.answer = nodes.Grant{Subscription: "s", State: "exhausted", Version: 1, Allowance: 1000}
		d.move(999)
		<-time.After(10 * time.Second)
		synctest.Wait()
		d.set(func(d *drawn) {
			if len(d.reviews) != 0 {
				t.Error("with something left they are asked about")
			}
		})
		d.move(1)
		<-time.After(2 * time.Second)
		synctest.Wait()
		d.set(func(d *drawn) {
			if diff := cmp.Diff([]string{"s"}, d.reviews); diff != "" {
				t.Errorf("asked about (-want +got):\n%s", diff)
			}
		})
		d.stop()
	})
}

func TestAStoppingGatewayGivesBackWhatIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrawn(t, &quota.Grant{Subscription: "s", State: quota.Open, Version: 1, Allowance: 1000})
		d.away = errors.New("away")
		d.move(100)
		d.use.End()
		d.wantAsked(t, nodes.LeaseRequest{Subscription: "s", Used: 100, Version: 1, GiveBack: true})
		d.set(func(d *drawn) { d.away = nil })
		d.stop()
		d.wantAsked(t, nodes.LeaseRequest{Subscription: "s", Used: 100, Version: 1, GiveBack: true})
	})
}

func TestAStateThatIsNotKnownGivesNothing(t *testing.T) {
	if got := grantOf(nodes.Grant{State: "generous", Allowance: 1 << 40}); got.State != quota.Unknown {
		t.Errorf("it is taken for %s", got.State)
	}
	if got := quotaOf(nodes.Decision{}); got != nil {
		t.Errorf("no quota is taken for %+v", got)
	}
}
