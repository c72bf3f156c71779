package shadowsocks

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/httvps/httvps/sdk/go/lazy"
)

const (
	// writeBuffer takes a block of the tunnel, 64 KiB, with what encryption adds.
	writeBuffer = 72 << 10
	smallBuffer = 4 << 10
)

// bufferSizes are those of read buffers: for where little comes, for any chunk, and
// for where much comes.
var bufferSizes = [...]int{smallBuffer, 18 << 10, 64 << 10}

var (
	writeBuffers = sync.Pool{New: func() any { return new([writeBuffer]byte) }}
	readBuffers  [len(bufferSizes)]sync.Pool
)

// buffer is memory for what comes from a server.
type buffer struct {
	class int
	b     []byte
}

// classFor is the smallest class of buffers that hold n bytes, or the largest.
func classFor(n int) int {
	for class, size := range bufferSizes {
		if n <= size {
			return class
		}
	}
	return len(bufferSizes) - 1
}

func newBuffer(class int) *buffer {
	if b, ok := readBuffers[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{class: class, b: make([]byte, bufferSizes[class])}
}

func (b *buffer) free() { readBuffers[b.class].Put(b) }

// held is the memory that one connection holds.
type held struct {
	tell func(n int) // nil: nobody is told

	mu    sync.Mutex // guards the following fields
	size  int
	ended bool
}

// add tells of n bytes more, or less.
func (h *held) add(n int) {
	if h == nil || h.tell == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended { // what is read behind the end is nobody's for long
		h.size += n
		h.tell(n)
	}
}

// end tells that nothing is held any more. Nobody reads what is left.
func (h *held) end() {
	if h.tell == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.ended = true
		h.tell(-h.size)
	}
}

// reader takes the server's direction apart. It holds a buffer only while there
// are bytes that it has not delivered.
type reader struct {
	salt   [32]byte
	open   cipher.AEAD // of the salt; nil: it has not come
	proven bool        // a tag was right
	nonce  nonce
	length int   // of the payload that is next; 0: not known
	err    error // that ended it

	// What came and is not delivered is buf.b[start:end]. The first plain bytes of
	// it are the rest of an opened payload, and behind them is its tag.
	buf               *buffer
	start, end, plain int

	want  int        // bytes to read on for
	space lazy.Space // what the read under way is for
	room  int        // that it was given
	bulk  bool       // the next buffer is as large as what it may bring

	held *held // of buffers
}

// deliver opens what is there into the space: as many chunks as there are and
// as fit. 0 and no error: more has to come.
func (r *reader) deliver(k *Key, space lazy.Space) (n int, err error) {
	defer func() {
		r.release()
		if n > 0 {
			r.shrink() // nobody knows when there is room for the rest
		}
	}()
	if r.plain > 0 {
		return r.copyPlain(space.Take()), nil
	}
	var p []byte
	for r.err == nil {
		size := r.next(k)
		if size == 0 || n > 0 && size > len(p)-n {
			break
		}
		if p == nil {
			p = space.Take()
		}
		sealed := r.buf.b[r.start : r.start+size+tagSize]
		fits := size <= len(p)-n
		into := sealed[:0]
		if fits {
			into = p[n:n]
		}
		if _, err := r.open.Open(into, r.nonce[:], sealed, nil); err != nil {
			r.err = ErrTag
			break
		}
		r.nonce.next()
		r.length = 0
		if !fits {
			r.plain = size
			return r.copyPlain(p), nil
		}
		n += size
		r.start += len(sealed)
	}
	if n > 0 {
		return n, nil // an error is told when this was read
	}
	if p != nil {
		space.Return(false)
	}
	return 0, r.err
}

// copyPlain delivers of the rest of a payload.
func (r *reader) copyPlain(p []byte) int {
	n := copy(p, r.buf.b[r.start:r.start+r.plain])
	r.start += n
	if r.plain -= n; r.plain == 0 {
		r.start += tagSize
	}
	return n
}

// next returns the size of the next payload when all of it is there, and 0 when
// more has to come or something is wrong.
func (r *reader) next(k *Key) int {
	if r.open == nil {
		if !r.has(k.suite.size) {
			return 0
		}
		r.start += copy(r.salt[:k.suite.size], r.buf.b[r.start:r.end])
		if r.open, r.err = k.session(r.salt[:k.suite.size]); r.err != nil {
			return 0
		}
	}
	if r.length == 0 {
		if !r.has(lengthSize) {
			return 0
		}
		sealed := r.buf.b[r.start : r.start+lengthSize]
		plain, err := r.open.Open(sealed[:0], r.nonce[:], sealed, nil)
		if err != nil {
			r.err = ErrTag
			return 0
		}
		if !r.proven && !k.streams.add(r.salt[:k.suite.size]) { // after a tag: others cannot fill the memory
			r.err = ErrReplay
			return 0
		}
		r.proven = true
		r.nonce.next()
		r.start += lengthSize
		r.length = int(binary.BigEndian.Uint16(plain))
		if r.length == 0 || r.length > MaxPayload {
			r.err = ErrFormat
			return 0
		}
	}
	if !r.has(r.length + tagSize) {
		return 0
	}
	return r.length
}

// has reports whether n bytes are there, and otherwise reads on for them.
func (r *reader) has(n int) bool {
	r.want = n
	return r.end-r.start >= n
}

// fill reads what there is, and no more than there is space for.
func (r *reader) fill(in lazy.Reader, space lazy.Space) error {
	r.space = space
	n, err := in.ReadLazy(r)
	r.space = nil
	r.end += n
	r.bulk = n > 0 && n == r.room || r.bulk && n >= smallBuffer
	if n > 0 || err == nil {
		return nil // an error that came with bytes comes again
	}
	if errors.Is(err, io.EOF) {
		r.err = r.atEnd()
		err = r.err
	}
	r.release()
	return err
}

// atEnd is what the end of the connection means here.
func (r *reader) atEnd() error {
	switch {
	case r.open == nil && r.start == r.end:
		return ErrNoAnswer
	case !r.proven, r.start != r.end, r.length > 0:
		return ErrCut
	default:
		return io.EOF
	}
}

// Take implements [lazy.Space]: room behind the bytes that are there. It is for what
// the reader's own space takes, so that little waits here for more of that, and for at
// least the bytes that are wanted.
func (r *reader) Take() []byte {
	most := max(len(r.space.Take())+lengthSize+tagSize, r.want)
	r.space.Return(false)
	size := r.want
	if r.bulk {
		size = most
	}
	switch have := r.end - r.start; {
	case r.buf == nil, classFor(size) > r.buf.class:
		r.move(classFor(size))
	case r.start+r.want > len(r.buf.b), r.end == len(r.buf.b):
		copy(r.buf.b, r.buf.b[r.start:r.end])
		r.start, r.end = 0, have
	}
	p := r.buf.b[r.end:min(r.start+most, len(r.buf.b))]
	r.room = len(p)
	return p
}

// move moves what is there to a buffer of another class.
func (r *reader) move(class int) {
	buf := newBuffer(class)
	have := 0
	if r.buf != nil {
		have = copy(buf.b, r.buf.b[r.start:r.end])
	}
	r.held.add(len(buf.b))
	r.drop()
	r.buf, r.end = buf, have
}

// shrink moves what is there to a buffer that is no larger than that needs.
func (r *reader) shrink() {
	if r.buf == nil {
		return
	}
	if class := classFor(r.end - r.start); class < r.buf.class {
		r.move(class)
	}
}

// drop gives the buffer back.
func (r *reader) drop() {
	if r.buf != nil {
		r.held.add(-len(r.buf.b))
		r.buf.free()
	}
	r.buf, r.start, r.end = nil, 0, 0
}

// Return implements [lazy.Space].
func (r *reader) Return(bool) { r.release() }

// release gives the buffer back when nothing is in it, or when nothing of it
// will be delivered any more.
func (r *reader) release() {
	if r.start == r.end || r.err != nil && r.plain == 0 {
		r.drop()
	}
}
