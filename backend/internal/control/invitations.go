package control

import (
	"context"
	"time"

	"github.com/httvps/httvps/internal/link"
)

// Invitation lets one device of a user enrol, once.
type Invitation struct {
	ID        string
	UserID    string
	CodeHash  []byte
	ExpiresAt time.Time
	UsedAt    *time.Time
	DeviceID  string // of the device that used it, else empty
	CreatedAt time.Time
}

// Invite makes an invitation that is valid for ttl (0: what the settings say) and
// returns the link that carries its code, which is nowhere else to be had. When
// the same request had been made before, the link is empty and the third result true.
func (a *Authority) Invite(ctx context.Context, userID string, ttl time.Duration, once Once) (Invitation, string, bool, error) {
	var c checks
	c.that(ttl == 0 || ttl >= time.Minute && ttl <= MaxInvitationTTL, "ttl_seconds", "want 60 to 2592000 (30 days)")
	if err := c.err(); err != nil {
		return Invitation{}, "", false, err
	}
	id, shown := newID(), ""
	invitation, replayed, err := create(ctx, a, once, id, func(ctx context.Context, tx Tx) error {
		var err error
		shown, err = a.inviteAs(ctx, tx, id, userID, ttl)
		return err
	}, Tx.Invitation)
	if err != nil || replayed {
		return invitation, "", replayed, err
	}
	return invitation, shown, false, nil
}

// inviteAs makes the invitation with an id, valid for ttl (0: what the settings say), and returns the link that carries its code.
func (a *Authority) inviteAs(ctx context.Context, tx Tx, id, userID string, ttl time.Duration) (string, error) {
	if _, err := tx.User(ctx, userID); err != nil {
		return "", err
	}
	ttl, err := invitationTTL(ctx, tx, ttl)
	if err != nil {
		return "", err
	}
	code, hash := newCode()
	now := a.now()
	invitation := Invitation{ID: id, UserID: userID, CodeHash: hash, ExpiresAt: now.Add(ttl), CreatedAt: now}
	return a.link(a.APIBase(), "join", code), tx.InsertInvitation(ctx, invitation)
}

// Invitations lists a user's invitations.
func (a *Authority) Invitations(ctx context.Context, userID string, page Page) ([]Invitation, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Invitation, error) {
		if _, err := tx.User(ctx, userID); err != nil {
			return nil, err
		}
		return tx.Invitations(ctx, userID, page)
	})
}

// DeleteInvitation withdraws an invitation of a user.
func (a *Authority) DeleteInvitation(ctx context.Context, userID, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		invitation, err := tx.Invitation(ctx, id)
		if err != nil {
			return err
		}
		if invitation.UserID != userID {
			return ErrNotFound
		}
		return tx.DeleteInvitation(ctx, id)
	})
}

// APIBase is the address under which devices and gateways find the API.
func (a *Authority) APIBase() string { return a.opts.PublicURL + "/" + a.identity.Prefix }

// AdminBase is the address under which operators find the API.
func (a *Authority) AdminBase() string {
	if a.opts.AdminURL != "" {
		return a.opts.AdminURL
	}
	return a.APIBase()
}

// link puts a code, and the pin if there is one, where no server sees it.
func (a *Authority) link(base, page, code string) string {
	return base + "/" + page + "#" + link.Fragment(code, a.opts.Pin)
}
