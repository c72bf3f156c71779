package httvpstest

import (
	"context"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// parkTimeout is what a carrier has to be out of use.
const parkTimeout = time.Second

// kept is a session that can be resumed.
type kept struct {
	session *mux.Session
	conn    *carrier.Conn // the latest
	ready   wire.Ready
	attempt uint64
}

// Break breaks the connections of all sessions, as a network does. Those that can be
// resumed wait for their devices.
func (s *Service) Break() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		_ = k.conn.Abort()
	}
}

// ForgetSessions makes the gateways know no session any more that could be resumed.
func (s *Service) ForgetSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.kept)
}

// keep remembers a session that can be resumed.
func (s *Service) keep(session *mux.Session, conn *carrier.Conn, ready wire.Ready) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[ready.SessionID] = &kept{session: session, conn: conn, ready: ready}
}

// resume is the gateway's side of a RESUME, part 8.3 of the protocol document, and
// reports whether the carrier has a session now.
func (s *Service) resume(conn *carrier.Conn, frame wire.Frame, rest []byte, challenge wire.Challenge) bool {
	asked, err := wire.ParseResume(frame.Payload)
	if err != nil {
		return false
	}
	s.mu.Lock()
	k := s.kept[asked.SessionID]
	s.mu.Unlock()
	var binding []byte
	if k == nil {
		return false
	}
	if k.ready.Capabilities.Has(wire.ChannelBinding) {
		if binding, err = conn.ExportKeyingMaterial(); err != nil {
			return false
		}
	}
	if !asked.Proof.Equal(asked.Prove(k.ready.ResumeSecret, challenge.Nonce, binding)) || asked.Attempt <= k.attempt {
		return false
	}
	k.attempt = asked.Attempt
	ctx, cancel := context.WithTimeout(context.Background(), parkTimeout)
	defer cancel()
	answer := wire.Resumed{}
	if answer.Received, err = k.session.Park(ctx); err != nil || k.session.Judge(asked.Received) != nil {
		return false
	}
	answer.Proof = answer.Prove(k.ready.ResumeSecret, challenge.Nonce, asked, binding)
	if s.opts.BendResumed != nil {
		s.opts.BendResumed(&answer)
	}
	if conn.WriteMessage(wire.AppendResumed(nil, answer)) != nil {
		return false
	}
	_ = conn.SetDeadline(time.Time{})
	s.mu.Lock()
	k.conn = conn
	s.mu.Unlock()
	return k.session.Resume(conn, rest, asked.Received) == nil
}
