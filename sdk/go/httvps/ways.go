package httvps

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
)

const (
	// wayTurn is how long a way to the device API has until the next one is tried
	// beside it. Where an address is blocked, most often nothing answers at all.
	wayTurn = 2 * time.Second

	// maxRelays is how many gateways are asked to pass a question on.
	maxRelays = 4
)

// way is one way to the device API.
type way struct {
	base string       // the API's base URL on it
	name string       // for people
	http *http.Client // leads there

	// around says that it is no address of the API's: it leads through the tunnel or
	// a gateway, and is of use only while the API itself does not answer.
	around bool

	// cookie makes a gateway pass the request on; nil where none does.
	cookie func() (cookie string, made time.Time)

	// corrected learns from an answer without a reason whether that cookie was of
	// another time, and that asking again may help; nil with cookie.
	corrected func(err error, made time.Time) bool
}

// ask asks the service a question on one way after the other, the next one beside
// those that have not answered in their turn, until one has an answer as the service
// gives it: what was asked for, or a reason that settles it. Otherwise the error is an
// *UnreachableError. No connection is left behind: the next question may be half an
// hour away.
func ask[T any](ctx context.Context, a *api, question func(ctx context.Context, on way) (T, error)) (T, error) {
	type answer struct {
		way   int
		value T
		err   error
	}
	ways := a.ways()
	ctx, cancel := context.WithCancel(ctx)
	var (
		none    T
		wg      sync.WaitGroup
		answers = make(chan answer, len(ways))
		errs    = make([]error, len(ways))
		next    int
		running int
		reached bool // the service has answered, and does not decide now
	)
	defer wg.Wait()
	defer cancel()
	// Whoever was told to come back later does not go round to the back door.
	more := func() bool { return next < len(ways) && (!reached || !ways[next].around) }
	turn := time.NewTimer(wayTurn)
	defer turn.Stop()
	begin := func() {
		i := next
		next++
		running++
		turn.Reset(wayTurn)
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			defer ways[i].http.CloseIdleConnections()
			value, err := question(ctx, ways[i])
			answers <- answer{i, value, err}
		})
	}
	for begin(); running > 0; {
		select {
		case got := <-answers:
			running--
			if got.err == nil {
				return got.value, nil
			}
			if ctx.Err() != nil {
				return none, context.Cause(ctx)
			}
			refused, isRefused := errors.AsType[*RefusedError](got.err)
			if isRefused && judge(refused.Code) != again || errors.Is(got.err, errKey) {
				return none, got.err
			}
			reached = reached || isRefused
			errs[got.way] = fmt.Errorf("%s: %w", ways[got.way].name, whoAnswered(withoutURL(got.err)))
			if more() {
				begin()
			}
		case <-turn.C:
			if more() {
				begin()
			}
		case <-ctx.Done():
			return none, context.Cause(ctx)
		}
	}
	return none, &UnreachableError{Errs: slices.DeleteFunc(errs, func(err error) bool { return err == nil })}
}

// ways are the ways to the device API at this moment, in the order to try them.
func (a *api) ways() []way {
	var ways []way
	for _, base := range a.bases {
		ways = append(ways, way{base: base, name: hostOf(base), http: a.http})
	}
	if a.around != nil {
		ways = append(ways, a.around()...)
	}
	return ways
}

// around are the ways to the device API for when its own addresses do not answer:
// through the tunnel, if it is up, and by the gateways that are known.
func (r *runner) around(bases []string) []way {
	c := r.client
	c.mu.Lock()
	session := c.session
	c.mu.Unlock()
	var ways []way
	if session != nil {
		through := newHTTP(r.tls, func(ctx context.Context, network, address string) (net.Conn, error) {
			target, err := parseTarget(ctx, network, address)
			if err != nil {
				return nil, err
			}
			stream, err := session.Open(ctx, target)
			if refused, ok := errors.AsType[*mux.StreamError](err); ok {
				return nil, &OpenError{Code: refused.Code.Meaning().String(), Target: address, Err: err}
			}
			if err != nil {
				return nil, err
			}
			return conn{stream}, nil
		})
		for _, base := range bases {
			ways = append(ways, way{base: base, name: hostOf(base) + " through the tunnel", http: through, around: true})
		}
	}
	return append(ways, r.relays(bases)...)
}

// relays are the gateways as ways to the device API. They pass on what devices ask
// that knock, under the path that the API has itself.
func (r *runner) relays(bases []string) []way {
	tok := r.tokens.load()
	knock := tok.knock
	if knock == nil {
		knock = r.knock
	}
	api, err := url.Parse(bases[0])
	if err != nil || knock == nil {
		return nil
	}
	gateways := r.known
	for _, g := range tok.gateways {
		gateways = append(slices.Clone(gateways), g.URL)
	}
	var (
		ways []way
		seen []string
	)
	for _, base := range bases {
		seen = append(seen, hostOf(base))
	}
	var all []Gateway
	for _, gateway := range slices.Backward(gateways) { // the newest come last
		all = append(all, Gateway{URL: gateway})
	}
	for _, to := range r.fronts.destinations(all) {
		host := hostOf(to.at)
		if slices.Contains(seen, host) || len(ways) == maxRelays {
			continue
		}
		seen = append(seen, host)
		ways = append(ways, way{
			base:   (&url.URL{Scheme: "https", Host: host, Path: api.Path, RawPath: api.RawPath}).String(),
			name:   host,
			http:   newHTTP(r.tls, r.client.cfg.NetDial),
			around: true,
			cookie: func() (string, time.Time) {
				made := r.clock.now()
				return knock.cookie(host, made), made
			},
			corrected: r.clock.corrected,
		})
	}
	return ways
}
