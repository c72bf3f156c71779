// Package redirect is the plain-HTTP side of a website that is served over HTTPS:
// it sends visitors there, as ordinary sites do, and shows nothing else.
package redirect

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/anonym"
	"github.com/httvps/httvps/internal/gate"
)

const (
	// Life is the longest that a visitor's connection lasts: one answer is all
	// that there is on it.
	Life = 30 * time.Second

	headerTimeout   = 5 * time.Second
	readTimeout     = 10 * time.Second
	writeTimeout    = 10 * time.Second
	shutdownTimeout = 5 * time.Second
	maxHeader       = 16 << 10
)

// Config says where to.
type Config struct {
	// Host is the site's, for visitors who name none; Port is that of its HTTPS.
	// Empty: 443.
	Host, Port string
	// Answer, unless nil, has its say before.
	Answer func(next http.Handler) http.Handler
	// Log takes what strangers cause, at debug.
	Log *slog.Logger
}

// Serve sends visitors of the listener on until ctx ends. Bound the listener with
// [gate.New]. It returns nil when ctx ended it.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	var handler http.Handler = to(cfg)
	if cfg.Answer != nil {
		handler = cfg.Answer(handler)
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		MaxHeaderBytes: maxHeader, DisableGeneralOptionsHandler: true, ConnContext: gate.ConnContext,
		ErrorLog: slog.NewLogLogger(anonym.Handler(cfg.Log.Handler()), slog.LevelDebug),
	}
	server.SetKeepAlivesEnabled(false)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if err := server.Shutdown(bound); err != nil {
			_ = server.Close() // whoever is still there had his time
		}
	})
	err := server.Serve(l)
	if stop() {
		return err // serving failed by itself
	}
	<-stopped
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// to returns what sends every request to the same place over HTTPS.
func to(cfg Config) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		host = strings.Trim(host, "[]")
		if host == "" {
			host = cfg.Host
		}
		switch {
		case cfg.Port != "" && cfg.Port != "443":
			host = net.JoinHostPort(host, cfg.Port)
		case strings.Contains(host, ":"):
			host = "[" + host + "]"
		}
		path := r.URL.RequestURI()
		if !strings.HasPrefix(path, "/") { // OPTIONS *, CONNECT
			path = "/"
		}
		w.Header().Set("Location", "https://"+host+path)
		w.WriteHeader(http.StatusPermanentRedirect)
	}
}
