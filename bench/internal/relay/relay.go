// Package relay is what HTTVPS is measured against: a tunnel over TLS 1.3 with
// nothing in it but the relaying. A SOCKS5 server opens one TLS connection for
// each stream to a TLS server, which connects to the target. No multiplexing,
// no flow control, no authentication; every stream pays a TLS handshake.
//
// It is meant to be fast: as few calls and copies as plain Go allows, records
// of full size from the first byte on, TCP_NODELAY, pooled buffers.
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// DefaultBuffer is the size of a copy, in bytes. Of 16, 32, 64 and 128 KiB it was
// the fastest (docs/benchmarks.md).
const DefaultBuffer = 64 << 10

const (
	dialTimeout = 15 * time.Second
	addressLen  = 6 // IPv4 and port, all that a benchmark needs
)

// Relay is one end of the relay.
type Relay struct {
	buffers sync.Pool
}

// New returns a relay that copies buffer bytes at once.
func New(buffer int) *Relay {
	return &Relay{buffers: sync.Pool{New: func() any { b := make([]byte, buffer); return &b }}}
}

// ServeClient is the device's end: SOCKS5 connections from ln, each carried
// to the relay at server. It returns when ctx ends and every connection has.
func (r *Relay) ServeClient(ctx context.Context, ln net.Listener, server string, config *tls.Config) error {
	return serve(ctx, ln, func(ctx context.Context, conn *net.TCPConn) {
		target, err := acceptSocks(conn)
		if err != nil {
			return
		}
		dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: config}
		far, err := dialer.DialContext(ctx, "tcp", server)
		if err != nil {
			answerSocks(conn, false)
			return
		}
		defer far.Close()
		stop := context.AfterFunc(ctx, func() { _ = far.Close() })
		defer stop()
		tunnel, ok := far.(*tls.Conn)
		if !ok || !askFor(tunnel, target) {
			answerSocks(conn, false)
			return
		}
		if answerSocks(conn, true) {
			r.both(conn, tunnel)
		}
	})
}

// ServeServer is the gateway's end: TLS connections from ln, each carried to
// the target that it names. It returns when ctx ends and every connection has.
func (r *Relay) ServeServer(ctx context.Context, ln net.Listener, config *tls.Config) error {
	return serve(ctx, ln, func(ctx context.Context, conn *net.TCPConn) {
		tunnel := tls.Server(conn, config)
		var address [addressLen]byte
		if _, err := io.ReadFull(tunnel, address[:]); err != nil {
			return
		}
		dialer := net.Dialer{Timeout: dialTimeout}
		far, err := dialer.DialContext(ctx, "tcp", parse(address).String())
		if err != nil {
			return // and so is the connection: the other end sees no answer
		}
		defer far.Close()
		stop := context.AfterFunc(ctx, func() { _ = far.Close() })
		defer stop()
		target, ok := far.(*net.TCPConn)
		if !ok {
			return
		}
		if _, err := tunnel.Write([]byte{1}); err != nil {
			return
		}
		r.both(target, tunnel)
	})
}

func serve(ctx context.Context, ln net.Listener, handle func(context.Context, *net.TCPConn)) error {
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
				handle(ctx, tcp)
			}
		})
	}
}

// askFor names the target and waits until it is connected.
func askFor(tunnel *tls.Conn, target netip.AddrPort) bool {
	var address [addressLen]byte
	ip := target.Addr().As4()
	copy(address[:], ip[:])
	address[4], address[5] = byte(target.Port()>>8), byte(target.Port())
	if _, err := tunnel.Write(address[:]); err != nil {
		return false
	}
	var answer [1]byte
	_, err := io.ReadFull(tunnel, answer[:])
	return err == nil
}

func parse(address [addressLen]byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(address[:4])), uint16(address[4])<<8|uint16(address[5]))
}

// halfCloser is a connection whose directions end one by one.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// both copies both ways until both directions have ended, or one has failed,
// which ends both.
func (r *Relay) both(plain *net.TCPConn, tunnel *tls.Conn) {
	var up sync.WaitGroup
	up.Go(func() { r.copy(tunnel, plain) })
	r.copy(plain, tunnel)
	up.Wait()
}

func (r *Relay) copy(dst, src halfCloser) {
	buf, _ := r.buffers.Get().(*[]byte)
	defer r.buffers.Put(buf)
	// Not io.Copy: it would ask *net.TCPConn to copy by itself, which it does
	// with a buffer of its own of 32 KiB.
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			if _, err := dst.Write((*buf)[:n]); err != nil {
				_ = src.Close()
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = dst.CloseWrite()
			return
		case err != nil:
			_ = dst.Close()
			return
		}
	}
}
