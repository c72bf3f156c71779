package socks

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// Bytes of RFC 1928 and RFC 1929.
const (
	version5 = 5

	methodNone         = 0x00
	methodPassword     = 0x02
	methodUnacceptable = 0xff

	loginVersion   = 1
	loginSucceeded = 0
	loginFailed    = 1

	commandConnect   = 1
	commandAssociate = 3

	addressIPv4 = 1
	addressName = 3
	addressIPv6 = 4
)

// reply is the REP field of RFC 1928, section 6.
type reply byte

const (
	replySucceeded          reply = 0
	replyFailure            reply = 1
	replyNotAllowed         reply = 2
	replyNetworkUnreachable reply = 3
	replyHostUnreachable    reply = 4
	replyConnectionRefused  reply = 5
	replyTTLExpired         reply = 6
	replyCommandUnsupported reply = 7
	replyAddressUnsupported reply = 8
)

// replyError is a fault of a request that the protocol has an answer for.
type replyError struct {
	reply reply
	what  string
}

func (e *replyError) Error() string { return e.what }

var (
	errVersion = errors.New("not SOCKS5")
	errMethods = errors.New("the client does not offer the method of authentication that is asked for")
	errLogin   = errors.New("wrong user name or password")
)

// request is what a client asks for. That of commandAssociate has where the client
// will send from, or 0.0.0.0 and 0 if it does not know.
type request struct {
	command byte   // commandConnect or commandAssociate
	host    string // a name, or an IP address as text
	port    uint16
}

func (r request) address() string {
	return net.JoinHostPort(r.host, strconv.Itoa(int(r.port)))
}

// readGreeting reads the offer of methods, not a byte more, and reports whether
// method is among them.
func readGreeting(r io.Reader, method byte) error {
	var b [255]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return err
	}
	if b[0] != version5 {
		return errVersion
	}
	methods := b[:b[1]]
	if _, err := io.ReadFull(r, methods); err != nil {
		return err
	}
	if !slices.Contains(methods, method) {
		return errMethods
	}
	return nil
}

// readLogin reads user name and password as RFC 1929 has them, not a byte more.
func readLogin(r io.Reader) (user, password []byte, err error) {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, nil, err
	}
	if b[0] != loginVersion {
		return nil, nil, errVersion
	}
	for _, part := range []*[]byte{&user, &password} {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, nil, err
		}
		*part = make([]byte, b[0])
		if _, err := io.ReadFull(r, *part); err != nil {
			return nil, nil, err
		}
	}
	return user, password, nil
}

// readRequest reads a request, not a byte more: what follows belongs to the
// connection. A fault that has a reply is a *replyError.
func readRequest(r io.Reader) (request, error) {
	var b [255]byte
	if _, err := io.ReadFull(r, b[:4]); err != nil {
		return request{}, err
	}
	version, command, reserved, kind := b[0], b[1], b[2], b[3]
	if version != version5 || reserved != 0 {
		return request{}, errVersion
	}
	var size int
	switch kind {
	case addressIPv4:
		size = 4
	case addressIPv6:
		size = 16
	case addressName:
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return request{}, err
		}
		size = int(b[0])
	default:
		return request{}, &replyError{replyAddressUnsupported, fmt.Sprintf("address type %d", kind)}
	}
	host := b[:size]
	if _, err := io.ReadFull(r, host); err != nil {
		return request{}, err
	}
	var port [2]byte
	if _, err := io.ReadFull(r, port[:]); err != nil {
		return request{}, err
	}
	// Judged only now, so that the whole request has been read: closing a
	// connection with unread bytes resets it, and the reply may be lost.
	if command != commandConnect && command != commandAssociate {
		return request{}, &replyError{replyCommandUnsupported, fmt.Sprintf("command %d", command)}
	}
	if size == 0 {
		return request{}, &replyError{replyAddressUnsupported, "an empty name"}
	}
	req := request{command: command, port: uint16(port[0])<<8 | uint16(port[1])}
	if kind == addressName {
		req.host = string(host)
	} else {
		addr, _ := netip.AddrFromSlice(host) // 4 or 16 bytes
		req.host = addr.String()
	}
	return req, nil
}

// appendReply appends an answer. The bound address is left open, as it lies at
// the far end of a tunnel.
func appendReply(dst []byte, r reply) []byte {
	return appendReplyAt(dst, r, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
}

// appendReplyAt appends an answer with a bound address.
func appendReplyAt(dst []byte, r reply, at netip.AddrPort) []byte {
	return appendAddress(append(dst, version5, byte(r), 0), at)
}
