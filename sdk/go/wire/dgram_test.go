package wire

import (
	"bytes"
	"net/netip"
	"testing"
)

func TestDgramWithTheLongestAddressFitsAFrame(t *testing.T) {
	longest := Addr{Name: longestName, Port: 1}
	if err := longest.Check(); err != nil {
		t.Fatal(err)
	}
	want := Dgram{Peer: longest, Data: make([]byte, MaxDatagram)}
	f, rest, err := ConsumeFrame(AppendDgram(nil, MaxVarint, KindUDPAny, want))
	if err != nil || len(rest) != 0 {
		t.Fatalf("%d bytes left over, %v", len(rest), err)
	}
	if got, err := ParseDgram(KindUDPAny, f.Payload); err != nil || got.Peer != longest || len(got.Data) != MaxDatagram {
		t.Errorf("came back as %d bytes from %s, %v", len(got.Data), got.Peer, err)
	}
}

// The kind decides, not what the payload looks like.
func TestPeerCountsForFlowsWithAnyPeerOnly(t *testing.T) {
	d := Dgram{Peer: Addr{IP: netip.MustParseAddr("192.0.2.53"), Port: 53}, Data: []byte("ping")}
	frame := AppendDgram(nil, 5, KindUDP, d)
	if want := []byte{0xa0, 5, 4, 'p', 'i', 'n', 'g'}; !bytes.Equal(frame, want) {
		t.Errorf("on a flow with one peer %x, want %x", frame, want)
	}
	payload := append(AppendAddr(nil, d.Peer), d.Data...)
	got, err := ParseDgram(KindUDP, payload)
	if err != nil || got.Peer != (Addr{}) || !bytes.Equal(got.Data, payload) {
		t.Errorf("on a flow with one peer %+v, %v", got, err)
	}
}

func TestDgramThatIsDroppedIsReturnedWhole(t *testing.T) {
	for name, peer := range map[string]Addr{
		"port 0":         {IP: netip.MustParseAddr("192.0.2.53")},
		"the zero Addr":  {},
		"in upper case":  {Name: "Upper", Port: 53},
		"IPv4 in IPv6":   {IP: netip.MustParseAddr("::ffff:192.0.2.53"), Port: 53},
		"loopback, IPv6": {IP: netip.MustParseAddr("::1"), Port: 53},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, err := ConsumeFrame(AppendDgram(nil, 5, KindUDPAny, Dgram{Peer: peer, Data: []byte("ping")}))
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseDgram(KindUDPAny, f.Payload)
			if !streamOnly(err) {
				t.Errorf("error = %v, want one that leaves the session alone", err)
			}
			if peer == (Addr{}) {
				peer.IP = netip.IPv4Unspecified() // how it is written
			}
			if got.Peer != peer || string(got.Data) != "ping" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestDgramSharesItsInput(t *testing.T) {
	for _, kind := range []Kind{KindUDP, KindUDPAny} {
		payload := []byte{addrIPv4, 192, 0, 2, 53, 0, 53, 'x'}
		d, err := ParseDgram(kind, payload)
		if err != nil {
			t.Fatal(err)
		}
		payload[7] = 'y'
		if d.Data[len(d.Data)-1] != 'y' {
			t.Errorf("%s: the datagram was copied", kind)
		}
	}
}

func TestFlowWithAnyPeerHasNoTarget(t *testing.T) {
	want := Open{Kind: KindUDPAny}
	f, _, err := ConsumeFrame(AppendOpen(nil, 1, want))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseOpen(f.Payload); err != nil || got.Target != (Addr{}) || got.Kind != KindUDPAny {
		t.Errorf("came back as %+v, %v", got, err)
	}
}
