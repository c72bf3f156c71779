// Package masquerade is the website that everybody meets on a gateway who is no
// device: files, another server's pages, or a page of its own. It knows nothing of
// tunnels, and neither does its server, so that a gateway and a website alone give
// the same answers (docs/03-httvps-protocol.md, part 2.2).
package masquerade

import (
	"context"
	"crypto/tls"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"sync"
	"time"
)

// The time-outs of a visitor's connection. A connection of keepAlive is asked to
// end with its next answer, and whatever happens on it, without an upgrade it is
// over after Life.
const (
	headerTimeout = 5 * time.Second // for TLS, too
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 30 * time.Second
	keepAlive     = time.Minute

	// Life is the longest that a connection which is not upgraded lasts.
	Life = keepAlive + idleTimeout + readTimeout + writeTimeout

	maxHeader  = 16 << 10 // bytes
	maxStreams = 32       // requests at once on one HTTP/2 connection
)

// Config says which site it is: Dir, URL, or without both a page of its own.
type Config struct {
	// Dir holds static files. What a link in it leads to outside is not served.
	Dir string
	// URL is another server, http or https, whose site it is; requests are passed
	// on to it.
	URL *url.URL
	// HSTS is for how long browsers are to take the site over HTTPS alone. What the
	// other server says of it itself holds. 0: nothing is said.
	HSTS time.Duration
	// Hide reports whether a cookie of that name must not be passed on.
	Hide func(name string) bool
	// Log takes the failures of the other server, at debug: visitors cause them
	// at will. Nil discards them.
	Log *slog.Logger
}

// Site is an [http.Handler]. It must be closed.
type Site struct {
	handler http.Handler
	free    func() error
	hsts    string // the header's value, or empty

	mu      sync.Mutex // guards the following fields
	closed  bool
	running sync.WaitGroup
}

// New returns the site. The error is one of its directory's.
func New(cfg Config) (*Site, error) {
	s := &Site{free: func() error { return nil }}
	hsts := ""
	if cfg.HSTS > 0 {
		hsts = fmt.Sprintf("max-age=%d", int64(cfg.HSTS.Seconds()))
	}
	s.hsts = hsts
	switch {
	case cfg.Dir != "":
		root, err := os.OpenRoot(cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("masquerade.dir: %w", err)
		}
		s.handler, s.free = static(root.FS()), root.Close
	case cfg.URL != nil:
		s.handler, s.free = newProxy(cfg, hsts)
		s.hsts = "" // it adds the header to answers that have none
	default:
		own, err := fs.Sub(page, "page")
		if err != nil {
			return nil, fmt.Errorf("the page: %w", err)
		}
		s.handler = static(own)
	}
	return s, nil
}

// ServeHTTP answers like a website.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.TryServe(w, r) {
		panic(http.ErrAbortHandler) // the server has stopped, or is about to
	}
}

// TryServe answers like a website, or reports that the site is closed.
func (s *Site) TryServe(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	if s.hsts != "" {
		w.Header().Set(hstsHeader, s.hsts)
	}
	if since, ok := r.Context().Value(acceptedKey{}).(time.Time); ok && time.Since(since) >= keepAlive {
		w.Header().Set("Connection", "close") // over HTTP/2: GOAWAY
	}
	s.handler.ServeHTTP(w, r)
	return true
}

const hstsHeader = "Strict-Transport-Security"

// Close waits for the requests that are being answered, upgraded ones included,
// which end with their contexts, and frees what the site holds.
func (s *Site) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
	return s.free()
}

// Server returns a server of site over TLS, with the limits and time-outs of a
// website; certificate and logs are the caller's to add. A caller with a
// ConnContext of its own calls [ConnContext] in it.
func Server(site http.Handler) *http.Server {
	return &http.Server{
		Handler: site,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			NextProtos: []string{"h2", "http/1.1"}, // as any site offers
		},
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		// OPTIONS * is the site's to answer like everything else.
		DisableGeneralOptionsHandler: true,
		ConnContext:                  ConnContext,
	}
}

type acceptedKey struct{}

// ConnContext remembers in a connection's context when it was accepted.
func ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, acceptedKey{}, time.Now())
}

//go:embed page
var page embed.FS

// static serves files, and of a directory its index.html or nothing.
func static(files fs.FS) http.Handler { return http.FileServerFS(visible{files}) }

// visible shows regular files, and directories that have an index. Whatever else
// cannot be opened, for whichever reason, is not there.
type visible struct{ fs.FS }

// Open implements fs.FS.
func (v visible) Open(name string) (fs.File, error) {
	if v.shows(name) {
		if file, err := v.FS.Open(name); err == nil {
			return file, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (v visible) shows(name string) bool {
	info, err := fs.Stat(v.FS, name)
	if err == nil && info.IsDir() {
		info, err = fs.Stat(v.FS, path.Join(name, "index.html"))
	}
	return err == nil && info.Mode().IsRegular()
}
