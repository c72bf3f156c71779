package control_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/sslink"
	"github.com/httvps/httvps/internal/ticket"
)

// situation is a user with a device, a plan and a gateway, alone in a region.
type situation struct {
	*world
	number  uint32
	region  string
	user    control.User
	plan    control.Plan
	sub     control.Subscription
	device  control.Device
	gateway control.Gateway
}

// situation makes one in which the device can connect and has been seen.
func (w *world) situation(number uint32) *situation {
	w.t.Helper()
	s := &situation{world: w, number: number, region: fmt.Sprintf("r%d", number)}
	s.gateway = w.another(100+number, s.region)
	s.user, s.plan, s.sub = w.planned(control.PlanFields{Regions: &[]string{s.region}, MaxDevices: new(2), MaxSessions: new(1)})
	s.device = ok[control.Enrolled](w.t)(w.enrol(testKey(2000+number), w.invite(s.user))).Device
	s.beat(0)
	ok[control.Issued](w.t)(w.token(testKey(2000+number), s.device.ID))
	return s
}

// beat is a heartbeat of the gateway, whose clock is ahead.
func (s *situation) beat(ahead time.Duration) {
	s.t.Helper()
	ok[[]control.SessionEnd](s.t)(s.Heartbeat(s.t.Context(), s.gateway, control.Lease{BootID: "b", ClockOffset: &ahead}))
}

func (s *situation) ask(session uint32) control.SessionRequest {
	return request(s.device, 2000+s.number, 100*s.number+session)
}

func (s *situation) change(fields control.PlanFields) {
	s.t.Helper()
	s.plan = ok[control.Plan](s.t)(s.UpdatePlan(s.t.Context(), s.plan.ID, fields))
}

func (s *situation) server(f control.OutlineFields) control.OutlineServer {
	s.t.Helper()
	link := sslink.Link{Host: s.region + ".example", Port: 443, Cipher: sslink.AES256GCM, Password: poolPassword, Outline: true}
	f.Region, f.AccessKey = &s.region, new(link.Reveal())
	server, _, err := s.CreateOutlineServer(s.t.Context(), f, control.Once{})
	if err != nil {
		s.t.Fatal(err)
	}
	return server
}

func (s *situation) none(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// whyCase is a situation in which somebody asks why.
type whyCase struct {
	name    string
	prepare func(s *situation) (since time.Time) // zero: it is not known
	check   control.CheckName                    // that is the cause; empty: there is none
	reason  reason.Code
	warned  control.CheckName // that warns; empty: not looked at
	next    string            // a part of what to do
	ofUser  bool              // it is asked about the user
}

func whyCases() []whyCase {
	return []whyCase{
		{name: "nothing is wrong", prepare: func(*situation) time.Time { return time.Time{} }},
		{name: "it is connected, which takes the only session", prepare: func(s *situation) time.Time {
			s.decide(s.gateway, s.ask(1), "")
			return time.Time{}
		}},
		{name: "never asked for access", prepare: func(s *situation) time.Time {
			s.device = ok[control.Enrolled](s.t)(s.enrol(testKey(3000+s.number), s.invite(s.user))).Device
			return time.Time{}
		}, warned: control.CheckCredential, next: "httvps doctor"},
		{name: "revoked", prepare: func(s *situation) time.Time {
			ok[control.Device](s.t)(s.RevokeDevice(s.t.Context(), s.device.ID))
			return s.now()
		}, check: control.CheckCredential, reason: reason.DeviceRevoked, next: "user invite"},
		{name: "another key than the one enrolled", prepare: func(s *situation) time.Time {
			s.pass(time.Second)
			other := s.ask(1)
			other.KeyThumbprint = ticket.Thumbprint(public(testKey(9999)))
			s.decide(s.gateway, other, reason.DeviceMismatch)
			return s.now()
		}, check: control.CheckCredential, reason: reason.DeviceMismatch, next: "device revoke"},
		{name: "the user is disabled", prepare: func(s *situation) time.Time {
			ok[control.User](s.t)(s.UpdateUser(s.t.Context(), s.user.ID, control.UserFields{Disabled: new(true)}))
			return s.now()
		}, check: control.CheckUser, reason: reason.UserDisabled, next: "user enable"},
		{name: "no subscription", prepare: func(s *situation) time.Time {
			s.none(s.DeleteSubscription(s.t.Context(), s.sub.ID))
			return s.user.CreatedAt
		}, check: control.CheckSubscription, reason: reason.NoActiveSubscription, next: "subscription create"},
		{name: "the subscription has ended", prepare: func(s *situation) time.Time {
			ends := s.now().Add(time.Hour)
			ok[control.Subscription](s.t)(s.UpdateSubscription(s.t.Context(), s.sub.ID, control.SubscriptionFields{EndsAt: &ends}))
			s.pass(2 * time.Hour)
			s.beat(0)
			return ends
		}, check: control.CheckSubscription, reason: reason.SubscriptionExpired, next: "--ends-at"},
		{name: "the subscription is to begin", prepare: func(s *situation) time.Time {
			ok[control.Subscription](s.t)(s.UpdateSubscription(s.t.Context(), s.sub.ID, control.SubscriptionFields{StartsAt: new(s.now().Add(time.Hour))}))
			return time.Time{}
		}, check: control.CheckSubscription, reason: reason.NoActiveSubscription, next: "--starts-at"},
		{name: "the subscription begins with the first use", prepare: func(s *situation) time.Time {
			s.change(control.PlanFields{StartsOnFirstUse: new(true)})
			s.none(s.DeleteSubscription(s.t.Context(), s.sub.ID))
			s.subscribe(s.user, s.plan)
			return time.Time{}
		}},
		{name: "the quota is used up", prepare: func(s *situation) time.Time {
			s.pass(24 * time.Hour)
			s.beat(0)
			s.use(8 << 20)
			return s.now().Truncate(24 * time.Hour)
		}, check: control.CheckQuota, reason: reason.QuotaExceeded, next: "--quota"},
		{name: "the quota is used up and the plan slows down", prepare: func(s *situation) time.Time {
			s.change(control.PlanFields{QuotaAction: new(control.QuotaThrottle), ThrottleBPS: new(int64(64000))})
			s.use(8 << 20)
			return time.Time{}
		}, warned: control.CheckQuota, next: "--quota"},
		{name: "there is quota left", prepare: func(s *situation) time.Time {
			s.use(1 << 20)
			return time.Time{}
		}},
		{name: "all sessions are taken by another device", prepare: func(s *situation) time.Time {
			other := ok[control.Enrolled](s.t)(s.enrol(testKey(3000+s.number), s.invite(s.user))).Device
			s.decide(s.gateway, request(other, 3000+s.number, 100*s.number), "")
			return s.now()
		}, check: control.CheckSessions, reason: reason.SessionLimit, next: "session close"},
		{name: "no gateway has joined the plan's region", prepare: func(s *situation) time.Time {
			s.none(s.DeleteGateway(s.t.Context(), s.gateway.ID))
			return time.Time{}
		}, check: control.CheckGateway, reason: reason.RetryLater, next: "gateway create"},
		{name: "no gateway is heard of", prepare: func(s *situation) time.Time {
			s.pass(time.Hour)
			return s.now().Add(-time.Hour + 15*time.Second)
		}, check: control.CheckGateway, reason: reason.RetryLater, next: "journalctl"},
		{name: "the gateway is drained", prepare: func(s *situation) time.Time {
			ok[control.Gateway](s.t)(s.DrainGateway(s.t.Context(), s.gateway.ID))
			return s.now()
		}, check: control.CheckGateway, reason: reason.RetryLater, next: "gateway undrain"},
		{name: "the gateway's clock is wrong by a day", prepare: func(s *situation) time.Time {
			s.beat(24 * time.Hour)
			return time.Time{}
		}, check: control.CheckClock, reason: reason.TokenExpired, next: "timedatectl"},
		{name: "the gateway's clock is off by minutes", prepare: func(s *situation) time.Time {
			s.beat(-3 * time.Minute)
			return time.Time{}
		}, warned: control.CheckClock, next: "timedatectl"},
		{name: "the Outline server is down", prepare: func(s *situation) time.Time {
			server := s.server(control.OutlineFields{})
			for range 3 {
				ok[[]control.HealthChange](s.t)(s.ReportOutline(s.t.Context(), s.gateway, []control.OutlineResult{{ServerID: server.ID, Failure: control.OutlineConnect}}))
			}
			return s.now()
		}, check: control.CheckEgress, reason: reason.NoOutlineNodesAvailable, next: "outline list"},
		{name: "the Outline server is disabled", prepare: func(s *situation) time.Time {
			server := s.server(control.OutlineFields{})
			ok[control.OutlineServer](s.t)(s.UpdateOutlineServer(s.t.Context(), server.ID, control.OutlineFields{Disabled: new(true)}))
			return time.Time{}
		}, check: control.CheckEgress, reason: reason.NoOutlineNodesAvailable, next: "outline list"},
		{name: "the Outline server is full", prepare: func(s *situation) time.Time {
			s.change(control.PlanFields{MaxSessions: new(2)})
			s.server(control.OutlineFields{Capacity: new(1)})
			other := ok[control.Enrolled](s.t)(s.enrol(testKey(3000+s.number), s.invite(s.user))).Device
			r := request(other, 3000+s.number, 100*s.number)
			s.decide(s.gateway, r, "")
			ok[control.Exit](s.t)(s.AssignOutline(s.t.Context(), s.gateway, control.ExitRequest{SessionID: r.SessionID}))
			return time.Time{}
		}, check: control.CheckEgress, reason: reason.NoOutlineNodesAvailable, next: "outline create"},
		{name: "the Outline server works", prepare: func(s *situation) time.Time {
			s.server(control.OutlineFields{})
			return time.Time{}
		}},
		{name: "it was refused in a region that is not the plan's", prepare: func(s *situation) time.Time {
			s.pass(time.Second)
			s.decide(s.another(5000+s.number, "elsewhere"), s.ask(1), reason.RegionUnavailable)
			return time.Time{}
		}, warned: control.CheckLastRefusal},
		{name: "it was refused and got in since", prepare: func(s *situation) time.Time {
			ok[control.User](s.t)(s.UpdateUser(s.t.Context(), s.user.ID, control.UserFields{Disabled: new(true)}))
			_, err := s.token(testKey(2000+s.number), s.device.ID)
			refused(s.t, err, reason.UserDisabled)
			ok[control.User](s.t)(s.UpdateUser(s.t.Context(), s.user.ID, control.UserFields{Disabled: new(false)}))
			s.pass(time.Second)
			ok[control.Issued](s.t)(s.token(testKey(2000+s.number), s.device.ID))
			return time.Time{}
		}},
		{name: "the user's device could connect", prepare: func(*situation) time.Time { return time.Time{} }, ofUser: true},
		{name: "the user has as many devices as he may", prepare: func(s *situation) time.Time {
			ok[control.Enrolled](s.t)(s.enrol(testKey(3000+s.number), s.invite(s.user)))
			return time.Time{}
		}, ofUser: true, warned: control.CheckDevices, next: "device revoke"},
		{name: "the user has not opened the invitation", prepare: func(s *situation) time.Time {
			ok[control.Device](s.t)(s.RevokeDevice(s.t.Context(), s.device.ID))
			s.invite(s.user)
			return s.now()
		}, ofUser: true, check: control.CheckInvitation, reason: reason.DeviceNotFound, next: "httvps enroll"},
		{name: "the user's invitation has expired", prepare: func(s *situation) time.Time {
			ok[control.Device](s.t)(s.RevokeDevice(s.t.Context(), s.device.ID))
			invitation, _, _, err := s.Invite(s.t.Context(), s.user.ID, time.Hour, control.Once{})
			s.none(err)
			s.pass(2 * time.Hour)
			s.beat(0)
			return invitation.ExpiresAt
		}, ofUser: true, check: control.CheckInvitation, reason: reason.DeviceNotFound, next: "user invite"},
		{name: "the user was never invited again", prepare: func(s *situation) time.Time {
			ok[control.Device](s.t)(s.RevokeDevice(s.t.Context(), s.device.ID))
			return s.user.CreatedAt
		}, ofUser: true, check: control.CheckInvitation, reason: reason.DeviceNotFound, next: "user invite"},
	}
}

// use has the device use so much of a quota of 8 MiB.
func (s *situation) use(bytes uint64) {
	s.t.Helper()
	s.change(control.PlanFields{QuotaBytes: new(int64(8 << 20))})
	r := s.ask(50)
	s.decide(s.gateway, r, "")
	_, err := s.ReportUsage(s.t.Context(), s.gateway, []control.UsageEntry{
		{BootID: "b", SessionID: r.SessionID, Sequence: 1, Down: bytes, At: s.now()},
	})
	s.none(err)
	s.none(s.EndSessions(s.t.Context(), s.gateway, []control.SessionEnd{{ID: r.SessionID, Reason: "x"}}))
}

func TestWhySaysWhatStandsInTheWayOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		for i, tc := range whyCases() {
			t.Run(tc.name, func(t *testing.T) {
				w.t = t
				s := w.situation(uint32(i))
				since := tc.prepare(s)
				ask, id := w.WhyDevice, s.device.ID
				if tc.ofUser {
					ask, id = w.WhyUser, s.user.ID
				}
				why := ok[control.Why](t)(ask(t.Context(), id))
				cause, against := why.Cause()
				if against != (tc.check != "") || cause.Name != tc.check || cause.Reason != tc.reason {
					t.Errorf("the cause is %+v, want %q of %q; all: %+v", cause, tc.reason, tc.check, why.Checks)
				}
				switch {
				case since.IsZero() && cause.Since != nil || !since.IsZero() && (cause.Since == nil || !cause.Since.Equal(since)):
					t.Errorf("since %v, want %v", cause.Since, since)
				}
				next, warned := cause.Next, false
				for _, c := range why.Checks {
					if c.State == control.CheckWarned && c.Name == tc.warned {
						next, warned = c.Next, true
					}
				}
				if warned != (tc.warned != "") {
					t.Errorf("warned of %q: %v; all: %+v", tc.warned, warned, why.Checks)
				}
				if !strings.Contains(next, tc.next) {
					t.Errorf("to be done: %q, want %q in it", next, tc.next)
				}
				s.agrees(why, tc)
			})
		}
		w.t = t
		if _, err := w.WhyDevice(t.Context(), "00000000-0000-0000-0000-000000000000"); err == nil {
			t.Error("a device that there is not can connect")
		}
	})
}

// agrees fails the test when the service decides otherwise than it was said to.
func (s *situation) agrees(why control.Why, tc whyCase) {
	s.t.Helper()
	if tc.ofUser || tc.check == control.CheckCredential && tc.reason == reason.DeviceMismatch {
		return // nobody has asked with the device's own key
	}
	cause, _ := why.Cause()
	atGateway := []control.CheckName{control.CheckGateway, control.CheckClock, control.CheckEgress} // the decision is not about these
	if why.Session != nil || slices.Contains(atGateway, cause.Name) {
		return
	}
	key := 2000 + s.number
	if tc.name == "never asked for access" {
		key = 3000 + s.number
	}
	decided, err := s.Decide(context.Background(), s.gateway, request(s.device, key, 100*s.number+99))
	if err != nil {
		s.t.Fatal(err)
	}
	if decided.Reason != cause.Reason {
		s.t.Errorf("the service says %q (session %s), want what was said: %q", decided.Reason, hex.EncodeToString([]byte(s.region)), cause.Reason)
	}
}
