package control

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/sslink"
)

const (
	// OutlineSwitchPause is how long a session keeps a server that it was switched
	// to, whatever its gateway says about it: when a target or the gateway's own
	// network is what fails, another server is no help.
	OutlineSwitchPause = 30 * time.Second
	// maxOutlineChoices bounds the servers that are looked at for one session.
	maxOutlineChoices = 1000
)

// SessionExit is a session and where it leaves.
type SessionExit struct {
	Session
	BeforeID   string     // the server that it was switched away from; may be empty
	SwitchedAt *time.Time // nil: it has not been
}

// OutlineAccess is what a gateway needs to use a server.
type OutlineAccess struct {
	ServerID   string
	Region     string
	Host       string
	Port       int
	Cipher     sslink.Cipher
	Password   string
	Prefix     []byte
	Managed    bool
	Generation int64
}

// ExitResult says how a session came to its server.
type ExitResult string

// The results. ExitRefused is that of a session that has none.
const (
	ExitAssigned ExitResult = "assigned"
	ExitKept     ExitResult = "kept"
	ExitSwitched ExitResult = "switched"
	ExitRefused  ExitResult = "refused"
)

// ExitResults returns all results.
func ExitResults() []ExitResult {
	return []ExitResult{ExitAssigned, ExitKept, ExitSwitched, ExitRefused}
}

// Exit is the server that a session leaves through.
type Exit struct {
	OutlineAccess
	Result ExitResult
	// RetryAfter says when a failure may be reported again that has led to nothing.
	RetryAfter time.Duration
}

// ExitRequest asks for a session's server.
type ExitRequest struct {
	SessionID string
	// Region is the code of the region that the session is to leave in; empty: the
	// gateway's own.
	Region string
	// Failed is the server that failed; empty: none.
	Failed string
}

// errTaken says that the last place of a server went to somebody else between a
// look at it and taking it.
var errTaken = errors.New("the server's last place was taken")

// AssignOutline returns the server that a session of a gateway leaves through, and
// gives it one when it has none that can be used. It stays the same until it
// fails. Refusals are session_unknown and no_outline_nodes_available.
func (a *Authority) AssignOutline(ctx context.Context, gateway Gateway, r ExitRequest) (Exit, error) {
	full := make(map[string]bool)
	for {
		// A unit of work holds one server at most, so that none waits for another in a
		// circle; one that finds no place begins anew and leaves that server out.
		var (
			exit  Exit
			tried string
		)
		err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
			var err error
			exit, tried, err = a.exit(ctx, tx, gateway, r, full)
			return err
		})
		if refused, ok := errors.AsType[*RefusedError](err); ok && refused.Reason == reason.NoOutlineNodesAvailable {
			if session, err := a.Session(ctx, r.SessionID); err == nil {
				a.rememberRefusal(ctx, session.DeviceID, gateway.ID, refused.Reason)
			}
		}
		if !errors.Is(err, errTaken) {
			return exit, err
		}
		full[tried] = true
	}
}

// exit is one attempt of AssignOutline. With errTaken it returns which server has
// no place any more.
func (a *Authority) exit(ctx context.Context, tx Tx, gateway Gateway, r ExitRequest, full map[string]bool) (Exit, string, error) {
	now := a.now()
	session, err := tx.SessionExit(ctx, r.SessionID)
	if errors.Is(err, ErrNotFound) || err == nil && (session.GatewayID != gateway.ID || session.EndedAt != nil) {
		return Exit{}, "", &RefusedError{Reason: reason.SessionUnknown}
	}
	if err != nil {
		return Exit{}, "", err
	}
	current, err := tx.PeekOutlineServer(ctx, session.OutlineServerID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Exit{}, "", err
	}
	usable := err == nil && current.usable(now)
	if usable && r.Failed != current.ID {
		exit, err := a.access(ctx, tx, current, Exit{Result: ExitKept})
		return exit, "", err
	}
	if usable && session.SwitchedAt != nil {
		if pause := session.SwitchedAt.Add(OutlineSwitchPause).Sub(now); pause > 0 && pause <= OutlineSwitchPause {
			exit, err := a.access(ctx, tx, current, Exit{Result: ExitKept, RetryAfter: pause})
			return exit, "", err
		}
	}
	exit, tried, err := a.choose(ctx, tx, cmp.Or(r.Region, gateway.Region), session, full, now)
	if refused, ok := errors.AsType[*RefusedError](err); ok && usable && refused.Reason == reason.NoOutlineNodesAvailable {
		// What may have been the target's fault is better than nothing.
		exit, err = a.access(ctx, tx, current, Exit{Result: ExitKept, RetryAfter: OutlineSwitchPause})
	}
	return exit, tried, err
}

// choose gives a session another server than the one that it has.
func (a *Authority) choose(ctx context.Context, tx Tx, region string, session SessionExit, full map[string]bool, now time.Time) (Exit, string, error) {
	all, err := tx.OutlineChoices(ctx, region, maxOutlineChoices)
	if err != nil {
		return Exit{}, "", err
	}
	all = slices.DeleteFunc(all, func(s OutlineServer) bool {
		return s.Weight == 0 || !s.usable(now) || s.ID == session.OutlineServerID || full[s.ID]
	})
	inOrder(all, session, region, now)
	for _, choice := range all {
		// A look that makes nobody wait. What it finds full was so at this moment.
		n, err := tx.CountOutlineSessions(ctx, choice.ID)
		if err != nil {
			return Exit{}, "", err
		}
		if n >= choice.Capacity {
			continue
		}
		server, err := tx.OutlineServer(ctx, choice.ID)
		if errors.Is(err, ErrNotFound) || err == nil && !server.usable(now) {
			return Exit{}, choice.ID, errTaken
		}
		if err != nil {
			return Exit{}, "", err
		}
		next, result := session, ExitAssigned
		next.OutlineServerID = server.ID
		if session.OutlineServerID != "" {
			next.BeforeID, next.SwitchedAt, result = session.OutlineServerID, &now, ExitSwitched
		}
		took, err := tx.TakeExit(ctx, next, server.Capacity)
		if err != nil {
			return Exit{}, "", err
		}
		if !took {
			return Exit{}, choice.ID, errTaken
		}
		exit, err := a.access(ctx, tx, server, Exit{Result: result})
		return exit, "", err
	}
	return Exit{}, "", &RefusedError{Reason: reason.NoOutlineNodesAvailable}
}

// inOrder puts servers into the order in which a session would have them: its
// region first, not the one that it came from, then by priority, those that are
// known to work first, and among equals in an order of the device's own, in which
// a server comes first as often as its weight says. So a device mostly leaves by
// the same address.
func inOrder(servers []OutlineServer, session SessionExit, region string, now time.Time) {
	rank := func(no bool) int {
		if no {
			return 1
		}
		return 0
	}
	slices.SortFunc(servers, func(x, y OutlineServer) int {
		return cmp.Or(
			cmp.Compare(rank(x.Region != region), rank(y.Region != region)),
			cmp.Compare(rank(x.ID == session.BeforeID), rank(y.ID == session.BeforeID)),
			cmp.Compare(x.Priority, y.Priority),
			cmp.Compare(rank(x.State(now) != OutlineUp), rank(y.State(now) != OutlineUp)),
			cmp.Compare(lot(session.DeviceID, x), lot(session.DeviceID, y)),
			cmp.Compare(x.ID, y.ID),
		)
	})
}

// lot is what a device draws for a server; the lowest wins, with a chance that is
// the server's share of all weights (weighted rendezvous hashing).
func lot(deviceID string, s OutlineServer) float64 {
	sum := sha256.Sum256([]byte(deviceID + "|" + s.ID))
	const bits = 53
	u := (float64(binary.BigEndian.Uint64(sum[:])>>(64-bits)) + 1) / (1 << bits) // above 0, up to 1
	return -math.Log(u) / float64(s.Weight)
}

// access adds to exit what is needed to use a server.
func (a *Authority) access(ctx context.Context, tx Tx, s OutlineServer, exit Exit) (Exit, error) {
	key, err := tx.OutlineKey(ctx, s.ID)
	if err != nil {
		return Exit{}, err
	}
	exit.OutlineAccess, err = a.accessWith(s, key)
	return exit, err
}

func (a *Authority) accessWith(s OutlineServer, key SealedOutlineKey) (OutlineAccess, error) {
	password, err := a.openOutlineKey(key)
	return OutlineAccess{
		ServerID: s.ID, Region: s.Region, Host: s.Host, Port: s.Port, Cipher: key.Cipher, Password: password, Prefix: key.Prefix,
		Managed: s.Managed, Generation: key.Generation,
	}, err
}

// ReleaseOutline gives back the place of a session that needs no server any more.
// With the end of a session it is given back by itself.
func (a *Authority) ReleaseOutline(ctx context.Context, gateway Gateway, sessionID string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error { return tx.LeaveExit(ctx, gateway.ID, sessionID) })
}
