package httvps

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/httvps/httvps/sdk/go/tlspin"
	"github.com/httvps/httvps/sdk/go/wire"
)

// ErrNotEnrolled is what a [Store] returns, wrapped or not, while it holds no
// profile.
var ErrNotEnrolled = errors.New("this device is not enrolled")

// Profile is what a device knows about itself and its service. It holds no
// secret that would let somebody else connect; it does hold the addresses of
// the service and what its gateways are known by, which the operator may not
// want to see published.
type Profile struct {
	DeviceID    string `json:"device_id"`    // a UUID
	DeviceName  string `json:"device_name"`  // as the operator sees it
	UserName    string `json:"user_name"`    // likewise
	ServiceID   string `json:"service_id"`   // a UUID
	ServiceName string `json:"service_name"` // for people

	// API holds the base URLs of the device API, best first.
	API []string `json:"api"`

	// Pin names the service's own certificate authority, as the invitation
	// gave it; empty when the service has a public certificate.
	Pin string `json:"pin,omitempty"`

	// Knock is what the service gave at enrolment; nil when it has none. Each
	// access token brings the current one, which counts first.
	Knock *Knock `json:"knock,omitempty"`

	// Gateways are the URLs of gateways that the service named last, at most 64: they
	// lead to the device API where its own addresses do not answer. A Client keeps
	// them up to date.
	Gateways []string `json:"gateways,omitempty"`

	// Fronts are other URLs of gateways, at most 8 of each, by a gateway's own, as it
	// named them last. A Client keeps them up to date.
	Fronts map[string][]string `json:"fronts,omitempty"`

	// Invitation is the fingerprint of the invitation that was redeemed, so
	// that a repeated enrolment can be told from a different one.
	Invitation string `json:"invitation,omitempty"`
}

// Validate reports what is missing or malformed in a profile, as after reading
// a damaged file.
func (p Profile) Validate() error {
	if _, err := parseUUID(p.DeviceID); err != nil {
		return fmt.Errorf("device_id: %w", err)
	}
	if len(p.API) == 0 {
		return errors.New("api: no address of the service")
	}
	for _, base := range p.API {
		if err := checkBase(base); err != nil {
			return fmt.Errorf("api: %w", err)
		}
	}
	if p.Pin != "" {
		if _, err := tlspin.Parse(p.Pin); err != nil {
			return err
		}
	}
	if len(p.Gateways) > maxGateways {
		return fmt.Errorf("gateways: %d, want at most %d", len(p.Gateways), maxGateways)
	}
	for _, gateway := range p.Gateways {
		if !isGateway(gateway) {
			return errors.New("gateways: want addresses like wss://host[:port]/path")
		}
	}
	if len(p.Fronts) > maxGateways {
		return fmt.Errorf("fronts: of %d gateways, want at most %d", len(p.Fronts), maxGateways)
	}
	for gateway, fronts := range p.Fronts {
		if len(fronts) > wire.MaxURLs {
			return fmt.Errorf("fronts: %d of one gateway, want at most %d", len(fronts), wire.MaxURLs)
		}
		for _, u := range append([]string{gateway}, fronts...) {
			if !isGateway(u) {
				return errors.New("fronts: want addresses like wss://host[:port]/path")
			}
		}
	}
	return p.Knock.validate()
}

// Store keeps a device's key and profile between runs. Implementations are
// safe for concurrent use. A phone would put the key into its key store and
// return a signer that asks it; the methods may block, and end with ctx.
type Store interface {
	// Key returns the device's Ed25519 key, whose Public is an
	// ed25519.PublicKey. It makes the key when there is none yet, and returns
	// the same key for ever after: a repeated enrolment relies on it.
	Key(ctx context.Context) (crypto.Signer, error)

	// Profile returns the saved profile, or an error that is ErrNotEnrolled.
	Profile(ctx context.Context) (Profile, error)

	// SaveProfile replaces the profile. When it returns nil the profile
	// survives a crash, as far as this store survives one.
	SaveProfile(ctx context.Context, p Profile) error
}

// MemoryStore is a [Store] that is gone with the process.
type MemoryStore struct {
	mu      sync.Mutex // guards the following fields
	key     ed25519.PrivateKey
	profile *Profile
}

// NewMemoryStore returns a store without a profile.
func NewMemoryStore() *MemoryStore { return &MemoryStore{} }

// Key returns the key, made at the first call.
func (s *MemoryStore) Key(context.Context) (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a device key: %w", err)
		}
		s.key = key
	}
	return s.key, nil
}

// Profile returns the profile or [ErrNotEnrolled].
func (s *MemoryStore) Profile(context.Context) (Profile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.profile == nil {
		return Profile{}, ErrNotEnrolled
	}
	return s.profile.clone(), nil
}

// SaveProfile replaces the profile.
func (s *MemoryStore) SaveProfile(_ context.Context, p Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p = p.clone()
	s.profile = &p
	return nil
}

func (p Profile) clone() Profile {
	p.API, p.Gateways, p.Fronts = slices.Clone(p.API), slices.Clone(p.Gateways), maps.Clone(p.Fronts)
	for gateway, fronts := range p.Fronts {
		p.Fronts[gateway] = slices.Clone(fronts)
	}
	p.Knock = p.Knock.clone()
	return p
}

// remember saves what change, which reports whether there is anything new, makes of the
// profile. A store that cannot is asked again with what the service says next.
func (c *Client) remember(ctx context.Context, change func(*Profile) bool) {
	c.remembering.Lock()
	defer c.remembering.Unlock()
	profile, err := c.cfg.Store.Profile(ctx)
	if err != nil || !change(&profile) {
		return
	}
	_ = c.cfg.Store.SaveProfile(ctx, profile)
}

// nameGateways notes the gateways that the service named, and forgets fronts of others.
func nameGateways(p *Profile, gateways []Gateway) bool {
	urls := make([]string, 0, len(gateways))
	for _, g := range gateways {
		urls = append(urls, g.URL)
	}
	slices.Sort(urls)
	if len(urls) == 0 || slices.Equal(slices.Sorted(slices.Values(p.Gateways)), urls) {
		return false
	}
	p.Gateways = urls
	maps.DeleteFunc(p.Fronts, func(gateway string, _ []string) bool { return !slices.Contains(urls, gateway) })
	return true
}

// nameFronts notes the fronts that a gateway of the service's named.
func nameFronts(p *Profile, gateway string, fronts []string) bool {
	if slices.Equal(p.Fronts[gateway], fronts) || !slices.Contains(p.Gateways, gateway) {
		return false
	}
	if len(fronts) == 0 {
		delete(p.Fronts, gateway)
		return true
	}
	if p.Fronts == nil {
		p.Fronts = make(map[string][]string)
	}
	p.Fronts[gateway] = fronts
	return true
}

// parseUUID reads the usual text of a UUID: 32 hexadecimal digits in five
// groups.
func parseUUID(s string) (id [16]byte, err error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, errors.New("not a UUID")
	}
	n, err := hex.Decode(id[:], []byte(strings.ReplaceAll(s, "-", "")))
	if err != nil || n != len(id) {
		return [16]byte{}, errors.New("not a UUID")
	}
	return id, nil
}
