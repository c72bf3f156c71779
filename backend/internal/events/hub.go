// Package events brings the log of events to the gateways that follow it. The log
// is in the records and is the only truth; what goes on here is a matter of speed:
// a Hub reads what is new once for all streams of its process, when this process
// wrote it, when another one says through the Bus that there is something, and in
// any case every poll interval.
package events

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/httvps/httvps/backend/internal/control"
)

const (
	// PollInterval is how often the log is read when nothing says that it should be:
	// what a lost wake-up costs at most.
	PollInterval = time.Second
	// KeepAlive is the longest silence on a stream.
	KeepAlive = 15 * time.Second
	// StreamLife is when a stream ends by itself, so that its gateway proves who it
	// is again, maybe to another process.
	StreamLife = 15 * time.Minute

	// MaxStreams bounds the streams of a process, and maxPerGateway those of one
	// gateway: with the next, its oldest ends.
	MaxStreams    = 1024
	maxPerGateway = 2
	// buffered is how many events a stream may be behind until it reads the log by
	// itself, and catchUpTime how long that may take until its reader is too slow.
	buffered    = 256
	catchUpTime = 30 * time.Second
	// pageSize is how many events are read at a time.
	pageSize = control.MaxEvents
)

var (
	// ErrBusy says that there are MaxStreams streams already.
	ErrBusy = errors.New("too many event streams")
	// ErrSlow ends a stream whose reader does not keep up.
	ErrSlow = errors.New("the reader is too slow")
	// ErrReplaced ends a stream when its gateway has opened others.
	ErrReplaced = errors.New("the gateway opened another stream")
	// ErrStopped ends a stream when the hub stops, or has lost its place in the log.
	ErrStopped = errors.New("the event stream is over")
)

// Log is where events come from.
type Log interface {
	Events(ctx context.Context, after int64, limit int) (control.EventLog, error)
}

// Bus carries between processes that there is something new, and nothing else.
type Bus interface {
	// Announce tells the other processes. It may get lost.
	Announce() error
}

// Observer is told what happened, for metrics. Labels come from fixed sets.
type Observer interface {
	// Streams says how many streams there are.
	Streams(n int)
	// EventSent says that a gateway was sent an event, and its age.
	EventSent(kind string, age time.Duration)
	// StreamEnded says why a stream ended: "done", "slow", "replaced" or "stopped".
	StreamEnded(why string)
	// Woken says what made the log be read: "local", "bus" or "poll".
	Woken(by string)
	// Announced says whether the other processes could be told of something new.
	Announced(ok bool)
}

// Options are what a Hub needs.
type Options struct {
	Log      Log
	Bus      Bus // nil: there is no other process
	Observer Observer
	Logger   *slog.Logger
	Appended Signal        // is sent when this process wrote events
	Told     Signal        // is sent when another process may have
	Poll     time.Duration // 0: PollInterval
}

// Hub follows the log for all streams of a process. It is safe for concurrent use.
type Hub struct {
	opts     Options
	announce Signal        // the others are to be told of something new
	ready    chan struct{} // closed when position is known

	mu       sync.Mutex // guards what follows
	position int64      // up to which all streams have been given the events
	streams  []*stream  // oldest first
	stopped  bool
}

// NewHub returns a Hub that does nothing until it runs.
func NewHub(opts Options) *Hub {
	if opts.Poll == 0 {
		opts.Poll = PollInterval
	}
	return &Hub{
		opts: opts, announce: NewSignal(), ready: make(chan struct{}),
	}
}

// Signal says that there is something to look at. Sent many times before anybody
// looks, it says so once.
type Signal chan struct{}

// NewSignal returns a Signal that has not been sent.
func NewSignal() Signal { return make(Signal, 1) }

// Send sends the signal. It does not block.
func (s Signal) Send() {
	select {
	case s <- struct{}{}:
	default: // one that has not been seen yet says the same
	}
}

// Run follows the log until ctx ends, and then ends all streams. It returns nil.
func (h *Hub) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { h.follow(ctx); return nil })
	if h.opts.Bus != nil {
		g.Go(func() error { h.tellOthers(ctx); return nil })
	}
	return g.Wait()
}

// tellOthers has its own goroutine: a bus that hangs delays nobody here.
func (h *Hub) tellOthers(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.announce:
			h.opts.Observer.Announced(h.opts.Bus.Announce() == nil)
		}
	}
}

func (h *Hub) follow(ctx context.Context) {
	defer h.stop()
	poll := time.NewTicker(h.opts.Poll)
	defer poll.Stop()
	failing := false
	for {
		err := h.read(ctx)
		if ctx.Err() != nil {
			return
		}
		if failing != (err != nil) {
			failing = err != nil
			if failing {
				h.opts.Logger.ErrorContext(ctx, "events cannot be read", "error", err.Error())
			} else {
				h.opts.Logger.InfoContext(ctx, "events can be read again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-h.opts.Appended:
			h.announce.Send()
			h.opts.Observer.Woken("local")
		case <-h.opts.Told:
			h.opts.Observer.Woken("bus")
		case <-poll.C:
			h.opts.Observer.Woken("poll")
		}
	}
}

// read gives all that is new to the streams.
func (h *Hub) read(ctx context.Context) error {
	for {
		limit := pageSize
		if !h.isReady() {
			limit = 0 // only how far the log is
		}
		log, err := h.opts.Log.Events(ctx, h.place(), limit)
		if err != nil {
			return err
		}
		if more := h.handOut(log, limit); !more {
			return nil
		}
	}
}

func (h *Hub) isReady() bool {
	select {
	case <-h.ready:
		return true
	default:
		return false
	}
}

func (h *Hub) place() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.position
}

// handOut gives a part of the log to the streams and reports whether there may
// be more of it.
func (h *Hub) handOut(log control.EventLog, limit int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.isReady() {
		h.position = log.Latest
		close(h.ready)
		return false
	}
	if log.Gap(h.position) {
		// Each stream begins again and finds out by itself what it has missed.
		for _, s := range h.streams {
			s.end(ErrStopped)
		}
		h.position = log.Latest
		return false
	}
	for i := range log.Events {
		event := &log.Events[i]
		for _, s := range h.streams {
			select {
			case s.events <- event:
			default:
				s.behind.Send()
			}
		}
		h.position = event.Version
	}
	return len(log.Events) == limit
}

func (h *Hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for _, s := range h.streams {
		s.end(ErrStopped)
	}
}

// stream is what the hub knows of one.
type stream struct {
	gateway string
	events  chan *control.Event
	behind  Signal        // events did not go into the channel
	over    chan struct{} // closed when it has to end
	why     error         // set before that
	once    sync.Once
}

func (s *stream) end(why error) {
	s.once.Do(func() {
		s.why = why
		close(s.over)
	})
}

// join adds a stream, which is given all events after those that the hub has read.
func (h *Hub) join(ctx context.Context, gateway string) (*stream, error) {
	select {
	case <-h.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return nil, ErrStopped
	}
	var own []*stream
	for _, s := range h.streams {
		if s.gateway == gateway {
			own = append(own, s)
		}
	}
	if len(own) >= maxPerGateway {
		own[0].end(ErrReplaced)
		h.remove(own[0])
	}
	if len(h.streams) >= MaxStreams {
		return nil, ErrBusy
	}
	s := &stream{gateway: gateway, events: make(chan *control.Event, buffered), behind: NewSignal(), over: make(chan struct{})}
	h.streams = append(h.streams, s)
	h.opts.Observer.Streams(len(h.streams))
	return s, nil
}

func (h *Hub) leave(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(s)
	h.opts.Observer.Streams(len(h.streams))
}

func (h *Hub) remove(s *stream) {
	h.streams = slices.DeleteFunc(h.streams, func(other *stream) bool { return other == s })
}
