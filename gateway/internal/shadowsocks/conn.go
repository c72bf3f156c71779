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
	held  held

	mu       sync.Mutex // guards the following fields
	out      sender
	salt     [32]byte // of this end's direction
	seal     cipher.AEAD
	nonce    nonce // of what is to be sent next
	at       nonce // of the chunk that is sealed, and its length; here, so that they cost nothing
	length   [2]byte
	sent     bool  // the salt and the address
	writeErr error // ends all writing
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
	c := &Conn{stream: stream, in: lazy.NewReader(stream), key: k, target: target, held: held{tell: k.Held}}
	c.read.held = &c.held
	if err := c.begin(); err != nil {
		return nil, err
	}
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
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, c.writeErr
}

// begin makes the salt and the cipher of this end's direction.
func (c *Conn) begin() error {
	salt := c.salt[:c.key.suite.size]
	c.key.newSalt(salt, c.key.prefix)
	aead, err := c.key.session(salt)
	if err != nil {
		return err
	}
	c.seal, c.out = aead, newSender(c.stream)
	c.key.streams.add(salt) // so that it is no answer when it comes back
	return nil
}

// writeSome sends as much of p as one write takes, and before it whatever has to
// be. Called with mu held.
func (c *Conn) writeSome(p []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	if !c.sent {
		c.first.Stop()
	}
	n, err := c.out.send(c, p)
	c.writeErr = err // the nonces of what was not sent are gone
	return n, err
}

// sealSome appends what one write sends of p, and before it whatever has to be. It
// changes nothing: what could not be sent is sealed again, to the same bytes, when it
// can. pieces are told how long each of the parts is, sealed and plain.
func (c *Conn) sealSome(out, p []byte, pieces []piece) ([]byte, []piece) {
	c.at = c.nonce
	if !c.sent {
		before := len(out)
		var n int
		out, n = c.sealFirst(out, p)
		pieces = append(pieces, piece{sealed: len(out) - before, plain: n})
		p = p[n:]
	}
	for len(p) > 0 {
		size := min(len(p), MaxPayload) // wherever it lies: a piece is always the same
		if len(out)+size+lengthSize+tagSize > cap(out) {
			break
		}
		out = c.sealChunk(out, p[:size])
		pieces = append(pieces, piece{sealed: size + lengthSize + tagSize, plain: size})
		p = p[size:]
	}
	return out, pieces
}

// piece is a part of what is sent: a chunk, with the salt before it if it is the first.
type piece struct{ sealed, plain int }

// passed takes down that a piece has been sent.
func (c *Conn) passed() {
	c.sent = true
	c.nonce.next() // of its length
	c.nonce.next()
}

// sealFirst appends the salt and the chunk with the address and the first bytes
// of p, and tells how many these are.
func (c *Conn) sealFirst(out, p []byte) ([]byte, int) {
	out = append(out, c.salt[:c.key.suite.size]...)
	// Put together where it is to be sealed.
	body := wire.AppendAddr(out[len(out):len(out)+lengthSize], c.target)[lengthSize:]
	n := min(len(p), MaxPayload-len(body))
	body = append(body, p[:n]...)
	return c.sealChunk(out, body), n
}

// sealChunk appends a chunk with payload, which may lie where it belongs.
func (c *Conn) sealChunk(out, payload []byte) []byte {
	binary.BigEndian.PutUint16(c.length[:], uint16(len(payload)))
	out = c.seal.Seal(out, c.at[:], c.length[:], nil)
	c.at.next()
	out = c.seal.Seal(out, c.at[:], payload, nil)
	c.at.next()
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
	c.held.end()
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
		if err := c.read.fill(c.in, space); err != nil {
			return 0, err
		}
	}
}
