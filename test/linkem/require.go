package linkem

import "os"

// TB is what New and Require need of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Cleanup(func())
	Skipf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Require skips the test, and says why, where links cannot be opened. It fails
// the test instead when CI=true is in the environment and this is root: there a
// skipped test would be one that never runs.
func Require(t TB) {
	t.Helper()
	require(t, Supported(), os.Getenv("CI") == "true" && os.Geteuid() == 0)
}

func require(t TB, unsupported error, must bool) {
	t.Helper()
	switch {
	case unsupported == nil:
	case must:
		t.Fatalf("no emulated link, and CI=true asks for one: %v", unsupported)
	default:
		t.Skipf("no emulated link: %v", unsupported)
	}
}

// New opens a link for the length of a test, after Require.
func New(t TB, config Config) *Link {
	t.Helper()
	Require(t)
	l, err := Open(config)
	if err != nil {
		t.Fatalf("%v", err)
		return nil
	}
	t.Cleanup(func() {
		t.Helper()
		if err := l.Close(); err != nil {
			t.Errorf("link: %v", err)
		}
	})
	return l
}
