package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

func (f fixture) webhook(t *testing.T, events ...control.NoticeType) control.Webhook {
	t.Helper()
	h := control.Webhook{ID: id(), URL: "https://example.com/" + id(), Description: "d", Events: events, CreatedAt: now}
	secret := control.SealedWebhookSecret{WebhookID: h.ID, Generation: 1, Sealed: random(60), CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(tx.InsertWebhook(ctx, h), tx.InsertWebhookSecret(ctx, secret))
	})
	h.Secrets = []control.SealedWebhookSecret{secret}
	return h
}

// deliver writes a message and returns it as it reads back but for its position.
func (f fixture) deliver(t *testing.T, h control.Webhook, object string, change func(*control.Delivery)) control.Delivery {
	t.Helper()
	d := control.Delivery{
		ID: id(), WebhookID: h.ID, EventID: id(), Type: control.NoticeUserExpired, ObjectID: object, Payload: `{"a":"ü"}`,
		State: control.DeliveryPending, NextAt: now, CreatedAt: now,
	}
	if change != nil {
		change(&d)
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertDelivery(ctx, d) })
	return d
}

func (f fixture) claim(t *testing.T, h control.Webhook, at time.Time, limit int) []control.Delivery {
	t.Helper()
	var claimed []control.Delivery
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		var err error
		claimed, err = tx.ClaimDeliveries(ctx, h.ID, at, at.Add(time.Minute), limit)
		return err
	})
	slices.SortFunc(claimed, func(x, y control.Delivery) int { return int(x.Position - y.Position) })
	return claimed
}

// end keeps that an attempt led to a state.
func (f fixture) end(t *testing.T, d control.Delivery, state control.DeliveryState, at time.Time) bool {
	t.Helper()
	d.State, d.TriedAt = state, &at
	if state == control.DeliveryPending {
		d.NextAt = at
	} else {
		d.EndedAt = &at
	}
	last := false
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		var err error
		last, err = tx.EndAttempt(ctx, d)
		return err
	})
	return last
}

func idsOf(list []control.Delivery) []string {
	ids := []string{}
	for _, d := range list {
		ids = append(ids, d.ID)
	}
	return ids
}

func testWebhooksReadBack(f fixture) {
	t := f.t
	some := f.webhook(t, control.NoticeGatewayDown, control.NoticeUserExpired)
	all := f.webhook(t)
	later := now.Add(time.Hour)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		got, err1 := tx.Webhook(ctx, some.ID)
		same(t, some, got)
		hooks, err2 := tx.Webhooks(ctx, control.Page{Limit: 10})
		bare := func(h control.Webhook) control.Webhook { h.Secrets = nil; return h }
		same(t, []control.Webhook{bare(some), bare(all)}, hooks)
		after, err3 := tx.Webhooks(ctx, control.Page{After: some.ID, Limit: 10})
		same(t, []control.Webhook{bare(all)}, after)
		n, err4 := tx.CountWebhooks(ctx)
		same(t, 2, n)

		// Another URL, another secret, and attempts that failed.
		some.URL, some.Description, some.Events = "https://example.net", "", nil
		some.FailingSince, some.Failures, some.SucceededAt = &later, 3, &now
		second := control.SealedWebhookSecret{WebhookID: some.ID, Generation: 2, Sealed: random(60), CreatedAt: later}
		err5 := errors.Join(tx.UpdateWebhook(ctx, some), tx.NoteWebhook(ctx, some), tx.InsertWebhookSecret(ctx, second), tx.EndWebhookSecret(ctx, some.ID, 1, later))
		some.Secrets[0].EndsAt = &later
		some.Secrets = []control.SealedWebhookSecret{second, some.Secrets[0]}
		got, err6 := tx.Webhook(ctx, some.ID)
		same(t, some, got)
		pruned, err7 := tx.PruneWebhookSecrets(ctx, later, 10)
		same(t, 0, pruned)
		pruned, err8 := tx.PruneWebhookSecrets(ctx, later.Add(time.Microsecond), 10)
		same(t, 1, pruned)
		err9 := tx.DropWebhookSecrets(ctx, some.ID, 3)
		got, err10 := tx.Webhook(ctx, some.ID)
		same(t, 0, len(got.Secrets))
		return errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		err1 := tx.DisableWebhook(ctx, some.ID, control.WebhookGone, later)
		if err := tx.DisableWebhook(ctx, some.ID, control.WebhookFailing, later); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("disabled twice: %v", err)
		}
		got, err2 := tx.Webhook(ctx, some.ID)
		some.Secrets, some.DisabledAt, some.DisabledWhy = nil, &later, control.WebhookGone
		same(t, some, got)
		enabled, err3 := tx.EnabledWebhooks(ctx)
		same(t, 1, len(enabled))
		same(t, all.ID, enabled[0].ID)
		summary, err4 := tx.WebhookSummary(ctx)
		same(t, control.WebhookSummary{Webhooks: 2, Disabled: 1}, summary)
		return errors.Join(err1, err2, err3, err4)
	})
	f.deliver(t, all, "o", nil)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(tx.DeleteWebhook(ctx, all.ID), tx.DeleteWebhook(ctx, some.ID))
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		for name, err := range map[string]error{
			"update": tx.UpdateWebhook(ctx, all), "note": tx.NoteWebhook(ctx, all), "delete": tx.DeleteWebhook(ctx, all.ID),
			"secret": tx.EndWebhookSecret(ctx, all.ID, 1, now),
		} {
			if !errors.Is(err, control.ErrNotFound) {
				t.Errorf("%s of a deleted webhook: %v", name, err)
			}
		}
		left, err := tx.Deliveries(ctx, all.ID, "", control.Page{Limit: 10})
		same(t, 0, len(left))
		return err
	})
}

func testDeliveryOrder(f fixture) {
	t := f.t
	h, other := f.webhook(t), f.webhook(t)
	first := f.deliver(t, h, "a", nil)
	second := f.deliver(t, h, "a", nil)
	beside := f.deliver(t, h, "b", nil)
	late := f.deliver(t, h, "c", func(d *control.Delivery) { d.NextAt = now.Add(time.Hour) })
	elsewhere := f.deliver(t, other, "a", func(d *control.Delivery) { d.CreatedAt = now.Add(-time.Hour) })
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		due, err1 := tx.DueWebhooks(ctx, now)
		want := []string{h.ID, other.ID}
		slices.Sort(want)
		same(t, want, due)
		none, err2 := tx.DueWebhooks(ctx, now.Add(-time.Microsecond))
		same(t, 0, len(none))
		summary, err3 := tx.WebhookSummary(ctx)
		same(t, control.WebhookSummary{Webhooks: 2, Pending: 5, Oldest: &elsewhere.CreatedAt}, summary)
		bounded, err4 := tx.CountPending(ctx, h.ID, 3)
		same(t, 3, bounded)
		return errors.Join(err1, err2, err3, err4)
	})
	claimed := f.claim(t, h, now, 10)
	same(t, []string{first.ID, beside.ID}, idsOf(claimed))
	got := claimed[0]
	first.Position, first.Attempts, first.NextAt = got.Position, 1, now.Add(time.Minute)
	same(t, first, got)
	if again := f.claim(t, h, now, 10); len(again) != 0 {
		t.Errorf("claimed again: %v", idsOf(again))
	}
	// One that failed is in the way of the next of its object until it is over.
	same(t, true, f.end(t, got, control.DeliveryPending, now.Add(time.Second)))
	same(t, 0, len(f.claim(t, h, now, 10)))
	claimed = f.claim(t, h, now.Add(time.Second), 10)
	same(t, []string{first.ID}, idsOf(claimed))
	same(t, 2, claimed[0].Attempts)
	same(t, false, f.end(t, got, control.DeliveryDelivered, now)) // somebody has begun another attempt
	same(t, true, f.end(t, claimed[0], control.DeliveryDead, now))
	same(t, false, f.end(t, claimed[0], control.DeliveryDelivered, now))
	same(t, []string{second.ID}, idsOf(f.claim(t, h, now, 10)))
	// A lease that ends gives the message to others.
	same(t, []string{second.ID, beside.ID}, idsOf(f.claim(t, h, now.Add(time.Minute), 10)))

	f.write(t, func(ctx context.Context, tx control.Tx) error {
		listed, err1 := tx.Deliveries(ctx, h.ID, "", control.Page{Limit: 10})
		same(t, []string{late.ID, beside.ID, second.ID, first.ID}, idsOf(listed))
		part, err2 := tx.Deliveries(ctx, h.ID, "", control.Page{After: beside.ID, Limit: 1})
		same(t, []string{second.ID}, idsOf(part))
		dead, err3 := tx.Deliveries(ctx, h.ID, control.DeliveryDead, control.Page{Limit: 10})
		same(t, []string{first.ID}, idsOf(dead))
		pending, gone, err4 := tx.CountDeliveries(ctx, h.ID)
		same(t, []int{3, 1}, []int{pending, gone})
		none, err5 := tx.Redeliver(ctx, h.ID, []string{second.ID, elsewhere.ID}, now, 10) // waits, and is another's
		same(t, 0, none)
		back, err6 := tx.Redeliver(ctx, h.ID, nil, now, 10)
		same(t, 1, back)
		return errors.Join(err1, err2, err3, err4, err5, err6)
	})
	claimed = f.claim(t, h, now, 10)
	same(t, []string{first.ID}, idsOf(claimed))
	same(t, 1, claimed[0].Attempts)
	same(t, (*time.Time)(nil), claimed[0].EndedAt)
	same(t, true, f.end(t, claimed[0], control.DeliveryDelivered, now))
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		n, err := tx.Redeliver(ctx, h.ID, []string{first.ID}, now, 10)
		same(t, 1, n)
		return err
	})
}

// Many claim at once, as several processes do: each message is somebody's once, and
// those of an object come in their order.
func testClaimOnce(f fixture) {
	t := f.t
	h := f.webhook(t)
	const objects, each, workers = 5, 6, 8
	for n := range each {
		for o := range objects {
			f.deliver(t, h, fmt.Sprint("object ", o), func(d *control.Delivery) { d.Payload = fmt.Sprint(n) })
		}
	}
	var (
		mu    sync.Mutex
		seen  = make(map[string][]string) // payloads by object
		group sync.WaitGroup
	)
	for range workers {
		group.Go(func() {
			for {
				mu.Lock()
				done := 0
				for _, payloads := range seen {
					done += len(payloads)
				}
				mu.Unlock()
				if done == objects*each {
					return
				}
				for _, d := range f.claim(t, h, now, 3) {
					mu.Lock()
					seen[d.ObjectID] = append(seen[d.ObjectID], d.Payload)
					mu.Unlock()
					if !f.end(t, d, control.DeliveryDelivered, now) {
						t.Errorf("%s of %s was somebody else's, too", d.Payload, d.ObjectID)
					}
				}
			}
		})
	}
	group.Wait()
	for object, payloads := range seen {
		same(t, []string{"0", "1", "2", "3", "4", "5"}, payloads)
		if t.Failed() {
			t.Fatal(object)
		}
	}
}

func testPruneDeliveries(f fixture) {
	t := f.t
	h := f.webhook(t)
	const day = 24 * time.Hour
	ended := func(state control.DeliveryState, made, over time.Duration) control.Delivery {
		return f.deliver(t, h, id(), func(d *control.Delivery) {
			at := now.Add(-over)
			d.State, d.CreatedAt, d.EndedAt = state, now.Add(-made), &at
		})
	}
	ended(control.DeliveryDelivered, 9*day, 8*day)
	youngDelivered := ended(control.DeliveryDelivered, 9*day, 6*day)
	ended(control.DeliveryDead, 31*day, 30*day)
	youngDead := ended(control.DeliveryDead, 29*day, 28*day)
	f.deliver(t, h, "x", func(d *control.Delivery) { d.CreatedAt = now.Add(-31 * day) })
	waiting := f.deliver(t, h, "y", func(d *control.Delivery) { d.CreatedAt = now.Add(-29 * day) })
	prune := func(keep, limit int) int {
		n := 0
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			var err error
			n, err = tx.PruneDeliveries(ctx, now.Add(-7*day), now.Add(-30*day), keep, limit)
			return err
		})
		return n
	}
	left := func() []string {
		var ids []string
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			list, err := tx.Deliveries(ctx, h.ID, "", control.Page{Limit: 10})
			ids = idsOf(list)
			slices.Sort(ids)
			return err
		})
		return ids
	}
	same(t, 2, prune(10, 2))
	same(t, 1, prune(10, 10))
	same(t, 0, prune(10, 10))
	same(t, []string{youngDelivered.ID, youngDead.ID, waiting.ID}, left())
	same(t, 0, prune(2, 10))
	same(t, 1, prune(1, 10)) // the older one of those that have ended
	same(t, []string{youngDead.ID, waiting.ID}, left())
}

func testEndTold(f fixture) {
	t := f.t
	user, plan := f.user(t), f.plan(t)
	past, later := now.Add(-time.Hour), now.Add(time.Hour)
	ended := f.subscription(t, user, plan, past.Add(-time.Hour), &past)
	f.subscription(t, user, plan, past, &later)
	f.subscription(t, user, plan, past, nil)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		untold, err1 := tx.UntoldEnds(ctx, now, 10)
		same(t, []control.Subscription{ended}, untold)
		other, err2 := tx.TellEnd(ctx, ended.ID, later)
		same(t, false, other)
		told, err3 := tx.TellEnd(ctx, ended.ID, past)
		same(t, true, told)
		again, err4 := tx.TellEnd(ctx, ended.ID, past)
		same(t, false, again)
		untold, err5 := tx.UntoldEnds(ctx, now, 10)
		same(t, 0, len(untold))
		ended.EndsAt = &now
		err6 := tx.UpdateSubscription(ctx, ended)
		untold, err7 := tx.UntoldEnds(ctx, now, 10)
		same(t, []control.Subscription{ended}, untold)
		return errors.Join(err1, err2, err3, err4, err5, err6, err7)
	})
}

func testGatewaysDown(f fixture) {
	t := f.t
	gateway := f.gateway(t, "b") // its lease holds
	until := now.Add(time.Hour)
	changed := func(at time.Time) []string {
		ids := []string{}
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			if _, err := tx.RenewLease(ctx, gateway.ID, control.Lease{BootID: "b", Until: until}); err != nil {
				return err
			}
			list, err := tx.ChangedGateways(ctx, at, 10)
			for _, g := range list {
				ids = append(ids, g.ID)
			}
			return err
		})
		return ids
	}
	same(t, []string{}, changed(now))
	same(t, []string{gateway.ID}, changed(until))
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		err1 := tx.SetGatewayDown(ctx, gateway.ID, &until)
		got, err2 := tx.Gateway(ctx, gateway.ID)
		same(t, &until, got.DownAt)
		if err := tx.SetGatewayDown(ctx, id(), nil); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("a gateway that there is not: %v", err)
		}
		return errors.Join(err1, err2)
	})
	same(t, []string{}, changed(until))
	same(t, []string{gateway.ID}, changed(now))
}
