package httvps

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
)

// Step is one thing that a connection needs.
type Step string

// The steps of [Diagnose], in their order.
const (
	StepProfile Step = "profile" // key and profile can be read
	StepDNS     Step = "dns"     // a name has an address
	StepTCP     Step = "tcp"     // the address answers
	StepTLS     Step = "tls"     // what answers proves to be the service
	StepClock   Step = "clock"   // this device's clock shows the time, about
	StepToken   Step = "token"   // the service knows the device and lets it connect
	StepKnock   Step = "knock"   // a gateway takes the device for one
	StepSession Step = "session" // a gateway lets the device in: the plan allows it
)

// stepTimeout bounds one step.
const stepTimeout = 10 * time.Second

// Finding is how one step went.
type Finding struct {
	Step   Step          // what was looked at
	Target string        // the host that it is about; empty where it is about none
	Took   time.Duration // at most ten seconds, a minute with StepToken
	Err    error         // nil: as it should be
	Skew   time.Duration // with StepClock: how far the device's clock is ahead of the service's
}

// ErrClock says that this device's clock is far from the service's. That refuses
// nobody, but certificates are judged by it.
var ErrClock = errors.New("the clock of this device is wrong")

// DiagnoseOptions say what [Diagnose] looks at. Store is required.
type DiagnoseOptions struct {
	Store   Store   // of an enrolled device
	NetDial NetDial // nil means net.Dialer
	Agent   string  // as in [Config]

	// NoSession leaves StepSession out: it counts as a session of the plan while it
	// is tried.
	NoSession bool
}

// Diagnose goes through all that a connection needs, one step after the other, and
// tells of each. Steps that need one that failed are left out.
func Diagnose(ctx context.Context, opts DiagnoseOptions, tell func(Finding)) {
	client, err := NewClient(Config{Store: opts.Store, NetDial: opts.NetDial, Agent: opts.Agent})
	d := &diagnosis{tell: tell, dial: opts.NetDial}
	if d.dial == nil {
		d.dial = (&net.Dialer{}).DialContext
		d.resolve = net.DefaultResolver.LookupHost
	}
	var profile Profile
	if !d.step(ctx, StepProfile, "", func(ctx context.Context) error {
		if err != nil {
			return err
		}
		if d.r, err = client.prepare(ctx); err != nil {
			return err
		}
		profile, err = opts.Store.Profile(ctx)
		return err
	}) {
		return
	}
	for _, base := range profile.API {
		if d.reach(ctx, base) {
			d.clock(ctx, base)
		}
	}
	var tok token
	if !d.step(ctx, StepToken, "", func(ctx context.Context) (err error) {
		if tok, err = d.r.tokens.get(ctx, ""); err == nil && len(tok.gateways) == 0 {
			err = &RefusedError{Code: "region_unavailable"}
		}
		return err
	}) {
		return
	}
	for _, gateway := range tok.gateways {
		if ctx.Err() != nil {
			return
		}
		if d.reach(ctx, gateway.URL) {
			d.gateway(ctx, gateway.URL, tok, opts.NoSession)
		}
	}
}

// diagnosis is one run of Diagnose.
type diagnosis struct {
	tell    func(Finding)
	dial    NetDial
	resolve func(ctx context.Context, host string) ([]string, error) // nil: names are not resolved here
	r       *runner
}

// step takes a step and reports whether it went well.
func (d *diagnosis) step(ctx context.Context, s Step, target string, take func(ctx context.Context) error) bool {
	bound := stepTimeout
	if s == StepToken { // it may try several addresses
		bound = 3 * callTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	start := time.Now()
	err := take(ctx)
	d.tell(Finding{Step: s, Target: target, Took: time.Since(start), Err: err})
	return err == nil
}

// reach looks at the way to a URL, up to TLS.
func (d *diagnosis) reach(ctx context.Context, rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false // neither profile nor list has such
	}
	host := u.Hostname()
	if d.resolve != nil && net.ParseIP(host) == nil {
		if !d.step(ctx, StepDNS, host, func(ctx context.Context) error {
			_, err := d.resolve(ctx, host)
			return err
		}) {
			return false
		}
	}
	var raw net.Conn
	if !d.step(ctx, StepTCP, u.Host, func(ctx context.Context) (err error) {
		raw, err = d.dial(ctx, "tcp", hostPort(rawURL))
		return err
	}) {
		return false
	}
	defer func() { _ = raw.Close() }()
	return d.step(ctx, StepTLS, u.Host, func(ctx context.Context) error {
		return whoAnswered(tls.Client(raw, d.r.tls(host)).HandshakeContext(ctx))
	})
}

// clock compares clocks with the device API at base.
func (d *diagnosis) clock(ctx context.Context, base string) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/auth/challenge", strings.NewReader("{}"))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	start := time.Now()
	resp, err := d.r.tokens.service.http.Do(req)
	if err != nil {
		return // the token's step tells
	}
	_ = resp.Body.Close()
	d.r.tokens.service.http.CloseIdleConnections()
	took := time.Since(start)
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return
	}
	// The answer was made somewhere in between; its date has whole seconds.
	skew := start.Add(took / 2).Sub(date).Round(time.Second)
	f := Finding{Step: StepClock, Target: hostOf(base), Took: took, Skew: skew}
	if skew.Abs() > maxSkew {
		f.Err = fmt.Errorf("%w by %v", ErrClock, skew)
	}
	d.tell(f)
}

// gateway looks at what a gateway makes of this device.
func (d *diagnosis) gateway(ctx context.Context, gateway string, tok token, noSession bool) {
	if !d.step(ctx, StepKnock, hostOf(gateway), func(ctx context.Context) error {
		conn, err := d.r.knockAt(ctx, gateway, tok)
		if err != nil {
			return whoAnswered(err)
		}
		return conn.Close()
	}) || noSession {
		return
	}
	d.step(ctx, StepSession, hostOf(gateway), func(ctx context.Context) error {
		conn, _, err := d.r.connect(ctx, gateway, tok)
		if err != nil {
			return whoAnswered(err)
		}
		return conn.Close()
	})
}

// knockAt opens a carrier to a gateway and goes no further.
func (r *runner) knockAt(ctx context.Context, gateway string, tok token) (conn *carrier.Conn, err error) {
	err = r.knocking(gateway, tok, func(opts carrier.DialOptions) (err error) {
		conn, err = carrier.Dial(ctx, gateway, opts)
		return err
	})
	return conn, err
}
