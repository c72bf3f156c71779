// Package apidiff finds what a new version of an OpenAPI 3.1 document breaks for
// clients of the old one. It knows what our documents use: local references,
// objects, lists, bounds, patterns and enumerations; no oneOf, anyOf or allOf.
package apidiff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Breaking returns every change from before to after that can break a client, in
// the order of paths. What is only added is none, except values that an answer may
// have and things that a request must have.
func Breaking(before, after []byte) ([]string, error) {
	for _, composed := range []string{`"oneOf"`, `"anyOf"`, `"allOf"`} {
		if bytes.Contains(after, []byte(composed)) {
			return nil, fmt.Errorf("document after: it has %s, which is not compared", composed)
		}
	}
	var d diff
	if err := json.Unmarshal(before, &d.before); err != nil {
		return nil, fmt.Errorf("document before: %w", err)
	}
	if err := json.Unmarshal(after, &d.after); err != nil {
		return nil, fmt.Errorf("document after: %w", err)
	}
	for _, path := range sorted(d.before.Paths) {
		for _, method := range sorted(d.before.Paths[path]) {
			at := strings.ToUpper(method) + " " + path
			now, ok := d.after.Paths[path][method]
			if !ok {
				d.say(at, "is gone")
				continue
			}
			d.operation(at, d.before.Paths[path][method], now)
		}
	}
	return d.found, nil
}

type document struct {
	Paths      map[string]map[string]operation
	Security   []map[string][]string
	Components struct {
		Schemas         map[string]*schema
		SecuritySchemes map[string]json.RawMessage
	}
}

type operation struct {
	OperationID string
	Parameters  []parameter
	RequestBody *struct {
		Required bool
		Content  map[string]media
	}
	Responses map[string]struct {
		Content map[string]media
		Headers map[string]any
	}
	Security *[]map[string][]string
}

type parameter struct {
	In, Name string
	Required bool
	Schema   *schema
}

type media struct{ Schema *schema }

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Enum                 []any
	Format, Pattern      string
	Minimum, Maximum     *float64
	ExclusiveMinimum     *float64
	ExclusiveMaximum     *float64
	MinLength, MaxLength *float64
	MinItems, MaxItems   *float64
	Properties           map[string]*schema
	Required             []string
	Items                *schema
	AdditionalProperties json.RawMessage
}

// direction is who sends what a schema describes.
type direction string

const (
	request  direction = "request"
	response direction = "response"
)

// maxDepth is how many objects in each other are looked at.
const maxDepth = 12

type diff struct {
	before, after document
	found         []string
}

func (d *diff) say(at, what string) { d.found = append(d.found, at+": "+what) }

func (d *diff) operation(at string, was, now operation) {
	if was.OperationID != now.OperationID {
		d.say(at, "operation id "+was.OperationID+" is now "+now.OperationID)
	}
	if a, b := d.security(d.before, was), d.security(d.after, now); a != b {
		d.say(at, "asks for another credential: "+a+" is now "+b)
	}
	for _, p := range was.Parameters {
		name := p.In + " " + p.Name
		i := slices.IndexFunc(now.Parameters, func(q parameter) bool { return q.In == p.In && q.Name == p.Name })
		if i < 0 {
			d.say(at, name+" is gone")
			continue
		}
		if now.Parameters[i].Required && !p.Required {
			d.say(at, name+" is required now")
		}
		d.schema(at+" "+name, request, p.Schema, now.Parameters[i].Schema)
	}
	for _, q := range now.Parameters {
		if q.Required && !slices.ContainsFunc(was.Parameters, func(p parameter) bool { return q.In == p.In && q.Name == p.Name }) {
			d.say(at, q.In+" "+q.Name+" is required now")
		}
	}
	d.body(at, was, now)
	for _, status := range sorted(was.Responses) {
		place := at + " " + status
		answer, ok := now.Responses[status]
		if !ok {
			d.say(place, "is gone")
			continue
		}
		d.content(place, response, was.Responses[status].Content, answer.Content)
		for _, header := range sorted(was.Responses[status].Headers) {
			if _, ok := answer.Headers[header]; !ok {
				d.say(place, "header "+header+" is gone")
			}
		}
	}
}

func (d *diff) body(at string, was, now operation) {
	switch {
	case now.RequestBody == nil && was.RequestBody != nil:
		d.say(at, "takes no body any more")
	case now.RequestBody == nil:
	case was.RequestBody == nil:
		if now.RequestBody.Required {
			d.say(at, "a body is required now")
		}
	default:
		if now.RequestBody.Required && !was.RequestBody.Required {
			d.say(at, "a body is required now")
		}
		d.content(at+" body", request, was.RequestBody.Content, now.RequestBody.Content)
	}
}

// security says which credentials open an operation, with what they are.
func (d *diff) security(doc document, op operation) string {
	needs := doc.Security
	if op.Security != nil {
		needs = *op.Security
	}
	var all []string
	for _, alternative := range needs {
		var one []string
		for _, name := range sorted(alternative) {
			var scheme struct{ Type, Scheme, In, Name string }
			_ = json.Unmarshal(doc.Components.SecuritySchemes[name], &scheme) // what is missing reads as nothing
			one = append(one, strings.TrimSpace(fmt.Sprint(name, " ", scheme.Type, " ", scheme.Scheme, " ", scheme.In, " ", scheme.Name)))
		}
		all = append(all, strings.Join(one, " and "))
	}
	if len(all) == 0 {
		return "nothing"
	}
	slices.Sort(all)
	return strings.Join(all, " or ")
}

func (d *diff) content(at string, by direction, was, now map[string]media) {
	for _, kind := range sorted(was) {
		if _, ok := now[kind]; !ok {
			d.say(at, kind+" is gone")
			continue
		}
		d.schema(at, by, was[kind].Schema, now[kind].Schema)
	}
}

func (d *diff) schema(at string, by direction, was, now *schema) {
	was, now = d.before.resolve(was), d.after.resolve(now)
	if was == nil || now == nil {
		if (was == nil) != (now == nil) {
			d.say(at, "is described now, or no longer")
		}
		return
	}
	// A schema may hold itself. Paths have dots too, hardly ever more than one.
	if strings.Count(at, ".") > maxDepth {
		return
	}
	d.values(at, by, was, now)
	if by == request {
		d.bounds(at, was, now)
	}
	for _, name := range sorted(was.Properties) {
		place := at + "." + name
		property, ok := now.Properties[name]
		if !ok {
			d.say(place, "is gone")
			continue
		}
		d.schema(place, by, was.Properties[name], property)
		if by == response && slices.Contains(was.Required, name) && !slices.Contains(now.Required, name) {
			d.say(place, "may be absent now")
		}
	}
	if by == request {
		for _, name := range now.Required {
			if !slices.Contains(was.Required, name) {
				d.say(at+"."+name, "is required now")
			}
		}
	}
	if was.Items != nil || now.Items != nil {
		d.schema(at+"[]", by, was.Items, now.Items)
	}
	if string(was.AdditionalProperties) != string(now.AdditionalProperties) && (by == response || string(now.AdditionalProperties) == "false") {
		d.say(at, "other members than before")
	}
}

// values compares what kinds of values there are.
func (d *diff) values(at string, by direction, was, now *schema) {
	narrow, wide := was, now // who sends must keep to what who reads expects
	if by == response {
		narrow, wide = now, was
	}
	kinds := list(wide.Type)
	for _, kind := range list(narrow.Type) {
		fits := slices.Contains(kinds, kind) || kind == "integer" && slices.Contains(kinds, "number")
		if len(kinds) > 0 && !fits {
			d.say(at, fmt.Sprintf("type %v is now %v", list(was.Type), list(now.Type)))
			break
		}
	}
	if was.Format != now.Format && (by == response || now.Format != "") {
		d.say(at, fmt.Sprintf("format %q is now %q", was.Format, now.Format))
	}
	if len(wide.Enum) == 0 {
		return
	}
	if len(narrow.Enum) == 0 {
		d.say(at, "which values there are has changed")
		return
	}
	for _, value := range narrow.Enum {
		if !slices.Contains(wide.Enum, value) {
			if by == request {
				d.say(at, fmt.Sprintf("%v is not taken any more", value))
			} else {
				d.say(at, fmt.Sprintf("%v is a new value", value))
			}
		}
	}
}

// bounds compares what a request may hold.
func (d *diff) bounds(at string, was, now *schema) {
	for _, b := range []struct {
		name     string
		was, now *float64
		lowest   bool
	}{
		{"minimum", was.Minimum, now.Minimum, true},
		{"exclusiveMinimum", was.ExclusiveMinimum, now.ExclusiveMinimum, true},
		{"minLength", was.MinLength, now.MinLength, true},
		{"minItems", was.MinItems, now.MinItems, true},
		{"maximum", was.Maximum, now.Maximum, false},
		{"exclusiveMaximum", was.ExclusiveMaximum, now.ExclusiveMaximum, false},
		{"maxLength", was.MaxLength, now.MaxLength, false},
		{"maxItems", was.MaxItems, now.MaxItems, false},
	} {
		switch {
		case b.now == nil:
		case b.was == nil:
			d.say(at, fmt.Sprintf("%s is now %v", b.name, *b.now))
		case b.lowest && *b.now > *b.was, !b.lowest && *b.now < *b.was:
			d.say(at, fmt.Sprintf("%s %v is now %v", b.name, *b.was, *b.now))
		}
	}
	if now.Pattern != "" && now.Pattern != was.Pattern {
		d.say(at, fmt.Sprintf("pattern %q is now %q", was.Pattern, now.Pattern))
	}
}

func (doc document) resolve(s *schema) *schema {
	for range 10 { // a reference to a reference is rare, a circle a mistake
		if s == nil || s.Ref == "" {
			return s
		}
		s = doc.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return nil
}

// list returns a type as a list of types.
func list(kind any) []string {
	switch kind := kind.(type) {
	case string:
		return []string{kind}
	case []any:
		all := make([]string, 0, len(kind))
		for _, one := range kind {
			all = append(all, fmt.Sprint(one))
		}
		return all
	default:
		return nil
	}
}

func sorted[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
