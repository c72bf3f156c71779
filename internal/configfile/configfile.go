// Package configfile fills a configuration struct from a YAML file and the
// environment, strictly: a key or variable that means nothing is an error, so
// a misspelt setting never silently keeps its default.
//
// A field takes part when it has tags, a nested struct joins its own with a
// prefix, and everything else stays as the caller set it:
//
//	type Config struct {
//		Listen string              `yaml:"listen" env:"LISTEN"`
//		Drain  configfile.Duration `yaml:"drain" env:"DRAIN"`
//		TLS    struct {
//			CertFile string `yaml:"cert_file" env:"CERT_FILE"`
//		} `yaml:"tls" envPrefix:"TLS_"`
//		Log *slog.Logger `yaml:"-"`
//	}
//
//	config := Default()
//	err := configfile.Load(path, "HTTVPS_GATEWAY_", &config, os.Environ())
//
// Messages name the file, line and key, or the variable. They never repeat a
// value that failed to parse as a number, a truth value or a duration: it may
// be a secret in the wrong place.
package configfile

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
	"go.yaml.in/yaml/v3"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

// SettingError is one mistake in a configuration.
type SettingError struct {
	// Source says where: a file with its line, or an environment variable.
	Source string
	// Key is the dotted path of the key in a file, or empty.
	Key string
	// Detail says what is wrong, without a secret's value.
	Detail string
}

func (e *SettingError) Error() string {
	if e.Key == "" {
		return e.Source + ": " + e.Detail
	}
	return fmt.Sprintf("%s: %s: %s", e.Source, e.Key, e.Detail)
}

// Load fills into, a pointer to a struct that holds the defaults, from the
// YAML file at path and then from those variables of environ ("NAME=value", as
// os.Environ returns them) whose names begin with prefix. An empty path means
// no file. Absent keys, keys without a value and empty variables change nothing.
//
// All mistakes are reported at once: the error joins one [*SettingError] for each,
// or says why the file could not be read. After an error, into is half filled
// and must not be used.
//
// In the environment a list is written with commas, and lists of structs cannot
// be given. Variables that Kubernetes makes for a service of the same name
// (PREFIX_SERVICE_HOST and its kind) are not taken for settings.
func Load(path, prefix string, into any, environ []string) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() || target.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("configuration goes into a pointer to a struct, not %T", into)
	}
	var problems []error
	if path != "" {
		found, err := loadFile(path, target.Elem())
		if err != nil {
			return err
		}
		problems = found
	}
	found, err := loadEnvironment(prefix, into, environ)
	if err != nil {
		return err
	}
	return errors.Join(append(problems, found...)...)
}

// loadFile returns the mistakes in the file, or why it could not be read.
func loadFile(path string, target reflect.Value) ([]error, error) {
	file, err := os.Open(path) //nolint:gosec // the operator says which file
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(text) > MaxSize {
		return []error{&SettingError{Source: path, Detail: fmt.Sprintf("larger than %d bytes", MaxSize)}}, nil
	}

	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil // nothing but comments
	case err != nil:
		return []error{&SettingError{Source: path, Detail: strings.TrimPrefix(err.Error(), "yaml: ")}}, nil
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return []error{&SettingError{Source: path, Detail: "holds more than one YAML document"}}, nil
	}
	reader := fileReader{path: path}
	if root := document.Content[0]; !isNull(root) {
		if of, key := owner(resolved(root), target); of != "" {
			return []error{&SettingError{
				Source: fmt.Sprintf("%s:%d", path, key.Line), Key: key.Value,
				Detail: "is a setting of " + of + ": this file is for that program",
			}}, nil
		}
		reader.structure(root, target, "")
	}
	return reader.problems, nil
}

// fileReader walks a document and a struct side by side. yaml's own strict mode
// stops at the first value that a TextUnmarshaler refuses, repeats values and
// names Go types instead of keys.
type fileReader struct {
	path     string
	problems []error
}

func (r *fileReader) problem(node *yaml.Node, key, format string, args ...any) {
	r.problems = append(r.problems, &SettingError{
		Source: fmt.Sprintf("%s:%d", r.path, node.Line),
		Key:    key,
		Detail: fmt.Sprintf(format, args...),
	})
}

// structure fills target from a mapping; key is the path that leads to it.
func (r *fileReader) structure(node *yaml.Node, target reflect.Value, key string) {
	node = resolved(node)
	if node.Kind != yaml.MappingNode {
		r.problem(node, key, "want keys with values")
		return
	}
	fields := settings(target)
	firstLine := make(map[string]int)
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		path := join(key, name.Value)
		field, known := fields[name.Value]
		switch line, seen := firstLine[name.Value]; {
		case !known:
			r.problem(name, path, "unknown key")
		case seen:
			r.problem(name, path, "given twice, first on line %d", line)
		default:
			firstLine[name.Value] = name.Line
			r.value(value, field, path)
		}
	}
}

// settings are the fields of a struct that take part, by their keys.
func settings(target reflect.Value) map[string]reflect.Value {
	fields := make(map[string]reflect.Value)
	for field, value := range target.Fields() {
		if name := keyOf(field); name != "" {
			fields[name] = value
		}
	}
	return fields
}

// keyOf is the key of a field, or nothing.
func keyOf(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	if name == "-" || !field.IsExported() {
		return ""
	}
	return name
}

// value fills one field.
func (r *fileReader) value(node *yaml.Node, target reflect.Value, key string) {
	node = resolved(node)
	if isNull(node) {
		return
	}
	if text, ok := reflect.TypeAssert[encoding.TextUnmarshaler](target.Addr()); ok {
		if node.Kind != yaml.ScalarNode {
			r.problem(node, key, "want a single value")
		} else if err := text.UnmarshalText([]byte(node.Value)); err != nil {
			r.problem(node, key, "%s", inWords(err))
		}
		return
	}
	switch {
	case target.Kind() == reflect.Struct:
		r.structure(node, target, key)
	case target.Kind() == reflect.Slice && node.Kind == yaml.SequenceNode:
		items := reflect.MakeSlice(target.Type(), len(node.Content), len(node.Content))
		for i, item := range node.Content {
			r.value(item, items.Index(i), fmt.Sprintf("%s[%d]", key, i))
		}
		target.Set(items)
	default:
		if err := node.Decode(target.Addr().Interface()); err != nil {
			r.problem(node, key, "%s", want(target.Type()))
		}
	}
}

// resolved follows an alias to what it stands for.
func resolved(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// serviceLink matches what follows the prefix in the variables that Kubernetes
// sets in every pod for a service whose name gives our prefix.
var serviceLink = regexp.MustCompile(`^(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) ||
		(name == "PORT" || strings.HasSuffix(name, "_PORT")) && strings.Contains(value, "://")
}

// loadEnvironment returns the mistakes in the environment, or why into cannot
// be filled from one.
func loadEnvironment(prefix string, into any, environ []string) ([]error, error) {
	params, err := env.GetFieldParamsWithOptions(into, env.Options{Prefix: prefix})
	if err != nil {
		return nil, fmt.Errorf("configuration tags of %T: %w", into, err)
	}
	known := make(map[string]bool, len(params))
	for _, param := range params {
		known[param.Key] = true
	}

	variables := slices.Clone(environ)
	slices.SortStableFunc(variables, func(a, b string) int { // for messages in a stable order
		nameA, _, _ := strings.Cut(a, "=")
		nameB, _, _ := strings.Cut(b, "=")
		return cmp.Compare(nameA, nameB)
	})
	var problems []error
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		suffix, ours := strings.CutPrefix(name, prefix)
		if !ours {
			continue
		}
		if !known[name] {
			if !isServiceLink(suffix, value) {
				problems = append(problems, &SettingError{Source: name, Detail: "unknown environment variable"})
			}
			continue
		}
		// One variable at a time, so that a message can name it: the library's
		// errors know only the Go field.
		err := env.ParseWithOptions(into, env.Options{
			Prefix:      prefix,
			Environment: map[string]string{name: value},
		})
		if err != nil {
			problems = append(problems, &SettingError{Source: name, Detail: explain(err)})
		}
	}
	return problems, nil
}

// explain says what is wrong with a variable's value.
func explain(err error) string {
	var parse env.ParseError
	if !errors.As(err, &parse) {
		return err.Error()
	}
	kind := parse.Type
	if kind.Kind() == reflect.Slice && !readsText(kind) {
		kind = kind.Elem()
	}
	if readsText(kind) {
		return inWords(parse.Err)
	}
	return want(kind)
}

// prefixError is how package netip begins its complaint about a prefix.
var prefixError = regexp.MustCompile(`^netip\.ParsePrefix\(("(?:[^"\\]|\\.)*")\): (?:ParseAddr\("(?:[^"\\]|\\.)*"\): )?`)

// inWords is what a value's own type says, without the name of a function.
func inWords(err error) string {
	return prefixError.ReplaceAllString(err.Error(), "$1 is not address/length: ")
}

func readsText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// want says what a value of type t looks like.
func want(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "want true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("want a whole number of at most %d bits", t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("want a whole number of at most %d bits, not negative", t.Bits())
	case reflect.Float32, reflect.Float64:
		return "want a number"
	case reflect.String:
		return "want text"
	case reflect.Slice:
		return "want a list"
	case reflect.Map:
		return "want names with values"
	case reflect.Pointer:
		return want(t.Elem())
	default:
		return "cannot be read as " + t.String()
	}
}
