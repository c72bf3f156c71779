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
	// Read buffers are small where little comes, and large where much does, or
	// where a chunk needs it.
	smallBuffer = 4 << 10
	bulkBuffer  = 64 << 10
)

var (
	writeBuffers = sync.Pool{New: func() any { return new([writeBuffer]byte) }}
	smallBuffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, smallBuffer)} }}
	bulkBuffers  = sync.Pool{New: func() any { return &buffer{b: make([]byte, bulkBuffer)} }}
)

// buffer is memory for what comes from a server.
type buffer struct{ b []byte }

func newBuffer(bulk bool) *buffer {
	if bulk {
		return bulkBuffers.Get().(*buffer) //nolint:errcheck // the pool has no others
	}
	return smallBuffers.Get().(*buffer) //nolint:errcheck // the pool has no others
}

func (b *buffer) free() {
	if len(b.b) == bulkBuffer {
		bulkBuffers.Put(b)
		return
	}
	smallBuffers.Put(b)
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

	want int  // bytes to read on for
	room int  // that the read under way was given
	bulk bool // the next buffer is a large one
}

// deliver opens what is there into the space: as many chunks as there are and
// as fit. 0 and no error: more has to come.
func (r *reader) deliver(k *Key, space lazy.Space) (int, error) {
	defer r.release()
	if r.plain > 0 {
		return r.copyPlain(space.Take()), nil
	}
	var p []byte
	n := 0
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

// fill reads what there is.
func (r *reader) fill(in lazy.Reader) error {
	n, err := in.ReadLazy(r)
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

// Take implements [lazy.Space]: room behind the bytes that are there, for at
// least those that are wanted.
func (r *reader) Take() []byte {
	switch have := r.end - r.start; {
	case r.buf == nil:
		r.buf = newBuffer(r.bulk || r.want > smallBuffer)
	case r.want > len(r.buf.b):
		large := newBuffer(true)
		copy(large.b, r.buf.b[r.start:r.end])
		r.buf.free()
		r.buf, r.start, r.end = large, 0, have
	case r.start+r.want > len(r.buf.b), r.end == len(r.buf.b):
		copy(r.buf.b, r.buf.b[r.start:r.end])
		r.start, r.end = 0, have
	}
	p := r.buf.b[r.end:]
	r.room = len(p)
	return p
}

// Return implements [lazy.Space].
func (r *reader) Return(bool) { r.release() }

// release gives the buffer back when nothing is in it, or when nothing of it
// will be delivered any more.
func (r *reader) release() {
	if r.buf != nil && (r.start == r.end || r.err != nil && r.plain == 0) {
		r.buf.free()
		r.buf, r.start, r.end = nil, 0, 0
	}
}
