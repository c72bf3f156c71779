package redirect

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestVisitorsAreSentToTheSamePlaceOverHTTPS(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		port, method, host, target string
		want                       string
	}{
		"a page":            {"", http.MethodGet, "vpn.example.org", "/a/b?c=d%20e", "https://vpn.example.org/a/b?c=d%20e"},
		"a port of HTTP":    {"443", http.MethodPost, "vpn.example.org:80", "/", "https://vpn.example.org/"},
		"a port of HTTPS":   {"8443", http.MethodGet, "vpn.example.org:8080", "/", "https://vpn.example.org:8443/"},
		"an IPv6 address":   {"", http.MethodGet, "[2001:db8::1]:80", "/", "https://[2001:db8::1]/"},
		"another with port": {"8443", http.MethodGet, "[2001:db8::1]", "/", "https://[2001:db8::1]:8443/"},
		"another name":      {"", http.MethodGet, "other.example", "/", "https://other.example/"},
		"no name":           {"", http.MethodGet, "", "/x", "https://site.example/x"},
		"two slashes":       {"", http.MethodGet, "vpn.example.org", "//evil.example/x", "https://vpn.example.org//evil.example/x"},
		"the whole server":  {"", http.MethodOptions, "vpn.example.org", "*", "https://vpn.example.org/"},
	} {
		req := httptest.NewRequestWithContext(t.Context(), tc.method, "/", nil)
		req.Host = tc.host
		req.RequestURI = tc.target
		var err error
		if tc.target == "*" {
			req.URL.Path = "*"
		} else if req.URL, err = req.URL.Parse("http://x" + tc.target); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		to(Config{Host: "site.example", Port: tc.port})(w, req)
		if got := w.Header().Get("Location"); w.Code != http.StatusPermanentRedirect || got != tc.want || w.Body.Len() > 0 {
			t.Errorf("%s: %d to %q, want %q", name, w.Code, got, tc.want)
		}
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, l, Config{Host: "site.example", Log: slog.New(slog.DiscardHandler), Answer: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/proof" {
					w.WriteHeader(http.StatusTeapot)
					return
				}
				next.ServeHTTP(w, r)
			})
		}})
	}()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for path, want := range map[string]int{"/proof": http.StatusTeapot, "/": http.StatusPermanentRedirect} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want || !resp.Close {
			t.Errorf("%s: %d, the connection ends: %v", path, resp.StatusCode, resp.Close)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v", err)
	}
}
