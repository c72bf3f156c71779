package control

import (
	"context"
	"time"
)

// Store runs units of work on the records. When fn returns an error, nothing of
// it remains. fn may run more than once, so it must change nothing but through tx.
// When the records are out of reach, the error is ErrUnavailable.
type Store interface {
	// Read shows fn one moment of the records.
	Read(ctx context.Context, fn func(context.Context, Tx) error) error
	// Write makes fn's changes together and durable. Others write at the same time,
	// here and in other processes: an object that fn looked up by its key stays as
	// it is until fn ends; lists and counts show what others have finished.
	Write(ctx context.Context, fn func(context.Context, Tx) error) error
}

// Tx is a unit of work. Methods that look for one object return ErrNotFound;
// inserts and updates that break a rule of uniqueness or reference return a
// *ConflictError. After any other error than ErrNotFound the unit of work is over:
// fn returns it.
type Tx interface {
	settingRows
	userRows
	planRows
	subscriptionRows
	deviceRows
	invitationRows
	gatewayRows
	sessionRows
	operatorRows
	signInRows
	loginRows
	knockRows
	sealedRows
	eventRows
	auditRows
	usageRows
	movingRows
	outlineRows
	quotaRows
	refusalRows
	bulkRows
	webhookRows
	deliveryRows
	watchRows
	pruning
	restoring
}

type settingRows interface {
	// LockService makes all units of work that call it run one after the other,
	// whichever process they are in: those begin with it that do what must happen
	// once in a service.
	LockService(ctx context.Context) error
	Setting(ctx context.Context, name string) (string, error)
	PutSetting(ctx context.Context, name, value string) error
	// TakeSetting deletes the setting if it has this value, and reports whether
	// it did: of several takers one succeeds.
	TakeSetting(ctx context.Context, name, value string) (bool, error)
	// Secrets returns the secrets of a kind, newest first.
	Secrets(ctx context.Context, kind string) ([]SealedSecret, error)
	InsertSecret(ctx context.Context, s SealedSecret) error
	DeleteSecret(ctx context.Context, id string) error
	// OnceResult returns what an operator's idempotency key led to. In Write, nobody
	// else learns about this key until the unit of work ends.
	OnceResult(ctx context.Context, operatorID, key string) (OnceResult, error)
	InsertOnceResult(ctx context.Context, operatorID, key string, r OnceResult) error
}

type userRows interface {
	InsertUser(ctx context.Context, u User) error
	User(ctx context.Context, id string) (User, error)
	// LockUser is User, for its effect in Write: until the unit of work ends nobody
	// else can lock the user. What counts a user's devices or sessions begins with it.
	LockUser(ctx context.Context, id string) (User, error)
	// PeekUser is User without the regions of his own, and holds nothing.
	PeekUser(ctx context.Context, id string) (User, error)
	UserByName(ctx context.Context, name string) (User, error)
	Users(ctx context.Context, name string, page Page) ([]User, error)
	// SearchUsers returns those whose name begins with words, in the order of their
	// names. ASCII letters match in both cases.
	SearchUsers(ctx context.Context, words string, page Page) ([]User, error)
	// UpdateUser leaves the limits as they are, UpdateLimits everything else.
	UpdateUser(ctx context.Context, u User) error
	UpdateLimits(ctx context.Context, u User) error
	DeleteUser(ctx context.Context, id string) error
}

type planRows interface {
	InsertPlan(ctx context.Context, p Plan) error
	Plan(ctx context.Context, id string) (Plan, error)
	Plans(ctx context.Context, name string, page Page) ([]Plan, error)
	UpdatePlan(ctx context.Context, p Plan) error
	DeletePlan(ctx context.Context, id string) error
}

type subscriptionRows interface {
	InsertSubscription(ctx context.Context, s Subscription) error
	Subscription(ctx context.Context, id string) (Subscription, error)
	Subscriptions(ctx context.Context, userID string, page Page) ([]Subscription, error)
	// Entitlements returns a user's subscriptions with their plans: those that
	// run longest first, at most limit, and then the oldest that awaits its first use.
	Entitlements(ctx context.Context, userID string, limit int) ([]Entitlement, error)
	// Entitlement returns a subscription with its plan, and holds nothing.
	Entitlement(ctx context.Context, id string) (Entitlement, error)
	UpdateSubscription(ctx context.Context, s Subscription) error
	// BeginSubscription gives one that awaits its first use its times, and reports
	// whether it did.
	BeginSubscription(ctx context.Context, s Subscription) (bool, error)
	DeleteSubscription(ctx context.Context, id string) error
}

type deviceRows interface {
	// InsertDevice adds a device unless its user has limit devices in use, and
	// reports whether it did.
	InsertDevice(ctx context.Context, d Device, limit int) (bool, error)
	Device(ctx context.Context, id string) (Device, error)
	Devices(ctx context.Context, userID string, page Page) ([]Device, error)
	// DevicesInUse returns at most limit of a user's devices that are not revoked, the
	// ones that were not seen for longest first.
	DevicesInUse(ctx context.Context, userID string, limit int) ([]Device, error)
	// SearchDevices is for devices what SearchUsers is for users.
	SearchDevices(ctx context.Context, words string, page Page) ([]Device, error)
	RenameDevice(ctx context.Context, id, name string) error
	// RevokeDevice revokes a device that is not revoked yet.
	RevokeDevice(ctx context.Context, id string, at time.Time) error
	TouchDevice(ctx context.Context, id string, at time.Time) error
}

type invitationRows interface {
	InsertInvitation(ctx context.Context, i Invitation) error
	Invitation(ctx context.Context, id string) (Invitation, error)
	InvitationByCode(ctx context.Context, codeHash []byte) (Invitation, error)
	Invitations(ctx context.Context, userID string, page Page) ([]Invitation, error)
	// RedeemInvitation marks an unused, unexpired invitation as used by a device
	// and reports whether it did: of several redeemers one succeeds.
	RedeemInvitation(ctx context.Context, id, deviceID string, at time.Time) (bool, error)
	DeleteInvitation(ctx context.Context, id string) error
}

type gatewayRows interface {
	InsertRegion(ctx context.Context, r Region) error
	Region(ctx context.Context, id string) (Region, error)
	RegionByCode(ctx context.Context, code string) (Region, error)
	Regions(ctx context.Context, code string, page Page) ([]Region, error)
	UpdateRegion(ctx context.Context, r Region) error
	DeleteRegion(ctx context.Context, id string) error

	InsertGateway(ctx context.Context, g Gateway) error
	Gateway(ctx context.Context, id string) (Gateway, error)
	GatewayByJoinCode(ctx context.Context, codeHash []byte) (Gateway, error)
	Gateways(ctx context.Context, regionID string, page Page) ([]Gateway, error)
	// LiveGateways returns at most limit gateways whose lease holds at now and that
	// devices are not to leave, of those regions whose codes are given or, without any, of all.
	LiveGateways(ctx context.Context, now time.Time, regions []string, limit int) ([]Gateway, error)
	// RedeemJoin gives a pending gateway its key and address, and reports whether
	// it did: of several joiners one succeeds.
	RedeemJoin(ctx context.Context, id string, j Joined) (bool, error)
	// RenewLease reports whether the gateway was in another boot before.
	RenewLease(ctx context.Context, id string, l Lease) (rebooted bool, err error)
	// SetDrained notes since when an operator wants devices to leave a gateway; nil: he
	// does not.
	SetDrained(ctx context.Context, id string, at *time.Time) error
	DeleteGateway(ctx context.Context, id string) error
}

type sessionRows interface {
	// StartSession adds a session unless its user has limit live ones at now, and
	// reports whether it did. A session is live until it ends or its gateway's
	// lease does. One of the same device does not count that is on a gateway which
	// devices are to leave: this one takes its place.
	StartSession(ctx context.Context, s Session, now time.Time, limit int) (bool, error)
	Session(ctx context.Context, id string) (Session, error)
	Sessions(ctx context.Context, filter SessionFilter, now time.Time, page Page) ([]Session, error)
	// EndSessions ends those of a gateway's sessions that are named, once each.
	EndSessions(ctx context.Context, gatewayID string, ends []SessionEnd, at time.Time) error
	// EndOtherBoots ends a gateway's sessions that another boot of it began.
	EndOtherBoots(ctx context.Context, gatewayID, bootID, reason string, at time.Time) error
	// EndLostSessions ends at most limit live sessions whose gateway's lease
	// ended before a time, or which have no gateway any more.
	EndLostSessions(ctx context.Context, leaseBefore time.Time, reason string, at time.Time, limit int) (int, error)
	// UnwantedSessions returns at most limit sessions that a gateway carries and
	// should close: those that no longer may run, and those ended as lost.
	UnwantedSessions(ctx context.Context, gatewayID string, now time.Time, limit int) ([]UnwantedSession, error)
}

type operatorRows interface {
	CountOperators(ctx context.Context) (int, error)
	InsertOperator(ctx context.Context, o Operator) error
	Operator(ctx context.Context, id string) (Operator, error)
	OperatorByName(ctx context.Context, name string) (Operator, error)
	Operators(ctx context.Context, name string, page Page) ([]Operator, error)
	// OldestOperator returns who has been there for longest of those with a role that
	// are not disabled, leaving out the one with an id.
	OldestOperator(ctx context.Context, role Role, except string) (Operator, error)
	UpdateOperator(ctx context.Context, o Operator) error
	DeleteOperator(ctx context.Context, id string) error
	InsertAPIToken(ctx context.Context, t APIToken) error
	APIToken(ctx context.Context, id string) (APIToken, error)
	// APITokens returns an operator's, or without one all.
	APITokens(ctx context.Context, operatorID string, page Page) ([]APIToken, error)
	DeleteAPIToken(ctx context.Context, id string) error
	// DeleteAPITokens deletes all of them and returns how many there were.
	DeleteAPITokens(ctx context.Context) (int, error)
	// OperatorByToken returns whose unexpired token has this hash, unless that operator
	// is disabled.
	OperatorByToken(ctx context.Context, hash []byte, now time.Time) (Bearer, error)
}

type knockRows interface {
	// KnockKeys returns all of them, newest first: by number.
	KnockKeys(ctx context.Context) ([]SealedKnockKey, error)
	InsertKnockKey(ctx context.Context, k SealedKnockKey) error
	DeleteKnockKey(ctx context.Context, number int64) error
}

type usageRows interface {
	// UsageSession returns the sum of a counter.
	UsageSession(ctx context.Context, key UsageKey) (UsageSession, error)
	// InsertUsageSession and UpdateUsageSession keep it. Its reports may be compacted
	// at compactAt, or earlier when that was said before.
	InsertUsageSession(ctx context.Context, s UsageSession, compactAt time.Time) error
	UpdateUsageSession(ctx context.Context, s UsageSession, compactAt time.Time) error
	// UsageOwner is Session, and holds nothing.
	UsageOwner(ctx context.Context, sessionID string) (Session, error)
	UsageReport(ctx context.Context, key UsageKey, sequence int64) (UsageReport, error)
	// UsageBefore returns the largest values with lower numbers.
	UsageBefore(ctx context.Context, key UsageKey, sequence int64) (Traffic, error)
	// UsageAfter returns at most limit reports with higher numbers, lowest first.
	UsageAfter(ctx context.Context, key UsageKey, sequence int64, limit int) ([]UsageReport, error)
	// PutUsageReport adds a report, or changes the values and the fault of the one
	// with its number.
	PutUsageReport(ctx context.Context, r UsageReport) error
	// AddUsage adds to a bucket, and returns the plan that the bucket belongs to: the
	// subscription's when there was nothing in it yet; empty: unknown. A bucket that is
	// full beyond measure is a conflict.
	AddUsage(ctx context.Context, s UsageSum) (planID string, err error)
	// AddUsageTotal adds to the sum of buckets. It is for who added the same to them.
	AddUsageTotal(ctx context.Context, u UsageTotal) error
	// UsedBytes sums a subscription's buckets from one to before another.
	UsedBytes(ctx context.Context, subscriptionID string, from, to int64) (Traffic, error)
	// UsageDays sums by day in UTC, from one day to before another, newest first.
	UsageDays(ctx context.Context, filter UsageFilter, from, to time.Time) ([]UsageDay, error)
	// UsageQuarters calls add with the sum of each bucket that has something, from one
	// to before another, in any order.
	UsageQuarters(ctx context.Context, filter UsageFilter, from, to int64, add func(bucket int64, u Traffic)) error

	// TakeTime lifts the bound on how long a statement may take until the unit of
	// work ends; its context still ends it.
	TakeTime(ctx context.Context) error
	// UsageAccount counts and sums the reports.
	UsageAccount(ctx context.Context) (UsageVerdict, error)
	// UsageSubscriptions returns those ids that usage is booked on that come after
	// one, or the first ones: at most limit.
	UsageSubscriptions(ctx context.Context, after string, first bool, limit int) ([]string, error)
	// Each finds at most limit totals, of subscriptions from one to another, that the
	// reports do not lead to, and UsageOrphans reports that no total knows.
	UsageOrphans(ctx context.Context, limit int) ([]UsageDifference, error)
	SessionDifferences(ctx context.Context, from, to string, limit int) ([]UsageDifference, error)
	BucketDifferences(ctx context.Context, from, to string, limit int) ([]UsageDifference, error)
	// TotalDifferences finds at most limit sums of buckets that are not.
	TotalDifferences(ctx context.Context, limit int) ([]UsageDifference, error)
	// CompactUsage deletes, of at most limit counters whose time has come, reports
	// received before a time that nothing rests on, and says when their time comes
	// again. It returns how many counters and how many reports those were.
	CompactUsage(ctx context.Context, now, before, next time.Time, limit int) (compacted, deleted int, err error)
}

type pruning interface {
	// Each deletes at most limit rows that ended before a time, and returns how
	// many.
	PruneInvitations(ctx context.Context, expiredBefore time.Time, limit int) (int, error)
	PruneSessions(ctx context.Context, endedBefore time.Time, limit int) (int, error)
	PruneOnceResults(ctx context.Context, createdBefore time.Time, limit int) (int, error)
	PruneAPITokens(ctx context.Context, expiredBefore time.Time, limit int) (int, error)
	PruneLogins(ctx context.Context, endedBefore time.Time, limit int) (int, error)
}

// MaxPageSize is the largest number of objects in a part of a list.
const MaxPageSize = 500

// Page asks for a part of a list: at most Limit objects after the object
// with id After. Lists are ordered by id, sessions newest first, what was searched
// for by name.
type Page struct {
	After string
	Limit int
}

// SealedSecret is a secret of the service as the database keeps it.
type SealedSecret struct {
	ID        string
	Kind      string
	Sealed    []byte
	CreatedAt time.Time
}
