package anonym_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/httvps/httvps/internal/anonym"
)

func TestOfAnAddressTheNetworkIsLeft(t *testing.T) {
	for text, want := range map[string]string{
		"read tcp 10.1.2.3:443->203.0.113.77:51234: connection reset by peer":              "read tcp 10.1.2.0/24->203.0.113.0/24: connection reset by peer",
		"http: TLS handshake error from [2001:db8:1:2:3::4]:443: EOF":                      "http: TLS handshake error from 2001:db8:1::/48: EOF",
		"from [fe80::1%eth0]:9 and [::ffff:192.0.2.9]:80":                                  "from fe80::/48 and 192.0.2.0/24",
		"version 1.2.3 took 12:30, sequence 999.999.999.999:1, [::1], 127.0.0.1 and [x]:1": "version 1.2.3 took 12:30, sequence 999.999.999.999:1, [::1], 127.0.0.1 and [x]:1",
		"": "",
	} {
		if got := anonym.Text(text); got != want {
			t.Errorf("Text(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzNoAddressIsLeft(f *testing.F) {
	f.Add([]byte{203, 0, 113, 77}, uint16(443), "EOF")
	f.Add([]byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1}, uint16(1), "")
	f.Fuzz(func(t *testing.T, raw []byte, port uint16, rest string) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		whole := net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, port))
		err := &net.OpError{Op: "read", Net: "tcp", Addr: whole, Err: errors.New(rest)}
		if got := anonym.Error(err); strings.HasPrefix(got, "read tcp "+whole.String()) {
			t.Errorf("%q is left: %q", whole, got)
		}
	})
}

func TestMessagesOfAServerHaveNoAddresses(t *testing.T) {
	var text bytes.Buffer
	handler := slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})
	slog.NewLogLogger(anonym.Handler(handler).WithGroup("g").WithAttrs(nil), slog.LevelDebug).Printf("http: TLS handshake error from %s: %v", "192.0.2.9:1234", net.ErrClosed)
	if got := text.String(); !strings.Contains(got, "level=DEBUG") || !strings.Contains(got, "192.0.2.0/24") || strings.Contains(got, "192.0.2.9") {
		t.Errorf("the log has %s", got)
	}
	if anonym.Error(nil) != "" {
		t.Error("no error has a text")
	}
}
