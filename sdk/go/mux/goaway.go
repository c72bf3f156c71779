package mux

import (
	"errors"

	"github.com/httvps/httvps/sdk/go/wire"
)

// ErrUnprocessed says that the gateway goes away and has not looked at what was opened,
// nor will it: nothing of it has happened, and it may be opened elsewhere.
var ErrUnprocessed = errors.New("the gateway goes away and has not looked at this")

// Drain is the going away of a gateway (docs/03, part 8.4).
type Drain struct {
	// Agreed says that both ends know of it: capability 4 is in force.
	Agreed bool
	// OnGoAway is told, at a client, each time that the gateway says that it goes away.
	// It must not block.
	OnGoAway func(wire.GoAway)
}

// Announce tells the client that this gateway goes away, and that it takes OPENs until
// [Session.GoAway] all the same. g.Last has no meaning. Where the two have not agreed on
// it, nothing is told.
func (s *Session) Announce(g wire.GoAway) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sayGoAway(g)
}

// GoAway tells the client that this gateway goes away, and takes no further OPEN from
// now on: those that come are ignored, be it over another carrier. g.Last has no
// meaning. Where the two have not agreed on it, OPENs are still taken.
func (s *Session) GoAway(g wire.GoAway) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain.Agreed {
		s.last = min(s.last, s.highest)
	}
	s.sayGoAway(g)
}

// sayGoAway has a GOAWAY sent. One that was not sent yet need not be. Called with mu
// held.
func (s *Session) sayGoAway(g wire.GoAway) {
	if s.role != Gateway || !s.drain.Agreed || s.err != nil {
		return
	}
	g.Last = s.last
	s.farewell = wire.AppendGoAway(nil, g)
	s.wake()
}

// composeFarewell appends GOAWAY, for which a message may become longer than others.
// Called with mu held.
func (s *Session) composeFarewell(b *batch) {
	b.buf = append(b.buf, s.farewell...)
	s.farewell = nil
}

// readGoAway notes that the gateway goes away. What it has not looked at has failed.
func (s *Session) readGoAway(payload []byte) error {
	if !s.drain.Agreed {
		return &wire.Error{Code: wire.CodeUnsupported, What: "GOAWAY without its capability"}
	}
	g, err := wire.ParseGoAway(payload)
	switch {
	case err != nil:
		return err
	case s.role != Client:
		return protocolError("GOAWAY from the client")
	}
	s.mu.Lock()
	if g.Last > s.last {
		s.mu.Unlock()
		return protocolError("GOAWAY: last_stream_id over an earlier one")
	}
	if s.last == wire.AllOpens && g.Last < wire.AllOpens {
		close(s.shut)
	}
	s.last = g.Last
	var (
		streams []*Stream
		flows   []*Flow
	)
	for id, st := range s.streams {
		if id > g.Last {
			streams = append(streams, st)
		}
	}
	for id, f := range s.flows {
		if id > g.Last {
			flows = append(flows, f)
		}
	}
	s.mu.Unlock()
	for _, st := range streams {
		st.ignored()
	}
	for _, f := range flows {
		f.ignored()
	}
	if s.drain.OnGoAway != nil {
		s.drain.OnGoAway(g)
	}
	return nil
}

// shutLocked says whether the gateway takes no further OPEN. Called with mu held.
func (s *Session) shutLocked() bool { return s.last < wire.AllOpens }

// ignored ends a stream that the gateway has not looked at. It is told nothing.
func (st *Stream) ignored() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return
	}
	st.fail(ErrUnprocessed)
	st.s.forget(st, false)
}

// ignored ends a flow that the gateway has not looked at.
func (f *Flow) ignored() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	f.fail(ErrUnprocessed)
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	delete(f.s.flows, f.id)
	f.s.uncount(&f.counted, true)
}
