package store

import (
	"slices"
	"strconv"
	"strings"

	"github.com/httvps/httvps/backend/internal/control"
)

// listing is a SELECT of a part of a list. It has only the conditions that the part
// is asked for with, so that the engine finds the index for them.
type listing struct {
	from  string // SELECT … FROM …
	where []string
	order string
	args  []any
}

// that adds a condition, in which each ? stands for the next of args.
func (l *listing) that(condition string, args ...any) {
	for _, arg := range args {
		l.args = append(l.args, arg)
		condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(l.args)), 1)
	}
	l.where = append(l.where, condition)
}

// equal adds a condition unless value is empty.
func (l *listing) equal(column, value string) {
	if value != "" {
		l.that(column+" = ?", value)
	}
}

// query returns the statement with its arguments.
func (l *listing) query(limit int) (string, []any) {
	text := l.from
	if len(l.where) > 0 {
		text += " WHERE " + strings.Join(l.where, " AND ")
	}
	args := append(slices.Clip(l.args), limit)
	return text + " ORDER BY " + l.order + " LIMIT $" + strconv.Itoa(len(args)), args
}

// ordered returns the listing of a table's rows in the order of creation.
func ordered(from, id string, page control.Page) *listing {
	l := &listing{from: from, order: id}
	if page.After != "" {
		l.that(id+" > ?", page.After)
	}
	return l
}

// endOfNames is greater than every character that a name may have.
const endOfNames = "\U0010FFFF"

// search returns the listing of the rows of a table whose name begins with words,
// in the order of their names. Only ASCII letters match in both cases, which both
// engines agree about.
func (t *tx) search(from, table, words string, page control.Page) *listing {
	name := t.sql.fold
	words = strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, words)
	l := &listing{from: from, order: name + ", id"}
	l.that(name+" >= ?", words)
	l.that(name+" < ?", words+endOfNames)
	if page.After != "" {
		l.that("("+name+", id) > (SELECT "+name+", id FROM "+table+" WHERE id = ?)", page.After)
	}
	return l
}
