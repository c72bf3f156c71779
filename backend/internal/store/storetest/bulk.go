package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

func testBulk(f fixture) {
	t := f.t
	job := control.BulkJob{
		ID: id(), OperatorID: "o", Objects: 5, CreatedAt: now,
		Request: control.BulkRequest{Action: control.BulkInvite, Filter: control.BulkFilter{UserIDs: []string{"a", "b"}, Disabled: new(false)}, TTL: 60},
	}
	var objects []control.BulkObject
	for i := range job.Objects {
		objects = append(objects, control.BulkObject{Position: i + 1, UserID: id(), UserName: "a name", ObjectID: id()})
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertBulkJob(ctx, job, objects) })
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		got, err := tx.BulkJob(ctx, job.ID)
		same(t, job, got)
		first, err2 := tx.NextBulkObject(ctx, job.ID)
		same(t, objects[0], first)
		return errors.Join(err, err2)
	})
	// Whoever takes the next object, in whatever order they end, each is counted once.
	for i := range objects {
		f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) {
			if _, err := tx.BulkJob(ctx, job.ID); err != nil { // holds it
				return false, err
			}
			o := objects[i]
			if i%2 == 1 {
				o.Error = "in the way"
			}
			return true, tx.EndBulkObject(ctx, job.ID, o)
		})
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		got, err := tx.BulkJob(ctx, job.ID)
		if got.Done != 3 || got.Failed != 2 || got.Left() != 0 {
			t.Errorf("the job is %+v", got)
		}
		if _, err := tx.NextBulkObject(ctx, job.ID); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("something is left: %v", err)
		}
		failed, err2 := tx.BulkFailures(ctx, job.ID, 9)
		if len(failed) != 2 || failed[0].Position != 2 || failed[1].Error != "in the way" {
			t.Errorf("failed are %+v", failed)
		}
		one, err3 := tx.BulkFailures(ctx, job.ID, 1)
		if len(one) != 1 {
			t.Errorf("%d are shown, want 1", len(one))
		}
		return errors.Join(err, err2, err3)
	})
	young := control.BulkJob{ID: id(), OperatorID: "o", Objects: 1, CreatedAt: now.Add(time.Hour), Request: job.Request}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return tx.InsertBulkJob(ctx, young, []control.BulkObject{{Position: 1, UserID: "u", UserName: "n", ObjectID: "o"}})
	})
	prune := func(limit, want int) {
		t.Helper()
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			n, err := tx.PruneBulkJobs(ctx, now.Add(time.Minute), limit)
			if n != want {
				t.Errorf("with room for %d, %d went, want %d", limit, n, want)
			}
			return err
		})
	}
	prune(3, 3)
	prune(9, 3) // two objects and the job
	prune(9, 0)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		left, err := tx.BulkJobs(ctx, control.Page{Limit: 9})
		same(t, []control.BulkJob{young}, left)
		return err
	})
}

func testUsageTotals(f fixture) {
	t := f.t
	user, plan := f.user(t), f.plan(t)
	first, second := f.subscription(t, user, plan, now, nil), f.subscription(t, f.user(t), plan, now, nil)
	gateway := f.gateway(t, "b")
	type quarters = map[int64]control.Traffic
	sums := func(what string, filter control.UsageFilter, want quarters) {
		t.Helper()
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			got := quarters{}
			err := tx.UsageQuarters(ctx, filter, 0, 100, func(bucket int64, u control.Traffic) { got[bucket] = got[bucket].Plus(u) })
			same(t, want, got)
			if t.Failed() {
				t.Logf("%s", what)
			}
			return err
		})
	}
	add := func(sub string, bucket, up, down int64) {
		t.Helper()
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			traffic := control.Traffic{Up: up, Down: down}
			of, err := tx.AddUsage(ctx, control.UsageSum{SubscriptionID: sub, Bucket: bucket, GatewayID: gateway.ID, Traffic: traffic})
			if err != nil {
				return err
			}
			if of != plan.ID && sub != "gone" {
				t.Errorf("the plan is %q, want %q", of, plan.ID)
			}
			return tx.AddUsageTotal(ctx, control.UsageTotal{Bucket: bucket, GatewayID: gateway.ID, PlanID: of, Traffic: traffic})
		})
	}
	add(first.ID, 7, 10, 20)
	add(second.ID, 7, 1, 2)
	add(first.ID, 8, 5, 5)
	add(first.ID, 8, -2, -3) // moves to another
	add(first.ID, 9, 2, 3)
	add("gone", 9, 4, 4) // of a subscription that nobody knows
	all := quarters{7: {Up: 11, Down: 22}, 8: {Up: 3, Down: 2}, 9: {Up: 6, Down: 7}}
	ofPlan := quarters{7: {Up: 11, Down: 22}, 8: {Up: 3, Down: 2}, 9: {Up: 2, Down: 3}}
	sums("everything", control.UsageFilter{}, all)
	sums("a gateway", control.UsageFilter{GatewayID: gateway.ID}, all)
	sums("a region", control.UsageFilter{RegionID: gateway.RegionID}, all)
	sums("a plan", control.UsageFilter{PlanID: plan.ID}, ofPlan)
	sums("another plan", control.UsageFilter{PlanID: f.plan(t).ID}, quarters{})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		differences, err := tx.TotalDifferences(ctx, 9)
		if len(differences) > 0 {
			t.Errorf("sums differ from their parts: %+v", differences)
		}
		return err
	})
	// What is in the sum alone is found, and nothing goes below zero.
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return tx.AddUsageTotal(ctx, control.UsageTotal{Bucket: 7, GatewayID: gateway.ID, PlanID: plan.ID, Traffic: control.Traffic{Up: 1}})
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		differences, err := tx.TotalDifferences(ctx, 9)
		if len(differences) != 1 || differences[0].PlanID != plan.ID || differences[0].Have.Up != 12 || differences[0].Want.Up != 11 {
			t.Errorf("a sum that is too large: %+v", differences)
		}
		return err
	})
	err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		return tx.AddUsageTotal(ctx, control.UsageTotal{Bucket: 8, GatewayID: gateway.ID, PlanID: plan.ID, Traffic: control.Traffic{Up: -9}})
	})
	if err == nil {
		t.Error("a sum is below zero")
	}
}
