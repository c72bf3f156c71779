package httvps_test

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the package when it leaves goroutines of ours behind. The
// module has no dependency for that on purpose, and the tests in bubbles see to
// it by themselves.
func TestMain(m *testing.M) {
	code := m.Run()
	deadline := time.Now().Add(10 * time.Second)
	for code == 0 {
		left := leftBehind()
		if left == "" {
			break
		}
		if time.Now().After(deadline) {
			_, _ = os.Stderr.WriteString("left behind:\n" + left)
			code = 1
		}
		runtime.Gosched()
	}
	os.Exit(code)
}

// leftBehind returns the stacks of goroutines that run code of this module or
// were started by it, but for the one that asks.
func leftBehind() string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var left strings.Builder
	for i, stack := range strings.Split(string(stacks), "\n\n") {
		if i > 0 && strings.Contains(stack, "httvps/sdk/go/") {
			left.WriteString(stack + "\n\n")
		}
	}
	return left.String()
}
