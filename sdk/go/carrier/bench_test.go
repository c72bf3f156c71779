package carrier_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// The cost of one stream, both ends in this process, beside bare TLS.

type noise struct{}

func (noise) Read(p []byte) (int, error) { return len(p), nil }

const benchBytes = 64 << 20

func BenchmarkOneStream(b *testing.B) {
	for _, tc := range []struct {
		name   string
		up     bool
		resume time.Duration
	}{
		{"down", false, 0},
		{"down resumable", false, time.Minute},
		{"up", true, 0},
		{"up resumable", true, time.Minute},
	} {
		up, name := tc.up, "down"
		if up {
			name = "up"
		}
		b.Run(tc.name, func(b *testing.B) {
			resume := mux.Resume{Within: tc.resume}
			url, trust := serveBench(b, resume)
			conn, err := carrier.Dial(b.Context(), url, carrier.DialOptions{TLS: trust})
			if err != nil {
				b.Fatal(err)
			}
			s := mux.New(conn, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits(), Resume: resume})
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			wg.Go(func() { _ = s.Run(ctx) })
			defer wg.Wait()
			defer cancel()
			b.SetBytes(benchBytes)
			for b.Loop() {
				st, err := s.Open(ctx, wire.Addr{Name: name, Port: 1})
				if err != nil {
					b.Fatal(err)
				}
				if up {
					_, err = st.ReadFrom(io.LimitReader(noise{}, benchBytes))
					_ = st.CloseWrite()
				}
				n, copyErr := io.Copy(io.Discard, st)
				if err != nil || copyErr != nil || (!up && n != benchBytes) {
					b.Fatal(n, err, copyErr)
				}
				_ = st.Close()
			}
		})
	}
}

func serveBench(b *testing.B, resume mux.Resume) (string, *tls.Config) {
	b.Helper()
	return serve(b, func(c *carrier.Conn) {
		s := mux.New(c, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits(), Resume: resume})
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for {
				in, err := s.Accept(b.Context())
				if err != nil {
					return
				}
				st := in.Stream
				wg.Go(func() {
					_ = st.Confirm()
					if st.Target().Name == "down" {
						_, _ = st.ReadFrom(io.LimitReader(noise{}, benchBytes))
					} else {
						_, _ = io.Copy(io.Discard, st)
					}
					_ = st.Close()
				})
			}
		})
		_ = s.Run(b.Context())
	})
}

func BenchmarkBareTLS(b *testing.B) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			b.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		buf := make([]byte, 64<<10)
		for err == nil {
			_, err = conn.Write(buf)
		}
	}))
	srv.StartTLS()
	defer srv.Close()
	conn, err := tls.Dial("tcp", srv.Listener.Addr().String(), srv.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	b.SetBytes(benchBytes)
	for b.Loop() {
		if _, err := io.CopyN(io.Discard, conn, benchBytes); err != nil {
			b.Fatal(err)
		}
	}
}
