package httvps

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
)

// admission is a session that a gateway has let the device in to, and that nobody
// serves yet.
type admission struct {
	gateway Gateway
	url     string // that of its URLs
	tok     token
	conn    *carrier.Conn
	welcome
}

// round tries the gateways one after the other and serves the first session
// that comes up, and those at other gateways that follow on it, until there is none.
// It returns how long the last one lasted and why it is over, or why there was none.
func (r *runner) round(ctx context.Context) (lasted time.Duration, err error) {
	at, err := r.find(ctx)
	if err != nil {
		return 0, err
	}
	return r.serve(ctx, at)
}

// find tries the gateways one after the other until one lets the device in.
func (r *runner) find(ctx context.Context) (admission, error) {
	fresh := r.fresh
	r.fresh = nil
	var errs []error
	tok, err := r.tokens.get(ctx, "")
	if err != nil {
		// A gateway that knows the device may let it in while nobody gives tokens.
		if tok = r.tokens.last(err); tok.text == "" {
			if fresh != nil {
				_ = fresh.conn.Close()
			}
			return admission{}, err
		}
		errs = append(errs, err)
	}
	if fresh != nil {
		r.client.cfg.OnEvent(Event{Kind: Connecting, Gateway: fresh.gateway.URL, Region: fresh.gateway.Region})
		if w, err := r.answer(ctx, fresh.opened, tok); err == nil {
			return admission{fresh.gateway, fresh.url, tok, fresh.conn, w}, nil
		} // what is wrong, the way from the beginning tells, too
	}
	if len(tok.gateways) == 0 {
		errs = append(errs, &RefusedError{Code: "region_unavailable"})
	}
	return r.try(ctx, tok, tok.gateways, errs)
}

// try tries these gateways, the nearest first. errs is what is wrong already.
func (r *runner) try(ctx context.Context, tok token, gateways []Gateway, errs []error) (admission, error) {
	var (
		refused error // a gateway took offence even at a token that was fresh
		renewed bool
	)
	race := newRace(ctx, r, r.fronts.destinations(nearest(ctx, gateways, r.client.cfg.NetDial)), tok)
	defer race.stop()
	for {
		up, ok := race.next()
		if !ok {
			break
		}
		conn, w, err := race.introduce(up)
		if verdictOn(err) == freshToken && !renewed && tok.valid() {
			if tok, err = r.tokens.get(ctx, tok.text); err != nil {
				return admission{}, err
			}
			race.tok, renewed = tok, true
			conn, w, err = r.connect(ctx, up.at, tok)
		}
		switch {
		case err == nil:
			return admission{up.Gateway, up.at, tok, conn, w}, nil
		case ctx.Err() != nil:
			return admission{}, context.Cause(ctx)
		case verdictOn(err) == final:
			return admission{}, err
		case verdictOn(err) == freshToken && tok.valid():
			refused = err
		default:
			if as[*RefusedError](err) != nil {
				race.without(up.Gateway) // it says so at each of its URLs
			}
			errs = append(errs, fmt.Errorf("%s: %w", hostOf(up.at), whoAnswered(err)))
		}
	}
	if ctx.Err() != nil {
		return admission{}, context.Cause(ctx)
	}
	if refused != nil {
		return admission{}, refused
	}
	r.tokens.refreshGateways(ctx)
	return admission{}, &UnreachableError{Errs: errs}
}

// verdictOn judges an error of connect; what is no refusal may pass.
func verdictOn(err error) verdict {
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return judge(refused.Code)
	}
	return again
}

func (r *runner) connect(ctx context.Context, gateway string, tok token) (conn *carrier.Conn, w welcome, err error) {
	err = r.knocking(gateway, tok, func(opts carrier.DialOptions) (err error) {
		conn, w, err = r.creds.connect(ctx, gateway, tok.text, opts)
		return err
	})
	return conn, w, err
}

// answer is the rest of connect, for a carrier whose CHALLENGE has come.
func (r *runner) answer(ctx context.Context, o *opened, tok token) (welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	return r.creds.answer(ctx, o, tok.text)
}

// knocking dials a gateway with a knock, if the service has one, and again with one
// of the gateway's time where this device's clock was the reason for a refusal.
func (r *runner) knocking(gateway string, tok token, dial func(opts carrier.DialOptions) error) error {
	u, err := url.Parse(gateway)
	if err != nil {
		return errors.New("not a URL")
	}
	opts := carrier.DialOptions{TLS: r.tls(u.Hostname()), NetDial: r.client.cfg.NetDial}
	knock := tok.knock
	if knock == nil {
		knock = r.knock
	}
	if knock == nil {
		return dial(opts)
	}
	made := r.clock.now()
	opts.Cookie = knock.cookie(u.Host, made)
	err = dial(opts)
	if r.clock.corrected(err, made) {
		opts.Cookie = knock.cookie(u.Host, r.clock.now())
		err = dial(opts)
	}
	return err
}
