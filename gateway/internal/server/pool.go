package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/upstream"
)

const (
	// assignPlaces bounds the questions for a session's server under way at once.
	assignPlaces = 64
	// beatRetry is when a heartbeat that was not answered is repeated, and the least
	// time between two.
	beatRetry = 5 * time.Second
	beatLeast = time.Second
)

// outlineControl is the control plane's pool of Outline servers.
type outlineControl interface {
	AssignOutline(ctx context.Context, session [16]byte) (nodes.OutlineExit, error)
	ReportOutline(ctx context.Context, session [16]byte, server string, failure nodes.OutlineFailure) (nodes.OutlineExit, error)
	BeatOutline(ctx context.Context, seen []nodes.OutlineSeen) (nodes.OutlineWatch, error)
}

// watched is who probes servers.
type watched interface {
	Watch(servers []upstream.Server, interval time.Duration) error
}

// pool assigns the servers that the control plane says, and tells it what probes
// saw.
type pool struct {
	control outlineControl
	log     *slog.Logger
	places  chan struct{}
	changed chan struct{} // holds one token when a server works that did not, or the other way round

	mu   sync.Mutex // guards the following fields
	seen map[string]nodes.OutlineSeen
	down map[string]bool // says the latest probe
}

func newPool(control outlineControl, log *slog.Logger) *pool {
	return &pool{
		control: control, log: log, places: make(chan struct{}, assignPlaces), changed: make(chan struct{}, 1),
		seen: make(map[string]nodes.OutlineSeen), down: make(map[string]bool),
	}
}

// Assign implements [upstream.Assigner].
func (p *pool) Assign(ctx context.Context, session [16]byte, failed upstream.Failed) (upstream.Assignment, error) {
	select {
	case p.places <- struct{}{}:
		defer func() { <-p.places }()
	case <-ctx.Done():
		return upstream.Assignment{}, fmt.Errorf("%d others ask for an Outline server: %w", assignPlaces, ctx.Err())
	}
	var (
		exit nodes.OutlineExit
		err  error
	)
	if failed.ID == "" {
		exit, err = p.control.AssignOutline(ctx, session)
	} else {
		exit, err = p.control.ReportOutline(ctx, session, failed.ID, failureOf(failed.Why))
	}
	if errors.Is(err, nodes.ErrNoOutline) {
		err = fmt.Errorf("%w: %w", upstream.ErrNoServer, err)
	}
	return upstream.Assignment{Server: serverOf(exit.Server), RetryAfter: exit.RetryAfter}, err
}

// Release implements [upstream.Assigner]. The end of a session, which the control
// plane is told, gives its place back (ADR 0011).
func (*pool) Release([16]byte) {}

// Probed implements [upstream.Assigner]. UDP alone does not make a server bad.
func (p *pool) Probed(probe upstream.Probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, seen := probe.Server.ID, nodes.OutlineSeen{ID: probe.Server.ID, Took: probe.TCP.Took}
	if !probe.TCP.OK {
		seen.Failure, seen.Took = failureOf(probe.TCP.Why), 0
	}
	if _, room := p.seen[id]; !room && len(p.seen) >= nodes.MaxOutlineSeen {
		return
	}
	p.seen[id] = seen
	if p.down[id] != !probe.TCP.OK {
		if p.down[id] = !probe.TCP.OK; !p.down[id] {
			delete(p.down, id)
		}
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

// beat tells the control plane what probes saw and has those servers probed that
// it names, as often as it says, until ctx ends. A server that stops working, or
// works again, is told at once. keep is told which servers there are.
func (p *pool) beat(ctx context.Context, probes watched, keep func(ids map[string]bool)) {
	reachable := true
	for {
		wait := beatRetry
		results := p.take()
		watch, err := p.control.BeatOutline(ctx, results)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.giveBack(results)
			if reachable {
				p.log.WarnContext(ctx, "outline heartbeat not answered", "error", err)
			}
			reachable = false
		default:
			if !reachable {
				p.log.InfoContext(ctx, "outline heartbeat answered again")
			}
			reachable, wait = true, watch.Interval
			p.follow(ctx, probes, keep, watch)
		}
		if !p.pause(ctx, wait) {
			return
		}
	}
}

// pause waits for d, or for a change, and reports whether ctx has not ended.
func (p *pool) pause(ctx context.Context, d time.Duration) bool {
	least, all := time.NewTimer(beatLeast), time.NewTimer(d)
	defer least.Stop()
	defer all.Stop()
	select {
	case <-least.C:
	case <-ctx.Done():
		return false
	}
	select {
	case <-all.C:
	case <-p.changed:
	case <-ctx.Done():
		return false
	}
	return true
}

// follow has the servers probed that the control plane names.
func (p *pool) follow(ctx context.Context, probes watched, keep func(ids map[string]bool), watch nodes.OutlineWatch) {
	servers, ids := make([]upstream.Server, 0, len(watch.Servers)), make(map[string]bool, len(watch.Servers))
	for _, s := range watch.Servers {
		servers = append(servers, serverOf(s))
		ids[s.ID] = true
	}
	p.mu.Lock()
	maps.DeleteFunc(p.down, func(id string, _ bool) bool { return !ids[id] })
	p.mu.Unlock()
	keep(ids)
	if err := probes.Watch(servers, watch.Interval); err != nil {
		p.log.WarnContext(ctx, "outline servers that cannot be used", "error", err)
	}
}

// take returns what there is to tell.
func (p *pool) take() []nodes.OutlineSeen {
	p.mu.Lock()
	defer p.mu.Unlock()
	results := slices.Collect(maps.Values(p.seen))
	clear(p.seen)
	return results
}

// giveBack takes back what could not be told, where nothing newer is there.
func (p *pool) giveBack(results []nodes.OutlineSeen) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, seen := range results {
		if _, newer := p.seen[seen.ID]; !newer && len(p.seen) < nodes.MaxOutlineSeen {
			p.seen[seen.ID] = seen
		}
	}
}

// failureOf is the control plane's word for why a server cannot be used.
func failureOf(why string) nodes.OutlineFailure {
	switch why {
	case upstream.WhyConnect:
		return nodes.OutlineConnect
	case upstream.WhyTimeout:
		return nodes.OutlineTimeout
	case upstream.WhyClosed:
		return nodes.OutlineReset
	case upstream.WhyBroken:
		return nodes.OutlineCorrupt
	default:
		return nodes.OutlineOther
	}
}

func serverOf(s nodes.OutlineServer) upstream.Server {
	return upstream.Server{
		ID: s.ID, Generation: s.Generation, Host: s.Host, Port: s.Port, Cipher: s.Cipher, Password: s.Password, Prefix: s.Prefix, Managed: s.Managed,
	}
}
