package control

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"github.com/httvps/httvps/internal/sslink"
)

// OutlineServer is a server that sessions leave through. Its name and its address
// are unique.
type OutlineServer struct {
	ID       string
	Name     string
	RegionID string
	Region   string // its code
	Host     string
	Port     int
	// Weight is its share of the sessions among servers of one priority; 0: it takes
	// no new ones.
	Weight int
	// Priority is its rank: one with a higher number takes sessions when those with
	// lower ones cannot.
	Priority int
	// Capacity is how many sessions it takes at once.
	Capacity int
	// Managed says that it is known to refuse targets that are not public, as Outline
	// servers do, so that gateways may leave names to it.
	Managed bool
	// Fallback says that it takes sessions of other regions that have no server left.
	Fallback   bool
	DisabledAt *time.Time // nil: enabled
	Health     OutlineHealth
	Key        OutlineKey
	Sessions   int // that have it now; not set where it does not matter
	CreatedAt  time.Time
}

// OutlineHealth is what the probes of gateways have led to.
type OutlineHealth struct {
	State    OutlineState
	Since    *time.Time // nil: there never was another
	ProbedAt *time.Time // the newest result; nil: there was none
	DownAt   *time.Time // since when it is down, as webhooks were told; nil: it is not
}

// OutlineState says whether a server can be used.
type OutlineState string

// The states of a server. OutlineDisabled is the operator's word, the others come
// from probes.
const (
	OutlineUnknown  OutlineState = "unknown" // nobody has looked lately
	OutlineUp       OutlineState = "up"
	OutlineDown     OutlineState = "down"
	OutlineDisabled OutlineState = "disabled"
)

// OutlineStates returns all states.
func OutlineStates() []OutlineState {
	return []OutlineState{OutlineUnknown, OutlineUp, OutlineDown, OutlineDisabled}
}

// State says how the server is at now.
func (s OutlineServer) State(now time.Time) OutlineState {
	switch {
	case s.DisabledAt != nil:
		return OutlineDisabled
	case s.Health.ProbedAt == nil || s.Health.ProbedAt.Before(now.Add(-OutlineResultTTL)):
		return OutlineUnknown
	default:
		return s.Health.State
	}
}

// usable reports whether sessions may leave through the server at now.
func (s OutlineServer) usable(now time.Time) bool {
	state := s.State(now)
	return state == OutlineUp || state == OutlineUnknown
}

// OutlineKey is what is known of a server's access key without its secret.
type OutlineKey struct {
	Generation int64 // 1, 2, …: grows with each other key
	Cipher     sslink.Cipher
	Prefix     []byte
	CreatedAt  time.Time
}

// SealedOutlineKey is an access key as the database keeps it.
type SealedOutlineKey struct {
	ServerID string
	OutlineKey
	Sealed []byte // the password
}

func (k SealedOutlineKey) place() string {
	return sealedPlace("outline_keys", k.ServerID+"/"+strconv.FormatInt(k.Generation, 10), "sealed")
}

func (a *Authority) openOutlineKey(k SealedOutlineKey) (password string, err error) {
	plain, err := a.opts.Sealer.Open(k.Sealed, k.place())
	if err != nil {
		return "", fmt.Errorf("open access key of Outline server %s: %w", k.ServerID, err)
	}
	return string(plain), nil
}

type outlineRows interface {
	InsertOutlineServer(ctx context.Context, s OutlineServer) error
	OutlineServer(ctx context.Context, id string) (OutlineServer, error)
	// PeekOutlineServer is OutlineServer, and holds nothing.
	PeekOutlineServer(ctx context.Context, id string) (OutlineServer, error)
	OutlineServers(ctx context.Context, filter OutlineFilter, page Page) ([]OutlineServer, error)
	// UpdateOutlineServer changes everything but health and key.
	UpdateOutlineServer(ctx context.Context, s OutlineServer) error
	// DeleteOutlineServer deletes a server with its key and what is known of its
	// health. Sessions that have it keep its id.
	DeleteOutlineServer(ctx context.Context, id string) error
	// PutOutlineKey makes k the only key of its server.
	PutOutlineKey(ctx context.Context, k SealedOutlineKey) error
	OutlineKey(ctx context.Context, serverID string) (SealedOutlineKey, error)

	// OutlineChoices returns at most limit servers that are enabled and are for
	// sessions of a region, its own ones and then those that take others', without
	// their numbers of sessions.
	OutlineChoices(ctx context.Context, region string, limit int) ([]OutlineServer, error)
	// CountOutlineSessions counts the sessions that have a server.
	CountOutlineSessions(ctx context.Context, serverID string) (int, error)
	// SessionExit is Session with the server that it leaves through.
	SessionExit(ctx context.Context, sessionID string) (SessionExit, error)
	// TakeExit gives a session that has not ended a server, unless the server has
	// capacity others, and reports whether it did. Who holds the server can rely on it.
	TakeExit(ctx context.Context, e SessionExit, capacity int) (bool, error)
	// LeaveExit takes its server from a gateway's session, if it has one.
	LeaveExit(ctx context.Context, gatewayID, sessionID string) error

	// OutlineProbe returns what a gateway last saw of a server.
	OutlineProbe(ctx context.Context, serverID, gatewayID string) (OutlineProbe, error)
	PutOutlineProbe(ctx context.Context, p OutlineProbe) error
	// OutlineProbes returns what gateways have seen of a server since a time: at most
	// limit.
	OutlineProbes(ctx context.Context, serverID string, since time.Time, limit int) ([]OutlineProbe, error)
	SetOutlineHealth(ctx context.Context, serverID string, h OutlineHealth) error
	// OutlineSummary counts servers by their state, of which those other than
	// disabled hold when they were probed since a time.
	OutlineSummary(ctx context.Context, since time.Time) (OutlineSummary, error)
}

// OutlineFilter selects servers; empty fields select all.
type OutlineFilter struct {
	Name     string
	RegionID string
}

// OutlineFields are what an operator decides about a server; nil leaves it as it
// is.
type OutlineFields struct {
	Name *string
	// Region is an id or a code.
	Region *string
	// AccessKey is an ss:// link, which has the address too.
	AccessKey *string
	Weight    *int
	Priority  *int
	Capacity  *int
	Managed   *bool
	Fallback  *bool
	Disabled  *bool
}

// Bounds and defaults of a server.
const (
	MaxOutlineWeight   = 1000
	MaxOutlinePriority = 1000
	MaxOutlineCapacity = 1_000_000

	DefaultOutlineWeight   = 100
	DefaultOutlineCapacity = 1000
)

// apply changes the server but for its region, and returns the link that it was
// given, if it was.
func (s *OutlineServer) apply(f OutlineFields, now time.Time) (*sslink.Link, error) {
	var c checks
	var link *sslink.Link
	if f.AccessKey != nil {
		parsed, err := sslink.Parse(*f.AccessKey)
		if err != nil {
			c.that(false, "access_key", err.Error()) // which repeats nothing of it
		} else {
			link = &parsed
			s.Host, s.Port = parsed.Host, int(parsed.Port)
			if f.Name == nil && s.Name == "" {
				s.Name = nameOf(parsed)
			}
		}
	}
	set(&s.Name, f.Name)
	set(&s.Weight, f.Weight)
	set(&s.Priority, f.Priority)
	set(&s.Capacity, f.Capacity)
	set(&s.Managed, f.Managed)
	set(&s.Fallback, f.Fallback)
	if f.Disabled != nil {
		switch {
		case !*f.Disabled:
			s.DisabledAt = nil
		case s.DisabledAt == nil:
			s.DisabledAt = &now
		}
	}
	c.that(f.Name == nil || validName(s.Name), "name", nameRule)
	c.between(s.Weight, 0, MaxOutlineWeight, "weight", "want 0 to 1000")
	c.between(s.Priority, 0, MaxOutlinePriority, "priority", "want 0 to 1000")
	c.between(s.Capacity, 1, MaxOutlineCapacity, "capacity", "want 1 to 1000000")
	return link, c.err()
}

// nameOf is what to call a server that the operator does not name.
func nameOf(l sslink.Link) string {
	if validName(l.Tag) {
		return l.Tag
	}
	name := []rune(l.Address())
	if len(name) > maxName {
		name = name[:maxName]
	}
	return string(name)
}

// blind makes a request that holds a secret as unknowable from its hash as the
// service's own keys: a password is not always a good one.
func (a *Authority) blind(once Once) Once {
	mac := hmac.New(sha256.New, a.nonces.key)
	mac.Write([]byte("once|"))
	mac.Write(once.Request[:])
	once.Request = [sha256.Size]byte(mac.Sum(nil))
	return once
}

// CreateOutlineServer adds a server with its access key. The second result is as
// in CreateUser.
func (a *Authority) CreateOutlineServer(ctx context.Context, f OutlineFields, once Once) (OutlineServer, bool, error) {
	server := OutlineServer{
		ID: newID(), CreatedAt: a.now(), Weight: DefaultOutlineWeight, Capacity: DefaultOutlineCapacity, Health: OutlineHealth{State: OutlineUnknown},
	}
	link, err := server.apply(f, server.CreatedAt)
	if err != nil {
		return OutlineServer{}, false, err
	}
	if link == nil || f.Region == nil {
		return OutlineServer{}, false, &InvalidError{Fields: []FieldError{{Field: "access_key", Detail: "want a key and a region"}}}
	}
	insert := func(ctx context.Context, tx Tx) error {
		key, err := a.sealOutlineKey(ctx, tx, server.ID, 1, *link)
		if err != nil {
			return err
		}
		region, err := findRegion(ctx, tx, *f.Region)
		if err != nil {
			return err
		}
		server := server
		server.RegionID = region.ID
		if err := tx.InsertOutlineServer(ctx, server); err != nil {
			return err
		}
		return tx.PutOutlineKey(ctx, key)
	}
	return create(ctx, a, a.blind(once), server.ID, insert, Tx.OutlineServer)
}

func (a *Authority) sealOutlineKey(ctx context.Context, tx Tx, serverID string, generation int64, l sslink.Link) (SealedOutlineKey, error) {
	key := SealedOutlineKey{
		ServerID: serverID, OutlineKey: OutlineKey{Generation: generation, Cipher: l.Cipher, Prefix: l.Prefix, CreatedAt: a.now()},
	}
	var err error
	if key.Sealed, err = a.seal(ctx, tx, []byte(l.Password), key.place()); err != nil {
		return SealedOutlineKey{}, fmt.Errorf("seal access key: %w", err)
	}
	return key, nil
}

// OutlineServer returns a server.
func (a *Authority) OutlineServer(ctx context.Context, id string) (OutlineServer, error) {
	return get(ctx, a, id, Tx.OutlineServer)
}

// OutlineServers lists servers.
func (a *Authority) OutlineServers(ctx context.Context, filter OutlineFilter, page Page) ([]OutlineServer, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]OutlineServer, error) { return tx.OutlineServers(ctx, filter, page) })
}

// UpdateOutlineServer changes a server. Gateways are told when it may no longer be
// used, or not as before; a lower capacity or weight is for what comes afterwards.
func (a *Authority) UpdateOutlineServer(ctx context.Context, id string, f OutlineFields) (OutlineServer, error) {
	var server OutlineServer
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if f.AccessKey != nil { // first what is sealed, as everywhere
			if _, err := tx.Setting(ctx, settingSealingKey); err != nil {
				return err
			}
		}
		var err error
		if server, err = tx.OutlineServer(ctx, id); err != nil {
			return err
		}
		before := server
		link, err := server.apply(f, a.now())
		if err != nil {
			return err
		}
		if f.Region != nil {
			region, err := findRegion(ctx, tx, *f.Region)
			if err != nil {
				return err
			}
			server.RegionID = region.ID
		}
		if link != nil {
			switch replaced, err := a.replaceOutlineKey(ctx, tx, id, *link); {
			case err != nil:
				return err
			case !replaced && server.Host == before.Host && server.Port == before.Port:
				link = nil // nobody has to ask again
			}
		}
		if err := tx.UpdateOutlineServer(ctx, server); err != nil {
			return err
		}
		if link != nil || server.Managed != before.Managed || server.DisabledAt != nil && before.DisabledAt == nil {
			a.tellOutline(tx, id)
		}
		server, err = tx.OutlineServer(ctx, id)
		return err
	})
	return server, err
}

// replaceOutlineKey gives a server another key, and reports false when it is the one that
// the server has: who says the same again changes nothing.
func (a *Authority) replaceOutlineKey(ctx context.Context, tx Tx, serverID string, l sslink.Link) (bool, error) {
	old, err := tx.OutlineKey(ctx, serverID)
	if err != nil {
		return false, err
	}
	password, err := a.openOutlineKey(old)
	if err != nil {
		return false, err
	}
	if password == l.Password && old.Cipher == l.Cipher && bytes.Equal(old.Prefix, l.Prefix) {
		return false, nil
	}
	key, err := a.sealOutlineKey(ctx, tx, serverID, old.Generation+1, l)
	if err != nil {
		return false, err
	}
	return true, tx.PutOutlineKey(ctx, key)
}

// DeleteOutlineServer removes a server. Gateways are told to ask for another one
// for the sessions that had it.
func (a *Authority) DeleteOutlineServer(ctx context.Context, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		a.tellOutline(tx, id)
		return tx.DeleteOutlineServer(ctx, id)
	})
}

// tellOutline has gateways ask again about the sessions that have a server.
func (a *Authority) tellOutline(tx Tx, serverID string) {
	a.tell(tx, Event{Kind: EventOutlineChanged, All: true, OutlineServerID: serverID})
}

// OutlineSummary is how the servers are altogether.
type OutlineSummary struct {
	Servers  map[OutlineState]int
	Sessions int // that have one
	Capacity int // of those that are up or unknown
}

// OutlineSummary returns how the servers are now.
func (a *Authority) OutlineSummary(ctx context.Context) (OutlineSummary, error) {
	var summary OutlineSummary
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		summary, err = tx.OutlineSummary(ctx, a.now().Add(-OutlineResultTTL))
		return err
	})
	return summary, err
}
