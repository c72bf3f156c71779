package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/e2e/internal/stack"
	"github.com/httvps/httvps/internal/devca"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// node is a process of a fleet that can be killed and started again.
type node struct {
	name, config, admin string
	url                 string // of a gateway
	proc                *stack.Process
}

// books is a backend and gateways, whose accounts are compared with what their
// targets saw.
type books struct {
	*fleet
	pin      string
	http     *http.Client
	base     string // of the admin API
	token    string
	backend  *node
	gateways []*node
	target   *target
}

func newBooks(t *testing.T, gateways int) *books {
	t.Helper()
	dir := t.TempDir()
	settings, ca := certificate(t, dir)
	authority, err := devca.Open(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	b := &books{
		fleet:  &fleet{service: &service{t: t}, env: []string{"SSL_CERT_FILE=" + ca, "XDG_CONFIG_HOME=" + dir}},
		pin:    authority.Pin().String(),
		http:   &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}}},
		target: newTarget(t),
	}
	t.Cleanup(b.http.CloseIdleConnections)
	b.backend = &node{name: "httvps-backend", config: writeFile(t, filepath.Join(dir, "backend.yaml"), settings+fmt.Sprintf(
		"listen: %s\nadmin_listen: %s\ndata_dir: %s\ngateway_heartbeat: 1s\nlimits: {unauthenticated_per_prefix: 1000}\n",
		freePort(t), freePort(t), filepath.Join(dir, "backend")))}
	var control struct {
		Admin     string `json:"admin"`
		Bootstrap string `json:"bootstrap"`
	}
	b.serve(b.backend, &control)
	b.base = control.Admin
	b.ask(nil, "bootstrap", control.Bootstrap)
	var made struct {
		Join  string `json:"join"`
		Token string `json:"token"`
	}
	b.ask(&made, "token", "create")
	b.token = made.Token
	b.ask(nil, "region", "create", "--code", "eu")
	for i := range gateways {
		name := fmt.Sprintf("g%d", i)
		b.ask(&made, "gateway", "create", "--name", name, "--region", "eu")
		address := freePort(t)
		g := &node{name: "httvps-gateway", admin: freePort(t), url: "wss://" + address + "/" + name}
		g.config = writeFile(t, filepath.Join(dir, name+".yaml"), settings+fmt.Sprintf(
			"listen: %s\nurl: %s\ndata_dir: %s\nadmin_listen: %s\nupstream: {allow: [127.0.0.0/8]}\n"+
				"limits: {unauthenticated_per_prefix: 1000}\nusage: {interval: 1s, report_interval: 1s}\n",
			address, g.url, filepath.Join(dir, name), g.admin))
		if r := run(t, made.Join+"\n", b.env, "httvps-gateway", "join", "-", "--config", g.config); r.code != 0 {
			t.Fatalf("join: %s", r.stderr)
		}
		var ready stack.ServerReady
		b.serve(g, &ready)
		b.gateways = append(b.gateways, g)
	}
	return b
}

// serve starts a process, again after Kill, and waits until it is ready.
func (b *books) serve(n *node, ready any) {
	b.t.Helper()
	n.proc = b.launch(n.name, "serve", "--config", n.config)
	if err := n.proc.Ready(b.t.Context(), ready); err != nil {
		b.t.Fatal(err)
	}
}

// ask runs httvpsctl.
func (b *books) ask(v any, args ...string) {
	b.t.Helper()
	r := run(b.t, "", b.env, "httvpsctl", append(args, "-o", "json")...)
	if r.code != 0 {
		b.t.Fatalf("httvpsctl %s: %s", strings.Join(args, " "), r.stderr)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
			b.t.Fatal(err)
		}
	}
}

// call asks the admin API.
func (b *books) call(method, path string, body string, v any) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base+"/api/v1/admin"+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		b.t.Fatalf("%s %s: %d %s, %v", method, path, resp.StatusCode, text, err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		b.t.Fatal(err)
	}
}

// metric reads a number of a gateway.
func (b *books) metric(n *node, name string) (float64, error) {
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, "http://"+n.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), "httvps_gateway_"+name+" "); found {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("no %s", name), lines.Err())
}

// settled waits until the control plane has everything.
func (b *books) settled() {
	b.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for _, g := range b.gateways {
		for {
			sessions, err := b.metric(g, "sessions")
			rows, rowsErr := b.metric(g, "ledger_rows")
			if err == nil && rowsErr == nil && sessions == 0 && rows == 0 {
				break
			}
			if time.Now().After(deadline) {
				b.t.Fatalf("%v sessions and %v rows are left, %v", sessions, rows, errors.Join(err, rowsErr))
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	var verdict struct {
		OK           bool    `json:"ok"`
		Unattributed traffic `json:"unattributed"`
	}
	if b.call(http.MethodGet, "/usage/verify", "", &verdict); !verdict.OK || verdict.Unattributed != (traffic{}) {
		b.t.Errorf("the account is not what the reports lead to, or nobody's: %+v", verdict)
	}
}

type traffic struct{ Up, Down int64 }

// usage is what a device has used, as the operator sees it.
func (b *books) usage(device string) traffic {
	b.t.Helper()
	var usage struct {
		Total traffic `json:"total"`
	}
	b.call(http.MethodGet, "/usage?device_id="+device, "", &usage)
	return usage.Total
}

// mover is a device and what the targets saw of it.
type mover struct {
	b      *books
	id     string
	index  int
	client *httvps.Client
	ended  chan error // of Run
	stop   context.CancelFunc

	gateway atomic.Pointer[string] // that it is, or was last, connected to

	mu      sync.Mutex // guards the following field
	streams []*seen
}

// seen is what a target saw of a stream.
type seen struct {
	mu      sync.Mutex // guards the following fields
	up      int64      // received by the target
	down    int64      // of which the device has said that it has them
	written int64      // by the target
	at      []moment
	open    bool
	kept    time.Time // the gateway was killed: what was moved later may be lost; zero: it was not
}

// moment is what had been moved when something was.
type moment struct {
	at    time.Time
	moved int64
}

func (s *seen) note(up, down int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up += up
	s.down += down
	s.at = append(s.at, moment{time.Now(), s.up + s.down})
}

// mayLack is what of a stream may be missing in the account.
func (s *seen) mayLack() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept.IsZero() {
		return 0
	}
	moved := int64(0)
	for _, m := range s.at {
		if m.at.Before(s.kept) {
			moved = m.moved
		}
	}
	return s.up + s.down - moved
}

// enrol makes a device of a user and connects it.
func (b *books) enrol(ctx context.Context, user string, index int) (*mover, error) {
	var invitation object
	b.call(http.MethodPost, "/users/"+user+"/invitations", "{}", &invitation)
	inv, err := httvps.ParseInvitation(invitation.Link + ",pin=" + b.pin)
	if err != nil {
		return nil, err
	}
	store := httvps.NewMemoryStore()
	profile, err := httvps.Enroll(ctx, inv, httvps.EnrollOptions{Store: store})
	if err != nil {
		return nil, err
	}
	m := &mover{b: b, id: profile.DeviceID, index: index, ended: make(chan error, 1)}
	connected := make(chan struct{}, 1)
	m.client, err = httvps.NewClient(httvps.Config{Store: store, MaxBackoff: time.Second, OnEvent: func(e httvps.Event) {
		if e.Kind != httvps.Connected {
			return
		}
		m.gateway.Store(&e.Gateway)
		select {
		case connected <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		return nil, err
	}
	ctx, m.stop = context.WithCancel(ctx)
	go func() { m.ended <- m.client.Run(ctx) }()
	b.target.add(m)
	select {
	case <-connected:
		return m, nil
	case err := <-m.ended:
		m.ended <- err
		return nil, fmt.Errorf("a device was not let in: %w", err)
	}
}

// chunk is what a target sends before it waits for the device's word.
const chunk = 16 << 10

// move moves n bytes through a stream in one direction, and reports whether all of it
// arrived.
func (m *mover) move(ctx context.Context, up bool, n int) error {
	conn, err := m.client.DialContext(ctx, "tcp", m.b.target.listener.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if up {
		if _, err := fmt.Fprintf(conn, "%d up 0\n", m.index); err != nil {
			return err
		}
		if _, err := conn.Write(make([]byte, n)); err != nil {
			return err
		}
		if err := conn.(httvps.Conn).CloseWrite(); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, conn)
		return err
	}
	if _, err := fmt.Fprintf(conn, "%d down %d\n", m.index, n); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for n > 0 {
		part := buf[:min(n, chunk)]
		if _, err := io.ReadFull(conn, part); err != nil {
			return err
		}
		if _, err := conn.Write([]byte{1}); err != nil {
			return err
		}
		n -= len(part)
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}

// totals are what the targets saw of the device: the most that may be accounted, and
// what has to be.
func (m *mover) totals() (most, least traffic, mayLack int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.streams {
		mayLack += s.mayLack()
		s.mu.Lock()
		most.Up += s.up
		most.Down += s.written
		least.Up += s.up
		least.Down += s.down
		s.mu.Unlock()
	}
	return most, least, mayLack
}

// check compares the account with what the targets saw, and returns how much it lacks.
func (m *mover) check() (lacks, moved int64) {
	m.b.t.Helper()
	most, least, mayLack := m.totals()
	got := m.b.usage(m.id)
	if got.Up > most.Up || got.Down > most.Down {
		m.b.t.Errorf("device %d: %+v is accounted, and only %+v was moved", m.index, got, most)
	}
	moved = least.Up + least.Down
	if lacks = max(moved-got.Up-got.Down, 0); lacks > mayLack {
		m.b.t.Errorf("device %d: of %d bytes %d are not accounted, and only %d were moved later than what its gateway said it had written", m.index, moved, lacks, mayLack)
	}
	return lacks, moved
}

// target is where streams end. It never sends what nobody waits for, so that a
// gateway that is killed has nothing unread that would make its end a reset: what it
// had written arrives.
type target struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex // guards the following field
	movers map[int]*mover
}

func newTarget(t *testing.T) *target {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far := &target{listener: listener, movers: make(map[int]*mover)}
	far.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			far.serving.Go(func() { far.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		far.serving.Wait()
	})
	return far
}

func (far *target) add(m *mover) {
	far.mu.Lock()
	defer far.mu.Unlock()
	far.movers[m.index] = m
}

func (far *target) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	line, err := r.ReadString('\n')
	var (
		index, n  int
		direction string
	)
	if _, scanErr := fmt.Sscan(line, &index, &direction, &n); err != nil || scanErr != nil {
		return // the head was cut off: so few bytes are nobody's
	}
	far.mu.Lock()
	m := far.movers[index]
	far.mu.Unlock()
	s := &seen{open: true}
	s.note(int64(len(line)), 0)
	m.mu.Lock()
	m.streams = append(m.streams, s)
	m.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.open = false
		s.mu.Unlock()
	}()
	if direction == "up" {
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Read(buf)
			s.note(int64(n), 0)
			if err != nil {
				return
			}
		}
	}
	for buf := make([]byte, chunk); n > 0; {
		part := buf[:min(n, chunk)]
		s.mu.Lock()
		s.written += int64(len(part))
		s.mu.Unlock()
		if _, err := conn.Write(part); err != nil {
			return
		}
		if _, err := r.ReadByte(); err != nil {
			return
		}
		s.note(1, int64(len(part)))
		n -= len(part)
	}
}

// kill kills a gateway. What it carried later than it said that it had written may be
// missing in the account.
func (b *books) kill(g *node, movers []*mover) {
	b.t.Helper()
	written := b.written(g)
	g.proc.Kill()
	// A byte may be seen before the gateway has counted it, for longer where others use
	// the processors.
	kept := written.Add(-2 * time.Second)
	for _, m := range movers {
		if at := m.gateway.Load(); at != nil && *at != g.url {
			continue
		}
		m.mu.Lock()
		for _, s := range m.streams {
			s.mu.Lock()
			if s.kept.IsZero() && (s.open || s.at[len(s.at)-1].at.After(kept)) {
				s.kept = kept
			}
			s.mu.Unlock()
		}
		m.mu.Unlock()
	}
}

// written is until when a gateway says that it has written everything; at its
// beginning, nothing.
func (b *books) written(g *node) time.Time {
	seconds, err := b.metric(g, "ledger_written_timestamp_seconds")
	if err != nil {
		return time.UnixMicro(1)
	}
	return time.UnixMicro(int64(seconds * 1e6))
}

func TestUsageIsCompleteThoughGatewaysAndBackendAreKilled(t *testing.T) {
	kills, devices := 10, 200
	if soak {
		kills = 100
	}
	b := newBooks(t, 3)
	b.ask(nil, "plan", "create", "--name", "all", "--max-devices", "1000", "--max-sessions", "1000")
	var user object
	b.ask(&user, "user", "create", "--name", "anna")
	b.ask(nil, "subscription", "create", "--user", "anna", "--plan", "all")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var (
		movers    = make([]*mover, devices)
		enrolling sync.WaitGroup
		places    = make(chan struct{}, 8)
	)
	for i := range movers {
		places <- struct{}{}
		enrolling.Go(func() {
			defer func() { <-places }()
			var err error
			if movers[i], err = b.enrol(ctx, user.ID, i); err != nil {
				t.Error(err)
			}
		})
	}
	enrolling.Wait()
	if t.Failed() {
		t.FailNow()
	}
	moving, halt := context.WithCancel(ctx)
	defer halt()
	var running sync.WaitGroup
	for _, m := range movers {
		running.Go(func() {
			for moving.Err() == nil {
				// What is broken off by its device may be counted and never arrive: each comes
				// to its end, or that of its gateway.
				try, giveUp := context.WithTimeout(ctx, time.Minute)
				_ = m.move(try, rand.IntN(2) == 0, 1+rand.IntN(96<<10)) // gateways are being killed
				giveUp()
				select {
				case <-time.After(time.Duration(100+rand.IntN(1500)) * time.Millisecond):
				case <-moving.Done():
				}
			}
		})
	}

	for i := range kills {
		<-time.After(time.Duration(300+rand.IntN(1200)) * time.Millisecond)
		var ignored stack.ServerReady
		if i%4 == 3 {
			b.backend.proc.Kill()
			<-time.After(time.Duration(rand.IntN(1000)) * time.Millisecond)
			b.serve(b.backend, &ignored)
			continue
		}
		g := b.gateways[rand.IntN(len(b.gateways))]
		b.kill(g, movers)
		<-time.After(time.Duration(rand.IntN(500)) * time.Millisecond)
		b.serve(g, &ignored)
	}
	<-time.After(time.Second)
	halt()
	running.Wait()
	for _, m := range movers {
		m.stop()
		<-m.ended
	}
	b.settled()
	var lacks, moved int64
	for _, m := range movers {
		l, all := m.check()
		lacks, moved = lacks+l, moved+all
	}
	t.Logf("%d kills: of %d bytes %d are not accounted", kills, moved, lacks)
	if moved == 0 || lacks > moved/2 {
		t.Error("nothing was moved, or most of it is not accounted")
	}
}

func TestUsageWaitsForAControlPlaneThatWasAway(t *testing.T) {
	b := newBooks(t, 1)
	b.ask(nil, "plan", "create", "--name", "all")
	var user object
	b.ask(&user, "user", "create", "--name", "anna")
	b.ask(nil, "subscription", "create", "--user", "anna", "--plan", "all")
	var movers []*mover
	for i := range 3 {
		m, err := b.enrol(t.Context(), user.ID, i)
		if err != nil {
			t.Fatal(err)
		}
		movers = append(movers, m)
	}
	everyone := func() {
		t.Helper()
		for _, m := range movers {
			for _, up := range []bool{true, false} {
				if err := m.move(t.Context(), up, 1+rand.IntN(1<<20)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	everyone()
	b.backend.proc.Kill()
	everyone()
	movers[0].stop() // it ends while nobody hears of it
	<-movers[0].ended
	g := b.gateways[0]
	last := time.Now()
	for deadline := last.Add(time.Minute); !b.written(g).After(last); <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is written")
		}
	}
	if lag, err := b.metric(g, "ledger_lag_seconds"); err != nil || lag <= 0 {
		t.Errorf("the ledger's lag is %v, %v", lag, err)
	}
	g.proc.Kill()
	for _, m := range movers[1:] {
		m.stop()
		<-m.ended
	}
	var ignored stack.ServerReady
	b.serve(b.backend, &ignored)
	b.serve(g, &ignored)
	b.settled()
	for _, m := range movers {
		if lacks, moved := m.check(); lacks != 0 || moved == 0 {
			t.Errorf("device %d: of %d bytes %d are not accounted", m.index, moved, lacks)
		}
	}
}

// A quota that three gateways draw from at once stops downloads in the middle, and
// is not exceeded by more than what streams may have in their hands.
func TestAQuotaStopsDownloadsOnSeveralGateways(t *testing.T) {
	const quota = 40 << 20
	b := newBooks(t, 3)
	b.ask(nil, "plan", "create", "--name", "small", "--quota-bytes", "40MiB", "--max-devices", "100", "--max-sessions", "100")
	var user object
	b.ask(&user, "user", "create", "--name", "anna")
	b.ask(nil, "subscription", "create", "--user", "anna", "--plan", "small")
	var (
		movers  []*mover
		used    = make(map[string]bool)
		running sync.WaitGroup
	)
	for i := 0; i < 60 && (len(used) < 3 || i < 6); i++ {
		m, err := b.enrol(t.Context(), user.ID, i)
		if err != nil {
			t.Fatal(err)
		}
		movers = append(movers, m)
		used[*m.gateway.Load()] = true
	}
	if len(used) < 3 {
		t.Fatalf("%d devices are on %d gateways", len(movers), len(used))
	}
	for _, m := range movers {
		running.Go(func() {
			if err := m.move(t.Context(), false, quota); err == nil {
				t.Error("a download of the whole quota came to its end beside others")
			}
			var refused *httvps.RefusedError
			if err := <-m.ended; !errors.As(err, &refused) || refused.Code != "quota_exceeded" {
				t.Errorf("device %d: its session ended with %v", m.index, err)
			}
		})
	}
	running.Wait()
	b.settled()
	total, moved := int64(0), int64(0)
	for _, m := range movers {
		_, had := m.check()
		got := b.usage(m.id)
		total += got.Up + got.Down
		moved += had
	}
	// Each of the streams may have taken a byte that was not there, each time that the
	// allowance of its gateway came to its end.
	if total > quota+10_000 || total < quota-1<<20 || moved > total {
		t.Errorf("of a quota of %d bytes %d were used, and %d arrived", quota, total, moved)
	}
	t.Logf("%d devices: of a quota of %d bytes %d were used", len(movers), quota, total)
}

func TestAPlanThatThrottlesSlowsDevicesWhenTheirQuotaIsUsed(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	var invitation object
	s.ctl(nil, "user", "create", "--name", "anna")
	s.ctl(nil, "plan", "create", "--name", "slow", "--quota-bytes", "4MiB", "--quota-action", "throttle", "--throttle-bps", "4M")
	s.ctl(nil, "subscription", "create", "--user", "anna", "--plan", "slow")
	s.ctl(&invitation, "user", "invite", "anna")
	d := enroll(t, invitation.Link)
	d.connect()
	if _, err := d.curl("-o", os.DevNull, far.URL()+"/4MiB"); err != nil {
		t.Fatal(err)
	}
	// 2 MiB take 4.19 s, less the tenth of a second that may come at once.
	began := time.Now()
	if _, err := d.curl("-o", os.DevNull, far.URL()+"/2MiB"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 3800*time.Millisecond {
		t.Errorf("beyond the quota 2 MiB took %v", took)
	}
	// With more to use it is not slow any more.
	s.ctl(nil, "plan", "update", "slow", "--quota-bytes", "1GiB")
	for deadline := time.Now().Add(20 * time.Second); ; {
		began := time.Now()
		if _, err := d.curl("-o", os.DevNull, far.URL()+"/2MiB"); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) < 2*time.Second {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the session goes on slowly")
		}
	}
}
