// Package origin is the far end of end-to-end tests and of the demo: an HTTP
// server that makes content of any size whose checksum it knows, and tells the
// checksum of what it is sent.
package origin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxSize bounds what one request can ask for.
const maxSize = 64 << 30

// Server is a running origin.
type Server struct {
	listener net.Listener
	http     *http.Server
	done     sync.WaitGroup
	requests atomic.Int64
}

// Start serves on a free port of 127.0.0.1. GET /SIZE (such as /1GiB, /64MiB,
// /1000) answers with that many bytes; PUT or POST to any path answers with the SHA-256 of the
// body in hexadecimal.
func Start() (*Server, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	s := &Server{listener: l}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	s.done.Go(func() { _ = s.http.Serve(l) })
	return s, nil
}

// URL is where it serves, without a path.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Addr is its host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Requests is how many requests have come.
func (s *Server) Requests() int64 { return s.requests.Load() }

// Close stops it and waits.
func (s *Server) Close() error {
	err := s.http.Close()
	s.done.Wait()
	return err
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if r.Method == http.MethodPut || r.Method == http.MethodPost {
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err != nil {
			http.Error(w, "body cut off", http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprintln(w, hex.EncodeToString(sum.Sum(nil)))
		return
	}
	size, err := ParseSize(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_, _ = io.Copy(w, Content(size))
}

// Content is the content of this size: the same each time, and like noise.
func Content(size int64) io.Reader {
	seed := sha256.Sum256(strconv.AppendInt(nil, size, 10))
	return io.LimitReader(rand.NewChaCha8(seed), size)
}

// Sum is the SHA-256 of the content of this size, in hexadecimal.
func Sum(ctx context.Context, size int64) (string, error) {
	h := sha256.New()
	content := Content(size)
	for {
		_, err := io.CopyN(h, content, 64<<20)
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
	}
}

// ParseSize reads a number of bytes with an optional KiB, MiB or GiB.
func ParseSize(text string) (int64, error) {
	number, unit := text, int64(1)
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			number, unit = n, factor
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > maxSize/unit {
		return 0, errors.New("want a size such as /1000, /64KiB, /64MiB or /1GiB, at most 64GiB")
	}
	return n * unit, nil
}
