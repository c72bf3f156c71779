package upstream

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// dnsServer answers on loopback as the test says, so that a test can be the
// owner of a hostile zone.
type dnsServer struct {
	conn   net.PacketConn
	answer func(name string, ipv6 bool) (addrs []netip.Addr, ok bool)
	ttl    atomic.Uint32 // of all records

	mu      sync.Mutex // guards queries
	queries []string
}

const (
	typeA, typeAAAA = 1, 28
	silent          = "silent." // names under it are never answered
)

// newDNS serves until the test ends. answer returns no addresses for a name
// that has none, and false for one that does not exist.
func newDNS(t *testing.T, answer func(name string, ipv6 bool) ([]netip.Addr, bool)) *dnsServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dnsServer{conn: conn, answer: answer}
	var serving sync.WaitGroup
	serving.Go(s.serve)
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
	return s
}

func (s *dnsServer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "udp", s.conn.LocalAddr().String())
}

// asked lists the queries so far, as "name A" or "name AAAA".
func (s *dnsServer) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.queries...)
}

func (s *dnsServer) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := s.reply(buf[:n]); reply != nil {
			_, _ = s.conn.WriteTo(reply, from)
		}
	}
}

// reply answers one question (RFC 1035, 4.1).
func (s *dnsServer) reply(query []byte) []byte {
	if len(query) < 12 {
		return nil
	}
	var labels []string
	pos := 12
	for pos < len(query) && query[pos] != 0 {
		size := int(query[pos])
		labels = append(labels, string(query[pos+1:pos+1+size]))
		pos += 1 + size
	}
	question := query[12 : pos+5]
	kind := binary.BigEndian.Uint16(query[pos+1:])
	name := strings.ToLower(strings.Join(labels, ".")) + "."
	s.mu.Lock()
	s.queries = append(s.queries, name+map[uint16]string{typeA: " A", typeAAAA: " AAAA"}[kind])
	s.mu.Unlock()
	if strings.HasSuffix(name, silent) {
		return nil
	}
	addrs, exists := s.answer(name, kind == typeAAAA)
	flags := uint16(0x8180) // a response, recursion available
	if !exists {
		flags |= 3
	}
	reply := append([]byte(nil), query[:2]...)
	reply = binary.BigEndian.AppendUint16(reply, flags)
	reply = append(reply, 0, 1, 0, byte(len(addrs)), 0, 0, 0, 0)
	reply = append(reply, question...)
	for _, addr := range addrs {
		reply = append(reply, 0xc0, 12) // the name of the question
		reply = binary.BigEndian.AppendUint16(reply, kind)
		reply = append(reply, 0, 1)
		reply = binary.BigEndian.AppendUint32(reply, s.ttl.Load())
		reply = binary.BigEndian.AppendUint16(reply, uint16(len(addr.AsSlice())))
		reply = append(reply, addr.AsSlice()...)
	}
	return reply
}
