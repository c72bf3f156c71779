package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/httvps/httvps/bench/internal/process"
	"github.com/httvps/httvps/bench/internal/relay"
	"github.com/httvps/httvps/bench/internal/service"
)

// The contenders.
const (
	ours   = "httvps" // ours connect and ours-gateway
	raw    = "relay"  // the raw TLS relay
	direct = "direct" // no tunnel

	// unresumable is ours whose sessions end with their connections.
	unresumable = "unresumable"
)

// unlimited are the gateway's limits where opens are measured: what is to be
// known is what an open costs, and not the rate that a device is allowed.
const unlimited = "{open_burst: 65536, open_rate: 65536}"

const answerTimeout = 20 * time.Second

// contender is something that carries streams.
type contender struct {
	name           string
	socks          string          // address of its proxy; empty: none
	client, server int             // ids of its processes; 0: none
	where          service.Command // makes the commands of its loads
	origin         string          // address of the origin that they talk to, or that stands for it
	stop           func() error
}

// cpu is what both ends have used since they started.
func (c contender) cpu() (client, server time.Duration, err error) {
	if c.client == 0 {
		return 0, 0, nil
	}
	if client, err = process.CPU(c.client); err != nil {
		return 0, 0, err
	}
	server, err = process.CPU(c.server)
	return client, server, err
}

// contender returns the contender of that name, which is started when it is
// first wanted and stays.
func (e *environment) contender(ctx context.Context, name string) (contender, error) {
	if c, ok := e.running[name]; ok {
		return c, nil
	}
	c := contender{stop: func() error { return nil }}
	var err error
	switch name {
	case ours:
		c, err = e.startHTTVPS(ctx, service.Options{Limits: unlimited})
	case unresumable:
		c, err = e.startHTTVPS(ctx, service.Options{Limits: "{open_burst: 65536, open_rate: 65536, resume: 0s}"})
	case unpadded:
		c, err = e.startHTTVPS(ctx, service.Options{Limits: unlimited, Padding: noPadding})
	case raw:
		c, err = e.startRelay(ctx)
	case throughOutline:
		c, err = e.startOutline(ctx)
	case alone:
		c, err = e.startAlone(ctx)
	case direct:
	default:
		err = fmt.Errorf("no contender is called %q", name)
	}
	if err != nil {
		return contender{}, fmt.Errorf("start %s: %w", name, err)
	}
	c = e.here(name, c)
	e.running[name] = c
	return c, nil
}

// here completes a contender on this machine as it is.
func (e *environment) here(name string, c contender) contender {
	c.name, c.where = name, service.Here
	if c.origin == "" {
		c.origin = e.originAt
	}
	return c
}

// startService starts a control plane and a gateway in a directory of their own.
func (e *environment) startService(ctx context.Context, opts service.Options) (*service.Service, error) {
	e.services++
	opts.Bin = e.options.bin
	opts.Dir = filepath.Join(e.dir, fmt.Sprintf("service%d", e.services))
	return service.Start(ctx, opts)
}

func (e *environment) startHTTVPS(ctx context.Context, opts service.Options) (contender, error) {
	s, err := e.startService(ctx, opts)
	if err != nil {
		return contender{}, err
	}
	d, err := s.Connect(ctx, service.Here)
	if err != nil {
		return contender{}, errors.Join(err, s.Stop())
	}
	return contender{
		socks: d.Socks, client: d.PID(), server: s.GatewayPID(),
		stop: func() error { return errors.Join(d.Stop(), s.Stop()) },
	}, nil
}

func (e *environment) startRelay(ctx context.Context) (contender, error) {
	spec := e.relaySpec()
	spec.Listen = "127.0.0.1:0"
	server, address, err := startPart(ctx, service.Here, "relay-server", spec)
	if err != nil {
		return contender{}, err
	}
	spec.Server = address
	client, address, err := startPart(ctx, service.Here, "relay-client", spec)
	if err != nil {
		return contender{}, errors.Join(err, server.Stop())
	}
	return contender{
		socks: address, client: client.PID(), server: server.PID(),
		stop: func() error { return process.StopAll(client, server) },
	}, nil
}

func (e *environment) relaySpec() relaySpec {
	buffer := e.options.buffer
	if buffer == 0 {
		buffer = relay.DefaultBuffer
	}
	return relaySpec{Authority: filepath.Join(e.dir, "relay-ca"), Buffer: buffer}
}

// self starts this very program in a role.
func self(where service.Command, role string) (*process.Process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return process.Start(role, where(exe, role))
}

// startPart starts a part of this program that listens, and returns where.
func startPart(ctx context.Context, where service.Command, role string, spec any) (*process.Process, string, error) {
	p, err := self(where, role)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var answer line
	if err := errors.Join(p.Send(spec), p.Receive(ctx, &answer)); err != nil {
		return nil, "", errors.Join(err, p.Stop())
	}
	return p, answer.Address, nil
}
