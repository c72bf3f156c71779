package control

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

func (e *explainer) region(ctx context.Context) error {
	regions, err := e.tx.Regions(ctx, "", Page{Limit: MaxPageSize})
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(regions))
	for _, r := range regions {
		known[r.Code] = true
	}
	if len(e.usable) > 0 {
		e.regions = allowedRegions(e.usable)
	}
	there := slices.DeleteFunc(slices.Clone(e.regions), func(code string) bool { return !known[code] })
	switch {
	case len(regions) == 0:
		e.fail(CheckRegion, reason.RegionUnavailable, nil, "httvpsctl region create --code CODE, and then a gateway in it", "there is no region")
	case len(e.regions) == 0:
		e.pass(CheckRegion, "all regions are allowed")
	case len(there) == 0:
		e.fail(CheckRegion, reason.RegionUnavailable, nil, "httvpsctl region create --code "+e.regions[0]+", or other regions for the "+e.regionsOf(), "none of the "+e.regionsOf()+"'s regions is there: %s", strings.Join(e.regions, ", "))
	default:
		e.pass(CheckRegion, "allowed: %s", strings.Join(there, ", "))
	}
	return nil
}

// regionsOf says whose regions hold.
func (e *explainer) regionsOf() string {
	if e.standing.User.Limits.Regions != nil {
		return "user"
	}
	return "plan"
}

// gateways is about those that the device would be told of, and their clocks.
func (e *explainer) gateways(ctx context.Context) error {
	all, err := e.tx.Gateways(ctx, "", Page{Limit: maxWhyGateways})
	if err != nil {
		return err
	}
	var there []Gateway
	for _, g := range all {
		if g.JoinedAt != nil && (len(e.regions) == 0 || slices.Contains(e.regions, g.Region)) {
			there = append(there, g)
		}
	}
	online := slices.DeleteFunc(slices.Clone(there), func(g Gateway) bool { return !g.Online(e.now) })
	e.live = slices.DeleteFunc(slices.Clone(online), Gateway.Draining)
	where := "there"
	if len(e.regions) > 0 {
		where = "in " + strings.Join(e.regions, ", ")
	}
	switch {
	case len(there) == 0:
		e.fail(CheckGateway, reason.RetryLater, nil, "httvpsctl gateway create --name NAME --region REGION, and join it", "no gateway has joined %s", where)
	case len(e.live) == 0 && len(online) > 0:
		drained := online[0]
		e.fail(CheckGateway, reason.RetryLater, drained.DrainedAt, "httvpsctl gateway undrain "+drained.ID+", or another gateway",
			"devices are to leave all %d gateways that are online %s", len(online), where)
	case len(e.live) == 0:
		last := slices.MaxFunc(there, func(x, y Gateway) int { return x.leaseEnd().Compare(y.leaseEnd()) })
		since := last.leaseEnd()
		e.fail(CheckGateway, reason.RetryLater, &since, "look at the machine and the log of gateway "+quoted(last.Name)+": journalctl -u httvps-gateway",
			"none of the %d gateways %s is heard of; the last was %s", len(there), where, quoted(last.Name))
	default:
		e.pass(CheckGateway, "%d of %d are online", len(e.live), len(there))
		e.clocks()
	}
	return nil
}

// leaseEnd is when a gateway's lease ended or ends; zero: it never had one.
func (g Gateway) leaseEnd() time.Time {
	if g.LeaseUntil == nil {
		return time.Time{}
	}
	return *g.LeaseUntil
}

// clocks looks for gateways that would take good tokens for expired.
func (e *explainer) clocks() {
	var off, dead []Gateway
	for _, g := range e.live {
		if g.ClockOffset.Abs() > maxClockOffset {
			off = append(off, g)
		}
		if g.ClockOffset > AccessTokenTTL/2 { // devices renew theirs at half of it
			dead = append(dead, g)
		}
	}
	if len(off) == 0 {
		e.pass(CheckClock, "the gateways' clocks are right")
		return
	}
	const next = "set its clock and keep it right: timedatectl set-ntp true"
	worst := slices.MaxFunc(off, func(x, y Gateway) int { return cmp.Compare(x.ClockOffset.Abs(), y.ClockOffset.Abs()) })
	if len(dead) == len(e.live) {
		e.fail(CheckClock, reason.TokenExpired, nil, next, "the clock of gateway %s is %s ahead: it takes good tokens for expired", quoted(worst.Name), worst.ClockOffset)
		return
	}
	e.warn(CheckClock, nil, next, "the clock of gateway %s is off by %s", quoted(worst.Name), worst.ClockOffset)
}

// egress is about the Outline servers of the regions of the gateways. Where there are
// none, gateways reach targets themselves or have keys of their own.
func (e *explainer) egress(ctx context.Context) error {
	if len(e.live) == 0 {
		return nil
	}
	servers, err := e.tx.OutlineServers(ctx, OutlineFilter{}, Page{Limit: MaxPageSize})
	if err != nil {
		return err
	}
	pooled := make(map[string]bool)
	for _, s := range servers {
		pooled[s.Region] = true
	}
	var since *time.Time // of the last that went down
	for _, g := range e.live {
		choices, err := e.tx.OutlineChoices(ctx, g.Region, maxOutlineChoices)
		if err != nil {
			return err
		}
		if len(choices) == 0 && !pooled[g.Region] {
			e.pass(CheckEgress, "there are no Outline servers for region %s: its gateways find their own way", g.Region)
			return nil
		}
		for _, s := range choices {
			if s.Weight == 0 || !s.usable(e.now) {
				if s.Health.Since != nil && (since == nil || s.Health.Since.After(*since)) {
					since = s.Health.Since
				}
				continue
			}
			n, err := e.tx.CountOutlineSessions(ctx, s.ID)
			if err != nil {
				return err
			}
			if n < s.Capacity {
				e.pass(CheckEgress, "sessions can leave through Outline server %s", quoted(s.Name))
				return nil
			}
		}
	}
	e.fail(CheckEgress, reason.NoOutlineNodesAvailable, since, "httvpsctl outline list shows which are down, disabled or full; httvpsctl outline create adds one",
		"none of the Outline servers for these gateways can be used")
	return nil
}
