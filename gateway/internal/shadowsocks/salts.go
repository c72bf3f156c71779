package shadowsocks

import (
	"hash/maphash"
	"sync"
)

// saltMemory is how many salts are remembered at least; at most twice as many.
const saltMemory = 1 << 14

// salts remembers the latest salts that were sent or received. One that comes
// again is a recording of somebody on the way, or what we sent ourselves.
type salts struct {
	once sync.Once
	seed maphash.Seed

	mu           sync.Mutex // guards the following fields
	now, earlier map[uint64]struct{}
}

// add reports whether salt was not there yet.
func (s *salts) add(salt []byte) bool {
	s.once.Do(func() { s.seed = maphash.MakeSeed() })
	sum := maphash.Bytes(s.seed, salt) // nobody can aim at a seed that he does not know
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, seen := s.now[sum]; seen {
		return false
	}
	if _, seen := s.earlier[sum]; seen {
		return false
	}
	if len(s.now) >= saltMemory {
		s.now, s.earlier = nil, s.now
	}
	if s.now == nil {
		s.now = make(map[uint64]struct{})
	}
	s.now[sum] = struct{}{}
	return true
}
