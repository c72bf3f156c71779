package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/ticket"
)

// credentials returns a good one of each kind.
func (f *fixture) credentials(t *testing.T) map[string]string {
	t.Helper()
	id, key := f.enrol(t)
	identity, now := f.authority.Identity(), time.Now()
	access, err := ticket.NewSigner(f.signingKey(t), identity.Issuer, identity.ServiceID).Sign(ticket.Claims{
		ID: "j", Device: id, Generation: 1, KeyThumbprint: ticket.Thumbprint(public(key)), IssuedAt: now, ExpiresAt: now.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"device": access, "gateway": f.assertion, "operator": f.token}
}

// parameters returns the names of each operation's query parameters and headers,
// by its method and path.
func parameters(t *testing.T) (queries, headers map[string][]string) {
	t.Helper()
	document, err := httpapi.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ In, Name string }
		}
	}
	if err := json.Unmarshal(document, &api); err != nil {
		t.Fatal(err)
	}
	queries, headers = make(map[string][]string), make(map[string][]string)
	for path, methods := range api.Paths {
		for method, op := range methods {
			key := strings.ToUpper(method) + " " + path
			for _, p := range op.Parameters {
				switch p.In {
				case "query":
					queries[key] = append(queries[key], p.Name)
				case "header":
					headers[key] = append(headers[key], p.Name)
				}
			}
		}
	}
	return queries, headers
}

// garbage draws bodies that are no JSON, nearly JSON, or JSON that is hard to read.
func garbage() *rapid.Generator[string] {
	nested := func(open, inner, end string) *rapid.Generator[string] {
		return rapid.Map(rapid.SampledFrom([]int{10, 1000, 10000, 20000}), func(n int) string {
			n = min(n, (60<<10)/(len(open)+len(end)))
			return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
		})
	}
	return rapid.OneOf(
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 200), func(b []byte) string { return string(b) }),
		nested("[", "", "]"), nested(`{"a":`, "1", "}"), nested("[", "", ""), nested(`{"name":[`, `"x"`, "]}"),
		rapid.Map(rapid.IntRange(1, 5000), func(n int) string { return "1" + strings.Repeat("0", n) }),
		rapid.SampledFrom([]string{
			"\xef\xbb\xbf{}", "{\"name\":\"\xff\xfe\"}", "{\"\xff\":1}", "{\"name\":\"\x00\"}", `{"name":"\u0000"}`, `{"name":"\ud800"}`, `{"name":"\udfff\ud800"}`,
			"\x00", "{}\x00", "null", "true", `"x"`, "1e400", "-0", `{"name":1e400}`, `{"name":"a","name":"b"}`, `{"NAME":"a"}`, `{"":""}`, `{"name":}`, "{,}", "[1,]",
			`{"__proto__":{}}`, `{"name":{"$ref":"#"}}`, "NaN", "Infinity", "{'name':'a'}", "name: a", "<a/>", "\u2028", " \t\r\n",
		}),
	)
}

func TestGarbageIsRefusedByEveryOperationOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testGarbage(t, open(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { testGarbage(t, openOn(t, store.Config{URL: storetest.Database(t)})) })
}

func testGarbage(t *testing.T, f *fixture) {
	t.Helper()
	credentials, schemes := f.credentials(t), make(map[string]string)
	for _, op := range securedOperations(t) {
		schemes[op.method+" "+op.path] = op.scheme
	}
	queries, headers := parameters(t)
	for _, op := range operations(t) {
		key := op.method + " " + op.path
		t.Run(key, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				f.throw(t.Context(), rt, op, credentials[schemes[key]], queries[key], headers[key])
			})
		})
	}
}

// throw sends something that nobody would send, or nearly, and fails unless the
// answer is one that the API gives.
func (f *fixture) throw(ctx context.Context, rt *rapid.T, op operation, credential string, queries, headers []string) {
	text := rapid.OneOf(
		rapid.String(), rapid.SampledFrom([]string{
			"", "\x00", "\xff", "%", "%00", "'", "' OR 1=1 --", "../..", strings.Repeat("a", 5000), "-1", "0", "501", "99999999999999999999", "1e9", "live", "ended",
			"01890000-0000-7000-8000-000000000000", strings.Repeat("-", 36), strings.Repeat("0", 36), strings.Repeat("0", 32), "\u202e", "Ω", "ſ", "K",
		}),
	)
	path := op.path
	for strings.Contains(path, "{") {
		before, rest, _ := strings.Cut(path, "{")
		_, after, _ := strings.Cut(rest, "}")
		path = before + url.PathEscape(text.Draw(rt, "segment")) + after
	}
	query := url.Values{}
	for range rapid.IntRange(0, 3).Draw(rt, "arguments") {
		query.Add(rapid.SampledFrom(append([]string{"x", "limit[]", "Limit"}, queries...)).Draw(rt, "parameter"), text.Draw(rt, "argument"))
	}
	raw := query.Encode()
	if rapid.IntRange(0, 9).Draw(rt, "raw query") == 0 {
		raw = strings.Map(func(r rune) rune { // what a request line cannot hold never gets here
			if r <= ' ' || r == 0x7f {
				return '%'
			}
			return r
		}, rapid.String().Draw(rt, "query"))
	}
	body := garbage().Draw(rt, "body")
	if len(op.fields) > 0 {
		switch rapid.IntRange(0, 3).Draw(rt, "nearly") {
		case 0:
			body = op.draw(rt, f)
		case 1: // a good one with some bytes changed
			bytes := []byte(op.draw(rt, f))
			for range rapid.IntRange(1, 3).Draw(rt, "changes") {
				bytes[rapid.IntRange(0, len(bytes)-1).Draw(rt, "where")] = rapid.Byte().Draw(rt, "byte")
			}
			body = string(bytes)
		}
	}
	r := httptest.NewRequestWithContext(ctx, op.method, f.prefix+path, strings.NewReader(body))
	r.URL.RawQuery = raw
	if kind := rapid.SampledFrom([]string{
		"application/json", "application/json", "application/json; charset=utf-16", "", "text/plain", "application/x-www-form-urlencoded",
		"multipart/form-data; boundary=x", "application/cbor", "application/problem+json", "application/json, text/html", ";", "\xff", "a/b/c", strings.Repeat("x", 3000),
	}).Draw(rt, "content type"); kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	if credential != "" {
		r.Header.Set("Authorization", "Bearer "+credential)
	}
	for _, name := range headers {
		if rapid.Bool().Draw(rt, "with header") {
			r.Header.Set(name, text.Draw(rt, "header"))
		}
	}
	r.Header.Set("Accept", rapid.SampledFrom([]string{"*/*", "", "application/json", "application/cbor", "text/html", "x", "\xff;q=9"}).Draw(rt, "accept"))
	if length := rapid.SampledFrom([]int64{r.ContentLength, -1}).Draw(rt, "length"); length < 0 {
		r.ContentLength = -1 // as when it comes in chunks
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	if w.Code >= http.StatusInternalServerError || w.Code < http.StatusOK {
		rt.Fatalf("%s %s?%s with %q: %d %s\n%s", op.method, path, raw, body, w.Code, w.Body, f.log)
	}
	if w.Code >= http.StatusBadRequest {
		var p httpapi.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code == "" || p.Status != w.Code {
			rt.Fatalf("%s %s: %d is no problem: %s", op.method, path, w.Code, w.Body)
		}
	}
}

// What is not HTTP, or breaks off, never reaches a handler whole.
func TestBrokenRequestsAreAnsweredOrDropped(t *testing.T) {
	f := open(t)
	server := httptest.NewUnstartedServer(f.handler)
	server.Config.ReadHeaderTimeout = time.Second
	server.Start()
	defer server.Close()
	post := "POST " + f.prefix + "/api/v1/admin/users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + f.token + "\r\nContent-Type: application/json\r\n"
	for name, request := range map[string]string{
		"chunks that are none":              post + "Transfer-Encoding: chunked\r\n\r\nhello\r\n",
		"a chunk with a negative length":    post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
		"a chunk of endless length":         post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n",
		"a chunk's length of 20 digits":     post + "Transfer-Encoding: chunked\r\n\r\n11111111111111111111\r\n{}\r\n",
		"a chunk without its end":           post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
		"half of the chunks":                post + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"na\r\n",
		"a chunk's extension of 100 KB":     post + "Transfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 100<<10) + "\r\n{}\r\n0\r\n\r\n",
		"both kinds of length":              post + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":                       post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"a negative length":                 post + "Content-Length: -1\r\n\r\n{}",
		"a length that is no number":        post + "Content-Length: 0x2\r\n\r\n{}",
		"an unknown transfer encoding":      post + "Transfer-Encoding: gzip\r\n\r\n{}",
		"less than was announced":           post + "Content-Length: 100\r\n\r\n{\"name\":",
		"a header without a colon":          post + "oops\r\n\r\n",
		"a header's name with a space":      post + "Content Length: 2\r\n\r\n{}",
		"a zero byte in a header":           post + "X: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
		"a folded header":                   post + "X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
		"2 MB of headers":                   post + "X: " + strings.Repeat("a", 2<<20) + "\r\n\r\n",
		"100,000 headers":                   post + strings.Repeat("X: a\r\n", 100000) + "\r\n",
		"no host":                           strings.Replace(post, "Host: x\r\n", "", 1) + "Content-Length: 2\r\n\r\n{}",
		"two hosts":                         post + "Host: y\r\nContent-Length: 2\r\n\r\n{}",
		"another protocol":                  "SSH-2.0-x\r\n\r\n",
		"a preface of HTTP/2":               "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"zero bytes":                        strings.Repeat("\x00", 1000),
		"a TLS hello":                       "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x07", 200),
		"a path with a space":               strings.Replace(post, "users", "us ers", 1) + "\r\n",
		"a path that climbs":                strings.Replace(post, "/api/v1/admin/users", "/../../../../etc/passwd", 1) + "Content-Length: 2\r\n\r\n{}",
		"an absolute address":               strings.Replace(post, "POST ", "POST http://evil.example", 1) + "Content-Length: 2\r\n\r\n{}",
		"a body that asks to be waited for": post + "Expect: 200-maybe\r\nContent-Length: 2\r\n\r\n{}",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, request) // the server may hang up before it has all
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // likewise
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return // dropped
			}
			defer answer.Body.Close()
			text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
			if strings.Contains(string(text), `"timeout"`) {
				return // we hung up before the service could answer
			}
			if answer.StatusCode >= 500 && answer.StatusCode != http.StatusNotImplemented && answer.StatusCode != http.StatusHTTPVersionNotSupported || answer.StatusCode < 300 {
				t.Errorf("answer is %d %s", answer.StatusCode, text)
			}
		})
	}
	if strings.Contains(f.log.String(), "panicked") {
		t.Errorf("a handler panicked: %s", f.log)
	}
}
