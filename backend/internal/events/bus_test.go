package events

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serveNATS runs a NATS server; port -1 means any.
func serveNATS(t *testing.T, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("NATS does not start")
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// listener is a bus with what it was told.
type listener struct {
	*NATS
	told  Signal
	state chan bool
}

func listen(t *testing.T, url, service string, log io.Writer) *listener {
	t.Helper()
	l := &listener{told: NewSignal(), state: make(chan bool, 16)}
	var err error
	l.NATS, err = ConnectNATS(t.Context(), NATSOptions{
		URL: url, Service: service, Told: l.told.Send, State: func(up bool) { l.state <- up },
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func (l *listener) awaitUp(t *testing.T, want bool) {
	t.Helper()
	for {
		select {
		case up := <-l.state:
			if up == want {
				return
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("the bus does not become connected=%v", want)
		}
	}
}

func (l *listener) awaitTold(t *testing.T) {
	t.Helper()
	select {
	case <-l.told:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was told")
	}
}

func TestABusTellsTheOtherProcessesOfItsServiceAndNobodyElse(t *testing.T) {
	url := serveNATS(t, -1).ClientURL()
	one, two, foreign := listen(t, url, "a", io.Discard), listen(t, url, "a", io.Discard), listen(t, url, "b", io.Discard)
	for _, l := range []*listener{one, two, foreign} {
		l.awaitUp(t, true)
		l.awaitTold(t) // of what it may have missed
		if !l.Connected() {
			t.Error("not connected")
		}
		if err := l.conn.Flush(); err != nil { // the server knows what it wants
			t.Fatal(err)
		}
	}
	if err := one.Announce(); err != nil {
		t.Fatal(err)
	}
	two.awaitTold(t)
	for _, l := range []*listener{one, foreign} {
		if err := l.conn.Flush(); err != nil { // what is under way to it has come
			t.Fatal(err)
		}
		select {
		case <-l.told:
			t.Error("told one who has nothing to learn from it")
		default:
		}
	}
}

func TestABusComesBackByItself(t *testing.T) {
	s := serveNATS(t, -1)
	address, ok := s.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("not TCP")
	}
	l := listen(t, s.ClientURL(), "a", io.Discard)
	l.awaitUp(t, true)
	l.awaitTold(t)
	s.Shutdown()
	s.WaitForShutdown()
	l.awaitUp(t, false)
	if err := l.Announce(); err == nil || l.Connected() {
		t.Errorf("Announce without a server = %v, connected=%v", err, l.Connected())
	}
	serveNATS(t, address.Port)
	l.awaitUp(t, true)
	l.awaitTold(t)
	if err := l.Announce(); err != nil {
		t.Error(err)
	}
}

func TestABusThatIsAwayAtFirstIsFoundLaterAndNoPasswordIsTold(t *testing.T) {
	var log strings.Builder
	s := serveNATS(t, -1)
	address := strings.TrimPrefix(s.ClientURL(), "nats://")
	s.Shutdown()
	s.WaitForShutdown()
	l := listen(t, "nats://user:hunter2@"+address, "a", &log)
	if l.Connected() || l.Announce() == nil {
		t.Error("connected to nothing")
	}
	l.Close()
	if text := log.String(); !strings.Contains(text, "away") || strings.Contains(text, "hunter2") {
		t.Errorf("the log is %q", text)
	}
	_, err := ConnectNATS(t.Context(), NATSOptions{URL: "nats://user:hunter2@[", Service: "a", Logger: slog.New(slog.DiscardHandler)})
	if err == nil || strings.Contains(err.Error(), "hunter2") || errors.Unwrap(err) == nil {
		t.Errorf("ConnectNATS = %v, want an error without the password", err)
	}
}
