package carrier

import (
	"bufio"
	cryptorand "crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// readBuffer holds the TLS bytes behind a message's header. Larger reads
	// go straight into the message.
	readBuffer = 4 << 10

	// pongTimeout and closeTimeout bound the writing of control frames.
	pongTimeout  = 20 * time.Second
	closeTimeout = 5 * time.Second

	exporterLabel  = "EXPORTER-Channel-Binding" // RFC 9266
	exporterLength = 32
)

var _ mux.Messages = (*Conn)(nil)

// Conn is one WebSocket connection inside TLS. One goroutine may read while
// another writes; Close and the deadlines may be called from anywhere.
type Conn struct {
	tls    *tls.Conn
	client bool // the client masks what it writes (RFC 6455, 5.3)

	r       *bufio.Reader
	readHdr [ws.MaxHeaderSize]byte
	ended   bool // a close frame was read

	wmu   sync.Mutex // guards writing: messages against pongs and close
	masks *rand.ChaCha8
	head  headerBuffer
	small []byte // reused by WriteMessage

	mu      sync.Mutex // guards the following fields
	writeBy time.Time  // as SetWriteDeadline left it
	ponging bool
	closed  bool
	pongs   sync.WaitGroup
}

func newConn(conn *tls.Conn, r *bufio.Reader, client bool) *Conn {
	c := &Conn{tls: conn, r: r, client: client}
	if client {
		var seed [32]byte
		_, _ = cryptorand.Read(seed[:]) // never fails (crypto/rand)
		c.masks = rand.NewChaCha8(seed)
	}
	return c
}

// ReadMessage reads the next binary message into the space of buf, growing it
// when it is too small, and returns it. The error is io.EOF when the peer
// closed the WebSocket, a *wire.Error when it broke a rule that has a code of
// its own, and otherwise what the connection reported.
func (c *Conn) ReadMessage(buf []byte) ([]byte, error) {
	msg, started := buf[:0], false
	for {
		h, err := c.readHeader()
		if err != nil {
			return nil, err
		}
		if h.OpCode.IsControl() {
			if err := c.control(h); err != nil {
				return nil, err
			}
			continue
		}
		switch {
		case h.OpCode == ws.OpText:
			return nil, &wire.Error{Code: wire.CodeProtocol, What: "text message"}
		case h.OpCode == ws.OpBinary && started, h.OpCode == ws.OpContinuation && !started:
			return nil, &wire.Error{Code: wire.CodeProtocol, What: "WebSocket fragments out of order"}
		}
		started = true
		size := len(msg)
		if h.Length > int64(wire.MaxMessage-size) {
			return nil, &wire.Error{Code: wire.CodeFrameSize, What: fmt.Sprintf("message over %d bytes", wire.MaxMessage)}
		}
		total := size + int(h.Length)
		if total > cap(msg) {
			grown := make([]byte, size, max(total, wire.MaxMessage))
			copy(grown, msg)
			msg = grown
		}
		msg = msg[:total]
		if _, err := io.ReadFull(c.r, msg[size:]); err != nil {
			return nil, unexpected(err)
		}
		if h.Masked {
			ws.Cipher(msg[size:], h.Mask, 0)
		}
		if h.Fin {
			return msg, nil
		}
	}
}

// readHeader reads one frame's header and refuses what no peer of ours sends.
func (c *Conn) readHeader() (ws.Header, error) {
	if c.ended {
		return ws.Header{}, io.EOF
	}
	h, err := ws.ReadHeaderBuffer(c.r, c.readHdr[:])
	switch {
	case errors.Is(err, ws.ErrHeaderLengthMSB), errors.Is(err, ws.ErrHeaderLengthUnexpected):
		return h, c.refuse("WebSocket frame with a malformed length")
	case err != nil:
		return h, err
	case h.Rsv != 0:
		return h, c.refuse("WebSocket frame with a reserved bit")
	case h.Masked == c.client:
		return h, c.refuse("WebSocket frame with the wrong masking")
	case h.OpCode.IsReserved():
		return h, c.refuse("WebSocket frame of a reserved kind")
	case h.OpCode.IsControl() && (!h.Fin || h.Length > ws.MaxControlFramePayloadSize):
		return h, c.refuse("WebSocket control frame in fragments or too long")
	}
	return h, nil
}

// refuse fails the connection as RFC 6455, 7.1.7 asks.
func (c *Conn) refuse(what string) error {
	c.writeClose(ws.NewCloseFrameBody(ws.StatusProtocolError, ""))
	return &wire.Error{Code: wire.CodeProtocol, What: what}
}

func (c *Conn) control(h ws.Header) error {
	var space [ws.MaxControlFramePayloadSize]byte
	payload := space[:h.Length]
	if _, err := io.ReadFull(c.r, payload); err != nil {
		return unexpected(err)
	}
	if h.Masked {
		ws.Cipher(payload, h.Mask, 0)
	}
	switch h.OpCode {
	case ws.OpPing:
		c.pong(payload)
	case ws.OpClose:
		c.ended = true
		c.writeClose(nil)
		return io.EOF
	default: // a pong that nobody asked for
	}
	return nil
}

// pong answers a ping, beside the reader: reading never waits for writing. A
// ping that comes while an answer is on its way has that as its answer
// (RFC 6455, 5.5.3).
func (c *Conn) pong(payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ponging || c.closed {
		return
	}
	c.ponging = true
	payload = append([]byte(nil), payload...)
	c.pongs.Go(func() {
		c.wmu.Lock()
		defer c.wmu.Unlock()
		c.writeControl(ws.OpPong, payload, pongTimeout)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ponging = false
		_ = c.tls.SetWriteDeadline(c.writeBy)
	})
}

// writeClose says goodbye, unless a message is being written: then the
// connection ends without.
func (c *Conn) writeClose(payload []byte) {
	if !c.wmu.TryLock() {
		return
	}
	defer c.wmu.Unlock()
	c.writeControl(ws.OpClose, payload, closeTimeout)
}

// writeControl is called with wmu held.
func (c *Conn) writeControl(op ws.OpCode, payload []byte, timeout time.Duration) {
	buf := make([]byte, mux.Headroom, mux.Headroom+len(payload))
	buf = append(buf, payload...)
	_ = c.tls.SetWriteDeadline(time.Now().Add(timeout))
	_ = c.writeFrame(op, buf) // the connection's own error follows on the next read
}

// WriteMessage sends p as one binary message.
func (c *Conn) WriteMessage(p []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.small = append(c.small[:0], make([]byte, mux.Headroom)...)
	c.small = append(c.small, p...)
	return c.writeFrame(ws.OpBinary, c.small)
}

// WriteReserved sends buf[mux.Headroom:] as one binary message, in one write
// and without copying it: the space before it takes the WebSocket header. It
// scrambles buf, which the caller may use again afterwards.
func (c *Conn) WriteReserved(buf []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.writeFrame(ws.OpBinary, buf)
}

// writeFrame puts the header right in front of the payload, which begins at
// buf[mux.Headroom].
func (c *Conn) writeFrame(op ws.OpCode, buf []byte) error {
	payload := buf[mux.Headroom:]
	h := ws.Header{Fin: true, OpCode: op, Length: int64(len(payload))}
	if c.client {
		h.Masked = true
		mask := c.masks.Uint64()
		h.Mask = [4]byte{byte(mask), byte(mask >> 8), byte(mask >> 16), byte(mask >> 24)}
		ws.Cipher(payload, h.Mask, 0)
	}
	start := mux.Headroom - ws.HeaderSize(h)
	if err := ws.WriteHeaderBuffer(&c.head, h, c.head.scratch[:]); err != nil {
		return err
	}
	copy(buf[start:], c.head.bytes[:c.head.n])
	_, err := c.tls.Write(buf[start:])
	return err
}

// headerBuffer is an io.Writer that holds one frame header.
type headerBuffer struct {
	scratch [ws.MaxHeaderSize]byte
	bytes   [ws.MaxHeaderSize]byte
	n       int
}

func (b *headerBuffer) Write(p []byte) (int, error) {
	b.n = copy(b.bytes[:], p)
	return b.n, nil
}

// Close says goodbye as WebSocket and TLS ask, as far as that takes no
// waiting, and closes the connection. A read or write that is under way
// returns.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.writeClose(ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
	err := c.tls.Close()
	c.pongs.Wait()
	return err
}

// ExportKeyingMaterial returns the 32-byte tls-exporter of this connection
// (RFC 9266), which both ends can compute and nobody between them.
func (c *Conn) ExportKeyingMaterial() ([]byte, error) {
	state := c.tls.ConnectionState()
	out, err := state.ExportKeyingMaterial(exporterLabel, nil, exporterLength)
	if err != nil {
		return nil, fmt.Errorf("tls exporter: %w", err)
	}
	return out, nil
}

// RemoteAddr is the other end's address as this end's network sees it.
func (c *Conn) RemoteAddr() net.Addr { return c.tls.RemoteAddr() }

// SetDeadline bounds reading and writing.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds reading.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.tls.SetReadDeadline(t) }

// SetWriteDeadline bounds writing. A write that was cut off leaves the
// connection unusable.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeBy = t
	return c.tls.SetWriteDeadline(t)
}

// unexpected turns an end inside a frame into what it is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
