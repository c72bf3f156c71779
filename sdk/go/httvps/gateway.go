package httvps

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"
)

// maxRegion bounds the code of a region.
const maxRegion = 64

// Gateway is where a device may connect to.
type Gateway struct {
	URL    string // wss://host[:port]/path
	Region string // a code of the operator's; may be empty

	// RoundTrip is how long a TCP connection took to open; 0: none did, or it was
	// not tried.
	RoundTrip time.Duration
}

// How long gateways are waited for that are slower than the first that answers.
const (
	probeTimeout = 3 * time.Second
	probeFirst   = 50 * time.Millisecond

	// alike is how far round trips may be apart, beside a quarter of the shortest,
	// for the service's order to count, which knows the load.
	alike = 25 * time.Millisecond
)

// nearest puts gateways into the order in which to try them: those that answer
// before those that do not, and near ones before far ones. Among those that are
// about as near, the service's order stays.
func nearest(ctx context.Context, gateways []Gateway, dial NetDial) []Gateway {
	if len(gateways) < 2 {
		return gateways
	}
	measured := measure(ctx, gateways, dial, probeFirst)
	var least time.Duration
	for _, g := range measured {
		if g.RoundTrip > 0 && (least == 0 || g.RoundTrip < least) {
			least = g.RoundTrip
		}
	}
	step := max(alike, least/4)
	class := func(g Gateway) time.Duration {
		if g.RoundTrip == 0 {
			return 1 << 62
		}
		return (g.RoundTrip - least) / step
	}
	slices.SortStableFunc(measured, func(a, b Gateway) int { return cmp.Compare(class(a), class(b)) })
	return measured
}

// measure opens a TCP connection to each gateway and closes it again. Those that
// have not answered are given up after probeTimeout, or when others have for long
// enough: as long again as the first of them took, and rest.
func measure(ctx context.Context, gateways []Gateway, dial NetDial, rest time.Duration) []Gateway {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	measured := slices.Clone(gateways)
	var (
		wg    sync.WaitGroup
		first sync.Once
		timer *time.Timer
	)
	start := time.Now()
	for i := range measured {
		wg.Go(func() {
			conn, err := dial(ctx, "tcp", hostPort(measured[i].URL))
			if err != nil {
				return
			}
			took := max(time.Since(start), 1)
			_ = conn.Close()
			measured[i].RoundTrip = took
			first.Do(func() { timer = time.AfterFunc(took+rest, cancel) })
		})
	}
	wg.Wait()
	if timer != nil {
		timer.Stop()
	}
	return measured
}

// hostPort is where a gateway's URL leads to.
func hostPort(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Gateways asks the service which gateways this device may connect to, in the
// service's order, and measures how far each of them is. Only Store and NetDial of
// cfg matter.
func Gateways(ctx context.Context, cfg Config) ([]Gateway, error) {
	if cfg.Store == nil {
		return nil, errors.New("gateways: no store")
	}
	r, err := (&Client{cfg: cfg}).prepare(ctx)
	if err != nil {
		return nil, err
	}
	tok, err := r.tokens.get(ctx, "")
	if err != nil {
		return nil, err
	}
	return measure(ctx, tok.gateways, cfg.NetDial, probeTimeout), nil
}
