package mux_test

import (
	"encoding/json"
	"io"
	"os"
	"testing"
	"testing/synctest"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// creditTrace is one of sdk/testvectors/credit.json; the README beside it says what
// the fields are.
type creditTrace struct {
	Name        string       `json:"name"`
	To          string       `json:"to"`
	EarlyWindow uint64       `json:"early_window"`
	Window      uint64       `json:"window"`
	Early       uint64       `json:"early"`
	Steps       []creditStep `json:"steps"`
	Error       string       `json:"error"`
}

type creditStep struct {
	Opened  *uint64 `json:"opened"`
	Send    *uint64 `json:"send"`
	Fin     *uint64 `json:"fin"`
	Consume *uint64 `json:"consume"`
	Credit  *uint64 `json:"credit"`

	Limit uint64 `json:"limit"`
	Held  uint64 `json:"held"`
}

func (tr creditTrace) toGateway() bool { return tr.To == "gateway" }

// code is that of the trace's error when step i breaks a rule, -1 being the OPEN.
func (tr creditTrace) code(i int) wire.Code {
	if i < len(tr.Steps)-1 {
		return wire.CodeNoError
	}
	code, _ := wire.ParseCode(tr.Error)
	return code
}

func (tr creditTrace) limits() wire.Limits {
	l := wire.DefaultLimits()
	l.EarlyWindow = tr.EarlyWindow
	return l
}

func creditTraces(t *testing.T) []creditTrace {
	t.Helper()
	text, err := os.ReadFile("../../testvectors/credit.json")
	if err != nil {
		t.Fatal(err)
	}
	var traces []creditTrace
	if err := json.Unmarshal(text, &traces); err != nil {
		t.Fatal(err)
	}
	if len(traces) == 0 {
		t.Fatal("no traces")
	}
	return traces
}

// openClient has a client open stream 1, and returns where it comes when the
// gateway confirms it.
func openClient(t *testing.T, client *mux.Session, peer *muxtest.Peer) <-chan *mux.Stream {
	t.Helper()
	opened := make(chan *mux.Stream, 1)
	go func() {
		if st, err := client.Open(t.Context(), target); err == nil {
			opened <- st
		}
	}()
	peer.WantOpen(1)
	return opened
}

// Each trace's receiver is played to a sender that always has more to send.
func TestSenderKeepsToTheCreditOfEveryTrace(t *testing.T) {
	for _, tr := range creditTraces(t) {
		t.Run(tr.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playReceiver(t, tr) })
		})
	}
}

func playReceiver(t *testing.T, tr creditTrace) {
	t.Helper()
	role := mux.Gateway
	if tr.toGateway() {
		role = mux.Client
	}
	s, peer := scripted(t, role, tr.limits())
	var st *mux.Stream
	var opened <-chan *mux.Stream
	if role == mux.Gateway {
		peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, RecvWindow: tr.Window, Target: target}))
		st = mustAccept(t, s)
	} else {
		opened = openClient(t, s, peer)
	}
	peer.WantQuiet()
	sent := uint64(0)
	for i, step := range tr.Steps {
		switch {
		case step.Opened != nil && role == mux.Gateway:
			if err := st.Confirm(); err != nil {
				t.Fatal(err)
			}
			peer.WantOpened(1)
		case step.Opened != nil:
			peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: *step.Opened}))
		case step.Credit != nil:
			peer.Send(wire.AppendCredit(nil, 1, *step.Credit))
		default: // of the other end's sender, and of its application
			continue
		}
		if code := tr.code(i); code != wire.CodeNoError {
			peer.WantClose(code)
			return
		}
		if step.Opened != nil {
			if role == mux.Client {
				st = <-opened
			}
			go func() { _, _ = st.ReadFrom(zeros{}) }() // the session's end ends it
		}
		limit := min(step.Limit, 1<<20) // no limit at all is not waited for
		for sent < limit {
			sent += uint64(len(peer.Want(wire.TypeData, 1)))
		}
		if limit == step.Limit {
			if sent != limit {
				t.Fatalf("step %d: %d bytes were sent, %d were allowed", i, sent, limit)
			}
			peer.WantQuiet()
		}
	}
}

// Each trace's sender is played to a receiver, as far as that grants what the
// trace says: what it grants after that is its own choice.
func TestReceiverJudgesTheBytesOfEveryTrace(t *testing.T) {
	for _, tr := range creditTraces(t) {
		if tr.toGateway() || tr.Error == wire.CodeProtocol.String() {
			t.Run(tr.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { playSender(t, tr) })
			})
		}
	}
}

func playSender(t *testing.T, tr creditTrace) {
	t.Helper()
	role := mux.Client
	if tr.toGateway() {
		role = mux.Gateway
	}
	s, peer := scripted(t, role, tr.limits())
	var st *mux.Stream
	if role == mux.Client {
		openClient(t, s, peer)
	} else {
		peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, Target: target, Early: make([]byte, tr.Early)}))
		if code := tr.code(-1); code != wire.CodeNoError {
			peer.WantClose(code)
			return
		}
		st = mustAccept(t, s)
	}
	for i, step := range tr.Steps {
		switch {
		case step.Opened != nil && role == mux.Gateway:
			return // from here on, this end grants more
		case step.Opened != nil:
			peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: *step.Opened}))
		case step.Send != nil:
			peer.Send(wire.AppendData(nil, 1, make([]byte, *step.Send)))
		case step.Fin != nil:
			peer.Send(wire.AppendFin(nil, 1, make([]byte, *step.Fin)))
		case step.Consume != nil:
			if _, err := io.ReadFull(st, make([]byte, *step.Consume)); err != nil {
				t.Fatal(err)
			}
		case role == mux.Gateway: // CREDIT before OPENED, from this end
			return
		}
		if code := tr.code(i); code != wire.CodeNoError {
			peer.WantClose(code)
			return
		}
		synctest.Wait()
		if held, _ := s.Reserved(); role == mux.Gateway && held != step.Held {
			t.Errorf("step %d: %d bytes are set aside, want %d", i, held, step.Held)
		}
	}
}
