package control_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

const receiver = "https://hooks.example.net/planted-path?planted=query"

// hook makes a webhook that wants some types of messages, or all.
func (w *world) hook(events ...control.NoticeType) control.NewWebhook {
	w.t.Helper()
	made, _, err := w.CreateWebhook(w.t.Context(), control.WebhookFields{URL: new(receiver), Events: &events}, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	return made
}

// messages are those for a webhook, the oldest first.
func (w *world) messages(id string) []control.Delivery {
	w.t.Helper()
	list := ok[[]control.Delivery](w.t)(w.Deliveries(w.t.Context(), id, "", control.Page{Limit: 500}))
	slices.SortFunc(list, func(a, b control.Delivery) int { return int(a.Position - b.Position) })
	return list
}

// told fails the test unless a webhook has messages of these types.
func (w *world) told(what, id string, want ...control.NoticeType) []control.Delivery {
	w.t.Helper()
	list := w.messages(id)
	got := []control.NoticeType{}
	for _, d := range list {
		got = append(got, d.Type)
	}
	if diff := cmp.Diff(append([]control.NoticeType{}, want...), got); diff != "" {
		w.t.Errorf("%s: %s", what, diff)
	}
	return list
}

func dataOf(t *testing.T, d control.Delivery) map[string]map[string]any {
	t.Helper()
	var body struct {
		Type      string
		Version   int
		Timestamp time.Time
		Data      map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(d.Payload), &body); err != nil || body.Type != string(d.Type) || body.Version != 1 || !body.Timestamp.Equal(d.CreatedAt) {
		t.Errorf("the payload of %s of %v is %s: %v", d.Type, d.CreatedAt, d.Payload, err)
	}
	return body.Data
}

// attempt claims what there is for a webhook and says that all of it led to the same.
func (w *world) attempt(id string, sent control.Sent) []control.Delivery {
	w.t.Helper()
	var after []control.Delivery
	for _, out := range ok[[]control.Outgoing](w.t)(w.ClaimDeliveries(w.t.Context(), id, 500)) {
		after = append(after, ok[control.Delivery](w.t)(w.FinishDelivery(w.t.Context(), out, sent)))
	}
	return after
}

var refusal = control.Sent{Status: 500, Failure: control.DeliveryStatus}

func TestWhatHappensToUsersAndDevicesIsToldWithItOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		all, devices := w.hook(), w.hook(control.NoticeDeviceRevoked, control.NoticeDeviceEnrolled)
		off := w.hook()
		ok[control.Webhook](t)(w.UpdateWebhook(t.Context(), off.ID, control.WebhookFields{Disabled: new(true)}))
		user := w.subscriber(2, 1)
		invitation := w.invite(user)
		device := ok[control.Enrolled](t)(w.enrol(testKey(1), invitation)).Device
		ok[control.Enrolled](t)(w.enrol(testKey(1), invitation)) // a repetition is no news
		ok[control.User](t)(w.UpdateUser(t.Context(), user.ID, control.UserFields{Disabled: new(true)}))
		ok[control.User](t)(w.UpdateUser(t.Context(), user.ID, control.UserFields{Disabled: new(true), Note: new("x")}))
		ok[control.User](t)(w.UpdateUser(t.Context(), user.ID, control.UserFields{Disabled: new(false)}))
		ok[control.Device](t)(w.RevokeDevice(t.Context(), device.ID))
		ok[control.Device](t)(w.RevokeDevice(t.Context(), device.ID))
		if _, _, err := w.CreateUser(t.Context(), control.UserFields{Name: &user.Name}, control.Once{}); err == nil {
			t.Fatal("a name was given twice")
		}
		if err := w.DeleteUser(t.Context(), user.ID); err != nil {
			t.Fatal(err)
		}
		list := w.told("to who wants all", all.ID, control.NoticeUserCreated, control.NoticeDeviceEnrolled, control.NoticeUserDisabled,
			control.NoticeUserEnabled, control.NoticeDeviceRevoked, control.NoticeUserRemoved)
		some := w.told("to who wants devices", devices.ID, control.NoticeDeviceEnrolled, control.NoticeDeviceRevoked)
		w.told("to who is disabled", off.ID)
		if list[1].EventID != some[0].EventID || list[1].ID == some[0].ID || list[1].ObjectID != device.ID || list[1].Payload != some[0].Payload {
			t.Errorf("the same event: %+v, %+v", list[1], some[0])
		}
		for _, d := range list {
			if got := dataOf(t, d)["user"]; got["id"] != user.ID || got["name"] != user.Name {
				t.Errorf("%s is about %v", d.Type, got)
			}
		}
		if got := dataOf(t, list[4])["device"]; got["id"] != device.ID || got["name"] != "laptop" {
			t.Errorf("a device that is revoked is %v", got)
		}
	})
}

func TestAMessageIsTriedForAboutADayAndThenGivenUp(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(control.NoticeUserCreated)
	w.subscriber(1, 1)
	began := w.now()
	var last control.Delivery
	for n := 1; n <= control.MaxDeliveryAttempts; n++ {
		after := w.attempt(hook.ID, refusal)
		if len(after) != 1 || after[0].Attempts != n || after[0].Status != 500 {
			t.Fatalf("attempt %d led to %+v", n, after)
		}
		last = after[0]
		if early := w.attempt(hook.ID, refusal); len(early) != 0 {
			t.Errorf("another attempt at once after %d", n)
		}
		if last.State == control.DeliveryPending {
			w.clock.Store(last.NextAt.UnixMicro())
		}
	}
	if took := w.now().Sub(began); last.State != control.DeliveryDead || took < 20*time.Hour || took > 28*time.Hour {
		t.Errorf("after %v it is %s", took, last.State)
	}
	if got := ok[control.Webhook](t)(w.Webhook(t.Context(), hook.ID)); got.Pending != 0 || got.Dead != 1 || got.Failures != 10 || !got.FailingSince.Equal(began) {
		t.Errorf("the webhook is %+v", got)
	}
	// Put back, it is as a new one, and goes.
	if n := ok[int](t)(w.Redeliver(t.Context(), hook.ID, nil)); n != 1 {
		t.Errorf("%d are sent again", n)
	}
	again := w.attempt(hook.ID, control.Sent{Status: 204})
	if len(again) != 1 || again[0].State != control.DeliveryDelivered || again[0].Attempts != 1 || again[0].EventID != last.EventID {
		t.Errorf("sent again: %+v", again)
	}
	if got := ok[control.Webhook](t)(w.Webhook(t.Context(), hook.ID)); got.FailingSince != nil || got.Failures != 0 || got.SucceededAt == nil {
		t.Errorf("after it was taken the webhook is %+v", got)
	}
	if _, err := w.Redeliver(t.Context(), hook.ID, []string{last.ID, hook.ID}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("one that there is not: %v", err)
	}
	if got := w.messages(hook.ID); got[0].State != control.DeliveryDelivered {
		t.Errorf("a request that fails in part does something: %+v", got)
	}
}

func TestAReceiverCanPutOffTheNextAttempt(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(control.NoticeUserCreated)
	w.subscriber(1, 1)
	for asked, want := range map[time.Duration]time.Duration{time.Second: 4 * time.Second, 2 * time.Hour: 2 * time.Hour, 300 * time.Hour: 8 * time.Hour} {
		after := w.attempt(hook.ID, control.Sent{Status: 503, Failure: control.DeliveryStatus, RetryAfter: asked})
		if wait := after[0].NextAt.Sub(w.now()); wait < want || wait > want+2*time.Minute {
			t.Errorf("asked for %v the next is in %v", asked, wait)
		}
		w.clock.Store(after[0].NextAt.UnixMicro())
	}
}

// disabledBySystem fails the test unless a webhook was disabled for a reason, with an
// entry in the audit log that nobody but the service is in.
func (w *world) disabledBySystem(id string, why control.WebhookDisabled) {
	w.t.Helper()
	got := ok[control.Webhook](w.t)(w.Webhook(w.t.Context(), id))
	if got.DisabledAt == nil || got.DisabledWhy != why {
		w.t.Errorf("disabled at %v because of %q, want %q", got.DisabledAt, got.DisabledWhy, why)
	}
	entries := ok[[]control.AuditEntry](w.t)(w.AuditEntries(w.t.Context(), control.AuditFilter{Action: "webhook.disabled", ObjectID: id, Limit: 9}))
	if len(entries) != 1 || entries[0].Actor != (control.Actor{Kind: control.ActorSystem}) || !strings.Contains(entries[0].After, string(why)) {
		w.t.Errorf("the audit log has %+v", entries)
	}
}

func TestAWebhookOfWhichNothingIsTakenForDaysIsDisabledOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		hook, other := w.hook(control.NoticeUserCreated), w.hook(control.NoticeUserCreated)
		for day := range 4 {
			w.subscriber(1, 1)
			for w.now().Before(time.Date(2026, 3, 2+day, 12, 0, 0, 0, time.UTC)) {
				w.pass(time.Hour)
				w.attempt(hook.ID, refusal)
				w.attempt(other.ID, control.Sent{Status: 200})
			}
			if got := ok[control.Webhook](t)(w.Webhook(t.Context(), hook.ID)); (got.DisabledAt != nil) != (day == 3) {
				t.Errorf("on day %d disabled is %v", day+1, got.DisabledAt)
			}
		}
		w.disabledBySystem(hook.ID, control.WebhookFailing)
		if got := ok[control.Webhook](t)(w.Webhook(t.Context(), other.ID)); got.DisabledAt != nil {
			t.Error("one that takes everything is disabled, too")
		}
		// What waits is kept; what happens meanwhile is not told.
		waiting := len(w.messages(hook.ID))
		w.subscriber(1, 1)
		if got := len(w.messages(hook.ID)); got != waiting {
			t.Errorf("%d messages instead of %d", got, waiting)
		}
		w.pass(24 * time.Hour)
		if due := ok[[]string](t)(w.DueWebhooks(t.Context())); slices.Contains(due, hook.ID) {
			t.Error("something is to be sent to one that is disabled")
		}
		if after := w.attempt(hook.ID, refusal); len(after) != 0 {
			t.Errorf("%d attempts to one that is disabled", len(after))
		}
		got := ok[control.Webhook](t)(w.UpdateWebhook(t.Context(), hook.ID, control.WebhookFields{Disabled: new(false)}))
		if got.DisabledAt != nil || got.DisabledWhy != "" || got.FailingSince != nil || got.Failures != 0 {
			t.Errorf("enabled again it is %+v", got)
		}
		if after := w.attempt(hook.ID, control.Sent{Status: 200}); len(after) == 0 {
			t.Error("what waited is not sent")
		}
	})
}

func TestAReceiverThatIsGoneIsToldNothingMore(t *testing.T) {
	w := newWorld(t)
	hook := w.hook()
	w.subscriber(1, 1)
	if after := w.attempt(hook.ID, control.Sent{Status: 410, Failure: control.DeliveryStatus}); after[0].State != control.DeliveryDead {
		t.Errorf("after 410 the message is %s", after[0].State)
	}
	w.disabledBySystem(hook.ID, control.WebhookGone)
}

func TestTooManyMessagesThatWaitDisableTheirWebhookAloneOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		full, other := w.hook(), w.hook()
		db := storetest.SQL(t, where.Path, where.URL)
		const fill = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO webhook_deliveries (id, webhook_id, event_id, type, object_id, payload, state, attempts, next_at, status, failure, created_at)
			SELECT 'x' || CAST(i AS TEXT), $2, 'e', 't', 'o', '{}', 'pending', 0, 0, 0, '', 0 FROM n`
		if _, err := db.ExecContext(t.Context(), fill, control.MaxPendingDeliveries-1, full.ID); err != nil {
			t.Fatal(err)
		}
		owner := w.owner()
		ctx := ok[context.Context](t)(control.ByOperator(t.Context(), owner, "why"))
		for n := range 3 {
			if _, _, err := w.CreateUser(ctx, control.UserFields{Name: new(fmt.Sprint("user ", n))}, control.Once{}); err != nil {
				t.Fatal(err)
			}
		}
		w.disabledBySystem(full.ID, control.WebhookQueueFull)
		if got := ok[control.Webhook](t)(w.Webhook(t.Context(), full.ID)); got.Pending != control.MaxPendingDeliveries {
			t.Errorf("%d wait", got.Pending)
		}
		w.told("the other one", other.ID, control.NoticeUserCreated, control.NoticeUserCreated, control.NoticeUserCreated)
		ok[control.Webhook](t)(w.UpdateWebhook(t.Context(), full.ID, control.WebhookFields{Disabled: new(false)}))
		if _, err := w.TestWebhook(t.Context(), full.ID); err == nil {
			t.Error("a test was added to a queue that is full")
		}
	})
}

func TestASecretIsShownOnceAndTwoSignWhileItIsReplacedOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		hook := w.hook()
		raw := func(secret string) []byte {
			t.Helper()
			text, found := strings.CutPrefix(secret, "whsec_")
			key, err := base64.StdEncoding.DecodeString(text)
			if !found || err != nil || len(key) != 32 {
				t.Fatalf("a secret is %q: %v", secret, err)
			}
			return key
		}
		first := raw(hook.Secret)
		signs := func(what string, want ...[]byte) {
			t.Helper()
			ok[control.Delivery](t)(w.TestWebhook(t.Context(), hook.ID))
			out := ok[[]control.Outgoing](t)(w.ClaimDeliveries(t.Context(), hook.ID, 10))
			if len(out) == 0 || out[0].URL != receiver {
				t.Fatalf("%s: %+v", what, out)
			}
			if diff := cmp.Diff(want, out[0].Keys); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		}
		signs("one", first)
		second := raw(ok[control.NewWebhook](t)(w.RotateWebhookSecret(t.Context(), hook.ID, time.Hour)).Secret)
		signs("two, the newest first", second, first)
		w.pass(time.Hour)
		signs("after the overlap", second)
		w.pass(time.Microsecond)
		ok[control.Pruned](t)(w.Prune(t.Context()))
		if got := ok[control.Webhook](t)(w.Webhook(t.Context(), hook.ID)); len(got.Secrets) != 1 || got.Secrets[0].Generation != 2 {
			t.Errorf("secrets that are kept: %+v", got.Secrets)
		}
		third := raw(ok[control.NewWebhook](t)(w.RotateWebhookSecret(t.Context(), hook.ID, 24*time.Hour)).Secret)
		fourth := raw(ok[control.NewWebhook](t)(w.RotateWebhookSecret(t.Context(), hook.ID, 24*time.Hour)).Secret)
		signs("a further rotation ends the oldest", fourth, third)
		fifth := raw(ok[control.NewWebhook](t)(w.RotateWebhookSecret(t.Context(), hook.ID, 0)).Secret)
		signs("without an overlap", fifth)
		ring := keysIn(t, dir, false)
		if n := ok[int](t)(control.Reseal(t.Context(), records, ring, ok[string](t)(ring.Add()))); n == 0 {
			t.Error("nothing was sealed again")
		}
		w.Authority = ok[*control.Authority](t)(w.over(records, ring))
		signs("sealed with another key", fifth)
		if _, err := w.RotateWebhookSecret(t.Context(), hook.ID, 8*24*time.Hour); err == nil {
			t.Error("an overlap of eight days")
		}
		for _, e := range ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Limit: 500})) {
			for _, secret := range []string{"planted", strings.TrimPrefix(hook.Secret, "whsec_")} {
				if strings.Contains(e.Before+e.After, secret) {
					t.Errorf("%s has a secret: %s %s", e.Action, e.Before, e.After)
				}
			}
		}
		rotations := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Action: "webhook.secret_changed", Limit: 9}))
		if len(rotations) != 5 {
			t.Errorf("%d entries about secrets", len(rotations))
		}
	})
}

func TestATestMessageIsTriedOnceAndSaysNothingAboutItsWebhook(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(control.NoticeGatewayDown) // whatever it wants
	made := ok[control.Delivery](t)(w.TestWebhook(t.Context(), hook.ID))
	after := w.attempt(hook.ID, refusal)
	if len(after) != 1 || after[0].ID != made.ID || after[0].State != control.DeliveryDead {
		t.Errorf("after one attempt: %+v", after)
	}
	if got := ok[control.Webhook](t)(w.Webhook(t.Context(), hook.ID)); got.FailingSince != nil || got.Failures != 0 {
		t.Errorf("the webhook is %+v", got)
	}
	ok[control.Webhook](t)(w.UpdateWebhook(t.Context(), hook.ID, control.WebhookFields{Disabled: new(true)}))
	if _, err := w.TestWebhook(t.Context(), hook.ID); err == nil || !strings.Contains(err.Error(), "enable it first") {
		t.Errorf("a test of one that is disabled: %v", err)
	}
}

func TestMistakesAboutAWebhookAreAllToldWithoutItsURL(t *testing.T) {
	w := newWorld(t)
	for name, url := range map[string]string{
		"nothing": "", "no URL": "planted", "another scheme": "ftp://planted.example.net/", "a user": "https://planted:planted@example.net/",
		"a fragment": "https://example.net/#planted", "no host": "https:///planted", "a long one": "https://example.net/" + strings.Repeat("planted", 100),
		"control characters": "https://example.net/planted\x00",
	} {
		_, _, err := w.CreateWebhook(t.Context(), control.WebhookFields{
			URL: &url, Events: &[]control.NoticeType{"planted.type"}, Description: new(strings.Repeat("x", 201)),
		}, control.Once{})
		var invalid *control.InvalidError
		if !errors.As(err, &invalid) || len(invalid.Fields) != 3 || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range control.MaxWebhooks {
		w.hook()
	}
	if _, _, err := w.CreateWebhook(t.Context(), control.WebhookFields{URL: new(receiver)}, control.Once{}); err == nil || !strings.Contains(err.Error(), "20 webhooks") {
		t.Errorf("one too many: %v", err)
	}
}

func TestAUserWhoseLastSubscriptionEndsIsToldOfOnceOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		hook := w.hook(control.NoticeUserExpired)
		user := w.subscriber(1, 1) // for a day
		sub := ok[[]control.Subscription](t)(w.Subscriptions(t.Context(), user.ID, control.Page{Limit: 9}))[0]
		add := func(starts, ends time.Time) control.Subscription {
			t.Helper()
			more, _, err := w.CreateSubscription(t.Context(), control.NewSubscription{UserID: user.ID, PlanID: sub.PlanID, StartsAt: &starts, EndsAt: &ends}, control.Once{})
			if err != nil {
				t.Fatal(err)
			}
			return more
		}
		look := func(want int) {
			t.Helper()
			if n := ok[int](t)(w.WatchEnds(t.Context())); n != want {
				t.Errorf("%d users have expired, want %d", n, want)
			}
		}
		past := w.now().Add(-time.Hour)
		add(past.Add(-time.Hour), past) // which had ended when it was made
		look(0)
		longer := add(w.now(), w.now().Add(48*time.Hour))
		same := add(w.now(), w.now().Add(48*time.Hour))
		w.pass(24 * time.Hour)
		look(0) // the others run
		w.pass(24*time.Hour - time.Microsecond)
		look(0)
		w.pass(time.Microsecond)
		look(1)
		look(0)
		list := w.told("at the end", hook.ID, control.NoticeUserExpired)
		about := dataOf(t, list[0])
		if about["user"]["id"] != user.ID || about["subscription"]["id"] != same.ID || about["subscription"]["ends_at"] == nil || list[0].ObjectID != user.ID {
			t.Errorf("it is about %v, not %s", about, same.ID)
		}
		// Longer, and over again.
		ok[control.Subscription](t)(w.UpdateSubscription(t.Context(), longer.ID, control.SubscriptionFields{EndsAt: new(w.now().Add(time.Hour))}))
		look(0)
		w.pass(time.Hour)
		look(1)
		// An end that was in the past already is moved within the past.
		ok[control.Subscription](t)(w.UpdateSubscription(t.Context(), longer.ID, control.SubscriptionFields{EndsAt: new(w.now().Add(-time.Minute))}))
		look(0)
		// One that runs is ended by an operator.
		ok[control.Subscription](t)(w.UpdateSubscription(t.Context(), longer.ID, control.SubscriptionFields{EndsAt: new(w.now().Add(time.Hour))}))
		ok[control.Subscription](t)(w.UpdateSubscription(t.Context(), longer.ID, control.SubscriptionFields{EndsAt: new(w.now())}))
		look(1)
		w.told("in the end", hook.ID, control.NoticeUserExpired, control.NoticeUserExpired, control.NoticeUserExpired)
	})
}

func TestAGatewayIsDownWhenItHadTheTimeToReportOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		hook := w.hook(control.NoticeGatewayDown, control.NoticeGatewayUp)
		gateway := w.gateway()
		beat := func() {
			t.Helper()
			ok[[]control.SessionEnd](t)(w.Heartbeat(t.Context(), gateway, control.Lease{BootID: "b"}))
		}
		// goOn lets time pass with a look every few seconds, and returns how many changes
		// they found.
		goOn := func(d time.Duration, beats bool) int {
			t.Helper()
			n := 0
			for ; d > 0; d -= control.WatchInterval {
				w.pass(control.WatchInterval)
				if beats {
					beat()
				}
				n += len(ok[[]control.GatewayChange](t)(w.WatchGateways(t.Context())))
			}
			return n
		}
		if n := goOn(time.Minute, false); n != 0 {
			t.Errorf("one that was never heard of: %d changes", n)
		}
		beat()
		if n := goOn(time.Minute, true); n != 0 {
			t.Errorf("one that reports: %d changes", n)
		}
		until := w.now().Add(15 * time.Second)
		if n := goOn(10*time.Second, false); n != 0 {
			t.Error("down before its lease has ended")
		}
		if n := goOn(time.Minute, false); n != 1 {
			t.Errorf("not heard of any more: %d changes", n)
		}
		if n := goOn(time.Minute, true); n != 1 {
			t.Errorf("heard of again: %d changes", n)
		}
		list := w.told("after that", hook.ID, control.NoticeGatewayDown, control.NoticeGatewayUp)
		for _, d := range list {
			about := dataOf(t, d)["gateway"]
			if about["id"] != gateway.ID || about["region"] != "local" || about["down_since"] != until.Format(time.RFC3339) {
				t.Errorf("%s is about %v, want down since %v", d.Type, about, until)
			}
		}
		// The service stands still, and comes back: nobody could report.
		w.pass(time.Hour)
		if n := goOn(15*time.Second, false); n != 0 {
			t.Error("down while it had no time to report")
		}
		if n := goOn(time.Minute, true); n != 0 {
			t.Errorf("it was there all the time: %d changes", n)
		}
		// Another process that begins has no reason to know better.
		later, err := w.over(records, keysIn(t, dir, false))
		if err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if changes := ok[[]control.GatewayChange](t)(later.WatchGateways(t.Context())); len(changes) != 0 {
			t.Errorf("at the start: %+v", changes)
		}
		w.told("in the end", hook.ID, control.NoticeGatewayDown, control.NoticeGatewayUp)
	})
}

func TestAnOutlineServerIsToldToBeDownOnceUntilItIsUpAgainOnBothEngines(t *testing.T) {
	onBothPools(t, func(p *pool) {
		hook := p.hook(control.NoticeOutlineDown, control.NoticeOutlineUp)
		server := p.server("local", control.OutlineFields{Name: new("exit")})
		times := func(n int, failure control.OutlineFailure) {
			for range n {
				p.pass(control.OutlineProbeInterval)
				p.report(p.gateway, failure, server.ID)
			}
		}
		times(5, "")
		p.told("up from the beginning", hook.ID)
		times(3, control.OutlineTimeout)
		down := p.now()
		times(5, control.OutlineTimeout)
		p.told("down", hook.ID, control.NoticeOutlineDown)
		p.pass(time.Hour) // nobody looks
		times(1, control.OutlineTimeout)
		p.told("nobody knows", hook.ID, control.NoticeOutlineDown)
		times(5, control.OutlineTimeout)
		p.told("still down", hook.ID, control.NoticeOutlineDown)
		p.pass(time.Hour)
		times(5, "")
		list := p.told("up again", hook.ID, control.NoticeOutlineDown, control.NoticeOutlineUp)
		for _, d := range list {
			about := dataOf(p.t, d)["outline_server"]
			if about["name"] != "exit" || about["region"] != "local" || about["down_since"] != down.Format(time.RFC3339) {
				p.t.Errorf("%s is about %v, want down since %v", d.Type, about, down)
			}
		}
	})
}

func TestPartsOfAQuotaAreToldOnceInAPeriodOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		hook := w.hook(control.NoticeQuotaWarning, control.NoticeQuotaExceeded)
		device, _, sub, gateways := w.quotaed(control.PlanFields{QuotaBytes: new(int64(100 * mib)), QuotaPeriod: new(control.PeriodDay)}, 1)
		use := func(c *carrier, n int64, renews bool) {
			t.Helper()
			for n > 0 {
				moved := c.move(n)
				n -= moved
				c.report(t)
				if moved == 0 || renews {
					c.renew(t, nil)
				}
			}
		}
		c := w.carry(gateways[0], device, 1, 1)
		use(c, 79*mib, true)
		w.told("79 %", hook.ID)
		use(c, 2*mib, true)
		list := w.told("81 %", hook.ID, control.NoticeQuotaWarning)
		about := dataOf(t, list[0])
		if q := about["quota"]; q["percent"] != 80.0 || q["bytes"] != float64(100*mib) || q["action"] != "block" || q["period_to"] == nil || about["subscription"]["id"] != sub.ID {
			t.Errorf("the warning is about %v", about)
		}
		use(c, 18*mib, true)
		w.told("99 %", hook.ID, control.NoticeQuotaWarning, control.NoticeQuotaWarning)
		// The last bytes are reported, and nobody asks for more.
		for left := c.move(mib); left < mib; left += c.move(mib - left) {
			c.renew(t, nil)
		}
		c.report(t)
		w.told("all", hook.ID, control.NoticeQuotaWarning, control.NoticeQuotaWarning, control.NoticeQuotaExceeded)
		c.renew(t, nil)
		w.told("once", hook.ID, control.NoticeQuotaWarning, control.NoticeQuotaWarning, control.NoticeQuotaExceeded)
		w.pass(24 * time.Hour)
		ok[control.Subscription](t)(w.UpdateSubscription(t.Context(), sub.ID, control.SubscriptionFields{EndsAt: new(w.now().AddDate(1, 0, 0))}))
		c.renew(t, nil)
		use(c, 96*mib, false)
		w.told("another period", hook.ID, control.NoticeQuotaWarning, control.NoticeQuotaWarning, control.NoticeQuotaExceeded,
			control.NoticeQuotaWarning, control.NoticeQuotaWarning)
	})
}

func TestFailedLoginsAreToldWithTheirNumber(t *testing.T) {
	w := newWorld(t)
	w.owner()
	help, _ := w.operator("ann", control.RoleSupport)
	ann := w.signs(help)
	hook := w.hook(control.NoticeLoginFailed, control.NoticeBackupFailed)
	ctx := control.WithActor(t.Context(), control.Actor{Address: "192.0.2.7"})
	if _, err := w.LogIn(ctx, ann.request(anothers, ann.code(), "")); !errors.Is(err, control.ErrBadLogin) {
		t.Fatal(err)
	}
	for range 3 {
		w.turnedAway("no code", ann.request(annsPassword, "000000", ""))
	}
	w.told("the one that had a code", hook.ID, control.NoticeLoginFailed)
	ok[control.Pruned](t)(w.Prune(t.Context()))
	list := w.told("those that had none, too", hook.ID, control.NoticeLoginFailed, control.NoticeLoginFailed)
	first, others := dataOf(t, list[0])["operator"], dataOf(t, list[1])["operator"]
	if first["name"] != "ann" || first["attempts"] != 1.0 || first["address"] != "192.0.2.7" || others["attempts"] != 3.0 || others["address"] != nil {
		t.Errorf("told: %v, %v", first, others)
	}
	if err := w.ReportBackupFailed(t.Context(), "verify"); err != nil {
		t.Fatal(err)
	}
	list = w.told("a backup", hook.ID, control.NoticeLoginFailed, control.NoticeLoginFailed, control.NoticeBackupFailed)
	if got := dataOf(t, list[2])["backup"]; got["step"] != "verify" {
		t.Errorf("told: %v", got)
	}
}

func TestWhoSendsIsWokenWhenThereIsSomethingAndOnlyThen(t *testing.T) {
	dir := t.TempDir()
	w, records := openWorld(t, dir)
	woken := 0
	authority, err := control.Open(t.Context(), control.Options{
		Store: records, Sealer: keysIn(t, dir, false), Passwords: w.passwords, Now: w.now, PublicURL: "https://vpn.example.net", Heartbeat: 5 * time.Second,
		KnockCookie: "sid", KnockRotation: 7 * 24 * time.Hour, Posted: func() { woken++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	create := func(name string) {
		t.Helper()
		if _, _, err := authority.CreateUser(t.Context(), control.UserFields{Name: &name}, control.Once{}); err != nil {
			t.Fatal(err)
		}
	}
	create("before anybody wants to know")
	w.hook(control.NoticeUserRemoved)
	create("nobody wants to know")
	if woken != 0 {
		t.Errorf("woken %d times for nothing", woken)
	}
	w.hook()
	create("ann")
	if woken != 1 {
		t.Errorf("woken %d times, want once", woken)
	}
}
