package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"time"
)

const (
	// MaxUsageReports is how many reports one request may bring.
	MaxUsageReports = 1000
	// MaxUsageBytes is the largest value of a counter: 4 PiB, a month at 12 Gbit/s.
	MaxUsageBytes = 1 << 52
	// MaxUsageSequence is the largest number of a report.
	MaxUsageSequence = 1 << 62
	// UsageBucket is how finely usage is booked by time. The offset of every time
	// zone is a multiple of it, and so is the beginning of every day.
	UsageBucket = 15 * time.Minute

	// maxReportDelay is how late a report may come and still be booked at the time
	// that it names.
	maxReportDelay = 400 * 24 * time.Hour
	// keepReports is how long each report is kept as it was said. After that the
	// last one of each bucket of a session is, from which the same sums follow.
	keepReports = 3 * 24 * time.Hour
	// usagePart is how many reports are looked at together when one comes late.
	usagePart = 500
)

// Traffic is bytes of a session's streams: up from the device, down to it.
type Traffic struct {
	Up   int64
	Down int64
}

// Plus returns the sum, or as much as a number can say.
func (t Traffic) Plus(o Traffic) Traffic { return Traffic{plus(t.Up, o.Up), plus(t.Down, o.Down)} }

func plus(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func (t Traffic) minus(o Traffic) Traffic { return Traffic{t.Up - o.Up, t.Down - o.Down} }

// or returns the larger of each.
func (t Traffic) or(o Traffic) Traffic { return Traffic{max(t.Up, o.Up), max(t.Down, o.Down)} }

// below reports whether t is smaller than o in anything.
func (t Traffic) below(o Traffic) bool { return t.Up < o.Up || t.Down < o.Down }

// UsageKey names a counter: a session in one process of its gateway.
type UsageKey struct {
	GatewayID string
	BootID    string
	SessionID string
}

func (k UsageKey) compare(o UsageKey) int {
	return cmp.Or(cmp.Compare(k.GatewayID, o.GatewayID), cmp.Compare(k.BootID, o.BootID), cmp.Compare(k.SessionID, o.SessionID))
}

// UsageEntry is what a gateway says about a session: the bytes since its
// beginning in this process. They and Sequence grow together.
type UsageEntry struct {
	BootID    string
	SessionID string
	Sequence  uint64
	Up        uint64
	Down      uint64
	At        time.Time // when it was counted
}

// UsageFault is what is wrong with the reports of a gateway.
type UsageFault string

// Faults of reports that are kept all the same. Of each counter the largest
// value that was ever said counts.
const (
	// FaultDecreased says that a counter went down from one number to a later one.
	FaultDecreased UsageFault = "decreased"
	// FaultRewritten says that the same number came with other values.
	FaultRewritten UsageFault = "rewritten"
)

// UsageReport is an entry as it is kept.
type UsageReport struct {
	UsageKey
	Traffic
	Sequence   int64
	CountedAt  time.Time
	ReceivedAt time.Time
	Fault      UsageFault
}

func (r UsageReport) bucket() int64 { return r.CountedAt.UnixMicro() / UsageBucket.Microseconds() }

// UsageSession is the sum of the reports about a session and whose it is; the
// ids are empty when that is unknown.
type UsageSession struct {
	UsageKey
	Traffic
	DeviceID       string
	UserID         string
	SubscriptionID string
	Sequence       int64 // the highest
	Faults         int
	CountedAt      time.Time
	ReceivedAt     time.Time
}

// UsageSum is the traffic of a subscription through a gateway in a bucket of time.
type UsageSum struct {
	SubscriptionID string
	Bucket         int64 // UsageBucket since 1970
	GatewayID      string
	Traffic
}

// UsageTotal is the traffic of all subscriptions with a plan through a gateway in a
// bucket of time.
type UsageTotal struct {
	Bucket    int64
	GatewayID string
	PlanID    string // empty: unknown
	Traffic
}

// UsageResult is what became of an entry.
type UsageResult string

// The results of entries. Those of the second group are refused, and would be
// again.
const (
	UsageTaken        UsageResult = "taken"
	UsageDuplicate    UsageResult = "duplicate"
	UsageUnattributed UsageResult = "unattributed" // taken, though nobody knows the session
	UsageDecreased    UsageResult = "decreased"    // taken, and a fault of the gateway
	UsageRewritten    UsageResult = "rewritten"    // taken, and a fault of the gateway

	UsageTooLarge        UsageResult = "too_large"
	UsageInvalidSequence UsageResult = "invalid_sequence"
	UsageForeign         UsageResult = "foreign_session"
)

// Refused reports whether the entry was not taken.
func (r UsageResult) Refused() bool {
	return r == UsageTooLarge || r == UsageInvalidSequence || r == UsageForeign
}

// UsageAck says up to which number all that was moved is durable.
type UsageAck struct {
	BootID    string
	SessionID string
	Sequence  int64
}

// UsageAnswer is what became of a batch.
type UsageAnswer struct {
	Results []UsageResult // one for each entry, in their order
	Acks    []UsageAck    // one for each counter of which something has been taken
	Oldest  time.Time     // when the oldest entry was counted; zero when none was taken for the first time
	// Warnings are of quotas of which a part was reached just now.
	Warnings []Grant
}

// ReportUsage books what a gateway says about its sessions. The same set of
// reports leads to the same account, however often, late and in whichever order
// they come: the bytes of a counter between one number and the next belong to the
// bucket in which the later one was counted. All that the answer acknowledges
// is durable.
func (a *Authority) ReportUsage(ctx context.Context, gateway Gateway, entries []UsageEntry) (UsageAnswer, error) {
	if len(entries) > MaxUsageReports {
		return UsageAnswer{}, &InvalidError{Fields: []FieldError{{Field: "reports", Detail: fmt.Sprintf("want at most %d", MaxUsageReports)}}}
	}
	var answer UsageAnswer
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		b := usageBatch{
			authority: a, tx: tx, gatewayID: gateway.ID, now: a.now().UTC().Truncate(time.Microsecond),
			entries: entries, sums: make(map[UsageSum]Traffic), processes: make(map[string]map[string]int64), answer: UsageAnswer{Results: make([]UsageResult, len(entries))},
		}
		if err := b.book(ctx); err != nil {
			return err
		}
		answer = b.answer
		return nil
	})
	return answer, err
}

// usageBatch books the entries of one request.
type usageBatch struct {
	authority *Authority
	tx        Tx
	gatewayID string
	now       time.Time
	entries   []UsageEntry
	sums      map[UsageSum]Traffic        // what buckets gain; negative where it moves to another
	processes map[string]map[string]int64 // what processes have told: by subscription and boot
	answer    UsageAnswer
}

// book takes the counters in one order for all, and then the buckets, so that
// nobody waits for somebody who waits for him.
func (b *usageBatch) book(ctx context.Context) error {
	order := make([]int, 0, len(b.entries))
	for i, e := range b.entries {
		switch {
		case e.Up > MaxUsageBytes || e.Down > MaxUsageBytes:
			b.answer.Results[i] = UsageTooLarge
		case e.Sequence == 0 || e.Sequence > MaxUsageSequence:
			b.answer.Results[i] = UsageInvalidSequence
		default:
			order = append(order, i)
		}
	}
	key := func(i int) UsageKey { return UsageKey{b.gatewayID, b.entries[i].BootID, b.entries[i].SessionID} }
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Or(key(i).compare(key(j)), cmp.Compare(b.entries[i].Sequence, b.entries[j].Sequence))
	})
	for len(order) > 0 {
		first := key(order[0])
		n := slices.IndexFunc(order, func(i int) bool { return key(i) != first })
		if n < 0 {
			n = len(order)
		}
		if err := b.session(ctx, first, order[:n]); err != nil {
			return err
		}
		order = order[n:]
	}
	sums := slices.SortedFunc(maps.Keys(b.sums), func(x, y UsageSum) int {
		return cmp.Or(cmp.Compare(x.SubscriptionID, y.SubscriptionID), cmp.Compare(x.Bucket, y.Bucket))
	})
	totals := make(map[UsageTotal]Traffic)
	for part := range chunksBy(sums, func(s UsageSum) string { return s.SubscriptionID }) {
		if err := b.quota(ctx, part); err != nil {
			return err
		}
		for _, sum := range part {
			sum.Traffic = b.sums[sum]
			if sum.Traffic == (Traffic{}) {
				continue
			}
			plan, err := b.tx.AddUsage(ctx, sum)
			if err != nil {
				return err
			}
			total := UsageTotal{Bucket: sum.Bucket, GatewayID: sum.GatewayID, PlanID: plan}
			totals[total] = totals[total].Plus(sum.Traffic)
		}
	}
	return b.total(ctx, totals)
}

// total adds what the buckets have gained to their sums. Those are of one gateway
// and come last, so that its requests wait for each other no longer than they must.
func (b *usageBatch) total(ctx context.Context, totals map[UsageTotal]Traffic) error {
	order := slices.SortedFunc(maps.Keys(totals), func(x, y UsageTotal) int {
		return cmp.Or(cmp.Compare(x.Bucket, y.Bucket), cmp.Compare(x.PlanID, y.PlanID))
	})
	for _, total := range order {
		total.Traffic = totals[total]
		if total.Traffic == (Traffic{}) {
			continue
		}
		if err := b.tx.AddUsageTotal(ctx, total); err != nil {
			return err
		}
	}
	return nil
}

// chunksBy yields the parts of a list in which what follows each other has the same key.
func chunksBy[T any, K comparable](list []T, key func(T) K) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for len(list) > 0 {
			first := key(list[0])
			n := slices.IndexFunc(list, func(e T) bool { return key(e) != first })
			if n < 0 {
				n = len(list)
			}
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

// quota books the sums of a subscription on its quota, when something of that has
// been given out, and on the leases of the processes.
func (b *usageBatch) quota(ctx context.Context, sums []UsageSum) error {
	id := sums[0].SubscriptionID
	if id == "" {
		return nil
	}
	use, err := b.tx.Quota(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && use.To == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	used := use.Used
	for _, sum := range sums {
		if sum.Bucket >= use.From && sum.Bucket < use.To {
			used = min(max(used+b.sums[sum].total(), 0), math.MaxInt64/4)
		}
	}
	if used != use.Used {
		use.Used = used
		if use.WarnAt > 0 && used >= use.WarnAt {
			if err := b.warn(ctx, &use); err != nil {
				return err
			}
		}
		if err := b.tx.PutQuota(ctx, use); err != nil {
			return err
		}
	}
	for _, boot := range slices.Sorted(maps.Keys(b.processes[id])) {
		if moved := b.processes[id][boot]; moved != 0 {
			if err := b.tx.BookQuotaLease(ctx, id, b.gatewayID, boot, moved); err != nil {
				return err
			}
		}
	}
	return nil
}

// warn notes that a part of a quota is reached that is to be warned of. What a gateway
// reports last of a quota that is used up is not followed by a question for more.
func (b *usageBatch) warn(ctx context.Context, use *QuotaUse) error {
	e, err := b.tx.Entitlement(ctx, use.SubscriptionID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	reached := e.Plan.reached(use.Used)
	period := e.Plan.At(e.StartsAt, b.now)
	from, to := period.buckets()
	if e.Plan.QuotaBytes == nil || reached <= use.Warned || use.From != from || use.To != to {
		return nil
	}
	use.Warned, use.WarnAt = reached, e.Plan.nextPart(reached)
	b.answer.Warnings = append(b.answer.Warnings, Grant{SubscriptionID: e.ID, Quota: *e.Plan.QuotaBytes, Used: use.Used, Warning: reached})
	return b.authority.announceQuota(ctx, b.tx, e, *use, period, reached)
}

// session books the entries of one counter, which come in the order of their numbers.
func (b *usageBatch) session(ctx context.Context, key UsageKey, order []int) error {
	session, err := b.tx.UsageSession(ctx, key)
	isNew := errors.Is(err, ErrNotFound)
	if err != nil && !isNew {
		return err
	}
	if isNew {
		session = UsageSession{UsageKey: key}
		owner, err := b.tx.UsageOwner(ctx, key.SessionID)
		switch {
		case err == nil && owner.GatewayID != b.gatewayID:
			for _, i := range order {
				b.answer.Results[i] = UsageForeign
			}
			return nil
		case err == nil:
			session.DeviceID, session.UserID, session.SubscriptionID = owner.DeviceID, owner.UserID, owner.SubscriptionID
		case !errors.Is(err, ErrNotFound):
			return err
		}
	}
	changed := isNew
	for _, i := range order {
		result, err := b.entry(ctx, &session, b.entries[i])
		if err != nil {
			return err
		}
		changed = changed || result != UsageDuplicate
		b.answer.Results[i] = result
	}
	b.answer.Acks = append(b.answer.Acks, UsageAck{BootID: key.BootID, SessionID: key.SessionID, Sequence: session.Sequence})
	if !changed {
		return nil
	}
	session.ReceivedAt = b.now
	if isNew {
		return b.tx.InsertUsageSession(ctx, session, b.now.Add(keepReports))
	}
	return b.tx.UpdateUsageSession(ctx, session, b.now.Add(keepReports))
}

// entry books one entry and what it changes about those with higher numbers.
func (b *usageBatch) entry(ctx context.Context, s *UsageSession, e UsageEntry) (UsageResult, error) {
	report := UsageReport{
		UsageKey: s.UsageKey, Sequence: int64(e.Sequence), CountedAt: e.At.UTC().Truncate(time.Microsecond), ReceivedAt: b.now,
		Traffic: Traffic{Up: int64(e.Up), Down: int64(e.Down)},
	}
	if report.CountedAt.After(b.now) || report.CountedAt.Before(b.now.Add(-maxReportDelay)) {
		report.CountedAt = b.now // a clock that cannot be right
	}
	var earlier UsageReport // with the same number
	before := s.Traffic     // of those with lower numbers
	late := report.Sequence <= s.Sequence
	if late {
		var err error
		earlier, err = b.tx.UsageReport(ctx, s.UsageKey, report.Sequence)
		switch {
		case err == nil && earlier.Traffic == report.Traffic:
			return UsageDuplicate, nil
		case err == nil:
			report.Traffic, report.CountedAt, report.Fault = report.or(earlier.Traffic), earlier.CountedAt, FaultRewritten
		case !errors.Is(err, ErrNotFound):
			return "", err
		}
		if before, err = b.tx.UsageBefore(ctx, s.UsageKey, report.Sequence); err != nil {
			return "", err
		}
	}
	if report.Fault == "" && report.below(before) {
		report.Fault = FaultDecreased
	}
	was, is := before.or(earlier.Traffic), before.or(report.Traffic)
	b.gain(s, report, is.minus(was))
	s.Sequence = max(s.Sequence, report.Sequence)
	if late {
		if err := b.after(ctx, s, &report, was, is); err != nil {
			return "", err
		}
	} else {
		s.CountedAt = report.CountedAt
	}
	s.Traffic = s.or(report.Traffic)
	if report.Fault != "" && report.Fault != earlier.Fault {
		s.Faults++
	}
	if err := b.tx.PutUsageReport(ctx, report); err != nil {
		return "", err
	}
	if b.answer.Oldest.IsZero() || report.CountedAt.Before(b.answer.Oldest) {
		b.answer.Oldest = report.CountedAt
	}
	switch {
	case report.Fault != "":
		return UsageResult(report.Fault), nil
	case s.SubscriptionID == "":
		return UsageUnattributed, nil
	default:
		return UsageTaken, nil
	}
}

// after takes from the reports with higher numbers what an earlier one covers now.
// was and is are the largest values up to the earlier one, without and with it.
func (b *usageBatch) after(ctx context.Context, s *UsageSession, r *UsageReport, was, is Traffic) error {
	for number := r.Sequence; was != is; {
		part, err := b.tx.UsageAfter(ctx, s.UsageKey, number, usagePart)
		if err != nil {
			return err
		}
		for _, next := range part {
			if next.below(r.Traffic) && r.Fault == "" {
				r.Fault = FaultDecreased
			}
			wasNext, isNext := was.or(next.Traffic), is.or(next.Traffic)
			b.gain(s, next, isNext.minus(is).minus(wasNext.minus(was)))
			if was, is = wasNext, isNext; was == is {
				return nil
			}
		}
		if len(part) < usagePart {
			return nil
		}
		number = part[len(part)-1].Sequence
	}
	return nil
}

func (b *usageBatch) gain(s *UsageSession, r UsageReport, gain Traffic) {
	sum := UsageSum{SubscriptionID: s.SubscriptionID, Bucket: r.bucket(), GatewayID: b.gatewayID}
	b.sums[sum] = b.sums[sum].Plus(gain)
	boots := b.processes[s.SubscriptionID]
	if boots == nil {
		boots = make(map[string]int64)
		b.processes[s.SubscriptionID] = boots
	}
	boots[s.BootID] = min(boots[s.BootID]+gain.total(), math.MaxInt64/4)
}

// UsedBytes returns what a subscription has used between two moments, each taken
// back to the beginning of its bucket: of periods that follow each other, every byte
// belongs to one.
func (a *Authority) UsedBytes(ctx context.Context, subscriptionID string, from, to time.Time) (Traffic, error) {
	var used Traffic
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		used, err = tx.UsedBytes(ctx, subscriptionID, bucketOf(from), bucketOf(to))
		return err
	})
	return used, err
}

func bucketOf(t time.Time) int64 {
	n, size := t.UnixMicro(), UsageBucket.Microseconds()
	if n < 0 {
		n -= size - 1
	}
	return n / size
}

// UsageFilter selects usage: one of the ids.
type UsageFilter struct {
	UserID   string
	DeviceID string
	// These are for UsageSeries.
	GatewayID string
	RegionID  string
	PlanID    string
}

// UsageDay is the traffic of a day in UTC.
type UsageDay struct {
	Day time.Time
	Traffic
}

// MaxUsageDays bounds the days that are shown at once.
const MaxUsageDays = 400

// UsageDays returns a user's or a device's usage by day in UTC, newest first and
// without the days that have none, from the day of one moment to that of another.
// It follows from the reports, so it reaches back as far as they do.
func (a *Authority) UsageDays(ctx context.Context, filter UsageFilter, from, to time.Time) ([]UsageDay, error) {
	var c checks
	c.that(!to.Before(from), "to", "want a day that is not before from")
	c.that(to.Sub(from) <= MaxUsageDays*24*time.Hour, "from", fmt.Sprintf("want at most %d days before to", MaxUsageDays))
	if err := c.err(); err != nil {
		return nil, err
	}
	var days []UsageDay
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		if err := filter.known(ctx, tx); err != nil {
			return err
		}
		var err error
		days, err = tx.UsageDays(ctx, filter, from.UTC().Truncate(24*time.Hour), to.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1))
		return err
	})
	return days, err
}

// UsageDifference is a total that the reports do not lead to.
type UsageDifference struct {
	Level          UsageLevel
	GatewayID      string
	BootID         string // of a session
	SessionID      string // of a session
	SubscriptionID string
	PlanID         string    // of a sum of buckets
	Bucket         time.Time // of a bucket: its beginning
	Want           Traffic   // as the reports say
	Have           Traffic   // as the total says
}

// UsageLevel is which total differs.
type UsageLevel string

// The levels of totals.
const (
	LevelSession     UsageLevel = "session"     // the sum of a session
	LevelBucket      UsageLevel = "bucket"      // a subscription's, in a quarter of an hour through a gateway
	LevelAttribution UsageLevel = "attribution" // whose a session is, by its row
	LevelReports     UsageLevel = "reports"     // reports of a session without a sum
	LevelTotal       UsageLevel = "total"       // a plan's, in a quarter of an hour through a gateway
)

// MaxUsageDifferences is how many differences Verify names.
const MaxUsageDifferences = 100

// UsageVerdict is what a recomputation of the account has found.
type UsageVerdict struct {
	Reports      int64
	Sessions     int64
	Buckets      int64
	Total        Traffic // of all sessions, by the reports
	Unattributed Traffic // of those that nobody knows whose they are
	Faults       int64   // reports that contradict each other
	Differences  []UsageDifference
	More         bool // there are more differences than are named
}

// verifyPart is how many subscriptions are recomputed at a time.
const verifyPart = 64

// VerifyUsage recomputes every total from the raw reports, as of one moment, and
// names those that differ. It takes time with the number of reports, and the
// database's own memory for sorting. One runs at a time: each keeps a connection from
// all that wants to read.
func (a *Authority) VerifyUsage(ctx context.Context) (UsageVerdict, error) {
	if a.verifying.Swap(true) {
		return UsageVerdict{}, &ConflictError{Detail: "the account is being recomputed already: wait for that to end"}
	}
	defer a.verifying.Store(false)
	var verdict UsageVerdict
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		err := tx.TakeTime(ctx)
		if err != nil {
			return err
		}
		if verdict, err = tx.UsageAccount(ctx); err != nil {
			return err
		}
		note := func(found []UsageDifference, err error) error {
			verdict.Differences = append(verdict.Differences, found...)
			return err
		}
		room := func() int { return MaxUsageDifferences + 1 - len(verdict.Differences) }
		if err := note(tx.UsageOrphans(ctx, room())); err != nil {
			return err
		}
		for after, first := "", true; room() > 0; first = false {
			ids, err := tx.UsageSubscriptions(ctx, after, first, verifyPart)
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				break
			}
			from, to := ids[0], ids[len(ids)-1]
			if err := note(tx.SessionDifferences(ctx, from, to, room())); err != nil {
				return err
			}
			if err := note(tx.BucketDifferences(ctx, from, to, room())); err != nil {
				return err
			}
			after = to
		}
		if room() > 0 {
			return note(tx.TotalDifferences(ctx, room()))
		}
		return nil
	})
	if len(verdict.Differences) > MaxUsageDifferences {
		verdict.Differences, verdict.More = verdict.Differences[:MaxUsageDifferences], true
	}
	return verdict, err
}
