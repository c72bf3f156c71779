package configfile

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// Fields of /proc/self/stat, counted behind the program's name in parentheses.
const (
	envStart = 47
	envEnd   = 48
	maxEnv   = 4 << 20
)

// overwrite replaces a variable by zeros where the kernel put it at the start. A
// kernel that does not allow it leaves it there.
func overwrite(variable string) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= envEnd {
		return
	}
	start, err1 := strconv.ParseInt(fields[envStart], 10, 64)
	end, err2 := strconv.ParseInt(fields[envEnd], 10, 64)
	if err1 != nil || err2 != nil || end <= start || end-start > maxEnv {
		return
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer memory.Close() //nolint:errcheck // nothing is buffered
	block := make([]byte, end-start)
	if _, err := memory.ReadAt(block, start); err != nil {
		return
	}
	for at := 0; at < len(block); {
		length := bytes.IndexByte(block[at:], 0)
		if length < 0 {
			length = len(block) - at
		}
		if string(block[at:at+length]) == variable {
			_, _ = memory.WriteAt(make([]byte, length), start+int64(at)) // or it stays
		}
		at += length + 1
	}
}
