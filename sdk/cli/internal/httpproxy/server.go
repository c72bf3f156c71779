// Package httpproxy is an HTTP proxy (RFC 9110) for programs on this machine. It
// serves CONNECT and requests with a whole URL over connections that it is handed a
// function for; the names in them reach it unresolved.
package httpproxy

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/credential"
	"github.com/httvps/httvps/sdk/cli/internal/relay"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// Bounds of a server.
const (
	// maxConns is how many clients are served at once; more wait in the system's
	// queue. A browser opens a few dozen.
	maxConns = 2048

	// headerTimeout and maxHeader bound a request's header, idleTimeout the wait
	// for another request.
	headerTimeout = 10 * time.Second
	maxHeader     = 64 << 10
	idleTimeout   = 2 * time.Minute

	// dialTimeout bounds the wait for a session, for a free place in it and for
	// the target.
	dialTimeout = 60 * time.Second

	// replyTimeout bounds the writing of the answer to CONNECT.
	replyTimeout = 10 * time.Second

	// maxIdle and keepIdle bound the connections to targets that wait for another
	// request: each takes a place in the session.
	maxIdle  = 16
	keepIdle = 15 * time.Second
)

// Server is an HTTP proxy.
type Server struct {
	// Dial is required; it is given "tcp" and an address with the client's name or
	// IP address. Its connections are closed by halves when they have CloseRead and
	// CloseWrite, and broken off with Abort when they have that.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Login is what clients have to show; nil: nothing.
	Login *credential.Pair

	// Local answers what is asked of the proxy itself; nil: nothing is.
	Local http.Handler
}

// Serve accepts clients from ln until ctx ends, or ln fails for good. When it
// returns, ln and every connection are closed and every handler has returned. The
// error is nil when ctx ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	discard := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	targets := s.transport(ctx)
	defer targets.CloseIdleConnections()
	forward := &httputil.ReverseProxy{
		Rewrite:      rewrite,
		Transport:    targets,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { refuse(w, err) },
		ErrorLog:     discard,
	}
	accepted := &handover{conns: make(chan net.Conn), done: ctx.Done(), addr: ln.Addr()}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.serve(w, r, forward)
		}),
		// The end of ctx ends what waits for a target, too.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(inner context.Context, c net.Conn) context.Context {
			return context.WithValue(inner, clientKey{}, c)
		},
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		ErrorLog:                     discard,
		DisableGeneralOptionsHandler: true,
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(accepted) })
	err := relay.Serve(ctx, ln, maxConns, func(ctx context.Context, raw net.Conn) {
		c := &client{Conn: raw, ended: make(chan struct{})}
		select {
		case accepted.conns <- c:
			<-c.ended
		case <-ctx.Done():
		}
	})
	cancel()
	_ = server.Close()
	serving.Wait()
	return err
}

// client is a connection whose end is told: by net/http, or by who took it over.
type client struct {
	net.Conn
	once  sync.Once
	ended chan struct{}
}

type clientKey struct{}

func (c *client) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.ended) })
	return err
}

// handover is a listener that is given its connections.
type handover struct {
	conns chan net.Conn
	done  <-chan struct{}
	addr  net.Addr
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error   { return nil }
func (h *handover) Addr() net.Addr { return h.addr }

// transport is what requests with a whole URL go out by.
func (s *Server) transport(ctx context.Context) *http.Transport {
	return &http.Transport{
		Proxy: nil,
		DialContext: func(dialCtx context.Context, network, address string) (net.Conn, error) {
			// A dial outlives the request that it was begun for, but not the server.
			dialCtx, cancel := context.WithTimeout(dialCtx, dialTimeout)
			defer cancel()
			stop := context.AfterFunc(ctx, cancel)
			defer stop()
			return s.Dial(dialCtx, network, address)
		},
		DisableCompression:     true, // what the client did not ask for
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        keepIdle,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// serve handles one request. Errors end here: the client is told what HTTP can say,
// and nobody else is to know where it wanted to go.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	if r.Method != http.MethodConnect && !r.URL.IsAbs() {
		if s.Local != nil {
			s.Local.ServeHTTP(w, r)
			return
		}
		http.Error(w, "This is an HTTP proxy. Enter it as such in a program's settings.", http.StatusBadRequest)
		return
	}
	if s.Login != nil && !s.known(r) {
		w.Header().Set("Proxy-Authenticate", `Basic realm="httvps", charset="UTF-8"`)
		http.Error(w, "This proxy asks for a user name and a password.", http.StatusProxyAuthRequired)
		return
	}
	switch {
	case r.Method == http.MethodConnect:
		s.connect(w, r)
	case r.URL.Scheme != "http":
		http.Error(w, "Only http:// is asked for this way: https goes through CONNECT.", http.StatusBadRequest)
	case !isTarget(r.URL.Host, "80"):
		http.Error(w, "The URL has no host, or one that nobody can have.", http.StatusBadRequest)
	default:
		forward.ServeHTTP(w, r)
	}
}

// known reports whether the client has shown who it is.
func (s *Server) known(r *http.Request) bool {
	lines := r.Header["Proxy-Authorization"]
	if len(lines) != 1 {
		return false
	}
	scheme, text, _ := strings.Cut(lines[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return false
	}
	user, password, _ := strings.Cut(string(decoded), ":")
	return s.Login.Is([]byte(user), []byte(password))
}

// connect serves CONNECT.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		w.Header().Set("Connection", "close")
		http.Error(w, "CONNECT takes no body.", http.StatusBadRequest)
		return
	}
	address := r.RequestURI
	if !isTarget(address, "") {
		http.Error(w, "CONNECT wants HOST:PORT.", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), dialTimeout)
	target, err := s.Dial(ctx, "tcp", address)
	cancel()
	if err != nil {
		refuse(w, err)
		return
	}
	defer func() { _ = target.Close() }()
	hijacked, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		relay.Abort(target)
		return
	}
	defer func() { _ = hijacked.Close() }()
	raw := hijacked
	if c, ok := r.Context().Value(clientKey{}).(*client); ok {
		raw = c.Conn // by its type, relay sees how it ends
	}
	_ = raw.SetDeadline(time.Now().Add(replyTimeout))
	if _, err := io.WriteString(raw, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil || raw.SetDeadline(time.Time{}) != nil {
		relay.Abort(target)
		return
	}
	// What came behind the request is for the target.
	if early, _ := buffered.Peek(buffered.Reader.Buffered()); len(early) > 0 {
		if _, err := target.Write(early); err != nil {
			relay.Abort(raw)
			return
		}
	}
	// The server's end closes raw, see relay.Serve, and with it this ends.
	relay.Copy(raw, target)
}

// rewrite makes the request for the target. Headers that are for the next hop are
// gone already.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.RawQuery = r.In.URL.RawQuery // untouched
	r.Out.URL.User = nil
	if path, ok := rawPath(r.In.RequestURI); ok {
		r.Out.URL.Opaque = path // as the client wrote it: a signature may be over that
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values := r.In.Header.Values(name); len(values) > 0 {
			r.Out.Header[name] = values // the client's own business
		}
	}
}

// rawPath returns the path in a URL with scheme and host, unless a request could be
// misread with it.
func rawPath(uri string) (string, bool) {
	_, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return "", false
	}
	begin := strings.IndexAny(rest, "/?#")
	if begin < 0 || rest[begin] != '/' {
		return "", false
	}
	path := rest[begin:]
	if end := strings.IndexAny(path, "?#"); end >= 0 {
		path = path[:end]
	}
	if strings.HasPrefix(path, "//") || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", false
	}
	return path, true
}

// isTarget reports whether text is a host and a port, or a host alone where there is
// a usual port.
func isTarget(text, usual string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		if usual == "" {
			return false
		}
		if host, port, err = net.SplitHostPort(text + ":" + usual); err != nil {
			return false
		}
	}
	if port == "" {
		port = usual
	}
	if len(host) > 255 || host == "" || strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune("[]/@%?#\\\"<>", r)
	}) {
		return false
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return false
		}
	}
	number := 0
	for _, digit := range []byte(port) {
		if digit < '0' || digit > '9' || number > 0xffff {
			return false
		}
		number = 10*number + int(digit-'0')
	}
	return number > 0 && number <= 0xffff
}

// statuses says what HTTP calls the codes of a tunnel. A code without a row is a bad
// gateway.
var statuses = map[string]int{
	"policy_denied": http.StatusForbidden,
	"refused":       http.StatusForbidden,
	"conn_timeout":  http.StatusGatewayTimeout,
	"limit":         http.StatusServiceUnavailable,
	"enhance_calm":  http.StatusServiceUnavailable,
}

// refuse tells why there is no connection to a target.
func refuse(w http.ResponseWriter, err error) {
	status, text := http.StatusBadGateway, "The answer of the target could not be had."
	open, refused := errors.AsType[*httvps.OpenError](err)
	switch {
	case refused:
		if known, ok := statuses[open.Code]; ok {
			status = known
		}
		text = httvps.Explain(open.Code)
		w.Header().Set("X-Httvps-Reason", open.Code)
	case errors.Is(err, context.DeadlineExceeded):
		status, text = http.StatusGatewayTimeout, "The tunnel is not up, or the target did not answer in time."
	case errors.Is(err, net.ErrClosed):
		status, text = http.StatusServiceUnavailable, "The tunnel has ended."
	}
	http.Error(w, text, status)
}
