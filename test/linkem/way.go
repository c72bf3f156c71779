package linkem

import (
	"math/rand/v2"
	"sync"
	"time"
)

// late is from when on a delivery counts as Stats.Late.
const late = time.Millisecond

// way is one direction of a link, apart from how packets come and go. Times are
// durations since the link was opened.
//
// Nothing is timed but deliveries: when a packet enters, the moment it will
// have been sent follows from the packet before it, and the length of the queue
// from how far ahead that moment is. So a late wake-up delays single packets
// and never slows the link down.
type way struct {
	path Path
	send func(packet []byte) error // delivers; must not keep packet

	mu        sync.Mutex // guards the following; held in send, see block
	blocked   bool
	loss      *rand.Rand
	busyUntil time.Duration // when the last packet will have been sent
	flight    ring
	buffers   pool
	stats     Stats
}

func newWay(path Path, mtu int, seed, stream uint64, send func([]byte) error) *way {
	return &way{
		path:    path,
		send:    send,
		loss:    rand.New(rand.NewPCG(seed, stream)), //nolint:gosec // G404: it decides which packets are lost, and shall repeat itself
		buffers: pool{mtu: mtu},
	}
}

// enter takes a packet that came at now; it keeps no reference to it.
func (w *way) enter(data []byte, now time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blocked {
		w.stats.DroppedCut++
		return
	}
	sent := now
	if w.path.Rate > 0 {
		waiting := w.backlog(now)
		if waiting > 0 && waiting+int64(len(data)) > int64(w.path.QueueBytes) {
			w.stats.DroppedQueue++
			return
		}
		w.stats.MaxQueueBytes = max(w.stats.MaxQueueBytes, waiting+int64(len(data)))
		sent = max(now, w.busyUntil) + time.Duration(int64(len(data))*8*int64(time.Second)/w.path.Rate)
		w.busyUntil = sent
	}
	// One draw for each packet that was sent, whatever the loss: what is lost
	// depends on the order of packets alone.
	if w.loss.Float64() < w.path.Loss {
		w.stats.DroppedLoss++
		return
	}
	buf := w.buffers.get(len(data))
	if buf == nil {
		w.stats.DroppedQueue++
		return
	}
	copy(buf, data)
	w.flight.push(packet{data: buf, due: sent + w.path.Delay})
}

// backlog is how many bytes are still to be sent at now.
func (w *way) backlog(now time.Duration) int64 {
	ahead := w.busyUntil - now
	if ahead <= 0 {
		return 0
	}
	return int64(float64(ahead) / float64(time.Second) * float64(w.path.Rate) / 8)
}

// deliver sends every packet that is due at now, and says when the next one
// will be; ok is false when there is none. At most some packets are sent in one
// call, so that those that come in are not kept waiting.
func (w *way) deliver(now time.Duration) (next time.Duration, ok bool, err error) {
	const most = 32
	w.mu.Lock()
	defer w.mu.Unlock()
	for range most {
		p, ok := w.flight.peek()
		if !ok {
			return 0, false, nil
		}
		if p.due > now {
			return p.due, true, nil
		}
		err := w.send(p.data)
		w.flight.pop()
		w.buffers.put(p.data)
		if err != nil {
			return 0, false, err
		}
		w.stats.Passed++
		w.stats.PassedBytes += int64(len(p.data))
		behind := now - p.due
		w.stats.MaxLate = max(w.stats.MaxLate, behind)
		if behind > late {
			w.stats.Late++
		}
	}
	return now, true, nil
}

// block drops what is under way and what comes. Nothing is delivered once it
// has returned.
func (w *way) block() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blocked = true
	w.busyUntil = 0
	for {
		p, ok := w.flight.peek()
		if !ok {
			return
		}
		w.flight.pop()
		w.buffers.put(p.data)
		w.stats.DroppedCut++
	}
}

func (w *way) unblock() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blocked = false
}

func (w *way) snapshot() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.InFlight = int64(w.flight.len)
	return s
}

type packet struct {
	data []byte
	due  time.Duration
}

// ring is a queue that grows and never shrinks.
type ring struct {
	slots     []packet // a power of two, or none
	head, len int
}

func (r *ring) push(p packet) {
	if r.len == len(r.slots) {
		grown := make([]packet, max(1024, 2*len(r.slots)))
		n := copy(grown, r.slots[r.head:])
		copy(grown[n:], r.slots[:r.head])
		r.slots, r.head = grown, 0
	}
	r.slots[(r.head+r.len)&(len(r.slots)-1)] = p
	r.len++
}

func (r *ring) peek() (p packet, ok bool) {
	if r.len == 0 {
		return packet{}, false
	}
	return r.slots[r.head], true
}

func (r *ring) pop() {
	r.slots[r.head] = packet{}
	r.head = (r.head + 1) & (len(r.slots) - 1)
	r.len--
}

const (
	// smallPacket holds an acknowledgement with its options: half of all
	// packets, and they shall not take the room of full ones.
	smallPacket = 128
	// poolChunk is how many buffers are made at a time.
	poolChunk = 64
	// maxPool bounds the memory of one direction, in bytes: a link without a
	// rate holds whatever is sent within its delay.
	maxPool = 256 << 20
)

// pool keeps packet buffers of two sizes, so that a packet costs no allocation.
type pool struct {
	mtu         int
	small, full [][]byte
	made        int // bytes
}

// get returns a buffer for a packet of n bytes, or nil when the pool has given
// out all it may.
func (p *pool) get(n int) []byte {
	size, free := p.mtu, &p.full
	if n <= smallPacket {
		size, free = smallPacket, &p.small
	}
	if len(*free) == 0 {
		if p.made+poolChunk*size > maxPool {
			return nil
		}
		p.made += poolChunk * size
		chunk := make([]byte, poolChunk*size)
		for i := range poolChunk {
			*free = append(*free, chunk[i*size:(i+1)*size:(i+1)*size])
		}
	}
	last := len(*free) - 1
	buf := (*free)[last]
	*free = (*free)[:last]
	return buf[:n]
}

func (p *pool) put(buf []byte) {
	if buf = buf[:cap(buf)]; len(buf) == smallPacket {
		p.small = append(p.small, buf)
	} else {
		p.full = append(p.full, buf)
	}
}
