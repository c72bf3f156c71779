package store

import (
	"context"

	"github.com/httvps/httvps/backend/internal/control"
)

func scanAuditHead(r row) (h control.AuditHead, err error) {
	err = r.Scan(&h.Number, &h.Hash, &h.Signature)
	return h, err
}

func (t *tx) AuditHead(ctx context.Context) (control.AuditHead, error) {
	return one(ctx, t, scanAuditHead, "SELECT number, hash, signature FROM audit_head WHERE id = 1")
}

func (t *tx) LockAudit(ctx context.Context) (control.AuditHead, error) {
	return one(ctx, t, scanAuditHead, "UPDATE audit_head SET number = number WHERE id = 1 RETURNING number, hash, signature")
}

func (t *tx) PutAuditHead(ctx context.Context, h control.AuditHead) error {
	return t.execOne(ctx, "", "UPDATE audit_head SET number = $1, hash = $2, signature = $3 WHERE id = 1", h.Number, h.Hash, h.Signature)
}

const auditColumns = "number, at, action, object_id, actor_kind, actor_id, actor_name, token_id, address, reason, before, after, hash, signature"

func scanAuditEntry(r row) (e control.AuditEntry, err error) {
	err = r.Scan(&e.Number, moment{&e.At}, &e.Action, &e.ObjectID, &e.Actor.Kind, &e.Actor.ID, &e.Actor.Name, &e.Actor.TokenID, &e.Actor.Address,
		&e.Actor.Reason, &e.Before, &e.After, &e.Hash, &e.Signature)
	return e, err
}

func (t *tx) InsertAudit(ctx context.Context, e control.AuditEntry) error {
	_, err := t.exec(ctx, "", "INSERT INTO audit ("+auditColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
		e.Number, micros(e.At), e.Action, e.ObjectID, string(e.Actor.Kind), e.Actor.ID, e.Actor.Name, e.Actor.TokenID, e.Actor.Address,
		e.Actor.Reason, e.Before, e.After, e.Hash, e.Signature)
	return err
}

func (t *tx) AuditEntry(ctx context.Context, number int64) (control.AuditEntry, error) {
	return one(ctx, t, scanAuditEntry, "SELECT "+auditColumns+" FROM audit WHERE number = $1", number)
}

func (t *tx) AuditEntries(ctx context.Context, f control.AuditFilter) ([]control.AuditEntry, error) {
	l := &listing{from: "SELECT " + auditColumns + " FROM audit", order: "number"}
	l.equal("object_id", f.ObjectID)
	l.equal("actor_id", f.ActorID)
	l.equal("action", f.Action)
	switch {
	case f.Oldest:
		l.that("number > ?", f.After)
	case f.After > 0:
		l.that("number < ?", f.After)
	}
	if !f.Oldest {
		l.order = "number DESC"
	}
	return part(ctx, t, scanAuditEntry, l, control.Page{Limit: f.Limit})
}
