package gateway_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

var anywhere = wire.Addr{Name: "any.example", Port: 1}

// newDraining starts a gateway that gives sessions so long to leave, beside others.
func newDraining(t *testing.T, within time.Duration, others ...string) (*service, *control) {
	t.Helper()
	return newControlledBy(t, func(c *control) { c.others = others }, func(cfg *gateway.Config) {
		cfg.DrainTimeout = configfile.Duration(within)
		cfg.Upstream.Mode = "echo"
	})
}

// stopping has the gateway stop and returns when it lets nobody in any more; stopped is
// closed when it has.
func (s *service) stopping(t *testing.T, c *control) (stopped <-chan struct{}) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.stop()
	}()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		conn, answer := c.device(t).knock(t, s.url, s.trust)
		_ = conn.Close()
		reject, err := wire.ParseReject(answer.Payload)
		if answer.Type == wire.TypeReject && err == nil && reject.Code == wire.CodeShutdown && reject.RetryAfter > 0 {
			break
		}
		if answer.Type != wire.TypeReady || time.Now().After(deadline) {
			t.Fatalf("a device is answered with %v(%v), %v", answer.Type, reject.Code, err)
		}
	}
	return done
}

// wantEnd wants the session closed by the gateway that goes away.
func (tun *tunnel) wantEnd(t *testing.T) {
	t.Helper()
	closed, ok := errors.AsType[*mux.CloseError](<-tun.ended)
	if !ok || !closed.Remote || closed.Code != wire.CodeShutdown {
		t.Errorf("the session ended with %v", closed)
	}
}

func TestADrainingGatewayLetsSessionsFinish(t *testing.T) {
	t.Parallel()
	s, c := newDraining(t, 10*time.Minute, "wss://other.example/x")
	d := c.device(t)
	d.leaves = true
	busy, idle, old := d.connect(t, s.url, s.trust), d.connect(t, s.url, s.trust), c.device(t).connect(t, s.url, s.trust)
	st, err := busy.Open(t.Context(), anywhere)
	if err != nil {
		t.Fatal(err)
	}
	stopped := s.stopping(t, c)
	s.get(t, "/readyz", http.StatusServiceUnavailable)
	if !strings.Contains(s.metrics(t), "httvps_gateway_draining 1") {
		t.Error("metrics do not say that it drains")
	}
	g := <-busy.said
	if g.Last != wire.AllOpens || g.Code != wire.CodeShutdown || g.Drain != 10*time.Minute+12*time.Second || g.ReconnectMin != 0 || g.ReconnectMax != 10*time.Second ||
		!slices.Equal(g.Gateways, []string{"wss://other.example/x"}) {
		t.Errorf("it says %+v", g)
	}
	c.mu.Lock()
	if !c.leaving {
		t.Error("the control plane was not told")
	}
	c.mu.Unlock()
	// Until devices have had their time everything goes on, for those that know of
	// nothing, too.
	for _, tun := range []*tunnel{busy, idle, old} {
		if got, err := exchange(t, tun, anywhere, "still here"); got != "still here" || err != nil {
			t.Errorf("exchange while draining = %q, %v", got, err)
		}
	}
	old.Close(wire.CodeNoError, "")
	idle.Close(wire.CodeNoError, "")
	select {
	case <-stopped:
		t.Error("it has stopped while a stream was open")
	case <-time.After(200 * time.Millisecond):
	}
	_ = st.Close()
	busy.Close(wire.CodeNoError, "")
	<-stopped // long before the ten minutes
}

func TestWhatIsLeftOfADrainingGatewayEndsWithItsTime(t *testing.T) {
	t.Parallel()
	const within = 3 * time.Second
	s, c := newDraining(t, within, "wss://other.example/x")
	d := c.device(t)
	d.leaves = true
	busy, idle, old := d.connect(t, s.url, s.trust), d.connect(t, s.url, s.trust), c.device(t).connect(t, s.url, s.trust)
	for _, tun := range []*tunnel{busy, old} {
		if _, err := tun.Open(t.Context(), anywhere); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	stopped := s.stopping(t, c)
	if g := <-busy.said; g.ReconnectMax != time.Second {
		t.Errorf("it says first %+v", g)
	}
	if g := <-busy.said; g.Last != 1 || g.Drain > within || g.Drain < within-time.Second {
		t.Errorf("it says then %+v", g)
	}
	if _, err := busy.Open(t.Context(), anywhere); !errors.Is(err, mux.ErrUnprocessed) {
		t.Errorf("an open behind it: %v", err)
	}
	if _, err := old.Open(t.Context(), anywhere); err != nil {
		t.Errorf("an open of a device that knows of nothing: %v", err)
	}
	idle.wantEnd(t)
	if took := time.Since(began); took > within {
		t.Errorf("the session without a stream ended after %v", took)
	}
	busy.wantEnd(t)
	old.wantEnd(t)
	<-stopped
	if took := time.Since(began); took < within {
		t.Errorf("streams had %v", took)
	}
}

// Its devices have nowhere to go: those that need nothing come back as soon as it does.
func TestAGatewayAloneTakesOpensToItsEnd(t *testing.T) {
	t.Parallel()
	s, c := newDraining(t, 3*time.Second)
	c.set(func(c *control) { c.others = []string{} })
	d := c.device(t)
	d.leaves = true
	busy, idle := d.connect(t, s.url, s.trust), d.connect(t, s.url, s.trust)
	st, err := busy.Open(t.Context(), anywhere)
	if err != nil {
		t.Fatal(err)
	}
	stopped := s.stopping(t, c)
	idle.wantEnd(t)
	<-time.After(1500 * time.Millisecond) // others would take nothing any more
	if got, err := exchange(t, busy, anywhere, "still here"); got != "still here" || err != nil {
		t.Errorf("exchange while draining = %q, %v", got, err)
	}
	_ = st.Close()
	<-stopped
}

func TestASecondWordToStopEndsTheWait(t *testing.T) {
	t.Parallel()
	hurry := make(chan struct{})
	s, c := newControlledBy(t, nil, func(cfg *gateway.Config) {
		cfg.DrainTimeout = configfile.Duration(10 * time.Minute)
		cfg.Upstream.Mode = "echo"
		cfg.Hurry = hurry
	})
	tun := c.device(t).connect(t, s.url, s.trust)
	if _, err := tun.Open(t.Context(), anywhere); err != nil {
		t.Fatal(err)
	}
	stopped := s.stopping(t, c)
	close(hurry)
	tun.wantEnd(t)
	<-stopped
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.ended, "shutdown") {
		t.Errorf("told as ended: %q", c.ended)
	}
}

func TestASessionIsResumedAtAGatewayThatGoesAway(t *testing.T) {
	t.Parallel()
	s, c := newDraining(t, time.Minute, "wss://other.example/x")
	d := c.device(t)
	d.leaves, d.lasting = true, true
	tun := d.connect(t, s.url, s.trust)
	st, err := tun.Open(t.Context(), anywhere)
	if err != nil {
		t.Fatal(err)
	}
	stopped := s.stopping(t, c)
	_ = tun.conn.Abort()
	d.resume(t, s, tun, 1)
	if got, err := exchange(t, tun, anywhere, "still here"); got != "still here" || err != nil {
		t.Errorf("exchange after resuming = %q, %v", got, err)
	}
	if g := <-tun.said; g.Last != wire.AllOpens {
		t.Errorf("it says %+v", g)
	}
	_ = st.Close()
	tun.Close(wire.CodeNoError, "")
	<-stopped
}

func TestAnOperatorDrainsAGatewayAndUndrainsIt(t *testing.T) {
	t.Parallel()
	s, c := newDraining(t, 0, "wss://other.example/x")
	d := c.device(t)
	d.leaves = true
	tun := d.connect(t, s.url, s.trust)
	if _, err := tun.Open(t.Context(), anywhere); err != nil {
		t.Fatal(err)
	}
	c.set(func(c *control) { c.drained = true })
	g := <-tun.said // with the next heartbeat
	if g.Last != wire.AllOpens || g.Drain != 42*time.Second || len(g.Gateways) != 1 {
		t.Errorf("it says %+v", g)
	}
	c.device(t).wantReject(t, s.url, s.trust, wire.CodeShutdown)
	if text := s.get(t, "/readyz", http.StatusServiceUnavailable); !strings.Contains(text, "drained by an operator") {
		t.Errorf("readyz: %s", text)
	}
	if got, err := exchange(t, tun, anywhere, "still here"); got != "still here" || err != nil {
		t.Errorf("exchange while draining = %q, %v", got, err)
	}
	c.set(func(c *control) { c.drained = false })
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(50 * time.Millisecond) {
		conn, answer := c.device(t).knock(t, s.url, s.trust)
		_ = conn.Close()
		if answer.Type == wire.TypeReady {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no device gets in after undrain")
		}
	}
	s.get(t, "/readyz", http.StatusOK)
	s.stop() // at once, with drain_timeout 0
	tun.wantEnd(t)
}

// A control plane of the release before does not know the word.
func TestAGatewayLeavesAControlPlaneThatDoesNotKnowOfIt(t *testing.T) {
	t.Parallel()
	s, c := newDraining(t, time.Minute)
	c.set(func(c *control) { c.strict = true })
	d := c.device(t)
	d.leaves = true
	tun := d.connect(t, s.url, s.trust)
	if _, err := tun.Open(t.Context(), anywhere); err != nil {
		t.Fatal(err)
	}
	stopped := s.stopping(t, c)
	if g := <-tun.said; g.Last != wire.AllOpens || g.ReconnectMax == 0 {
		t.Errorf("it says %+v", g)
	}
	tun.Close(wire.CodeNoError, "")
	<-stopped
}
