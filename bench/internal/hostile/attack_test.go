package hostile

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/sdk/go/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func frame(t *testing.T, message []byte) wire.Frame {
	t.Helper()
	f, _, err := wire.ConsumeFrame(message)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTheFirstRefusalForHasteIsWhenTheGatewayHadEnough(t *testing.T) {
	a := &attack{start: time.Now().Add(-time.Hour)}
	a.take(frame(t, wire.AppendReset(nil, 1, wire.CodeConnRefused))) // a target's doing
	if a.result.Stopped != 0 {
		t.Errorf("%+v after a target refused", a.result)
	}
	a.take(frame(t, wire.AppendReset(nil, 3, wire.CodeEnhanceCalm)))
	first := a.result
	if first.Stopped < 3600 || first.Code != "enhance_calm" || first.Ended {
		t.Errorf("%+v after a refusal for haste", first)
	}
	a.take(frame(t, wire.AppendClose(nil, wire.Close{Code: wire.CodeEnhanceCalm})))
	first.Ended = true
	if a.result != first {
		t.Errorf("%+v after the end, want %+v", a.result, first)
	}
}

func TestCreditOnlyGrows(t *testing.T) {
	a := &attack{}
	a.take(frame(t, wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 500})))
	a.take(frame(t, wire.AppendCredit(nil, 1, 900)))
	a.take(frame(t, wire.AppendCredit(nil, 1, 700)))
	if got := a.creditOf(1); got != 900 {
		t.Errorf("credit %d, want 900", got)
	}
}

func TestAnAttackNeedsAnAddress(t *testing.T) {
	if _, err := Run(t.Context(), Spec{Target: "nowhere"}, nil, nil, nil); err == nil {
		t.Error("no error")
	}
}
