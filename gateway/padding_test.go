package gateway_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/sstest"
)

// tap is who stands between devices and a gateway, passes everything on, and writes down
// how long the TLS records are: all that there is to be seen.
type tap struct {
	net.Listener
	gateway string // where it passes everything on to

	mu    sync.Mutex // guards calls
	calls []*tapped
}

// tapped is one connection.
type tapped struct {
	near, far net.Conn
	up, down  []int // lengths of what is in the records with application data; guarded by tap.mu
}

func newTap(t *testing.T, to string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &tap{Listener: l, gateway: to}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { w.serve(near) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
		serving.Wait()
	})
	return w
}

func (w *tap) serve(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", w.gateway)
	if err != nil {
		return
	}
	defer far.Close()
	call := &tapped{near: near, far: far}
	w.mu.Lock()
	w.calls = append(w.calls, call)
	w.mu.Unlock()
	var passing sync.WaitGroup
	passing.Go(func() { w.pass(far, near, &call.up) })
	passing.Go(func() { w.pass(near, far, &call.down) })
	passing.Wait()
}

// pass passes whole records on, and notes them before.
func (w *tap) pass(to, from net.Conn, lengths *[]int) {
	defer to.Close()
	const (
		header          = 5
		applicationData = 23
		sealed          = 1 + 16 // the type of what is in a record, and the tag of its seal
	)
	for {
		var head [header]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint16(head[3:]))
		if _, err := io.ReadFull(from, body); err != nil {
			return
		}
		if head[0] == applicationData {
			w.mu.Lock()
			*lengths = append(*lengths, len(body)-sealed)
			w.mu.Unlock()
		}
		if _, err := to.Write(append(head[:], body...)); err != nil {
			return
		}
	}
}

// cut ends all connections.
func (w *tap) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, call := range w.calls {
		_, _ = call.near.Close(), call.far.Close()
	}
}

// last is what has been seen of the connection that was made last and says something.
func (w *tap) last(t *testing.T) (up, down []int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, call := range slices.Backward(w.calls) {
		if len(call.up) > 2 {
			return slices.Clone(call.up), slices.Clone(call.down)
		}
	}
	t.Fatal("no connection")
	return nil, nil
}

// fronted is a listener that is reached at another address.
type fronted struct {
	net.Listener
	front net.Addr
}

func (l fronted) Addr() net.Addr { return l.front }

// tappedService is a service whose gateway is reached through a tap, and a device of it.
func tappedService(t *testing.T, change func(*gateway.Config)) (*tap, httvps.Store) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := newTap(t, listener.Addr().String())
	s := newServiceOn(t, fronted{listener, w.Addr()}, change)
	return w, s.enrolled(t)
}

// sighting is what a tap saw of a session, without what belongs to WebSocket.
type sighting struct {
	challenge, hello, ready int
	resume, resumed         int
	up, down                []int // messages behind the handshake
	upAgain, downAgain      []int // the same, on the second connection
}

// watch runs a session that exchanges some words, has its connection cut, and exchanges
// some more. Nobody else uses the tap.
func (w *tap) watch(t *testing.T, store httvps.Store, target string) (all sighting) {
	t.Helper()
	events := make(chan httvps.Event, 1000)
	client, err := httvps.NewClient(httvps.Config{Store: store, OnEvent: func(e httvps.Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	defer keep(t, client)()
	const (
		down   = 2     // what WebSocket puts before a short message, to the device
		up     = 4 + 2 // and from it
		longer = 2     // and more before a message of 126 bytes
	)
	message := func(record, header int) int {
		if record-header >= 126+longer {
			return record - header - longer
		}
		return record - header
	}
	messages := func(records []int, header int) (out []int) {
		for _, n := range records {
			out = append(out, message(n, header))
		}
		return out
	}
	awaitEvent(t, events, httvps.Connected)
	before, behind := w.last(t)
	all.hello = message(before[len(before)-1], up)
	all.challenge, all.ready = message(behind[len(behind)-2], down), message(behind[len(behind)-1], down)

	conn, err := client.DialContext(t.Context(), "tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func(times int) {
		t.Helper()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		for i := range times {
			word := fmt.Sprintf("word %d", i)
			got := make([]byte, len(word))
			if _, err := io.WriteString(conn, word); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != word {
				t.Fatalf("%q has come back as %q, %v", word, got, err)
			}
		}
	}
	say(12)
	upAll, downAll := w.last(t)
	all.up, all.down = messages(upAll[len(before):], up), messages(downAll[len(behind):], down)

	w.cut()
	awaitEvent(t, events, httvps.Resumed)
	say(6)
	// Of what came behind RESUMED some may be on its way when the event is told, so the
	// handshake is counted from the front: the first words of TLS, the upgrade, and its own.
	upAll, downAll = w.last(t)
	const resumeAt = 2 // behind the end of TLS's own handshake and the upgrade
	all.resume, all.upAgain = message(upAll[resumeAt], up), messages(upAll[resumeAt+1:], up)
	resumedAt := len(behind) - 1 // as READY
	all.resumed, all.downAgain = message(downAll[resumedAt], down), messages(downAll[resumedAt+1:], down)
	return all
}

// docs/03, part 8.6, as the wire shows it: nothing is looked at but the lengths of TLS
// records between a device and a gateway.
func TestWhatIsSeenOfASessionIsDrawnAnewForEach(t *testing.T) {
	t.Parallel()
	policy := wire.DefaultPadding()
	w, store := tappedService(t, nil)
	target := sstest.ServeTCP(t, sstest.Echo).String()
	const sessions = 8
	var all []sighting
	for range sessions {
		all = append(all, w.watch(t, store, target))
	}
	for i, s := range all {
		for name, n := range map[string]int{"CHALLENGE": s.challenge, "READY": s.ready, "RESUME": s.resume, "RESUMED": s.resumed} {
			if n < wire.MinPadHandshake || n > wire.MaxPadHandshake {
				t.Errorf("session %d: a %s of %d bytes", i, name, n)
			}
		}
		if s.hello < wire.MinPadHandshake || s.hello > 2*wire.MaxPadHandshake {
			t.Errorf("session %d: a HELLO of %d bytes", i, s.hello)
		}
		for name, messages := range map[string][]int{"up": s.up, "down": s.down, "up again": s.upAgain, "down again": s.downAgain} {
			if len(messages) < 6 {
				t.Fatalf("session %d, %s: %d messages", i, name, len(messages))
			}
			for j, n := range messages[:policy.Messages/2] {
				size, _ := slices.BinarySearch(policy.Sizes, n+1)
				if size == 0 || n > policy.Sizes[size-1]+policy.Spread+1 {
					t.Errorf("session %d, %s: message %d has %d bytes, which the policy has not", i, name, j, n)
				}
			}
		}
		if last := s.up[len(s.up)-1]; last > 60 {
			t.Errorf("session %d: the twelfth word has %d bytes on the wire", i, last)
		}
		tiny := slices.IndexFunc(s.up, func(n int) bool { return n < policy.Sizes[0] })
		if tiny < policy.Messages/2 {
			t.Errorf("session %d: message %d is the first without padding", i, tiny)
		}
	}
	for name, length := range map[string]func(sighting) int{
		"CHALLENGE":                      func(s sighting) int { return s.challenge },
		"HELLO":                          func(s sighting) int { return s.hello },
		"READY":                          func(s sighting) int { return s.ready },
		"RESUME":                         func(s sighting) int { return s.resume },
		"RESUMED":                        func(s sighting) int { return s.resumed },
		"OPEN":                           func(s sighting) int { return s.up[0] },
		"the first word to the target":   func(s sighting) int { return s.up[1] },
		"OPENED":                         func(s sighting) int { return s.down[0] },
		"the first word from the target": func(s sighting) int { return s.down[1] },
	} {
		lengths := make(map[int]bool)
		for _, s := range all {
			lengths[length(s)] = true
		}
		if len(lengths) < sessions/2 {
			t.Errorf("%s has %d lengths in %d sessions: %v", name, len(lengths), sessions, lengths)
		}
	}
}

func TestWithoutPaddingNothingIsAdded(t *testing.T) {
	t.Parallel()
	w, store := tappedService(t, func(cfg *gateway.Config) { cfg.Padding.Enabled = false })
	target := sstest.ServeTCP(t, sstest.Echo).String()
	var first sighting
	for i := range 3 {
		s := w.watch(t, store, target)
		if s.challenge > 70 || s.ready > 200 || s.resume > 70 || s.resumed > 50 {
			t.Errorf("the handshake has %d, %d, %d and %d bytes", s.challenge, s.ready, s.resume, s.resumed)
		}
		for _, n := range slices.Concat(s.up, s.down, s.upAgain, s.downAgain) {
			if n > 60 {
				t.Errorf("a message of %d bytes", n)
			}
		}
		if i == 0 {
			first = s
		}
		if s.challenge != first.challenge || s.ready != first.ready || s.hello != first.hello || s.up[0] != first.up[0] {
			t.Errorf("session %d is not like the first: %+v, %+v", i, s, first)
		}
	}
}

// What a gateway adds is nobody's business: there is nothing of it in its log.
func TestPaddingDoesNotShowInTheLog(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	d := s.lastingDevice(t)
	d.padded = true
	tun := d.connect(t, s.url, s.trust)
	if !tun.ready.Capabilities.Has(wire.Padding) {
		t.Fatal("the session is not padded")
	}
	echoing(t, tun)("hello")
	tun.Close(wire.CodeNoError, "")
	<-tun.ended
	if strings.Contains(strings.ToLower(s.log.String()), "pad") {
		t.Errorf("the log speaks of padding:\n%s", s.log)
	}
}

// A file with a mistake changes nothing; padding that was switched off is off for new
// sessions, and those that live keep what they have.
func TestPaddingIsReloadedForNewSessions(t *testing.T) {
	t.Parallel()
	reload := make(chan gateway.Config)
	s := newService(t, func(cfg *gateway.Config) { cfg.Reload = reload })
	d := s.enrol(t)
	d.padded = true
	policy := func() *wire.PaddingPolicy {
		tun := d.connect(t, s.url, s.trust)
		defer tun.Close(wire.CodeNoError, "")
		if !tun.ready.Capabilities.Has(wire.Padding) {
			return nil
		}
		return &tun.ready.PaddingPolicy
	}
	if p := policy(); p == nil || p.Messages != 8 {
		t.Fatalf("the policy is %+v", p)
	}
	next := s.cfg
	next.Padding.Messages = 3
	reload <- next
	eventually(t, "the other policy", func() bool { p := policy(); return p != nil && p.Messages == 3 })
	next.Padding.Sizes = []int{512, 256}
	reload <- next
	next.Padding.Sizes, next.Padding.Enabled = s.cfg.Padding.Sizes, false
	if p := policy(); p == nil || p.Messages != 3 {
		t.Errorf("after a mistake the policy is %+v", p)
	}
	reload <- next
	eventually(t, "no policy", func() bool { return policy() == nil })
}
