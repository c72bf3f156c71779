package upstream

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	maxKnownNames = 4096 // of one server, or of this host
	// maxKnownAddresses bounds what is kept of one name.
	maxKnownAddresses = 32
	// An address is good for what its zone says, within bounds; that there is none
	// for less.
	leastNameLife  = time.Second
	mostNameLife   = time.Minute
	noAddressLife  = 5 * time.Second
	datagramAnswer = time.Second // until the next name server is asked
	maxNameAnswer  = 64 << 10
	// Where datagrams do not come through they are not tried for a while.
	datagramPause = time.Minute
)

var errNoAnswer = errors.New("no name server answers")

// names is what is known of names behind one server, or on this host.
type names struct {
	mu     sync.Mutex // guards the following fields
	known  map[string]knownName
	silent time.Time // until when datagrams are not tried
}

type knownName struct {
	addrs []netip.Addr // none: the name has none
	until time.Time
}

func (n *names) init() { n.known = make(map[string]knownName) }

func (n *names) find(name string) ([]netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, known := n.known[name]
	return k.addrs, known && time.Now().Before(k.until)
}

func (n *names) learn(name string, addrs []netip.Addr, life time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if len(n.known) >= maxKnownNames {
		for other, k := range n.known { // the old ones, and a quarter in any case
			if !now.Before(k.until) || len(n.known) > maxKnownNames*3/4 {
				delete(n.known, other)
			}
		}
	}
	n.known[name] = knownName{addrs: addrs, until: now.Add(life)}
}

// datagrams reports whether to try them.
func (n *names) datagrams() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !time.Now().Before(n.silent)
}

func (n *names) failed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = time.Now().Add(datagramPause)
}

// lookup returns the addresses of a name as seen behind the server: its IPv4
// addresses, or where there are none its IPv6 addresses.
func (e *exit) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	addrs, known := e.names.find(name)
	if !known {
		asked, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		var (
			life time.Duration
			err  error
		)
		for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
			if addrs, life, err = e.query(asked, name, kind); err != nil || len(addrs) > 0 {
				break
			}
		}
		switch {
		case err == nil:
		case errors.Is(ctx.Err(), context.Canceled):
			return nil, &Error{Failure: Cancelled, Err: err}
		case errors.Is(err, errLost):
			return nil, err
		default:
			return nil, &Error{Failure: DNS, Err: err}
		}
		e.names.learn(name, addrs, life)
	}
	if len(addrs) == 0 {
		return nil, &Error{Failure: DNS, Err: errors.New("no addresses")}
	}
	return addrs, nil
}

// query asks for one kind of address, by datagrams, which are fast, and where these
// bring nothing by a stream.
func (e *exit) query(ctx context.Context, name string, kind dnsmessage.Type) ([]netip.Addr, time.Duration, error) {
	q, err := newQuestion(name, kind)
	if err != nil {
		return nil, 0, err
	}
	quiet := false
	if e.names.datagrams() {
		a, err := e.askByDatagrams(ctx, q)
		if err == nil && !a.cut {
			return a.addrs, a.life, nil
		}
		quiet = errors.Is(err, errNoAnswer)
	}
	var last error = &Error{Failure: DNS, Err: errNoAnswer}
	for _, resolver := range e.outline.cfg.Resolvers {
		var a answer
		if a, last = e.askByStream(ctx, resolver, q); last == nil {
			if quiet { // streams bring what datagrams do not
				e.names.failed()
			}
			return a.addrs, a.life, nil
		}
		if errors.Is(last, errLost) || ctx.Err() != nil {
			break
		}
	}
	return nil, 0, last
}

// askByDatagrams asks one name server after the other, and takes the first answer
// of any.
func (e *exit) askByDatagrams(ctx context.Context, q question) (answer, error) {
	conn, err := e.dialPacket(ctx, netip.AddrPort{}, nil)
	if err != nil {
		return answer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	asked := make(map[netip.AddrPort]bool)
	var room sealedSpace // as large as any
	defer room.Return(false)
	for _, resolver := range e.outline.cfg.Resolvers {
		asked[resolver] = true
		if err := conn.WriteTo(q.message, resolver); err != nil {
			return answer{}, err
		}
		_ = conn.conn.SetReadDeadline(time.Now().Add(datagramAnswer))
		for {
			n, from, err := conn.ReadFrom(&room)
			if err != nil {
				break // for the next, or the stream
			}
			a, err := q.read(room.buf[:n])
			room.Return(false)
			if err == nil && asked[from] {
				return a, nil
			}
		}
	}
	return answer{}, errNoAnswer
}

// askByStream asks one name server over a connection (RFC 7766).
func (e *exit) askByStream(ctx context.Context, resolver netip.AddrPort, q question) (answer, error) {
	conn, err := e.dial(ctx, wire.Addr{IP: resolver.Addr(), Port: resolver.Port()})
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	message := binary.BigEndian.AppendUint16(nil, uint16(len(q.message)))
	if _, err := conn.Write(append(message, q.message...)); err != nil {
		return answer{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return answer{}, err
	}
	text := make([]byte, binary.BigEndian.Uint16(size[:])) // 64 KiB at most
	if _, err := io.ReadFull(conn, text); err != nil {
		return answer{}, err
	}
	return q.read(text)
}

// question is a message that asks for one kind of address.
type question struct {
	id      uint16
	name    dnsmessage.Name
	kind    dnsmessage.Type
	message []byte
}

func newQuestion(name string, kind dnsmessage.Type) (question, error) {
	full, err := dnsmessage.NewName(name + ".")
	if name == "" {
		full, err = dnsmessage.NewName(".")
	}
	if err != nil {
		return question{}, err
	}
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	q := question{id: binary.BigEndian.Uint16(id[:]), name: full, kind: kind}
	q.message, err = (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: full, Type: kind, Class: dnsmessage.ClassINET}},
	}).Pack()
	return q, err
}

// answer is what a name server says.
type answer struct {
	addrs []netip.Addr
	life  time.Duration
	cut   bool // there is more than a datagram holds
}

// read reads an answer to q. What is none is an error, and so is a name server
// that cannot say.
func (q question) read(text []byte) (answer, error) {
	if len(text) > maxNameAnswer {
		return answer{}, errors.New("an answer that is too long")
	}
	var p dnsmessage.Parser
	header, err := p.Start(text)
	if err != nil {
		return answer{}, err
	}
	asked, err := p.Question()
	switch {
	case err != nil:
		return answer{}, err
	case !header.Response, header.ID != q.id, asked.Type != q.kind, asked.Class != dnsmessage.ClassINET,
		!strings.EqualFold(asked.Name.String(), q.name.String()):
		return answer{}, errors.New("an answer to something else")
	case header.Truncated:
		return answer{cut: true}, nil
	case header.RCode != dnsmessage.RCodeSuccess && header.RCode != dnsmessage.RCodeNameError:
		return answer{}, fmt.Errorf("the name server says %s", header.RCode)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return answer{}, err
	}
	a := answer{life: noAddressLife}
	least := mostNameLife
	for len(a.addrs) < maxAddresses {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return answer{}, err
		}
		least = min(least, time.Duration(h.TTL)*time.Second) // of aliases on the way, too
		addr, err := address(&p, h, q.kind)
		if err != nil {
			return answer{}, err
		}
		if addr.IsValid() {
			a.addrs = append(a.addrs, addr)
		}
	}
	if len(a.addrs) > 0 {
		a.life = max(leastNameLife, least)
	}
	return a, nil
}

// address reads a record, and returns the address in it if it is of that kind. A
// name server is trusted to list the addresses of what was asked for, as resolvers
// are: whatever it says is judged.
func address(p *dnsmessage.Parser, h dnsmessage.ResourceHeader, kind dnsmessage.Type) (netip.Addr, error) {
	switch {
	case h.Type != kind || h.Class != dnsmessage.ClassINET:
		return netip.Addr{}, p.SkipAnswer()
	case kind == dnsmessage.TypeA:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A), err
	default:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA), err
	}
}
