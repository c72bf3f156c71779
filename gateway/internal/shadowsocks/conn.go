package shadowsocks

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// MaxPayload is the longest payload of a chunk in bytes.
	MaxPayload = 0x3FFF
	lengthSize = 2 + tagSize

	// firstWait is for how long the address waits for the first bytes, to leave
	// with them. Behind it are targets that speak first.
	firstWait = 10 * time.Millisecond
)

// Stream is a connection to a server. Its directions end separately.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Conn is a connection to a target behind a server. One goroutine may read and
// one write at a time; everything else may be called at any time.
type Conn struct {
	stream Stream
	in     lazy.Reader
	key    *Key
	target wire.Addr

	read  reader
	given given // by the Read under way

	mu       sync.Mutex // guards the following fields
	seal     cipher.AEAD
	nonce    nonce
	length   [2]byte // of the chunk that is sealed; here, so that it costs nothing
	sent     bool    // the salt and the address
	writeErr error   // ends all writing
	first    *time.Timer
}

// Client returns a connection to target over one to the server, which it owns
// from then on. The address leaves with the first bytes that are written, and
// after some milliseconds without any. An error is target's, or that of a
// cipher, which has none.
func (k *Key) Client(stream Stream, target wire.Addr) (*Conn, error) {
	if err := target.Check(); err != nil {
		return nil, err
	}
	c := &Conn{stream: stream, in: lazy.NewReader(stream), key: k, target: target}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = time.AfterFunc(firstWait, func() { _, _ = c.Write(nil) }) // an error shows at the next Write
	return c, nil
}

// Write sends p. The error is final.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for !c.sent || len(p) > 0 {
		n, err := c.writeSome(p)
		if err != nil {
			return total, err
		}
		total += n
		p = p[n:]
	}
	return total, c.writeErr
}

// writeSome sends as much of p as one write takes, and before it whatever has to
// be. Called with mu held.
func (c *Conn) writeSome(p []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	buf := writeBuffers.Get().(*[writeBuffer]byte) //nolint:errcheck // the pool has no others
	defer writeBuffers.Put(buf)
	out, n := buf[:0], 0
	if !c.sent {
		var err error
		if out, n, err = c.sealFirst(out, p); err != nil {
			c.writeErr = err
			return 0, err
		}
		c.sent = true
		c.first.Stop()
	}
	for n < len(p) && len(out)+lengthSize+tagSize < len(buf) {
		size := min(len(p)-n, MaxPayload, len(buf)-len(out)-lengthSize-tagSize)
		out = c.sealChunk(out, p[n:n+size])
		n += size
	}
	if _, err := c.stream.Write(out); err != nil {
		c.writeErr = err // the nonces of what was not sent are gone
		return 0, err
	}
	return n, nil
}

// sealFirst appends the salt and the chunk with the address and the first bytes
// of p, and tells how many these are.
func (c *Conn) sealFirst(out, p []byte) ([]byte, int, error) {
	salt := out[:c.key.suite.size]
	c.key.newSalt(salt, c.key.prefix)
	aead, err := c.key.session(salt)
	if err != nil {
		return nil, 0, err
	}
	c.seal = aead
	c.key.streams.add(salt) // so that it is no answer when it comes back
	out = out[:len(salt)]

	// Put together where it is to be sealed.
	body := wire.AppendAddr(out[len(out):len(out)+lengthSize], c.target)[lengthSize:]
	n := min(len(p), MaxPayload-len(body))
	body = append(body, p[:n]...)
	return c.sealChunk(out, body), n, nil
}

// sealChunk appends a chunk with payload, which may lie where it belongs.
func (c *Conn) sealChunk(out, payload []byte) []byte {
	binary.BigEndian.PutUint16(c.length[:], uint16(len(payload)))
	out = c.seal.Seal(out, c.nonce[:], c.length[:], nil)
	c.nonce.next()
	out = c.seal.Seal(out, c.nonce[:], payload, nil)
	c.nonce.next()
	return out
}

// CloseWrite tells the server, and it the target, that no more bytes will come.
// The address is sent before, if it was not yet.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.sent {
		if _, err := c.writeSome(nil); err != nil {
			return err
		}
	}
	if c.writeErr != nil {
		return c.writeErr
	}
	c.writeErr = net.ErrClosed
	return c.stream.CloseWrite()
}

// CloseRead ends reading, where the connection to the server can do that.
func (c *Conn) CloseRead() error {
	if half, ok := c.stream.(interface{ CloseRead() error }); ok {
		return half.CloseRead()
	}
	return fmt.Errorf("close reading: %w", errors.ErrUnsupported)
}

// Close ends both directions and unblocks whoever waits.
func (c *Conn) Close() error {
	err := c.stream.Close() // first: a Write that holds the lock ends by it
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first.Stop()
	if c.writeErr == nil {
		c.writeErr = net.ErrClosed
	}
	return err
}

// SetLinger says what Close does with what was not sent; 0 makes it a reset.
func (c *Conn) SetLinger(seconds int) error {
	if tcp, ok := c.stream.(interface{ SetLinger(seconds int) error }); ok {
		return tcp.SetLinger(seconds)
	}
	return fmt.Errorf("linger: %w", errors.ErrUnsupported)
}

// LocalAddr is this end of the connection to the server.
func (c *Conn) LocalAddr() net.Addr { return c.stream.LocalAddr() }

// RemoteAddr is the server's.
func (c *Conn) RemoteAddr() net.Addr { return c.stream.RemoteAddr() }

// SetDeadline bounds reading and writing. A Write that meets its deadline is the
// last one; a Read may be repeated.
func (c *Conn) SetDeadline(t time.Time) error { return c.stream.SetDeadline(t) }

// SetReadDeadline bounds reading.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.stream.SetReadDeadline(t) }

// SetWriteDeadline bounds writing.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.stream.SetWriteDeadline(t) }

// Read reads what the target sent. io.EOF says that the server ended the
// connection between two chunks, which is all the protocol has for an end.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.given = p
	defer func() { c.given = nil }()
	return c.ReadLazy(&c.given)
}

// given is the space of a Read.
type given []byte

// Take implements [lazy.Space].
func (g *given) Take() []byte { return *g }

// Return implements [lazy.Space].
func (g *given) Return(bool) {}

// ReadLazy implements [lazy.Reader]: a connection that waits holds no memory.
func (c *Conn) ReadLazy(space lazy.Space) (int, error) {
	for {
		if n, err := c.read.deliver(c.key, space); n > 0 || err != nil {
			return n, err
		}
		if err := c.read.fill(c.in); err != nil {
			return 0, err
		}
	}
}
