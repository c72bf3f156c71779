package server

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
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
	return usable(debug.SetMemoryLimit(-1), readNumber("/sys/fs/cgroup/memory.max"), memTotal()) / memoryShare
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

// readNumber reads a file that holds one number; 0 when it does not.
func readNumber(path string) int64 {
	text, err := os.ReadFile(path) //nolint:gosec // one of the names above
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n
}

// memTotal is the machine's memory in bytes; 0 where the system does not tell.
func memTotal() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
