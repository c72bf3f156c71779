package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/service"
	"github.com/httvps/httvps/bench/internal/shadowsocks"
	"github.com/httvps/httvps/bench/internal/stats"
)

// throughOutline is HTTVPS whose gateway leaves through a Shadowsocks server.
const throughOutline = "outline"

// outlineLoads is how long each of the two loads is.
const outlineLoads = 2 * time.Second

// outlineMeasurements are about traffic that leaves through Shadowsocks servers.
func outlineMeasurements() []measurement {
	return []measurement{outlineCPU(false), outlineCPU(true), failover()}
}

// outlineCPU compares what a GiB costs the gateway that leaves through a server and one
// that goes to targets itself, one right behind the other.
func outlineCPU(up bool) measurement {
	name := "outline_cpu_down"
	if up {
		name = "outline_cpu_up"
	}
	return measurement{
		figures:    []figure{{name: name, unit: "of direct"}, {name: name + "_per_gib", unit: "s"}},
		contenders: []string{ours},
		rounds:     5,
		run: func(ctx context.Context, e *environment, _ string) (values, error) {
			spec := load.Spec{Kind: load.Streams, Up: up, Streams: 1, Warm: e.short(warm), Duration: e.short(outlineLoads), Cut: true} // libev knows no half-close
			const cpu = "cpu"
			_, before, err := e.bytesLoad(ctx, ours, cpu, spec)
			if err != nil {
				return nil, err
			}
			_, behind, err := e.bytesLoad(ctx, throughOutline, cpu, spec)
			if err != nil {
				return nil, err
			}
			return values{name: behind[cpu+"_gateway"] / before[cpu+"_gateway"], name + "_per_gib": behind[cpu+"_gateway"]}, nil
		},
	}
}

// startOutline starts HTTVPS whose gateway leaves through a server of its own.
func (e *environment) startOutline(ctx context.Context) (contender, error) {
	server, err := shadowsocks.Start(ctx, e.dir, shadowsocks.ChaCha20)
	if err != nil {
		return contender{}, e.withoutServer(err)
	}
	keys := filepath.Join(e.dir, "outline-keys")
	if err := os.WriteFile(keys, []byte(server.Key+"\n"), 0o600); err != nil { //nolint:gosec // a file of ours
		return contender{}, errors.Join(err, server.Stop())
	}
	c, err := e.startHTTVPS(ctx, service.Options{Limits: unlimited, Upstream: func(string) string {
		return "mode: outline, outline: {source: keys, keys_file: " + keys + ", probe: \"\"}"
	}})
	if err != nil {
		return contender{}, errors.Join(err, server.Stop())
	}
	stop := c.stop
	c.stop = func() error { return errors.Join(stop(), server.Stop()) }
	return c, nil
}

// withoutServer says that what is missing is a server, where it is.
func (e *environment) withoutServer(err error) error {
	if errors.Is(err, shadowsocks.ErrMissing) {
		return &unavailableError{err.Error()}
	}
	return err
}

const (
	failoverSessions = 50
	// failoverStreams are the downloads of each session, which take all they can get.
	failoverStreams = 4
	// failoverTimeout is what a session has to find another way.
	failoverTimeout = 30 * time.Second
)

// failover kills one of two servers while sessions load both with all they can, and
// measures until each has a new stream that works.
func failover() measurement {
	return measurement{
		figures: []figure{
			{name: "failover_p50", unit: "s"},
			{name: "failover_p99", unit: "s"},
			{name: "failover_before_p50", unit: "s"},
			{name: "failover_before_p99", unit: "s"},
			{name: "failover_sessions_lost", unit: ""},
		},
		contenders: []string{ours},
		rounds:     5,
		own:        true,
		run: func(ctx context.Context, e *environment, _ string) (v values, err error) {
			var servers [2]*shadowsocks.Server
			for i := range servers {
				if servers[i], err = shadowsocks.Start(ctx, e.dir, shadowsocks.ChaCha20); err != nil {
					return nil, e.withoutServer(err)
				}
				defer func() { err = errors.Join(err, servers[i].Stop()) }()
			}
			s, err := e.startService(ctx, service.Options{Limits: roomy, Upstream: func(web string) string {
				return "mode: outline, outline: {probe: \"" + web + "\"}"
			}})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, s.Stop()) }()
			for _, server := range servers {
				if err := s.AddOutline(ctx, server.Key); err != nil {
					return nil, err
				}
			}
			result, err := e.switchOver(ctx, s, servers[0])
			if err != nil {
				return nil, err
			}
			if len(result.Took) == 0 {
				return nil, errors.New("no session left through the server that was killed")
			}
			return values{
				"failover_p50": stats.Percentile(result.Took, 50), "failover_p99": stats.Percentile(result.Took, 99),
				"failover_before_p50": stats.Percentile(result.Before, 50), "failover_before_p99": stats.Percentile(result.Before, 99),
				"failover_sessions_lost": float64(result.Lost),
			}, nil
		},
	}
}

// switchOver has sessions load both servers, kills one, and returns what became of them.
func (e *environment) switchOver(ctx context.Context, s *service.Service, server *shadowsocks.Server) (_ switchResult, err error) {
	spec := switchSpec{Target: e.originAt, Streams: failoverStreams}
	for range failoverSessions {
		link, err := s.Invite(ctx)
		if err != nil {
			return switchResult{}, err
		}
		spec.Links = append(spec.Links, link)
	}
	p, err := s.Self("switch")
	if err != nil {
		return switchResult{}, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	var answer line
	if err := errors.Join(p.Send(spec), p.Receive(ctx, &answer)); err != nil {
		return switchResult{}, err
	}
	if !answer.Ready {
		return switchResult{}, errors.New("the sessions are not under load")
	}
	if err := server.Kill(); err != nil {
		return switchResult{}, err
	}
	p.CloseInput() // now
	if err := p.Receive(ctx, &answer); err != nil {
		return switchResult{}, err
	}
	if answer.Switch == nil {
		return switchResult{}, errors.New("the sessions ended without a result")
	}
	return *answer.Switch, nil
}
