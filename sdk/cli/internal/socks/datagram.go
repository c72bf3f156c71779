package socks

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// maxHeader is the longest header of a datagram: reserved, FRAG, and an address
// with a name.
const maxHeader = 2 + 1 + 1 + 1 + 255 + 2

// parseDatagram splits a client's datagram into its target and its data, which
// shares memory with p. Fragments are not taken; RFC 1928 leaves that open.
func parseDatagram(p []byte) (to net.Addr, data []byte, ok bool) {
	if len(p) < 4 || p[0] != 0 || p[1] != 0 || p[2] != 0 {
		return nil, nil, false
	}
	kind, p := p[3], p[4:]
	var size int
	switch kind {
	case addressIPv4:
		size = 4
	case addressIPv6:
		size = 16
	case addressName:
		if len(p) == 0 || p[0] == 0 {
			return nil, nil, false
		}
		size, p = int(p[0]), p[1:]
	default:
		return nil, nil, false
	}
	if len(p) < size+2 {
		return nil, nil, false
	}
	host, port, data := p[:size], binary.BigEndian.Uint16(p[size:]), p[size+2:]
	if kind == addressName {
		return httvps.Addr{Host: string(host), Port: port}, data, true
	}
	addr, _ := netip.AddrFromSlice(host) // 4 or 16 bytes
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)), data, true
}

// appendHeader appends the header of a datagram from a peer. It reports whether
// SOCKS5 has a form for the peer's address.
func appendHeader(dst []byte, from net.Addr) ([]byte, bool) {
	dst = append(dst, 0, 0, 0)
	switch from := from.(type) {
	case *net.UDPAddr:
		at := from.AddrPort()
		if !at.IsValid() {
			return dst, false
		}
		return appendAddress(dst, at), true
	case httvps.Addr:
		if len(from.Host) == 0 || len(from.Host) > 255 {
			return dst, false
		}
		dst = append(dst, addressName, byte(len(from.Host)))
		dst = append(dst, from.Host...)
		return binary.BigEndian.AppendUint16(dst, from.Port), true
	}
	return dst, false
}

// appendAddress appends type, address and port.
func appendAddress(dst []byte, a netip.AddrPort) []byte {
	addr := a.Addr().Unmap()
	if addr.Is4() {
		dst = append(dst, addressIPv4)
	} else {
		dst = append(dst, addressIPv6)
	}
	dst = append(dst, addr.AsSlice()...)
	return binary.BigEndian.AppendUint16(dst, a.Port())
}
