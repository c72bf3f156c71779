package shadowsocks

import (
	"encoding/binary"
	"net/netip"

	"github.com/httvps/httvps/sdk/go/wire"
)

// Types of an address, as in SOCKS5.
const (
	addrIPv4 = 1
	addrName = 3
	addrIPv6 = 4
)

// MaxPacketOverhead is what a datagram gains at most.
const MaxPacketOverhead = 32 + 1 + 16 + 2 + tagSize

// SealPacket appends what takes payload to a target behind the server. dst must
// not overlap payload.
func (k *Key) SealPacket(dst []byte, to netip.AddrPort, payload []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, make([]byte, k.suite.size)...)
	salt := dst[start:]
	k.newSalt(salt, nil)
	aead, err := k.session(salt)
	if err != nil {
		return nil, err
	}
	k.packets.add(salt) // so that it is no answer when it comes back
	head := len(dst)
	dst = wire.AppendAddr(dst, wire.Addr{IP: to.Addr(), Port: to.Port()})
	dst = append(dst, payload...)
	var zero nonce
	return aead.Seal(dst[:head], zero[:], dst[head:], nil), nil
}

// OpenPacket reads a datagram that the server sent, in place: payload is a part
// of packet.
func (k *Key) OpenPacket(packet []byte) (from netip.AddrPort, payload []byte, err error) {
	size := k.suite.size
	if len(packet) < size+tagSize {
		return netip.AddrPort{}, nil, ErrFormat
	}
	salt, sealed := packet[:size], packet[size:]
	aead, err := k.session(salt)
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	var zero nonce
	plain, err := aead.Open(sealed[:0], zero[:], sealed, nil)
	if err != nil {
		return netip.AddrPort{}, nil, ErrTag
	}
	if !k.packets.add(salt) { // after the tag: others cannot fill the memory
		return netip.AddrPort{}, nil, ErrReplay
	}
	from, n, err := consumeAddr(plain)
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	return from, plain[n:], nil
}

// consumeAddr reads the address at the front of b and tells how many bytes it
// has. A name is none that anybody can have answered from.
func consumeAddr(b []byte) (netip.AddrPort, int, error) {
	if len(b) == 0 {
		return netip.AddrPort{}, 0, ErrFormat
	}
	var size int
	switch b[0] {
	case addrIPv4:
		size = 4
	case addrIPv6:
		size = 16
	default: // addrName, or nothing that is known
		return netip.AddrPort{}, 0, ErrFormat
	}
	if len(b) < 1+size+2 {
		return netip.AddrPort{}, 0, ErrFormat
	}
	ip, _ := netip.AddrFromSlice(b[1 : 1+size])
	port := binary.BigEndian.Uint16(b[1+size:])
	if port == 0 {
		return netip.AddrPort{}, 0, ErrFormat
	}
	return netip.AddrPortFrom(ip.Unmap(), port), 1 + size + 2, nil
}
