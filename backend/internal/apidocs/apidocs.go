// Package apidocs is the page that shows the API's OpenAPI document to people:
// Swagger UI from files that are part of the binary. It loads nothing from
// elsewhere and sends nothing anywhere; it is for reading, so that nobody types a
// credential into it.
package apidocs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"
)

// Path is where the page is. It shows /openapi.json of the same listener.
const Path = "/docs/"

// Version of Swagger UI. update.sh puts another one in its place.
const Version = "5.35.0"

//go:embed page swagger-ui
var files embed.FS

// policy lets the page use its own files and the document, nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset is a file as it is sent: compressed when it is kept so.
type asset struct {
	content []byte
	gzipped bool
	kind    string
	tag     string
}

// New returns the handler of everything below Path.
func New() (http.Handler, error) {
	assets := make(map[string]asset)
	for name, file := range map[string]string{
		"":                     "page/index.html",
		"page.js":              "page/page.js",
		"swagger-ui.css":       "swagger-ui/swagger-ui.css.gz",
		"swagger-ui-bundle.js": "swagger-ui/swagger-ui-bundle.js.gz",
		"LICENSE":              "swagger-ui/LICENSE",
		"LICENSES-OF-BUNDLED":  "swagger-ui/swagger-ui-bundle.js.LICENSE.txt",
		"NOTICE":               "swagger-ui/NOTICE",
	} {
		content, err := files.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("API page: %w", err)
		}
		plain, gzipped := strings.CutSuffix(file, ".gz")
		sum := sha256.Sum256(content)
		a := asset{content: content, gzipped: gzipped, tag: base64.RawURLEncoding.EncodeToString(sum[:12])}
		switch path.Ext(plain) {
		case ".html":
			a.kind = "text/html; charset=utf-8"
		case ".js":
			a.kind = "text/javascript; charset=utf-8"
		case ".css":
			a.kind = "text/css; charset=utf-8"
		default:
			a.kind = "text/plain; charset=utf-8"
		}
		assets[name] = a
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := assets[strings.TrimPrefix(r.URL.Path, Path)]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		a.serve(w, r)
	}), nil
}

func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache") // kept, but asked about each time
	content, tag := a.content, a.tag
	if a.gzipped {
		h.Set("Vary", "Accept-Encoding")
		if accepts(r.Header.Get("Accept-Encoding")) {
			h.Set("Content-Encoding", "gzip")
		} else {
			tag += "-plain"
			var err error
			if content, err = unpack(content); err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
		}
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// accepts reports whether a client takes gzip, as all browsers do.
func accepts(encodings string) bool {
	for encoding := range strings.SplitSeq(encodings, ",") {
		name, quality, _ := strings.Cut(strings.TrimSpace(encoding), ";")
		if name == "gzip" && strings.ReplaceAll(quality, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

func unpack(content []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}
