package server

import (
	"math"
	"runtime/debug"

	"github.com/httvps/httvps/internal/memlimit"
)

const (
	// memoryShare of what the process may use is for data in flight; the rest
	// is for connections, the runtime and garbage.
	memoryShare = 4
	// unknownMemory is assumed where the system does not tell.
	unknownMemory = 1 << 30
)

// memoryFor returns how many bytes all sessions may hold in flight: configured,
// or a share of what the process may use.
func memoryFor(configured int) uint64 {
	if configured > 0 {
		return uint64(configured)
	}
	return usable(debug.SetMemoryLimit(-1), memlimit.Group(), memlimit.Machine()) / memoryShare
}

// usable is the smallest limit that there is. Zero is none.
func usable(limits ...int64) uint64 {
	least := int64(math.MaxInt64)
	for _, limit := range limits {
		if limit > 0 {
			least = min(least, limit)
		}
	}
	if least == math.MaxInt64 {
		return unknownMemory
	}
	return uint64(least)
}
