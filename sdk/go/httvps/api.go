package httvps

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	maxBody     = 1 << 20
	maxNonce    = 1024
	maxGateways = 64
	maxDevices  = 100
	maxContact  = 200 // characters
	callTimeout = 20 * time.Second
)

// NetDial opens a TCP connection. A program on a phone gives one that keeps the
// socket out of the tunnel it is about to build.
type NetDial func(ctx context.Context, network, address string) (net.Conn, error)

// api calls the device API on whichever way to it there is.
type api struct {
	bases  []string
	http   *http.Client
	around func() []way // further ways, for when none of the bases answers; nil: none
}

func newAPI(bases []string, pin string, dial NetDial) (*api, error) {
	config, err := tlsConfigs(pin)
	if err != nil {
		return nil, err
	}
	return &api{bases: bases, http: newHTTP(config, dial)}, nil
}

// newHTTP returns a client that knows hosts by config.
func newHTTP(config func(host string) *tls.Config, dial NetDial) *http.Client {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:       nil, // the environment's proxies are for other traffic
			DialContext: dial,
			// A pinned configuration serves one host, so each dial makes its own.
			DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				host, _, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				raw, err := dial(ctx, network, address)
				if err != nil {
					return nil, err
				}
				conn := tls.Client(raw, config(host))
				if err := conn.HandshakeContext(ctx); err != nil {
					_ = raw.Close()
					return nil, err
				}
				return conn, nil
			},
			ResponseHeaderTimeout:  15 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// tlsConfigs returns a maker of TLS configurations for a host: against the pin
// when there is one, else against the system's authorities.
func tlsConfigs(pin string) (func(host string) *tls.Config, error) {
	if pin == "" {
		return func(host string) *tls.Config {
			return &tls.Config{MinVersion: tls.VersionTLS13, ServerName: host}
		}, nil
	}
	p, err := tlspin.Parse(pin)
	if err != nil {
		return nil, err
	}
	return func(host string) *tls.Config { return tlspin.Config(p, host) }, nil
}

// call makes one request on a way and decodes a 2xx answer into out. Any other answer
// is a *RefusedError when it is a problem document, else mostly a *StrangerError.
func call(ctx context.Context, on way, method, path, bearer string, in, out any) error {
	if on.cookie == nil {
		return request(ctx, on, "", method, path, bearer, in, out)
	}
	cookie, made := on.cookie()
	err := request(ctx, on, cookie, method, path, bearer, in, out)
	if on.corrected(err, made) {
		cookie, _ = on.cookie()
		err = request(ctx, on, cookie, method, path, bearer, in, out)
	}
	return err
}

func request(ctx context.Context, on way, cookie, method, path, bearer string, in, out any) error {
	var body io.Reader
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, on.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	resp, err := on.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if len(answer) > maxBody {
		return strange("the answer is over %d bytes", maxBody)
	}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		media = ""
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return problem(resp, req.URL.Host, media, answer)
	}
	if media != "application/json" {
		return strange("HTTP %d without JSON", resp.StatusCode)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return strange("the answer is not the JSON that was expected")
	}
	return nil
}

// problem turns an error answer into an error.
func problem(resp *http.Response, host, media string, answer []byte) error {
	var doc struct {
		Code    string   `json:"code"`
		Devices []Device `json:"devices"`
		Support string   `json:"support"`
	}
	if media != "application/problem+json" || json.Unmarshal(answer, &doc) != nil || !isCode(doc.Code) {
		if resp.StatusCode >= http.StatusInternalServerError {
			// What stands in front of the service says so while it is away.
			return fmt.Errorf("HTTP %d without a reason: the service is not working", resp.StatusCode)
		}
		date, _ := http.ParseTime(resp.Header.Get("Date")) // zero: it did not say
		return &StrangerError{Err: &unreasonedError{status: resp.StatusCode, date: date}}
	}
	refused := &RefusedError{Code: doc.Code, By: host, Devices: doc.Devices[:min(len(doc.Devices), maxDevices)], Support: contact(doc.Support)}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		refused.RetryAfter = min(time.Duration(min(seconds, 1<<20))*time.Second, maxRetryAfter)
	}
	return refused
}

// unreasonedError is an answer other than success that gives no reason.
type unreasonedError struct {
	status int
	date   time.Time // of the other end's clock; zero when it did not say
}

func (e *unreasonedError) Error() string { return fmt.Sprintf("HTTP %d without a reason", e.status) }

// isCode reports whether s looks like a reason code, so that whatever a
// stranger put there is not shown to people.
func isCode(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// contact is what a service says whom to turn to, or nothing when it is not one line
// that people can be shown: a stranger may have put it there.
func contact(text string) string {
	if !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxContact {
		return ""
	}
	for _, r := range text {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return ""
		}
	}
	return text
}

// challenge asks for a nonce to sign.
func challenge(ctx context.Context, on way) (text string, nonce []byte, err error) {
	var answer struct {
		Nonce string `json:"nonce"`
	}
	if err := call(ctx, on, http.MethodPost, "/api/v1/auth/challenge", "", struct{}{}, &answer); err != nil {
		return "", nil, err
	}
	nonce, err = base64.RawURLEncoding.DecodeString(answer.Nonce)
	if err != nil || len(nonce) == 0 || len(nonce) > maxNonce {
		return "", nil, strange("the answer has no valid nonce")
	}
	return answer.Nonce, nonce, nil
}

// errKey is what every error of the device key is: it lies on this end, and no
// other address helps.
var errKey = errors.New("sign with the device key")

// prove signs parts under a name that says what the signature is for, so that
// a signature made for one purpose is worth nothing for another.
func prove(key crypto.Signer, purpose string, parts ...[]byte) (string, error) {
	message := append([]byte("HTTVPS1 "+purpose), 0)
	for _, part := range parts {
		message = append(message, part...)
	}
	signature, err := key.Sign(nil, message, crypto.Hash(0))
	if err != nil {
		return "", fmt.Errorf("%w: %w", errKey, err)
	}
	return base64.RawURLEncoding.EncodeToString(signature), nil
}

// proven runs a call that signs a challenge, and runs it once more when the
// proof was not accepted: on a slow way the challenge may have aged.
func proven[T any](call func() (T, error)) (T, error) {
	value, err := call()
	if refused, ok := errors.AsType[*RefusedError](err); ok && judge(refused.Code) == freshToken {
		return call()
	}
	return value, err
}

// publicKey returns the public half of a device key.
func publicKey(key crypto.Signer) (ed25519.PublicKey, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok || len(public) != ed25519.PublicKeySize {
		return nil, errors.New("the device key is not an Ed25519 key")
	}
	return public, nil
}

// withoutURL strips what net/http puts around an error: the URL has the path
// under which the device API hides.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// hostOf returns the host of a URL and nothing else of it.
func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "?"
	}
	return u.Host
}
