package memlimit

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// tree writes files below a directory and returns it.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTheLowestLimitOfAGroupAndThoseAboveItHolds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"a unit of systemd": {map[string]string{
			"membership": "0::/system.slice/httvps-gateway.service", "system.slice/httvps-gateway.service/memory.max": "536870912",
			"system.slice/memory.max": "max",
		}, 512 << 20},
		"its slice has less": {map[string]string{
			"membership": "0::/system.slice/httvps-gateway.service", "system.slice/httvps-gateway.service/memory.max": "536870912",
			"system.slice/memory.max": "268435456",
		}, 256 << 20},
		"memory.high counts": {map[string]string{
			"membership": "0::/a", "a/memory.max": "536870912", "a/memory.high": "400000000",
		}, 400_000_000},
		"a container sees its own group as the root": {map[string]string{
			"membership": "0::/../kubepods/pod1", "memory.max": "1073741824",
		}, 1 << 30},
		"version 1": {map[string]string{
			"membership": "3:cpu,cpuacct:/x\n9:memory:/docker/abc", "memory/docker/abc/memory.limit_in_bytes": "268435456",
		}, 256 << 20},
		"no limit":              {map[string]string{"membership": "0::/a", "a/memory.max": "max"}, 0},
		"no limit in version 1": {map[string]string{"membership": "9:memory:/", "memory/memory.limit_in_bytes": "9223372036854771712"}, 0},
		"no control groups":     {nil, 0},
		"nonsense":              {map[string]string{"membership": "what"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := tree(t, tc.files)
			if got := groupLimit(filepath.Join(root, "membership"), root); got != tc.want {
				t.Errorf("the limit is %d, want %d", got, tc.want)
			}
		})
	}
}

func TestTheVariableGoesBeforeTheConfigurationAndThatBeforeTheGroup(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		variable                   string
		inForce, configured, group int64
		want                       int64
		from                       string
	}{
		"all":           {"1GiB", 1 << 30, 5, 1000, 1 << 30, FromVariable},
		"off":           {"off", math.MaxInt64, 5, 1000, 0, FromVariable},
		"configuration": {"", math.MaxInt64, 5, 1000, 5, FromConfig},
		"group":         {"", math.MaxInt64, 0, 1000, 900, FromGroup},
		"nothing":       {"", math.MaxInt64, 0, 0, 0, None},
	} {
		if got, from := choose(tc.variable, tc.inForce, tc.configured, tc.group); got != tc.want || from != tc.from {
			t.Errorf("%s: %d from %s, want %d from %s", name, got, from, tc.want, tc.from)
		}
	}
}

// TestSetter is the process that sets its limit. It prints the one in force.
func TestSetter(t *testing.T) {
	configured, err := strconv.ParseInt(os.Getenv("HTTVPS_TEST_MEMORY"), 10, 64)
	if err != nil {
		t.Skip("only as a process of its own")
	}
	Set(configured)
	_, _ = os.Stdout.WriteString("in force: " + strconv.FormatInt(debug.SetMemoryLimit(-1), 10) + "\n") // its reader fails without it
}

func TestTheRuntimeKeepsToTheLimit(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ variable, want string }{
		"the configuration's":  {"", "in force: 123456789\n"},
		"that of the variable": {"GOMEMLIMIT=777777777", "in force: 777777777\n"},
	} {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSetter$")
		child.Env = append(os.Environ(), "HTTVPS_TEST_MEMORY=123456789", tc.variable)
		out, err := child.Output()
		if err != nil || !strings.Contains(string(out), tc.want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
