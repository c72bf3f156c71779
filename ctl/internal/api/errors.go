package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

// Thing is what a request is about, in the operator's words.
type Thing struct {
	Kind string // "user"
	Ref  string // the id or name that was asked for; empty for a list or a new one
}

func (t Thing) String() string {
	switch {
	case t.Kind == "":
		return "it"
	case t.Ref == "":
		return t.Kind
	default:
		return fmt.Sprintf("%s %q", t.Kind, t.Ref)
	}
}

// Field is one part of a request that the service does not accept, and why.
type Field struct {
	Name    string // empty when the complaint is about the whole
	Problem string
}

// ProblemError is the service's own no: an application/problem+json answer.
type ProblemError struct {
	Status     int
	Code       string // stable, for programs: not_found, conflict, invalid_request, …
	Detail     string
	Fields     []Field
	What       Thing
	RetryAfter int // seconds, 0 when not said
}

// Error is one sentence that says what to do, as far as anything can be done.
func (e *ProblemError) Error() string {
	switch {
	case e.Status == http.StatusUnauthorized:
		return "the service does not accept this token (wrong, expired or withdrawn): log in again with httvpsctl login"
	case e.Status == http.StatusForbidden && e.Code == "forbidden":
		return "you may not do this: " + e.Detail + ". Ask an owner, or log in with another token (httvpsctl whoami shows this one)"
	case e.Status == http.StatusForbidden:
		return "the service refuses: " + e.reason("this token may not do that")
	case e.Status == http.StatusNotFound && e.What.Ref != "":
		return fmt.Sprintf("there is no %s", e.What)
	case e.Status == http.StatusNotFound:
		return "not found: " + e.reason("something that this refers to does not exist")
	case e.Status == http.StatusConflict:
		return "conflict: " + e.reason(fmt.Sprintf("%s exists already or is in use", e.What))
	case len(e.Fields) > 0:
		parts := make([]string, len(e.Fields))
		for i, f := range e.Fields {
			parts[i] = f.Problem
			if f.Name != "" {
				parts[i] = f.Name + ": " + f.Problem
			}
		}
		return "the service does not accept the request: " + strings.Join(parts, "; ")
	case e.Status == http.StatusTooManyRequests && e.RetryAfter > 0:
		return fmt.Sprintf("too many requests: try again in %d s", e.RetryAfter)
	case e.Status == http.StatusTooManyRequests:
		return "too many requests: try again later"
	case e.Status >= http.StatusInternalServerError:
		return fmt.Sprintf("the service has a fault of its own (status %d, %s): its log says more", e.Status, e.reason("no reason given"))
	default:
		return fmt.Sprintf("the service does not accept the request (status %d): %s", e.Status, e.reason("no reason given"))
	}
}

// reason is the service's wording and its code, or instead when it gave neither.
func (e *ProblemError) reason(instead string) string {
	switch {
	case e.Detail == "" && e.Code == "":
		return instead
	case e.Detail == "":
		return instead + " (" + e.Code + ")"
	case e.Code == "":
		return e.Detail
	default:
		return e.Detail + " (" + e.Code + ")"
	}
}

// NotTheAPIError says that something answered, and it was not an admin API:
// a wrong address, a device-only listener or a proxy.
type NotTheAPIError struct {
	Endpoint Endpoint
	Status   int
	Location string // where a redirect points, scheme and host only
}

func (e *NotTheAPIError) Error() string {
	if e.Location != "" {
		return fmt.Sprintf("%s redirects to %s, which is not followed so that the token stays with its host: if you trust that address, use it as --api", e.Endpoint, e.Location)
	}
	return fmt.Sprintf("%s answered (status %d), but not as an admin API does: check the address (the admin API may have a listener of its own)", e.Endpoint, e.Status)
}

// UnreachableError says that no answer came.
type UnreachableError struct {
	Endpoint Endpoint
	// MaybeDone is set when the request may have arrived and acted all the same.
	MaybeDone bool
	// Key is the Idempotency-Key of the request, if it had one: repeating the
	// request with it does not act twice.
	Key string
	err error
}

func (e *UnreachableError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.err }

// problem is the body of a refusal (RFC 9457), with the extensions in use.
type problem struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Errors []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

// refusal turns an answer that is not 2xx into an error.
func (c *Client) refusal(r call, resp *http.Response, body []byte) error {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return &NotTheAPIError{Endpoint: c.endpoint, Status: resp.StatusCode, Location: hostOf(resp)}
	}
	var p problem
	if !isJSON(resp.Header.Get("Content-Type")) || json.Unmarshal(body, &p) != nil {
		return &NotTheAPIError{Endpoint: c.endpoint, Status: resp.StatusCode}
	}
	e := &ProblemError{Status: resp.StatusCode, Code: p.Code, Detail: p.Detail, What: r.what}
	if e.Detail == "" {
		e.Detail = p.Title
	}
	for _, f := range p.Errors {
		e.Fields = append(e.Fields, Field{Name: fieldName(f.Location), Problem: f.Message})
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = seconds
	}
	return e
}

func hostOf(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil {
		return "another address"
	}
	return to.Scheme + "://" + to.Host
}

// fieldName drops where in the request a field was, which the operator did not
// see: body.max_devices becomes max_devices.
func fieldName(location string) string {
	for _, where := range []string{"body", "query", "path", "header"} {
		if rest, ok := strings.CutPrefix(location, where); ok && (rest == "" || rest[0] == '.') {
			return strings.TrimPrefix(rest, ".")
		}
	}
	return location
}

// unreachable puts a failed exchange into words.
func (c *Client) unreachable(ctx context.Context, r call, sent bool, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err() // the transport's error is only its consequence
	}
	return &UnreachableError{
		Endpoint:  c.endpoint,
		MaybeDone: sent && r.method != http.MethodGet,
		Key:       r.key,
		err:       c.explain(err),
	}
}

func (c *Client) explain(err error) error {
	var (
		urlErr    *url.Error
		dnsErr    *net.DNSError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		netErr    net.Error
	)
	if errors.As(err, &urlErr) {
		err = urlErr.Err // the URL is not news, and the verb is ours
	}
	host := c.endpoint.host()
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: %w", err)
	case errors.Is(err, errOutside):
		return errOutside
	case errors.As(err, &dnsErr) && dnsErr.IsNotFound:
		return fmt.Errorf("the name %s does not exist: check the address: %w", dnsErr.Name, err)
	case errors.As(err, &dnsErr):
		return fmt.Errorf("the name %s could not be looked up: %w", dnsErr.Name, err)
	case errors.Is(err, tlspin.ErrNotSent):
		return fmt.Errorf("%s is not the service this token or link is for, or it has a new certificate authority: its certificate does not have the pinned key: %w", host, err)
	case errors.As(err, &authority):
		return fmt.Errorf("the certificate of %s is signed by an authority that this machine does not know: give its file with --ca, or a token that carries its pin: %w", host, err)
	case errors.As(err, &hostname):
		return fmt.Errorf("the certificate of %s is for another name: %w", host, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("the certificate of %s has expired or is not valid yet (is this machine's clock right?): %w", host, err)
	case errors.As(err, &verify), errors.As(err, &invalid):
		return fmt.Errorf("the certificate of %s is not the one expected: %w", host, err)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%s does not speak TLS: check the port: %w", host, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s: is the service running, and is the port right?", host)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Errorf("there is no route to %s", host)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Errorf("no answer from %s in time (--timeout is %s)", host, c.timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%s closed the connection without a whole answer", host)
	default:
		return fmt.Errorf("no answer from %s: %w", host, err)
	}
}
