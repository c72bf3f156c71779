package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/httvps/httvps/backend/internal/control"
)

// dumped is a table of which a backup holds the rows.
type dumped struct {
	name  string
	since int64  // the version of the schema that has it first
	where string // which rows; empty: all
	// seeded says that the schema itself makes rows.
	seeded bool
}

// dumpedTables are in an order in which none refers to a later one. Every table is
// either here or in undumpedTables; a test finds those that are in neither.
var dumpedTables = []dumped{
	{name: "settings", since: 1, where: "name NOT IN ('" + settingPing + "', 'room')", seeded: true},
	{name: "secrets", since: 1},
	{name: "knock_keys", since: 2},
	{name: "regions", since: 1},
	{name: "plans", since: 1},
	{name: "plan_regions", since: 6},
	{name: "users", since: 1},
	{name: "user_regions", since: 17},
	{name: "subscriptions", since: 1},
	{name: "devices", since: 1},
	{name: "invitations", since: 1},
	{name: "gateways", since: 1},
	{name: "sessions", since: 1},
	{name: "operators", since: 1},
	{name: "api_tokens", since: 1},
	{name: "sign_ins", since: 13},
	{name: "recovery_codes", since: 13},
	{name: "known_clients", since: 13},
	{name: "idempotency_keys", since: 1},
	{name: "event_log", since: 3, seeded: true},
	{name: "usage_reports", since: 5},
	{name: "usage_sessions", since: 5},
	{name: "usage_buckets", since: 5},
	{name: "usage_totals", since: 15},
	{name: "quotas", since: 7},
	{name: "quota_leases", since: 7},
	{name: "outline_servers", since: 8},
	{name: "outline_keys", since: 8},
	{name: "webhooks", since: 18},
	{name: "webhook_secrets", since: 18},
	{name: "audit", since: 11},
	{name: "audit_head", since: 11, seeded: true},
}

// undumpedTables belong to a service that runs, with the reason why nobody misses
// them later.
var undumpedTables = map[string]string{
	sqliteVersions:   "the program that restores makes it",
	postgresVersions: "likewise",
	"events":         "gateways that missed some ask for a snapshot",
	"outline_probes": "gateways probe all the time",

	"device_refusals":      "the next refusal of a device makes another",
	"bulk_jobs":            "what is half done is previewed anew",
	"bulk_objects":         "likewise",
	"logins":               "operators sign in again",
	"webhook_deliveries":   "they may have been sent since: what is true now can be asked for",
	"operator_invitations": "they may have been used since: others are made",
}

// Rows takes the rows of tables, one table after the other. A value is nil, an int64,
// a string or a []byte.
type Rows interface {
	Begin(table string, columns []string) error
	Row(values []any) error
}

// Dump gives rows all records that outlive a service, as of one moment, while
// others go on writing. Before that it calls begin in the same unit of work, with
// the version of the schema. It does not try again: what it gave cannot be taken back.
func (s *Store) Dump(ctx context.Context, begin func(ctx context.Context, t control.Tx, schema int64) error, rows Rows) error {
	sql := dialect{takeTime: s.engine.dialect().takeTime}
	err := s.runOnce(ctx, s.reader, s.reading, sql, func(ctx context.Context, t control.Tx) error {
		unit, ok := t.(*tx)
		if !ok {
			return errOtherUnit
		}
		if err := unit.TakeTime(ctx); err != nil {
			return err
		}
		schema, err := s.engine.version(ctx, unit.conn)
		if err != nil {
			return err
		}
		if err := begin(ctx, t, schema); err != nil {
			return err
		}
		for _, table := range dumpedTables {
			if table.since > schema {
				continue
			}
			if err := unit.dump(ctx, table, rows); err != nil {
				return fmt.Errorf("table %s: %w", table.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return s.databaseError(err)
	}
	return nil
}

func (t *tx) dump(ctx context.Context, table dumped, rows Rows) error {
	query := "SELECT * FROM " + table.name
	if table.where != "" {
		query += " WHERE " + table.where
	}
	found, err := t.conn.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer found.Close() //nolint:errcheck // Err below says what went wrong
	columns, err := found.Columns()
	if err != nil {
		return err
	}
	if err := rows.Begin(table.name, columns); err != nil {
		return err
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for found.Next() {
		if err := found.Scan(into...); err != nil {
			return err
		}
		for i, value := range values {
			if text, ok := value.([]byte); ok && text == nil {
				values[i] = []byte{} // what SQLite's driver says of empty ones, and would take for NULL
			}
		}
		if err := rows.Row(values); err != nil {
			return err
		}
	}
	return found.Err()
}

// counts returns how many rows each table has that a backup holds, without those that it
// leaves out.
func (t *tx) counts(ctx context.Context, schema int64) (map[string]int64, error) {
	counts := make(map[string]int64)
	for _, table := range dumpedTables {
		if table.since > schema {
			continue
		}
		query := "SELECT COUNT(*) FROM " + table.name
		if table.where != "" {
			query += " WHERE " + table.where
		}
		n, err := one(ctx, t, scanNumber, query)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", table.name, err)
		}
		counts[table.name] = n
	}
	return counts, nil
}

// errUnknownColumn says that a backup has what the schema does not.
var errUnknownColumn = errors.New("the schema has no such table or column")
