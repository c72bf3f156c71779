package nodes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxLine and maxMessage bound what an event may be, in bytes.
	maxLine, maxMessage = 64 << 10, 64 << 10
	// eventSilence is three times what passes on a stream on which nothing happens.
	eventSilence = 45 * time.Second
	// eventPause is between a stream that has ended and the next.
	eventPause = time.Second

	typeSSE = "text/event-stream"
)

// The kinds of events that a gateway of this version knows.
const (
	// OutlineChanged says that an Outline server is not what it was.
	OutlineChanged = "outline.changed"
	// PlanChanged says that a plan has other limits or terms.
	PlanChanged = "plan.changed"
	// SubscriptionChanged says that a user's subscription was made or moved in time.
	SubscriptionChanged = "subscription.changed"
	// SubscriptionEnded says that one gives no right any more.
	SubscriptionEnded = "subscription.ended"
	// EventsMissed stands for any number of events of any kind. It comes with the
	// first stream, too.
	EventsMissed = "snapshot_needed"
)

// Event is something that a gateway acts on. Kinds that it does not know have to be
// passed over.
type Event struct {
	Kind            string `json:"kind"`
	OutlineServerID string `json:"outline_server_id"`
	PlanID          string `json:"plan_id"`
	UserID          string `json:"user_id"`
}

// followEvents follows the control plane's events until ctx ends, from where it was
// each time that a stream ends.
func (n *Node) followEvents(ctx context.Context) {
	at, retry, reachable := "", backoff{}, true
	for {
		heard := false
		err := n.stream(ctx, func(m message) {
			if heard, retry = true, (backoff{}); !reachable {
				reachable = true
				n.cfg.Log.InfoContext(ctx, "events are followed again")
			}
			if m.id != "" {
				at = m.id
			}
			n.pass(m)
		}, at)
		if ctx.Err() != nil {
			return
		}
		n.cfg.Observe("events", err)
		if err != nil && reachable {
			reachable = false
			n.cfg.Log.WarnContext(ctx, "events not followed", "error", err)
		}
		wait := jitter(eventPause)
		if !heard {
			wait = retry.next()
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// stream follows one stream from the version at, or without one. That it ended is no
// error.
func (n *Node) stream(ctx context.Context, each func(message), at string) error {
	const path = "/api/v1/gateway/events"
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(eventSilence, func() { cancel(fmt.Errorf("nothing came for %v", eventSilence)) })
	defer silence.Stop()
	req, err := n.control.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", typeSSE+", application/problem+json")
	if at != "" {
		req.Header.Set("Last-Event-ID", at)
	}
	resp, err := n.control.endless().Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", path, unwrapURL(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxMessage)) // a problem, or something without meaning
		return fmt.Errorf("%s: %w", path, statusError(resp.StatusCode, text))
	}
	if media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); media != typeSSE {
		return fmt.Errorf("%s: the answer is no stream of events", path)
	}
	in := newMessages(resp.Body)
	for {
		m, err := in.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("%s: %w", path, context.Cause(ctx))
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		}
		silence.Reset(eventSilence)
		each(m)
	}
}

// pass passes an event on. One that cannot be read may have been anything.
func (n *Node) pass(m message) {
	if m.kind == "" {
		return // how far the stream is
	}
	event := Event{Kind: EventsMissed}
	if m.kind != EventsMissed {
		if json.Unmarshal([]byte(m.data), &event) != nil || event.Kind != m.kind {
			event = Event{Kind: EventsMissed}
		}
	}
	n.cfg.Event(event)
}

// message is one of a stream of server-sent events.
type message struct {
	id   string // digits, or empty
	kind string
	data string
}

// messages reads a stream of server-sent events.
type messages struct{ in *bufio.Scanner }

func newMessages(r io.Reader) messages {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	return messages{in}
}

// next returns the next message that says anything, and io.EOF at the end. A message
// that is cut off there is none.
func (m messages) next() (message, error) {
	var (
		next message
		data strings.Builder
		some bool // a line of data came
	)
	for m.in.Scan() {
		line := m.in.Text()
		if line == "" {
			if next.data = data.String(); next != (message{}) {
				return next, nil
			}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			if _, err := strconv.ParseInt(value, 10, 64); err != nil || value[0] == '-' || value[0] == '+' {
				return message{}, errors.New("an event whose id is no version")
			}
			next.id = value
		case "event":
			next.kind = value
		case "data":
			if some {
				data.WriteByte('\n')
			}
			some = true
			if data.WriteString(value); data.Len() > maxMessage {
				return message{}, fmt.Errorf("an event is larger than %d bytes", maxMessage)
			}
		}
	}
	if err := m.in.Err(); err != nil {
		return message{}, err
	}
	return message{}, io.EOF
}
