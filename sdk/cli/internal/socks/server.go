// Package socks is a SOCKS5 server (RFC 1928) for programs on this machine. It
// serves CONNECT, without authentication, over connections that it is handed a
// function for; the names that clients send reach that function unresolved.
package socks

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// Bounds of a server.
const (
	// maxConns is how many clients are served at once; more wait in the
	// system's queue.
	maxConns = 4096

	// handshakeTimeout is how long a client may take to say what it wants.
	handshakeTimeout = 10 * time.Second

	// dialTimeout bounds the wait for a session, for a free place in it and
	// for the target. Clients rarely wait longer.
	dialTimeout = 60 * time.Second

	// replyTimeout bounds the writing of an answer.
	replyTimeout = 10 * time.Second
)

// Server serves SOCKS5. Dial is required; it is given "tcp" and an address with
// the client's name or IP address. Its connections are closed by halves when they
// have CloseRead and CloseWrite, and broken off with Abort when they have that.
type Server struct {
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Serve accepts clients from ln until ctx ends, or ln fails for good. When it
// returns, ln and every connection are closed and every handler has returned.
// The error is nil when ctx ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var handlers sync.WaitGroup
	defer handlers.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	defer func() { _ = ln.Close() }()

	places := make(chan struct{}, maxConns)
	var pause time.Duration
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := ln.Accept()
		if err != nil {
			<-places
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, most likely: connections that end free some.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			if !sleep(ctx, pause) {
				return nil
			}
			continue
		}
		pause = 0
		handlers.Go(func() {
			defer func() { <-places }()
			s.serve(ctx, conn)
		})
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve handles one client. Errors end here: the client has been told what the
// protocol can say, and nobody else is to know where it wanted to go.
func (s *Server) serve(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()

	req, err := handshake(client)
	if err != nil {
		if fault, ok := errors.AsType[*replyError](err); ok {
			answer(client, fault.reply)
		}
		return
	}
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	target, err := s.Dial(dialCtx, "tcp", req.address())
	cancel()
	if err != nil {
		answer(client, replyFor(err))
		return
	}
	defer func() { _ = target.Close() }()
	stopTarget := context.AfterFunc(ctx, func() { abort(target) })
	defer stopTarget()
	if !answer(client, replySucceeded) {
		return
	}
	relay(client, target)
}

// handshake reads the client's wish within the time there is for it.
func handshake(client net.Conn) (request, error) {
	_ = client.SetDeadline(time.Now().Add(handshakeTimeout))
	if err := readGreeting(client); err != nil {
		if errors.Is(err, errMethods) {
			_, _ = client.Write([]byte{version5, methodUnacceptable})
		}
		return request{}, err
	}
	if _, err := client.Write([]byte{version5, methodNone}); err != nil {
		return request{}, err
	}
	return readRequest(client)
}

// answer writes a reply and leaves the client without deadlines.
func answer(client net.Conn, r reply) bool {
	_ = client.SetDeadline(time.Now().Add(replyTimeout))
	if _, err := client.Write(appendReply(nil, r)); err != nil {
		return false
	}
	return client.SetDeadline(time.Time{}) == nil
}

// replies says what SOCKS5 calls the codes of a tunnel. A code without a row is
// a general failure.
var replies = map[string]reply{
	"policy_denied": replyNotAllowed,
	"refused":       replyNotAllowed,
	"net_unreach":   replyNetworkUnreachable,
	"egress_lost":   replyNetworkUnreachable,
	"host_unreach":  replyHostUnreachable,
	"dns_fail":      replyHostUnreachable,
	"conn_refused":  replyConnectionRefused,
	"target_reset":  replyConnectionRefused,
	"conn_timeout":  replyTTLExpired,
	"unsupported":   replyCommandUnsupported,
}

func replyFor(err error) reply {
	if open, ok := errors.AsType[*httvps.OpenError](err); ok {
		if r, ok := replies[open.Code]; ok {
			return r
		}
		return replyFailure
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return replyTTLExpired
	}
	return replyFailure
}

// relay copies both ways until both directions have ended or one has failed.
// The end of one direction is passed on and leaves the other open.
func relay(client, target net.Conn) {
	in := &source{Conn: client}
	var up sync.WaitGroup
	// sent: the client has ended its direction, and the target has all of it.
	// answered: the target has ended its own, and the client is told so; without a
	// peer is then how every connection ends.
	var sent, answered atomic.Bool
	up.Go(func() {
		_, err := io.Copy(target, in)
		switch {
		case err == nil && (!isBroken(client) || answered.Load()): // asked in this order
			closeWrite(target)
			sent.Store(true)
		case err == nil || in.err != nil:
			// Broken off, not ended: the target must not take what it has for
			// all, and nobody is left to read its answer.
			abort(target)
			_ = client.Close()
		default:
			// The far end reads no more, but may still have something to say.
			closeRead(client)
		}
	})
	if _, err := io.Copy(client, target); err != nil {
		// Cut off, not ended: the client must not take what it has for all, and
		// neither must the target when the client has not said that it was.
		abort(client)
		if sent.Load() {
			_ = target.Close()
		} else {
			abort(target)
		}
	} else {
		answered.Store(true)
		closeWrite(client)
	}
	up.Wait()
}

// source remembers whether reading failed, which io.Copy does not tell from a
// failed write.
type source struct {
	net.Conn
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}

func closeRead(c net.Conn) {
	if half, ok := c.(interface{ CloseRead() error }); ok {
		_ = half.CloseRead()
		return
	}
	_ = c.Close()
}

// abort closes c in a way that the other end can tell from a proper end, where
// there is one.
func abort(c net.Conn) {
	switch c := c.(type) {
	case interface{ Abort() }:
		c.Abort()
		return
	case *net.TCPConn:
		_ = c.SetLinger(0) // reset
	}
	_ = c.Close()
}
