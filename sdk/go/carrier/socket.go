package carrier

import (
	"net"
	"sync"

	"github.com/httvps/httvps/sdk/go/lazy"
)

// socket is the connection below TLS. It holds written TLS records back, so that
// several leave in one system call, and tells its reader's owner before it waits.
//
// A system call for each record of 16 KiB is a good part of what a byte costs
// (docs/adr/0009).
type socket struct {
	net.Conn

	in   lazy.Reader
	wait func() // called before a Read waits; nil: nobody wants to know
	dst  [1]direct

	mu      sync.Mutex // guards what follows: who reads TLS answers some of it, beside the writer
	holding bool
	held    *[]byte // from heldPool; nil when empty
	broken  error   // of a write that was cut off: nothing may follow it
}

// heldMost is how many bytes are held back at most: a batch of 64 KiB with its
// TLS records' headers.
const heldMost = 80 << 10

var heldPool = sync.Pool{New: func() any {
	b := make([]byte, 0, heldMost)
	return &b
}}

func newSocket(conn net.Conn) *socket {
	tuneTCP(conn)
	return &socket{Conn: conn, in: lazy.NewReader(conn)}
}

// direct is the space of a Read, which is there anyway.
type direct struct {
	p    []byte
	wait func()
}

func (d *direct) Take() []byte { return d.p }

func (d *direct) Return(wait bool) {
	if wait && d.wait != nil {
		d.wait()
	}
}

func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.dst[0] = direct{p: p, wait: s.wait}
	return s.in.ReadLazy(&s.dst[0])
}

// hold has writes held back until flush.
func (s *socket) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = true
}

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.holding {
		return s.send(p)
	}
	if s.held == nil {
		s.held, _ = heldPool.Get().(*[]byte)
	}
	if len(*s.held)+len(p) > heldMost {
		if err := s.sendHeld(); err != nil {
			return 0, err
		}
	}
	if len(p) > heldMost {
		return s.send(p)
	}
	*s.held = append(*s.held, p...)
	return len(p), nil
}

// send sends p, unless something before it was cut off. Called with mu held.
func (s *socket) send(p []byte) (int, error) {
	if s.broken != nil {
		return 0, s.broken
	}
	n, err := s.Conn.Write(p)
	s.broken = err
	return n, err
}

// sendHeld sends what is held back, and goes on holding. Called with mu held.
func (s *socket) sendHeld() error {
	if len(*s.held) == 0 {
		return nil
	}
	_, err := s.send(*s.held)
	*s.held = (*s.held)[:0]
	return err
}

// flush sends what is held back.
func (s *socket) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = false
	if s.held == nil {
		return nil
	}
	err := s.sendHeld()
	heldPool.Put(s.held)
	s.held = nil
	return err
}

// Listener returns a listener whose connections send as carriers should. It
// belongs between the TCP listener and TLS.
func Listener(ln net.Listener) net.Listener { return listener{ln} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newSocket(conn), nil
}

// NetConn returns the connection below.
func (s *socket) NetConn() net.Conn { return s.Conn }
