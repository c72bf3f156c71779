package control

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Restoration says which backup a service comes from.
type Restoration struct {
	ServiceID string
	MadeAt    time.Time // when the backup was made
	Schema    int64     // the version of the schema that it was made of
}

type restoring interface {
	// SettleRestored makes of the records of a service that ran when the backup was made
	// those of one that does not: its sessions have ended as lost, at madeAt; no gateway
	// has been heard of; invitations and join links that nobody had used by then work no
	// more; and the log of events goes on at a version that it has never had, so
	// that every gateway asks for a snapshot.
	SettleRestored(ctx context.Context, madeAt, now time.Time) error
}

// FinishRestore makes a service of records that were put back, in the unit of work that
// did so: it settles them, seals all secrets with the newest key of sealer, which
// must be able to open them, and adds an entry to the audit log.
func FinishRestore(ctx context.Context, tx Tx, sealer Sealer, from Restoration, now func() time.Time) error {
	log := &auditing{sealer: sealer, now: now}
	unit := &audited{Tx: tx, now: now}
	if err := unit.SettleRestored(ctx, from.MadeAt, now()); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	for _, link := range []string{settingBootstrap, settingRescue} {
		if err := dropSetting(ctx, tx, link); err != nil {
			return err
		}
	}
	if _, err := reseal(ctx, unit, sealer, sealer.Newest()); err != nil {
		return err
	}
	unit.note(ctx, "service.restored", from.ServiceID, nil, view{"made_at": moment(&from.MadeAt), "schema": from.Schema})
	return log.chain(ctx, unit)
}

// dropSetting forgets a setting, if it is there: a one-time link may have been used
// since the backup was made.
func dropSetting(ctx context.Context, tx Tx, name string) error {
	value, err := tx.Setting(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		_, err = tx.TakeSetting(ctx, name, value)
	}
	return err
}

// ServiceIDOf returns what the service in a store is called, and ErrNotFound when there
// is none.
func ServiceIDOf(ctx context.Context, tx Tx) (string, error) {
	return tx.Setting(ctx, settingServiceID)
}
