// Package control is the domain of the control plane: what users, devices,
// plans, subscriptions, gateways and sessions are, and who may do what. It
// knows neither SQL nor HTTP: rows come and go through [Store], and answers
// are values and typed errors.
package control

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Times that are part of the API's promises.
const (
	InvitationTTL    = 24 * time.Hour // of an invitation or join link unless said otherwise
	MaxInvitationTTL = 30 * 24 * time.Hour
	BootstrapTTL     = 15 * time.Minute
	NonceTTL         = 120 * time.Second
	AccessTokenTTL   = 60 * time.Minute
	APITokenTTL      = 90 * 24 * time.Hour // of an operator's token unless said otherwise
	MaxAPITokenTTL   = 365 * 24 * time.Hour
	DevTokenTTL      = 24 * time.Hour

	leaseIntervals = 3 // heartbeats that a gateway may miss
)

// Options are what an Authority needs.
type Options struct {
	Store  Store
	Sealer Sealer
	// Passwords are needed by operators who sign in with one.
	Passwords Passwords
	Now       func() time.Time
	// ServiceName is what people see as the name of the service.
	ServiceName string
	// PublicURL is the address of the device and gateway API without the secret
	// prefix and without a slash at its end. AdminURL is the same for the admin
	// API when that has a listener of its own, else empty.
	PublicURL string
	AdminURL  string
	// Pin is appended to links and tokens when not empty.
	Pin string
	// Heartbeat is how often gateways report; their lease is three of them.
	Heartbeat time.Duration
	// KnockCookie is the name of the cookie that carries devices' knocks, and
	// KnockRotation how long devices get the same key.
	KnockCookie   string
	KnockRotation time.Duration
	// CheckWebhookURL, unless nil, judges URLs of webhooks beside their form.
	CheckWebhookURL CheckWebhookURL
	// Posted, unless nil, is called when there is something to be sent to webhooks.
	Posted func()
}

// Authority decides who may connect and keeps the records that this rests on.
// It is safe for concurrent use.
type Authority struct {
	store     Store
	now       func() time.Time
	opts      Options
	identity  Identity
	signing   atomic.Pointer[signing] // as it was last; nil: not known yet
	nonces    nonceMint
	heartbeat time.Duration
	leases    leaseClock
	wellSince atomic.Int64 // unix microseconds of the first Prune since which all went well; 0: the last did not
	prunedAt  atomic.Int64 // unix microseconds of the last Prune; 0: there was none
	verifying atomic.Bool
	decoy     Account // for operators that there are not
	failing   failing
	watching  watching
}

// Identity is what a service is called, made once at its first start.
type Identity struct {
	ServiceID string // a UUID, the audience of access tokens
	Issuer    string
	Prefix    string // the secret path segment of the API
}

// Open returns the Authority over a store. At the first start it makes the
// service's identity and its secret keys.
func Open(ctx context.Context, opts Options) (*Authority, error) {
	store := &auditing{Store: opts.Store, sealer: opts.Sealer, now: opts.Now, posted: opts.Posted}
	a := &Authority{store: store, now: opts.Now, opts: opts, heartbeat: opts.Heartbeat}
	var nonceKey []byte
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		err := tx.LockService(ctx)
		if err != nil {
			return err
		}
		if a.identity, err = openIdentity(ctx, tx); err != nil {
			return err
		}
		if err := a.adoptKey(ctx, tx); err != nil {
			return err
		}
		if err := a.firstSigning(ctx, tx); err != nil {
			return err
		}
		if _, err := a.signingNow(ctx, tx); err != nil {
			return err
		}
		if err := a.checkAuditKey(ctx, tx); err != nil {
			return err
		}
		nonceKey, err = a.openNonceKey(ctx, tx)
		return err
	})
	if err == nil {
		err = notTwice(a.store.Write(ctx, a.firstKnock))
	}
	if err != nil {
		return nil, fmt.Errorf("open service: %w", err)
	}
	a.nonces = nonceMint{key: nonceKey}
	if err := a.openDecoy(); err != nil {
		return nil, fmt.Errorf("open service: %w", err)
	}
	return a, nil
}

// Identity returns what the service is called.
func (a *Authority) Identity() Identity { return a.identity }

// ServiceName returns what people call the service.
func (a *Authority) ServiceName() string { return a.opts.ServiceName }

// HeartbeatInterval returns how often gateways are to report.
func (a *Authority) HeartbeatInterval() time.Duration { return a.heartbeat }

// Now returns the service's time.
func (a *Authority) Now() time.Time { return a.now() }

const (
	settingServiceID = "service_id"
	settingIssuer    = "issuer"
	settingPrefix    = "api_prefix"
	settingBootstrap = "bootstrap_code"
	settingRescue    = "rescue_code"
	settingService   = "service_settings" // what keptSettings are in JSON
)

func openIdentity(ctx context.Context, tx Tx) (Identity, error) {
	var id Identity
	for _, s := range []struct {
		name  string
		value *string
		make  func() string
	}{
		{settingServiceID, &id.ServiceID, newID},
		{settingIssuer, &id.Issuer, func() string { return "urn:httvps:" + id.ServiceID }},
		{settingPrefix, &id.Prefix, newPrefix},
	} {
		value, err := tx.Setting(ctx, s.name)
		if errors.Is(err, ErrNotFound) {
			value = s.make()
			err = tx.PutSetting(ctx, s.name, value)
		}
		if err != nil {
			return Identity{}, err
		}
		*s.value = value
	}
	return id, nil
}

// newID returns a UUIDv7: ids grow with time, so lists ordered by id are in the
// order of creation.
func newID() string { return uuid.Must(uuid.NewV7()).String() }
