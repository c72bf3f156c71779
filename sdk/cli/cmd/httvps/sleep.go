package main

import (
	"context"
	"time"
)

const (
	// sleepCheck is how often it is looked whether the machine has slept.
	sleepCheck = 5 * time.Second

	// sleepLeast is the shortest sleep that counts; clocks that are set by less do not.
	sleepLeast = 15 * time.Second
)

// watchSleep calls woke when the machine has slept, until ctx ends. The calendar has
// gone on meanwhile, the clock that timers go by has not; on systems where that one
// goes on as well, the timer comes late.
func watchSleep(ctx context.Context, woke func()) error {
	tick := time.NewTicker(sleepCheck)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now := time.Now()
		if slept(now.Round(0).Sub(last.Round(0)), now.Sub(last)) {
			woke()
		}
		last = now
	}
}

// slept judges by what calendar and timers say has passed since the last look.
func slept(calendar, timers time.Duration) bool {
	return calendar-timers >= sleepLeast || timers >= sleepCheck+sleepLeast
}
