// Package desired reads what an operator wants a service to be like, from YAML or JSON,
// and says what has to change for that. It asks the service nothing and changes nothing:
// what there is comes in, and changes come out.
//
// What a file does not say stays as it is. Every mistake in it is told at once, with its
// line. Secrets are named by a file or an environment variable and are never part of a
// message.
package desired

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxSize is how much of a file is read, in bytes.
	MaxSize = 4 << 20
	// MaxObjects is how many objects all files together may have.
	MaxObjects = 10_000
	// maxProblems is how many mistakes are told.
	maxProblems = 100
)

// Kind is a kind of object.
type Kind string

// The kinds, in the order in which they are made: each may name those before it.
const (
	Region        Kind = "region"
	Plan          Kind = "plan"
	OutlineServer Kind = "outline_server"
	User          Kind = "user"
)

// Kinds returns all of them in that order.
func Kinds() []Kind { return []Kind{Region, Plan, OutlineServer, User} }

// section is the key of a list of objects of a kind.
func (k Kind) section() string { return string(k) + "s" }

// naming is the key by which an object of a kind is found again.
func (k Kind) naming() string {
	if k == Region {
		return "code"
	}
	return "name"
}

// Object is what is wanted of one object.
type Object struct {
	Kind Kind
	Name string
	At   string // the file and the line
	// Fields are as the API has them: bool, int64, string, []string or []int64. A nil is
	// no limit at all in a plan, and the plan's in the limits of a user.
	Fields map[string]any
	// Own are a user's own limits, likewise.
	Own map[string]any
	// Plan and EndsAt are of a user's subscription; empty: nothing is said of it.
	Plan   string
	EndsAt string
	// KeyFile and KeyVariable say where an Outline server's access key is.
	KeyFile, KeyVariable string

	lines map[string]int
}

// Wanted is everything that files say.
type Wanted struct {
	Objects []Object
	// Said are the kinds of which there is a list, be it an empty one.
	Said map[Kind]bool

	problems []error
	seen     map[Kind]map[string]string // where the object with a name is
}

// MistakeError is a mistake in a file.
type MistakeError struct {
	At     string // the file and the line
	Key    string // dotted; empty: it is about the whole
	Detail string
}

func (p *MistakeError) Error() string {
	if p.Key == "" {
		return p.At + ": " + p.Detail
	}
	return p.At + ": " + p.Key + ": " + p.Detail
}

// Read adds what a file says, which may hold several documents.
func (w *Wanted) Read(name string, from io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(from, MaxSize+1))
	if err != nil {
		return err
	}
	if len(text) > MaxSize {
		return fmt.Errorf("%s: larger than %d bytes", name, MaxSize)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for documents := 0; ; documents++ {
		var document yaml.Node
		err := decoder.Decode(&document)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			w.problem(name, "", "%s", strings.TrimPrefix(err.Error(), "yaml: "))
			return nil
		case documents >= MaxObjects:
			w.problem(name, "", "more than %d documents", MaxObjects)
			return nil
		}
		r := reader{Wanted: w, file: name}
		if root := resolved(document.Content[0]); root.Kind != yaml.ScalarNode || root.ShortTag() != "!!null" {
			r.document(root)
		}
	}
}

// Err returns all mistakes that were found, joined, or nil.
func (w *Wanted) Err() error {
	found := w.problems
	if more := len(found) - maxProblems; more > 0 {
		found = append(slices.Clone(found[:maxProblems]), fmt.Errorf("and %d more mistakes", more))
	}
	return errors.Join(found...)
}

func (w *Wanted) problem(at, key, format string, args ...any) {
	w.problems = append(w.problems, &MistakeError{At: at, Key: key, Detail: fmt.Sprintf(format, args...)})
}

// reader goes through one file.
type reader struct {
	*Wanted
	file string
}

func (r *reader) at(node *yaml.Node) string { return fmt.Sprintf("%s:%d", r.file, node.Line) }

// each calls with every key of a mapping once and its value. A key that comes twice is a
// mistake.
func (r *reader) each(node *yaml.Node, path string, do func(key, value *yaml.Node)) {
	if node.Kind != yaml.MappingNode {
		r.problem(r.at(node), path, "want keys with values")
		return
	}
	first := make(map[string]int)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], resolved(node.Content[i+1])
		if line, seen := first[key.Value]; seen {
			r.problem(r.at(key), join(path, key.Value), "given twice, first on line %d", line)
			continue
		}
		first[key.Value] = key.Line
		do(key, value)
	}
}

func (r *reader) document(root *yaml.Node) {
	r.each(root, "", func(key, value *yaml.Node) {
		i := slices.IndexFunc(Kinds(), func(k Kind) bool { return k.section() == key.Value })
		if i < 0 {
			r.problem(r.at(key), key.Value, "unknown key: want regions, plans, outline_servers or users")
			return
		}
		kind := Kinds()[i]
		if value.Kind != yaml.SequenceNode {
			r.problem(r.at(value), key.Value, "want a list")
			return
		}
		if r.Said == nil {
			r.Said = make(map[Kind]bool)
		}
		r.Said[kind] = true
		for n, item := range value.Content {
			if len(r.Objects) >= MaxObjects {
				r.problem(r.at(item), key.Value, "more than %d objects in all", MaxObjects)
				return
			}
			r.object(kind, resolved(item), fmt.Sprintf("%s[%d]", key.Value, n))
		}
	})
}

func (r *reader) object(kind Kind, node *yaml.Node, path string) {
	o := Object{Kind: kind, At: r.at(node), Fields: map[string]any{}, lines: map[string]int{}}
	fields := fieldsOf[kind]
	r.each(node, path, func(key, value *yaml.Node) {
		o.lines[key.Value] = value.Line
		field, known := fields[key.Value]
		switch at := join(path, key.Value); {
		case !known:
			r.problem(r.at(key), at, "unknown key: want %s", keysOf(fields))
		case field.refused != "":
			r.problem(r.at(key), at, "%s", field.refused)
		case field.own:
			o.Own = map[string]any{}
			r.each(value, at, func(key, value *yaml.Node) {
				o.lines["limits."+key.Value] = value.Line
				limit, known := limitFields[key.Value]
				if !known {
					r.problem(r.at(key), join(at, key.Value), "unknown key: want %s", keysOf(limitFields))
					return
				}
				if v, ok := r.value(limit, value, join(at, key.Value)); ok {
					o.Own[key.Value] = v
				}
			})
		default:
			v, ok := r.value(field, value, at)
			if !ok {
				return
			}
			text, _ := v.(string)
			switch key.Value {
			case kind.naming():
				o.Name = text
			case "access_key_file":
				o.KeyFile = text
			case "access_key_env":
				o.KeyVariable = text
			case "ends_at":
				o.EndsAt = text
			case "plan":
				o.Plan = text
			default:
				o.Fields[key.Value] = v
			}
		}
	})
	if node.Kind == yaml.MappingNode {
		r.judge(&o, path)
	}
	r.Objects = append(r.Objects, o)
}

// judge looks at an object as a whole.
func (r *reader) judge(o *Object, path string) {
	if _, said := o.lines[o.Kind.naming()]; !said {
		r.problem(o.At, path, "has no %s", o.Kind.naming())
	}
	if o.KeyFile != "" && o.KeyVariable != "" {
		r.problem(o.At, path, "access_key_file and access_key_env say the same thing: give one")
	}
	if o.EndsAt != "" && o.Plan == "" {
		r.problem(o.At, path, "ends_at is of the subscription to a plan: give plan, too")
	}
	if o.Name == "" {
		return
	}
	if r.seen == nil {
		r.seen = make(map[Kind]map[string]string)
	}
	if r.seen[o.Kind] == nil {
		r.seen[o.Kind] = make(map[string]string)
	}
	if first, twice := r.seen[o.Kind][o.Name]; twice {
		r.problem(o.At, path, "the %s %q is given twice, first at %s", o.Kind.Words(), o.Name, first)
		return
	}
	r.seen[o.Kind][o.Name] = o.At
}

// Words is what people call a kind.
func (k Kind) Words() string {
	if k == OutlineServer {
		return "Outline server"
	}
	return string(k)
}

func resolved(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
