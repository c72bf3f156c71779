package nodes

import (
	"reflect"
	"testing"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

func TestARefusedDeviceIsAnsweredFromMemoryForAWhile(t *testing.T) {
	c := newControl(t)
	answer := map[string]any{"allowed": false, "reason": "device_revoked"}
	c.handle["/api/v1/auth/validate-device"] = func(map[string]any) (int, any) { return 200, answer }
	n := c.node(t, nil)
	now := time.Now()
	n.refused.now = func() time.Time { return now }
	ask := func(q Question, want Decision, asked int) {
		t.Helper()
		if got, err := n.Validate(t.Context(), q); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Validate = %+v, %v, want %+v", got, err, want)
		}
		if got := c.count("/api/v1/auth/validate-device"); got != asked {
			t.Errorf("the control plane was asked %d times, want %d", got, asked)
		}
	}
	refused := Decision{Reason: reason.DeviceRevoked}
	for i := range 100 {
		now = now.Add(refusalLasts/100 - 1)
		q := question
		q.Session[1] = byte(i)
		ask(q, refused, 1)
	}
	// Another device, and the same one under its next key.
	other, next := question, question
	other.Device[0]++
	next.Generation++
	ask(other, refused, 2)
	ask(next, refused, 3)
	// A session that lives is always asked about.
	if got, err := n.Renew(t.Context(), question); err != nil || !reflect.DeepEqual(got, refused) {
		t.Errorf("Renew = %+v, %v", got, err)
	}
	answer = map[string]any{"allowed": true}
	now = now.Add(refusalLasts / 50)
	ask(question, Decision{Allowed: true, MaxUDP: -1}, 5)
	ask(question, Decision{Allowed: true, MaxUDP: -1}, 6)
}

func TestRefusalsThatPassByThemselvesAreNotRemembered(t *testing.T) {
	for _, why := range []string{"session_limit", "retry_later", "session_unknown", "a_reason_from_the_future"} {
		c := newControl(t)
		c.handle["/api/v1/auth/validate-device"] = func(map[string]any) (int, any) {
			return 200, map[string]any{"allowed": false, "reason": why}
		}
		n := c.node(t, nil)
		for range 2 {
			if _, err := n.Validate(t.Context(), question); err != nil {
				t.Error(err)
			}
		}
		if asked := c.count("/api/v1/auth/validate-device"); asked != 2 {
			t.Errorf("%s: asked %d times, want 2", why, asked)
		}
	}
}

func TestTheMemoryOfRefusalsIsBounded(t *testing.T) {
	now := time.Now()
	r := refusals{now: func() time.Time { return now }, known: make(map[subject]reason.Code)}
	for i := range int64(3 * maxRefusals) {
		r.remember(subject{generation: i}, reason.DeviceRevoked)
		if len(r.known) > maxRefusals || len(r.order) > maxRefusals {
			t.Fatalf("%d known, %d in order, want at most %d", len(r.known), len(r.order), maxRefusals)
		}
	}
	_, oldest := r.find(subject{generation: 2*maxRefusals - 1})
	_, kept := r.find(subject{generation: 2 * maxRefusals})
	if len(r.known) != maxRefusals || len(r.order) != maxRefusals || oldest || !kept {
		t.Errorf("%d known, %d in order; %v, %v", len(r.known), len(r.order), oldest, kept)
	}
	now = now.Add(refusalLasts)
	if _, found := r.find(subject{generation: 3*maxRefusals - 1}); found || len(r.known) != 0 || len(r.order) != 0 {
		t.Errorf("%d known, %d in order after their time", len(r.known), len(r.order))
	}
}
