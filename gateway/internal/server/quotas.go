package server

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/quota"
	"github.com/httvps/httvps/gateway/internal/sessions"
)

const (
	quotaTick = time.Second
	// What is not used of quotas is given back when the gateway stops, if that takes no
	// longer than this. Otherwise it goes back with the leases' time.
	quotaLastWord = 2 * time.Second
	// After a question for quotas that got no answer the next one waits, each time for
	// longer.
	quotaRetryFirst, quotaRetryLast = 250 * time.Millisecond, 5 * time.Second
)

// quotas has the control plane asked for what the sessions may move.
type quotas struct {
	book   *quota.Book
	renew  func(context.Context, []nodes.LeaseRequest) ([]nodes.Grant, error)
	review func(sessions.Terms)
	log    *slog.Logger
}

// run asks until ctx ends, and gives back then what nobody uses.
func (q *quotas) run(ctx context.Context) {
	ticker := time.NewTicker(quotaTick)
	defer ticker.Stop()
	var (
		quiet time.Time // until then nothing is asked
		pause time.Duration
	)
	for {
		var all bool
		select {
		case <-ticker.C:
			all = true
		case <-q.book.Wake():
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), quotaLastWord)
			defer cancel()
			_ = q.ask(last, q.book.All(time.Now())) // as said above
			return
		}
		now := time.Now()
		if now.Before(quiet) {
			continue
		}
		due := q.book.Wanted(now)
		if all {
			due = q.book.All(now)
		}
		err := q.ask(ctx, due)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			if pause == 0 {
				q.log.WarnContext(ctx, "quotas not renewed", "error", err)
			}
			pause = min(max(2*pause, quotaRetryFirst), quotaRetryLast)
			quiet = time.Now().Add(pause)
		case len(due.Grants) > 0:
			if pause > 0 {
				q.log.InfoContext(ctx, "quotas renewed again")
			}
			pause = 0
		}
	}
}

// ask asks for what is due.
func (q *quotas) ask(ctx context.Context, due quota.Due) error {
	for _, id := range due.Review {
		q.review(sessions.Terms{Subscription: id})
	}
	for list := range slices.Chunk(due.Grants, nodes.MaxLeases) {
		asked := time.Now()
		grants, err := q.renew(ctx, leaseRequests(list))
		if err != nil {
			q.book.Again(due.Grants)
			return err
		}
		q.granted(grants, asked)
	}
	return nil
}

// held are leases for a heartbeat.
func (q *quotas) held(n int) []nodes.LeaseRequest { return leaseRequests(q.book.Held(n)) }

// granted takes answers of the control plane.
func (q *quotas) granted(grants []nodes.Grant, asked time.Time) {
	list := make([]quota.Grant, 0, len(grants))
	for _, g := range grants {
		list = append(list, grantOf(g))
	}
	q.book.Apply(list, asked)
}

func leaseRequests(list []quota.Request) []nodes.LeaseRequest {
	requests := make([]nodes.LeaseRequest, 0, len(list))
	for _, r := range list {
		requests = append(requests, nodes.LeaseRequest(r))
	}
	return requests
}

// grantOf takes a state that it does not know for one without anything to use.
func grantOf(g nodes.Grant) quota.Grant {
	grant := quota.Grant{
		Subscription: g.Subscription, State: quota.State(g.State), Version: g.Version, Allowance: g.Allowance, ThrottleBPS: g.ThrottleBPS,
		Level: quota.Level{Quota: g.Quota, Used: g.Used, Reached: g.Reached},
	}
	switch grant.State {
	case quota.Open, quota.Exhausted, quota.Throttled, quota.Unlimited, quota.Unknown:
	default:
		grant.State = quota.Unknown
	}
	return grant
}

// quotaOf is the grant of a decision; nil: there is no quota.
func quotaOf(decision nodes.Decision) *quota.Grant {
	if decision.Quota == nil {
		return nil
	}
	grant := grantOf(*decision.Quota)
	return &grant
}
