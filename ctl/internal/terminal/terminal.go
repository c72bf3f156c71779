// Package terminal talks to the person at the keyboard: is there one, what do
// they type, and what may be shown to them.
package terminal

import (
	"context"
	"errors"
	"strings"
	"unicode"
)

// maxLine bounds what a person may type. A terminal's own limit is 4,096.
const maxLine = 4096

// ErrClosed says that the terminal ended before a line was complete.
var ErrClosed = errors.New("the terminal was closed before an answer came")

// ReadLine reads one line without its end. It waits until ctx ends.
func (t *Terminal) ReadLine(ctx context.Context) (string, error) { return t.readLine(ctx) }

// Clean makes text safe to show: what could move the cursor, colour the screen
// or turn the direction of writing becomes a space. Names come from people and
// devices, and a terminal obeys what it is sent.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar ||
			r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}
