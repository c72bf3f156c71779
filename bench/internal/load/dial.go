package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

const dialTimeout = 20 * time.Second

// stream is a connection that ctx ends.
type stream struct {
	*net.TCPConn
	release func() bool
}

// Close closes the connection.
func (c *stream) Close() error {
	c.release()
	return c.TCPConn.Close()
}

// abort closes the connection in a way that leaves nothing waiting in the system.
func (c *stream) abort() {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// dial opens a stream to the target, which is told what is wanted.
func (s Spec) dial(ctx context.Context, mode byte, more ...byte) (*stream, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(append([]byte{mode}, more...)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// connect opens a stream to the target and sends nothing yet.
func (s Spec) connect(ctx context.Context) (*stream, error) {
	address := s.Socks
	if address == "" {
		address = s.Target
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("not a TCP connection")
	}
	c := &stream{TCPConn: tcp, release: context.AfterFunc(ctx, func() { _ = tcp.Close() })}
	if s.Socks != "" {
		if err := socks(tcp, s.Target); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	return c, nil
}

// socks asks a SOCKS5 proxy for a connection to target.
func socks(conn net.Conn, target string) error {
	address, err := netip.ParseAddrPort(target)
	if err != nil || !address.Addr().Is4() {
		return fmt.Errorf("target %q is not an IPv4 address with a port", target)
	}
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	if _, err := conn.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	var answer [10]byte
	if _, err := io.ReadFull(conn, answer[:2]); err != nil {
		return fmt.Errorf("the proxy's greeting: %w", err)
	}
	ip := address.Addr().As4()
	request := append([]byte{5, 1, 0, 1}, ip[:]...)
	if _, err := conn.Write(append(request, byte(address.Port()>>8), byte(address.Port()))); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("the proxy's answer: %w", err)
	}
	if answer[1] != 0 {
		return fmt.Errorf("the proxy refuses with reply %d", answer[1])
	}
	return conn.SetDeadline(time.Time{})
}
