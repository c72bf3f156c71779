package control_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
)

// named makes a user with a name and a subscription to a plan that ends so much later;
// 0: without end.
func (w *world) named(name, planID string, ends time.Duration) (control.User, control.Subscription) {
	w.t.Helper()
	user, _, err := w.CreateUser(w.t.Context(), control.UserFields{Name: &name}, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	n := control.NewSubscription{UserID: user.ID, PlanID: planID, StartsAt: new(w.now().AddDate(-1, 0, 0))}
	if ends != 0 {
		n.EndsAt = new(w.now().Add(ends))
	}
	sub, _, err := w.CreateSubscription(w.t.Context(), n, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	return user, sub
}

func (w *world) plan(name string, regions ...string) control.Plan {
	w.t.Helper()
	plan, _, err := w.CreatePlan(w.t.Context(), control.PlanFields{Name: &name, Regions: &regions}, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

// begun previews a request and begins its job.
func (w *world) begun(r control.BulkRequest) control.BulkJob {
	w.t.Helper()
	preview := ok[control.BulkPreview](w.t)(w.PreviewBulk(w.t.Context(), r))
	job, _, err := w.CreateBulk(w.t.Context(), r, preview.Token, control.Once{OperatorID: "o"})
	if err != nil || job.Objects != preview.Objects || job.Left() != preview.Objects {
		w.t.Fatalf("job is %+v, %v, want it for %d objects", job, err, preview.Objects)
	}
	return job
}

func TestABulkActionSelectsWhatItsFilterSaysOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		gateway := w.gateway()
		const day = 24 * time.Hour
		free, paid := w.plan("free"), w.plan("paid", gateway.Region)
		ann, annSub := w.named("Ann", free.ID, -2*day)
		bob, bobSub := w.named("bob", free.ID, 2*day)
		cid, _ := w.named("cid", paid.ID, 0)
		dan, danOld := w.named("dan", free.ID, -9*day) // once free, now paid
		danNew, _, err := w.CreateSubscription(t.Context(), control.NewSubscription{UserID: dan.ID, PlanID: paid.ID, EndsAt: new(w.now().Add(9 * day))}, control.Once{})
		if err != nil {
			t.Fatal(err)
		}
		ok[control.User](t)(w.UpdateUser(t.Context(), cid.ID, control.UserFields{Disabled: new(true)}))
		phone := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(bob))).Device
		old := ok[control.Enrolled](t)(w.enrol(testKey(2), w.invite(bob))).Device
		ok[control.Device](t)(w.RevokeDevice(t.Context(), old.ID))
		since := w.now()
		w.pass(time.Minute)
		if _, err := w.token(testKey(1), phone.ID); err != nil {
			t.Fatal(err)
		}
		all := control.BulkFilter{All: true}
		for name, tc := range map[string]struct {
			request control.BulkRequest
			want    []string
		}{
			"everybody":             {control.BulkRequest{Action: control.BulkInvite, Filter: all}, []string{ann.ID, bob.ID, cid.ID, dan.ID}},
			"who can be disabled":   {control.BulkRequest{Action: control.BulkDisable, Filter: all}, []string{ann.ID, bob.ID, dan.ID}},
			"who can be enabled":    {control.BulkRequest{Action: control.BulkEnable, Filter: all}, []string{cid.ID}},
			"by id":                 {control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{UserIDs: []string{dan.ID, "nobody", ann.ID}}}, []string{ann.ID, dan.ID}},
			"by the name's letters": {control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{Search: "an"}}, []string{ann.ID}},
			"by plan":               {control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{PlanID: free.ID}}, []string{ann.ID, bob.ID, dan.ID}},
			"by region":             {control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{RegionID: gateway.RegionID}}, []string{cid.ID, dan.ID}},
			"by both":               {control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{PlanID: free.ID, RegionID: gateway.RegionID}}, []string{dan.ID}},
			"who is disabled":       {control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{Disabled: new(true)}}, []string{cid.ID}},
			"who is not":            {control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{Disabled: new(false), Search: "b"}}, []string{bob.ID}},
			"whose have ended":      {control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{ExpiredBefore: new(w.now())}}, []string{ann.ID}},
			"who was not seen":      {control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{NoSessionSince: new(since.Add(time.Second))}}, []string{ann.ID, cid.ID, dan.ID}},
			"devices":               {control.BulkRequest{Action: control.BulkRevoke, Filter: all}, []string{phone.ID}},
			"last subscriptions":    {control.BulkRequest{Action: control.BulkExtend, Filter: all, Days: 1}, []string{annSub.ID, bobSub.ID, danNew.ID}},
			"last ones to a plan":   {control.BulkRequest{Action: control.BulkExtend, Filter: control.BulkFilter{PlanID: free.ID}, Days: 1}, []string{annSub.ID, bobSub.ID, danOld.ID}},
			"those that end before": {control.BulkRequest{Action: control.BulkExtend, Filter: all, EndsAt: new(w.now().Add(5 * day))}, []string{annSub.ID, bobSub.ID}},
			"running, elsewhere":    {control.BulkRequest{Action: control.BulkMove, Filter: all, PlanID: paid.ID}, []string{bobSub.ID}},
			"running, of a plan":    {control.BulkRequest{Action: control.BulkMove, Filter: control.BulkFilter{PlanID: paid.ID, Search: "dan"}, PlanID: free.ID}, []string{danNew.ID}},
		} {
			preview := ok[control.BulkPreview](t)(w.PreviewBulk(t.Context(), tc.request))
			var got []string
			for _, o := range preview.Sample {
				got = append(got, o.ObjectID)
			}
			if slices.Sort(got); preview.Objects != len(tc.want) || !slices.Equal(slices.Sorted(slices.Values(tc.want)), got) {
				t.Errorf("%s: %d objects, %v, want %v", name, preview.Objects, got, tc.want)
			}
		}
		for field, r := range map[string]control.BulkRequest{
			"action": {Filter: all}, "filter": {Action: control.BulkDelete}, "days": {Action: control.BulkExtend, Filter: all},
			"plan_id": {Action: control.BulkMove, Filter: all, PlanID: "none"}, "ttl_seconds": {Action: control.BulkInvite, Filter: all, TTL: 1},
			"filter.user_ids": {Action: control.BulkDelete, Filter: control.BulkFilter{UserIDs: make([]string, control.MaxBulkIDs+1)}},
		} {
			_, err := w.PreviewBulk(t.Context(), r)
			if invalid, is := errors.AsType[*control.InvalidError](err); !is || invalid.Fields[0].Field != field {
				t.Errorf("%+v: %v, want a complaint about %s", r, err, field)
			}
		}
	})
}

func TestABulkActionIsOnlyForWhatWasShown(t *testing.T) {
	w := newWorld(t)
	plan, other := w.plan("a"), w.plan("b")
	_, sub := w.named("ann", plan.ID, time.Hour)
	r := control.BulkRequest{Action: control.BulkExtend, Filter: control.BulkFilter{All: true}, Days: 3}
	for what, change := range map[string]func(){
		"another user": func() { w.named("bob", plan.ID, time.Hour) },
		"another end": func() {
			ok[control.Subscription](t)(w.UpdateSubscription(t.Context(), sub.ID, control.SubscriptionFields{EndsAt: new(w.now().Add(2 * time.Hour))}))
		},
		"another number":   func() { r.Days++ },
		"another one, too": func() { w.named("cid", other.ID, time.Hour) },
	} {
		preview := ok[control.BulkPreview](t)(w.PreviewBulk(t.Context(), r))
		change()
		if _, _, err := w.CreateBulk(t.Context(), r, preview.Token, control.Once{}); !errors.Is(err, control.ErrBulkChanged) {
			t.Errorf("%s: %v, want ErrBulkChanged", what, err)
		}
	}
	if jobs := ok[[]control.BulkJob](t)(w.BulkJobs(t.Context(), control.Page{Limit: 9})); len(jobs) > 0 {
		t.Errorf("there are jobs: %+v", jobs)
	}
}

func TestEachObjectOfABulkActionIsDoneAsIfAloneOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		free, paid := w.plan("free"), w.plan("paid")
		ann, annSub := w.named("ann", free.ID, -time.Hour)
		bob, bobSub := w.named("bob", free.ID, time.Hour)
		all := control.BulkFilter{All: true}
		run := func(r control.BulkRequest) (control.BulkJob, []control.BulkObject) {
			t.Helper()
			job, objects, err := w.RunBulk(t.Context(), w.begun(r).ID)
			if err != nil || job.Left() != 0 || len(objects) != job.Objects || job.Failed != 0 {
				t.Fatalf("%s: %+v, %+v, %v", r.Action, job, objects, err)
			}
			return job, objects
		}
		since := ok[control.EventLog](t)(w.Events(t.Context(), 0, 500)).Latest

		run(control.BulkRequest{Action: control.BulkExtend, Filter: all, Days: 2})
		for id, want := range map[string]time.Time{annSub.ID: w.now().AddDate(0, 0, 2), bobSub.ID: w.now().Add(time.Hour).AddDate(0, 0, 2)} {
			if sub := ok[control.Subscription](t)(w.Subscription(t.Context(), id)); !sub.EndsAt.Equal(want) {
				t.Errorf("extended to %v, want %v", sub.EndsAt, want)
			}
		}
		to := w.now().AddDate(1, 0, 0)
		run(control.BulkRequest{Action: control.BulkExtend, Filter: all, EndsAt: &to})
		run(control.BulkRequest{Action: control.BulkMove, Filter: all, PlanID: paid.ID})
		if sub := ok[control.Subscription](t)(w.Subscription(t.Context(), annSub.ID)); sub.PlanID != paid.ID || !sub.EndsAt.Equal(to) {
			t.Errorf("moved to %+v", sub)
		}
		_, invited := run(control.BulkRequest{Action: control.BulkInvite, Filter: all, TTL: 60})
		device := ok[control.Enrolled](t)(w.enrol(testKey(1), code(t, invited[0].Link))).Device
		run(control.BulkRequest{Action: control.BulkRevoke, Filter: all})
		if d := ok[control.Device](t)(w.Device(t.Context(), device.ID)); d.RevokedAt == nil || d.UserID != ann.ID {
			t.Errorf("the device is %+v, want it revoked", d)
		}
		run(control.BulkRequest{Action: control.BulkDisable, Filter: all})
		run(control.BulkRequest{Action: control.BulkEnable, Filter: control.BulkFilter{UserIDs: []string{bob.ID}}})
		run(control.BulkRequest{Action: control.BulkDelete, Filter: control.BulkFilter{Disabled: new(true)}})
		if _, err := w.User(t.Context(), ann.ID); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("the disabled user: %v", err)
		}
		if u := ok[control.User](t)(w.User(t.Context(), bob.ID)); u.DisabledAt != nil {
			t.Errorf("the other is %+v", u)
		}

		kinds := map[control.EventKind]int{}
		for _, e := range ok[control.EventLog](t)(w.Events(t.Context(), since, 500)).Events {
			kinds[e.Kind]++
		}
		if diff := cmp.Diff(map[control.EventKind]int{
			control.EventSubscriptionChanged: 6, control.EventDeviceRevoked: 1, control.EventUserDisabled: 2, control.EventUserEnabled: 1, control.EventUserRemoved: 1,
		}, kinds); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		actions := map[string]int{}
		for _, e := range ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Oldest: true, Limit: 500})) {
			actions[e.Action]++
			for _, o := range invited {
				if strings.Contains(e.Before+e.After, code(t, o.Link)) {
					t.Errorf("%s has a link: %s", e.Action, e.After)
				}
			}
		}
		for action, want := range map[string]int{
			"bulk.created": 8, "subscription.updated": 6, "invitation.created": 2, "device.revoked": 1, "user.updated": 3, "user.deleted": 1,
		} {
			if actions[action] != want {
				t.Errorf("the audit log has %d times %s, want %d; all: %v", actions[action], action, want, actions)
			}
		}
	})
}

// crashing is a store whose writes end like those of a process that is killed, from one
// on.
type crashing struct {
	control.Store
	after int
}

var errKilled = errors.New("killed")

func (s *crashing) Write(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	return s.Store.Write(ctx, func(ctx context.Context, tx control.Tx) error {
		err := fn(ctx, tx)
		if s.after--; err == nil && s.after < 0 {
			err = errKilled
		}
		return err
	})
}

func TestABulkActionIsTakenUpAgainAndDoneOnceBesideOthersOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		plan := w.plan("a")
		const users = 40
		var ids []string
		for n := range users {
			user, _ := w.named(fmt.Sprintf("user %02d", n), plan.ID, time.Hour)
			ids = append(ids, user.ID)
		}
		r := control.BulkRequest{Action: control.BulkExtend, Filter: control.BulkFilter{All: true}, Days: 1}
		preview := ok[control.BulkPreview](t)(w.PreviewBulk(t.Context(), r))
		once := control.Once{OperatorID: w.owner().ID, Key: "k"}
		job, replayed, err := w.CreateBulk(t.Context(), r, preview.Token, once)
		if err != nil || replayed {
			t.Fatal(replayed, err)
		}
		crash := &crashing{Store: records, after: 1 << 30}
		killed := ok[*control.Authority](t)(w.over(crash, keysIn(t, dir, false)))
		crash.after = 11
		if _, objects, err := killed.RunBulk(t.Context(), job.ID); !errors.Is(err, errKilled) || len(objects) != 11 {
			t.Fatalf("%d objects, %v, want 11 and then the end", len(objects), err)
		}
		if again, replayed, err := w.CreateBulk(t.Context(), r, preview.Token, once); err != nil || !replayed || again.ID != job.ID || again.Done != 11 {
			t.Errorf("the same request again: %+v, %v, %v", again, replayed, err)
		}
		if err := w.DeleteUser(t.Context(), ids[30]); err != nil { // in the way of one
			t.Fatal(err)
		}
		var group sync.WaitGroup
		var mu sync.Mutex
		seen := map[int]int{}
		for range 4 {
			group.Go(func() {
				_, objects, err := w.RunBulk(context.WithoutCancel(t.Context()), job.ID)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, o := range objects {
					seen[o.Position]++
				}
			})
		}
		group.Wait()
		for position := 12; position <= users; position++ {
			if seen[position] != 1 && position != 31 || seen[position] == 0 {
				t.Errorf("object %d was done %d times", position, seen[position])
			}
		}
		job, failed, err := w.BulkJob(t.Context(), job.ID)
		if err != nil || job.Done != users-1 || job.Failed != 1 || len(failed) != 1 || failed[0].UserID != ids[30] || failed[0].Error != "it is gone" {
			t.Errorf("job is %+v, failed %+v, %v", job, failed, err)
		}
		for _, s := range ok[[]control.Subscription](t)(w.Subscriptions(t.Context(), "", control.Page{Limit: 100})) {
			if want := w.now().Add(time.Hour).AddDate(0, 0, 1); !s.EndsAt.Equal(want) {
				t.Errorf("a subscription ends at %v, want one day later, once: %v", s.EndsAt, want)
			}
		}
		w.pass(31 * 24 * time.Hour)
		if _, err := w.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.BulkJob(t.Context(), job.ID); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("a month later: %v", err)
		}
	})
}
