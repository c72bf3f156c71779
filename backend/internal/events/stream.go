package events

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// Message is what a stream brings: an event, or that a snapshot is needed, or
// only how far the stream is.
type Message struct {
	// Version is up to which its reader has been given all that concerns it.
	Version int64
	Event   *control.Event
	// SnapshotNeeded says that events were missed which the log no longer has.
	SnapshotNeeded bool
}

// Begin opens a stream of the events that concern a gateway and come after a
// version; after is negative for who has none. It returns the function that runs
// the stream, which must be called, or ErrBusy or ErrStopped.
func (h *Hub) Begin(ctx context.Context, gateway string, after int64) (func(ctx context.Context, send func(Message) error) error, error) {
	s, err := h.join(ctx, gateway)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, send func(Message) error) error {
		defer h.leave(s)
		r := &reading{hub: h, stream: s, at: after, send: send}
		err := r.run(ctx)
		h.opts.Observer.StreamEnded(nameOf(err))
		return err
	}, nil
}

func nameOf(err error) string {
	switch {
	case errors.Is(err, ErrSlow):
		return "slow"
	case errors.Is(err, ErrReplaced):
		return "replaced"
	case errors.Is(err, ErrStopped):
		return "stopped"
	default:
		return "done"
	}
}

// reading is a stream on its reader's side.
type reading struct {
	hub    *Hub
	stream *stream
	at     int64 // the version up to which send has had everything
	send   func(Message) error
}

// errLast ends a stream after the last event that its reader gets.
var errLast = errors.New("there is nothing more for this gateway")

// run sends until ctx ends, the reader fails or is too slow, or the stream has
// lived long enough.
func (r *reading) run(ctx context.Context) error {
	life := time.NewTimer(StreamLife)
	defer life.Stop()
	silence := time.NewTicker(KeepAlive)
	defer silence.Stop()
	err := r.catchUp(ctx)
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-r.stream.over:
			return r.stream.why
		case <-life.C:
			return nil
		case <-r.stream.behind:
			err = r.catchUp(ctx)
		case event := <-r.stream.events:
			err = r.pass(event)
		case <-silence.C:
			err = r.send(Message{Version: r.at})
		}
	}
	if errors.Is(err, errLast) {
		return nil
	}
	return err
}

// catchUp sends all that is in the log. What the hub gives meanwhile comes again,
// and is left out then.
func (r *reading) catchUp(ctx context.Context) error {
	for begin := time.Now(); ; {
		log, err := r.hub.opts.Log.Events(ctx, r.at, pageSize)
		if err != nil {
			return err
		}
		if r.at < 0 || log.Gap(r.at) {
			r.at = log.Latest
			return r.send(Message{Version: r.at, SnapshotNeeded: true})
		}
		for i := range log.Events {
			if err := r.pass(&log.Events[i]); err != nil {
				return err
			}
			if time.Since(begin) > catchUpTime {
				return ErrSlow
			}
		}
		if len(log.Events) < pageSize {
			return r.send(Message{Version: r.at})
		}
	}
}

// pass sends an event unless the reader has had it or it is not his.
func (r *reading) pass(event *control.Event) error {
	if event.Version <= r.at {
		return nil
	}
	if event.Version > r.at+1 {
		return nil // some in between are missing: the signal for that is on its way
	}
	r.at = event.Version
	if !event.Concerns(r.stream.gateway) {
		return nil
	}
	if err := r.send(Message{Version: r.at, Event: event}); err != nil {
		return err
	}
	r.hub.opts.Observer.EventSent(string(event.Kind), time.Since(event.At))
	if event.Kind == control.EventGatewayRemoved {
		return errLast
	}
	return nil
}
