package carrier

import (
	"bufio"
	"bytes"
	cryptorand "crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// readBuffer holds what comes behind a message's header, before it is known
	// how much that is. Larger reads go straight into the message.
	readBuffer = 128

	// handshakeBuffer is what a client reads the answer to its upgrade with.
	handshakeBuffer = 4 << 10

	// pongTimeout and closeTimeout bound the writing of control frames.
	pongTimeout  = 20 * time.Second
	closeTimeout = time.Second

	exporterLabel  = "EXPORTER-Channel-Binding" // RFC 9266
	exporterLength = 32
)

var _ mux.Messages = (*Conn)(nil)

// Conn is one WebSocket connection inside TLS. One goroutine may read while
// another writes; Close and the deadlines may be called from anywhere.
type Conn struct {
	tls    *tls.Conn
	socket *socket // below tls; nil when whoever made tls put none there
	client bool    // the client masks what it writes (RFC 6455, 5.3)

	r       *bufio.Reader
	readHdr [ws.MaxHeaderSize]byte
	ended   bool      // a close frame was read
	frame   ws.Header // the frame that is being read
	left    int       // bytes of it
	whole   []byte    // a message that came in fragments, what is left of it
	idle    flood     // frames that carry nothing
	wait    func()    // see BeforeWait

	wmu   sync.Mutex // guards writing: messages against pongs and close
	masks *rand.ChaCha8
	head  headerBuffer

	mu      sync.Mutex // guards the following fields
	writeBy time.Time  // as SetWriteDeadline left it
	ponging bool
	closed  bool
	pongs   sync.WaitGroup
}

func newConn(conn *tls.Conn, r *bufio.Reader, client bool) *Conn {
	c := &Conn{tls: conn, client: client}
	c.socket, _ = conn.NetConn().(*socket)
	// The buffer of the upgrade is large. What it holds already comes first.
	rest, _ := r.Peek(r.Buffered())
	c.r = bufio.NewReaderSize(conn, readBuffer)
	if len(rest) > 0 {
		c.r.Reset(io.MultiReader(bytes.NewReader(bytes.Clone(rest)), conn))
	}
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
	size, err := c.Next()
	if err != nil {
		return nil, err
	}
	if size > cap(buf) {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	return buf, c.ReadFull(buf)
}

// BeforeWait has f called before Next or ReadFull wait for the network. Where
// the carrier cannot tell, f is called before each message.
func (c *Conn) BeforeWait(f func()) {
	if c.socket != nil {
		c.socket.wait = f
		return
	}
	c.wait = f
}

// Next begins the next binary message and returns its size. Errors are those of
// ReadMessage.
func (c *Conn) Next() (int, error) {
	if c.wait != nil {
		c.wait()
	}
	if err := c.nextData(ws.OpBinary); err != nil {
		return 0, err
	}
	if c.frame.Fin {
		return c.left, nil
	}
	return c.gather()
}

// gather reads a message in fragments, which nobody sends without need.
func (c *Conn) gather() (int, error) {
	var msg []byte
	for {
		start := len(msg)
		msg = slices.Grow(msg, c.left)[:start+c.left]
		if err := c.ReadFull(msg[start:]); err != nil {
			return 0, err
		}
		if c.frame.Fin {
			c.whole = msg
			return len(msg), nil
		}
		if err := c.nextData(ws.OpContinuation); err != nil {
			return 0, err
		}
		if c.left > wire.MaxMessage-len(msg) {
			return 0, errMessageSize()
		}
	}
}

func errMessageSize() error {
	return &wire.Error{Code: wire.CodeFrameSize, What: fmt.Sprintf("message over %d bytes", wire.MaxMessage)}
}

// nextData reads up to the next frame with data, which has to be of this kind.
func (c *Conn) nextData(kind ws.OpCode) error {
	for {
		h, err := c.readHeader()
		if err == nil && (h.OpCode.IsControl() || h.Length == 0) {
			err = c.idle.pass()
		}
		switch {
		case err != nil:
			return err
		case h.OpCode.IsControl():
			if err := c.control(h); err != nil {
				return err
			}
			continue
		case h.OpCode == ws.OpText:
			return &wire.Error{Code: wire.CodeProtocol, What: "text message"}
		case h.OpCode != kind:
			return &wire.Error{Code: wire.CodeProtocol, What: "WebSocket fragments out of order"}
		case h.Length > wire.MaxMessage:
			return errMessageSize()
		}
		c.frame, c.left = h, int(h.Length)
		return nil
	}
}

// ReadFull fills p with the next bytes of the message that Next began.
func (c *Conn) ReadFull(p []byte) error {
	if c.whole != nil {
		n := copy(p, c.whole)
		if c.whole = c.whole[n:]; len(c.whole) == 0 {
			c.whole = nil
		}
		p = p[n:]
	}
	if len(p) == 0 {
		return nil
	}
	if len(p) > c.left {
		return io.ErrUnexpectedEOF // the caller asks for more than the message has
	}
	if _, err := io.ReadFull(c.r, p); err != nil {
		return unexpected(err)
	}
	if c.frame.Masked {
		ws.Cipher(p, c.frame.Mask, int(c.frame.Length)-c.left)
	}
	c.left -= len(p)
	return nil
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
	_ = c.flush()
}

// WriteMessage sends p as one binary message.
func (c *Conn) WriteMessage(p []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	buf := append(make([]byte, mux.Headroom, mux.Headroom+len(p)), p...)
	if err := c.writeFrame(ws.OpBinary, buf); err != nil {
		return err
	}
	return c.flush()
}

// WriteReserved sends buf[mux.Headroom:] as one binary message: the space before
// it takes the WebSocket header. It is sent with Flush, or before that when much
// is held back. The message itself is left as it is.
func (c *Conn) WriteReserved(buf []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.writeFrame(ws.OpBinary, buf)
}

// Flush sends what WriteReserved held back, in one write.
func (c *Conn) Flush() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.flush()
}

func (c *Conn) flush() error {
	if c.socket == nil {
		return nil
	}
	return c.socket.flush()
}

// writeFrame puts the header right in front of the payload, which begins at
// buf[mux.Headroom]. The client masks a copy: what is sent may have to be sent again.
func (c *Conn) writeFrame(op ws.OpCode, buf []byte) error {
	payload := buf[mux.Headroom:]
	h := ws.Header{Fin: true, OpCode: op, Length: int64(len(payload))}
	if c.client {
		h.Masked = true
		mask := c.masks.Uint64()
		h.Mask = [4]byte{byte(mask), byte(mask >> 8), byte(mask >> 16), byte(mask >> 24)}
	}
	start := mux.Headroom - ws.HeaderSize(h)
	if err := ws.WriteHeaderBuffer(&c.head, h, c.head.scratch[:]); err != nil {
		return err
	}
	if c.socket != nil {
		c.socket.hold()
	}
	if !c.client {
		copy(buf[start:], c.head.bytes[:c.head.n])
		_, err := c.tls.Write(buf[start:])
		return err
	}
	m, _ := maskedPool.Get().(*masked)
	defer maskedPool.Put(m)
	if need := c.head.n + len(payload); need > len(m.frame) {
		m.frame = make([]byte, need)
	}
	out := m.frame[:c.head.n+len(payload)]
	copy(out, c.head.bytes[:c.head.n])
	m.pattern.xor(out[c.head.n:], payload, h.Mask)
	_, err := c.tls.Write(out)
	return err
}

// masked is the space for a frame that is masked.
type masked struct {
	pattern pattern
	frame   []byte
}

var maskedPool = sync.Pool{New: func() any { return &masked{frame: make([]byte, 16<<10)} }}

// pattern is a mask, repeated.
type pattern [512]byte

// xor sets dst to src under a mask.
func (p *pattern) xor(dst, src []byte, mask [4]byte) {
	used := min(len(src), len(p))
	for n := copy(p[:], mask[:]); n < used; n *= 2 {
		copy(p[n:], p[:n])
	}
	for len(src) > 0 {
		n := subtle.XORBytes(dst, src, p[:min(len(src), len(p))])
		dst, src = dst[n:], src[n:]
	}
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
	var err error
	if c.wmu.TryLock() {
		c.writeControl(ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""), closeTimeout)
		err = c.tls.Close()
		c.wmu.Unlock()
	} else { // a write is under way: it gets no further
		err = c.tls.NetConn().Close()
	}
	c.pongs.Wait()
	return err
}

// Abort closes the connection without a goodbye and without waiting: what the
// system has not sent yet is lost, and the other end sees a reset.
func (c *Conn) Abort() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	conn := c.tls.NetConn()
	below := conn
	if c.socket != nil {
		below = c.socket.Conn
	}
	if tcp, ok := below.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	return conn.Close()
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
