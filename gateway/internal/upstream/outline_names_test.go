package upstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/test/sstest"
)

// reply answers a question with these records.
func reply(tb testing.TB, q question, change func(*dnsmessage.Message), records ...dnsmessage.Resource) []byte {
	tb.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.id, Response: true},
		Questions: []dnsmessage.Question{{Name: q.name, Type: q.kind, Class: dnsmessage.ClassINET}},
		Answers:   records,
	}
	if change != nil {
		change(&m)
	}
	text, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func record(name string, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
}

func a(name string, ttl uint32, last byte) dnsmessage.Resource {
	return record(name, ttl, &dnsmessage.AResource{A: [4]byte{192, 0, 2, last}})
}

func TestAnswersOfNameServers(t *testing.T) {
	q, err := newQuestion("example.com", dnsmessage.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	first := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	alias := record("example.com.", 2, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("other.example.")})
	var many []dnsmessage.Resource
	for range 100 {
		many = append(many, a("example.com.", 60, 1))
	}
	for name, tc := range map[string]struct {
		text  []byte
		want  []netip.Addr
		life  time.Duration
		cut   bool
		fails bool
	}{
		"an address":                    {text: reply(t, q, nil, a("example.com.", 30, 1)), want: first, life: 30 * time.Second},
		"that is good for long":         {text: reply(t, q, nil, a("example.com.", 86400, 1)), want: first, life: mostNameLife},
		"that is good for no time":      {text: reply(t, q, nil, a("example.com.", 0, 1)), want: first, life: leastNameLife},
		"behind an alias":               {text: reply(t, q, nil, alias, a("other.example.", 30, 1)), want: first, life: 2 * time.Second},
		"too many of them":              {text: reply(t, q, nil, many...), want: slices.Repeat(first, maxAddresses), life: mostNameLife},
		"none":                          {text: reply(t, q, nil), life: noAddressLife},
		"no such name":                  {text: reply(t, q, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeNameError }), life: noAddressLife},
		"more than a datagram holds":    {text: reply(t, q, func(m *dnsmessage.Message) { m.Truncated = true }), cut: true},
		"the name in other letters":     {text: reply(t, q, func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("EXAMPLE.com.") }, a("example.com.", 30, 1)), want: first, life: 30 * time.Second},
		"the server cannot say":         {text: reply(t, q, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }), fails: true},
		"to another question":           {text: reply(t, q, func(m *dnsmessage.Message) { m.ID++ }, a("example.com.", 30, 1)), fails: true},
		"to a question of another name": {text: reply(t, q, func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("example.net.") }), fails: true},
		"of another kind":               {text: reply(t, q, func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA }), fails: true},
		"a question":                    {text: q.message, fails: true},
		"nothing":                       {fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := q.read(tc.text)
			if (err != nil) != tc.fails || !slices.Equal(got.addrs, tc.want) || got.life != tc.life || got.cut != tc.cut {
				t.Errorf("%+v, %v", got, err)
			}
			for size := range tc.text {
				if cut, err := q.read(tc.text[:size]); err == nil && len(cut.addrs) > len(tc.want) {
					t.Errorf("%d of %d bytes say more than all", size, len(tc.text))
				}
			}
		})
	}
}

// FuzzAnswer: whatever a name server says, there is an error or few addresses of
// the kind that was asked for.
func FuzzAnswer(f *testing.F) {
	q, err := newQuestion("example.com", dnsmessage.TypeA)
	if err != nil {
		f.Fatal(err)
	}
	q.id = 0
	f.Add(reply(f, q, nil, a("example.com.", 30, 1)))
	f.Add(reply(f, q, nil, record("example.com.", 2, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("other.example.")}), a("other.example.", 30, 1)))
	f.Add(reply(f, q, func(m *dnsmessage.Message) { m.Truncated = true }))
	f.Add(q.message)
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := q.read(text)
		if err != nil {
			return
		}
		if len(got.addrs) > maxAddresses || got.life > mostNameLife || got.life <= 0 && !got.cut || slices.ContainsFunc(got.addrs, netip.Addr.Is6) {
			t.Errorf("%+v", got)
		}
	})
}

// serveDNS answers over TCP alone.
func serveDNS(t *testing.T, last byte) netip.AddrPort {
	t.Helper()
	addr := sstest.ServeTCP(t, func(conn *net.TCPConn) {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		text := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, text); err != nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(text); err != nil {
			t.Error(err)
			return
		}
		q := question{id: m.ID, name: m.Questions[0].Name, kind: m.Questions[0].Type}
		text = reply(t, q, nil, a(q.name.String(), 30, last))
		_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...))
	})
	return netip.AddrPortFrom(addr.IP, addr.Port)
}

// Where datagrams do not come through names are found all the same, from then on
// without waiting for them.
func TestNamesAreFoundWithoutDatagrams(t *testing.T) {
	far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{})
	resolver := serveDNS(t, 7)
	r := newOutlineRig(t, func(c *OutlineConfig) { c.Resolvers = []netip.AddrPort{resolver} }, serverAt("one", far.Addr))
	e := r.used()[0]
	for i, name := range []string{"first.test", "second.test"} {
		began := time.Now()
		got, err := e.lookup(t.Context(), name)
		if err != nil || !slices.Equal(got, []netip.Addr{netip.MustParseAddr("192.0.2.7")}) {
			t.Fatalf("%s: %v, %v", name, got, err)
		}
		if took := time.Since(began); i == 1 && took >= datagramAnswer {
			t.Errorf("%s took %v", name, took)
		}
	}
}

func TestTheNextNameServerIsAskedWhenOneIsSilent(t *testing.T) {
	far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{})
	deaf, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	r := newOutlineRig(t, func(c *OutlineConfig) {
		c.Resolvers = append([]netip.AddrPort{deaf.LocalAddr().(*net.UDPAddr).AddrPort()}, c.Resolvers...)
	}, serverAt("one", far.Addr))
	if got, err := r.used()[0].lookup(t.Context(), "a.test"); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestANameIsAskedForOnce in its time, and one that has only IPv6 is found.
func TestANameIsAskedForOnce(t *testing.T) {
	far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{})
	dns := newDNS(t, zone(map[string]string{"six.test": "2001:db8::6"}))
	r := newOutlineRig(t, func(c *OutlineConfig) {
		c.Resolvers = []netip.AddrPort{dns.conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	}, serverAt("one", far.Addr))
	e := r.used()[0]
	for range 3 {
		if got, err := e.lookup(t.Context(), "six.test"); err != nil || len(got) != 1 || got[0] != netip.MustParseAddr("2001:db8::6") {
			t.Errorf("%v, %v", got, err)
		}
		_, err := e.lookup(t.Context(), "nowhere.test")
		wantFailure(t, err, DNS)
	}
	if got, want := dns.asked(), []string{"six.test A", "six.test AAAA", "nowhere.test A", "nowhere.test AAAA"}; !slices.Equal(trimDots(got), want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func trimDots(list []string) []string {
	for i, text := range list {
		list[i] = strings.Replace(text, ". ", " ", 1)
	}
	return list
}

func TestWhatIsKnownOfNamesIsBoundedAndGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n names
		n.init()
		for i := range 3 * maxKnownNames {
			n.learn(strconv.Itoa(i), nil, time.Hour)
		}
		if len(n.known) > maxKnownNames {
			t.Errorf("%d names are known", len(n.known))
		}
		n.learn("a.test", []netip.Addr{loopback(1)}, time.Second)
		if got, known := n.find("a.test"); !known || len(got) != 1 {
			t.Error("the latest is not known")
		}
		<-time.After(time.Second)
		if _, known := n.find("a.test"); known {
			t.Error("it is known for longer than it is good")
		}
	})
}

// A resolver's stream may break anywhere.
func TestAResolverThatBreaksOffIsNoAnswer(t *testing.T) {
	for _, said := range [][]byte{nil, {0}, {0, 50}, append([]byte{0, 50}, make([]byte, 20)...), append([]byte{0, 50}, make([]byte, 50)...)} {
		far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{Serve: func(s *sstest.Server, conn *net.TCPConn) {
			_, _ = sstest.Target(s.Crypt.NewReader(conn))
			_, _ = s.Crypt.NewWriter(conn, s.Crypt.Salt()).Write(bytes.Clone(said))
		}})
		e := newOutlineRig(t, nil, serverAt("one", far.Addr)).used()[0]
		e.names.failed() // no datagrams
		_, err := e.lookup(t.Context(), "a.test")
		var failed *Error
		if !errors.As(err, &failed) || failed.Failure != DNS && failed.Failure != EgressLost {
			t.Errorf("%d bytes: %v", len(said), err)
		}
	}
}
