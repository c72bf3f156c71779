package control

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/internal/ticket"
)

// Region is where gateways stand. Its code is unique.
type Region struct {
	ID        string
	Code      string
	Name      string
	CreatedAt time.Time
}

// RegionFields are what an operator decides about a region; nil leaves it.
type RegionFields struct {
	Code *string
	Name *string
}

var regionCode = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$`)

func (r *Region) apply(f RegionFields) error {
	set(&r.Code, f.Code)
	set(&r.Name, f.Name)
	var c checks
	c.that(regionCode.MatchString(r.Code), "code", "want 1 to 32 of a-z, 0-9 and, inside, -")
	c.that(validName(r.Name), "name", nameRule)
	return c.err()
}

// CreateRegion adds a region. The second result is as in CreateUser.
func (a *Authority) CreateRegion(ctx context.Context, f RegionFields, once Once) (Region, bool, error) {
	region := Region{ID: newID(), CreatedAt: a.now()}
	if f.Name == nil {
		f.Name = f.Code
	}
	if err := region.apply(f); err != nil {
		return Region{}, false, err
	}
	return create(ctx, a, once, region.ID, func(ctx context.Context, tx Tx) error { return tx.InsertRegion(ctx, region) }, Tx.Region)
}

// Region returns a region.
func (a *Authority) Region(ctx context.Context, id string) (Region, error) {
	return get(ctx, a, id, Tx.Region)
}

// Regions lists regions, all or the one with a code.
func (a *Authority) Regions(ctx context.Context, code string, page Page) ([]Region, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Region, error) { return tx.Regions(ctx, code, page) })
}

// UpdateRegion changes a region.
func (a *Authority) UpdateRegion(ctx context.Context, id string, f RegionFields) (Region, error) {
	var region Region
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		if region, err = tx.Region(ctx, id); err != nil {
			return err
		}
		if err := region.apply(f); err != nil {
			return err
		}
		return tx.UpdateRegion(ctx, region)
	})
	return region, err
}

// DeleteRegion removes a region that no gateway and no Outline server stands in.
func (a *Authority) DeleteRegion(ctx context.Context, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error { return tx.DeleteRegion(ctx, id) })
}

// findRegion returns the region with a code, or else with an id.
func findRegion(ctx context.Context, tx Tx, ref string) (Region, error) {
	region, err := tx.RegionByCode(ctx, ref)
	if errors.Is(err, ErrNotFound) {
		region, err = tx.Region(ctx, ref)
	}
	if errors.Is(err, ErrNotFound) {
		return Region{}, &InvalidError{Fields: []FieldError{{Field: "region", Detail: "no such region"}}}
	}
	return region, err
}

// Gateway is a node of the data plane: pending until it joins with its code,
// and then known by its key.
type Gateway struct {
	ID            string
	Name          string
	RegionID      string
	Region        string // its code
	JoinCodeHash  []byte
	JoinExpiresAt time.Time
	JoinedAt      *time.Time // nil: pending
	PublicKey     ed25519.PublicKey
	URL           string // wss, where devices find it
	Version       string
	BootID        string
	LeaseUntil    *time.Time
	Sessions      int // as last reported
	Streams       int
	DrainedAt     *time.Time    // since when an operator wants devices to leave it; nil: none does
	Leaving       bool          // it has said itself that it is about to stop
	ClockOffset   time.Duration // how far its clock is ahead, as last reported
	DownAt        *time.Time    // since when it is down, as webhooks were told; nil: it is not
	CreatedAt     time.Time
}

// Draining reports whether devices are to leave the gateway.
func (g Gateway) Draining() bool { return g.DrainedAt != nil || g.Leaving }

// Online reports whether the gateway's lease holds at now.
func (g Gateway) Online(now time.Time) bool { return g.LeaseUntil != nil && now.Before(*g.LeaseUntil) }

// Status is "pending", "online" or "offline".
func (g Gateway) Status(now time.Time) string {
	switch {
	case g.JoinedAt == nil:
		return "pending"
	case g.Online(now):
		return "online"
	default:
		return "offline"
	}
}

// NewGateway is what an operator says about a new gateway. The region is given
// by its id or its code.
type NewGateway struct {
	Name   string
	Region string
}

// CreateGateway makes a gateway that can join, and the link that carries its
// code, which is nowhere else to be had. When the same request had been made
// before, the link is empty and the third result true.
func (a *Authority) CreateGateway(ctx context.Context, n NewGateway, once Once) (Gateway, string, bool, error) {
	var c checks
	c.that(validName(n.Name), "name", nameRule)
	if err := c.err(); err != nil {
		return Gateway{}, "", false, err
	}
	code, hash := newCode()
	now := a.now()
	gateway := Gateway{ID: newID(), Name: n.Name, JoinCodeHash: hash, JoinExpiresAt: now.Add(InvitationTTL), CreatedAt: now}
	insert := func(ctx context.Context, tx Tx) error {
		region, err := findRegion(ctx, tx, n.Region)
		if err != nil {
			return err
		}
		gateway := gateway
		gateway.RegionID = region.ID
		return tx.InsertGateway(ctx, gateway)
	}
	gateway, replayed, err := create(ctx, a, once, gateway.ID, insert, Tx.Gateway)
	if err != nil || replayed {
		return gateway, "", replayed, err
	}
	return gateway, a.link(a.APIBase(), "gateway-join", code), false, nil
}

// Gateway returns a gateway.
func (a *Authority) Gateway(ctx context.Context, id string) (Gateway, error) {
	return get(ctx, a, id, Tx.Gateway)
}

// Gateways lists gateways, all or a region's.
func (a *Authority) Gateways(ctx context.Context, regionID string, page Page) ([]Gateway, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Gateway, error) { return tx.Gateways(ctx, regionID, page) })
}

// DeleteGateway removes a gateway: its key is refused from now on, and its
// sessions are over.
func (a *Authority) DeleteGateway(ctx context.Context, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.EndOtherBoots(ctx, id, "", endedDeleted, a.now()); err != nil {
			return err
		}
		a.tell(tx, Event{Kind: EventGatewayRemoved, Gateways: []string{id}})
		return tx.DeleteGateway(ctx, id)
	})
}

// DrainGateway has a gateway send its devices to others and take no sessions, until
// UndrainGateway. Devices are not shown it meanwhile.
func (a *Authority) DrainGateway(ctx context.Context, id string) (Gateway, error) {
	return a.setDrained(ctx, id, true)
}

// UndrainGateway ends what DrainGateway has begun. Sessions that were sent away have
// gone, or go.
func (a *Authority) UndrainGateway(ctx context.Context, id string) (Gateway, error) {
	return a.setDrained(ctx, id, false)
}

func (a *Authority) setDrained(ctx context.Context, id string, drained bool) (Gateway, error) {
	var gateway Gateway
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		gateway, err = tx.Gateway(ctx, id)
		if err != nil || drained == (gateway.DrainedAt != nil) {
			return err
		}
		gateway.DrainedAt = nil
		if drained {
			gateway.DrainedAt = new(a.now())
		}
		a.tell(tx, Event{Kind: EventGatewayChanged, Gateways: []string{id}})
		return tx.SetDrained(ctx, id, gateway.DrainedAt)
	})
	return gateway, err
}

// maxOthers is how many gateways one is told of that its devices may turn to.
const maxOthers = 8

// OtherGateways are URLs of gateways that the devices of one may turn to which they are
// to leave: those of its region first, and those first that carry least.
func (a *Authority) OtherGateways(ctx context.Context, gateway Gateway) ([]string, error) {
	others := []string{}
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		list, err := tx.LiveGateways(ctx, a.leases.time(a.now()), nil, maxGatewaysRanked)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(g Gateway) bool { return g.ID == gateway.ID || g.URL == "" })
		elsewhere := func(g Gateway) int {
			if g.RegionID == gateway.RegionID {
				return 0
			}
			return 1
		}
		slices.SortStableFunc(list, func(x, y Gateway) int {
			return cmp.Or(cmp.Compare(elsewhere(x), elsewhere(y)), cmp.Compare(x.Sessions, y.Sessions))
		})
		others = others[:0]
		for _, g := range list[:min(len(list), maxOthers)] {
			others = append(others, g.URL)
		}
		return nil
	})
	return others, err
}

// Join is a gateway's request to be let in.
type Join struct {
	Code      string
	PublicKey ed25519.PublicKey
	Proof     Proof
	URL       string
	Version   string
}

// Joined is what a gateway brings when it joins.
type Joined struct {
	PublicKey ed25519.PublicKey
	URL       string
	Version   string
	At        time.Time
}

const maxVersion = 64 // characters

// JoinGateway redeems a join code for a gateway's key. The same code with the
// same key again gives the same gateway; new is false then.
func (a *Authority) JoinGateway(ctx context.Context, j Join) (gateway Gateway, isNew bool, err error) {
	var c checks
	c.that(validTunnelURL(j.URL), "url", tunnelURLRule)
	c.that(validText(j.Version, maxVersion), "version", "want at most 64 printable characters")
	if err := c.err(); err != nil {
		return Gateway{}, false, err
	}
	code, ok := canonicalCode(j.Code)
	if !ok {
		return Gateway{}, false, ErrInvalidInvitation
	}
	if err := a.checkCodeProof(purposeJoin, code, j.PublicKey, j.Proof); err != nil {
		return Gateway{}, false, err
	}
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		now := a.now()
		isNew = false
		gateway, err = tx.GatewayByJoinCode(ctx, hashCode(code))
		if errors.Is(err, ErrNotFound) {
			return ErrInvalidInvitation
		}
		if err != nil {
			return err
		}
		if gateway.JoinedAt != nil {
			if !bytes.Equal(gateway.PublicKey, j.PublicKey) {
				return ErrInvalidInvitation
			}
			return nil
		}
		redeemed, err := tx.RedeemJoin(ByGateway(ctx, gateway), gateway.ID, Joined{PublicKey: j.PublicKey, URL: j.URL, Version: j.Version, At: now})
		if err != nil {
			return err
		}
		if !redeemed {
			return ErrInvalidInvitation
		}
		isNew = true
		gateway, err = tx.Gateway(ctx, gateway.ID)
		return err
	})
	return gateway, isNew, err
}

const tunnelURLRule = "want wss://HOST[:PORT]/PATH of at most 500 characters"

func validTunnelURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && len(s) <= 500 && u.Scheme == "wss" && u.Hostname() != "" && u.User == nil &&
		u.RawQuery == "" && !strings.Contains(s, "#")
}

// AuthenticateGateway returns the gateway that signed an assertion.
func (a *Authority) AuthenticateGateway(ctx context.Context, assertion string) (Gateway, error) {
	var gateway Gateway
	_, err := ticket.VerifyAssertion(assertion, a.now(), func(id string) (ed25519.PublicKey, error) {
		var err error
		if gateway, err = a.Gateway(ctx, id); err != nil {
			return nil, err
		}
		if gateway.JoinedAt == nil {
			return nil, ErrNotFound
		}
		return gateway.PublicKey, nil
	})
	if errors.Is(err, ticket.ErrInvalid) || errors.Is(err, ErrNotFound) {
		return Gateway{}, fmt.Errorf("%w: %w", ErrUnauthorized, err)
	}
	return gateway, err
}

// Lease is what a gateway says about itself when it reports. Empty fields leave
// what is known.
type Lease struct {
	BootID   string
	URL      string
	Version  string
	Sessions *int
	Streams  *int
	Leaving  *bool // it is about to stop
	Until    time.Time
	// ClockOffset is how far the gateway's clock is ahead of the service's.
	ClockOffset *time.Duration
}

// maxClose bounds the sessions that one heartbeat asks a gateway to close.
const maxClose = 1000

// Heartbeat renews a gateway's lease, and with it all its sessions, and returns
// the sessions that it should close. A new boot ends those of earlier ones. What
// is leased of quotas is renewed by RenewQuota.
func (a *Authority) Heartbeat(ctx context.Context, gateway Gateway, l Lease) ([]SessionEnd, error) {
	var c checks
	c.that(l.URL == "" || validTunnelURL(l.URL), "url", tunnelURLRule)
	c.that(validText(l.Version, maxVersion), "version", "want at most 64 printable characters")
	if err := c.err(); err != nil {
		return nil, err
	}
	var ends []SessionEnd
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		now := a.now()
		if err := a.renew(ctx, tx, gateway, l, now); err != nil {
			return err
		}
		unwanted, err := tx.UnwantedSessions(ctx, gateway.ID, now, maxClose)
		if err != nil {
			return err
		}
		ends = make([]SessionEnd, 0, len(unwanted))
		for _, u := range unwanted {
			ends = append(ends, SessionEnd{ID: u.ID, Reason: string(u.reason())})
		}
		return nil
	})
	a.leases.tried(a.now(), err)
	return ends, err
}

// leaseClock is the time by which leases are judged where devices are shown
// gateways: it stands still while none can be renewed, so that what is wrong with
// the records does not take the gateways away.
type leaseClock struct{ stopped atomic.Int64 } // unix microseconds; 0: it goes

// tried notes how the renewal of a lease went.
func (c *leaseClock) tried(now time.Time, err error) {
	switch {
	case err == nil:
		c.stopped.Store(0)
	case errors.Is(err, ErrUnavailable):
		c.stopped.CompareAndSwap(0, now.UnixMicro())
	}
}

// stands reports whether no lease can be renewed.
func (c *leaseClock) stands() bool { return c.stopped.Load() != 0 }

func (c *leaseClock) time(now time.Time) time.Time {
	if stopped := c.stopped.Load(); stopped != 0 {
		return time.UnixMicro(stopped)
	}
	return now
}

// renew is the first thing of every call that may begin a session. So a gateway
// has live sessions of another boot only when this one is new: looking for them each
// time would cost as much as it has sessions.
func (a *Authority) renew(ctx context.Context, tx Tx, gateway Gateway, l Lease, now time.Time) error {
	l.Until = now.Add(leaseIntervals * a.heartbeat)
	rebooted, err := tx.RenewLease(ctx, gateway.ID, l)
	if err != nil || !rebooted {
		return err
	}
	return tx.EndOtherBoots(ctx, gateway.ID, l.BootID, endedRestart, now)
}

// EndSessions records that sessions of a gateway are over. Sessions that are
// over already, or not the gateway's, are left as they are.
func (a *Authority) EndSessions(ctx context.Context, gateway Gateway, ends []SessionEnd) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		return tx.EndSessions(ctx, gateway.ID, ends, a.now())
	})
}

const (
	maxGatewaysShown  = 64
	maxGatewaysRanked = 1000
)

// reachable lists the gateways that a device may use: at most maxGatewaysShown of
// the regions that are named, or of all. First come those that were heard of
// lately, then those that carry no more than others do. Beyond that the order
// differs from device to device, so that the load spreads, and is stable for each.
func (a *Authority) reachable(ctx context.Context, tx Tx, deviceID string, regions []string, now time.Time) ([]Gateway, error) {
	now = a.leases.time(now)
	gateways, err := tx.LiveGateways(ctx, now, regions, maxGatewaysRanked)
	if err != nil {
		return nil, err
	}
	sessions := 0
	for _, g := range gateways {
		sessions += g.Sessions
	}
	mean := sessions / max(len(gateways), 1)
	type ranked struct {
		Gateway
		late   int // heartbeats that did not come
		busy   int
		weight [sha256.Size]byte
	}
	list := make([]ranked, 0, len(gateways))
	for _, g := range gateways {
		r := ranked{Gateway: g, weight: sha256.Sum256([]byte(deviceID + "|" + g.ID))}
		if g.LeaseUntil.Sub(now) < (leaseIntervals-1)*a.heartbeat-a.heartbeat/2 {
			r.late = 1
		}
		switch {
		case g.Sessions > 2*mean+crowd:
			r.busy = 2
		case g.Sessions > mean+mean/4+crowd:
			r.busy = 1
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(x, y ranked) int {
		return cmp.Or(cmp.Compare(x.late, y.late), cmp.Compare(x.busy, y.busy), bytes.Compare(x.weight[:], y.weight[:]))
	})
	gateways = gateways[:0]
	for _, r := range list[:min(len(list), maxGatewaysShown)] {
		gateways = append(gateways, r.Gateway)
	}
	return gateways, nil
}

// crowd is how many sessions more than the others a gateway may carry before it is
// put behind them: with fewer, the numbers are chance.
const crowd = 16
