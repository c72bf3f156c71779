package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/events"
	"github.com/httvps/httvps/internal/reason"
)

const (
	typeSSE = "text/event-stream"
	// sendTimeout is how long a gateway may take to take what is sent.
	sendTimeout = 10 * time.Second
	// retryMS is when a gateway should come back whose stream ended.
	retryMS = 1000

	snapshotNeeded = "snapshot_needed"
)

// Event is something that a gateway acts on. Only the members that its kind has
// are there.
type Event struct {
	Version        int64     `json:"version" doc:"Grows by one with each event of the service."`
	Kind           string    `json:"kind" enum:"device.revoked,user.disabled,user.enabled,user.removed,subscription.changed,subscription.ended,plan.changed,session.close,gateway.removed,gateway.changed,keys.changed,outline.changed" doc:"There may be further kinds: leave out what is not known."`
	At             time.Time `json:"at"`
	Reason         string    `json:"reason,omitempty" doc:"Why sessions are to be closed."`
	UserID         string    `json:"user_id,omitempty"`
	DeviceID       string    `json:"device_id,omitempty"`
	SubscriptionID string    `json:"subscription_id,omitempty"`
	PlanID         string    `json:"plan_id,omitempty"`
	SessionID      string    `json:"session_id,omitempty"`
	Keys           string    `json:"keys,omitempty" enum:"jwks,knock" doc:"Which keys of the gateway's configuration are new."`

	OutlineServerID string `json:"outline_server_id,omitempty"`
}

// EventPage is what a poll brings.
type EventPage struct {
	Events         []Event `json:"events" doc:"Those that concern the gateway, oldest first."`
	Version        int64   `json:"version" doc:"Ask for what comes after this the next time."`
	More           bool    `json:"more" doc:"There is more to be had at once."`
	SnapshotNeeded bool    `json:"snapshot_needed" doc:"Events were missed that are not kept any more: get the snapshot."`
}

// Snapshot is what a gateway needs to know when it has missed events.
type Snapshot struct {
	Version int64          `json:"version" doc:"All events up to this one are in it."`
	Close   []SessionClose `json:"close" doc:"The gateway's sessions that must end, at most 1,000."`
	More    bool           `json:"more" doc:"There are more: end these, say so, and ask again."`
	Keys    KeyVersions    `json:"keys"`
}

// KeyVersions change with the keys in a gateway's configuration.
type KeyVersions struct {
	JWKS  string `json:"jwks"`
	Knock string `json:"knock"`
}

func showEvent(e control.Event) Event {
	return Event{
		Version: e.Version, Kind: string(e.Kind), At: e.At, Reason: e.Reason, UserID: e.UserID, DeviceID: e.DeviceID,
		SubscriptionID: e.SubscriptionID, PlanID: e.PlanID, SessionID: e.SessionID, Keys: e.Keys, OutlineServerID: e.OutlineServerID,
	}
}

func showKeyVersions(v control.KeyVersions) KeyVersions {
	return KeyVersions{JWKS: v.JWKS, Knock: v.Knock}
}

type eventsInput struct {
	After       int64  `query:"after" minimum:"-1" default:"-1" doc:"The version that the gateway has got to; without one it needs a snapshot."`
	LastEventID string `header:"Last-Event-ID" maxLength:"19" pattern:"^[0-9]*$" doc:"The same, of a stream that broke; it counts instead of after."`
	Accept      string `header:"Accept" doc:"text/event-stream for a stream; anything else for what there is now, as JSON."`
}

// after returns the version that the gateway says it has got to, or -1.
func (in *eventsInput) after() int64 {
	if in.LastEventID == "" {
		return in.After
	}
	version, err := strconv.ParseInt(in.LastEventID, 10, 64)
	if err != nil {
		return -1 // out of range: certainly not ours
	}
	return version
}

func (s *server) registerEvents(api huma.API) {
	secure := []map[string][]string{{secureGateway: {}}}
	schemas := api.OpenAPI().Components.Schemas
	register(s, api, huma.Operation{
		OperationID: "gateway-events", Method: http.MethodGet, Path: "/api/v1/gateway/events", Tags: []string{"gateway"},
		Summary: "Follow, or ask for, the events that concern the gateway", Security: secure, Middlewares: s.asGateway(),
		Description: "With Accept: text/event-stream, server-sent events until the gateway leaves or 15 minutes have passed: each has its kind as event, its version as id " +
			"and an Event as data. An id alone, at least every 15 seconds, says how far the stream is. snapshot_needed, with {\"version\":N} as data, says that events were missed " +
			"that are not kept any more. Of a gateway's streams the newest two stay open. Otherwise, at most 500 events as JSON.",
		Responses: map[string]*huma.Response{"200": {
			Description: "Events.",
			Content: map[string]*huma.MediaType{
				"application/json": {Schema: schemas.Schema(reflect.TypeFor[EventPage](), true, "EventPage")},
				typeSSE:            {Schema: &huma.Schema{Type: huma.TypeString}},
			},
		}},
	}, s.gatewayEvents)
	register(s, api, huma.Operation{
		OperationID: "gateway-snapshot", Method: http.MethodGet, Path: "/api/v1/gateway/snapshot", Tags: []string{"gateway"},
		Summary: "Get what a gateway must know after it missed events", Security: secure, Middlewares: s.asGateway(),
	}, func(ctx context.Context, _ *struct{}) (*body[Snapshot], error) {
		snapshot, err := s.authority.Snapshot(ctx, gatewayOf(ctx))
		if err != nil {
			return nil, err
		}
		out := Snapshot{
			Version: snapshot.Version, More: snapshot.More, Keys: showKeyVersions(snapshot.Keys),
			Close: make([]SessionClose, 0, len(snapshot.Close)),
		}
		for _, end := range snapshot.Close {
			out.Close = append(out.Close, SessionClose{SessionID: end.ID, Reason: end.Reason})
		}
		return &body[Snapshot]{out}, nil
	})
}

// registerClose adds the operator's way to end a session.
func (s *server) registerClose(api huma.API) {
	operation := s.admin("close-session", http.MethodPost, "/sessions/{id}/close", "Have a session closed; its device may begin another one")
	operation.DefaultStatus = http.StatusOK
	register(s, api, operation, func(ctx context.Context, in *sessionInput) (*body[Session], error) {
		session, err := s.authority.CloseSession(ctx, in.ID, reason.SessionUnknown)
		if err != nil {
			return nil, err
		}
		return &body[Session]{showSession(session)}, nil
	})
}

func (s *server) gatewayEvents(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	gateway, after := gatewayOf(ctx), in.after()
	if !wantsStream(in.Accept) {
		page, err := s.eventPage(ctx, gateway, after)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			hctx.SetHeader("Content-Type", "application/json")
			hctx.SetStatus(http.StatusOK)
			_, _ = hctx.BodyWriter().Write(mustJSON(page)) // the client may have gone
		}}, nil
	}
	run, err := s.hub.Begin(ctx, gateway.ID, after)
	if errors.Is(err, events.ErrBusy) || errors.Is(err, events.ErrStopped) {
		return nil, fmt.Errorf("%w: %w", control.ErrUnavailable, err)
	}
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		hctx.SetHeader("Content-Type", typeSSE)
		hctx.SetHeader("X-Accel-Buffering", "no") // a proxy shall pass on what there is
		hctx.SetStatus(http.StatusOK)
		_, w := humachi.Unwrap(hctx)
		out := newSSE(w)
		// The stream lasts longer than a request may take.
		stay := unbounded(ctx)
		err := run(stay, out.send)
		s.log.DebugContext(stay, "event stream ended", "gateway_id", gateway.ID, "request_id", requestID(ctx), "why", why(err))
	}}, nil
}

func why(err error) string {
	if err == nil {
		return "done"
	}
	return err.Error()
}

// wantsStream reports whether an Accept header asks for server-sent events.
func wantsStream(accept string) bool {
	return slices.ContainsFunc(strings.Split(accept, ","), func(part string) bool {
		media, _, _ := strings.Cut(part, ";")
		return strings.EqualFold(strings.TrimSpace(media), typeSSE)
	})
}

func (s *server) eventPage(ctx context.Context, gateway control.Gateway, after int64) (EventPage, error) {
	log, err := s.authority.Events(ctx, after, control.MaxEvents)
	if err != nil {
		return EventPage{}, err
	}
	page := EventPage{Events: []Event{}, Version: log.Latest}
	if after < 0 || log.Gap(after) {
		page.SnapshotNeeded = true
		return page, nil
	}
	for _, event := range log.Events {
		page.Version = event.Version
		if event.Concerns(gateway.ID) {
			page.Events = append(page.Events, showEvent(event))
		}
	}
	page.More = page.Version < log.Latest
	return page, nil
}

// sse writes server-sent events.
type sse struct {
	w       http.ResponseWriter
	control *http.ResponseController
	text    bytes.Buffer
	begun   bool
}

func newSSE(w http.ResponseWriter) *sse { return &sse{w: w, control: http.NewResponseController(w)} }

// send writes a message and waits until it is on its way.
func (s *sse) send(m events.Message) error {
	s.text.Reset()
	if !s.begun {
		s.begun = true
		fmt.Fprintf(&s.text, "retry: %d\n", retryMS)
		// The request has been read: what comes from the gateway is its end.
		if err := s.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
	}
	fmt.Fprintf(&s.text, "id: %d\n", m.Version)
	switch {
	case m.Event != nil:
		data, err := json.Marshal(showEvent(*m.Event))
		if err != nil {
			return err
		}
		fmt.Fprintf(&s.text, "event: %s\ndata: %s\n", m.Event.Kind, data)
	case m.SnapshotNeeded:
		fmt.Fprintf(&s.text, "event: %s\ndata: {\"version\":%d}\n", snapshotNeeded, m.Version)
	}
	s.text.WriteByte('\n')
	if err := s.control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write(s.text.Bytes()); err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil {
		return err
	}
	// A deadline that passes ends a stream of HTTP/2, also when nothing is being sent.
	if err := s.control.SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
