package control_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/reason"
)

func TestSettingsHoldForWhatIsMadeAfterwardsAndAreInTheAuditLogOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		owner, user := w.owner(), w.subscriber(5, 5)
		lasts := func(what string, invitation, bulk, token time.Duration) {
			t.Helper()
			made, _, _, err := w.Invite(t.Context(), user.ID, 0, control.Once{})
			if err != nil || made.ExpiresAt.Sub(w.now()) != invitation {
				t.Errorf("%s, an invitation lasts %v, want %v; %v", what, made.ExpiresAt.Sub(w.now()), invitation, err)
			}
			job := w.begun(control.BulkRequest{Action: control.BulkInvite, Filter: control.BulkFilter{All: true}})
			if _, _, err := w.RunBulk(t.Context(), job.ID); err != nil {
				t.Fatal(err)
			}
			all := ok[[]control.Invitation](t)(w.Invitations(t.Context(), user.ID, control.Page{Limit: 100}))
			if got := all[len(all)-1].ExpiresAt.Sub(w.now()); len(all) < 2 || got != bulk {
				t.Errorf("%s, an invitation of a bulk action lasts %v, want %v", what, got, bulk)
			}
			row, _, _, err := w.CreateAPIToken(t.Context(), owner, control.NewAPIToken{}, control.Once{})
			if err != nil || row.ExpiresAt.Sub(w.now()) != token {
				t.Errorf("%s, a token lasts %v, want %v; %v", what, row.ExpiresAt.Sub(w.now()), token, err)
			}
			operator, _, err := w.CreateOperator(t.Context(), what, control.RoleSupport, 0, control.Once{})
			if err != nil || operator.ExpiresAt.Sub(w.now()) != token {
				t.Errorf("%s, an operator's first token lasts %v, want %v; %v", what, operator.ExpiresAt.Sub(w.now()), token, err)
			}
		}
		const day = 24 * time.Hour
		first := control.Settings{InvitationTTL: day, APITokenTTL: 90 * day}
		if got := ok[control.Settings](t)(w.Settings(t.Context())); got != first {
			t.Errorf("at first they are %+v", got)
		}
		lasts("at first", day, day, 90*day)

		for _, step := range []struct {
			change control.SettingsChange
			want   control.Settings
			before string // and after, of the audit entry; empty: there is none
			after  string
		}{
			{control.SettingsChange{}, first, "", ""},
			{
				control.SettingsChange{Support: to("ask Ann ☎"), InvitationTTLSeconds: to(172800), APITokenTTLDays: to(1)},
				control.Settings{Support: "ask Ann ☎", InvitationTTL: 2 * day, APITokenTTL: day},
				`{}`, `{"api_token_ttl_days":1,"invitation_ttl_seconds":172800,"support":"ask Ann ☎"}`,
			},
			{
				control.SettingsChange{APITokenTTLDays: plans[int]()},
				control.Settings{Support: "ask Ann ☎", InvitationTTL: 2 * day, APITokenTTL: 90 * day},
				`{"api_token_ttl_days":1,"invitation_ttl_seconds":172800,"support":"ask Ann ☎"}`, `{"invitation_ttl_seconds":172800,"support":"ask Ann ☎"}`,
			},
			{control.SettingsChange{InvitationTTLSeconds: to(172800)}, control.Settings{Support: "ask Ann ☎", InvitationTTL: 2 * day, APITokenTTL: 90 * day}, "", ""},
			{
				control.SettingsChange{Support: to(""), APITokenTTLDays: to(2)},
				control.Settings{InvitationTTL: 2 * day, APITokenTTL: 2 * day},
				`{"invitation_ttl_seconds":172800,"support":"ask Ann ☎"}`, `{"api_token_ttl_days":2,"invitation_ttl_seconds":172800}`,
			},
		} {
			last := w.lastChange()
			if got := ok[control.Settings](t)(w.UpdateSettings(t.Context(), step.change)); got != step.want {
				t.Errorf("%+v makes %+v, want %+v", step.change, got, step.want)
			}
			if got := ok[control.Settings](t)(w.Settings(t.Context())); got != step.want {
				t.Errorf("%+v: then they are %+v, want %+v", step.change, got, step.want)
			}
			entry := w.lastChange()
			if step.after == "" {
				if entry.Number != last.Number {
					t.Errorf("%+v changes nothing, and the audit log has %+v", step.change, entry)
				}
				continue
			}
			if diff := cmp.Diff([2]string{step.before, step.after}, [2]string{entry.Before, entry.After}); diff != "" || entry.Number == last.Number {
				t.Errorf("%+v: the audit log (-want +got):\n%s", step.change, diff)
			}
		}
		lasts("afterwards", 2*day, 2*day, 2*day)
		// Who says it is obeyed.
		made, _, _, err := w.Invite(t.Context(), user.ID, time.Hour, control.Once{})
		if err != nil || made.ExpiresAt.Sub(w.now()) != time.Hour {
			t.Errorf("an invitation for an hour lasts %v; %v", made.ExpiresAt.Sub(w.now()), err)
		}
	})
}

// lastChange is the newest entry about the settings.
func (w *world) lastChange() control.AuditEntry {
	w.t.Helper()
	entries := ok[[]control.AuditEntry](w.t)(w.AuditEntries(w.t.Context(), control.AuditFilter{Action: "settings.updated", Limit: 1}))
	if len(entries) == 0 {
		return control.AuditEntry{}
	}
	return entries[0]
}

func TestMistakesInSettingsAreToldAtOnceAndChangeNothing(t *testing.T) {
	w := newWorld(t)
	ok[control.Settings](t)(w.UpdateSettings(t.Context(), control.SettingsChange{Support: to(strings.Repeat("☎", 200)), InvitationTTLSeconds: to(60), APITokenTTLDays: to(365)}))
	before := ok[control.Settings](t)(w.Settings(t.Context()))
	for name, text := range map[string]string{
		"too long": strings.Repeat("x", 201), "two lines": "a\nb", "an escape": "a\x1b[1m", "not UTF-8": "a\xff", "a line separator": "a\u2028b", "another order": "a\u202eb",
	} {
		for _, n := range []int{59, 2592001, -1} {
			_, err := w.UpdateSettings(t.Context(), control.SettingsChange{Support: to(text), InvitationTTLSeconds: to(n), APITokenTTLDays: to(366)})
			invalid, _ := errors.AsType[*control.InvalidError](err)
			var fields []string
			if invalid != nil {
				for _, f := range invalid.Fields {
					fields = append(fields, f.Field)
				}
			}
			if diff := cmp.Diff([]string{"support", "invitation_ttl_seconds", "api_token_ttl_days"}, fields); diff != "" {
				t.Errorf("%s and %d (-want +got):\n%s", name, n, diff)
			}
		}
	}
	if _, err := w.UpdateSettings(t.Context(), control.SettingsChange{APITokenTTLDays: to(0)}); err == nil {
		t.Error("a token that lasts no day is taken")
	}
	if after := ok[control.Settings](t)(w.Settings(t.Context())); after != before {
		t.Errorf("they were %+v and are %+v", before, after)
	}
}

func TestOnlyRefusalsBeyondThePersonNameWhomToTurnTo(t *testing.T) {
	w := newWorld(t)
	refusal := &control.RefusedError{Reason: reason.UserDisabled}
	if err := w.WithSupport(t.Context(), refusal); !errors.Is(err, refusal) {
		t.Errorf("without a text: %v", err)
	}
	ok[control.Settings](t)(w.UpdateSettings(t.Context(), control.SettingsChange{Support: to("ask ann")}))
	for code, want := range map[reason.Code]string{
		reason.UserDisabled: "ask ann", reason.DeviceRevoked: "ask ann", reason.SubscriptionExpired: "ask ann", reason.NoActiveSubscription: "ask ann",
		reason.QuotaExceeded: "ask ann", reason.DeviceLimit: "ask ann", reason.RetryLater: "", reason.RegionUnavailable: "", reason.InvalidToken: "",
	} {
		refused, _ := errors.AsType[*control.RefusedError](w.WithSupport(t.Context(), &control.RefusedError{Reason: code}))
		if refused == nil || refused.Reason != code || refused.Support != want {
			t.Errorf("%s: %+v, want %q", code, refused, want)
		}
	}
	if err := w.WithSupport(t.Context(), control.ErrUnauthorized); !errors.Is(err, control.ErrUnauthorized) {
		t.Errorf("a stranger: %v", err)
	}
}
