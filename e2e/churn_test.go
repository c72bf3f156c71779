package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/test/sstest"
)

// churn is how much comes and goes: in a soak over twenty minutes.
type churn struct {
	sessions, streams int           // streams of each session
	pause             time.Duration // of each of churners between two sessions
}

// churners come and go at the same time.
const churners = 8

// gauges are what a gateway must not keep of sessions that are over.
type gauges struct{ goroutines, files, heap float64 }

// TestNothingIsLeftOfSessionsThatComeAndGo: devices connect, open streams and leave,
// every other one by breaking off its connection with all that is on its way.
// Goroutines, descriptors and heap of the server are then what they were.
func TestNothingIsLeftOfSessionsThatComeAndGo(t *testing.T) {
	c := churn{sessions: 64, streams: 20}
	if soak {
		c = churn{sessions: 5000, streams: 20, pause: churners * 20 * time.Minute / 5000}
	}
	admin := freePort(t)
	s := &service{t: t, dir: t.TempDir(), env: []string{"HTTVPS_GATEWAY_ADMIN_LISTEN=" + admin, "HTTVPS_GATEWAY_LOG_LEVEL=warn", "HTTVPS_BACKEND_LOG_LEVEL=warn"}}
	s.start()
	t.Cleanup(func() {
		s.proc.Kill()
		if t.Failed() {
			t.Logf("httvps-server said:\n%s", s.proc.Log())
		}
	})
	inv, err := httvps.ParseInvitation(s.Invite)
	if err != nil {
		t.Fatal(err)
	}
	store := httvps.NewMemoryStore()
	if _, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: store}); err != nil {
		t.Fatal(err)
	}
	s.ctl(nil, "plan", "update", "dev", "--max-sessions", strconv.Itoa(8*churners)) // some are not over yet
	target := sstest.ServeTCP(t, chatter).String()

	churn{sessions: 4 * churners, streams: c.streams}.run(t, store, target) // what is made once, and pools
	before := settle(t, admin, nil)
	began := time.Now()
	c.run(t, store, target)
	after := settle(t, admin, &before)
	t.Logf("%d sessions with %d streams in %v; before %+v, after %+v", c.sessions, c.sessions*c.streams, time.Since(began).Round(time.Second), before, after)
	if after.goroutines > before.goroutines+slack || after.files > before.files+slack || after.heap > before.heap+heapSlack {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

const (
	// slack is for connections between the parts of the server.
	slack     = 10
	heapSlack = 4 << 20
)

func (c churn) run(t *testing.T, store httvps.Store, target string) {
	t.Helper()
	next := make(chan int)
	var working sync.WaitGroup
	for range churners {
		working.Go(func() {
			for i := range next {
				if err := c.session(t.Context(), store, target, i%2 == 1); err != nil {
					t.Errorf("session %d: %v", i, err)
				}
				<-time.After(c.pause)
			}
		})
	}
	for i := range c.sessions {
		next <- i
	}
	close(next)
	working.Wait()
}

// session connects, uses its streams, and leaves: properly or abruptly.
func (c churn) session(ctx context.Context, store httvps.Store, target string, abruptly bool) error {
	ctx, cancel := context.WithCancel(ctx)
	var (
		mu    sync.Mutex // guards conns
		conns []*net.TCPConn
		gone  atomic.Bool
	)
	client, err := httvps.NewClient(httvps.Config{Store: store, NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if gone.Load() {
			return nil, errors.New("the device is gone")
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok {
			mu.Lock()
			conns = append(conns, tcp)
			mu.Unlock()
		}
		return conn, err
	}})
	if err != nil {
		cancel()
		return err
	}
	var running sync.WaitGroup
	running.Go(func() { _ = client.Run(ctx) })
	defer running.Wait()
	defer cancel()
	problems := make(chan error, c.streams)
	var streams sync.WaitGroup
	for i := range c.streams {
		streams.Go(func() { problems <- chat(ctx, client, target, abruptly && i%4 == 3) })
	}
	streams.Wait()
	for range c.streams {
		err = errors.Join(err, <-problems)
	}
	if abruptly {
		gone.Store(true)
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range conns {
			_ = conn.SetLinger(0) // not even an end
			_ = conn.Close()
		}
	}
	return err
}

// chat moves some bytes there and back. One that is left open is in the middle of a
// download that nobody reads.
func chat(ctx context.Context, client *httvps.Client, target string, left bool) error {
	conn, err := client.DialContext(ctx, "tcp", target)
	if err != nil {
		return err
	}
	size := 20_000
	if left {
		size = 100_000_000
	}
	if _, err := fmt.Fprintf(conn, "%d\n", size); err != nil {
		return err
	}
	if left {
		_, err = io.ReadFull(conn, make([]byte, 1))
		return err
	}
	defer conn.Close()
	n, err := io.Copy(io.Discard, conn)
	if err == nil && n != int64(size) {
		err = fmt.Errorf("%d bytes came, want %d", n, size)
	}
	return err
}

// chatter answers a number with as many bytes.
func chatter(conn *net.TCPConn) {
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	size, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return
	}
	piece := make([]byte, 64<<10)
	for size > 0 && err == nil {
		var n int
		n, err = conn.Write(piece[:min(size, len(piece))])
		size -= n
	}
}

// settle waits until the gateway's gauges are no more than base, or with none until they
// no longer fall, for at most two minutes, and returns them.
func settle(t *testing.T, admin string, base *gauges) gauges {
	t.Helper()
	last := look(t, admin)
	for began := time.Now(); time.Since(began) < 2*time.Minute; <-time.After(time.Second) {
		now := look(t, admin)
		switch {
		case base == nil && now.goroutines >= last.goroutines && now.files >= last.files && now.heap >= last.heap*0.99:
			return now
		case base != nil && now.goroutines <= base.goroutines+slack && now.files <= base.files+slack && now.heap <= base.heap+heapSlack:
			return now
		}
		last = now
	}
	return last
}

// look reads the gauges behind a garbage collection that its own questions bring about.
func look(t *testing.T, admin string) gauges {
	t.Helper()
	values := metricsOf(t, admin)
	for first := values["go_gc_duration_seconds_count"]; values["go_gc_duration_seconds_count"] < first+2; {
		values = metricsOf(t, admin)
	}
	return gauges{values["go_goroutines"], values["process_open_fds"], values["go_memstats_heap_alloc_bytes"]}
}

func metricsOf(t *testing.T, admin string) map[string]float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for line := range strings.Lines(string(text)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		if value, err := strconv.ParseFloat(number, 64); err == nil {
			values[name] = value
		}
	}
	return values
}
