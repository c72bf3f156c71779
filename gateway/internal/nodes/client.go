package nodes

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	maxAnswer   = 1 << 20 // bytes; the largest is a heartbeat's with 1,000 sessions to close
	callTimeout = 10 * time.Second
)

// StatusError is an answer of the control plane that is not a success.
type StatusError struct {
	Status int
	Code   string // the problem's stable code; empty when there was none
}

func (e *StatusError) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("the control plane answered %d", e.Status)
	}
	return fmt.Sprintf("the control plane answered %d: %s", e.Status, e.Code)
}

// permanent reports whether asking again the same way is pointless.
func (e *StatusError) permanent() bool {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false // a clock that is being set, a moment of load
	default:
		return e.Status >= 400 && e.Status < 500
	}
}

// api speaks JSON with one control plane.
type api struct {
	base string
	http *http.Client
	bear func() (string, error) // the credential of a request; nil: none
}

// Dial connects to a control plane in the same process. There is no network in
// between, so there is no TLS either.
type Dial func(ctx context.Context) (net.Conn, error)

// newHTTP returns a client for base's host alone, which it knows by pin, or by
// the public authorities when that is empty; or for the control plane that
// local reaches, unless that is nil.
func newHTTP(base *url.URL, pin string, local Dial) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if pin != "" {
		parsed, err := tlspin.Parse(pin)
		if err != nil {
			return nil, err
		}
		config = tlspin.Config(parsed, base.Hostname())
	}
	transport := &http.Transport{
		TLSClientConfig:        config,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    5 * time.Second,
		ResponseHeaderTimeout:  callTimeout,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    maxAsking,
		MaxResponseHeaderBytes: 32 << 10,
	}
	if local != nil {
		transport.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return local(ctx) }
	}
	return &http.Client{
		Timeout:   callTimeout,
		Transport: transport,
		// A credential goes to the host it was made for and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// asGateway returns the credential of a gateway, made anew for each request.
func asGateway(key ed25519.PrivateKey, id string) func() (string, error) {
	return func() (string, error) { return ticket.SignAssertion(key, id, time.Now()) }
}

// request makes a request with body (nil: none).
func (a *api) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var payload io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%s: encode: %w", path, err)
		}
		payload = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, payload)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.bear != nil {
		credential, err := a.bear()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	return req, nil
}

// endless is a client for answers that do not end by themselves. Their requests end
// with their context.
func (a *api) endless() *http.Client {
	client := *a.http
	client.Timeout = 0
	return &client
}

// call sends body (nil: none) and reads the answer into answer (nil: none).
func (a *api) call(ctx context.Context, method, path string, body, answer any) error {
	req, err := a.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", path, unwrapURL(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: read the answer: %w", path, err)
	case len(text) > maxAnswer:
		return fmt.Errorf("%s: the answer is larger than %d bytes", path, maxAnswer)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return fmt.Errorf("%s: %w", path, statusError(resp.StatusCode, text))
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s: the answer is not what was asked for: %w", path, err)
	}
	return nil
}

func statusError(status int, text []byte) error {
	var problem struct {
		Code string `json:"code"`
	}
	// Whatever else answers at this address sends no problem, which is fine.
	if json.Unmarshal(text, &problem) != nil || len(problem.Code) > 64 || strings.ContainsFunc(problem.Code, unprintable) {
		problem.Code = ""
	}
	return &StatusError{Status: status, Code: problem.Code}
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

// unwrapURL drops the URL that http.Client puts into its errors: path says enough.
func unwrapURL(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	return err
}
