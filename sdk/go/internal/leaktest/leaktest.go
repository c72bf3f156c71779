// Package leaktest fails the tests of a package that leave goroutines behind.
package leaktest

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// patience is how long goroutines that are ending have to end.
const patience = 5 * time.Second

// Main runs the tests of a package, for its TestMain.
func Main(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 && !settle(before) {
		code = 1
	}
	os.Exit(code)
}

// settle waits until no more goroutines run than want, and shows them when they
// go on.
func settle(want int) bool {
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > want {
		select {
		case <-tick.C:
		case <-deadline:
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			_, _ = fmt.Fprintf(os.Stderr, "the tests left goroutines behind (%d, %d before):\n%s\n", runtime.NumGoroutine(), want, stacks)
			return false
		}
	}
	return true
}
