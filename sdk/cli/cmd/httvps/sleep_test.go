package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestASleepIsToldFromTimeThatPasses(t *testing.T) {
	for name, tc := range map[string]struct {
		calendar, timers time.Duration
		want             bool
	}{
		"awake":                    {sleepCheck, sleepCheck, false},
		"a busy machine":           {sleepCheck + time.Second, sleepCheck + time.Second, false},
		"slept for an hour":        {time.Hour, sleepCheck, true},
		"timers went on meanwhile": {time.Hour, time.Hour, true},
		"the clock was set back":   {-time.Hour, sleepCheck, false},
		"the clock was corrected":  {sleepCheck + time.Second, sleepCheck, false},
	} {
		if got := slept(tc.calendar, tc.timers); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWhoIsAwakeIsNotWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := watchSleep(ctx, func() { t.Error("woken") }); err != nil {
			t.Error(err)
		}
	})
}
