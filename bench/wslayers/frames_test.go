package wslayers_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"

	"github.com/gobwas/ws"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// frames is what a program writes with the frame functions of gobwas/ws: header
// and payload go into one buffer and leave in one TLS write, a message each.
type frames struct {
	outgoing
	unbatched
	conn   net.Conn
	r      *bufio.Reader
	client bool
	frame  bytes.Buffer
}

func newFrames(conn net.Conn, r *bufio.Reader, client bool, size int) *frames {
	if r == nil {
		r = bufio.NewReader(conn)
	}
	return &frames{outgoing: make(outgoing, size), conn: conn, r: r, client: client}
}

func (f *frames) send() error {
	h := ws.Header{Fin: true, OpCode: ws.OpBinary, Length: int64(len(f.outgoing))}
	if f.client {
		h.Masked, h.Mask = true, ws.NewMask()
	}
	f.frame.Reset()
	if err := ws.WriteHeader(&f.frame, h); err != nil {
		return err
	}
	start := f.frame.Len()
	f.frame.Write(f.outgoing)
	if h.Masked {
		ws.Cipher(f.frame.Bytes()[start:], h.Mask, 0)
	}
	_, err := f.conn.Write(f.frame.Bytes())
	return err
}

func (f *frames) receive(each func([]byte) error) error {
	buf := make([]byte, len(f.outgoing))
	for {
		h, err := ws.ReadHeader(f.r)
		switch {
		case err != nil:
			return err
		case h.OpCode != ws.OpBinary || !h.Fin || h.Length != int64(len(buf)) || h.Masked == f.client:
			return fmt.Errorf("unexpected frame %+v", h)
		}
		if _, err := io.ReadFull(f.r, buf); err != nil {
			return err
		}
		if h.Masked {
			ws.Cipher(buf, h.Mask, 0)
		}
		if err := each(buf); err != nil {
			return err
		}
	}
}

func (f *frames) close() { _ = f.conn.Close() }

func acceptFrames(w http.ResponseWriter, r *http.Request, size int) (end, error) {
	conn, rw, _, err := ws.UpgradeHTTP(r, w)
	if err != nil {
		return nil, err
	}
	return newFrames(conn, rw.Reader, false, size), nil
}

func dialFrames(_ testing.TB, address string, trust *tls.Config, size int) (end, error) {
	conn, err := tls.Dial("tcp", address, trust)
	if err != nil {
		return nil, err
	}
	r, _, err := ws.Dialer{}.Upgrade(conn, &url.URL{Scheme: "wss", Host: address, Path: tunnel})
	return newFrames(conn, r, true, size), err
}

// ours is the carrier of HTTVPS as the multiplexer uses it: header in the space
// before the payload, mask in place, one TCP write for each batch.
type ours struct {
	conn *carrier.Conn
	buf  []byte
}

func newOurs(conn *carrier.Conn, size int, err error) (end, error) {
	if err != nil {
		return nil, err
	}
	return &ours{conn, make([]byte, mux.Headroom+size)}, nil
}

func (o *ours) space() []byte { return o.buf[mux.Headroom:] }
func (o *ours) send() error   { return o.conn.WriteReserved(o.buf) }
func (o *ours) flush() error  { return o.conn.Flush() }

func (o *ours) receive(each func([]byte) error) error {
	buf := make([]byte, len(o.buf)-mux.Headroom)
	for {
		size, err := o.conn.Next()
		if err != nil {
			return err
		}
		if size != len(buf) {
			return fmt.Errorf("message of %d bytes, want %d", size, len(buf))
		}
		if err := o.conn.ReadFull(buf); err != nil {
			return err
		}
		if err := each(buf); err != nil {
			return err
		}
	}
}

func (o *ours) close() { _ = o.conn.Close() }

func acceptOurs(w http.ResponseWriter, r *http.Request, size int) (end, error) {
	if !carrier.IsUpgrade(r) {
		return nil, errors.New("not an upgrade to " + wire.SubProtocol)
	}
	conn, err := carrier.Upgrade(w, r)
	return newOurs(conn, size, err)
}

func dialOurs(tb testing.TB, address string, trust *tls.Config, size int) (end, error) {
	tb.Helper()
	conn, err := carrier.Dial(tb.Context(), "wss://"+address+tunnel, carrier.DialOptions{TLS: trust})
	return newOurs(conn, size, err)
}
