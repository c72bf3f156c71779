package store

import (
	"context"
	"fmt"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

func scanText(r row) (s string, err error) {
	err = r.Scan(&s)
	return s, err
}

func scanCount(r row) (n int, err error) {
	err = r.Scan(&n)
	return n, err
}

func (t *tx) Setting(ctx context.Context, name string) (string, error) {
	return one(ctx, t, scanText, "SELECT value FROM settings WHERE name = $1"+t.held("settings"), name)
}

func (t *tx) PutSetting(ctx context.Context, name, value string) error {
	_, err := t.exec(ctx, "", `INSERT INTO settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

func (t *tx) TakeSetting(ctx context.Context, name, value string) (bool, error) {
	return t.execIf(ctx, "", "DELETE FROM settings WHERE name = $1 AND value = $2", name, value)
}

func scanSecret(r row) (s control.SealedSecret, err error) {
	err = r.Scan(&s.ID, &s.Kind, &s.Sealed, moment{&s.CreatedAt})
	return s, err
}

func (t *tx) Secrets(ctx context.Context, kind string) ([]control.SealedSecret, error) {
	return many(ctx, t, scanSecret, "SELECT id, kind, sealed, created_at FROM secrets WHERE kind = $1 ORDER BY id DESC", kind)
}

func (t *tx) InsertSecret(ctx context.Context, s control.SealedSecret) error {
	_, err := t.exec(ctx, "", "INSERT INTO secrets (id, kind, sealed, created_at) VALUES ($1, $2, $3, $4)",
		s.ID, s.Kind, s.Sealed, micros(s.CreatedAt))
	return err
}

func (t *tx) DeleteSecret(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM secrets WHERE id = $1", id)
}

// HasSecrets reports whether the service has secrets, which only the
// key-encryption key they were sealed with opens.
func (s *Store) HasSecrets(ctx context.Context) (bool, error) {
	n, err := scanCount(s.reader.QueryRowContext(ctx, "SELECT COUNT(*) FROM secrets"))
	if err != nil {
		return false, fmt.Errorf("query: %w", err)
	}
	return n > 0, nil
}

func scanOnceResult(r row) (o control.OnceResult, err error) {
	var request []byte
	err = r.Scan(&request, &o.ObjectID, moment{&o.CreatedAt})
	copy(o.Request[:], request)
	return o, err
}

func (t *tx) OnceResult(ctx context.Context, operatorID, key string) (control.OnceResult, error) {
	// A key that is not there cannot be held, so that two requests at once both
	// find nothing: the second waits for its turn.
	if err := t.turn(ctx, "once "+operatorID+" "+key); err != nil {
		return control.OnceResult{}, err
	}
	return one(ctx, t, scanOnceResult,
		"SELECT request, object_id, created_at FROM idempotency_keys WHERE operator_id = $1 AND key = $2", operatorID, key)
}

func (t *tx) InsertOnceResult(ctx context.Context, operatorID, key string, o control.OnceResult) error {
	_, err := t.exec(ctx, "a request with this idempotency key is being answered", `INSERT INTO idempotency_keys
		(operator_id, key, request, object_id, created_at) VALUES ($1, $2, $3, $4, $5)`,
		operatorID, key, o.Request[:], o.ObjectID, micros(o.CreatedAt))
	return err
}

const operatorColumns = "o.id, o.name, o.role, o.disabled_at, o.created_at"

func scanOperator(r row) (o control.Operator, err error) {
	err = r.Scan(&o.ID, &o.Name, &o.Role, maybeMoment{&o.DisabledAt}, moment{&o.CreatedAt})
	return o, err
}

func (t *tx) CountOperators(ctx context.Context) (int, error) {
	return one(ctx, t, scanCount, "SELECT COUNT(*) FROM operators")
}

func (t *tx) InsertOperator(ctx context.Context, o control.Operator) error {
	_, err := t.exec(ctx, "there is an operator with this name",
		"INSERT INTO operators (id, name, role, disabled_at, created_at) VALUES ($1, $2, $3, $4, $5)",
		o.ID, o.Name, string(o.Role), nullMicros(o.DisabledAt), micros(o.CreatedAt))
	return err
}

func (t *tx) UpdateOperator(ctx context.Context, o control.Operator) error {
	return t.execOne(ctx, "there is an operator with this name",
		"UPDATE operators SET name = $2, role = $3, disabled_at = $4 WHERE id = $1", o.ID, o.Name, string(o.Role), nullMicros(o.DisabledAt))
}

func (t *tx) DeleteOperator(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM operators WHERE id = $1", id)
}

func (t *tx) Operator(ctx context.Context, id string) (control.Operator, error) {
	return one(ctx, t, scanOperator, "SELECT "+operatorColumns+" FROM operators o WHERE o.id = $1"+t.held("o"), id)
}

func (t *tx) Operators(ctx context.Context, name string, page control.Page) ([]control.Operator, error) {
	l := ordered("SELECT "+operatorColumns+" FROM operators o", "o.id", page)
	l.equal("o.name", name)
	return part(ctx, t, scanOperator, l, page)
}

func (t *tx) OperatorByName(ctx context.Context, name string) (control.Operator, error) {
	return one(ctx, t, scanOperator, "SELECT "+operatorColumns+" FROM operators o WHERE o.name = $1", name)
}

func (t *tx) OldestOperator(ctx context.Context, role control.Role, except string) (control.Operator, error) {
	return one(ctx, t, scanOperator, "SELECT "+operatorColumns+` FROM operators o
		WHERE o.role = $1 AND o.disabled_at IS NULL AND o.id <> $2 ORDER BY o.id LIMIT 1`, string(role), except)
}

const tokenColumns = "id, operator_id, role, hash, expires_at, created_at" //nolint:gosec // names of columns

func scanAPIToken(r row) (k control.APIToken, err error) {
	err = r.Scan(&k.ID, &k.OperatorID, &k.Role, &k.Hash, moment{&k.ExpiresAt}, moment{&k.CreatedAt})
	return k, err
}

func (t *tx) APIToken(ctx context.Context, id string) (control.APIToken, error) {
	return one(ctx, t, scanAPIToken, "SELECT "+tokenColumns+" FROM api_tokens WHERE id = $1", id)
}

func (t *tx) APITokens(ctx context.Context, operatorID string, page control.Page) ([]control.APIToken, error) {
	l := ordered("SELECT "+tokenColumns+" FROM api_tokens", "id", page)
	l.equal("operator_id", operatorID)
	return part(ctx, t, scanAPIToken, l, page)
}

func (t *tx) DeleteAPIToken(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM api_tokens WHERE id = $1", id)
}

func (t *tx) DeleteAPITokens(ctx context.Context) (int, error) {
	return t.exec(ctx, "", "DELETE FROM api_tokens")
}

func (t *tx) InsertAPIToken(ctx context.Context, k control.APIToken) error {
	_, err := t.exec(ctx, "", "INSERT INTO api_tokens ("+tokenColumns+") VALUES ($1, $2, $3, $4, $5, $6)",
		k.ID, k.OperatorID, string(k.Role), k.Hash, micros(k.ExpiresAt), micros(k.CreatedAt))
	return err
}

func scanBearer(r row) (b control.Bearer, err error) {
	err = r.Scan(&b.ID, &b.Name, &b.Role, maybeMoment{&b.DisabledAt}, moment{&b.CreatedAt},
		&b.Token.ID, &b.Token.OperatorID, &b.Token.Role, &b.Token.Hash, moment{&b.Token.ExpiresAt}, moment{&b.Token.CreatedAt})
	return b, err
}

func (t *tx) OperatorByToken(ctx context.Context, hash []byte, now time.Time) (control.Bearer, error) {
	return one(ctx, t, scanBearer, "SELECT "+operatorColumns+`, k.id, k.operator_id, k.role, k.hash, k.expires_at, k.created_at
		FROM operators o JOIN api_tokens k ON k.operator_id = o.id
		WHERE k.hash = $1 AND k.expires_at > $2 AND o.disabled_at IS NULL`, hash, micros(now))
}

// The rows to delete are chosen once and for all (MATERIALIZED): a plan that chose
// again for each row would find others to choose.

func (t *tx) PruneInvitations(ctx context.Context, expiredBefore time.Time, limit int) (int, error) {
	return t.exec(ctx, "", "WITH old AS MATERIALIZED (SELECT id FROM invitations WHERE expires_at < $1 LIMIT $2"+t.unheld("invitations")+`)
		DELETE FROM invitations WHERE id IN (SELECT id FROM old)`, micros(expiredBefore), limit)
}

func (t *tx) PruneSessions(ctx context.Context, endedBefore time.Time, limit int) (int, error) {
	return t.exec(ctx, "", "WITH old AS MATERIALIZED (SELECT id FROM sessions WHERE ended_at < $1 LIMIT $2"+t.unheld("sessions")+`)
		DELETE FROM sessions WHERE id IN (SELECT id FROM old)`, micros(endedBefore), limit)
}

func (t *tx) PruneOnceResults(ctx context.Context, createdBefore time.Time, limit int) (int, error) {
	return t.exec(ctx, "", `WITH old AS MATERIALIZED (SELECT operator_id, key FROM idempotency_keys
			WHERE created_at < $1 LIMIT $2`+t.unheld("idempotency_keys")+`)
		DELETE FROM idempotency_keys WHERE (operator_id, key) IN (SELECT operator_id, key FROM old)`, micros(createdBefore), limit)
}

func (t *tx) PruneLogins(ctx context.Context, endedBefore time.Time, limit int) (int, error) {
	return t.exec(ctx, "", "WITH old AS MATERIALIZED (SELECT id FROM logins WHERE ends_at < $1 LIMIT $2"+t.unheld("logins")+`)
		DELETE FROM logins WHERE id IN (SELECT id FROM old)`, micros(endedBefore), limit)
}

func (t *tx) PruneAPITokens(ctx context.Context, expiredBefore time.Time, limit int) (int, error) {
	return t.exec(ctx, "", "WITH old AS MATERIALIZED (SELECT id FROM api_tokens WHERE expires_at < $1 LIMIT $2"+t.unheld("api_tokens")+`)
		DELETE FROM api_tokens WHERE id IN (SELECT id FROM old)`, micros(expiredBefore), limit)
}
