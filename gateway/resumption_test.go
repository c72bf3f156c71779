package gateway_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/sstest"
)

// lastingDevice enrols one whose sessions can be resumed.
func (s *service) lastingDevice(t *testing.T) device {
	t.Helper()
	d := s.enrol(t)
	d.lasting = true
	return d
}

// ask sends a RESUME with the right proof, as bend leaves it, and returns the answer
// and what was sent.
func (d device) ask(t *testing.T, s *service, ready wire.Ready, asked wire.Resumption, bend func([]byte) []byte) (*carrier.Conn, wire.Challenge, wire.Frame, []byte) {
	t.Helper()
	conn, challenge := d.open(t, s.url, s.trust)
	asked.Proof = asked.Prove(ready.ResumeSecret, challenge.Nonce, bindingOf(t, conn, ready))
	sent := wire.AppendResume(nil, asked)
	if bend != nil {
		sent = bend(sent)
	}
	if err := conn.WriteMessage(sent); err != nil {
		t.Fatal(err)
	}
	message, err := conn.ReadMessage(nil)
	if err != nil {
		t.Fatalf("the answer to RESUME: %v", err)
	}
	answer, _, err := wire.ConsumeFrame(message)
	if err != nil {
		t.Fatal(err)
	}
	return conn, challenge, answer, sent
}

// bindingOf is what proofs of a session are bound to on a connection.
func bindingOf(t *testing.T, conn *carrier.Conn, ready wire.Ready) []byte {
	t.Helper()
	if !ready.Capabilities.Has(wire.ChannelBinding) {
		return nil
	}
	binding, err := conn.ExportKeyingMaterial()
	if err != nil {
		t.Fatal(err)
	}
	return binding
}

// resume has the tunnel go on over another carrier.
func (d device) resume(t *testing.T, s *service, tun *tunnel, attempt uint64) []byte {
	t.Helper()
	received, err := tun.Park(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := wire.Resumption{SessionID: tun.ready.SessionID, Attempt: attempt, Received: received}
	conn, challenge, answer, sent := d.ask(t, s, tun.ready, asked, nil)
	resumed, err := wire.ParseResumed(answer.Payload)
	if answer.Type != wire.TypeResumed || err != nil {
		t.Fatalf("the gateway answers %v, %v", answer.Type, err)
	}
	if !resumed.Proof.Equal(resumed.Prove(tun.ready.ResumeSecret, challenge.Nonce, asked, bindingOf(t, conn, tun.ready))) {
		t.Fatal("the proof of the answer is wrong")
	}
	_ = conn.SetDeadline(time.Time{})
	if err := tun.Resume(conn, nil, resumed.Received); err != nil {
		t.Fatal(err)
	}
	return sent
}

func wantRefusal(t *testing.T, what string, answer wire.Frame, want wire.Code) {
	t.Helper()
	reject, err := wire.ParseReject(answer.Payload)
	if answer.Type != wire.TypeReject || err != nil || reject.Code != want {
		t.Errorf("%s is answered with %v(%v), %v, want REJECT(%v)", what, answer.Type, reject.Code, err, want)
	}
}

// echoing is a stream through the tunnel to a target that sends back what it gets.
func echoing(t *testing.T, tun *tunnel) (say func(text string)) {
	t.Helper()
	st, err := tun.Open(t.Context(), sstest.ServeTCP(t, sstest.Echo))
	if err != nil {
		t.Fatal(err)
	}
	return func(text string) {
		t.Helper()
		_ = st.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(st, text); err != nil {
			t.Fatalf("write: %v", err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(st, got); err != nil || string(got) != text {
			t.Fatalf("%q has come back as %q, %v", text, got, err)
		}
	}
}

// Whatever asks for a session that is not to be had is refused with its code, and the
// session that it is about goes on.
func TestRefusedResumptionsLeaveTheSessionUnharmed(t *testing.T) {
	t.Parallel()
	times := 10
	if soak {
		times = 200
	}
	s, c := newControlled(t, nil)
	d, other := c.device(t), c.device(t)
	d.lasting, other.lasting = true, true
	tun, foreign := d.connect(t, s.url, s.trust), other.connect(t, s.url, s.trust)
	say := echoing(t, tun)
	recorded := d.resume(t, s, tun, 7)
	say("resumed")
	good := wire.Resumption{SessionID: tun.ready.SessionID, Attempt: 8, Received: 1}
	for i := range times {
		for name, tc := range map[string]struct {
			ready wire.Ready
			asked func(*wire.Resumption)
			bend  func([]byte) []byte
			want  wire.Code
		}{
			"a wrong proof":      {tun.ready, nil, func(b []byte) []byte { b[len(b)-1-i%32] ^= 1 << (i % 8); return b }, wire.CodeSessionUnknown},
			"a recorded RESUME":  {tun.ready, nil, func([]byte) []byte { return bytes.Clone(recorded) }, wire.CodeSessionUnknown},
			"a late attempt":     {tun.ready, func(r *wire.Resumption) { r.Attempt = 7 - uint64(i%7) }, nil, wire.CodeCancelled},
			"a foreign session":  {foreign.ready, nil, nil, wire.CodeSessionUnknown},
			"an unknown session": {tun.ready, func(r *wire.Resumption) { r.SessionID[i%16] ^= 0x55 }, nil, wire.CodeSessionUnknown},
		} {
			asked := good
			if tc.asked != nil {
				tc.asked(&asked)
			}
			conn, _, answer, _ := d.ask(t, s, tc.ready, asked, tc.bend)
			wantRefusal(t, name, answer, tc.want)
			_ = conn.Close()
		}
		say(fmt.Sprint("unharmed ", i))
	}
	if err := tun.Err(); err != nil {
		t.Errorf("the session ended: %v", err)
	}
}

// Numbers that cannot be end the session, and the client is told.
func TestAnRxRSNThatCannotBeEndsTheSession(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	d := c.device(t)
	d.lasting = true
	tun := d.connect(t, s.url, s.trust)
	echoing(t, tun)("hello")
	asked := wire.Resumption{SessionID: tun.ready.SessionID, Attempt: 1, Received: 1000}
	_, _, answer, _ := d.ask(t, s, tun.ready, asked, nil)
	if c, err := wire.ParseClose(answer.Payload); answer.Type != wire.TypeClose || err != nil || c.Code != wire.CodeProtocol {
		t.Errorf("the gateway answers %v(%v), %v", answer.Type, c.Code, err)
	}
	asked.Attempt, asked.Received = 2, 1
	_, _, answer, _ = d.ask(t, s, tun.ready, asked, nil)
	wantRefusal(t, "the session that ended", answer, wire.CodeSessionUnknown)
}

func TestAHelloMayFollowOnTheSameConnection(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	d := c.device(t)
	d.lasting = true
	conn, challenge, answer, _ := d.ask(t, s, wire.Ready{}, wire.Resumption{SessionID: [16]byte{1}, Attempt: 1}, nil)
	wantRefusal(t, "a session of long ago", answer, wire.CodeSessionUnknown)
	if answer := d.introduce(t, conn, challenge, s.url); answer.Type != wire.TypeReady {
		t.Errorf("HELLO is answered with %v", answer.Type)
	}
	// Once: another RESUME is none of the handshake's frames any more.
	conn, _, answer, sent := d.ask(t, s, wire.Ready{}, wire.Resumption{SessionID: [16]byte{1}, Attempt: 1}, nil)
	wantRefusal(t, "a session of long ago", answer, wire.CodeSessionUnknown)
	if err := conn.WriteMessage(sent); err != nil {
		t.Fatal(err)
	}
	message, err := conn.ReadMessage(nil)
	if err != nil || wire.FrameType(message[0]) != wire.TypeClose {
		t.Errorf("a second RESUME is answered with %x, %v", message, err)
	}
}

// A session without a carrier counts here and at the control plane, and ends for all
// reasons that others end for.
func TestASessionWithoutACarrierIsASession(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	d := s.lastingDevice(t)
	tun := d.connect(t, s.url, s.trust)
	echoing(t, tun)("hello")
	_ = tun.conn.Abort()
	s.wantLost(t, 1)
	if here, there := s.sessionsHere(t), s.liveSessions(t); here != 1 || there != 1 {
		t.Errorf("%d sessions here, %d at the control plane, want 1 and 1", here, there)
	}
	s.admin(t, http.MethodPost, "/devices/"+d.id.String()+"/revoke", nil, nil)
	s.wantLost(t, 0)
	_, _, answer, _ := d.ask(t, s, tun.ready, wire.Resumption{SessionID: tun.ready.SessionID, Attempt: 1}, nil)
	wantRefusal(t, "the session of a revoked device", answer, wire.CodeSessionUnknown)
	for deadline := time.Now().Add(20 * time.Second); s.liveSessions(t) != 0; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the control plane does not hear of the end")
		}
	}
}

// wantLost waits until so many sessions have no carrier.
func (s *service) wantLost(t *testing.T, want int) {
	t.Helper()
	line := fmt.Sprintf("httvps_gateway_sessions_without_connection %d\n", want)
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(s.metrics(t), line); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", line)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Of those that wait for their device, the one that has waited longest goes first.
func TestSessionsWithoutACarrierAreBounded(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, func(cfg *gateway.Config) { cfg.Limits.Sessions = 20 })
	var readies []wire.Ready
	d := c.device(t)
	d.lasting = true
	for range 3 {
		tun := d.connect(t, s.url, s.trust)
		echoing(t, tun)("hello")
		lost := len(readies)
		_ = tun.conn.Abort()
		readies = append(readies, tun.ready)
		s.wantLost(t, min(lost+1, 2))
	}
	for i, want := range []wire.FrameType{wire.TypeReject, wire.TypeResumed, wire.TypeResumed} {
		// What came is not known here; all that was sent was applied or comes again.
		_, _, answer, _ := d.ask(t, s, readies[i], wire.Resumption{SessionID: readies[i].SessionID, Attempt: 1, Received: 2}, nil)
		if answer.Type != want {
			t.Errorf("session %d: %v, want %v", i, answer.Type, want)
		}
	}
}

// A device whose own lost session has the last place gets that.
func TestADeviceTakesThePlaceOfItsLostSession(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	full := false
	c.set(func(c *control) {
		c.decide = func(w http.ResponseWriter, _ *http.Request) {
			answer := `{"allowed":true}`
			if full && len(c.ended) == 0 {
				answer = `{"allowed":false,"reason":"session_limit"}`
			}
			full = true
			_, _ = io.WriteString(w, answer)
		}
	})
	d := c.device(t)
	d.lasting = true
	tun := d.connect(t, s.url, s.trust)
	_ = tun.conn.Abort()
	s.wantLost(t, 1)
	if reject := d.wantReject(t, s.url, s.trust, wire.CodeSessionLimit); reject.RetryAfter == 0 {
		t.Error("the device is not told to come back")
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		ended := 0
		c.set(func(c *control) { ended = len(c.ended) })
		if ended == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("its former session has not ended")
		}
		<-time.After(10 * time.Millisecond)
	}
	d.connect(t, s.url, s.trust)
}

// A gateway that keeps no sessions says so, and they end with their carrier.
func TestAGatewayThatKeepsNoSessions(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, func(cfg *gateway.Config) { cfg.Limits.Resume = 0 })
	d := c.device(t)
	d.lasting = true
	d.bend = func(h *wire.Hello) {
		if h.Capabilities.Has(wire.Resume) {
			t.Error("resuming is offered")
		}
	}
	tun := d.connect(t, s.url, s.trust)
	_ = tun.conn.Abort()
	if err := <-tun.ended; errors.Is(err, mux.ErrSilent) {
		t.Error(err)
	}
}
