// Package memlimit says how much memory this process may use, and has Go's
// garbage collector keep to it: a process that does not know its limit is killed
// at it.
package memlimit

import (
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// Variable is the Go runtime's own way to set the limit. It always holds.
	Variable = "GOMEMLIMIT"

	// share of a control group's limit is for the Go runtime, in percent: the rest
	// is for what it does not count, such as the kernel's buffers of sockets.
	share = 90

	// maxDepth bounds the control groups above this process's own.
	maxDepth = 32
)

// Where a limit is from.
const (
	FromVariable = "GOMEMLIMIT"
	FromConfig   = "memory_limit"
	FromGroup    = "control group"
	None         = "none"
)

// Set sets the runtime's limit in bytes: configured, or without that most of what
// the control group of this process allows. It returns what holds, and where it
// is from; GOMEMLIMIT in the environment goes before both. Without any limit it
// returns 0.
func Set(configured int64) (limit int64, from string) {
	limit, from = choose(os.Getenv(Variable), debug.SetMemoryLimit(-1), configured, Group())
	if from == FromConfig || from == FromGroup {
		debug.SetMemoryLimit(limit)
	}
	return limit, from
}

func choose(variable string, inForce, configured, group int64) (limit int64, from string) {
	switch {
	case variable != "" && inForce < math.MaxInt64:
		return inForce, FromVariable
	case variable != "": // "off"
		return 0, FromVariable
	case configured > 0:
		return configured, FromConfig
	case group > 0:
		return group / 100 * share, FromGroup
	default:
		return 0, None
	}
}

// Group is what the control group of this process, or one above it, allows in
// bytes; 0 when nothing is known of a limit.
func Group() int64 { return groupLimit("/proc/self/cgroup", "/sys/fs/cgroup") }

// groupLimit reads both versions of control groups: membership is the file that
// names the process's groups, root where they are mounted.
func groupLimit(membership, root string) int64 {
	text, err := os.ReadFile(membership) //nolint:gosec // one of two names
	if err != nil {
		return 0
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch controllers := fields[1]; {
		case controllers == "": // version 2
			least = min(least, lowest(root, fields[2], "memory.max", "memory.high"))
		case strings.Contains(","+controllers+",", ",memory,"):
			least = min(least, lowest(filepath.Join(root, "memory"), fields[2], "memory.limit_in_bytes"))
		}
	}
	if least >= 1<<60 { // version 1 writes "no limit" as a large number
		return 0
	}
	return least
}

// lowest is the lowest of the limits in the files of a group and of those above
// it. In a container the group may be named as the host sees it, while root is
// the group itself.
func lowest(root, group string, files ...string) int64 {
	least := int64(math.MaxInt64)
	group = path.Clean("/" + group)
	for range maxDepth {
		for _, file := range files {
			if n := readNumber(filepath.Join(root, group, file)); n > 0 {
				least = min(least, n)
			}
		}
		if group == "/" {
			break
		}
		group = path.Dir(group)
	}
	return least
}

// Machine is the machine's memory in bytes; 0 where the system does not tell.
func Machine() int64 {
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

// readNumber reads a file that holds one number; 0 when it does not ("max").
func readNumber(name string) int64 {
	text, err := os.ReadFile(name) //nolint:gosec // a control group's file
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n
}
