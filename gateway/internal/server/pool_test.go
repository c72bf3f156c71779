package server

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/protocol"
	"github.com/httvps/httvps/gateway/internal/upstream"
	"github.com/httvps/httvps/internal/reason"
)

// fakePool is a control plane with a pool, and what is told to probe.
type fakePool struct {
	mu      sync.Mutex
	asked   []string // for servers
	told    []string // in heartbeats, with their time
	watched []string
	kept    []string
	exit    nodes.OutlineExit
	watch   nodes.OutlineWatch
	err     error
	hold    chan struct{} // nil: questions are answered at once
	began   time.Time
}

func (f *fakePool) AssignOutline(ctx context.Context, _ [16]byte) (nodes.OutlineExit, error) {
	return f.answer(ctx, "assign")
}

func (f *fakePool) ReportOutline(ctx context.Context, _ [16]byte, server string, failure nodes.OutlineFailure) (nodes.OutlineExit, error) {
	return f.answer(ctx, server+" "+string(failure))
}

func (f *fakePool) answer(ctx context.Context, question string) (nodes.OutlineExit, error) {
	f.mu.Lock()
	f.asked = append(f.asked, question)
	f.mu.Unlock()
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
		}
	}
	return f.exit, f.err
}

func (f *fakePool) BeatOutline(_ context.Context, seen []nodes.OutlineSeen) (nodes.OutlineWatch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var words []string
	for _, s := range seen {
		words = append(words, strings.TrimSpace(s.ID+" "+string(s.Failure)))
	}
	slices.Sort(words)
	f.told = append(f.told, time.Since(f.began).String()+": "+strings.Join(words, ", "))
	return f.watch, f.err
}

func (f *fakePool) Watch(servers []upstream.Server, interval time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	word := interval.String()
	for _, s := range servers {
		word += " " + s.ID + "/" + s.Password
	}
	f.watched = append(f.watched, word)
	return nil
}

func (f *fakePool) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func TestTheControlPlanesWordsForServersAndFailures(t *testing.T) {
	f := &fakePool{exit: nodes.OutlineExit{
		Server:     nodes.OutlineServer{ID: "a", Generation: 2, Host: "h", Port: 3, Cipher: "c", Password: "p", Prefix: "x", Managed: true},
		RetryAfter: time.Second,
	}}
	p := newPool(f, slog.New(slog.DiscardHandler))
	got, err := p.Assign(t.Context(), [16]byte{}, upstream.Failed{})
	want := upstream.Assignment{
		Server:     upstream.Server{ID: "a", Generation: 2, Host: "h", Port: 3, Cipher: "c", Password: "p", Prefix: "x", Managed: true},
		RetryAfter: time.Second,
	}
	if err != nil || got != want {
		t.Errorf("Assign: not the server that was told: %v", err)
	}
	for _, why := range []string{upstream.WhyConnect, upstream.WhyTimeout, upstream.WhyClosed, upstream.WhyBroken, "?"} {
		if _, err := p.Assign(t.Context(), [16]byte{}, upstream.Failed{ID: "a", Why: why}); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"assign", "a connect", "a timeout", "a reset", "a corrupt", "a other"}, f.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	f.err = nodes.ErrNoOutline
	_, err = p.Assign(t.Context(), [16]byte{}, upstream.Failed{})
	if !errors.Is(err, upstream.ErrNoServer) {
		t.Errorf("without a server: %v", err)
	}
	code := protocol.CodeOf(&upstream.Error{Failure: upstream.NoServer, Err: err})
	if code != reason.NoOutlineNodesAvailable.Wire() {
		t.Errorf("a refusal is %v on the wire", code)
	}
	f.err = errors.New("nobody answers")
	if _, err = p.Assign(t.Context(), [16]byte{}, upstream.Failed{}); err == nil || errors.Is(err, upstream.ErrNoServer) {
		t.Errorf("nobody to ask: %v", err)
	}
}

func TestQuestionsForServersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakePool{hold: make(chan struct{})}
		p := newPool(f, slog.New(slog.DiscardHandler))
		var asking sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range assignPlaces {
			asking.Go(func() { _, _ = p.Assign(t.Context(), [16]byte{}, upstream.Failed{}) })
		}
		synctest.Wait()
		if _, err := p.Assign(ctx, [16]byte{}, upstream.Failed{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Assign = %v, want it to wait for a place until its time is over", err)
		}
		if n := len(f.asked); n != assignPlaces {
			t.Errorf("%d questions at once, want %d", n, assignPlaces)
		}
		close(f.hold)
		asking.Wait()
		if _, err := p.Assign(t.Context(), [16]byte{}, upstream.Failed{}); err != nil {
			t.Error(err)
		}
	})
}

func TestHeartbeatsTellWhatProbesSaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakePool{began: time.Now(), watch: nodes.OutlineWatch{
			Interval: 15 * time.Second,
			Servers:  []nodes.OutlineServer{{ID: "a", Password: "x"}, {ID: "b", Password: "y"}},
		}}
		p := newPool(f, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var beating sync.WaitGroup
		beating.Go(func() {
			p.beat(ctx, f, func(ids map[string]bool) { f.set(func() { f.kept = append(f.kept, strings.Repeat("x", len(ids))) }) })
		})
		probed := func(id, why string) {
			p.Probed(upstream.Probe{Server: upstream.Server{ID: id}, TCP: upstream.Seen{OK: why == "", Why: why}, UDP: upstream.Seen{Why: "timeout"}})
		}
		at := func(d time.Duration) {
			<-time.After(d - time.Since(f.began))
			synctest.Wait()
		}
		at(2 * time.Second)
		probed("a", "")
		probed("b", "")
		at(16 * time.Second) // told at 15 s
		probed("a", "")
		probed("b", upstream.WhyConnect) // told at once
		at(18 * time.Second)
		probed("b", upstream.WhyConnect) // nothing new: in 15 s
		at(32 * time.Second)             // told at 31 s
		f.set(func() { f.err = errors.New("nobody answers") })
		probed("a", "")
		probed("b", "") // at once, and then every 5 s
		at(40 * time.Second)
		probed("b", upstream.WhyTimeout) // at once; newer than what could not be told
		at(40*time.Second + beatLeast/2)
		f.set(func() { f.err, f.watch.Servers = nil, f.watch.Servers[:1] })
		at(50 * time.Second)
		cancel()
		beating.Wait()
		want := []string{
			"0s: ", "15s: a, b", "16s: a, b connect", "31s: b connect",
			"32s: a, b", "37s: a, b", "40s: a, b timeout", "45s: a, b timeout",
		}
		if diff := cmp.Diff(want, f.told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		list := "15s a/x b/y"
		if diff := cmp.Diff([]string{list, list, list, list, "15s a/x"}, f.watched); diff != "" {
			t.Errorf("to probe (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"xx", "xx", "xx", "xx", "x"}, f.kept); diff != "" {
			t.Errorf("there are (-want +got):\n%s", diff)
		}
		if len(p.down) != 0 {
			t.Errorf("remembered: %v", p.down)
		}
		probed("a", "")
		untold := p.take()
		probed("a", upstream.WhyTimeout) // meanwhile
		p.giveBack(untold)
		if diff := cmp.Diff([]nodes.OutlineSeen{{ID: "a", Failure: nodes.OutlineTimeout}}, p.take()); diff != "" {
			t.Errorf("to tell (-want +got):\n%s", diff)
		}
		for i := range 2 * nodes.MaxOutlineSeen {
			probed(strings.Repeat("x", i), "")
		}
		if n := len(p.take()); n != nodes.MaxOutlineSeen {
			t.Errorf("%d results are kept, want %d", n, nodes.MaxOutlineSeen)
		}
	})
}
