package nodes

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	endedBatch = 1000
	// maxUndecided bounds the sessions that were asked for and not decided.
	// Anybody with a device adds to them while the control plane is away, and
	// nearly none of them exists there.
	maxUndecided = 4096
	// lastWord is what the word about ended sessions may take when the gateway
	// stops. What is not told then, the next start's boot id tells.
	lastWord = 3 * time.Second
)

// ended is a session of which the control plane still believes that it lives.
type ended struct {
	SessionID string `json:"session_id"`
	Reason    string `json:"reason"`
}

// batch is how many of each kind, from the front.
type batch struct{ items, undecided int }

// endedQueue is bounded; what does not fit ends with the gateway's lease or at
// its next start. Sessions that existed have their room to themselves.
type endedQueue struct {
	limit int           // of items
	wake  chan struct{} // holds one token when something was added

	mu        sync.Mutex // guards the following fields
	items     []ended
	undecided []ended // oldest first
	batch     batch   // what first returned, as far as it is still there
}

// add reports whether there was room.
func (q *endedQueue) add(e ended) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) >= q.limit {
		return false
	}
	q.items = append(q.items, e)
	q.signal()
	return true
}

// addUndecided makes room by forgetting the oldest of its kind.
func (q *endedQueue) addUndecided(e ended) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.undecided) >= maxUndecided {
		q.undecided = q.undecided[1:]
		q.batch.undecided = max(0, q.batch.undecided-1)
	}
	q.undecided = append(q.undecided, e)
	q.signal()
}

// signal wakes who tells. Called with mu held.
func (q *endedQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// first returns up to a batch, which stays in the queue until drop: sessions that
// existed before those that were not decided.
func (q *endedQueue) first() []ended {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.batch.items = min(len(q.items), endedBatch)
	q.batch.undecided = min(len(q.undecided), endedBatch-q.batch.items)
	first := append([]ended(nil), q.items[:q.batch.items]...)
	return append(first, q.undecided[:q.batch.undecided]...)
}

// drop removes what first returned.
func (q *endedQueue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append([]ended(nil), q.items[q.batch.items:]...)
	q.undecided = append([]ended(nil), q.undecided[q.batch.undecided:]...)
	q.batch = batch{}
}

// Ended tells the control plane, soon, that a session has ended. It does not
// wait. why is the name of a wire code.
func (n *Node) Ended(session [16]byte, why string) {
	id := hex.EncodeToString(session[:])
	if !n.admitted.end(id, why, time.Now().UTC()) { // else it is told with its beginning
		n.queueEnded(id, why)
	}
}

func (n *Node) queueEnded(session, why string) {
	if !n.ended.add(ended{SessionID: session, Reason: why}) {
		n.cfg.Log.Error("end of a session not told: the queue is full")
	}
}

// tellEnded passes the queue on until ctx ends, and once more then.
func (n *Node) tellEnded(ctx context.Context) {
	for retry := (backoff{}); ; {
		select {
		case <-n.ended.wake:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
			defer cancel()
			if err := n.flush(last); err != nil {
				n.cfg.Log.WarnContext(last, "ends of sessions not told", "error", err)
			}
			return
		}
		if err := n.flush(ctx); err != nil && ctx.Err() == nil {
			n.cfg.Log.WarnContext(ctx, "ends of sessions not told yet", "error", err)
			select {
			case n.ended.wake <- struct{}{}: // what is left waits for the next try
			default:
			}
			sleep(ctx, retry.next())
			continue
		}
		retry = backoff{}
	}
}

// flush tells all that is in the queue. What the control plane will never take
// is dropped.
func (n *Node) flush(ctx context.Context) error {
	for {
		batch := n.ended.first()
		if len(batch) == 0 {
			return nil
		}
		err := n.control.call(ctx, http.MethodPost, "/api/v1/gateway/sessions/end", map[string]any{"sessions": batch}, nil)
		n.cfg.Observe("end", err)
		var status *StatusError
		switch {
		case err == nil:
		case errors.As(err, &status) && status.permanent():
			n.cfg.Log.ErrorContext(ctx, "control plane refuses ends of sessions", "error", err, "sessions", len(batch))
		default:
			return err
		}
		n.ended.drop()
	}
}
