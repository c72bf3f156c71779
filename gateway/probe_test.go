package gateway_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/gateway/internal/masquerade"
	"github.com/httvps/httvps/internal/configfile"
)

// probe is what a stranger does to find out what he has before him.
type probe struct {
	name    string
	plain   bool                 // bytes on TCP, without TLS
	alpn    []string             // nil: http/1.1
	tls     func(*tls.Config)    // nil: as any client
	send    []string             // written one after the other
	finish  func(net.Conn) error // after that; nil: the connection stays open
	patient bool                 // wait until a time-out of the server's has passed
}

// seen is everything that came back.
type seen struct {
	Error  string // of the TLS handshake
	Bytes  string
	Frames map[uint32][]string // in place of Bytes over HTTP/2: the frames of each stream
	End    string
	Next   string // what a further request on the same connection brought
}

var dates = regexp.MustCompile(`(?m)^(Date|Last-Modified): [^\r\n]+`)

// run does what p says to the server at address. quiet is how long nothing must
// come for the answer to be complete.
func (p probe) run(address string, trust *tls.Config, quiet time.Duration) (seen, error) {
	raw, err := net.Dial("tcp", address)
	if err != nil {
		return seen{}, err
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	conn := raw
	if !p.plain {
		config := trust.Clone()
		if config.NextProtos = p.alpn; p.alpn == nil {
			config.NextProtos = []string{"http/1.1"}
		}
		if p.tls != nil {
			p.tls(config)
		}
		secure := tls.Client(raw, config)
		if err := secure.Handshake(); err != nil {
			return seen{Error: cause(err)}, nil
		}
		conn = secure
	}
	for _, text := range p.send {
		if _, err := io.WriteString(conn, text); err != nil {
			break // the answer says why
		}
	}
	if p.finish != nil {
		_ = p.finish(conn) // the other end may have hung up by now
	}
	if p.patient {
		quiet = 12 * time.Second
	}
	var got seen
	text, end := drain(conn, quiet)
	got.End = end
	if slices.Equal(p.alpn, []string{"h2"}) {
		got.Frames = frames(text)
		return got, nil
	}
	got.Bytes = dates.ReplaceAllString(string(text), "$1: then")
	if end == "open" && len(text) > 0 && !p.plain {
		if _, err := io.WriteString(conn, "GET /next HTTP/1.1\r\nHost: next.example\r\n\r\n"); err != nil {
			got.Next = "not sent"
			return got, nil
		}
		text, end = drain(conn, quiet)
		got.Next = end + ": " + dates.ReplaceAllString(string(text), "$1: then")
	}
	return got, nil
}

// drain reads until the end, or until nothing comes for quiet.
func drain(conn net.Conn, quiet time.Duration) (text []byte, end string) {
	buf := make([]byte, 64<<10)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(quiet))
		n, err := conn.Read(buf)
		text = append(text, buf[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return text, "open"
		default:
			return text, cause(err)
		}
	}
}

// cause is an error without addresses.
func cause(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "ended"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "ended without a word"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	}
	if failed, ok := errors.AsType[*net.OpError](err); ok {
		return failed.Err.Error()
	}
	return err.Error()
}

// frames takes HTTP/2 apart. Only within a stream the order of frames is the
// server's own; those of the connection (stream 0) come as they are ready.
func frames(text []byte) map[uint32][]string {
	streams := make(map[uint32][]string)
	for len(text) >= 9 {
		size := int(text[0])<<16 | int(text[1])<<8 | int(text[2])
		stream := binary.BigEndian.Uint32(text[5:9])
		end := min(9+size, len(text))
		streams[stream] = append(streams[stream], fmt.Sprintf("type %d flags %02x: %q", text[3], text[4], text[9:end]))
		text = text[end:]
	}
	if len(text) > 0 {
		streams[1<<31] = append(streams[1<<31], fmt.Sprintf("%q", text))
	}
	slices.Sort(streams[0])
	return streams
}

// content makes a website.
func content(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{
		"index.html":      "<html><h1>Home of nothing in particular</h1></html>\n",
		"sub/index.html":  "<html>below</html>\n",
		"bare/file.txt":   "in a directory without an index\n",
		"style.css":       "body { margin: 0 }\n",
		"picture.bin":     strings.Repeat("\x00\x01picture", 20_000),
		"tunnel.txt/a":    "a",
		".well-known/a.b": "{}",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// bareSite serves the same website as a gateway does, with no gateway.
func bareSite(t *testing.T, s *service, cfg masquerade.Config) (address string) {
	t.Helper()
	site, err := masquerade.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := masquerade.Server(site)
	server.TLSConfig.GetCertificate = s.authority.GetCertificate("127.0.0.1")
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if err := site.Close(); err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// otherSite is a web server with a few habits of its own.
func otherSite(t *testing.T) *url.URL {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Server", "other/1")
		w.Header().Set("Set-Cookie", "visitor=1")
		_, _ = fmt.Fprintf(w, "%s %s %q %q\n", r.Method, r.URL, r.Header["Cookie"], body)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) })
	mux.HandleFunc("/tunnel", func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello, it is not what you think")
		_ = rw.Flush()
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// frontHost is the host of a front of the gateway that is probed.
const frontHost = "front.example"

// Every probe gets the same from a gateway as from the website alone, byte for
// byte, and the control plane hears of none.
func TestAStrangerCannotTellAGatewayFromASite(t *testing.T) {
	t.Parallel()
	dir, other := content(t), otherSite(t)
	for name, tc := range map[string]struct {
		configure func(*gateway.Config)
		site      masquerade.Config
		every     int // of how many probes one is sent
	}{
		"files": {func(cfg *gateway.Config) {
			cfg.Masquerade.Dir, cfg.Masquerade.HSTS = dir, configfile.Duration(time.Hour)
		}, masquerade.Config{Dir: dir, HSTS: time.Hour}, 1},
		"another server": {func(cfg *gateway.Config) { cfg.Masquerade.URL = other.String() }, masquerade.Config{URL: other, Hide: func(name string) bool { return name == "sid" }}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := newControlled(t, func(cfg *gateway.Config) {
				tc.configure(cfg)
				cfg.Fronts = []string{"wss://" + frontHost + "/tunnel"}
				cfg.Limits.Unauthenticated, cfg.Limits.UnauthenticatedPerPrefix = 10_000, 10_000
			})
			bare := bareSite(t, s, tc.site)
			host := s.cfg.Listener.Addr().String()
			probes := corpus(t, host)
			if len(probes) < 300 {
				t.Fatalf("%d probes, want 300", len(probes))
			}
			before := c.heard()

			var running sync.WaitGroup
			places := make(chan struct{}, 24)
			for i, p := range probes {
				if i%tc.every != 0 {
					continue
				}
				places <- struct{}{}
				running.Go(func() {
					defer func() { <-places }()
					if diff := differs(t, p, host, bare, s.trust); diff != "" {
						t.Errorf("%s (-site +gateway):\n%s", p.name, diff)
					}
				})
			}
			running.Wait()
			if diff := cmp.Diff(before, c.heard()); diff != "" {
				t.Errorf("the control plane heard of it:\n%s", diff)
			}
		})
	}
}

// differs returns how the gateway's answer differs from the site's. The machine
// may be busy, the second may change between two dates, and Go's HTTP/2 server itself
// answers a client that leaves at once in two ways, by chance: a difference is one
// when all answers of one have nothing in common with all of the other, with ever
// more patience.
func differs(t *testing.T, p probe, host, bare string, trust *tls.Config) (diff string) {
	t.Helper()
	const least, most = 250 * time.Millisecond, 7 * time.Second
	var all [2][]seen
	for quiet, tries := least, 0; tries < 8; quiet, tries = min(3*quiet, most), tries+1 {
		var (
			both    [2]seen
			errs    [2]error
			running sync.WaitGroup
		)
		for i, address := range []string{bare, host} {
			running.Go(func() { both[i], errs[i] = p.run(address, trust, quiet) })
		}
		running.Wait()
		if err := errors.Join(errs[0], errs[1]); err != nil {
			t.Errorf("%s: %v", p.name, err)
			return ""
		}
		for i, other := range []int{1, 0} {
			all[i] = append(all[i], both[i])
			if slices.ContainsFunc(all[other], func(s seen) bool { return cmp.Equal(both[i], s) }) {
				return ""
			}
		}
		diff = cmp.Diff(both[0], both[1])
	}
	return diff
}

// heard counts the requests of a gateway but for those that it makes by itself
// as time passes.
func (c *control) heard() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := maps.Clone(c.calls)
	delete(calls, "/api/v1/gateway/heartbeat")
	delete(calls, "/api/v1/gateway/events") // followed again and again
	return calls
}

// closeWrite ends what a client says, and leaves it listening.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// cutWrite ends the TCP direction below TLS without a word of TLS.
func cutWrite(conn net.Conn) error {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return closeWrite(conn)
}

// The comparison itself is able to see a difference.
func TestTheProbesSeeADifference(t *testing.T) {
	t.Parallel()
	dir := content(t)
	s, _ := newControlled(t, func(cfg *gateway.Config) { cfg.Masquerade.Dir = dir })
	bare, host := bareSite(t, s, masquerade.Config{}), s.cfg.Listener.Addr().String()
	one := func(p probe, address string) seen {
		got, err := p.run(address, s.trust, 250*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	p := probe{send: []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n"}}
	got := one(p, host)
	if got.End != "open" || !strings.Contains(got.Bytes, "nothing in particular") || !strings.Contains(got.Next, "404") || cmp.Equal(got, one(p, bare)) {
		t.Errorf("a page is seen as %+v", got)
	}
	if got := one(probe{send: []string{request(host)}}, host); !strings.HasPrefix(got.Bytes, "HTTP/1.1 101 ") {
		t.Errorf("a tunnel is seen as %+v", got)
	}
	if got := one(probe{send: []string{"GET / HTTP/1.1\r\n\r\n"}}, host); got.End != "ended" || !bytes.HasPrefix([]byte(got.Bytes), []byte("HTTP/1.1 400 ")) {
		t.Errorf("a refusal is seen as %+v", got)
	}
}
