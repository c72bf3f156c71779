// Package blackhole is a target on this machine that never answers a TCP
// connection: whoever dials it waits until it gives up, and can be counted
// meanwhile.
package blackhole

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Blackhole is a listening socket whose queue is full: the system drops what
// else asks for a connection.
type Blackhole struct {
	fd      int
	address *net.TCPAddr
	filling []net.Conn
}

// Open makes a blackhole on loopback.
func Open(ctx context.Context) (b *Blackhole, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("blackhole: %w", err)
	}
	b = &Blackhole{fd: fd}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return b, fmt.Errorf("blackhole: %w", err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		return b, fmt.Errorf("blackhole: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return b, fmt.Errorf("blackhole: %w", err)
	}
	in, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return b, errors.New("blackhole: not an IPv4 socket")
	}
	b.address = &net.TCPAddr{IP: net.IP(in.Addr[:]), Port: in.Port}
	return b, b.fill(ctx)
}

// fill connects until nobody answers.
func (b *Blackhole) fill(ctx context.Context) error {
	const most = 16
	dialer := net.Dialer{Timeout: 200 * time.Millisecond}
	for range most {
		conn, err := dialer.DialContext(ctx, "tcp", b.address.String())
		if err != nil {
			return context.Cause(ctx) // what was wanted, unless ctx has ended
		}
		b.filling = append(b.filling, conn)
	}
	return fmt.Errorf("blackhole: it answered %d times", most)
}

// Address is where it does not answer.
func (b *Blackhole) Address() string { return b.address.String() }

// Dials returns how many connections to it are being tried now.
func (b *Blackhole) Dials() (int, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	// Address and port in hexadecimal, the address as the processor has it, then
	// the state: 02 is SYN_SENT.
	wanted := fmt.Appendf(nil, " 0100007F:%04X 02 ", b.address.Port)
	return bytes.Count(table, wanted), nil
}

// Close ends it.
func (b *Blackhole) Close() error {
	for _, conn := range b.filling {
		_ = conn.Close()
	}
	return unix.Close(b.fd)
}
