package mux

// DatagramBytes is what the datagrams that wait hold, and what they may.
func (s *Session) DatagramBytes() (held, most int64) {
	return s.datagram.Load(), s.maxDatagramBytes()
}
