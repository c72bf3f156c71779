package store

import (
	"context"
	"fmt"

	"github.com/httvps/httvps/backend/internal/control"
)

// sealedColumn is a column that holds sealed secrets.
type sealedColumn struct {
	table, column string
	row           string // the expression that names a row, in the place that its secret is sealed for
}

// sealedColumns are all of them: what is not here keeps the key that a rotation
// replaces. Their names begin with "sealed", and a test finds those that are
// missing by that.
var sealedColumns = []sealedColumn{
	{table: "secrets", column: "sealed", row: "kind || '/' || id"},
	{table: "knock_keys", column: "sealed", row: "CAST(number AS TEXT)"},
	{table: "sign_ins", column: "sealed_totp", row: "operator_id"},
	{table: "webhook_secrets", column: "sealed", row: "webhook_id || '/' || CAST(generation AS TEXT)"},
	{table: "outline_keys", column: "sealed", row: "server_id || '/' || CAST(generation AS TEXT)"},
}

// SealedValues implements control.Tx.
func (t *tx) SealedValues(ctx context.Context) ([]control.SealedValue, error) {
	var all []control.SealedValue
	for _, c := range sealedColumns {
		values, err := many(ctx, t, func(r row) (control.SealedValue, error) {
			v := control.SealedValue{Table: c.table, Column: c.column}
			err := r.Scan(&v.Row, &v.Sealed)
			return v, err
		}, fmt.Sprintf("SELECT %s, %s FROM %s WHERE %[2]s IS NOT NULL ORDER BY 1", c.row, c.column, c.table))
		if err != nil {
			return nil, err
		}
		all = append(all, values...)
	}
	return all, nil
}

// ReplaceSealed implements control.Tx. Only the value that was read is replaced:
// of one that has changed or gone in the meantime there is nothing to keep.
func (t *tx) ReplaceSealed(ctx context.Context, v control.SealedValue, sealed []byte) error {
	for _, c := range sealedColumns {
		if c.table == v.Table && c.column == v.Column {
			_, err := t.exec(ctx, "", fmt.Sprintf("UPDATE %s SET %s = $1 WHERE %s = $2 AND %[2]s = $3", c.table, c.column, c.row), sealed, v.Row, v.Sealed)
			return err
		}
	}
	return fmt.Errorf("%s.%s holds no sealed values", v.Table, v.Column)
}
