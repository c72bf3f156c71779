package store

import (
	"context"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const userColumns = "u.id, u.name, u.note, u.disabled_at, u.created_at, " + limitColumns

func scanUser(r row) (u control.User, err error) {
	err = r.Scan(append([]any{&u.ID, &u.Name, &u.Note, maybeMoment{&u.DisabledAt}, moment{&u.CreatedAt}}, limitFields(&u.Limits)...)...)
	return u, err
}

const userClash = "there is a user with this name"

func (t *tx) InsertUser(ctx context.Context, u control.User) error {
	_, err := t.exec(ctx, userClash, "INSERT INTO users (id, name, note, disabled_at, created_at) VALUES ($1, $2, $3, $4, $5)",
		u.ID, u.Name, u.Note, nullMicros(u.DisabledAt), micros(u.CreatedAt))
	if err != nil || u.Limits.Empty() {
		return err
	}
	return t.UpdateLimits(ctx, u)
}

func (t *tx) User(ctx context.Context, id string) (control.User, error) {
	return t.user(ctx, "u.id", id)
}

func (t *tx) PeekUser(ctx context.Context, id string) (control.User, error) {
	return one(ctx, t, scanUser, "SELECT "+userColumns+" FROM users u WHERE u.id = $1", id)
}

func (t *tx) LockUser(ctx context.Context, id string) (control.User, error) {
	return t.User(ctx, id) // which holds it
}

func (t *tx) UserByName(ctx context.Context, name string) (control.User, error) {
	return t.user(ctx, "u.name", name)
}

// user returns the one whose column has a value.
func (t *tx) user(ctx context.Context, column, value string) (control.User, error) {
	u, err := one(ctx, t, scanUser, "SELECT "+userColumns+" FROM users u WHERE "+column+" = $1"+t.held("u"), value)
	if err == nil {
		err = t.fillRegions(ctx, map[string]*control.Limits{u.ID: &u.Limits})
	}
	return u, err
}

func (t *tx) Users(ctx context.Context, name string, page control.Page) ([]control.User, error) {
	users, err := part(ctx, t, scanUser, usersNamed(name, page), page)
	return t.withRegions(ctx, users, err)
}

func usersNamed(name string, page control.Page) *listing {
	l := ordered("SELECT "+userColumns+" FROM users u", "u.id", page)
	l.equal("u.name", name)
	return l
}

func (t *tx) SearchUsers(ctx context.Context, words string, page control.Page) ([]control.User, error) {
	users, err := part(ctx, t, scanUser, t.search("SELECT "+userColumns+" FROM users u", "users", words, page), page)
	return t.withRegions(ctx, users, err)
}

func (t *tx) UpdateUser(ctx context.Context, u control.User) error {
	return t.execOne(ctx, userClash, "UPDATE users SET name = $2, note = $3, disabled_at = $4 WHERE id = $1",
		u.ID, u.Name, u.Note, nullMicros(u.DisabledAt))
}

func (t *tx) DeleteUser(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM users WHERE id = $1", id)
}

const invitationColumns = "id, user_id, code_hash, expires_at, used_at, COALESCE(device_id, ''), created_at"

func scanInvitation(r row) (i control.Invitation, err error) {
	err = r.Scan(&i.ID, &i.UserID, &i.CodeHash, moment{&i.ExpiresAt}, maybeMoment{&i.UsedAt}, &i.DeviceID, moment{&i.CreatedAt})
	return i, err
}

func (t *tx) InsertInvitation(ctx context.Context, i control.Invitation) error {
	_, err := t.exec(ctx, "the user is gone", `INSERT INTO invitations
		(id, user_id, code_hash, expires_at, created_at) VALUES ($1, $2, $3, $4, $5)`,
		i.ID, i.UserID, i.CodeHash, micros(i.ExpiresAt), micros(i.CreatedAt))
	return err
}

func (t *tx) Invitation(ctx context.Context, id string) (control.Invitation, error) {
	return one(ctx, t, scanInvitation, "SELECT "+invitationColumns+" FROM invitations WHERE id = $1"+t.held("invitations"), id)
}

func (t *tx) InvitationByCode(ctx context.Context, codeHash []byte) (control.Invitation, error) {
	return one(ctx, t, scanInvitation, "SELECT "+invitationColumns+" FROM invitations WHERE code_hash = $1"+t.held("invitations"), codeHash)
}

func (t *tx) Invitations(ctx context.Context, userID string, page control.Page) ([]control.Invitation, error) {
	return part(ctx, t, scanInvitation, invitationsOf(userID, page), page)
}

func invitationsOf(userID string, page control.Page) *listing {
	l := ordered("SELECT "+invitationColumns+" FROM invitations", "id", page)
	l.that("user_id = ?", userID)
	return l
}

func (t *tx) RedeemInvitation(ctx context.Context, id, deviceID string, at time.Time) (bool, error) {
	return t.execIf(ctx, "", `UPDATE invitations SET used_at = $3, device_id = $2
		WHERE id = $1 AND used_at IS NULL AND expires_at > $3`, id, deviceID, micros(at))
}

func (t *tx) DeleteInvitation(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM invitations WHERE id = $1", id)
}
