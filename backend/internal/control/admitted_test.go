package control_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/reason"
)

// A gateway could ask nobody for two hours and let devices in by itself. Whatever
// became of them since, their sessions are recorded for whom they were, and only those
// go on that may.
func TestSessionsOfTheTimeWithoutDecisionsAreRecordedAndJudgedOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		gateway, other := w.gateway(), w.another(9, "other")
		beat := func() {
			t.Helper()
			if _, err := w.Heartbeat(t.Context(), gateway, control.Lease{BootID: "b"}); err != nil {
				t.Fatal(err)
			}
		}
		beat()
		type known struct {
			connected
			sub string
		}
		meet := func(n uint32) known {
			t.Helper()
			k := known{connected: connected{user: w.subscriber(3, 1)}}
			k.device = ok[control.Enrolled](t)(w.enrol(testKey(n), w.invite(k.user))).Device
			k.sub = ok[[]control.Subscription](t)(w.Subscriptions(t.Context(), k.user.ID, control.Page{Limit: 1}))[0].ID
			return k
		}
		goesOn, revoked, over, lost, gone, moved, twice := meet(1), meet(2), meet(3), meet(4), meet(5), meet(6), meet(7)
		begun := w.now().Add(time.Minute)
		w.pass(2 * time.Hour)
		ended := w.now().Add(-time.Minute)

		// Meanwhile, at the control plane.
		ok[control.Device](t)(w.RevokeDevice(t.Context(), revoked.device.ID))
		if err := w.DeleteUser(t.Context(), gone.user.ID); err != nil {
			t.Fatal(err)
		}
		if err := w.DeleteSubscription(t.Context(), moved.sub); err != nil {
			t.Fatal(err)
		}
		w.subscribe(moved.user, ok[control.Plan](t)(w.Plan(t.Context(), planOf(t, w, goesOn.sub))))
		beat()

		admitted := func(k known, session uint32, change func(*control.AdmittedSession)) control.AdmittedSession {
			s := control.AdmittedSession{SubscriptionID: k.sub, BegunAt: begun, SessionRequest: control.SessionRequest{
				SessionID: sessionID(session), DeviceID: k.device.ID, KeyThumbprint: k.device.Thumbprint(), Generation: k.device.Generation, BootID: "b",
			}}
			if change != nil {
				change(&s)
			}
			return s
		}
		list := []control.AdmittedSession{
			admitted(goesOn, 101, nil),
			admitted(revoked, 102, nil),
			admitted(over, 103, func(s *control.AdmittedSession) { s.EndedAt, s.EndReason = &ended, "carrier_lost" }),
			admitted(lost, 104, func(s *control.AdmittedSession) { s.BootID = "the one before" }),
			admitted(gone, 105, nil),
			admitted(moved, 106, nil),
			admitted(twice, 107, func(s *control.AdmittedSession) { s.BegunAt = w.now().Add(time.Hour) }), // a clock that is wrong
			admitted(twice, 108, nil), // one more than the plan allows
			admitted(goesOn, 109, func(s *control.AdmittedSession) { s.SubscriptionID = over.sub }), // somebody else's
		}
		wantReasons := []reason.Code{
			"", reason.DeviceRevoked, reason.SessionUnknown, reason.SessionUnknown, reason.DeviceNotFound,
			reason.SessionUnknown, "", reason.SessionLimit, reason.SessionUnknown,
		}
		for round := range 2 { // the first answer may have been lost
			var got []reason.Code
			for _, d := range ok[[]control.Decision](t)(w.TakeAdmitted(t.Context(), gateway, "b", list)) {
				got = append(got, d.Reason)
			}
			if round == 1 { // it says why in the first answer only
				wantReasons[7] = reason.SessionUnknown
			}
			if diff := cmp.Diff(wantReasons, got); diff != "" {
				t.Errorf("round %d: reasons (-want +got):\n%s", round, diff)
			}
		}

		type record struct{ user, sub, end string }
		now := w.now()
		for session, want := range map[uint32]struct {
			record
			started time.Time
			ended   *time.Time
		}{
			101: {record{goesOn.user.ID, goesOn.sub, ""}, begun, nil},
			102: {record{revoked.user.ID, revoked.sub, "device_revoked"}, begun, &now},
			103: {record{over.user.ID, over.sub, "carrier_lost"}, begun, &ended},
			104: {record{lost.user.ID, lost.sub, "gateway_restarted"}, begun, &now},
			106: {record{moved.user.ID, "", "session_unknown"}, begun, &now},
			107: {record{twice.user.ID, twice.sub, ""}, now, nil},
			108: {record{twice.user.ID, twice.sub, "session_limit"}, begun, &now},
			109: {record{goesOn.user.ID, "", "session_unknown"}, begun, &now},
		} {
			got := ok[control.Session](t)(w.Session(t.Context(), sessionID(session)))
			if diff := cmp.Diff(want.record, record{got.UserID, got.SubscriptionID, got.EndReason}, cmp.AllowUnexported(record{})); diff != "" {
				t.Errorf("session %d (-want +got):\n%s", session, diff)
			}
			if !got.StartedAt.Equal(want.started) || (got.EndedAt == nil) != (want.ended == nil) || want.ended != nil && !got.EndedAt.Equal(*want.ended) {
				t.Errorf("session %d was from %v to %v, want %v to %v", session, got.StartedAt, got.EndedAt, want.started, want.ended)
			}
		}
		if _, err := w.Session(t.Context(), sessionID(105)); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("the session of nobody: %v", err)
		}

		// What is reported about them is their users' from the first byte.
		answer := ok[control.UsageAnswer](t)(w.ReportUsage(t.Context(), gateway, []control.UsageEntry{
			{BootID: "b", SessionID: sessionID(102), Sequence: 1, Up: 10, Down: 20, At: begun},
			{BootID: "the one before", SessionID: sessionID(104), Sequence: 1, Up: 10, Down: 20, At: begun},
		}))
		if diff := cmp.Diff([]control.UsageResult{control.UsageTaken, control.UsageTaken}, answer.Results); diff != "" {
			t.Errorf("usage (-want +got):\n%s", diff)
		}

		// Another gateway cannot tell of them.
		if got := ok[[]control.Decision](t)(w.TakeAdmitted(t.Context(), other, "b", list[:1])); got[0].Reason != reason.SessionUnknown {
			t.Errorf("another gateway's word: %+v", got)
		}
		if got := ok[control.Session](t)(w.Session(t.Context(), sessionID(101))); got.EndedAt != nil || got.GatewayID != gateway.ID {
			t.Errorf("after another gateway's word: %+v", got)
		}
		var invalid *control.InvalidError
		if _, err := w.TakeAdmitted(t.Context(), gateway, "b", make([]control.AdmittedSession, control.MaxAdmitted+1)); !errors.As(err, &invalid) {
			t.Errorf("too many at once: %v", err)
		}
	})
}

func planOf(t *testing.T, w *world, sub string) string {
	t.Helper()
	return ok[control.Subscription](t)(w.Subscription(t.Context(), sub)).PlanID
}
