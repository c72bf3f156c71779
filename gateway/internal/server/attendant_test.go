package server

import (
	"slices"
	"testing"
	"time"
)

func TestTheLastMomentWaitsForAControlPlaneThatIsAway(t *testing.T) {
	now := time.Now()
	const grace = 4 * time.Hour
	for name, tc := range map[string]struct {
		shown, lastAway time.Time
		grace           time.Duration
		want            time.Time
	}{
		"it was never away":                {shown: now, want: now, grace: grace},
		"it was away long before":          {shown: now, lastAway: now.Add(-time.Hour), want: now, grace: grace},
		"it has only just come back":       {shown: now, lastAway: now.Add(-time.Minute), want: now.Add(time.Minute), grace: grace},
		"it is away":                       {shown: now, lastAway: now.Add(time.Hour), want: now.Add(time.Hour + renewTime), grace: grace},
		"it has been away for too long":    {shown: now, lastAway: now.Add(5 * time.Hour), want: now.Add(grace), grace: grace},
		"there is no grace":                {shown: now, lastAway: now.Add(time.Hour), want: now},
		"the device has shown it for ever": {lastAway: now, grace: grace},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lastMoment(tc.shown, tc.lastAway, tc.grace); !got.Equal(tc.want) {
				t.Errorf("%v after the token, want %v", got.Sub(tc.shown), tc.want.Sub(tc.shown))
			}
		})
	}
}

func TestACountdownTellsOnceOfEachTime(t *testing.T) {
	began := time.Now()
	c := countdown{notices: endNotices()}
	var told []time.Duration
	at := began.Add(25 * time.Hour)
	for now := began; now.Before(at); {
		if _, due := c.due(now, at); due {
			told = append(told, at.Sub(now))
		}
		now = now.Add(min(c.next(now), at.Sub(now)))
	}
	if want := []time.Duration{25 * time.Hour, day, time.Hour, 10 * time.Minute, time.Minute}; !slices.Equal(told, want) {
		t.Errorf("told %v before, want %v", told, want)
	}
	if _, due := c.due(at, at); due {
		t.Error("told once more")
	}
	if _, due := c.due(at, at.Add(30*day)); due {
		t.Error("told of an end that is far")
	}
	if _, due := c.due(at, at.Add(time.Second)); !due {
		t.Error("not told of another end")
	}
	if _, due := c.due(at, time.Time{}); due || c.next(at) != day {
		t.Error("told of no end")
	}
}
