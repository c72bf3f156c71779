package store

import (
	"context"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const signInColumns = "s.operator_id, s.password, s.sealed_totp, s.last_step, s.guesses_back, s.failures, s.changed_at"

func signInFields(s *control.SignIn) []any {
	return []any{&s.OperatorID, &s.Password, &s.SealedTOTP, &s.LastStep, moment{&s.GuessesBack}, &s.Failures, moment{&s.ChangedAt}}
}

func scanSignIn(r row) (s control.SignIn, err error) {
	err = r.Scan(signInFields(&s)...)
	return s, err
}

func scanSigner(r row) (a control.Account, err error) {
	fields := []any{&a.ID, &a.Name, &a.Role, maybeMoment{&a.DisabledAt}, moment{&a.CreatedAt}}
	err = r.Scan(append(fields, signInFields(&a.SignIn)...)...)
	return a, err
}

const signers = "SELECT " + operatorColumns + ", " + signInColumns + " FROM operators o JOIN sign_ins s ON s.operator_id = o.id WHERE o.disabled_at IS NULL"

func (t *tx) AccountByName(ctx context.Context, name string) (control.Account, error) {
	return one(ctx, t, scanSigner, signers+" AND o.name = $1", name)
}

func (t *tx) AccountOf(ctx context.Context, operatorID string) (control.Account, error) {
	return one(ctx, t, scanSigner, signers+" AND o.id = $1", operatorID)
}

func (t *tx) SignIn(ctx context.Context, operatorID string) (control.SignIn, error) {
	return one(ctx, t, scanSignIn, "SELECT "+signInColumns+" FROM sign_ins s WHERE s.operator_id = $1"+t.held("s"), operatorID)
}

func (t *tx) PutSignIn(ctx context.Context, s control.SignIn) error {
	_, err := t.exec(ctx, "", `INSERT INTO sign_ins (operator_id, password, sealed_totp, last_step, guesses_back, failures, changed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (operator_id) DO UPDATE SET password = excluded.password, sealed_totp = excluded.sealed_totp, last_step = excluded.last_step,
			guesses_back = excluded.guesses_back, failures = excluded.failures, changed_at = excluded.changed_at`,
		s.OperatorID, s.Password, s.SealedTOTP, s.LastStep, micros(s.GuessesBack), s.Failures, micros(s.ChangedAt))
	return err
}

func (t *tx) NoteSignIn(ctx context.Context, s control.SignIn) error {
	return t.execOne(ctx, "", "UPDATE sign_ins SET last_step = $2, guesses_back = $3, failures = $4 WHERE operator_id = $1",
		s.OperatorID, s.LastStep, micros(s.GuessesBack), s.Failures)
}

func (t *tx) AddFailures(ctx context.Context, operatorID string, n int) error {
	return t.execOne(ctx, "", "UPDATE sign_ins SET failures = failures + $2 WHERE operator_id = $1", operatorID, n)
}

func (t *tx) DeleteSignIns(ctx context.Context) (int, error) {
	if _, err := t.exec(ctx, "", "DELETE FROM operator_invitations"); err != nil {
		return 0, err
	}
	return t.exec(ctx, "", "DELETE FROM sign_ins") // with what refers to them
}

func (t *tx) PutRecoveryCodes(ctx context.Context, operatorID string, hashes [][]byte) error {
	if _, err := t.exec(ctx, "", "DELETE FROM recovery_codes WHERE operator_id = $1", operatorID); err != nil {
		return err
	}
	for _, hash := range hashes {
		if _, err := t.exec(ctx, "", "INSERT INTO recovery_codes (operator_id, hash) VALUES ($1, $2)", operatorID, hash); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) HasRecoveryCode(ctx context.Context, operatorID string, hash []byte) (bool, error) {
	n, err := one(ctx, t, scanCount, "SELECT COUNT(*) FROM recovery_codes WHERE operator_id = $1 AND hash = $2", operatorID, hash)
	return n > 0, err
}

func (t *tx) CountRecoveryCodes(ctx context.Context, operatorID string) (int, error) {
	return one(ctx, t, scanCount, "SELECT COUNT(*) FROM recovery_codes WHERE operator_id = $1", operatorID)
}

func (t *tx) TakeRecoveryCode(ctx context.Context, operatorID string, hash []byte) (bool, error) {
	return t.execIf(ctx, "", "DELETE FROM recovery_codes WHERE operator_id = $1 AND hash = $2", operatorID, hash)
}

func scanKnownClient(r row) (k control.KnownClient, err error) {
	err = r.Scan(&k.OperatorID, &k.Hash, moment{&k.GuessesBack}, moment{&k.SeenAt}, moment{&k.CreatedAt})
	return k, err
}

func (t *tx) KnownClient(ctx context.Context, operatorID string, hash []byte) (control.KnownClient, error) {
	return one(ctx, t, scanKnownClient, "SELECT operator_id, hash, guesses_back, seen_at, created_at FROM known_clients WHERE operator_id = $1 AND hash = $2"+
		t.held("known_clients"), operatorID, hash)
}

func (t *tx) PutKnownClient(ctx context.Context, k control.KnownClient) error {
	_, err := t.exec(ctx, "", `INSERT INTO known_clients (operator_id, hash, guesses_back, seen_at, created_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (operator_id, hash) DO UPDATE SET guesses_back = excluded.guesses_back, seen_at = excluded.seen_at`,
		k.OperatorID, k.Hash, micros(k.GuessesBack), micros(k.SeenAt), micros(k.CreatedAt))
	return err
}

func (t *tx) DropKnownClients(ctx context.Context, operatorID string, keep int) error {
	_, err := t.exec(ctx, "", `DELETE FROM known_clients WHERE operator_id = $1 AND hash NOT IN
		(SELECT hash FROM known_clients WHERE operator_id = $1 ORDER BY seen_at DESC, hash LIMIT $2)`, operatorID, keep)
	return err
}

func scanOperatorInvitation(r row) (i control.OperatorInvitation, err error) {
	err = r.Scan(&i.OperatorID, &i.CodeHash, moment{&i.ExpiresAt}, moment{&i.CreatedAt})
	return i, err
}

func (t *tx) PutOperatorInvitation(ctx context.Context, i control.OperatorInvitation) error {
	_, err := t.exec(ctx, "", `INSERT INTO operator_invitations (operator_id, code_hash, expires_at, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (operator_id) DO UPDATE SET code_hash = excluded.code_hash, expires_at = excluded.expires_at, created_at = excluded.created_at`,
		i.OperatorID, i.CodeHash, micros(i.ExpiresAt), micros(i.CreatedAt))
	return err
}

func (t *tx) OperatorInvitation(ctx context.Context, codeHash []byte) (control.OperatorInvitation, error) {
	return one(ctx, t, scanOperatorInvitation, "SELECT operator_id, code_hash, expires_at, created_at FROM operator_invitations WHERE code_hash = $1", codeHash)
}

func (t *tx) TakeOperatorInvitation(ctx context.Context, codeHash []byte) (bool, error) {
	return t.execIf(ctx, "", "DELETE FROM operator_invitations WHERE code_hash = $1", codeHash)
}

const loginColumns = "l.id, l.operator_id, l.hash, l.cookie, l.address, l.created_at, l.seen_at, l.ends_at, l.expires_at"

func loginFields(l *control.Login) []any {
	return []any{
		&l.ID, &l.OperatorID, &l.Hash, &l.Cookie, &l.Address, moment{&l.CreatedAt}, moment{&l.SeenAt}, moment{&l.EndsAt}, moment{&l.ExpiresAt},
	}
}

func scanLogin(r row) (l control.Login, err error) {
	err = r.Scan(loginFields(&l)...)
	return l, err
}

func (t *tx) InsertLogin(ctx context.Context, l control.Login) error {
	_, err := t.exec(ctx, "", `INSERT INTO logins (id, operator_id, hash, cookie, address, created_at, seen_at, ends_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		l.ID, l.OperatorID, l.Hash, oneIf(l.Cookie), l.Address, micros(l.CreatedAt), micros(l.SeenAt), micros(l.EndsAt), micros(l.ExpiresAt))
	return err
}

func (t *tx) Login(ctx context.Context, id string) (control.Login, error) {
	return one(ctx, t, scanLogin, "SELECT "+loginColumns+" FROM logins l WHERE l.id = $1"+t.held("l"), id)
}

func (t *tx) Logins(ctx context.Context, operatorID string, now time.Time, page control.Page) ([]control.Login, error) {
	l := ordered("SELECT "+loginColumns+" FROM logins l", "l.id", page)
	l.equal("l.operator_id", operatorID)
	l.that("l.ends_at > ?", micros(now))
	return part(ctx, t, scanLogin, l, page)
}

// OperatorByLogin gives the token what an API token of the operator would have.
func (t *tx) OperatorByLogin(ctx context.Context, hash []byte, cookie bool, now time.Time) (control.Bearer, error) {
	return one(ctx, t, func(r row) (b control.Bearer, err error) {
		var l control.Login
		fields := []any{&b.ID, &b.Name, &b.Role, maybeMoment{&b.DisabledAt}, moment{&b.CreatedAt}}
		err = r.Scan(append(fields, loginFields(&l)...)...)
		b.Login = &l
		b.Token = control.APIToken{ID: l.ID, OperatorID: l.OperatorID, Role: b.Role, Hash: l.Hash, ExpiresAt: l.ExpiresAt, CreatedAt: l.CreatedAt}
		return b, err
	}, "SELECT "+operatorColumns+", "+loginColumns+` FROM operators o JOIN logins l ON l.operator_id = o.id
		WHERE l.hash = $1 AND l.cookie = $2 AND l.ends_at > $3 AND o.disabled_at IS NULL`, hash, oneIf(cookie), micros(now))
}

func (t *tx) TouchLogin(ctx context.Context, l control.Login) error {
	return t.execOne(ctx, "", "UPDATE logins SET seen_at = $2, ends_at = $3 WHERE id = $1", l.ID, micros(l.SeenAt), micros(l.EndsAt))
}

func (t *tx) DeleteLogin(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM logins WHERE id = $1", id)
}

func (t *tx) DeleteLogins(ctx context.Context) (int, error) {
	return t.exec(ctx, "", "DELETE FROM logins")
}
