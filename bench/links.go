package main

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"time"

	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/process"
	"github.com/httvps/httvps/bench/internal/service"
	"github.com/httvps/httvps/bench/internal/stats"
	"github.com/httvps/httvps/test/linkem"
)

const (
	mbit = 1e6

	// rampUp is what a download has to fill the link of the echoes before they
	// are measured.
	rampUp = 3 * time.Second
	// linkEchoes is how long echoes are measured there, and linkInterval the time
	// between two.
	linkEchoes   = 8 * time.Second
	linkInterval = 20 * time.Millisecond

	// longRamp is what a stream has to get to its speed on the long link, and
	// longSteady how long it is measured then.
	longRamp   = 10 * time.Second
	longSteady = 5 * time.Second
)

// linked are the contenders on an emulated link: clients at one end, servers
// and the origin at the other.
type linked struct {
	link    *linkem.Link
	service *service.Service
	device  *service.Device
	origin  *process.Process

	contenders map[string]contender
}

// linkMeasurements are about slow and long ways, which are emulated: each is
// also measured without a tunnel, on the same link.
func linkMeasurements() []measurement {
	return []measurement{linkEcho(), linkLong()}
}

func linkEcho() measurement {
	config := linkem.Config{Rate: 100 * mbit, Delay: 50 * time.Millisecond}
	return measurement{
		figures: []figure{
			{name: "link_echo_p50", unit: "ms", over: direct},
			{name: "link_echo_p95", unit: "ms", over: direct},
			{name: "link_echo_speed", unit: "Mbit/s", over: direct},
		},
		contenders: []string{ours, direct},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, name string) (v values, err error) {
			c, err := e.onLink(ctx, "100 Mbit/s, 100 ms", config, name)
			if err != nil {
				return nil, err
			}
			bulk, err := c.begin(ctx, load.Spec{Kind: load.Streams, Streams: 1, Warm: rampUp})
			if err != nil {
				return nil, err
			}
			r, err := c.load(ctx, load.Spec{Kind: load.Echoes, Streams: 1, Size: echoSize, Interval: linkInterval, Duration: e.short(linkEchoes)})
			beside, endErr := bulk.end(ctx)
			if err := errors.Join(err, endErr); err != nil {
				return nil, err
			}
			return values{
				"link_echo_p50":   milli * stats.Percentile(r.Echoes, 50),
				"link_echo_p95":   milli * stats.Percentile(r.Echoes, 95),
				"link_echo_speed": 8 * beside.Speed / mbit,
			}, nil
		},
	}
}

func linkLong() measurement {
	config := linkem.Config{Rate: 200 * mbit, Delay: 150 * time.Millisecond}
	return measurement{
		figures:    []figure{{name: "link_long_speed", unit: "Mbit/s", over: direct}},
		contenders: []string{ours, direct},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, name string) (values, error) {
			c, err := e.onLink(ctx, "200 Mbit/s, 300 ms", config, name)
			if err != nil {
				return nil, err
			}
			r, err := c.load(ctx, load.Spec{Kind: load.Streams, Streams: 1, Warm: longRamp, Duration: e.short(longSteady)})
			return values{"link_long_speed": 8 * r.Speed / mbit}, err
		},
	}
}

// onLink returns the contender on a link, which is opened when it is first
// wanted and stays.
func (e *environment) onLink(ctx context.Context, name string, config linkem.Config, who string) (contender, error) {
	l, ok := e.links[name]
	if !ok {
		if err := linkem.Supported(); err != nil {
			return contender{}, &unavailableError{"no emulated link: " + err.Error()}
		}
		var err error
		if l, err = e.openLink(ctx, config); err != nil {
			return contender{}, err
		}
		e.links[name] = l
	}
	return l.contenders[who], nil
}

func (e *environment) openLink(ctx context.Context, config linkem.Config) (l *linked, err error) {
	l = &linked{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.link, err = linkem.Open(config); err != nil {
		return l, err
	}
	client, server := in(ctx, l.link.Client), in(ctx, l.link.Server)
	host := l.link.Server.Addr().String()
	var originAt string
	l.origin, originAt, err = startPart(ctx, server, "origin", originSpec{Listen: net.JoinHostPort(host, "0")})
	if err != nil {
		return l, err
	}
	l.service, err = e.startService(ctx, service.Options{Limits: unlimited, Where: server, Host: host, Dial: l.link.Server.Dial})
	if err != nil {
		return l, err
	}
	if l.device, err = l.service.Connect(ctx, client); err != nil {
		return l, err
	}
	l.contenders = map[string]contender{
		ours:   {name: ours, socks: l.device.Socks, where: client, origin: originAt},
		direct: {name: direct, where: client, origin: originAt},
	}
	return l, nil
}

// in makes commands that run in a namespace.
func in(ctx context.Context, ns *linkem.Namespace) service.Command {
	// They are ended by Stop: the end of ctx would kill what is to end properly.
	ctx = context.WithoutCancel(ctx)
	return func(name string, args ...string) *exec.Cmd { return ns.Command(ctx, name, args...) }
}

func (l *linked) close() error {
	var problems []error
	if l.device != nil {
		problems = append(problems, l.device.Stop())
	}
	if l.service != nil {
		problems = append(problems, l.service.Stop())
	}
	if l.origin != nil {
		problems = append(problems, l.origin.Stop())
	}
	if l.link != nil {
		problems = append(problems, l.link.Close())
	}
	return errors.Join(problems...)
}
