package gateway_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/wire"
)

// spoiled are the ways in which an upgrade can be wrong in one point.
var spoiled = []struct{ name, old, new string }{
	{"another path", "GET /tunnel ", "GET /elsewhere "},
	{"a slash behind the path", "GET /tunnel ", "GET /tunnel/ "},
	{"the path in capitals", "GET /tunnel ", "GET /TUNNEL "},
	{"a query", "GET /tunnel ", "GET /tunnel?x=1 "},
	{"a path above", "GET /tunnel ", "GET /x/../tunnel "},
	{"an encoded slash", "GET /tunnel ", "GET /tunnel%2f "},
	{"no sub-protocol", "Sec-WebSocket-Protocol: " + wire.SubProtocol + "\r\n", ""},
	{"another sub-protocol", wire.SubProtocol, "mqtt"},
	{"a later version", wire.SubProtocol, "httvps.v9"},
	{"no upgrade", "Upgrade: websocket\r\n", ""},
	{"another upgrade", "Upgrade: websocket", "Upgrade: h2c"},
	{"no connection header", "Connection: Upgrade\r\n", ""},
	{"WebSocket of another version", "Version: 13", "Version: 8"},
	{"no version", "Sec-WebSocket-Version: 13\r\n", ""},
	{"no key", "Sec-WebSocket-Key: " + goodKey + "\r\n", ""},
	{"a short key", goodKey, "c2hvcnQ="},
	{"a key that is none", goodKey, "!!!!"},
	{"POST", "GET /", "POST /"},
	{"HEAD", "GET /", "HEAD /"},
	{"HTTP/1.0", "HTTP/1.1", "HTTP/1.0"},
	{"no Host", "Host: ", "X-Host: "},
	{"an empty Host", "Host: 127.0.0.1", "Host:\r\nX-Port: "},
	{"another Host", "Host: 127.0.0.1", "Host: other.example"},
}

// corpus is what strangers send to a gateway under host.
func corpus(t *testing.T, host string) []probe {
	t.Helper()
	var all []probe
	// add adds a request over TLS.
	add := func(name string, send ...string) { all = append(all, probe{name: name, send: send}) }
	simple := func(line string, headers ...string) string {
		return line + "\r\nHost: " + host + "\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	}

	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "BREW", "get"} {
		for _, path := range []string{"/", "/index.html", "/nothing", "/tunnel", "/sub", "/bare/", "/picture.bin"} {
			add(method+" "+path, simple(method+" "+path+" HTTP/1.1", "Content-Length: 0"))
		}
	}
	add("OPTIONS *", simple("OPTIONS * HTTP/1.1"))
	add("CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
	add("as a proxy", "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
	add("as a proxy to itself", simple("GET https://"+host+"/tunnel HTTP/1.1"))
	for _, header := range []string{
		"Range: bytes=0-9", "Range: bytes=9-0", "Range: bytes=-5", "If-Modified-Since: Sun, 01 Mar 2099 12:00:00 GMT",
		"If-None-Match: *", "Accept-Encoding: gzip", "Connection: close", "Connection: keep-alive", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
	} {
		add("GET with "+header, simple("GET / HTTP/1.1", header))
	}

	const upgradeHeaders = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + goodKey + "\r\n"
	add("a plain WebSocket", simple("GET / HTTP/1.1", strings.TrimSuffix(upgradeHeaders, "\r\n")))
	add("the tunnel's request without a knock", request(host, "Cookie: ", "X-Cookie: "))
	add("frames behind it", request(host, "Cookie: ", "X-Cookie: "), "\x82\x85\x00\x00\x00\x00hello")
	add("a front without a knock", request(frontHost, "Cookie: ", "X-Cookie: "))
	add("a front with a knock for the URL", upgrade(frontHost, goodCookie(host)))
	add("a front's other port", request(frontHost+":8443"))
	for _, s := range spoiled {
		add("no knock and "+s.name, request(host, "Cookie: ", "X-Cookie: ", s.old, s.new))
		add("a good knock and "+s.name, request(host, s.old, s.new))
	}
	all = append(all, knocked(host)...)
	for _, path := range []string{"/", "/nothing", "/tunnel", "/sub/"} {
		add("a good knock for the page "+path, simple("GET "+path+" HTTP/1.1", "Cookie: "+goodCookie(host)))
	}

	for name, text := range map[string]string{
		"no Host":                 "GET / HTTP/1.1\r\n\r\n",
		"two Hosts":               "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"a Host that is none":     "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
		"no name of a header":     simple("GET / HTTP/1.1", ": x"),
		"a space before the :":    simple("GET / HTTP/1.1", "X : y"),
		"a folded line":           simple("GET / HTTP/1.1", "X: y\r\n z"),
		"NUL in a header":         simple("GET / HTTP/1.1", "X: a\x00b"),
		"8 bits in a header":      simple("GET / HTTP/1.1", "X: \xff\xfe"),
		"lines that end with LF":  "GET / HTTP/1.1\nHost: a\n\n",
		"a long URI":              simple("GET /" + strings.Repeat("a", 12<<10) + " HTTP/1.1"),
		"too long a URI":          simple("GET /" + strings.Repeat("a", 40<<10) + " HTTP/1.1"),
		"a long header":           simple("GET / HTTP/1.1", "X: "+strings.Repeat("a", 12<<10)),
		"too long a header":       simple("GET / HTTP/1.1", "X: "+strings.Repeat("a", 40<<10)),
		"a thousand headers":      simple("GET / HTTP/1.1", slices.Repeat([]string{"X: y"}, 1000)...),
		"too many headers":        simple("GET / HTTP/1.1", slices.Repeat([]string{"X: y"}, 10_000)...),
		"a thousand cookies":      simple("GET / HTTP/1.1", slices.Repeat([]string{"Cookie: sid=1"}, 1000)...),
		"a long cookie":           simple("GET / HTTP/1.1", "Cookie: sid="+strings.Repeat("A", 12<<10)),
		"too long a cookie":       request(host, "Cookie: ", "Cookie: sid="+strings.Repeat("A", 40<<10)+"; "),
		"a negative length":       simple("POST / HTTP/1.1", "Content-Length: -1"),
		"two lengths":             simple("POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 2") + "ab",
		"a length and chunks":     simple("POST / HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked") + "0\r\n\r\n",
		"an unknown coding":       simple("POST / HTTP/1.1", "Transfer-Encoding: gzip"),
		"chunks":                  simple("POST / HTTP/1.1", "Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n",
		"bad chunks":              simple("POST / HTTP/1.1", "Transfer-Encoding: chunked") + "x\r\nhello\r\n",
		"a body":                  simple("POST / HTTP/1.1", "Content-Length: 5") + "hello",
		"a body for the tunnel":   request(host, "Cookie: ", "Content-Length: 5\r\nX-Cookie: ") + "hello",
		"a body of 1 MiB":         simple("POST /nothing HTTP/1.1", fmt.Sprint("Content-Length: ", 1<<20)) + strings.Repeat("x", 1<<20),
		"Expect":                  simple("POST / HTTP/1.1", "Expect: 100-continue", "Content-Length: 5") + "hello",
		"Expect without the body": simple("POST / HTTP/1.1", "Expect: 100-continue", "Content-Length: 5"),
		"Expect something else":   simple("POST / HTTP/1.1", "Expect: a miracle", "Content-Length: 5") + "hello",
		"Expect and upgrade":      request(host, "Cookie: ", "Expect: 100-continue\r\nX-Cookie: "),
		"HTTP/1.0":                "GET / HTTP/1.0\r\n\r\n",
		"HTTP/1.0 with Host":      "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
		"HTTP/1.0 kept":           "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"HTTP/0.9":                "GET /\r\n\r\n",
		"HTTP/1.2":                simple("GET / HTTP/1.2"),
		"HTTP/2.0 in text":        simple("GET / HTTP/2.0"),
		"HTTP/9.9":                simple("GET / HTTP/9.9"),
		"http in lower case":      simple("GET / http/1.1"),
		"no version":              "GET / \r\nHost: a\r\n\r\n",
		"two spaces":              simple("GET  / HTTP/1.1"),
		"no path":                 simple("GET HTTP/1.1"),
		"a path without a slash":  simple("GET tunnel HTTP/1.1"),
		"a path with a bad %":     simple("GET /%zz HTTP/1.1"),
		"a path with NUL":         simple("GET /%00 HTTP/1.1"),
		"a path up and out":       simple("GET /../../etc/passwd HTTP/1.1"),
		"a path encoded up":       simple("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1"),
		"a backslash":             simple("GET /..\\x HTTP/1.1"),
		"an empty line first":     "\r\n" + simple("GET / HTTP/1.1"),
		"a very long method":      simple(strings.Repeat("M", 4000) + " / HTTP/1.1"),
		"a strange method":        simple("G(T / HTTP/1.1"),
		"nothing but line ends":   "\r\n\r\n\r\n\r\n",
		"HTTP/2 where it is not":  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, ""),
		"metrics":                 simple("GET /metrics HTTP/1.1"),
		"readiness":               simple("GET /readyz HTTP/1.1"),
		"a control plane's API":   simple("GET /api/v1/health HTTP/1.1"),
		"two requests":            simple("GET / HTTP/1.1") + simple("GET /nothing HTTP/1.1"),
		"ten requests":            strings.Repeat(simple("GET / HTTP/1.1"), 10),
		"a good and a bad one":    simple("GET / HTTP/1.1") + "nonsense\r\n\r\n",
		"HEAD and GET":            simple("HEAD / HTTP/1.1") + simple("GET /nothing HTTP/1.1"),
		"one behind the end":      simple("GET / HTTP/1.1", "Connection: close") + simple("GET / HTTP/1.1"),
		"the tunnel behind a GET": simple("GET / HTTP/1.1") + request(host, "Cookie: ", "X-Cookie: "),
		"two tunnels":             strings.Repeat(request(host, "Cookie: ", "X-Cookie: "), 2),
	} {
		add(name, text)
	}
	all = append(all, halves(host)...)
	all = append(all, noise(host)...)
	return append(all, http2(host)...)
}

// goodCookie is what a device of a control sends.
func goodCookie(host string) string {
	return knock.DefaultCookie + "=" + knock.Mint(hidden, host, time.Now())
}

// knocked are upgrades that are right but for their knock.
func knocked(host string) []probe {
	now := time.Now()
	good := knock.Mint(hidden, host, now)
	raw, _ := base64.RawURLEncoding.DecodeString(good) // we have just made it
	cookies := map[string]string{
		"empty":                     "sid=",
		"without a value":           "sid",
		"of another key":            "sid=" + knock.Mint(knock.Key{9}, host, now),
		"of the zero key":           "sid=" + knock.Mint(knock.Key{}, host, now),
		"17 minutes old":            "sid=" + knock.Mint(hidden, host, now.Add(-17*time.Minute)),
		"a day old":                 "sid=" + knock.Mint(hidden, host, now.AddDate(0, 0, -1)),
		"of 17 minutes ahead":       "sid=" + knock.Mint(hidden, host, now.Add(17*time.Minute)),
		"of 1970":                   "sid=" + knock.Mint(hidden, host, time.Unix(0, 0)),
		"for another host":          "sid=" + knock.Mint(hidden, "other.example", now),
		"for another port":          "sid=" + knock.Mint(hidden, "127.0.0.1:1", now),
		"for no port":               "sid=" + knock.Mint(hidden, "127.0.0.1", now),
		"cut short":                 "sid=" + good[:43],
		"too long":                  "sid=" + good + "A",
		"with padding":              "sid=" + good + "=",
		"twice in one":              "sid=" + good + good,
		"in quotes":                 `sid="` + good + `"`,
		"behind a space":            "sid= " + good,
		"in capitals":               "sid=" + strings.ToUpper(good),
		"in other base64":           "sid=" + strings.NewReplacer("-", "+", "_", "/").Replace(good[:43]) + "+",
		"with spare bits":           "sid=" + good[:43] + "/",
		"with a line end":           "sid=" + good[:20] + "%0a" + good[20:41],
		"in a cookie in capitals":   "SID=" + good,
		"in a cookie of another":    "session=" + good,
		"behind another":            "a=b; c=d; sid=x",
		"behind an empty one":       "sid=; sid=" + good,
		"behind one that is none":   "sid=x; sid=" + good,
		"in a second line":          "sid=x\r\nCookie: sid=" + good,
		"with commas":               "a=b, sid=" + good,
		"44 zeros":                  "sid=" + strings.Repeat("A", 44),
		"in a cookie with the path": "sid=" + good + ", $Path=/",
		"with 8 bits":               "sid=" + strings.Repeat("\xff", 44),
	}
	for i := range raw {
		flipped := slices.Clone(raw)
		flipped[i] ^= 1 << (i % 8)
		cookies[fmt.Sprint("with byte ", i, " changed")] = "sid=" + base64.RawURLEncoding.EncodeToString(flipped)
	}
	var all []probe
	for name, cookie := range cookies {
		all = append(all, probe{name: "a knock " + name, send: []string{upgrade(host, cookie)}})
	}
	all = append(all,
		probe{name: "the knock in another header", send: []string{request(host, "Cookie: ", "Authorization: ")}},
		probe{name: "the knock in the query", send: []string{request(host, "Cookie: ", "X-Cookie: ", "GET /tunnel ", "GET /tunnel?sid="+good+" ")}})
	return all
}

// halves are requests that break off.
func halves(host string) []probe {
	var all []probe
	for name, text := range map[string]string{
		"without a knock": request(host, "Cookie: ", "X-Cookie: "),
		"with a knock":    request(host),
		"a body":          "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 400),
	} {
		for _, cut := range []int{0, 1, 3, 10, 40, 100, len(text) / 2, len(text) - 3, len(text) - 1} {
			p := probe{name: fmt.Sprint("the first ", cut, " bytes ", name), send: []string{text[:cut]}, finish: closeWrite}
			all = append(all, p)
			p.name, p.finish = p.name+", cut", cutWrite
			all = append(all, p)
		}
	}
	slow := request(host, "Cookie: ", "X-Cookie: ")
	return append(all,
		probe{name: "in pieces", send: strings.SplitAfter(slow, "\r\n")},
		probe{name: "half a head and silence", send: []string{slow[:50]}, patient: true},
		probe{name: "half a head with a knock and silence", send: []string{request(host)[:250]}, patient: true},
		probe{name: "TLS and silence", patient: true},
		probe{name: "TCP and silence", plain: true, patient: true},
		probe{name: "half a body and silence", send: []string{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"}, patient: true},
	)
}

// noise is what is no HTTP over TLS.
func noise(host string) []probe {
	plain := map[string]string{
		"HTTP on the port of HTTPS":      "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"POST on the port of HTTPS":      "POST / HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"the tunnel on port of HTTPS":    request(host),
		"SSH":                            "SSH-2.0-OpenSSH_9.9\r\n",
		"SOCKS5":                         "\x05\x01\x00",
		"SMTP":                           "EHLO example.com\r\n",
		"HTTP/2 without TLS":             "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"a TLS record of no kind":        "\x99\x03\x03\x00\x05hello",
		"a TLS record of SSL 3":          "\x16\x03\x00\x00\x05hello",
		"a TLS record that is too long":  "\x16\x03\x01\xff\xff" + strings.Repeat("x", 100),
		"a TLS alert":                    "\x15\x03\x01\x00\x02\x02\x28",
		"TLS data before its handshake":  "\x17\x03\x03\x00\x05hello",
		"an empty TLS record":            "\x16\x03\x01\x00\x00",
		"a ClientHello that is none":     "\x16\x03\x01\x00\x08\x01\x00\x00\x04abcd",
		"another message than that":      "\x16\x03\x01\x00\x08\x02\x00\x00\x04abcd",
		"an SSL 2 hello":                 "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + strings.Repeat("\x01", 37),
		"a ClientHello of endless parts": strings.Repeat("\x16\x03\x01\x00\x01\x01", 40),
		"a megabyte of zeros":            strings.Repeat("\x00", 1<<20),
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 16 {
		text := make([]byte, 1+random.IntN(600))
		for j := range text {
			text[j] = byte(random.Uint32())
		}
		plain[fmt.Sprint("random bytes ", i)] = string(text)
	}
	var all []probe
	for name, text := range plain {
		all = append(all,
			probe{name: name, plain: true, send: []string{text}},
			probe{name: name + ", and the end", plain: true, send: []string{text}, finish: closeWrite})
	}
	for i := range 8 {
		text := make([]byte, 1+random.IntN(600))
		for j := range text {
			text[j] = byte(random.Uint32())
		}
		all = append(all, probe{name: fmt.Sprint("random bytes in TLS ", i), send: []string{string(text)}, finish: closeWrite})
	}
	get := []string{"GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"}
	return append(all,
		probe{name: "TLS 1.2", tls: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		probe{name: "no ALPN", alpn: []string{}, send: get},
		probe{name: "ALPN of nobody's", alpn: []string{"h3"}},
		probe{name: "our own name as ALPN", alpn: []string{wire.SubProtocol}},
		probe{name: "our own name first", alpn: []string{wire.SubProtocol, "http/1.1"}, send: get},
		probe{name: "another name in TLS", send: get, tls: func(c *tls.Config) { c.ServerName = "other.example" }},
		probe{name: "another curve", send: get, tls: func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} }},
		probe{name: "nothing but TLS", finish: closeWrite},
		probe{name: "nothing but TLS, cut", finish: cutWrite},
	)
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frame is one of HTTP/2.
func frame(kind, flags byte, stream uint32, payload string) string {
	head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return string(binary.BigEndian.AppendUint32(head, stream)) + payload
}

// fields is a header block of HTTP/2: literals that are not indexed.
func fields(pairs ...string) string {
	var block strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		block.WriteByte(0)
		for _, text := range pairs[i : i+2] {
			if len(text) < 127 {
				block.WriteByte(byte(len(text)))
			} else {
				block.WriteString("\x7f" + string([]byte{byte(len(text)-127)&0x7f | 0x80, byte((len(text) - 127) >> 7)}))
			}
			block.WriteString(text)
		}
	}
	return block.String()
}

// http2 are requests of HTTP/2 and what only looks like them.
func http2(host string) []probe {
	const headers, data, settings, endStream, endHeaders = 1, 0, 4, 1, 4
	ask := func(method, path string, more ...string) string {
		return frame(headers, endStream|endHeaders, 1, fields(append([]string{":method", method, ":scheme", "https", ":authority", host, ":path", path}, more...)...))
	}
	upgrade := []string{"sec-websocket-version", "13", "sec-websocket-protocol", wire.SubProtocol}
	texts := map[string]string{
		"GET /":             ask("GET", "/"),
		"GET /nothing":      ask("GET", "/nothing"),
		"GET /tunnel":       ask("GET", "/tunnel"),
		"HEAD /":            ask("HEAD", "/"),
		"POST /":            ask("POST", "/"),
		"OPTIONS *":         ask("OPTIONS", "*"),
		"CONNECT":           frame(headers, endHeaders, 1, fields(":method", "CONNECT", ":authority", host)),
		"the tunnel":        ask("GET", "/tunnel", upgrade...),
		"the tunnel, knock": ask("GET", "/tunnel", append(upgrade, "cookie", goodCookie(host))...),
		"WebSocket": frame(headers, endHeaders, 1, fields(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https",
			":authority", host, ":path", "/tunnel", "sec-websocket-protocol", wire.SubProtocol, "cookie", goodCookie(host))),
		"an Upgrade header":  ask("GET", "/tunnel", "upgrade", "websocket", "connection", "upgrade"),
		"a name in capitals": ask("GET", "/", "X", "y"),
		"no path":            frame(headers, endStream|endHeaders, 1, fields(":method", "GET", ":scheme", "https", ":authority", host)),
		"data first":         frame(data, endStream, 1, "hello"),
		"data on stream 0":   frame(data, 0, 0, "hello"),
		"an even stream":     frame(headers, endStream|endHeaders, 2, fields(":method", "GET", ":scheme", "https", ":authority", host, ":path", "/")),
		"a bad header block": frame(headers, endStream|endHeaders, 1, "\xff\xff\xff\xff\xff\xff"),
		"too large a frame":  "\x01\x00\x01\x00\x00\x00\x00\x00\x01" + strings.Repeat("x", 1<<16+1),
		"bad settings":       frame(settings, 0, 0, "abc"),
		"a ping":             frame(6, 0, 0, "12345678"),
		"an unknown frame":   frame(0x77, 0, 0, "x") + ask("GET", "/"),
		"a window of 0":      frame(settings, 0, 0, "\x00\x04\x00\x00\x00\x00") + ask("GET", "/"),
		"a window too large": frame(8, 0, 0, "\x7f\xff\xff\xff"),
		"a reset of nothing": frame(3, 0, 1, "\x00\x00\x00\x08"),
	}
	var all []probe
	for name, text := range texts {
		all = append(all, probe{name: "HTTP/2: " + name, alpn: []string{"h2"}, send: []string{preface + frame(settings, 0, 0, "") + text}})
	}
	return append(all,
		probe{name: "HTTP/2: no settings", alpn: []string{"h2"}, send: []string{preface + ask("GET", "/")}},
		probe{name: "HTTP/2: text instead", alpn: []string{"h2"}, send: []string{"GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"}},
		probe{name: "HTTP/2: half a preface", alpn: []string{"h2"}, send: []string{preface[:10]}, finish: closeWrite},
		probe{name: "HTTP/2: nothing", alpn: []string{"h2"}, finish: closeWrite},
	)
}
