package wire

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// An Addr is the target of a stream: a name or an IP address, and a port.
// Addresses can be compared with ==.
type Addr struct {
	Name string     // lower case, without a trailing dot; empty when IP is set
	IP   netip.Addr // without a zone; the zero Addr when Name is set
	Port uint16
}

// The types of an address, as in SOCKS5 and Shadowsocks.
const (
	addrIPv4 = 1
	addrName = 3
	addrIPv6 = 4
)

// AddrFromHostPort returns the address of what a person or a program wrote as
// host and port. Letters become lower case, one trailing dot goes away, IPv4 and
// IPv6 literals (without brackets) become IPs, and IPv4-mapped ones IPv4. A name
// beyond ASCII has to be converted (IDNA) before.
//
// The error is an [*Error] with [CodeRefused] for what [Addr.Check] would not
// take.
func AddrFromHostPort(host string, port uint16) (Addr, error) {
	a := Addr{Port: port}
	host = strings.TrimSuffix(host, ".")
	if len(host) > MaxName { // before it is copied
		return Addr{}, Addr{Name: host}.Check()
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		a.IP = ip.Unmap()
	} else {
		a.Name = lowerASCII(host)
	}
	if err := a.Check(); err != nil {
		return Addr{}, err
	}
	return a, nil
}

// Check returns nil when a is acceptable as a target. Otherwise the error is an
// [*Error] with [CodeRefused] that ends only the stream.
func (a Addr) Check() error {
	if what := a.fault(); what != "" {
		return &Error{Code: CodeRefused, What: what, StreamOnly: true}
	}
	return nil
}

// fault says why a is not acceptable as a target, or nothing.
func (a Addr) fault() string {
	what := ""
	switch {
	case a.Name != "" && a.IP.IsValid():
		what = "address: both a name and an IP"
	case a.Name != "":
		what = faultOfName(a.Name)
	case !a.IP.IsValid():
		what = "address: empty host"
	case a.IP.Zone() != "":
		what = "address: IPv6 with a zone"
	case embedsIPv4(a.IP):
		what = "address: IPv4 inside of IPv6"
	}
	if what == "" && a.Port == 0 {
		what = "address: port 0"
	}
	return what
}

// embedsIPv4 reports whether ip is in ::ffff:0:0/96 or ::/96.
func embedsIPv4(ip netip.Addr) bool {
	if !ip.Is6() {
		return false
	}
	b := ip.As16()
	return ip.Is4In6() || [12]byte(b[:12]) == [12]byte{}
}

// faultOfName says why name cannot be a target, or nothing.
func faultOfName(name string) string {
	if len(name) > MaxName {
		return "address: name over 253 bytes"
	}
	start := 0 // of the current label
	for i := 0; i <= len(name); i++ {
		switch {
		case i == len(name) || name[i] == '.':
			switch {
			case i == start:
				return "address: name with an empty label"
			case i-start > MaxLabel:
				return "address: label over 63 bytes"
			case i < len(name):
				start = i + 1
			}
		case !isNameByte(name[i]):
			return "address: name with a byte other than a-z 0-9 - _ ."
		}
	}
	if isNumber(name[start:]) {
		return "address: name ends in a number"
	}
	return ""
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || isDigit(c) || c == '-' || c == '_'
}

// isNumber reports whether resolvers may take a name that ends in label for an
// IPv4 address in decimal, octal or hexadecimal.
func isNumber(label string) bool {
	digits, hex := strings.CutPrefix(label, "0x")
	for i := range len(digits) {
		if c := digits[i]; !isDigit(c) && (!hex || c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// String returns host:port, an IPv6 host in brackets.
func (a Addr) String() string {
	if a.IP.IsValid() && a.Name == "" {
		return netip.AddrPortFrom(a.IP, a.Port).String()
	}
	return a.Name + ":" + strconv.Itoa(int(a.Port))
}

// ParseAddr reads an address that fills b; see [ConsumeAddr].
func ParseAddr(b []byte) (Addr, error) {
	a, n, err := ConsumeAddr(b)
	if n != len(b) && (err == nil || streamOnly(err)) {
		return Addr{}, malformed("address: bytes left over")
	}
	return a, err
}

// ConsumeAddr reads the address at the front of b and tells how many bytes it
// has. A malformed address ends the session. One that is well-formed and not
// acceptable is returned with its size and with an error that has StreamOnly
// set, so that the caller can go on reading.
func ConsumeAddr(b []byte) (a Addr, n int, err error) {
	if a, n, err = consumeAddr(b); err != nil {
		return Addr{}, 0, err
	}
	return a, n, a.Check()
}

// consumeAddr is ConsumeAddr for a caller who judges the address.
func consumeAddr(b []byte) (a Addr, n int, err error) {
	if len(b) == 0 {
		return Addr{}, 0, malformed("address: missing")
	}
	size := 1 // of type and host
	switch b[0] {
	case addrIPv4:
		size += 4
	case addrIPv6:
		size += 16
	case addrName:
		if len(b) < 2 {
			return Addr{}, 0, malformed("address: cut off")
		}
		if b[1] == 0 || b[1] > MaxName {
			return Addr{}, 0, malformed("address: length of the name is not 1 to 253")
		}
		size += 1 + int(b[1])
	default:
		return Addr{}, 0, malformed("address: unknown type")
	}
	if len(b) < size+2 {
		return Addr{}, 0, malformed("address: cut off")
	}
	switch b[0] {
	case addrIPv4:
		a.IP = netip.AddrFrom4([4]byte(b[1:5]))
	case addrIPv6:
		a.IP = netip.AddrFrom16([16]byte(b[1:17]))
	default:
		a.Name = string(b[2:size])
	}
	a.Port = binary.BigEndian.Uint16(b[size:])
	return a, size + 2, nil
}

// AppendAddr appends a, which has to pass [Addr.Check]: a peer refuses the
// stream of any other.
func AppendAddr(dst []byte, a Addr) []byte {
	switch {
	case a.Name != "" && len(a.Name) <= MaxName:
		dst = append(dst, addrName, byte(len(a.Name)))
		dst = append(dst, a.Name...)
	case a.Name == "" && a.IP.Is4():
		ip := a.IP.As4()
		dst = append(append(dst, addrIPv4), ip[:]...)
	case a.Name == "" && a.IP.Is6():
		ip := a.IP.As16()
		dst = append(append(dst, addrIPv6), ip[:]...)
	default:
		// Nothing fits; 0.0.0.0:0 is refused and leaves the frame readable.
		return append(dst, addrIPv4, 0, 0, 0, 0, 0, 0)
	}
	return binary.BigEndian.AppendUint16(dst, a.Port)
}

// sizeAddr returns how many bytes AppendAddr appends.
func sizeAddr(a Addr) int {
	switch {
	case a.Name != "" && len(a.Name) <= MaxName:
		return 1 + 1 + len(a.Name) + 2
	case a.Name == "" && a.IP.Is6():
		return 1 + 16 + 2
	default:
		return 1 + 4 + 2
	}
}

// lowerASCII is strings.ToLower for A to Z only: other letters must not turn
// into ASCII ones.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
