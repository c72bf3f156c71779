package relay_test

import (
	"net"
	"testing"

	"github.com/httvps/httvps/sdk/cli/internal/relay"
)

func TestOnlyThisMachineIsServedUnlessToldOtherwise(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000"} {
		if ln, err := relay.Listen(t.Context(), address, false); err == nil {
			t.Errorf("Listen(%q) = %v, want an error", address, ln.Addr())
			_ = ln.Close()
		}
	}
	for _, address := range []string{":0", "localhost:0", "127.0.0.1:0", "127.3.2.1:0"} {
		ln, err := relay.Listen(t.Context(), address, false)
		if err != nil {
			t.Errorf("Listen(%q): %v", address, err)
			continue
		}
		if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
			t.Errorf("Listen(%q) listens on %v", address, ln.Addr())
		}
		_ = ln.Close()
	}
	ln, err := relay.Listen(t.Context(), "0.0.0.0:0", true)
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
}
