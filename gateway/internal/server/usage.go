package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/gateway/internal/ledger"
	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/sessions"
)

const (
	// usageLastWord is what the last report may take when the gateway stops. What is
	// not told then, its next start tells.
	usageLastWord = 3 * time.Second
	// After a report that got no answer the next one waits, each time for longer.
	usageRetryFirst, usageRetryLast = time.Second, time.Minute
)

// usage writes down what sessions move, and tells the control plane.
type usage struct {
	ledger     *ledger.Ledger
	boot       [16]byte
	live       func() []*sessions.Session
	report     func(context.Context, []nodes.Usage) (nodes.UsageAnswer, error)
	interval   time.Duration     // between writes
	pace       time.Duration     // between reports
	refused    func(code string) // is told of what the control plane does not take
	turnedAway func()            // is told of each session that has no place
	log        *slog.Logger

	wake  chan struct{} // holds one token when a session has ended
	until atomic.Int64  // unix microseconds: what was moved until then is written
	full  atomic.Bool   // and the log says so

	mu    sync.Mutex // guards the following field
	ended []*sessions.Session
}

// enter takes a place in the ledger for a session.
func (u *usage) enter(ctx context.Context) error {
	err := u.ledger.Enter()
	if err != nil {
		u.turnedAway()
	}
	if full := errors.Is(err, ledger.ErrFull); full != u.full.Swap(full) {
		if full {
			u.log.ErrorContext(ctx, "ledger of usage is full: no session begins until the control plane takes reports", "rows", u.ledger.Stats().Rows)
		} else {
			u.log.InfoContext(ctx, "ledger of usage has room again")
		}
	}
	return err
}

// leave gives back a place that enter took, of a session that did not begin.
func (u *usage) leave() { u.ledger.Leave() }

// end takes a session that moves nothing any more. It gives the session's place in
// the ledger back, when what it moved is written.
func (u *usage) end(live *sessions.Session) {
	u.mu.Lock()
	u.ended = append(u.ended, live)
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends, and once more then.
func (u *usage) run(ctx context.Context) {
	var reporting sync.WaitGroup
	reporting.Go(func() { u.keepReporting(ctx) })
	u.keepWriting(ctx)
	reporting.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), usageLastWord)
	defer cancel()
	if err := u.tell(last); err != nil {
		u.log.WarnContext(last, "usage not reported before the end", "error", err)
	}
}

// keepWriting writes at each interval, and as soon as sessions have ended.
func (u *usage) keepWriting(ctx context.Context) {
	ticker := time.NewTicker(u.interval)
	defer ticker.Stop()
	written := make(map[sessions.ID]int64) // the sequence of each live session's last row
	failing := false
	for done := false; !done; {
		all := true
		select {
		case <-ticker.C:
		case <-u.wake:
			all = false
		case <-ctx.Done():
			done = true
		}
		err := u.write(written, all)
		switch {
		case err != nil && !failing:
			u.log.ErrorContext(ctx, "usage not written: no session begins until it can be", "error", err)
		case err == nil && failing:
			u.log.InfoContext(ctx, "usage written again")
		}
		failing = err != nil
	}
}

// write writes what sessions have moved since the last time: those that have ended,
// or all. written is what was written before.
func (u *usage) write(written map[sessions.ID]int64, all bool) error {
	u.mu.Lock()
	ended := u.ended
	u.ended = nil
	u.mu.Unlock()
	list := ended
	if all {
		list = append(list, u.live()...)
	}
	now := time.Now()
	var rows []ledger.Row
	for _, live := range list {
		row := ledger.Row{Boot: u.boot, Session: live.ID, Up: live.Up(), Down: live.Down(), At: now}
		if row.Sequence() > written[live.ID] {
			written[live.ID] = row.Sequence()
			rows = append(rows, row)
		}
	}
	for _, live := range ended {
		delete(written, live.ID)
	}
	err := u.ledger.Put(rows)
	for range ended {
		u.ledger.Leave()
	}
	if err == nil && all {
		u.until.Store(now.UnixMicro())
	}
	return err
}

// writtenUntil is until when all that was moved is written; zero: nothing is yet.
func (u *usage) writtenUntil() time.Time {
	if until := u.until.Load(); until != 0 {
		return time.UnixMicro(until)
	}
	return time.Time{}
}

// keepReporting reports at each interval, and more seldom while there is no answer.
func (u *usage) keepReporting(ctx context.Context) {
	var wait time.Duration // beyond the interval's
	for timer := time.NewTimer(u.pace); ; timer.Reset(max(wait, u.pace)) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		err := u.tell(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			if wait == 0 {
				u.log.WarnContext(ctx, "usage not reported yet", "error", err, "rows", u.ledger.Stats().Rows)
			}
			wait = min(max(2*wait, usageRetryFirst), usageRetryLast)
		default:
			if wait > 0 {
				u.log.InfoContext(ctx, "usage reported again")
			}
			wait = 0
		}
	}
}

// tell reports every row once, and has the ledger drop what the control plane has.
// What cannot be dropped is told again the next time.
func (u *usage) tell(ctx context.Context) error {
	var problem error
	for at := (ledger.Place{}); ; {
		rows, last, err := u.ledger.Batch(at, nodes.MaxUsage)
		if err != nil || len(rows) == 0 {
			return errors.Join(problem, err)
		}
		list := make([]nodes.Usage, 0, len(rows))
		for _, r := range rows {
			list = append(list, nodes.Usage{Boot: r.Boot, Session: r.Session, Sequence: r.Sequence(), Up: r.Up, Down: r.Down, At: r.At})
		}
		answer, err := u.report(ctx, list)
		if err != nil {
			return err
		}
		settled := make([]ledger.Row, 0, len(answer.Settled))
		for _, i := range answer.Settled {
			settled = append(settled, rows[i])
		}
		for i, code := range answer.Refused {
			u.refused(code)
			u.log.ErrorContext(ctx, "control plane refuses usage", "session", sessions.ID(rows[i].Session).String(), "code", code,
				"bytes_up", rows[i].Up, "bytes_down", rows[i].Down)
		}
		if err := u.ledger.Drop(settled); err != nil {
			problem = err
		}
		at = last
	}
}
