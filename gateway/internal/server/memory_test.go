package server

import (
	"math"
	"testing"
)

func TestUsableMemoryIsTheSmallestLimitThereIs(t *testing.T) {
	for name, tc := range map[string]struct {
		limits []int64
		want   uint64
	}{
		"a memory limit below the machine's":  {[]int64{1 << 28, 0, 1 << 32}, 1 << 28},
		"a control group":                     {[]int64{math.MaxInt64, 1 << 29, 1 << 32}, 1 << 29},
		"the machine alone":                   {[]int64{math.MaxInt64, 0, 1 << 32}, 1 << 32},
		"a system that says nothing about it": {[]int64{math.MaxInt64, 0, 0}, unknownMemory},
	} {
		if got := usable(tc.limits...); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
	if memoryFor(0) == 0 || memoryFor(1<<25) != 1<<25 {
		t.Errorf("memoryFor: %d, %d", memoryFor(0), memoryFor(1<<25))
	}
}
