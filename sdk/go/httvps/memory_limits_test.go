package httvps

import (
	"testing"

	"github.com/httvps/httvps/sdk/go/wire"
)

func TestAGatewayCannotAllowMoreStreamsThanThereIsMemoryFor(t *testing.T) {
	for name, tc := range map[string]struct {
		memory        Memory
		allowed, want uint64
	}{
		"few":               {Desktop, 10, 10},
		"many":              {Desktop, 1 << 20, 1024},
		"many for a mobile": {Mobile, 1 << 20, 256},
	} {
		allowed := wire.DefaultLimits()
		allowed.MaxStreams = tc.allowed
		want := allowed
		want.MaxStreams = tc.want
		if got := tc.memory.limits(allowed); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
