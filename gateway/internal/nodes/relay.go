package nodes

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxRelayed is how many requests of devices are passed on at once, maxQuestion how
	// long one may be, in bytes.
	maxRelayed  = 64
	maxQuestion = 16 << 10

	// relayWait is how long a request waits for others.
	relayWait = 2 * time.Second
)

// relayed are the questions of devices that are passed on: those that a device cannot
// do without while its service's own address is blocked. An invitation is not among
// them: it has one address, and the control plane counts who tries codes.
var relayed = map[string]string{
	"/api/v1/auth/challenge": http.MethodPost,
	"/api/v1/auth/token":     http.MethodPost,
	"/api/v1/gateways":       http.MethodGet,
	"/api/v1/me":             http.MethodGet,
}

// Relay passes on what devices ask the control plane that they cannot reach (ADR
// 0021). It is for those who have knocked: the caller looks at that.
type Relay struct {
	prefix string // the path of the control plane's API
	api    *api
	places chan struct{}
}

// Relay returns this gateway's.
func (n *Node) Relay() (*Relay, error) {
	base, err := url.Parse(n.control.base)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	return newRelay(base.Path, n.control), nil
}

func newRelay(prefix string, control *api) *Relay {
	return &Relay{prefix: prefix, api: control, places: make(chan struct{}, maxRelayed)}
}

// Takes reports whether a request is one that is passed on: under the path that the
// control plane has itself, which strangers do not know.
func (r *Relay) Takes(req *http.Request) bool {
	path, ok := strings.CutPrefix(req.URL.Path, r.prefix)
	return ok && r.prefix != "" && relayed[path] == req.Method && req.URL.RawPath == ""
}

// ServeHTTP passes a request on that Takes has taken, and the answer back. A control
// plane that does not answer is told as 502, without a reason.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), callTimeout)
	defer cancel()
	wait := time.NewTimer(relayWait)
	defer wait.Stop()
	select {
	case r.places <- struct{}{}:
		defer func() { <-r.places }()
	case <-wait.C:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case <-ctx.Done():
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxQuestion))
	if err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	path, _ := strings.CutPrefix(req.URL.Path, r.prefix)
	resp, err := r.pass(ctx, req, path, body)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil || len(answer) > maxAnswer {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	for _, name := range []string{"Content-Type", "Retry-After"} {
		if values := resp.Header.Values(name); len(values) > 0 {
			w.Header()[name] = slices.Clone(values)
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer) // the device may have gone
}

// pass asks the control plane as the device would: with its credential and not with
// the gateway's, and without its knock.
func (r *Relay) pass(ctx context.Context, req *http.Request, path string, body []byte) (*http.Response, error) {
	out, err := http.NewRequestWithContext(ctx, req.Method, r.api.base+path, bytes.NewReader(body)) //nolint:gosec // one of four paths at the control plane
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"Accept", "Authorization", "Content-Type"} {
		if values := req.Header.Values(name); len(values) == 1 {
			out.Header.Set(name, values[0])
		}
	}
	return r.api.http.Do(out) //nolint:gosec // likewise
}
