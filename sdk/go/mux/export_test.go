package mux

// Role says which end s is.
func (s *Session) Role() Role { return s.role }

// Reserved is what streams hold of the session's budget, and the part of it that
// is above their floors.
func (s *Session) Reserved() (all, grown uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.budget.reserved, s.budget.grown
}

// SkipIDs has the next stream have a higher id than this.
func (s *Session) SkipIDs(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.highest = id
}

// Waiters is how many calls wait for the answer to a PING.
func (s *Session) Waiters() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ping == nil {
		return 0
	}
	return len(s.ping.waiters)
}

// Window is how far st's credit is kept ahead of its reader.
func (st *Stream) Window() uint64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.window
}

// Use makes m hold n bytes more.
func (m *Memory) Use(n int64) { m.add(n) }

// PingSent says whether a PING is under way that was put into a batch.
func (s *Session) PingSent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ping != nil && !s.ping.sent.IsZero()
}

// Waiting is what the session holds of its budget besides credit: in its history,
// and of streams' bytes that wait to be sent.
func (s *Session) Waiting() (history, pending uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history.held, uint64(s.pending.Load())
}

// Received is how many reliable frames were applied.
func (s *Session) Received() uint64 { return s.in.rsn.Load() }
