package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// probeTimeout bounds a probe, whose halves run at the same time.
	probeTimeout = 5 * time.Second
	// probePause is the least time between two probes of one server, however much
	// is suspected of it.
	probePause = 5 * time.Second
	// lostProbes in a row that fail make a server lost. A second one follows a
	// first at once.
	lostProbes = 2
	// maxProbes are under way at once.
	maxProbes = 64
)

// Probe is what a probe of a server saw.
type Probe struct {
	Server Server
	At     time.Time
	TCP    Seen
	UDP    Seen
}

// Seen is what one half of a probe saw.
type Seen struct {
	OK   bool
	Took time.Duration // until the first byte of the answer
	Why  string        // of a failure: one of Why…
}

// Run probes servers until ctx ends: those that are watched and those that
// sessions use, each at the interval and when something about it is suspicious.
func (o *Outline) Run(ctx context.Context) {
	if o.cfg.Probe == (wire.Addr{}) {
		<-ctx.Done()
		return
	}
	var probes sync.WaitGroup
	defer probes.Wait()
	slots := make(chan struct{}, maxProbes)
	start := func(e *exit, least time.Duration) {
		if e.beginProbe(least) {
			probes.Go(func() {
				select {
				case slots <- struct{}{}:
					o.probe(ctx, e)
					<-slots
				case <-ctx.Done():
				}
			})
		}
	}
	step := func() time.Duration { return max(time.Second, time.Duration(o.interval.Load())/8) }
	ticker := time.NewTicker(step())
	defer ticker.Stop()
	for {
		for _, e := range o.used() {
			// Rather a step too early than one too late.
			start(e, time.Duration(o.interval.Load())-step())
		}
		select {
		case <-ticker.C:
		case <-o.watching:
			ticker.Reset(step())
		case e := <-o.suspect:
			start(e, probePause)
		case <-ctx.Done():
			return
		}
	}
}

// suspected has the server probed soon.
func (e *exit) suspected() {
	select {
	case e.outline.suspect <- e:
	default: // there is enough to do
	}
}

// beginProbe reports whether the server is to be probed: not already, and not so
// soon after the last time.
func (e *exit) beginProbe(least time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.probing || !e.probedAt.IsZero() && time.Since(e.probedAt) < least {
		return false
	}
	e.probing, e.probedAt = true, time.Now()
	return true
}

// probe probes a server, when it fails once more, and says what came out.
func (o *Outline) probe(ctx context.Context, e *exit) {
	began := time.Now()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.probing, e.probedAt = false, time.Now()
	}()
	for {
		result := e.look(ctx)
		if ctx.Err() != nil {
			return
		}
		again := e.judge(result, began)
		o.cfg.Assigner.Probed(result)
		o.cfg.Probed(result)
		if !again {
			return
		}
	}
}

// judge takes the result of a probe down, and reports whether another has to
// follow at once. began is when the first of those that failed did.
func (e *exit) judge(result Probe, began time.Time) (again bool) {
	e.mu.Lock()
	e.result = result
	if result.TCP.OK {
		e.failing, e.lost = 0, false
		e.mu.Unlock()
		return false
	}
	e.failing++
	again = e.failing < lostProbes
	var ending []lostable
	if !again {
		e.lost = true
		for c := range e.conns {
			ending = append(ending, c)
		}
	}
	e.mu.Unlock()
	for _, c := range ending { // they lock what they are
		c.lose(began)
	}
	return again
}

// look probes both halves at the same time.
func (e *exit) look(ctx context.Context) Probe {
	ctx, cancel := context.WithTimeout(ctx, e.outline.cfg.ProbeTimeout)
	defer cancel()
	result := Probe{Server: e.server, At: time.Now()}
	var udp sync.WaitGroup
	udp.Go(func() { result.UDP = seen(ctx, e.lookUDP) })
	result.TCP = seen(ctx, e.lookTCP)
	udp.Wait()
	return result
}

func seen(ctx context.Context, look func(context.Context) error) Seen {
	began := time.Now()
	err := look(ctx)
	s := Seen{OK: err == nil, Took: time.Since(began)}
	var failed *Error
	switch {
	case err == nil:
	case ctx.Err() != nil:
		s.Why = WhyTimeout
	case errors.Is(err, errNoAnswer):
		s.Why = WhyTimeout
	case errors.As(err, &failed) && failed.Failure == Refused:
		s.Why = WhyClosed
	case errors.Is(err, errConnect):
		s.Why = WhyConnect
	default:
		s.Why = WhyBroken
	}
	return s
}

// lookTCP asks the web server for anything: that it answers is all.
func (e *exit) lookTCP(ctx context.Context) error {
	conn, err := e.dial(ctx, e.outline.cfg.Probe)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	host := strings.TrimSuffix(e.outline.cfg.Probe.String(), ":80")
	if _, err := fmt.Fprintf(conn, "HEAD / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// lookUDP asks a name server for anything.
func (e *exit) lookUDP(ctx context.Context) error {
	q, err := newQuestion("", dnsmessage.TypeNS)
	if err != nil {
		return err
	}
	_, err = e.askByDatagrams(ctx, q)
	return err
}

// Probes lists the latest results for the servers in use, those that have none yet
// left out.
func (o *Outline) Probes() []Probe {
	var list []Probe
	for _, e := range o.used() {
		e.mu.Lock()
		if !e.result.At.IsZero() {
			list = append(list, e.result)
		}
		e.mu.Unlock()
	}
	return list
}
