package nodes

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/ticket"
)

const (
	configInterval = 5 * time.Minute

	// The control plane says how often it wants heartbeats, within bounds.
	defaultInterval = 10 * time.Second
	minInterval     = time.Second
	maxInterval     = time.Minute
	// missed is how many heartbeats may fail until the gateway's lease is over.
	missed = 3

	retryFirst, retryLongest = 500 * time.Millisecond, 30 * time.Second
)

// Load is what a gateway carries at the moment.
type Load struct{ Sessions, Streams int }

// Closing is the control plane's word that a session may no longer run.
type Closing struct {
	Session [16]byte
	Reason  reason.Code
}

// Config is what a [Node] needs.
type Config struct {
	State   State
	Key     ed25519.PrivateKey
	URL     string // where devices reach the tunnel
	Version string
	Local   Dial // nil: the control plane is at State.API
	// MaxEnded bounds the ended sessions that the control plane does not know
	// of yet. No session begins while it cannot be asked, so the number of
	// sessions at once is enough; those that were never decided are not counted.
	MaxEnded int
	// Dir, unless empty, keeps what an outage of the control plane needs.
	Dir string
	// Grace is how long devices that are known get in while the control plane is
	// away; at most [MaxGrace]. 0: not at all, and nothing is kept in Dir.
	Grace time.Duration

	// Load is asked at each heartbeat.
	Load func() Load
	// Live are the devices that have sessions, and Sessions how many a user has.
	Live     func() [][16]byte
	Sessions func(user string) int
	// Close is told which session must end.
	Close func(Closing)
	// Leases, unless nil, are leases of quotas that a heartbeat renews, at most n;
	// Granted is told the answer.
	Leases  func(n int) []LeaseRequest
	Granted func(grants []Grant, asked time.Time)
	// Recognized is told whose sessions, that began while the control plane was away, it
	// knows of by now and lets go on. Their terms may be others.
	Recognized func(user string)
	// StoodIn is told what became of devices that came while the control plane was
	// away: StoodIn and the other results.
	StoodIn func(result string)
	// Drain, unless nil, is told with each answer to a heartbeat whether an operator wants
	// this gateway drained, and while it is drained or stops, which others devices may turn
	// to: nil when that was not said. It must not block.
	Drain func(ctx context.Context, drained bool, others []string)
	// Event, unless nil, is told of events. It must not block.
	Event func(Event)
	// Observe is told how each request went.
	Observe func(call string, err error)
	Log     *slog.Logger
}

// Node is this gateway as a member of its service.
type Node struct {
	cfg     Config
	control *api
	boot    uuid.UUID // tells this start of the gateway from earlier ones
	keys    *keys
	ended   endedQueue
	refused refusals

	turns     turns
	places    places
	breaker   breaker
	memory    *memory
	admitted  *admissions
	awaySince time.Time    // as the breaker has it; for its callback alone
	back      atomic.Int64 // unix nanoseconds of when it was back last; 0: it was never away

	heard    atomic.Int64         // unix nanoseconds of the last answered heartbeat; 0: none
	interval atomic.Int64         // between heartbeats
	leaving  atomic.Bool          // this gateway is about to stop
	terse    atomic.Bool          // the control plane does not know its clock's word
	beats    chan chan<- struct{} // a heartbeat is wanted now, and when it was sent, it is closed
	hurried  chan struct{}        // has an item when a heartbeat is wanted soon
	stale    chan struct{}        // has an item when the keys are to be fetched again
	ready    chan struct{}
	once     sync.Once // closes ready
}

// New returns a Node, which does nothing before [Node.Run].
func New(cfg Config) (*Node, error) {
	base, err := url.Parse(cfg.State.API)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	client, err := newHTTP(base, cfg.State.Pin, cfg.Local)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	n := &Node{
		cfg:     cfg,
		control: &api{base: cfg.State.API, http: client, bear: asGateway(cfg.Key, cfg.State.GatewayID)},
		boot:    uuid.New(),
		ended:   endedQueue{limit: cfg.MaxEnded, wake: make(chan struct{}, 1)},
		refused: refusals{now: time.Now, known: make(map[subject]reason.Code)},
		turns:   turns{held: make(map[[16]byte]*turn)},
		places:  places{taken: make(chan struct{}, maxAsking)},
		beats:   make(chan chan<- struct{}),
		hurried: make(chan struct{}, 1),
		stale:   make(chan struct{}, 1),
		ready:   make(chan struct{}),
	}
	n.breaker = breaker{now: time.Now, changed: n.changed}
	n.interval.Store(int64(defaultInterval))
	n.keys = &keys{fetch: n.fetchKeys, now: time.Now}
	return n, n.recall()
}

// recall takes up what the last process knew. What is damaged is as good as nothing.
func (n *Node) recall() error {
	var files [2]*sealedFile
	for i, name := range []string{memoryFile, admittedFile} {
		switch {
		case n.cfg.Dir == "":
		case n.cfg.Grace == 0:
			if err := removeFile(n.cfg.Dir, name); err != nil {
				return err
			}
		default:
			var err error
			if files[i], err = newSealedFile(n.cfg.Dir, name, n.cfg.Key); err != nil {
				return err
			}
		}
	}
	n.memory, n.admitted = newMemory(time.Now, files[0]), newAdmissions(n.cfg.MaxEnded, files[1])
	for _, err := range []error{n.memory.load(), n.admitted.load(time.Now())} {
		if err != nil {
			n.cfg.Log.Warn("what an outage of the control plane needs is lost", "error", err)
		}
	}
	if told := n.memory.lastTold(); len(told.JWKS.Keys) > 0 {
		n.keys.current = ticket.NewVerifier(n.cfg.State.Issuer, n.cfg.State.ServiceID, told.JWKS)
	}
	return nil
}

// Boot tells this start of the gateway from earlier ones.
func (n *Node) Boot() [16]byte { return n.boot }

// Verify checks everything in an access token but its expiry. The error is
// [ErrNoKeys] until the control plane has answered once.
func (n *Node) Verify(ctx context.Context, token string) (ticket.Claims, error) {
	return n.keys.Verify(ctx, token)
}

// Ready is closed when the control plane's keys are known and a heartbeat was
// answered, or the gateway stands in for the control plane.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Knock returns what the control plane says that devices are known by, without keys
// until it has said so. It answers from memory.
func (n *Node) Knock() Knock { return n.memory.lastTold().Knock }

// Joined reports whether the control plane has answered a heartbeat lately:
// whether this gateway still holds its lease.
func (n *Node) Joined() bool {
	heard := n.heard.Load()
	return heard != 0 && time.Since(time.Unix(0, heard)) < missed*time.Duration(n.interval.Load())
}

// Run speaks with the control plane until ctx ends: keys, heartbeats, events, the
// word about ended sessions. Errors of the control plane are logged and never end
// it. Before it returns it tells of the sessions that have ended by then, as
// far as that takes no more than a few seconds.
func (n *Node) Run(ctx context.Context) {
	defer n.control.http.CloseIdleConnections()
	told := make(chan struct{})
	go func() {
		defer close(told)
		n.tellEnded(ctx)
	}()
	defer func() { <-told }()

	var kept sync.WaitGroup
	defer kept.Wait()
	kept.Go(func() { n.keepMemory(ctx) })
	kept.Go(func() { n.keepTelling(ctx) })

	followed := make(chan struct{})
	go func() {
		defer close(followed)
		if n.cfg.Event != nil {
			n.followEvents(ctx)
		}
	}()
	defer func() { <-followed }()

	refreshed := make(chan struct{})
	go func() {
		defer close(refreshed)
		n.keepKeys(ctx)
	}()
	defer func() { <-refreshed }()

	n.keepBeating(ctx)
}

// keepKeys fetches the control plane's configuration at the start, every five minutes,
// and when it is said to be another one.
func (n *Node) keepKeys(ctx context.Context) {
	retry := backoff{}
	for {
		wait := jitter(configInterval)
		if err := n.keys.refresh(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			n.cfg.Log.WarnContext(ctx, "control plane configuration not fetched", "error", err)
			wait = retry.next()
		} else {
			retry = backoff{}
			n.announce()
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-n.stale:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// refetch has the control plane's configuration fetched soon.
func (n *Node) refetch() {
	select {
	case n.stale <- struct{}{}:
	default:
	}
}

// announce closes Ready once its conditions hold.
func (n *Node) announce() {
	if (n.heard.Load() != 0 || n.StandsIn()) && n.keys.load() != nil {
		n.once.Do(func() { close(n.ready) })
	}
}

func (n *Node) fetchKeys(ctx context.Context) (*ticket.Verifier, error) {
	var answer struct {
		ServiceID string      `json:"service_id"`
		Issuer    string      `json:"issuer"`
		JWKS      ticket.JWKS `json:"jwks"`
		Knock     Knock       `json:"knock"`
	}
	err := n.control.call(ctx, http.MethodGet, "/api/v1/gateway/config", nil, &answer)
	if err == nil {
		switch {
		case answer.ServiceID != n.cfg.State.ServiceID || answer.Issuer != n.cfg.State.Issuer:
			// Whoever answers is not the service that this gateway joined.
			err = errors.New("the control plane is of another service")
		case len(answer.JWKS.Keys) == 0:
			err = errors.New("the control plane told no keys")
		default:
			err = answer.Knock.validate()
		}
	}
	n.cfg.Observe("config", err)
	if err != nil {
		return nil, err
	}
	n.memory.tell(told{JWKS: answer.JWKS, Knock: answer.Knock, At: time.Now()})
	return ticket.NewVerifier(answer.Issuer, answer.ServiceID, answer.JWKS), nil
}

// keepBeating sends heartbeats.
func (n *Node) keepBeating(ctx context.Context) {
	retry := backoff{}
	reachable := true
	var wanted chan<- struct{} // who waits for the heartbeat; nil: nobody
	for {
		err := n.beat(ctx)
		if wanted != nil {
			close(wanted)
			wanted = nil
		}
		interval := time.Duration(n.interval.Load()) // as the answer has it
		wait := jitter(interval)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if reachable {
				n.cfg.Log.WarnContext(ctx, "heartbeat not answered", "error", err)
			}
			reachable = false
			wait = min(retry.next(), interval)
			n.announce() // it may stand in by now
		default:
			if !reachable {
				n.cfg.Log.InfoContext(ctx, "heartbeat answered again")
			}
			reachable, retry = true, backoff{}
			n.announce()
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-n.hurried:
		case wanted = <-n.beats:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// Leave tells the control plane that this gateway is about to stop, so that it leads no
// device here any more. It returns when that was told, or could not be, and when ctx ends.
func (n *Node) Leave(ctx context.Context) {
	n.leaving.Store(true)
	told := make(chan struct{})
	select {
	case n.beats <- told:
	case <-ctx.Done():
		return
	}
	select {
	case <-told:
	case <-ctx.Done():
	}
}

// beatSoon has a heartbeat sent now.
func (n *Node) beatSoon() {
	select {
	case n.hurried <- struct{}{}:
	default:
	}
}

// beat sends one heartbeat and passes on what its answer says.
func (n *Node) beat(ctx context.Context) error {
	load := n.cfg.Load()
	var (
		leases []lease
		asked  = time.Now()
	)
	if n.cfg.Leases != nil {
		leases = leasesOf(n.cfg.Leases(MaxLeases))
	}
	var answer struct {
		IntervalMS int64     `json:"interval_ms"`
		Quotas     []grant   `json:"quotas"`
		Close      []closing `json:"close"`
		Drained    bool      `json:"drained"`
		Others     []string  `json:"gateways"`
	}
	body := map[string]any{
		"boot_id": n.boot, "version": n.cfg.Version, "url": n.cfg.URL,
		"sessions": load.Sessions, "streams": load.Streams,
	}
	if len(leases) > 0 {
		body["leases"] = leases
	}
	if n.leaving.Load() {
		body["leaving"] = true
	}
	if !n.terse.Load() {
		body["time"] = asked.UTC()
	}
	err := n.control.call(ctx, http.MethodPost, "/api/v1/gateway/heartbeat", body, &answer)
	if status, ok := errors.AsType[*StatusError](err); ok && status.Status == http.StatusUnprocessableEntity && (body["leaving"] != nil || body["time"] != nil) {
		delete(body, "leaving") // a control plane from before these does not know the words
		delete(body, "time")
		if err = n.control.call(ctx, http.MethodPost, "/api/v1/gateway/heartbeat", body, &answer); err == nil {
			n.terse.Store(true)
		}
	}
	n.cfg.Observe("heartbeat", err)
	if ctx.Err() == nil {
		n.breaker.beaten(answers(err))
	}
	if err != nil {
		return err
	}
	n.memory.answered()
	n.heard.Store(time.Now().UnixNano())
	if n.admitted.len() > 0 {
		n.admitted.signal()
	}
	if answer.IntervalMS > 0 {
		asked := time.Duration(min(answer.IntervalMS, maxInterval.Milliseconds())) * time.Millisecond
		n.interval.Store(int64(max(asked, minInterval)))
	}
	if len(leases) > 0 {
		n.cfg.Granted(grantsOf(answer.Quotas), asked)
	}
	n.closeAll(ctx, answer.Close)
	if n.cfg.Drain != nil {
		n.cfg.Drain(ctx, answer.Drained, answer.Others)
	}
	return nil
}

// closing is a session that must end, as the API has it.
type closing struct {
	SessionID string      `json:"session_id"`
	Reason    reason.Code `json:"reason"`
}

func (n *Node) closeAll(ctx context.Context, list []closing) {
	for _, c := range list {
		id, ok := parseSession(c.SessionID)
		if !ok {
			n.cfg.Log.WarnContext(ctx, "a session to close that is none")
			continue
		}
		n.cfg.Close(Closing{Session: id, Reason: c.Reason})
	}
}

func parseSession(text string) (id [16]byte, ok bool) {
	raw, err := hex.DecodeString(text)
	return id, err == nil && copy(id[:], raw) == len(id) && len(raw) == len(id)
}

// answers reports whether a call that ended with err was answered: a refusal is an
// answer, and a control plane that is overloaded or without its database is away.
func answers(err error) bool {
	var status *StatusError
	return err == nil || errors.As(err, &status) && status.Status < 500 &&
		status.Status != http.StatusRequestTimeout && status.Status != http.StatusTooManyRequests
}

// backoff doubles the wait between tries.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, retryFirst), retryLongest)
	return jitter(b.last)
}

// jitter moves d by up to a tenth either way, so that gateways that were
// started together do not stay together.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1) //nolint:gosec // spreads load; nobody gains by guessing it
}

// sleep waits for d and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
