package carrier

import (
	"net"
	"syscall"
	"testing"
)

// What is in the operating system can be overtaken by nothing: part 8.2 of the
// protocol document.
func TestTheSystemHoldsLittleThatIsNotSent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dialled.Close() }()
	accepted, err := Listener(ln).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = accepted.Close() }()
	for name, conn := range map[string]net.Conn{"client": newSocket(dialled).Conn, "gateway": accepted.(*socket).Conn} {
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		var failed error
		if err := raw.Control(func(fd uintptr) { got, failed = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowAt) }); err != nil {
			t.Fatal(err)
		}
		if failed != nil {
			t.Skipf("this system has no TCP_NOTSENT_LOWAT: %v", failed)
		}
		if got != 128<<10 {
			t.Errorf("%s: TCP_NOTSENT_LOWAT is %d, want 131,072", name, got)
		}
	}
}
