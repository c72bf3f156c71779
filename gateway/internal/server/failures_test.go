package server

import (
	"errors"
	"testing"

	"github.com/httvps/httvps/gateway/internal/protocol"
	"github.com/httvps/httvps/gateway/internal/upstream"
	"github.com/httvps/httvps/sdk/go/wire"
)

// The upstream knows no wire code and the protocol no upstream: here both meet.
func TestEveryFailureOfTheUpstreamHasItsWireCode(t *testing.T) {
	seen := make(map[wire.Code]upstream.Failure)
	for _, failure := range upstream.Failures() {
		code := protocol.CodeOf(&upstream.Error{Failure: failure, Err: errors.ErrUnsupported})
		if other, taken := seen[code]; taken {
			t.Errorf("%s and %s are both %s", failure, other, code)
		}
		seen[code] = failure
		if code == wire.CodeInternal && failure != upstream.Internal {
			t.Errorf("%s has no code", failure)
		}
	}
}
