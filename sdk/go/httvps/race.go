package httvps

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
)

const (
	// gatewayTurn is how long a gateway has to answer until the next one is tried
	// beside it, and maxRacing how many are at once.
	gatewayTurn = 300 * time.Millisecond
	maxRacing   = 3

	// verdictTimeout is how long a gateway that has answered may take to let the
	// device in, where there is another one. It may itself wait twelve seconds
	// for the control plane.
	verdictTimeout = 6 * time.Second

	// stale is when a carrier that has waited for its turn is opened anew: a gateway
	// gives a device little time to introduce itself.
	stale = 3 * time.Second
)

// race opens carriers to gateways, in their order, and tells of each that has
// answered. The device introduces itself to one of them at a time: two sessions would
// count twice.
type race struct {
	runner *runner
	ctx    context.Context //nolint:containedctx // that of the race, from newRace to stop
	cancel context.CancelFunc
	tok    token

	waiting []destination
	running int
	untold  []destination // that wait or run
	ended   chan runnerUp
	wg      sync.WaitGroup
}

// runnerUp is a gateway that was reached, or why it was not.
type runnerUp struct {
	destination
	conn *carrier.Conn
	when time.Time
	err  error
}

// close closes the connection that nobody has taken.
func (u runnerUp) close() {
	if u.conn != nil {
		_ = u.conn.Close()
	}
}

// newRace begins nothing yet. The race must be stopped.
func newRace(ctx context.Context, r *runner, to []destination, tok token) *race {
	ctx, cancel := context.WithCancel(ctx)
	return &race{runner: r, ctx: ctx, cancel: cancel, tok: tok, waiting: to, untold: slices.Clone(to), ended: make(chan runnerUp, len(to))}
}

// next waits for another gateway. There is none when ok is false.
func (c *race) next() (up runnerUp, ok bool) {
	for {
		if c.running == 0 {
			if len(c.waiting) == 0 || c.ctx.Err() != nil {
				return runnerUp{}, false
			}
			c.begin()
		}
		timer := time.NewTimer(gatewayTurn)
		select {
		case up := <-c.ended:
			timer.Stop()
			c.running--
			at := slices.Index(c.untold, up.destination)
			if at < 0 {
				up.close()
				continue
			}
			c.untold = slices.Delete(c.untold, at, at+1)
			return up, true
		case <-timer.C:
			if len(c.waiting) > 0 && c.running < maxRacing {
				c.begin()
			}
		}
	}
}

// others reports whether next has not told yet of gateways other than that one.
func (c *race) others(than Gateway) bool {
	return slices.ContainsFunc(c.untold, func(d destination) bool { return d.URL != than.URL })
}

// without has next tell no more of a gateway.
func (c *race) without(gateway Gateway) {
	its := func(d destination) bool { return d.URL == gateway.URL }
	c.waiting, c.untold = slices.DeleteFunc(c.waiting, its), slices.DeleteFunc(c.untold, its)
}

func (c *race) begin() {
	to := c.waiting[0]
	c.waiting = c.waiting[1:]
	c.running++
	c.runner.client.cfg.OnEvent(Event{Kind: Connecting, Gateway: to.URL, Region: to.Region})
	tok := c.tok
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, handshakeTimeout)
		defer cancel()
		conn, err := c.runner.knockAt(ctx, to.at, tok)
		c.ended <- runnerUp{destination: to, conn: conn, when: time.Now(), err: err}
	})
}

// stop ends the race and whatever still runs.
func (c *race) stop() {
	c.cancel()
	c.wg.Wait()
	for ; c.running > 0; c.running-- {
		up := <-c.ended
		up.close()
	}
}

// introduce introduces the device to a gateway that was reached.
func (c *race) introduce(up runnerUp) (*carrier.Conn, welcome, error) {
	if up.err != nil {
		return nil, welcome{}, up.err
	}
	limit := handshakeTimeout
	if c.others(up.Gateway) {
		limit = verdictTimeout
	}
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	if time.Since(up.when) > stale {
		_ = up.conn.Close()
		return c.runner.connect(ctx, up.at, c.tok)
	}
	w, err := c.runner.creds.introduce(ctx, up.conn, hostOf(up.at), c.tok.text)
	if err != nil {
		return nil, welcome{}, err
	}
	return up.conn, w, nil
}
