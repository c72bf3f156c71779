package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/sdk/go/lazy"
)

// slowAnswer is the time after which a server that closes without a byte has waited
// for the target, which did not answer.
const slowAnswer = 5 * time.Second

// exitConn is a connection to a target through a server. It says what an end or
// an error of the connection to the server means for the target's.
type exitConn struct {
	*shadowsocks.Conn
	exit   *exit
	began  time.Time
	once   sync.Once
	closed chan struct{}

	ended    atomic.Bool  // our own direction
	lost     atomic.Bool  // with the server
	heard    atomic.Int64 // when bytes came, since began
	judgment error        // of the end; by the reader alone
}

// Read implements [net.Conn].
func (c *exitConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.judge(n, err)
}

// ReadLazy implements [lazy.Reader].
func (c *exitConn) ReadLazy(space lazy.Space) (int, error) {
	n, err := c.Conn.ReadLazy(space)
	return n, c.judge(n, err)
}

// CloseWrite implements [Conn].
func (c *exitConn) CloseWrite() error {
	c.ended.Store(true)
	return c.Conn.CloseWrite()
}

// Close implements [net.Conn].
func (c *exitConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.exit.drop(c)
	})
	return c.Conn.Close()
}

func (c *exitConn) lose(since time.Time) {
	if c.began.Add(time.Duration(c.heard.Load())).After(since) {
		return
	}
	c.lost.Store(true)
	_ = c.SetLinger(0)
	_ = c.Conn.Close() // whoever reads learns of it
}

// judge returns what err means.
func (c *exitConn) judge(n int, err error) error {
	switch {
	case n > 0:
		c.heard.Store(int64(time.Since(c.began)))
		return err
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case c.judgment == nil:
		c.judgment = c.meaning(err)
	}
	return c.judgment
}

// meaning says what the end of the connection to the server says about the one to
// the target. The protocol does not tell a target's end from a server's: a server
// that is gone shows by not listening any more.
func (c *exitConn) meaning(err error) error {
	switch {
	case c.lost.Load():
		return lostError(err)
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return err
	case errors.Is(err, shadowsocks.ErrCut), errors.Is(err, shadowsocks.ErrTag), errors.Is(err, shadowsocks.ErrReplay),
		errors.Is(err, shadowsocks.ErrFormat), errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		c.exit.suspected()
		return lostError(err)
	case !c.listens():
		c.exit.suspected()
		return lostError(err)
	case !errors.Is(err, shadowsocks.ErrNoAnswer):
		return err // an end or a reset of the target
	case c.ended.Load():
		return io.EOF // it was told everything and had nothing to say
	}
	c.exit.suspected() // some servers do so when they do not know the key
	if time.Since(c.began) >= slowAnswer {
		return &Error{Failure: Timeout, Err: err}
	}
	return &Error{Failure: Refused, Err: err}
}

// listens asks whether the server is there, while the connection is wanted.
func (c *exitConn) listens() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*connectTimeout)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-c.closed:
			cancel()
		case <-done:
		}
	}()
	return c.exit.listens(ctx)
}
