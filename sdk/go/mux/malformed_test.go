package mux_test

import (
	"testing"
	"testing/synctest"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

const vectorDir = "../../testvectors"

// Every malformed frame and message of the vectors ends the session of whoever gets
// it, with exactly its code: docs/03, part 10. Those of the handshake are played to
// its two ends, in their packages.
func TestMalformedVectorsEndTheSessionWithTheirCode(t *testing.T) {
	played := map[mux.Role]int{}
	for _, v := range muxtest.MalformedVectors(t, vectorDir, "frames.json", "unknown.json", "open.json", "messages.json", "terms.json") {
		if len(v.Bytes) > wire.MaxMessage || ofHandshake(v) {
			continue // no carrier passes it on, or it has no place in a session
		}
		for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
			if v.Type() == wire.TypeOpen && role == mux.Client || v.Type() == wire.TypeOpened && role == mux.Gateway || ofTerms(v, role) {
				continue // from the wrong end, which is a fault of its own
			}
			played[role]++
			t.Run(v.Name+" to the "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, peer := malformed(t, role, v)
					prepare(t, s, peer, v)
					peer.Send(v.Bytes)
					peer.WantClose(v.Code)
				})
			})
		}
	}
	for role, n := range played {
		if n < 100 {
			t.Errorf("role %d met only %d malformed inputs", role, n)
		}
	}
}

// ofHandshake says whether a frame of the vector, which is well-formed as a frame,
// belongs to the handshake.
func ofHandshake(v muxtest.Malformed) bool {
	for f, err := range wire.Frames(v.Bytes) {
		switch f.Type {
		case wire.TypeChallenge, wire.TypeHello, wire.TypeReady, wire.TypeReject, wire.TypeResume, wire.TypeResumed:
			return err == nil
		default:
		}
	}
	return false
}

// ofTerms says whether a frame of part 8.5 is for the other role.
func ofTerms(v muxtest.Malformed, role mux.Role) bool {
	switch v.Type() {
	case wire.TypeReauth:
		return role == mux.Client
	case wire.TypeAuth, wire.TypeLimits, wire.TypeNotice:
		return role == mux.Gateway
	default:
		return false
	}
}

// malformed runs a session for the vector, which knows the frames of part 8.5 where that
// is one.
func malformed(t *testing.T, role mux.Role, v muxtest.Malformed) (*mux.Session, *muxtest.Peer) {
	t.Helper()
	switch v.Type() {
	case wire.TypeReauth, wire.TypeAuth, wire.TypeLimits, wire.TypeNotice:
		s, _, peer := scriptedTerms(t, role, wire.DefaultLimits())
		return s, peer
	default:
		return scripted(t, role, wire.DefaultLimits())
	}
}

// prepare opens the stream or the flow that the vector is for.
func prepare(t *testing.T, s *mux.Session, peer *muxtest.Peer, v muxtest.Malformed) {
	t.Helper()
	id := v.Stream()
	if s.Role() == mux.Gateway {
		o := wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 16, Target: target}
		switch {
		case v.Type() == wire.TypeOpen:
			return
		case v.Kind.Flow():
			o = wire.Open{Kind: v.Kind, Target: target}
			if v.Kind == wire.KindUDPAny {
				o.Target = wire.Addr{}
			}
		}
		peer.Send(wire.AppendOpen(nil, id, o))
		return
	}
	if id > 1 {
		s.SkipIDs(id - 2)
	}
	if v.Kind.Flow() {
		to := target
		if v.Kind == wire.KindUDPAny {
			to = wire.Addr{}
		}
		if _, err := s.OpenFlow(t.Context(), v.Kind, to); err != nil {
			t.Fatal(err)
		}
		peer.WantOpen(id)
		peer.Send(wire.AppendOpened(nil, id, wire.Opened{}))
		return
	}
	go func() { _, _ = s.Open(t.Context(), target) }() // the session's end ends it
	peer.WantOpen(id)
	if v.Type() != wire.TypeOpened {
		peer.Send(wire.AppendOpened(nil, id, wire.Opened{RecvWindow: 1 << 16}))
	}
}
