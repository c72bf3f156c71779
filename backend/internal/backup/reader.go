package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"

	"filippo.io/age"
)

const (
	// maxLine bounds a row; the longest have a few KiB.
	maxLine = 4 << 20
	// maxTables and maxColumns bound what is remembered of a file.
	maxTables  = 256
	maxColumns = 256
)

var (
	// ErrForeign says that a file is no backup of this program.
	ErrForeign = errors.New("it is no backup of this program")
	// ErrOtherKey says that a backup was made for another recovery key.
	ErrOtherKey = errors.New("it was made for another recovery key than this one")
	// ErrDamaged says that a backup was changed or cut off.
	ErrDamaged = errors.New("it is damaged or incomplete: take another one")
	// ErrNewerFormat says that a newer version of this program made a backup.
	ErrNewerFormat = errors.New("a newer version of this program made it: restore it with that one")
)

// Rows takes the rows of tables, one table after the other.
type Rows interface {
	Begin(table string, columns []string) error
	Row(values []any) error
}

// Reader reads a backup once, from its beginning to its end, in memory of a bounded
// size.
type Reader struct {
	Header Header
	lines  *bufio.Reader
	line   []byte
}

// Open reads the header of a backup.
func Open(r io.Reader, key *age.X25519Identity) (*Reader, error) {
	plain, err := age.Decrypt(bufio.NewReaderSize(r, 1<<16), key)
	if _, other := errors.AsType[*age.NoIdentityMatchError](err); other {
		return nil, ErrOtherKey
	}
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrForeign, err)
	}
	return open(plain)
}

// open reads what was decrypted: whoever has the public half can encrypt anything.
func open(plain io.Reader) (*Reader, error) {
	unpacked, err := gzip.NewReader(plain)
	if errors.Is(err, gzip.ErrHeader) {
		return nil, fmt.Errorf("%w (%w)", ErrForeign, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	b := &Reader{lines: bufio.NewReaderSize(unpacked, 1<<16)}
	if err := b.next(); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b.line, &b.Header); err != nil || b.Header.Format < 1 {
		return nil, ErrForeign
	}
	if b.Header.Format > formatVersion {
		return nil, ErrNewerFormat
	}
	return b, nil
}

// next reads a line, which holds until the next one.
func (b *Reader) next() error {
	b.line = b.line[:0]
	for {
		part, err := b.lines.ReadSlice('\n')
		b.line = append(b.line, part...)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("%w (%w)", ErrDamaged, noEOF(err))
		case len(b.line) > maxLine:
			return fmt.Errorf("%w (a line of more than %d bytes)", ErrDamaged, maxLine)
		}
	}
}

// noEOF is for where the end is not expected.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Read gives all rows to rows and returns how many there were of each table. When it
// returns no error, nothing is missing and nothing follows.
func (b *Reader) Read(rows Rows) (map[string]int64, error) {
	counts := make(map[string]int64)
	var table string
	columns := 0
	for {
		if err := b.next(); err != nil {
			return nil, err
		}
		if b.line[0] == '[' {
			values, err := parseRow(b.line)
			if err != nil || table == "" || len(values) != columns {
				return nil, fmt.Errorf("%w (a row of table %q)", ErrDamaged, table)
			}
			counts[table]++
			if err := rows.Row(values); err != nil {
				return nil, err
			}
			continue
		}
		var line struct {
			tableLine
			endLine
		}
		if err := json.Unmarshal(b.line, &line); err != nil {
			return nil, fmt.Errorf("%w (a line that is none)", ErrDamaged)
		}
		if line.End {
			return counts, b.end(counts, line.Rows)
		}
		if _, twice := counts[line.Table]; twice || line.Table == "" || len(line.Columns) == 0 || len(line.Columns) > maxColumns || len(counts) == maxTables {
			return nil, fmt.Errorf("%w (the beginning of a table)", ErrDamaged)
		}
		table, columns = line.Table, len(line.Columns)
		counts[table] = 0
		if err := rows.Begin(table, line.Columns); err != nil {
			return nil, err
		}
	}
}

// end reads to the end, which age and gzip only then have looked at.
func (b *Reader) end(counts, said map[string]int64) error {
	if _, err := b.lines.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("something follows its end")
		}
		return fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	if !maps.Equal(counts, said) {
		return fmt.Errorf("%w (its tables have other numbers of rows than it says)", ErrDamaged)
	}
	return nil
}

// parseRow reads the values of a row.
func parseRow(line []byte) ([]any, error) {
	var cells []json.RawMessage
	if err := json.Unmarshal(line, &cells); err != nil {
		return nil, err
	}
	if len(cells) > maxColumns {
		return nil, errors.New("too many columns")
	}
	values := make([]any, len(cells))
	for i, cell := range cells {
		var err error
		switch cell[0] {
		case 'n':
		case '"':
			var text string
			err = json.Unmarshal(cell, &text)
			values[i] = text
		case '{':
			var b struct {
				Bytes *[]byte `json:"b"`
			}
			if err = json.Unmarshal(cell, &b); err == nil && b.Bytes == nil {
				err = errors.New("no bytes")
			}
			if err == nil {
				values[i] = append([]byte{}, *b.Bytes...)
			}
		default:
			values[i], err = strconv.ParseInt(string(bytes.TrimSpace(cell)), 10, 64)
		}
		if err != nil {
			return nil, err
		}
	}
	return values, nil
}
