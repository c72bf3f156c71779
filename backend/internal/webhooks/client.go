package webhooks

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const (
	// attemptTimeout is how long an attempt may take in all: less than
	// control.DeliveryLease, so that nobody else begins another meanwhile.
	attemptTimeout = 15 * time.Second
	// maxAnswer is how much of an answer is read, and thrown away, so that its connection
	// can be used again.
	maxAnswer       = 4 << 10
	maxAnswerHeader = 16 << 10
	idleTimeout     = time.Minute
	maxIdle         = 2 // connections to a receiver that nobody uses
)

// Client sends messages.
type Client struct{ http *http.Client }

// Dial connects to an address, which may have a name.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Guarded is a Dial that connects to no address that the policy does not allow,
// whatever the name has resolved to.
func (p Policy) Guarded() Dial {
	dialer := net.Dialer{ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		target, err := netip.ParseAddrPort(address)
		if err != nil {
			return ErrAddress
		}
		return p.Check(target.Addr())
	}}
	return dialer.DialContext
}

// NewClient returns a client that connects by dial. It asks no proxy: that would
// connect to whatever it is told. roots are the authorities that receivers' certificates
// are from; nil: those of the system.
func NewClient(dial Dial, roots *x509.CertPool) *Client {
	return &Client{http: &http.Client{
		Transport: &http.Transport{
			DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: maxIdle, MaxIdleConns: control.MaxWebhooks * maxIdle, IdleConnTimeout: idleTimeout,
			MaxResponseHeaderBytes: maxAnswerHeader, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes the connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Send tries to deliver a message once. Nothing of what the receiver says but the status
// is kept, nor any error's text: either may repeat the URL.
func (c *Client) Send(ctx context.Context, out control.Outgoing, now time.Time) control.Sent {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, out.URL, strings.NewReader(out.Payload))
	if err != nil {
		return control.Sent{Failure: control.DeliveryOther}
	}
	stamp := strconv.FormatInt(now.Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "HTTVPS-Webhooks/1")
	r.Header.Set("Webhook-Id", out.EventID)
	r.Header.Set("Webhook-Timestamp", stamp)
	r.Header.Set("Webhook-Signature", signatures(out.Keys, out.EventID, stamp, out.Payload))
	answer, err := c.http.Do(r)
	if err != nil {
		return control.Sent{Failure: failureOf(err)}
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer) // whatever it is
	sent := control.Sent{Status: answer.StatusCode}
	switch class := answer.StatusCode / 100; class {
	case 2:
	case 3:
		sent.Failure = control.DeliveryRedirect
	default:
		sent.Failure = control.DeliveryStatus
		if answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusServiceUnavailable {
			sent.RetryAfter = retryAfter(answer.Header.Get("Retry-After"), now)
		}
	}
	return sent
}

// signatures are those of the Standard Webhooks form, one for each key.
func signatures(keys [][]byte, id, stamp, body string) string {
	texts := make([]string, 0, len(keys))
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "." + body))
		texts = append(texts, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(texts, " ")
}

// retryAfter reads a Retry-After header; 0: it has none that can be read.
func retryAfter(text string, now time.Time) time.Duration {
	const most = 1 << 20 // seconds; the domain allows less
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(seconds, 0), most)) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(at.Sub(now), 0)
}

// failureOf says what an error of the client means.
func failureOf(err error) control.DeliveryFailure {
	var (
		timeout  net.Error
		name     *net.DNSError
		verify   *tls.CertificateVerificationError
		alert    tls.AlertError
		noRecord tls.RecordHeaderError
		op       *net.OpError
	)
	switch {
	case errors.Is(err, ErrAddress):
		return control.DeliveryAddress
	case errors.As(err, &name):
		return control.DeliveryResolve
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return control.DeliveryTimeout
	case errors.As(err, &verify), errors.As(err, &alert), errors.As(err, &noRecord), errors.Is(err, http.ErrSchemeMismatch):
		return control.DeliveryTLS
	case errors.As(err, &op) && op.Op == "dial":
		return control.DeliveryConnect
	default:
		return control.DeliveryOther
	}
}
