package sstest

import (
	"net"
	"testing"
)

// A server that takes connections and no datagrams yet is not ready.
func TestWhoeverTakesDatagramsIsKnown(t *testing.T) {
	addr := freePort(t)
	if takesDatagrams(t, addr) {
		t.Error("nobody listens, and datagrams are taken")
	}
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if !takesDatagrams(t, addr) {
		t.Error("datagrams are not taken")
	}
}
