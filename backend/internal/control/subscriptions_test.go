package control_test

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// A time is judged as the moment it is, in UTC, and not as its zone writes it:
// what is kept must be a time that JSON can say.
func TestASubscriptionsTimesAreJudgedInUTC(t *testing.T) {
	w := newWorld(t)
	user := w.subscriber(1, 1)
	plan, _, err := w.CreatePlan(t.Context(), control.PlanFields{Name: new("endless"), DurationDays: new(0)}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	first, last := time.Unix(0, 0), time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
	middle := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	random := rand.New(rand.NewPCG(1, 2)) // the same in every run
	for _, edge := range []time.Time{first, last} {
		for i := range 200 {
			offset := random.IntN(2*24*3600-1) - (24*3600 - 1)
			moment := edge.Add(time.Duration(random.Int64N(int64(2*24*time.Hour))) - 24*time.Hour)
			if i == 0 {
				moment, offset = edge, -12*3600
			}
			moment = moment.In(time.FixedZone("", offset))
			want := !moment.Before(first) && !moment.After(last)
			fields := control.SubscriptionFields{StartsAt: &moment}
			if edge.Equal(last) {
				fields = control.SubscriptionFields{StartsAt: &middle, EndsAt: &moment}
			}
			made, _, err := w.CreateSubscription(t.Context(), control.NewSubscription{
				UserID: user.ID, PlanID: plan.ID, StartsAt: fields.StartsAt, EndsAt: fields.EndsAt,
			}, control.Once{})
			if want != (err == nil) {
				t.Fatalf("create with %v, in UTC %v: %v, want accepted = %v", moment, moment.UTC(), err, want)
			}
			if invalid, refused := errors.AsType[*control.InvalidError](err); !want && (!refused || len(invalid.Fields) != 1) {
				t.Fatalf("create with %v: %v, want one field refused", moment.UTC(), err)
			}
			if err != nil {
				continue
			}
			made, err = w.UpdateSubscription(t.Context(), made.ID, fields)
			if err != nil {
				t.Fatalf("update with %v: %v", moment, err)
			}
			read, err := w.Subscription(t.Context(), made.ID)
			if err != nil {
				t.Fatal(err)
			}
			if !read.StartsAt.Equal(made.StartsAt) || (read.EndsAt != nil) != (made.EndsAt != nil) || read.EndsAt != nil && !read.EndsAt.Equal(*made.EndsAt) {
				t.Fatalf("kept as %+v, answered as %+v", read, made)
			}
			if _, err := json.Marshal([]any{made, read}); err != nil {
				t.Fatal(err)
			}
			if err := w.DeleteSubscription(t.Context(), made.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}
