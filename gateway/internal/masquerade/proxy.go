package masquerade

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/anonym"
)

// The bounds of requests to the other server.
const (
	connectTimeout = 5 * time.Second
	answerTimeout  = 20 * time.Second // until the head of the answer, within writeTimeout
	continueAfter  = time.Second      // when the other server says nothing to Expect: 100-continue
	maxAnswerHead  = 64 << 10         // bytes
	maxIdle        = 32               // connections kept
)

// newProxy returns a handler that passes every request on to cfg.URL, and what
// frees it. hsts is for answers that do not say it themselves; empty: none.
func newProxy(cfg Config, hsts string) (handler http.Handler, free func() error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	hide := cfg.Hide
	if hide == nil {
		hide = func(string) bool { return false }
	}
	transport := &http.Transport{
		Proxy:                  nil, // the environment's proxies are for other traffic
		DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout:    connectTimeout,
		ResponseHeaderTimeout:  answerTimeout,
		ExpectContinueTimeout:  continueAfter,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    maxIdle,
		MaxResponseHeaderBytes: maxAnswerHead,
		DisableCompression:     true, // the visitor says which he takes
		ForceAttemptHTTP2:      true,
	}
	proxy := &httputil.ReverseProxy{
		// Rewrite comes without hop-by-hop headers, and without those by which
		// proxies tell of themselves.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(cfg.URL) // also the Host that it is asked for
			hideCookies(r.Out.Header, hide)
		},
		Transport: transport,
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del("Alt-Svc") // speaks of the other server's own ports
			if hsts != "" && resp.Header.Get(hstsHeader) == "" {
				resp.Header.Set(hstsHeader, hsts)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			log.DebugContext(r.Context(), "masquerade: no answer from the other server", "error", err)
			if hsts != "" {
				w.Header().Set(hstsHeader, hsts)
			}
			w.WriteHeader(http.StatusBadGateway)
		},
		ErrorLog: slog.NewLogLogger(anonym.Handler(log.Handler()), slog.LevelDebug),
	}
	return proxy, func() error {
		transport.CloseIdleConnections()
		return nil
	}
}

// hideCookies takes the hidden cookies out of a request and leaves the others as
// they are written.
func hideCookies(header http.Header, hide func(name string) bool) {
	lines := slices.Clone(header["Cookie"]) // the original request has the same
	for i, line := range lines {
		pairs := strings.Split(line, ";")
		shown := slices.DeleteFunc(slices.Clone(pairs), func(pair string) bool {
			name, _, _ := strings.Cut(pair, "=")
			return hide(strings.TrimSpace(name))
		})
		if len(shown) < len(pairs) {
			lines[i] = strings.TrimSpace(strings.Join(shown, ";"))
		}
	}
	lines = slices.DeleteFunc(lines, func(line string) bool { return line == "" })
	if len(lines) == 0 {
		header.Del("Cookie")
		return
	}
	header["Cookie"] = lines
}
