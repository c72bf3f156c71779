package mux

import (
	linked "container/list" // list is a type of ours
	"context"
	"sync"
)

// places are what the streams of a client count towards. Whoever comes when all are taken
// waits, first come, first served; how many there are may change meanwhile.
type places struct {
	mu      sync.Mutex // guards the following fields; locked after Session.mu
	limit   uint64
	taken   uint64
	waiting linked.List // of chan struct{}, which is closed when its owner has a place
}

// take waits for a place. The error is ctx's cause, [ErrEnded] when done was closed, or
// [ErrUnprocessed] when shut was.
func (p *places) take(ctx context.Context, done, shut <-chan struct{}) error {
	p.mu.Lock()
	if p.taken < p.limit && p.waiting.Len() == 0 {
		p.taken++
		p.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	waits := p.waiting.PushBack(turn)
	p.mu.Unlock()
	var err error
	select {
	case <-turn:
		return nil
	case <-done:
		err = ErrEnded
	case <-shut:
		err = ErrUnprocessed
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-turn: // just now
		return nil
	default:
		p.waiting.Remove(waits)
		return err
	}
}

// leave gives a place back.
func (p *places) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	p.serve()
}

// resize changes how many places there are. Those that are taken stay taken.
func (p *places) resize(limit uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = limit
	p.serve()
}

// serve gives free places to those who wait. Called with mu held.
func (p *places) serve() {
	for first := p.waiting.Front(); first != nil && p.taken < p.limit; first = p.waiting.Front() {
		turn, _ := p.waiting.Remove(first).(chan struct{})
		p.taken++
		close(turn)
	}
}

func (p *places) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.taken)
}
