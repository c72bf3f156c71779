package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the processor time that the process has used, of all its threads,
// in user mode and in the kernel, to the nanosecond.
func CPU(pid int) (time.Duration, error) {
	// A process's clock is named by its id: the complement above three bits of
	// which 2 says "time it ran" (CPUCLOCK_SCHED). /proc counts ticks of 10 ms.
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|2, &ts); err != nil {
		return 0, fmt.Errorf("processor time of %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Resident returns the bytes of memory that the process has resident.
func Resident(pid int) (int64, error) {
	// The sums of status and statm lag behind by pages that each thread counts.
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("Rss:")); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("resident memory of %d: no Rss", pid)
}

// Machine says what this runs on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Memory int64  `json:"memory_bytes"`
}

// ThisMachine reads what is known about the machine; what is not is empty.
func ThisMachine(cores int) Machine {
	m := Machine{Cores: cores}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	return m
}

// tick is the unit of times in /proc: USER_HZ is 100 wherever Go runs on Linux.
const tick = 10 * time.Millisecond

// Busy returns the processor time that everything on the machine has used since
// it started, in steps of 10 ms.
func Busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	// user nice system, then idle and iowait, then irq softirq steal
	return sum(append(fields[1:4:4], fields[6:9]...))
}

// Family returns the processor time of this process and of those that it has
// started, ended ones included, in steps of 10 ms.
func Family() (time.Duration, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	self := os.Getpid()
	var total time.Duration
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended; its parent has its time
		}
		// The name, in brackets, may hold anything. Behind it: state, parent, …
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 15 || pid != self && fields[1] != strconv.Itoa(self) {
			continue
		}
		used, err := sum(fields[11:15]) // utime stime cutime cstime
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

func sum(ticks []string) (total time.Duration, err error) {
	for _, field := range ticks {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n) * tick
	}
	return total, nil
}
