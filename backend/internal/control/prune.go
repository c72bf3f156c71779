package control

import (
	"context"
	"time"
)

// How long ended things are kept, and how many go at a time: a batch is one
// short write, so that requests get their turn in between.
const (
	keepInvitations = 7 * 24 * time.Hour
	keepSessions    = 30 * 24 * time.Hour
	keepTokens      = 7 * 24 * time.Hour
	lostAfter       = time.Hour // without a gateway's heartbeat
	// lostGrace is how long the service must have worked before it takes a gateway
	// for lost: when it comes back itself, they need time to be heard.
	lostGrace = 4 * time.Minute
	// stoodStill is how far apart two clean-ups are between which the service, or the
	// clock, has not gone on as usual: that counts as coming back.
	stoodStill   = 15 * time.Minute
	pruneBatch   = 500
	compactBatch = 50 // sessions
)

// Pruned counts what Prune removed or ended.
type Pruned struct {
	Invitations  int
	Sessions     int
	LostSessions int
	OnceResults  int
	APITokens    int
	Events       int
	UsageReports int
	QuotaLeases  int
	Logins       int
	BulkJobs     int // and their objects
	Deliveries   int // of webhooks
}

// Prune deletes what has been over for long, in bounded batches until nothing is
// left, ends sessions whose gateway has been lost, and writes down failed attempts to
// sign in.
func (a *Authority) Prune(ctx context.Context) (p Pruned, err error) {
	now := a.now()
	defer func() {
		if err != nil {
			a.wellSince.Store(0)
			return
		}
		a.wellSince.CompareAndSwap(0, now.UnixMicro())
	}()
	if before := a.prunedAt.Swap(now.UnixMicro()); before != 0 && now.Sub(time.UnixMicro(before)).Abs() > stoodStill {
		a.wellSince.Store(0)
	}
	well := a.wellSince.Load()
	judges := well != 0 && now.Sub(time.UnixMicro(well)) >= lostGrace
	for _, job := range []struct {
		count *int
		run   func(context.Context, Tx) (int, error)
	}{
		{&p.LostSessions, func(ctx context.Context, tx Tx) (int, error) {
			if !judges {
				return 0, nil
			}
			return tx.EndLostSessions(ctx, now.Add(-lostAfter), endedLost, now, pruneBatch)
		}},
		{&p.Sessions, func(ctx context.Context, tx Tx) (int, error) {
			return tx.PruneSessions(ctx, now.Add(-keepSessions), pruneBatch)
		}},
		{&p.Invitations, func(ctx context.Context, tx Tx) (int, error) {
			return tx.PruneInvitations(ctx, now.Add(-keepInvitations), pruneBatch)
		}},
		{&p.OnceResults, func(ctx context.Context, tx Tx) (int, error) {
			return tx.PruneOnceResults(ctx, now.Add(-OnceTTL), pruneBatch)
		}},
		{&p.APITokens, func(ctx context.Context, tx Tx) (int, error) {
			return tx.PruneAPITokens(ctx, now.Add(-keepTokens), pruneBatch)
		}},
		{&p.Logins, func(ctx context.Context, tx Tx) (int, error) { return tx.PruneLogins(ctx, now, pruneBatch) }},
		{&p.QuotaLeases, func(ctx context.Context, tx Tx) (int, error) {
			return tx.PruneQuotaLeases(ctx, now.Add(-keepLeases), now.Add(-keepUnreported), pruneBatch)
		}},
		{&p.BulkJobs, func(ctx context.Context, tx Tx) (int, error) {
			return tx.PruneBulkJobs(ctx, now.Add(-keepBulkJobs), pruneBatch)
		}},
		{&p.Deliveries, func(ctx context.Context, tx Tx) (int, error) {
			return tx.PruneDeliveries(ctx, now.Add(-keepDelivered), now.Add(-keepDeliveries), keepDeliveryCount, pruneBatch)
		}},
		{new(int), func(ctx context.Context, tx Tx) (int, error) { return tx.PruneWebhookSecrets(ctx, now, pruneBatch) }},
		{&p.Events, func(ctx context.Context, tx Tx) (int, error) {
			return tx.PruneEvents(ctx, now.Add(-keepEvents), keepEventCount, pruneBatch)
		}},
	} {
		for n := pruneBatch; n == pruneBatch; *job.count += n {
			err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
				var err error
				n, err = job.run(ctx, tx)
				return err
			})
			if err != nil {
				return p, err
			}
		}
	}
	for n := compactBatch; n == compactBatch; {
		deleted := 0
		err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
			var err error
			n, deleted, err = tx.CompactUsage(ctx, now, now.Add(-keepReports), now.Add(keepReports), compactBatch)
			return err
		})
		if err != nil {
			return p, err
		}
		p.UsageReports += deleted
	}
	return p, a.writeFailing(ctx)
}
