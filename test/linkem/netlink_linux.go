package linkem

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// netlink is the little of rtnetlink(7) that a link needs: interfaces up,
// addresses, default routes. It acts on the namespace it was opened in.
type netlink struct{ fd int }

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &netlink{fd: fd}, nil
}

func (nl *netlink) close() { _ = unix.Close(nl.fd) } // nothing is left to be written

// index returns the number of an interface.
func (nl *netlink) index(name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return int(request.Uint32()), nil
}

// up starts an interface; mtu and queue (in packets) stay as they are when 0.
func (nl *netlink) up(index, mtu, queue int) error {
	m := newMessage(unix.RTM_NEWLINK, 0)
	// struct ifinfomsg
	m.bytes(unix.AF_UNSPEC, 0)
	m.uint16(0)
	m.uint32(uint32(index))
	m.uint32(unix.IFF_UP)
	m.uint32(unix.IFF_UP)
	if mtu != 0 {
		m.attribute32(unix.IFLA_MTU, uint32(mtu))
	}
	if queue != 0 {
		m.attribute32(unix.IFLA_TXQLEN, uint32(queue))
	}
	return nl.ask("start interface", m)
}

func (nl *netlink) address(index int, addr netip.Addr) error {
	m := newMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	m.address(index, addr)
	return nl.ask("add address "+addr.String(), m)
}

func (nl *netlink) removeAddress(index int, addr netip.Addr) error {
	m := newMessage(unix.RTM_DELADDR, 0)
	m.address(index, addr)
	return nl.ask("remove address "+addr.String(), m)
}

// defaultRoute sends everything of source's family over the interface, from
// source, instead of what was the default route. TCP uses the congestion control
// on it, unless that is empty: with the route any that the kernel has can be
// had, while the sysctl of a namespace takes only those the machine lets
// everyone use.
func (nl *netlink) defaultRoute(index int, source netip.Addr, congestion string) error {
	m := newMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	scope := byte(unix.RT_SCOPE_LINK)
	if source.Is6() {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	// struct rtmsg
	m.bytes(family(source), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, scope, unix.RTN_UNICAST)
	m.uint32(0)
	m.attribute32(unix.RTA_OIF, uint32(index))
	m.attribute(unix.RTA_PREFSRC, source.AsSlice())
	what := "set default route from " + source.String()
	if congestion != "" {
		metrics := &message{}
		metrics.attribute(unix.RTAX_CC_ALGO, append([]byte(congestion), 0))
		m.attribute(unix.RTA_METRICS, metrics.buf)
		what += " with congestion control " + congestion
	}
	return nl.ask(what, m)
}

// ask sends one message and waits for the kernel's verdict.
func (nl *netlink) ask(what string, m *message) error {
	if err := unix.Sendto(nl.fd, m.finish(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	buf := make([]byte, 8192)
	n, _, err := unix.Recvfrom(nl.fd, buf, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	// A header and, as struct nlmsgerr begins, a negative error number.
	if n < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("%s: not an acknowledgement", what)
	}
	if code := int32(binary.NativeEndian.Uint32(buf[unix.NLMSG_HDRLEN:])); code != 0 {
		return fmt.Errorf("%s: %w", what, unix.Errno(-code))
	}
	return nil
}

// message builds one netlink message.
type message struct{ buf []byte }

func newMessage(kind uint16, flags uint16) *message {
	m := &message{}
	// struct nlmsghdr
	m.uint32(0) // length, see finish
	m.uint16(kind)
	m.uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags)
	m.uint32(1) // sequence
	m.uint32(0) // port
	return m
}

func (m *message) bytes(b ...byte) { m.buf = append(m.buf, b...) }
func (m *message) uint16(v uint16) { m.buf = binary.NativeEndian.AppendUint16(m.buf, v) }
func (m *message) uint32(v uint32) { m.buf = binary.NativeEndian.AppendUint32(m.buf, v) }
func (m *message) finish() []byte {
	binary.NativeEndian.PutUint32(m.buf, uint32(len(m.buf)))
	return m.buf
}

func (m *message) attribute(kind uint16, value []byte) {
	m.uint16(uint16(unix.SizeofRtAttr + len(value)))
	m.uint16(kind)
	m.bytes(value...)
	for len(m.buf)%unix.RTA_ALIGNTO != 0 {
		m.bytes(0)
	}
}

func (m *message) attribute32(kind uint16, value uint32) {
	m.attribute(kind, binary.NativeEndian.AppendUint32(nil, value))
}

// address adds a struct ifaddrmsg and what belongs to it, for a single address.
// Nobody else is on the link, so there is nothing to detect duplicates of.
func (m *message) address(index int, addr netip.Addr) {
	m.bytes(family(addr), byte(addr.BitLen()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE)
	m.uint32(uint32(index))
	m.attribute(unix.IFA_LOCAL, addr.AsSlice())
	m.attribute(unix.IFA_ADDRESS, addr.AsSlice())
}

func family(addr netip.Addr) byte {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
