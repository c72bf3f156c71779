package nodes

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/internal/reason"
)

const (
	admittedFile = "admitted.sealed"
	// admittedBatch is how many sessions the control plane is told of at once.
	admittedBatch = 100
	// endedRestart is how sessions ended whose process is gone.
	endedRestart = "gateway_restarted"
)

// admission is a session that the gateway has let in by itself.
type admission struct {
	Session      string     `json:"session_id"`
	Boot         string     `json:"boot_id"`
	Device       uuid.UUID  `json:"device_id"`
	Thumbprint   string     `json:"key_thumbprint"`
	Generation   int64      `json:"generation"`
	Subscription string     `json:"subscription_id,omitempty"`
	Begun        time.Time  `json:"begun_at"`
	Ended        *time.Time `json:"ended_at,omitempty"`
	Reason       string     `json:"reason,omitempty"`
}

func (a admission) question() Question {
	q := Question{Device: a.Device, Thumbprint: a.Thumbprint, Generation: a.Generation}
	raw, _ := hex.DecodeString(a.Session) // it was made of bytes
	copy(q.Session[:], raw)
	return q
}

// admissions are the sessions that the control plane does not know of yet, because it
// was away when they began. They are kept on disk until it does: what such a session
// has moved is somebody's.
type admissions struct {
	limit int
	file  *sealedFile
	wake  chan struct{} // holds one token when there may be something to tell

	saving sync.Mutex // held while the file is written

	mu      sync.Mutex // guards the following fields
	list    []admission
	at      map[string]int // in list, by session
	version int            // grows with each change
	saved   int            // the version that the file has
}

func newAdmissions(limit int, file *sealedFile) *admissions {
	return &admissions{limit: limit, file: file, wake: make(chan struct{}, 1), at: make(map[string]int)}
}

// load takes up those of earlier processes: they are over.
func (a *admissions) load(now time.Time) error {
	if a.file == nil {
		return nil
	}
	var left []admission
	if found, err := a.file.load(&left); !found || err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range left[:min(len(left), a.limit)] {
		if one.Ended == nil {
			one.Ended, one.Reason = &now, endedRestart
		}
		a.put(one)
	}
	a.saved = a.version
	return nil
}

// put adds one. Called with mu held.
func (a *admissions) put(one admission) {
	a.at[one.Session] = len(a.list)
	a.list = append(a.list, one)
	a.version++
}

var errNoRoom = errors.New("the control plane does not know of too many sessions already")

// add keeps one, durably when it returns.
func (a *admissions) add(one admission) error {
	a.mu.Lock()
	if len(a.list) >= a.limit {
		a.mu.Unlock()
		return errNoRoom
	}
	a.put(one)
	a.mu.Unlock()
	if err := a.save(); err != nil {
		a.remove([]string{one.Session})
		return err
	}
	return nil
}

// save writes the file unless it has everything.
func (a *admissions) save() error {
	a.mu.Lock()
	wanted := a.version
	a.mu.Unlock()
	a.saving.Lock() // who waits here mostly finds it done
	defer a.saving.Unlock()
	a.mu.Lock()
	if a.file == nil || a.saved >= wanted {
		a.mu.Unlock()
		return nil
	}
	list, version := slices.Clone(a.list), a.version
	a.mu.Unlock()
	if len(list) == 0 {
		if err := removeFile(a.file.dir, a.file.name); err != nil {
			return err
		}
	} else if err := a.file.save(list); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.saved = version
	return nil
}

// has reports whether a session is among them.
func (a *admissions) has(session string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, has := a.at[session]
	return has
}

func (a *admissions) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.list)
}

// end notes that a session has ended, and reports whether it is among them.
func (a *admissions) end(session, why string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, has := a.at[session]
	if has {
		a.list[i].Ended, a.list[i].Reason = &now, why
		a.version++
	}
	return has
}

// first returns a batch of the oldest.
func (a *admissions) first() []admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.list[:min(len(a.list), admittedBatch)])
}

// remove forgets sessions and returns those that had ended, as they were.
func (a *admissions) remove(sessions []string) (over []admission) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, session := range sessions {
		if i, has := a.at[session]; has && a.list[i].Ended != nil {
			over = append(over, a.list[i])
		}
		delete(a.at, session)
	}
	a.list = slices.DeleteFunc(a.list, func(one admission) bool {
		_, stays := a.at[one.Session]
		return !stays
	})
	for i, one := range a.list {
		a.at[one.Session] = i
	}
	a.version++
	return over
}

func (a *admissions) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Untold is how many sessions the control plane does not know of yet.
func (n *Node) Untold() int { return n.admitted.len() }

// Told reports whether the control plane knows of a session, as far as it was not away
// when that began: what is reported about others belongs to nobody.
func (n *Node) Told(session [16]byte) bool { return !n.admitted.has(hex.EncodeToString(session[:])) }

// keepTelling tells of the sessions that the control plane does not know of, whenever
// it is back, until ctx ends.
func (n *Node) keepTelling(ctx context.Context) {
	for retry := (backoff{}); ; {
		select {
		case <-n.admitted.wake:
		case <-ctx.Done():
			return
		}
		if err := n.tellAdmitted(ctx); err != nil && ctx.Err() == nil {
			n.cfg.Log.WarnContext(ctx, "sessions of the time without the control plane not told yet", "error", err)
			n.admitted.signal()
			sleep(ctx, retry.next())
			continue
		}
		retry = backoff{}
	}
}

// tellAdmitted tells of all of them.
func (n *Node) tellAdmitted(ctx context.Context) error {
	for {
		batch := n.admitted.first()
		if len(batch) == 0 {
			return n.admitted.save()
		}
		if n.breaker.isAway() {
			return ErrUndecided
		}
		if err := n.tellBatch(ctx, batch); err != nil {
			return err
		}
	}
}

// tellBatch tells of some, and has them go on or end as the control plane says.
func (n *Node) tellBatch(ctx context.Context, batch []admission) error {
	var answer struct {
		Sessions []decisionBody `json:"sessions"`
	}
	err := n.control.call(ctx, http.MethodPost, "/api/v1/gateway/sessions/admitted", map[string]any{"boot_id": n.boot, "sessions": batch}, &answer)
	if err == nil && len(answer.Sessions) != len(batch) {
		err = errors.New("another number of answers than of sessions")
	}
	n.cfg.Observe("admitted", err)
	var status *StatusError
	switch {
	case err == nil:
	case errors.As(err, &status) && status.Status == http.StatusNotFound:
		// A control plane of the release before: it can only begin those that live.
		if answer.Sessions, err = n.beginAll(ctx, batch); err != nil {
			return err
		}
	default:
		return err
	}
	n.memory.answered()
	var (
		refused int
		users   []string
	)
	for i, body := range answer.Sessions {
		decision, err := body.decision()
		if err != nil {
			return err
		}
		q := batch[i].question()
		switch {
		case batch[i].Ended != nil:
		case decision.Allowed:
			n.memory.saw(q, decision)
			users = append(users, decision.User)
		default:
			refused++
			n.noteRefusal(q, decision.Reason)
			n.cfg.Close(Closing{Session: q.Session, Reason: decision.Reason})
		}
	}
	n.forgetTold(batch)
	for _, user := range users {
		n.cfg.Recognized(user)
	}
	n.cfg.Log.InfoContext(ctx, "sessions of the time without the control plane told", "sessions", len(batch), "refused", refused)
	return nil
}

// forgetTold forgets a batch that the control plane knows of. What ended meanwhile
// ends there like any session.
func (n *Node) forgetTold(batch []admission) {
	sessions := make([]string, len(batch))
	over := make(map[string]bool)
	for i, one := range batch {
		sessions[i], over[one.Session] = one.Session, one.Ended != nil
	}
	for _, one := range n.admitted.remove(sessions) {
		if !over[one.Session] {
			n.queueEnded(one.Session, one.Reason)
		}
	}
}

// beginAll asks about those that live, one by one.
func (n *Node) beginAll(ctx context.Context, batch []admission) ([]decisionBody, error) {
	bodies := make([]decisionBody, len(batch))
	for i, one := range batch {
		if one.Ended != nil {
			bodies[i].Reason = reason.SessionUnknown
			continue
		}
		var err error
		if bodies[i], err = n.validate(ctx, one.question()); err != nil {
			return nil, fmt.Errorf("begin one that lives: %w", err)
		}
	}
	return bodies, nil
}
