package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/service"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// alone is a program that has nothing but the SDK: each connection to a port of its own
// is one to the origin at the far end. It has the sockets that httvps connect has, and
// neither SOCKS nor anything else of it.
const alone = "sdk"

// aloneSpec is what such a program is told.
type aloneSpec struct {
	Link   string `json:"link"` // an invitation
	Target string `json:"target"`
}

// aloneMeasurements are about what httvps connect adds to the SDK.
func aloneMeasurements() []measurement {
	cpu := func(name string, spec load.Spec) measurement {
		return measurement{
			figures:    []figure{{name: name, unit: "s", over: alone}},
			contenders: []string{ours, alone},
			rounds:     7,
			run: func(ctx context.Context, e *environment, who string) (values, error) {
				spec := spec
				spec.Kind, spec.Warm, spec.Duration = load.Streams, e.short(warm), e.short(steady)
				_, v, err := e.bytesLoad(ctx, who, name, spec)
				if err != nil {
					return nil, err
				}
				return values{name: v[name+"_client"]}, nil
			},
		}
	}
	return []measurement{
		cpu("socks_cpu_down", load.Spec{Streams: 1}),
		cpu("socks_cpu_up", load.Spec{Streams: 1, Up: true}),
		cpu("socks_cpu_16", load.Spec{Streams: 16}),
	}
}

// startAlone starts such a program, with a service of its own.
func (e *environment) startAlone(ctx context.Context) (contender, error) {
	s, err := e.startService(ctx, service.Options{Limits: unlimited})
	if err != nil {
		return contender{}, err
	}
	link, err := s.Invite(ctx)
	if err != nil {
		return contender{}, errors.Join(err, s.Stop())
	}
	p, err := s.Self("alone")
	if err != nil {
		return contender{}, errors.Join(err, s.Stop())
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var answer line
	if err := errors.Join(p.Send(aloneSpec{Link: link, Target: e.originAt}), p.Receive(ctx, &answer)); err != nil {
		return contender{}, errors.Join(err, p.Stop(), s.Stop())
	}
	return contender{
		origin: answer.Address, client: p.PID(), server: s.GatewayPID(),
		stop: func() error { return errors.Join(p.Stop(), s.Stop()) },
	}, nil
}

func playAlone(ctx context.Context, text []byte, say func(any), _ <-chan struct{}) error {
	var spec aloneSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	stores, err := enrollAll(ctx, []string{spec.Link})
	if err != nil {
		return err
	}
	client, err := httvps.NewClient(httvps.Config{Store: stores[0], Agent: "bench"})
	if err != nil {
		return err
	}
	ln, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	running.Go(func() { cancel(client.Run(ctx)) })
	say(line{Address: ln.Addr().String()})
	for {
		near, err := ln.Accept()
		if err != nil {
			if err = context.Cause(ctx); errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		running.Go(func() {
			defer func() { _ = near.Close() }()
			defer context.AfterFunc(ctx, func() { _ = near.Close() })()
			far, err := client.DialContext(ctx, "tcp", spec.Target)
			if err != nil {
				cancel(fmt.Errorf("open: %w", err))
				return
			}
			defer func() { _ = far.Close() }()
			join(near, far)
		})
	}
}

// join copies both ways, as the SDK's documentation has it.
func join(near, far net.Conn) {
	var up sync.WaitGroup
	up.Go(func() { pass(far, near) })
	pass(near, far)
	up.Wait()
}

// pass copies until src ends, and ends dst then.
func pass(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if half, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_ = dst.Close()
}
