package lazy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/lazy"
)

// space is one buffer that knows whether it is out.
type space struct {
	mu     sync.Mutex
	buf    []byte
	out    bool
	faults int
	waits  chan struct{} // one for each time that it came back for a wait
}

func newSpace(size int) *space {
	return &space{buf: make([]byte, size), waits: make(chan struct{}, 1000)}
}

func (s *space) Take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out {
		s.faults++
	}
	s.out = true
	return s.buf
}

func (s *space) Return(wait bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.out {
		s.faults++
	}
	s.out = false
	if wait {
		s.waits <- struct{}{}
	}
}

// check fails when the space is out though nothing was read, or in though
// something was.
func (s *space) check(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != (n > 0) || s.faults > 0 {
		t.Errorf("after %d bytes: space out: %v, taken or returned twice: %d times", n, s.out, s.faults)
	}
	s.out = false
}

// sockets returns the two ends of a TCP connection.
func sockets(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	near, far = a.(*net.TCPConn), b.(*net.TCPConn) //nolint:forcetypeassert // it was asked for
	return near, far
}

// pipes returns connections that are no sockets of the system's.
func pipes(t *testing.T) (near, far net.Conn) {
	t.Helper()
	near, far = net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

// ends are the kinds of connections; all of them behave alike.
var ends = map[string]func(t *testing.T) (near, far net.Conn){
	"socket": func(t *testing.T) (net.Conn, net.Conn) { return sockets(t) }, //nolint:thelper // it makes connections
	"pipe":   pipes,
}

func TestEveryByteIsReadInOrder(t *testing.T) {
	for name, dial := range ends {
		t.Run(name, func(t *testing.T) {
			near, far := dial(t)
			want := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				for p := want; len(p) > 0; {
					n, err := far.Write(p[:min(len(p), 7001)])
					if err != nil {
						t.Errorf("Write: %v", err)
						return
					}
					p = p[n:]
				}
				_ = far.Close()
			})
			r, s := lazy.NewReader(near), newSpace(4096)
			var got []byte
			for {
				n, err := r.ReadLazy(s)
				got = append(got, s.buf[:n]...)
				s.check(t, n)
				if err != nil {
					if !errors.Is(err, io.EOF) || n != 0 {
						t.Errorf("ReadLazy = %d, %v", n, err)
					}
					break
				}
				for len(s.waits) > 0 {
					<-s.waits
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, or others", len(got), len(want))
			}
		})
	}
}

// A reader that waits on a socket holds no space, however long that takes; one
// that cannot tell says first that it may wait.
func TestNoSpaceIsHeldWhileASocketWaits(t *testing.T) {
	near, far := sockets(t)
	r, s := lazy.NewReader(near), newSpace(100)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-s.waits
		s.mu.Lock()
		out := s.out
		s.mu.Unlock()
		if out {
			t.Error("space is held")
		}
		_, _ = far.Write([]byte("x"))
	})
	n, err := r.ReadLazy(s)
	if n != 1 || err != nil || s.buf[0] != 'x' {
		t.Errorf("ReadLazy = %d, %v", n, err)
	}
	s.check(t, n)
}

func TestAPipeSaysThatItMayWait(t *testing.T) {
	near, far := pipes(t)
	r, s := lazy.NewReader(near), newSpace(100)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-s.waits
		_, _ = far.Write([]byte("x"))
	})
	n, err := r.ReadLazy(s)
	if n != 1 || err != nil {
		t.Errorf("ReadLazy = %d, %v", n, err)
	}
	s.check(t, n)
}

// What is there already needs no wait.
func TestASocketWithBytesDoesNotSayThatItWaits(t *testing.T) {
	near, far := sockets(t)
	if _, err := far.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	r, s := lazy.NewReader(near), newSpace(1)
	for range 5 { // the first of them may wait
		if n, err := r.ReadLazy(s); n != 1 || err != nil {
			t.Fatalf("ReadLazy = %d, %v", n, err)
		}
		s.check(t, 1)
	}
	if len(s.waits) > 1 {
		t.Errorf("said %d times that it waits", len(s.waits))
	}
}

func TestAResetIsAnErrorOfPackageNet(t *testing.T) {
	near, far := sockets(t)
	_ = far.SetLinger(0)
	_ = far.Close()
	s := newSpace(100)
	n, err := lazy.NewReader(near).ReadLazy(s)
	op, ok := errors.AsType[*net.OpError](err)
	if n != 0 || !ok || !errors.Is(err, syscall.ECONNRESET) || op.Op != "read" || op.Net != "tcp" {
		t.Errorf("ReadLazy = %d, %v", n, err)
	}
	s.check(t, 0)
}

func TestDeadlinesEndAWait(t *testing.T) {
	for name, dial := range ends {
		t.Run(name, func(t *testing.T) {
			near, far := dial(t)
			r, s := lazy.NewReader(near), newSpace(100)
			for _, by := range []time.Duration{-time.Second, 20 * time.Millisecond} {
				_ = near.SetReadDeadline(time.Now().Add(by))
				n, err := r.ReadLazy(s)
				timeout, ok := errors.AsType[net.Error](err)
				if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !ok || !timeout.Timeout() {
					t.Errorf("ReadLazy = %d, %v", n, err)
				}
				s.check(t, 0)
			}
			_ = near.SetReadDeadline(time.Time{})
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() { _, _ = far.Write([]byte("x")) })
			if n, err := r.ReadLazy(s); n != 1 || err != nil {
				t.Errorf("after the deadline: %d, %v", n, err)
			}
			s.check(t, 1)
		})
	}
}

func TestCloseEndsAWait(t *testing.T) {
	for name, tc := range map[string]struct {
		dial func(t *testing.T) (near, far net.Conn)
		want error
	}{
		"socket": {ends["socket"], net.ErrClosed},
		"pipe":   {ends["pipe"], io.ErrClosedPipe}, // as net.Pipe has it
	} {
		t.Run(name, func(t *testing.T) {
			near, _ := tc.dial(t)
			r, s := lazy.NewReader(near), newSpace(100)
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				<-s.waits
				_ = near.Close()
			})
			for range 2 { // in the wait, and after it
				n, err := r.ReadLazy(s)
				if n != 0 || !errors.Is(err, tc.want) {
					t.Errorf("ReadLazy = %d, %v", n, err)
				}
				s.check(t, 0)
			}
		})
	}
}

// own is a connection that is a Reader.
type own struct{ net.Conn }

func (own) ReadLazy(lazy.Space) (int, error) { return 0, io.EOF }

func TestAConnectionThatIsAReaderIsItsOwn(t *testing.T) {
	conn := own{}
	if got := lazy.NewReader(conn); got != lazy.Reader(conn) {
		t.Errorf("NewReader = %T", got)
	}
}

func TestAReadAllocatesNothing(t *testing.T) {
	near, far := sockets(t)
	r, s := lazy.NewReader(near), newSpace(1)
	x := []byte("x")
	if n := testing.AllocsPerRun(100, func() {
		_, _ = far.Write(x)
		_, _ = r.ReadLazy(s)
		s.Return(false)
	}); n > 0 {
		t.Errorf("%v allocations a read", n)
	}
}
