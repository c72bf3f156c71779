// Package origin is the far end of every measurement: a TCP server that costs
// next to nothing, the same for all contenders. The first byte of a connection
// says what is wanted.
package origin

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// What the first byte asks for.
const (
	// Download: bytes until the client ends its direction, then their number
	// (8 bytes, big endian) and the end.
	Download = 'd'
	// Upload: the bytes are read to their end, the answer is their number.
	Upload = 'u'
	// Echo: bytes come back as they are.
	Echo = 'e'
	// Stall: nothing is read until somebody asks for Release.
	Stall = 's'
	// Release ends all that is stalled; the answer is one byte.
	Release = 'r'
)

// CountLen is the length of the number behind a download, in bytes.
const CountLen = 8

// chunk is what is moved at once: large, so that the calls are few.
const chunk = 128 << 10

// Server is an origin.
type Server struct {
	pattern []byte
	buffers sync.Pool
	unsent  int

	mu       sync.Mutex // guards released
	released chan struct{}
}

// New returns a server that has released nothing. unsent is how many bytes of a
// download may wait in the system, so that the end of many downloads does not
// take long; 0: as the system likes, which a long path needs.
func New(unsent int) *Server {
	return &Server{
		unsent:   unsent,
		pattern:  make([]byte, chunk),
		buffers:  sync.Pool{New: func() any { return new([chunk]byte) }},
		released: make(chan struct{}),
	}
}

// Serve answers connections until ctx ends. It closes ln, and when it returns
// every connection has ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var handlers sync.WaitGroup
	defer handlers.Wait()
	defer ln.Close()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		handlers.Go(func() {
			defer conn.Close()
			unblock := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer unblock()
			if tcp, ok := conn.(*net.TCPConn); ok {
				s.serve(ctx, tcp)
			}
		})
	}
}

// serve answers one connection. Its errors are the client's to find: it counts.
func (s *Server) serve(ctx context.Context, conn *net.TCPConn) {
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return
	}
	switch first[0] {
	case Download:
		s.download(conn)
	case Upload:
		n, err := s.drain(conn)
		if err == nil {
			_, _ = conn.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
		}
	case Echo:
		echo(conn)
	case Stall:
		s.stall(ctx, conn)
	case Release:
		s.mu.Lock()
		close(s.released)
		s.released = make(chan struct{})
		s.mu.Unlock()
		_, _ = conn.Write([]byte{Release})
	}
}

func (s *Server) download(conn *net.TCPConn) {
	if s.unsent > 0 {
		_ = conn.SetWriteBuffer(s.unsent)
	}
	var ended atomic.Bool
	var watching sync.WaitGroup
	defer func() {
		_ = conn.Close() // unblocks the watcher
		watching.Wait()
	}()
	watching.Go(func() {
		var rest [1]byte
		if _, err := conn.Read(rest[:]); !errors.Is(err, io.EOF) {
			_ = conn.SetLinger(0) // neither an end nor a download: break it off
			_ = conn.Close()
		}
		ended.Store(true)
	})
	var sent uint64
	for !ended.Load() {
		n, err := conn.Write(s.pattern)
		sent += uint64(n)
		if err != nil {
			return
		}
	}
	_, _ = conn.Write(binary.BigEndian.AppendUint64(nil, sent))
	_ = conn.CloseWrite()
}

// drain reads to the end and returns how much that was.
func (s *Server) drain(conn net.Conn) (total int64, err error) {
	buf, _ := s.buffers.Get().(*[chunk]byte)
	defer s.buffers.Put(buf)
	for {
		n, err := conn.Read(buf[:])
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func echo(conn net.Conn) {
	var buf [2 << 10]byte
	for {
		n, err := conn.Read(buf[:])
		if n > 0 {
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (s *Server) stall(ctx context.Context, conn net.Conn) {
	s.mu.Lock()
	released := s.released
	s.mu.Unlock()
	select {
	case <-released:
		_, _ = s.drain(conn)
	case <-ctx.Done():
	}
}
