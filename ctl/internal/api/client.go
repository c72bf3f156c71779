package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxBody        = 8 << 20
	defaultTimeout = 30 * time.Second
	adminPath      = "/api/v1/admin/"
)

// Options is what a Client is made of. Endpoint is required.
type Options struct {
	Endpoint  Endpoint
	Trust     Trust
	Token     Token         // none for Bootstrap
	Timeout   time.Duration // of one request with its whole answer; 0 means 30 s
	UserAgent string
	Reason    string // for what is changed, in the audit log
}

// Client asks one service. It is safe for concurrent use.
type Client struct {
	endpoint Endpoint
	token    Token
	timeout  time.Duration
	agent    string
	reason   string
	http     *http.Client
}

// New returns a client. The only things that can fail are the files of Trust.
func New(o Options) (*Client, error) {
	transport, err := newTransport(o.Endpoint, o.Trust)
	if err != nil {
		return nil, err
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	return &Client{
		endpoint: o.Endpoint,
		token:    o.Token,
		timeout:  o.Timeout,
		agent:    o.UserAgent,
		reason:   o.Reason,
		http: &http.Client{
			Transport: transport,
			// The token is for the host it was made for; a redirect could lead anywhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Address is where the service is.
func (c *Client) Address() string { return c.endpoint.String() }

// Host is where the service is without the path, which may be secret.
func (c *Client) Host() string { return c.endpoint.host() }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one request. The path is below /api/v1/admin/ and consists of
// segments that were escaped where they came from outside.
type call struct {
	method string
	path   string
	query  url.Values
	body   any    // marshalled when not nil
	key    string // Idempotency-Key
	what   Thing  // what the request is about, for errors
}

// do sends the request and returns the body of a 2xx answer, which is empty
// or one JSON value. Every error says in plain words what to do about it.
func (c *Client) do(ctx context.Context, r call) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var sent atomic.Bool // from here on the service may have acted
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, r, sent.Load(), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, c.unreachable(ctx, r, true, err)
	}
	if ctx.Err() != nil {
		// What came may be no more than the service's reaction to our hanging up.
		return nil, c.unreachable(ctx, r, true, ctx.Err())
	}
	switch {
	case len(body) > maxBody:
		return nil, fmt.Errorf("the answer of %s is longer than %d MiB", c.endpoint, maxBody>>20)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return nil, c.refusal(r, resp, body)
	case len(body) == 0:
		return nil, nil
	case !isJSON(resp.Header.Get("Content-Type")) || !json.Valid(body):
		return nil, &NotTheAPIError{Endpoint: c.endpoint, Status: resp.StatusCode}
	}
	return body, nil
}

func (c *Client) request(ctx context.Context, r call) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		encoded, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(encoded)
	}
	target := c.endpoint.base + adminPath + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	if c.agent != "" {
		req.Header.Set("User-Agent", c.agent)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.reason != "" && r.method != http.MethodGet {
		req.Header.Set("Audit-Reason", c.reason)
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	if !c.token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+c.token.bearer())
	}
	return req, nil
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}
