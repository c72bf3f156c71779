package backup

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"filippo.io/age"
)

// formatVersion is that of the lines.
const formatVersion = 1

// Header is what a backup says about itself.
type Header struct {
	Format    int       `json:"httvps_backup"` // 1
	Schema    int64     `json:"schema"`        // the version of the database's
	ServiceID string    `json:"service_id"`
	MadeAt    time.Time `json:"made_at"`
	// Keys are the key-encryption keys that the records' secrets are sealed with, the
	// newest last. They are secrets.
	Keys Keys `json:"keys"`
}

// Keys are key-encryption keys, which print as nothing.
type Keys []string

func (Keys) String() string { return "(secret)" }

// GoString is String.
func (Keys) GoString() string { return "(secret)" }

// bytesValue is a byte string among the values of a row.
type bytesValue struct {
	Bytes []byte `json:"b"`
}

type tableLine struct {
	Table   string   `json:"table"`
	Columns []string `json:"columns"`
}

type endLine struct {
	End  bool             `json:"end"`
	Rows map[string]int64 `json:"rows"`
}

// Writer writes a backup. It implements the store's Rows.
type Writer struct {
	encrypted  io.WriteCloser
	compressed *gzip.Writer
	out        *bufio.Writer
	lines      *json.Encoder

	table string
	rows  map[string]int64
	total int64
}

// NewWriter begins a backup on w that the recovery key with the public half recipient
// opens.
func NewWriter(w io.Writer, recipient string) (*Writer, error) {
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, CheckRecipient(recipient)
	}
	b := &Writer{rows: make(map[string]int64)}
	if b.encrypted, err = age.Encrypt(w, to); err != nil {
		return nil, err
	}
	if b.compressed, err = gzip.NewWriterLevel(b.encrypted, gzip.BestSpeed); err != nil {
		return nil, err
	}
	b.out = bufio.NewWriter(b.compressed)
	b.lines = json.NewEncoder(b.out)
	b.lines.SetEscapeHTML(false)
	return b, nil
}

// Header writes the header, which is the first thing.
func (b *Writer) Header(h Header) error {
	h.Format = formatVersion
	return b.lines.Encode(h)
}

// Begin begins a table.
func (b *Writer) Begin(table string, columns []string) error {
	b.table = table
	b.rows[table] = 0
	return b.lines.Encode(tableLine{table, columns})
}

// Row writes a row of the table that was begun last. A value is nil, an int64, a
// string or a []byte.
func (b *Writer) Row(values []any) error {
	row := make([]any, len(values))
	for i, value := range values {
		switch v := value.(type) {
		case nil, int64:
			row[i] = v
		case string:
			if !utf8.ValidString(v) { // JSON would change it
				return fmt.Errorf("column %d of a row of %s is no text", i+1, b.table)
			}
			row[i] = v
		case []byte:
			row[i] = bytesValue{append([]byte{}, v...)} // not null
		default:
			return fmt.Errorf("column %d of a row of %s is a %T", i+1, b.table, value)
		}
	}
	b.rows[b.table]++
	b.total++
	return b.lines.Encode(row)
}

// Rows returns how many rows were written.
func (b *Writer) Rows() int64 { return b.total }

// Close writes the end, without which a file is no backup. It does not close what is
// written to.
func (b *Writer) Close() error {
	if err := b.lines.Encode(endLine{true, b.rows}); err != nil {
		return err
	}
	if err := b.out.Flush(); err != nil {
		return err
	}
	if err := b.compressed.Close(); err != nil {
		return err
	}
	return b.encrypted.Close()
}
