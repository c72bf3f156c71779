package wire

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestAddrStringCanBeDialled(t *testing.T) {
	for want, a := range map[string]Addr{
		"example.com:80":    {Name: "example.com", Port: 80},
		"192.0.2.1:443":     {IP: netip.MustParseAddr("192.0.2.1"), Port: 443},
		"[2001:db8::1]:443": {IP: netip.MustParseAddr("2001:db8::1"), Port: 443},
	} {
		if a.String() != want {
			t.Errorf("String = %s, want %s", a, want)
		}
	}
}

func TestAddrsCanBeCompared(t *testing.T) {
	a, err := AddrFromHostPort("::ffff:192.0.2.1", 80)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseAddr([]byte{1, 192, 0, 2, 1, 0, 80})
	if err != nil {
		t.Fatal(err)
	}
	if a != b {
		t.Errorf("%v is not %v", a, b)
	}
}

func TestCheckRefusesWhatCannotBeWritten(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.1")
	for name, a := range map[string]Addr{
		"the zero Addr":       {},
		"a port only":         {Port: 80},
		"a name and an IP":    {Name: "a", IP: ip, Port: 80},
		"a zone":              {IP: netip.MustParseAddr("fe80::1%eth0"), Port: 80},
		"a name of 254 bytes": {Name: strings.Repeat("a.", 127), Port: 80},
		"a name of 259 bytes": {Name: strings.Repeat("a.", 129) + "a", Port: 80},
	} {
		t.Run(name, func(t *testing.T) {
			fault, ok := errors.AsType[*Error](a.Check())
			if !ok || fault.Code != CodeRefused || !fault.StreamOnly {
				t.Errorf("Check = %v, want refused", fault)
			}
			if strings.Contains(name, "zone") {
				return // on the wire a zone is lost, the rest is an address
			}
			b := AppendAddr(nil, a)
			if len(b) != sizeAddr(a) {
				t.Errorf("%d bytes, sizeAddr says %d", len(b), sizeAddr(a))
			}
			if name == "a name and an IP" {
				return // written as the name
			}
			if got, err := ParseAddr(b); !streamOnly(err) {
				t.Errorf("on the wire it is %v, %v; want an address that is refused", got, err)
			}
		})
	}
}

func TestOpenThatIsRefusedIsReturnedWhole(t *testing.T) {
	want := Open{Kind: 9, RecvWindow: 7, Target: Addr{Name: "Upper", Port: 80}, Early: []byte("hi")}
	f, _, err := ConsumeFrame(AppendOpen(nil, 5, want))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseOpen(f.Payload)
	if !streamOnly(err) {
		t.Errorf("error = %v, want one that ends the stream", err)
	}
	if got.Kind != want.Kind || got.RecvWindow != want.RecvWindow || got.Target != want.Target || string(got.Early) != "hi" {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
