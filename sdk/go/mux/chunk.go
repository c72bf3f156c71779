package mux

import (
	"sync"

	"github.com/httvps/httvps/sdk/go/wire"
)

// chunkSize is what one chunk holds: the payload of one full DATA frame.
const chunkSize = wire.DataPayload

// chunk is a piece of a stream's bytes on their way. Chunks are pooled: an
// idle stream holds none.
type chunk struct {
	next       *chunk
	start, end int
	data       [chunkSize]byte
}

var chunkPool = sync.Pool{New: func() any { return new(chunk) }}

func newChunk() *chunk {
	c, _ := chunkPool.Get().(*chunk)
	c.next, c.start, c.end = nil, 0, 0
	return c
}

func (c *chunk) bytes() []byte { return c.data[c.start:c.end] }

func (c *chunk) free() { chunkPool.Put(c) }

// queue is a stream's bytes in order. Small pieces are put together, so it
// never holds more memory than twice its bytes plus one chunk, however they
// came.
type queue struct {
	head, tail *chunk
	size       int // bytes
}

// write appends a copy of p.
func (q *queue) write(p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		if q.tail == nil || q.tail.end == chunkSize {
			q.link(newChunk())
		}
		n := copy(q.tail.data[q.tail.end:], p)
		q.tail.end += n
		p = p[n:]
	}
}

// push appends c and owns it from now on. A chunk that is mostly empty is
// copied instead, which keeps the promise above.
func (q *queue) push(c *chunk) {
	if p := c.bytes(); len(p) < chunkSize/2 {
		q.write(p)
		c.free()
		return
	}
	q.size += c.end - c.start
	q.link(c)
}

func (q *queue) link(c *chunk) {
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

// pop takes the first chunk off; the caller frees it. Nil when empty.
func (q *queue) pop() *chunk {
	c := q.head
	if c == nil {
		return nil
	}
	if q.head = c.next; q.head == nil {
		q.tail = nil
	}
	c.next = nil
	q.size -= c.end - c.start
	return c
}

// read moves up to len(p) bytes to p.
func (q *queue) read(p []byte) int {
	n := 0
	for n < len(p) && q.head != nil {
		c := q.head
		m := copy(p[n:], c.bytes())
		c.start += m
		n += m
		q.size -= m
		if c.start == c.end {
			q.pop().free()
		}
	}
	return n
}

func (q *queue) drop() {
	for c := q.pop(); c != nil; c = q.pop() {
		c.free()
	}
}
