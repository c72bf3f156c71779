package wslayers_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
)

// bare is TLS alone: what the layers add to. Its messages are nothing but a
// number of bytes.
type bare struct {
	outgoing
	unbatched
	conn *tls.Conn
}

func newBare(conn *tls.Conn, size int) *bare {
	return &bare{outgoing: make(outgoing, size), conn: conn}
}

func (b *bare) send() error {
	_, err := b.conn.Write(b.outgoing)
	return err
}

func (b *bare) receive(each func([]byte) error) error {
	buf := make([]byte, len(b.outgoing))
	for {
		if _, err := io.ReadFull(b.conn, buf); err != nil {
			return err
		}
		if err := each(buf); err != nil {
			return err
		}
	}
}

func (b *bare) close() { _ = b.conn.Close() }

// request makes the server hand its connection over, without an answer.
const request = "GET " + tunnel + " HTTP/1.1\r\nHost: example.com\r\n\r\n"

func acceptBare(w http.ResponseWriter, _ *http.Request, size int) (end, error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	return newBare(conn.(*tls.Conn), size), nil
}

func dialBare(_ testing.TB, address string, trust *tls.Config, size int) (end, error) {
	conn, err := tls.Dial("tcp", address, trust)
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(conn, request)
	return newBare(conn, size), err
}

// held is TLS alone whose records leave in one write for each batch.
type held struct {
	*bare
	below *holding
}

func newHeld(conn *tls.Conn, size int) *held {
	below := conn.NetConn().(*holding)
	below.buf = make([]byte, 0, batch+batch/4)
	return &held{newBare(conn, size), below}
}

func (h *held) flush() error { return h.below.flush() }

func acceptHeld(w http.ResponseWriter, _ *http.Request, size int) (end, error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	return newHeld(conn.(*tls.Conn), size), nil
}

func dialHeld(_ testing.TB, address string, trust *tls.Config, size int) (end, error) {
	raw, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(&holding{Conn: raw}, trust)
	_, err = io.WriteString(conn, request)
	return newHeld(conn, size), err
}

// holding is a connection below TLS that holds writes back once it has a buffer.
// Whoever writes to it flushes it.
type holding struct {
	net.Conn
	buf []byte
}

func (h *holding) Write(p []byte) (int, error) {
	if h.buf == nil {
		return h.Conn.Write(p)
	}
	h.buf = append(h.buf, p...)
	return len(p), nil
}

func (h *holding) flush() error {
	_, err := h.Conn.Write(h.buf)
	h.buf = h.buf[:0]
	return err
}

// holdingListener accepts connections that can hold back.
type holdingListener struct{ net.Listener }

func (l holdingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &holding{Conn: conn}, nil
}
