package nodes

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/knock"
)

// answerKnock makes the control plane tell a knock beside its keys; nil: none.
func (c *control) answerKnock(t *testing.T, told any) {
	t.Helper()
	public, _ := newKey(t)
	c.handle["/api/v1/gateway/config"] = func(map[string]any) (int, any) {
		answer := map[string]any{"service_id": serviceID, "issuer": issuer, "jwks": ticket.NewJWKS(public)}
		if told != nil {
			answer["knock"] = told
		}
		return 200, answer
	}
}

func TestTheKnockComesWithTheConfigurationAndIsReplacedByTheNext(t *testing.T) {
	c := newControl(t)
	n := c.node(t, nil)
	if got := n.Knock(); len(got.Keys) != 0 {
		t.Errorf("before the first answer there are %d keys", len(got.Keys))
	}
	for _, want := range []Knock{
		{Cookie: "sid", Keys: []knock.Key{{1}}},
		{Cookie: "sid", Keys: []knock.Key{{2}, {1}}},
		{Cookie: "visit", Keys: []knock.Key{{2}}},
	} {
		c.answerKnock(t, want)
		if err := n.keys.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, n.Knock()); diff != "" {
			t.Error(diff)
		}
	}
	// Without any the gateway lets nobody in by old ones.
	c.answerKnock(t, nil)
	if err := n.keys.refresh(t.Context()); err != nil || len(n.Knock().Keys) != 0 {
		t.Errorf("%d keys are left, %v", len(n.Knock().Keys), err)
	}
}

func TestADamagedKnockLeavesTheOneThatWas(t *testing.T) {
	const secret = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA"
	for name, told := range map[string]any{
		"a key that is none":       map[string]any{"cookie": "sid", "keys": []string{secret[:42]}},
		"an empty key":             Knock{Cookie: "sid", Keys: make([]knock.Key, 1)},
		"too many keys":            Knock{Cookie: "sid", Keys: slices.Repeat([]knock.Key{{1}}, maxKnockKeys+1)},
		"no cookie":                map[string]any{"keys": []string{secret}},
		"a cookie that is no name": map[string]any{"cookie": "a=b", "keys": []string{secret}},
		"something else":           "knock knock",
	} {
		t.Run(name, func(t *testing.T) {
			c := newControl(t)
			n := c.node(t, nil)
			want := Knock{Cookie: "sid", Keys: []knock.Key{{1}}}
			c.answerKnock(t, want)
			if err := n.keys.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.answerKnock(t, told)
			err := n.keys.refresh(t.Context())
			if err == nil || strings.Contains(err.Error(), secret[:8]) {
				t.Errorf("refresh = %v", err)
			}
			if diff := cmp.Diff(want, n.Knock()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
