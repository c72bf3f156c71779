package carrier

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/httvps/httvps/sdk/go/wire"
)

// maxAnswer bounds the answer to an upgrade, in bytes, with what came right
// behind it.
const maxAnswer = 16 << 10

// DialOptions say how to reach a gateway.
type DialOptions struct {
	// TLS is cloned; nil means the system's authorities. Version, ALPN and
	// server name are set by Dial.
	TLS *tls.Config

	// NetDial opens the TCP connection; nil means net.Dialer.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)

	// Cookie is the upgrade's Cookie header, name=value: the knock. Empty: the
	// request has none. Dial sends the URL's host[:port] as Host, as it is written.
	Cookie string
}

// UpgradeError says that something answered over TLS and would not switch to
// the tunnel protocol: not a gateway, or not at this path, or one that did not
// accept the knock.
type UpgradeError struct {
	Status int       // HTTP status, 0 when the answer was no valid upgrade at all
	Date   time.Time // of the answer: the other end's clock; zero when it did not say
	Err    error
}

func (e *UpgradeError) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("upgrade refused with HTTP status %d", e.Status)
	}
	return fmt.Sprintf("upgrade: %v", e.Err)
}

// Unwrap returns the cause.
func (e *UpgradeError) Unwrap() error { return e.Err }

// Dial opens a carrier to the gateway at rawURL (wss://host[:port]/path). ctx
// bounds the whole of it.
func Dial(ctx context.Context, rawURL string, opts DialOptions) (*Conn, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("gateway URL: %w", err)
	}
	if u.Scheme != "wss" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("gateway URL: want wss://host[:port]/path")
	}
	if strings.ContainsAny(opts.Cookie, "\r\n") {
		return nil, errors.New("the cookie has a line break")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	dial := opts.NetDial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 15 * time.Second}).DialContext
	}
	raw, err := dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	conn, err := upgrade(ctx, raw, u, opts)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

func upgrade(ctx context.Context, raw net.Conn, u *url.URL, opts DialOptions) (*Conn, error) {
	cfg := &tls.Config{}
	if opts.TLS != nil {
		cfg = opts.TLS.Clone()
	}
	cfg.MinVersion = tls.VersionTLS13
	cfg.NextProtos = []string{"http/1.1"}
	cfg.ServerName = u.Hostname()
	conn := tls.Client(newSocket(raw), cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls with %s: %w", u.Host, err)
	}

	// The upgrade reads and writes without a context: its end closes the
	// connection, which unblocks both.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	var date time.Time
	d := ws.Dialer{
		Protocols: []string{wire.SubProtocol}, ReadBufferSize: handshakeBuffer,
		OnStatusError: func(_ int, _ []byte, answer io.Reader) { date = dateOf(answer) },
	}
	if opts.Cookie != "" {
		d.Header = ws.HandshakeHeaderHTTP{"Cookie": {opts.Cookie}}
	}
	answer := &bounded{Conn: conn, left: maxAnswer}
	br, hs, err := d.Upgrade(answer, u)
	if !stop() {
		return nil, fmt.Errorf("upgrade: %w", context.Cause(ctx))
	}
	var status ws.StatusError
	switch {
	case errors.As(err, &status):
		return nil, &UpgradeError{Status: int(status), Date: date, Err: err}
	case err != nil:
		return nil, &UpgradeError{Err: err}
	case hs.Protocol != wire.SubProtocol:
		return nil, &UpgradeError{Err: errors.New("the other end did not choose " + wire.SubProtocol)}
	case len(hs.Extensions) > 0:
		return nil, &UpgradeError{Err: errors.New("the other end chose an extension that was not offered")}
	}
	if br == nil {
		br = bufio.NewReaderSize(conn, readBuffer)
	}
	answer.left = -1
	return newConn(conn, br, true), nil
}

// dateOf reads the head of an HTTP answer, no more of it, and returns its Date, or
// the zero time.
func dateOf(answer io.Reader) time.Time {
	reader := textproto.NewReader(bufio.NewReader(answer))
	if _, err := reader.ReadLine(); err != nil {
		return time.Time{}
	}
	header, err := reader.ReadMIMEHeader()
	if err != nil {
		return time.Time{}
	}
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return date
}

// bounded is a connection that gives no more than left bytes, unless left is
// negative: the answer to an upgrade is short, whoever sends it.
type bounded struct {
	net.Conn
	left int
}

var errLongAnswer = errors.New("the answer has no end")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return b.Conn.Read(p)
	}
	if b.left == 0 {
		return 0, errLongAnswer
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// IsUpgrade reports whether r asks for the tunnel protocol in every point, so
// that [Upgrade] will switch to it.
func IsUpgrade(r *http.Request) bool {
	offered := false
	for _, p := range headerTokens(r.Header, "Sec-Websocket-Protocol") {
		offered = offered || p == wire.SubProtocol
	}
	return offered && r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor >= 1 &&
		r.TLS != nil &&
		hasToken(r.Header, "Upgrade", "websocket") &&
		hasToken(r.Header, "Connection", "upgrade") &&
		r.Header.Get("Sec-Websocket-Version") == "13" &&
		validKey(r.Header.Get("Sec-Websocket-Key"))
}

// validKey says whether key is 16 bytes in base64 (RFC 6455, 4.1).
func validKey(key string) bool {
	raw, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(raw) == 16
}

// Upgrade answers 101 and takes the connection over from the HTTP server. The
// caller has checked [IsUpgrade].
func Upgrade(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	// IsUpgrade has found ours in the offer; whatever else is in it, however
	// odd, must not make this answer differ from any other.
	r.Header["Sec-Websocket-Protocol"] = []string{wire.SubProtocol}
	u := ws.HTTPUpgrader{
		Timeout:  10 * time.Second,
		Protocol: func(p string) bool { return p == wire.SubProtocol },
	}
	conn, rw, _, err := u.Upgrade(r, w)
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	tlsConn, ok := conn.(*tls.Conn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("upgrade: the connection is not TLS")
	}
	return newConn(tlsConn, rw.Reader, false), nil
}
