package reason

import (
	"testing"

	"github.com/httvps/httvps/sdk/go/wire"
)

func TestReasonsAndWireCodesAreOneList(t *testing.T) {
	for _, c := range All() {
		if got := c.Wire().String(); got != string(c) {
			t.Errorf("%s is %s on the wire", c, got)
		}
	}
	named := 0
	for code := wire.CodeInvalidToken; code < wire.CodeRefused; code++ {
		if code.Known() {
			named++
		}
	}
	if named != len(All()) {
		t.Errorf("the wire has %d refusals of a session, the API %d", named, len(All()))
	}
}

func TestATextThatIsNoReasonIsAnInternalErrorOnTheWire(t *testing.T) {
	for _, c := range []Code{"", "Invalid_Token", "reason_from_the_future"} {
		if got := c.Wire(); got != wire.CodeInternal {
			t.Errorf("Code(%q).Wire() = %v, want %v", string(c), got, wire.CodeInternal)
		}
	}
}
