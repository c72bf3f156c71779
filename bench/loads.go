package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/process"
)

// load makes one load in a process of its own and returns what came of it.
func (c contender) load(ctx context.Context, s load.Spec) (load.Result, error) {
	s.Socks, s.Target = c.socks, c.origin
	p, err := self(c.where, "load")
	if err != nil {
		return load.Result{}, err
	}
	var answer line
	err = errors.Join(p.Send(s), p.Receive(ctx, &answer))
	if err = errors.Join(err, p.Stop()); err != nil {
		return load.Result{}, err
	}
	return result(answer)
}

func result(answer line) (load.Result, error) {
	if answer.Result == nil {
		return load.Result{}, errors.New("a load ended without a result")
	}
	return *answer.Result, nil
}

// background is a load that goes on until it is ended.
type background struct {
	proc *process.Process
}

// begin starts a load without a duration and waits until it is in place.
func (c contender) begin(ctx context.Context, s load.Spec) (*background, error) {
	s.Socks, s.Target, s.Duration = c.socks, c.origin, 0
	p, err := self(c.where, "load")
	if err != nil {
		return nil, err
	}
	var answer line
	if err := errors.Join(p.Send(s), p.Receive(ctx, &answer)); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	if !answer.Ready {
		return nil, errors.Join(fmt.Errorf("the load %q did not say that it is in place", s.Kind), p.Stop())
	}
	return &background{p}, nil
}

// end ends the load and returns what came of it.
func (b *background) end(ctx context.Context) (load.Result, error) {
	b.proc.CloseInput()
	var answer line
	err := b.proc.Receive(ctx, &answer)
	if err = errors.Join(err, b.proc.Stop()); err != nil {
		return load.Result{}, err
	}
	return result(answer)
}
