package wslayers_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"testing"

	coder "github.com/coder/websocket"
	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

// gorilla reads with ReadMessage, which returns a message of its own each time,
// or into one buffer.
type gorilla struct {
	outgoing
	unbatched
	conn  *websocket.Conn
	reuse bool
}

func (g *gorilla) send() error { return g.conn.WriteMessage(websocket.BinaryMessage, g.outgoing) }

func (g *gorilla) receive(each func([]byte) error) error {
	buf := make([]byte, len(g.outgoing))
	for {
		msg, err := g.next(buf)
		if err != nil {
			return err
		}
		if err := each(msg); err != nil {
			return err
		}
	}
}

func (g *gorilla) next(buf []byte) ([]byte, error) {
	if !g.reuse {
		_, msg, err := g.conn.ReadMessage()
		return msg, err
	}
	_, r, err := g.conn.NextReader()
	if err != nil {
		return nil, err
	}
	return buf, exactly(r, buf)
}

func (g *gorilla) close() { _ = g.conn.Close() }

// gorillaLayer has buffers of so many bytes for reading and for writing.
func gorillaLayer(name string, buffers int, reuse bool) layer {
	wrap := func(conn *websocket.Conn, size int, err error) (end, error) {
		if err != nil {
			return nil, err
		}
		return &gorilla{outgoing: make(outgoing, size), conn: conn, reuse: reuse}, nil
	}
	return layer{
		name: name,
		accept: func(w http.ResponseWriter, r *http.Request, size int) (end, error) {
			u := websocket.Upgrader{ReadBufferSize: buffers, WriteBufferSize: buffers}
			conn, err := u.Upgrade(w, r, nil)
			return wrap(conn, size, err)
		},
		dial: func(tb testing.TB, address string, trust *tls.Config, size int) (end, error) {
			tb.Helper()
			d := websocket.Dialer{TLSClientConfig: trust, ReadBufferSize: buffers, WriteBufferSize: buffers}
			conn, res, err := d.DialContext(tb.Context(), "wss://"+address+tunnel, nil)
			if res != nil {
				_ = res.Body.Close()
			}
			return wrap(conn, size, err)
		},
	}
}

// gwsEnd has its reader call it: the handler of a connection is there before the
// connection is.
type gwsEnd struct {
	gws.BuiltinEventHandler
	outgoing
	unbatched
	conn *gws.Conn
	each func([]byte) error
	err  error
}

func (g *gwsEnd) send() error { return g.conn.WriteMessage(gws.OpcodeBinary, g.outgoing) }

func (g *gwsEnd) receive(each func([]byte) error) error {
	g.each = each
	g.conn.ReadLoop()
	return g.err
}

// OnMessage is called by ReadLoop.
func (g *gwsEnd) OnMessage(_ *gws.Conn, message *gws.Message) {
	if err := g.each(message.Bytes()); err != nil {
		g.err = err
		g.close()
	}
	_ = message.Close()
}

// OnClose is called by ReadLoop.
func (g *gwsEnd) OnClose(_ *gws.Conn, err error) {
	if g.err == nil {
		g.err = err
	}
}

func (g *gwsEnd) close() { _ = g.conn.NetConn().Close() }

func acceptGWS(w http.ResponseWriter, r *http.Request, size int) (end, error) {
	g := &gwsEnd{outgoing: make(outgoing, size)}
	conn, err := gws.NewUpgrader(g, nil).Upgrade(w, r)
	if err != nil {
		return nil, err
	}
	g.conn = conn
	return g, nil
}

func dialGWS(_ testing.TB, address string, trust *tls.Config, size int) (end, error) {
	g := &gwsEnd{outgoing: make(outgoing, size)}
	conn, res, err := gws.NewClient(g, &gws.ClientOption{Addr: "wss://" + address + tunnel, TlsConfig: trust})
	if res != nil && res.Body != nil {
		_ = res.Body.Close()
	}
	if err != nil {
		return nil, err
	}
	g.conn = conn
	return g, nil
}

// coderEnd has no context to end with: it ends with its connection.
type coderEnd struct {
	outgoing
	unbatched
	conn *coder.Conn
}

func newCoder(conn *coder.Conn, size int, err error) (end, error) {
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(int64(size))
	return &coderEnd{outgoing: make(outgoing, size), conn: conn}, nil
}

func (c *coderEnd) send() error {
	return c.conn.Write(context.Background(), coder.MessageBinary, c.outgoing)
}

func (c *coderEnd) receive(each func([]byte) error) error {
	buf := make([]byte, len(c.outgoing))
	for {
		_, r, err := c.conn.Reader(context.Background())
		if err != nil {
			return err
		}
		if err := exactly(r, buf); err != nil {
			return err
		}
		if err := each(buf); err != nil {
			return err
		}
	}
}

func (c *coderEnd) close() { _ = c.conn.CloseNow() }

func acceptCoder(w http.ResponseWriter, r *http.Request, size int) (end, error) {
	conn, err := coder.Accept(w, r, nil)
	return newCoder(conn, size, err)
}

func dialCoder(tb testing.TB, address string, trust *tls.Config, size int) (end, error) {
	tb.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	conn, _, err := coder.Dial(tb.Context(), "wss://"+address+tunnel, &coder.DialOptions{HTTPClient: client}) //nolint:bodyclose // the connection's
	return newCoder(conn, size, err)
}

// exactly fills buf with a message and expects its end behind it.
func exactly(r io.Reader, buf []byte) error {
	if _, err := io.ReadFull(r, buf); err != nil {
		return err
	}
	var more [1]byte
	if n, err := r.Read(more[:]); n != 0 || !errors.Is(err, io.EOF) {
		return errors.New("the message has more")
	}
	return nil
}
