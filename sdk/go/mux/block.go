package mux

import "sync"

// blockHeadroom is the space before a block's bytes that a message in place
// needs: the carrier's header and the longest frame header.
const blockHeadroom = 32

// The sizes of blocks in bytes, headroom included: for a keystroke, a small
// page, one full frame, and four full frames. They are sizes that Go's
// allocator has without loss.
var blockSizes = [...]int{2 << 10, 8 << 10, 18 << 10, 64 << 10}

const (
	smallBlock  = 0
	frameBlock  = 2
	bulkBlock   = 3
	numBlocks   = len(blockSizes)
	bulkPayload = 64<<10 - blockHeadroom
)

var blockPools [numBlocks]sync.Pool

// block is a piece of a stream's bytes on their way. Blocks are pooled: an
// idle stream holds none.
type block struct {
	next       *block
	class      int
	start, end int    // the bytes are buf[start:end]
	buf        []byte // of the class's size
}

func newBlock(class int) *block {
	b, ok := blockPools[class].Get().(*block)
	if !ok {
		b = &block{class: class, buf: make([]byte, blockSizes[class])}
	}
	b.next, b.start, b.end = nil, blockHeadroom, blockHeadroom
	return b
}

// blockFor returns a block for n bytes, or one of the largest size.
func blockFor(n int) *block { return newBlock(classFor(n)) }

// classFor is the smallest class that holds n bytes, or the largest.
func classFor(n int) int {
	for class, size := range blockSizes {
		if n <= size-blockHeadroom {
			return class
		}
	}
	return bulkBlock
}

// classWithin is the largest class that takes no more than n bytes, or the
// smallest.
func classWithin(n int) int {
	class := smallBlock
	for class < bulkBlock && blockSizes[class+1] <= n {
		class++
	}
	return class
}

func (b *block) bytes() []byte { return b.buf[b.start:b.end] }
func (b *block) room() []byte  { return b.buf[b.end:] }
func (b *block) size() int     { return b.end - b.start }

func (b *block) free() { blockPools[b.class].Put(b) }

// queue is a stream's bytes in order. Pieces are put together where their blocks
// have much room left, so however they came, it holds little more memory than bytes:
// those are what was set aside for them.
type queue struct {
	head, tail *block
	size       int // bytes
	held       int // memory of the blocks
}

// write appends a copy of p.
func (q *queue) write(p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		if q.tail == nil || len(q.tail.room()) == 0 {
			q.link(blockFor(len(p)))
		}
		n := copy(q.tail.room(), p)
		q.tail.end += n
		p = p[n:]
	}
}

// push appends b and owns it from now on, or copies what is in it where that would
// leave too much room unused.
func (q *queue) push(b *block) {
	if q.wastes(b) {
		q.write(b.bytes())
		b.free()
		return
	}
	q.size += b.size()
	q.link(b)
}

// wastes reports whether b should not be held as it is: one that is mostly empty,
// or any when others wait and more than an eighth of all would be room. The first
// one is about to be read, and only copied when that costs nothing.
func (q *queue) wastes(b *block) bool {
	n := b.size()
	if q.tail == nil {
		return n < len(b.buf)/8
	}
	return n < len(b.buf)/2 || q.held+len(b.buf) > (q.size+n)/7*8
}

func (q *queue) link(b *block) {
	q.held += len(b.buf)
	if q.tail == nil {
		q.head = b
	} else {
		q.tail.next = b
	}
	q.tail = b
}

// pop takes the first block off; the caller frees it. Nil when empty.
func (q *queue) pop() *block {
	b := q.head
	if b == nil {
		return nil
	}
	if q.head = b.next; q.head == nil {
		q.tail = nil
	}
	b.next = nil
	q.size -= b.size()
	q.held -= len(b.buf)
	return b
}

// read moves up to len(p) bytes to p.
func (q *queue) read(p []byte) int {
	n := 0
	for n < len(p) && q.head != nil {
		b := q.head
		m := copy(p[n:], b.bytes())
		b.start += m
		n += m
		q.size -= m
		if b.start == b.end {
			q.pop().free()
		}
	}
	return n
}

func (q *queue) drop() {
	for b := q.pop(); b != nil; b = q.pop() {
		b.free()
	}
}
