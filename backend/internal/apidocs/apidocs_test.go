package apidocs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	handler, err := New()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestThePageHasAllThatItLoadsAndLoadsNothingFromElsewhere(t *testing.T) {
	page := get(t, Path)
	if page.Code != http.StatusOK || page.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("page: %d %v", page.Code, page.Header())
	}
	loads := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(page.Body.String(), -1)
	if len(loads) < 4 {
		t.Fatalf("the page loads %v", loads)
	}
	for _, load := range loads {
		switch {
		case load[1] == "data:," || load[1] == "../openapi.json":
		case strings.ContainsAny(load[1], ":/"):
			t.Errorf("the page loads %s", load[1])
		default:
			if w := get(t, Path+load[1], "Accept-Encoding", "br, gzip"); w.Code != http.StatusOK {
				t.Errorf("%s: %d", load[1], w.Code)
			}
		}
	}
	for _, name := range []string{"", "page.js"} {
		if text := get(t, Path+name).Body.String(); strings.Contains(text, "://") {
			t.Errorf("%q has an address in it: %s", name, text)
		}
	}
	policy := page.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("policy is %q", policy)
	}
}

func TestTheEmbeddedFilesAreThoseOfTheRelease(t *testing.T) {
	sums, err := os.ReadFile("swagger-ui/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for line := range strings.Lines(string(sums)) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		w := get(t, Path+name) // as it is for a client that takes no gzip
		if got := sha256.Sum256(w.Body.Bytes()); w.Code != http.StatusOK || hex.EncodeToString(got[:]) != want {
			t.Errorf("%s: %d, SHA-256 %x, want %s", name, w.Code, got, want)
		}
		files++
	}
	if files != 4 {
		t.Errorf("%d files have a checksum", files)
	}
	if !bytes.Contains(get(t, Path+"swagger-ui-bundle.js").Body.Bytes(), []byte(`"`+Version+`"`)) {
		t.Errorf("the bundle is not version %s", Version)
	}
}

func TestFilesAreSentAsTheyAreKept(t *testing.T) {
	packed := get(t, Path+"swagger-ui.css", "Accept-Encoding", "gzip, deflate, br")
	if packed.Header().Get("Content-Encoding") != "gzip" || packed.Header().Get("Vary") != "Accept-Encoding" {
		t.Errorf("headers are %v", packed.Header())
	}
	text, err := unpack(packed.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, encodings := range []string{"", "br", "gzip;q=0", "gzip; q=0"} {
		w := get(t, Path+"swagger-ui.css", "Accept-Encoding", encodings)
		if w.Header().Get("Content-Encoding") != "" || !bytes.Equal(w.Body.Bytes(), text) {
			t.Errorf("with %q: %v, %d bytes", encodings, w.Header(), w.Body.Len())
		}
		if w.Header().Get("ETag") == packed.Header().Get("ETag") {
			t.Error("both forms have one tag")
		}
	}
	if w := get(t, Path+"swagger-ui.css", "Accept-Encoding", "gzip", "If-None-Match", packed.Header().Get("ETag")); w.Code != http.StatusNotModified {
		t.Errorf("asked about again: %d", w.Code)
	}
	if w := get(t, Path+"../apidocs.go"); w.Code != http.StatusNotFound {
		t.Errorf("another file: %d", w.Code)
	}
	if _, err := io.ReadAll(packed.Body); err != nil {
		t.Error(err)
	}
}
