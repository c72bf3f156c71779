package control

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"
)

// A quota is given out in leases: a process of a gateway may move so much of a
// subscription's traffic, counted since the process began, and comes back for more.
// What is used in the period and what is leased and not used is never more than
// the quota. See ADR 0014.

const (
	// leasePart of a quota, within bounds, is what a gateway has in advance.
	leasePart = 64
	// MinQuotaLease is the lower of those bounds, in bytes.
	MinQuotaLease = 1 << 20
	// MaxQuotaLease is the upper one.
	MaxQuotaLease = 64 << 20
	// smallLease is what is not divided any more when a quota comes to its end.
	smallLease = 256 << 10
	// QuotaLeaseTTL is how long what a gateway has not used stays reserved for it
	// without a word from it.
	QuotaLeaseTTL = time.Minute
	// MaxLeaseRequests is how many leases one request may renew.
	MaxLeaseRequests = 1000

	// recountAfter is how often what is used in a period is summed up anew.
	recountAfter = time.Hour
	// keepLeases is how long leases that have ended are kept, and keepUnreported how
	// long those of which a gateway has said that it used more than it reported.
	keepLeases     = 24 * time.Hour
	keepUnreported = 400 * 24 * time.Hour

	wholeQuota = 100 // percent
	// endless is the bucket at which a period without an end ends.
	endless = math.MaxInt64
)

// QuotaLeaseSize returns how many bytes of a quota a gateway has in advance.
func QuotaLeaseSize(quota int64) int64 {
	return min(max(quota/leasePart, MinQuotaLease), MaxQuotaLease)
}

// QuotaUse is what is used of a subscription's quota in a period.
type QuotaUse struct {
	SubscriptionID string
	From           int64 // the first bucket of the period
	To             int64 // the first after it; 0: nothing has been asked for yet
	Used           int64
	Warned         int // percent
	// WarnAt is how much is used when the next part is reached that is to be warned of;
	// 0: that is not known. Plans change without it.
	WarnAt    int64
	CountedAt time.Time
}

// QuotaLease is what a process of a gateway may move of a subscription: bytes up
// and down together, since it began.
type QuotaLease struct {
	SubscriptionID string
	GatewayID      string
	BootID         string
	Version        int64 // grows with every change, also of a service that was restored: no less than the time in unix microseconds
	Allowance      int64
	Booked         int64 // what its usage reports have told
	Used           int64 // what it said itself, with its last word about the lease
	EndsAt         time.Time
}

// ahead is what the gateway has used and not reported yet.
func (l QuotaLease) ahead() int64 { return max(l.Used-l.Booked, 0) }

type quotaRows interface {
	// Quota returns what is used of a subscription's quota. In Write nobody else
	// books usage of it nor gives out its quota until the unit of work ends.
	Quota(ctx context.Context, subscriptionID string) (QuotaUse, error)
	PutQuota(ctx context.Context, u QuotaUse) error
	// QuotaLease and what follows is for who holds the quota.
	QuotaLease(ctx context.Context, subscriptionID, gatewayID, bootID string) (QuotaLease, error)
	PutQuotaLease(ctx context.Context, l QuotaLease) error
	// BookQuotaLease adds to what the reports of a process have told.
	BookQuotaLease(ctx context.Context, subscriptionID, gatewayID, bootID string, bytes int64) error
	// QuotaReserved sums what other leases than this process's hold: what is not booked
	// of those that have not ended, and of those that ended since a time what their
	// gateways said that they had used.
	QuotaReserved(ctx context.Context, subscriptionID, gatewayID, bootID string, now, since time.Time) (int64, error)
	// UsageOfProcess sums what the reports of a process have told of a subscription.
	UsageOfProcess(ctx context.Context, subscriptionID, gatewayID, bootID string) (Traffic, error)
	// PruneQuotaLeases deletes at most limit leases that ended before a time, or, when
	// something of them has not been reported, before another. It returns how many.
	PruneQuotaLeases(ctx context.Context, endedBefore, unreportedBefore time.Time, limit int) (int, error)
}

// QuotaState says what a gateway may do with a subscription's traffic.
type QuotaState string

// The states of a quota.
const (
	QuotaUnlimited QuotaState = "unlimited" // there is no quota
	QuotaOpen      QuotaState = "open"      // as much as the allowance says
	QuotaExhausted QuotaState = "exhausted" // what is left of the allowance, and nothing then
	QuotaThrottled QuotaState = "throttled" // whatever the allowance says, and slowly
	QuotaUnknown   QuotaState = "unknown"   // no lease is known: the question whether a session may run gives one
)

// Grant is what a gateway learns about a subscription's quota.
type Grant struct {
	SubscriptionID string
	State          QuotaState
	Lease          QuotaLease // zero when State is QuotaUnlimited or QuotaUnknown
	Period         Period
	ThrottleBPS    int64 // of QuotaThrottled
	Quota          int64
	Used           int64
	Reached        int // the highest percentage to be warned of that was reached in the period; 0: none
	Warning        int // the percentage of the quota that was reached just now; 0: none
}

// LeaseRequest is what a gateway says about its lease of a subscription's quota.
type LeaseRequest struct {
	SubscriptionID string
	Used           int64 // since the process began
	// Hold, unless it is nil, is the allowance that the gateway wants to have and no
	// more. It gives back what it has beyond that, if Version is that of the lease.
	Hold    *int64
	Version int64
}

// quota is a subscription's quota as a gateway draws from it.
type quota struct {
	tx     Tx
	now    time.Time
	plan   Plan
	period Period
	limit  int64
	use    QuotaUse
	lease  QuotaLease
	others int64 // reserved for other processes
	writes bool  // else nothing is given out, nor noted
	reach  int   // the percentage that was reached just now
}

// openQuota returns the quota of an entitlement that has one, for a process of a
// gateway, and holds it until the unit of work ends, if that writes.
func (a *Authority) openQuota(ctx context.Context, tx Tx, e Entitlement, gatewayID, bootID string, now time.Time, writes bool) (*quota, error) {
	q := &quota{tx: tx, now: now, writes: writes, plan: e.Plan, limit: *e.Plan.QuotaBytes, period: e.Plan.At(e.StartsAt, now)}
	var err error
	if q.use, err = tx.Quota(ctx, e.ID); err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	q.use.SubscriptionID = e.ID
	if err := q.count(ctx); err != nil {
		return nil, err
	}
	if q.reach > 0 {
		if err := a.announceQuota(ctx, tx, e, q.use, q.period, q.reach); err != nil {
			return nil, err
		}
	}
	q.lease, err = tx.QuotaLease(ctx, e.ID, gatewayID, bootID)
	if errors.Is(err, ErrNotFound) {
		q.lease = QuotaLease{SubscriptionID: e.ID, GatewayID: gatewayID, BootID: bootID}
		var moved Traffic
		moved, err = tx.UsageOfProcess(ctx, e.ID, gatewayID, bootID)
		q.lease.Booked = moved.total()
	}
	if err != nil {
		return nil, err
	}
	q.others, err = tx.QuotaReserved(ctx, e.ID, gatewayID, bootID, now, q.period.From)
	return q, err
}

// count brings what is used up to date: for another period, and now and then
// because an older version of the service may serve beside this one.
func (q *quota) count(ctx context.Context) error {
	from, to := q.period.buckets()
	same := q.use.From == from && q.use.To == to
	before := q.use
	if !same || q.now.Sub(q.use.CountedAt) >= recountAfter {
		used, err := q.tx.UsedBytes(ctx, q.use.SubscriptionID, from, to)
		if err != nil {
			return err
		}
		q.use.From, q.use.To, q.use.Used, q.use.CountedAt = from, to, used.total(), q.now
	}
	if !same {
		q.use.Warned = 0
	}
	if !q.writes {
		return nil
	}
	if reached := q.plan.reached(q.use.Used); reached > q.use.Warned {
		q.use.Warned, q.reach = reached, reached
	}
	q.use.WarnAt = q.plan.nextPart(q.use.Warned)
	if q.use == before {
		return nil
	}
	return q.tx.PutQuota(ctx, q.use)
}

// exhausted reports whether everything is used, as far as it is known here.
func (q *quota) exhausted() bool { return q.use.Used+q.lease.ahead() >= q.limit }

// grant renews the process's lease and gives it what it needs of what there is.
func (q *quota) grant(ctx context.Context, r LeaseRequest) (Grant, error) {
	l, before := &q.lease, q.lease
	l.Used = max(l.Used, min(r.Used, l.Booked+q.limit)) // nobody is to hold back more than there is
	size := QuotaLeaseSize(q.limit)
	want := max(l.Used, l.Booked) + size
	if r.Hold != nil {
		want = min(want, *r.Hold)
		if r.Version == l.Version {
			l.Allowance = min(l.Allowance, max(*r.Hold, 0))
		}
	}
	if !q.now.Before(l.EndsAt) { // it has been given back
		l.Allowance = 0
	}
	l.Allowance = max(l.Allowance, l.Used, l.Booked)
	left := q.limit - q.use.Used - q.others - (l.Allowance - l.Booked)
	exhausted := q.exhausted()
	if need := want - l.Allowance; need > 0 && left > 0 && !exhausted && q.writes {
		// The last of a quota is divided, so that it does not lie at a gateway that
		// does not need it.
		l.Allowance += min(need, max(left/2, min(left, smallLease)))
	}
	if !q.writes {
		*l = before
	}
	if q.writes && (*l != before || l.EndsAt.Sub(q.now) < QuotaLeaseTTL/2) {
		l.Version = max(l.Version+1, q.now.UnixMicro())
		l.EndsAt = q.now.Add(QuotaLeaseTTL).Truncate(time.Microsecond)
		if err := q.tx.PutQuotaLease(ctx, *l); err != nil {
			return Grant{}, err
		}
	}
	grant := Grant{
		SubscriptionID: l.SubscriptionID, State: QuotaOpen, Lease: *l, Period: q.period, Quota: q.limit, Used: q.use.Used,
		Reached: q.plan.reached(q.use.Used), Warning: q.reach,
	}
	switch {
	case exhausted && q.plan.QuotaAction == QuotaThrottle && q.plan.ThrottleBPS != nil:
		grant.State, grant.ThrottleBPS = QuotaThrottled, *q.plan.ThrottleBPS
	case exhausted:
		grant.State = QuotaExhausted
	}
	return grant, nil
}

// announceQuota has webhooks told of the highest part of a quota that was reached.
func (a *Authority) announceQuota(ctx context.Context, tx Tx, e Entitlement, use QuotaUse, period Period, percent int) error {
	user, err := tx.PeekUser(ctx, e.UserID)
	if errors.Is(err, ErrNotFound) {
		return nil // with everything that is his
	}
	if err != nil {
		return err
	}
	n := notice{Type: NoticeQuotaWarning, Object: user.ID, Data: noticeData{
		User: aboutUser(user), Subscription: aboutSubscription(e), Quota: &noticeQuota{
			Percent: percent, Bytes: *e.Plan.QuotaBytes, Used: use.Used, Action: string(e.Plan.QuotaAction), PeriodFrom: period.From.UTC(),
		},
	}}
	if !period.To.IsZero() {
		n.Data.Quota.PeriodTo = new(period.To.UTC())
	}
	if percent >= wholeQuota {
		n.Type = NoticeQuotaExceeded
	}
	a.announce(tx, n)
	return nil
}

// parts are the percentages that are to be warned of, and the whole.
func (q Quota) parts() []int { return append(slices.Clone(q.QuotaWarnings), wholeQuota) }

// bytesOf returns how many bytes a percentage of the quota is.
func (q Quota) bytesOf(percent int) int64 {
	// In this order it cannot overflow.
	return *q.QuotaBytes/wholeQuota*int64(percent) + *q.QuotaBytes%wholeQuota*int64(percent)/wholeQuota
}

// nextPart returns how many bytes are used when the next part after a percentage is
// reached; 0: there is none.
func (q Quota) nextPart(percent int) int64 {
	next := 0
	for _, part := range q.parts() {
		if part > percent && (next == 0 || part < next) {
			next = part
		}
	}
	if q.QuotaBytes == nil || next == 0 {
		return 0
	}
	return max(q.bytesOf(next), 1)
}

// reached returns the highest of the percentages that are to be warned of, and of
// the whole, that used has reached; 0: none.
func (q Quota) reached(used int64) int {
	if q.QuotaBytes == nil {
		return 0
	}
	highest := 0
	for _, percent := range q.parts() {
		if used >= q.bytesOf(percent) {
			highest = max(highest, percent)
		}
	}
	return highest
}

// buckets returns the first bucket of the period and the first after it.
func (p Period) buckets() (from, to int64) {
	if p.To.IsZero() {
		return bucketOf(p.From), endless
	}
	return bucketOf(p.From), bucketOf(p.To)
}

// total returns both directions together, or as much as a number can say.
func (t Traffic) total() int64 {
	return min(t.Up, math.MaxInt64/4) + min(t.Down, math.MaxInt64/4)
}

// RenewQuota renews leases of a process of a gateway, and gives out more of the
// quotas, as far as there is some. A lease that the service does not know is not
// made: that is for Decide.
func (a *Authority) RenewQuota(ctx context.Context, gateway Gateway, bootID string, requests []LeaseRequest) ([]Grant, error) {
	if len(requests) > MaxLeaseRequests {
		return nil, &InvalidError{Fields: []FieldError{{Field: "leases", Detail: "want at most 1000"}}}
	}
	order := make([]int, len(requests)) // one for all, so that nobody waits for somebody who waits for him
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(requests[i].SubscriptionID, requests[j].SubscriptionID) })
	var grants []Grant
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		now := a.now()
		grants = make([]Grant, len(requests))
		for _, i := range order {
			var err error
			if grants[i], err = a.renewQuota(ctx, tx, gateway.ID, bootID, requests[i], now); err != nil {
				return err
			}
		}
		return nil
	})
	return grants, err
}

func (a *Authority) renewQuota(ctx context.Context, tx Tx, gatewayID, bootID string, r LeaseRequest, now time.Time) (Grant, error) {
	unknown := Grant{SubscriptionID: r.SubscriptionID, State: QuotaUnknown}
	e, err := tx.Entitlement(ctx, r.SubscriptionID)
	switch {
	case errors.Is(err, ErrNotFound):
		return unknown, nil
	case err != nil:
		return Grant{}, err
	case e.Status(now) != Active:
		return unknown, nil
	case e.Plan.QuotaBytes == nil:
		return Grant{SubscriptionID: r.SubscriptionID, State: QuotaUnlimited}, nil
	}
	q, err := a.openQuota(ctx, tx, e, gatewayID, bootID, now, true)
	if err != nil || q.lease.Version == 0 {
		return unknown, err
	}
	return q.grant(ctx, r)
}
