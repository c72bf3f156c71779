package httvps

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// far dials hosts that are as far as they say; those without a number never answer,
// and those called closed refuse.
func far(waits map[string]time.Duration) NetDial {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(address)
		wait, ok := waits[host]
		if strings.HasPrefix(host, "closed") {
			return nil, errors.New("refused")
		}
		if !ok {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		select {
		case <-time.After(wait):
			ours, theirs := net.Pipe()
			_ = theirs.Close()
			return ours, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func TestNearGatewaysAreTriedFirstAndTheServicesOrderCountsAmongThose(t *testing.T) {
	ms := time.Millisecond
	for name, tc := range map[string]struct {
		waits map[string]time.Duration
		order string // of a, b, c and so on
		want  string
		took  time.Duration
	}{
		"about as near":               {map[string]time.Duration{"a": 20 * ms, "b": 10 * ms, "c": 30 * ms}, "a b c", "a b c", 30 * ms},
		"a far one":                   {map[string]time.Duration{"a": 50 * ms, "b": 10 * ms, "c": 12 * ms}, "a b c", "b c a", 50 * ms},
		"all far, about as near":      {map[string]time.Duration{"a": 240 * ms, "b": 200 * ms, "c": 210 * ms}, "a b c", "a b c", 240 * ms},
		"none waits for a very far":   {map[string]time.Duration{"a": 900 * ms, "b": 10 * ms}, "a b", "b a", 70 * ms},
		"one that is gone comes last": {map[string]time.Duration{"b": 10 * ms}, "a b", "b a", 70 * ms},
		"one that refuses, too":       {map[string]time.Duration{"b": 10 * ms}, "closed b", "b closed", 10 * ms},
		"all are gone":                {nil, "a b", "a b", probeTimeout},
		"all refuse":                  {nil, "closed1 closed2", "closed1 closed2", 0},
		"there is but one":            {nil, "a", "a", 0},
		"there is none":               {nil, "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var gateways []Gateway
				for host := range strings.FieldsSeq(tc.order) {
					gateways = append(gateways, Gateway{URL: "wss://" + host + "/x"})
				}
				start := time.Now()
				var got []string
				for _, g := range nearest(t.Context(), gateways, far(tc.waits)) {
					got = append(got, strings.TrimSuffix(strings.TrimPrefix(g.URL, "wss://"), "/x"))
				}
				if order := strings.Join(got, " "); order != tc.want || time.Since(start) != tc.took {
					t.Errorf("%s after %v, want %s after %v", order, time.Since(start), tc.want, tc.took)
				}
			})
		})
	}
}
