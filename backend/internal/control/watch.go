package control

import (
	"context"
	"errors"
	"sync"
	"time"
)

// What nobody does at a moment, but the clock, is found by looking: subscriptions that
// end, and gateways that are not heard of any more.

const (
	// WatchInterval is how often somebody is to look.
	WatchInterval = 5 * time.Second
	// watchGap is how far apart two looks are between which the service, or the clock,
	// has not gone on as usual: gateways may have had nobody to report to.
	watchGap = 4 * WatchInterval
	// watchBatch is how many ends, and how many gateways, one look takes up.
	watchBatch = 500
)

type watchRows interface {
	// UntoldEnds returns at most limit subscriptions that have ended at now and of whose
	// end webhooks were not told.
	UntoldEnds(ctx context.Context, now time.Time, limit int) ([]Subscription, error)
	// TellEnd notes that webhooks were told of a subscription's end, or need not be, and
	// reports whether that is new and it still ends then.
	TellEnd(ctx context.Context, id string, end time.Time) (bool, error)
	// ChangedGateways returns at most limit gateways that are down at now and webhooks were
	// not told so, or are not and webhooks were told that they are.
	ChangedGateways(ctx context.Context, now time.Time, limit int) ([]Gateway, error)
	SetGatewayDown(ctx context.Context, id string, since *time.Time) error
}

// watching is since when all looks at gateways went well.
type watching struct {
	mu    sync.Mutex // guards what follows
	since time.Time  // zero: the last one did not
	last  time.Time
}

// looked notes whether a look went well, and returns for how long all have.
func (w *watching) looked(now time.Time, well bool) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !well {
		w.since = time.Time{}
		return 0
	}
	if w.since.IsZero() || now.Sub(w.last).Abs() > watchGap {
		w.since = now
	}
	w.last = now
	return now.Sub(w.since)
}

// WatchEnds has webhooks told of users whose last subscription has ended. It returns of
// how many. Several processes may look.
func (a *Authority) WatchEnds(ctx context.Context) (expired int, err error) {
	now := a.now()
	ended, err := list(ctx, a, func(ctx context.Context, tx Tx) ([]Subscription, error) { return tx.UntoldEnds(ctx, now, watchBatch) })
	if err != nil {
		return 0, err
	}
	for _, sub := range ended {
		told := false
		err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
			var err error
			told, err = a.tellEnd(ctx, tx, sub, now)
			return err
		})
		if err != nil {
			return expired, err
		}
		if told {
			expired++
		}
	}
	return expired, nil
}

// tellEnd reports whether it announced that a user's last subscription has ended.
func (a *Authority) tellEnd(ctx context.Context, tx Tx, sub Subscription, now time.Time) (bool, error) {
	told, err := tx.TellEnd(ctx, sub.ID, *sub.EndsAt)
	if err != nil || !told {
		return false, err
	}
	user, err := tx.LockUser(ctx, sub.UserID) // after the subscription, as everywhere
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	all, err := tx.Entitlements(ctx, user.ID, maxEntitlements)
	if err != nil {
		return false, err
	}
	var last Entitlement
	for _, e := range all {
		switch {
		case e.ID == sub.ID:
			last = e
		case e.AwaitsUse, e.Status(now) == Active:
			return false, nil
		case e.Status(now) == Expired && e.EndsAt != nil && (e.EndsAt.After(*sub.EndsAt) || e.EndsAt.Equal(*sub.EndsAt) && e.ID > sub.ID):
			return false, nil // that one's end is the user's
		}
	}
	if last.ID == "" { // of more than are looked at
		return false, nil
	}
	a.announce(tx, notice{Type: NoticeUserExpired, Object: user.ID, Data: noticeData{User: aboutUser(user), Subscription: aboutSubscription(last)}})
	return true, nil
}

// passOver keeps an end that is no news from being told: of a subscription that had
// ended before it was made or changed.
func (a *Authority) passOver(ctx context.Context, tx Tx, sub Subscription, wasActive bool) error {
	if wasActive || sub.EndsAt == nil || sub.Status(a.now()) != Expired {
		return nil
	}
	_, err := tx.TellEnd(ctx, sub.ID, *sub.EndsAt)
	return err
}

// GatewayChange says that a gateway is down, or up again.
type GatewayChange struct {
	Gateway Gateway
	Down    bool
}

// WatchGateways has webhooks told of gateways that are down because their leases have
// ended, and of those that are up again, and returns them. One is not taken for down
// before it has had the time to report: when the service comes back, or could not keep
// what gateways say, they could not be heard. Several processes may look.
func (a *Authority) WatchGateways(ctx context.Context) ([]GatewayChange, error) {
	now := a.now()
	found, err := list(ctx, a, func(ctx context.Context, tx Tx) ([]Gateway, error) { return tx.ChangedGateways(ctx, now, watchBatch) })
	well := a.watching.looked(now, err == nil && !a.leases.stands())
	if err != nil {
		return nil, err
	}
	judges := well >= leaseIntervals*a.heartbeat+WatchInterval
	var changes []GatewayChange
	for _, g := range found {
		if g.DownAt == nil && !judges {
			continue
		}
		var change *GatewayChange
		err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
			var err error
			change, err = a.judgeGateway(ctx, tx, g.ID)
			return err
		})
		if err != nil {
			return changes, err
		}
		if change != nil {
			changes = append(changes, *change)
		}
	}
	return changes, nil
}

// judgeGateway announces what has changed about a gateway, and returns that or nil.
func (a *Authority) judgeGateway(ctx context.Context, tx Tx, id string) (*GatewayChange, error) {
	gateway, err := tx.Gateway(ctx, id) // held: somebody else may be faster
	if errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // there is nothing to say
	}
	if err != nil {
		return nil, err
	}
	now := a.now()
	change := GatewayChange{Gateway: gateway}
	n := notice{Type: NoticeGatewayUp, Object: id}
	var since *time.Time
	switch online := gateway.Online(now); {
	case gateway.LeaseUntil == nil, online != (gateway.DownAt != nil):
		return nil, nil //nolint:nilnil // there is nothing to say
	case online:
		n.Data.Gateway = aboutGateway(gateway, *gateway.DownAt)
	default:
		change.Down, n.Type, since = true, NoticeGatewayDown, gateway.LeaseUntil
		n.Data.Gateway = aboutGateway(gateway, *since)
	}
	a.announce(tx, n)
	return &change, tx.SetGatewayDown(ctx, id, since)
}
