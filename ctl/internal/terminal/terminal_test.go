package terminal_test

import (
	"testing"

	"github.com/httvps/httvps/ctl/internal/terminal"
)

func TestCleanLeavesNothingThatATerminalObeys(t *testing.T) {
	for text, want := range map[string]string{
		"Zoë's фон 電話":     "Zoë's фон 電話",
		"a\x1b[31mb":       "a [31mb",
		"a\r\nb\tc":        "a  b c",
		"a\u009b31mb":      "a 31mb",
		"a\u202eb\u2066c":  "a b c",
		"a\u2028b":         "a b",
		"a\xffb":           "a b",
		"https://h/#x&y=z": "https://h/#x&y=z",
	} {
		if got := terminal.Clean(text); got != want {
			t.Errorf("Clean(%q) = %q, want %q", text, got, want)
		}
	}
}
