package upstream

import (
	"context"
	"sync"
	"time"
)

// badFor is how long a server that a session has reported is given to others only
// where there is no better one. A probe that works ends it.
const badFor = 30 * time.Second

// Static is an [Assigner] for servers that are known beforehand. It spreads the
// sessions evenly over those that work.
type Static struct {
	mu       sync.Mutex // guards the following fields
	servers  []*place
	sessions map[[16]byte]*place
}

// place is a server in a [Static].
type place struct {
	server   Server
	sessions int
	badUntil time.Time
	down     bool // says the latest probe
}

// NewStatic returns a Static for servers, whose IDs differ.
func NewStatic(servers []Server) *Static {
	s := &Static{sessions: make(map[[16]byte]*place)}
	for _, server := range servers {
		s.servers = append(s.servers, &place{server: server})
	}
	return s
}

// Assign implements [Assigner].
func (s *Static) Assign(_ context.Context, session [16]byte, failed Failed) (Assignment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	current := s.sessions[session]
	if current != nil && current.server.ID != failed.ID {
		return Assignment{Server: current.server}, nil
	}
	if current != nil {
		current.badUntil = now.Add(badFor)
	}
	best := s.best(now)
	if best == nil {
		return Assignment{}, ErrNoServer
	}
	if current != nil {
		current.sessions--
	}
	best.sessions++
	s.sessions[session] = best
	return Assignment{Server: best.server}, nil
}

// best returns the server with the fewest sessions of those that work, or of all
// when none does. Called with mu held.
func (s *Static) best(now time.Time) *place {
	var best *place
	for _, p := range s.servers {
		if best == nil || p.better(best, now) {
			best = p
		}
	}
	return best
}

// better reports whether p is to be had before q.
func (p *place) better(q *place, now time.Time) bool {
	if bad, other := p.bad(now), q.bad(now); bad != other {
		return !bad
	}
	if p.badUntil.After(now) && !p.badUntil.Equal(q.badUntil) { // both are bad: the one that failed longer ago
		return p.badUntil.Before(q.badUntil)
	}
	return p.sessions < q.sessions
}

func (p *place) bad(now time.Time) bool { return p.down || now.Before(p.badUntil) }

// Release implements [Assigner].
func (s *Static) Release(session [16]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.sessions[session]; p != nil {
		p.sessions--
		delete(s.sessions, session)
	}
}

// Probed implements [Assigner].
func (s *Static) Probed(probe Probe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.servers {
		if p.server == probe.Server {
			if p.down = !probe.TCP.OK; !p.down {
				p.badUntil = time.Time{}
			}
		}
	}
}
