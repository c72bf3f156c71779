package forward

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ErrPublic says that an address can be reached from other machines. A forward
// asks nobody for a password, so whoever reaches it uses the tunnel.
var ErrPublic = errors.New("address is not on this machine only")

// Spec says what is forwarded, and where to.
type Spec struct {
	Network string         // "tcp" or "udp"
	Listen  netip.AddrPort // port 0: any free one
	Target  string         // host:port, the host a name or an IP address
}

// String is how a person would write s.
func (s Spec) String() string { return s.Network + ":" + s.Listen.String() + ":" + s.Target }

// Form is how people write a Spec.
const Form = "tcp|udp:[LADDR:]PORT:HOST:PORT"

// ParseSpec reads what a person wrote: NETWORK:LADDR:PORT:HOST:PORT, where LADDR is
// an IP address or localhost, which is 127.0.0.1 and what LADDR is when it is left
// out. IPv6 addresses are in brackets. Only a loopback address may be listened on,
// unless public is set; the error wraps [ErrPublic] then.
func ParseSpec(text string, public bool) (Spec, error) {
	network, rest, _ := strings.Cut(text, ":")
	if network != "tcp" && network != "udp" {
		return Spec{}, fmt.Errorf("it begins with %q, want tcp or udp", network)
	}
	fields, err := split(rest)
	if err != nil {
		return Spec{}, err
	}
	switch len(fields) {
	case 3:
		fields = append([]string{"127.0.0.1"}, fields...)
	case 4:
	default:
		return Spec{}, fmt.Errorf("want %s, with IPv6 addresses in brackets", Form)
	}
	addr, err := listenAddr(fields[0], public)
	if err != nil {
		return Spec{}, err
	}
	port, err := parsePort(fields[1], 0)
	if err != nil {
		return Spec{}, fmt.Errorf("port to listen on: %w", err)
	}
	host, err := targetHost(fields[2])
	if err != nil {
		return Spec{}, err
	}
	targetPort, err := parsePort(fields[3], 1)
	if err != nil {
		return Spec{}, fmt.Errorf("port of the target: %w", err)
	}
	return Spec{
		Network: network,
		Listen:  netip.AddrPortFrom(addr, port),
		Target:  net.JoinHostPort(host, strconv.Itoa(int(targetPort))),
	}, nil
}

// split cuts text at its colons, except for those in brackets.
func split(text string) (fields []string, err error) {
	for {
		end := strings.IndexByte(text, ':')
		if strings.HasPrefix(text, "[") {
			if end = strings.IndexByte(text, ']') + 1; end == 0 {
				return nil, errors.New("a bracket is not closed")
			}
			if end == len(text) {
				end = -1
			} else if text[end] != ':' {
				return nil, fmt.Errorf("want a colon behind %s", text[:end])
			}
		}
		if end < 0 {
			return append(fields, text), nil
		}
		fields = append(fields, text[:end])
		text = text[end+1:]
	}
}

func listenAddr(text string, public bool) (netip.Addr, error) {
	if text == "localhost" { // never what a resolver makes of it
		text = "127.0.0.1"
	}
	addr, err := parseIP(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("listen on %q: want an IP address or localhost", text)
	}
	if !public && !addr.IsLoopback() {
		return netip.Addr{}, fmt.Errorf("listen on %s: %w", addr, ErrPublic)
	}
	return addr, nil
}

// parseIP reads an IPv4 address, or an IPv6 one in brackets.
func parseIP(text string) (netip.Addr, error) {
	inner, bracketed := strings.CutPrefix(text, "[")
	addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
	if err != nil {
		return netip.Addr{}, err
	}
	if bracketed != addr.Is6() {
		return netip.Addr{}, errors.New("brackets are for IPv6")
	}
	return addr.Unmap(), nil
}

// targetHost reads a host without brackets. What names exist is known at the far
// end of the tunnel only.
func targetHost(text string) (string, error) {
	if strings.HasPrefix(text, "[") {
		addr, err := parseIP(text)
		if err != nil || addr.Zone() != "" {
			return "", fmt.Errorf("target %s: want an IPv6 address in the brackets", text)
		}
		return addr.String(), nil
	}
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || strings.ContainsRune("[]/@%", r) }) {
		return "", fmt.Errorf("target %q: want a name or an IP address", text)
	}
	return text, nil
}

func parsePort(text string, least uint16) (uint16, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port < uint64(least) {
		return 0, fmt.Errorf("%q, want a number from %d to 65535", text, least)
	}
	return uint16(port), nil
}
