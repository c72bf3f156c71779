package store

import (
	"context"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const userColumns = "id, name, note, disabled_at, created_at"

func scanUser(r row) (u control.User, err error) {
	err = r.Scan(&u.ID, &u.Name, &u.Note, maybeMoment{&u.DisabledAt}, moment{&u.CreatedAt})
	return u, err
}

const userClash = "there is a user with this name"

func (t *tx) InsertUser(ctx context.Context, u control.User) error {
	_, err := t.exec(ctx, userClash, "INSERT INTO users ("+userColumns+") VALUES ($1, $2, $3, $4, $5)",
		u.ID, u.Name, u.Note, nullMicros(u.DisabledAt), micros(u.CreatedAt))
	return err
}

func (t *tx) User(ctx context.Context, id string) (control.User, error) {
	return one(ctx, t, scanUser, "SELECT "+userColumns+" FROM users WHERE id = $1"+t.held("users"), id)
}

func (t *tx) LockUser(ctx context.Context, id string) (control.User, error) {
	return t.User(ctx, id) // which holds it
}

func (t *tx) UserByName(ctx context.Context, name string) (control.User, error) {
	return one(ctx, t, scanUser, "SELECT "+userColumns+" FROM users WHERE name = $1"+t.held("users"), name)
}

func (t *tx) Users(ctx context.Context, name string, page control.Page) ([]control.User, error) {
	return part(ctx, t, scanUser, usersNamed(name, page), page)
}

func usersNamed(name string, page control.Page) *listing {
	l := ordered("SELECT "+userColumns+" FROM users", "id", page)
	l.equal("name", name)
	return l
}

func (t *tx) SearchUsers(ctx context.Context, words string, page control.Page) ([]control.User, error) {
	return part(ctx, t, scanUser, t.search("SELECT "+userColumns+" FROM users", "users", words, page), page)
}

func (t *tx) UpdateUser(ctx context.Context, u control.User) error {
	return t.execOne(ctx, userClash, "UPDATE users SET name = $2, note = $3, disabled_at = $4 WHERE id = $1",
		u.ID, u.Name, u.Note, nullMicros(u.DisabledAt))
}

func (t *tx) DeleteUser(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM users WHERE id = $1", id)
}

const planColumns = "id, name, max_devices, max_sessions, max_streams, max_udp, duration_days, created_at"

func planFields(p *control.Plan) []any {
	return []any{
		&p.ID, &p.Name, &p.MaxDevices, &p.MaxSessions, &p.MaxStreams, &p.MaxUDP, &p.DurationDays, moment{&p.CreatedAt},
	}
}

func scanPlan(r row) (p control.Plan, err error) {
	err = r.Scan(planFields(&p)...)
	return p, err
}

const planClash = "there is a plan with this name"

func (t *tx) InsertPlan(ctx context.Context, p control.Plan) error {
	_, err := t.exec(ctx, planClash, "INSERT INTO plans ("+planColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		p.ID, p.Name, p.MaxDevices, p.MaxSessions, p.MaxStreams, p.MaxUDP, p.DurationDays, micros(p.CreatedAt))
	return err
}

func (t *tx) Plan(ctx context.Context, id string) (control.Plan, error) {
	return one(ctx, t, scanPlan, "SELECT "+planColumns+" FROM plans WHERE id = $1"+t.held("plans"), id)
}

func (t *tx) Plans(ctx context.Context, name string, page control.Page) ([]control.Plan, error) {
	return many(ctx, t, scanPlan, "SELECT "+planColumns+` FROM plans
		WHERE id > $1 AND ($2 = '' OR name = $2) ORDER BY id LIMIT $3`, page.After, name, page.Limit)
}

func (t *tx) UpdatePlan(ctx context.Context, p control.Plan) error {
	return t.execOne(ctx, planClash, `UPDATE plans
		SET name = $2, max_devices = $3, max_sessions = $4, max_streams = $5, max_udp = $6, duration_days = $7 WHERE id = $1`,
		p.ID, p.Name, p.MaxDevices, p.MaxSessions, p.MaxStreams, p.MaxUDP, p.DurationDays)
}

func (t *tx) DeletePlan(ctx context.Context, id string) error {
	return t.execOne(ctx, "the plan has subscriptions", "DELETE FROM plans WHERE id = $1", id)
}

const subscriptionColumns = "s.id, s.user_id, s.plan_id, s.starts_at, s.ends_at, s.created_at"

func subscriptionFields(s *control.Subscription) []any {
	return []any{
		&s.ID, &s.UserID, &s.PlanID, moment{&s.StartsAt}, maybeMoment{&s.EndsAt}, moment{&s.CreatedAt},
	}
}

func scanSubscription(r row) (s control.Subscription, err error) {
	err = r.Scan(subscriptionFields(&s)...)
	return s, err
}

func scanEntitlement(r row) (e control.Entitlement, err error) {
	err = r.Scan(append(subscriptionFields(&e.Subscription), planFields(&e.Plan)...)...)
	return e, err
}

func (t *tx) InsertSubscription(ctx context.Context, s control.Subscription) error {
	_, err := t.exec(ctx, "the user or the plan is gone", `INSERT INTO subscriptions
		(id, user_id, plan_id, starts_at, ends_at, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		s.ID, s.UserID, s.PlanID, micros(s.StartsAt), nullMicros(s.EndsAt), micros(s.CreatedAt))
	return err
}

func (t *tx) Subscription(ctx context.Context, id string) (control.Subscription, error) {
	return one(ctx, t, scanSubscription, "SELECT "+subscriptionColumns+" FROM subscriptions s WHERE s.id = $1"+t.held("s"), id)
}

func (t *tx) Subscriptions(ctx context.Context, userID string, page control.Page) ([]control.Subscription, error) {
	return part(ctx, t, scanSubscription, subscriptionsOf(userID, page), page)
}

func subscriptionsOf(userID string, page control.Page) *listing {
	l := ordered("SELECT "+subscriptionColumns+" FROM subscriptions s", "s.id", page)
	l.equal("s.user_id", userID)
	return l
}

func (t *tx) Entitlements(ctx context.Context, userID string, limit int) ([]control.Entitlement, error) {
	return many(ctx, t, scanEntitlement, "SELECT "+subscriptionColumns+`,
			p.id, p.name, p.max_devices, p.max_sessions, p.max_streams, p.max_udp, p.duration_days, p.created_at
		FROM subscriptions s JOIN plans p ON p.id = s.plan_id WHERE s.user_id = $1
		ORDER BY CASE WHEN s.ends_at IS NULL THEN 0 ELSE 1 END, s.ends_at DESC, s.id DESC LIMIT $2`, userID, limit)
}

func (t *tx) UpdateSubscription(ctx context.Context, s control.Subscription) error {
	return t.execOne(ctx, "", "UPDATE subscriptions SET starts_at = $2, ends_at = $3 WHERE id = $1",
		s.ID, micros(s.StartsAt), nullMicros(s.EndsAt))
}

func (t *tx) DeleteSubscription(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM subscriptions WHERE id = $1", id)
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
