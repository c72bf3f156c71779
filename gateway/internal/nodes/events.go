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

	"github.com/google/uuid"

	"github.com/httvps/httvps/internal/reason"
)

const (
	// maxLine and maxMessage bound what an event may be, in bytes.
	maxLine, maxMessage = 64 << 10, 64 << 10
	// eventSilence is twice what passes on a stream on which nothing happens.
	eventSilence = 30 * time.Second
	// eventPause is between a stream that has ended and the next.
	eventPause = time.Second

	typeSSE = "text/event-stream"
)

// The kinds of events that a gateway of this version knows.
const (
	// DeviceRevoked, UserDisabled and UserRemoved say whose sessions are over.
	DeviceRevoked = "device.revoked"
	UserDisabled  = "user.disabled"
	UserRemoved   = "user.removed"
	// UserEnabled says that a user is welcome again.
	UserEnabled = "user.enabled"
	// SessionClose says that one session is over.
	SessionClose = "session.close"
	// GatewayRemoved says that this gateway is none any more.
	GatewayRemoved = "gateway.removed"
	// GatewayChanged says that an operator wants something else of this gateway: the
	// answer to a heartbeat has it.
	GatewayChanged = "gateway.changed"
	// KeysChanged says that the keys of tokens or of knocks are others.
	KeysChanged = "keys.changed"
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
	Kind            string      `json:"kind"`
	Version         int64       `json:"version"`
	At              time.Time   `json:"at"`
	Reason          reason.Code `json:"reason"`
	SessionID       string      `json:"session_id"`
	DeviceID        string      `json:"device_id"`
	OutlineServerID string      `json:"outline_server_id"`
	PlanID          string      `json:"plan_id"`
	UserID          string      `json:"user_id"`
}

// Session is the session that the event names; ok is false when there is none.
func (e Event) Session() (id [16]byte, ok bool) { return parseSession(e.SessionID) }

// Device is the device that the event names; ok is false when there is none.
func (e Event) Device() (id [16]byte, ok bool) {
	parsed, err := uuid.Parse(e.DeviceID)
	return parsed, err == nil
}

// followEvents follows the control plane's events until ctx ends, from where it was
// each time that a stream ends. Where streams do not get through it asks for what there
// is, at least every half minute.
func (n *Node) followEvents(ctx context.Context) {
	retry, reachable := backoff{}, true
	for {
		heard := false
		err := n.stream(ctx, func(m message) error {
			if heard, retry = true, (backoff{}); !reachable {
				reachable = true
				n.cfg.Log.InfoContext(ctx, "events are followed again")
			}
			return n.pass(ctx, m)
		})
		if ctx.Err() != nil {
			return
		}
		n.cfg.Observe("events", err)
		if err != nil && reachable {
			reachable = false
			n.cfg.Log.WarnContext(ctx, "events not followed", "error", err)
		}
		if err != nil {
			n.cfg.Observe("poll", n.poll(ctx))
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

// poll asks for the events that there are.
func (n *Node) poll(ctx context.Context) error {
	for {
		var page struct {
			Events         []json.RawMessage `json:"events"`
			Version        int64             `json:"version"`
			More           bool              `json:"more"`
			SnapshotNeeded bool              `json:"snapshot_needed"`
		}
		after := n.memory.lastEvent()
		if after == "" {
			after = "-1"
		}
		if err := n.control.call(ctx, http.MethodGet, "/api/v1/gateway/events?after="+after, nil, &page); err != nil {
			return err
		}
		if page.SnapshotNeeded {
			if err := n.catchUp(ctx); err != nil {
				return err
			}
		}
		for _, text := range page.Events {
			if err := n.act(ctx, "", string(text)); err != nil {
				return err
			}
		}
		n.memory.acted(strconv.FormatInt(page.Version, 10))
		if !page.More {
			return nil
		}
	}
}

// stream follows one stream from where the gateway is. That it ended is no error.
func (n *Node) stream(ctx context.Context, each func(message) error) error {
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
	if at := n.memory.lastEvent(); at != "" {
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
		if err := each(m); err != nil {
			return err
		}
	}
}

// pass acts on a message of the stream.
func (n *Node) pass(ctx context.Context, m message) error {
	var err error
	switch m.kind {
	case "": // how far the stream is
	case EventsMissed:
		err = n.catchUp(ctx)
	default:
		err = n.act(ctx, m.kind, m.data)
	}
	if err == nil && m.id != "" {
		n.memory.acted(m.id)
	}
	return err
}

// act acts on an event, which is said to be of a kind unless that is empty. One that
// cannot be read may have been anything.
func (n *Node) act(ctx context.Context, kind, text string) error {
	var e Event
	if json.Unmarshal([]byte(text), &e) != nil || e.Kind == "" || kind != "" && kind != e.Kind {
		return n.catchUp(ctx)
	}
	switch e.Kind {
	case DeviceRevoked:
		if device, ok := e.Device(); ok {
			n.memory.forgetDevice(device)
		}
	case UserDisabled, UserRemoved, SubscriptionEnded:
		n.memory.forget(func(a acquaintance) bool { return a.Last.User == e.UserID })
	case GatewayRemoved:
		n.memory.forget(func(acquaintance) bool { return true })
	case UserEnabled, SubscriptionChanged, PlanChanged:
		n.refused.clear()
	case KeysChanged:
		n.refetch()
	case GatewayChanged:
		n.beatSoon()
	}
	n.cfg.Event(e)
	return nil
}

// catchUp is for events that were missed: the control plane says which sessions must
// end at this moment, and who has none is known no more.
func (n *Node) catchUp(ctx context.Context) error {
	var snapshot struct {
		Close []closing `json:"close"`
	}
	err := n.control.call(ctx, http.MethodGet, "/api/v1/gateway/snapshot", nil, &snapshot)
	n.cfg.Observe("snapshot", err)
	if err != nil {
		return err
	}
	n.memory.forget(func(acquaintance) bool { return true })
	n.refused.clear()
	n.refetch()
	n.beatSoon()
	n.closeAll(ctx, snapshot.Close) // what is beyond comes with heartbeats
	n.cfg.Event(Event{Kind: EventsMissed})
	return nil
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
