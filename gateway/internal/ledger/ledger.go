// Package ledger keeps what sessions have moved in a file until the control plane
// has it: cumulative counters, a row for each session and quarter of an hour.
//
// What was written survives the process and the machine. What cannot be written
// stays in memory, is told from there, and is written when that is possible again.
// No row is dropped to make room: instead there is no place for another session
// ([Ledger.Enter]).
package ledger

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

var (
	// ErrFull says that there are as many rows as there may be.
	ErrFull = errors.New("the ledger of usage is full")
	// ErrUnwritable says that the file could not be written the last time.
	ErrUnwritable = errors.New("the ledger of usage cannot be written")
)

// slot is how finely rows are kept apart by time: as finely as the control plane
// books them.
const slot = 15 * time.Minute

// Row is what a session has moved since it began in a process of the gateway.
type Row struct {
	Boot, Session [16]byte
	Up, Down      int64 // bytes
	At            time.Time
	// Since is when that of it was counted which has been in the ledger for longest.
	// The ledger sets it.
	Since time.Time
}

// Sequence numbers the rows of a session: the later of two that differ has the
// higher number.
func (r Row) Sequence() int64 { return r.Up + r.Down }

// Stats are for people.
type Stats struct {
	Rows   int
	Bytes  int64     // of the file
	Oldest time.Time // the earliest Since; zero: there is no row
}

// Place is where a row is in the order of rows. The zero value is before all.
type Place [16 + 16 + 4]byte

func placeOf(r Row) Place {
	var p Place
	copy(p[:], r.Boot[:])
	copy(p[16:], r.Session[:])
	binary.BigEndian.PutUint32(p[32:], uint32(max(r.At.Unix(), 0)/int64(slot.Seconds())))
	return p
}

// session is what all rows of one have in common.
func (p Place) session() [32]byte { return [32]byte(p[:32]) }

func (p Place) compare(o Place) int { return slices.Compare(p[:], o[:]) }

// value is a row in the file, without what its place says.
func (r Row) value() []byte {
	v := make([]byte, 0, valueSize)
	for _, n := range []int64{r.Up, r.Down, r.At.UnixMicro(), r.Since.UnixMicro()} {
		v = binary.BigEndian.AppendUint64(v, uint64(n))
	}
	return v
}

const valueSize = 4 * 8

func parse(k, v []byte) (Place, Row, error) {
	if len(k) != len(Place{}) || len(v) != valueSize {
		return Place{}, Row{}, errors.New("a row is of another size")
	}
	p := Place(k)
	n := func(i int) int64 { return int64(binary.BigEndian.Uint64(v[8*i:])) }
	r := Row{Boot: [16]byte(p[:16]), Session: [16]byte(p[16:32]), Up: n(0), Down: n(1), At: time.UnixMicro(n(2)), Since: time.UnixMicro(n(3))}
	if r.Up < 0 || r.Down < 0 || r.Up > math.MaxInt64/2 || r.Down > math.MaxInt64/2 {
		return Place{}, Row{}, errors.New("a row has a counter that cannot be")
	}
	return p, r, nil
}

// Ledger is the file. Its methods may be called at the same time.
type Ledger struct {
	db    *bolt.DB
	limit int

	writing sync.Mutex // held by who changes the file, which takes as long as the disk likes
	merged  int64      // the slot in which rows were merged; of who holds writing

	mu       sync.Mutex    // guards the following fields; never held while the disk is asked
	rows     int           // in the file
	sessions int           // that have entered
	unsaved  map[Place]Row // only who holds writing changes it
	failed   error         // of the last write; nil: it went well
	oldest   time.Time     // of the file
	stale    bool          // oldest is to be looked for
}

// Enter takes a place for the rows of a session, which [Ledger.Leave] gives back. The
// error is [ErrFull] or wraps [ErrUnwritable].
func (l *Ledger) Enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
		return fmt.Errorf("%w: %w", ErrUnwritable, l.failed)
	case l.rows+len(l.unsaved)+l.sessions >= l.limit:
		return ErrFull
	}
	l.sessions++
	return nil
}

// Leave gives a place back.
func (l *Ledger) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions--
}

// Put takes rows and writes them, with those that could not be written before. After
// an error they are kept in memory.
func (l *Ledger) Put(rows []Row) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	for _, r := range rows {
		p := placeOf(r)
		r.Since = r.At
		if before, known := l.unsaved[p]; known {
			if before.Sequence() >= r.Sequence() {
				continue
			}
			r.Since = before.Since
		}
		l.unsaved[p] = r
	}
	list := make([]Row, 0, len(l.unsaved))
	for _, r := range l.unsaved {
		list = append(list, r)
	}
	full := l.rows+len(list)+l.sessions >= l.limit
	again := l.failed != nil
	l.mu.Unlock()
	if len(list) == 0 && !full && !again {
		return nil
	}
	// In the order of the file, which then is written in one go.
	slices.SortFunc(list, func(a, b Row) int { return placeOf(a).compare(placeOf(b)) })

	added := 0
	now := time.Now().Unix() / int64(slot.Seconds())
	merge := full && l.merged != now // there is more to merge only when another slot has begun
	err := l.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketRows)
		added = 0
		for _, r := range list {
			n, err := put(b, r)
			if err != nil {
				return err
			}
			added += n
		}
		if !merge {
			return nil
		}
		n, err := mergeRows(b)
		added -= n
		return err
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
	if err != nil {
		return fmt.Errorf("write the ledger of usage: %w", err)
	}
	if merge {
		l.merged = now
	}
	l.rows += added
	clear(l.unsaved)
	for _, r := range list {
		l.oldest = earlier(l.oldest, r.Since)
	}
	return nil
}

// put writes a row and returns by how many there are more.
func put(b *bolt.Bucket, r Row) (added int, err error) {
	p := placeOf(r)
	v := b.Get(p[:])
	if v != nil {
		_, before, err := parse(p[:], v)
		switch {
		case err != nil:
			return 0, err
		case before.Sequence() >= r.Sequence():
			return 0, nil
		}
		r.Since = before.Since
	}
	if err := b.Put(p[:], r.value()); err != nil || v != nil {
		return 0, err
	}
	return 1, nil
}

// mergeRows leaves one row of each session, which covers the others, and returns how
// many have gone.
func mergeRows(b *bolt.Bucket) (gone int, err error) {
	var (
		best   Row
		bestAt Place
		drop   []Place
		raise  = make(map[Place]Row) // what stays and is older than it says
	)
	err = b.ForEach(func(k, v []byte) error {
		p, r, err := parse(k, v)
		if err != nil {
			return err
		}
		if p.session() != bestAt.session() {
			best, bestAt = r, p
			return nil
		}
		since := r.Since
		if best.Since.Before(since) {
			since = best.Since
		}
		lost := p
		if r.Sequence() >= best.Sequence() {
			lost, best, bestAt = bestAt, r, p
		}
		delete(raise, lost)
		drop = append(drop, lost)
		best.Since = since
		raise[bestAt] = best
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, p := range drop {
		if err := b.Delete(p[:]); err != nil {
			return 0, err
		}
	}
	for p, r := range raise {
		if err := b.Put(p[:], r.value()); err != nil {
			return 0, err
		}
	}
	return len(drop), nil
}

// Batch returns up to n rows behind a place, in order, those that are only in memory
// among them, and the place of the last one.
func (l *Ledger) Batch(after Place, n int) (rows []Row, last Place, err error) {
	l.mu.Lock()
	found := make(map[Place]Row, len(l.unsaved))
	for p, r := range l.unsaved {
		if p.compare(after) > 0 {
			found[p] = r
		}
	}
	l.mu.Unlock()
	err = l.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketRows).Cursor()
		k, v := c.Seek(after[:])
		for left := n; k != nil && left > 0; k, v = c.Next() {
			p, r, err := parse(k, v)
			if err != nil {
				return err
			}
			if p == after {
				continue
			}
			if newer, known := found[p]; known {
				newer.Since = r.Since
				r = newer
			}
			found[p] = r
			left--
		}
		return nil
	})
	if err != nil {
		return nil, after, fmt.Errorf("read the ledger of usage: %w", err)
	}
	places := make([]Place, 0, len(found))
	for p := range found {
		places = append(places, p)
	}
	slices.SortFunc(places, Place.compare)
	last = after
	for _, p := range places[:min(n, len(places))] {
		rows = append(rows, found[p])
		last = p
	}
	return rows, last, nil
}

// Drop removes rows of a [Ledger.Batch] that need not be kept. What a session has
// moved since then stays.
func (l *Ledger) Drop(rows []Row) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(placeOf(a).compare(placeOf(b)), cmp.Compare(a.Sequence(), b.Sequence()))
	})
	l.mu.Lock()
	for _, r := range rows {
		p := placeOf(r)
		switch newer, known := l.unsaved[p]; {
		case !known:
		case newer.Sequence() <= r.Sequence():
			delete(l.unsaved, p)
		default:
			newer.Since = r.At
			l.unsaved[p] = newer
		}
	}
	l.mu.Unlock()
	gone := 0
	err := l.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketRows)
		gone = 0
		for _, r := range rows {
			n, err := drop(b, r)
			if err != nil {
				return err
			}
			gone += n
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write the ledger of usage: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows -= gone
	l.stale = true
	return nil
}

// drop removes a row unless there is a newer one in its place, and returns by how
// many there are fewer.
func drop(b *bolt.Bucket, r Row) (gone int, err error) {
	p := placeOf(r)
	v := b.Get(p[:])
	if v == nil {
		return 0, nil
	}
	_, now, err := parse(p[:], v)
	if err != nil {
		return 0, err
	}
	if now.Sequence() <= r.Sequence() {
		return 1, b.Delete(p[:])
	}
	now.Since = r.At
	return 0, b.Put(p[:], now.value())
}

// Stats returns how things are.
func (l *Ledger) Stats() Stats {
	s := Stats{Bytes: l.size()}
	l.mu.Lock()
	stale := l.stale
	l.stale = false
	l.mu.Unlock()
	oldest, err := time.Time{}, error(nil)
	if stale {
		oldest, err = l.earliest()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case stale && err != nil:
		l.stale = true
	case stale:
		l.oldest = oldest
	}
	s.Rows, s.Oldest = l.rows+len(l.unsaved), l.oldest
	for _, r := range l.unsaved {
		s.Oldest = earlier(s.Oldest, r.Since)
	}
	return s
}

// earlier returns the earlier one of two times; one that is zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// size is that of the file.
func (l *Ledger) size() int64 {
	var size int64
	_ = l.db.View(func(tx *bolt.Tx) error { // fails only when the file is closed
		size = tx.Size()
		return nil
	})
	return size
}

func (l *Ledger) earliest() (oldest time.Time, err error) {
	err = l.each(func(r Row) { oldest = earlier(oldest, r.Since) })
	return oldest, err
}

// each calls f with every row of the file.
func (l *Ledger) each(f func(Row)) error {
	return l.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketRows).ForEach(func(k, v []byte) error {
			_, r, err := parse(k, v)
			if err == nil {
				f(r)
			}
			return err
		})
	})
}

// Close closes the file.
func (l *Ledger) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.db.Close()
}
