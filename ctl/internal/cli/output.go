package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/ctl/internal/terminal"
)

// column is one property of a thing as people read it.
type column[T any] struct {
	title string
	value func(T) string
}

func (a *app) json() bool { return a.flags.output == "json" }

// printObject shows one thing, with the names of what it refers to.
func printObject[T any](a *app, object api.Object[T], columns []column[T], known names) error {
	if a.json() {
		return a.printJSON(object.JSON)
	}
	rows := make([][]string, len(columns))
	for i, c := range columns {
		rows[i] = []string{c.title + ":", known.alone(c.title, c.value(object.Value))}
	}
	return a.printTable(rows)
}

// printList shows a list whose continuation is next, with the names of what it refers
// to.
func printList[T any](a *app, page api.Page[T], columns []column[T], known names) error {
	if a.json() {
		list := struct {
			Items []json.RawMessage `json:"items"`
			Next  *string           `json:"next"`
		}{Items: make([]json.RawMessage, len(page.Items))}
		for i, item := range page.Items {
			list.Items[i] = item.JSON
		}
		if page.Next != "" {
			list.Next = &page.Next
		}
		return a.printJSON(list)
	}
	rows := make([][]string, 1, len(page.Items)+1)
	for _, c := range columns {
		rows[0] = append(rows[0], c.title)
	}
	for _, item := range page.Items {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = known.inList(c.title, c.value(item.Value))
		}
		rows = append(rows, row)
	}
	return a.printTable(rows)
}

func (a *app) printTable(rows [][]string) error {
	w := tabwriter.NewWriter(a.Stdout, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if cell = terminal.Clean(cell); cell == "" {
				cell = "-"
			}
			if i > 0 {
				cell = "\t" + cell
			}
			if _, err := io.WriteString(w, cell); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
	}
	return w.Flush()
}

// printJSON shows v, indented. HTML is none of our business, so & stays &; what
// a terminal could obey is written as an escape, which means the same.
func (a *app) printJSON(v any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return err
	}
	var safe bytes.Buffer
	for _, r := range text.String() {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) && r <= 0xffff {
			fmt.Fprintf(&safe, `\u%04x`, r)
		} else {
			safe.WriteRune(r)
		}
	}
	_, err := a.Stdout.Write(safe.Bytes())
	return err
}

// printSecretLink is printSecret of a link.
func printSecretLink[T any](a *app, object api.Object[T], link, explanation string) error {
	return printSecret(a, object, "link", link, explanation)
}

// printSecret shows what is shown only once: alone on standard output, and what
// it is for beside it. noun is what it is.
func printSecret[T any](a *app, object api.Object[T], noun, secret, explanation string) error {
	if secret == "" {
		return fmt.Errorf("it was made before with this --idempotency-key, and its %s was shown then: make another one", noun)
	}
	a.say("%s", explanation)
	if a.json() {
		return a.printJSON(object.JSON)
	}
	_, err := fmt.Fprintln(a.Stdout, terminal.Clean(secret))
	return err
}

// printDone confirms what leaves no object to show.
func (a *app) printDone(kind, id, done string) error {
	if a.json() {
		return a.printJSON(map[string]any{"id": id, done: true})
	}
	_, err := fmt.Fprintf(a.Stdout, "%s %s %s\n", kind, terminal.Clean(id), done)
	return err
}

func at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func atOr(t *time.Time, never string) string {
	if t == nil {
		return never
	}
	return at(*t)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func count(n int) string { return strconv.Itoa(n) }
